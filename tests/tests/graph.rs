//! The graph of a real host: what `ip`, another and netns-monitor made, each link where it leads, up, down, counted or not.

use std::{fs, fs::File};

use monitor_tests::{
    agent::{apply, destroy, run, run_well, write_config},
    host::{TestHost, ip, run as command},
    oracle::link,
    poll::{SOON, until},
    scene::Scene,
};
use serde_json::{Value, json};

const SOURCES: [&str; 2] = ["--watch.source", "named,mount"];

/// All that a file can ask for.
const FILE: &str = r#"
[[bridge]]
name = "nm0"
subnet = ["198.51.100.0/24", "2001:db8:100::/64"]
nat = true

[[bridge]]
name = "nm1"
subnet = "203.0.113.0/24"

[[namespace]]
name = "web"
interface = [{ name = "eth0", bridge = "nm0", address = ["198.51.100.2/24", "2001:db8:100::2/64"] }]
publish = ["8080:80", "127.0.0.1:8443:443/tcp", "9000-9001:9100-9101/udp"]

[[namespace]]
name = "db"
lo = "down"
interface = [{ name = "eth0", bridge = "nm1", address = "203.0.113.2/24" }, { name = "mv0", macvlan = "eth7", address = "192.0.2.2/24" }, { name = "own0", device = "eth8", address = "192.0.2.130/25" }]

[[veth]]
a = { name = "up0", address = "10.1.1.2/24" }
b = { name = "down0", namespace = "web", address = "10.1.1.1/24" }

[[veth]]
a = { name = "side0", namespace = "web", address = "10.1.2.1/24" }
b = { name = "side1", namespace = "db", address = "10.1.2.2/24" }
"#;

fn graph(args: &[&str]) -> Value {
    let outcome = run_well(&[&SOURCES[..], &["graph", "--format", "json"], args].concat());
    serde_json::from_str(&outcome.stdout).expect("JSON")
}

fn node<'a>(graph: &'a Value, kind: &str, name: &str) -> &'a Value {
    let all = graph["nodes"].as_array().expect("nodes");
    let mut found = all.iter().filter(|node| node["kind"] == kind && node["name"] == name);
    let one = found.next().unwrap_or_else(|| panic!("no {kind} {name}: {graph:#}"));
    assert!(found.next().is_none(), "{kind} {name} is there twice");
    one
}

fn interface<'a>(graph: &'a Value, netns: &str, name: &str) -> &'a Value {
    let all = node(graph, "netns", netns)["interfaces"].as_array().expect("interfaces");
    all.iter()
        .find(|interface| interface["name"] == name)
        .unwrap_or_else(|| panic!("no {netns}/{name}: {all:#?}"))
}

/// Every edge as `KIND NODE:INTERFACE - NODE:INTERFACE up NOTE`, sorted.
fn edges(graph: &Value) -> Vec<String> {
    let end = |end: &Value| {
        let name = &graph["nodes"][end["node"].as_u64().expect("a number") as usize]["name"];
        let name = name.as_str().expect("a name");
        end["interface"].as_str().map_or_else(|| name.to_owned(), |interface| format!("{name}:{interface}"))
    };
    let text = |edge: &Value| {
        let word = |key: &str| edge[key].as_str().expect("a word").to_owned();
        let up = match edge["up"].as_bool() {
            Some(true) => " up",
            Some(false) => " down",
            None => "",
        };
        format!("{} {} - {}{up} {}", word("kind"), end(&edge["from"]), end(&edge["to"]), word("note"))
    };
    let mut edges: Vec<String> = graph["edges"].as_array().expect("edges").iter().map(text).collect();
    edges.iter_mut().for_each(|edge| *edge = edge.trim_end().to_owned());
    edges.sort();
    edges
}

