//! Looking at the kernel and changing it, beside `ip`: what we see is what it sees, what we do is what it shows.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use monitor::{
    reconcile::{
        Kernel,
        watch::{Change, Watch},
    },
    topology::{
        Observed, Route,
        names::{IfName, LinkId, NsName, Place},
        step::{NewEnd, Step},
    },
};
use monitor_tests::host::{TestHost, ip};
use serde_json::Value;

fn kernel() -> Kernel {
    Kernel::new(Path::new("/run/netns"), Path::new("/run/netns-monitor"))
}

fn ifname(text: &str) -> IfName {
    text.parse().expect("a name")
}

fn netns(text: &str) -> NsName {
    text.parse().expect("a name")
}

fn link(text: &str) -> LinkId {
    match text.split_once('/') {
        Some((place, name)) => LinkId::inside(netns(place), ifname(name)),
        None => LinkId::host(ifname(text)),
    }
}

fn end(text: &str) -> NewEnd {
    NewEnd { link: link(text), mac: None, mtu: None, queues: None }
}

fn perform(step: Step) {
    kernel().perform(&step).unwrap_or_else(|error| panic!("{step}: {error:#}"));
}

fn observe(names: &[&str]) -> Observed {
    kernel()
        .observe(&names.iter().map(|name| netns(name)).collect())
        .unwrap_or_else(|error| panic!("{error:#}"))
}

/// What `ip -j` prints.
fn shown(args: &str) -> Vec<Value> {
    serde_json::from_str(&ip(args)).expect("JSON")
}

/// One link as `ip -d -j link` shows it.
fn seen(args: &str) -> Value {
    shown(args).into_iter().find(|link| link["ifname"].is_string()).expect("a link")
}

#[test]
fn what_we_observe_is_what_ip_shows() {
    let _host = TestHost::new();
    ip("netns add blue");
    ip("link add br0 type bridge");
    ip("link add blue0 address 02:00:00:00:00:0a mtu 1400 type veth peer name eth0 netns blue");
    ip("link set blue0 master br0");
    ip("link set blue0 up");
    ip("link set br0 up");
    ip("-n blue link set eth0 up");
    ip("-n blue link set lo up");
    ip("address add 198.51.100.1/24 dev br0");
    ip("-n blue address add 198.51.100.2/24 dev eth0");
    ip("-n blue address add 198.51.100.9/24 dev eth0");
    ip("-n blue address add 2001:db8::2/64 dev eth0 nodad");
    ip("-n blue route add default via 198.51.100.1");
    ip("-n blue route add 203.0.113.0/24 dev eth0");
    ip("-n blue -6 route add 2001:db8:9::/48 via 2001:db8::1");
    let observed = observe(&["blue"]);

    let host = &observed.host;
    let blue = &observed.namespaces[&netns("blue")];
    let compare = |links: &BTreeMap<IfName, monitor::topology::ObservedLink>, at: &str| {
        let names: BTreeSet<String> = shown(&format!("{at} -j link"))
            .iter()
            .map(|link| link["ifname"].as_str().expect("a name").to_owned())
            .collect();
        assert_eq!(links.keys().map(ToString::to_string).collect::<BTreeSet<_>>(), names);
        for (name, link) in links {
            let theirs = seen(&format!("{at} -d -j -s address show dev {name}"));
            assert_eq!(u64::from(link.ifindex), theirs["ifindex"].as_u64().expect("an index"));
            assert_eq!(u64::from(link.mtu), theirs["mtu"].as_u64().expect("an MTU"));
            assert_eq!(link.mac.map(|mac| mac.to_string()).as_deref(), theirs["address"].as_str(), "{name}");
            let flags: Vec<_> =
                theirs["flags"].as_array().expect("flags").iter().filter_map(Value::as_str).collect();
            assert_eq!(link.up, flags.contains(&"UP"), "{name}");
            assert_eq!(link.bridge.as_ref().map(ToString::to_string).as_deref(), theirs["master"].as_str());
            let ours: BTreeSet<String> = link.addresses.iter().map(ToString::to_string).collect();
            let global = theirs["addr_info"]
                .as_array()
                .expect("addresses")
                .iter()
                .filter(|address| address["scope"] != "link");
            let theirs_: BTreeSet<String> = global
                .map(|address| {
                    format!("{}/{}", address["local"].as_str().expect("one"), address["prefixlen"])
                })
                .collect();
            assert_eq!(ours, theirs_, "{name}");
            if let Some(kind) = theirs["linkinfo"]["info_kind"].as_str() {
                assert_eq!(link.kind, kind);
            }
            assert!(!link.owned, "{name}");
        }
    };
    compare(host, "");
    compare(&blue.links, "-n blue");
    let (a, b) = (&host[&ifname("blue0")], &blue.links[&ifname("eth0")]);
    assert_eq!((a.peer_ifindex, b.peer_ifindex), (Some(b.ifindex), Some(a.ifindex)));
    let routes: Vec<_> = blue.routes.iter().map(Route::to_string).collect();
    assert_eq!(
        routes,
        [
            "default via 198.51.100.1 dev eth0",
            "203.0.113.0/24 dev eth0",
            "2001:db8:9::/48 via 2001:db8::1 dev eth0"
        ]
    );
    assert!(!blue.owned);
}

