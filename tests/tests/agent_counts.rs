//! Every frame is counted once, in its class, in its namespace, in its direction, to the byte.

use std::net::Ipv4Addr;

use monitor_tests::{
    agent::Agent,
    exposition::Metrics,
    frames::{ethernet, ipv4, tcp},
    host::{TestHost, inside, run},
    ledger::{Class, Count, Ledger, skbs, wire},
    oracle::stats_inside,
    poll::{SOON, until_equal},
    scene::{Scene, silence},
    traffic::{frame, send, send_every_class, send_gso, send_udp_gso, tagged_frames, unusual_frames},
};

/// Waits until a namespace has counted exactly `transmit` and `receive` since `before`, class by class and in total.
fn expect(
    agent: &Agent,
    before: &Metrics,
    netns: &str,
    interface: &str,
    receive: &Ledger,
    transmit: &Ledger,
) {
    until_equal(SOON, &format!("classes of {netns}"), || {
        let metrics = agent.metrics().since(before);
        let counted = ["receive", "transmit"].map(|direction| Ledger::of(&metrics, netns, direction));
        (counted, [receive.clone(), transmit.clone()])
    });
    let metrics = agent.metrics().since(before);
    for (direction, ledger) in [("receive", receive), ("transmit", transmit)] {
        assert_eq!(wire(&metrics, netns, interface, direction), ledger.total(), "{netns} {direction}");
        let sizes = [("netns", netns), ("direction", direction)];
        let sized = metrics.count("netns_packet_size_bytes_count", &sizes);
        assert_eq!(sized, ledger.total().packets, "sizes of {netns} {direction}");
    }
}

#[test]
fn frames_sent_by_a_namespace_are_its_transmit_and_its_neighbours_receive_class_by_class() {
    let scene = Scene::two(&[]);
    let before = scene.settle();
    let mut sent = Ledger::new();
    inside("blue", || {
        send_every_class("eth0", 20, &mut sent);
        send("eth0", &unusual_frames(), 7, &mut sent);
    });
    let nothing = Ledger::new();
    expect(&scene.agent, &before, "blue", "eth0", &nothing, &sent);
    expect(&scene.agent, &before, "red", "eth0", &sent, &nothing);
    // The twin: a frame of another class, of the same size, is seen.
    let mut other = sent.clone();
    other.add(Class("ipv4", "sctp"), 1, 100);
    inside("blue", || {
        send("eth0", &[(Class("ipv6", "sctp"), frame(Class("ipv6", "sctp"), 100))], 1, &mut sent)
    });
    expect(&scene.agent, &before, "blue", "eth0", &nothing, &sent);
    let counted = Ledger::of(&scene.agent.metrics().since(&before), "blue", "transmit");
    assert_eq!(counted.total(), other.total());
    assert_ne!(counted, other);
}

#[test]
fn frames_sent_by_both_namespaces_do_not_mix() {
    let scene = Scene::two(&[]);
    let before = scene.settle();
    let (mut blue, mut red) = (Ledger::new(), Ledger::new());
    for round in 0..3 {
        inside("blue", || send_every_class("eth0", 2 + round, &mut blue));
        inside("red", || send_every_class("eth0", 9 - round, &mut red));
    }
    assert_ne!(blue, red);
    expect(&scene.agent, &before, "blue", "eth0", &red, &blue);
    expect(&scene.agent, &before, "red", "eth0", &blue, &red);
}

#[test]
fn frames_sent_by_the_host_are_the_receive_of_whom_they_reach() {
    let scene = Scene::two(&[]);
    let before = scene.settle();
    let (mut to_blue, mut to_both) = (Ledger::new(), Ledger::new());
    send_every_class("nm0", 4, &mut to_both);
    to_blue.clone_from(&to_both);
    send_every_class("blue-eth0", 3, &mut to_blue);
    send("blue-eth0", &unusual_frames(), 2, &mut to_blue);
    let nothing = Ledger::new();
    expect(&scene.agent, &before, "blue", "eth0", &to_blue, &nothing);
    expect(&scene.agent, &before, "red", "eth0", &to_both, &nothing);
}

#[test]
fn tagged_frames_are_counted_with_their_tags() {
    let scene = Scene::two(&[]);
    let before = scene.settle();
    let mut sent = Ledger::new();
    inside("blue", || send("eth0", &tagged_frames(), 11, &mut sent));
    let nothing = Ledger::new();
    expect(&scene.agent, &before, "blue", "eth0", &nothing, &sent);
    expect(&scene.agent, &before, "red", "eth0", &sent, &nothing);
}

#[test]
fn a_packet_that_stands_for_many_is_counted_as_many_also_when_it_does_not_say_how_many() {
    let scene = Scene::two(&[]);
    let before = scene.settle();
    let (mut blue, mut host) = (Ledger::new(), Ledger::new());
    inside("blue", || {
        send_gso("eth0", 20_000, 1448, &mut blue);
        send_gso("eth0", 1449, 1448, &mut blue);
        send_gso("eth0", 2896, 1448, &mut blue);
    });
    send_udp_gso("blue", (Ipv4Addr::new(198, 51, 100, 3), 9).into(), 5000, 1400, &mut blue);
    // At the egress of the device itself gso_segs is still 0.
    send_gso("red-eth0", 30_000, 1000, &mut host);
    let mut red = blue.clone();
    red.add(Class("ipv4", "tcp"), host.total().packets, host.total().bytes);
    until_equal(SOON, "wire units", || {
        let metrics = scene.agent.metrics().since(&before);
        let counted = [("blue", "transmit"), ("red", "receive")]
            .map(|(netns, direction)| wire(&metrics, netns, "eth0", direction));
        (counted, [blue.total(), red.total()])
    });
    // The twin: in the kernel's units it is another number.
    let metrics = scene.settle().since(&before);
    assert_eq!(skbs(&metrics, "blue", "eth0", "transmit").packets, 4);
    assert_eq!(Ledger::of(&metrics, "blue", "transmit"), blue);
    assert_eq!(Ledger::of(&metrics, "red", "receive"), red);
}

