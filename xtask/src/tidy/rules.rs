//! The rules, and the table of who may import whom.

use std::path::{Path, PathBuf};

use super::{Finding, source::Source};

/// Which rooms of `monitor/src` a room may import; a change of it shows in review. Data goes one way: a room that
/// is missing from a line gets what it needs from its caller, as a plain value.
const ARROWS: &[(&str, &[&str])] = &[
    ("topology", &[]),
    ("explain", &[]),
    ("sample", &["topology::names", "topology::figures"]),
    ("netns", &["topology::names", "topology::adopt"]),
    ("holders", &["netns", "topology::names"]),
    ("discover", &["netns", "holders", "topology"]),
    ("config", &["topology"]),
    ("ledger", &["sample", "topology::names"]),
    ("reconcile", &["topology", "netns"]),
    ("check", &["topology", "netns", "reconcile", "sample"]),
    ("probe", &["topology::names", "sample", "netns", "ledger"]),
    ("trace", &["probe", "topology::names"]),
    ("talk", &["probe", "topology::names"]),
    ("metrics", &["sample", "topology::names"]),
    ("export", &["metrics", "sample", "explain"]),
    ("graph", &["topology"]),
    (
        "agent",
        &[
            "config",
            "discover",
            "topology",
            "netns",
            "reconcile",
            "probe",
            "trace",
            "talk",
            "ledger",
            "sample",
            "metrics",
            "export",
            "holders",
            "cli",
        ],
    ),
    (
        "cli",
        &[
            "agent",
            "config",
            "discover",
            "topology",
            "netns",
            "reconcile",
            "probe",
            "trace",
            "talk",
            "ledger",
            "sample",
            "metrics",
            "export",
            "holders",
            "check",
            "graph",
            "explain",
        ],
    ),
];

const MAX_LINES: usize = 600;
/// Tests of one thing stay together; they are read one at a time.
const MAX_TEST_LINES: usize = 1000;

/// Every rule that looks at one file.
pub(super) fn file(source: &Source) -> Vec<Finding> {
    let mut findings = Vec::new();
    findings.extend(purpose(source));
    findings.extend(length(source));
    findings.extend(unfinished(source));
    findings.extend(unwraps(source));
    findings.extend(namespaces(source));
    findings.extend(arrows(source));
    findings
}

fn finding(source: &Source, at: usize, what: String) -> Finding {
    Finding { file: source.path.clone(), line: source.line(at), what }
}

fn purpose(source: &Source) -> Option<Finding> {
    let starts = source.text.starts_with("//!");
    (!starts).then(|| {
        finding(source, 0, "starts without a `//!` comment: the first line says what it is for".into())
    })
}

fn length(source: &Source) -> Option<Finding> {
    let lines = source.text.lines().count();
    let is_test = ["tests/tests", "monitor/tests"].iter().any(|folder| source.path.starts_with(folder));
    let most = if is_test { MAX_TEST_LINES } else { MAX_LINES };
    let what = format!("{lines} lines, the most is {most}: a file has one purpose, split it");
    (lines > most).then(|| Finding { file: source.path.clone(), line: lines, what })
}

fn unfinished(source: &Source) -> Vec<Finding> {
    // Put together here, because this file is searched, too.
    let words = [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("unimple", "mented")];
    let found = words.iter().flat_map(|word| source.text.match_indices(word));
    let what = |word| format!("{word}: unfinished things are issues, not comments");
    found.map(|(at, word)| finding(source, at, what(word))).collect()
}

fn unwraps(source: &Source) -> Vec<Finding> {
    let mut findings = Vec::new();
    let outside = |at: &usize| !source.is_test(*at);
    for (at, _) in source.code.match_indices(".unwrap()").filter(|(at, _)| outside(at)) {
        findings.push(finding(
            source,
            at,
            "unwrap: return an error, or `expect` with the reason it cannot fail".into(),
        ));
    }
    for (at, _) in source.text.match_indices(".expect(\"\")").filter(|(at, _)| outside(at)) {
        findings.push(finding(source, at, "expect without a reason: say why it cannot fail".into()));
    }
    findings
}

/// Changing namespace is the business of one file, on threads that end afterwards.
fn namespaces(source: &Source) -> Vec<Finding> {
    let home = ["monitor/src/netns.rs", "monitor/src/netns/"];
    let path = source.path.to_string_lossy();
    if !path.starts_with("monitor/src/") || home.iter().any(|home| path.starts_with(home)) {
        return Vec::new();
    }
    let words = ["setns", "unshare", "CLONE_NEWNET", "CLONE_NEWNS"];
    let found = words.iter().flat_map(|word| source.words(word).map(move |at| (at, word)));
    let what =
        |word| format!("{word}: only monitor/src/netns.rs changes namespace, on a thread that then ends");
    found.map(|(at, word)| finding(source, at, what(word))).collect()
}

