//! From a hand-made sample to Prometheus' text: no kernel.

mod support;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use anyhow::bail;
use monitor::{
    metrics::{COLLECTORS, Collector, GONE, Kind, Metric, Series, reference, render, render_with},
    sample::{
        AgentSample, AttachMode, ByDirection, ClassCounts, ContainerSample, Counts, DirectionCounts,
        IdentitySample, InterfaceSample, LinkSample, NetnsSample, NetnsState, OtherSample, RECONCILE_BOUNDS,
        ReconcileSample, ReloadSample, Sample,
        lost::{Lost, PacketDrops, TcpHealth},
    },
    topology::{
        figures::{Connections, Conntrack, Figures},
        names::{Cookie, MacAddr},
    },
};
use monitor_ebpf::{
    CLASSES, FLAGS, SIZES, class, flag,
    health::{TcpCounts, Times},
    talk::{DnsCounters, DnsRole},
};
use nix::time::{ClockId, clock_gettime};

const GOLDEN: &str = include_str!("golden/metrics.txt");

#[test]
fn a_sample_renders_to_the_golden_text() {
    let text = steady(&render_with(&without_process(), &Arc::new(sample())).expect("render"));
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        let golden = support::root().join("monitor/tests/golden/metrics.txt");
        std::fs::write(golden, &text).expect("write the golden text");
    }
    assert_eq!(text, GOLDEN, "if this is meant: UPDATE_GOLDEN=1 cargo test -p monitor --test metrics");
}

#[test]
fn promtool_finds_nothing_wrong_with_any_metric() {
    let text = render(&Arc::new(sample())).expect("render");
    let said = support::fed(support::promtool().args(["check", "metrics"]), &text);
    assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
    assert_eq!(String::from_utf8_lossy(&said.stderr) + String::from_utf8_lossy(&said.stdout), "");
}

#[test]
fn promtool_finds_a_counter_without_total() {
    let text = render(&Arc::new(sample())).expect("render").replace("netns_skbs_total", "netns_skbs");
    let said = support::fed(support::promtool().args(["check", "metrics"]), &text);
    assert!(!said.status.success());
}

#[test]
fn every_metric_of_the_reference_is_rendered_and_no_other() {
    let known: BTreeMap<_, _> = reference().into_iter().map(|r| (r.metric.name, r.metric)).collect();
    assert_eq!(known.len(), reference().len(), "a metric is in exactly one collector");
    let text = render(&Arc::new(sample())).expect("render");
    let rendered: BTreeSet<_> = text
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE "))
        .filter_map(|line| Some(line.split_once(' ')?.0))
        .collect();
    assert_eq!(rendered, known.keys().copied().collect());
    for (name, metric) in known {
        let counter = metric.kind == Kind::Counter;
        assert_eq!(name.ends_with("_total"), counter, "{name}");
        assert!(metric.help.ends_with('.') && !metric.help.contains("  "), "help of {name}");
        let both = metric.labels.contains(&"direction");
        assert_eq!(metric.help.contains("as seen by the namespace"), both, "viewpoint of {name}");
    }
}

#[test]
fn every_series_has_exactly_the_labels_of_its_metric() {
    for Reference { name, metric } in named_reference() {
        let mut labels: Vec<_> = metric.labels.to_vec();
        labels.sort_unstable();
        let series = series(&render(&Arc::new(sample())).expect("render"));
        let of_it = series.keys().filter(|(family, _)| *family == name);
        for (_, found) in of_it {
            assert_eq!(found.iter().map(|(label, _)| label.as_str()).collect::<Vec<_>>(), labels, "{name}");
        }
    }
}

#[test]
fn hostile_names_stay_inside_their_label() {
    let hostile = "a\"b\\c\nnetns_packets_total{netns=\"forged\"} 1\n\u{202e}é\0";
    let mut sample = sample();
    sample.namespaces[0].label = hostile.to_owned();
    sample.namespaces[0].interfaces[0].name = "}\" 1".to_owned();
    let text = render(&Arc::new(sample)).expect("render");
    assert!(text.lines().all(|line| !line.starts_with("netns_packets_total{netns=\"forged\"")), "{text}");
    let series = series(&text);
    let labels = [("direction", "receive"), ("interface", "}\" 1"), ("netns", hostile)];
    assert_eq!(value(&series, "netns_packets_total", &labels), Some(3.0));
    let said = support::fed(support::promtool().args(["check", "metrics"]), &text);
    assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
}

