//! Our counters are held against the kernel's: nothing is said while all is counted, whatever passes, and what was not
//! counted is told to the packet.

use std::{
    fs,
    net::UdpSocket,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use aya::programs::{SchedClassifier, tc::TcAttachType};
use monitor_tests::{
    exposition::Metrics,
    host::{inside, ip, run, spawn_inside},
    oracle::{link, pins, stats},
    poll::{SOON, until, until_equal},
    scene::{Scene, kernels, ours},
};

/// Receive and transmit of `eth0`; absent where it is not told.
fn uncounted(metrics: &Metrics, netns: &str) -> [Option<f64>; 2] {
    ["receive", "transmit"].map(|direction| {
        let labels = [("netns", netns), ("interface", "eth0"), ("direction", direction)];
        metrics.value("netns_interface_uncounted_packets_total", &labels)
    })
}

fn passes(metrics: &Metrics) -> u64 {
    metrics.count("netns_monitor_reconcile_duration_seconds_count", &[])
}

/// Something to repair: after a pass that repaired, everything is looked at.
fn have_it_looked(scene: &Scene) {
    let before = passes(&scene.agent.metrics());
    ip("address del 198.51.100.1/24 dev nm0");
    until(SOON, "it is repaired", || ip("-br address show dev nm0").contains("198.51.100.1").then_some(()));
    until(SOON, "the pass is over", || (passes(&scene.agent.metrics()) > before).then_some(()));
}

fn send(from: &str, to: &str, datagrams: usize) {
    inside(from, || {
        let socket = UdpSocket::bind("0.0.0.0:0").expect("a socket");
        (0..datagrams).for_each(|_| assert_eq!(socket.send_to(&[0; 64], to).expect("sent"), 64));
    });
}

const NONE: [Option<f64>; 2] = [Some(0.0), Some(0.0)];

#[test]
fn under_traffic_nothing_is_told_and_what_a_removed_program_missed_is_told_exactly() {
    let scene = Scene::two(&[]);
    // Somebody listens, so that nobody answers.
    let listen = |netns: &str| inside(netns, || UdpSocket::bind("0.0.0.0:9").expect("a socket"));
    let _listeners = [listen("blue"), listen("red")];
    let ended = Arc::new(AtomicBool::new(false));
    let stop = Arc::clone(&ended);
    let sender = spawn_inside("blue", move || {
        let socket = UdpSocket::bind("0.0.0.0:0").expect("a socket");
        let mut sent = 0_u64;
        while !stop.load(Ordering::Relaxed) {
            // A full queue refuses now and then.
            sent += u64::from(socket.send_to(&[0; 64], "198.51.100.3:9").is_ok());
        }
        sent
    });
    for _ in 0..8 {
        have_it_looked(&scene);
        let metrics = scene.agent.metrics();
        assert_eq!([uncounted(&metrics, "blue"), uncounted(&metrics, "red")], [NONE, NONE]);
    }
    ended.store(true, Ordering::Relaxed);
    assert!(sender.join().expect("the sender") > 1000, "there was traffic");
    scene.settle();
    have_it_looked(&scene);
    assert_eq!(uncounted(&scene.agent.metrics(), "blue"), NONE);

    // What is pinned is attached for as long as it is pinned.
    let number = link(None, "blue-eth0")["ifindex"].to_string();
    let is_it = |pin: &String| pin.ends_with("-egress") && pin.contains(&format!("/{number}-"));
    fs::remove_file(pins().into_iter().find(is_it).expect("a pinned link")).expect("removed");
    until(SOON, "the program is gone", || {
        let (_, programs) = SchedClassifier::query_tcx("blue-eth0", TcAttachType::Egress).expect("a query");
        programs.is_empty().then_some(())
    });
    send("red", "198.51.100.2:9", 137);
    let missed = || kernels("blue-eth0")[0].packets - ours(&scene.agent.metrics(), "blue")[0].packets;
    until_equal(SOON, "all but those are counted", || (missed(), 137));
    have_it_looked(&scene);
    until_equal(SOON, "those are told", || {
        (uncounted(&scene.agent.metrics(), "blue"), [Some(137.0), Some(0.0)])
    });
    // The program is back: it is no more than that.
    send("red", "198.51.100.2:9", 41);
    until_equal(SOON, "these are counted", || (missed(), 137));
    have_it_looked(&scene);
    let metrics = scene.agent.metrics();
    assert_eq!([uncounted(&metrics, "blue"), uncounted(&metrics, "red")], [[Some(137.0), Some(0.0)], NONE]);
    assert_eq!(metrics.value("netns_monitor_reattached_total", &[]), Some(1.0));
}

#[test]
fn packets_from_before_and_packets_that_a_queue_drops_are_no_drift() {
    let scene = Scene::two(&[]);
    // A queue that has room for nothing: offered to it and counted, and never sent.
    run("tc", "qdisc add dev blue-eth0 root bfifo limit 1");
    let sent = stats("blue-eth0").tx_packets;
    let before = ours(&scene.agent.metrics(), "blue")[0].packets;
    send("red", "198.51.100.2:9", 25);
    until_equal(SOON, "they are counted", || (ours(&scene.agent.metrics(), "blue")[0].packets, before + 25));
    assert_eq!(stats("blue-eth0").tx_packets, sent, "the kernel counts none of them");
    have_it_looked(&scene);
    run("tc", "qdisc del dev blue-eth0 root");
    have_it_looked(&scene);
    assert_eq!(uncounted(&scene.agent.metrics(), "blue"), NONE);
}
