//! Panels of Grafana's classic model, as far as these dashboards have them.

use serde_json::{Value, json};

use super::expand;

/// One panel before it has a place.
#[derive(Clone)]
pub(crate) struct Panel(pub(super) Value);

/// Where a click on a namespace goes.
pub(super) const DETAIL: &str = "netns-monitor-namespace";

pub(super) fn datasource() -> Value {
    json!({ "type": "prometheus", "uid": "${datasource}" })
}

/// The address of a dashboard, with the data source, the job and the time that are shown here.
pub(super) fn address(uid: &str, more: &str) -> String {
    format!("/d/{uid}?${{datasource:queryparam}}&${{job:queryparam}}&{more}&${{__url_time_range}}")
}

fn link(title: &str, url: &str) -> Value {
    json!({ "title": title, "url": url, "targetBlank": false })
}

fn target(index: usize, expr: &str, rest: Value) -> Value {
    let name = char::from(b'A' + u8::try_from(index).expect("few queries")).to_string();
    let mut target = json!({ "refId": name, "datasource": datasource(), "expr": expand(expr) });
    merge(&mut target, rest);
    target
}

/// Puts the fields of one object into another, objects within them too.
fn merge(into: &mut Value, from: Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (key, value) in from {
                merge(into.entry(key).or_insert(Value::Null), value);
            }
        }
        (into, from) => *into = from,
    }
}

fn panel(kind: &str, title: &str, description: &str, unit: &str, rest: Value) -> Panel {
    let mut panel = json!({
        "type": kind,
        "title": title,
        "description": description,
        "datasource": datasource(),
        "fieldConfig": { "defaults": { "unit": unit }, "overrides": [] },
        "targets": [],
    });
    merge(&mut panel, rest);
    Panel(panel)
}

/// Numbers over time: each query with the legend of its series.
pub(super) fn series(title: &str, description: &str, unit: &str, queries: &[(&str, &str)]) -> Panel {
    let targets = queries.iter().enumerate();
    let targets = targets.map(|(at, (expr, legend))| {
        target(at, expr, json!({ "legendFormat": legend, "range": true, "editorMode": "code" }))
    });
    panel(
        "timeseries",
        title,
        description,
        unit,
        json!({
            "fieldConfig": { "defaults": { "min": 0, "custom": {
                "drawStyle": "line", "lineInterpolation": "linear", "lineWidth": 1, "fillOpacity": 0,
                "showPoints": "never", "spanNulls": false, "stacking": { "mode": "none", "group": "A" },
            } } },
            "options": {
                "legend": { "displayMode": "table", "placement": "right", "showLegend": true,
                    "calcs": ["mean", "max"], "sortBy": "Mean", "sortDesc": true },
                "tooltip": { "mode": "multi", "sort": "desc" },
            },
            "targets": targets.collect::<Vec<_>>(),
        }),
    )
}

/// One number.
pub(super) fn stat(title: &str, description: &str, unit: &str, expr: &str) -> Panel {
    panel(
        "stat",
        title,
        description,
        unit,
        json!({
            "fieldConfig": { "defaults": {
                "color": { "mode": "thresholds" },
                "thresholds": { "mode": "absolute", "steps": [{ "color": "text", "value": null }] },
            } },
            "options": {
                "colorMode": "value", "graphMode": "area", "justifyMode": "auto", "textMode": "auto",
                "orientation": "auto", "wideLayout": true,
                "reduceOptions": { "calcs": ["lastNotNull"], "fields": "", "values": false },
            },
            "targets": [target(0, expr, json!({ "range": true, "editorMode": "code" }))],
        }),
    )
}

/// A row for each set of labels, a column for each query: its expression, the column's name and its unit.
pub(super) fn table(title: &str, description: &str, queries: &[(&str, &str, &str)]) -> Panel {
    let each = queries.iter().enumerate();
    let targets: Vec<_> = each
        .clone()
        .map(|(at, (expr, ..))| {
            target(
                at,
                expr,
                json!({ "format": "table", "instant": true, "range": false, "editorMode": "code" }),
            )
        })
        .collect();
    // One query alone has no letter.
    let column = |at: usize| match queries.len() {
        1 => "Value".to_owned(),
        _ => format!("Value #{}", char::from(b'A' + u8::try_from(at).expect("few queries"))),
    };
    let mut names = json!({});
    let mut units = Vec::new();
    for (at, (_, name, unit)) in each {
        names[column(at)] = json!(name);
        units.push(json!({
            "matcher": { "id": "byName", "options": name },
            "properties": [{ "id": "unit", "value": unit }],
        }));
    }
    panel(
        "table",
        title,
        description,
        "short",
        json!({
            "fieldConfig": {
                "defaults": { "custom": { "align": "auto", "cellOptions": { "type": "auto" }, "filterable": true } },
                "overrides": units,
            },
            "options": { "showHeader": true, "cellHeight": "sm" },
            "transformations": [
                { "id": "merge", "options": {} },
                { "id": "organize", "options": {
                    "excludeByName": { "Time": true, "job": true },
                    "indexByName": {},
                    "renameByName": names,
                } },
            ],
            "targets": targets,
        }),
    )
}

