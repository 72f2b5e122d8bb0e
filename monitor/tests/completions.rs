//! Completions as real shells do them, and the manual as its readers read it.

mod support;

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use support::{reader, readers, root};

/// What the command prints.
fn said(args: &[&str]) -> String {
    let output =
        Command::new(env!("CARGO_BIN_EXE_netns-monitor")).args(args).output().expect("netns-monitor");
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text")
}

/// A folder of a test's own, with the completions of a shell in it that take names from that folder.
fn completions(shell: &str) -> (PathBuf, PathBuf) {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("completions-{shell}"));
    let names = folder.join("netns");
    fs::create_dir_all(&names).expect("a folder");
    for name in ["blue", "red", "$(reboot)", "a'b"] {
        fs::write(names.join(name), "").expect("a file");
    }
    let script = said(&["completions", shell]);
    assert!(script.contains("/run/netns/"), "{shell}");
    let file = folder.join("_netns-monitor");
    fs::write(&file, script.replace("/run/netns/", &format!("{}/", names.display()))).expect("a file");
    (folder, file)
}

fn lines(output: Output) -> Vec<String> {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    let text = String::from_utf8(output.stdout).expect("text");
    let mut lines: Vec<String> = text.lines().map(|line| line.trim_end().to_owned()).collect();
    lines.sort();
    lines
}

/// What is typed, and what it may become. The last word is the one that is completed.
const CASES: [(&[&str], &[&str]); 9] = [
    (&["sho"], &["show"]),
    (&["graph", "--form"], &["--format"]),
    (&["graph", "--format", ""], &["dot", "json", "mermaid", "svg"]),
    (&["show", "r"], &["red"]),
    (&["--watch.source", "named", "why", "bl"], &["blue"]),
    (&["graph", "blue", "re"], &["red"]),
    (&["completions", ""], &["bash", "fish", "zsh"]),
    (&["config", "ch"], &["check"]),
    (&["config", "example", "d"], &["docker0"]),
];

#[test]
fn bash_completes_commands_options_values_and_names() {
    let (_, file) = completions("bash");
    let complete = |words: &[&str]| {
        let script = format!(
            ". '{}'\nCOMP_WORDS=(netns-monitor \"$@\"); COMP_CWORD=$#\n\
             function=$(complete -p netns-monitor | sed 's/.*-F \\([^ ]*\\).*/\\1/')\n\
             $function netns-monitor \"${{COMP_WORDS[COMP_CWORD]}}\" \"${{COMP_WORDS[COMP_CWORD-1]}}\"\n\
             if [ ${{#COMPREPLY[@]}} -gt 0 ]; then printf '%s\\n' \"${{COMPREPLY[@]}}\"; fi\n",
            file.display()
        );
        lines(
            Command::new("bash").args(["--norc", "-c", &script, "bash"]).args(words).output().expect("bash"),
        )
    };
    for (words, expected) in CASES {
        assert_eq!(complete(words), expected, "{words:?}");
    }
    // Quoted, so that a name is a word and nothing is run.
    assert_eq!(complete(&["holders", ""]), ["\\$\\(reboot\\)", "a\\'b", "blue", "red"]);
    // Nothing of ours: bash then completes names of files.
    for words in [
        &["apply", ""][..],
        &["config", "check", ""],
        &["exec", "blue", "--", "l"],
        &["show", "--run-dir", "/e"],
    ] {
        let found = complete(words);
        assert!(found.is_empty() || found == ["/etc"], "{words:?}: {found:?}");
    }
}

#[test]
fn fish_completes_commands_options_values_and_names() {
    let (folder, file) = completions("fish");
    let complete = |words: &[&str]| {
        let script = format!(
            "set fish_function_path '{}'; source '{}'; complete -C \"$argv[1]\"",
            readers().join("usr/share/fish/functions").display(),
            file.display()
        );
        let mut fish = reader("fish");
        let typed = format!("netns-monitor {}", words.join(" "));
        fish.env("HOME", &folder).current_dir(&folder).args(["--no-config", "-c", &script, &typed]);
        let found = lines(fish.output().expect("fish"));
        found.iter().map(|line| line.split('\t').next().unwrap_or_default().to_owned()).collect::<Vec<_>>()
    };
    for (words, expected) in CASES {
        assert_eq!(complete(words), expected, "{words:?}");
    }
    assert_eq!(complete(&["holders", ""]), ["$(reboot)", "a'b", "blue", "red"]);
}

