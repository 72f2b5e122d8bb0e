//! What stands in the way of a plan: things of others, which are never changed.

use ipnet::IpNet;

use super::{
    super::{
        Observed, Topology,
        names::{LinkId, Place},
    },
    PlanError,
    peers::Peers,
};

/// Names that are wanted and belong to something we did not make.
pub(super) fn foreign(desired: &Topology, observed: &Observed, peers: &Peers) -> Result<(), PlanError> {
    for netns in &desired.namespaces {
        if observed.namespaces.get(&netns.name).is_some_and(|seen| !seen.owned) {
            return Err(PlanError::Foreign { what: format!("namespace {}", netns.name) });
        }
    }
    let bridges = desired.bridges.iter().map(|bridge| LinkId::host(bridge.name.clone()));
    for link in bridges.chain(desired.ends().map(|end| end.link.clone())) {
        let Some(seen) = observed.link(&link) else { continue };
        // A pair gets its tags after it was made; a crash in between leaves it with one or none.
        let peer = peers.of(&link, seen).and_then(|peer| observed.link(peer));
        let ours = seen.owned || seen.unclaimed || peer.is_some_and(|peer| peer.owned);
        if !ours || !matches!(seen.kind.as_str(), "bridge" | "veth") {
            return Err(PlanError::Foreign { what: format!("{} {link}", seen.kind) });
        }
    }
    Ok(())
}

/// The host's own networks stay reachable: no prefix of ours on the host may overlap an address that is not ours.
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
    }
    Ok(())
}
