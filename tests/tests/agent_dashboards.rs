//! Every expression of every dashboard and of the rules, asked of a real Prometheus that scrapes a real agent on a host where
//! each trouble is provoked: each has an answer.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::{BufRead as _, BufReader, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket},
    path::PathBuf,
    time::{Duration, Instant},
};

use monitor_tests::{
    agent::{Agent, repository},
    host::{TestHost, inside, ip},
    ledger::Ledger,
    oracle::{link, pins},
    poll::{SOON, until},
    prometheus::Prometheus,
    scene::{Scene, TWO, know_each_other, silence},
    traffic::{send_every_class, tcp_transfer},
    trouble::{Trouble, send_datagrams},
};
use nix::sys::signal::Signal;
use promql_parser::parser::{self, Expr, token};
use serde_json::Value;

/// Enough for each rule and rate to have seen several scrapes of each trouble.
const DATA: Duration = Duration::from_secs(150);

/// What has no answer on a sound host, and why; answered where it is proven, by a host that says it has everything.
const ON_A_SICK_HOST: &[(&str, &str)] = &[
    ("\"table full\"", "the limit of connection tracking is one for the whole machine"),
    ("\"thrown out\"", "the limit of connection tracking is one for the whole machine"),
    ("\"not entered\"", "two connections have to race for one entry"),
    (" interface errors\"", "a veth has no errors"),
    ("topk(12, sum by (instance, netns) (rate(netns_conntrack_", "the limit is one for the whole machine"),
    (
        "topk(12, sum by (instance, netns, interface, direction) (rate(netns_interface_errors_total",
        "a veth has none",
    ),
    ("\"agent not reached\"", "the agent would be gone"),
    ("\"counts nothing\"", "the kernel would have to lack TCX and clsact"),
    ("\"interfaces not counted\"", "attaching would have to fail"),
    ("\"conntrack nearly full, percent\"", "the limit of connection tracking is one for the whole machine"),
    ("\"collector fails\"", "a collector would have to fail"),
    ("\"pass late, seconds\"", "passes would have to fail for minutes"),
    ("\"file refused\"", "the file is good"),
    ("\"namespaces summed as ~other\"", "there are fewer than the ceiling"),
    ("netns_alias_info", "by name alone, the tests' agents see one name of each"),
    ("netns_container_info", "by name alone, the tests' agents see no container"),
    ("\"lives on without a name\"", "by name alone, the tests' agents see no namespace without one"),
    ("changes(process_start_time_seconds", "the agent does not restart"),
];

/// [`TWO`], and red drops what comes to one port, and what is neither TCP, UDP nor ICMP.
fn config() -> String {
    let accepted = ["ct state established,related", "tcp dport != 99", "udp dport != 99", "ip protocol icmp"];
    let rules: Vec<_> = accepted.iter().map(|rule| format!("\"{rule} accept\"")).collect();
    format!("{TWO}\n[namespace.firewall]\ninput = {{ policy = \"drop\", rule = [{}] }}\n", rules.join(", "))
}

/// A host with two namespaces of the file, and two that others made: packets to `green` are too large for it, and `brown`'s
/// interface is down.
fn troubled_host() -> Scene {
    let host = TestHost::quiet();
    let scene = Scene { agent: Agent::start(&config(), &["--collector.dns"]), host };
    silence(&["blue", "red"]);
    know_each_other("blue", "red", "eth0");
    for netns in ["green", "brown"] {
        ip(&format!("netns add {netns}"));
        ip(&format!("link add {netns}-eth0 type veth peer name eth0 netns {netns}"));
        ip(&format!("link set {netns}-eth0 up"));
    }
    ip("address add 203.0.113.1/24 dev green-eth0");
    ip("-n green address add 203.0.113.2/24 dev eth0");
    ip("-n green link set eth0 mtu 600 up");
    scene
}

/// A little of each trouble, and of what is none.
fn provoke(trouble: &mut Trouble, scene: &Scene) {
    for netns in ["blue", "red"] {
        inside(netns, || send_every_class("eth0", 2, &mut Ledger::new()));
    }
    tcp_transfer("blue", "red", Ipv4Addr::new(198, 51, 100, 3), 100_000);
    trouble.connects();
    trouble.datagrams();
    trouble.queries();
    trouble.comings_and_goings();
    let socket = UdpSocket::bind("203.0.113.1:0").expect("a socket");
    send_datagrams(&socket, "203.0.113.2:9", &[0; 1000], 3);
    drift(scene);
    scene.agent.signal(Signal::SIGHUP);
}