#[test]
fn each_step_is_shown_by_ip_and_its_undo_takes_it_back() {
    let _host = TestHost::new();
    let mac = |text: &str| text.parse().expect("a MAC address");
    perform(Step::CreateNetns { name: netns("blue") });
    perform(Step::CreateBridge { name: ifname("br0"), mtu: Some(1450), mac: Some(mac("02:00:00:00:00:0b")) });
    let bridge = seen("-d -j link show dev br0");
    assert_eq!((bridge["mtu"].as_u64(), bridge["address"].as_str()), (Some(1450), Some("02:00:00:00:00:0b")));
    assert_eq!(bridge["linkinfo"]["info_kind"], "bridge");
    assert_eq!(bridge["ifalias"], "netns-monitor:/run/netns-monitor:br0");

    let b = NewEnd {
        link: link("blue/eth0"),
        mac: Some(mac("02:00:00:00:00:0c")),
        mtu: Some(1400),
        queues: None,
    };
    perform(Step::CreateVeth { a: end("blue-eth0"), b });
    let inner = seen("-n blue -d -j link show dev eth0");
    assert_eq!((inner["mtu"].as_u64(), inner["address"].as_str()), (Some(1400), Some("02:00:00:00:00:0c")));
    assert_eq!(inner["operstate"], "DOWN");
    assert_eq!(
        seen("-d -j link show dev blue-eth0")["ifalias"],
        "netns-monitor:/run/netns-monitor:blue/eth0"
    );

    let host_end = link("blue-eth0");
    let check = |step: Step, shows: &dyn Fn() -> bool| {
        assert!(!shows(), "before {step}");
        perform(step.clone());
        assert!(shows(), "after {step}");
        let undo = step.undo().expect("an undo");
        perform(undo.clone());
        assert!(!shows(), "after {undo}");
        perform(step);
    };
    check(Step::SetBridge { link: host_end.clone(), from: None, to: Some(ifname("br0")) }, &|| {
        seen("-d -j link show dev blue-eth0")["master"] == "br0"
    });
    check(Step::SetMtu { link: host_end.clone(), from: 1500, to: 1300 }, &|| {
        seen("-j link show dev blue-eth0")["mtu"] == 1300
    });
    let from = mac(seen("-j link show dev blue-eth0")["address"].as_str().expect("a MAC address"));
    check(Step::SetMac { link: host_end.clone(), from, to: mac("02:00:00:00:00:0d") }, &|| {
        seen("-j link show dev blue-eth0")["address"] == "02:00:00:00:00:0d"
    });
    for address in ["198.51.100.2/24", "2001:db8::2/64"] {
        let step =
            Step::AddAddress { link: link("blue/eth0"), address: address.parse().expect("an address") };
        check(step, &|| ip("-n blue address show dev eth0").contains(address));
    }
    assert!(!ip("-n blue address show dev eth0").contains("tentative"), "usable at once");
    for up in ["blue/eth0", "blue-eth0", "br0"] {
        let at = if up.contains('/') { "-n blue" } else { "" };
        let dev = up.rsplit('/').next().expect("a name");
        let is_up = || {
            seen(&format!("{at} -j link show dev {dev}"))["flags"]
                .as_array()
                .expect("flags")
                .contains(&"UP".into())
        };
        check(Step::SetUp { link: link(up) }, &is_up);
    }
    let place = Place::Netns(netns("blue"));
    let default = Route::new("0.0.0.0/0".parse().expect("a prefix"), Some([198, 51, 100, 1].into()), None);
    check(Step::AddRoute { place: place.clone(), route: default }, &|| {
        ip("-n blue route").contains("default via 198.51.100.1 dev eth0")
    });
    let direct = Route::new("203.0.113.0/24".parse().expect("a prefix"), None, Some(ifname("eth0")));
    check(Step::AddRoute { place, route: direct }, &|| {
        ip("-n blue route").contains("203.0.113.0/24 dev eth0")
    });

    perform(Step::DeleteLink { link: host_end });
    perform(Step::DeleteNetns { name: netns("blue") });
    perform(Step::DeleteLink { link: link("br0") });
    assert_eq!(ip("netns list"), "");
    assert!(!ip("-o link").contains("br0") && !ip("-o link").contains("blue-eth0"));
}

