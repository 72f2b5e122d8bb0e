//! A "host" of a test's own: network namespace, mount namespace, `/run` and bpffs of its own, so that tests run in
//! parallel and the kernel removes everything when the test's thread and children end.

use std::{
    fs::{self, File},
    os::fd::AsFd as _,
    panic,
    path::Path,
    process::{Command, Output},
    thread::{self, JoinHandle},
};

use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, setns, unshare},
};

const CGROUPS: &str = "/sys/fs/cgroup";

/// The calling thread's own host; children and threads started later are inside it too.
///
/// Tests run on a thread each, so the host ends with its test. Deliberately not `Send`.
#[derive(Debug)]
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
        Self::make(false)
    }

    /// Like [`TestHost::new`], with the control groups of the machine, which container engines need.
    ///
    /// # Panics
    /// As [`TestHost::new`].
    pub fn with_cgroups() -> Self {
        Self::make(true)
    }

    fn make(cgroups: bool) -> Self {
        unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWNET).expect(
            "a network and a mount namespace of the test's own: run the tests as root (cargo xtask test)",
        );
        let none = None::<&str>;
        mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).expect("private mounts");
        mount(Some("tmpfs"), "/run", Some("tmpfs"), MsFlags::empty(), none).expect("tmpfs on /run");
        fs::create_dir_all("/run/netns").expect("/run/netns");
        let aside = cgroups.then_some("/run/cgroup");
        if let Some(aside) = aside {
            fs::create_dir(aside).expect(aside);
            mount(Some(CGROUPS), aside, none, MsFlags::MS_BIND | MsFlags::MS_REC, none).expect("set aside");
        }
        mount(Some("sysfs"), "/sys", Some("sysfs"), MsFlags::empty(), none).expect("sysfs of this namespace");
        if let Some(aside) = aside {
            mount(Some(aside), CGROUPS, none, MsFlags::MS_MOVE, none).expect("control groups");
            fs::remove_dir(aside).expect(aside);
        }
        mount(Some("bpf"), "/sys/fs/bpf", Some("bpf"), MsFlags::empty(), Some("mode=0700")).expect("bpffs");
        ip("link set lo up");
        Self { _not_send: std::marker::PhantomData }
    }
}

impl TestHost {
    /// Like [`TestHost::new`], but silent: no IPv6 in it and in links made later, no IGMP report, and bridges that hand no frame to
    /// netfilter (which drops what is malformed). What is then seen on a wire, a test has sent.
    ///
    /// # Panics
    /// As [`TestHost::new`].
    pub fn quiet() -> Self {
        let host = Self::new();
        disable_ipv6();
        // A bridge that snoops is a member of 224.0.0.106 and would report it.
        let path = "/proc/sys/net/ipv4/igmp_link_local_mcast_reports";
        fs::write(path, "0").unwrap_or_else(|error| panic!("{path}: {error}"));
        for file in ["arptables", "ip6tables", "iptables"] {
            let path = format!("/proc/sys/net/bridge/bridge-nf-call-{file}");
            if Path::new(&path).exists() {
                fs::write(&path, "0").unwrap_or_else(|error| panic!("{path}: {error}"));
            }
        }
        host
    }
}

impl Drop for TestHost {
    /// A process that outlives its test would keep the host alive.
    fn drop(&mut self) {
        let left = processes_here();
        if !left.is_empty() && !thread::panicking() {
            panic!("left behind: {left:?}");
        }
    }
}

/// Command lines of the other processes in the calling thread's mount namespace.
fn processes_here() -> Vec<String> {
    let here = fs::read_link("/proc/thread-self/ns/mnt").expect("the thread's own namespace");
    let own = std::process::id().to_string();
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").expect("/proc").flatten() {
        let pid = entry.file_name().to_string_lossy().into_owned();
        // A process that ends meanwhile has no link any more.
        let is_process = pid != own && pid.bytes().all(|byte| byte.is_ascii_digit());
        if is_process && fs::read_link(entry.path().join("ns/mnt")).is_ok_and(|namespace| namespace == here) {
            let command = fs::read_to_string(entry.path().join("cmdline")).unwrap_or_default();
            found.push(format!("{pid}: {}", command.replace('\0', " ")));
        }
    }
    found
}

/// Switches IPv6 off in the calling thread's namespace, now and for links made later: no neighbour discovery, no
/// router solicitation, no multicast report.
///
/// # Panics
/// When /proc/sys cannot be written.
pub fn disable_ipv6() {
    for which in ["default", "all"] {
        let path = format!("/proc/sys/net/ipv6/conf/{which}/disable_ipv6");
        fs::write(&path, "1").unwrap_or_else(|error| panic!("{path}: {error}"));
    }
}

/// Writes a sysctl of a namespace, `net/ipv4/tcp_sack` for example.
///
/// # Panics
/// When it cannot be written.
pub fn sysctl_inside(netns: &str, name: &str, value: &str) {
    let path = format!("/proc/sys/{name}");
    inside(netns, || fs::write(&path, value)).unwrap_or_else(|error| panic!("{path} of {netns}: {error}"));
}

/// Runs `act` inside a named namespace of the test's host, on a thread of its own, and returns what it returns.
///
/// # Panics
/// When there is no such namespace, and when `act` does.
pub fn inside<T: Send>(netns: &str, act: impl FnOnce() -> T + Send) -> T {
    let file = open(netns);
    let run = move || {
        setns(file.as_fd(), CloneFlags::CLONE_NEWNET).expect("setns");
        act()
    };
    thread::scope(|scope| scope.spawn(run).join()).unwrap_or_else(|payload| panic::resume_unwind(payload))
}

/// Starts `act` on a thread of its own inside a named namespace of the test's host.
///
/// # Panics
/// When there is no such namespace.
pub fn spawn_inside<T: Send + 'static>(
    netns: &str,
    act: impl FnOnce() -> T + Send + 'static,
) -> JoinHandle<T> {
    let file = open(netns);
    thread::spawn(move || {
        setns(file.as_fd(), CloneFlags::CLONE_NEWNET).expect("setns");
        act()
    })
}

fn open(netns: &str) -> File {
    let path = Path::new("/run/netns").join(netns);
    File::open(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
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
