//! The way out and in, and what is kept apart, with real packets: NAT, published ports, isolation, rules of namespaces.

use std::{
    fs,
    net::{SocketAddr, UdpSocket},
    process::Command,
};

use monitor_tests::{
    agent::{Agent, binary, run, run_well, write_config},
    host::{inside, ip, run as program},
    http,
    oracle::links,
    outside::{get, host_with_outside, pings, reaches, serve},
    poll::{ONE_PASS, SOON, until},
};
use serde_json::Value;

/// The example as it is printed, and beside it two more ports, and a second bridge.
fn docker0() -> String {
    let example = run_well(&["config", "example", "docker0"]).stdout;
    let ports = "[\"8080:80/tcp\", \"127.0.0.1:7070:70\", \"9000-9002:8000-8002/udp\"]";
    assert!(example.contains("[\"8080:80/tcp\"]"));
    example.replace("[\"8080:80/tcp\"]", ports) + FAR
}

const FAR: &str = r#"
[[bridge]]
name = "nm1"
subnet = "192.0.2.0/24"

[[namespace]]
name = "far"
interface = [{ name = "eth0", bridge = "nm1", address = "192.0.2.2/24" }]
route = [{ to = "default", via = "192.0.2.1" }]
"#;

fn drops(netns: &str) -> Value {
    let shown = run_well(&["show", netns, "--json"]).stdout;
    serde_json::from_str::<Value>(&shown).expect("JSON")["firewall_drops"].clone()
}

#[test]
fn a_published_port_is_reached_from_everywhere_and_the_outside_sees_the_hosts_address() {
    let _host = host_with_outside();
    run_well(&["--attach", "none", "apply", write_config(&docker0())]);

    let web = serve("web", 80, 5);
    assert_eq!(get(Some("outside"), "203.0.113.1:8080"), "web to 203.0.113.2");
    assert_eq!(get(None, "203.0.113.1:8080"), "web to 203.0.113.1");
    assert_eq!(get(None, "127.0.0.1:8080"), "web to 198.51.100.1");
    // A neighbour that cannot reach it otherwise, another bridge, and itself.
    assert_eq!(get(Some("db"), "203.0.113.1:8080"), "web to 198.51.100.1");
    assert_eq!(get(Some("far"), "198.51.100.1:8080"), "web to 192.0.2.2");
    web.join().expect("served");

    let local = serve("web", 70, 1);
    assert_eq!(get(None, "127.0.0.1:7070"), "web to 198.51.100.1");
    local.join().expect("served");
    let refused = inside("outside", || http::get("203.0.113.1:7070".parse().expect("an address"), "/"));
    assert!(refused.is_err(), "what is published at 127.0.0.1 is for the host alone: {refused:?}");

    let outside = serve("outside", 80, 2);
    assert_eq!(get(Some("job"), "203.0.113.2:80"), "outside to 203.0.113.1");
    // No address translation was asked for, and the outside knows no way back.
    assert!(!pings("far", "203.0.113.2"));
    assert_eq!(get(None, "203.0.113.2:80"), "outside to 203.0.113.1");
    outside.join().expect("served");

    run_well(&["--attach", "none", "destroy", write_config(&docker0())]);
}

#[test]
fn each_port_of_a_range_leads_to_its_own() {
    let _host = host_with_outside();
    run_well(&["--attach", "none", "apply", write_config(&docker0())]);
    for number in 0..3 {
        let inner = inside("web", || UdpSocket::bind(("0.0.0.0", 8000 + number)).expect("free"));
        inner.set_read_timeout(Some(SOON)).expect("a time-out");
        inside("outside", || {
            let socket = UdpSocket::bind("0.0.0.0:0").expect("free");
            socket.send_to(b"hello", ("203.0.113.1", 9000 + number)).expect("sent");
        });
        let mut buffer = [0; 16];
        let (length, from) = inner.recv_from(&mut buffer).expect("received");
        assert_eq!((&buffer[..length], from.ip().to_string()), (&b"hello"[..], "203.0.113.2".to_owned()));
    }
    run_well(&["--attach", "none", "destroy", write_config(&docker0())]);
}

