//! What of everything that was seen is watched.

use std::collections::BTreeSet;

use super::{Watched, WatchedNetns};
use crate::{
    discover::{Source, choice::Choice},
    topology::{
        Topology,
        names::{Cookie, IfName, NsName, Place},
    },
};

/// What a file names: it is watched whatever was chosen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filed {
    namespaces: BTreeSet<NsName>,
    interfaces: BTreeSet<(NsName, IfName)>,
}

impl Filed {
    /// All of a topology.
    pub fn new(topology: &Topology) -> Self {
        let counted = topology.counted().filter_map(|link| topology.counted_as(link));
        let inside = counted.filter_map(|link| match &link.place {
            Place::Netns(netns) => Some((netns.clone(), link.name.clone())),
            Place::Host => None,
        });
        Self {
            namespaces: topology.namespaces.iter().map(|netns| netns.name.clone()).collect(),
            interfaces: inside.collect(),
        }
    }

    /// By which of its names the file has this namespace.
    pub fn name<'a>(&'a self, netns: &WatchedNetns) -> Option<&'a NsName> {
        // Of the first directory of names these are bare, otherwise paths.
        let mut named = netns.aliases.iter().filter(|(source, _)| *source == Source::Named);
        named.find_map(|(_, alias)| self.namespaces.iter().find(|name| name.as_str() == alias))
    }
}

impl Watched {
    /// Leaves out what is not chosen.
    pub fn choose(&mut self, choice: &Choice, filed: &Filed) {
        for mut netns in std::mem::take(&mut self.namespaces) {
            let name = filed.name(&netns);
            if name.is_none() && !choice.netns.is_all() && !netns.asked {
                self.undecided.insert(netns.cookie);
            } else if name.is_none() && !choice.netns.takes(&netns.label) {
                self.left_out.insert(netns.cookie);
            } else {
                let is_filed = |interface: &str| {
                    let mut of_it = filed.interfaces.iter().filter(|(netns, _)| Some(netns) == name);
                    of_it.any(|(_, filed)| filed.as_str() == interface)
                };
                netns.links.retain(|watched| {
                    choice.interface.takes(&watched.link.name) || is_filed(&watched.link.name)
                });
                self.namespaces.push(netns);
            }
        }
    }

    /// Beyond `most` namespaces (0: no ceiling) the others are cut: first stay those of the file, then those that were shown
    /// until now, then those that were seen first. So none comes and goes while the others stay.
    pub fn cut(&mut self, most: usize, filed: &Filed, shown: &BTreeSet<Cookie>) {
        let mut order: Vec<(bool, bool, u64, Cookie)> = self
            .namespaces
            .iter()
            .map(|netns| {
                (filed.name(netns).is_none(), !shown.contains(&netns.cookie), netns.since, netns.cookie)
            })
            .collect();
        order.sort_unstable();
        let stay = if most == 0 { order.len() } else { most };
        self.cut = order.into_iter().skip(stay).map(|(.., cookie)| cookie).collect();
    }

    /// Those that have series of their own.
    pub fn shown(&self) -> BTreeSet<Cookie> {
        let all = self.namespaces.iter().map(|netns| netns.cookie);
        all.filter(|cookie| !self.cut.contains(cookie)).collect()
    }
}
