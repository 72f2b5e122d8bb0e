//! Counting outlives the agent: killed, stopped, started again, and what it says when it cannot.

use std::{
    collections::BTreeSet,
    hash::{BuildHasher as _, Hasher as _, RandomState},
    time::{Duration, Instant},
};

use monitor_tests::{
    agent::{self, Agent},
    host::{TestHost, inside},
    ledger::{Class, Count, Ledger, wire},
    oracle::{pins, stats, wiring},
    poll::{SOON, until, until_equal},
    scene::{Scene, TWO, ours, silence},
    traffic::{Flood, frame, send, send_every_class},
};
use nix::sys::signal::Signal;

/// What the kernel says of a flooded namespace: receive, then transmit. The program at the egress sees also what the
/// device then drops because its other end's queue is full, here frames of the flood, 200 bytes each.
fn kernels_under_flood(host_end: &str) -> [Count; 2] {
    let stats = stats(host_end);
    [
        Count {
            packets: stats.tx_packets + stats.tx_dropped,
            bytes: stats.tx_bytes + 200 * stats.tx_dropped,
        },
        Count { packets: stats.rx_packets, bytes: stats.rx_bytes },
    ]
}

fn random_below(end: u64) -> u64 {
    RandomState::new().build_hasher().finish() % end
}

fn kill_twenty_times(args: &[&str]) {
    let mut scene = Scene::two(args);
    let floods = ["blue", "red"].map(|netns| Flood::start(netns, "eth0"));
    for round in 0..20 {
        // A random moment, told by the flood: sometimes in the middle of starting.
        let frames = random_below(20_000);
        let from = stats("blue-eth0").rx_packets;
        until(SOON, "frames", || (stats("blue-eth0").rx_packets >= from + frames).then_some(()));
        scene.agent.kill9();
        if round % 2 == 0 {
            scene.agent.restart();
        } else {
            scene.agent.respawn();
        }
    }
    scene.agent.wait_ready();
    let sent = floods.map(Flood::stop);
    assert!(sent.iter().all(|&sent| sent > 1000), "{sent:?}");
    for netns in ["blue", "red"] {
        until_equal(SOON, &format!("{netns} after 20 kills"), || {
            (ours(&scene.agent.metrics(), netns), kernels_under_flood(&format!("{netns}-eth0")))
        });
    }
    // And still counts.
    let before = scene.agent.metrics();
    let mut sent = Ledger::new();
    inside("blue", || send_every_class("eth0", 3, &mut sent));
    until_equal(SOON, "classes", || {
        let metrics = scene.agent.metrics().since(&before);
        (Ledger::of(&metrics, "blue", "transmit"), sent.clone())
    });
}

#[test]
fn killed_twenty_times_under_a_flood_the_counters_are_the_kernels() {
    kill_twenty_times(&[]);
}

#[test]
fn killed_twenty_times_under_a_flood_the_counters_are_the_kernels_with_clsact_too() {
    kill_twenty_times(&["--attach", "clsact"]);
}

#[test]
fn clsact_counts_the_same_as_tcx() {
    let counted = [("auto", "tcx"), ("clsact", "clsact")].map(|(choice, mode)| {
        std::thread::spawn(move || {
            let mut scene = Scene::two(&["--attach", choice]);
            let before = scene.settle();
            let labels = [("netns", "blue"), ("interface", "eth0"), ("mode", mode)];
            assert_eq!(before.value("netns_interface_attached", &labels), Some(1.0));
            let mut sent = Ledger::new();
            inside("blue", || send_every_class("eth0", 6, &mut sent));
            scene.agent.kill9();
            // Nobody is there, and still it counts; nor does the restart attach a second time.
            inside("blue", || send_every_class("eth0", 7, &mut sent));
            scene.agent.restart();
            inside("blue", || send_every_class("eth0", 8, &mut sent));
            let metrics = scene.settle().since(&before);
            assert_eq!(Ledger::of(&metrics, "blue", "transmit"), sent, "{mode}");
            assert_eq!(Ledger::of(&metrics, "red", "receive"), sent, "{mode}");
            sent
        })
    });
    let [tcx, clsact] = counted.map(|thread| thread.join().expect("a host of its own"));
    assert_eq!(tcx, clsact);
}

