//! What goes away leaves its counts: an interface to its namespace, a namespace to the host.

use std::{sync::mpsc, time::Duration};

use monitor_tests::{
    agent::Agent,
    exposition::Metrics,
    host::{inside, ip, spawn_inside},
    ledger::{Count, Ledger},
    oracle::stats,
    poll::{ONE_PASS, SOON, until, until_equal},
    scene::{Scene, TWO, kernels, until_up},
    traffic::send_every_class,
};
use nix::sys::signal::Signal;

/// What a namespace's dead interfaces, or (`~gone`) the dead namespaces counted: receive, then transmit.
fn retired(metrics: &Metrics, netns: &str) -> [Count; 2] {
    ["receive", "transmit"].map(|direction| {
        let labels = [("netns", netns), ("direction", direction)];
        let bytes = metrics.count("netns_retired_bytes_total", &labels);
        Count { packets: metrics.count("netns_retired_packets_total", &labels), bytes }
    })
}

/// Everything ever transmitted by anyone: live, and gone.
fn transmitted(metrics: &Metrics) -> u64 {
    let labels = [("direction", "transmit")];
    metrics.count("netns_packets_total", &labels) + metrics.count("netns_retired_packets_total", &labels)
}

/// Sends frames both ways that no scrape will see before the end of `blue`; returns the kernel's last word on them.
fn last_words(scene: &Scene) -> [Count; 2] {
    scene.settle();
    let [receive, transmit] = kernels("blue-eth0");
    let (mut blue, mut red) = (Ledger::new(), Ledger::new());
    inside("blue", || send_every_class("eth0", 9, &mut blue));
    inside("red", || send_every_class("eth0", 4, &mut red));
    let sum = |a: Count, b: Count| Count { packets: a.packets + b.packets, bytes: a.bytes + b.bytes };
    let last = [sum(receive, red.total()), sum(transmit, blue.total())];
    until_equal(SOON, "the frames have arrived", || (kernels("blue-eth0"), last));
    last
}

/// Scrapes until `what` is so; the sum over the living and the dead never falls meanwhile.
fn until_conserved(
    agent: &Agent,
    within: Duration,
    what: &str,
    mut is_so: impl FnMut(&Metrics) -> bool,
) -> Metrics {
    let mut last = transmitted(&agent.metrics());
    until(within, what, || {
        let metrics = agent.metrics();
        let now = transmitted(&metrics);
        assert!(now >= last, "the sum fell from {last} to {now}");
        last = now;
        is_so(&metrics).then_some(metrics)
    })
}

fn cookie(metrics: &Metrics, netns: &str) -> Option<String> {
    metrics.select("netns_info", &[("netns", netns)]).next().map(|(labels, _)| labels["cookie"].clone())
}

#[test]
fn the_last_packets_of_a_deleted_namespace_are_in_the_totals_and_it_is_built_again() {
    let scene = Scene::two(&[]);
    let old = cookie(&scene.agent.metrics(), "blue").expect("blue");
    let last = last_words(&scene);
    ip("netns del blue");
    let metrics = until_conserved(&scene.agent, SOON, "blue's counts are the host's", |metrics| {
        retired(metrics, "~gone") != [Count::default(); 2]
    });
    assert_eq!(retired(&metrics, "~gone"), last);
    until_conserved(&scene.agent, SOON, "a new blue", |metrics| {
        cookie(metrics, "blue").is_some_and(|cookie| cookie != old)
    });
    until_up(None, "blue-eth0", SOON);
    // The new one starts at 0, and the totals stay.
    assert_eq!(retired(&scene.agent.metrics(), "~gone"), last);
    assert_eq!(retired(&scene.agent.metrics(), "blue"), [Count::default(); 2]);
    until_equal(SOON, "the new one's skbs", || {
        (monitor_tests::scene::ours(&scene.agent.metrics(), "blue"), kernels("blue-eth0"))
    });
}

