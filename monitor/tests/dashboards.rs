//! The dashboard and the rules, without Grafana and without a kernel: they ask only for what exists, in the way
//! Grafana's and Prometheus' own linters want it.

mod support;

use std::{collections::BTreeSet, fs};

use monitor::metrics::{Kind, reference};
use promql_parser::{
    label::MatchOp,
    parser::{self, Expr, VectorSelector},
};
use serde_json::{Value, json};

#[test]
fn the_dashboard_follows_every_convention() {
    assert_eq!(findings(&overview()), Vec::<String>::new());
}

#[test]
fn each_convention_broken_is_found() {
    const EXPR: &str = "/panels/2/targets/0/expr";
    let selected = "{job=~\"$job\", instance=~\"$instance\"}";
    let broken = [
        ("/editable", json!(true), "editable"),
        ("/uid", json!("x"), "uid"),
        ("/schemaVersion", json!(41), "schemaVersion"),
        ("/id", json!(7), "id"),
        ("/templating/list/0/name", json!("ds"), "datasource"),
        ("/templating/list/1/multi", json!(false), "variable job"),
        ("/templating/list/2/refresh", json!(1), "variable instance"),
        ("/templating/list/3/query", json!("label_values(netns_nothing, netns)"), "netns_nothing"),
        ("/panels/0/description", json!(""), "description"),
        ("/panels/0/fieldConfig/defaults/unit", json!("packets"), "unit"),
        ("/panels/0/datasource/uid", json!("abc"), "data source"),
        ("/panels/0/targets", json!([]), "no queries"),
        ("/panels/1/gridPos/x", json!(2), "overlap"),
        ("/panels/1/gridPos/x", json!(22), "24 columns"),
        ("/panels/2/id", json!(1), "id 1 twice"),
        (EXPR, json!("rate(netns_packets_total"), "does not parse"),
        (EXPR, json!(format!("rate(netns_nothing_total{selected}[$__rate_interval])")), "netns_nothing"),
        (EXPR, json!(format!("rate(netns_packets_total{selected}[5m])")), "$__rate_interval"),
        (EXPR, json!(format!("sum(netns_packets_total{selected})")), "outside rate"),
        (EXPR, json!(format!("rate(netns_network_namespaces{selected}[$__rate_interval])")), "no counter"),
        (EXPR, json!("sum(netns_network_namespaces{job=~\"$job\"})"), "instance=~\"$instance\""),
        (EXPR, json!("sum(netns_network_namespaces{instance=~\"$instance\"})"), "job=~\"$job\""),
    ];
    for (pointer, value, word) in broken {
        let mut dashboard = overview();
        match dashboard.pointer_mut(pointer) {
            Some(place) => *place = value,
            None => dashboard[pointer.trim_start_matches('/')] = value,
        }
        let found = findings(&dashboard);
        assert!(found.iter().any(|finding| finding.contains(word)), "{pointer}, {word}: {found:?}");
    }
}

#[test]
fn the_rules_ask_only_for_what_exists() {
    let recording = rules("recording.yml");
    let mut known = metric_names();
    known.extend(recording.iter().map(|(name, _)| name.clone()));
    known.insert("up".to_owned());
    let alerts = rules("alerts.yml");
    assert!(recording.len() >= 5 && alerts.len() >= 10);
    for (rule, expr) in recording.iter().chain(&alerts) {
        let parsed = parser::parse(expr).unwrap_or_else(|error| panic!("{rule}: {error}: {expr}"));
        for Selected { selector, .. } in selectors(&parsed) {
            let name = selector.name.expect("a name");
            assert!(known.contains(&name), "{rule} asks for {name}");
        }
    }
    assert!(!known.contains("netns_nothing_total"), "the twin");
}

#[test]
fn promtool_accepts_the_rules_and_their_tests_pass() {
    let dir = support::root().join("dashboards/rules");
    let run = |args: &[&str]| support::promtool().current_dir(&dir).args(args).output().expect("promtool");
    let checked = run(&["check", "rules", "--lint=all", "--lint-fatal", "recording.yml", "alerts.yml"]);
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));
    let tested = run(&["test", "rules", "alerts.test.yml"]);
    assert!(tested.status.success(), "{}", String::from_utf8_lossy(&tested.stderr));
}