#[test]
fn sigterm_ends_with_0_and_leaves_wiring_and_counting() {
    let mut scene = Scene::two(&[]);
    let before = scene.settle();
    let (wired, pinned) = (wiring(), pins());
    assert!(!pinned.is_empty());
    assert_eq!(scene.agent.terminate().code(), Some(0));
    assert_eq!(wiring(), wired);
    assert_eq!(pins(), pinned);
    let mut sent = Ledger::new();
    inside("blue", || send_every_class("eth0", 4, &mut sent));
    scene.agent.restart();
    let metrics = scene.settle().since(&before);
    assert_eq!(Ledger::of(&metrics, "blue", "transmit"), sent);
    assert_eq!(Ledger::of(&metrics, "red", "receive"), sent);
    assert_eq!(wiring(), wired);
}

#[test]
fn cleanup_leaves_nothing() {
    let host = TestHost::quiet();
    let before = wiring();
    let mut agent = Agent::start(TWO, &["--cleanup"]);
    assert_ne!(wiring(), before);
    assert!(!pins().is_empty());
    assert_eq!(agent.terminate().code(), Some(0));
    assert_eq!(wiring(), before);
    assert_eq!(pins(), [""; 0]);
    assert!(!std::path::Path::new("/run/netns-monitor").exists(), "the run directory");
    drop((agent, host));
}

#[test]
fn a_second_agent_ends_at_once_and_names_the_first() {
    let scene = Scene::two(&[]);
    let (wired, pinned) = (wiring(), pins());
    let pid = scene.agent.pid().to_string();
    let names_pid = |word: &str| word.trim_matches(|c: char| !c.is_ascii_digit()) == pid;
    // The same answer where the address is in use too, as it is when both are started alike.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let taken = listener.local_addr().expect("its address").to_string();
    for address in ["127.0.0.1:0", &taken] {
        let second = agent::run(&["agent", "--config", "/run/test.toml", "--web.listen-address", address]);
        assert!(second.code.is_some_and(|code| code != 0), "{second:#?}");
        assert!(second.stderr.split_whitespace().any(names_pid), "no {pid} in {second:#?}");
    }
    drop(listener);
    assert_eq!(wiring(), wired);
    assert_eq!(pins(), pinned);
    // The first did not notice, and the counts are still those of one program.
    let before = scene.settle();
    let mut sent = Ledger::new();
    inside("blue", || send_every_class("eth0", 2, &mut sent));
    let metrics = scene.settle().since(&before);
    assert_eq!(Ledger::of(&metrics, "blue", "transmit"), sent);
}

#[test]
fn with_no_bpffs_the_agent_says_so_and_counts_from_its_start() {
    let host = TestHost::quiet();
    let mut agent = Agent::start(TWO, &["--bpffs", "/run/nowhere"]);
    let says = |line: &String| line.contains("no bpffs at /run/nowhere");
    assert!(agent.log().iter().any(says), "{:#?}", agent.log());
    let pinned = |agent: &Agent| {
        agent.metrics().value("netns_monitor_attach_info", &[("mode", "tcx"), ("pinned", "false")])
    };
    assert_eq!(pinned(&agent), Some(1.0));
    silence(&["blue", "red"]);
    let class = Class("ipv4", "udp");
    let frames = [(class, frame(class, 100))];
    let labels = [("netns", "blue"), ("direction", "transmit"), ("family", "ipv4"), ("protocol", "udp")];
    let counted = |agent: &Agent| agent.metrics().count("netns_protocol_packets_total", &labels);
    inside("blue", || send("eth0", &frames, 50, &mut Ledger::new()));
    until_equal(SOON, "counted", || (counted(&agent), 50));
    // What is not pinned ends with the agent: the twin of the tests above.
    agent.kill9();
    inside("blue", || send("eth0", &frames, 20, &mut Ledger::new()));
    agent.restart();
    inside("blue", || send("eth0", &frames, 3, &mut Ledger::new()));
    until_equal(SOON, "counted from the start", || (counted(&agent), 3));
    assert_eq!(wire(&agent.metrics(), "blue", "eth0", "transmit"), Count { packets: 3, bytes: 300 });
    drop((agent, host));
}

