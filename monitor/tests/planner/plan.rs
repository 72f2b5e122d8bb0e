//! Plans: what each state of the kernel asks for, and nothing else.

use super::model::{COUNTED, Model, lines, topology};
use monitor::{
    config::{DEMO, EXAMPLE},
    topology::{
        Topology,
        execute::execute,
        plan::{PlanOptions, plan, teardown, teardown_all},
        step::Step,
    },
};

const PAIR: &str = "[[namespace]]\nname = \"test_ns\"\n[[veth]]\na = { name = \"veth0\", address = \"10.1.2.2/24\" }\n\
    b = { name = \"veth1\", namespace = \"test_ns\", address = \"10.1.2.1/24\" }\n";

fn apply(model: &mut Model, topology: &Topology) -> usize {
    let steps = plan(topology, &model.observed, COUNTED).unwrap_or_else(|error| panic!("{error}"));
    execute(&steps, model, &mut |_, _| ()).unwrap_or_else(|error| panic!("{error}"));
    steps.len()
}

#[test]
fn a_pair_is_counted_before_either_end_is_set_up() {
    let expected = [
        "ip netns add test_ns",
        "ip link add veth0 type veth peer name veth1 netns test_ns",
        "# count veth0: attach eBPF to its tcx_ingress and tcx_egress (no ip equivalent)",
        "ip address add 10.1.2.2/24 dev veth0",
        "ip -n test_ns address add 10.1.2.1/24 dev veth1",
        "ip -n test_ns link set veth1 up",
        "ip link set veth0 up",
        "ip -n test_ns link set lo up",
    ];
    assert_eq!(lines(&topology(PAIR), &Model::default().observed), expected);
}

#[test]
fn a_host_that_cannot_count_is_wired_all_the_same() {
    let steps =
        plan(&topology(PAIR), &Model::default().observed, PlanOptions { attach: false }).expect("a plan");
    assert_eq!(steps.len(), 7);
    assert!(!steps.iter().any(|step| matches!(step, Step::Attach { .. })));
}

#[test]
fn planning_on_what_a_plan_has_built_gives_nothing() {
    for text in [EXAMPLE, DEMO, PAIR, "[[bridge]]\nname = \"alone\"\n", ""] {
        let topology = topology(text);
        assert_eq!(lines(&topology, &Model::built(&topology).observed), Vec::<String>::new());
    }
    // Twin: one thing off, and there is something to do.
    let mut model = Model::built(&topology(PAIR));
    model.link("veth0").up = false;
    assert_eq!(lines(&topology(PAIR), &model.observed), ["ip link set veth0 up"]);
}

#[test]
fn each_drift_is_mended_by_its_own_step_and_no_other() {
    let wanted = topology(EXAMPLE);
    type Drift = fn(&mut Model);
    let drifts: [(Drift, &[&str]); 12] = [
        (|model| model.link("nm0").up = false, &["ip link set nm0 up"]),
        (
            |model| model.link("nm0").addresses.clear(),
            &["ip address add 198.51.100.1/24 dev nm0", "ip address add 2001:db8:100::1/64 dev nm0 nodad"],
        ),
        (|model| model.link("red0").mtu = 1500, &["ip link set red0 mtu 1400"]),
        (
            |model| model.link("red/eth0").mac = "02:00:00:00:00:99".parse().ok(),
            &["ip -n red link set eth0 address 02:00:00:00:00:03"],
        ),
        (|model| model.link("red0").bridge = None, &["ip link set red0 master nm0"]),
        (|model| model.link("blue/eth0").up = false, &["ip -n blue link set eth0 up"]),
        (|model| model.link("blue/lo").up = false, &["ip -n blue link set lo up"]),
        (
            |model| model.link("test_ns/veth1").addresses.clear(),
            &["ip -n test_ns address add 10.1.2.1/24 dev veth1"],
        ),
        (
            |model| model.link("veth0").addresses.push("192.0.2.9/24".parse().expect("an address")),
            &["ip address delete 192.0.2.9/24 dev veth0"],
        ),
        (
            |model| model.link("blue-eth0").attached = false,
            &["# count blue-eth0: attach eBPF to its tcx_ingress and tcx_egress (no ip equivalent)"],
        ),
        (
            |model| model.link("blue/link").attached = false,
            &["# count blue/link: attach eBPF to its tcx_ingress and tcx_egress (no ip equivalent)"],
        ),
        (
            |model| model.observed.namespaces.values_mut().for_each(|netns| netns.routes.truncate(1)),
            &["ip -n blue route add default via 2001:db8:100::1"],
        ),
    ];
    for (drift, expected) in drifts {
        let mut model = Model::built(&wanted);
        drift(&mut model);
        assert_eq!(lines(&wanted, &model.observed), expected);
        apply(&mut model, &wanted);
        assert_eq!(lines(&wanted, &model.observed), Vec::<String>::new());
    }
}

