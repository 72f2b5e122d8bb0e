//! The dashboards and the rules, without Grafana and without a kernel: the files are as they are defined here, they ask only for
//! what exists, and they are as Grafana's and Prometheus' own linters want them.

#[path = "../support/mod.rs"]
mod support;

mod lint;
mod make;
mod promql;
mod rules;
mod types;

use std::{collections::BTreeSet, fs};

use monitor::metrics::reference;
use serde_json::{Value, json};

/// Metrics that are on no panel, and why.
const ON_NO_PANEL: &[(&str, &str)] =
    &[("process_virtual_memory_bytes", "it says nothing that resident memory does not")];

#[test]
fn the_files_are_what_is_defined() {
    let update = std::env::var_os("UPDATE_GOLDEN").is_some();
    for (file, page) in make::all() {
        let path = support::root().join("dashboards").join(file);
        let text = serde_json::to_string_pretty(&page).expect("JSON") + "\n";
        if update {
            fs::write(&path, &text).expect("written");
        }
        assert!(
            fs::read_to_string(&path).is_ok_and(|there| there == text),
            "dashboards/{file} is not what monitor/tests/dashboards/make says: cargo xtask dashboards writes it"
        );
    }
    let files = fs::read_dir(support::root().join("dashboards")).expect("dashboards").flatten();
    let files = files.filter(|entry| entry.path().extension().is_some_and(|end| end == "json"));
    assert_eq!(files.count(), make::all().len(), "no file is left that nobody defines");
}

#[test]
fn the_dashboards_follow_every_rule() {
    let uids: Vec<_> = make::all().iter().map(|(_, page)| text(page, "uid").to_owned()).collect();
    assert_eq!(uids, lint::UIDS);
    for (file, page) in make::all() {
        assert_eq!(lint::findings(&page), [], "{file}");
    }
}

/// What is changed where, and which rule finds it.
fn broken() -> Vec<(&'static str, &'static str, Value)> {
    const EXPR: &str = "/panels/0/targets/0/expr";
    let selected = "{job=~\"$job\", instance=~\"$instance\"}";
    let chosen = "{job=~\"$job\", instance=~\"$instance\", netns=~\"$netns\", interface=~\"$interface\"}";
    vec![
        ("template-datasource-rule", "/templating/list/0/name", json!("ds")),
        ("template-datasource-rule", "/templating/list/0/label", json!("Source")),
        ("template-datasource-rule", "/templating/list/0/type", json!("query")),
        ("template-job-rule", "/templating/list/1/multi", json!(false)),
        ("template-job-rule", "/templating/list/1/name", json!("jobs")),
        ("template-instance-rule", "/templating/list/2/allValue", json!(".*")),
        ("template-instance-rule", "/templating/list/2/label", json!("Host")),
        ("template-label-promql-rule", "/templating/list/3/query", json!("label_values(netns_info{, netns)")),
        ("template-label-promql-rule", "/templating/list/3/query", json!("netns_info")),
        ("template-on-time-change-reload-rule", "/templating/list/4/refresh", json!(1)),
        ("panel-datasource-rule", "/panels/0/datasource/uid", json!("abc")),
        ("panel-title-description-rule", "/panels/0/description", json!("")),
        ("panel-title-description-rule", "/panels/1/title", json!(" ")),
        ("panel-units-rule", "/panels/0/fieldConfig/defaults/unit", json!("packets")),
        ("panel-no-targets-rule", "/panels/0/targets", json!([])),
        ("target-promql-rule", EXPR, json!("rate(netns_packets_total")),
        ("target-logql-rule", "/panels/0/targets/0/datasource/type", json!("loki")),
        ("target-logql-auto-rule", EXPR, json!(format!("rate(netns_packets_total{chosen}[$__auto])"))),
        ("target-rate-interval-rule", EXPR, json!(format!("rate(netns_packets_total{chosen}[5m])"))),
        (
            "target-rate-interval-rule",
            EXPR,
            json!(format!("increase(netns_packets_total{chosen}[$__range])")),
        ),
        ("target-job-rule", EXPR, json!("sum(netns_network_namespaces{instance=~\"$instance\"})")),
        (
            "target-job-rule",
            EXPR,
            json!("sum(netns_network_namespaces{job=\"$job\", instance=~\"$instance\"})"),
        ),
        ("target-instance-rule", EXPR, json!("sum(netns_network_namespaces{job=~\"$job\"})")),
        ("target-counter-agg-rule", EXPR, json!(format!("sum(netns_packets_total{chosen})"))),
        (
            "target-counter-agg-rule",
            EXPR,
            json!(format!("rate(netns_network_namespaces{selected}[$__rate_interval])")),
        ),
        ("uneditable-dashboard", "/editable", json!(true)),
        ("page", "/uid", json!("x")),
        ("page", "/schemaVersion", json!(41)),
        ("page", "/id", json!(7)),
        ("page", "/links/0/includeVars", json!(false)),
        ("page", "/annotations/list/1/name", json!("x")),
        ("variables", "/templating/list/4/query", json!("label_values(netns_interface_up, interface)")),
        ("variables", "/templating/list/3/name", json!("ns")),
        ("metrics", "/templating/list/3/query", json!("label_values(netns_nothing, netns)")),
        ("metrics", EXPR, json!(format!("rate(netns_nothing_total{chosen}[$__rate_interval])"))),
        ("labels", EXPR, json!(format!("rate(netns_packets_total{selected}[$__rate_interval])"))),
        (
            "labels",
            EXPR,
            json!("sum(netns_network_namespaces{job=~\"$job\", instance=~\"$instance\", colour=\"red\"})"),
        ),
        ("targets", "/panels/0/targets/0/instant", json!(true)),
        ("targets", "/panels/8/targets/0/instant", json!(false)),
        ("targets", "/panels/8/targets/0/format", json!("time_series")),
        ("targets", "/panels/0/targets/0/datasource/uid", json!("x")),
        ("links", "/panels/0/fieldConfig/defaults/links/0/url", json!("/d/elsewhere")),
        ("links", "/panels/8/fieldConfig/overrides", json!([])),
        ("links", "/panels/8/transformations/1/options/renameByName/instance", json!("Machine")),
        ("layout", "/panels/1/gridPos/x", json!(2)),
        ("layout", "/panels/1/gridPos/x", json!(22)),
        ("layout", "/panels/1/gridPos/w", json!("3")),
        ("layout", "/panels/2/id", json!(1)),
        ("layout", "/panels/11/gridPos/w", json!(12)),
    ]
}

