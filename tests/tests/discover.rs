//! Namespaces that other tools made, of every kind, are each found once, with the right names and the right counts, and are
//! let go when they end.

use std::{
    collections::BTreeMap,
    fs,
    os::{fd::AsRawFd as _, unix::fs::MetadataExt as _},
    process::Stdio,
    rc::Rc,
    time::Duration,
};

use monitor_tests::{
    agent::{Agent, run_well},
    exposition::Metrics,
    host::{TestHost, disable_ipv6, inside, ip, run},
    ledger::{Count, skbs},
    oracle::{links, pins},
    pid_namespace::{PidNamespace, Running},
    poll::{ONE_PASS, SOON, until, until_equal, until_stable},
    scene::{kernels, ours},
};

/// For so long nothing moves where nothing is on its way.
const QUIET: Duration = Duration::from_millis(300);

/// The label that a series of this metric has, of those with these labels.
fn label(metrics: &Metrics, name: &str, with: &[(&str, &str)]) -> Option<String> {
    metrics.select(name, with).next().and_then(|(labels, _)| labels.get("netns").cloned())
}

fn state(metrics: &Metrics, netns: &str) -> Option<String> {
    let with = [("netns", netns)];
    let mut states = metrics.select("netns_state", &with);
    states.find(|(_, value)| *value == 1.0).and_then(|(labels, _)| labels.get("state").cloned())
}

/// Sends one datagram to the host's end, after asking who it is.
fn send(netns: &str) {
    inside(netns, || {
        let socket = std::net::UdpSocket::bind("0.0.0.0:0").expect("a socket");
        socket.send_to(b"x", "198.51.100.1:9").expect("sent");
    });
}

#[test]
fn a_namespace_and_veth_of_other_tools_is_counted_renamed_moved_and_let_go() {
    let _host = TestHost::quiet();
    let mut agent = Agent::start("", &[]);
    ip("netns add red");
    inside("red", disable_ipv6);
    ip("link add v0 type veth peer name eth0 netns red");
    let attached = |netns: &str, interface: &str| {
        let labels = [("netns", netns), ("interface", interface)];
        agent.metrics().value("netns_interface_attached", &[&labels[..], &[("mode", "tcx")]].concat())
            == Some(1.0)
    };
    until(SOON, "it is counted", || attached("red", "eth0").then_some(()));
    ip("address add 198.51.100.1/24 dev v0");
    ip("-n red address add 198.51.100.2/24 dev eth0");
    ip("link set v0 up");
    ip("-n red link set eth0 up");
    until(SOON, "the link is up", || ip("-n red -br link show eth0").contains("LOWER_UP").then_some(()));
    let _listener = std::net::UdpSocket::bind("198.51.100.1:9").expect("so that nobody answers");
    send("red");
    until(SOON, "something was sent", || (kernels("v0")[1].packets >= 1).then_some(()));
    until_equal(SOON, "the counts are the kernel's", || (ours(&agent.metrics(), "red"), kernels("v0")));

    // The interface has another name, and goes on.
    let before = kernels("v0");
    ip("-n red link set eth0 down");
    ip("-n red link set eth0 name wan0");
    until(SOON, "it has its new name", || attached("red", "wan0").then_some(()));
    assert!(!attached("red", "eth0"));
    let total: f64 = agent
        .metrics()
        .select("netns_skbs_total", &[("netns", "red"), ("interface", "wan0"), ("direction", "transmit")])
        .map(|(_, value)| value)
        .sum();
    assert_eq!(total, before[1].packets as f64, "a rename keeps the count");

    // It moves to another namespace.
    ip("netns add blue");
    inside("blue", disable_ipv6);
    ip("-n red link set wan0 netns blue");
    until(SOON, "it is in its new namespace", || attached("blue", "wan0").then_some(()));
    let of = |metrics: &Metrics, netns: &str, name: &str| {
        let with = [("netns", netns), ("direction", "transmit")];
        metrics.select(name, &with).map(|(_, value)| value).sum::<f64>()
    };
    until_equal(SOON, "what it was counted stays with the first, and the other begins at 0", || {
        let metrics = agent.metrics();
        let now =
            [of(&metrics, "blue", "netns_skbs_total"), of(&metrics, "red", "netns_retired_packets_total")];
        (now, [0.0, before[1].packets as f64])
    });

    // Nothing of the agent holds them.
    ip("netns delete red");
    ip("netns delete blue");
    until(SOON, "they are gone", || {
        let metrics = agent.metrics();
        (metrics.value("netns_network_namespaces", &[]) == Some(0.0)).then_some(())
    });
    until(SOON, "the host's end went with them", || (!ip("-br link").contains("v0")).then_some(()));
    until_equal(SOON, "the counts are the host's", || {
        let metrics = agent.metrics();
        let gone =
            metrics.value("netns_retired_packets_total", &[("netns", "~gone"), ("direction", "transmit")]);
        (gone, Some(before[1].packets as f64))
    });
    agent.terminate();
}

