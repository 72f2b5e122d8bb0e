//! The recording rules and the alerts: promtool accepts them, every alert fires and stays silent when it should, and says what to
//! do.

use std::fs;

use super::{
    promql::{Selected, metric_names, names, parse, selectors},
    support,
};

#[test]
fn the_rules_ask_only_for_what_exists() {
    let recording = rules("recording.yml");
    let mut known = metric_names();
    known.extend(recording.iter().map(|(name, _)| name.clone()));
    let alerts = rules("alerts.yml");
    assert!(recording.len() >= 5 && alerts.len() >= 10);
    for (rule, expr) in recording.iter().chain(&alerts) {
        let parsed = parse(expr).unwrap_or_else(|error| panic!("{rule}: {error}"));
        for Selected { selector, .. } in selectors(&parsed) {
            for name in names(&selector) {
                assert!(known.contains(&name), "{rule} asks for {name}");
            }
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
        let text = file_of(file).replace("unattached > 0", "unattached > 1000");
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
    let text = file_of("alerts.yml");
    let alerts: Vec<_> = text.split("- alert: ").skip(1).collect();
    let tests = file_of("alerts.test.yml");
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

fn file_of(name: &str) -> String {
    fs::read_to_string(support::root().join("dashboards/rules").join(name)).expect(name)
}

/// Name and expression of each rule; an expression stands on one line.
fn rules(file: &str) -> Vec<(String, String)> {
    let text = file_of(file);
    let lines: Vec<_> = text.lines().map(|line| line.trim().trim_start_matches("- ")).collect();
    let pair = |pair: &[&str]| {
        let name = pair[0].strip_prefix("record: ").or_else(|| pair[0].strip_prefix("alert: "))?;
        let expr = pair[1].strip_prefix("expr: ").unwrap_or_else(|| panic!("{name} has no expression"));
        Some((name.to_owned(), expr.to_owned()))
    };
    lines.windows(2).filter_map(pair).collect()
}