#[test]
fn what_a_file_asked_for_is_there_as_the_file_alone_shows_it() {
    let _host = TestHost::new();
    for name in ["eth7", "eth8"] {
        // A pair within the host: what stands for a device of hardware, and what it is plugged into.
        ip(&format!("link add {name} type veth peer name far-{name}"));
        ip(&format!("link set {name} up"));
        ip(&format!("link set far-{name} up"));
    }
    apply(FILE);
    until(SOON, "the wires are up", || {
        let up = |netns, name| link(netns, name)["operstate"] == "UP";
        (up(Some("web"), "eth0") && up(Some("db"), "eth0") && up(Some("db"), "side1") && up(None, "up0"))
            .then_some(())
    });
    let there = graph(&[]);
    let asked = graph(&["--file", write_config(FILE)]);
    let expected = [
        "lease eth8 - db:own0 up",
        "on eth7 - db:mv0 up macvlan bridge",
        "publish host - web 127.0.0.1:8443:443/tcp",
        "publish host - web 8080:80/tcp",
        "publish host - web 9000-9001:9100-9101/udp",
        "veth host:up0 - web:down0 up",
        "veth nm0:web-eth0 - web:eth0 up",
        "veth nm1:db-eth0 - db:eth0 up",
        "veth web:side0 - db:side1 up",
    ];
    assert_eq!(edges(&asked), expected);
    // Of a pair of two namespaces that comes first which is first by name; and what the two devices are plugged into is there.
    let mut expected: Vec<String> =
        expected.map(|edge| edge.replace("web:side0 - db:side1", "db:side1 - web:side0")).to_vec();
    expected.extend(["veth far-eth7 - eth7 up", "veth host:far-eth8 - db:own0 up"].map(str::to_owned));
    expected.sort();
    assert_eq!(edges(&there), expected);
    for name in ["nm0", "nm1"] {
        assert_eq!(node(&there, "bridge", name), node(&asked, "bridge", name));
    }
    assert_eq!(node(&there, "bridge", "nm0")["nat"], true);
    assert_eq!(node(&there, "bridge", "nm0")["addresses"], json!(["198.51.100.1/24", "2001:db8:100::1/64"]));
    assert_eq!(node(&there, "netns", "web")["ours"], true);
    for (netns, name) in [("web", "eth0"), ("web", "down0"), ("db", "mv0"), ("db", "own0"), ("db", "side1")] {
        let (there, asked) = (interface(&there, netns, name), interface(&asked, netns, name));
        assert_eq!((&there["up"], &there["addresses"]), (&asked["up"], &asked["addresses"]), "{name}");
        assert_eq!(there["counted"], false, "--attach none");
        assert_eq!(there["mac"], link(Some(netns), name)["address"]);
    }
    assert_eq!(
        (&interface(&there, "db", "lo")["up"], &interface(&there, "web", "lo")["up"]),
        (&json!(false), &json!(true))
    );
    // What is taken away is gone from the picture, too.
    destroy(FILE);
    assert_eq!(edges(&graph(&[])), ["veth far-eth7 - eth7 up", "veth far-eth8 - eth8 up"]);
}

