//! Who keeps a namespace alive: each way of holding one is shown while it lasts, with who does it, and not after.

use std::{
    fs,
    net::UdpSocket,
    os::{
        fd::OwnedFd,
        unix::{fs::MetadataExt as _, net::UnixDatagram},
    },
    process::Stdio,
};

use monitor_tests::{
    agent::write_config,
    host::{TestHost, inside, ip, run},
    pid_namespace::PidNamespace,
    poll::{SOON, until},
    scene::TWO,
};
use nix::{
    fcntl::{Flock, FlockArg},
    mount::{MntFlags, MsFlags, mount, umount2},
};
use serde_json::{Value, json};

const NOTHING: &str = "nothing holds blue besides its name\n";

/// A host with the namespaces `blue` and `red`, and a PID namespace in it.
fn scene() -> (TestHost, PidNamespace) {
    let host = TestHost::new();
    ip("netns add blue");
    ip("netns add red");
    let processes = PidNamespace::new(&host);
    (host, processes)
}

fn text(processes: &PidNamespace, args: &[&str]) -> String {
    let outcome = processes.run(&[], &[&["holders"], args].concat());
    assert_eq!((outcome.code, outcome.stderr.as_str()), (Some(0), ""), "{outcome:#?}");
    outcome.stdout
}

fn json_of(processes: &PidNamespace, args: &[&str]) -> Value {
    serde_json::from_str(&text(processes, &[args, &["--json"]].concat())).expect("JSON")
}

fn inode_of(netns: &str) -> u64 {
    fs::metadata(format!("/run/netns/{netns}")).expect("a file").ino()
}

/// The words of the table's lines, its header left out.
fn rows(text: &str) -> Vec<Vec<&str>> {
    let mut lines = text.lines();
    let header: Vec<_> = lines.next().expect("a header").split_whitespace().collect();
    assert_eq!(header, ["KIND", "PID", "UID", "COMMAND", "WHERE"], "{text}");
    lines.map(|line| line.split_whitespace().collect()).collect()
}

#[test]
fn nobody_holds_a_namespace_that_has_only_its_name() {
    let (_host, processes) = scene();
    assert_eq!(text(&processes, &["blue"]), NOTHING);
    let empty: [Value; 0] = [];
    let expected = json!({
        "netns": "blue", "inode": inode_of("blue"),
        "processes": empty, "descriptors": empty, "sockets": empty, "mounts": empty, "notes": empty,
    });
    assert_eq!(json_of(&processes, &["blue"]), expected);
}

#[test]
fn a_process_inside_is_shown_with_pid_user_and_command() {
    let (_host, processes) = scene();
    let sleep =
        processes.start("ip netns exec blue setpriv --reuid 65534 --clear-groups sleep 1000", Stdio::null());
    let pid = sleep.pid.to_string();
    let expected = ["process", &pid, "65534", "sleep", "1000", "-"];
    until(SOON, "it has become sleep", || {
        let table = text(&processes, &["blue"]);
        (table != NOTHING && rows(&table) == [expected]).then_some(())
    });
    let shown = json_of(&processes, &["blue"]);
    let person = json!({
        "pid": sleep.pid, "uid": 65534, "command": "sleep 1000", "threads": [sleep.pid], "all_threads": true,
    });
    assert_eq!(shown["processes"], json!([person]));
    // Its own mount namespace, which `ip netns exec` makes, gets its changes from ours.
    assert_eq!(shown["mounts"], json!([]));
    assert!(text(&processes, &["red"]).starts_with("nothing holds red"));
    drop(sleep);
    assert_eq!(text(&processes, &["blue"]), NOTHING);
}

#[test]
fn a_thread_inside_is_shown_though_its_process_is_outside() {
    let (_host, processes) = scene();
    let holder = processes.start(&format!("{} blue", env!("CARGO_BIN_EXE_thread-inside")), Stdio::null());
    let shown = until(SOON, "its thread is inside", || {
        let shown = json_of(&processes, &["blue"]);
        (shown["processes"] != json!([])).then_some(shown)
    });
    let process = &shown["processes"][0];
    assert_eq!((&process["pid"], &process["all_threads"]), (&json!(holder.pid), &json!(false)));
    let [thread] = process["threads"].as_array().expect("threads").as_slice() else { panic!("{shown}") };
    assert_ne!(*thread, json!(holder.pid));
    let table = text(&processes, &["blue"]);
    assert!(
        table.lines().any(|line| line.starts_with("thread ") && line.ends_with(&format!(" {thread}"))),
        "{table}"
    );
    drop(holder);
    assert_eq!(text(&processes, &["blue"]), NOTHING);
}