#[test]
fn sizes_are_counted_in_the_bucket_that_holds_them() {
    let scene = Scene::two(&[]);
    let before = scene.settle();
    let class = Class("ipv4", "udp");
    let sizes = [74, 128, 129, 256, 257, 512, 513, 1024, 1025, 1514];
    let frames = sizes.map(|size| (class, frame(class, size)));
    inside("blue", || send("eth0", &frames, 2, &mut Ledger::new()));
    let metrics = scene.settle().since(&before);
    for bound in ["64", "128", "256", "512", "1024", "1518", "4096", "9000", "16384", "65536", "+Inf"] {
        let within = |size: &&usize| bound.parse().map_or(true, |bound: usize| **size <= bound);
        let expected = 2 * sizes.iter().filter(within).count() as u64;
        let labels = [("netns", "blue"), ("direction", "transmit"), ("le", bound)];
        assert_eq!(metrics.count("netns_packet_size_bytes_bucket", &labels), expected, "{bound}");
    }
    let labels = [("netns", "blue"), ("direction", "transmit")];
    let bytes = 2 * sizes.iter().sum::<usize>() as u64;
    assert_eq!(metrics.count("netns_packet_size_bytes_sum", &labels), bytes);
}

#[test]
fn tcp_segments_are_counted_by_their_flags() {
    const FLAGS: [(&str, u8, u64); 4] =
        [("syn", 0x02, 2), ("synack", 0x12, 3), ("fin", 0x11, 4), ("rst", 0x14, 5)];
    let scene = Scene::two(&[]);
    let before = scene.settle();
    inside("blue", || {
        for (_, flags, times) in FLAGS {
            let segment = ethernet(0x0800, &ipv4(6, &tcp(flags, 0, &[])));
            send("eth0", &[(Class("ipv4", "tcp"), segment)], times, &mut Ledger::new());
        }
        // Neither a plain acknowledgement nor a datagram has a flag that counts.
        send_every_class("eth0", 3, &mut Ledger::new());
    });
    let metrics = scene.settle().since(&before);
    for (netns, direction, counted) in
        [("blue", "transmit", true), ("blue", "receive", false), ("red", "receive", true)]
    {
        for (flag, _, times) in FLAGS {
            let labels = [("netns", netns), ("direction", direction), ("flag", flag)];
            let expected = if counted { times } else { 0 };
            assert_eq!(
                metrics.value("netns_tcp_flagged_segments_total", &labels),
                Some(expected as f64),
                "{labels:?}"
            );
        }
    }
}

#[test]
fn a_pair_between_two_namespaces_is_counted_at_both_ends() {
    const PAIR: &str = r#"
[[namespace]]
name = "blue"

[[namespace]]
name = "red"

[[veth]]
a = { name = "x0", namespace = "blue", address = "203.0.113.1/24" }
b = { name = "x1", namespace = "red", address = "203.0.113.2/24" }
"#;
    let _host = TestHost::quiet();
    let agent = Agent::start(PAIR, &[]);
    silence(&["blue", "red"]);
    let kernels = |netns, interface| {
        let stats = stats_inside(netns, interface);
        [
            Count { packets: stats.rx_packets, bytes: stats.rx_bytes },
            Count { packets: stats.tx_packets, bytes: stats.tx_bytes },
        ]
    };
    let as_the_kernel = || {
        for (netns, interface) in [("blue", "x0"), ("red", "x1")] {
            until_equal(SOON, &format!("skbs of {netns}"), || {
                let metrics = agent.metrics();
                let ours =
                    ["receive", "transmit"].map(|direction| skbs(&metrics, netns, interface, direction));
                (ours, kernels(netns, interface))
            });
        }
        agent.metrics()
    };
    let before = as_the_kernel();
    let (mut blue, mut red) = (Ledger::new(), Ledger::new());
    inside("blue", || {
        send_every_class("x0", 5, &mut blue);
        // Inside, at the egress of the sender, gso_segs is 0.
        send_gso("x0", 20_000, 1448, &mut blue);
    });
    inside("red", || send_every_class("x1", 3, &mut red));
    expect(&agent, &before, "blue", "x0", &red, &blue);
    expect(&agent, &before, "red", "x1", &blue, &red);
    as_the_kernel();
}

#[test]
fn a_ping_from_the_host_is_one_request_received_and_one_reply_transmitted() {
    const PAIR: &str = r#"
[[namespace]]
name = "test_ns"

[[veth]]
a = { name = "veth0", address = "203.0.113.2/24" }
b = { name = "veth1", namespace = "test_ns", address = "203.0.113.1/24" }
"#;
    let _host = TestHost::quiet();
    let agent = Agent::start(PAIR, &[]);
    silence(&["test_ns"]);
    let before = agent.metrics();
    run("ping", "-q -c 5 -i 0.01 -s 56 -W 5 203.0.113.1");
    let icmp = |direction| {
        let labels =
            [("netns", "test_ns"), ("direction", direction), ("family", "ipv4"), ("protocol", "icmp")];
        let metrics = agent.metrics().since(&before);
        let bytes = metrics.count("netns_protocol_bytes_total", &labels);
        Count { packets: metrics.count("netns_protocol_packets_total", &labels), bytes }
    };
    let five = Count { packets: 5, bytes: 5 * 98 };
    until_equal(SOON, "requests and replies", || ([icmp("receive"), icmp("transmit")], [five; 2]));
}