/// How many of a histogram are in each of its buckets, over time.
pub(super) fn heatmap(title: &str, description: &str, unit: &str, expr: &str) -> Panel {
    panel(
        "heatmap",
        title,
        description,
        unit,
        json!({
            "fieldConfig": { "defaults": { "custom": { "scaleDistribution": { "type": "linear" } } } },
            "options": {
                "calculate": false,
                "cellGap": 1,
                "color": { "mode": "scheme", "scheme": "Blues", "steps": 64, "exponent": 0.5, "fill": "dark-blue",
                    "reverse": false, "scale": "exponential" },
                "exemplars": { "color": "rgba(255,0,255,0.7)" },
                "filterValues": { "le": 1e-9 },
                "legend": { "show": true },
                "rowsFrame": { "layout": "auto" },
                "tooltip": { "mode": "single", "showColorScale": false, "yHistogram": true },
                "yAxis": { "axisPlacement": "left", "reverse": false, "unit": unit },
            },
            "targets": [target(0, expr, json!({ "format": "heatmap", "legendFormat": "{{le}}", "range": true, "editorMode": "code" }))],
        }),
    )
}

/// States over time: 1 is good, 0 is not.
pub(super) fn timeline(title: &str, description: &str, expr: &str, legend: &str, words: [&str; 2]) -> Panel {
    let [bad, good] = words;
    panel(
        "state-timeline",
        title,
        description,
        "short",
        json!({
            "fieldConfig": { "defaults": {
                "custom": { "fillOpacity": 80, "lineWidth": 0 },
                "mappings": [{ "type": "value", "options": {
                    "0": { "text": bad, "color": "red", "index": 0 },
                    "1": { "text": good, "color": "green", "index": 1 },
                } }],
            } },
            "options": {
                "mergeValues": true, "showValue": "auto", "alignValue": "left", "rowHeight": 0.8,
                "legend": { "displayMode": "list", "placement": "bottom", "showLegend": true, "calcs": [] },
                "tooltip": { "mode": "single", "sort": "none" },
            },
            "targets": [target(0, expr, json!({ "legendFormat": legend, "range": true, "editorMode": "code" }))],
        }),
    )
}

impl Panel {
    fn with(mut self, rest: Value) -> Self {
        merge(&mut self.0, rest);
        self
    }

    fn overridden(mut self, matcher: &str, options: &str, property: &str, value: Value) -> Self {
        let overrides = self.0["fieldConfig"]["overrides"].as_array_mut().expect("overrides");
        let matcher = json!({ "id": matcher, "options": options });
        let property = json!({ "id": property, "value": value });
        match overrides.iter_mut().find(|there| there["matcher"] == matcher) {
            Some(there) => there["properties"].as_array_mut().expect("properties").push(property),
            None => overrides.push(json!({ "matcher": matcher, "properties": [property] })),
        }
        self
    }

    /// Receive is drawn upwards and transmit downwards.
    pub(super) fn mirrored(self) -> Self {
        let mut panel = self.overridden("byRegexp", "/transmit/", "custom.transform", json!("negative-Y"));
        panel.0["fieldConfig"]["defaults"].as_object_mut().expect("an object").remove("min");
        panel.with(json!({ "fieldConfig": { "defaults": { "custom": { "axisCenteredZero": true, "fillOpacity": 10 } } } }))
    }

    pub(super) fn stacked(self) -> Self {
        self.with(json!({ "fieldConfig": { "defaults": { "custom": {
            "fillOpacity": 40, "stacking": { "mode": "normal" },
        } } } }))
    }

    /// A share of 1.
    pub(super) fn share(self) -> Self {
        self.with(json!({ "fieldConfig": { "defaults": { "max": 1 } } }))
    }

    /// The legend below instead of beside.
    pub(super) fn below(self) -> Self {
        self.with(
            json!({ "options": { "legend": { "placement": "bottom", "displayMode": "list", "calcs": [] } } }),
        )
    }

    /// Good at 0, red from `at` on.
    pub(super) fn alarm(self, at: f64) -> Self {
        let steps = json!([{ "color": "green", "value": null }, { "color": "red", "value": at }]);
        self.with(json!({
            "fieldConfig": { "defaults": { "thresholds": { "mode": "absolute", "steps": steps } } },
            "options": { "colorMode": "background_solid", "graphMode": "none" },
        }))
    }

    /// A click on the panel's values leads to another dashboard, with everything that is chosen here.
    pub(super) fn leads(mut self, title: &str, uid: &str) -> Self {
        let url = address(uid, "${instance:queryparam}&${netns:queryparam}&${interface:queryparam}");
        self.0["fieldConfig"]["defaults"]["links"] = json!([link(title, &url)]);
        self
    }