#[test]
fn the_last_packets_of_a_deleted_link_are_in_its_namespaces_totals() {
    let scene = Scene::two(&[]);
    let old = cookie(&scene.agent.metrics(), "blue");
    let last = last_words(&scene);
    ip("link del blue-eth0");
    let metrics = until_conserved(&scene.agent, SOON, "the link's counts are blue's", |metrics| {
        retired(metrics, "blue") != [Count::default(); 2]
    });
    assert_eq!(retired(&metrics, "blue"), last);
    assert_eq!(retired(&metrics, "~gone"), [Count::default(); 2]);
    until_up(None, "blue-eth0", SOON);
    until_conserved(&scene.agent, SOON, "a new link of the same blue", |metrics| {
        let labels = [("netns", "blue"), ("interface", "eth0")];
        metrics.value("netns_interface_up", &labels) == Some(1.0) && cookie(metrics, "blue") == old
    });
    assert_eq!(retired(&scene.agent.metrics(), "blue"), last);
    // Classes, sizes and flags of a namespace include the interfaces that are gone.
    let classes = Ledger::of(&scene.agent.metrics(), "blue", "transmit").total();
    assert!(classes.packets >= last[1].packets, "{classes:?}");
}

#[test]
fn a_namespace_deleted_while_no_agent_runs_is_in_the_totals_of_the_next() {
    let mut scene = Scene::two(&[]);
    scene.agent.terminate();
    let before = kernels("blue-eth0");
    let mut sent = Ledger::new();
    inside("blue", || send_every_class("eth0", 9, &mut sent));
    let last = Count {
        packets: before[1].packets + sent.total().packets,
        bytes: before[1].bytes + sent.total().bytes,
    };
    until_equal(SOON, "the frames have arrived", || (kernels("blue-eth0"), [before[0], last]));
    ip("netns del blue");
    until(SOON, "the link is gone", || {
        (!monitor_tests::oracle::links().contains(&"blue-eth0".into())).then_some(())
    });
    scene.agent.restart();
    until_equal(SOON, "blue's counts are the host's", || {
        (retired(&scene.agent.metrics(), "~gone"), [before[0], last])
    });
    // Once, also after another restart.
    scene.agent.kill9();
    scene.agent.restart();
    assert_eq!(retired(&scene.agent.metrics(), "~gone"), [before[0], last]);
}

#[test]
fn a_namespace_taken_out_of_the_file_goes_and_its_counts_stay() {
    let scene = Scene::two(&[]);
    let last = last_words(&scene);
    let red = TWO.split("[[namespace]]\nname = \"red\"").next().expect("blue alone").to_owned();
    let without_blue = red.replace("blue", "red").replace("100.2", "100.3");
    monitor_tests::agent::write_config(&without_blue);
    scene.agent.signal(Signal::SIGHUP);
    let metrics =
        until_conserved(&scene.agent, SOON, "blue is gone", |metrics| cookie(metrics, "blue").is_none());
    assert_eq!(retired(&metrics, "~gone"), last);
    assert!(!monitor_tests::oracle::links().contains(&"blue-eth0".to_owned()));
    assert_eq!(ip("netns list").split_whitespace().next(), Some("red"));
    assert!(stats("red-eth0").rx_packets > 0);
}

#[test]
fn a_namespace_without_a_name_but_with_a_process_is_counted_to_its_end() {
    let scene = Scene::two(&[]);
    let last = last_words(&scene);
    let (go, wait) = mpsc::channel::<()>();
    let process = spawn_inside("blue", move || wait.recv().is_err());
    let old = cookie(&scene.agent.metrics(), "blue").expect("blue");
    ip("netns del blue");
    // Nothing tells of it but the namespace directory.
    until_conserved(&scene.agent, ONE_PASS, "a new blue", |metrics| {
        cookie(metrics, "blue").is_some_and(|cookie| cookie != old)
    });
    until_up(None, "blue-eth0", SOON);
    drop(go);
    assert!(process.join().expect("the thread inside"));
    let metrics = until_conserved(&scene.agent, SOON, "the old blue's counts are the host's", |metrics| {
        retired(metrics, "~gone") != [Count::default(); 2]
    });
    assert_eq!(retired(&metrics, "~gone"), last);
}
