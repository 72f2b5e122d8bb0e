//! The graph of what the kernel has.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    os::fd::AsFd as _,
};

use anyhow::Context as _;

use crate::{
    agent::{
        Failure, WatchedLink, WatchedNetns,
        engine::{Look, View},
    },
    discover::netlink::{Link, Netlink},
    graph::{Edge, End, Graph, HOST, Interface, Kind, Link as Way, Node, Outside, is_opaque, outside},
    netns,
    probe::Side,
    sample::NetnsState,
    topology::{
        ObservedLink,
        names::{Cookie, Place},
    },
};

/// What a module makes in every namespace by itself; shown only where somebody uses it.
const BY_THEMSELVES: [&str; 9] =
    ["tunl0", "sit0", "gre0", "gretap0", "erspan0", "ip6tnl0", "ip6gre0", "ip_vti0", "ip6_vti0"];

/// Everything that is looked at.
pub(super) struct Seen<'a> {
    view: &'a View,
    title: String,
    host: Vec<Link>,
    /// Links of the namespaces with their addresses, by namespace and index.
    inside: BTreeMap<(Cookie, u32), ObservedLink>,
    /// The number by which each of these namespaces knows the host's.
    numbers: BTreeMap<Cookie, i32>,
    outside: Outside,
}

pub(super) fn see<'a>(look: &Look, view: &'a View) -> Result<Seen<'a>, Failure> {
    let host = Netlink::open().and_then(|mut netlink| netlink.links(None));
    let host = host.context("cannot list the host's links")?;
    let mut inside = BTreeMap::new();
    let mut take = |cookie: Cookie, links: Vec<ObservedLink>| {
        inside.extend(links.into_iter().map(|link| ((cookie, link.ifindex), link)));
    };
    let named: BTreeSet<Cookie> = view.observed.namespaces.values().map(|netns| netns.cookie).collect();
    for netns in view.observed.namespaces.values() {
        take(netns.cookie, netns.links.values().cloned().collect());
    }
    for netns in view.watched.namespaces.iter().filter(|netns| !named.contains(&netns.cookie)) {
        let Some(way) = &netns.way else { continue };
        match look.kernel().observe_other(way, netns.cookie) {
            Ok(seen) => take(netns.cookie, seen.links.into_values().collect()),
            Err(error) => tracing::warn!("{}: {error:#}", netns.label),
        }
    }
    let ruleset = look.kernel().closer(&Place::Host, &BTreeSet::new())?.ruleset;
    let saved = if is_opaque(ruleset.as_ref()) { look.kernel().saved_by_iptables() } else { String::new() };
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").ok();
    let name = name.map(|name| name.trim().to_owned()).filter(|name| !name.is_empty());
    Ok(Seen {
        view,
        title: name.unwrap_or_else(|| HOST.to_owned()),
        host,
        inside,
        numbers: numbers(&view.watched.namespaces),
        outside: outside(ruleset.as_ref(), &saved),
    })
}

/// Asked only where an interface is on a device elsewhere, which the index alone does not tell.
fn numbers(namespaces: &[WatchedNetns]) -> BTreeMap<Cookie, i32> {
    let Ok(host) = File::open("/proc/thread-self/ns/net") else { return BTreeMap::new() };
    let is_on = |watched: &WatchedLink| watched.link.kind != "veth" && watched.link.peer_nsid.is_some();
    let asked = namespaces.iter().filter(|netns| netns.links.iter().any(is_on));
    asked
        .filter_map(|netns| {
            let number = netns::by_way(netns.way.as_ref()?, || {
                Netlink::open().and_then(|mut netlink| netlink.nsid(host.as_fd())).ok().flatten()
            });
            Some((netns.cookie, number.ok()??))
        })
        .collect()
}

pub(super) fn graph(seen: &Seen<'_>) -> Graph {
    let mut graph = Graph { title: seen.title.clone(), ..Graph::default() };
    let host = graph.add(Node::new(Kind::Host, HOST));
    let devices = devices(seen, &mut graph);
    let lent = lent(seen, &mut graph);
    let namespaces = namespaces(seen, &mut graph);
    let places = Places { host, devices, lent, namespaces };
    places.edges(seen, &mut graph);
    publish(seen, &mut graph, host);
    graph
}

