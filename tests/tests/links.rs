//! Interfaces that are no veth on a bridge: macvlans, devices of the host that are lent; queues and offloads.

use std::path::Path;

use monitor::{
    reconcile::Kernel,
    topology::{names::LinkId, step::Step},
};
use monitor_tests::{
    agent::{UNCOUNTED, apply, destroy, run, run_well, write_config},
    host::{TestHost, ip, run as program},
    poll::{SOON, until},
};

/// A host with a wire to a namespace that plays the outside; its own end is `up0`.
fn host_with_wire() -> TestHost {
    let host = TestHost::quiet();
    ip("netns add outside");
    ip("link add up0 mtu 1450 type veth peer name eth0 netns outside");
    ip("link set up0 alias uplink");
    ip("-n outside address add 203.0.113.9/24 dev eth0");
    ip("-n outside link set eth0 up");
    ip("address add 203.0.113.1/24 dev up0");
    ip("link set up0 up");
    ip("route add 198.18.0.0/15 via 203.0.113.9 metric 7");
    host
}

/// The namespace of the test's own host, as `ip` takes it: that of the first process is another one.
fn here() -> String {
    format!("/proc/{}/task/{}/ns/net", std::process::id(), nix::unistd::gettid())
}

/// Everything of `up0` that is put back.
fn state() -> Vec<String> {
    let link = ip("-d link show up0");
    let link = link.replace("state UP", "").replace("state DOWN", "").replace("state LOWERLAYERDOWN", "");
    // What the kernel has seen of carriers is a question of time, indexes one of who else was there.
    let words = link.split_whitespace().filter(|word| !word.starts_with('<') && !word.ends_with(':'));
    let mut state: Vec<String> = vec![words.collect::<Vec<_>>().join(" ")];
    state.push(ip("-4 -br address show up0").split_whitespace().skip(2).collect());
    state.push(ip("route show").replace(" linkdown", ""));
    state
}

#[test]
fn a_macvlan_is_made_addressed_and_counted_inside() {
    let _host = host_with_wire();
    let file = |mode: &str| {
        format!(
            "[[namespace]]\nname = \"blue\"\ninterface = [{{ name = \"eth0\", macvlan = \"up0\", mode = \"{mode}\", \
             address = \"203.0.113.2/24\", mtu = 1400, mac = \"02:00:00:00:00:02\" }}]\n"
        )
    };
    let path = write_config(&file("bridge"));
    let plan = run_well(&["plan", path]).stdout;
    assert!(plan.contains("ip link add link up0 name eth0 netns blue mtu 1400 address 02:00:00:00:00:02 type macvlan mode bridge\n"), "{plan}");
    run_well(&["apply", path]);
    assert_eq!(run_well(&["plan", path]).stdout, "");
    until(SOON, "it reaches the outside", || {
        let ping = std::process::Command::new("ip")
            .args(["netns", "exec", "blue", "ping", "-c", "3", "-i", "0.2", "-w", "2", "203.0.113.9"])
            .output()
            .expect("ping");
        ping.status.success().then_some(())
    });
    let shown: serde_json::Value =
        serde_json::from_str(&run_well(&["show", "blue", "--json"]).stdout).expect("JSON");
    let eth0 = &shown["interfaces"][0];
    assert_eq!(
        (eth0["kind"].as_str(), eth0["counted"].as_str()),
        (Some("macvlan"), Some("tcx")),
        "{shown:#}"
    );
    let icmp = shown["protocols"].as_array().expect("a list").iter().find(|row| row["class"] == "ipv4 icmp");
    let icmp = icmp.expect("counted");
    assert_eq!(icmp["transmit"]["packets"], icmp["receive"]["packets"], "{shown:#}");

    let path = write_config(&file("private"));
    run_well(&["apply", path]);
    assert!(ip("-n blue -d link show eth0").contains("macvlan mode private"));
    assert_eq!(run_well(&["plan", path]).stdout, "");
    run_well(&["destroy", path]);
    assert!(!Path::new("/run/netns-monitor").exists());
    let refused = run(&["apply", write_config(&file("bridge").replace("up0", "up9"))]);
    assert_eq!((refused.code, refused.stderr.lines().count()), (Some(1), 1), "{refused:#?}");
    assert!(
        refused.stderr.contains("up9 for blue/eth0: the host has no device of that name"),
        "{}",
        refused.stderr
    );
}

const LEASE: &str = r#"
[[namespace]]
name = "blue"
interface = [{ name = "eth0", device = "up0", address = "203.0.113.2/24", mtu = 1300 }]
route = [{ to = "default", via = "203.0.113.9" }]
"#;

