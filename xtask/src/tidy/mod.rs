//! `tidy`: the rules that no compiler and no lint checks, each as one small function over the sources' text.
//!
//! A finding is `file:line: what, why`. Formatting and everything clippy knows are deliberately not repeated here.

mod elf;
mod json;
mod rules;
mod source;

use std::{
    fmt, fs,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

use anyhow::{Context as _, Result, bail};

use crate::{misused, tools::Place};
use source::Source;

/// Folders with Rust sources.
const PACKAGES: [&str; 4] = ["monitor", "monitor-ebpf", "tests", "xtask"];

/// Something against the rules.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Finding {
    file: PathBuf,
    line: usize,
    what: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.file.display(), self.line, self.what)
    }
}

/// `cargo xtask tidy`.
pub(crate) fn verb(place: &Place, args: &[String]) -> Result<ExitCode> {
    if let [first, ..] = args {
        return Ok(misused(&format!("tidy takes no argument, not {first:?}")));
    }
    check(place)?;
    check_symbols(place)?;
    println!("tidy");
    Ok(ExitCode::SUCCESS)
}

/// Checks the sources.
///
/// # Errors
/// With all findings, one a line.
pub(crate) fn check(place: &Place) -> Result<()> {
    fail_on(findings(&place.root)?)
}

/// Checks the symbols of the agents that were built, in whatever profile.
///
/// # Errors
/// With all findings, one a line.
pub(crate) fn check_symbols(place: &Place) -> Result<()> {
    let mut findings = Vec::new();
    for agent in ["debug", "release"].map(|profile| place.agent(profile)) {
        if let Ok(binary) = fs::read(&agent) {
            findings.extend(symbols(&binary).into_iter().map(|what| Finding {
                file: agent.clone(),
                line: 0,
                what,
            }));
        }
    }
    fail_on(findings)
}

fn fail_on(mut findings: Vec<Finding>) -> Result<()> {
    if findings.is_empty() {
        return Ok(());
    }
    findings.sort();
    let lines: Vec<_> = findings.iter().map(ToString::to_string).collect();
    bail!("not tidy:\n{}", lines.join("\n"));
}

fn findings(root: &Path) -> Result<Vec<Finding>> {
    let mut findings = Vec::new();
    let mut sources = Vec::new();
    for package in PACKAGES {
        read_sources(root, &root.join(package), &mut sources)?;
    }
    for source in &sources {
        findings.extend(rules::file(source));
    }
    findings.extend(rules::shared_library(&sources));
    findings.extend(dashboards(root)?);
    findings.extend(lock_file(root));
    Ok(findings)
}

fn read_sources(root: &Path, folder: &Path, sources: &mut Vec<Source>) -> Result<()> {
    for entry in fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let path = entry?.path();
        if path.is_dir() {
            if !path.ends_with("target") {
                read_sources(root, &path, sources)?;
            }
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
            sources.push(Source::new(path.strip_prefix(root).unwrap_or(&path), &text));
        }
    }
    Ok(())
}

/// The dashboards are JSON. What their panels ask is tested where a Prometheus answers.
fn dashboards(root: &Path) -> Result<Vec<Finding>> {
    let mut findings = Vec::new();
    let Ok(entries) = fs::read_dir(root.join("dashboards")) else { return Ok(findings) };
    for path in entries.flatten().map(|entry| entry.path()) {
        if path.extension().is_some_and(|extension| extension == "json") {
            let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
            if let Err((line, what)) = json::check(&text) {
                let file = path.strip_prefix(root).unwrap_or(&path).to_owned();
                findings.push(Finding { file, line, what: format!("{what}: Grafana imports only JSON") });
            }
        }
    }
    Ok(findings)
}

fn lock_file(root: &Path) -> Option<Finding> {
    let what = if !root.join("Cargo.lock").exists() {
        "is missing"
    } else if root.join(".git").exists() && !is_committed(root, "Cargo.lock") {
        "is not in git"
    } else {
        return None;
    };
    let what = format!("{what}: the versions that were tested are part of the source");
    Some(Finding { file: "Cargo.lock".into(), line: 0, what })
}

fn is_committed(root: &Path, file: &str) -> bool {
    let git = Command::new("git").current_dir(root).args(["ls-files", "--error-unmatch", file]).output();
    // Without git there is nobody to ask.
    git.map_or(true, |output| {
        output.status.success() || !String::from_utf8_lossy(&output.stderr).contains(file)
    })
}

/// The C library's functions that `aya_ebpf` defines anew, in the agent they must be the C library's own.
fn symbols(binary: &[u8]) -> Vec<String> {
    let defined = elf::defined_symbols(binary);
    ["memcpy", "memmove", "memset"]
        .into_iter()
        .filter(|name| defined.contains(*name))
        .map(|name| {
            format!("defines {name}: monitor-ebpf's library names aya_ebpf, whose {name} is slow and returns nothing")
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_project_is_tidy() {
        let place = Place::new();
        if let Err(error) = check(&place) {
            panic!("{error}");
        }
    }

    #[test]
    fn a_program_that_takes_memcpy_from_the_c_library_passes() {
        let own = fs::read(std::env::current_exe().expect("a path")).expect("this very program");
        assert_eq!(symbols(&own), Vec::<String>::new());
    }

    #[test]
    fn a_finding_reads_as_file_line_what() {
        let finding = Finding { file: "a/b.rs".into(), line: 7, what: "what: why".into() };
        assert_eq!(finding.to_string(), "a/b.rs:7: what: why");
        assert_eq!(fail_on(vec![finding]).expect_err("one").to_string(), "not tidy:\na/b.rs:7: what: why");
        fail_on(Vec::new()).expect("none");
    }
}
