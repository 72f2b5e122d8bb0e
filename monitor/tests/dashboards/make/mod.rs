//! The dashboards as they are defined: what Grafana imports is written from here.
//!
//! In expressions `%h` stands for the matchers of job and instance, `%n` for those and the namespace, `%i` for those and the
//! interface, `%r` for a rate's range, and `%usual` for the reasons of drops that occur where nothing is wrong.

mod agent;
mod health;
mod interfaces;
mod namespace;
mod overview;
mod panel;
mod reasons;
mod wrong;

use serde_json::{Value, json};

pub(crate) use panel::Panel;
use panel::datasource;
pub(crate) use reasons::usual;

/// Every dashboard with the name of its file.
pub(crate) fn all() -> Vec<(&'static str, Value)> {
    vec![
        ("overview.json", overview::page()),
        ("namespace.json", namespace::page()),
        ("health.json", health::page()),
        ("interfaces.json", interfaces::page()),
        ("agent.json", agent::page()),
    ]
}

fn expand(expr: &str) -> String {
    const HOST: &str = r#"job=~"$job", instance=~"$instance""#;
    let netns = format!(r#"{HOST}, netns=~"$netns""#);
    let interface = format!(r#"{netns}, interface=~"$interface""#);
    expr.replace("%usual", &usual())
        .replace("%h", HOST)
        .replace("%n", &netns)
        .replace("%i", &interface)
        .replace("%r", "$__rate_interval")
}

/// A dashboard that grows from above to below.
struct Page {
    uid: &'static str,
    title: &'static str,
    description: &'static str,
    /// Whether births and deaths of namespaces are marked unless somebody asks otherwise.
    marks: bool,
    panels: Vec<Value>,
    x: u32,
    y: u32,
    height: u32,
}

impl Page {
    fn new(uid: &'static str, title: &'static str, description: &'static str, marks: bool) -> Self {
        Self { uid, title, description, marks, panels: Vec::new(), x: 0, y: 0, height: 0 }
    }

    /// A heading.
    fn row(mut self, title: &str) -> Self {
        assert_eq!(self.x, 0, "{title}: the line above is not full");
        let row = json!({ "type": "row", "title": title, "collapsed": false, "panels": [] });
        self.add(row, 24, 1);
        self
    }

    /// A panel beside the last one, or below where a line is full.
    fn put(mut self, width: u32, height: u32, panel: Panel) -> Self {
        assert!(self.x == 0 || self.height == height, "{}: other height", panel.0["title"]);
        self.add(panel.0, width, height);
        self
    }

    fn add(&mut self, mut panel: Value, width: u32, height: u32) {
        panel["id"] = json!(self.panels.len() + 1);
        panel["gridPos"] = json!({ "x": self.x, "y": self.y, "w": width, "h": height });
        self.panels.push(panel);
        self.x += width;
        self.height = height;
        assert!(self.x <= 24, "too wide");
        if self.x == 24 {
            (self.x, self.y) = (0, self.y + height);
        }
    }

    fn build(self) -> Value {
        assert_eq!(self.x, 0, "{}: the last line is not full", self.uid);
        json!({
            "uid": self.uid,
            "title": format!("netns-monitor / {}", self.title),
            "description": self.description,
            "tags": ["netns-monitor"],
            "schemaVersion": 42,
            "editable": false,
            "graphTooltip": 1,
            "refresh": "30s",
            "time": { "from": "now-1h", "to": "now" },
            "timezone": "browser",
            "timepicker": {},
            "fiscalYearStartMonth": 0,
            "links": [{
                "type": "dashboards", "title": "netns-monitor", "tags": ["netns-monitor"], "asDropdown": false,
                "includeVars": true, "keepTime": true, "targetBlank": false, "icon": "external link", "tooltip": "",
                "url": "",
            }],
            "templating": { "list": variables() },
            "annotations": { "list": annotations(self.marks) },
            "panels": self.panels,
        })
    }
}

fn variables() -> Value {
    let query = |name: &str, label: &str, query: &str| {
        json!({
            "type": "query",
            "name": name,
            "label": label,
            "datasource": datasource(),
            "query": format!("label_values({}, {name})", expand(query)),
            "refresh": 2,
            "sort": 1,
            "multi": true,
            "includeAll": true,
            "allValue": ".+",
            "current": { "text": ["All"], "value": ["$__all"] },
            "options": [],
            "regex": "",
            "hide": 0,
            "skipUrlSync": false,
        })
    };
    json!([
        {
            "type": "datasource",
            "name": "datasource",
            "label": "Data source",
            "query": "prometheus",
            "refresh": 1,
            "regex": "",
            "multi": false,
            "includeAll": false,
            "current": { "text": "default", "value": "default" },
            "options": [],
            "hide": 0,
            "skipUrlSync": false,
        },
        query("job", "Job", "netns_monitor_build_info"),
        query("instance", "Instance", r#"netns_monitor_build_info{job=~"$job"}"#),
        // Beside the namespaces those that only lose packets: the host (~host), and those not watched (~other).
        query("netns", "Namespace", r#"{__name__=~"netns_info|netns_packet_drops_total", %h}"#),
        query("interface", "Interface", "netns_interface_up{%n}"),
    ])
}

/// Moments that explain what is drawn. A namespace is born or gone only where the agent saw the time before and after.
fn annotations(marks: bool) -> Value {
    let annotation = |name: &str, colour: &str, enable: bool, expr: &str, title: &str, text: &str| {
        json!({
            "name": name,
            "datasource": datasource(),
            "enable": enable,
            "hide": false,
            "iconColor": colour,
            "expr": expand(expr),
            "titleFormat": title,
            "textFormat": text,
            "useValueForTime": false,
        })
    };
    json!([
        annotation(
            "Agent restarts",
            "orange",
            true,
            "changes(process_start_time_seconds{%h}[%r]) > 0",
            "Agent restarted",
            "{{instance}}",
        ),
        annotation(
            "Namespaces born",
            "green",
            marks,
            "netns_info{%n} unless on (job, instance, netns) netns_info{%n} offset $__interval \
             and on (job, instance) netns_network_namespaces{%h} offset $__interval",
            "Namespace born",
            "{{netns}} on {{instance}}",
        ),
        annotation(
            "Namespaces gone",
            "red",
            marks,
            "netns_info{%n} offset $__interval unless on (job, instance, netns) netns_info{%n} \
             and on (job, instance) netns_network_namespaces{%h}",
            "Namespace gone",
            "{{netns}} on {{instance}}",
        ),
    ])
}