#[test]
fn protocols_sizes_and_interfaces_with_retired_agree_to_the_packet() {
    let series = series(&render(&Arc::new(sample())).expect("render"));
    for direction in ["receive", "transmit"] {
        let sum = |name: &str| -> f64 {
            let of = |labels: &Labels| {
                labels.contains(&("netns".into(), "blue".into()))
                    && labels.contains(&("direction".into(), direction.into()))
            };
            series.iter().filter(|((family, labels), _)| family == name && of(labels)).map(|(_, v)| v).sum()
        };
        for unit in ["packets", "bytes"] {
            let interfaces = sum(&format!("netns_{unit}_total"));
            let retired = sum(&format!("netns_retired_{unit}_total"));
            assert!(interfaces > 0.0 && retired > 0.0, "the sample has both");
            assert_eq!(sum(&format!("netns_protocol_{unit}_total")), interfaces + retired, "{unit}");
        }
        assert_eq!(sum("netns_packet_size_bytes_count"), sum("netns_protocol_packets_total"));
        assert_eq!(sum("netns_packet_size_bytes_sum"), sum("netns_protocol_bytes_total"));
    }
}

#[test]
fn a_namespace_that_dies_moves_to_gone_and_the_sum_of_all_stays() {
    let mut later = sample();
    let dead = later.namespaces.remove(0);
    later.gone.add(&dead.counts().expect("counted"));
    let sum = |sample: Sample| -> f64 {
        let series = series(&render(&Arc::new(sample)).expect("render"));
        let totals = ["netns_bytes_total", "netns_retired_bytes_total"];
        series.iter().filter(|((name, _), _)| totals.contains(&name.as_str())).map(|(_, value)| value).sum()
    };
    assert_eq!(sum(later.clone()), sum(sample()));
    later.gone = Counts::default();
    assert_ne!(sum(later), sum(sample()), "the twin: without the ledger it is lost");
}

#[test]
fn a_sum_that_lacks_an_interface_is_absent_and_not_lower() {
    let mut sample = sample();
    sample.namespaces[0].interfaces[0].counts = None;
    let unreadable = series(&render(&Arc::new(sample.clone())).expect("render"));
    let blue_sums = |series: &BTreeMap<(String, Labels), f64>| {
        let blue = ("netns".to_owned(), "blue".to_owned());
        let names = ["netns_protocol_packets_total", "netns_tcp_flagged_segments_total"];
        series.keys().filter(|(n, labels)| names.contains(&n.as_str()) && labels.contains(&blue)).count()
    };
    assert_eq!(blue_sums(&unreadable), 0);
    // The twin: an interface that never was attached takes nothing from the sum.
    sample.namespaces[0].interfaces[0].mode = None;
    let unattached = series(&render(&Arc::new(sample)).expect("render"));
    assert_eq!(blue_sums(&unattached), 2 * CLASSES + 2 * FLAGS);
}

#[test]
fn what_is_not_known_is_absent() {
    let mut sample = Sample::default();
    sample.namespaces.push(netns("empty"));
    let series = series(&render_with(&without_process(), &Arc::new(sample)).expect("render"));
    let of_empty: BTreeSet<_> = series
        .keys()
        .filter(|(_, labels)| labels.contains(&("netns".into(), "empty".into())))
        .map(|(name, _)| name.as_str())
        .collect();
    assert_eq!(of_empty, ["netns_info", "netns_state"].into());
    let absent = ["netns_monitor_reconcile_last_success", "netns_monitor_config_last_reload"];
    assert!(!series.keys().any(|(name, _)| absent.iter().any(|prefix| name.starts_with(prefix))));
}

