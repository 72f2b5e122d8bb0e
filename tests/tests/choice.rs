//! What is chosen is watched, and nothing else: no program on what is left out, no series of it, no work for it.

use aya::programs::{SchedClassifier, tc::TcAttachType};
use monitor_tests::{
    agent::{Agent, run, run_well},
    exposition::Metrics,
    host::{TestHost, ip},
    ledger::{Count, skbs},
    oracle::{pins, stats_inside},
    poll::{ONE_PASS, SOON, until, until_equal},
    scene::{kernels, silence},
};

/// Programs on both hooks of a device of the host, as the kernel lists them.
fn programs(device: &str) -> [usize; 2] {
    [TcAttachType::Ingress, TcAttachType::Egress].map(|hook| {
        let (_, programs) = SchedClassifier::query_tcx(device, hook).expect("a kernel with TCX");
        programs.len()
    })
}

/// The values that a label has in any series.
fn values(metrics: &str, label: &str) -> Vec<String> {
    let key = format!("{label}=\"");
    let of_line = |line: &str| {
        let (_, rest) = line.split_once(&key)?;
        Some(rest.split_once('"')?.0.to_owned())
    };
    let mut values: Vec<_> = metrics.lines().filter_map(of_line).collect();
    values.sort();
    values.dedup();
    values
}

/// A namespace of somebody else with a pair to the host that is up.
fn stranger(netns: &str, ends: &[(&str, &str)]) {
    ip(&format!("netns add {netns}"));
    silence(&[netns]);
    for (host, inside) in ends {
        ip(&format!("link add {host} type veth peer name {inside} netns {netns}"));
        ip(&format!("link set {host} up"));
        ip(&format!("-n {netns} link set {inside} up"));
    }
}

const FILE: &str = r#"
[[namespace]]
name = "blue"

[[veth]]
a = { name = "h0", address = "198.51.100.1/24" }
b = { name = "eth0", namespace = "blue", address = "198.51.100.2/24" }
"#;

fn is_counted(metrics: &Metrics, netns: &str, interface: &str) -> bool {
    let labels = [("netns", netns), ("interface", interface), ("mode", "tcx")];
    metrics.value("netns_interface_attached", &labels) == Some(1.0)
}

#[test]
fn an_excluded_namespace_has_no_program_and_no_series_and_the_files_own_is_watched_all_the_same() {
    let _host = TestHost::quiet();
    stranger("red", &[("r0", "eth0")]);
    stranger("redder", &[("r1", "eth0")]);
    let mut agent = Agent::start(FILE, &["--watch.netns.exclude", "red|blue"]);
    until(SOON, "all are counted that are to be", || {
        let metrics = agent.metrics();
        (is_counted(&metrics, "blue", "eth0") && is_counted(&metrics, "redder", "eth0")).then_some(())
    });
    assert_eq!([programs("r0"), programs("h0"), programs("r1")], [[0, 0], [1, 1], [1, 1]]);
    let scrape = agent.scrape();
    assert!(!values(&scrape, "netns").contains(&"red".to_owned()), "{scrape}");
    assert!(!values(&scrape, "peer_netns").contains(&"red".to_owned()), "{scrape}");
    let listed = run_well(&["ls", "--watch.netns.exclude", "red|blue"]).stdout;
    let names: Vec<_> = listed.lines().skip(1).filter_map(|line| line.split_whitespace().next()).collect();
    assert_eq!(names, ["redder"], "without the file, its namespaces are chosen like the rest");
    agent.terminate();
}