/// Somebody removes a program of green's interface; packets pass that nobody counts; and it is looked at.
fn drift(scene: &Scene) {
    let number = link(None, "green-eth0")["ifindex"].to_string();
    // Programs for DNS have pins of their own.
    let is_it = |pin: &String| {
        pin.ends_with("-egress") && pin.contains(&format!("/{number}-")) && !pin.contains("/dns-v")
    };
    let Some(pin) = pins().into_iter().find(is_it) else { return };
    fs::remove_file(pin).expect("removed");
    let socket = UdpSocket::bind("203.0.113.1:0").expect("a socket");
    send_datagrams(&socket, "203.0.113.2:9", b"x", 5);
    // Something to repair: after a pass that repaired, everything is looked at.
    let passes = || scene.agent.metrics().count("netns_monitor_reconcile_duration_seconds_count", &[]);
    let before = passes();
    ip("address del 198.51.100.1/24 dev nm0");
    until(SOON, "it is repaired", || ip("-br address show dev nm0").contains("198.51.100.1").then_some(()));
    until(SOON, "the pass is over", || (passes() > before).then_some(()));
}

/// Serves what an agent would that has every trouble there is: the sample of every metric, whose counters rise with each scrape.
fn sick_host() -> SocketAddr {
    let golden = fs::read_to_string(repository("monitor/tests/golden/metrics.txt")).expect("the sample");
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("its address");
    std::thread::spawn(move || {
        for (round, stream) in (1..).zip(listener.incoming()) {
            let mut stream = stream.expect("a scrape");
            let mut lines = BufReader::new(stream.try_clone().expect("the same")).lines();
            while lines.next().is_some_and(|line| line.is_ok_and(|line| !line.is_empty())) {}
            let body = sick(&golden, round);
            let head = "HTTP/1.0 200 OK\r\nContent-Type: text/plain; version=0.0.4\r\n\r\n";
            // A scrape that was given up is no matter.
            let _sent = stream.write_all(format!("{head}{body}").as_bytes());
        }
    });
    address
}

fn sick(golden: &str, round: u64) -> String {
    let mut text = String::new();
    let mut rises = false;
    for line in golden.lines() {
        if let Some(of) = line.strip_prefix("# TYPE ") {
            rises = of.ends_with(" counter") || of.ends_with(" histogram");
        }
        let (series, value) = line.rsplit_once(' ').expect("a value");
        let value = match value.parse::<f64>() {
            _ if line.starts_with('#') => {
                text += &format!("{line}\n");
                continue;
            }
            Ok(_) if series.starts_with("netns_conntrack_entries{") => 95.0,
            Ok(_) if series.starts_with("netns_monitor_scrape_collector_success{collector=\"drift\"") => 0.0,
            Ok(value) if rises => (value + 1.0) * round as f64,
            Ok(value) => value,
            // How long something took.
            Err(_) => 0.001,
        };
        let series = series.replace("mode=\"tcx\",pinned=\"true\"", "mode=\"none\",pinned=\"true\"");
        text += &format!("{series} {value}\n");
    }
    text + &format!("# TYPE process_start_time_seconds gauge\nprocess_start_time_seconds {round}\n")
}