#[test]
fn a_deleted_link_comes_back_with_its_routes() {
    let wanted = topology(EXAMPLE);
    let mut model = Model::built(&wanted);
    let whole = model.observed.clone();
    let gone = Step::DeleteLink {
        link: monitor::topology::names::LinkId::host("blue-eth0".parse().expect("a name")),
    };
    monitor::topology::execute::Perform::perform(&mut model, &gone).expect("deleted");
    let steps = lines(&wanted, &model.observed);
    assert!(
        steps.contains(&"ip link add blue-eth0 type veth peer name eth0 netns blue".to_owned()),
        "{steps:#?}"
    );
    assert!(steps.contains(&"ip -n blue route add default via 198.51.100.1".to_owned()), "{steps:#?}");
    apply(&mut model, &wanted);
    let routes = |observed: &monitor::topology::Observed| {
        observed.namespaces.values().map(|n| n.routes.clone()).collect::<Vec<_>>()
    };
    assert_eq!(routes(&model.observed), routes(&whole));
}

#[test]
fn a_pair_with_a_wrong_peer_is_made_anew() {
    let wanted = topology(PAIR);
    let mut model = Model::built(&wanted);
    model.link("veth0").peer_ifindex = Some(999);
    let steps = lines(&wanted, &model.observed);
    assert_eq!(
        steps[..3],
        [
            "ip link delete veth0",
            "ip -n test_ns link delete veth1",
            "ip link add veth0 type veth peer name veth1 netns test_ns",
        ]
    );
}

#[test]
fn what_the_file_no_longer_names_goes_links_first_bridges_last() {
    let mut model = Model::built(&topology(EXAMPLE));
    let steps = lines(&Topology::default(), &model.observed);
    let position = |line: &str| {
        steps.iter().position(|step| step == line).unwrap_or_else(|| panic!("{line} in {steps:#?}"))
    };
    assert!(position("ip link delete blue-eth0") < position("ip netns delete blue"));
    assert_eq!(position("ip link delete nm0"), steps.len() - 1);
    apply(&mut model, &Topology::default());
    assert!(model.observed.host.is_empty() && model.observed.namespaces.is_empty(), "{:#?}", model.observed);
}

#[test]
fn a_namespace_is_dropped_without_touching_the_others() {
    let both = topology(DEMO);
    let mut model = Model::built(&both);
    let one = topology(&DEMO[..DEMO.rfind("[[namespace]]").expect("two namespaces")]);
    assert_eq!(lines(&one, &model.observed), ["ip link delete red-eth0", "ip netns delete red"]);
    apply(&mut model, &one);
    assert_eq!(lines(&one, &model.observed), Vec::<String>::new());
}

