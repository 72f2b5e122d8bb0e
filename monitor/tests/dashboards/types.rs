//! The dashboards fit the types of Grafana's own SDK for Python, which is generated from the same schemas as `@grafana/schema`.
//! Python is there on every machine the tests run on, node is not. The set-up fetches the SDK, pinned by its hash.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::{Value, json};

use super::{make, support};

/// What `types.py` says of these files, line by line.
fn said(files: &[PathBuf]) -> Vec<String> {
    let sdk = support::root().join("target/tools/grafana/python");
    let sdk = std::env::var_os("GRAFANA_DIR").map_or(sdk, |folder| Path::new(&folder).join("python"));
    assert!(sdk.exists(), "{} is missing: run `cargo xtask setup`", sdk.display());
    let output = Command::new("python3")
        .arg(support::root().join("monitor/tests/dashboards/types.py"))
        .args(files)
        .env("PYTHONPATH", &sdk)
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .output()
        .expect("python3");
    assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
    let said: Vec<_> = String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect();
    assert_eq!(output.status.success(), said.is_empty(), "{said:?}");
    said
}

#[test]
fn the_dashboards_fit_the_types_of_grafana() {
    let files: Vec<_> =
        make::all().iter().map(|(file, _)| support::root().join("dashboards").join(file)).collect();
    assert_eq!(said(&files), Vec::<String>::new());
}

/// What is changed where, and what is said of it.
fn broken() -> Vec<(&'static str, Value, &'static str)> {
    vec![
        ("/schemaVersion", json!("42"), "no whole number"),
        ("/colour", json!("red"), "Dashboard has no such field"),
        ("/graphTooltip", json!(7), "is none of"),
        ("/links/0/type", json!("boards"), "is none of"),
        ("/annotations/list/0/enable", json!("yes"), "no bool"),
        ("/templating/list/1/refresh", json!(5), "is none of"),
        ("/templating/list/1/type", json!("sql"), "is none of"),
        ("/templating/list/1/reload", json!(2), "VariableModel has no such field"),
        ("/panels/0/gridPos/w", json!("3"), "no whole number"),
        ("/panels/0/options/graphMode", json!("areas"), "is none of"),
        ("/panels/0/options/reduceOptions/calcs", json!("last"), "no list"),
        ("/panels/0/fieldConfig/defaults/unit", json!("packets"), "Grafana has no unit"),
        ("/panels/0/fieldConfig/defaults/thresholds/mode", json!("both"), "is none of"),
        ("/panels/0/fieldConfig/defaults/color/mode", json!("threshold"), "is none of"),
        ("/panels/0/fieldConfig/defaults/custom", json!({ "lineWidth": 1 }), "no fields of their own"),
        ("/panels/0/targets/0/format", json!("graph"), "is none of"),
        ("/panels/0/targets/0/expression", json!("up"), "Dataquery has no such field"),
        ("/panels/0/type", json!("graph"), "is not looked at"),
        ("/panels/8/options/sortBy/0/desc", json!("yes"), "no bool"),
        ("/panels/8/transformations/0/id", json!(1), "no str"),
        ("/panels/8/fieldConfig/overrides/0/properties/0/value", json!("packets"), "Grafana has no unit"),
        (
            "/panels/8/fieldConfig/overrides/0/properties/0",
            json!({ "id": "custom.lineWidth", "value": 1 }),
            "TableFieldOptions has no such field",
        ),
        (
            "/panels/8/fieldConfig/overrides/0/properties/0",
            json!({ "id": "custom.cellOptions", "value": { "type": "colour" } }),
            "is none of",
        ),
        ("/panels/12/fieldConfig/defaults/custom/drawStyle", json!("lines"), "is none of"),
        ("/panels/12/fieldConfig/defaults/custom/width", json!(1), "has no such field"),
        ("/panels/12/options/legend/placement", json!("left"), "is none of"),
        ("/panels/11/collapsed", json!(0), "no bool"),
    ]
}

#[test]
fn each_type_broken_is_found() {
    let folder = std::env::temp_dir().join(format!("netns-monitor-types-{}", std::process::id()));
    fs::create_dir_all(&folder).expect("a folder");
    let (_, overview) = make::all().swap_remove(0);
    let mut files = Vec::new();
    for (at, (pointer, value, _)) in broken().into_iter().enumerate() {
        let mut page = overview.clone();
        let (parent, key) = pointer.rsplit_once('/').expect("a path");
        match page.pointer_mut(pointer) {
            Some(place) => *place = value,
            None => page.pointer_mut(parent).expect(pointer)[key] = value,
        }
        files.push(folder.join(format!("{at}.json")));
        fs::write(files.last().expect("it"), page.to_string()).expect("written");
    }
    let said = said(&files);
    fs::remove_dir_all(&folder).expect("removed");
    for (file, (pointer, _, words)) in files.iter().zip(broken()) {
        let of_it: Vec<_> = said.iter().filter(|line| line.starts_with(&*file.to_string_lossy())).collect();
        assert!(of_it.iter().any(|line| line.contains(words)), "{pointer}: {of_it:?}");
    }
}
