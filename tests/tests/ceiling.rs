//! More namespaces than have series: the rest is summed, no packet is missing, and no counter ever falls.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
};

use monitor_tests::{
    agent::{Agent, write_config},
    exposition::Metrics,
    host::{TestHost, inside, ip},
    oracle::stats,
    poll::{ONE_PASS, SOON, until},
    scene::silence,
};
use nix::sys::signal::Signal;

const OTHER: &str = "~other";

/// A silent namespace of somebody else with a pair to the host; `number` tells its addresses and its host end.
fn stranger(netns: &str, number: u8) {
    ip(&format!("netns add {netns}"));
    silence(&[netns]);
    ip(&format!("link add v{number} type veth peer name eth0 netns {netns}"));
    ip(&format!("-n {netns} address add 10.9.{number}.2/24 dev eth0"));
    ip(&format!("address add 10.9.{number}.1/24 dev v{number}"));
}

/// Up only now: what was sent before it was counted would be missing.
fn set_up(netns: &str, number: u8) {
    ip(&format!("link set v{number} up"));
    ip(&format!("-n {netns} link set eth0 up"));
    until(SOON, "the link is up", || {
        ip(&format!("-n {netns} -br link show eth0")).contains("LOWER_UP").then_some(())
    });
}

fn send(netns: &str, number: u8, datagrams: usize) {
    inside(netns, || {
        let socket = std::net::UdpSocket::bind("0.0.0.0:0").expect("a socket");
        for _ in 0..datagrams {
            socket.send_to(&[0; 100], (std::net::Ipv4Addr::new(10, 9, number, 1), 9)).expect("sent");
        }
    });
}

/// An agent whose counters are watched: each scrape is compared with the one before.
struct Watched {
    agent: Agent,
    last: RefCell<BTreeMap<(String, String), f64>>,
}

impl Watched {
    fn metrics(&self) -> Metrics {
        let metrics = self.agent.metrics();
        let mut now = BTreeMap::new();
        for name in ["netns_packets_total", "netns_retired_packets_total", "netns_protocol_bytes_total"] {
            for (labels, value) in metrics.select(name, &[]) {
                *now.entry((name.to_owned(), labels["netns"].clone())).or_default() += value;
            }
        }
        let sum = |all: &BTreeMap<(String, String), f64>| -> f64 {
            all.iter()
                .filter(|((name, _), _)| name != "netns_protocol_bytes_total")
                .map(|(_, value)| value)
                .sum()
        };
        let before = self.last.replace(now.clone());
        assert!(sum(&now) >= sum(&before), "the sum of all fell: {before:?}, now {now:?}");
        for of in [OTHER, "~gone"] {
            for (series, value) in before.iter().filter(|((_, netns), _)| netns == of) {
                assert!(now.get(series) >= Some(value), "{series:?} fell from {value}: {now:?}");
            }
        }
        metrics
    }

    /// Labels of namespaces that have series, by `netns_info`.
    fn shown(&self) -> BTreeSet<String> {
        self.metrics().select("netns_info", &[]).map(|(labels, _)| labels["netns"].clone()).collect()
    }

    fn until_shown(&self, expected: &[&str], cut: u64) {
        let expected: BTreeSet<String> = expected.iter().map(|&name| name.to_owned()).collect();
        until(ONE_PASS, &format!("{expected:?} are shown, {cut} are cut"), || {
            let cut_now = self.metrics().value("netns_monitor_namespaces_cut", &[]);
            (self.shown() == expected && cut_now == Some(cut as f64)).then_some(())
        });
    }

    /// Packets that namespaces transmitted and received, whoever's they are.
    fn all(&self) -> u64 {
        let metrics = self.metrics();
        metrics.count("netns_packets_total", &[]) + metrics.count("netns_retired_packets_total", &[])
    }

    fn of(&self, netns: &str) -> u64 {
        let labels = [("netns", netns)];
        let metrics = self.metrics();
        metrics.count("netns_packets_total", &labels) + metrics.count("netns_retired_packets_total", &labels)
    }
}

fn packets(number: u8) -> u64 {
    let stats = stats(&format!("v{number}"));
    assert_eq!(stats.tx_dropped, 0);
    stats.rx_packets + stats.tx_packets
}

