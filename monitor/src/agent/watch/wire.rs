//! Which link leads where, from what each namespace's links say of themselves. Pure.
//!
//! Interface indexes repeat across namespaces. Of a veth pair each end says the other's index and the number by which its own
//! namespace knows the other's: only both together say who it is.

use std::collections::{BTreeMap, BTreeSet};

use crate::{discover::netlink::Link, probe::Side, topology::names::Cookie};

/// A namespace with its links.
pub(super) struct Place<'a> {
    pub(super) cookie: Cookie,
    /// The number the host's namespace knows it by.
    pub(super) nsid: Option<i32>,
    pub(super) links: &'a [Link],
}

/// Where a link is counted, and its other end: the namespace (none: the host's) and the name there.
pub(super) type Wire = (Option<Side>, Option<(Option<Cookie>, String)>);

/// Every link of the host and of its namespaces.
pub(super) struct Ends<'a> {
    host: BTreeMap<u32, &'a Link>,
    /// Whether loopback is counted too.
    lo: bool,
    places: Vec<Place<'a>>,
    by_cookie: BTreeMap<Cookie, usize>,
    /// Ends of veth pairs by their own index and the other's.
    pairs: BTreeMap<(u32, u32), Vec<(Cookie, &'a Link)>>,
}

impl<'a> Ends<'a> {
    pub(super) fn new(host: &'a [Link], places: Vec<Place<'a>>, lo: bool) -> Self {
        let mut pairs: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for place in &places {
            for link in place.links.iter().filter(|link| link.kind == "veth") {
                if let Some(peer) = link.peer_ifindex {
                    pairs.entry((link.ifindex, peer)).or_default().push((place.cookie, link));
                }
            }
        }
        let by_cookie = places.iter().enumerate().map(|(at, place)| (place.cookie, at)).collect();
        Self { host: host.iter().map(|link| (link.ifindex, link)).collect(), lo, places, by_cookie, pairs }
    }

    /// Namespaces to ask by which number they know which others: more than one link could be the other end.
    pub(super) fn doubts(&self) -> BTreeMap<Cookie, BTreeSet<Cookie>> {
        let mut doubts: BTreeMap<_, BTreeSet<_>> = BTreeMap::new();
        for (place, link) in self.veths() {
            if self.host_end(place, link).is_some() {
                continue;
            }
            let candidates = self.candidates(place, link);
            if candidates.len() > 1 {
                doubts.entry(place.cookie).or_default().extend(candidates.iter().map(|(cookie, _)| *cookie));
            }
        }
        doubts
    }

    /// Every link (loopback where it is counted), by namespace and index. `numbers` has the answers for [`Ends::doubts`].
    pub(super) fn wires(&self, numbers: &BTreeMap<(Cookie, Cookie), i32>) -> BTreeMap<(Cookie, u32), Wire> {
        let mut wires = BTreeMap::new();
        for place in &self.places {
            for link in place.links.iter().filter(|link| self.lo || link.kind != "loopback") {
                let inside = Side::Inside { ifindex: link.ifindex };
                let wire = match self.host_end(place, link) {
                    Some(end) => (Side::HostEnd { ifindex: end.ifindex }, Some((None, end.name.clone()))),
                    None => {
                        let peer = self.peer(place, link, numbers);
                        (inside, peer.map(|(cookie, peer)| (Some(cookie), peer.name.clone())))
                    }
                };
                wires.insert((place.cookie, link.ifindex), (Some(wire.0), wire.1));
            }
        }
        wires
    }

    fn veths(&self) -> impl Iterator<Item = (&Place<'a>, &'a Link)> {
        let of = |place: &'_ Place<'a>| place.links.iter().filter(|link| link.kind == "veth");
        self.places.iter().flat_map(move |place| of(place).map(move |link| (place, link)))
    }

