//! A "host" of a test's own: network namespace, mount namespace, `/run` and bpffs of its own, so that tests run in
//! parallel and the kernel removes everything when the test's thread and children end.

use std::process::{Command, Output};

use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
};

/// The calling thread's own host; children and threads started later are inside it too.
///
/// Tests run on a thread each, so the host ends with its test. Deliberately not `Send`.
pub struct TestHost {
    _not_send: std::marker::PhantomData<*const ()>,
}

impl TestHost {
    /// Moves the calling thread into a new host: `lo` up, IPv6 as the kernel has it, an empty tmpfs at `/run`, a bpffs
    /// at `/sys/fs/bpf`.
    ///
    /// # Panics
    /// Without root: these tests fail, they do not skip.
    pub fn new() -> Self {
        unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWNET).expect(
            "a network and a mount namespace of the test's own: run the tests as root (cargo xtask test)",
        );
        let none = None::<&str>;
        mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).expect("private mounts");
        mount(Some("tmpfs"), "/run", Some("tmpfs"), MsFlags::empty(), none).expect("tmpfs on /run");
        std::fs::create_dir_all("/run/netns").expect("/run/netns");
        mount(Some("sysfs"), "/sys", Some("sysfs"), MsFlags::empty(), none).expect("sysfs of this namespace");
        mount(Some("bpf"), "/sys/fs/bpf", Some("bpf"), MsFlags::empty(), Some("mode=0700")).expect("bpffs");
        ip("link set lo up");
        Self { _not_send: std::marker::PhantomData }
    }
}

impl Default for TestHost {
    fn default() -> Self {
        Self::new()
    }
}

/// Runs `ip ARGS` (split at spaces) and returns what it printed.
///
/// # Panics
/// When it fails, with what it said.
pub fn ip(args: &str) -> String {
    run("ip", args)
}

/// Runs a program with arguments split at spaces and returns what it printed.
///
/// # Panics
/// When it fails, with what it said.
pub fn run(program: &str, args: &str) -> String {
    let Output { status, stdout, stderr } = Command::new(program)
        .args(args.split_whitespace())
        .output()
        .unwrap_or_else(|error| panic!("{program}: {error}"));
    assert!(status.success(), "`{program} {args}` failed: {}", String::from_utf8_lossy(&stderr));
    String::from_utf8(stdout).expect("UTF-8 output")
}
