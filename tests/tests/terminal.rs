//! What is printed to a terminal fits it; --watch draws in place and ends well; what is piped is whole.

use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};

use monitor_tests::{
    agent::{apply, binary, destroy, run_well},
    host::{TestHost, inside, ip},
    poll::{SOON, until},
    scene::{Scene, TWO, silence},
    terminal::Terminal,
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;

const NAMED: [&str; 2] = ["--watch.source", "named"];
/// Nearly all of what a terminal is told that is no text.
const RED: &str = "\u{1b}[38;5;9m";

fn on(columns: u16, variables: &[(&str, &str)], args: &[&str]) -> String {
    let outcome = Terminal::start((columns, 24), variables, &[&NAMED[..], args].concat()).end();
    assert_eq!(outcome.code, Some(0), "{outcome:#?}");
    outcome.stdout.replace("\r\n", "\n")
}

#[test]
fn a_table_fits_the_terminal_and_is_whole_where_there_is_none() {
    let _host = TestHost::quiet();
    // Nobody puts it up again.
    apply(TWO);
    ip("link set red-eth0 down");
    until(SOON, "the other end sees it", || {
        run_well(&["show", "red"]).stdout.contains("eth0       down").then_some(())
    });
    let piped = run_well(&["ls"]).stdout;
    assert!(
        piped.starts_with(
            "NETNS  STATE  OURS  COUNTED  INTERFACES  RX PACKETS  RX BYTES  TX PACKETS  TX BYTES\n"
        ),
        "{piped}"
    );
    assert_eq!(on(200, &[], &["ls"]), piped);
    let narrow = on(34, &[], &["ls"]);
    assert_eq!(narrow.lines().next(), Some("NETNS  RX PACKETS  TX PACKETS"));
    assert_eq!(
        narrow.lines().last(),
        Some("(no room for STATE, OURS, COUNTED, INTERFACES, RX BYTES, TX BYTES)")
    );

    let show = on(200, &[], &["show", "red"]);
    assert_eq!(show.matches(RED).count(), 1, "what is down is red: {show:?}");
    assert!(!on(200, &[("NO_COLOR", "1")], &["show", "red"]).contains('\u{1b}'));
    assert!(!run_well(&["show", "red"]).stdout.contains('\u{1b}'));
    let mut forced = Command::new(binary());
    forced.args(NAMED).args(["show", "red"]).env("CLICOLOR_FORCE", "1").env_remove("NO_COLOR");
    let forced = forced.output().expect("netns-monitor");
    assert!(String::from_utf8_lossy(&forced.stdout).contains(RED));
}

#[test]
fn watching_draws_in_place_with_rates_and_ctrl_c_is_a_good_end() {
    let scene = Scene::two(&[]);
    let mut terminal = Terminal::start((120, 10), &[], &[&NAMED[..], &["ls", "--watch", "0.3"]].concat());
    let frames = |terminal: &Terminal| terminal.seen().matches("\u{1b}[H").count();
    until(SOON, "three frames", || (frames(&terminal) >= 3).then_some(()));
    inside("blue", || {
        let socket = std::net::UdpSocket::bind("0.0.0.0:0").expect("a socket");
        (0..20).for_each(|_| assert_eq!(socket.send_to(&[0; 10], "198.51.100.3:9").expect("sent"), 10));
    });
    // Those of blue's that were sent, and of red's that came: whatever the rate, it is seen once, and then no more.
    until(SOON, "a rate", || {
        let seen = terminal.seen();
        let rows = seen.split('\n').filter(|row| row.starts_with("blue"));
        rows.filter_map(|row| row.split_whitespace().rev().nth(1))
            .any(|rate| !["0", "-"].contains(&rate.trim_end_matches("\u{1b}[K")))
            .then_some(())
    });
    terminal.press("\u{3}");
    let outcome = terminal.end();
    assert_eq!(outcome.code, Some(0), "{outcome:?}");
    let seen = &outcome.stdout;
    assert!(seen.starts_with("\u{1b}[?1049h\u{1b}[?25l\u{1b}[HNETNS"), "{seen:?}");
    assert!(seen.trim_end_matches("^C").ends_with("\u{1b}[?25h\u{1b}[?1049l"), "{seen:?}");
    assert!(!seen.contains("\u{1b}[2J"), "nothing is cleared before it is drawn");
    assert!(seen.contains("RX P/S") && !seen.lines().next().expect("a line").contains("RX P/S"), "{seen:?}");
    drop(scene);
}

#[test]
fn watched_json_is_a_document_on_each_line_and_sigterm_or_a_reader_that_left_is_a_good_end() {
    let mut scene = Scene::two(&[]);
    scene.agent.terminate();
    for ends in ["sigterm", "reader"] {
        let mut command = Command::new(binary());
        command.args(NAMED).args(["show", "blue", "--json", "--watch", "0.2"]);
        let mut child = command.stdout(Stdio::piped()).spawn().expect("netns-monitor");
        let mut lines = BufReader::new(child.stdout.take().expect("its output")).lines();
        let mut next = || -> Value {
            serde_json::from_str(&lines.next().expect("a line").expect("text")).expect("JSON")
        };
        let first = next();
        assert_eq!((&first["netns"], first.get("rate")), (&"blue".into(), None));
        let sent = |look: &Value| look["counts"]["transmit"]["packets"].as_u64().expect("a number");
        inside("blue", || {
            let socket = std::net::UdpSocket::bind("0.0.0.0:0").expect("a socket");
            (0..7).for_each(|_| assert_eq!(socket.send_to(&[0; 10], "198.51.100.3:9").expect("sent"), 10));
        });
        let last = until(SOON, "all seven", || Some(next()).filter(|look| sent(look) == sent(&first) + 7));
        assert!(last["rate"]["transmit"]["packets"].as_f64().expect("a rate") > 0.0, "{last:#}");
        match ends {
            "sigterm" => kill(Pid::from_raw(child.id().cast_signed()), Signal::SIGTERM).expect("a signal"),
            _ => drop(lines),
        }
        let status = until(SOON, "it ends", || child.try_wait().expect("its status"));
        assert_eq!(status.code(), Some(0), "{ends}");
    }
}

#[test]
fn what_was_watched_and_goes_is_told_and_the_terminal_is_left_as_it_was() {
    let _host = TestHost::quiet();
    ip("netns add blue");
    silence(&["blue"]);
    let terminal =
        Terminal::start((80, 24), &[], &[&NAMED[..], &["show", "blue", "--watch", "0.2"]].concat());
    until(SOON, "a frame", || terminal.seen().contains("\u{1b}[H").then_some(()));
    ip("netns delete blue");
    let outcome = terminal.end();
    assert_eq!(outcome.code, Some(1), "{outcome:?}");
    let (_, after) = outcome.stdout.rsplit_once("\u{1b}[?1049l").expect("the other screen was left");
    assert!(after.starts_with("netns-monitor: no namespace `blue`; there is none"), "{after:?}");
}

#[test]
fn why_and_flows_can_be_watched() {
    let _scene = Scene::two(&["--collector.flows"]);
    for (args, expected) in [
        (["why", "blue", "--watch", "0.2"], "packets dropped since counting began"),
        (["flows", "blue", "--watch", "0.2"], "the table holds"),
    ] {
        let mut terminal = Terminal::start((100, 50), &[], &[&NAMED[..], &args].concat());
        until(SOON, "two frames", || {
            (terminal.seen().matches(expected).count() >= 1
                && terminal.seen().matches("\u{1b}[H").count() >= 2)
                .then_some(())
        });
        terminal.press("\u{3}");
        assert_eq!(terminal.end().code, Some(0));
    }
}

#[test]
fn long_work_has_a_bar_on_a_terminal_and_every_line_elsewhere() {
    let _host = TestHost::quiet();
    let file: String = (0..30).map(|number| format!("[[namespace]]\nname = \"ns{number}\"\n\n[[veth]]\na = {{ name = \"v{number}\" }}\nb = {{ name = \"eth0\", namespace = \"ns{number}\" }}\n\n")).collect();
    apply(&file);
    destroy(&file);
    let args = |verb: &'static str| ["--attach", "none", verb, "/run/test.toml"];
    let applied = Terminal::start((100, 24), &[], &args("apply")).end();
    assert!(
        applied.stdout.contains(" steps done") && !applied.stdout.contains("ip netns add ns7\r\n"),
        "{applied:?}"
    );
    let destroyed = Terminal::start((100, 24), &[], &args("destroy")).end();
    assert_eq!((applied.code, destroyed.code), (Some(0), Some(0)), "{destroyed:?}");
    let picture = Terminal::start((80, 24), &[], &["graph", "--file", "/run/test.toml"]).end();
    assert_eq!(picture.code, Some(2), "{picture:?}");
    assert!(picture.stdout.contains("netns-monitor graph > host.svg"), "{picture:?}");
    let json = |args: &[&str]| -> Value { serde_json::from_str(&run_well(args).stdout).expect("JSON") };
    let steps = json(&["--attach", "none", "plan", "/run/test.toml", "--json"]);
    assert!(
        steps.as_array().expect("steps").iter().any(|step| step["command"] == "ip netns add ns7"),
        "{steps:#}"
    );
    assert_eq!(json(&["gc", "--dry-run", "--json"]), serde_json::json!([]));
    let few = run_well(&args("destroy")).stdout;
    assert_eq!(few, "nothing to do\n");
}
