//! `test`: formatting, lints, tidy, and every test; stops at the first step that fails and says which.
//!
//! Nothing is skipped: what needs root fails without it. The last step compares the host with what it was before.

use std::{
    collections::BTreeSet,
    env, fs,
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Command, ExitCode, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};

use crate::{
    misused, setup, tidy,
    tools::{BPF_TARGET, Place, ask, is_program, is_root, line},
};

/// The kernel removes dead namespaces and their links in its own time; this is how long it may take.
const CLEANUP_DEADLINE: Duration = Duration::from_secs(10);

/// `cargo xtask test [--fast] [FILTER]`.
pub(crate) fn verb(place: &Place, args: &[String]) -> Result<ExitCode> {
    let (mut fast, mut filter) = (false, None);
    for arg in args {
        match arg.as_str() {
            "--fast" => fast = true,
            option if option.starts_with('-') => {
                return Ok(misused(&format!("test has no option {option:?}")));
            }
            name if filter.is_none() => filter = Some(name),
            more => return Ok(misused(&format!("test takes one filter, not {more:?} too"))),
        }
    }
    let mut suite = Suite { place, filter, tally: Tally::default() };
    let result = suite.run(fast);
    if let Err(error) = &result {
        eprintln!("\nerror: {error:#}");
        // A step that is no test, or a test program that died, is a failure too.
        suite.tally.failed = suite.tally.failed.max(1);
    }
    println!("\n{} passed, {} failed", suite.tally.passed, suite.tally.failed);
    Ok(if result.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

struct Suite<'a> {
    place: &'a Place,
    filter: Option<&'a str>,
    tally: Tally,
}

/// How many tests passed and failed, summed over the test programs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Tally {
    passed: u64,
    failed: u64,
}

