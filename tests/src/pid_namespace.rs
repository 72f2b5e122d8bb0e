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
    mount::{MsFlags, mount},
    sched::{CloneFlags, setns, unshare},
};

use crate::{
    agent::{Outcome, binary},
    host::TestHost,
    poll::{SOON, until},
};

/// A PID namespace in the test's host, with a mount namespace for its `/proc`; mounts in `/run` are common to both.
/// Whatever runs in it ends with it.
#[derive(Debug)]
pub struct PidNamespace {
    init: Child,
    here: [File; 2],
    there: [File; 2],
    binary: PathBuf,
}

/// What a program is started in.
const KINDS: [(&str, CloneFlags); 2] = [("pid", CloneFlags::CLONE_NEWPID), ("mnt", CloneFlags::CLONE_NEWNS)];

/// A process of a [`PidNamespace`]. Killed when dropped.
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
        let none = None::<&str>;
        mount(none, "/run", none, MsFlags::MS_SHARED | MsFlags::MS_REC, none).expect("a shared /run");
        let open = |process: &str| {
            KINDS.map(|(kind, _)| {
                let path = format!("/proc/{process}/ns/{kind}");
                File::open(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
            })
        };
        let here = open("thread-self");
        unshare(CloneFlags::CLONE_NEWPID).expect("a PID namespace");
        let mut init = Command::new("unshare")
            // It lives until its input ends, and the kernel ends everything else with it.
            .args(["--mount", "--propagation", "unchanged", "sh", "-c"])
            .arg("mount -t proc proc /proc && echo ready && exec cat")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("unshare");
        assert_eq!(first_line(&mut init), "ready");
        let there = open(&init.id().to_string());
        let namespace = Self { init, here, there, binary: binary() };
        setns(namespace.here[0].as_fd(), KINDS[0].1).expect("back again");
        namespace
    }

    /// Starts a program there. The thread itself stays where it is: in another one it could start no thread.
    ///
    /// # Panics
    /// When it cannot be started.
    #[must_use]
    pub fn spawn(&self, command: &mut Command) -> Child {
        let enter = |files: &[File; 2]| {
            for (file, (kind, flag)) in files.iter().zip(KINDS) {
                setns(file.as_fd(), flag).unwrap_or_else(|error| panic!("{kind}: {error}"));
            }
        };
        // A thread that this one started shares its working directory, which forbids to go elsewhere.
        unshare(CloneFlags::CLONE_FS).expect("a working directory of its own");
        enter(&self.there);
        let child = command.spawn();
        enter(&self.here);
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
            let command = fs::read(format!("/proc/{}/cmdline", child.id())).expect("its command");
            (!command.starts_with(b"sh\0-c\0echo")).then_some(())
        });
        Running { child, pid }
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

impl Running {
    /// Its number in the test's own PID namespace.
    #[must_use]
    pub fn outer(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Running {
    /// A namespace ends only after all of its processes were waited for.
    fn drop(&mut self) {
        let _it_may_have_ended = self.child.kill();
        self.child.wait().expect("its status");
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
    }
}
