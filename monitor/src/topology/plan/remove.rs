//! Deleting what is ours: links first, so that nothing lingers while the kernel takes a namespace apart; bridges last.

use std::collections::BTreeSet;

use super::{
    super::{
        Observed, ObservedLink,
        names::{IfName, LinkId, NsName, Place},
        step::Step,
    },
    peers::{self, Peers},
};

/// Deletions so far, and what they take along.
pub(super) struct Removal<'a> {
    observed: &'a Observed,
    peers: &'a Peers,
    /// Links that are gone after the steps so far.
    gone: BTreeSet<LinkId>,
}

impl<'a> Removal<'a> {
    pub(super) fn new(observed: &'a Observed, peers: &'a Peers) -> Self {
        Self { observed, peers, gone: BTreeSet::new() }
    }

    pub(super) fn is_gone(&self, link: &LinkId) -> bool {
        self.gone.contains(link)
    }

    /// Another step takes it from where it is.
    pub(super) fn note_gone(&mut self, link: &LinkId) {
        self.gone.insert(link.clone());
    }

    /// Deletes a link, unless it went before with its peer. An end without our tag goes by the one that has it.
    pub(super) fn delete(&mut self, link: &LinkId, steps: &mut Vec<Step>) {
        let Some(seen) = self.observed.link(link).filter(|_| !self.is_gone(link)) else { return };
        let peer = self.peers.of(link, seen).cloned();
        let by = match &peer {
            Some(peer) if !seen.owned => peer,
            _ => link,
        };
        steps.push(Step::DeleteLink { link: by.clone() });
        self.gone.extend([link.clone()].into_iter().chain(peer));
    }

    /// Deletes those of ours that are chosen, and whatever is in the chosen namespaces.
    pub(super) fn sweep(
        &mut self,
        links: &dyn Fn(&LinkId) -> bool,
        namespaces: &dyn Fn(&NsName) -> bool,
        bridges: &dyn Fn(&IfName) -> bool,
        steps: &mut Vec<Step>,
    ) {
        let going: BTreeSet<&NsName> = self
            .observed
            .namespaces
            .iter()
            .filter(|(name, netns)| netns.owned && namespaces(name))
            .map(|(name, _)| name)
            .collect();
        let goes = |link: &LinkId| matches!(&link.place, Place::Netns(name) if going.contains(name));
        for (link, seen) in peers::links(self.observed) {
            if is_ours(seen)
                && matches!(seen.kind.as_str(), "veth" | "macvlan")
                && (links(&link) || goes(&link))
            {
                self.delete(&link, steps);
            }
        }
        for (link, seen) in peers::links(self.observed).filter(|(link, _)| goes(link)) {
            self.gone.extend(self.peers.of(&link, seen).cloned());
            self.gone.insert(link);
        }
        steps.extend(going.into_iter().map(|name| Step::DeleteNetns { name: name.clone() }));
        for (name, seen) in &self.observed.host {
            if is_ours(seen) && seen.kind == "bridge" && bridges(name) {
                self.delete(&LinkId::host(name.clone()), steps);
            }
        }
    }
}

/// Tagged, or left by a crash before it was: that one is as it was made, down and no port.
fn is_ours(seen: &ObservedLink) -> bool {
    seen.owned || (seen.unclaimed && !seen.up && seen.bridge.is_none())
}