#[test]
fn namespaces_without_a_name_are_found_by_what_keeps_them_alive() {
    let host = TestHost::quiet();
    ip("netns add held");
    ip("netns add detached");
    let processes = PidNamespace::new(&host);
    // A process in one, a descriptor of another, and a process in a third that will lose its name.
    let sleeper = processes.start("unshare -n sleep 1000", Stdio::null());
    fs::write(
        "/run/hold.py",
        "import os, time\nfd = os.open('/run/netns/held', os.O_RDONLY)\nopen('/run/holding', 'w').close()\ntime.sleep(1000)\n",
    )
    .expect("a script");
    let holder = processes.start("python3 /run/hold.py", Stdio::null());
    let inside = processes.start("nsenter --net=/run/netns/detached sleep 1000", Stdio::null());
    until(SOON, "the descriptor is open", || fs::exists("/run/holding").expect("a look").then_some(()));

    let list = || -> Vec<serde_json::Value> {
        let sources = ["--watch.source", "named,mount,process,held", "ls", "--json"];
        let outcome = processes.run(&[], &sources);
        assert_eq!(outcome.code, Some(0), "{outcome:#?}");
        serde_json::from_str(&outcome.stdout).expect("JSON")
    };
    let labels = |list: &[serde_json::Value]| -> Vec<(String, String)> {
        let text = |netns: &serde_json::Value, key: &str| netns[key].as_str().expect("text").to_owned();
        let mut labels: Vec<_> = list
            .iter()
            .map(|netns| {
                let label = text(netns, "netns");
                (label.split('~').next().expect("a part").to_owned(), text(netns, "state"))
            })
            .collect();
        labels.sort();
        labels
    };
    let pair = |label: &str, state: &str| (label.to_owned(), state.to_owned());
    // Who sees a name holds nothing: of the one that nobody holds, its name and its process are told.
    let all = list();
    let aliases = all.iter().find(|netns| netns["netns"] == "detached").map(|netns| &netns["aliases"]);
    let sources = aliases.and_then(|aliases| aliases.as_array()).expect("aliases").iter();
    let mut sources: Vec<_> = sources.map(|alias| alias["source"].as_str().expect("text")).collect();
    sources.sort_unstable();
    assert_eq!(sources, ["named", "process"]);
    assert_eq!(
        labels(&list()),
        [pair("detached", "named"), pair("held", "named"), pair("sleep", "anonymous")]
    );
    ip("netns delete held");
    ip("netns delete detached");
    assert_eq!(
        labels(&list()),
        [pair("python3", "anonymous"), pair("sleep", "anonymous"), pair("sleep", "anonymous")],
        "two by their processes, and one by a descriptor alone"
    );
    drop(holder);
    drop(inside);
    drop(sleeper);
    until(SOON, "nothing is left", || list().is_empty().then_some(()));
}

