//! Prometheus' own tools, unpacked from Debian's package by the set-up.

use std::{
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

/// `promtool`, from the folder `PROMETHEUS_DIR` or where the set-up puts it.
///
/// # Panics
/// Without it: these tests fail, they do not skip.
#[allow(dead_code, reason = "not every test program needs it")]
pub(crate) fn promtool() -> Command {
    let unpacked = || root().join("target/tools/prometheus/usr/bin");
    let dir = std::env::var_os("PROMETHEUS_DIR").map_or_else(unpacked, PathBuf::from);
    let promtool = dir.join("promtool");
    assert!(promtool.exists(), "{} is missing: run `cargo xtask setup`", promtool.display());
    Command::new(promtool)
}

/// Runs a command on this standard input.
#[allow(dead_code, reason = "not every test program feeds one")]
pub(crate) fn fed(command: &mut Command, input: &str) -> Output {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("start");
    child.stdin.take().expect("piped").write_all(input.as_bytes()).expect("feed");
    child.wait_with_output().expect("wait")
}

/// The workspace.
pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the package stands in a workspace")
}

/// A program that reads what we write, with what it needs to run from where the set-up unpacks it: Graphviz, fish, zsh, mandoc.
///
/// # Panics
/// Without it: these tests fail, they do not skip.
#[allow(dead_code, reason = "not every test program needs one")]
pub(crate) fn reader(name: &str) -> Command {
    let readers = readers();
    let found = ["usr/bin", "bin"].map(|folder| readers.join(folder).join(name));
    let program = found.iter().find(|path| path.exists());
    let program = program.unwrap_or_else(|| panic!("{name} is missing: run `cargo xtask setup`"));
    let mut command = Command::new(program);
    let libraries = std::fs::read_dir(readers.join("usr/lib")).expect("libraries").flatten();
    let folders = libraries.map(|entry| entry.path()).filter(|path| path.is_dir());
    command.env("LD_LIBRARY_PATH", std::env::join_paths(folders).expect("folders without a colon"));
    command
}

/// Where they are: `READERS_DIR`, or where the set-up puts them.
#[allow(dead_code, reason = "not every test program needs it")]
pub(crate) fn readers() -> PathBuf {
    std::env::var_os("READERS_DIR").map_or_else(|| root().join("target/tools/readers"), PathBuf::from)
}
