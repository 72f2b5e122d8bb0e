//! The shapes of the API out of a snapshot. Pure.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;
use monitor_ebpf::{
    SIZE_BOUNDS,
    health::{TIME_BOUNDS, role},
};

use super::{
    super::Snapshot,
    shapes::{
        Conntrack, Container, Detail, HostLink, Interface, InterfaceRow, Name, Peer, Protocol, Published,
        Row, Sizes, State, Status, Tcp, Times, Topology, Traffic, Wired, WiredInterface,
    },
    symptoms::{self, losses},
};
use crate::{
    metrics::CLASS_NAMES,
    sample::{
        AttachMode, ByDirection, ClassCounts, Counts, InterfaceSample, NetnsSample, NetnsState,
        lost::{HOST, OTHER},
        wiring::{self, Inside},
    },
};

pub(super) fn status(snapshot: &Snapshot) -> Status {
    let Snapshot { time, host, unready, sample, wiring: _ } = snapshot;
    let interfaces = sample.namespaces.iter().flat_map(|netns| &netns.interfaces);
    Status {
        version: env!("CARGO_PKG_VERSION"),
        host: host.clone(),
        time: *time,
        ready: unready.is_none(),
        why: unready.clone(),
        mode: sample.agent.mode.map(mode),
        pinned: sample.agent.pinned,
        namespaces: sample.namespaces.len() as u64,
        cut: sample.other.namespaces,
        interfaces: interfaces.filter(|interface| interface.mode.is_some()).count() as u64,
        unattached: sample.agent.unattached,
        counts_drops: sample.lost.drops.is_some(),
        counts_tcp: sample.lost.tcp.is_some(),
    }
}

/// Every namespace in a line, by label; those that are sums or the host's last.
pub(super) fn rows(snapshot: &Snapshot) -> Vec<Row> {
    let sample = &snapshot.sample;
    let mut rows: Vec<Row> = sample.namespaces.iter().map(|netns| row(snapshot, netns)).collect();
    rows.sort_by(|a, b| a.netns.cmp(&b.netns));
    let lost = |label: &str| {
        let drops = sample.lost.drops.as_ref().is_some_and(|drops| drops.netns.contains_key(label));
        drops || sample.lost.tcp.as_ref().is_some_and(|tcp| tcp.netns.contains_key(label))
    };
    if lost(HOST) {
        rows.push(bare(snapshot, HOST, State::Host));
    }
    if sample.other.namespaces > 0 {
        let counts = sample.other.counts.as_ref();
        let [receive, transmit] = both(counts);
        rows.push(Row { receive, transmit, ..bare(snapshot, OTHER, State::Sum) });
    }
    rows
}

/// One of them.
pub(super) fn row(snapshot: &Snapshot, netns: &NetnsSample) -> Row {
    let mut row = bare(snapshot, &netns.label, state(netns.state));
    [row.receive, row.transmit] = both(netns.counts().as_ref());
    row.ours = netns.owned;
    row.aliases = aliases(netns);
    row.interfaces = netns.interfaces.iter().map(interface_row).collect();
    let links = netns.interfaces.iter().filter_map(|interface| interface.link.as_ref());
    for (name, of) in [("device:drops", true), ("device:errors", false)] {
        let count = links.clone().map(|link| if of { link.drops } else { link.errors });
        let count: u64 = count.map(|count| count.receive + count.transmit).sum();
        if count > 0 {
            row.symptoms.insert(name.to_owned(), count);
        }
    }
    row
}

/// What a label alone tells.
fn bare(snapshot: &Snapshot, label: &str, state: State) -> Row {
    let lost = &snapshot.sample.lost;
    let drops = lost.drops.as_ref().map(|drops| drops.netns.get(label));
    let tcp = lost.tcp.as_ref().map(|tcp| tcp.netns.get(label).copied().unwrap_or_default());
    Row {
        netns: label.to_owned(),
        state,
        ours: false,
        aliases: Vec::new(),
        receive: None,
        transmit: None,
        drops: drops.map(|drops| drops.map_or(0, |reasons| reasons.values().sum())),
        losses: drops.map(|drops| drops.map_or(0, losses)),
        tcp: tcp.map(|tcp| Tcp {
            opened: tcp.opened.iter().sum(),
            failed: tcp.failures.iter().sum(),
            retransmitted: tcp.retransmits.iter().sum(),
            resets: tcp.resets.iter().sum(),
        }),
        symptoms: symptoms::counted(drops.flatten(), tcp.as_ref()),
        interfaces: Vec::new(),
    }
}

