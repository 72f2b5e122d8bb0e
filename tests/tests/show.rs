//! Namespaces that others made are shown as our own are, whichever way leads into them.

use std::fs::{self, File};

use monitor_tests::{
    agent::{Agent, Outcome, run_well},
    host::{TestHost, inside, ip, run as command},
    ledger::Count,
    oracle::link,
    poll::{SOON, until, until_equal},
    scene::{kernels, ours, silence},
};

const SOURCES: [&str; 2] = ["--watch.source", "named,mount"];

fn show(args: &[&str]) -> Outcome {
    run_well(&[&SOURCES, args].concat())
}

#[test]
fn a_namespace_at_a_mount_of_somebody_else_is_shown_with_everything() {
    let _host = TestHost::quiet();
    ip("netns add red");
    silence(&["red"]);
    ip("link add v0 type veth peer name eth0 netns red");
    ip("-n red link add eth1 type bridge");
    ip("-n red link set eth1 mtu 1400");
    ip("-n red address add 198.51.100.2/24 dev eth0");
    ip("-n red address add 198.51.100.7/32 dev eth0");
    let mac = link(Some("red"), "eth0")["address"].as_str().expect("a MAC address").to_owned();
    // A container engine's way: a mount elsewhere, and no name.
    fs::create_dir("/run/elsewhere").expect("a directory");
    File::create("/run/elsewhere/cni-7").expect("a file");
    command("mount", "--bind /run/netns/red /run/elsewhere/cni-7");
    let agent = Agent::start("", &SOURCES);
    until(SOON, "it is counted", || (ours_there(&agent, "red") == [0, 0]).then_some(()));
    ip("link set v0 up");
    ip("-n red link set eth0 up");
    ip("-n red route add 203.0.113.0/24 via 198.51.100.1 dev eth0");
    inside("red", || {
        let socket = std::net::UdpSocket::bind("0.0.0.0:0").expect("a socket");
        socket.set_broadcast(true).expect("broadcasts");
        (0..9).for_each(|_| assert_eq!(socket.send_to(&[0; 10], "198.51.100.255:9").expect("sent"), 10));
    });
    until_equal(SOON, "the kernel's counts", || (ours(&agent.metrics(), "red"), kernels("v0")));
    let [_, transmit] = kernels("v0");
    assert_eq!(transmit, Count { packets: 9, bytes: 9 * (14 + 20 + 8 + 10) });
    ip("netns delete red");
    // What was named keeps its label with what is counted; who looks without that sees what is.
    show(&["--bpffs", "/nonexistent", "show", "cni-7"]);

    for name in ["/run/elsewhere/cni-7", "red"] {
        let text = show(&["show", name]).stdout;
        let row = |start: &str| {
            let line = text.lines().find(|line| line.starts_with(start));
            line.map(|line| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
                .unwrap_or_default()
        };
        assert!(text.lines().next().expect("a line").ends_with("not made by netns-monitor"), "{text}");
        let eth0 = ["eth0", "up", "veth", &mac, "1500", "v0", "tcx", "198.51.100.2/24", "198.51.100.7/32"];
        assert_eq!(row("eth0"), eth0, "{text}");
        assert_eq!(row("eth1")[..3], ["eth1", "down", "bridge"], "{text}");
        assert_eq!(row("eth1")[4..], ["1400", "-", "tcx", "-"], "{text}");
        assert!(text.contains("\n  203.0.113.0/24 via 198.51.100.1 dev eth0\n"), "{text}");
        assert_eq!(row("ipv4 udp"), ["ipv4", "udp", "0", "0", "9", "468"], "{text}");
        let json: serde_json::Value =
            serde_json::from_str(&show(&["show", name, "--json"]).stdout).expect("JSON");
        assert_eq!(json["addresses"]["eth0"], serde_json::json!(["198.51.100.2/24", "198.51.100.7/32"]));
        assert_eq!(json["routes"], serde_json::json!(["203.0.113.0/24 via 198.51.100.1 dev eth0"]));
        assert_eq!(json["counts"]["transmit"]["packets"], 9);
    }
    let listed = show(&["ls"]).stdout;
    let row = listed.lines().find(|line| line.starts_with("red")).expect("its row");
    let row: Vec<_> = row.split_whitespace().collect();
    assert_eq!(row, ["red", "named", "no", "tcx", "2", "0", "0", "9", "468"], "{listed}");
    command("umount", "/run/elsewhere/cni-7");
}

fn ours_there(agent: &Agent, netns: &str) -> [i64; 2] {
    let metrics = agent.metrics();
    ["eth0", "eth1"].map(|interface| {
        let labels = [("netns", netns), ("interface", interface), ("direction", "transmit")];
        metrics.value("netns_skbs_total", &labels).map_or(-1, |value| value as i64)
    })
}