#[test]
fn known_combinations_are_zeros_from_the_start() {
    let mut sample = Sample::default();
    let mut fresh = netns("fresh");
    fresh.interfaces.push(interface("eth0", Some(Counts::default())));
    sample.namespaces.push(fresh);
    let series = series(&render(&Arc::new(sample)).expect("render"));
    let count = |family: &str| series.iter().filter(|((name, _), _)| name == family).count();
    assert_eq!(count("netns_packets_total"), 2);
    assert_eq!(count("netns_protocol_packets_total"), 2 * CLASSES);
    assert_eq!(count("netns_packet_size_bytes_bucket"), 2 * SIZES);
    assert_eq!(count("netns_tcp_flagged_segments_total"), 2 * FLAGS);
    let gone = [("direction", "receive"), ("netns", GONE)];
    assert_eq!(value(&series, "netns_retired_packets_total", &gone), Some(0.0));
    assert_eq!(count("netns_monitor_reconcile_errors_total"), 4);
}

#[test]
fn whole_numbers_are_exact_up_to_two_to_the_53() {
    let largest = 1 << 53;
    let mut sample = sample();
    let counts = sample.namespaces[0].interfaces[0].counts.as_mut().expect("counted");
    counts.receive = DirectionCounts::default();
    counts.receive.classes[0].bytes = largest;
    let text = render(&Arc::new(sample)).expect("render");
    let line =
        "netns_bytes_total{direction=\"receive\",interface=\"eth0\",netns=\"blue\"} 9007199254740992\n";
    assert!(text.contains(line), "{text}");
}

#[test]
fn a_failing_collector_spoils_no_other_and_says_so() {
    fn fails(_: &Sample, series: &mut Series) -> anyhow::Result<()> {
        series.count(&SAID, &[], 7);
        bail!("as meant")
    }
    fn panics(_: &Sample, _: &mut Series) -> anyhow::Result<()> {
        panic!("as meant")
    }
    const SAID: Metric = Metric::gauge("test_said", &[], "Said before it failed.");
    const UNSAID: Metric = Metric::gauge("test_unsaid", &[], "Never said.");
    let mut collectors = without_process();
    collectors.push(Collector { name: "fails", help: "Fails.", metrics: &[SAID], collect: fails });
    collectors.push(Collector { name: "panics", help: "Panics.", metrics: &[UNSAID], collect: panics });
    // A name that is taken: refused at registration.
    collectors.push(Collector { name: "clashes", help: "Clashes.", metrics: &[SAID], collect: fails });

    let text = render_with(&collectors, &Arc::new(sample())).expect("render");
    let series = series(&text);
    for Collector { name, .. } in &collectors {
        let failed = ["fails", "panics", "clashes"].contains(name);
        let success = value(&series, "netns_monitor_scrape_collector_success", &[("collector", name)]);
        assert_eq!(success, Some(if failed { 0.0 } else { 1.0 }), "{name}");
        let took = value(&series, "netns_monitor_scrape_collector_duration_seconds", &[("collector", name)]);
        assert!(took.is_some_and(|seconds| seconds >= 0.0), "{name}");
    }
    assert_eq!(value(&series, "test_said", &[]), Some(7.0));
    let rest = |text: &str| -> Vec<String> {
        let of_others = |line: &&str| !line.contains("test_said") && !line.contains("scrape_collector");
        text.lines().filter(of_others).map(str::to_owned).collect()
    };
    assert_eq!(rest(&steady(&text)), rest(GOLDEN));
}

#[test]
fn two_things_of_one_name_give_one_series_and_a_failed_collector() {
    let mut sample = sample();
    let mut twin = netns("blue");
    twin.interfaces.push(interface("eth0", Some(counts(1000))));
    sample.namespaces.push(twin);
    let text = render(&Arc::new(sample)).expect("render");
    let series = series(&text);
    assert_eq!(series.len(), text.lines().filter(|line| !line.starts_with('#')).count(), "no series twice");
    let first = [("direction", "receive"), ("interface", "eth0"), ("netns", "blue")];
    assert_eq!(value(&series, "netns_packets_total", &first), Some(3.0));
    let success = |collector: &str| {
        value(&series, "netns_monitor_scrape_collector_success", &[("collector", collector)])
    };
    assert_eq!((success("traffic"), success("agent")), (Some(0.0), Some(1.0)));
}

