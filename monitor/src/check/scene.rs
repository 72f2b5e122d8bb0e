//! What was seen, and what follows from it: which links belong together, which addresses. Pure.

use std::{collections::BTreeMap, net::IpAddr};

use ipnet::IpNet;

use crate::{
    reconcile::site::{Closer, Site, SiteLink, Way},
    topology::{
        Route,
        names::{IfName, LinkId, Place},
        step::{At, In},
    },
};

/// Everything that was looked at.
#[derive(Clone, Debug, Default)]
pub struct Scene {
    /// Places: the host, the namespaces that are checked, and those they are wired to.
    pub sites: BTreeMap<Place, Site>,
    /// Routes of each that the kernel did not make.
    pub routes: BTreeMap<Place, Vec<Route>>,
    /// The name of nft tables of ours.
    pub table: String,
    /// Where a place would send packets for an address; filled in when an echo was lost.
    pub ways: BTreeMap<(Place, IpAddr), Way>,
    /// Settings and rules before and after lost echoes were sent again; filled in then.
    pub closer: BTreeMap<Place, [Closer; 2]>,
}

/// What is behind an interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Other {
    /// A bridge of the host, of which the other end is a port, or should be.
    Bridge {
        /// The other end.
        port: LinkId,
        /// The bridge.
        bridge: LinkId,
    },
    /// The other end of the pair.
    End(LinkId),
    /// Something that is out of sight, or no veth.
    Unknown,
}

impl Scene {
    /// The link, if it is there.
    pub fn link(&self, id: &LinkId) -> Option<&SiteLink> {
        self.sites.get(&id.place)?.links.get(&id.name)
    }

    /// Every link.
    pub fn links(&self) -> impl Iterator<Item = (LinkId, &SiteLink)> {
        self.sites.iter().flat_map(|(place, site)| {
            let id = |name: &IfName| LinkId { place: place.clone(), name: name.clone() };
            site.links.iter().map(move |(name, link)| (id(name), link))
        })
    }

    /// The other end of a veth pair: by the alias that our host ends have, else by both indexes. Indexes repeat: where
    /// several fit, it is the one with an address of the same subnet.
    pub fn peer(&self, id: &LinkId) -> Option<LinkId> {
        let link = self.link(id).filter(|link| link.kind == "veth")?;
        let fits = |other: &SiteLink| {
            other.kind == "veth"
                && other.peer_ifindex == Some(link.ifindex)
                && Some(other.ifindex) == link.peer_ifindex
        };
        let fitting: Vec<(LinkId, &SiteLink)> =
            self.links().filter(|(other, seen)| other != id && fits(seen)).collect();
        let by_alias = fitting.iter().find(|(other, seen)| match (&other.place, &id.place) {
            (Place::Host, Place::Netns(_)) => seen.serves(id),
            (Place::Netns(_), Place::Host) => link.serves(other),
            _ => false,
        });
        let same_net = |seen: &SiteLink| {
            let nets = || link.addresses.iter().filter(|address| !address.link_local);
            seen.addresses.iter().any(|other| nets().any(|own| own.net.contains(&other.net.addr())))
        };
        by_alias
            .or(match &fitting[..] {
                [one] => Some(one),
                _ => fitting.iter().find(|(_, seen)| same_net(seen)),
            })
            .map(|(other, _)| other.clone())
    }

    /// What is behind an interface of a namespace.
    pub fn other(&self, id: &LinkId) -> Other {
        let Some(peer) = self.peer(id) else { return Other::Unknown };
        let Some(seen) = self.link(&peer).filter(|_| peer.place == Place::Host) else {
            return Other::End(peer);
        };
        let bridge = match &seen.bridge {
            Some(bridge) if self.shares_net(id, bridge) => Some(bridge.clone()),
            Some(bridge) => self.bridge_for(id).or(Some(bridge.clone())),
            None if seen.addresses.iter().any(|address| !address.link_local) => None,
            None => self.bridge_for(id),
        };
        match bridge {
            Some(name) => Other::Bridge { port: peer, bridge: LinkId::host(name) },
            None => Other::End(peer),
        }
    }

