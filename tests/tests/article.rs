//! The walk that everybody takes by hand first: a namespace, a veth pair, addresses, pings both ways, a route, the end. With
//! our file, beside `ip`.

use std::fs;

use monitor_tests::{
    agent::{run, run_well, write_config},
    host::{TestHost, ip, run as program},
    oracle::{links, pins, stats},
    poll::{SOON, until, until_equal},
};
use serde_json::Value;

fn file() -> &'static str {
    write_config(&run_well(&["config", "example", "article"]).stdout)
}

/// Received and transmitted packets of the namespace, as the kernel counts them.
fn skbs() -> [u64; 2] {
    let shown: Value = serde_json::from_str(&run_well(&["show", "test_ns", "--json"]).stdout).expect("JSON");
    ["receive", "transmit"].map(|direction| shown["counts"][direction]["skbs"].as_u64().expect("a number"))
}

#[test]
fn the_walk_by_hand_is_one_file() {
    let _host = TestHost::quiet();
    let file = file();
    let plan = run_well(&["plan", file]).stdout;
    for line in [
        "ip netns add test_ns",
        "ip link add veth0 type veth peer name veth1 netns test_ns",
        "ip address add 10.1.1.2/24 dev veth0",
        "ip -n test_ns address add 10.1.1.1/24 dev veth1",
        "ip link set veth0 up",
        "ip -n test_ns link set veth1 up",
        "ip -n test_ns link set lo up",
        "ip -n test_ns route add default via 10.1.1.2",
    ] {
        assert!(plan.lines().any(|planned| planned.starts_with(line)), "{line} is in\n{plan}");
    }
    assert_eq!(ip("netns list"), "", "a plan changes nothing");

    run_well(&["apply", file]);
    assert!(ip("netns list").starts_with("test_ns"));
    assert!(ip("-n test_ns -br link show lo").contains("UP"));
    until(SOON, "the pair is up", || ip("-br link show veth0").contains("LOWER_UP").then_some(()));
    program("ping", "-c 3 -i 0.2 -W 5 10.1.1.1");
    program("ip", "netns exec test_ns ping -c 3 -i 0.2 -W 5 10.1.1.2");
    program("ip", "netns exec test_ns ping -c 1 -W 5 127.0.0.1");
    assert!(ip("-n test_ns route show").contains("default via 10.1.1.2"));
    until_equal(SOON, "counted to the packet", || {
        let kernels = stats("veth0");
        (skbs(), [kernels.tx_packets, kernels.rx_packets])
    });
    let shown: Value = serde_json::from_str(&run_well(&["show", "test_ns", "--json"]).stdout).expect("JSON");
    let classes = shown["protocols"].as_array().expect("classes");
    let icmp = classes.iter().find(|class| class["class"] == "ipv4 icmp").expect("ICMP");
    let echoes = ["receive", "transmit"].map(|direction| icmp[direction]["packets"].as_u64());
    assert_eq!(echoes, [Some(6), Some(6)], "three questions and three answers each way");

    let inside = run_well(&["exec", "test_ns", "--", "ip", "-br", "-4", "address", "show", "veth1"]).stdout;
    assert!(inside.contains("10.1.1.1/24"), "{inside}");
    assert_eq!(run(&["check", "test_ns"]).code, Some(0));
    run_well(&["destroy", file]);
    assert_eq!((links(), pins()), (vec!["lo".to_owned()], Vec::new()));
    assert!(!fs::exists("/run/netns-monitor").expect("a look") && ip("netns list").is_empty());
}

#[test]
fn a_namespace_made_by_hand_is_wired_by_the_same_file_and_stays() {
    let _host = TestHost::quiet();
    ip("netns add test_ns");
    let file = file();
    run_well(&["apply", file]);
    until(SOON, "it is wired", || (run(&["check", "test_ns"]).code == Some(0)).then_some(()));
    run_well(&["destroy", file]);
    assert!(ip("netns list").starts_with("test_ns"), "it was not ours");
    assert!(ip("-n test_ns -br link show lo").contains("DOWN"), "as it was");
    ip("netns delete test_ns");
}

/// Forty namespaces take more steps than one can follow: a terminal gets a bar, everybody else each line.
#[test]
fn a_long_plan_shows_a_bar_on_a_terminal_and_each_step_elsewhere() {
    let _host = TestHost::quiet();
    let many: String = (0..40).map(|number| format!("[[namespace]]\nname = \"n{number}\"\n")).collect();
    let file = write_config(&many);
    let on_terminal = |arguments: &str| {
        let binary = monitor_tests::agent::binary();
        let command = format!("{} --watch.source named --attach none {arguments} {file}", binary.display());
        let output = std::process::Command::new("script").args(["-qec", &command, "/dev/null"]).output();
        String::from_utf8_lossy(&output.expect("script").stdout).into_owned()
    };
    let lines = |text: &str| text.lines().filter(|line| line.starts_with("ip netns add n")).count();
    let plain = run_well(&["--attach", "none", "apply", file]).stdout;
    assert_eq!(lines(&plain), 40, "{plain}");
    run_well(&["--attach", "none", "destroy", file]);
    let drawn = on_terminal("apply");
    assert!(drawn.contains("/80") && drawn.contains("80 steps done") && lines(&drawn) == 0, "{drawn:?}");
    on_terminal("destroy");
    assert_eq!(lines(&on_terminal("apply --verbose")), 40);
    run_well(&["--attach", "none", "destroy", file]);
    assert_eq!(ip("netns list"), "");
}