#[test]
fn namespaces_beyond_the_ceiling_are_summed_and_nothing_ever_falls() {
    let _host = TestHost::quiet();
    let file = "[[namespace]]\nname = \"filed\"\n";
    let args = ["--metrics.max-namespaces", "3"];
    let mut watched = Watched { agent: Agent::start(file, &args), last: RefCell::default() };
    // One after the other: who was there first is shown.
    let all = ["a", "b", "c", "d"];
    for (number, netns) in (0..).zip(all) {
        stranger(netns, number);
        until(SOON, "it is known", || {
            let known = watched.metrics().value("netns_network_namespaces", &[]);
            (known == Some(f64::from(number) + 2.0)).then_some(())
        });
    }
    watched.until_shown(&["a", "b", "filed"], 2);
    let attached = || {
        let attached = (0..4).map(|number| {
            let hook = aya::programs::tc::TcAttachType::Egress;
            let device = format!("v{number}");
            aya::programs::SchedClassifier::query_tcx(&device, hook).map_or(0, |(_, programs)| programs.len())
        });
        attached.sum::<usize>()
    };
    until(SOON, "all are counted", || (attached() == 4).then_some(()));
    (0..).zip(all).for_each(|(number, netns)| set_up(netns, number));
    (0..).zip(all).for_each(|(number, netns)| send(netns, number, 10 + usize::from(number)));
    let kernel = || (0..4).map(packets).sum::<u64>();
    let settled = |watched: &Watched, expected: u64| {
        until(SOON, &format!("{expected} packets in all"), || (watched.all() == expected).then_some(()));
    };
    let total = kernel();
    settled(&watched, total);
    assert_eq!([watched.of("a"), watched.of("b")], [packets(0), packets(1)]);
    assert_eq!(watched.of(OTHER), packets(2) + packets(3));
    let classes = watched.metrics().count("netns_protocol_packets_total", &[("netns", OTHER)]);
    assert_eq!(classes, packets(2) + packets(3));

    // One that is summed ends: it stays in the sum, and nothing is gone.
    let (c, d) = (packets(2), packets(3));
    ip("netns delete c");
    watched.until_shown(&["a", "b", "filed"], 1);
    assert_eq!([watched.of(OTHER), watched.of("~gone")], [c + d, 0]);
    settled(&watched, total);

    // One that is shown ends: the next begins a series of its own, at 0; what was summed stays in the sum.
    let a = packets(0);
    ip("netns delete a");
    watched.until_shown(&["b", "d", "filed"], 0);
    until(SOON, "its counts are the host's", || (watched.of("~gone") == a).then_some(()));
    settled(&watched, total);
    assert_eq!([watched.of(OTHER), watched.of("d")], [c + d, 0]);
    send("d", 3, 5);
    let more = packets(3) - d;
    settled(&watched, total + more);
    assert_eq!([watched.of(OTHER), watched.of("d")], [c + d, more]);

    // The file names another: the youngest that was shown makes room, and its counts join the sum.
    write_config("[[namespace]]\nname = \"filed\"\n\n[[namespace]]\nname = \"second\"\n");
    watched.agent.signal(Signal::SIGHUP);
    watched.until_shown(&["b", "filed", "second"], 1);
    assert_eq!(watched.of(OTHER), c + d + more);
    settled(&watched, total + more);

    // All this outlives the agent, however it ends.
    let counted = [OTHER, "~gone", "b"].map(|netns| watched.of(netns));
    watched.agent.kill9();
    watched.agent.restart();
    watched.until_shown(&["b", "filed", "second"], 1);
    assert_eq!([OTHER, "~gone", "b"].map(|netns| watched.of(netns)), counted);
    settled(&watched, total + more);
    assert_eq!(watched.agent.terminate().code(), Some(0));

    // With a higher ceiling it has a series of its own again, and the sum stays.
    let watched = Watched { agent: Agent::start("", &["--metrics.max-namespaces", "0"]), ..watched };
    watched.until_shown(&["b", "d"], 0);
    until(SOON, "the counts", || (watched.of(OTHER) == c + d + more && watched.of("d") == 0).then_some(()));
    settled(&watched, total + more);
    send("d", 3, 3);
    until(SOON, "it counts for itself", || (watched.of("d") == packets(3) - d - more).then_some(()));
    assert_eq!(watched.of(OTHER), c + d + more);
}
