//! Killed with SIGKILL at every system call that changes something: the next run converges, and nothing is left behind.

use std::{fs, path::Path, process::Command};

use monitor_tests::{
    agent::{binary, run_well, write_config},
    host::{TestHost, ip},
    killer::{End, kill_at},
    oracle::{links, pins},
    poll::{SOON, until_equal},
};

/// One of each kind of thing.
const FILE: &str = r#"
[[bridge]]
name = "nm0"
subnet = "198.51.100.0/24"

[[namespace]]
name = "blue"
interface = [{ name = "eth0", bridge = "nm0", mtu = 1400 }]
route = [{ to = "default", via = "198.51.100.1" }]

[[namespace]]
name = "red"

[[veth]]
a = { name = "wire", namespace = "blue", address = "192.0.2.1/30" }
b = { name = "wire", namespace = "red", address = "192.0.2.2/30" }
"#;

/// Beyond it a program would have to do something endless.
const ENDLESS: usize = 5_000;

/// Names, states and addresses, without what is another one every time.
fn wired() -> String {
    let mut lines = Vec::new();
    for place in [&[][..], &["netns", "exec", "blue"], &["netns", "exec", "red"]] {
        lines.push(rules(place));
    }
    for place in ["", "-n blue ", "-n red "] {
        let addresses = ip(&format!("{place}-br -4 address show"));
        lines.extend(addresses.lines().map(|line| {
            let mut words: Vec<_> = line.split_whitespace().collect();
            words[0] = words[0].split('@').next().expect("a name");
            // Whether the kernel has told everybody that the carrier is there is a question of time.
            words[1] = if words[1] == "UNKNOWN" { "UP" } else { words[1] };
            format!("{place}{}", words.join(" "))
        }));
        lines.push(format!("{place}{}", ip(&format!("{place}route show"))));
    }
    let ports = ip("-br link show master nm0 up");
    lines.extend(ports.lines().map(|line| line.split('@').next().expect("a name").to_owned()));
    lines.sort();
    lines.join("\n")
}

fn assert_nothing_is_left(nth: usize) {
    let links: Vec<String> = links().into_iter().filter(|name| !name.starts_with("up")).collect();
    assert_eq!(links, ["lo"], "{nth}");
    // A killed process leaves its `nft` running to its end.
    until_equal(SOON, "no rules", || (rules(&[]), String::new()));
    assert_eq!(fs::read_dir("/run/netns").expect("a directory").count(), 0, "{nth}");
    assert!(!Path::new("/run/netns-monitor").exists(), "{nth}");
    assert_eq!(pins(), [""; 0], "{nth}");
}

/// Kills `verb` at its first, then at its `stride`-th system call further on, and so on to its end. `before` and `after` get
/// how often it was killed.
fn killed_everywhere(
    file: &str,
    attach: &str,
    verb: &str,
    stride: usize,
    mut before: impl FnMut(),
    mut after: impl FnMut(usize),
) -> usize {
    for (times, nth) in (1..ENDLESS).step_by(stride).enumerate() {
        before();
        match kill_at(Command::new(binary()).args(["--attach", attach, verb, file]), nth) {
            End::Killed => after(times),
            End::Finished(code) => {
                assert_eq!(code, 0, "{verb}");
                run_well(&["--attach", attach, "destroy", file]);
                assert_nothing_is_left(nth);
                return times;
            }
        }
    }
    panic!("{verb} is not done after {ENDLESS} system calls");
}

/// What `nft` lists in a place, without the names that hold fingerprints.
fn rules(place: &[&str]) -> String {
    let nft: Vec<&str> = match place {
        [] => vec!["nft"],
        place => [&["ip"], place, &["nft"]].concat(),
    };
    let output = Command::new(nft[0]).args(&nft[1..]).args(["-s", "list", "ruleset"]).output().expect("nft");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let mut lines: Vec<&str> = text.lines().filter(|line| !line.contains("stamp-")).collect();
    // Tables are listed as they were made.
    lines.sort_unstable();
    lines.join("\n").trim().to_owned()
}

fn golden(attach: &str, file: &str) -> String {
    run_well(&["--attach", attach, "apply", file]);
    let golden = wired();
    run_well(&["--attach", attach, "destroy", file]);
    assert_nothing_is_left(0);
    golden
}

