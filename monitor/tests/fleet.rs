//! What `dashboards/fleet` has: rules, configuration and dashboard fit each other, without Grafana and without a kernel. That they work
//! together on a fleet is tested where there is one.

mod support;

use std::{collections::BTreeSet, fs, path::PathBuf, process::Command};

use monitor::metrics::{Kind, reference};
use promql_parser::{
    parser::{self, Expr, VectorSelector},
    util::{ExprVisitor, walk_expr},
};
use serde_json::{Value, json};

fn file(name: &str) -> String {
    let path = support::root().join("dashboards/fleet").join(name);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The data of a YAML file.
fn yaml(name: &str) -> Value {
    serde_saphyr::from_str(&file(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

fn dashboard() -> Value {
    serde_json::from_str(&file("fleet.json")).expect("JSON")
}

fn list<'v>(value: &'v Value, key: &str) -> &'v [Value] {
    value[key].as_array().map_or(&[], Vec::as_slice)
}

fn text<'v>(value: &'v Value, key: &str) -> &'v str {
    value[key].as_str().unwrap_or_default()
}

/// The rules of a file, of all its groups.
fn rules(name: &str) -> Vec<Value> {
    list(&yaml(name), "groups").iter().flat_map(|group| list(group, "rules").to_vec()).collect()
}

/// The selectors of an expression, in its order.
fn selectors(expression: &str) -> Vec<VectorSelector> {
    struct Found(Vec<VectorSelector>);
    impl ExprVisitor for Found {
        type Error = ();
        fn pre_visit(&mut self, expr: &Expr) -> Result<bool, ()> {
            match expr {
                Expr::VectorSelector(selector) => self.0.push(selector.clone()),
                Expr::MatrixSelector(matrix) => self.0.push(matrix.vs.clone()),
                _ => {}
            }
            Ok(true)
        }
    }
    let expression = ["$__rate_interval", "$job", "$instance|", "$instance", "$group"]
        .into_iter()
        .zip(["5m", ".+", ".+|", ".+", ".+"])
        .fold(expression.to_owned(), |text, (variable, value)| text.replace(variable, value));
    let parsed = parser::parse(&expression).unwrap_or_else(|error| panic!("{error}: {expression}"));
    let mut found = Found(Vec::new());
    walk_expr(&mut found, &parsed).expect("it never fails");
    found.0
}

fn asked(expression: &str) -> BTreeSet<String> {
    selectors(expression).into_iter().map(|selector| selector.name.expect("a name")).collect()
}

/// Every query of the dashboard with its panel's title, those of variables and annotations too.
fn queries() -> Vec<(String, String)> {
    let dashboard = dashboard();
    let mut all = Vec::new();
    for panel in list(&dashboard, "panels") {
        let of = |target: &Value| (text(panel, "title").to_owned(), text(target, "expr").to_owned());
        all.extend(list(panel, "targets").iter().map(of));
    }
    for annotation in list(&dashboard["annotations"], "list") {
        all.push((text(annotation, "name").to_owned(), text(annotation, "expr").to_owned()));
    }
    for variable in list(&dashboard["templating"], "list") {
        let inner =
            text(variable, "query").strip_prefix("label_values(").and_then(|rest| rest.strip_suffix(')'));
        if let Some((selector, _label)) = inner.and_then(|inner| inner.rsplit_once(", ")) {
            all.push((text(variable, "name").to_owned(), selector.to_owned()));
        }
    }
    all
}

/// What the agent serves, what Prometheus makes of each scrape by itself, and what the rules record.
fn known() -> BTreeSet<String> {
    let of = |kind: Kind, name: &str| match kind {
        Kind::Histogram(_) => ["_bucket", "_count", "_sum"].map(|part| format!("{name}{part}")).to_vec(),
        _ => vec![name.to_owned()],
    };
    let served = reference().into_iter().flat_map(|line| of(line.metric.kind, line.metric.name));
    let own = ["ALERTS", "scrape_duration_seconds", "scrape_samples_scraped", "up"].map(str::to_owned);
    served.chain(own).chain(recorded()).collect()
}

fn recorded() -> Vec<String> {
    rules("rules/recording.yml").iter().map(|rule| text(rule, "record").to_owned()).collect()
}

/// The names that are sent on.
fn sent() -> regex::Regex {
    let config = yaml("prometheus.yml");
    let rule = &config["remote_write"][0]["write_relabel_configs"][0];
    assert_eq!((text(rule, "action"), &rule["source_labels"]), ("keep", &json!(["__name__"])));
    regex::Regex::new(&format!("^(?:{})$", text(rule, "regex"))).expect("a regular expression")
}

#[test]
fn rules_and_dashboard_ask_only_for_what_exists() {
    let known = known();
    let rules: Vec<_> =
        ["rules/recording.yml", "rules/alerts.yml"].iter().flat_map(|name| rules(name)).collect();
    assert!(rules.len() >= 15);
    for rule in &rules {
        for name in asked(text(rule, "expr")) {
            assert!(known.contains(&name), "{rule} asks for {name}");
        }
    }
    for (title, query) in queries() {
        for name in asked(&query) {
            assert!(known.contains(&name), "{title} asks for {name}");
        }
    }
}