#[test]
fn a_namespace_that_loses_its_name_is_detached_and_counted_and_then_gone() {
    let host = TestHost::quiet();
    let processes = Rc::new(PidNamespace::new(&host));
    let sources = ["--watch.source", "named,mount,process,held"];
    let agent = Agent::start_among(&processes, &sources);
    ip("netns add red");
    inside("red", disable_ipv6);
    ip("link add v0 type veth peer name eth0 netns red");
    let attached = [("netns", "red"), ("interface", "eth0"), ("mode", "tcx")];
    until(SOON, "it is counted", || agent.metrics().value("netns_interface_attached", &attached));
    ip("address add 198.51.100.1/24 dev v0");
    ip("-n red address add 198.51.100.2/24 dev eth0");
    ip("link set v0 up");
    ip("-n red link set eth0 up");
    let now = || state(&agent.metrics(), "red");
    until(SOON, "it is named", || (now().as_deref() == Some("named")).then_some(()));
    until(SOON, "the link is up", || ip("-n red -br link show eth0").contains("LOWER_UP").then_some(()));
    let _listener = std::net::UdpSocket::bind("198.51.100.1:9").expect("so that nobody answers");
    send("red");
    until_equal(SOON, "the counts are the kernel's", || (ours(&agent.metrics(), "red"), kernels("v0")));

    let command = "nsenter --net=/run/netns/red sh /run/send.sh";
    fs::write(
        "/run/send.sh",
        "while [ ! -e /run/go ]; do sleep 0.05; done\nping -c 3 -i 0.1 198.51.100.1 >&2\nexec sleep 1000\n",
    )
    .expect("a script");
    let living = processes.start(command, Stdio::null());
    ip("netns delete red");
    until(SOON, "it is detached", || (now().as_deref() == Some("detached")).then_some(()));
    fs::write("/run/go", "").expect("go");
    until(SOON, "three echoes more were sent", || (kernels("v0")[1].packets > 3).then_some(()));
    until_equal(SOON, "it is counted on", || (ours(&agent.metrics(), "red"), kernels("v0")));
    let listed = processes.run_well(&[&sources[..], &["ls"]].concat()).stdout;
    let line = listed.lines().find(|line| line.starts_with("red ")).unwrap_or_else(|| panic!("{listed}"));
    assert!(line.contains("detached"), "{line}");
    let shown = processes.run_well(&[&sources[..], &["show", "red"]].concat()).stdout;
    assert!(shown.starts_with("red  detached"), "{shown}");
    until(SOON, "it is told who keeps it", || {
        processes.run_well(&["holders", "red"]).stdout.contains("sleep 1000").then_some(())
    });

    let counted = kernels("v0");
    drop(living);
    until(SOON, "it is gone", || now().is_none().then_some(()));
    assert!(!ip("-br link").contains("v0"), "nothing kept it alive");
    until_equal(SOON, "what was counted is not lost", || {
        let metrics = agent.metrics();
        let retired = |direction| {
            metrics.value("netns_retired_packets_total", &[("netns", "~gone"), ("direction", direction)])
        };
        let packets = |count: Count| Some(count.packets as f64);
        (["receive", "transmit"].map(retired), counted.map(packets))
    });
}

#[test]
fn a_program_that_somebody_removed_is_put_back_and_counted_on() {
    let _host = TestHost::quiet();
    let agent = Agent::start("", &[]);
    ip("netns add red");
    inside("red", disable_ipv6);
    ip("link add v0 type veth peer name eth0 netns red");
    let attached = || {
        let metrics = agent.metrics();
        label(&metrics, "netns_interface_attached", &[("netns", "red"), ("mode", "tcx")])
    };
    until(SOON, "it is counted", attached);
    assert_eq!(agent.metrics().value("netns_monitor_reattached_total", &[]), Some(0.0));
    assert_eq!(state(&agent.metrics(), "red").as_deref(), Some("named"));
    // What is pinned is attached for as long as it is pinned.
    let pin = pins().into_iter().find(|pin| pin.ends_with("-egress")).expect("a pinned link");
    fs::remove_file(pin).expect("removed");
    until(ONE_PASS, "it is put back", || {
        (agent.metrics().value("netns_monitor_reattached_total", &[]) == Some(1.0)).then_some(())
    });
    run_well(&["ls"]);
}

/// Every kind of namespace, each made by other tools: how to enter it, and its interface.
struct Zoo {
    processes: Rc<PidNamespace>,
    /// Part of the label, the way in, the interface, and the address to ask.
    all: Vec<(&'static str, String, &'static str, &'static str)>,
    living: Vec<Running>,
}

impl Zoo {
    fn within(way: &str, command: &str) -> String {
        run("nsenter", &format!("--net={way} {command}"))
    }