/// The host's links by index, as far as they are nodes: not ends of pairs that lead into a namespace, and not what is of no use.
fn devices(seen: &Seen<'_>, graph: &mut Graph) -> BTreeMap<u32, usize> {
    let links = seen.view.watched.namespaces.iter().flat_map(|netns| &netns.links);
    let ends: BTreeSet<u32> = links
        .filter_map(|watched| match watched.side {
            Some(Side::HostEnd { ifindex }) => Some(ifindex),
            _ => None,
        })
        .collect();
    let observed: BTreeMap<u32, &ObservedLink> =
        seen.view.observed.host.values().map(|link| (link.ifindex, link)).collect();
    let addresses = |link: &Link| -> Vec<String> {
        let found = observed.get(&link.ifindex).map(|link| &link.addresses);
        found.into_iter().flatten().map(ToString::to_string).collect()
    };
    let mut links: Vec<&Link> = seen.host.iter().filter(|link| !ends.contains(&link.ifindex)).collect();
    links.retain(|link| {
        let used = link.running || !addresses(link).is_empty() || link.controller.is_some();
        link.kind != "loopback" && (used || link.kind == "bridge")
    });
    links.sort_by_key(|link| (link.kind == "bridge", natural(&link.name), link.ifindex));
    let mut nodes = BTreeMap::new();
    for link in links {
        let kind = if link.kind == "bridge" { Kind::Bridge } else { Kind::Device };
        let own = observed.get(&link.ifindex);
        let is_hidden = |address: &ipnet::IpNet| {
            seen.outside.all_hidden || seen.outside.hidden.iter().any(|net| net.contains(&address.addr()))
        };
        let nat = kind == Kind::Bridge && own.is_some_and(|own| own.addresses.iter().any(is_hidden));
        let node = graph.add(Node {
            owned: own.is_some_and(|own| own.owned),
            // A bridge without a port that is up has no carrier; that is no fault of its own.
            up: Some(link.running || (kind == Kind::Bridge && own.is_some_and(|own| own.up))),
            addresses: addresses(link),
            nat,
            ..Node::new(kind, link.name.as_str())
        });
        nodes.insert(link.ifindex, node);
    }
    nodes
}

fn lent(seen: &Seen<'_>, graph: &mut Graph) -> Vec<(usize, Cookie, String)> {
    let mut found = Vec::new();
    for lease in &seen.view.observed.leases {
        let Place::Netns(netns) = &lease.link.place else { continue };
        let Some(netns) = seen.view.observed.namespaces.get(netns) else { continue };
        let node = graph.add(Node::new(Kind::Lent, lease.device.as_str()));
        found.push((node, netns.cookie, lease.link.name.to_string()));
    }
    found
}

/// Numbers in names count as numbers: `ns2` comes before `ns10`.
fn natural(name: &str) -> Vec<(String, u64)> {
    let mut parts = vec![(String::new(), 0_u64)];
    let mut in_number = false;
    for c in name.chars() {
        match c.to_digit(10) {
            Some(digit) => {
                if let Some((_, number)) = parts.last_mut() {
                    *number = number.saturating_mul(10).saturating_add(u64::from(digit));
                }
                in_number = true;
            }
            None => {
                if in_number {
                    parts.push((String::new(), 0));
                    in_number = false;
                }
                if let Some((text, _)) = parts.last_mut() {
                    text.push(c);
                }
            }
        }
    }
    parts
}

