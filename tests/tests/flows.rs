//! Who talks with whom: every flow to the packet, what fell out told, and nothing attached unless asked for.

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, UdpSocket},
};

use aya::programs::{SchedClassifier, TcAttachType};
use monitor_tests::{
    agent::{self, Agent, run_well, write_config},
    exposition::Metrics,
    frames::{ethernet, ipv4, udp},
    host::{TestHost, inside, ip, run},
    ledger::{Class, Count, Ledger},
    oracle::pins,
    poll::{ONE_PASS, SOON, until, until_equal},
    scene::{Scene, TWO, know_each_other, silence},
    traffic::{send, send_every_class, send_gso, send_udp_gso, tagged_frames, tcp_transfer, unusual_frames},
};
use serde_json::Value;

const FLOWS: &str = "--collector.flows";

/// `flows NS` with all flows, as JSON.
fn flows(netns: &str) -> Value {
    let outcome = run_well(&["flows", netns, "--top", "0", "--json"]);
    serde_json::from_str(&outcome.stdout).expect("JSON")
}

fn count(value: &Value, direction: &str) -> Count {
    let number = |what: &str| value[direction][what].as_u64().expect("a number");
    Count { packets: number("packets"), bytes: number("bytes") }
}

fn plus(a: Count, b: Count) -> Count {
    Count { packets: a.packets + b.packets, bytes: a.bytes + b.bytes }
}

/// One flow of a namespace: what it received and transmitted.
fn flow(
    flows: &Value,
    protocol: &str,
    local: (&str, Option<u16>),
    remote: (&str, Option<u16>),
) -> [Count; 2] {
    let end = |value: &Value, (address, port): (&str, Option<u16>)| {
        value["address"] == address && value["port"].as_u64() == port.map(u64::from)
    };
    let all = flows["flows"].as_array().expect("a list");
    let mut found = all.iter().filter(|flow| {
        flow["protocol"] == protocol && end(&flow["local"], local) && end(&flow["remote"], remote)
    });
    let one = found.next();
    assert!(found.next().is_none(), "{protocol} {local:?} {remote:?} is there twice");
    one.map_or([Count::default(); 2], |one| [count(one, "receive"), count(one, "transmit")])
}

/// Everything that is told of a namespace: shown, fallen out, without room.
fn told(flows: &Value, direction: &str) -> Count {
    let all = flows["flows"].as_array().expect("a list");
    let shown = all.iter().map(|flow| count(flow, direction)).fold(Count::default(), plus);
    ["not_shown", "fell_out", "no_room"].iter().map(|what| count(&flows[what], direction)).fold(shown, plus)
}

/// What the default counters say of IP.
fn counted(metrics: &Metrics, netns: &str, direction: &str) -> Count {
    ["ipv4", "ipv6"].iter().fold(Count::default(), |sum, family| {
        let of = |name| {
            let labels = [("netns", netns), ("direction", direction), ("family", *family)];
            metrics.select(name, &labels).map(|(_, value)| value as u64).sum::<u64>()
        };
        let packets = of("netns_protocol_packets_total");
        plus(sum, Count { packets, bytes: of("netns_protocol_bytes_total") })
    })
}

/// Waits until the flows of both namespaces come to what the default counters say.
fn expect_all_told(agent: &Agent) {
    for (netns, direction) in
        [("blue", "receive"), ("blue", "transmit"), ("red", "receive"), ("red", "transmit")]
    {
        until_equal(SOON, &format!("{netns} {direction} in flows and in all"), || {
            (told(&flows(netns), direction), counted(&agent.metrics(), netns, direction))
        });
    }
}

/// The kernel's tags of the programs on a hook, in the order they run.
fn programs(device: &str, hook: TcAttachType) -> Vec<u64> {
    let (_, programs) = SchedClassifier::query_tcx(device, hook).expect("a query");
    programs.iter().map(aya::programs::ProgramInfo::tag).collect()
}

fn is_of_flows(pin: &str) -> bool {
    pin.contains("/flows-v")
}