#[test]
fn dashboard_and_fleet_alerts_work_where_only_what_is_sent_on_arrives() {
    let sent = sent();
    let alerts = rules("rules/alerts.yml");
    let of_alerts = alerts.iter().map(|rule| (text(rule, "alert").to_owned(), text(rule, "expr").to_owned()));
    for (title, query) in queries().into_iter().chain(of_alerts) {
        for name in asked(&query) {
            assert!(sent.is_match(&name), "{title} asks for {name}, which is not sent on");
        }
    }
    for record in recorded() {
        assert!(sent.is_match(&record), "{record} is recorded to be sent on");
    }
    // What is of a single namespace stays where it is.
    for name in
        ["netns_packets_total", "netns_info", "netns:netns_bytes:rate5m", "netns_packet_size_bytes_bucket"]
    {
        assert!(!sent.is_match(name), "{name}");
    }
}

#[test]
fn what_is_recorded_is_of_a_host_or_of_a_group_on_one() {
    for rule in rules("rules/recording.yml") {
        let (record, expr) = (text(&rule, "record"), text(&rule, "expr"));
        let (level, _) = record.split_once(':').expect("level:metric:operation");
        let by =
            expr.split_once(" by (").and_then(|(_, rest)| rest.split_once(')')).expect("an aggregation").0;
        let labels: Vec<_> = by.split(", ").filter(|label| *label != "direction").collect();
        match level {
            "instance" => assert_eq!(labels, ["job", "instance"], "{record}"),
            "instance_group" => assert_eq!(labels, ["job", "instance", "netns_group"], "{record}"),
            other => panic!("{record}: what is {other}?"),
        }
    }
}

#[test]
fn promtool_and_amtool_accept_the_files_and_the_rules_do_what_their_tests_say() {
    let dir = support::root().join("dashboards/fleet");
    let ok = |command: &mut Command| {
        let output = command.output().expect("it runs");
        assert!(
            output.status.success(),
            "{command:?}: {}",
            String::from_utf8_lossy(&[output.stdout, output.stderr].concat())
        );
    };
    ok(support::promtool().current_dir(&dir).args(["check", "config", "prometheus.yml"]));
    let rules = ["check", "rules", "--lint=all", "--lint-fatal", "rules/recording.yml", "rules/alerts.yml"];
    ok(support::promtool().current_dir(&dir).args(rules));
    ok(support::promtool().current_dir(dir.join("rules")).args(["test", "rules", "alerts.test.yml"]));
    let amtool = support::root().join("target/tools/alertmanager/usr/bin/amtool");
    ok(Command::new(amtool).arg("check-config").arg(dir.join("alertmanager.yml")));
}

#[test]
fn promtool_finds_a_rule_that_groups_otherwise() {
    let dir = std::env::temp_dir().join(format!("netns-monitor-fleet-{}", std::process::id()));
    fs::create_dir_all(&dir).expect("a folder");
    for name in ["recording.yml", "alerts.yml", "alerts.test.yml"] {
        let rules = file(&format!("rules/{name}")).replace("|[0-9]+)?", ")?");
        fs::write(dir.join(name), rules).expect("written");
    }
    let tested = support::promtool().current_dir(&dir).args(["test", "rules", "alerts.test.yml"]).output();
    fs::remove_dir_all(&dir).expect("removed");
    assert!(!tested.expect("promtool").status.success());
}

#[test]
fn every_alert_is_described_and_has_a_firing_and_a_silent_test() {
    let tests = yaml("rules/alerts.test.yml");
    for rule in rules("rules/alerts.yml") {
        let name = text(&rule, "alert");
        for part in [
            &rule["for"],
            &rule["labels"]["severity"],
            &rule["annotations"]["summary"],
            &rule["annotations"]["description"],
        ] {
            assert!(part.as_str().is_some_and(|part| !part.is_empty()), "{name}");
        }
        let of_it = list(&tests, "tests").iter().flat_map(|test| list(test, "alert_rule_test"));
        let fires: BTreeSet<_> = of_it
            .filter(|test| text(test, "alertname") == name)
            .map(|test| !list(test, "exp_alerts").is_empty())
            .collect();
        assert_eq!(fires, BTreeSet::from([false, true]), "{name}");
    }
}

// ---- the dashboard's conventions, as those of the other dashboards