#[test]
fn promtool_finds_an_alert_that_no_longer_fires() {
    let dir = std::env::temp_dir().join(format!("netns-monitor-rules-{}", std::process::id()));
    fs::create_dir_all(&dir).expect("a folder");
    for file in ["recording.yml", "alerts.yml", "alerts.test.yml"] {
        let text = rules_file(file).replace("unattached > 0", "unattached > 1000");
        fs::write(dir.join(file), text).expect("write");
    }
    let tested = support::promtool()
        .current_dir(&dir)
        .args(["test", "rules", "alerts.test.yml"])
        .output()
        .expect("run");
    fs::remove_dir_all(&dir).expect("remove");
    assert!(!tested.status.success());
}

#[test]
fn every_alert_is_described_and_has_a_firing_and_a_silent_test() {
    let text = rules_file("alerts.yml");
    let alerts: Vec<_> = text.split("- alert: ").skip(1).collect();
    let tests = rules_file("alerts.test.yml");
    for alert in alerts {
        let name = alert.lines().next().expect("a name");
        for part in ["for: ", "severity: ", "summary: ", "description: "] {
            assert!(alert.contains(part), "{name} has no `{part}`");
        }
        let of_it = tests.split("alertname: ").skip(1).filter(|test| test.lines().next() == Some(name));
        let silent: Vec<_> = of_it
            .map(|test| test.lines().nth(2).is_some_and(|line| line.ends_with("exp_alerts: []")))
            .collect();
        assert_eq!(silent, [false, true], "{name}");
    }
}

// ---- what is checked

fn findings(dashboard: &Value) -> Vec<String> {
    let mut found = Vec::new();
    check_page(dashboard, &mut found);
    check_variables(dashboard, &mut found);
    check_layout(dashboard, &mut found);
    for panel in list(dashboard, "panels") {
        check_panel(panel, &mut found);
    }
    for annotation in dashboard["annotations"]["list"].as_array().into_iter().flatten() {
        check_query(text(annotation, "name"), text(annotation, "expr"), &mut found);
    }
    found
}

fn check_page(dashboard: &Value, found: &mut Vec<String>) {
    let mut want = |is: bool, what: &str| {
        if !is {
            found.push(what.to_owned());
        }
    };
    want(dashboard["uid"] == "netns-monitor-overview", "the uid is fixed");
    want(dashboard["schemaVersion"] == 42, "schemaVersion is 42, the last of the classic model");
    want(dashboard["editable"] == false, "the dashboard is not editable");
    want(
        dashboard.get("id").is_none() && dashboard.get("__inputs").is_none(),
        "there is no id and no __inputs",
    );
    want(dashboard["tags"] == json!(["netns-monitor"]), "it is tagged");
}

fn check_variables(dashboard: &Value, found: &mut Vec<String>) {
    let variables = dashboard["templating"]["list"].as_array().cloned().unwrap_or_default();
    let names: Vec<_> = variables.iter().map(|variable| text(variable, "name")).collect();
    if names != ["datasource", "job", "instance", "netns", "interface"] {
        found.push(format!("variables are datasource, job, instance, netns, interface, not {names:?}"));
    }
    for variable in &variables {
        let name = text(variable, "name");
        if variable["type"] == "datasource" {
            if variable["query"] != "prometheus" || variable["label"] != "Data source" {
                found.push("variable datasource: a Prometheus called `Data source`".to_owned());
            }
            continue;
        }
        let as_wanted = variable["multi"] == true
            && variable["includeAll"] == true
            && variable["allValue"] == ".+"
            && variable["refresh"] == 2
            && variable["datasource"]["uid"] == "${datasource}"
            && variable["query"].is_string();
        if !as_wanted {
            found.push(format!("variable {name}: multi, all is .+, refresh on time change, ${{datasource}}"));
        }
        let query = text(variable, "query");
        match query.strip_prefix("label_values(").and_then(|rest| rest.rsplit_once(", ")) {
            Some((selector, label)) if label == format!("{name})") => check_exists(name, selector, found),
            _ => found.push(format!("variable {name}: label_values of {name}, not {query}")),
        }
    }
}

