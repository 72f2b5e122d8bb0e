//! Where things stand, and how programs are run. Which tools there are and which are missing is `setup`'s business.

use std::{
    env,
    ffi::OsStr,
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, bail};

/// The target of the eBPF programs: the byte order is this machine's.
pub(crate) const BPF_TARGET: &str =
    if cfg!(target_endian = "big") { "bpfeb-unknown-none" } else { "bpfel-unknown-none" };

/// The checkout and its folders.
pub(crate) struct Place {
    /// The workspace's root.
    pub(crate) root: PathBuf,
    /// Cargo's target directory, wherever a variable or a configuration file puts it.
    target: PathBuf,
}

impl Place {
    /// This checkout; cargo's target directory is the one this very program stands in.
    pub(crate) fn new() -> Self {
        let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
        let root = manifest.parent().unwrap_or(manifest).to_owned();
        let target = env::current_exe().ok().and_then(|exe| target_of(&exe)).unwrap_or(root.join("target"));
        Self { root, target }
    }

    /// What set-up builds or unpacks; under the workspace's own `target/` also when cargo's is elsewhere, because
    /// `monitor/build.rs` must find it.
    pub(crate) fn tools(&self) -> PathBuf {
        self.root.join("target/tools")
    }

    /// Says which compiler builds the eBPF programs; its form is documented in `monitor/build.rs`.
    pub(crate) fn toolchain_file(&self) -> PathBuf {
        self.tools().join("ebpf-toolchain")
    }

    /// The eBPF linker.
    pub(crate) fn linker(&self) -> PathBuf {
        self.tools().join("bin/bpf-linker")
    }

    /// The folder of `prometheus` and `promtool`.
    pub(crate) fn prometheus(&self) -> PathBuf {
        self.tools().join("prometheus/usr/bin")
    }

    /// The folder that container engines are unpacked in.
    pub(crate) fn engines(&self) -> PathBuf {
        self.tools().join("engines")
    }

    /// Where packages are made.
    pub(crate) fn package(&self) -> PathBuf {
        self.target.join("package")
    }

    /// The folder of the types of Grafana's dashboards.
    pub(crate) fn grafana(&self) -> PathBuf {
        self.tools().join("grafana")
    }

    /// The folder that Chromium is unpacked in.
    pub(crate) fn chromium(&self) -> PathBuf {
        self.tools().join("chromium")
    }

    /// The agent's binary as cargo builds it in a profile's folder (`debug`, `release`).
    pub(crate) fn agent(&self, profile: &str) -> PathBuf {
        self.target.join(profile).join("netns-monitor")
    }

    /// Cargo, at the root of the workspace.
    pub(crate) fn cargo(&self, args: &[&str]) -> Command {
        let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        cargo.current_dir(&self.root).args(args);
        // A relative directory means the one this program was started in, not the root.
        if env::var_os("CARGO_TARGET_DIR").is_some() {
            cargo.env("CARGO_TARGET_DIR", &self.target);
        }
        cargo
    }
}

/// The target directory a built program stands in: `TARGET/PROFILE/NAME`, or `TARGET/PROFILE/deps/NAME` for a test.
fn target_of(exe: &Path) -> Option<PathBuf> {
    let folder = exe.parent()?;
    let profile = if folder.ends_with("deps") { folder.parent()? } else { folder };
    Some(profile.parent()?.to_owned())
}

/// Whether this process may do what root may.
pub(crate) fn is_root() -> bool {
    fs::metadata("/proc/self").is_ok_and(|process| process.uid() == 0)
}

/// The first executable of that name on `PATH`, or where root's tools stand, which a user's `PATH` often leaves out.
pub(crate) fn find(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let folders = env::split_paths(&path).chain(["/usr/sbin".into(), "/sbin".into()]);
    folders.map(|folder| folder.join(name)).find(|file| is_program(file))
}

/// Whether the file is there and may be executed by someone.
pub(crate) fn is_program(file: &Path) -> bool {
    fs::metadata(file).is_ok_and(|found| found.is_file() && found.mode() & 0o111 != 0)
}

/// What a program printed, when it could be run and succeeded.
pub(crate) fn ask<I: AsRef<OsStr>>(
    program: impl AsRef<OsStr>,
    args: impl IntoIterator<Item = I>,
) -> Option<String> {
    let output = Command::new(program).args(args).stdin(Stdio::null()).output().ok()?;
    let mut said = String::from_utf8_lossy(&output.stdout).into_owned();
    said.push_str(&String::from_utf8_lossy(&output.stderr));
    output.status.success().then_some(said)
}

/// Runs a command with its output hidden.
///
/// # Errors
/// When it cannot be started or fails: the command, its exit status, and the last lines of what it said.
pub(crate) fn quietly(command: &mut Command) -> Result<()> {
    let output = command.stdin(Stdio::null()).output().with_context(|| line(command))?;
    if output.status.success() {
        return Ok(());
    }
    let said =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    bail!("`{}` failed ({}); its last lines:\n{}", line(command), output.status, last_lines(&said, 12));
}

/// The command as one would type it.
pub(crate) fn line(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}

fn last_lines(text: &str, count: usize) -> String {
    let lines: Vec<_> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    lines[lines.len().saturating_sub(count)..].iter().map(|line| format!("  {line}\n")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_target_directory_is_found_from_a_program_and_from_a_test() {
        assert_eq!(target_of(Path::new("/t/debug/xtask")), Some("/t".into()));
        assert_eq!(target_of(Path::new("/t/debug/deps/xtask-0123")), Some("/t".into()));
        assert_eq!(target_of(Path::new("xtask")), None);
    }

    #[test]
    fn a_failing_command_is_named_with_its_last_lines() {
        let error = quietly(Command::new("sh").args(["-c", "echo first; echo last >&2; exit 7"]));
        let said = error.expect_err("it exits 7").to_string();
        assert!(
            said.contains("exit 7") && said.contains("exit status: 7") && said.contains("  last\n"),
            "{said}"
        );
        quietly(&mut Command::new("true")).expect("it succeeds");
    }

    #[test]
    fn only_the_last_lines_are_kept() {
        assert_eq!(last_lines("a\n\nb\nc\n", 2), "  b\n  c\n");
        assert_eq!(last_lines("a", 2), "  a\n");
    }
}
