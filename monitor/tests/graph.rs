//! The graph of a file in every format: as it was, understood by who reads it, and harmless whatever the names are.

mod support;

use std::{fs, path::PathBuf, process::Command, sync::OnceLock};

use monitor::{
    config,
    graph::{Edge, End, Format, Graph, HOST, Interface, Kind, Link, Node, is_opaque, outside, wanted},
};
use serde_json::{Value, json};
use support::{fed, reader, readers, root};

const FORMATS: [(Format, &str); 4] =
    [(Format::Svg, "svg"), (Format::Dot, "dot"), (Format::Mermaid, "mermaid"), (Format::Json, "json")];

fn of(text: &str) -> Graph {
    wanted(&config::parse(text, "test.toml").expect("a valid file"), "test.toml")
}

/// Has everything that a graph can have and a file cannot: what is down, not counted, without a name, lent.
fn everything() -> Graph {
    let mut graph = of(config::EXAMPLE);
    let eth1 = graph.add(Node {
        up: Some(false),
        addresses: vec!["203.0.113.7/24".to_owned()],
        ..Node::new(Kind::Device, "eth1")
    });
    let lent = graph.add(Node::new(Kind::Lent, "eth2"));
    let interface = |name: &str, kind: &str, up, counted| Interface {
        name: name.to_owned(),
        kind: kind.to_owned(),
        up: Some(up),
        mtu: Some(1500),
        counted,
        ..Interface::default()
    };
    let detached = graph.add(Node {
        interfaces: vec![
            interface("lo", "loopback", false, false),
            interface("eth0", "macvlan", false, false),
        ],
        ..Node::new(Kind::Detached, "lost")
    });
    let anonymous = graph.add(Node {
        interfaces: vec![interface("wan", "", true, false)],
        ..Node::new(Kind::Anonymous, "systemd-resolve~4711")
    });
    graph.add(Node::new(Kind::Netns, "empty"));
    let bridge = graph.find(&[Kind::Bridge], "nm0").expect("a bridge");
    let end = |node, name: &str| End { node, interface: Some(name.to_owned()), addresses: Vec::new() };
    let device = |node| End { node, ..End::default() };
    let edge = |kind, from, to, up, note: &str| Edge { kind, from, to, up: Some(up), note: note.to_owned() };
    graph.edges.extend([
        edge(Link::On, device(eth1), end(detached, "eth0"), false, "macvlan bridge"),
        edge(Link::Lease, device(lent), end(anonymous, "wan"), true, ""),
        edge(Link::Port, end(bridge, "eth1"), device(eth1), false, ""),
    ]);
    graph
}

/// Names that mean something to every format at once.
fn hostile() -> Graph {
    const NAMES: [&str; 8] = [
        "\"]; evil -- node [label=\"",
        "</text><script>alert(1)</script>",
        "a&lt;b&amp;\\N\\l'\"`",
        "end\nsubgraph x",
        "\u{1b}[31m\u{202e}gnp\u{0}",
        "x\"] --> y[\"#quot;<br/>%% {{",
        "]]>--><!--",
        "click n1 \"javascript:alert(1)\"",
    ];
    let mut graph = Graph { title: NAMES.concat(), ..Graph::default() };
    let host = graph.add(Node::new(Kind::Host, HOST));
    let bridge =
        graph.add(Node { addresses: vec![NAMES[0].to_owned()], ..Node::new(Kind::Bridge, NAMES[1]) });
    for (at, name) in NAMES.iter().enumerate() {
        let interface =
            Interface { name: NAMES[7 - at].to_owned(), kind: NAMES[2].to_owned(), ..Interface::default() };
        let node = graph.add(Node { interfaces: vec![interface], ..Node::new(Kind::Netns, *name) });
        let end = |node, name: &str| End {
            node,
            interface: Some(name.to_owned()),
            addresses: vec![name.to_owned()],
        };
        let (from, to) = (end([bridge, host][at % 2], NAMES[at]), end(node, NAMES[7 - at]));
        graph.edges.push(Edge { kind: Link::Veth, from, to, up: None, note: NAMES[3].to_owned() });
        let (from, to) = (End { node: host, ..End::default() }, End { node, ..End::default() });
        graph.edges.push(Edge { kind: Link::Publish, from, to, up: None, note: (*name).to_owned() });
    }
    graph
}