#[test]
fn a_pair_between_two_namespaces_leaves_nothing_in_the_host() {
    let _host = TestHost::new();
    let before = ip("-o link");
    perform(Step::CreateNetns { name: netns("blue") });
    perform(Step::CreateNetns { name: netns("red") });
    perform(Step::CreateVeth { a: end("blue/wire"), b: end("red/wire") });
    assert_eq!(ip("-o link"), before);
    let observed = observe(&[]);
    let (a, b) = (
        observed.link(&link("blue/wire")).expect("one end"),
        observed.link(&link("red/wire")).expect("the other"),
    );
    assert!(a.owned && b.owned && a.peer_ifindex == Some(b.ifindex) && b.peer_ifindex == Some(a.ifindex));
    perform(Step::DeleteLink { link: link("blue/wire") });
    assert!(observe(&[]).link(&link("red/wire")).is_none());
}

#[test]
fn what_is_not_ours_is_not_deleted_and_what_is_gone_is() {
    let _host = TestHost::new();
    ip("link add veth0 type veth peer name veth1");
    let error = kernel().perform(&Step::DeleteLink { link: link("veth0") }).expect_err("foreign").to_string();
    assert!(error.contains("not ours"), "{error}");
    assert!(ip("-o link").contains("veth0"));
    // An alias of another run directory is another agent's.
    ip("link set veth0 alias netns-monitor:/run/other:blue/eth0");
    assert!(kernel().perform(&Step::DeleteLink { link: link("veth0") }).is_err());
    ip("link set veth0 alias netns-monitor:/run/netns-monitor:blue/eth0");
    perform(Step::DeleteLink { link: link("veth0") });
    perform(Step::DeleteLink { link: link("veth0") });
    perform(Step::DeleteLink { link: link("nowhere/veth0") });
    assert!(!ip("-o link").contains("veth0"));
}

#[test]
fn a_taken_name_is_an_error_and_leaves_nothing_behind() {
    let _host = TestHost::new();
    perform(Step::CreateNetns { name: netns("blue") });
    ip("link add taken type bridge");
    let before = ip("-o link");
    let error =
        kernel().perform(&Step::CreateVeth { a: end("taken"), b: end("blue/eth0") }).expect_err("taken");
    assert!(format!("{error:#}").contains("File exists"), "{error:#}");
    assert!(kernel().perform(&Step::CreateBridge { name: ifname("taken"), mtu: None, mac: None }).is_err());
    assert_eq!(ip("-o link"), before);
    assert!(!ip("-n blue -o link").contains("eth0"));
}