#[test]
fn what_others_made_is_shown_too_and_what_is_down_or_has_no_name() {
    let _host = TestHost::quiet();
    ip("link add br9 type bridge");
    ip("address add 172.17.0.1/16 dev br9");
    ip("link set br9 up");
    // A pair within the host: what stands for a device of hardware, and what it is plugged into.
    ip("link add far index 77 type veth peer name wan");
    ip("link set wan master br9 up");
    ip("link set far up");
    for netns in ["red", "blue"] {
        ip(&format!("netns add {netns}"));
        ip(&format!("link add v-{netns} type veth peer name eth0 netns {netns}"));
        ip(&format!("link set v-{netns} master br9 up"));
    }
    ip("-n red link set eth0 up");
    ip("-n red address add 172.17.0.2/16 dev eth0");
    // As a container engine: a mount elsewhere, and no name.
    fs::create_dir("/run/elsewhere").expect("a directory");
    File::create("/run/elsewhere/cni-7").expect("a file");
    command("mount", "--bind /run/netns/red /run/elsewhere/cni-7");
    ip("netns delete red");
    command("iptables-nft", "-t nat -A POSTROUTING -s 172.17.0.0/16 ! -o br9 -j MASQUERADE");
    command(
        "iptables-nft",
        "-t nat -A PREROUTING ! -i br9 -p tcp -m tcp --dport 8081 -j DNAT --to-destination 172.17.0.2:80",
    );
    // An interface of a namespace on a device of another one, with the index of a device of the host.
    ip("netns add inner");
    ip("-n blue link add wan index 77 type veth peer name other");
    ip("-n blue link set wan up");
    ip("-n blue link add link wan name mv1 netns inner type macvlan mode bridge");
    ip("link add link far name mv0 netns inner type macvlan mode private");

    // The kernel takes nearly any byte in a name.
    ip("-n blue link set eth0 name e\"<&\\]");
    until(SOON, "the wire is up", || (link(None, "v-red")["operstate"] == "UP").then_some(()));
    let seen = graph(&[]);
    assert_eq!(
        edges(&seen),
        [
            "on far - inner:mv0 down macvlan private",
            "port br9:wan - wan up",
            "publish host - cni-7 8081:80/tcp",
            "veth blue:other - blue:wan down",
            "veth br9:v-blue - blue:e\"<&\\] down",
            "veth br9:v-red - cni-7:eth0 up",
            "veth wan - far up",
        ]
    );
    let bridge = node(&seen, "bridge", "br9");
    assert_eq!((&bridge["nat"], &bridge["ours"], &bridge["up"]), (&json!(true), &json!(false), &json!(true)));
    assert_eq!(interface(&seen, "cni-7", "eth0")["addresses"], json!(["172.17.0.2/16"]));
    assert_eq!(interface(&seen, "blue", "e\"<&\\]")["up"], false);

    let only = graph(&["cni-7"]);
    let names: Vec<&str> =
        only["nodes"].as_array().expect("nodes").iter().filter_map(|node| node["name"].as_str()).collect();
    assert_eq!(names, ["host", "wan", "br9", "cni-7"]);
    let outcome = run(&[&SOURCES[..], &["graph", "nobody"]].concat());
    assert_eq!(outcome.code, Some(1));
    assert!(
        outcome.stderr.contains("no namespace `nobody`; there are: blue, cni-7, inner"),
        "{}",
        outcome.stderr
    );
    for (format, name) in
        [("svg", "e&quot;&lt;&amp;\\]"), ("dot", "e\\\"<&amp;\\\\]"), ("mermaid", "e#34;#60;#38;#92;#93;")]
    {
        let text = run_well(&[&SOURCES[..], &["graph", "--format", format]].concat()).stdout;
        assert!(text.contains("cni-7") && text.contains("172.17.0.2/16") && text.contains(name), "{text}");
    }
    command("umount", "/run/elsewhere/cni-7");
}

#[test]
fn what_is_counted_is_marked_also_while_no_agent_runs() {
    let mut scene = Scene::two(&[]);
    let is_counted = |netns: &str| interface(&graph(&[]), netns, "eth0")["counted"].clone();
    assert_eq!([is_counted("blue"), is_counted("red")], [json!(true), json!(true)]);
    scene.agent.kill9();
    assert_eq!([is_counted("blue"), is_counted("red")], [json!(true), json!(true)]);
}

/// Interface indexes repeat: a pair between two namespaces may have those of one between the host and a third.
#[test]
fn an_end_is_not_taken_for_another_one_with_its_indexes() {
    let _host = TestHost::quiet();
    for netns in ["a", "b", "c"] {
        ip(&format!("netns add {netns}"));
    }
    ip("link add wan index 90 type veth peer name plug netns c index 91");
    ip("-n a link add to-b index 91 type veth peer name to-a netns b index 90");
    assert_eq!(
        [link(None, "wan"), link(Some("a"), "to-b")].map(|link| link["link_index"].clone()),
        [json!(91), json!(90)],
        "to-b and wan are each other's by their indexes"
    );
    let expected = ["veth a:to-b - b:to-a down", "veth host:wan - c:plug down"];
    assert_eq!(edges(&graph(&[])), expected);
    // And where the host's end leads to what is not watched.
    assert_eq!(edges(&graph(&["--watch.netns.exclude", "c"])), ["veth a:to-b - b:to-a down"]);
}