#[test]
fn each_rule_broken_is_found() {
    let (_, overview) = make::all().swap_remove(0);
    let mut tried = BTreeSet::new();
    for (rule, pointer, value) in broken() {
        let mut page = overview.clone();
        match page.pointer_mut(pointer) {
            Some(place) => *place = value,
            None => {
                let (parent, key) = pointer.rsplit_once('/').expect("a path");
                page.pointer_mut(parent).expect("a parent")[key] = value;
            }
        }
        let found = lint::findings(&page);
        assert!(found.iter().any(|(by, _)| *by == rule), "{rule} at {pointer}: {found:?}");
        tried.insert(rule);
    }
    // This one needs a panel of its kind.
    let (_, mut overview) = make::all().swap_remove(0);
    let panels = overview["panels"].as_array_mut().expect("panels");
    let traffic =
        panels.iter_mut().find(|panel| panel["title"] == "Traffic").expect("a panel of both directions");
    traffic["fieldConfig"]["overrides"] = json!([]);
    assert!(lint::findings(&overview).iter().any(|(by, _)| *by == "directions"));
    tried.insert("directions");
    let rules: BTreeSet<_> = lint::LINTER.iter().chain(&lint::OWN).map(|(name, _)| *name).collect();
    assert_eq!(tried, rules, "each rule has a twin that it finds");
}

/// Families of metrics that a dashboard asks for.
fn asked(page: &Value, found: &mut BTreeSet<String>) {
    match page {
        Value::Object(fields) => {
            for (key, value) in fields {
                match value.as_str() {
                    Some(query) if key == "expr" => {
                        let parsed = promql::parse(query).expect(query);
                        for selected in promql::selectors(&parsed) {
                            for name in promql::names(&selected.selector) {
                                found.extend(promql::family(&name).map(str::to_owned));
                                found.insert(name);
                            }
                        }
                    }
                    _ => asked(value, found),
                }
            }
        }
        Value::Array(values) => values.iter().for_each(|value| asked(value, found)),
        _ => {}
    }
}

#[test]
fn every_metric_is_on_a_panel_or_is_not_for_a_reason() {
    let mut on_panels = BTreeSet::new();
    for (_, page) in make::all() {
        asked(&page["panels"], &mut on_panels);
    }
    let missing = |ours: &BTreeSet<&str>| -> BTreeSet<String> {
        ours.iter().filter(|name| !on_panels.contains(**name)).map(|name| (*name).to_owned()).collect()
    };
    let mut names: BTreeSet<_> = reference().iter().map(|r| r.metric.name).collect();
    let left_out: BTreeSet<_> = ON_NO_PANEL.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(missing(&names), left_out);
    // The twin.
    names.insert("netns_nothing_total");
    assert_eq!(missing(&names).len(), left_out.len() + 1);
}

pub(crate) fn list<'v>(value: &'v Value, key: &str) -> &'v [Value] {
    value[key].as_array().map_or(&[], Vec::as_slice)
}

pub(crate) fn text<'v>(value: &'v Value, key: &str) -> &'v str {
    value[key].as_str().unwrap_or_default()
}