#[test]
fn an_open_descriptor_is_shown_with_its_number() {
    let (_host, processes) = scene();
    let file = fs::File::open("/run/netns/blue").expect("open");
    let sleep = processes.start("sleep 1000", file);
    let shown = json_of(&processes, &["blue"]);
    let person = json!({ "pid": sleep.pid, "uid": 0, "command": "sleep 1000", "fd": 0 });
    assert_eq!((&shown["descriptors"], &shown["processes"]), (&json!([person]), &json!([])));
    let table = text(&processes, &["blue"]);
    assert_eq!(rows(&table), [["descriptor", &sleep.pid.to_string(), "0", "sleep", "1000", "fd", "0"]]);
    drop(sleep);
    assert_eq!(text(&processes, &["blue"]), NOTHING);
}

#[test]
fn sockets_inside_are_shown_in_the_hands_of_processes_outside() {
    let (_host, processes) = scene();
    // Bound to a port, to nothing, and of a family without addresses here: none of them is asked by its kind.
    let sockets: [(&str, OwnedFd); 3] = inside("blue", || {
        ip("link set lo up");
        [
            ("bound", UdpSocket::bind("127.0.0.1:0").expect("a socket").into()),
            ("unbound", nix_socket()),
            ("unix", UnixDatagram::unbound().expect("a socket").into()),
        ]
    });
    let other: OwnedFd = inside("red", nix_socket);
    let innocent = processes.start("sleep 2000", other);
    for (kind, socket) in sockets {
        let sleep = processes.start("sleep 1000", socket);
        let shown = json_of(&processes, &["blue"]);
        let person = json!({ "pid": sleep.pid, "uid": 0, "command": "sleep 1000", "fd": 0 });
        assert_eq!(shown["sockets"], json!([person]), "{kind}: {shown:#}");
        assert_eq!((&shown["processes"], &shown["notes"]), (&json!([]), &json!([])), "{kind}");
        let table = text(&processes, &["blue"]);
        assert_eq!(rows(&table), [["socket", &sleep.pid.to_string(), "0", "sleep", "1000", "fd", "0"]]);
        drop(sleep);
        assert_eq!(text(&processes, &["blue"]), NOTHING, "{kind}");
    }
    assert_eq!(json_of(&processes, &["red"])["sockets"][0]["pid"], json!(innocent.pid));
    // Where sockets may not be asked, it says so.
    let unprivileged = ["setpriv", "--bounding-set=-sys_ptrace", "--inh-caps=-sys_ptrace"];
    let outcome = processes.run(&unprivileged, &["holders", "red"]);
    assert_eq!(outcome.code, Some(0), "{outcome:#?}");
    assert!(outcome.stdout.contains("note: ") && outcome.stdout.contains("CAP_SYS_PTRACE"), "{outcome:#?}");
    drop(innocent);
}

/// A TCP socket as it is made: in no table of the kernel.
fn nix_socket() -> OwnedFd {
    use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
    socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).expect("a socket")
}

#[test]
fn a_mount_elsewhere_is_shown_with_its_path() {
    let (_host, processes) = scene();
    fs::write("/run/else where", "").expect("a file");
    let (blue, none) = ("/run/netns/blue", None::<&str>);
    mount(Some(blue), "/run/else where", none, MsFlags::MS_BIND, none).expect("mount");
    assert_eq!(json_of(&processes, &["blue"])["mounts"], json!([{ "path": "/run/else where" }]));
    let table = text(&processes, &["blue"]);
    assert_eq!(rows(&table), [["mount", "-", "-", "-", "/run/else", "where"]]);
    umount2("/run/else where", MntFlags::empty()).expect("umount");
    assert_eq!(text(&processes, &["blue"]), NOTHING);
}

