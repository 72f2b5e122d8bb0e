//! Processes of a test's own, in a PID namespace of their own: who asks there about all processes sees these and no others.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use nix::mount::{MntFlags, umount2};

use crate::{
    agent::{Outcome, binary},
    host::TestHost,
    poll::{SOON, until},
};

/// A PID namespace in the test's host, and its `/proc` over the host's. Whatever runs in it ends with it.
#[derive(Debug)]
pub struct PidNamespace {
    init: Child,
    binary: PathBuf,
}

/// A process of a [`PidNamespace`].
#[derive(Debug)]
pub struct Running {
    child: Child,
    /// Its number there.
    pub pid: u32,
}

impl PidNamespace {
    /// A namespace with nothing in it but its first process.
    ///
    /// # Panics
    /// Without root.
    #[must_use]
    pub fn new(_host: &TestHost) -> Self {
        // The other one finds it by /proc/self.
        let binary = binary();
        let mut init = Command::new("unshare")
            // It lives until its input ends, and the kernel ends everything else with it.
            .args(["--pid", "--fork", "sh", "-c", "mount -t proc proc /proc && echo ready && exec cat"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("unshare");
        assert_eq!(first_line(&mut init), "ready");
        Self { init, binary }
    }

    /// Starts a program there, split at spaces, with this as its input.
    ///
    /// # Panics
    /// When it cannot be started.
    #[must_use]
    pub fn start(&self, program: &str, input: impl Into<Stdio>) -> Running {
        let mut child = self
            .enter()
            .args(["sh", "-c", "echo $$; exec \"$@\"", "sh"])
            .args(program.split_whitespace())
            .stdin(input)
            .stdout(Stdio::piped())
            .spawn()
            .expect("nsenter");
        let pid = first_line(&mut child).parse().expect("a number");
        until(SOON, "the shell has become the program", || {
            let command = fs::read(format!("/proc/{pid}/cmdline")).expect("its command");
            (!command.starts_with(b"sh\0-c\0echo")).then_some(())
        });
        Running { child, pid }
    }

    /// Ends a process there.
    ///
    /// # Panics
    /// When it has ended.
    pub fn end(&self, mut running: Running) {
        let killed = self.enter().args(["kill", "-KILL", &running.pid.to_string()]).status();
        assert!(killed.expect("kill").success());
        running.child.wait().expect("its status");
    }

    /// Runs `netns-monitor ARGS` there to its end, by way of another program where one is given.
    ///
    /// # Panics
    /// When it cannot be started.
    #[must_use]
    pub fn run(&self, by_way_of: &[&str], args: &[&str]) -> Outcome {
        let mut command = self.enter();
        command.args(by_way_of).arg(&self.binary).args(args).stdin(Stdio::null());
        let output = command.env_remove("RUST_LOG").env("NO_COLOR", "1").output().expect("netns-monitor");
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
        Outcome { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
    }

    /// The binary under test.
    #[must_use]
    pub fn binary(&self) -> &Path {
        &self.binary
    }

    fn enter(&self) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["--pid=/proc/1/ns/pid", "--"]);
        command
    }
}

fn first_line(child: &mut Child) -> String {
    let mut line = String::new();
    BufReader::new(child.stdout.take().expect("its output")).read_line(&mut line).expect("a line");
    line.trim_end().to_owned()
}

impl Drop for PidNamespace {
    fn drop(&mut self) {
        drop(self.init.stdin.take());
        self.init.wait().expect("its status");
        umount2("/proc", MntFlags::MNT_DETACH).expect("the host's /proc again");
    }
}