/// A crash between making a link and giving it its tag leaves one that only its group says is ours.
#[test]
fn a_link_left_by_a_crash_before_it_had_its_tag_is_replaced() {
    let _host = TestHost::new();
    perform(Step::CreateNetns { name: netns("blue") });
    let group = group();
    ip(&format!("link add br0 group {group} type bridge"));
    ip(&format!("link add veth0 group {group} type veth peer name veth1 group {group} netns blue"));
    let observed = observe(&["blue"]);
    for name in ["br0", "veth0", "blue/veth1"] {
        let seen = observed.link(&link(name)).expect(name);
        assert!(seen.unclaimed && !seen.owned, "{name}");
    }
    perform(Step::CreateBridge { name: ifname("br0"), mtu: None, mac: None });
    perform(Step::CreateVeth { a: end("veth0"), b: end("blue/veth1") });
    let observed = observe(&["blue"]);
    for name in ["br0", "veth0", "blue/veth1"] {
        let seen = observed.link(&link(name)).expect(name);
        assert!(seen.owned && !seen.unclaimed, "{name}");
    }
    // Twin: one of another group is somebody else's, and stays.
    ip("link add br1 group 7 type bridge");
    assert!(kernel().perform(&Step::CreateBridge { name: ifname("br1"), mtu: None, mac: None }).is_err());
    assert!(!observe(&[]).link(&link("br1")).expect("it stays").unclaimed);
}

/// The group of this run directory, as a link made by it has it.
fn group() -> String {
    perform(Step::CreateBridge { name: ifname("probe0"), mtu: None, mac: None });
    let links: Value = serde_json::from_str(&ip("-j link show dev probe0")).expect("JSON");
    perform(Step::DeleteLink { link: link("probe0") });
    links[0]["group"].as_str().expect("a group").to_owned()
}

#[test]
fn links_of_one_place_are_deleted_together_and_those_of_others_stay() {
    let _host = TestHost::new();
    perform(Step::CreateNetns { name: netns("blue") });
    let mut steps = Vec::new();
    for pair in 0..5 {
        perform(Step::CreateVeth { a: end(&format!("h{pair}")), b: end(&format!("blue/e{pair}")) });
        steps.push(Step::DeleteLink { link: link(&format!("h{pair}")) });
    }
    assert_eq!(Kernel::together(&steps), 5);
    steps.push(Step::DeleteLink { link: link("blue/e0") });
    assert_eq!(Kernel::together(&steps), 5, "another place");
    ip("link add foreign type veth peer name foreign1");
    ip("link set h4 alias mine");
    let error = kernel().delete_links(&steps[..5]).expect_err("h4 is not ours any more");
    assert!(error.to_string().contains("h4 is not ours"), "{error}");
    let left = ip("-o link");
    assert!(["h0", "h1", "h2", "h3"].iter().all(|gone| !left.contains(&format!(" {gone}@"))), "{left}");
    assert!(left.contains(" h4@") && left.contains(" foreign@") && left.contains(" foreign1@"), "{left}");
}

#[test]
fn a_pair_is_deleted_and_made_again_a_hundred_times() {
    let _host = TestHost::new();
    for round in 0..100 {
        perform(Step::CreateNetns { name: netns("blue") });
        perform(Step::CreateVeth { a: end("veth0"), b: end("blue/veth1") });
        // Every other time the kernel takes the link down with its namespace, in its own time.
        if round % 2 == 0 {
            perform(Step::DeleteLink { link: link("veth0") });
        }
        perform(Step::DeleteNetns { name: netns("blue") });
    }
    monitor_tests::poll::until_equal(Duration::from_secs(5), "no link left", || {
        (ip("-o link").contains("veth0"), false)
    });
}

#[test]
fn looking_while_links_come_and_go_never_misses_one_that_stays() {
    let _host = TestHost::new();
    for number in 0..40 {
        ip(&format!("link add stay{number} type veth peer name yats{number}"));
    }
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                ip("link add churn type veth peer name nruhc");
                ip("link delete churn");
            }
        });
        for _ in 0..100 {
            let observed = observe(&[]);
            let stays = observed.host.keys().filter(|name| name.as_str().starts_with("stay")).count();
            assert_eq!(stays, 40);
        }
        stop.store(true, Ordering::Relaxed);
    });
}

