//! The recording rules and the alerts: promtool accepts them, every alert fires and stays silent when it should, and says what to
//! do.

use std::{collections::BTreeSet, fs};

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

/// What promtool says of the firing or the silent tests when every alert asks for something else.
fn tested_with(expr: &str, silent: bool) -> String {
    let dir = std::env::temp_dir().join(format!("netns-monitor-rules-{}-{silent}", std::process::id()));
    fs::create_dir_all(&dir).expect("a folder");
    let line = |line: &str| match line.split_once("expr: ") {
        Some((before, _)) => format!("{before}expr: {expr}\n"),
        None => format!("{line}\n"),
    };
    let alerts: String = file_of("alerts.yml").lines().map(line).collect();
    const TEST: &str = "  - interval: 1m\n";
    let tests = file_of("alerts.test.yml");
    let (head, _) = tests.split_once(TEST).expect("a test");
    let chosen = tests.split(TEST).skip(1).filter(|test| test.contains("exp_alerts: []") == silent);
    let tests = chosen.fold(head.to_owned(), |text, test| text + TEST + test);
    for (file, text) in
        [("recording.yml", "groups: []\n"), ("alerts.yml", &alerts), ("alerts.test.yml", &tests)]
    {
        fs::write(dir.join(file), text).expect("write");
    }
    let mut promtool = support::promtool();
    let tested =
        promtool.current_dir(&dir).args(["test", "rules", "alerts.test.yml"]).output().expect("promtool");
    fs::remove_dir_all(&dir).expect("remove");
    assert!(!tested.status.success());
    String::from_utf8_lossy(&[tested.stdout, tested.stderr].concat()).into_owned()
}

#[test]
fn the_test_of_each_alert_finds_one_that_never_fires_and_one_that_always_does() {
    let [never, always] = [("vector(1) < 0", false), ("vector(1)", true)]
        .map(|(expr, silent)| std::thread::spawn(move || tested_with(expr, silent)))
        .map(|said| said.join().expect("promtool"));
    for (alert, _) in rules("alerts.yml") {
        // Of each test that fails, promtool names the alert, the time, what was expected and what came.
        let failed = |said: &str| {
            said.split("alertname: ").filter(|part| part.starts_with(&format!("{alert},"))).count()
        };
        assert_eq!([failed(&never), failed(&always)], [1, 1], "{alert}: {never}\n{always}");
    }
}

#[test]
fn the_rules_leave_out_the_same_reasons_as_the_dashboards() {
    let usual = format!("reason!~\"{}\"", super::make::usual());
    let mut found = 0;
    for (rule, expr) in rules("alerts.yml").iter().chain(&rules("recording.yml")) {
        for part in expr.split("reason!~\"").skip(1) {
            assert!(format!("reason!~\"{part}").starts_with(&usual), "{rule}: {expr}");
            found += 1;
        }
    }
    assert_eq!(found, 1);
}

#[test]
fn every_alert_is_described_and_has_a_firing_and_a_silent_test_and_a_runbook() {
    let text = file_of("alerts.yml");
    let alerts: Vec<_> = text.split("- alert: ").skip(1).collect();
    let tests = file_of("alerts.test.yml");
    let path = support::root().join("dashboards/RUNBOOK.md");
    let runbook = fs::read_to_string(path).expect("dashboards/RUNBOOK.md");
    let mut named = BTreeSet::new();
    for alert in alerts {
        let name = alert.lines().next().expect("a name");
        for part in ["for: ", "severity: ", "summary: ", "description: "] {
            assert!(alert.contains(part), "{name} has no `{part}`");
        }
        let link = format!("runbook_url: \"{RUNBOOK}#{}\"", name.to_lowercase());
        assert!(alert.contains(&link), "{name} has no `{link}`");
        let of_it = tests.split("alertname: ").skip(1).filter(|test| test.lines().next() == Some(name));
        let silent: Vec<_> = of_it
            .map(|test| test.lines().nth(2).is_some_and(|line| line.ends_with("exp_alerts: []")))
            .collect();
        assert_eq!(silent, [false, true], "{name}");
        let section = runbook.split("\n## ").skip(1).find(|section| section.lines().next() == Some(name));
        let section = section.unwrap_or_else(|| panic!("RUNBOOK.md has no section {name}"));
        for part in ["**What it means.** ", "**Look.** ", "**Mend.** "] {
            assert!(section.contains(part), "RUNBOOK.md on {name} has no `{part}`");
        }
        named.insert(name.to_owned());
    }
    let sections = runbook.split("\n## ").skip(1).filter_map(|section| section.lines().next());
    let sections: BTreeSet<_> = sections.map(str::to_owned).collect();
    assert_eq!(sections, named, "the runbook is about the alerts there are");
}

/// Where the runbook is found from an alert.
const RUNBOOK: &str = "dashboards/RUNBOOK.md";

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