impl Suite<'_> {
    fn run(&mut self, fast: bool) -> Result<()> {
        // Said before minutes of work, not after.
        if !fast && !is_root() {
            bail!(
                "the tests need root, run: sudo -E env \"PATH=$PATH\" cargo xtask test\n\
                 (those that need none: cargo xtask test --fast)"
            );
        }
        self.step("set-up", |suite| setup::complete(suite.place, setup::Scope::Everything, false))?;
        // A filter is for someone at work on one test.
        if self.filter.is_none() {
            self.step("formatting", |suite| succeed(&mut suite.place.cargo(&["fmt", "--all", "--check"])))?;
            self.step("lints", |suite| suite.lints())?;
            self.step("tidy", |suite| tidy::check(suite.place))?;
        }
        self.step("tests without privileges", |suite| {
            let mut cargo = suite.place.cargo(&["test", "--package", "monitor", "--package", "xtask"]);
            suite.tests(cargo.env("GRAFANA_DIR", suite.place.grafana()))
        })?;
        if !fast {
            self.step("build", |suite| {
                succeed(&mut suite.place.cargo(&[
                    "build",
                    "--package",
                    "monitor",
                    "--bin",
                    "netns-monitor",
                ]))?;
                tidy::check_symbols(suite.place)
            })?;
            self.step("tests with privileges", |suite| suite.privileged())?;
        }
        if self.filter.is_some() && self.tally == Tally::default() {
            bail!("no test's name contains {:?}", self.filter.unwrap_or_default());
        }
        Ok(())
    }

    /// Runs one step under its heading.
    fn step(&mut self, name: &str, step: impl FnOnce(&mut Self) -> Result<()>) -> Result<()> {
        println!("\n== {name}");
        let start = Instant::now();
        step(self).with_context(|| format!("step `{name}`"))?;
        println!("== {name}: {:.1} s", start.elapsed().as_secs_f64());
        Ok(())
    }

    fn lints(&self) -> Result<()> {
        let packages = ["--package", "monitor", "--package", "xtask", "--package", "monitor-tests"];
        let mut clippy = self.place.cargo(&["clippy", "--all-targets"]);
        succeed(clippy.args(packages).args(["--", "--deny", "warnings"]))?;
        succeed(&mut self.ebpf_lints()?)
    }

    /// Clippy on the eBPF programs: for their own target where their compiler brings clippy, else for this machine's
    /// by the clippy at hand, which sees the same source but for what is written for the bpf target alone.
    fn ebpf_lints(&self) -> Result<Command> {
        let file = self.place.toolchain_file();
        let text = fs::read_to_string(&file).with_context(|| file.display().to_string())?;
        let (bin, core) = text.trim_end().split_once('\n').context("a toolchain file of two lines")?;
        let bin = Path::new(bin);
        let mut flags = format!("--cfg=bpf_target_arch=\"{}\"", env::consts::ARCH);
        let own = is_program(&bin.join("cargo-clippy")) && is_program(&bin.join("clippy-driver"));
        let mut clippy = if own {
            let mut clippy = Command::new(bin.join("cargo"));
            let path = env::var("PATH").unwrap_or_default();
            clippy.current_dir(&self.place.root).env("PATH", format!("{}:{path}", bin.display()));
            clippy.env("RUSTC", bin.join("rustc")).env_remove("RUSTUP_TOOLCHAIN");
            clippy.args(["clippy", "--target", BPF_TARGET]);
            if core == "build-std" {
                clippy.args(["-Z", "build-std=core"]);
            }
            clippy
        } else {
            println!(
                "{} has no clippy: the eBPF programs are checked for this machine's target",
                bin.display()
            );
            // A program without std compiles only where a panic does not unwind.
            flags += "\x1f-Cpanic=abort";
            self.place.cargo(&["clippy", "--target", &host()?])
        };
        clippy.args(["--package", "monitor-ebpf", "--lib", "--bins", "--target-dir"]);
        clippy.arg(self.place.root.join("target/ebpf")).args(["--", "--deny", "warnings"]);
        clippy
            .env("RUSTC_BOOTSTRAP", "aya_ebpf")
            .env("CARGO_ENCODED_RUSTFLAGS", flags)
            .env_remove("RUSTFLAGS");
        Ok(clippy)
    }

    fn privileged(&mut self) -> Result<()> {
        if !is_root() {
            bail!(
                "these tests need root: run `cargo xtask test` as root (without: `cargo xtask test --fast`)"
            );
        }
        let agent = self.place.agent("debug");
        let before = Host::look(&agent);
        let mut cargo = self.place.cargo(&["test", "--package", "monitor-tests"]);
        cargo
            .env("NETNS_MONITOR", &agent)
            .env("PROMETHEUS_DIR", self.place.prometheus())
            .env("ENGINES_DIR", self.place.engines())
            .env("CHROMIUM_DIR", self.place.chromium());
        let result = self.tests(&mut cargo);
        let left = left_behind(&before, &agent);
        result?;
        if !left.is_empty() {
            bail!("the tests left something behind on this host:\n  {}", left.join("\n  "));
        }
        println!("nothing was left behind on this host");
        Ok(())
    }

    /// Runs `cargo test`, passes its words on and adds up its results.
    fn tests(&mut self, cargo: &mut Command) -> Result<()> {
        cargo.arg("--no-fail-fast").args(self.filter).stdin(Stdio::null()).stdout(Stdio::piped());
        println!("$ {}", line(cargo));
        let mut child = cargo.spawn().with_context(|| line(cargo))?;
        let failed_before = self.tally.failed;
        for said in BufReader::new(child.stdout.take().context("a pipe")?).lines() {
            let said = said?;
            println!("{said}");
            if let Some(Tally { passed, failed }) = parse_result(&said) {
                self.tally.passed += passed;
                self.tally.failed += failed;
            }
        }
        let status = child.wait()?;
        if status.success() {
            return Ok(());
        }
        if self.tally.failed == failed_before {
            // Nothing to count: it did not compile, or a test program died.
            self.tally.failed += 1;
        }
        bail!("`{}` failed ({status})", line(cargo));
    }
}

/// What one test program counted, from its last line.
fn parse_result(said: &str) -> Option<Tally> {
    let counts = said.strip_prefix("test result: ")?.split_once(". ")?.1;
    let count = |word: &str| {
        let part = counts.split("; ").find_map(|part| part.strip_suffix(word))?;
        part.trim().parse().ok()
    };
    Some(Tally { passed: count(" passed")?, failed: count(" failed")? })
}