fn namespaces(seen: &Seen<'_>, graph: &mut Graph) -> BTreeMap<Cookie, usize> {
    let watched: BTreeMap<Cookie, &WatchedNetns> =
        seen.view.watched.namespaces.iter().map(|netns| (netns.cookie, netns)).collect();
    let mut samples: Vec<_> = seen.view.sample.namespaces.iter().collect();
    samples.sort_by_key(|netns| (natural(&netns.label), netns.cookie));
    let mut nodes = BTreeMap::new();
    for netns in samples {
        let kind = match netns.state {
            NetnsState::Named => Kind::Netns,
            NetnsState::Detached => Kind::Detached,
            NetnsState::Anonymous => Kind::Anonymous,
        };
        let counted = |name: &str| {
            netns.interfaces.iter().any(|interface| interface.name == name && interface.mode.is_some())
        };
        let links = watched.get(&netns.cookie).map(|netns| netns.links.as_slice()).unwrap_or_default();
        let mut interfaces: Vec<Interface> = links
            .iter()
            .map(|WatchedLink { link, .. }| {
                let own = seen.inside.get(&(netns.cookie, link.ifindex));
                Interface {
                    name: link.name.clone(),
                    kind: link.kind.clone(),
                    up: Some(link.running),
                    mac: link.mac.map(|mac| mac.to_string()),
                    mtu: Some(link.mtu),
                    addresses: own
                        .into_iter()
                        .flat_map(|own| &own.addresses)
                        .map(ToString::to_string)
                        .collect(),
                    counted: counted(&link.name),
                }
            })
            .collect();
        interfaces.retain(|interface| {
            interface.up == Some(true)
                || !interface.addresses.is_empty()
                || !BY_THEMSELVES.contains(&interface.name.as_str())
        });
        if !watched.contains_key(&netns.cookie) {
            // Nothing leads into it any more; what counts it is all there is to tell.
            interfaces.extend(netns.interfaces.iter().map(|interface| Interface {
                name: interface.name.clone(),
                counted: interface.mode.is_some(),
                ..Interface::default()
            }));
        }
        let node =
            graph.add(Node { owned: netns.owned, interfaces, ..Node::new(kind, netns.label.as_str()) });
        nodes.insert(netns.cookie, node);
    }
    nodes
}

/// Numbers of the nodes.
struct Places {
    host: usize,
    /// By index.
    devices: BTreeMap<u32, usize>,
    /// With the namespace that has each, and its name there.
    lent: Vec<(usize, Cookie, String)>,
    namespaces: BTreeMap<Cookie, usize>,
}

impl Places {
    fn edges(&self, seen: &Seen<'_>, graph: &mut Graph) {
        let hosts: BTreeMap<u32, &Link> = seen.host.iter().map(|link| (link.ifindex, link)).collect();
        let mut edges = Vec::new();
        for link in &seen.host {
            edges.extend(self.within_host(link, &hosts));
        }
        for netns in &seen.view.watched.namespaces {
            let Some(node) = self.namespaces.get(&netns.cookie) else { continue };
            for watched in &netns.links {
                let to = End { node: *node, interface: Some(watched.link.name.clone()), ..End::default() };
                edges.extend(self.of_netns(seen, &hosts, netns, watched, to));
            }
        }
        for (from, cookie, name) in &self.lent {
            let Some(node) = self.namespaces.get(cookie) else { continue };
            let to = End { node: *node, interface: Some(name.clone()), ..End::default() };
            let from = End { node: *from, ..End::default() };
            let interface = graph.nodes[*node].interfaces.iter().find(|interface| interface.name == *name);
            let up = interface.and_then(|interface| interface.up);
            edges.push(Edge { kind: Way::Lease, from, to, up, note: String::new() });
        }
        edges.sort_by_key(|edge| (edge.to.node, edge.from.node, edge.to.interface.clone()));
        graph.edges = edges;
    }

