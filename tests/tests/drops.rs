//! Packets that the kernel drops are counted by namespace and by its own reason, to the packet.

use std::net::UdpSocket;

use monitor_tests::{
    agent::{Agent, run_well},
    exposition::Metrics,
    host::{TestHost, inside, ip, run},
    poll::{SOON, until, until_equal},
    scene::Scene,
};

fn drops(metrics: &Metrics, netns: &str, reason: &str) -> f64 {
    metrics.value("netns_packet_drops_total", &[("netns", netns), ("reason", reason)]).unwrap_or_default()
}

/// Sends datagrams from `blue` to a port of `red`.
fn send(count: usize, port: u16) {
    inside("blue", || {
        let socket = UdpSocket::bind("198.51.100.2:0").expect("a socket");
        for _ in 0..count {
            // An answer that nobody is there is told to the next call.
            while socket.send_to(b"x", ("198.51.100.3", port)).is_err() {}
        }
    });
}

#[test]
fn each_drop_is_counted_in_its_namespace_with_its_reason_and_kept_across_a_kill() {
    let mut scene = Scene::two(&[]);
    let before = scene.settle();
    send(7, 9);
    until_equal(SOON, "seven for want of a socket", || {
        (drops(&scene.agent.metrics(), "red", "NO_SOCKET") - drops(&before, "red", "NO_SOCKET"), 7.0)
    });
    assert_eq!(drops(&scene.agent.metrics(), "blue", "NO_SOCKET"), drops(&before, "blue", "NO_SOCKET"));

    run("ip", "netns exec red nft add table inet t");
    run("ip", "netns exec red nft add chain inet t input { type filter hook input priority 0 ; }");
    run("ip", "netns exec red nft add rule inet t input udp dport 10 drop");
    send(5, 10);
    until_equal(SOON, "five by the firewall", || {
        (drops(&scene.agent.metrics(), "red", "NETFILTER_DROP"), 5.0)
    });
    assert_eq!(drops(&scene.agent.metrics(), "blue", "NETFILTER_DROP"), 0.0);

    let why = run_well(&["why", "red", "--seconds", "0"]).stdout;
    assert!(why.contains("NETFILTER_DROP") && why.contains("NO_SOCKET"), "{why}");

    scene.agent.kill9();
    send(3, 10);
    scene.agent.restart();
    until_equal(SOON, "also what was dropped while no agent ran", || {
        (drops(&scene.agent.metrics(), "red", "NETFILTER_DROP"), 8.0)
    });
}

#[test]
fn what_a_namespace_dropped_that_is_gone_stays_in_the_sum() {
    let _host = TestHost::quiet();
    let agent = Agent::start("", &[]);
    ip("netns add red");
    ip("-n red link set lo up");
    until(SOON, "it is watched", || {
        let metrics = agent.metrics();
        (metrics.value("netns_network_namespaces", &[]) == Some(1.0)).then_some(())
    });
    inside("red", || {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
        for _ in 0..4 {
            while socket.send_to(b"x", "127.0.0.1:9").is_err() {}
        }
    });
    until_equal(SOON, "four for want of a socket", || (drops(&agent.metrics(), "red", "NO_SOCKET"), 4.0));
    ip("netns delete red");
    until_equal(SOON, "they are those of a namespace that is gone", || {
        let metrics = agent.metrics();
        ([drops(&metrics, "red", "NO_SOCKET"), drops(&metrics, "~gone", "NO_SOCKET")], [0.0, 4.0])
    });
}
