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
#[allow(dead_code, reason = "not every test program asks Prometheus")]
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
