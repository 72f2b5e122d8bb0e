//! Whom to send echoes to, from where. Pure.

use std::{collections::BTreeSet, net::IpAddr};

use ipnet::IpNet;

use super::{
    nat,
    scene::{Other, Scene},
};
use crate::{
    reconcile::site::SiteLink,
    topology::{
        Route,
        names::{LinkId, NsName, Place},
        route::MAIN,
    },
};

/// What an echo is to show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// That the namespace reaches itself.
    Lo,
    /// That two ends of a pair reach each other.
    Peer,
    /// That an interface and its gateway reach each other.
    Gateway,
    /// That two namespaces on a bridge reach each other.
    Neighbour,
    /// That the outside answers.
    Outside,
}

/// One direction of one wire, in one family.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probe {
    /// The namespace it is about.
    pub netns: NsName,
    /// What it is to show.
    pub what: What,
    /// IPv6, else IPv4.
    pub ipv6: bool,
    /// The link it leaves by.
    pub from: LinkId,
    /// Whom it asks; absent where there is no address.
    pub to: Option<IpAddr>,
    /// The link that has that address, where it is in sight.
    pub at: Option<LinkId>,
    /// What need not be asked, and why.
    pub unasked: Option<Unasked>,
}

/// Why nothing is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unasked {
    /// One side has no address of this family, and others of another.
    NoAddress,
    /// Neither side has an address: that the link is up is all there is to see.
    Unnumbered,
    /// The bridge keeps the two apart, as somebody wants it.
    Apart,
    /// Its packets are neither translated nor routed: it has no outside.
    NoWayOut,
    /// An address that should be there is not.
    Missing,
}

/// What is asked of [`probes`].
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    /// The namespaces.
    pub namespaces: Vec<NsName>,
    /// Those that were asked for, and are not there.
    pub absent: Vec<NsName>,
    /// Those of them that are ours or adopted: of these, links of others are not looked at.
    pub wired: BTreeSet<NsName>,
    /// Those whose `lo` the file wants down.
    pub without_lo: BTreeSet<NsName>,
    /// Addresses outside.
    pub outside: Vec<IpAddr>,
    /// Addresses outside to which the file gives a namespace no way.
    pub inward: BTreeSet<(NsName, IpAddr)>,
    /// Whether the namespaces were named one by one.
    pub named: bool,
}

impl Wanted {
    /// Whether a namespace was asked for by name, there or not.
    pub fn includes(&self, netns: &NsName) -> bool {
        self.namespaces.contains(netns) || self.absent.contains(netns)
    }
}

/// Every echo there is to send, in the order of the report.
pub fn probes(scene: &Scene, wanted: &Wanted) -> Vec<Probe> {
    let mut probes = Vec::new();
    for netns in &wanted.namespaces {
        let mut of = Of { scene, netns, probes: Vec::new() };
        if !wanted.without_lo.contains(netns) {
            of.lo();
        }
        let interfaces = interfaces(scene, netns, wanted.wired.contains(netns));
        interfaces.iter().for_each(|id| of.interface(id));
        of.gateways(&interfaces);
        of.neighbours(&interfaces, &wanted.namespaces);
        for to in &wanted.outside {
            let inward = wanted.inward.contains(&(netns.clone(), *to));
            of.outside(&interfaces, *to, wanted.named, inward);
        }
        // A pair between two namespaces is met twice.
        let met = |new: &Probe| probes.iter().any(|old: &Probe| old.is_same(new));
        let new: Vec<Probe> = of.probes.into_iter().filter(|probe| !met(probe)).collect();
        probes.extend(new);
    }
    probes
}

impl Probe {
    /// Whether it asks an address that is for one link alone.
    pub fn is_link_local(&self) -> bool {
        matches!(self.to, Some(IpAddr::V6(to)) if to.is_unicast_link_local())
    }

    fn is_same(&self, other: &Self) -> bool {
        (&self.from, &self.to, &self.at, self.ipv6) == (&other.from, &other.to, &other.at, other.ipv6)
            && self.what == other.what
    }
}

