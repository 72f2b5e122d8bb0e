//! From what is to what shall be: which steps, in which order, and what is left alone. On a model of the kernel.

#[path = "support/model.rs"]
mod model;

use std::collections::BTreeSet;

use model::{Model, host, inside, ns, text};
use monitor::{
    config,
    topology::{
        Observed, Topology,
        names::LinkId,
        plan::{PlanError, PlanOptions, plan, teardown, teardown_all},
        step::Step,
    },
};

const COUNTED: PlanOptions = PlanOptions { attach: true };

/// A bridge with two namespaces, a pair to the host, a pair between namespaces.
const FILE: &str = r#"
[[bridge]]
name = "nm0"
subnet = ["198.51.100.0/24", "2001:db8:1::/64"]
mac = "02:00:00:00:00:01"

[[namespace]]
name = "blue"
interface = [{ name = "eth0", bridge = "nm0", address = "198.51.100.7/24", mtu = 1400, mac = "02:00:00:00:00:07" }]
route = [{ to = "default", via = "198.51.100.1" }]

[[namespace]]
name = "red"
lo = "down"
interface = [{ name = "eth0", bridge = "nm0" }]

[[veth]]
a = { name = "veth0", address = "10.1.2.2/24" }
b = { name = "veth1", namespace = "red", address = "10.1.2.1/24" }

[[veth]]
a = { name = "wire", namespace = "blue", address = "192.0.2.1/30" }
b = { name = "wire", namespace = "red", address = "192.0.2.2/30" }
"#;

#[test]
fn from_nothing_everything_is_made_in_order_and_counted_before_it_is_up() {
    let steps = plan(&topology(FILE), &Observed::default(), COUNTED).expect("a plan");
    let expected = "\
ip netns add blue
ip netns add red
ip link add nm0 address 02:00:00:00:00:01 type bridge
ip address add 198.51.100.1/24 dev nm0
ip address add 2001:db8:1::1/64 dev nm0 nodad
ip link set nm0 up
ip link add blue-eth0 mtu 1400 type veth peer name eth0 netns blue mtu 1400 address 02:00:00:00:00:07
ip link set blue-eth0 master nm0
# count blue-eth0: attach eBPF to its tcx_ingress and tcx_egress (no ip equivalent)
ip -n blue address add 198.51.100.7/24 dev eth0
ip -n blue link set eth0 up
ip link set blue-eth0 up
ip link add red-eth0 type veth peer name eth0 netns red
ip link set red-eth0 master nm0
# count red-eth0: attach eBPF to its tcx_ingress and tcx_egress (no ip equivalent)
ip -n red address add 198.51.100.2/24 dev eth0
ip -n red address add 2001:db8:1::2/64 dev eth0 nodad
ip -n red link set eth0 up
ip link set red-eth0 up
ip link add veth0 type veth peer name veth1 netns red
# count veth0: attach eBPF to its tcx_ingress and tcx_egress (no ip equivalent)
ip address add 10.1.2.2/24 dev veth0
ip -n red address add 10.1.2.1/24 dev veth1
ip -n red link set veth1 up
ip link set veth0 up
ip -n blue link add wire type veth peer name wire netns red
# count blue/wire: attach eBPF to its tcx_ingress and tcx_egress (no ip equivalent)
# count red/wire: attach eBPF to its tcx_ingress and tcx_egress (no ip equivalent)
ip -n blue address add 192.0.2.1/30 dev wire
ip -n red address add 192.0.2.2/30 dev wire
ip -n red link set wire up
ip -n blue link set wire up
ip -n blue link set lo up
ip -n blue route add default via 198.51.100.1 proto 110
";
    assert_eq!(text(&steps), expected);
}

#[test]
fn planning_on_what_was_built_gives_nothing() {
    for file in [FILE, config::EXAMPLE, config::DEMO, ""] {
        let (_, model) = built(file);
        assert_eq!(again(file, &model), "");
    }
}

#[test]
fn without_a_way_to_count_everything_else_is_the_same() {
    let with = plan(&topology(FILE), &Observed::default(), COUNTED).expect("a plan");
    let without = plan(&topology(FILE), &Observed::default(), PlanOptions { attach: false }).expect("a plan");
    let counted: Vec<Step> =
        with.iter().filter(|step| !matches!(step, Step::Attach { .. })).cloned().collect();
    assert_eq!(without, counted);
    assert_eq!(with.len() - without.len(), 5, "two ports, one host end, both ends between namespaces");
}