#[test]
fn foreign_things_stand_in_the_way_and_stay() {
    let refused = |model: &Model, text: &str| {
        plan(&topology(text), &model.observed, COUNTED).expect_err("foreign").to_string()
    };
    let mut model = Model::default();
    model.foreign("veth0", "veth", None);
    assert!(refused(&model, PAIR).starts_with("veth veth0 exists and was not made by netns-monitor"));
    let mut model = Model::built(&topology(PAIR));
    model.observed.namespaces.values_mut().for_each(|netns| netns.owned = false);
    assert!(refused(&model, PAIR).starts_with("namespace test_ns exists"));
    let mut model = Model::default();
    model.foreign("nm-demo0", "vlan", None);
    assert!(refused(&model, DEMO).starts_with("vlan nm-demo0 exists"));
    // A foreign link under a name nobody wants is nobody's business, also when everything of ours goes.
    let mut model = Model::built(&topology(PAIR));
    model.foreign("docker0", "bridge", Some("203.0.113.1/24"));
    assert_eq!(lines(&topology(PAIR), &model.observed), Vec::<String>::new());
    assert!(!teardown_all(&model.observed).iter().any(|step| step.to_string().contains("docker0")));
}

#[test]
fn a_prefix_the_host_already_has_is_refused_by_name() {
    let mut model = Model::default();
    model.foreign("eth0", "ether", Some("198.51.100.7/26"));
    let error = plan(&topology(DEMO), &model.observed, COUNTED).expect_err("an overlap").to_string();
    assert!(
        error.starts_with("198.51.100.0/24 of nm-demo0 overlaps 198.51.100.7/26 that eth0 has"),
        "{error}"
    );
    let mut model = Model::default();
    model.foreign("eth0", "ether", Some("203.0.113.7/26"));
    assert!(plan(&topology(DEMO), &model.observed, COUNTED).is_ok());
}

fn pool(names: &[&str], subnet: &str) -> Topology {
    let namespaces = names.iter().map(|name| {
        format!("[[namespace]]\nname = \"{name}\"\ninterface = [{{ name = \"eth0\", bridge = \"nm0\" }}]\n")
    });
    topology(&format!(
        "[[bridge]]\nname = \"nm0\"\nsubnet = \"{subnet}\"\n{}",
        namespaces.collect::<String>()
    ))
}

#[test]
fn the_next_free_address_is_the_lowest_and_stays_with_its_interface() {
    let mut model = Model::built(&pool(&["a", "b", "c"], "198.51.100.0/24"));
    let address =
        |model: &mut Model, name: &str| model.link(&format!("{name}/eth0")).addresses[0].to_string();
    assert_eq!(address(&mut model, "a"), "198.51.100.2/24");
    assert_eq!(address(&mut model, "c"), "198.51.100.4/24");
    // `b` goes and `d` comes first in the file: the others keep theirs, the newcomer takes the gap.
    let changed = pool(&["d", "a", "c"], "198.51.100.0/24");
    apply(&mut model, &changed);
    assert_eq!(address(&mut model, "a"), "198.51.100.2/24");
    assert_eq!(address(&mut model, "d"), "198.51.100.3/24");
    assert_eq!(address(&mut model, "c"), "198.51.100.4/24");
    assert_eq!(lines(&changed, &model.observed), Vec::<String>::new());
}

#[test]
fn a_pool_gives_every_address_it_has() {
    let full = pool(&["a", "b", "c", "d", "e"], "198.51.100.0/29");
    let mut model = Model::built(&full);
    assert_eq!(model.link("e/eth0").addresses[0].to_string(), "198.51.100.6/29");
}

#[test]
fn destroy_takes_what_the_file_names_and_leaves_the_rest() {
    let mut model = Model::built(&topology(EXAMPLE));
    let pair = topology(PAIR);
    let steps = teardown(&pair, &model.observed);
    execute(&steps, &mut model, &mut |_, _| ()).unwrap_or_else(|error| panic!("{error}"));
    assert!(!model.observed.namespaces.keys().any(|name| name.as_str() == "test_ns"));
    assert_eq!(model.observed.namespaces.len(), 2);
    assert_eq!(teardown(&pair, &model.observed), []);
}
