//! Files and commands: plan, apply, destroy, reload, and files that are wrong.

use std::{fs, path::PathBuf};

use monitor_tests::{
    agent::{Agent, repository, run, run_well, write_config},
    host::{TestHost, inside, ip},
    ledger::Ledger,
    oracle::{links, pins, wiring},
    poll::{SOON, until},
    scene::{Scene, TWO, until_up},
    traffic::send_every_class,
};
use nix::sys::signal::Signal;

const RELOADED: &str = "netns_monitor_config_last_reload_successful";

#[test]
fn applied_twice_nothing_changes_and_destroyed_nothing_is_left() {
    let _host = TestHost::quiet();
    let before = wiring();
    let file = write_config(TWO);
    let plan = run_well(&["plan", file]).stdout;
    assert!(plan.contains("blue") && plan.contains("nm0"), "{plan}");
    assert_eq!(wiring(), before, "a plan changes nothing");
    run_well(&["apply", file]);
    let applied = wiring();
    assert_ne!(applied, before);
    assert_eq!(run_well(&["plan", file]).stdout, "");
    run_well(&["apply", file]);
    assert_eq!(wiring(), applied);
    assert_eq!(run_well(&["plan", file]).stdout, "");
    run_well(&["destroy", file]);
    assert_eq!(wiring(), before);
    assert_eq!(pins(), [""; 0]);
    assert_eq!(names_in("/run/netns"), [""; 0]);
    // What is gone counts as destroyed.
    run_well(&["destroy", file]);
}

fn names_in(directory: &str) -> Vec<String> {
    let entries = fs::read_dir(directory).expect(directory);
    entries.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned()).collect()
}

#[test]
fn a_plan_tells_the_difference_after_a_change_behind_its_back() {
    let _host = TestHost::quiet();
    let file = write_config(TWO);
    run_well(&["apply", file]);
    ip("link set blue-eth0 down");
    let plan = run_well(&["plan", file]).stdout;
    assert!(
        plan.contains("ip link set") && plan.contains("blue-eth0") && !plan.contains("red-eth0"),
        "{plan}"
    );
    run_well(&["apply", file]);
    assert_eq!(run_well(&["plan", file]).stdout, "");
    run_well(&["destroy", file]);
}

/// Something of that name is there that the agent did not make: it says so, changes nothing and ends with 1.
fn refuses(make: &[&str], name: &str) {
    let _host = TestHost::quiet();
    make.iter().for_each(|args| drop(ip(args)));
    let before = wiring();
    let file = write_config(&TWO.replace("name = \"blue\"\n", "name = \"blue\"\nadopt = false\n"));
    let outcome = run(&["apply", file]);
    assert_eq!(outcome.code, Some(1), "{outcome:#?}");
    assert!(outcome.stderr.contains(name), "{outcome:#?}");
    assert_eq!(wiring(), before);
    run(&["destroy", file]);
    assert_eq!(wiring(), before, "destroy leaves it too");
    let agent = run(&["agent", "--config", file, "--once", "--web.listen-address", "127.0.0.1:0"]);
    assert_eq!(agent.code, Some(1), "{agent:#?}");
    assert_eq!(wiring(), before);
}

#[test]
fn a_foreign_namespace_of_the_same_name_is_not_touched() {
    refuses(&["netns add blue"], "blue");
}

#[test]
fn a_foreign_bridge_of_the_same_name_is_not_touched() {
    refuses(&["link add nm0 type bridge", "link set nm0 up"], "nm0");
}

#[test]
fn a_foreign_link_of_the_same_name_is_not_touched() {
    refuses(&["link add red-eth0 type veth peer name other"], "red-eth0");
}

#[test]
fn ls_and_show_tell_what_is_there() {
    let _scene = Scene::two(&[]);
    let ls = run_well(&["ls"]).stdout;
    assert!(ls.contains("blue") && ls.contains("red"), "{ls}");
    let parse = |text: &str| -> serde_json::Value {
        serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
    };
    let ls = parse(&run_well(&["ls", "--json"]).stdout).to_string();
    assert!(ls.contains("\"blue\"") && ls.contains("\"red\""), "{ls}");
    let show = run_well(&["show", "blue"]).stdout;
    assert!(show.contains("eth0") && show.contains("198.51.100.2/24"), "{show}");
    let show = parse(&run_well(&["show", "blue", "--json"]).stdout).to_string();
    assert!(show.contains("198.51.100.2") && !show.contains("198.51.100.3"), "{show}");
    let nobody = run(&["show", "nobody"]);
    assert_eq!(nobody.code, Some(1), "{nobody:#?}");
    assert!(nobody.stderr.contains("nobody"), "{nobody:#?}");
}

#[test]
fn the_doctor_finds_everything_here_and_names_what_is_missing() {
    let _host = TestHost::new();
    let well = run_well(&["doctor"]).stdout;
    assert!(well.to_lowercase().contains("bpffs"), "{well}");
    let json: serde_json::Value =
        serde_json::from_str(&run_well(&["doctor", "--json"]).stdout).expect("JSON");
    assert!(json.is_array() || json.is_object(), "{json}");
    nix::mount::umount("/sys/fs/bpf").expect("no bpffs");
    assert_ne!(run(&["doctor"]).stdout, well);
}