#[test]
fn every_expression_of_every_dashboard_and_of_the_rules_has_data() {
    let scene = troubled_host();
    let sound = scene.agent.address();
    let nobody = SocketAddr::from(([127, 0, 0, 1], 1));
    let rules = ["recording", "alerts"].map(|name| repository(&format!("dashboards/rules/{name}.yml")));
    let rules: Vec<_> = rules.iter().map(PathBuf::as_path).collect();
    let prometheus = Prometheus::start(&[sound, sick_host(), nobody], &rules);

    let dashboards = dashboards();
    assert_eq!(dashboards.len(), 5);
    let mut asked = BTreeSet::new();
    dashboards.values().for_each(|dashboard| collect_expressions(dashboard, &mut asked));
    let mut parts: BTreeSet<String> =
        asked.iter().flat_map(|query| parts(&parsed(&grafana(query)))).collect();
    assert!(parts.len() > 150, "{}", parts.len());
    let (listed, mut left): (Vec<_>, BTreeSet<_>) = {
        let sick = |part: &String| ON_A_SICK_HOST.iter().any(|(words, _)| part.contains(words));
        let (listed, left): (Vec<_>, Vec<_>) = std::mem::take(&mut parts).into_iter().partition(sick);
        (listed, left.into_iter().map(|part| of_instance(&part, &sound.to_string())).collect())
    };
    for (words, reason) in ON_A_SICK_HOST {
        assert!(listed.iter().any(|part| part.contains(words)), "nothing asks for {words} ({reason})");
    }
    left.extend(rule_expressions(&prometheus));

    let mut trouble = Trouble::new("blue", "red", Ipv4Addr::new(198, 51, 100, 3));
    let end = Instant::now() + DATA;
    while !left.is_empty() && Instant::now() < end {
        provoke(&mut trouble, &scene);
        left.retain(|query| !has_data(&prometheus, query));
    }
    assert_eq!(left, BTreeSet::new(), "without data");
    for part in &listed {
        // On a machine that is busy even a sound agent may be too slow for a scrape of 200 ms.
        let lasting = part.contains("agent not reached")
            || !has_data(&prometheus, &of_instance(part, &sound.to_string()));
        assert!(lasting, "needs no sick host: {part}");
        let anywhere = of_instance(part, ".+");
        until(SOON, &format!("an answer to {part}"), || has_data(&prometheus, &anywhere).then_some(()));
    }
    healthy_rules(&prometheus);
    variables_have_values(&prometheus, &dashboards);
}

/// NaN is what 0 by 0 comes to: no data.
fn has_data(prometheus: &Prometheus, query: &str) -> bool {
    let answer = prometheus.query(query).unwrap_or_else(|error| panic!("{query}: {error}"));
    answer.iter().any(|series| !series.to_string().contains("\"NaN\""))
}

fn dashboards() -> BTreeMap<String, Value> {
    let files =
        fs::read_dir(repository("dashboards")).expect("dashboards").flatten().map(|entry| entry.path());
    let files = files.filter(|path| path.extension().is_some_and(|end| end == "json"));
    let read = |path: PathBuf| {
        let text = fs::read_to_string(&path).expect("a dashboard");
        (path.display().to_string(), serde_json::from_str(&text).expect("JSON"))
    };
    files.map(read).collect()
}

/// Every `expr` of a dashboard, those of its marks included.
fn collect_expressions(value: &Value, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(fields) => {
            found.extend(fields.get("expr").and_then(Value::as_str).map(str::to_owned));
            fields.values().for_each(|value| collect_expressions(value, found));
        }
        Value::Array(values) => values.iter().for_each(|value| collect_expressions(value, found)),
        _ => {}
    }
}

/// Stands for what `$instance` is until it is known whose it is.
const INSTANCE: &str = "chosen instance";

/// With Grafana's variables replaced: each stands for everything, but for the host.
fn grafana(query: &str) -> String {
    let values = [
        ("$__rate_interval", "5s"),
        ("$__interval", "5s"),
        ("$__range", "60s"),
        ("$job", ".+"),
        ("$instance", INSTANCE),
        ("$netns", ".+"),
        ("$interface", ".+"),
    ];
    let query = values.iter().fold(query.to_owned(), |query, (name, value)| query.replace(name, value));
    assert!(!query.contains('$') || query.contains("\"$1\""), "{query}");
    query
}

fn of_instance(query: &str, instance: &str) -> String {
    query.replace(INSTANCE, instance)
}

fn parsed(query: &str) -> Expr {
    parser::parse(query).unwrap_or_else(|error| panic!("{query}: {error}"))
}

/// The parts of which one alone would be an answer: each side of an `or`, within whatever the whole is chosen from.
fn parts(expr: &Expr) -> Vec<String> {
    match expr {
        Expr::Binary(binary) if binary.op.id() == token::T_LOR => {
            [&binary.lhs, &binary.rhs].into_iter().flat_map(|side| parts(side)).collect()
        }
        Expr::Paren(paren) => parts(&paren.expr),
        Expr::Aggregate(aggregate) if parts(&aggregate.expr).len() > 1 => parts(&aggregate.expr),
        other => vec![other.to_string()],
    }
}

/// What the rules record, and what the alerts compare.
fn rule_expressions(prometheus: &Prometheus) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for rule in until(SOON, "the rules", || Some(rules(prometheus)).filter(|rules| !rules.is_empty())) {
        let expression = rule["query"].as_str().expect("an expression");
        match rule["type"].as_str() {
            // An alert that does not fire has no data; what it compares has.
            Some("alerting") => found.extend(operands(expression)),
            _ => found.extend([rule["name"].as_str().expect("a name").to_owned(), expression.to_owned()]),
        }
    }
    found
}

