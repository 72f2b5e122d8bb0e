//! What the agent serves, as Prometheus reads it: names, rates, every expression of the dashboard and of the rules.

use std::{collections::BTreeSet, fs, net::Ipv4Addr, path::PathBuf, time::Duration};

use monitor_tests::{
    agent::repository,
    host::inside,
    http,
    ledger::Ledger,
    poll::{SOON, until},
    prometheus::{Prometheus, promtool},
    scene::Scene,
    traffic::{send_every_class, tcp_transfer},
};
use nix::sys::signal::Signal;
use promql_parser::parser::{self, Expr};
use serde_json::Value;

/// Enough for each rule and rate to have seen several scrapes.
const DATA: Duration = Duration::from_secs(60);

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

/// Asks for each expression again and again, under traffic and passes of the agent, until it has data; returns those that never had any.
fn without_data(scene: &Scene, prometheus: &Prometheus, expressions: BTreeSet<String>) -> BTreeSet<String> {
    let mut left = expressions;
    let end = std::time::Instant::now() + DATA;
    while !left.is_empty() && std::time::Instant::now() < end {
        traffic();
        scene.agent.signal(Signal::SIGHUP);
        left.retain(|expression| {
            let answer = prometheus.query(expression);
            let answer = answer.unwrap_or_else(|error| panic!("{expression}: {error}"));
            // NaN is what 0 by 0 comes to: no data.
            !answer.iter().any(|series| !series.to_string().contains("\"NaN\""))
        });
        std::thread::sleep(Duration::from_millis(50));
    }
    left
}

#[test]
fn a_real_prometheus_computes_rates_from_the_agents_counters() {
    let scene = Scene::two(&[]);
    let prometheus = Prometheus::start(scene.agent.address(), &[]);
    let expression =
        r#"rate(netns_packets_total{netns="blue",interface="eth0",direction="transmit"}[5s]) > 0"#;
    assert_eq!(without_data(&scene, &prometheus, [expression.to_owned()].into()), BTreeSet::new());
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

#[test]
fn every_expression_of_the_dashboard_and_of_the_rules_has_data() {
    let rules: Vec<PathBuf> = fs::read_dir(repository("dashboards/rules"))
        .expect("dashboards/rules")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.extension().is_some_and(|end| end == "yml"))
        // Their tests are promtool's.
        .filter(|path| !path.to_string_lossy().contains(".test."))
        .collect();
    assert!(!rules.is_empty());
    let scene = Scene::two(&[]);
    let paths: Vec<_> = rules.iter().map(PathBuf::as_path).collect();
    let prometheus = Prometheus::start(scene.agent.address(), &paths);

    let mut expressions = BTreeSet::new();
    let text = fs::read_to_string(repository("dashboards/overview.json")).expect("dashboards/overview.json");
    let dashboard: Value = serde_json::from_str(&text).expect("JSON");
    collect_expressions(&dashboard, &mut expressions);
    assert!(expressions.len() > 5, "{expressions:?}");
    let variables = variables(&dashboard);
    let mut expressions: BTreeSet<_> = expressions.iter().map(|text| substitute(text, &variables)).collect();
    // An annotation marks a moment that may not have come: its operands have data.
    for annotation in dashboard["annotations"]["list"].as_array().into_iter().flatten() {
        if let Some(expression) = annotation["expr"].as_str() {
            let expression = substitute(expression, &variables);
            expressions.remove(&expression);
            expressions.extend(operands(&expression));
        }
    }
    let groups = until(SOON, "the rules", || {
        let groups =
            prometheus.ask("rules").expect("the rules")["groups"].as_array().cloned().unwrap_or_default();
        (!groups.is_empty()).then_some(groups)
    });
    for rule in groups.iter().flat_map(|group| group["rules"].as_array().into_iter().flatten()) {
        let expression = rule["query"].as_str().expect("an expression");
        match rule["type"].as_str() {
            // An alert that does not fire has no data; what it compares has.
            Some("alerting") => expressions.extend(operands(expression)),
            _ => {
                expressions.extend([rule["name"].as_str().expect("a name").to_owned(), expression.to_owned()])
            }
        }
    }
    assert_eq!(without_data(&scene, &prometheus, expressions), BTreeSet::new(), "without data");
    for rule in prometheus.ask("rules").expect("the rules")["groups"]
        .as_array()
        .into_iter()
        .flatten()
        .flat_map(|group| group["rules"].as_array().into_iter().flatten())
    {
        assert_eq!(rule["health"], "ok", "{rule}");
    }
    // The variables of the dashboard have values.
    for query in
        dashboard["templating"]["list"].as_array().into_iter().flatten().filter_map(|v| v["query"].as_str())
    {
        let Some(inner) = query.strip_prefix("label_values(").and_then(|rest| rest.strip_suffix(')')) else {
            continue;
        };
        let (selector, label) = inner.rsplit_once(',').expect("a metric and a label");
        let series = prometheus.query(&substitute(selector.trim(), &variables)).expect("an answer");
        assert!(series.iter().any(|series| series["metric"][label.trim()].is_string()), "{query}");
    }
}

/// Every `expr` of the dashboard, rows within rows included.
fn collect_expressions(value: &Value, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(fields) => {
            if let Some(expression) = fields.get("expr").and_then(Value::as_str) {
                found.insert(expression.to_owned());
            }
            fields.values().for_each(|value| collect_expressions(value, found));
        }
        Value::Array(values) => values.iter().for_each(|value| collect_expressions(value, found)),
        _ => {}
    }
}

/// The dashboard's own variables: each stands for everything.
fn variables(dashboard: &Value) -> Vec<(String, &'static str)> {
    let own = dashboard["templating"]["list"].as_array().into_iter().flatten();
    let own = own.filter_map(|variable| variable["name"].as_str()).map(|name| (name.to_owned(), ".+"));
    // Grafana's; longer names first.
    let grafanas =
        [("__rate_interval", "5s"), ("__interval_ms", "1000"), ("__interval", "5s"), ("__range", "60s")];
    let mut all: Vec<_> = own.chain(grafanas.map(|(name, value)| (name.to_owned(), value))).collect();
    all.sort_by_key(|(name, _)| std::cmp::Reverse(name.len()));
    all
}

fn substitute(expression: &str, variables: &[(String, &'static str)]) -> String {
    let mut text = expression.to_owned();
    for (name, value) in variables {
        while let Some(start) = text.find(&format!("${{{name}")) {
            let end = start + text[start..].find('}').expect("a closing brace");
            text.replace_range(start..=end, value);
        }
        text = text.replace(&format!("${name}"), value);
    }
    text
}

/// What an alert compares: both sides of its comparisons and conjunctions, without the numbers.
fn operands(expression: &str) -> BTreeSet<String> {
    let parsed = parser::parse(expression).unwrap_or_else(|error| panic!("{expression}: {error}"));
    let mut found = BTreeSet::new();
    collect_operands(&parsed, &mut found);
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
fn variables_of_a_dashboard_are_replaced() {
    let dashboard = serde_json::json!({ "templating": { "list": [{ "name": "netns" }, { "name": "n" }] } });
    let text = r#"sum(rate(a{netns=~"$netns",n=~"${n:regex}"}[$__rate_interval]))"#;
    let replaced = r#"sum(rate(a{netns=~".+",n=~".+"}[5s]))"#;
    assert_eq!(substitute(text, &variables(&dashboard)), replaced);
}