    /// A click on a series leads to its namespace.
    pub(super) fn leads_to_namespace(mut self) -> Self {
        let url =
            address(DETAIL, "var-instance=${__field.labels.instance}&var-netns=${__field.labels.netns}");
        self.0["fieldConfig"]["defaults"]["links"] = json!([link("Namespace ${__field.labels.netns}", &url)]);
        self
    }

    /// The columns of labels in their order, each with its name, before those of the queries.
    pub(super) fn columns(mut self, columns: &[(&str, &str)]) -> Self {
        let organize = &mut self.0["transformations"][1]["options"];
        let values: Vec<String> = match organize["renameByName"].as_object() {
            Some(names) => names.keys().cloned().collect(),
            None => Vec::new(),
        };
        for (at, (label, name)) in columns.iter().enumerate() {
            organize["indexByName"][label] = json!(at);
            organize["renameByName"][label] = json!(name);
        }
        for (at, value) in values.iter().enumerate() {
            organize["indexByName"][value] = json!(columns.len() + at);
        }
        self
    }

    /// Columns that are not shown.
    pub(super) fn without(mut self, columns: &[&str]) -> Self {
        for column in columns {
            self.0["transformations"][1]["options"]["excludeByName"][column] = json!(true);
        }
        self
    }

    /// The cells of the columns `Namespace`, `Interface` and `Instance` lead to what they name.
    pub(super) fn row_links(self) -> Self {
        let host = "var-instance=${__data.fields.Instance}";
        let netns = format!("{host}&var-netns=${{__data.fields.Namespace}}");
        let interface = format!("{netns}&var-interface=${{__data.fields.Interface}}");
        let organize = self.0["transformations"][1]["options"]["renameByName"].clone();
        let has =
            |name: &str| organize.as_object().is_some_and(|names| names.values().any(|there| there == name));
        let mut panel = self;
        if has("Namespace") {
            let links = json!([link("Namespace ${__value.text}", &address(DETAIL, &netns))]);
            panel = panel.overridden("byName", "Namespace", "links", links);
        }
        if has("Interface") {
            let url = address("netns-monitor-interfaces", &interface);
            panel = panel.overridden(
                "byName",
                "Interface",
                "links",
                json!([link("Interface ${__value.text}", &url)]),
            );
        }
        if has("Instance") {
            let url = address("netns-monitor-agent", host);
            panel =
                panel.overridden("byName", "Instance", "links", json!([link("Agent ${__value.text}", &url)]));
        }
        panel
    }

    /// Largest first.
    pub(super) fn sorted_by(self, column: &str) -> Self {
        self.with(json!({ "options": { "sortBy": [{ "displayName": column, "desc": true }] } }))
    }

    /// In the order of one column, and within that largest of another first.
    pub(super) fn sorted_up_by(self, column: &str, then: &str) -> Self {
        self.with(json!({ "options": { "sortBy": [
            { "displayName": column, "desc": false }, { "displayName": then, "desc": true },
        ] } }))
    }

    pub(super) fn width(self, column: &str, width: u32) -> Self {
        self.overridden("byName", column, "custom.width", json!(width))
    }

    /// Words, and colours, for what stands in a column.
    pub(super) fn worded(self, column: &str, words: &[(String, String, Option<&str>)]) -> Self {
        let mut options = json!({});
        for (at, (value, text, colour)) in words.iter().enumerate() {
            options[value] = json!({ "text": text, "index": at });
            if let Some(colour) = colour {
                options[value]["color"] = json!(colour);
            }
        }
        let coloured = words.iter().any(|(.., colour)| colour.is_some());
        let mapped = json!([{ "type": "value", "options": options }]);
        let panel = self.overridden("byName", column, "mappings", mapped);
        if coloured {
            panel.overridden("byName", column, "custom.cellOptions", json!({ "type": "color-text" }))
        } else {
            panel
        }
    }

    /// A column as a bar, so that the largest is seen at once.
    pub(super) fn gauged(self, column: &str) -> Self {
        let cell = json!({ "type": "gauge", "mode": "basic", "valueDisplayMode": "text" });
        let color = json!({ "mode": "continuous-BlPu" });
        self.overridden("byName", column, "custom.cellOptions", cell)
            .overridden("byName", column, "color", color)
            .overridden("byName", column, "min", json!(0))
    }

    /// A column in red from `at` on.
    pub(super) fn alarmed(self, column: &str, at: f64) -> Self {
        let steps = json!([{ "color": "text", "value": null }, { "color": "red", "value": at }]);
        self.overridden("byName", column, "thresholds", json!({ "mode": "absolute", "steps": steps }))
            .overridden("byName", column, "custom.cellOptions", json!({ "type": "color-text" }))
            .overridden("byName", column, "color", json!({ "mode": "thresholds" }))
    }

    /// What an empty panel says.
    pub(super) fn empty(self, words: &str) -> Self {
        self.with(json!({ "fieldConfig": { "defaults": { "noValue": words } } }))
    }
}
