//! Which two links are one veth pair, as far as indexes tell.

use std::collections::BTreeMap;

use super::super::{Observed, ObservedLink, names::LinkId};

/// The other ends of veths.
///
/// The kernel shows of a peer only its index in a namespace it does not name, and new namespaces count alike: two pairs between
/// namespaces often have the same indexes. A peer is known here only where a single link fits, seen from both sides.
/// For the same reason two such pairs that were joined crosswise under the same four names pass for the wanted ones.
pub(super) struct Peers {
    /// Links by their own index and their peer's.
    by_index: BTreeMap<(u32, u32), Vec<LinkId>>,
}

impl Peers {
    pub(super) fn new(observed: &Observed) -> Self {
        let mut by_index: BTreeMap<(u32, u32), Vec<LinkId>> = BTreeMap::new();
        for (id, link) in links(observed).filter(|(_, link)| link.kind == "veth") {
            if let Some(peer) = link.peer_ifindex {
                by_index.entry((link.ifindex, peer)).or_default().push(id);
            }
        }
        Self { by_index }
    }

    /// The other end of this link, where only one can be it.
    pub(super) fn of(&self, id: &LinkId, link: &ObservedLink) -> Option<&LinkId> {
        let (own, peer) = (link.ifindex, link.peer_ifindex?);
        let only = |key: (u32, u32), but: &LinkId| {
            let mut fitting = self.by_index.get(&key)?.iter().filter(|other| *other != but);
            fitting.next().filter(|_| fitting.next().is_none())
        };
        let found = only((peer, own), id)?;
        (only((own, peer), found)? == id).then_some(found)
    }
}

/// Every link, the host's first.
pub(super) fn links(observed: &Observed) -> impl Iterator<Item = (LinkId, &ObservedLink)> {
    let host = observed.host.iter().map(|(name, link)| (LinkId::host(name.clone()), link));
    let inside = observed.namespaces.iter().flat_map(|(netns, seen)| {
        seen.links.iter().map(|(name, link)| (LinkId::inside(netns.clone(), name.clone()), link))
    });
    host.chain(inside)
}