#[test]
fn each_flow_is_exact_and_all_of_them_are_what_the_default_counters_count() {
    let scene = Scene::two(&[FLOWS]);
    // Datagrams and their answers.
    let red = inside("red", || UdpSocket::bind("198.51.100.3:7").expect("a socket"));
    let blue = inside("blue", || UdpSocket::bind("198.51.100.2:0").expect("a socket"));
    let port = blue.local_addr().expect("an address").port();
    for size in 0..7 {
        blue.send_to(&[0; 100][..size], "198.51.100.3:7").expect("sent");
        let (_, back) = red.recv_from(&mut [0; 100]).expect("received");
        red.send_to(&[0; 100], back).expect("sent back");
        blue.recv_from(&mut [0; 100]).expect("received");
    }
    run("ip", "netns exec blue ping -q -c 5 -i 0.01 -s 56 -W 5 198.51.100.3");
    let sent = Count { packets: 7, bytes: 7 * 42 + 21 };
    let answered = Count { packets: 7, bytes: 7 * 142 };
    let echoes = Count { packets: 5, bytes: 5 * 98 };
    let (here, there) = ("198.51.100.2", "198.51.100.3");
    until_equal(SOON, "as blue sees it", || {
        let flows = flows("blue");
        let udp = flow(&flows, "udp", (here, Some(port)), (there, Some(7)));
        ((udp, flow(&flows, "icmp", (here, None), (there, None))), ([answered, sent], [echoes; 2]))
    });
    until_equal(SOON, "as red sees it", || {
        let flows = flows("red");
        let udp = flow(&flows, "udp", (there, Some(7)), (here, Some(port)));
        ((udp, flow(&flows, "icmp", (there, None), (here, None))), ([sent, answered], [echoes; 2]))
    });
    expect_all_told(&scene.agent);

    // Packets that stand for many, to the sender's arithmetic.
    let (mut segments, mut datagrams) = (Ledger::new(), Ledger::new());
    inside("blue", || send_gso("eth0", 20_000, 1448, &mut segments));
    send_udp_gso("blue", (Ipv4Addr::new(198, 51, 100, 3), 9).into(), 5000, 1400, &mut datagrams);
    let [one, two] = ["198.51.100.1", "198.51.100.2"];
    until_equal(SOON, "segments", || {
        let [_, sent] = flow(&flows("blue"), "tcp", (one, Some(12_345)), (two, Some(80)));
        let [received, _] = flow(&flows("red"), "tcp", (two, Some(80)), (one, Some(12_345)));
        ([sent, received], [segments.total(); 2])
    });
    expect_all_told(&scene.agent);

    // Both families, options, extension headers, fragments, tags, a real connection.
    inside("blue", || {
        let mut ledger = Ledger::new();
        send_every_class("eth0", 5, &mut ledger);
        send("eth0", &unusual_frames(), 3, &mut ledger);
        send("eth0", &tagged_frames(), 2, &mut ledger);
    });
    tcp_transfer("blue", "red", Ipv4Addr::new(198, 51, 100, 3), 1_000_000);
    expect_all_told(&scene.agent);
    let v6 = flow(&flows("red"), "icmpv6", ("2001:db8::2", None), ("2001:db8::1", None));
    let plain: u64 = (0..3).map(|n| [74 + 7, 513 + 49, 1500 - 7][n]).sum();
    let behind_a_header = 14 + 40 + 24 + 100;
    let sent = Count { packets: 3 * 12 + 3, bytes: 12 * plain + 3 * behind_a_header };
    assert_eq!(v6, [sent, Count::default()]);

    // Sampled while nothing moves: every rate is there, and 0.
    let sampled = run_well(&["flows", "blue", "--sample", "0.1", "--top", "3", "--json"]).stdout;
    let sampled: Value = serde_json::from_str(&sampled).expect("JSON");
    let rates: Vec<_> =
        sampled["flows"].as_array().expect("a list").iter().map(|flow| &flow["rate"]).collect();
    let still = serde_json::json!({ "packets": 0.0, "bytes": 0.0 });
    let still = serde_json::json!({ "receive": still.clone(), "transmit": still });
    assert_eq!(rates, [&still; 3]);
    assert_eq!(agent::run(&["flows", "blue", "--sample", "0"]).code, Some(2));
}