#[test]
fn each_format_is_the_golden_text() {
    let graph = everything();
    for (format, name) in FORMATS {
        let path = root().join(format!("monitor/tests/golden/graph.{name}"));
        let text = graph.write(format);
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            fs::write(&path, &text).expect("write the golden text");
        }
        let golden = fs::read_to_string(&path).unwrap_or_default();
        assert_eq!(
            text, golden,
            "{name}; if this is meant: UPDATE_GOLDEN=1 cargo test -p monitor --test graph"
        );
    }
}

/// A reader of XML that is not ours; prints what the picture says, a line each.
fn read_xml(text: &str) -> Vec<String> {
    const SCRIPT: &str = "
import sys, xml.etree.ElementTree as tree
allowed = {'svg','title','desc','style','rect','text','tspan','path','circle','g'}
attributes = {'viewBox','width','height','role','aria-labelledby','id','class','x','y','rx','cx','cy','r','d','text-anchor','dx'}
for one in tree.fromstring(sys.stdin.buffer.read()).iter():
    name = one.tag.rsplit('}',1)[1]
    assert name in allowed, name
    assert set(one.attrib) <= attributes, one.attrib
    if name in ('text','tspan','title','desc') and one.text:
        print(one.text.replace('\\n', '|'))
";
    let output = fed(Command::new("python3").args(["-c", SCRIPT]), text);
    assert!(output.status.success(), "{}\n{text}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text").lines().map(ToOwned::to_owned).collect()
}

/// What Graphviz makes of it.
fn read_dot(text: &str) -> Value {
    static PLUGINS: OnceLock<PathBuf> = OnceLock::new();
    // Only what draws without a font: its list is made by itself, beside the plugins.
    let plugins = PLUGINS.get_or_init(|| {
        let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("graphviz");
        fs::create_dir_all(&folder).expect("a folder");
        let from = fs::read_dir(readers().join("usr/lib")).expect("libraries").flatten();
        let from =
            from.map(|entry| entry.path().join("graphviz")).find(|path| path.is_dir()).expect("plugins");
        for name in ["libgvplugin_core.so.6", "libgvplugin_dot_layout.so.6"] {
            fs::copy(from.join(name), folder.join(name)).expect(name);
        }
        assert!(reader("dot").arg("-c").env("GVBINDIR", &folder).status().expect("dot").success());
        folder
    });
    let output = fed(reader("dot").args(["-Tjson0"]).env("GVBINDIR", plugins), text);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.is_empty(), "{said}\n{text}");
    let drawn = fed(reader("dot").args(["-Tsvg"]).env("GVBINDIR", plugins), text);
    assert!(drawn.status.success() && String::from_utf8_lossy(&drawn.stdout).contains("</svg>"));
    serde_json::from_slice(&output.stdout).expect("JSON")
}

#[test]
fn a_reader_of_xml_finds_what_the_picture_shows_and_nothing_but_shapes_and_text() {
    let said = read_xml(&everything().write(Format::Svg));
    for expected in [
        "7 namespaces, 8 interfaces, 1 bridge",
        "nm0",
        "publishes 127.0.0.1:8443:443/tcp",
        "blue-eth0 - eth0",
        "link - link",
        "blue|eth0 198.51.100.2/24|  2001:db8:100::2/64|link 192.0.2.1/30",
        "down, not counted",
        "device  203.0.113.7/24  port of nm0  down",
        "bridge  198.51.100.1/24  2001:db8:100::1/64  NAT  port eth1",
    ] {
        assert!(said.iter().any(|line| line == expected), "{expected:?} in {said:#?}");
    }
    let wrong = "down: lost/eth0; not counted: lost/eth0, systemd-resolve~4711/wan".to_owned();
    assert!(said.contains(&wrong), "{said:#?}");
    read_xml(&Graph::default().write(Format::Svg));
}