    /// A device that is a port of a bridge; a pair whose ends are both the host's.
    fn within_host(&self, link: &Link, hosts: &BTreeMap<u32, &Link>) -> Vec<Edge> {
        let Some(node) = self.devices.get(&link.ifindex) else { return Vec::new() };
        let end = |node: usize| End { node, ..End::default() };
        let mut edges = Vec::new();
        if let Some(bridge) = link.controller.and_then(|bridge| self.devices.get(&bridge)) {
            let (from, to) = (End { interface: Some(link.name.clone()), ..end(*bridge) }, end(*node));
            edges.push(Edge { kind: Way::Port, from, to, up: Some(link.running), note: String::new() });
        }
        let peer = link.peer_ifindex.filter(|_| link.kind == "veth" && link.peer_nsid.is_none());
        let peer = peer.filter(|peer| link.ifindex < *peer).and_then(|peer| hosts.get(&peer));
        if let Some((peer, other)) = peer.and_then(|peer| Some((peer, self.devices.get(&peer.ifindex)?))) {
            let (from, to) = (end(*node), end(*other));
            let up = Some(link.running && peer.running);
            edges.push(Edge { kind: Way::Veth, from, to, up, note: String::new() });
        }
        edges
    }

    /// What an interface of a namespace leads to. A pair between two namespaces is told by one of its ends.
    fn of_netns(
        &self,
        seen: &Seen<'_>,
        hosts: &BTreeMap<u32, &Link>,
        netns: &WatchedNetns,
        WatchedLink { link, side, peer, .. }: &WatchedLink,
        to: End,
    ) -> Option<Edge> {
        if link.kind == "veth" {
            return match (side, peer) {
                (Some(Side::HostEnd { ifindex }), _) => {
                    let end = hosts.get(ifindex)?;
                    let bridge = end.controller.and_then(|bridge| self.devices.get(&bridge));
                    let observed = seen.view.observed.host.values().find(|own| own.ifindex == *ifindex);
                    let addresses =
                        observed.into_iter().flat_map(|own| &own.addresses).map(ToString::to_string);
                    let from = End {
                        node: bridge.copied().unwrap_or(self.host),
                        interface: Some(end.name.clone()),
                        addresses: addresses.collect(),
                    };
                    let up = Some(end.running && link.running);
                    Some(Edge { kind: Way::Veth, from, to, up, note: String::new() })
                }
                (_, Some((Some(cookie), name))) => {
                    let other = *self.namespaces.get(cookie)?;
                    if (other, name) >= (to.node, &link.name) {
                        return None;
                    }
                    let end = seen.view.watched.namespaces.iter().find(|found| found.cookie == *cookie);
                    let end =
                        end.and_then(|found| found.links.iter().find(|watched| watched.link.name == *name));
                    let up = end.map(|watched| watched.link.running && link.running);
                    let from = End { node: other, interface: Some(name.clone()), ..End::default() };
                    Some(Edge { kind: Way::Veth, from, to, up, note: String::new() })
                }
                _ => None,
            };
        }
        // On a device of the host, if the number is the host's.
        let parent = link.peer_ifindex.filter(|_| link.peer_nsid.is_some())?;
        if link.peer_nsid != seen.numbers.get(&netns.cookie).copied() {
            return None;
        }
        let node = *self.devices.get(&parent)?;
        let mode = seen.inside.get(&(netns.cookie, link.ifindex)).and_then(|own| own.macvlan);
        let note = mode.map_or_else(|| link.kind.clone(), |mode| format!("{} {mode}", link.kind));
        let from = End { node, ..End::default() };
        Some(Edge { kind: Way::On, from, to, up: Some(link.running), note })
    }
}

fn publish(seen: &Seen<'_>, graph: &mut Graph, host: usize) {
    let mut said = BTreeSet::new();
    for (address, ports) in &seen.outside.published {
        let has = |node: &&(usize, &Node)| {
            let all = node.1.interfaces.iter().flat_map(|interface| &interface.addresses);
            all.filter_map(|text| text.split('/').next()?.parse().ok())
                .any(|own: std::net::IpAddr| own == *address)
        };
        let namespaces = graph.nodes.iter().enumerate().filter(|(_, node)| node.kind.is_netns());
        let Some((node, _)) = namespaces.collect::<Vec<_>>().into_iter().find(|node| has(&node)) else {
            continue;
        };
        // The same of both families is said once.
        if said.insert((node, ports.clone())) {
            let end = |node| End { node, ..End::default() };
            let note = ports.clone();
            graph.edges.push(Edge { kind: Way::Publish, from: end(host), to: end(node), up: None, note });
        }
    }
}
