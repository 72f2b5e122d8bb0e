//! Processes of a test's own, in a PID namespace of their own: who asks there about all processes sees these and no others.

use std::{
    ffi::OsStr,
    fs::{self, File},
    io::{BufRead as _, BufReader},
    os::fd::AsFd as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use nix::{
    mount::{MntFlags, umount2},
    sched::{CloneFlags, setns, unshare},
};

use crate::{
    agent::{Outcome, binary},
    host::TestHost,
    poll::{SOON, until},
};

/// A PID namespace in the test's host, and its `/proc` over the host's. Whatever runs in it ends with it.
#[derive(Debug)]
pub struct PidNamespace {
    init: Child,
    here: File,
    there: File,
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
        let open = |path: &str| File::open(path).unwrap_or_else(|error| panic!("{path}: {error}"));
        let here = open("/proc/self/ns/pid");
        unshare(CloneFlags::CLONE_NEWPID).expect("a PID namespace");
        let mut init = Command::new("sh")
            // It lives until its input ends, and the kernel ends everything else with it.
            .args(["-c", "mount -t proc proc /proc && echo ready && exec cat"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("sh");
        assert_eq!(first_line(&mut init), "ready");
        setns(here.as_fd(), CloneFlags::CLONE_NEWPID).expect("back again");
        Self { init, here, there: open("/proc/1/ns/pid"), binary }
    }

    /// Starts a program there. The thread itself stays where it is: in another one it could start no thread.
    ///
    /// # Panics
    /// When it cannot be started.
    #[must_use]
    pub fn spawn(&self, command: &mut Command) -> Child {
        setns(self.there.as_fd(), CloneFlags::CLONE_NEWPID).expect("there");
        let child = command.spawn();
        setns(self.here.as_fd(), CloneFlags::CLONE_NEWPID).expect("back again");
        child.unwrap_or_else(|error| panic!("{command:?}: {error}"))
    }

    /// Starts a program there, split at spaces, with this as its input.
    ///
    /// # Panics
    /// When it cannot be started.
    #[must_use]
    pub fn start(&self, program: &str, input: impl Into<Stdio>) -> Running {
        let mut command = Command::new("sh");
        command
            .args(["-c", "echo $$; exec \"$@\"", "sh"])
            .args(program.split_whitespace())
            .stdin(input)
            .stdout(Stdio::piped());
        let mut child = self.spawn(&mut command);
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
        running.child.kill().expect("killed");
        running.child.wait().expect("its status");
    }

    /// Runs `netns-monitor ARGS` there to its end, by way of another program where one is given.
    ///
    /// # Panics
    /// When it cannot be started.
    #[must_use]
    pub fn run(&self, by_way_of: &[&str], args: &[&str]) -> Outcome {
        let mut words = by_way_of.iter().map(AsRef::<OsStr>::as_ref).chain([self.binary.as_os_str()]);
        let mut command = Command::new(words.next().expect("at least the binary"));
        command.args(words).args(args).env_remove("RUST_LOG").env("NO_COLOR", "1");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let output = self.spawn(&mut command).wait_with_output().expect("netns-monitor");
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
        Outcome { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
    }

    /// The same directly, and demands exit code 0.
    ///
    /// # Panics
    /// When it ends with another one.
    pub fn run_well(&self, args: &[&str]) -> Outcome {
        let outcome = self.run(&[], args);
        assert_eq!(outcome.code, Some(0), "netns-monitor {args:?}: {outcome:#?}");
        outcome
    }

    /// The binary under test.
    #[must_use]
    pub fn binary(&self) -> &Path {
        &self.binary
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