/// What somebody does behind the agent's back, and the plan that mends it.
type Drift = (&'static str, fn(&mut Model), &'static str);

const DRIFTS: &[Drift] = &[
    ("the host's end is set down", |m| m.link(&host("veth0")).unwrap().up = false, "ip link set veth0 up\n"),
    (
        "the inner end is set down, and loses its route",
        |m| m.apply(&Step::SetDown { link: inside("blue", "eth0") }).unwrap(),
        "ip -n blue link set eth0 up\nip -n blue route add default via 198.51.100.1 proto 110\n",
    ),
    ("the bridge is set down", |m| m.link(&host("nm0")).unwrap().up = false, "ip link set nm0 up\n"),
    ("lo is set down", |m| m.link(&inside("blue", "lo")).unwrap().up = false, "ip -n blue link set lo up\n"),
    (
        "lo is set up where it is to be down",
        |m| m.link(&inside("red", "lo")).unwrap().up = true,
        "ip -n red link set lo down\n",
    ),
    (
        "MTU and MAC address are changed",
        |m| {
            let link = m.link(&inside("blue", "eth0")).unwrap();
            link.mtu = 1500;
            link.mac = Some("02:00:00:00:00:99".parse().unwrap());
        },
        "ip -n blue link set eth0 mtu 1400\nip -n blue link set eth0 address 02:00:00:00:00:07\n",
    ),
    (
        "the MTU is changed where the file gives none: it stays",
        |m| m.link(&host("veth0")).unwrap().mtu = 1300,
        "",
    ),
    (
        "a port leaves its bridge",
        |m| m.link(&host("red-eth0")).unwrap().bridge = None,
        "ip link set red-eth0 master nm0\n",
    ),
    (
        "a port is given to another bridge",
        |m| {
            m.foreign_link("br9", "bridge");
            m.link(&host("red-eth0")).unwrap().bridge = Some("br9".parse().unwrap());
        },
        "ip link set red-eth0 master nm0\n",
    ),
    (
        "a plain end becomes a port",
        |m| m.link(&host("veth0")).unwrap().bridge = Some("nm0".parse().unwrap()),
        "ip link set veth0 nomaster\n",
    ),
    (
        "an address is removed, its link keeps others",
        |m| m.link(&inside("red", "eth0")).unwrap().addresses.retain(|a| a.addr().is_ipv4()),
        "ip -n red address add 2001:db8:1::2/64 dev eth0 nodad\n",
    ),
    (
        "an address is added to a link of ours",
        |m| m.link(&inside("red", "eth0")).unwrap().addresses.push("203.0.113.9/24".parse().unwrap()),
        "ip -n red address delete 203.0.113.9/24 dev eth0\n",
    ),
    (
        "an address is changed: the route that went with it comes back",
        |m| {
            let link = inside("blue", "eth0");
            m.apply(&Step::AddAddress { link: link.clone(), address: "203.0.113.9/24".parse().unwrap() })
                .unwrap();
            m.apply(&Step::DeleteAddress { link, address: "198.51.100.7/24".parse().unwrap() }).unwrap();
        },
        "ip -n blue address delete 203.0.113.9/24 dev eth0\nip -n blue address add 198.51.100.7/24 dev eth0\n\
         ip -n blue route add default via 198.51.100.1 proto 110\n",
    ),
    (
        "the gateway's address is removed",
        |m| m.link(&host("nm0")).unwrap().addresses.clear(),
        "ip address add 198.51.100.1/24 dev nm0\nip address add 2001:db8:1::1/64 dev nm0 nodad\n",
    ),
    (
        "a route is removed",
        |m| m.netns(&ns("blue")).unwrap().routes.clear(),
        "ip -n blue route add default via 198.51.100.1 proto 110\n",
    ),
    (
        "a route is added by hand: it stays",
        |m| {
            let route = m.netns(&ns("blue")).unwrap().routes[0].clone();
            let route =
                monitor::topology::Route { to: "203.0.113.0/24".parse().unwrap(), protocol: 3, ..route };
            m.netns(&ns("blue")).unwrap().routes.push(route);
        },
        "",
    ),
    (
        "a route leads elsewhere: it is replaced",
        |m| m.netns(&ns("blue")).unwrap().routes[0].via = Some("198.51.100.9".parse().unwrap()),
        "ip -n blue route delete default via 198.51.100.9 dev eth0 proto 110\nip -n blue route add default via 198.51.100.1 proto 110\n",
    ),
    (
        "a link is no longer counted",
        |m| m.link(&host("veth0")).unwrap().attached = false,
        "# count veth0: attach eBPF to its tcx_ingress and tcx_egress (no ip equivalent)\n",
    ),
    (
        "a pair is deleted",
        |m| m.apply(&Step::DeleteLink { link: host("veth0") }).unwrap(),
        "ip link add veth0 type veth peer name veth1 netns red\n\
         # count veth0: attach eBPF to its tcx_ingress and tcx_egress (no ip equivalent)\n\
         ip address add 10.1.2.2/24 dev veth0\nip -n red address add 10.1.2.1/24 dev veth1\n\
         ip -n red link set veth1 up\nip link set veth0 up\n",
    ),
    (
        "one end is moved out of sight",
        |m| drop(m.netns(&ns("red")).unwrap().links.remove(&"veth1".parse().unwrap())),
        "ip link delete veth0\nip link add veth0 type veth peer name veth1 netns red\n\
         # count veth0: attach eBPF to its tcx_ingress and tcx_egress (no ip equivalent)\n\
         ip address add 10.1.2.2/24 dev veth0\nip -n red address add 10.1.2.1/24 dev veth1\n\
         ip -n red link set veth1 up\nip link set veth0 up\n",
    ),
    (
        "both names are there, but they are no pair",
        |m| m.link(&host("veth0")).unwrap().peer_ifindex = Some(77),
        "ip link delete veth0\nip -n red link delete veth1\nip link add veth0 type veth peer name veth1 netns red\n\
         # count veth0: attach eBPF to its tcx_ingress and tcx_egress (no ip equivalent)\n\
         ip address add 10.1.2.2/24 dev veth0\nip -n red address add 10.1.2.1/24 dev veth1\n\
         ip -n red link set veth1 up\nip link set veth0 up\n",
    ),
    (
        "the agent died before it tagged the second end: the pair is made anew",
        |m| m.link(&inside("red", "veth1")).unwrap().owned = false,
        "ip link delete veth0\nip link add veth0 type veth peer name veth1 netns red\n\
         # count veth0: attach eBPF to its tcx_ingress and tcx_egress (no ip equivalent)\n\
         ip address add 10.1.2.2/24 dev veth0\nip -n red address add 10.1.2.1/24 dev veth1\n\
         ip -n red link set veth1 up\nip link set veth0 up\n",
    ),
];