#[test]
fn what_is_kept_apart_is_dropped_and_counted_to_the_packet_and_pairs_may_be_allowed() {
    let _host = host_with_outside();
    run_well(&["--attach", "none", "apply", write_config(&docker0())]);
    // So that no question for a neighbour is in the way, nor counted.
    let mac = fs::read_to_string("/sys/class/net/nm0/address").expect("a MAC address");
    let (mac, port) = (mac.trim(), inside_mac("db"));
    ip(&format!("-n web neighbour replace 198.51.100.1 lladdr {mac} dev eth0"));
    ip(&format!("-n web neighbour replace 198.51.100.3 lladdr {port} dev eth0"));
    assert_eq!(drops("web"), serde_json::json!({ "inbound": 0, "isolation": 0 }));

    send("web", "198.51.100.3:9", 7);
    send("web", "192.0.2.2:9", 5);
    // By way of the gateway it is no shorter.
    ip("-n web route add 198.51.100.4/32 via 198.51.100.1");
    send("web", "198.51.100.4:9", 3);
    until(SOON, "fifteen drops", || (drops("web")["isolation"] == 15).then_some(()));
    assert!(!pings("db", "198.51.100.4"), "ports of an isolated bridge");
    assert!(!pings("far", "198.51.100.2"), "another bridge");
    reaches("db", "198.51.100.1");

    // Who knows the way may not come in where nothing is published.
    ip("-n outside route add 198.51.100.0/24 via 203.0.113.1");
    send("outside", "198.51.100.2:80", 4);
    until(SOON, "four packets from outside", || (drops("web")["inbound"] == 4).then_some(()));
    let shown = run_well(&["show", "web"]).stdout;
    assert!(shown.contains("packets dropped by rules of the file\n  inbound 4  isolation 15\n"), "{shown}");

    let allowed = format!(
        "{}\n[[allow]]\nbetween = [\"db\", \"job\"]\n[[allow]]\nbetween = [\"nm0\", \"far\"]\n",
        docker0()
    );
    run_well(&["--attach", "none", "apply", write_config(&allowed)]);
    assert_eq!(run_well(&["--attach", "none", "plan", write_config(&allowed)]).stdout, "");
    assert_eq!(drops("web")["isolation"], 15, "a change of the file keeps what was counted");
    reaches("db", "198.51.100.4");
    reaches("job", "198.51.100.3");
    assert!(!pings("db", "198.51.100.2") && !pings("web", "198.51.100.3"), "nobody else");
    reaches("web", "192.0.2.2");
    reaches("far", "198.51.100.3");
    run_well(&["--attach", "none", "destroy", write_config(&allowed)]);
}

fn inside_mac(netns: &str) -> String {
    let shown = ip(&format!("-n {netns} -j link show eth0"));
    serde_json::from_str::<Value>(&shown).expect("JSON")[0]["address"].as_str().expect("a MAC").to_owned()
}

fn send(netns: &str, to: &str, datagrams: usize) {
    let to: SocketAddr = to.parse().expect("an address");
    inside(netns, || {
        let socket = UdpSocket::bind("0.0.0.0:0").expect("free");
        for _ in 0..datagrams {
            socket.send_to(b"x", to).expect("sent");
        }
    });
}

#[test]
fn what_was_turned_on_is_put_back_and_rules_of_others_stay() {
    let _host = host_with_outside();
    program("nft", "add table inet theirs");
    program("nft", "add chain inet theirs forward { type filter hook forward priority 0 ; }");
    let state = || {
        let switches: Vec<String> =
            ["ipv4/conf/up0/forwarding", "ipv4/ip_forward", "ipv4/conf/up0/route_localnet"]
                .iter()
                .map(|name| fs::read_to_string(format!("/proc/sys/net/{name}")).expect("a switch"))
                .collect();
        (switches, program("nft", "list ruleset"), links())
    };
    let before = state();
    run_well(&["--attach", "none", "apply", write_config(&docker0())]);
    let during = state();
    assert_eq!(during.0, ["1\n", "0\n", "0\n"], "only what is needed");
    assert!(during.1.contains("table inet theirs"));
    // A second uplink that comes later is seen, one that goes is forgotten.
    ip("link add up1 type veth peer name up2");
    ip("address add 203.0.114.1/24 dev up1");
    let plan = run_well(&["--attach", "none", "plan", write_config(&docker0())]).stdout;
    assert!(plan.contains("sysctl -w net.ipv4.conf.up1.forwarding=1"), "{plan}");
    run_well(&["--attach", "none", "apply", write_config(&docker0())]);
    ip("link delete up1");
    run_well(&["--attach", "none", "apply", write_config(&docker0())]);
    assert_eq!(run_well(&["--attach", "none", "plan", write_config(&docker0())]).stdout, "");
    run_well(&["--attach", "none", "destroy", write_config(&docker0())]);
    assert_eq!(state(), before);
}

