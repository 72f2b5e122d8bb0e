//! `check` finds what is wrong, and the line it gives mends it: each fault is made, told, and mended by that line.

use std::process::Command;

use monitor_tests::{
    agent::{Outcome, run, run_well, write_config},
    host::{TestHost, ip, run as program},
    poll::{SOON, until},
};
use serde_json::Value;

const FILE: &str = r#"
[[bridge]]
name = "nm0"
subnet = "198.51.100.0/24"
nat = true

[[namespace]]
name = "blue"
interface = [{ name = "eth0", bridge = "nm0", address = "198.51.100.2/24" }]
route = [{ to = "default", via = "198.51.100.1" }]

[[namespace]]
name = "red"
interface = [{ name = "eth0", bridge = "nm0", address = "198.51.100.3/24" }]
route = [{ to = "default", via = "198.51.100.1" }]
"#;

const OUTSIDE: &str = "203.0.113.9";

/// The usual wiring with an outside, which knows no way back but to the host itself.
fn wired() -> TestHost {
    let host = TestHost::quiet();
    ip("netns add outside");
    ip("link add up0 type veth peer name eth0 netns outside");
    ip("address add 203.0.113.1/24 dev up0");
    ip("link set up0 up");
    ip(&format!("-n outside address add {OUTSIDE}/24 dev eth0"));
    ip("-n outside link set eth0 up");
    run_well(&["apply", write_config(FILE)]);
    until(SOON, "everything answers", || (check(&[]).code == Some(0)).then_some(()));
    host
}

fn check(args: &[&str]) -> Outcome {
    run(&[&["check", "--outside", OUTSIDE, "--json"], args].concat())
}

fn findings(outcome: &Outcome) -> Vec<Value> {
    let report: Value = serde_json::from_str(&outcome.stdout).unwrap_or_else(|_| panic!("{outcome:#?}"));
    let findings = report["findings"].as_array().expect("findings").clone();
    findings.into_iter().filter(|finding| finding["fails"] == true).collect()
}

fn shell(line: &str) {
    let done = Command::new("sh").args(["-c", line]).status().expect("a shell");
    assert!(done.success(), "{line}");
}

/// Makes a fault; it is told as this kind, and the lines given for it mend it.
fn told_and_mended(fault: &str, kind: &str, args: &[&str]) {
    shell(fault);
    let outcome = check(args);
    assert_eq!(outcome.code, Some(1), "{fault}: {outcome:#?}");
    let found = findings(&outcome);
    assert!(found.iter().any(|finding| finding["kind"] == kind), "{fault}: {found:#?}");
    for finding in &found {
        shell(finding["mend"].as_str().unwrap_or_else(|| panic!("{fault}: {finding}")));
    }
    until(SOON, &format!("mended after {fault}"), || (check(&[]).code == Some(0)).then_some(()));
}

#[test]
fn where_all_is_well_each_direction_answers_and_is_counted_to_the_packet() {
    let _host = wired();
    let icmp = || {
        let shown: Value = serde_json::from_str(&run_well(&["show", "blue", "--json"]).stdout).expect("JSON");
        let protocols = shown["protocols"].as_array().expect("classes").clone();
        let class = protocols.into_iter().find(|class| class["class"] == "ipv4 icmp").expect("ICMP");
        ["receive", "transmit"].map(|direction| class[direction]["packets"].as_u64().expect("a number"))
    };
    let before = icmp();
    let outcome = check(&["blue", "--count", "5"]);
    assert_eq!(outcome.code, Some(0), "{outcome:#?}");
    let report: Value = serde_json::from_str(&outcome.stdout).expect("JSON");
    let rows = report["rows"].as_array().expect("rows");
    let counted = rows.iter().find(|row| row["what"] == "eth0 counted").expect("a row");
    assert_eq!(counted["result"], "exact");
    let after = icmp();
    let [received, sent] = [after[0] - before[0], after[1] - before[1]];
    assert_eq!([counted["received"].as_u64(), counted["sent"].as_u64()], [Some(received), Some(sent)]);
    // To the gateway and back, from the gateway and back, and outside and back.
    assert_eq!([received, sent], [15, 15]);
    for row in rows.iter().filter(|row| row["result"] == "ok") {
        assert_eq!((row["sent"].as_u64(), row["received"].as_u64()), (Some(5), Some(5)), "{row}");
        assert!(row["rtt_seconds"]["min"].as_f64().expect("a time") > 0.0, "{row}");
    }
    let text = run_well(&["check", "red"]).stdout;
    assert!(text.contains("eth0 → gateway 198.51.100.1") && !text.contains("blue "), "{text}");
    run_well(&["destroy", write_config(FILE)]);
    ip("netns delete outside");
}

#[test]
fn each_fault_is_told_and_the_line_mends_it() {
    let _host = wired();
    let file = ["--file", "/run/test.toml"];
    told_and_mended("ip -n blue link set lo down", "lo_down", &[]);
    told_and_mended("ip link set blue-eth0 down", "link_down", &[]);
    told_and_mended("ip -n blue link set eth0 down", "link_down", &file);
    told_and_mended("ip -n blue address flush dev eth0", "address_missing", &file);
    told_and_mended("ip -n blue route delete default", "no_route", &[]);
    let liar = "ip -n blue neighbour replace 198.51.100.1 lladdr 02:00:00:00:00:99 dev eth0 nud permanent";
    told_and_mended(liar, "wrong_neighbour", &[]);
    told_and_mended("sysctl -q -w net.ipv4.conf.nm0.forwarding=0", "forwarding_off", &[]);
    told_and_mended("ip link set blue-eth0 nomaster", "not_in_bridge", &[]);
    run_well(&["destroy", write_config(FILE)]);
    ip("netns delete outside");
}