#[test]
fn graphviz_reads_the_same_nodes_and_edges() {
    let graph = everything();
    let read = read_dot(&graph.write(Format::Dot));
    let labels = |of: &str| -> Vec<String> {
        let list = read[of].as_array().cloned().unwrap_or_default();
        list.iter().filter_map(|one| Some(one["label"].as_str()?.to_owned())).collect()
    };
    assert_eq!(read["objects"].as_array().map(Vec::len), Some(graph.nodes.len()));
    assert!(
        labels("objects")
            .contains(&"red\\leth0 next of 198.51.100.0/24\\l  next of 2001:db8:100::/64\\l".to_owned())
    );
    // And a dotted line to each of the host's bridges and devices.
    assert_eq!(read["edges"].as_array().map(Vec::len), Some(graph.edges.len() + 3));
    assert!(labels("edges").contains(&"veth0 10.1.2.2/24 - veth1".to_owned()), "{:#?}", labels("edges"));
    read_dot(&Graph::default().write(Format::Dot));
}

#[test]
fn hostile_names_stay_names_in_every_format() {
    let graph = hostile();
    let svg = graph.write(Format::Svg);
    let said = read_xml(&svg);
    assert!(said.contains(&"</text><script>alert(1)</script>".to_owned()), "{said:#?}");
    assert!(said.iter().any(|line| line.contains("\\u{1b}[31m\\u{202e}gnp\\u{0}")), "{said:#?}");

    let read = read_dot(&graph.write(Format::Dot));
    assert_eq!(read["objects"].as_array().map(Vec::len), Some(graph.nodes.len()));
    assert_eq!(read["edges"].as_array().map(Vec::len), Some(graph.edges.len() + 1));

    let mermaid = graph.write(Format::Mermaid);
    let lines: Vec<&str> = mermaid.lines().collect();
    // Heading, title, description; a line for each node, the host's to the bridge, and each edge.
    assert_eq!(lines.len(), 3 + graph.nodes.len() + 1 + graph.edges.len(), "{mermaid}");
    for line in &lines[3..] {
        let label = line.split('"').nth(1).unwrap_or_default().replace("<br/>", "");
        assert!(line.matches('"').count() % 2 == 0 && line.matches('"').count() <= 2, "{line}");
        let is_plain = |c: char| c.is_alphanumeric() || " ./:,-#;…".contains(c);
        assert!(label.chars().all(is_plain), "{line}");
    }

    let read: Value = serde_json::from_str(&graph.write(Format::Json)).expect("JSON");
    assert_eq!(
        read["nodes"][2]["name"], "\"]; evil -- node [label=\"",
        "for programs, names are as they are"
    );
    assert_eq!(read["nodes"][6]["name"], "\u{1b}[31m\u{202e}gnp\u{0}");
    for (_, text) in FORMATS.map(|(format, name)| (name, graph.write(format))) {
        let odd = |c: char| (c.is_control() && c != '\n') || c == '\u{202e}';
        let text = if text.starts_with('{') { String::new() } else { text };
        assert!(!text.contains(odd), "{text:?}");
    }
}

#[test]
fn some_are_shown_with_what_they_lead_to() {
    let graph = everything();
    let only = graph.only(&["blue".to_owned()]).expect("it is there");
    let names: Vec<&str> = only.nodes.iter().map(|node| node.name.as_str()).collect();
    assert_eq!(names, ["host", "nm0", "blue", "red", "test_ns", "eth1"]);
    let ends = |edge: &Edge| [&edge.from, &edge.to].map(|end| only.nodes[end.node].name.clone());
    let mut edges: Vec<String> = only.edges.iter().map(|edge| ends(edge).join(" - ")).collect();
    edges.dedup();
    let expected = [
        "nm0 - blue",
        "nm0 - red",
        "host - test_ns",
        "blue - test_ns",
        "host - blue",
        "blue - red",
        "nm0 - eth1",
    ];
    assert_eq!(edges, expected, "red and test_ns are where blue leads to, with what they are on");
    assert_eq!(only.edges.iter().filter(|edge| edge.kind == Link::Publish).count(), 3);
    let unknown = graph.only(&["blue".to_owned(), "nm0".to_owned()]).expect_err("a bridge is no namespace");
    assert_eq!(unknown.name, "nm0");
    assert_eq!(unknown.known, ["blue", "red", "router", "test_ns", "lost", "systemd-resolve~4711", "empty"]);
}