#[test]
fn four_times_the_namespaces_cost_about_four_times_the_work() {
    let cost = |namespaces: u64| {
        let sample = Arc::new(Sample {
            namespaces: (0..namespaces)
                .map(|n| {
                    let mut netns = netns(&format!("ns-{n}"));
                    netns.interfaces.push(interface("eth0", Some(counts(n))));
                    netns
                })
                .collect(),
            ..Sample::default()
        });
        let run = || {
            let start = thread_time();
            let text = render(&sample).expect("render");
            assert_eq!(text.matches("netns_protocol_bytes_total{").count() as u64, namespaces * 24);
            thread_time() - start
        };
        (0..3).map(|_| run()).min().expect("three runs")
    };
    let (small, large) = (cost(250), cost(1000));
    let times = large.as_secs_f64() / small.as_secs_f64();
    assert!(times < 9.0, "{small:?} for 250, {large:?} for 1,000: {times:.1} times (16 is quadratic)");
}

#[test]
fn the_process_is_the_one_that_runs() {
    let series = series(&render(&Arc::new(Sample::default())).expect("render"));
    let read = |name: &str| value(&series, name, &[]).unwrap_or_else(|| panic!("{name}"));
    let status = std::fs::read_to_string("/proc/self/status").expect("status");
    let size = status.lines().find_map(|line| line.strip_prefix("VmSize:")).expect("VmSize");
    let kib: f64 = size.trim().trim_end_matches(" kB").parse().expect("a number");
    assert!((0.5..2.0).contains(&(read("process_virtual_memory_bytes") / (kib * 1024.0))));
    let now = std::time::UNIX_EPOCH.elapsed().expect("after 1970").as_secs_f64();
    // The start is told to 10 ms, the boot to a second.
    let age = now - read("process_start_time_seconds");
    assert!((-2.0..3600.0).contains(&age), "{age}");
    assert!(read("process_open_fds") >= 3.0 && read("process_open_fds") <= read("process_max_fds"));
    assert!(read("process_threads") >= 2.0 && read("process_cpu_seconds_total") >= 0.0);
}

// ---- the sample

fn sample() -> Sample {
    let mut blue = netns("blue");
    blue.inode = Some(4_026_532_001);
    blue.owned = true;
    blue.retired = counts(100);
    blue.drops = [("isolation", 3), ("input", 0)].into();
    let mut eth0 = interface("eth0", Some(counts(0)));
    eth0.link = Some(link());
    eth0.uncounted = Some(ByDirection { receive: 0, transmit: 8 });
    blue.interfaces.push(eth0);
    let mut eth1 = interface("eth1", Some(counts(10)));
    eth1.mode = Some(AttachMode::Clsact);
    blue.interfaces.push(eth1);

    let mut red = netns("red");
    red.cookie = Cookie(9);
    red.state = NetnsState::Detached;
    red.identity = IdentitySample {
        aliases: vec![("mount", "/run/docker/netns/0ab".to_owned()), ("process", "red".to_owned())],
        containers: vec![ContainerSample {
            runtime: "docker",
            id: "0123456789abcdef".repeat(4),
            name: Some("web".to_owned()),
        }],
        pod: Some("01234567-89ab-cdef-0123-456789abcdef".to_owned()),
        unit: None,
    };
    let mut wan = interface("wan", None);
    wan.mode = None;
    wan.link = Some(LinkSample {
        kind: "macvlan".to_owned(),
        mac: None,
        running: false,
        peer_interface: None,
        peer_netns: None,
        ..link()
    });
    red.interfaces.push(wan);
    let dns = [("blue".to_owned(), dns())].into();
    let other = OtherSample { namespaces: 3, counts: Some(counts(700)) };
    Sample { namespaces: vec![blue, red], gone: counts(5000), other, agent: agent(), lost: lost(), dns }
}