#[test]
fn every_drift_is_mended_by_exactly_the_steps_it_needs() {
    for (what, drift, expected) in DRIFTS {
        let (_, mut model) = built(FILE);
        drift(&mut model);
        assert_eq!(again(FILE, &model), *expected, "{what}");
    }
}

#[test]
fn a_deleted_namespace_is_made_again_with_everything_in_it() {
    let (desired, mut model) = built(FILE);
    let before = model.shape();
    model.apply(&Step::DeleteNetns { name: ns("blue") }).expect("there");
    model.run(&plan(&desired, &model.observed, COUNTED).expect("a plan"));
    let without_identity = |shape: BTreeSet<String>| -> BTreeSet<String> {
        // MAC addresses that the kernel chose and the cookie are new; what the file gives is the same.
        shape
            .into_iter()
            .map(|line| line.split(" Some(MacAddr").next().unwrap_or_default().to_owned())
            .collect()
    };
    let cookie = |line: &String| !line.starts_with("blue true ");
    let (before, after) = (without_identity(before), without_identity(model.shape()));
    assert_eq!(
        before.iter().filter(|line| cookie(line)).collect::<Vec<_>>(),
        after.iter().filter(|line| cookie(line)).collect::<Vec<_>>()
    );
    assert_eq!(again(FILE, &model), "");
}

#[test]
fn what_is_no_longer_wanted_goes_links_first_bridges_last() {
    let (_, mut model) = built(FILE);
    assert_eq!(
        again("", &model),
        "ip link delete blue-eth0\nip link delete red-eth0\nip link delete veth0\nip -n blue link delete wire\n\
         ip netns delete blue\nip netns delete red\nip link delete nm0\n"
    );
    model.run(&plan(&topology(""), &model.observed, COUNTED).expect("a plan"));
    assert_eq!(model.shape(), Model::default().shape());
}