/// The triple of the compiler in use.
fn host() -> Result<String> {
    let said = ask("rustc", ["-vV"]).context("rustc -vV")?;
    let host = said.lines().find_map(|line| line.strip_prefix("host: "));
    Ok(host.context("rustc -vV names no host")?.to_owned())
}

fn succeed(command: &mut Command) -> Result<()> {
    println!("$ {}", line(command));
    let status = command.stdin(Stdio::null()).status().with_context(|| line(command))?;
    if !status.success() {
        bail!("`{}` failed ({status})", line(command));
    }
    Ok(())
}

/// Everything of the host that a test could leave something in, one readable line each.
#[derive(Debug, PartialEq, Eq)]
struct Host(BTreeSet<String>);

impl Host {
    fn look(agent: &Path) -> Self {
        let mut lines = BTreeSet::new();
        let links = ask("ip", ["-o", "link"]).unwrap_or_default();
        lines.extend(links.lines().filter_map(link_name).map(|name| format!("link {name}")));
        for folder in ["/run/netns", "/sys/fs/bpf"] {
            walk(Path::new(folder), &mut |path| {
                lines.insert(path.display().to_string());
            });
        }
        for process in fs::read_dir("/proc").into_iter().flatten().flatten() {
            if fs::read_link(process.path().join("exe")).is_ok_and(|exe| exe == agent) {
                lines.insert(format!("process {} ({})", process.file_name().display(), agent.display()));
            }
        }
        Self(lines)
    }
}

/// The name in a line of `ip -o link`: `7: veth0@if6: <BROADCAST,...`.
fn link_name(line: &str) -> Option<&str> {
    line.split(": ").nth(1)?.split('@').next()
}

fn walk(folder: &Path, see: &mut impl FnMut(&Path)) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        see(&entry.path());
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            walk(&entry.path(), see);
        }
    }
}

/// What differs from before, once the kernel had its time.
fn left_behind(before: &Host, agent: &Path) -> Vec<String> {
    let start = Instant::now();
    loop {
        let left = differences(before, &Host::look(agent));
        if left.is_empty() || start.elapsed() > CLEANUP_DEADLINE {
            return left;
        }
        thread::sleep(Duration::from_millis(100));
    }
}

fn differences(Host(before): &Host, Host(after): &Host) -> Vec<String> {
    let new = after.difference(before).map(|line| format!("new: {line}"));
    new.chain(before.difference(after).map(|line| format!("gone: {line}"))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_of_test_programs_are_read_from_their_last_line() {
        let ok =
            "test result: ok. 12 passed; 0 failed; 1 ignored; 0 measured; 3 filtered out; finished in 0.02s";
        assert_eq!(parse_result(ok), Some(Tally { passed: 12, failed: 0 }));
        let bad =
            "test result: FAILED. 3 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out; finished in 1s";
        assert_eq!(parse_result(bad), Some(Tally { passed: 3, failed: 2 }));
        for other in ["running 3 tests", "test result: ok.", "test a ... ok", "12 passed; 0 failed"] {
            assert_eq!(parse_result(other), None, "{other}");
        }
    }

    #[test]
    fn links_are_known_by_name_without_their_peer() {
        assert_eq!(link_name("1: lo: <LOOPBACK,UP> mtu 65536"), Some("lo"));
        assert_eq!(link_name("7: veth0@if6: <BROADCAST> mtu 1500"), Some("veth0"));
        assert_eq!(link_name(""), None);
    }

    #[test]
    fn what_came_and_what_went_are_both_named() {
        let host = |lines: &[&str]| Host(lines.iter().map(|line| (*line).to_owned()).collect());
        let before = host(&["link lo", "/run/netns/theirs"]);
        assert!(differences(&before, &before).is_empty());
        let after = host(&["link lo", "link veth0"]);
        assert_eq!(differences(&before, &after), ["new: link veth0", "gone: /run/netns/theirs"]);
    }
}