/// Checks what a room imports from others against [`ARROWS`].
fn arrows(source: &Source) -> Vec<Finding> {
    let Some((room, is_root)) = room_of(&source.path) else { return Vec::new() };
    let Some((_, allowed)) = ARROWS.iter().find(|(name, _)| *name == room) else {
        let what = format!(
            "the room `{room}` is not in the table of imports (xtask/src/tidy/rules.rs): add its line"
        );
        return vec![finding(source, 0, what)];
    };
    let mut findings = Vec::new();
    // In a room's own root file `super` is the crate, too.
    for start in ["crate", "super"].iter().take(if is_root { 2 } else { 1 }) {
        for at in source.words(start) {
            let Some(rest) = source.code[at + start.len()..].trim_start().strip_prefix("::") else {
                continue;
            };
            for path in paths(rest) {
                if !may_import(&room, allowed, &path) {
                    let what = format!(
                        "{room} imports {}, it may import {}: data goes one way, take a plain value instead",
                        path.join("::"),
                        if allowed.is_empty() { "no other room".to_owned() } else { allowed.join(", ") },
                    );
                    findings.push(finding(source, at, what));
                }
            }
        }
    }
    findings
}

/// The room a file of `monitor/src` belongs to, and whether it is the room's root file.
fn room_of(path: &Path) -> Option<(String, bool)> {
    let path = path.strip_prefix("monitor/src").ok()?;
    let first = path.components().next()?.as_os_str().to_str()?;
    if first == "lib.rs" || first == "main.rs" {
        return None;
    }
    let is_root = path == Path::new(first) || path == Path::new(first).join("mod.rs");
    Some((first.trim_end_matches(".rs").to_owned(), is_root))
}

fn may_import(room: &str, allowed: &[&str], path: &[&str]) -> bool {
    let Some(first) = path.first() else { return true };
    if *first == room || !ARROWS.iter().any(|(name, _)| name == first) {
        return true;
    }
    allowed.iter().any(|allowed| {
        let mut parts = path.iter();
        allowed.split("::").all(|part| parts.next() == Some(&part))
    })
}

/// The paths, as far as two names matter, in what follows `crate::`: one, or all in a `{…}` tree.
fn paths(rest: &str) -> Vec<Vec<&str>> {
    let rest = rest.trim_start();
    if let Some(inside) = rest.strip_prefix('{') {
        return branches(inside).into_iter().flat_map(paths).collect();
    }
    let end = rest.find(|char: char| !char.is_alphanumeric() && char != '_').unwrap_or(rest.len());
    let (name, rest) = rest.split_at(end);
    if name.is_empty() {
        return Vec::new();
    }
    let tails = rest.trim_start().strip_prefix("::").map(paths).unwrap_or_default();
    if tails.is_empty() {
        return vec![vec![name]];
    }
    tails.into_iter().map(|tail| [vec![name], tail].concat()).collect()
}

/// The parts between the commas of a `{…}` tree, the text starting after its brace.
fn branches(inside: &str) -> Vec<&str> {
    let (mut parts, mut start, mut depth) = (Vec::new(), 0, 0_usize);
    for (at, char) in inside.char_indices() {
        match char {
            '{' => depth += 1,
            ',' | '}' if depth == 0 => {
                parts.push(&inside[start..at]);
                start = at + 1;
                if char == '}' {
                    break;
                }
            }
            '}' => depth -= 1,
            _ => {}
        }
    }
    parts
}

