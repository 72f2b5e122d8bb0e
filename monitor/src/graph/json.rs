//! The graph for programs: names as they are, ends by the number of their node.

use serde_json::{Value, json};

use super::{Edge, End, Graph, Interface, Kind, Link, Node};

pub(super) fn write(graph: &Graph) -> String {
    let nodes: Vec<Value> = graph.nodes.iter().map(node).collect();
    let edges: Vec<Value> = graph.edges.iter().map(edge).collect();
    format!("{:#}\n", json!({ "title": graph.title, "nodes": nodes, "edges": edges }))
}

fn node(node: &Node) -> Value {
    let Node { kind, name, owned, up, addresses, nat, interfaces } = node;
    let mut object = json!({ "kind": word(*kind), "name": name, "ours": owned });
    if kind.is_netns() {
        object["state"] = json!(match kind {
            Kind::Detached => "detached",
            Kind::Anonymous => "anonymous",
            _ => "named",
        });
        object["interfaces"] = interfaces.iter().map(interface).collect();
    } else if *kind != Kind::Host {
        object["up"] = json!(up);
        object["addresses"] = json!(addresses);
        object["nat"] = json!(nat);
    }
    object
}

fn word(kind: Kind) -> &'static str {
    match kind {
        Kind::Host => "host",
        Kind::Device => "device",
        Kind::Lent => "lent",
        Kind::Bridge => "bridge",
        Kind::Netns | Kind::Detached | Kind::Anonymous => "netns",
    }
}

fn interface(interface: &Interface) -> Value {
    let Interface { name, kind, up, mac, mtu, addresses, counted } = interface;
    json!({
        "name": name, "kind": kind, "up": up, "mac": mac, "mtu": mtu, "addresses": addresses, "counted": counted,
    })
}

fn edge(edge: &Edge) -> Value {
    let Edge { kind, from, to, up, note } = edge;
    let end = |End { node, interface, addresses }: &End| json!({ "node": node, "interface": interface, "addresses": addresses });
    let kind = match kind {
        Link::Veth => "veth",
        Link::Port => "port",
        Link::On => "on",
        Link::Lease => "lease",
        Link::Publish => "publish",
        Link::Allow => "allow",
    };
    json!({ "kind": kind, "from": end(from), "to": end(to), "up": up, "note": note })
}
