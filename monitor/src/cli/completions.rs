//! `netns-monitor completions SHELL`.

use std::io;

use clap::{Args, Command, CommandFactory as _, ValueEnum};
use clap_complete::Shell as Generator;

use super::{Cli, print};
use crate::agent::Failure;

const NAME: &str = "netns-monitor";

/// The argument whose values are names of namespaces.
const NETNS: &str = "netns";

/// Options of `completions`.
#[derive(Debug, Args)]
pub(super) struct Options {
    /// The shell
    #[arg(value_enum)]
    shell: Shell,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Shell {
    /// For /usr/share/bash-completion/completions/netns-monitor
    Bash,
    /// For /usr/share/zsh/vendor-completions/_netns-monitor
    Zsh,
    /// For /usr/share/fish/vendor_completions.d/netns-monitor.fish
    Fish,
}

pub(super) fn run(Options { shell }: &Options) -> Result<(), Failure> {
    let text = script(*shell).map_err(|error| Failure::Failed(anyhow::Error::from(error)))?;
    print(&text)
}

/// What clap writes knows no names of namespaces; they are added, as files of the directory, which needs no root.
fn script(shell: Shell) -> Result<String, io::Error> {
    let mut command = Cli::command();
    let generator = match shell {
        Shell::Bash => Generator::Bash,
        Shell::Zsh => Generator::Zsh,
        Shell::Fish => Generator::Fish,
    };
    let mut text = Vec::new();
    clap_complete::generate(generator, &mut command, NAME, &mut text);
    let text = String::from_utf8(text).map_err(io::Error::other)?;
    Ok(match shell {
        Shell::Bash => {
            // Clap takes the dash in the name for one before a subcommand at one place, and not at the other.
            let text = text.replace("netns__subcmd__monitor", "netns__monitor");
            let more = bash(&command, &text);
            text + &more
        }
        Shell::Zsh => zsh(&text),
        Shell::Fish => text + &fish(&command),
    })
}

/// Names of the subcommands for which `of` says so.
fn subcommands(command: &Command, of: impl Fn(&Command) -> bool) -> Vec<&str> {
    command.get_subcommands().filter(|sub| of(sub)).map(Command::get_name).collect()
}

fn takes_netns(command: &Command) -> bool {
    command.get_positionals().any(|arg| arg.get_id() == NETNS)
}

/// A word of its own that is none of a few: a file, a command.
fn takes_other(command: &Command) -> bool {
    !takes_netns(command) && command.get_positionals().any(|arg| arg.get_possible_values().is_empty())
}

/// Options that take a value, of the whole command.
fn with_value(command: &Command) -> Vec<String> {
    let all = command.get_subcommands().chain([command]).flat_map(Command::get_arguments);
    let mut options: Vec<String> = all
        .filter(|arg| arg.get_action().takes_values())
        .filter_map(|arg| Some(format!("--{}", arg.get_long()?)))
        .collect();
    options.sort();
    options.dedup();
    options
}

/// Clap's own offers options, and a placeholder, where a word is expected.
fn bash(command: &Command, text: &str) -> String {
    let function = text.lines().find_map(|line| line.strip_suffix("() {")).unwrap_or_default();
    let names = subcommands(command, takes_netns).join("|");
    let others = subcommands(command, takes_other).join("|");
    let with_value = with_value(command).join("|");
    format!(
        r#"
# Names of namespaces where a command takes one; files where it takes another word.
_netns_monitor_words() {{
    {function} "$@"
    local cur="${{COMP_WORDS[COMP_CWORD]}}" word path name
    [[ $cur == -* ]] && return 0
    local -a found=("${{COMPREPLY[@]}}")
    COMPREPLY=()
    for word in "${{found[@]}}"; do
        [[ $word == [-\<\[]* ]] || COMPREPLY+=("$word")
    done
    case "${{COMP_WORDS[COMP_CWORD-1]}}" in
        {with_value}) return 0 ;;
    esac
    local command= is_value=
    for word in "${{COMP_WORDS[@]:1:COMP_CWORD-1}}"; do
        if [[ $word == -- ]]; then
            COMPREPLY=()
            return 0
        fi
        [[ -n $command ]] && continue
        case "${{is_value:-$word}}" in
            value) is_value= ;;
            {with_value}) is_value=value ;;
            -*) ;;
            *) command="$word" ;;
        esac
    done
    case "$command" in
        {names})
            COMPREPLY=()
            for path in /run/netns/*; do
                name="${{path##*/}}"
                [[ -e $path && $name == "$cur"* ]] && COMPREPLY+=("$(printf '%q' "$name")")
            done
            return 0 ;;
        {others}) COMPREPLY=() ;;
    esac
}}

complete -F _netns_monitor_words -o nosort -o bashdefault -o default {NAME}
"#
    )
}

fn zsh(text: &str) -> String {
    let function = "_netns_monitor_names() {\n    local -a names\n    names=(/run/netns/*(N:t))\n    compadd -a names\n}\n\n";
    let mut whole = String::new();
    for line in text.lines() {
        if line.starts_with("if [ \"$funcstack[1]\"") {
            whole.push_str(function);
        }
        let is_netns = line.contains(&format!(":{NETNS} -- ")) && line.contains(":_default'");
        let line =
            if is_netns { line.replace(":_default'", ":_netns_monitor_names'") } else { line.to_owned() };
        whole.push_str(&line);
        whole.push('\n');
    }
    whole
}

fn fish(command: &Command) -> String {
    // Clap's own asks fish to read the options, which knows none with a dot in its name.
    let with_value = with_value(command).join(" ");
    let mut text = format!(
        "
function __fish_netns_monitor_needs_command
    set -l words (commandline -opc)
    set -e words[1]
    set -l is_value no
    for word in $words
        if test $is_value = yes
            set is_value no
        else if contains -- $word {with_value}
            set is_value yes
        else if not string match -q -- '-*' $word
            echo $word
            return 1
        end
    end
    return 0
end

function __netns_monitor_names
    for path in /run/netns/*
        string replace -r '.*/' '' -- $path
    end
end
"
    );
    for name in subcommands(command, takes_netns) {
        text.push_str(&format!(
            "complete -c {NAME} -n \"__fish_netns_monitor_using_subcommand {name}\" -f -a \"(__netns_monitor_names)\"\n"
        ));
    }
    for sub in command.get_subcommands() {
        let condition = format!("__fish_netns_monitor_using_subcommand {}", sub.get_name());
        text.push_str(&choices(&condition, sub));
        for inner in sub.get_subcommands() {
            let name = inner.get_name();
            text.push_str(&choices(&format!("{condition}; and __fish_seen_subcommand_from {name}"), inner));
        }
    }
    text
}

/// Words that a command takes, of those that are fixed.
fn choices(condition: &str, command: &Command) -> String {
    let positionals = command.get_positionals().flat_map(clap::Arg::get_possible_values);
    let words: Vec<String> = positionals.map(|value| value.get_name().to_owned()).collect();
    match words.is_empty() {
        true => String::new(),
        false => format!("complete -c {NAME} -n \"{condition}\" -f -a \"{}\"\n", words.join(" ")),
    }
}