    /// The bridge of ours whose subnet an interface has an address of.
    fn bridge_for(&self, id: &LinkId) -> Option<IfName> {
        let host = &self.sites.get(&Place::Host)?.links;
        let mut bridges = host.iter().filter(|(_, link)| link.kind == "bridge" && link.ours);
        bridges.find(|(name, _)| self.shares_net(id, name)).map(|(name, _)| name.clone())
    }

    fn shares_net(&self, id: &LinkId, bridge: &IfName) -> bool {
        let all = |id: &LinkId| [false, true].map(|ipv6| self.addresses(id, ipv6)).concat();
        let nets = all(&LinkId::host(bridge.clone()));
        all(id).iter().any(|own| nets.iter().any(|net| net.contains(&own.addr())))
    }

    /// Links of the way from one to another that are on one wire, both included: an interface, its other end, the bridge,
    /// and the same on the other side.
    pub fn wire(&self, from: &LinkId, to: Option<&LinkId>) -> Vec<LinkId> {
        let mut links = self.half(from);
        if let Some(to) = to {
            let mut back = self.half(to);
            back.reverse();
            links.extend(back);
        }
        let mut seen = Vec::new();
        for link in links {
            if !seen.contains(&link) {
                seen.push(link);
            }
        }
        seen
    }

    fn half(&self, id: &LinkId) -> Vec<LinkId> {
        match (&id.place, self.other(id)) {
            (Place::Netns(_), Other::Bridge { port, bridge }) => vec![id.clone(), port, bridge],
            (_, Other::End(peer)) => vec![id.clone(), peer],
            _ => vec![id.clone()],
        }
    }

    /// Addresses of a link that others can use, with prefix length.
    pub fn addresses(&self, id: &LinkId, ipv6: bool) -> Vec<IpNet> {
        let all = self.link(id).into_iter().flat_map(|link| &link.addresses);
        let fitting = all.filter(|address| !address.link_local && address.net.addr().is_ipv6() == ipv6);
        fitting.map(|address| address.net).collect()
    }

    /// The address that is for this link alone.
    pub fn link_local(&self, id: &LinkId) -> Option<IpAddr> {
        let all = &self.link(id)?.addresses;
        all.iter().find(|address| address.link_local && address.usable).map(|address| address.net.addr())
    }

    /// The link that has this address, in any place but one.
    pub fn owner(&self, address: IpAddr, but: &Place) -> Option<LinkId> {
        let has = |link: &SiteLink| link.addresses.iter().any(|own| own.net.addr() == address);
        self.links().find(|(id, link)| id.place != *but && has(link)).map(|(id, _)| id)
    }

    /// Whether the bridge keeps the ports of both apart.
    pub fn kept_apart(&self, a: &LinkId, b: &LinkId) -> bool {
        let isolated = |id: &LinkId| match self.other(id) {
            Other::Bridge { port, .. } => self.link(&port).is_some_and(|port| port.isolated),
            _ => false,
        };
        isolated(a) && isolated(b)
    }

    /// A setting of a place as it was read last.
    pub fn setting(&self, place: &Place, path: &str) -> Option<&str> {
        let [_, after] = self.closer.get(place)?;
        after.settings.get(path).map(String::as_str)
    }
}

/// `ip`, or `ip -n NETNS`.
pub fn ip(place: &Place) -> String {
    At(place).to_string()
}

/// Nothing, or `ip netns exec NETNS `.
pub fn within(place: &Place) -> String {
    In(place).to_string()
}

/// `the host`, or the name of the namespace.
pub fn named(place: &Place) -> String {
    match place {
        Place::Host => "the host".to_owned(),
        Place::Netns(netns) => netns.to_string(),
    }
}