fn check_layout(dashboard: &Value, found: &mut Vec<String>) {
    let mut taken = BTreeSet::new();
    let mut ids = BTreeSet::new();
    for panel in list(dashboard, "panels") {
        let title = text(panel, "title");
        if !ids.insert(panel["id"].as_u64()) {
            found.push(format!("panel id {} twice", panel["id"]));
        }
        let [x, y, w, h] =
            ["x", "y", "w", "h"].map(|side| panel["gridPos"][side].as_u64().unwrap_or(u64::MAX / 4));
        if x + w > 24 || w == 0 || h == 0 || h > 100 {
            found.push(format!("{title}: outside the 24 columns"));
            continue;
        }
        let cells = (x..x + w).flat_map(|column| (y..y + h).map(move |line| (column, line)));
        if cells.filter(|&cell| !taken.insert(cell)).count() > 0 {
            found.push(format!("{title}: overlaps another panel"));
        }
    }
    let below = taken.iter().map(|(_, line)| line + 1).max().unwrap_or(0);
    if taken.len() as u64 != below * 24 {
        found.push("the layout overlaps or has gaps".to_owned());
    }
}

fn check_panel(panel: &Value, found: &mut Vec<String>) {
    /// Those of Grafana's unit ids that are used here.
    const UNITS: [&str; 6] = ["bps", "bytes", "percentunit", "pps", "s", "short"];
    let title = text(panel, "title");
    if title.is_empty() {
        found.push("a panel has no title".to_owned());
    }
    if panel["type"] == "row" {
        return;
    }
    if text(panel, "description").is_empty() {
        found.push(format!("{title}: no description"));
    }
    if !UNITS.contains(&panel["fieldConfig"]["defaults"]["unit"].as_str().unwrap_or_default()) {
        found.push(format!("{title}: no unit"));
    }
    let targets = list(panel, "targets");
    if targets.is_empty() {
        found.push(format!("{title}: no queries"));
    }
    let mut refs = BTreeSet::new();
    for part in [panel].into_iter().chain(targets) {
        if part["datasource"]["uid"] != "${datasource}" || part["datasource"]["type"] != "prometheus" {
            found.push(format!("{title}: the data source is not ${{datasource}}"));
        }
    }
    for target in targets {
        if !refs.insert(text(target, "refId")) {
            found.push(format!("{title}: refId {} twice", target["refId"]));
        }
        check_query(title, text(target, "expr"), found);
    }
}

fn check_query(title: &str, query: &str, found: &mut Vec<String>) {
    check_exists(title, query, found);
    let Ok(parsed) = parser::parse(&substituted(query)) else { return };
    for Selected { selector, within } in selectors(&parsed) {
        let name = selector.name.clone().unwrap_or_default();
        for label in ["job", "instance"] {
            let chosen = |m: &promql_parser::label::Matcher| {
                m.name == label && matches!(m.op, MatchOp::Re(_)) && m.value == ANY
            };
            if !selector.matchers.matchers.iter().any(chosen) {
                found.push(format!("{title}: {name} without {label}=~\"${label}\""));
            }
        }
        let counts = is_counter(&name);
        let rated = within.is_some_and(|function| ["rate", "irate", "increase"].contains(&function));
        if counts && !rated {
            found.push(format!("{title}: the counter {name} outside rate and increase"));
        }
        if !counts && rated {
            found.push(format!("{title}: a rate of {name}, which is no counter"));
        }
    }
    if query.contains('[') && query.matches('[').count() != query.matches("[$__rate_interval]").count() {
        found.push(format!("{title}: a range that is not $__rate_interval"));
    }
}

