//! What stands in the way of a plan: things of others, which are never changed.

use ipnet::IpNet;

use super::{
    super::{
        Namespace, Observed, ObservedNetns, Route, Topology,
        adopt::Adopt,
        names::{LinkId, Place},
        route::{MAIN, Neighbour, OURS},
    },
    PlanError,
    peers::Peers,
};

/// Names that are wanted and belong to something we did not make.
pub(super) fn foreign(desired: &Topology, observed: &Observed, peers: &Peers) -> Result<(), PlanError> {
    for netns in &desired.namespaces {
        if let Some(what) = observed.junk.get(&netns.name) {
            return Err(PlanError::Junk(what.clone()));
        }
        if let Some(seen) = observed.namespaces.get(&netns.name).filter(|seen| !seen.owned) {
            if netns.adopt == Adopt::Never {
                return Err(PlanError::NotAdopted { name: netns.name.clone() });
            }
            occupied(netns, seen)?;
        }
    }
    let bridges = desired.bridges.iter().map(|bridge| LinkId::host(bridge.name.clone()));
    for link in bridges.chain(desired.ends().map(|end| end.link.clone())) {
        let Some(seen) = observed.link(&link) else { continue };
        // A pair gets its tags after it was made; a crash in between leaves it with one or none.
        let peer = peers.of(&link, seen).and_then(|peer| observed.link(peer));
        let ours = seen.owned || seen.unclaimed || seen.lent || peer.is_some_and(|peer| peer.owned);
        if !ours || !(seen.lent || matches!(seen.kind.as_str(), "bridge" | "veth" | "macvlan")) {
            return Err(PlanError::Foreign { what: format!("{} {link}", seen.kind) });
        }
    }
    Ok(())
}

/// Routes and neighbours of others that are in the place of wanted ones, in a namespace that is not ours.
fn occupied(netns: &Namespace, seen: &ObservedNetns) -> Result<(), PlanError> {
    let refuse =
        |found: String, wanted: String| Err(PlanError::Occupied { name: netns.name.clone(), found, wanted });
    for found in seen.routes.iter().filter(|found| found.protocol != OURS) {
        let mut wanted = netns.routes.iter();
        if let Some(wanted) = wanted.find(|wanted| wanted.collides(found) && !wanted.fits(found)) {
            return refuse(found.to_string(), wanted.to_string());
        }
    }
    for found in seen.neighbours.iter().filter(|found| found.protocol != OURS) {
        let mut wanted = netns.neighbours.iter();
        let other = |wanted: &&_| wanted_elsewhere(wanted, found);
        if let Some(wanted) = wanted.find(other) {
            return refuse(found.to_string(), wanted.to_string());
        }
    }
    Ok(())
}

/// Whether the same neighbour is wanted with another MAC address.
fn wanted_elsewhere(wanted: &Neighbour, found: &Neighbour) -> bool {
    (&wanted.dev, wanted.address) == (&found.dev, found.address) && wanted.mac != found.mac
}

/// Nothing says more of where packets go than this: halves of everything are a default route in two parts.
const DEFAULT: u8 = 1;

/// Routes of others that a wanted prefix overlaps, default routes left out. Those of links of ours are ours.
fn occupied_routes<'a>(desired: &'a Topology, observed: &'a Observed) -> impl Iterator<Item = &'a Route> {
    observed.host_routes.iter().filter(move |route| {
        let ours = route.dev.as_ref().is_some_and(|dev| {
            let wanted = desired.bridges.iter().any(|bridge| bridge.name == *dev)
                || desired.ends().any(|end| end.link == LinkId::host(dev.clone()));
            wanted || observed.host.get(dev).is_some_and(|link| link.owned)
        });
        let elsewhere = route.table != MAIN || route.protocol == OURS;
        !ours && !elsewhere && route.to.prefix_len() > DEFAULT
    })
}

/// The host's own networks stay reachable: no prefix of ours on the host may overlap an address or a route
/// that is not ours.
pub(super) fn overlaps(desired: &Topology, observed: &Observed) -> Result<(), PlanError> {
    let bridges = desired.bridges.iter().flat_map(|bridge| {
        bridge.gateways.iter().map(|address| (LinkId::host(bridge.name.clone()), address))
    });
    let ends = desired.ends().filter(|end| end.link.place == Place::Host);
    let ends = ends.flat_map(|end| end.addresses.iter().map(|address| (end.link.clone(), address)));
    let foreign: Vec<_> = observed
        .host
        .iter()
        .filter(|(_, seen)| !seen.owned && !seen.unclaimed)
        .flat_map(|(owner, seen)| seen.addresses.iter().map(move |address| (owner, address)))
        .collect();
    for (link, wanted) in bridges.chain(ends) {
        let overlaps =
            |address: &IpNet| address.contains(&wanted.network()) || wanted.contains(&address.network());
        if let Some((owner, address)) = foreign.iter().find(|(_, address)| overlaps(address)) {
            let (wanted, address, owner) = (wanted.trunc(), **address, (*owner).clone());
            return Err(PlanError::Overlap { wanted, link, address, owner });
        }
        if let Some(route) = occupied_routes(desired, observed).find(|route| overlaps(&route.to)) {
            let route = Box::new(route.clone());
            return Err(PlanError::OverlapRoute { wanted: wanted.trunc(), link, route });
        }
    }
    Ok(())
}
