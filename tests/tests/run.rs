//! Commands in namespaces: `exec` as `ip netns exec` does it, `run` in a namespace that is wired and counted before it
//! starts and goes when it ends.

use std::{
    fs,
    net::UdpSocket,
    path::Path,
    process::{Child, Command, Stdio},
};

use monitor_tests::{
    agent::{Agent, binary, run, run_well, write_config},
    host::{TestHost, ip},
    killer::{End, kill_at},
    oracle::{links, pins},
    poll::{ONE_PASS, SOON, until},
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

const FILE: &str = r#"
[[bridge]]
name = "nm0"
subnet = "198.51.100.0/24"

[[namespace]]
name = "blue"
interface = [{ name = "eth0", bridge = "nm0" }]
"#;

/// Sends five datagrams to the bridge; before the first comes the question who that is.
const FIVE: &str = "import socket; s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); \
                    [s.sendto(b'x', ('198.51.100.1', 9)) for _ in range(5)]; \
                    import time; time.sleep(60)";

fn start(args: &[&str]) -> Child {
    let mut command = Command::new(binary());
    command.args(args).env("NO_COLOR", "1").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().expect("netns-monitor")
}

fn namespaces() -> Vec<String> {
    ip("netns list").lines().filter_map(|line| line.split(' ').next()).map(ToOwned::to_owned).collect()
}

fn nothing_is_left() {
    assert_eq!(namespaces(), [""; 0]);
    assert_eq!(links(), ["lo"]);
    assert_eq!(pins(), [""; 0]);
    assert!(!Path::new("/run/netns-monitor").exists());
}

#[test]
fn exec_is_what_ip_netns_exec_is() {
    let _host = TestHost::quiet();
    ip("netns add blue");
    ip("-n blue link add inner type veth peer name outer");
    fs::create_dir_all("/run/etc").expect("a folder");
    // A folder of the test's own in the place of /etc/netns.
    let made = !Path::new("/etc/netns").exists();
    fs::create_dir_all("/etc/netns").expect("a folder");
    assert!(
        Command::new("mount").args(["-t", "tmpfs", "tmpfs", "/etc/netns"]).status().expect("mount").success()
    );
    fs::create_dir_all("/etc/netns/blue").expect("a folder");
    fs::write("/etc/netns/blue/hostname", "called blue\n").expect("a file");
    fs::write("/etc/netns/blue/no-such-target", "x").expect("a file");

    let script = "ls /sys/class/net | tr '\\n' ' '; cat /etc/hostname; readlink /proc/self/ns/net; exit 9";
    let theirs = Command::new("ip").args(["netns", "exec", "blue", "sh", "-c", script]).output().expect("ip");
    let ours = run(&["exec", "blue", "--", "sh", "-c", script]);
    assert_eq!((ours.code, &ours.stdout), (Some(9), &String::from_utf8_lossy(&theirs.stdout).into_owned()));
    assert!(ours.stdout.starts_with("inner lo outer called blue\nnet:["), "{}", ours.stdout);
    assert!(ours.stderr.contains("/etc/netns/blue/no-such-target"), "{}", ours.stderr);
    assert_ne!(fs::read_to_string("/etc/hostname").unwrap_or_default(), "called blue\n", "not outside");

    fs::remove_file("/etc/netns/blue/no-such-target").expect("removed");
    let user =
        run_well(&["exec", "blue", "--user", "nobody", "--", "sh", "-c", "id -un; id -G; echo $HOME $USER"]);
    let expected = Command::new("id").args(["-G", "nobody"]).output().expect("id");
    let groups = String::from_utf8_lossy(&expected.stdout).into_owned();
    assert!(user.stdout.starts_with(&format!("nobody\n{groups}")), "{}", user.stdout);
    assert!(user.stdout.ends_with(" nobody\n"), "{}", user.stdout);

    for (args, code) in [
        (&["exec", "blue", "--", "/no/such"][..], 127),
        (&["exec", "blue", "--", "/etc/passwd"], 126),
        (&["exec", "red", "--", "true"], 1),
        (&["exec", "../blue", "--", "true"], 2),
        (&["exec", "blue", "--user", "no-such-user", "--", "true"], 2),
        (&["exec", "blue"], 2),
    ] {
        let outcome = run(args);
        assert_eq!(outcome.code, Some(code), "{args:?}: {outcome:#?}");
        assert!(!outcome.stderr.is_empty());
    }
    let killed = run(&["exec", "blue", "--", "sh", "-c", "kill -TERM $$"]);
    assert_eq!(killed.code, None, "it is the command itself that a signal ends");
    // A terminal stays one.
    let script = format!("{} exec blue -- tty", binary().display());
    let tty = Command::new("script")
        .args(["-qec", &script, "/dev/null"])
        .stdin(Stdio::null())
        .output()
        .expect("script");
    assert!(String::from_utf8_lossy(&tty.stdout).starts_with("/dev/pts/"), "{tty:?}");
    if made {
        assert!(Command::new("umount").arg("/etc/netns").status().expect("umount").success());
        let _left_to_others = fs::remove_dir("/etc/netns");
    }
}

#[test]
fn a_command_runs_in_a_namespace_that_goes_with_it() {
    let _host = TestHost::quiet();
    let alone = run(&["run", "--", "sh", "-c", "ls /sys/class/net; cat /sys/class/net/lo/operstate; exit 7"]);
    assert_eq!((alone.code, alone.stdout.as_str()), (Some(7), "lo\nunknown\n"), "{alone:#?}");
    nothing_is_left();
    for (args, code, said) in [
        (&["run", "--", "/no/such"][..], 127, "cannot run /no/such"),
        (&["run", "--", "/etc/passwd"], 126, "cannot run /etc/passwd"),
        (
            &["run", "--network", "nm9", "--", "true"],
            1,
            "there is no bridge of that name that netns-monitor made",
        ),
        (&["run", "--name", "a/b", "--", "true"], 2, "`a/b` is no namespace name"),
        (&["run", "--", "sh", "-c", "kill -KILL $$"], 137, ""),
    ] {
        let outcome = run(args);
        assert_eq!(outcome.code, Some(code), "{args:?}: {outcome:#?}");
        assert!(outcome.stderr.contains(said), "{args:?}: {}", outcome.stderr);
        nothing_is_left();
    }

    let file = write_config(FILE);
    run_well(&["apply", file]);
    let script = "ip -br -4 address show eth0 | grep -o '198[0-9./]*'; ip route show default; ping -c 1 -W 5 198.51.100.2";
    let shown = run_well(&["run", "--network", "nm0", "--", "sh", "-c", script]).stdout;
    assert!(shown.starts_with("198.51.100.3/24\ndefault via 198.51.100.1 dev eth0"), "{shown}");
    assert_eq!(namespaces(), ["blue"]);

    // Two at once have an address each, and what the file says is none of their business.
    let mut first = start(&["run", "--network", "nm0", "--name", "one", "--", "sleep", "60"]);
    until(SOON, "the first runs", || namespaces().contains(&"one".to_owned()).then_some(()));
    until(SOON, "the first has its address", || {
        ip("-n one -br -4 address").contains("198.51.100.3").then_some(())
    });
    let second = run_well(&["run", "--network", "nm0", "--", "ip", "-br", "-4", "address"]).stdout;
    assert!(second.contains("198.51.100.4/24"), "{second}");
    assert_eq!(run_well(&["plan", file]).stdout, "");
    assert_eq!(run_well(&["apply", file]).stdout, "nothing to do\n");
    assert_eq!(run(&["run", "--name", "one", "--", "true"]).code, Some(1), "the name is taken");
    kill(Pid::from_raw(first.id().cast_signed()), Signal::SIGTERM).expect("it runs");
    let ended = first.wait().expect("its status");
    assert_eq!(ended.code(), Some(128 + Signal::SIGTERM as i32), "the command got the signal");
    assert_eq!(namespaces(), ["blue"]);
    run_well(&["destroy", file]);
    nothing_is_left();
}

#[test]
fn beside_an_agent_the_first_packet_is_counted_and_everything_goes() {
    let _host = TestHost::quiet();
    let mut agent = Agent::start(FILE, &[]);
    let _listener = UdpSocket::bind("0.0.0.0:9").expect("so that nobody answers");
    let mut sender = start(&["run", "--network", "nm0", "--name", "sender", "--", "python3", "-c", FIVE]);
    let counted = |direction, family, protocol| {
        let labels =
            [("netns", "sender"), ("direction", direction), ("family", family), ("protocol", protocol)];
        agent.metrics().value("netns_protocol_packets_total", &labels)
    };
    // It asked for its neighbour first, had an answer, and sent five.
    until(SOON, "five datagrams", || counted("transmit", "ipv4", "udp").filter(|count| *count == 5.0));
    assert_eq!(counted("transmit", "arp", "other"), Some(1.0), "the very first packet");
    assert_eq!(counted("receive", "arp", "other"), Some(1.0));
    kill(Pid::from_raw(sender.id().cast_signed()), Signal::SIGTERM).expect("it runs");
    assert_eq!(sender.wait().expect("its status").code(), Some(143));
    let script = "echo > /run/started; exec sleep 60";
    let mut long = start(&["run", "--network", "nm0", "--name", "long", "--", "sh", "-c", script]);
    until(SOON, "it runs", || Path::new("/run/started").exists().then_some(()));
    let attached = [("netns", "long"), ("mode", "tcx")];
    assert_eq!(
        agent.metrics().value("netns_interface_attached", &attached),
        Some(1.0),
        "counted before that"
    );
    kill(Pid::from_raw(long.id().cast_signed()), Signal::SIGTERM).expect("it runs");
    assert_eq!(long.wait().expect("its status").code(), Some(143));
    assert_eq!(namespaces(), ["blue"]);

    // One that is killed takes its command along, and the agent takes the namespace away.
    let mut long = start(&["run", "--network", "nm0", "--name", "long", "--", "sleep", "60"]);
    until(SOON, "it is there", || namespaces().contains(&"long".to_owned()).then_some(()));
    long.kill().expect("killed");
    long.wait().expect("its status");
    until(ONE_PASS, "it is gone", || (namespaces() == ["blue"]).then_some(()));
    agent.terminate();
    run_well(&["destroy", write_config(FILE)]);
    nothing_is_left();
}

#[test]
fn an_agent_without_a_file_leaves_what_stands_and_takes_care_of_commands_alone() {
    let _host = TestHost::quiet();
    let file = FILE.replace("subnet =", "isolate = true\nnat = true\nsubnet =");
    let file = write_config(&file);
    run_well(&["apply", file]);
    let state = || {
        let rules = Command::new("nft").args(["list", "ruleset"]).output().expect("nft");
        (namespaces(), links(), ip("-o -4 address show"), String::from_utf8_lossy(&rules.stdout).into_owned())
    };
    let built = state();
    // On a bridge whose ports are kept apart, beside no agent.
    run_well(&["run", "--network", "nm0", "--", "true"]);
    assert_eq!(state(), built);

    let mut agent = Agent::watching(&[]);
    // What the agent hears of makes it pass.
    ip("link add passing type veth peer name by");
    ip("link delete passing");
    let script = "echo > /run/started; exec sleep 60";
    let mut long = start(&["run", "--network", "nm0", "--name", "long", "--", "sh", "-c", script]);
    until(SOON, "it runs", || Path::new("/run/started").exists().then_some(()));
    let attached = [("netns", "long"), ("mode", "tcx")];
    until(SOON, "it is counted", || agent.metrics().value("netns_interface_attached", &attached));
    long.kill().expect("killed");
    long.wait().expect("its status");
    until(ONE_PASS, "what the command had is gone", || (state() == built).then_some(()));
    agent.terminate();
    run_well(&["agent", "--once"]);
    assert_eq!(state(), built);
    run_well(&["destroy", file]);
    nothing_is_left();
}

#[test]
fn killed_anywhere_the_command_does_not_run_unwired_and_gc_leaves_nothing() {
    let _host = TestHost::quiet();
    let ran = Path::new("/run/ran");
    let script = "test $(cat /sys/class/net/lo/flags) = 0x9 && echo wired > /run/ran || echo bare > /run/ran";
    let mut unreleased = 0;
    for nth in (1..1000).step_by(5) {
        let _old = fs::remove_file(ran);
        let mut command = Command::new(binary());
        let end = kill_at(
            command.args(["--attach", "none", "run", "--name", "one", "--", "sh", "-c", script]),
            nth,
        );
        if let End::Finished(code) = end {
            assert_eq!(code, 0);
            assert!(unreleased > 3, "{unreleased} were killed before the command ran");
            nothing_is_left();
            return;
        }
        // Nobody is left who holds the namespace: the process has seen that its parent is gone.
        until(SOON, "the process has ended", || {
            let holders = run(&["holders", "one", "--json"]);
            (holders.code != Some(0) || !holders.stdout.contains("\"pid\"")).then_some(())
        });
        match fs::read_to_string(ran) {
            Ok(text) => assert_eq!(text, "wired\n", "{nth}"),
            Err(_) => unreleased += 1,
        }
        run_well(&["--attach", "none", "gc"]);
        run_well(&["--attach", "none", "apply", write_config("")]);
        run_well(&["--attach", "none", "destroy", write_config("")]);
        nothing_is_left();
    }
    panic!("it never came to its end");
}