/// Every other time `gc` comes before the next run.
fn apply_killed_everywhere(file: &str, attach: &'static str, stride: usize) -> usize {
    let file = write_config(file);
    let golden = golden(attach, file);
    killed_everywhere(
        file,
        attach,
        "apply",
        stride,
        || (),
        |nth| {
            if nth % 2 == 0 {
                run_well(&["--attach", attach, "gc"]);
            }
            // The third time nothing is built any more: what is there goes.
            if nth % 3 != 2 {
                run_well(&["--attach", attach, "apply", file]);
                until_equal(SOON, &format!("as at first, after {nth}"), || (wired(), golden.clone()));
                assert_eq!(run_well(&["--attach", attach, "plan", file]).stdout, "", "{nth}");
                assert_eq!(run_well(&["--attach", attach, "gc"]).stdout, "nothing to do\n", "{nth}");
            }
            run_well(&["--attach", attach, "destroy", file]);
            assert_nothing_is_left(nth);
        },
    )
}

fn destroy_killed_everywhere(file: &str, attach: &'static str, stride: usize) -> usize {
    let file = write_config(file);
    let golden = golden(attach, file);
    let build = || drop(run_well(&["--attach", attach, "apply", file]));
    killed_everywhere(file, attach, "destroy", stride, build, |nth| {
        if nth % 2 == 0 {
            run_well(&["--attach", attach, "gc"]);
        }
        if nth % 3 == 2 {
            run_well(&["--attach", attach, "apply", file]);
            until_equal(SOON, &format!("as at first, after {nth}"), || (wired(), golden.clone()));
        }
        run_well(&["--attach", attach, "destroy", file]);
        assert_nothing_is_left(nth);
    })
}

#[test]
fn apply_killed_at_every_system_call_that_changes_something_converges() {
    let _host = TestHost::quiet();
    assert!(apply_killed_everywhere(FILE, "none", 1) > 50);
}

#[test]
fn destroy_killed_at_every_system_call_that_changes_something_converges() {
    let _host = TestHost::quiet();
    assert!(destroy_killed_everywhere(FILE, "none", 1) > 20);
}

#[test]
fn killed_while_it_attaches_and_detaches_it_converges_too() {
    let _host = TestHost::quiet();
    // A prime, so that every kind of call has its turn.
    assert!(apply_killed_everywhere(FILE, "auto", 13) > 20);
    assert!(destroy_killed_everywhere(FILE, "auto", 7) > 5);
}

/// NAT, a published port, isolated ports, rules, a policy rule and a sysctl of a namespace.
#[test]
fn killed_among_rules_and_settings_it_converges_too() {
    let _host = TestHost::quiet();
    ip("link add up0 type veth peer name up1");
    ip("address add 203.0.113.1/24 dev up0");
    ip("link set up0 up");
    let file = FILE.replace("[[namespace]]\nname = \"blue\"", "nat = true\nisolate = true\n\n[[namespace]]\nname = \"blue\"\n\
        publish = \"8080:80\"\nsysctl = { \"net.ipv4.ip_forward\" = 1 }\nrule = [{ priority = 9, table = 9 }]\n\
        firewall = { input = { policy = \"drop\" } }");
    assert!(apply_killed_everywhere(&file, "none", 5) > 15);
    assert!(destroy_killed_everywhere(&file, "none", 5) > 5);
    let switch = fs::read_to_string("/proc/sys/net/ipv4/conf/up0/forwarding").expect("a switch");
    assert_eq!(switch, "0\n");
}

/// A device of the host that is lent is put back as it was, wherever the agent was killed.
#[test]
fn killed_while_a_device_is_lent_it_comes_back() {
    let _host = TestHost::quiet();
    ip("link add up0 mtu 1450 type veth peer name up1");
    ip("address add 203.0.113.1/24 dev up0");
    ip("link set up0 up");
    let state = || (ip("-br -4 address show up0"), ip("route show"));
    let before = state();
    let file = FILE
        .replace("name = \"red\"", "name = \"red\"\ninterface = [{ name = \"lent0\", device = \"up0\" }]");
    assert!(apply_killed_everywhere(&file, "none", 4) > 15);
    assert_eq!(state(), before);
    assert!(destroy_killed_everywhere(&file, "none", 4) > 5);
    assert_eq!(state(), before);
}