fn check_exists(title: &str, query: &str, found: &mut Vec<String>) {
    match parser::parse(&substituted(query)) {
        Err(error) => found.push(format!("{title}: does not parse: {error}: {query}")),
        Ok(parsed) => {
            for Selected { selector, .. } in selectors(&parsed) {
                let name = selector.name.unwrap_or_default();
                if !metric_names().contains(&name) {
                    found.push(format!("{title}: there is no metric {name}"));
                }
            }
        }
    }
}

// ---- reading

/// What a variable that stands for everything becomes.
const ANY: &str = ".+";

fn substituted(query: &str) -> String {
    let mut query = query.replace("$__rate_interval", "5m");
    for variable in ["$job", "$instance", "$netns", "$interface"] {
        query = query.replace(variable, ANY);
    }
    query
}

/// A selector and the function whose range it gives.
struct Selected {
    selector: VectorSelector,
    within: Option<&'static str>,
}

fn selectors(expr: &Expr) -> Vec<Selected> {
    match expr {
        Expr::Aggregate(aggregate) => {
            let param = aggregate.param.iter().flat_map(|param| selectors(param));
            param.chain(selectors(&aggregate.expr)).collect()
        }
        Expr::Unary(unary) => selectors(&unary.expr),
        Expr::Binary(binary) => [&binary.lhs, &binary.rhs].into_iter().flat_map(|e| selectors(e)).collect(),
        Expr::Paren(paren) => selectors(&paren.expr),
        Expr::Subquery(subquery) => selectors(&subquery.expr),
        Expr::VectorSelector(selector) => vec![Selected { selector: selector.clone(), within: None }],
        Expr::MatrixSelector(matrix) => vec![Selected { selector: matrix.vs.clone(), within: None }],
        Expr::Call(call) => {
            let name = call.func.name;
            let of_args = call.args.args.iter().flat_map(|arg| selectors(arg));
            of_args.map(|s| Selected { within: s.within.or(Some(name)), ..s }).collect()
        }
        Expr::NumberLiteral(_) | Expr::StringLiteral(_) | Expr::Extension(_) => Vec::new(),
    }
}

/// The names series have: a histogram's are its parts.
fn metric_names() -> BTreeSet<String> {
    let names = |kind: Kind, name: &str| match kind {
        Kind::Histogram(_) => ["_bucket", "_count", "_sum"].map(|part| format!("{name}{part}")).to_vec(),
        _ => vec![name.to_owned()],
    };
    reference().into_iter().flat_map(|r| names(r.metric.kind, r.metric.name)).collect()
}

fn is_counter(series: &str) -> bool {
    let of = |kind: Kind, name: &str| match kind {
        Kind::Counter => series == name,
        Kind::Histogram(_) => series.strip_prefix(name).is_some_and(|part| part.starts_with('_')),
        Kind::Gauge => false,
    };
    reference().iter().any(|r| of(r.metric.kind, r.metric.name))
}

fn overview() -> Value {
    let path = support::root().join("dashboards/overview.json");
    serde_json::from_str(&fs::read_to_string(path).expect("the dashboard")).expect("JSON")
}

fn rules_file(name: &str) -> String {
    fs::read_to_string(support::root().join("dashboards/rules").join(name)).expect(name)
}

/// Name and expression of each rule; an expression stands on one line.
fn rules(file: &str) -> Vec<(String, String)> {
    let text = rules_file(file);
    let lines: Vec<_> = text.lines().map(|line| line.trim().trim_start_matches("- ")).collect();
    let pair = |pair: &[&str]| {
        let name = pair[0].strip_prefix("record: ").or_else(|| pair[0].strip_prefix("alert: "))?;
        let expr = pair[1].strip_prefix("expr: ").unwrap_or_else(|| panic!("{name} has no expression"));
        Some((name.to_owned(), expr.to_owned()))
    };
    lines.windows(2).filter_map(pair).collect()
}

fn list<'v>(value: &'v Value, key: &str) -> &'v [Value] {
    value[key].as_array().map_or(&[], Vec::as_slice)
}

fn text<'v>(value: &'v Value, key: &str) -> &'v str {
    value[key].as_str().unwrap_or_default()
}