#[test]
fn what_nft_and_iptables_say_of_ports_and_sources_is_understood() {
    let rule =
        |exprs: Value| json!({ "rule": { "family": "inet", "table": "t", "chain": "c", "expr": exprs } });
    let field = |protocol: &str, field: &str, right: Value| json!({ "match": { "op": "==", "left": { "payload": { "protocol": protocol, "field": field } }, "right": right } });
    let prefix = |addr: &str, len: u8| json!({ "prefix": { "addr": addr, "len": len } });
    let mut rules = json!({ "nftables": [
        rule(json!([field("tcp", "dport", json!(8080)), { "dnat": { "family": "ip", "addr": "198.51.100.2", "port": 80 } }])),
        rule(json!([field("ip", "daddr", json!("127.0.0.1")), field("udp", "dport", json!({ "range": [9000, 9009] })),
            { "dnat": { "family": "ip", "addr": "198.51.100.2" } }])),
        rule(json!([field("tcp", "dport", json!({ "range": [70, 71] })), { "dnat": { "family": "ip6", "addr": "2001:db8::2",
            "port": { "map": { "key": {}, "data": { "set": [[70, 80], [71, 81]] } } } } }])),
        rule(json!([field("ip", "saddr", prefix("198.51.100.0", 24)), { "masquerade": null }])),
        rule(json!([{ "match": { "op": "in", "left": { "ct": { "key": "status" } }, "right": "dnat" } },
            field("ip", "saddr", prefix("203.0.113.0", 24)), { "masquerade": null }])),
        rule(json!([field("ip", "saddr", prefix("172.17.0.0", 16)), { "xt": { "type": "target", "name": "MASQUERADE" } }])),
    ] });
    assert!(!is_opaque(Some(&rules)));
    let target = json!([field("tcp", "dport", json!(8081)), { "xt": { "type": "target", "name": "DNAT" } }]);
    rules["nftables"].as_array_mut().expect("a list").push(rule(target));
    assert!(is_opaque(Some(&rules)));
    let saved = "*nat\n:PREROUTING ACCEPT [0:0]\n-A POSTROUTING -s 172.17.0.0/16 ! -o docker0 -j MASQUERADE\n\
        -A DOCKER ! -i docker0 -p tcp -m tcp --dport 8081 -j DNAT --to-destination 172.17.0.2:80\n\
        -A DOCKER -d 192.0.2.1/32 ! -i docker0 -p udp -m udp --dport 53 -j DNAT --to-destination 172.17.0.3\n\
        -A DOCKER -p tcp -m tcp --dport 443 -j DNAT --to-destination [2001:db8::3]:8443\n-A X -p tcp -j DNAT\nCOMMIT\n";
    let found = outside(Some(&rules), saved);
    let published: Vec<String> = found.published.iter().map(|(to, ports)| format!("{to} {ports}")).collect();
    assert_eq!(
        published,
        [
            "172.17.0.2 8081:80/tcp",
            "172.17.0.3 192.0.2.1:53:53/udp",
            "198.51.100.2 127.0.0.1:9000-9009:9000-9009/udp",
            "198.51.100.2 8080:80/tcp",
            "2001:db8::2 70-71:80-81/tcp",
            "2001:db8::3 443:8443/tcp",
        ]
    );
    let hidden: Vec<String> = found.hidden.iter().map(ToString::to_string).collect();
    assert_eq!(
        (hidden, found.all_hidden),
        (vec!["172.17.0.0/16".to_owned(), "198.51.100.0/24".to_owned()], false)
    );
    assert_eq!(outside(None, ""), monitor::graph::Outside::default());
}