#[test]
fn a_pair_between_two_namespaces_is_looked_at_inside_both() {
    const PAIR: &str = r#"
[[namespace]]
name = "blue"

[[namespace]]
name = "red"

[[veth]]
a = { name = "eth0", namespace = "blue", address = "203.0.113.1/24" }
b = { name = "eth0", namespace = "red", address = "203.0.113.2/24" }
"#;
    let _host = TestHost::quiet();
    let mut agent = Agent::start(PAIR, &[FLOWS]);
    silence(&["blue", "red"]);
    know_each_other("blue", "red", "eth0");
    let ping =
        |count| run("ip", &format!("netns exec blue ping -q -c {count} -i 0.01 -s 56 -W 5 203.0.113.2"));
    let expect = |packets| {
        until_equal(SOON, "echoes at both ends", || {
            let of = |netns, local, remote| flow(&flows(netns), "icmp", (local, None), (remote, None));
            let both = [of("blue", "203.0.113.1", "203.0.113.2"), of("red", "203.0.113.2", "203.0.113.1")];
            (both, [[Count { packets, bytes: packets * 98 }; 2]; 2])
        });
    };
    ping(4);
    expect(4);
    expect_all_told(&agent);
    agent.kill9();
    ping(3);
    agent.restart();
    ping(2);
    expect(9);
    expect_all_told(&agent);
}

#[test]
fn what_finds_no_room_and_what_falls_out_is_told_to_the_packet() {
    const ROOM: u64 = 32;
    let scene = Scene::two(&[FLOWS, "--collector.flows.max", "32"]);
    let from_port = |port: u16| {
        let mut datagram = udp(9, &[0x5a; 100]);
        datagram[..2].copy_from_slice(&port.to_be_bytes());
        (Class("ipv4", "udp"), ethernet(0x0800, &ipv4(17, &datagram)))
    };
    let frames: Vec<_> = (1000..1060).map(from_port).collect();
    // What IPv6 said before it was switched off.
    let before = flows("blue");
    assert_eq!(count(&before["no_room"], "transmit"), Count::default());
    inside("blue", || send("eth0", &frames, 3, &mut Ledger::new()));
    expect_all_told(&scene.agent);
    let (blue, red) = (flows("blue"), flows("red"));
    assert_eq!((&blue["table"]["room"], &blue["table"]["used"]), (&ROOM.into(), &ROOM.into()));
    // Of one flow all three packets found room, or none did.
    let shown = |flows: &Value| {
        let all = flows["flows"].as_array().expect("a list");
        all.iter().filter(|flow| flow["protocol"] == "udp").count() as u64
    };
    assert_eq!(shown(&blue) + shown(&red) + before["table"]["used"].as_u64().expect("a number"), ROOM);
    let size = 14 + 20 + 8 + 100;
    let of_60 = |flows: &Value, direction| {
        let Count { packets, bytes } = count(&flows["no_room"], direction);
        assert_eq!((packets % 3, bytes), (0, packets * size));
        shown(flows) + packets / 3
    };
    assert_eq!((of_60(&blue, "transmit"), of_60(&red, "receive")), (60, 60));

    // Room is made of those that are quiet; their counts are not lost.
    until(ONE_PASS, "flows fell out", || {
        let out =
            [flows("blue"), flows("red")].map(|flows| flows["fell_out"]["flows"].as_u64().expect("a number"));
        (out[0] + out[1] == ROOM / 2).then_some(())
    });
    expect_all_told(&scene.agent);
    let late = [from_port(5000)];
    inside("blue", || send("eth0", &late, 4, &mut Ledger::new()));
    until_equal(SOON, "a late flow finds room", || {
        let [_, sent] = flow(&flows("blue"), "udp", ("198.51.100.1", Some(5000)), ("198.51.100.2", Some(9)));
        (sent, Count { packets: 4, bytes: 4 * size })
    });
    expect_all_told(&scene.agent);
    let text = run_well(&["flows", "blue"]).stdout;
    for line in ["fell out, ", "found no room: rx 0 packets, 0 bytes; tx ", "of 32 flows"] {
        assert!(text.contains(line), "{line}: {text}");
    }
    let first = text.lines().nth(1).expect("a flow");
    assert!(first.contains("198.51.100.1:5000"), "the heaviest first: {text}");
}