/// Everything of one namespace; absent where there is none of that label.
pub(super) fn detail(snapshot: &Snapshot, label: &str) -> Option<Detail> {
    let sample = &snapshot.sample;
    let netns = sample.namespaces.iter().find(|netns| netns.label == label);
    let row = match netns {
        Some(netns) => row(snapshot, netns),
        None => rows(snapshot).into_iter().find(|row| row.netns == label)?,
    };
    let inside = netns.and_then(|netns| snapshot.wiring.inside.get(&netns.cookie));
    let counts = match netns {
        Some(netns) => netns.counts(),
        None => sample.other.counts.filter(|_| label == OTHER),
    };
    let times = sample.lost.tcp.as_ref().and_then(|tcp| tcp.netns.get(label)).map(|tcp| Times {
        bounds: TIME_BOUNDS.to_vec(),
        round_trips: tcp.rtt.buckets.to_vec(),
        client_handshakes: tcp.handshakes[role::CLIENT].buckets.to_vec(),
        server_handshakes: tcp.handshakes[role::SERVER].buckets.to_vec(),
    });
    let figures = sample.lost.figures.get(label);
    let identity = netns.map(|netns| netns.identity.clone()).unwrap_or_default();
    let published = snapshot.wiring.published.iter().filter(|published| published.netns == label);
    Some(Detail {
        time: snapshot.time,
        cookie: netns.map(|netns| netns.cookie.0),
        inode: netns.and_then(|netns| netns.inode),
        names: identity
            .aliases
            .into_iter()
            .map(|(source, name)| Name { source: source.to_owned(), name })
            .collect(),
        containers: identity
            .containers
            .into_iter()
            .map(|one| Container { runtime: one.runtime.to_owned(), id: one.id, name: one.name })
            .collect(),
        pod: identity.pod,
        unit: identity.unit,
        interfaces: netns.map_or_else(Vec::new, |netns| {
            netns.interfaces.iter().map(|interface| self::interface(interface, inside)).collect()
        }),
        routes: inside.map(|inside| inside.routes.clone()),
        published: published.map(|published| published.port.clone()).collect(),
        protocols: counts.as_ref().map(protocols).unwrap_or_default(),
        sizes: counts.map(|counts| Sizes {
            bounds: SIZE_BOUNDS.to_vec(),
            receive: counts.receive.sizes.to_vec(),
            transmit: counts.transmit.sizes.to_vec(),
        }),
        symptoms: symptoms::explained(&row.symptoms),
        times,
        connections: figures
            .and_then(|figures| figures.connections)
            .map(|connections| connections.each().filter(|(_, count)| *count > 0).collect()),
        firewall_drops: netns.map(|netns| netns.drops.clone()).unwrap_or_default(),
        figures: figures
            .map(|figures| figures.named().into_iter().filter(|(_, count)| *count > 0).collect())
            .unwrap_or_default(),
        conntrack: figures
            .and_then(|figures| figures.conntrack)
            .map(|conntrack| Conntrack { entries: conntrack.entries, limit: conntrack.limit }),
        row,
    })
}

/// The wiring, with at most so many namespaces, and as many links of the host.
pub(super) fn topology(snapshot: &Snapshot, limit: usize) -> Topology {
    let wiring = &snapshot.wiring;
    let bridge_of: BTreeMap<&str, &str> =
        wiring.links.iter().filter_map(|link| Some((link.name.as_str(), link.bridge.as_deref()?))).collect();
    let namespaces = snapshot.sample.namespaces.iter();
    let wired = |netns: &NetnsSample| {
        let inside = wiring.inside.get(&netns.cookie);
        let interface = |interface: &InterfaceSample| {
            let row = interface_row(interface);
            let host_end = row.peer.as_ref().filter(|peer| peer.netns.as_deref() == Some(""));
            let bridge = host_end.and_then(|peer| bridge_of.get(peer.interface.as_str()));
            WiredInterface {
                bridge: bridge.map(|bridge| (*bridge).to_owned()),
                kind: interface.link.as_ref().map(|link| link.kind.clone()),
                running: row.running,
                addresses: addresses(inside, &row.name),
                peer: row.peer,
                name: row.name,
            }
        };
        Wired { netns: netns.label.clone(), interfaces: netns.interfaces.iter().map(interface).collect() }
    };
    let mut all: Vec<&NetnsSample> = namespaces.collect();
    all.sort_by(|a, b| a.label.cmp(&b.label));
    let mut links: Vec<&wiring::HostLink> = wiring.links.iter().collect();
    links.sort_by_key(|link| (link.kind != "bridge", link.bridge.is_some()));
    Topology {
        time: snapshot.time,
        host: snapshot.host.clone(),
        forwards: [wiring.forwards_ipv4, wiring.forwards_ipv6],
        routes: wiring.routes.clone(),
        total_links: links.len(),
        links: links.into_iter().take(limit).map(host_link).collect(),
        total: all.len(),
        namespaces: all.into_iter().take(limit).map(wired).collect(),
        published: wiring
            .published
            .iter()
            .map(|published| Published { netns: published.netns.clone(), port: published.port.clone() })
            .collect(),
    }
}