fn rules(prometheus: &Prometheus) -> Vec<Value> {
    let groups =
        prometheus.ask("rules").expect("the rules")["groups"].as_array().cloned().unwrap_or_default();
    groups.iter().flat_map(|group| group["rules"].as_array().cloned().unwrap_or_default()).collect()
}

fn healthy_rules(prometheus: &Prometheus) {
    for rule in rules(prometheus) {
        assert_eq!(rule["health"], "ok", "{rule}");
    }
}

fn variables_have_values(prometheus: &Prometheus, dashboards: &BTreeMap<String, Value>) {
    let lists =
        dashboards.values().filter_map(|dashboard| dashboard["templating"]["list"].as_array()).flatten();
    let queries: BTreeSet<_> = lists.filter_map(|variable| variable["query"].as_str()).collect();
    for query in queries {
        let Some(inner) = query.strip_prefix("label_values(").and_then(|rest| rest.strip_suffix(')')) else {
            assert_eq!(query, "prometheus");
            continue;
        };
        let (selector, label) = inner.rsplit_once(',').expect("a metric and a label");
        let series = prometheus.query(&of_instance(&grafana(selector.trim()), ".+")).expect("an answer");
        let values: BTreeSet<_> =
            series.iter().filter_map(|series| series["metric"][label.trim()].as_str()).collect();
        let wanted = match label.trim() {
            "job" => "netns-monitor",
            "netns" => "~host",
            "interface" => "eth0",
            _ => values.first().expect("a host"),
        };
        assert!(values.contains(wanted), "{query}: {values:?}");
    }
}

/// What an alert compares: both sides of its comparisons and conjunctions, without the numbers.
fn operands(expression: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    collect_operands(&parsed(expression), &mut found);
    // No data is as old as an offset asks for.
    found.into_iter().map(|text| without_offset(&text)).collect()
}

fn collect_operands(expression: &Expr, found: &mut BTreeSet<String>) {
    match expression {
        Expr::Binary(binary) if binary.op.is_comparison_operator() || binary.op.is_set_operator() => {
            collect_operands(&binary.lhs, found);
            collect_operands(&binary.rhs, found);
        }
        Expr::Paren(paren) => collect_operands(&paren.expr, found),
        Expr::Call(call) if call.func.name.starts_with("absent") => {
            call.args.args.iter().for_each(|argument| collect_operands(argument, found));
        }
        Expr::NumberLiteral(_) => {}
        // The labels of an information tell what is; what should never be has no series.
        Expr::VectorSelector(selector)
            if selector.name.as_ref().is_some_and(|name| name.ends_with("_info")) =>
        {
            found.extend(selector.name.clone());
        }
        other => {
            found.insert(other.to_string());
        }
    }
}

fn without_offset(expression: &str) -> String {
    let mut parts = expression.split(" offset ");
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |text, rest| text + rest.trim_start_matches(|c: char| c.is_ascii_alphanumeric()))
}

#[test]
fn an_alert_is_taken_apart_into_what_it_compares() {
    let found = operands(
        "rate(a_total{x=\"1\"}[5m]) > 0.1 and on (netns) (b == 0 unless absent(c offset 1h) or d_info{x=\"2\"} == 1)",
    );
    let expected = ["b", "c", "d_info", "rate(a_total{x=\"1\"}[5m])"].map(str::to_owned);
    assert_eq!(found, BTreeSet::from(expected));
}

#[test]
fn a_query_is_taken_apart_into_what_would_be_an_answer_alone() {
    let found = parts(&parsed("topk by (what) (10, sum(a) > 0 or (b or sum by (x) (c)))"));
    assert_eq!(found, ["sum(a) > 0", "b", "sum by (x) (c)"]);
    assert_eq!(parts(&parsed("sum(a or b) / c")), ["sum(a or b) / c"]);
}

#[test]
fn variables_of_a_dashboard_are_replaced() {
    let text = r#"sum(rate(a{netns=~"$netns", instance=~"$instance"}[$__rate_interval]))"#;
    let replaced = r#"sum(rate(a{netns=~".+", instance=~"127.0.0.1:9"}[5s]))"#;
    assert_eq!(of_instance(&grafana(text), "127.0.0.1:9"), replaced);
}