#[test]
fn two_pairs_between_namespaces_that_look_alike_by_index_both_go() {
    let namespaces = "[[namespace]]\nname = \"a\"\n[[namespace]]\nname = \"b\"\n\
                      [[namespace]]\nname = \"c\"\n[[namespace]]\nname = \"d\"\n";
    let pairs = "[[veth]]\na = { name = \"x\", namespace = \"a\" }\nb = { name = \"x\", namespace = \"b\" }\n\
                 [[veth]]\na = { name = \"y\", namespace = \"c\" }\nb = { name = \"y\", namespace = \"d\" }\n";
    let (_, mut model) = built(&format!("{namespaces}{pairs}"));
    let mut index = |netns, name| model.link(&inside(netns, name)).unwrap().ifindex;
    assert_eq!(index("a", "x"), index("c", "y"));
    model.run(&plan(&topology(namespaces), &model.observed, COUNTED).expect("a plan"));
    assert_eq!(
        model.observed.namespaces.values().map(|netns| netns.links.len()).sum::<usize>(),
        4,
        "four lo"
    );
}

#[test]
fn a_pair_is_not_broken_by_another_whose_other_end_is_out_of_sight() {
    let namespaces = ["a", "b", "c", "d"].map(|name| format!("[[namespace]]\nname = \"{name}\"\n")).concat();
    let up = |name| {
        format!("[[veth]]\na = {{ name = \"h{name}\" }}\nb = {{ name = \"p\", namespace = \"{name}\" }}\n")
    };
    let pair = |name, a, b| {
        format!(
            "[[veth]]\na = {{ name = \"{name}\", namespace = \"{a}\" }}\n\
             b = {{ name = \"{name}\", namespace = \"{b}\" }}\n"
        )
    };
    // `x` and `y` have the indexes 2 and 3 on their sides; the host's are out of the way.
    let kept = format!("{namespaces}{}{}{}", up("b"), up("d"), pair("x", "a", "b"));
    let mut model = Model::default();
    (0..9).for_each(|n| model.foreign_link(&format!("dummy{n}"), "dummy").up = true);
    let both = topology(&format!("{kept}{}", pair("y", "c", "d")));
    model.run(&plan(&both, &model.observed, COUNTED).expect("a plan"));
    model.netns(&ns("d")).unwrap().links.remove(&"y".parse().unwrap());
    assert_eq!(again(&kept, &model), "ip -n c link delete y\n");
}

/// Not as it should be: what the kernel shows of a link does not name its peer's namespace, and indexes are alike. It would
/// take the identity of that namespace (`IFLA_LINK_NETNSID`) among what is observed.
#[test]
fn two_pairs_between_namespaces_joined_crosswise_under_the_same_names_are_not_told_apart() {
    let namespaces = ["a", "b", "c", "d"].map(|name| format!("[[namespace]]\nname = \"{name}\"\n")).concat();
    let pair = |a, b| {
        format!(
            "[[veth]]\na = {{ name = \"x\", namespace = \"{a}\" }}\nb = {{ name = \"x\", namespace = \"{b}\" }}\n"
        )
    };
    let (_, model) = built(&format!("{namespaces}{}{}", pair("a", "b"), pair("c", "d")));
    assert_eq!(again(&format!("{namespaces}{}{}", pair("a", "c"), pair("b", "d")), &model), "");
}

#[test]
fn a_bridge_keeps_its_mtu_whatever_its_ports_have() {
    for mtu in [1280, 1450, 1500, 9000] {
        let bridge = format!("[[bridge]]\nname = \"nm0\"\nsubnet = \"198.51.100.0/24\"\nmtu = {mtu}\n");
        let small =
            "[[namespace]]\nname = \"c\"\ninterface = [{ name = \"eth0\", bridge = \"nm0\", mtu = 1400 }]\n";
        let file = format!("{bridge}{}{small}", member("a", None));
        let (_, mut model) = built(&file);
        assert_eq!(model.link(&host("nm0")).unwrap().mtu, mtu);
        assert_eq!(again(&file, &model), "", "applying twice changes nothing");
    }
}

