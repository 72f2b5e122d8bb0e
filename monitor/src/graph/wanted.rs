//! The graph of a file: everything as it would be.

use crate::topology::{
    End as WantedEnd, Topology, Veth,
    inner::{Inner, InnerKind},
    names::{LinkId, Place},
    outside::Party,
};

use super::{Edge, End, Graph, HOST, Interface, Kind, Link, Node};

/// What a file asks for. A device of the host that it does not make is there by its name alone.
pub fn wanted(topology: &Topology, title: &str) -> Graph {
    let mut graph = Graph { title: title.to_owned(), ..Graph::default() };
    graph.add(Node::new(Kind::Host, HOST));
    for bridge in &topology.bridges {
        graph.add(Node {
            owned: true,
            up: Some(true),
            addresses: bridge.gateways.iter().map(ToString::to_string).collect(),
            nat: bridge.nat,
            ..Node::new(Kind::Bridge, bridge.name.as_str())
        });
    }
    for inner in &topology.inner {
        let (kind, device) = match &inner.kind {
            InnerKind::Macvlan { parent, .. } => (Kind::Device, parent),
            InnerKind::Device(device) => (Kind::Lent, device),
        };
        if graph.find(&[kind], device.as_str()).is_none() {
            graph.add(Node::new(kind, device.as_str()));
        }
    }
    for Veth { a, b } in &topology.veths {
        // A pair within the host has no namespace to be shown in.
        if a.link.place == Place::Host && b.link.place == Place::Host {
            for end in [a, b].into_iter().filter(|end| end.bridge.is_none()) {
                let addresses = addresses(end);
                let node = Node::new(Kind::Device, end.link.name.as_str());
                graph.add(Node { owned: true, up: Some(true), addresses, ..node });
            }
        }
    }
    for netns in &topology.namespaces {
        let lo = Interface {
            name: "lo".to_owned(),
            kind: "loopback".to_owned(),
            up: Some(netns.lo_up),
            ..Interface::default()
        };
        let node = Node { owned: true, ..Node::new(Kind::Netns, netns.name.as_str()) };
        let place = Place::Netns(netns.name.clone());
        let ends = topology.veths.iter().flat_map(|veth| [&veth.a, &veth.b]).map(|end| (end, "veth"));
        let inner = topology.inner.iter().map(|inner| (&inner.end, kind_of(inner)));
        let ends = ends.chain(inner).filter(|(end, _)| end.link.place == place);
        let interfaces = ends.map(|(end, kind)| Interface {
            name: end.link.name.to_string(),
            kind: kind.to_owned(),
            up: Some(true),
            mac: end.mac.map(|mac| mac.to_string()),
            mtu: end.mtu,
            addresses: addresses(end),
            counted: true,
        });
        let interfaces = std::iter::once(lo).chain(interfaces).collect();
        graph.add(Node { interfaces, ..node });
    }
    edges(topology, &mut graph);
    graph
}

fn kind_of(inner: &Inner) -> &'static str {
    match inner.kind {
        InnerKind::Macvlan { .. } => "macvlan",
        InnerKind::Device(_) => "",
    }
}

fn addresses(end: &WantedEnd) -> Vec<String> {
    let fixed = end.addresses.iter().map(ToString::to_string);
    fixed.chain(end.pools.iter().map(|pool| format!("next of {pool}"))).collect()
}

fn edges(topology: &Topology, graph: &mut Graph) {
    let mut found = Vec::new();
    for Veth { a, b } in &topology.veths {
        let (from, to) = (end_of(graph, a), end_of(graph, b));
        if let (Some(from), Some(to)) = (from, to) {
            found.push(Edge { kind: Link::Veth, from, to, up: Some(true), note: String::new() });
        }
    }
    for inner in &topology.inner {
        let (kind, device, link, note) = match &inner.kind {
            InnerKind::Macvlan { parent, mode } => {
                (Kind::Device, parent, Link::On, format!("macvlan {mode}"))
            }
            InnerKind::Device(device) => (Kind::Lent, device, Link::Lease, String::new()),
        };
        if let (Some(node), Some(to)) = (graph.find(&[kind], device.as_str()), end_of(graph, &inner.end)) {
            let from = End { node, ..End::default() };
            found.push(Edge { kind: link, from, to, up: Some(true), note });
        }
    }
    for netns in &topology.namespaces {
        let (host, to) = (graph.find(&[Kind::Host], HOST), graph.find(&[Kind::Netns], netns.name.as_str()));
        for (publish, (from, to)) in netns.publish.iter().filter_map(|publish| Some((publish, host.zip(to)?)))
        {
            let end = |node| End { node, ..End::default() };
            let (kind, note) = (Link::Publish, publish.to_string());
            found.push(Edge { kind, from: end(from), to: end(to), up: None, note });
        }
    }
    for [a, b] in &topology.allow {
        let node = |party: &Party| match party {
            Party::Bridge(name) => graph.find(&[Kind::Bridge], name.as_str()),
            Party::Netns(name) => graph.find(&[Kind::Netns], name.as_str()),
        };
        if let (Some(from), Some(to)) = (node(a), node(b)) {
            let end = |node| End { node, ..End::default() };
            found.push(Edge {
                kind: Link::Allow,
                from: end(from),
                to: end(to),
                up: None,
                note: String::new(),
            });
        }
    }
    graph.edges = found;
}

/// Where an end is: in a namespace, on a bridge, or the host's own.
fn end_of(graph: &Graph, end: &WantedEnd) -> Option<End> {
    let LinkId { place, name } = &end.link;
    let interface = Some(name.to_string());
    Some(match (place, &end.bridge) {
        (Place::Netns(netns), _) => {
            End { node: graph.find(&[Kind::Netns], netns.as_str())?, interface, addresses: Vec::new() }
        }
        (Place::Host, Some(bridge)) => {
            let node = graph.find(&[Kind::Bridge], bridge.as_str())?;
            End { node, interface, addresses: addresses(end) }
        }
        (Place::Host, None) => match graph.find(&[Kind::Device], name.as_str()) {
            Some(node) => End { node, ..End::default() },
            None => End { node: graph.find(&[Kind::Host], HOST)?, interface, addresses: addresses(end) },
        },
    })
}