#[test]
fn a_device_is_lent_and_comes_back_as_it_was() {
    let _host = host_with_wire();
    let before = state();
    for back in ["destroy", "drop", "by hand", "by hand and lent again"] {
        apply(LEASE);
        assert!(!ip("-br link").contains("up0"), "it is inside");
        let inside = ip("-n blue -br address show eth0");
        assert!(inside.contains("203.0.113.2/24") && !inside.contains("203.0.113.1"), "{inside}");
        assert!(ip("-n blue link show eth0").contains("mtu 1300"));
        match back {
            "destroy" => destroy(LEASE),
            "drop" => {
                apply("[[namespace]]\nname = \"blue\"\n");
                assert_eq!(state(), before, "the namespace stays without it");
                destroy("[[namespace]]\nname = \"blue\"\n");
            }
            // As the kernel gives back what was in a namespace that went: down, without addresses, under some name.
            "by hand" => {
                ip("-n blue link set eth0 down");
                ip(&format!("-n blue link set eth0 netns {} name dev7", here()));
                destroy(LEASE);
            }
            _ => {
                ip(&format!("-n blue link set eth0 netns {} name dev7", here()));
                apply(LEASE);
                assert!(ip("-n blue -br address show eth0").contains("203.0.113.2/24"));
                apply("");
                destroy("");
            }
        }
        assert_eq!(state(), before, "{back}");
        assert!(!Path::new("/run/netns-monitor").exists(), "{back}: nothing is noted any more");
    }
    ip("netns delete outside");
}

#[test]
fn what_cannot_be_lent_is_refused_with_the_reason_and_an_unplugged_device_holds_nothing_up() {
    let _host = host_with_wire();
    let [flag, value] = UNCOUNTED;
    let refused = |device: &str, why: &str| {
        let outcome = run(&[flag, value, "apply", write_config(&LEASE.replace("up0", device))]);
        assert_eq!((outcome.code, outcome.stderr.lines().count()), (Some(1), 1), "{outcome:#?}");
        assert!(outcome.stderr.contains(why), "{}", outcome.stderr);
        assert!(!ip("netns list").contains("blue"), "nothing was touched");
    };
    refused("up9", "the host has no device of that name");
    refused("lo", "cannot be lent");
    ip("link add br9 type bridge");
    refused("br9", "cannot be lent");
    ip("link set up0 master br9");
    refused("up0", "it is a port of br9");
    ip("link set up0 nomaster");
    apply(LEASE);
    ip("-n blue link delete eth0");
    let outcome = run(&[flag, value, "apply", write_config(LEASE)]);
    assert_eq!(outcome.code, Some(1), "{outcome:#?}");
    assert!(outcome.stderr.contains("there is no device up0"), "{}", outcome.stderr);
    destroy(LEASE);
    assert!(!Path::new("/run/netns-monitor").exists());
}

#[test]
fn queues_lengths_and_offloads_are_set_and_put_back() {
    let _host = TestHost::quiet();
    let file = r#"
[[bridge]]
name = "nm0"
subnet = "198.51.100.0/24"

[[namespace]]
name = "blue"
interface = [{ name = "eth0", bridge = "nm0", queues = 3, txqueuelen = 77, offload = { tso = false, gro = true } }]

[[veth]]
a = { name = "veth0", txqueuelen = 55 }
b = { name = "veth1", namespace = "blue", offload = { tx = false }, queues = 2 }
"#;
    apply(file);
    let link = ip("-n blue -d link show eth0");
    assert!(link.contains("numtxqueues 3 numrxqueues 3") && link.contains("qlen 77"), "{link}");
    assert!(ip("link show veth0").contains("qlen 55"));
    let features = |link: &str| program("ip", &format!("netns exec blue ethtool -k {link}"));
    assert!(features("eth0").contains("tcp-segmentation-offload: off"));
    assert!(features("eth0").contains("generic-receive-offload: on"));
    assert!(features("veth1").contains("tx-checksumming: off"));
    program("ip", "netns exec blue ethtool -K eth0 tso on");
    ip("-n blue link set eth0 txqueuelen 99");
    let [flag, value] = UNCOUNTED;
    let plan = run_well(&[flag, value, "plan", write_config(file)]).stdout;
    assert_eq!(plan, "ip -n blue link set eth0 txqueuelen 77\nip netns exec blue ethtool -K eth0 tso off\n");
    apply(file);
    let more = file.replace("queues = 3", "queues = 4");
    apply(&more);
    assert!(ip("-n blue -d link show eth0").contains("numtxqueues 4"), "queues are from when a link is made");
    destroy(&more);
}

#[test]
fn a_link_that_somebody_put_in_the_place_of_ours_is_not_changed() {
    let _host = TestHost::quiet();
    ip("link add veth0 type veth peer name veth1");
    let kernel = Kernel::new(Path::new("/run/netns"), Path::new("/run/netns-monitor"));
    let link = LinkId::host("veth0".parse().expect("a name"));
    for step in [
        Step::SetMtu { link: link.clone(), from: 1500, to: 1400 },
        Step::SetUp { link: link.clone() },
        Step::AddAddress { link: link.clone(), address: "198.51.100.1/24".parse().expect("an address") },
        Step::DeleteLink { link },
    ] {
        let error = kernel.perform(&step).expect_err("refused");
        assert!(format!("{error:#}").contains("veth0 is not ours"), "{step}: {error:#}");
    }
    assert!(ip("-br link show veth0").contains("DOWN"));
}