#[test]
fn a_renamed_end_makes_the_pair_anew_with_one_deletion() {
    let (_, mut model) = built(FILE);
    let renamed = FILE.replace("veth1", "veth2");
    let steps = again(&renamed, &model);
    assert_eq!(steps.matches("delete").count(), 1, "{steps}");
    model.run(&plan(&topology(&renamed), &model.observed, COUNTED).expect("a plan"));
    assert_eq!(again(&renamed, &model), "");
}

#[test]
fn a_route_goes_with_the_interface_it_leads_through_and_is_made_again() {
    let (_, mut model) = built(FILE);
    let renamed = FILE
        .replace("name = \"eth0\", bridge = \"nm0\", address", "name = \"lan\", bridge = \"nm0\", address");
    assert_ne!(renamed, FILE);
    model.run(&plan(&topology(&renamed), &model.observed, COUNTED).expect("a plan"));
    assert_eq!(again(&renamed, &model), "", "one pass is enough");
}

#[test]
fn a_name_can_pass_from_a_bridge_to_a_veth_and_back() {
    let bridge = "[[bridge]]\nname = \"x0\"\n[[namespace]]\nname = \"blue\"\n";
    let veth = "[[namespace]]\nname = \"blue\"\n[[veth]]\na = { name = \"x0\" }\nb = { name = \"y\", namespace = \"blue\" }\n";
    let (_, mut model) = built(bridge);
    for (file, kind) in [(veth, "veth"), (bridge, "bridge")] {
        model.run(&plan(&topology(file), &model.observed, COUNTED).expect("both are ours"));
        assert_eq!(model.link(&host("x0")).unwrap().kind, kind);
        assert_eq!(again(file, &model), "");
    }
}

#[test]
fn ports_move_to_a_renamed_bridge() {
    let (_, mut model) = built(FILE);
    let renamed = FILE.replace("nm0", "nm1");
    model.run(&plan(&topology(&renamed), &model.observed, COUNTED).expect("a plan"));
    assert_eq!(model.link(&host("blue-eth0")).unwrap().bridge, Some("nm1".parse().unwrap()));
    assert_eq!(again(&renamed, &model), "");
}