#[test]
fn a_bpffs_that_the_agent_mounted_is_unmounted_by_cleanup_alone() {
    let _host = TestHost::quiet();
    nix::mount::umount("/sys/fs/bpf").expect("no bpffs");
    let mounted = || {
        let mounts = std::fs::read_to_string("/proc/thread-self/mountinfo").expect("mounts");
        mounts.lines().any(|line| line.contains(" /sys/fs/bpf ") && line.contains(" - bpf "))
    };
    assert!(!mounted());
    let mut agent = Agent::start(TWO, &[]);
    assert!(mounted(), "{:#?}", agent.log());
    assert_eq!(agent.terminate().code(), Some(0));
    assert!(mounted(), "the counts are in it");
    drop(agent);
    let mut agent = Agent::start(TWO, &["--cleanup"]);
    assert_eq!(agent.terminate().code(), Some(0));
    assert_eq!(pins(), [""; 0]);
    drop(agent);
    // One agent that does both.
    nix::mount::umount("/sys/fs/bpf").expect("no bpffs");
    let mut agent = Agent::start(TWO, &["--cleanup"]);
    assert!(mounted());
    assert_eq!(agent.terminate().code(), Some(0));
    assert!(!mounted(), "{:#?}", agent.log());
}

#[test]
fn an_agent_killed_between_any_two_steps_is_repaired_by_the_next() {
    let _host = TestHost::quiet();
    let before = wiring();
    let mut killed = BTreeSet::new();
    for step in 0.. {
        let mut agent = Agent::spawn(TWO, &["--cleanup"]);
        // Every step is a line of the log; killed while the next one is under way, so looked at without a pause.
        let steps = || agent.log().iter().filter(|line| line.contains(" ip ")).count();
        let mut asked = Instant::now();
        let mut ended = false;
        while !ended && steps() <= step {
            if asked.elapsed() > Duration::from_millis(50) {
                ended = agent.is_ready();
                asked = Instant::now();
            }
            std::thread::yield_now();
        }
        // Anywhere in the next step: most take one to four milliseconds.
        let moment = Duration::from_micros(random_below(4000));
        let from = Instant::now();
        while from.elapsed() < moment {
            std::thread::yield_now();
        }
        let killed_at = steps();
        agent.kill9();
        killed.insert(killed_at);
        agent.restart();
        assert_eq!(agent::run_well(&["plan", "/run/test.toml"]).stdout, "", "after step {step}");
        assert_eq!(agent.terminate().code(), Some(0));
        assert_eq!(wiring(), before, "after step {step}");
        assert_eq!(pins(), [""; 0], "after step {step}");
        if ended {
            break;
        }
    }
    assert!(killed.len() > 4, "{killed:?}");
}

#[test]
fn an_agent_killed_while_it_cleans_up_leaves_what_the_next_removes() {
    let _host = TestHost::quiet();
    let before = wiring();
    for round in 0..8 {
        let mut agent = Agent::start(TWO, &["--cleanup"]);
        agent.signal(Signal::SIGTERM);
        // The first step takes most of the time, so the moments are spread over the steps.
        let deleted = || agent.log().iter().filter(|line| line.contains(" delete ")).count();
        let end = Instant::now() + Duration::from_millis(500);
        while deleted() < round && Instant::now() < end {
            std::thread::yield_now();
        }
        agent.kill9();
        agent::run_well(&["destroy", "/run/test.toml"]);
        assert_eq!(wiring(), before, "round {round}");
        assert_eq!(pins(), [""; 0], "round {round}");
    }
}
