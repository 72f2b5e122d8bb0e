//! The seventeen rules of Grafana's dashboard-linter, and those of our own that it does not know.

use std::collections::{BTreeMap, BTreeSet};

use promql_parser::label::MatchOp;
use serde_json::{Value, json};

use super::{
    list,
    promql::{ANY, Selected, is_counter, labels, metric_names, names, parse, selectors},
    text,
};

/// A rule's name, and what it finds in a dashboard.
pub(crate) type Rule = (&'static str, fn(&Value, &mut Vec<String>));

/// The linter's, under its names.
pub(crate) const LINTER: [Rule; 17] = [
    ("template-datasource-rule", template_datasource),
    ("template-job-rule", |dashboard, found| template_of(dashboard, "job", "Job", found)),
    ("template-instance-rule", |dashboard, found| template_of(dashboard, "instance", "Instance", found)),
    ("template-label-promql-rule", template_promql),
    ("template-on-time-change-reload-rule", template_reload),
    ("panel-datasource-rule", panel_datasource),
    ("panel-title-description-rule", panel_words),
    ("panel-units-rule", panel_units),
    ("panel-no-targets-rule", panel_no_targets),
    ("target-promql-rule", target_promql),
    ("target-logql-rule", target_logql),
    ("target-logql-auto-rule", target_logql_auto),
    ("target-rate-interval-rule", target_rate_interval),
    ("target-job-rule", |dashboard, found| target_matcher(dashboard, "job", found)),
    ("target-instance-rule", |dashboard, found| target_matcher(dashboard, "instance", found)),
    ("target-counter-agg-rule", target_counter),
    ("uneditable-dashboard", uneditable),
];

/// Our own.
pub(crate) const OWN: [Rule; 8] = [
    ("page", page),
    ("variables", variables),
    ("metrics", metrics),
    ("labels", labelled),
    ("targets", targets),
    ("directions", directions),
    ("links", links),
    ("layout", layout),
];

/// Everything that is found, each with its rule.
pub(crate) fn findings(dashboard: &Value) -> Vec<(&'static str, String)> {
    let mut all = Vec::new();
    for (name, rule) in LINTER.iter().chain(&OWN) {
        let mut found = Vec::new();
        rule(dashboard, &mut found);
        all.extend(found.into_iter().map(|finding| (*name, finding)));
    }
    all
}

// ---- what is looked at

fn templates(dashboard: &Value) -> &[Value] {
    list(&dashboard["templating"], "list")
}

/// Every panel but the headings.
fn panels(dashboard: &Value) -> impl Iterator<Item = &Value> {
    list(dashboard, "panels").iter().filter(|panel| panel["type"] != "row")
}

/// Every query with the title of its panel; the marks have some too.
fn queries(dashboard: &Value) -> Vec<(&str, &str)> {
    let of_panels =
        panels(dashboard).flat_map(|panel| list(panel, "targets").iter().map(|t| (text(panel, "title"), t)));
    let marks = list(&dashboard["annotations"], "list").iter().map(|mark| (text(mark, "name"), mark));
    of_panels.chain(marks).map(|(title, target)| (title, text(target, "expr"))).collect()
}

fn selected(dashboard: &Value) -> Vec<(&str, Selected)> {
    let of = |(title, query)| {
        let parsed = parse(query).ok()?;
        Some(selectors(&parsed).into_iter().map(move |selected| (title, selected)))
    };
    queries(dashboard).into_iter().filter_map(of).flatten().collect()
}

fn is_rate(function: Option<&str>) -> bool {
    function.is_some_and(|function| ["rate", "irate", "increase"].contains(&function))
}

fn is_ours(value: &Value) -> bool {
    value["datasource"]["uid"] == "${datasource}" && value["datasource"]["type"] == "prometheus"
}

// ---- the linter's rules

fn template_datasource(dashboard: &Value, found: &mut Vec<String>) {
    let sources: Vec<_> = templates(dashboard).iter().filter(|v| v["type"] == "datasource").collect();
    let [source] = sources[..] else {
        found.push(format!("{} variables of type datasource, not one", sources.len()));
        return;
    };
    if !["datasource", "prometheus_datasource"].contains(&text(source, "name")) {
        found.push(format!("the data source is called {}", source["name"]));
    }
    if source["label"] != "Data source" {
        found.push(format!("the data source is labelled {}", source["label"]));
    }
    if source["query"] != "prometheus" {
        found.push(format!("the data source is a {}", source["query"]));
    }
}

fn template_of(dashboard: &Value, name: &str, label: &str, found: &mut Vec<String>) {
    let Some(variable) = templates(dashboard).iter().find(|variable| variable["name"] == name) else {
        found.push(format!("there is no variable {name}"));
        return;
    };
    let wanted = [
        ("label", json!(label)),
        ("type", json!("query")),
        ("multi", json!(true)),
        ("includeAll", json!(true)),
        ("allValue", json!(ANY)),
    ];
    for (key, value) in wanted {
        if variable[key] != value {
            found.push(format!("variable {name}: {key} is {}, not {value}", variable[key]));
        }
    }
    if !is_ours(variable) {
        found.push(format!("variable {name}: the data source is not ${{datasource}}"));
    }
}

/// What stands in a variable's `label_values(…)`: the selector and the label.
fn label_values(variable: &Value) -> Option<(&str, &str)> {
    let inside = text(variable, "query").strip_prefix("label_values(")?.strip_suffix(')')?;
    let (selector, label) = inside.rsplit_once(',')?;
    Some((selector.trim(), label.trim()))
}

fn template_promql(dashboard: &Value, found: &mut Vec<String>) {
    for variable in templates(dashboard).iter().filter(|variable| variable["type"] == "query") {
        match label_values(variable) {
            None => found.push(format!("{}: {} is no label_values", variable["name"], variable["query"])),
            Some((selector, _)) => {
                found.extend(parse(selector).err().map(|error| format!("{}: {error}", variable["name"])));
            }
        }
    }
}

fn template_reload(dashboard: &Value, found: &mut Vec<String>) {
    for variable in templates(dashboard).iter().filter(|variable| variable["type"] == "query") {
        if variable["refresh"] != 2 {
            found.push(format!("{} is not read anew when the time changes", variable["name"]));
        }
    }
}

fn panel_datasource(dashboard: &Value, found: &mut Vec<String>) {
    for panel in panels(dashboard) {
        if !is_ours(panel) {
            found.push(format!("{}: the data source is not ${{datasource}}", panel["title"]));
        }
    }
}

fn panel_words(dashboard: &Value, found: &mut Vec<String>) {
    for panel in panels(dashboard) {
        for key in ["title", "description"] {
            if text(panel, key).trim().is_empty() {
                found.push(format!("panel {} {}: no {key}", panel["id"], panel["title"]));
            }
        }
    }
}

/// Those of Grafana's unit ids that are used here; that they are Grafana's is checked with its types.
pub(crate) const UNITS: [&str; 10] =
    ["bps", "bytes", "cps", "decbytes", "none", "percentunit", "pps", "reqps", "s", "short"];

fn panel_units(dashboard: &Value, found: &mut Vec<String>) {
    for panel in panels(dashboard) {
        let unit = text(&panel["fieldConfig"]["defaults"], "unit");
        if !UNITS.contains(&unit) {
            found.push(format!("{}: {unit:?} is no unit", panel["title"]));
        }
        for property in properties(panel).filter(|property| property["id"] == "unit") {
            if !UNITS.contains(&text(property, "value")) {
                found.push(format!("{}: {} is no unit", panel["title"], property["value"]));
            }
        }
    }
}

fn properties(panel: &Value) -> impl Iterator<Item = &Value> {
    list(&panel["fieldConfig"], "overrides").iter().flat_map(|one| list(one, "properties"))
}

fn panel_no_targets(dashboard: &Value, found: &mut Vec<String>) {
    let without = panels(dashboard).filter(|panel| list(panel, "targets").is_empty());
    found.extend(without.map(|panel| format!("{}: no queries", panel["title"])));
}

fn target_promql(dashboard: &Value, found: &mut Vec<String>) {
    for (title, query) in queries(dashboard) {
        found.extend(parse(query).err().map(|error| format!("{title}: {error}")));
    }
}

/// There is no Loki here, so no query may be LogQL and no data source Loki's.
fn target_logql(dashboard: &Value, found: &mut Vec<String>) {
    for panel in panels(dashboard) {
        for target in list(panel, "targets").iter().filter(|target| target["datasource"]["type"] == "loki") {
            found.push(format!("{}: {} asks Loki", panel["title"], target["refId"]));
        }
    }
}

fn target_logql_auto(dashboard: &Value, found: &mut Vec<String>) {
    for (title, query) in queries(dashboard) {
        if query.contains("$__auto") {
            found.push(format!("{title}: $__auto is for LogQL"));
        }
    }
}

fn target_rate_interval(dashboard: &Value, found: &mut Vec<String>) {
    for (title, Selected { selector, within, range }) in selected(dashboard) {
        if is_rate(within) && range != Some(123) {
            found.push(format!("{title}: {:?} over a range that is not $__rate_interval", names(&selector)));
        }
    }
}

fn target_matcher(dashboard: &Value, label: &str, found: &mut Vec<String>) {
    for (title, Selected { selector, .. }) in selected(dashboard) {
        let chosen = |m: &promql_parser::label::Matcher| {
            m.name == label && matches!(m.op, MatchOp::Re(_)) && m.value == ANY
        };
        if !selector.matchers.matchers.iter().any(chosen) {
            found.push(format!("{title}: {:?} without {label}=~\"${label}\"", names(&selector)));
        }
    }
}

fn target_counter(dashboard: &Value, found: &mut Vec<String>) {
    for (title, Selected { selector, within, .. }) in selected(dashboard) {
        for name in names(&selector) {
            // A variable asks for labels, and a mark for what is there: neither adds up counts.
            match (is_counter(&name), is_rate(within)) {
                (true, false) => found.push(format!("{title}: the counter {name} outside rate and increase")),
                (false, true) => found.push(format!("{title}: a rate of {name}, which is no counter")),
                _ => {}
            }
        }
    }
}

fn uneditable(dashboard: &Value, found: &mut Vec<String>) {
    if dashboard["editable"] != false {
        found.push("the dashboard is editable".to_owned());
    }
}

// ---- our own

fn page(dashboard: &Value, found: &mut Vec<String>) {
    let mut want = |is: bool, what: &str| {
        if !is {
            found.push(what.to_owned());
        }
    };
    let uid = text(dashboard, "uid");
    want(uid.starts_with("netns-monitor-") && uid.len() <= 40, "the uid is fixed, and short enough");
    want(dashboard["schemaVersion"] == 42, "schemaVersion is 42, the last of the classic model");
    want(dashboard.get("id").is_none(), "there is no id");
    want(dashboard.get("version").is_none(), "there is no version");
    want(dashboard.get("__inputs").is_none(), "there is no __inputs");
    want(dashboard["tags"] == json!(["netns-monitor"]), "it is tagged");
    want(dashboard["graphTooltip"] == 1, "the cross hair is shared");
    let link = &dashboard["links"][0];
    want(
        link["type"] == "dashboards"
            && link["tags"] == dashboard["tags"]
            && link["includeVars"] == true
            && link["keepTime"] == true,
        "it links to the others, and keeps what is chosen",
    );
    let marks: Vec<_> =
        list(&dashboard["annotations"], "list").iter().map(|mark| text(mark, "name")).collect();
    want(marks == ["Agent restarts", "Namespaces born", "Namespaces gone"], "it has its marks");
}

fn variables(dashboard: &Value, found: &mut Vec<String>) {
    let names: Vec<_> = templates(dashboard).iter().map(|variable| text(variable, "name")).collect();
    if names != ["datasource", "job", "instance", "netns", "interface"] {
        found.push(format!("variables are datasource, job, instance, netns, interface, not {names:?}"));
    }
    // Each of them is chosen among what those before it left.
    let mut before: Vec<&str> = Vec::new();
    for variable in templates(dashboard).iter().filter(|variable| variable["type"] == "query") {
        let name = text(variable, "name");
        let Some((selector, label)) = label_values(variable) else { continue };
        if label != name {
            found.push(format!("variable {name} has the values of {label}"));
        }
        for other in &before {
            if !selector.contains(&format!("{other}=~\"${other}\"")) {
                found.push(format!("variable {name} is not chosen by {other}"));
            }
        }
        if ["netns", "interface"].contains(&name) {
            template_of(dashboard, name, text(variable, "label"), found);
        }
        before.push(name);
    }
}

/// Queries ask only for metrics that exist, by labels that they have.
fn metrics(dashboard: &Value, found: &mut Vec<String>) {
    let known = metric_names();
    let of_variables = templates(dashboard).iter().filter_map(label_values);
    let asked: Vec<_> =
        queries(dashboard).into_iter().map(|(_, query)| query).chain(of_variables.map(|(s, _)| s)).collect();
    for query in asked {
        let Ok(parsed) = parse(query) else { continue };
        for Selected { selector, .. } in selectors(&parsed) {
            for name in names(&selector) {
                if !known.contains(&name) {
                    found.push(format!("there is no metric {name}"));
                }
            }
        }
    }
}

fn labelled(dashboard: &Value, found: &mut Vec<String>) {
    for (title, Selected { selector, .. }) in selected(dashboard) {
        for name in names(&selector) {
            let has = labels(&name);
            for matcher in &selector.matchers.matchers {
                let label = matcher.name.as_str();
                if !["job", "instance", "le"].contains(&label) && !has.contains(label) {
                    found.push(format!("{title}: {name} has no label {label}"));
                }
            }
            // Whoever chooses a namespace or an interface wants to see nothing of the others.
            for label in ["netns", "interface"] {
                let by_agent = dashboard["uid"] == "netns-monitor-agent";
                let chosen = selector.matchers.matchers.iter().any(|m| m.name == label && m.value == ANY);
                if has.contains(label) && !chosen && !by_agent {
                    found.push(format!("{title}: {name} is not chosen by {label}"));
                }
            }
        }
    }
}

fn targets(dashboard: &Value, found: &mut Vec<String>) {
    for panel in panels(dashboard) {
        let mut refs = BTreeSet::new();
        for target in list(panel, "targets") {
            if !refs.insert(text(target, "refId")) {
                found.push(format!("{}: refId {} twice", panel["title"], target["refId"]));
            }
            if !is_ours(target) {
                found.push(format!("{}: {} asks somebody else", panel["title"], target["refId"]));
            }
            let is_table = panel["type"] == "table";
            if (target["instant"] == true) != is_table || (target["format"] == "table") != is_table {
                found.push(format!("{}: a table asks for one moment, nothing else does", panel["title"]));
            }
        }
    }
}

/// Where both directions are drawn, transmit is below.
fn directions(dashboard: &Value, found: &mut Vec<String>) {
    for panel in panels(dashboard).filter(|panel| panel["type"] == "timeseries") {
        let below = properties(panel)
            .any(|property| property["id"] == "custom.transform" && property["value"] == "negative-Y");
        let both = ["receive", "transmit"].iter().all(|direction| {
            list(panel, "targets")
                .iter()
                .any(|target| text(target, "expr").contains(&format!("direction=\"{direction}\"")))
        });
        if both && !below {
            found.push(format!("{}: transmit is not below", panel["title"]));
        }
        if below && panel["fieldConfig"]["defaults"].get("min").is_some() {
            found.push(format!("{}: what is below is cut off", panel["title"]));
        }
    }
}

/// The dashboards that links may lead to.
pub(crate) const UIDS: [&str; 5] = [
    "netns-monitor-overview",
    "netns-monitor-namespace",
    "netns-monitor-health",
    "netns-monitor-interfaces",
    "netns-monitor-agent",
];

fn links(dashboard: &Value, found: &mut Vec<String>) {
    for panel in panels(dashboard) {
        let title = text(panel, "title");
        let of_panel = list(&panel["fieldConfig"]["defaults"], "links").iter();
        let of_columns = properties(panel)
            .filter(|property| property["id"] == "links")
            .flat_map(|property| list(property, "value"));
        for link in of_panel.chain(of_columns) {
            let url = text(link, "url");
            let uid = url.strip_prefix("/d/").and_then(|rest| rest.split('?').next()).unwrap_or_default();
            if !UIDS.contains(&uid) {
                found.push(format!("{title}: {url} leads nowhere"));
            }
            for kept in ["${datasource:queryparam}", "${job:queryparam}", "${__url_time_range}"] {
                if !url.contains(kept) {
                    found.push(format!("{title}: {url} loses {kept}"));
                }
            }
        }
        if panel["type"] != "table" {
            continue;
        }
        // A namespace in a table leads to its detail, unless this is it.
        let names = &panel["transformations"][1]["options"]["renameByName"];
        let linked = |column: &str| {
            list(&panel["fieldConfig"], "overrides").iter().any(|one| {
                one["matcher"]["options"] == column
                    && list(one, "properties").iter().any(|property| property["id"] == "links")
            })
        };
        let is_detail = dashboard["uid"] == "netns-monitor-namespace";
        for column in ["Namespace", "Interface"] {
            let shown = names.as_object().is_some_and(|names| names.values().any(|name| name == column));
            if shown && !linked(column) && !is_detail {
                found.push(format!("{title}: {column} leads nowhere"));
            }
        }
        // What a link takes from the row is a column of it.
        for link in properties(panel).filter(|property| property["id"] == "links") {
            let url = text(&link["value"][0], "url");
            for part in url.split("${__data.fields.").skip(1) {
                let column = part.split('}').next().unwrap_or_default();
                if !names.as_object().is_some_and(|names| names.values().any(|name| name == column)) {
                    found.push(format!("{title}: a link takes {column}, which is no column"));
                }
            }
        }
    }
}

/// 24 columns without gap or overlap; every panel below the heading of its row.
fn layout(dashboard: &Value, found: &mut Vec<String>) {
    let mut taken = BTreeMap::new();
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
        if panel["type"] == "row" {
            if (x, w, h) != (0, 24, 1) {
                found.push(format!("{title}: a heading is a line of its own"));
            }
            if panel["collapsed"] != false || !list(panel, "panels").is_empty() {
                found.push(format!("{title}: a row that is open has its panels beside it"));
            }
        }
        for cell in (x..x + w).flat_map(|column| (y..y + h).map(move |line| (line, column))) {
            if let Some(other) = taken.insert(cell, title) {
                found.push(format!("{title}: overlaps {other}"));
                break;
            }
        }
    }
    let below = taken.keys().map(|(line, _)| line + 1).max().unwrap_or(0);
    if taken.len() as u64 != below * 24 {
        found.push("the layout overlaps or has gaps".to_owned());
    }
    // In the order of the page, or Grafana puts a panel below another row's heading.
    let places: Vec<_> = list(dashboard, "panels")
        .iter()
        .map(|panel| (panel["gridPos"]["y"].as_u64(), panel["gridPos"]["x"].as_u64()))
        .collect();
    if !places.is_sorted() {
        found.push("panels are not in the order of their places: a row would not have its own".to_owned());
    }
}