fn dns() -> DnsCounters {
    let mut client = DnsRole { queries: 12, unmatched: 1, nanoseconds: 5_250_000_000, ..DnsRole::default() };
    (client.codes[0], client.codes[3], client.codes[5]) = (7, 2, 1);
    (client.latencies[0], client.latencies[4], client.latencies[13]) = (6, 3, 1);
    let server = DnsRole { queries: 1, ..DnsRole::default() };
    DnsCounters { client, server }
}

fn tcp() -> TcpCounts {
    let times = |first: u64| {
        let mut times = Times { nanoseconds: 1_500_000 * first, ..Times::default() };
        (times.buckets[0], times.buckets[12], times.buckets[15]) = (first, 2, 1);
        times
    };
    TcpCounts {
        retransmits: [1, 2, 3, 4, 5],
        failures: [6, 7, 8, 9, 10, 11],
        resets: [12, 13],
        opened: [14, 15],
        handshakes: [times(11), Times::default()],
        rtt: times(3),
    }
}

#[test]
fn what_the_kernel_has_no_tracepoint_for_is_absent() {
    let mut sample = sample();
    let tcp = sample.lost.tcp.as_mut().expect("counted");
    tcp.attached = [true, true, false, false, true];
    let text = render(&Arc::new(sample)).expect("a scrape");
    assert!(text.contains("netns_tcp_retransmitted_segments_total{kind=\"fast\""));
    assert!(!text.contains("kind=\"synack\""));
    assert!(text.contains("netns_tcp_resets_total{direction=\"receive\""));
    assert!(!text.contains("netns_tcp_resets_total{direction=\"transmit\""));
}

fn lost() -> Lost {
    let reasons = |count| [("NO_SOCKET".to_owned(), count), ("NETFILTER_DROP".to_owned(), 1)].into();
    let netns = [("blue".to_owned(), reasons(4)), ("~gone".to_owned(), reasons(9))].into();
    let mut connections = Connections::default();
    [1, 10, 10, 6].into_iter().for_each(|state| connections.add(state));
    let figures = Figures {
        overflows: [("udp_receive", 7)].into(),
        listen_drops: Some(2),
        discards: [Some(1), None],
        no_route: [None, Some(3)],
        conntrack: Some(Conntrack {
            entries: 5,
            limit: 100,
            drops: Some(6),
            early_drops: Some(1),
            insert_failures: Some(0),
        }),
        connections: Some(connections),
    };
    let tcp = TcpHealth { netns: [("blue".to_owned(), tcp())].into(), missed: 1, attached: [true; 5] };
    Lost {
        drops: Some(PacketDrops { netns, missed: 0 }),
        tcp: Some(tcp),
        figures: [("blue".to_owned(), figures)].into(),
    }
}

fn agent() -> AgentSample {
    let mut durations = [0; RECONCILE_BOUNDS.len() + 1];
    (durations[0], durations[2], durations[8]) = (5, 2, 1);
    AgentSample {
        mode: Some(AttachMode::Tcx),
        unattached: 1,
        reattached: 2,
        pinned: true,
        reconciles: ReconcileSample {
            durations,
            seconds: 31.25,
            errors: [("retire", 2)].into(),
            last_success: Some(1_764_000_000.5),
        },
        netlink_overruns: 3,
        config_reload: Some(ReloadSample { successful: false, last_success: 1_764_000_000.0 }),
        http_requests: [(("/metrics", 200), 17), (("other", 404), 1)].into(),
    }
}

fn netns(label: &str) -> NetnsSample {
    NetnsSample {
        label: label.to_owned(),
        cookie: Cookie(4),
        inode: None,
        state: NetnsState::Named,
        owned: false,
        identity: IdentitySample::default(),
        interfaces: Vec::new(),
        retired: Counts::default(),
        drops: Default::default(),
    }
}

fn interface(name: &str, counts: Option<Counts>) -> InterfaceSample {
    InterfaceSample {
        name: name.to_owned(),
        counts,
        mode: Some(AttachMode::Tcx),
        link: None,
        uncounted: None,
    }
}