fn host_link(link: &wiring::HostLink) -> HostLink {
    HostLink {
        name: link.name.clone(),
        kind: link.kind.clone(),
        running: link.running,
        ours: link.owned,
        bridge: link.bridge.clone(),
        isolated: link.isolated,
        nat: link.nat,
        addresses: texts(&link.addresses),
    }
}

fn state(state: NetnsState) -> State {
    match state {
        NetnsState::Named => State::Named,
        NetnsState::Detached => State::Detached,
        NetnsState::Anonymous => State::Anonymous,
    }
}

fn mode(mode: AttachMode) -> &'static str {
    match mode {
        AttachMode::Tcx => "tcx",
        AttachMode::Clsact => "clsact",
    }
}

fn traffic(counts: ClassCounts) -> Traffic {
    Traffic { packets: counts.packets, bytes: counts.bytes }
}

fn both(counts: Option<&Counts>) -> [Option<Traffic>; 2] {
    [
        counts.map(|counts| traffic(counts.receive.total())),
        counts.map(|counts| traffic(counts.transmit.total())),
    ]
}

/// What it is called beside its label, each once.
fn aliases(netns: &NetnsSample) -> Vec<String> {
    let identity = &netns.identity;
    let containers = identity.containers.iter().map(|one| one.name.as_ref().unwrap_or(&one.id));
    let names = identity.aliases.iter().map(|(_, name)| name).chain(containers);
    let names: BTreeSet<&String> = names.chain(&identity.pod).chain(&identity.unit).collect();
    names.into_iter().filter(|name| **name != netns.label).cloned().collect()
}

fn interface_row(interface: &InterfaceSample) -> InterfaceRow {
    let link = interface.link.as_ref();
    let [receive, transmit] = both(interface.counts.as_ref());
    InterfaceRow {
        name: interface.name.clone(),
        running: link.map(|link| link.running),
        peer: link.and_then(|link| {
            Some(Peer { netns: link.peer_netns.clone(), interface: link.peer_interface.clone()? })
        }),
        receive,
        transmit,
    }
}

fn interface(interface: &InterfaceSample, inside: Option<&Inside>) -> Interface {
    let link = interface.link.as_ref();
    let pair = |pair: ByDirection<u64>| [pair.receive, pair.transmit];
    Interface {
        row: interface_row(interface),
        kind: link.map(|link| link.kind.clone()),
        ifindex: link.map(|link| link.ifindex),
        mac: link.and_then(|link| link.mac).map(|mac| mac.to_string()),
        mtu: link.map(|link| link.mtu),
        addresses: addresses(inside, &interface.name),
        counted: interface.mode.map(mode),
        drops: link.map(|link| pair(link.drops)),
        errors: link.map(|link| pair(link.errors)),
        uncounted: interface.uncounted.map(pair),
    }
}

fn addresses(inside: Option<&Inside>, interface: &str) -> Option<Vec<String>> {
    inside?.addresses.get(interface).map(|addresses| texts(addresses))
}

fn texts(addresses: &[IpNet]) -> Vec<String> {
    addresses.iter().map(ToString::to_string).collect()
}

fn protocols(counts: &Counts) -> Vec<Protocol> {
    let of = |at: usize| [counts.receive.classes[at], counts.transmit.classes[at]];
    let classes = CLASS_NAMES.into_iter().enumerate();
    classes
        .filter(|(at, _)| of(*at).iter().any(|class| class.skbs > 0))
        .map(|(at, (family, protocol))| {
            let [receive, transmit] = of(at).map(traffic);
            Protocol { family, protocol, receive, transmit }
        })
        .collect()
}
