//! Senders, oracles and test hosts judged by the kernel, with no agent anywhere.

use std::{
    fs,
    net::Ipv4Addr,
    process::{Command, Stdio},
    time::Duration,
};

use monitor_tests::{
    host::{TestHost, disable_ipv6, inside, ip, run, sysctl_inside},
    ledger::{CLASSES, Class, Count, Ledger},
    oracle::{links, protocol_counters, stats, stats_inside},
    poll::{SOON, until, until_equal, until_stable},
    prometheus::{Prometheus, promtool},
    scene::know_each_other,
    traffic::{
        Flood, frame, send, send_every_class, send_gso, send_udp_gso, tagged_frames, tcp_transfer,
        unusual_frames,
    },
};

/// `blue` and `red`, wired by hand to a bridge.
fn wire_by_hand() -> TestHost {
    let host = TestHost::quiet();
    ip("link add nm0 type bridge");
    ip("link set nm0 up");
    for (netns, address) in [("blue", 2), ("red", 3)] {
        ip(&format!("netns add {netns}"));
        inside(netns, disable_ipv6);
        ip(&format!("link add {netns}-eth0 type veth peer name eth0 netns {netns}"));
        ip(&format!("-n {netns} addr add 198.51.100.{address}/24 dev eth0"));
        ip(&format!("-n {netns} link set eth0 up"));
        ip(&format!("link set {netns}-eth0 master nm0 up"));
    }
    know_each_other("blue", "red", "eth0");
    let forwarding = || run("bridge", "link").matches("state forwarding").count() == 2;
    until(SOON, "both ports forward", || forwarding().then_some(()));
    host
}

/// What the kernel received from a namespace and sent to the other, in packets and bytes.
fn seen() -> [Count; 2] {
    let (blue, red) = (stats("blue-eth0"), stats("red-eth0"));
    [
        Count { packets: blue.rx_packets, bytes: blue.rx_bytes },
        Count { packets: red.tx_packets, bytes: red.tx_bytes },
    ]
}

#[test]
fn a_silent_host_sends_nothing_by_itself() {
    let _host = wire_by_hand();
    let counts = until_stable(SOON, Duration::from_secs(2), "silence", seen);
    assert_eq!(counts, [Count::default(); 2]);
}

#[test]
fn a_host_with_ipv6_does_send_by_itself() {
    let _host = TestHost::new();
    ip("netns add blue");
    ip("link add veth0 type veth peer name eth0 netns blue");
    ip("-n blue link set eth0 up");
    ip("link set veth0 up");
    until(SOON, "neighbour discovery", || (stats("veth0").rx_packets > 0).then_some(()));
}

#[test]
fn the_kernel_counts_what_the_ledger_says_at_both_ends_of_the_bridge() {
    let _host = wire_by_hand();
    let mut ledger = Ledger::new();
    inside("blue", || {
        send_every_class("eth0", 5, &mut ledger);
        send("eth0", &unusual_frames(), 3, &mut ledger);
    });
    until_equal(SOON, "packets and bytes", || (seen(), [ledger.total(); 2]));
    assert_eq!(stats_inside("red", "eth0").rx_packets, ledger.total().packets);
    // The twin: one frame more makes the difference.
    inside("blue", || send("eth0", &unusual_frames()[..1], 1, &mut Ledger::new()));
    until(SOON, "one frame more", || (seen()[0].packets == ledger.total().packets + 1).then_some(()));
}

#[test]
fn the_sender_of_a_tagged_frame_counts_its_tags() {
    let _host = wire_by_hand();
    let mut ledger = Ledger::new();
    inside("blue", || send("eth0", &tagged_frames(), 3, &mut ledger));
    until_equal(SOON, "packets and bytes", || (seen()[0], ledger.total()));
}

#[test]
fn frames_have_their_size_to_the_byte() {
    for class in CLASSES {
        for size in [74, 75, 1514] {
            assert_eq!(frame(class, size).len(), size, "{class:?}");
        }
    }
}

#[test]
fn a_gso_frame_is_one_packet_to_the_kernel_and_many_to_the_ledger() {
    let _host = wire_by_hand();
    let mut ledger = Ledger::new();
    inside("blue", || send_gso("eth0", 10_000, 1448, &mut ledger));
    assert_eq!(ledger.total(), Count { packets: 7, bytes: 10_000 + 7 * 54 });
    send_udp_gso("blue", (Ipv4Addr::new(198, 51, 100, 3), 9).into(), 5000, 1400, &mut ledger);
    let udp = Count { packets: 4, bytes: 5000 + 4 * 42 };
    assert_eq!(ledger.total(), Count { packets: 7 + udp.packets, bytes: 10_000 + 7 * 54 + udp.bytes });
    until_equal(SOON, "two skbs", || (seen()[0], Count { packets: 2, bytes: 10_054 + 5042 }));
}