#[test]
fn zsh_completes_commands_options_values_and_names() {
    let (folder, file) = completions("zsh");
    let zsh = readers();
    let library = fs::read_dir(zsh.join("usr/lib")).expect("libraries").flatten();
    let modules =
        library.map(|entry| entry.path().join("zsh/5.9")).find(|path| path.is_dir()).expect("modules");
    // A shell inside the shell, as somebody would type into it; what is offered is shown between two marks.
    let functions: Vec<String> = folders(&zsh.join("usr/share/zsh/functions"));
    let setup = format!(
        "module_path=('{}'); fpath=({}); autoload -Uz compinit; compinit -u -D; source '{}'; compdef _netns-monitor netns-monitor\n\
         PS1=; bindkey '^I' complete-word; zstyle ':completion:*' list-grouped false; LISTMAX=1000; unsetopt automenu\n\
         show() {{ compstate[list]=; compstate[insert]=; }}\n\
         compadd() {{ if [[ ${{@[1,(i)(-|--)]}} == *-(O|A|D)\\ * ]]; then builtin compadd \"$@\"; return; fi; \
           local -a found; builtin compadd -A found -D ignored \"$@\"; local one; for one in $found; do print -r -- \"OFFER $one\"; done; builtin compadd \"$@\"; }}\n\
         done-completing() {{ print -r -- END; zle send-break; }}; zle -N done-completing; bindkey '^X' done-completing; print READY",
        modules.display(),
        functions.join(" "),
        file.display()
    );
    let setup_file = folder.join("setup.zsh");
    fs::write(&setup_file, setup).expect("a file");
    let script = format!(
        "module_path=('{}'); zmodload zsh/zpty\n\
         zpty shell '{}' -f -i\n\
         zpty -w shell \"source '{}'\"; zpty -r shell line '*READY*' || exit 3\n\
         zpty -w -n shell \"$1\"$'\\t\\x18'\n\
         while zpty -r shell line; do print -r -- $line; [[ $line == *END* ]] && break; done\n\
         zpty -d shell",
        modules.display(),
        zsh.join("bin/zsh").display(),
        setup_file.display()
    );
    let complete = |words: &[&str]| {
        let typed = format!("netns-monitor {}", words.join(" "));
        let mut command = reader("zsh");
        command.env("HOME", &folder).current_dir(&folder).args(["-f", "-c", &script, "zsh", &typed]);
        let output = command.output().expect("zsh");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let offered =
            text.lines().filter_map(|line| line.split_once("OFFER ")).map(|(_, word)| word.trim().to_owned());
        let mut offered: Vec<String> = offered.collect();
        offered.sort();
        offered.dedup();
        offered
    };
    for (words, expected) in CASES {
        assert_eq!(complete(words), expected, "{words:?}");
    }
}

fn folders(of: &Path) -> Vec<String> {
    let mut found = vec![format!("'{}'", of.display())];
    for entry in fs::read_dir(of).expect("a folder").flatten().filter(|entry| entry.path().is_dir()) {
        found.extend(folders(&entry.path()));
    }
    found
}

#[test]
fn mandoc_and_man_have_nothing_to_say_against_the_manual() {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("manual");
    if folder.exists() {
        fs::remove_dir_all(&folder).expect("an old one");
    }
    said(&["man", folder.to_str().expect("text")]);
    let mut pages: Vec<PathBuf> =
        fs::read_dir(&folder).expect("pages").flatten().map(|entry| entry.path()).collect();
    pages.sort();
    assert!(pages.len() > 20, "{pages:?}");
    let output = reader("mandoc").args(["-Tlint", "-Wwarning"]).args(&pages).output().expect("mandoc");
    let known = [
        "missing date, using \"\": TH",
        "skipping paragraph macro: br before sp",
        "skipping paragraph macro: br after sp",
    ];
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let said: Vec<&str> =
        text.lines().filter(|line| !known.iter().any(|known| line.ends_with(known))).collect();
    assert!(said.is_empty(), "{said:#?}");
    for page in &pages {
        let output = reader("mandoc").args(["-Tutf8"]).arg(page).output().expect("mandoc");
        let text = String::from_utf8(output.stdout).expect("text");
        for heading in ["NAME", "DESCRIPTION", "SEE ALSO"] {
            assert!(text.contains(&bold(heading)), "{}: {heading}\n{text}", page.display());
        }
    }
    // Every key of the file is told.
    let file = fs::read_to_string(folder.join("netns-monitor.toml.5")).expect("a page");
    let source = fs::read_to_string(root().join("monitor/src/config/file.rs")).expect("the source");
    let keys = source.lines().filter_map(|line| line.trim().strip_prefix("pub(super) ")?.split_once(": "));
    let keys: Vec<&str> = keys.map(|(key, _)| key).filter(|key| !key.contains(' ')).collect();
    assert!(keys.len() > 50, "{keys:?}");
    for key in keys {
        let (written, table) = (if key == "kind" { "type" } else { key }, format!(".SH [[{key}]]"));
        assert!(file.contains(&format!("\\fB{written}\\fR (")) || file.contains(&table), "{key}");
    }
}

/// As a terminal shows it: each letter over itself.
fn bold(text: &str) -> String {
    text.chars().map(|c| if c == ' ' { " ".to_owned() } else { format!("{c}\u{8}{c}") }).collect()
}
