//! Namespaces of `ip netns` in the file: wired, and left as they were. What is set in a namespace beside links and addresses.

use std::{
    fs,
    os::unix::{ffi::OsStrExt as _, fs::symlink},
    path::Path,
    process::Command,
};

use monitor_tests::{
    agent::{UNCOUNTED, apply, destroy, run, run_well, write_config},
    host::{TestHost, disable_ipv6, inside, ip, run as program},
};

const FILE: &str = r#"
[[bridge]]
name = "nm0"
subnet = "198.51.100.0/24"

[[namespace]]
name = "theirs"
adopt = true
interface = [{ name = "eth0", bridge = "nm0", address = "198.51.100.2/24" }]
sysctl = { "net.ipv4.ip_forward" = 1, "net.ipv4.conf.eth0.arp_ignore" = 2, "net.ipv4.ping_group_range" = "0 100" }
route = [
    { to = "default", via = "198.51.100.1" },
    { to = "203.0.113.0/24", via = "198.51.100.1", table = 300, metric = 50, src = "198.51.100.2" },
    { to = "192.0.2.128/25", type = "blackhole" },
]
rule = [{ priority = 1000, from = "198.51.100.0/24", fwmark = 7, table = 300 }]
neighbour = [{ address = "198.51.100.9", mac = "02:00:00:00:00:09", dev = "eth0" }]
"#;

/// What `ip` and sysctl(8) show of a namespace.
fn state(netns: &str) -> String {
    let shown = [
        "-o -br link show type veth",
        "-br address show",
        "route show table all",
        "rule show",
        "neighbour show nud permanent",
    ];
    let mut text: String = shown.iter().map(|args| ip(&format!("-n {netns} {args}"))).collect();
    for name in ["ip_forward", "ping_group_range"] {
        let read = || fs::read_to_string(format!("/proc/sys/net/ipv4/{name}")).expect("a sysctl");
        text.push_str(&inside(netns, read));
    }
    text
}

#[test]
fn a_namespace_of_ip_netns_is_wired_and_left_as_it_was() {
    let _host = TestHost::quiet();
    ip("netns add theirs");
    // Its addresses would take their time to be routed to.
    inside("theirs", disable_ipv6);
    ip("-n theirs link set lo up");
    ip("-n theirs link add own type veth peer name other");
    ip("-n theirs address add 192.0.2.1/24 dev own");
    ip("-n theirs link set own up");
    ip("-n theirs link set other up");
    ip("-n theirs route add 198.18.0.0/15 via 192.0.2.9 dev own");
    ip("-n theirs neighbour add 192.0.2.9 lladdr 02:00:00:00:00:99 dev own nud permanent");
    let before = state("theirs");
    apply(FILE);
    let wired = state("theirs");
    for line in [
        "default via 198.51.100.1 dev eth0 proto 110",
        "203.0.113.0/24 via 198.51.100.1 dev eth0 table 300 proto 110 src 198.51.100.2 metric 50",
        "blackhole 192.0.2.128/25 proto 110",
        "198.18.0.0/15 via 192.0.2.9 dev own",
        "1000:\tfrom 198.51.100.0/24 fwmark 0x7 lookup 300 proto 110",
        "198.51.100.9 dev eth0 lladdr 02:00:00:00:00:09 PERMANENT proto 110",
        "0\t100",
    ] {
        assert!(wired.contains(line), "{line}:\n{wired}");
    }
    // What somebody changes by hand is put back, what somebody adds stays.
    ip("-n theirs rule delete priority 1000");
    ip("-n theirs neighbour replace 198.51.100.9 lladdr 02:00:00:00:00:10 dev eth0 nud permanent");
    ip("-n theirs route delete default");
    inside("theirs", || fs::write("/proc/sys/net/ipv4/ip_forward", "0").expect("written"));
    apply(FILE);
    assert_eq!(state("theirs"), wired);
    ip("-n theirs route add 198.18.0.0/16 dev eth0");
    apply(FILE);
    assert!(state("theirs").contains("198.18.0.0/16 dev eth0"));
    ip("-n theirs route delete 198.18.0.0/16");
    destroy(FILE);
    assert_eq!(state("theirs"), before);
    assert!(!Path::new("/run/netns-monitor").exists(), "nothing is noted any more");

    // No longer named in the file, it is as it was too.
    apply(FILE);
    apply("");
    assert_eq!(state("theirs"), before);
    ip("netns delete theirs");
}

#[test]
fn one_that_is_made_ours_goes_with_the_file_and_one_that_is_not_to_be_touched_is_refused() {
    let _host = TestHost::quiet();
    ip("netns add theirs");
    let [flag, value] = UNCOUNTED;
    let outcome = run(&[flag, value, "apply", write_config(&FILE.replace("adopt = true", "adopt = false"))]);
    assert_eq!((outcome.code, outcome.stderr.lines().count()), (Some(1), 1), "{outcome:#?}");
    assert!(outcome.stderr.contains("namespace theirs exists") && outcome.stderr.contains("adopt = true"));
    assert_eq!(ip("-n theirs link show type veth"), "");
    apply(&FILE.replace("adopt = true", "adopt = \"own\""));
    destroy(&FILE.replace("adopt = true", "adopt = \"own\""));
    assert_eq!(ip("netns list"), "");
}