/// With offloads off every segment is a packet of its own, so the kernel confirms the arithmetic that tests of the
/// agent use with offloads on.
#[test]
fn segments_and_headers_of_a_tcp_transfer_follow_from_the_protocol_counters() {
    const BYTES: usize = 3_000_000;
    let _host = wire_by_hand();
    for netns in ["blue", "red"] {
        sysctl_inside(netns, "net/ipv4/tcp_sack", "0");
        run("ip", &format!("netns exec {netns} ethtool -K eth0 tso off gso off gro off"));
    }
    tcp_transfer("blue", "red", Ipv4Addr::new(198, 51, 100, 3), BYTES);
    let segments = |netns| {
        let counters = protocol_counters(netns);
        assert_eq!(counters["Tcp.RetransSegs"], 0, "{netns}");
        counters["Tcp.OutSegs"]
    };
    let headers = |segments: u64| 66 * segments + 8;
    until_equal(SOON, "segments", || {
        let (blue, red) = (segments("blue"), segments("red"));
        let transmit = Count { packets: blue, bytes: BYTES as u64 + headers(blue) };
        let receive = Count { packets: red, bytes: headers(red) };
        let host_end = stats("blue-eth0");
        let received = Count { packets: host_end.tx_packets, bytes: host_end.tx_bytes };
        ([seen()[0], received], [transmit, receive])
    });
}

#[test]
fn a_flood_knows_how_much_it_sent() {
    let _host = wire_by_hand();
    let flood = Flood::start("blue", "eth0");
    until(SOON, "frames", || (stats("blue-eth0").rx_packets > 1000).then_some(()));
    let sent = flood.stop();
    until_equal(SOON, "frames", || (stats("blue-eth0").rx_packets, sent));
    assert_eq!(stats("blue-eth0").rx_bytes, sent * 200);
}

#[test]
fn what_runs_inside_a_namespace_sees_its_links_and_the_test_stays_where_it_was() {
    let _host = wire_by_hand();
    assert_eq!(inside("blue", links), ["lo", "eth0"]);
    assert!(links().contains(&"blue-eth0".to_owned()));
    let flag =
        |netns: &str| inside(netns, || fs::read_to_string("/proc/sys/net/ipv4/tcp_sack").expect("a sysctl"));
    sysctl_inside("blue", "net/ipv4/tcp_sack", "0");
    assert_eq!([flag("blue"), flag("red")], ["0\n", "1\n"]);
}

#[test]
fn every_packet_of_a_ledger_is_in_its_own_class() {
    let mut ledger = Ledger::new();
    ledger.add(Class("ipv4", "udp"), 2, 120);
    let mut other = Ledger::new();
    other.add(Class("ipv6", "udp"), 2, 120);
    assert_eq!(ledger.total(), other.total());
    assert_ne!(ledger, other);
}

#[test]
#[should_panic(expected = "left behind")]
fn a_process_left_behind_fails_its_test() {
    let host = TestHost::new();
    let mut child = Command::new("sleep").arg("600").stdin(Stdio::null()).spawn().expect("a process");
    // Ends the child however the drop goes.
    let dropped = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| drop(host)));
    child.kill().expect("killed");
    child.wait().expect("its status");
    std::panic::resume_unwind(dropped.expect_err("a panic"));
}

#[test]
#[should_panic(expected = "still not: a thing that does not come")]
fn waiting_ends_at_its_deadline() {
    until(Duration::from_millis(60), "a thing that does not come", || None::<()>);
}

#[test]
fn a_real_prometheus_scrapes_and_answers() {
    let _host = TestHost::new();
    let own_metrics = ([127, 0, 0, 1], 9090).into();
    let prometheus = Prometheus::start(&[own_metrics], &[]);
    let up = || prometheus.query("up{job=\"netns-monitor\"}").expect("an answer").first().cloned();
    let up = until(SOON, "a scrape", up);
    assert_eq!(up["value"][1], "1", "{up}");
    assert!(prometheus.query("no_such_metric").expect("an answer").is_empty());
    assert!(prometheus.query("rate(up[").is_err());
}

#[test]
fn promtool_accepts_a_good_exposition_and_refuses_a_bad_one() {
    let good = "# HELP a_total Things.\n# TYPE a_total counter\na_total 1\n";
    assert_eq!(promtool(&["check", "metrics"], good), (Some(0), String::new()));
    let (code, said) = promtool(&["check", "metrics"], "# HELP a Things.\n# TYPE a counter\na 1\n");
    assert_eq!(code, Some(3), "{said}");
}