#[test]
fn counts_go_on_while_no_agent_runs_and_go_with_the_switch_and_with_everything() {
    let mut scene = Scene::two(&[FLOWS, "--collector.dns"]);
    let ping = || run("ip", "netns exec blue ping -q -c 3 -i 0.01 -s 56 -W 5 198.51.100.3");
    let echoes = || flow(&flows("blue"), "icmp", ("198.51.100.2", None), ("198.51.100.3", None));
    let echo = |packets| [Count { packets, bytes: packets * 98 }; 2];
    ping();
    until_equal(SOON, "three", || (echoes(), echo(3)));
    scene.agent.kill9();
    ping();
    until_equal(SOON, "three more while no agent runs", || (echoes(), echo(6)));
    let text = run_well(&["flows", "blue"]).stdout;
    assert!(text.contains("no agent runs"), "{text}");
    scene.agent.restart();
    ping();
    until_equal(SOON, "nine", || (echoes(), echo(9)));
    expect_all_told(&scene.agent);
    let [ingress, egress] =
        [TcAttachType::Ingress, TcAttachType::Egress].map(|hook| programs("blue-eth0", hook));
    assert_eq!([ingress.len(), egress.len()], [3, 3]);

    // Without the switch the programs go, and the counting ones stay: they were the first.
    scene.agent.terminate();
    let bare = Agent::start(TWO, &[]);
    until_equal(SOON, "only what counts", || {
        ([TcAttachType::Ingress, TcAttachType::Egress].map(|hook| programs("blue-eth0", hook)), {
            [vec![ingress[0]], vec![egress[0]]]
        })
    });
    assert_eq!(pins().into_iter().filter(|pin| is_of_flows(pin)).collect::<Vec<_>>(), [] as [String; 0]);
    let refused = agent::run(&["flows", "blue"]);
    let pid = bare.pid();
    let why = format!(
        "flows are not counted; the agent (pid {pid}) runs without it: start it again with --collector.flows"
    );
    assert_eq!((refused.code, refused.stderr.trim()), (Some(1), &*format!("netns-monitor: {why}")));
    drop(bare);
    let refused = agent::run(&["flows", "blue"]);
    let why = "flows are not counted; no agent runs: start one, `netns-monitor agent --collector.flows`";
    assert_eq!((refused.code, refused.stderr.trim()), (Some(1), &*format!("netns-monitor: {why}")));

    // And with everything that was made.
    let mut again = Agent::start(TWO, &[FLOWS, "--collector.dns"]);
    assert!(pins().iter().any(|pin| is_of_flows(pin)));
    again.terminate();
    assert!(pins().iter().any(|pin| is_of_flows(pin)), "as all that is counted");
    run_well(&["destroy", write_config(TWO)]);
    assert_eq!(pins(), [] as [String; 0]);
}

#[test]
fn a_program_that_somebody_removed_is_put_back_and_an_interface_that_goes_takes_its_flows_out() {
    let scene = Scene::two(&[FLOWS]);
    let on = |device: &str| programs(device, TcAttachType::Egress);
    let before = on("blue-eth0");
    assert_eq!(before.len(), 2);
    let link = pins().into_iter().find(|pin| is_of_flows(pin) && pin.ends_with("-egress")).expect("a link");
    std::fs::remove_file(&link).expect("unpinned");
    until_equal(ONE_PASS, "both programs on both", || {
        ([on("blue-eth0"), on("red-eth0")], [before.clone(), before.clone()])
    });
    run("ip", "netns exec blue ping -q -c 3 -i 0.01 -s 56 -W 5 198.51.100.3");
    ip("link del blue-eth0");
    let old: BTreeMap<_, _> = until(SOON, "its flows are out", || {
        let flows = flows("blue");
        let out = flows["fell_out"]["flows"].as_u64().expect("a number");
        (out >= 1).then(|| {
            ["receive", "transmit"].map(|direction| (direction, count(&flows["fell_out"], direction))).into()
        })
    });
    assert!(old.values().all(|count| count.packets >= 3), "{old:?}");
    drop(scene);
}