#[test]
fn an_agent_puts_its_rules_back_at_once_after_a_flush_and_after_a_change_by_hand() {
    let _host = host_with_outside();
    let mut agent = Agent::start(&docker0(), &[]);
    reaches("web", "203.0.113.2");
    let rules = || program("nft", "-s list table inet netns-monitor");
    let without_stamp = |rules: String| -> Vec<String> {
        rules.lines().filter(|line| !line.contains("stamp-")).map(ToOwned::to_owned).collect()
    };
    let first = without_stamp(rules());
    program("nft", "flush ruleset");
    let there = || {
        let listed =
            Command::new("nft").args(["-s", "list", "table", "inet", "netns-monitor"]).output().expect("nft");
        without_stamp(String::from_utf8_lossy(&listed.stdout).into_owned())
    };
    until(SOON, "the table is back after a flush", || (there() == first).then_some(()));
    program("nft", "insert rule inet netns-monitor forward accept");
    until(SOON, "what somebody added is gone", || (there() == first).then_some(()));
    reaches("web", "203.0.113.2");
    assert!(!pings("db", "198.51.100.4"));
    let labels = [("netns", "db"), ("chain", "isolation")];
    let counted = || agent.metrics().value("netns_firewall_drops_total", &labels).unwrap_or_default();
    until(ONE_PASS, "what isolation dropped is a metric", || (counted() > 0.0).then_some(()));
    agent.terminate();
    run_well(&["destroy", write_config(&docker0())]);
}

#[test]
fn rules_of_a_namespace_are_its_own_and_what_they_drop_is_counted() {
    let _host = host_with_outside();
    let file = format!(
        "{}\n[namespace.firewall]\ninput = {{ policy = \"drop\", rule = [\"ct state established,related accept\", \"tcp dport 80 accept\"] }}\n",
        docker0()
    );
    run_well(&["--attach", "none", "apply", write_config(&file)]);
    let served = serve("far", 80, 1);
    assert_eq!(get(None, "192.0.2.2:80"), "far to 192.0.2.1");
    served.join().expect("served");
    let socket = UdpSocket::bind("0.0.0.0:0").expect("free");
    for _ in 0..6 {
        socket.send_to(b"x", "192.0.2.2:9").expect("sent");
    }
    until(SOON, "six drops", || (drops("far")["input"] == 6).then_some(()));
    let shown = run_well(&["show", "far"]).stdout;
    assert!(shown.contains("tcp dport 80 accept"), "its rules are shown: {shown}");
    // Taken out of the file, they go; the namespace stays.
    run_well(&["--attach", "none", "apply", write_config(&docker0())]);
    assert_eq!(ip("netns exec far nft list ruleset"), "");

    let bad = file.replace("tcp dport 80 accept", "tcp dport eighty accept");
    let outcome = run(&["--attach", "none", "apply", write_config(&bad)]);
    assert_eq!(outcome.code, Some(1), "{outcome:#?}");
    assert_eq!(outcome.stderr.lines().count(), 1, "{}", outcome.stderr);
    assert!(outcome.stderr.contains("tcp dport eighty accept"), "{}", outcome.stderr);
    assert_eq!(ip("netns exec far nft list ruleset"), "");
    run_well(&["--attach", "none", "destroy", write_config(&docker0())]);
}

#[test]
fn beside_a_chain_that_drops_everything_the_rule_to_add_is_told_and_works() {
    let _host = host_with_outside();
    program("nft", "add table ip filter");
    program("nft", "add chain ip filter FORWARD { type filter hook forward priority 0 ; policy drop ; }");
    let outcome = run_well(&["--attach", "none", "apply", write_config(&docker0())]);
    assert!(!pings("web", "203.0.113.2"));
    let said =
        outcome.stderr.lines().find(|line| line.contains("chain FORWARD of table ip filter")).expect("told");
    let (_, rule) = said.split_once("nm0, nm1: ").expect("for both bridges");
    let done = Command::new("sh").args(["-c", rule]).status().expect("sh");
    assert!(done.success(), "{rule}");
    reaches("web", "203.0.113.2");
    let outcome = run_well(&["--attach", "none", "apply", write_config(&docker0())]);
    assert_eq!(outcome.stderr, "");
    run_well(&["--attach", "none", "destroy", write_config(&docker0())]);
}

#[test]
fn without_nft_the_rest_works_and_says_what_is_off() {
    let _host = host_with_outside();
    let apply = || {
        let mut command = Command::new(binary());
        command.args(["--attach", "none", "apply", write_config(&docker0())]).env("PATH", "/nowhere");
        command.env("NO_COLOR", "1").output().expect("netns-monitor")
    };
    let output = apply();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{said}");
    assert!(said.contains("are off: there is no program nft in the PATH: install nftables"), "{said}");
    assert!(
        pings("web", "198.51.100.1") && !pings("web", "198.51.100.3"),
        "links and isolated ports do work"
    );
    assert!(!pings("web", "203.0.113.2"), "nothing is forwarded without rules that say what");
    assert_eq!(fs::read_to_string("/proc/sys/net/ipv4/conf/up0/forwarding").expect("a switch"), "0\n");
    assert_eq!(String::from_utf8_lossy(&apply().stdout), "nothing to do\n");
    run_well(&["--attach", "none", "apply", write_config(&docker0())]);
    reaches("web", "203.0.113.2");
    run_well(&["--attach", "none", "destroy", write_config(&docker0())]);
}