    /// The end in the host's namespace.
    fn host_end(&self, place: &Place<'a>, link: &Link) -> Option<&'a Link> {
        let end = self.host.get(&link.peer_ifindex?)?;
        let points_back = end.kind == "veth" && end.peer_ifindex == Some(link.ifindex);
        // A namespace that the host's knows by no number has no pair with it: to show the other end the kernel gives one.
        let is_there = end.peer_nsid.is_some() && end.peer_nsid == place.nsid;
        (link.kind == "veth" && link.peer_nsid.is_some() && points_back && is_there).then_some(*end)
    }

    fn candidates(&self, place: &Place<'a>, link: &Link) -> Vec<(Cookie, &'a Link)> {
        let Some(peer) = link.peer_ifindex.filter(|_| link.kind == "veth") else { return Vec::new() };
        let found = self.pairs.get(&(peer, link.ifindex)).map_or(&[][..], Vec::as_slice);
        let fits = |cookie: Cookie, other: &Link| match link.peer_nsid {
            // Both ends are in one namespace.
            None => cookie == place.cookie && other.ifindex != link.ifindex,
            Some(_) => cookie != place.cookie && other.peer_nsid.is_some(),
        };
        let here = |cookie: &Cookie| self.by_cookie.get(cookie).map(|&at| &self.places[at]);
        let elsewhere = |cookie: &Cookie, other: &Link| {
            here(cookie).is_some_and(|place| self.host_end(place, other).is_none())
        };
        let fits = found.iter().filter(|(cookie, other)| fits(*cookie, other) && elsewhere(cookie, other));
        fits.copied().collect()
    }

    fn peer(
        &self,
        place: &Place<'a>,
        link: &Link,
        numbers: &BTreeMap<(Cookie, Cookie), i32>,
    ) -> Option<(Cookie, &'a Link)> {
        let candidates = self.candidates(place, link);
        match candidates[..] {
            [one] => Some(one),
            _ => {
                let number = |cookie: Cookie| numbers.get(&(place.cookie, cookie)).copied();
                candidates
                    .into_iter()
                    .find(|(cookie, _)| number(*cookie).is_some() && number(*cookie) == link.peer_nsid)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::topology::LinkStats;

    fn veth(name: &str, ifindex: u32, peer: u32, nsid: i32) -> Link {
        Link {
            ifindex,
            name: name.to_owned(),
            kind: "veth".to_owned(),
            mac: None,
            mtu: 1500,
            running: true,
            peer_ifindex: Some(peer),
            peer_nsid: (nsid >= 0).then_some(nsid),
            controller: None,
            stats: LinkStats::default(),
            xdp: false,
        }
    }

    fn place(cookie: u64, nsid: i32, links: &[Link]) -> Place<'_> {
        Place { cookie: Cookie(cookie), nsid: Some(nsid), links }
    }

    #[test]
    fn the_hosts_end_is_told_by_index_and_number_together() {
        // Two containers whose eth0 has one index, and a pair between them with the numbers of another.
        let host = [veth("a-eth0", 5, 2, 0), veth("b-eth0", 6, 2, 1)];
        let (a, b) = ([veth("eth0", 2, 5, 0)], [veth("eth0", 2, 6, 0), veth("x", 5, 2, 3)]);
        let ends = Ends::new(&host, vec![place(10, 0, &a), place(11, 1, &b)], false);
        let wires = ends.wires(&BTreeMap::new());
        let side = |cookie, ifindex| wires[&(Cookie(cookie), ifindex)].0;
        assert_eq!(side(10, 2), Some(Side::HostEnd { ifindex: 5 }));
        assert_eq!(side(11, 2), Some(Side::HostEnd { ifindex: 6 }));
        assert_eq!(side(11, 5), Some(Side::Inside { ifindex: 5 }));
        assert_eq!(wires[&(Cookie(11), 2)].1, Some((None, "b-eth0".to_owned())));
    }

    #[test]
    fn pairs_between_namespaces_name_each_other_and_doubts_are_asked() {
        // a-b and c-d with the same indexes.
        let (a, b) = ([veth("to-b", 2, 3, 0)], [veth("to-a", 3, 2, 0)]);
        let (c, d) = ([veth("to-d", 2, 3, 0)], [veth("to-c", 3, 2, 4)]);
        let places = || vec![place(1, 0, &a), place(2, 1, &b), place(3, 2, &c), place(4, 3, &d)];
        let one = Ends::new(&[], places().into_iter().take(2).collect(), false);
        assert!(one.doubts().is_empty());
        assert_eq!(
            one.wires(&BTreeMap::new())[&(Cookie(1), 2)].1,
            Some((Some(Cookie(2)), "to-a".to_owned()))
        );
        let ends = Ends::new(&[], places(), false);
        assert_eq!(ends.doubts()[&Cookie(1)], BTreeSet::from([Cookie(2), Cookie(4)]));
        assert_eq!(ends.wires(&BTreeMap::new())[&(Cookie(1), 2)].1, None, "neither is named");
        let numbers = BTreeMap::from([((Cookie(4), Cookie(1)), 7), ((Cookie(4), Cookie(3)), 4)]);
        assert_eq!(ends.wires(&numbers)[&(Cookie(4), 3)].1, Some((Some(Cookie(3)), "to-d".to_owned())));
    }

    #[test]
    fn both_ends_in_one_namespace_are_each_others_peer() {
        let both = [veth("x", 2, 3, -1), veth("y", 3, 2, -1)];
        let ends = Ends::new(&[], vec![place(1, 0, &both)], false);
        let wires = ends.wires(&BTreeMap::new());
        assert_eq!(wires[&(Cookie(1), 2)].1, Some((Some(Cookie(1)), "y".to_owned())));
        assert_eq!(wires[&(Cookie(1), 3)].0, Some(Side::Inside { ifindex: 3 }));
    }
}