#[test]
fn a_route_of_somebody_else_in_the_place_of_a_wanted_one_is_named_and_stays() {
    let _host = TestHost::quiet();
    ip("netns add theirs");
    ip("-n theirs link add own type veth peer name other");
    ip("-n theirs address add 192.0.2.1/24 dev own");
    ip("-n theirs link set own up");
    ip("-n theirs route add default via 192.0.2.9");
    let [flag, value] = UNCOUNTED;
    let outcome = run(&[flag, value, "apply", write_config(FILE)]);
    assert_eq!(outcome.code, Some(1), "{outcome:#?}");
    assert!(outcome.stderr.contains("`default via 192.0.2.9 dev own`"), "{}", outcome.stderr);
    assert!(!ip("-br link").contains("nm0"), "nothing was touched");
}

#[test]
fn a_prefix_that_the_host_has_a_route_to_is_refused_with_the_route() {
    let _host = TestHost::quiet();
    ip("link add up0 type veth peer name up1");
    ip("address add 192.0.2.1/24 dev up0");
    ip("link set up0 up");
    ip("route add 198.51.0.0/16 via 192.0.2.9");
    let [flag, value] = UNCOUNTED;
    let file = "[[bridge]]\nname = \"nm0\"\nsubnet = \"198.51.100.0/24\"\n";
    let outcome = run(&[flag, value, "apply", write_config(file)]);
    assert_eq!(outcome.code, Some(1), "{outcome:#?}");
    for part in ["198.51.100.0/24 of nm0", "198.51.0.0/16 via 192.0.2.9 dev up0"] {
        assert!(outcome.stderr.contains(part), "{}", outcome.stderr);
    }
    assert!(!ip("-br link").contains("nm0"));
}

#[test]
fn a_sysctl_that_is_not_there_or_not_taken_is_named_and_everything_is_undone() {
    let _host = TestHost::quiet();
    let [flag, value] = UNCOUNTED;
    for (setting, said) in [
        ("\"net.ipv4.no_such\" = 1", "this namespace has no sysctl net.ipv4.no_such"),
        (
            "\"net.ipv4.ip_forward\" = \"maybe\"",
            "the kernel refuses the value `maybe` for sysctl net.ipv4.ip_forward",
        ),
        ("\"net.core.rmem_max\" = 1", "sysctl net.core.rmem_max"),
    ] {
        let file = format!("[[namespace]]\nname = \"blue\"\nsysctl = {{ {setting} }}\n");
        let outcome = run(&[flag, value, "apply", write_config(&file)]);
        assert_eq!((outcome.code, outcome.stderr.lines().count()), (Some(1), 1), "{outcome:#?}");
        assert!(outcome.stderr.contains(said), "{}", outcome.stderr);
        assert_eq!(ip("netns list"), "");
    }
}

/// What is in the directory of namespaces is looked at as it is, and what is not ours is never removed.
#[test]
fn files_that_are_no_network_namespaces_are_named_and_stay() {
    let _host = TestHost::quiet();
    let file = "[[namespace]]\nname = \"blue\"\n";
    let [flag, value] = UNCOUNTED;
    let blue = Path::new("/run/netns/blue");
    let refused = |what: &str| {
        let outcome = run(&[flag, value, "apply", write_config(file)]);
        assert_eq!((outcome.code, outcome.stderr.lines().count()), (Some(1), 1), "{what}: {outcome:#?}");
        assert!(outcome.stderr.contains("/run/netns/blue"), "{what}: {}", outcome.stderr);
    };
    fs::write(blue, "precious").expect("a file");
    refused("a file of somebody");
    assert_eq!(fs::read_to_string(blue).expect("still there"), "precious");
    fs::remove_file(blue).expect("removed");

    symlink("/run/elsewhere", blue).expect("a symbolic link");
    refused("a symbolic link to nowhere");
    assert!(blue.is_symlink());
    fs::remove_file(blue).expect("removed");

    fs::File::create(blue).expect("a file");
    program("mount", "--bind /proc/self/ns/uts /run/netns/blue");
    refused("another kind of namespace");
    program("umount", "/run/netns/blue");
    fs::remove_file(blue).expect("removed");

    let odd = Path::new("/run/netns").join(std::ffi::OsStr::from_bytes(b"n\xffo"));
    fs::File::create(&odd).expect("a name that is no text");
    apply(file);
    run_well(&["ls"]);
    destroy(file);
    assert!(odd.exists());
    for name in ["../blue", "", ".", "a/b", &"x".repeat(65)] {
        let outcome = run(&["show", name]);
        assert_ne!(outcome.code, Some(0), "{name:?}");
        assert_eq!(outcome.stderr.lines().count(), 1, "{name:?}: {}", outcome.stderr);
    }
}

#[test]
fn names_are_free_again_at_once_a_thousand_times() {
    let _host = TestHost::quiet();
    let file: String = "[[bridge]]\nname = \"nm0\"\nsubnet = \"198.51.100.0/24\"\n".to_owned()
        + &(0..4)
            .map(|n| {
                format!(
                    "[[namespace]]\nname = \"n{n}\"\ninterface = [{{ name = \"eth0\", bridge = \"nm0\" }}]\n"
                )
            })
            .collect::<String>();
    for _ in 0..250 {
        let [flag, value] = UNCOUNTED;
        run_well(&[flag, value, "apply", write_config(&file)]);
        run_well(&[flag, value, "destroy", write_config(&file)]);
    }
    assert_eq!(ip("netns list"), "");
    let left = Command::new("ip").args(["-br", "link"]).output().expect("ip");
    assert_eq!(String::from_utf8_lossy(&left.stdout).lines().count(), 1, "lo alone");
}
