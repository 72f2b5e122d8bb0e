//! What the agent serves, as Prometheus reads it: names, and rates. What the dashboards ask is in agent_dashboards.rs.

use std::net::Ipv4Addr;

use monitor_tests::{
    host::inside,
    http,
    ledger::Ledger,
    poll::{SOON, until},
    prometheus::{Prometheus, promtool},
    scene::Scene,
    traffic::{send_every_class, tcp_transfer},
};

#[test]
fn promtool_has_nothing_to_say_about_a_live_scrape() {
    let scene = Scene::two(&[]);
    let scrape = scene.agent.scrape();
    assert!(scrape.contains("netns_packets_total"));
    assert_eq!(promtool(&["check", "metrics"], &scrape), (Some(0), String::new()));
    // Nor once something has been counted and gone away.
    traffic();
    monitor_tests::host::ip("netns del blue");
    until(SOON, "blue is gone", || {
        let gone = [("netns", "~gone"), ("direction", "transmit")];
        (scene.agent.metrics().count("netns_retired_packets_total", &gone) > 0).then_some(())
    });
    assert_eq!(promtool(&["check", "metrics"], &scene.agent.scrape()), (Some(0), String::new()));
}

#[test]
fn every_collector_reports_success_and_the_pages_answer() {
    let scene = Scene::two(&[]);
    let metrics = scene.agent.metrics();
    let collectors: Vec<_> = metrics.select("netns_monitor_scrape_collector_success", &[]).collect();
    assert!(collectors.len() >= 6, "{collectors:?}");
    assert!(collectors.iter().all(|(_, success)| *success == 1.0), "{collectors:?}");
    for name in ["process_resident_memory_bytes", "process_open_fds", "process_start_time_seconds"] {
        assert!(metrics.value(name, &[]).is_some_and(|value| value > 0.0), "{name}");
    }
    for (path, status) in [("/", 200), ("/-/healthy", 200), ("/-/ready", 200), ("/no-such-page", 404)] {
        assert_eq!(http::get(scene.agent.address(), path).expect("an answer").status, status, "{path}");
    }
}

/// A little of everything, both ways.
fn traffic() {
    for netns in ["blue", "red"] {
        inside(netns, || send_every_class("eth0", 2, &mut Ledger::new()));
    }
    tcp_transfer("blue", "red", Ipv4Addr::new(198, 51, 100, 3), 100_000);
}

#[test]
fn a_real_prometheus_computes_rates_from_the_agents_counters() {
    let scene = Scene::two(&[]);
    let prometheus = Prometheus::start(&[scene.agent.address()], &[]);
    let expression =
        r#"rate(netns_packets_total{netns="blue",interface="eth0",direction="transmit"}[5s]) > 0"#;
    until(SOON, "a rate", || {
        traffic();
        (!prometheus.query(expression).expect("an answer").is_empty()).then_some(())
    });
    // What Prometheus stored last is what the agent counted.
    let total = r#"netns_packets_total{netns="blue",interface="eth0",direction="transmit"}"#;
    let counted = wire_packets(&scene);
    until(SOON, "the last count", || {
        let stored = prometheus.query(total).expect("an answer");
        (stored.len() == 1 && stored[0]["value"][1] == counted.to_string().as_str()).then_some(())
    });
    assert!(prometheus.query(r#"netns_packets_total{netns="nobody"}"#).expect("an answer").is_empty());
}

fn wire_packets(scene: &Scene) -> u64 {
    let metrics = scene.settle();
    monitor_tests::ledger::wire(&metrics, "blue", "eth0", "transmit").packets
}