/// The library of `monitor-ebpf`, which the agent links, must never name the eBPF side's crates.
pub(super) fn shared_library(sources: &[Source]) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut waiting = vec![PathBuf::from("monitor-ebpf/src/lib.rs")];
    while let Some(path) = waiting.pop() {
        let Some(source) = sources.iter().find(|source| source.path == path) else { continue };
        for name in ["aya_ebpf", "aya_log_ebpf"] {
            let what =
                format!("{name}: the agent links this library, and would get aya_ebpf's memcpy with it");
            findings.extend(source.words(name).map(|at| finding(source, at, what.clone())));
        }
        let folder = match path.file_stem().and_then(|stem| stem.to_str()) {
            Some("lib" | "mod") | None => path.parent().unwrap_or(Path::new("")).to_owned(),
            Some(stem) => path.with_file_name(stem),
        };
        for at in source.words("mod") {
            let name = paths(&source.code[at + "mod".len()..]).concat().concat();
            waiting.extend([folder.join(&name).with_extension("rs"), folder.join(&name).join("mod.rs")]);
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    fn what_of(path: &str, text: &str) -> Vec<String> {
        file(&Source::new(Path::new(path), text)).iter().map(ToString::to_string).collect()
    }

    /// The findings' beginnings up to the first word of `what`.
    fn at(path: &str, text: &str) -> Vec<String> {
        what_of(path, text).iter().map(|said| said.split_inclusive(' ').take(2).collect::<String>()).collect()
    }

    #[test]
    fn a_room_imports_only_what_the_table_allows() {
        let allowed = "//! x\nuse crate::{sample::{Sample, Counts}, topology::names::{IfName, NsName}};\n";
        assert_eq!(at("monitor/src/metrics/mod.rs", allowed), [""; 0]);
        let denied = "//! x\nuse crate::{\n    sample::Sample,\n    topology::{names::IfName, Veth},\n};\n";
        let said = what_of("monitor/src/metrics/mod.rs", denied);
        assert_eq!(said.len(), 1, "{said:?}");
        assert!(
            said[0].starts_with("monitor/src/metrics/mod.rs:2: metrics imports topology::Veth"),
            "{said:?}"
        );
    }

    #[test]
    fn a_path_in_the_middle_of_code_is_an_import_too() {
        assert_eq!(
            at("monitor/src/sample.rs", "//! x\nfn f() {\n crate::probe::read()\n}"),
            ["monitor/src/sample.rs:3: sample "]
        );
        assert_eq!(at("monitor/src/sample.rs", "//! x\nfn f() { super::probe::read() }").len(), 1);
        assert_eq!(at("monitor/src/sample.rs", "//! crate::probe\n//! [`crate::probe`]\n"), [""; 0]);
    }

    #[test]
    fn a_room_may_import_itself_and_a_submodule_may_name_its_sibling() {
        assert_eq!(at("monitor/src/topology/plan.rs", "//! x\nuse crate::topology::step::Step;\n"), [""; 0]);
        assert_eq!(at("monitor/src/probe/pin.rs", "//! x\nuse super::reconcile::x;\n"), [""; 0]);
        assert_eq!(at("monitor/src/lib.rs", "//! x\npub use crate::agent::run;\n"), [""; 0]);
    }

    #[test]
    fn a_room_without_a_line_in_the_table_is_noticed() {
        assert_eq!(at("monitor/src/attic.rs", "//! x\n"), ["monitor/src/attic.rs:1: the "]);
    }

    #[test]
    fn namespaces_are_changed_in_one_file() {
        let text = "//! x\nfn f() { nix::sched::setns(fd, CloneFlags::CLONE_NEWNET) }\n";
        assert_eq!(at("monitor/src/netns.rs", text), [""; 0]);
        assert_eq!(at("monitor/src/probe/mod.rs", text).len(), 2);
        assert_eq!(at("monitor/src/probe/mod.rs", "//! setns\n// unshare\n"), [""; 0]);
    }

    #[test]
    fn unwrap_is_for_tests() {
        let text = "//! x\nfn f() { g().unwrap() }\n#[cfg(test)]\nmod tests { fn f() { g().unwrap() } }\n";
        assert_eq!(at("monitor/src/netns.rs", text), ["monitor/src/netns.rs:2: unwrap: "]);
        assert_eq!(at("tests/tests/host.rs", text), [""; 0]);
        assert_eq!(at("xtask/src/main.rs", "//! x\nfn f() { g().expect(\"\") }").len(), 1);
        assert_eq!(at("xtask/src/main.rs", "//! x\nfn f() { g().expect(\"it was set\") }"), [""; 0]);
    }

    #[test]
    fn files_say_their_purpose_end_and_are_finished() {
        assert_eq!(at("xtask/src/a.rs", "fn f() {}\n"), ["xtask/src/a.rs:1: starts "]);
        let long = format!("//! x\n{}", "\n".repeat(MAX_LINES));
        assert_eq!(at("xtask/src/a.rs", &long), ["xtask/src/a.rs:601: 601 "]);
        assert_eq!(at("xtask/src/a.rs", &long[..long.len() - 1]), [""; 0]);
        assert_eq!(at("tests/tests/a.rs", &long), [""; 0]);
        let later = format!("//! x\n// {}: later\n", concat!("TO", "DO"));
        assert_eq!(at("xtask/src/a.rs", &later).len(), 1);
    }

    #[test]
    fn the_shared_library_and_its_modules_never_name_the_ebpf_side() {
        let source = |path: &str, text: &str| Source::new(Path::new(path), text);
        let library =
            source("monitor-ebpf/src/lib.rs", "//! never `aya_ebpf`\npub mod class;\nmod inline { }\n");
        let class = source("monitor-ebpf/src/class.rs", "//! x\nuse aya_ebpf::cty;\n");
        let program = source("monitor-ebpf/src/shared.rs", "//! x\nuse aya_ebpf::maps;\n");
        assert_eq!(shared_library(&[library, program]), []);
        let library = source("monitor-ebpf/src/lib.rs", "//! x\npub mod class;\n");
        let found = shared_library(&[library, class]);
        assert_eq!(found.len(), 1);
        assert!(found[0].to_string().starts_with("monitor-ebpf/src/class.rs:2: aya_ebpf"), "{found:?}");
    }
}