/// Interfaces of a namespace that are to work: of a wired one those of ours, else all that are up.
pub fn interfaces(scene: &Scene, netns: &NsName, wired: bool) -> Vec<LinkId> {
    let Some(site) = scene.sites.get(&Place::Netns(netns.clone())) else { return Vec::new() };
    // A tunnel device of the kernel's own is in each namespace, and never up by itself.
    let concerns = |link: &SiteLink| {
        link.kind != "loopback" && link.bridge.is_none() && if wired { link.ours } else { link.up }
    };
    let fitting = site.links.iter().filter(|(_, link)| concerns(link));
    fitting.map(|(name, _)| LinkId::inside(netns.clone(), name.clone())).collect()
}

struct Of<'a> {
    scene: &'a Scene,
    netns: &'a NsName,
    probes: Vec<Probe>,
}

impl Of<'_> {
    fn add(&mut self, what: What, from: &LinkId, to: Option<IpAddr>, at: Option<&LinkId>, ipv6: bool) {
        self.put(what, from, to, at, ipv6, None);
    }

    fn put(
        &mut self,
        what: What,
        from: &LinkId,
        to: Option<IpAddr>,
        at: Option<&LinkId>,
        ipv6: bool,
        unasked: Option<Unasked>,
    ) {
        self.probes.push(Probe {
            netns: self.netns.clone(),
            what,
            ipv6,
            from: from.clone(),
            to,
            at: at.cloned(),
            unasked,
        });
    }

    fn lo(&mut self) {
        let Some(site) = self.scene.sites.get(&Place::Netns(self.netns.clone())) else { return };
        let Some((name, lo)) = site.links.iter().find(|(_, link)| link.kind == "loopback") else { return };
        let id = LinkId::inside(self.netns.clone(), name.clone());
        self.add(What::Lo, &id, Some([127, 0, 0, 1].into()), Some(&id), false);
        // Without IPv6 there is no ::1, and while it is down there is none either.
        let six: IpAddr = std::net::Ipv6Addr::LOCALHOST.into();
        if lo.addresses.iter().any(|address| address.net.addr() == six) {
            self.add(What::Lo, &id, Some(six), Some(&id), true);
        }
    }

    fn interface(&mut self, id: &LinkId) {
        match self.scene.other(id) {
            Other::Bridge { bridge, .. } => self.both(What::Gateway, id, &bridge),
            Other::End(peer) => self.both(What::Peer, id, &peer),
            Other::Unknown => {}
        }
    }

    /// An interface and what is behind it, in each family, both ways.
    fn both(&mut self, what: What, id: &LinkId, other: &LinkId) {
        let all = |link: &LinkId| [false, true].map(|ipv6| self.scene.addresses(link, ipv6));
        let (own, theirs) = (all(id), all(other));
        let has_none = |all: &[Vec<IpNet>; 2]| all.iter().all(Vec::is_empty);
        if has_none(&own) && has_none(&theirs) {
            return self.unnumbered(what, id, other);
        }
        // A bridge without an address has no gateway: its namespaces see each other alone.
        if what == What::Gateway && has_none(&theirs) {
            return;
        }
        let lacking = has_none(&own) || has_none(&theirs);
        for (ipv6, (own, theirs)) in [false, true].into_iter().zip(own.iter().zip(&theirs)) {
            for (here, there) in pairs(own, theirs) {
                let unasked = match (here, there) {
                    (Some(_), Some(_)) => None,
                    _ if lacking => Some(Unasked::Missing),
                    _ => Some(Unasked::NoAddress),
                };
                self.put(what, id, there, Some(other), ipv6, unasked);
                self.put(what, other, here, Some(id), ipv6, unasked);
            }
        }
    }

    fn unnumbered(&mut self, what: What, id: &LinkId, other: &LinkId) {
        let (here, there) = (self.scene.link_local(id), self.scene.link_local(other));
        let unasked = (here.is_none() || there.is_none()).then_some(Unasked::Unnumbered);
        self.put(what, id, there, Some(other), true, unasked);
        self.put(what, other, here, Some(id), true, unasked);
    }

    /// Next hops of default routes that no wire leads to.
    fn gateways(&mut self, interfaces: &[LinkId]) {
        let routes = self.scene.routes.get(&Place::Netns(self.netns.clone())).into_iter().flatten();
        for route in routes.filter(|route| route.to.prefix_len() == 0 && route.table == MAIN) {
            let (Some(via), Some(dev)) = (route.via, &route.dev) else { continue };
            let id = LinkId::inside(self.netns.clone(), dev.clone());
            let asked = |probe: &Probe| probe.to == Some(via) && probe.from == id;
            if !interfaces.contains(&id) || self.probes.iter().any(asked) {
                continue;
            }
            let owner = self.scene.owner(via, &id.place);
            self.add(What::Gateway, &id, Some(via), owner.as_ref(), via.is_ipv6());
        }
    }

    /// The next namespace on the same bridge, and the one before: each port sends to and hears from another.
    fn neighbours(&mut self, interfaces: &[LinkId], namespaces: &[NsName]) {
        for id in interfaces {
            let Other::Bridge { bridge, .. } = self.scene.other(id) else { continue };
            let on = |other: &LinkId| matches!(self.scene.other(other), Other::Bridge { bridge: found, .. } if found == bridge);
            let ports: Vec<LinkId> = namespaces
                .iter()
                .filter_map(|netns| interfaces_of(self.scene, netns).into_iter().find(|other| on(other)))
                .collect();
            let Some(own) = ports.iter().position(|port| port == id) else { continue };
            let around = [own.checked_sub(1), Some(own + 1)];
            let around = around.into_iter().flatten().filter_map(|index| ports.get(index));
            for other in around {
                for ipv6 in [false, true] {
                    let own = self.scene.addresses(id, ipv6);
                    let theirs = self.scene.addresses(other, ipv6);
                    let same = theirs.iter().find(|net| own.iter().any(|own| own.contains(&net.addr())));
                    let Some(to) = same else { continue };
                    let apart = self.scene.kept_apart(id, other).then_some(Unasked::Apart);
                    self.put(What::Neighbour, id, Some(to.addr()), Some(other), ipv6, apart);
                }
            }
        }
    }

    fn outside(&mut self, interfaces: &[LinkId], to: IpAddr, named: bool, inward: bool) {
        let place = Place::Netns(self.netns.clone());
        let routes = self.scene.routes.get(&place).map(Vec::as_slice).unwrap_or_default();
        let leads = |route: &&Route| route.to.contains(&to) && route.table == MAIN;
        let route = routes.iter().filter(leads).max_by_key(|route| route.to.prefix_len());
        let by_route =
            route.and_then(|route| Some(LinkId { place: place.clone(), name: route.dev.clone()? }));
        let bridged = |id: &&LinkId| matches!(self.scene.other(id), Other::Bridge { .. });
        let Some(from) = by_route.or_else(|| interfaces.iter().find(bridged).or(interfaces.first()).cloned())
        else {
            return;
        };
        let own = self.scene.addresses(&from, to.is_ipv6());
        let translated = match self.scene.closer.get(&Place::Host) {
            Some([rules, _]) => nat::of(rules.ruleset.as_ref(), &self.scene.table, &own),
            None => nat::Nat::Unknown,
        };
        let hopeless = match translated {
            nat::Nat::Translated => false,
            // Others are, so this one is not by intention.
            nat::Nat::OthersAre => true,
            nat::Nat::Unknown => route.is_none(),
        };
        let unasked = (inward || hopeless && !named).then_some(Unasked::NoWayOut);
        self.put(What::Outside, &from, Some(to), None, to.is_ipv6(), unasked);
    }
}

fn interfaces_of(scene: &Scene, netns: &NsName) -> Vec<LinkId> {
    let Some(site) = scene.sites.get(&Place::Netns(netns.clone())) else { return Vec::new() };
    site.links.keys().map(|name| LinkId::inside(netns.clone(), name.clone())).collect()
}

/// Which of two sides' addresses belong together: for each of theirs the one of ours in its subnet; where none is, the
/// first of each side.
fn pairs(own: &[IpNet], theirs: &[IpNet]) -> Vec<(Option<IpAddr>, Option<IpAddr>)> {
    let mut pairs = Vec::new();
    for net in theirs {
        let fitting = own.iter().find(|own| net.contains(&own.addr()) || own.contains(&net.addr()));
        if let Some(own) = fitting {
            pairs.push((Some(own.addr()), Some(net.addr())));
        }
    }
    if pairs.is_empty() && !(own.is_empty() && theirs.is_empty()) {
        pairs.push((own.first().map(IpNet::addr), theirs.first().map(IpNet::addr)));
    }
    pairs
}
