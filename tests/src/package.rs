//! `cargo xtask package` as a test uses it: of the debug binary, into the test's own `/run`.

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use crate::agent::binary;

/// A file of a package: mode, owner and group, path.
pub type Listed = (String, String, String);

/// Runs `cargo xtask package --binary BINARY ARGS`, and returns what it made.
///
/// # Panics
/// When it fails, with what it said; and when xtask is not built.
pub fn package(args: &[&str]) -> PathBuf {
    let xtask = binary().with_file_name("xtask");
    assert!(xtask.exists(), "{} is not built: cargo build -p xtask", xtask.display());
    let output = Command::new(xtask)
        .args(["package", "--binary"])
        .arg(binary())
        .args(args)
        .stdin(Stdio::null())
        .output()
        .expect("xtask");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{args:?}: {said}{}", String::from_utf8_lossy(&output.stderr));
    let line = said.lines().last().expect("a line");
    line.rsplit_once(": ").expect("a path and a size").0.into()
}

/// The files of a Debian package.
///
/// # Panics
/// When it is none.
#[must_use]
pub fn contents(package: &Path) -> Vec<Listed> {
    let output = Command::new("dpkg-deb").arg("--contents").arg(package).output().expect("dpkg-deb");
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    let entry = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        (words[0].to_owned(), words[1].to_owned(), words[5].trim_start_matches('.').to_owned())
    };
    text.lines().map(entry).collect()
}

/// A unit's settings of that name, in the order they are in the file.
#[must_use]
pub fn settings<'u>(unit: &'u str, name: &str) -> Vec<&'u str> {
    unit.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix('=')).collect()
}