#[test]
fn the_example_is_a_good_file_and_there_is_a_schema() {
    let example = run_well(&["config", "example"]).stdout;
    run_well(&["config", "check", write_config(&example)]);
    let schema: serde_json::Value =
        serde_json::from_str(&run_well(&["config", "schema"]).stdout).expect("a JSON schema");
    assert!(schema["properties"]["namespace"].is_object(), "{schema}");
    assert!(run_well(&["config", "check", write_config(TWO)]).stderr.is_empty());
}

fn bad_files() -> Vec<PathBuf> {
    let directory = repository("monitor/tests/bad");
    let entries = fs::read_dir(&directory).unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
    let paths = entries.map(|entry| entry.expect("an entry").path());
    let mut files: Vec<_> = paths.filter(|path| path.extension().is_some_and(|end| end == "toml")).collect();
    files.sort();
    assert!(files.len() >= 40, "only {} bad files", files.len());
    files
}

#[test]
fn each_bad_file_ends_with_2_and_a_line_for_each_mistake_and_touches_nothing() {
    let _host = TestHost::quiet();
    let before = wiring();
    for path in bad_files() {
        let text = fs::read(&path).expect("a bad file");
        let text = String::from_utf8_lossy(&text);
        let mistakes = text.lines().filter(|line| line.starts_with("# expect: ")).count();
        let path = path.to_str().expect("a path in UTF-8");
        for args in [&["config", "check", path][..], &["apply", path], &["agent", "--config", path]] {
            let outcome = run(args);
            assert_eq!(outcome.code, Some(2), "{args:?}: {outcome:#?}");
            let said: Vec<_> = outcome.stderr.lines().collect();
            assert_eq!(said.len(), mistakes, "{args:?}: {outcome:#?}");
            assert!(said.iter().all(|line| places(line, path)), "no place in {said:#?}");
            assert_eq!(outcome.stdout, "", "{args:?}");
        }
        assert_eq!(wiring(), before, "{path}");
        assert_eq!(pins(), [""; 0], "{path}");
    }
}

/// Whether a message names the file and the line: `FILE:3:…` or `FILE: line 3 …`.
fn places(message: &str, path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or(path);
    let Some((_, rest)) = message.split_once(name) else { return false };
    rest.trim_start_matches([':', ' ']).trim_start_matches("line ").starts_with(|c: char| c.is_ascii_digit())
}

#[test]
fn a_file_that_is_not_there_and_a_word_that_is_no_command_end_with_2() {
    let _host = TestHost::quiet();
    let before = wiring();
    for args in [
        &["apply", "/run/no-such-file.toml"][..],
        &["no-such-command"],
        &["agent", "--no-such-flag"],
        &["ls", "--log.level", "wranlevel"],
    ] {
        let outcome = run(args);
        assert_eq!(outcome.code, Some(2), "{args:?}: {outcome:#?}");
        assert_ne!(outcome.stderr, "");
    }
    assert_eq!(wiring(), before);
}

#[test]
fn a_bad_file_is_refused_on_reload_and_a_good_one_adds_its_namespace() {
    let scene = Scene::two(&[]);
    let before = scene.settle();
    let wired = wiring();
    assert_eq!(before.value(RELOADED, &[]), Some(1.0));
    write_config(&TWO.replace("198.51.100.3/24", "203.0.113.3/33"));
    scene.agent.signal(Signal::SIGHUP);
    let reloaded = |value| (scene.agent.metrics().value(RELOADED, &[]) == Some(value)).then_some(());
    until(SOON, "the metric says that it failed", || reloaded(0.0));
    assert!(scene.agent.log().iter().any(|line| line.contains("/33")), "{:#?}", scene.agent.log());
    assert_eq!(wiring(), wired);
    let mut sent = Ledger::new();
    inside("blue", || send_every_class("eth0", 2, &mut sent));
    let metrics = scene.settle().since(&before);
    assert_eq!(Ledger::of(&metrics, "blue", "transmit"), sent, "the old file still holds");

    let green = "[[namespace]]\nname = \"green\"\ninterface = [{ name = \"eth0\", bridge = \"nm0\" }]\n";
    write_config(&format!("{TWO}\n{green}"));
    scene.agent.signal(Signal::SIGHUP);
    until(SOON, "the metric says that it succeeded", || reloaded(1.0));
    until_up(None, "green-eth0", SOON);
    // The next free address.
    let link = until_up(Some("green"), "eth0", SOON);
    assert!(link["addr_info"].to_string().contains("198.51.100.4"), "{link}");
    until(SOON, "it is counted", || {
        let labels = [("netns", "green"), ("interface", "eth0")];
        scene.agent.metrics().value("netns_interface_attached", &labels).filter(|&attached| attached == 1.0)
    });
    // Others kept their links.
    assert!(scene.settle().since(&before).count("netns_retired_packets_total", &[]) == 0);
}

#[test]
fn once_makes_one_pass_and_ends() {
    let _host = TestHost::quiet();
    let mut agent = Agent::spawn(TWO, &["--once"]);
    assert_eq!(agent.wait_end().code(), Some(0), "{:#?}", agent.log());
    assert!(["nm0", "blue-eth0", "red-eth0"].iter().all(|name| links().contains(&(*name).to_owned())));
}