#[test]
fn rules_that_drop_are_told_wherever_they_are() {
    let _host = wired();
    for (place, hook, named) in [("ip netns exec blue ", "input", "of blue"), ("", "forward", "of the host")]
    {
        shell(&format!(
            "{place}nft 'add table ip x; add chain ip x c {{ type filter hook {hook} priority 0; policy drop; }}'"
        ));
        let outcome = check(&["blue"]);
        assert_eq!(outcome.code, Some(1), "{outcome:#?}");
        let found = findings(&outcome);
        let what = found[0]["what"].as_str().expect("text");
        assert!(what.contains("chain c in table ip x") && what.contains(named), "{what}");
        found.iter().for_each(|finding| shell(finding["mend"].as_str().expect("a line")));
        until(SOON, "mended", || (check(&["blue"]).code == Some(0)).then_some(()));
        shell(&format!("{place}nft delete table ip x"));
    }
    run_well(&["destroy", write_config(FILE)]);
    ip("netns delete outside");
}

#[test]
fn a_rule_in_a_chain_that_is_jumped_to_is_told_once_and_what_never_left_is_not_counted() {
    let _host = wired();
    let inside = "ip netns exec blue nft";
    shell(&format!(
        "{inside} 'add table ip x; add chain ip x deep; add rule ip x deep icmp type {{ 0, 8 }} counter drop'"
    ));
    shell(&format!(
        "{inside} 'add chain ip x c {{ type filter hook output priority 0; }}; add rule ip x c jump deep'"
    ));
    let outcome = check(&["blue"]);
    let found = findings(&outcome);
    assert_eq!(found.len(), 1, "{found:#?}");
    let what = found[0]["what"].as_str().expect("text");
    assert!(what.contains("of chain deep in table ip x of blue drops it (hook output)"), "{what}");
    // Requests of blue were refused, and its answers dropped, before they came to the interface.
    let report: Value = serde_json::from_str(&outcome.stdout).expect("JSON");
    let rows = report["rows"].as_array().expect("rows").clone();
    let asked = rows.iter().filter(|row| row["what"].as_str().is_some_and(|what| what.starts_with("eth0 →")));
    assert!(asked.clone().count() > 0 && asked.clone().all(|row| row["sent"] == 0), "{rows:#?}");
    shell(found[0]["mend"].as_str().expect("a line"));
    until(SOON, "mended", || (check(&["blue"]).code == Some(0)).then_some(()));
    run_well(&["destroy", write_config(FILE)]);
    ip("netns delete outside");
}

#[test]
fn a_file_tells_which_namespaces_are_missing_and_which_need_no_way_out() {
    let _host = wired();
    let file = format!(
        "{FILE}\n[[namespace]]\nname = \"inner\"\ninterface = [{{ name = \"eth0\", bridge = \"nm0\", address = \"198.51.100.4/24\" }}]\n"
    );
    let args = ["inner", "--file", write_config(&file)];
    let outcome = check(&args);
    assert_eq!(outcome.code, Some(1), "{outcome:#?}");
    let found = findings(&outcome);
    let said: Vec<&str> = found.iter().filter_map(|finding| finding["what"].as_str()).collect();
    assert!(said.iter().any(|what| what.contains("namespace inner is missing")), "{said:#?}");
    run_well(&["apply", write_config(&file)]);
    until(SOON, "all is well", || (check(&args).code == Some(0)).then_some(()));
    let report: Value = serde_json::from_str(&check(&args).stdout).expect("JSON");
    let rows = report["rows"].as_array().expect("rows").clone();
    let outside = rows.iter().find(|row| row["what"] == format!("outside {OUTSIDE}")).expect("a row");
    assert_eq!(outside["result"], "no way out");
    assert_eq!(check(&["inner"]).code, Some(1), "without a file it was asked for by name");
    run_well(&["destroy", write_config(&file)]);
    ip("netns delete outside");
}

#[test]
fn a_pair_between_two_namespaces_is_asked_both_ways_and_bad_usage_is_told() {
    let _host = TestHost::new();
    let file = r#"
[[namespace]]
name = "blue"

[[namespace]]
name = "red"

[[veth]]
a = { name = "eth0", namespace = "blue", address = ["198.51.100.1/24", "2001:db8::1/64"] }
b = { name = "eth0", namespace = "red", address = ["198.51.100.2/24", "2001:db8::2/64"] }
"#;
    assert!(run_well(&["check"]).stdout.contains("nothing to check"));
    run_well(&["apply", write_config(file)]);
    until(SOON, "both answer", || (run(&["check"]).code == Some(0)).then_some(()));
    let text = run_well(&["check", "--count", "1"]).stdout;
    for row in ["eth0 → peer red/eth0", "peer red/eth0 → eth0"] {
        let families = text.lines().filter(|line| line.contains(row) && line.ends_with("ok")).count();
        assert_eq!(families, 2, "{text}");
    }
    program("ip", "-n red link set eth0 down");
    let outcome = run(&["check", "blue"]);
    assert_eq!(outcome.code, Some(1));
    assert!(outcome.stdout.contains("mend: ip -n red link set eth0 up"), "{}", outcome.stdout);
    for args in [
        &["check", "no-such"][..],
        &["check", "../blue"],
        &["check", "--outside", "nowhere"],
        &["check", "--outside", "0.0.0.0"],
    ] {
        let outcome = run(args);
        assert_eq!((outcome.code, outcome.stdout.as_str()), (Some(2), ""), "{outcome:#?}");
    }
    run_well(&["destroy", write_config(file)]);
}