#[test]
fn mounts_of_other_mount_namespaces_are_shown_once_each_unless_they_go_with_the_name() {
    let (_host, processes) = scene();
    fs::write("/run/other", "").expect("a file");
    fs::write("/run/mounts.sh", "mount --bind /run/netns/blue /run/other && exec sleep 2000")
        .expect("a script");
    let copies = ["private", "slave"].map(|propagation| {
        processes.start(&format!("unshare --mount --propagation {propagation} sleep 1000"), Stdio::null())
    });
    let holder = processes.start("unshare --mount sh /run/mounts.sh", Stdio::null());
    let shown = until(SOON, "it has mounted", || {
        let shown = json_of(&processes, &["blue"]);
        (shown["mounts"][0]["command"] == "sleep 2000").then_some(shown)
    });
    let second =
        processes.start(&format!("nsenter --mount=/proc/{}/ns/mnt sleep 3000", holder.pid), Stdio::null());
    let [mount] = shown["mounts"].as_array().expect("mounts").as_slice() else { panic!("{shown:#}") };
    assert_eq!((&mount["pid"], &mount["path"]), (&json!(holder.pid), &json!("/run/other")));
    assert_eq!(json_of(&processes, &["blue"])["mounts"], shown["mounts"]);
    // The proof: without its name the namespace lives on there, and in no copy of the name.
    let inode = inode_of("blue").to_string();
    ip("netns delete blue");
    assert_eq!(json_of(&processes, &["--inode", &inode])["mounts"], shown["mounts"]);
    drop(holder);
    drop(second);
    assert_eq!(
        text(&processes, &["--inode", &inode]),
        format!("nothing holds a namespace of inode {inode}\n")
    );
    copies.into_iter().for_each(drop);
}

#[test]
fn a_namespace_that_lost_its_name_is_found_by_its_inode() {
    let (_host, processes) = scene();
    let sleep = processes.start("nsenter --net=/run/netns/blue sleep 1000", Stdio::null());
    until(SOON, "it is inside", || (text(&processes, &["blue"]) != NOTHING).then_some(()));
    let inode = inode_of("blue").to_string();
    ip("netns delete blue");
    let gone = processes.run(&[], &["holders", "blue"]);
    assert_eq!(gone.code, Some(1), "{gone:#?}");
    assert!(gone.stderr.contains("no namespace blue"), "{gone:#?}");
    let shown = json_of(&processes, &["--inode", &inode]);
    assert_eq!((&shown["netns"], &shown["processes"][0]["pid"]), (&Value::Null, &json!(sleep.pid)));
    drop(sleep);
    for wrong in [&["holders"][..], &["holders", "blue", "--inode", "1"], &["holders", "../blue"]] {
        assert_eq!(processes.run(&[], wrong).code, Some(2), "{wrong:?}");
    }
}

#[test]
fn an_agent_holds_none_of_the_namespaces_it_keeps() {
    let host = TestHost::new();
    let file = write_config(TWO);
    let processes = PidNamespace::new(&host);
    let binary = processes.binary().display().to_string();
    let agent = processes
        .start(&format!("{binary} agent --config {file} --web.listen-address 127.0.0.1:0"), Stdio::null());
    until(SOON, "it has built", || {
        run("ip", "-j link").contains("red-eth0").then(|| fs::metadata("/run/netns/red").ok()).flatten()
    });
    for netns in ["blue", "red"] {
        let nothing = format!("nothing holds {netns} besides its name\n");
        until(SOON, "it is idle", || (text(&processes, &[netns]) == nothing).then_some(()));
    }
    drop(agent);
    // Twin: one that holds a namespace all the same is named.
    let sleep = processes.start("sleep 1000", fs::File::open("/run/netns/blue").expect("open"));
    fs::create_dir("/run/pretended").expect("a run directory");
    fs::write("/run/pretended/lock", format!("{}\n", sleep.pid)).expect("a lock");
    let file = fs::File::open("/run/pretended/lock").expect("a lock");
    let _lock = Flock::lock(file, FlockArg::LockExclusive).expect("locked");
    let shown = text(&processes, &["blue", "--run-dir", "/run/pretended"]);
    assert!(shown.contains(&format!("note: process {} is the agent", sleep.pid)), "{shown}");
    assert!(!text(&processes, &["blue"]).contains("the agent"), "it is the agent of another run directory");
    drop(sleep);
}
