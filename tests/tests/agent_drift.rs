//! What is changed behind the agent's back comes back, and what it did not make stays.

use monitor_tests::{
    host::{inside, ip},
    ledger::Ledger,
    oracle::{link, links},
    poll::{ONE_PASS, SOON, until},
    scene::{Scene, know_each_other, silence, until_up},
    traffic::send_every_class,
};

fn addresses(netns: Option<&str>, device: &str) -> Vec<String> {
    let link = link(netns, device);
    let all = link["addr_info"].as_array().cloned().unwrap_or_default();
    all.iter()
        .filter(|one| one["family"] == "inet")
        .map(|one| format!("{}/{}", one["local"].as_str().unwrap_or_default(), one["prefixlen"]))
        .collect()
}

/// Blue can reach red again, and the agent counts it.
fn works(scene: &Scene) {
    silence(&["blue", "red"]);
    know_each_other("blue", "red", "eth0");
    let before = scene.settle();
    let mut sent = Ledger::new();
    inside("blue", || send_every_class("eth0", 3, &mut sent));
    let metrics = scene.settle().since(&before);
    assert_eq!(Ledger::of(&metrics, "blue", "transmit"), sent);
    assert_eq!(Ledger::of(&metrics, "red", "receive"), sent);
}

#[test]
fn a_link_deleted_on_the_host_comes_back() {
    let scene = Scene::two(&[]);
    let old = link(None, "blue-eth0")["ifindex"].clone();
    ip("link del blue-eth0");
    let new = until_up(None, "blue-eth0", SOON);
    assert_ne!(new["ifindex"], old);
    until_up(Some("blue"), "eth0", SOON);
    works(&scene);
}

#[test]
fn a_link_deleted_inside_comes_back_with_its_address() {
    let scene = Scene::two(&[]);
    ip("-n blue link del eth0");
    until_up(Some("blue"), "eth0", SOON);
    until(SOON, "its address", || (addresses(Some("blue"), "eth0") == ["198.51.100.2/24"]).then_some(()));
    works(&scene);
}

#[test]
fn a_link_set_down_on_the_host_comes_back_up() {
    let scene = Scene::two(&[]);
    let old = link(None, "blue-eth0")["ifindex"].clone();
    ip("link set blue-eth0 down");
    let same = until_up(None, "blue-eth0", SOON);
    assert_eq!(same["ifindex"], old);
    works(&scene);
}

#[test]
fn a_link_set_down_inside_comes_back_up() {
    let scene = Scene::two(&[]);
    ip("-n blue link set eth0 down");
    until_up(Some("blue"), "eth0", ONE_PASS);
    works(&scene);
}

#[test]
fn a_port_taken_from_its_bridge_comes_back() {
    let scene = Scene::two(&[]);
    ip("link set blue-eth0 nomaster");
    until(SOON, "a port of nm0", || (link(None, "blue-eth0")["master"] == "nm0").then_some(()));
    works(&scene);
}

#[test]
fn a_deleted_bridge_comes_back_with_its_address_and_ports() {
    let scene = Scene::two(&[]);
    ip("link del nm0");
    until_up(None, "nm0", SOON);
    until(SOON, "its address", || (addresses(None, "nm0") == ["198.51.100.1/24"]).then_some(()));
    for port in ["blue-eth0", "red-eth0"] {
        until(SOON, "a port of nm0", || (link(None, port)["master"] == "nm0").then_some(()));
    }
    works(&scene);
}

#[test]
fn an_address_removed_on_the_bridge_comes_back() {
    let _scene = Scene::two(&[]);
    assert_eq!(addresses(None, "nm0"), ["198.51.100.1/24"]);
    ip("addr del 198.51.100.1/24 dev nm0");
    until(ONE_PASS, "the address", || (addresses(None, "nm0") == ["198.51.100.1/24"]).then_some(()));
}

#[test]
fn an_address_removed_inside_comes_back() {
    let _scene = Scene::two(&[]);
    ip("-n blue addr del 198.51.100.2/24 dev eth0");
    until(ONE_PASS, "the address", || (addresses(Some("blue"), "eth0") == ["198.51.100.2/24"]).then_some(()));
}

#[test]
fn what_the_agent_did_not_make_stays() {
    let scene = Scene::two(&[]);
    ip("netns add stranger");
    ip("link add foreign type veth peer name eth0 netns stranger");
    ip("link set foreign up");
    // Passes go over it: one for the link deleted here, at least.
    ip("link del blue-eth0");
    until_up(None, "blue-eth0", SOON);
    works(&scene);
    assert!(links().contains(&"foreign".to_owned()));
    assert!(ip("netns list").contains("stranger"));
    // Watched and counted like any other, and not called ours.
    let metrics = scene.agent.metrics();
    assert!(metrics.select("netns_skbs_total", &[("netns", "stranger")]).next().is_some());
    assert!(metrics.select("netns_info", &[("netns", "stranger"), ("owned", "false")]).next().is_some());
}