#[test]
fn what_others_made_stands_in_the_way_and_is_named() {
    type Case = (fn(&mut Model), &'static str);
    let cases: &[Case] = &[
        (|m| m.foreign_link("nm0", "bridge").up = true, "bridge nm0 exists"),
        (|m| m.foreign_link("nm0", "dummy").up = true, "dummy nm0 exists"),
        (|m| m.foreign_link("blue-eth0", "veth").up = true, "veth blue-eth0 exists"),
        (|m| m.foreign_link("veth0", "tun").up = true, "tun veth0 exists"),
    ];
    for (make, expected) in cases {
        let mut model = Model::default();
        make(&mut model);
        let error = plan(&topology(FILE), &model.observed, COUNTED).expect_err(expected);
        let (said, advice) = (error.to_string(), "choose another name");
        assert!(said.contains(expected) && said.contains(advice), "{said}");
    }
}

#[test]
fn a_namespace_of_somebody_else_is_wired_and_left_as_it_was_or_made_ours_or_refused() {
    let file = |adopt: &str| {
        let keys = "sysctl = { \"net.ipv4.ip_forward\" = 1 }\nlo = \"up\"";
        let route = "route = [{ to = \"203.0.113.0/24\", via = \"198.51.100.1\" }]";
        let rule = "rule = [{ priority = 100, from = \"198.51.100.0/24\", table = 7 }]";
        let near =
            "neighbour = [{ address = \"198.51.100.1\", mac = \"02:00:00:00:00:01\", dev = \"eth0\" }]";
        let (bridge, netns) = FILE.split_once("[[namespace]]\n").expect("a namespace");
        let (_, netns) = netns.split_once('\n').expect("a name");
        let interface = netns.lines().next().expect("an interface");
        format!(
            "{bridge}[[namespace]]\nname = \"theirs\"\n{adopt}{keys}\n{interface}\n{route}\n{rule}\n{near}\n"
        )
    };
    let mut before = Model::default();
    before.foreign_netns("theirs");
    let key = "net/ipv4/ip_forward".parse().expect("a key");
    before.netns(&ns("theirs")).expect("there").sysctls.insert(key, "0".to_owned());
    for adopt in ["", "adopt = true\n"] {
        let mut model = before.clone();
        let desired = topology(&file(adopt));
        model.run(&plan(&desired, &model.observed, COUNTED).expect("a plan"));
        assert_eq!(again(&file(adopt), &model), "", "once is enough");
        let mut leaving = model.clone();
        leaving.run(&plan(&topology(""), &leaving.observed, COUNTED).expect("a plan"));
        model.run(&teardown(&desired, &model.observed));
        assert_eq!(model.observed.namespaces, before.observed.namespaces, "destroyed, it is as it was");
        assert_eq!(
            leaving.observed.namespaces, before.observed.namespaces,
            "no longer named, it is as it was"
        );
    }
    let mut model = before.clone();
    let own = topology(&file("adopt = \"own\"\n"));
    model.run(&plan(&own, &model.observed, COUNTED).expect("a plan"));
    assert_eq!(again(&file("adopt = \"own\"\n"), &model), "");
    model.run(&teardown(&own, &model.observed));
    assert!(model.observed.namespaces.is_empty(), "ours goes");
    let refused = plan(&topology(&file("adopt = false\n")), &before.observed, COUNTED).expect_err("refused");
    assert!(refused.to_string().starts_with("namespace theirs exists"), "{refused}");
}

/// Killed between making links and tagging them.
#[test]
fn what_a_crash_left_without_its_tag_is_made_anew_or_goes() {
    let bridge = "[[bridge]]\nname = \"nm0\"\nsubnet = \"198.51.100.0/24\"\n";
    let file = format!("{bridge}{}", member("blue", None));
    let (desired, mut model) = built(&file);
    for link in [host("nm0"), host("blue-eth0"), inside("blue", "eth0")] {
        let seen = model.link(&link).expect("built");
        (seen.owned, seen.unclaimed) = (false, true);
    }
    assert!(again(&file, &model).contains("ip link delete nm0"));
    model.run(&plan(&desired, &model.observed, COUNTED).expect("a plan"));
    assert_eq!(again(&file, &model), "");
    // Twin: not in the file, it goes while it is as it was made; in use it stays.
    let left = model.foreign_link("left0", "bridge");
    left.unclaimed = true;
    assert_eq!(again(&file, &model), "ip link delete left0\n");
    model.link(&host("left0")).expect("there").up = true;
    assert_eq!(again(&file, &model), "");
}

#[test]
fn a_foreign_link_inside_our_namespace_stands_in_the_way_too() {
    let (_, mut model) = built("[[namespace]]\nname = \"red\"\n[[namespace]]\nname = \"blue\"\n");
    model.foreign_pair(&host("theirs"), &inside("red", "veth1"));
    let error = plan(&topology(FILE), &model.observed, COUNTED).expect_err("foreign");
    assert_eq!(error, PlanError::Foreign { what: "veth red/veth1".to_owned() });
}

#[test]
fn an_unrelated_foreign_link_and_namespace_are_left_alone() {
    let (desired, mut model) = built(FILE);
    model.foreign_netns("theirs");
    model.foreign_pair(&host("theirs0"), &inside("theirs", "eth0"));
    let theirs = |model: &Model| -> Vec<String> {
        model.shape().into_iter().filter(|line| line.starts_with("theirs")).collect()
    };
    let before = theirs(&model);
    assert!(before.len() >= 4, "{before:?}");
    assert_eq!(again(FILE, &model), "");
    let named = format!("{FILE}\n[[namespace]]\nname = \"theirs\"\n");
    for steps in [
        teardown(&desired, &model.observed),
        teardown(&topology(&named), &model.observed),
        teardown_all(&model.observed),
        plan(&topology(""), &model.observed, COUNTED).expect("a plan"),
    ] {
        let mut model = model.clone();
        model.run(&steps);
        assert_eq!(theirs(&model), before);
        assert_eq!(model.shape().len(), before.len(), "only theirs is left");
    }
}

#[test]
fn a_prefix_that_the_host_uses_is_refused_with_the_link_that_has_it() {
    let cases = [
        (
            "eth9",
            "ether",
            "198.51.100.200/25",
            "198.51.100.0/24 of nm0 overlaps 198.51.100.200/25 that eth9 has",
        ),
        ("eth9", "ether", "198.51.0.1/16", "198.51.100.0/24 of nm0 overlaps"),
        ("eth9", "ether", "2001:db8:1::ff/128", "2001:db8:1::/64 of nm0 overlaps"),
        ("eth9", "ether", "10.1.2.99/32", "10.1.2.0/24 of veth0 overlaps"),
        (
            "lo",
            "loopback",
            "198.51.100.77/32",
            "198.51.100.0/24 of nm0 overlaps 198.51.100.77/32 that lo has",
        ),
    ];
    for (name, kind, address, expected) in cases {
        let mut model = Model::default();
        model.foreign_link(name, kind).addresses.push(address.parse().unwrap());
        let error = plan(&topology(FILE), &model.observed, COUNTED).expect_err(expected).to_string();
        assert!(error.contains(expected), "{error}");
    }
    // A neighbour is no conflict, nor are addresses of our own.
    let (_, mut model) = built(FILE);
    model.foreign_link("eth9", "ether").addresses.push("198.51.101.1/24".parse().unwrap());
    assert_eq!(again(FILE, &model), "");
}

#[test]
fn destroying_removes_only_what_the_file_names() {
    let (_, mut model) = built(FILE);
    let other = "[[namespace]]\nname = \"red\"\n[[veth]]\na = { name = \"veth0\" }\nb = { name = \"veth1\", namespace = \"red\" }\n";
    let steps = teardown(&topology(other), &model.observed);
    assert_eq!(
        text(&steps),
        "ip link delete veth0\nip -n red link delete eth0\nip -n red link delete wire\nip netns delete red\n"
    );
    model.run(&steps);
    let left: Vec<String> = model.observed.host.keys().map(ToString::to_string).collect();
    assert_eq!(left, ["blue-eth0", "nm0"]);
    assert_eq!(teardown(&topology(other), &model.observed), []);
    model.run(&teardown_all(&model.observed));
    assert_eq!(model.shape().len(), 0);
}

const POOL: &str = "[[bridge]]\nname = \"nm0\"\nsubnet = \"198.51.100.0/29\"\ngateway = \"198.51.100.2\"\n";

#[test]
fn the_next_free_address_skips_network_gateway_given_and_taken() {
    let file =
        format!("{POOL}{}{}{}", member("a", None), member("b", Some("198.51.100.3/29")), member("c", None));
    let (_, mut model) = built(&file);
    assert_eq!(
        addresses(&mut model, ["a", "b", "c"]),
        ["198.51.100.1/29", "198.51.100.3/29", "198.51.100.4/29"]
    );
}

#[test]
fn an_address_stays_with_its_interface_when_others_come_and_go() {
    let (_, mut model) =
        built(&format!("{POOL}{}{}{}", member("a", None), member("b", None), member("c", None)));
    let before = addresses(&mut model, ["a", "b", "c"]);
    assert_eq!(before, ["198.51.100.1/29", "198.51.100.3/29", "198.51.100.4/29"]);
    // One goes, a new one comes first in the file: the others keep theirs, the new one takes what is free.
    let file = format!("{POOL}{}{}{}", member("new", None), member("c", None), member("b", None));
    model.run(&plan(&topology(&file), &model.observed, COUNTED).expect("a plan"));
    assert_eq!(
        addresses(&mut model, ["b", "c", "new"]),
        ["198.51.100.3/29", "198.51.100.4/29", "198.51.100.1/29"]
    );
    assert_eq!(again(&file, &model), "");
}

#[test]
fn an_address_that_is_given_to_another_is_not_kept() {
    let (_, mut model) = built(&format!("{POOL}{}", member("a", None)));
    let file = format!("{POOL}{}{}", member("a", None), member("b", Some("198.51.100.1/29")));
    model.run(&plan(&topology(&file), &model.observed, COUNTED).expect("a plan"));
    assert_eq!(addresses(&mut model, ["a", "b"]), ["198.51.100.3/29", "198.51.100.1/29"]);
    assert_eq!(again(&file, &model), "");
}

#[test]
fn what_an_interface_holds_is_not_given_to_another_while_there_is_another_one() {
    let (_, mut model) = built(&format!("{POOL}{}", member("a", None)));
    // Somebody added the next address of the pool to `a`.
    model.link(&inside("a", "eth0")).unwrap().addresses.push("198.51.100.3/29".parse().unwrap());
    let file = format!("{POOL}{}{}", member("a", None), member("b", None));
    model.run(&plan(&topology(&file), &model.observed, COUNTED).expect("a plan"));
    assert_eq!(addresses(&mut model, ["a", "b"]), ["198.51.100.1/29", "198.51.100.4/29"]);
}

#[test]
fn a_full_pool_gives_its_last_address_and_then_says_so() {
    // Eight addresses less network, broadcast and gateway.
    let full: String = ["a", "b", "c", "d", "e"].map(|name| member(name, None)).concat();
    let (_, model) = built(&format!("{POOL}{full}"));
    let ends: BTreeSet<_> = model
        .observed
        .namespaces
        .values()
        .map(|n| n.links[&"eth0".parse().unwrap()].addresses.clone())
        .collect();
    assert_eq!(ends.len(), 5);
    // One more is a mistake of the file; a plan on a topology made otherwise says so too.
    let mut more = topology(&format!("{POOL}{full}"));
    let mut veth = more.veths[0].clone();
    veth.a.link = host("f-eth0");
    veth.b.link = inside("a", "eth1");
    more.veths.push(veth);
    let error = plan(&more, &model.observed, COUNTED).expect_err("full");
    assert_eq!(
        error.to_string(),
        "a/eth1: no address of 198.51.100.0/29 is free: use a larger subnet, or give addresses"
    );
}

#[test]
fn changing_everything_about_an_interface_takes_one_pass() {
    let (_, mut model) = built(FILE);
    let changed = FILE
        .replace("198.51.100.7/24", "198.51.100.8/24")
        .replace("1400", "1450")
        .replace("00:07", "00:08")
        .replace("via = \"198.51.100.1\"", "via = \"198.51.100.3\"");
    model.run(&plan(&topology(&changed), &model.observed, COUNTED).expect("a plan"));
    assert_eq!(again(&changed, &model), "");
    let subnet = FILE.replace("198.51.100.", "203.0.113.");
    model.run(&plan(&topology(&subnet), &model.observed, COUNTED).expect("a plan"));
    assert_eq!(again(&subnet, &model), "");
}

#[test]
fn the_same_question_gets_the_same_answer() {
    let (desired, mut model) = built(FILE);
    model.apply(&Step::DeleteNetns { name: ns("red") }).expect("there");
    let once = plan(&desired, &model.observed, COUNTED).expect("a plan");
    for _ in 0..10 {
        assert_eq!(plan(&desired, &model.observed, COUNTED).expect("a plan"), once);
    }
}

#[test]
fn thousands_of_interfaces_are_planned_in_seconds() {
    let mut file = "[[bridge]]\nname = \"nm0\"\nsubnet = [\"203.0.0.0/16\", \"2001:db8::/64\"]\n".to_owned();
    (0..2000).for_each(|n| file += &member(&format!("n{n}"), None));
    let started = std::time::Instant::now();
    let steps = plan(&topology(&file), &Observed::default(), COUNTED).expect("a plan");
    assert_eq!(steps.iter().filter(|step| matches!(step, Step::CreateVeth { .. })).count(), 2000);
    assert!(started.elapsed().as_secs() < 20, "{:?}", started.elapsed());
}

fn topology(file: &str) -> Topology {
    config::parse(file, "test.toml").unwrap_or_else(|errors| panic!("{errors}\n{file}"))
}

/// The file built from nothing.
fn built(file: &str) -> (Topology, Model) {
    let (desired, mut model) = (topology(file), Model::default());
    model.run(&plan(&desired, &model.observed, COUNTED).expect("a plan"));
    (desired, model)
}

fn again(file: &str, model: &Model) -> String {
    text(&plan(&topology(file), &model.observed, COUNTED).expect("a plan"))
}

/// A namespace with one interface on the bridge.
fn member(name: &str, address: Option<&str>) -> String {
    let address = address.map(|address| format!(", address = \"{address}\"")).unwrap_or_default();
    format!(
        "[[namespace]]\nname = \"{name}\"\ninterface = [{{ name = \"eth0\", bridge = \"nm0\"{address} }}]\n"
    )
}

/// The first address of `eth0` in each namespace.
fn addresses<const N: usize>(model: &mut Model, names: [&str; N]) -> [String; N] {
    let eth0 = |name| -> LinkId { inside(name, "eth0") };
    names.map(|name| model.link(&eth0(name)).unwrap().addresses[0].to_string())
}