#[test]
fn what_is_excluded_after_it_was_counted_is_let_go_and_its_counts_stay_in_the_totals() {
    let _host = TestHost::quiet();
    stranger("red", &[("r0", "eth0")]);
    ip("-n red address add 203.0.113.2/24 dev eth0");
    let mut agent = Agent::start("", &[]);
    until(SOON, "red is counted", || is_counted(&agent.metrics(), "red", "eth0").then_some(()));
    monitor_tests::host::inside("red", || {
        let socket = std::net::UdpSocket::bind("203.0.113.2:0").expect("a socket");
        socket.set_broadcast(true).expect("broadcasts");
        (0..7).for_each(|_| assert_eq!(socket.send_to(b"x", "203.0.113.255:9").expect("sent"), 1));
    });
    let transmitted = |agent: &Agent| {
        let labels = [("netns", "red"), ("interface", "eth0"), ("direction", "transmit")];
        agent.metrics().count("netns_packets_total", &labels)
    };
    until_equal(SOON, "the kernel's packets", || (transmitted(&agent), kernels("r0")[1].packets));
    let sent = transmitted(&agent);
    assert_eq!(sent, 7);
    agent.terminate();
    let agent = Agent::start("", &["--watch.netns.include", "blue.*"]);
    until_equal(ONE_PASS, "no program is left", || (programs("r0"), [0, 0]));
    let gone = || {
        let labels = [("netns", "~gone"), ("direction", "transmit")];
        agent.metrics().count("netns_retired_packets_total", &labels)
    };
    until_equal(SOON, "its counts are the host's", || (gone(), sent));
    assert!(!values(&agent.scrape(), "netns").contains(&"red".to_owned()));
}

#[test]
fn interfaces_are_chosen_by_name_and_those_of_the_file_always_are() {
    let _host = TestHost::quiet();
    stranger("red", &[("r0", "eth0"), ("r1", "wan0"), ("r2", "wan1")]);
    let agent = Agent::start(FILE, &["--watch.interface.include", "wan[0-9]"]);
    until(SOON, "all are counted that are to be", || {
        let metrics = agent.metrics();
        let all = [("blue", "eth0"), ("red", "wan0"), ("red", "wan1")];
        all.iter().all(|(netns, interface)| is_counted(&metrics, netns, interface)).then_some(())
    });
    assert_eq!([programs("r0"), programs("r1"), programs("r2")], [[0, 0], [1, 1], [1, 1]]);
    let metrics = agent.metrics();
    assert_eq!(metrics.select("netns_interface_attached", &[("netns", "red")]).count(), 2);
    assert_eq!(metrics.select("netns_interface_info", &[("netns", "red")]).count(), 2);
}

#[test]
fn a_choice_that_is_none_is_told_in_one_line() {
    let _host = TestHost::new();
    for (args, said) in [
        (&["--watch.netns.include", "a(b"][..], "--watch.netns.include \"a(b\": unclosed group"),
        (
            &["--watch.interface.exclude", "[z-a]"],
            "--watch.interface.exclude \"[z-a]\": invalid character class range, the start must be <= the end",
        ),
        (
            &["--watch.netns.include", "a", "--watch.netns.exclude", "b"],
            "--watch.netns.include and --watch.netns.exclude: give one of them",
        ),
    ] {
        let outcome = run(&[args, &["ls"]].concat());
        assert_eq!((outcome.code, outcome.stderr.as_str()), (Some(2), &*format!("netns-monitor: {said}\n")));
    }
}

/// Programs of raw tracepoints (`BPF_PROG_TYPE_RAW_TRACEPOINT`) that a process holds.
fn tracepoints(pid: u32) -> usize {
    let entries = std::fs::read_dir(format!("/proc/{pid}/fdinfo")).expect("its descriptors");
    let texts = entries.filter_map(|entry| std::fs::read_to_string(entry.ok()?.path()).ok());
    texts.filter(|text| text.lines().any(|line| line == "prog_type:\t17")).count()
}