    /// A veth between two ways in (the host is none), an address on either end, and no word that nobody asked for.
    fn wire(ends: [(Option<&str>, &str, &str); 2]) {
        run("ip", "link add tmp0 type veth peer name tmp1");
        for ((way, name, address), made) in ends.into_iter().zip(["tmp0", "tmp1"]) {
            match way {
                Some(way) => {
                    let file = fs::File::open(way).expect("a way in");
                    let link = format!("/proc/{}/fd/{}", std::process::id(), file.as_raw_fd());
                    // `ip` knows names and processes: a name for a moment.
                    fs::write("/run/netns/tmp", "").expect("a file");
                    run("mount", &format!("--bind {link} /run/netns/tmp"));
                    ip(&format!("link set {made} netns tmp"));
                    run("umount", "/run/netns/tmp");
                    fs::remove_file("/run/netns/tmp").expect("removed");
                    for command in [
                        format!("sysctl -q -w net.ipv6.conf.{made}.disable_ipv6=1"),
                        format!("ip link set {made} name {name}"),
                        format!("ip address add {address}/24 dev {name}"),
                        format!("ip link set {name} up"),
                    ] {
                        Self::within(way, &command);
                    }
                }
                None => {
                    ip(&format!("link set {made} name {name}"));
                    ip(&format!("address add {address}/24 dev {name}"));
                    ip(&format!("link set {name} up"));
                }
            }
        }
    }

