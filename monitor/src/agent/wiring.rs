//! How the host is wired, out of what the last pass saw and the file asks for.

use crate::{
    sample::wiring::{HostLink, Inside, Published, Wiring},
    topology::{Observed, ObservedLink, ObservedNetns, Topology, names::IfName},
};

/// Nothing is read: what a pass has not seen is not in it.
pub(super) fn wiring(topology: &Topology, observed: &Observed) -> Wiring {
    let masquerades =
        |name: &IfName| topology.bridges.iter().any(|bridge| bridge.nat && bridge.name == *name);
    let link = |(name, link): (&IfName, &ObservedLink)| HostLink {
        name: name.to_string(),
        kind: link.kind.clone(),
        running: link.running,
        owned: link.owned,
        bridge: link.bridge.as_ref().map(ToString::to_string),
        isolated: link.isolated,
        nat: masquerades(name),
        addresses: link.addresses.clone(),
    };
    let is_shown = |(_, link): &(&IfName, &ObservedLink)| link.kind != "loopback";
    let inside = |netns: &ObservedNetns| Inside {
        addresses: netns
            .links
            .iter()
            .map(|(name, link)| (name.to_string(), link.addresses.clone()))
            .collect(),
        routes: netns.routes.iter().map(ToString::to_string).collect(),
    };
    let published = topology.namespaces.iter().flat_map(|netns| {
        let one = |publish: &_| Published { netns: netns.name.to_string(), port: format!("{publish}") };
        netns.publish.iter().map(one)
    });
    Wiring {
        links: observed.host.iter().filter(is_shown).map(link).collect(),
        routes: observed.host_routes.iter().map(ToString::to_string).collect(),
        forwards_ipv4: observed.outside.routes_ipv4,
        forwards_ipv6: observed.outside.routes_ipv6,
        inside: observed.namespaces.values().map(|netns| (netns.cookie, inside(netns))).collect(),
        published: published.collect(),
    }
}