#[test]
fn a_collector_that_is_off_loads_nothing_and_says_nothing() {
    let _host = TestHost::quiet();
    let pinned = || pins().into_iter().any(|pin| pin.contains("/drops"));
    let mut agent = Agent::start(FILE, &[]);
    assert!(pinned() && tracepoints(agent.pid()) > 0);
    for name in ["netns_packet_drops_total", "netns_socket_overflows_total", "netns_ip_no_route_total"] {
        assert!(agent.metrics().select(name, &[]).next().is_some(), "{name}");
    }
    agent.terminate();
    let off = ["drops", "netstat", "tcp", "tcp_health", "drift"].map(|name| format!("--no-collector.{name}"));
    let off = off.each_ref().map(String::as_str);
    let agent = Agent::start(FILE, &off);
    assert_eq!((pinned(), tracepoints(agent.pid())), (false, 0), "also what an earlier life left");
    until(SOON, "it is counted", || is_counted(&agent.metrics(), "blue", "eth0").then_some(()));
    let on: Vec<_> = values(&agent.scrape(), "collector");
    let expected = "agent conntrack firewall interface namespace process protocol retired size traffic";
    assert_eq!(on.join(" "), expected);
    let metrics = agent.metrics();
    for name in [
        "netns_packet_drops_total",
        "netns_socket_overflows_total",
        "netns_tcp_flagged_segments_total",
        "netns_tcp_resets_total",
        "netns_interface_uncounted_packets_total",
    ] {
        assert_eq!(metrics.select(name, &[]).count(), 0, "{name}");
    }
}

#[test]
fn one_scrape_may_ask_for_some_collectors() {
    let _host = TestHost::quiet();
    let agent = Agent::start(FILE, &["--no-collector.size"]);
    let ask = |query: &str| {
        let answer =
            monitor_tests::http::get(agent.address(), &format!("/metrics?{query}")).expect("an answer");
        (answer.status, answer.body)
    };
    let (status, body) = ask("collect[]=traffic&collect[]=agent");
    assert_eq!((status, values(&body, "collector")), (200, vec!["agent".to_owned(), "traffic".to_owned()]));
    let metrics = Metrics::parse(&body);
    let packets = [("netns", "blue"), ("interface", "eth0"), ("direction", "receive")];
    assert!(metrics.value("netns_packets_total", &packets).is_some());
    let (status, body) = ask("exclude[]=traffic");
    assert_eq!((status, values(&body, "collector").len()), (200, 13));
    let (status, body) = ask("collect[]=size");
    assert!(status == 400 && body.starts_with("collector \"size\" is switched off; there are: "), "{body}");
}

#[test]
fn loopback_is_counted_on_demand_as_the_kernel_counts_it() {
    let _host = TestHost::quiet();
    stranger("red", &[("r0", "eth0")]);
    let mut agent = Agent::start(FILE, &["--watch.lo"]);
    until(SOON, "they are counted", || {
        let metrics = agent.metrics();
        (is_counted(&metrics, "red", "lo") && is_counted(&metrics, "blue", "lo")).then_some(())
    });
    ip("-n red link set lo up");
    monitor_tests::host::inside("red", || {
        let listener = std::net::UdpSocket::bind("127.0.0.1:9").expect("a socket");
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").expect("a socket");
        (0..53).for_each(|_| assert_eq!(socket.send_to(&[0; 100], "127.0.0.1:9").expect("sent"), 100));
        drop(listener);
    });
    let ours = || {
        let metrics = agent.metrics();
        ["receive", "transmit"].map(|direction| skbs(&metrics, "red", "lo", direction))
    };
    let sent = Count { packets: 53, bytes: 53 * (14 + 20 + 8 + 100) };
    until_equal(SOON, "what was sent was received", || (ours(), [sent, sent]));
    let kernel = stats_inside("red", "lo");
    assert_eq!((kernel.rx_packets, kernel.tx_packets), (53, 53));
    // Its bytes are without the header that we count everywhere.
    assert_eq!((kernel.rx_bytes + 53 * 14, kernel.tx_bytes + 53 * 14), (sent.bytes, sent.bytes));
    agent.terminate();
    let agent = Agent::start(FILE, &[]);
    until(ONE_PASS, "it is let go again", || {
        let metrics = agent.metrics();
        let labels = [("interface", "lo")];
        let retired = [("netns", "red"), ("direction", "transmit")];
        let left = metrics.select("netns_packets_total", &labels).count();
        (left == 0 && metrics.count("netns_retired_packets_total", &retired) == 53).then_some(())
    });
}