fn link() -> LinkSample {
    LinkSample {
        ifindex: 2,
        kind: "veth".to_owned(),
        mac: Some(MacAddr([2, 0, 0, 0, 0, 0x1f])),
        mtu: 1500,
        running: true,
        peer_interface: Some("blue-eth0".to_owned()),
        peer_netns: Some(String::new()),
        drops: ByDirection { receive: 4, transmit: 5 },
        errors: ByDirection { receive: 0, transmit: 6 },
    }
}

/// Two ARP packets and one of TCP received, and one class each sent: `more` packets in every class besides.
fn counts(more: u64) -> Counts {
    let mut counts = Counts::default();
    packets(&mut counts.receive, class::ARP, 2, 42);
    packets(&mut counts.receive, class::IPV4 + class::TCP, 1, 74);
    counts.receive.tcp_flags[flag::SYNACK] = 1;
    for class in 0..CLASSES {
        packets(&mut counts.transmit, class, 1, 100 + class as u64);
        packets(&mut counts.transmit, class, more, 1514);
    }
    counts.transmit.tcp_flags = [1 + more, 0, 0, more];
    counts
}

/// Packets of one size, each in an skb of its own.
fn packets(counts: &mut DirectionCounts, class: usize, packets: u64, size: u64) {
    let bytes = packets * size;
    counts.classes[class].add(&ClassCounts { skbs: packets, skb_bytes: bytes, packets, bytes });
    let bucket = monitor_ebpf::SIZE_BOUNDS.iter().position(|&bound| size <= bound.into());
    counts.sizes[bucket.unwrap_or(SIZES - 1)] += packets;
}

// ---- reading the text back, by other rules than those that wrote it

type Labels = Vec<(String, String)>;

fn series(text: &str) -> BTreeMap<(String, Labels), f64> {
    text.lines().filter(|line| !line.starts_with('#')).map(|line| parse(line).expect(line)).collect()
}

fn parse(line: &str) -> Option<((String, Labels), f64)> {
    let name_end = line.find(['{', ' '])?;
    let (name, mut rest) = line.split_at(name_end);
    let mut labels = Vec::new();
    if let Some(inside) = rest.strip_prefix('{') {
        rest = inside;
        while !rest.starts_with('}') {
            let (label, quoted) = rest.trim_start_matches(',').split_once("=\"")?;
            let mut value = String::new();
            let mut chars = quoted.char_indices();
            let end = loop {
                match chars.next()? {
                    (at, '"') => break at,
                    (_, '\\') => value.push(if let (_, c @ ('\\' | '"')) = chars.next()? { c } else { '\n' }),
                    (_, c) => value.push(c),
                }
            };
            labels.push((label.to_owned(), value));
            rest = &quoted[end + 1..];
        }
        rest = &rest[1..];
    }
    Some(((name.to_owned(), labels), rest.trim().parse().ok()?))
}

fn value(series: &BTreeMap<(String, Labels), f64>, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
    let labels = labels.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect();
    series.get(&(name.to_owned(), labels)).copied()
}

struct Reference {
    name: String,
    metric: Metric,
}

/// The reference by the names series have: a histogram's are its parts.
fn named_reference() -> Vec<Reference> {
    let parts = |metric: Metric| match metric.kind {
        Kind::Histogram(_) => ["_count", "_sum"].map(|part| format!("{}{part}", metric.name)).to_vec(),
        _ => vec![metric.name.to_owned()],
    };
    let named =
        |metric| parts(metric).into_iter().map(move |name| Reference { name, metric }).collect::<Vec<_>>();
    reference().into_iter().flat_map(|reference| named(reference.metric)).collect()
}

fn without_process() -> Vec<Collector> {
    COLLECTORS.iter().filter(|collector| collector.name != "process").copied().collect()
}

/// The text without what differs from run to run and from version to version.
fn steady(text: &str) -> String {
    let line = |line: &str| {
        let line = line.replace(env!("CARGO_PKG_VERSION"), "VERSION");
        match line.starts_with("netns_monitor_scrape_collector_duration_seconds") {
            true => format!("{} SECONDS\n", line.split_once(' ').expect("a value").0),
            false => line + "\n",
        }
    };
    text.lines().map(line).collect()
}

fn thread_time() -> Duration {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).expect("the thread's clock").into()
}