    fn new(host: &TestHost) -> Self {
        let processes = Rc::new(PidNamespace::new(host));
        for name in ["named", "left", "right", "held", "outer"] {
            ip(&format!("netns add {name}"));
        }
        let file = fs::File::open("/run/netns/held").expect("a descriptor of it");
        let living = vec![
            processes.start("unshare -n sleep 1000", Stdio::null()),
            processes.start("sleep 2000", file),
            processes.start("nsenter --net=/run/netns/outer unshare -n sleep 3000", Stdio::null()),
        ];
        let ways = |at: usize| format!("/proc/{}/ns/net", living[at].outer());
        let (anonymous, nested) = (ways(0), ways(2));
        let held = format!("/proc/{}/fd/0", living[1].outer());
        let named = |name: &str| format!("/run/netns/{name}");
        let host_of = |name, address| (None, name, address);
        Self::wire([host_of("v0", "198.51.100.1"), (Some(&named("named")), "eth0", "198.51.100.2")]);
        Self::wire([host_of("v1", "192.0.2.1"), (Some(&anonymous), "eth0", "192.0.2.2")]);
        Self::wire([host_of("v2", "203.0.113.1"), (Some(&held), "eth0", "203.0.113.2")]);
        Self::wire([
            (Some(&named("left")), "to-right", "198.18.0.1"),
            (Some(&named("right")), "to-left", "198.18.0.2"),
        ]);
        Self::wire([(Some(&named("outer")), "down0", "198.18.1.1"), (Some(&nested), "up0", "198.18.1.2")]);
        ip("netns delete held");
        let all = vec![
            ("named", named("named"), "eth0", "198.51.100.1"),
            ("sleep", anonymous, "eth0", "192.0.2.1"),
            ("sleep", held, "eth0", "203.0.113.1"),
            ("left", named("left"), "to-right", "198.18.0.2"),
            ("right", named("right"), "to-left", "198.18.0.1"),
            ("outer", named("outer"), "down0", "198.18.1.2"),
            ("sleep", nested, "up0", "198.18.1.1"),
        ];
        Self { processes, all, living }
    }
}

#[test]
fn every_kind_of_namespace_is_shown_once_counted_to_the_packet_and_let_go() {
    let host = TestHost::quiet();
    let zoo = Zoo::new(&host);
    let sources = ["--watch.source", "named,mount,process,held"];
    let agent = Agent::start_among(&zoo.processes, &sources);
    let inodes: BTreeMap<u64, usize> = zoo
        .all
        .iter()
        .enumerate()
        .map(|(at, (_, way, ..))| (fs::metadata(way).expect("a namespace").ino(), at))
        .collect();
    // The label of each, by its inode.
    let labels = || -> Option<Vec<String>> {
        let metrics = agent.metrics();
        let mut found = vec![None; zoo.all.len()];
        let mut shown = 0;
        for (labels, _) in metrics.select("netns_info", &[]) {
            shown += 1;
            let at = *inodes.get(&labels["inode"].parse().expect("a number"))?;
            assert_eq!(found[at].replace(labels["netns"].clone()), None, "shown once");
        }
        assert!(shown <= zoo.all.len());
        found.into_iter().collect()
    };
    let labels = until(ONE_PASS * 2, "each is shown", labels);
    for (label, (part, ..)) in labels.iter().zip(&zoo.all) {
        assert!(label.starts_with(part), "{label} and {part}");
    }
    let attached = |at: usize| {
        let with = [("netns", labels[at].as_str()), ("interface", zoo.all[at].2)];
        agent.metrics().select("netns_interface_attached", &with).find(|(_, value)| *value == 1.0).map(|_| ())
    };
    (0..zoo.all.len()).for_each(|at| until(SOON, "each interface is counted", || attached(at)));
    let both = |at: usize| {
        let (_, way, interface, _) = &zoo.all[at];
        let metrics = agent.metrics();
        let ours = ["receive", "transmit"].map(|direction| skbs(&metrics, &labels[at], interface, direction));
        let shown = Zoo::within(way, &format!("ip -j -s -s link show dev {interface}"));
        let links: serde_json::Value = serde_json::from_str(&shown).expect("JSON");
        let number =
            |direction: &str, what: &str| links[0]["stats64"][direction][what].as_u64().expect("a number");
        let kernel = ["rx", "tx"].map(|direction| Count {
            packets: number(direction, "packets"),
            bytes: number(direction, "bytes"),
        });
        (ours, kernel)
    };
    let no_socket = |at: usize| {
        let with = [("netns", labels[at].as_str()), ("reason", "NO_SOCKET")];
        agent.metrics().value("netns_packet_drops_total", &with).unwrap_or_default()
    };
    for at in 0..zoo.all.len() {
        let (_, way, _, to) = &zoo.all[at];
        // They know each other after that.
        Zoo::within(way, &format!("ping -q -c 1 -W 5 {to}"));
    }
    let before: Vec<_> =
        (0..zoo.all.len()).map(|at| until_stable(SOON, QUIET, "silence", || both(at))).collect();
    for at in 0..zoo.all.len() {
        let (_, way, _, to) = &zoo.all[at];
        Zoo::within(way, &format!("ping -q -c 7 -i 0.01 -W 5 {to}"));
    }
    for at in 0..zoo.all.len() {
        let rise = |after: [Count; 2], before: [Count; 2]| {
            [0, 1].map(|way| (after[way].packets - before[way].packets, after[way].bytes - before[way].bytes))
        };
        until_equal(SOON, &format!("{} is counted as the kernel does", labels[at]), || {
            let (ours, kernel) = both(at);
            (rise(ours, before[at].0), rise(kernel, before[at].1))
        });
        let (ours, _) = both(at);
        assert!(rise(ours, before[at].0).iter().all(|(packets, _)| *packets >= 7), "{}", labels[at]);
    }
    // To a port of its own that nobody has: dropped there, for that reason.
    for (at, label) in labels.iter().enumerate() {
        let (_, way, ..) = &zoo.all[at];
        let dropped = no_socket(at);
        Zoo::within(way, "ip link set lo up");
        let script = "import socket\ns = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\nfor _ in range(5): s.sendto(b'x', ('127.0.0.1', 9))\n";
        fs::write("/run/send.py", script).expect("a script");
        Zoo::within(way, "python3 /run/send.py");
        until_equal(SOON, &format!("what {} dropped", label), || (no_socket(at) - dropped, 5.0));
    }

    let Zoo { processes, all, living } = zoo;
    drop((living, all));
    for name in ["named", "left", "right", "outer"] {
        ip(&format!("netns delete {name}"));
    }
    until(ONE_PASS * 2, "all are gone", || {
        (agent.metrics().value("netns_network_namespaces", &[]) == Some(0.0)).then_some(())
    });
    until(SOON, "and their links", || (links() == ["lo"]).then_some(()));
    let left = processes.run_well(&[&sources[..], &["ls", "--json"]].concat()).stdout;
    assert_eq!(left.trim(), "[]");
}