fn findings(dashboard: &Value) -> Vec<String> {
    let mut found = Vec::new();
    let mut want = |is: bool, what: String| found.extend((!is).then_some(what));
    want(
        dashboard["uid"] == "netns-monitor-fleet" && dashboard["schemaVersion"] == 42,
        "uid and schema".to_owned(),
    );
    want(dashboard["editable"] == false && dashboard.get("id").is_none(), "not editable, no id".to_owned());
    want(dashboard["tags"] == json!(["netns-monitor"]), "its tag".to_owned());
    let names: Vec<_> =
        list(&dashboard["templating"], "list").iter().map(|variable| text(variable, "name")).collect();
    want(names == ["datasource", "job", "instance", "group"], format!("variables {names:?}"));
    for variable in &list(&dashboard["templating"], "list")[1..] {
        let as_wanted = variable["multi"] == true && variable["allValue"] == ".+" && variable["refresh"] == 2;
        want(
            as_wanted && variable["datasource"]["uid"] == "${datasource}",
            format!("variable {}", variable["name"]),
        );
    }
    let (mut taken, mut ids) = (BTreeSet::new(), BTreeSet::new());
    for panel in list(dashboard, "panels") {
        let title = text(panel, "title");
        want(ids.insert(panel["id"].as_u64()), format!("{title}: its id twice"));
        let [x, y, w, h] =
            ["x", "y", "w", "h"].map(|side| panel["gridPos"][side].as_u64().expect("a number"));
        for cell in (x..x + w).flat_map(|column| (y..y + h).map(move |line| (column, line))) {
            want(taken.insert(cell) && cell.0 < 24, format!("{title}: overlaps another panel, or the edge"));
        }
        if panel["type"] == "row" {
            continue;
        }
        want(!text(panel, "description").is_empty(), format!("{title}: no description"));
        let unit = text(&panel["fieldConfig"]["defaults"], "unit");
        want(
            ["bps", "bytes", "percentunit", "pps", "s", "short"].contains(&unit),
            format!("{title}: unit {unit:?}"),
        );
        want(!list(panel, "targets").is_empty(), format!("{title}: no queries"));
        for part in [panel].into_iter().chain(list(panel, "targets")) {
            want(part["datasource"]["uid"] == "${datasource}", format!("{title}: its data source"));
        }
        for target in list(panel, "targets") {
            let expr = text(target, "expr");
            let ranges = expr.matches('[').count();
            want(ranges == expr.matches("[$__rate_interval]").count(), format!("{title}: a fixed range"));
            for selector in selectors(expr) {
                let matched = |label: &str, values: &[&str]| {
                    selector
                        .matchers
                        .matchers
                        .iter()
                        .any(|m| m.name == label && values.contains(&m.value.as_str()))
                };
                want(matched("job", &[".+"]), format!("{title}: without job"));
                // Alerts of the whole fleet have no host.
                want(matched("instance", &[".+", ".+|"]), format!("{title}: without instance"));
            }
            let counters = ["netns_packets:sum", "netns_bytes:sum", "_total"];
            let plain = counters.iter().any(|name| expr.contains(name)) && !expr.contains("rate(");
            want(!plain, format!("{title}: a counter outside rate"));
        }
    }
    let below = taken.iter().map(|(_, line)| line + 1).max().unwrap_or_default();
    want(taken.len() as u64 == below * 24, "the layout has gaps".to_owned());
    found
}

#[test]
fn the_dashboard_follows_the_conventions_of_the_others() {
    assert_eq!(findings(&dashboard()), [""; 0]);
}

#[test]
fn each_convention_broken_is_found() {
    const EXPR: &str = "/panels/0/targets/0/expr";
    for (pointer, value, what) in [
        ("/uid", json!("x"), "uid"),
        ("/editable", json!(true), "editable"),
        ("/tags", json!([]), "tag"),
        ("/templating/list/3/name", json!("netns"), "variables"),
        ("/templating/list/3/refresh", json!(1), "variable"),
        ("/panels/1/id", json!(1), "twice"),
        ("/panels/1/gridPos/x", json!(2), "overlaps"),
        ("/panels/22/gridPos/w", json!(7), "gaps"),
        ("/panels/0/description", json!(""), "description"),
        ("/panels/0/fieldConfig/defaults/unit", json!("packets"), "unit"),
        ("/panels/0/targets", json!([]), "queries"),
        ("/panels/0/datasource/uid", json!("x"), "data source"),
        (EXPR, json!("up{job=~\"$job\"}"), "without instance"),
        (EXPR, json!("up{instance=~\"$instance\"}"), "without job"),
        (
            EXPR,
            json!("rate(process_cpu_seconds_total{job=~\"$job\", instance=~\"$instance\"}[5m])"),
            "fixed range",
        ),
        (EXPR, json!("process_cpu_seconds_total{job=~\"$job\", instance=~\"$instance\"}"), "outside rate"),
    ] {
        let mut broken = dashboard();
        *broken.pointer_mut(pointer).expect(pointer) = value;
        let found = findings(&broken);
        assert!(found.iter().any(|finding| finding.contains(what)), "{pointer}: {what}: {found:?}");
    }
}

#[test]
fn examples_name_no_address_of_anybody() {
    let folder: PathBuf = support::root().join("dashboards/fleet");
    for name in ["prometheus.yml", "alertmanager.yml", "targets/hosts.yml"] {
        let text = fs::read_to_string(folder.join(name)).expect(name);
        let hosts = text.split(['"', ' ', '/']).filter(|word| word.contains(".org") || word.contains(".com"));
        assert!(hosts.clone().count() > 0, "{name}");
        // RFC 2606.
        assert!(
            hosts
                .clone()
                .all(|host| host.split(':').next().is_some_and(|host| host.ends_with("example.org"))),
            "{name}"
        );
    }
}
