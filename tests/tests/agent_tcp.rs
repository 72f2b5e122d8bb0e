//! Bulk TCP with every offload on: skbs as the kernel counts them, wire packets as TCP itself does.

use std::net::Ipv4Addr;

use monitor_tests::{
    host::{run, sysctl_inside},
    ledger::{Count, Ledger, skbs, wire},
    oracle::protocol_counters,
    poll::{SOON, until_equal},
    scene::Scene,
    traffic::tcp_transfer,
};

const BYTES: usize = 100_000_000;
/// Ethernet, IPv4, and TCP with timestamps.
const HEADERS: u64 = 14 + 20 + 32;
/// What the options of the first segment (SYN) are longer.
const SYN_EXTRA: u64 = 8;

#[test]
fn a_hundred_megabytes_of_tcp_are_counted_as_the_kernel_and_as_tcp_count_them() {
    let scene = Scene::two(&[]);
    for netns in ["blue", "red"] {
        // Acknowledgements without selective ones have one length, and nothing is sent twice to probe.
        sysctl_inside(netns, "net/ipv4/tcp_sack", "0");
        let features = run("ip", &format!("netns exec {netns} ethtool -k eth0"));
        assert!(features.contains("tcp-segmentation-offload: on"), "{features}");
    }
    // A segment sent twice has bytes that TCP does not tell; on one CPU hardly ever.
    assert!((0..5).any(|_| transfer_is_exact(&scene)), "TCP sent segments twice in each of five transfers");
}

/// One transfer. False when TCP retransmitted, so that only packets and not bytes could be compared.
fn transfer_is_exact(scene: &Scene) -> bool {
    let before = scene.settle();
    let counters = || ["blue", "red"].map(protocol_counters);
    let earlier = counters();
    tcp_transfer("blue", "red", Ipv4Addr::new(198, 51, 100, 3), BYTES);
    let segments = || {
        let now = counters();
        let grown = |at: usize, name: &str| now[at][name] - earlier[at][name];
        let retransmitted = [0, 1].map(|at| grown(at, "Tcp.RetransSegs"));
        ([0, 1].map(|at| grown(at, "Tcp.OutSegs") + retransmitted[at]), retransmitted == [0, 0])
    };
    let directions = [("blue", "transmit"), ("blue", "receive"), ("red", "receive"), ("red", "transmit")];
    until_equal(SOON, "wire packets as TCP's own segments", || {
        let metrics = scene.agent.metrics().since(&before);
        let ([blue, red], _) = segments();
        let counted = directions.map(|(netns, direction)| wire(&metrics, netns, "eth0", direction).packets);
        (counted, [blue, red, blue, red])
    });
    // Settling compares skbs and their bytes, from the first one on, with the kernel's at both ends.
    let metrics = scene.settle().since(&before);
    for (netns, direction) in directions {
        let mut tcp_alone = Ledger::of(&metrics, netns, direction);
        tcp_alone.add(monitor_tests::ledger::Class("arp", "other"), 0, 0);
        assert_eq!(tcp_alone.total(), wire(&metrics, netns, "eth0", direction));
    }
    let ([blue, red], once) = segments();
    if !once {
        return false;
    }
    let data = Count { packets: blue, bytes: BYTES as u64 + blue * HEADERS + SYN_EXTRA };
    let acknowledgements = Count { packets: red, bytes: red * HEADERS + SYN_EXTRA };
    let counted = directions.map(|(netns, direction)| wire(&metrics, netns, "eth0", direction));
    assert_eq!(counted, [data, acknowledgements, data, acknowledgements]);
    // The twin: the two units differ widely, so neither is the other by accident.
    let skbs = skbs(&metrics, "blue", "eth0", "transmit");
    assert!(skbs.packets * 5 < data.packets && skbs.bytes < data.bytes, "{skbs:?} {data:?}");
    for (flag, direction, expected) in
        [("syn", "transmit", 1), ("synack", "receive", 1), ("fin", "transmit", 1), ("fin", "receive", 1)]
    {
        let labels = [("netns", "blue"), ("direction", direction), ("flag", flag)];
        assert_eq!(metrics.count("netns_tcp_flagged_segments_total", &labels), expected, "{labels:?}");
    }
    true
}