#[test]
fn names_no_file_can_contain_do_not_spoil_a_look() {
    let _host = TestHost::new();
    ip("link add good type veth peer name doog");
    // The kernel takes any byte but `/`, `:` and white space.
    let odd = std::ffi::OsStr::new("o\"d\\d{}");
    let made = std::process::Command::new("ip")
        .args(["link", "add", "name"])
        .arg(odd)
        .args(["type", "bridge"])
        .status();
    assert!(made.expect("ip").success());
    let observed = observe(&[]);
    assert!(observed.host.contains_key(&ifname("good")));
    assert_eq!(observed.host.len() + 1, ip("-o link").lines().count());
}

#[test]
fn three_hundred_namespaces_are_all_seen() {
    let _host = TestHost::new();
    for number in 0..300 {
        perform(Step::CreateNetns { name: netns(&format!("n{number}")) });
    }
    let observed = observe(&[]);
    assert_eq!(observed.namespaces.len(), 300);
    let cookies: BTreeSet<_> = observed.namespaces.values().map(|netns| netns.cookie).collect();
    assert_eq!(cookies.len(), 300);
    assert!(observed.namespaces.values().all(|netns| netns.owned && netns.links.contains_key(&ifname("lo"))));
}

#[test]
fn errors_say_what_was_asked_of_which_link_and_what_to_try() {
    let _host = TestHost::new();
    let said = |step: Step| format!("{:#}", kernel().perform(&step).expect_err("an error"));
    assert_eq!(said(Step::SetUp { link: link("nothere") }), "there is no link nothere");
    assert!(said(Step::SetUp { link: link("blue/eth0") }).starts_with("no namespace blue: /run/netns/blue"));
    ip("link add br0 type bridge");
    std::fs::write("/proc/sys/net/ipv6/conf/br0/disable_ipv6", "1").expect("a sysctl");
    let error =
        said(Step::AddAddress { link: link("br0"), address: "2001:db8::1/64".parse().expect("an address") });
    assert!(error.contains("cannot add 2001:db8::1/64 to br0 (is IPv6 disabled"), "{error}");
}

fn with_watch<T>(file: Option<&Path>, work: impl AsyncFnOnce(&mut Watch) -> T) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let mut watch = Watch::new(Path::new("/run/netns"), Path::new("/run/runs"), file, "netns-monitor")
            .expect("a watch");
        work(&mut watch).await
    })
}

async fn next(watch: &mut Watch) -> Option<Change> {
    tokio::time::timeout(Duration::from_secs(2), watch.changed()).await.ok()
}

#[test]
fn links_namespaces_and_the_file_are_watched() {
    let _host = TestHost::new();
    std::fs::write("/run/file.toml", "").expect("a file");
    with_watch(Some(Path::new("/run/file.toml")), async |watch| {
        ip("link add veth0 type veth peer name veth1");
        assert_eq!(next(watch).await, Some(Change::Netlink));
        ip("netns add blue");
        assert_eq!(next(watch).await, Some(Change::Netns));
        // An editor writes a new file and puts it in the old one's place.
        std::fs::write("/run/file.toml~", "# new").expect("a file");
        std::fs::rename("/run/file.toml~", "/run/file.toml").expect("in its place");
        assert_eq!(next(watch).await, Some(Change::File));
        std::fs::write("/run/file.toml", "# newer").expect("a file");
        assert_eq!(next(watch).await, Some(Change::File));
        // Twin: another file of the same folder is nobody's business.
        std::fs::write("/run/other.toml", "").expect("a file");
        assert_eq!(tokio::time::timeout(Duration::from_millis(300), watch.changed()).await.ok(), None);
    });
}

#[test]
fn a_storm_of_events_is_one_change() {
    let _host = TestHost::new();
    with_watch(None, async |watch| {
        for _ in 0..50 {
            ip("link add veth0 type veth peer name veth1");
            ip("link delete veth0");
        }
        assert_eq!(next(watch).await, Some(Change::Netlink));
        assert_eq!(tokio::time::timeout(Duration::from_millis(300), watch.changed()).await.ok(), None);
    });
}
