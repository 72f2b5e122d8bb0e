//! Why an echo was not answered: the way of a packet is followed from link to link, and the first thing on it that is not as
//! it must be is the reason. Pure.

mod rules;
mod stack;
mod way;
mod wire;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use super::{
    filter::Packet,
    ping::Answer,
    scene::{Scene, named},
    targets::{Probe, Unasked, What},
};
use crate::{
    reconcile::site::Way,
    topology::names::{LinkId, Place},
};

/// Why, and what would mend it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cause {
    /// One word for programs: `link_down`, `no_route`, and so on.
    pub kind: &'static str,
    /// Where it is.
    pub place: Place,
    /// A sentence.
    pub what: String,
    /// A line for a shell; absent where nobody but the reader can know.
    pub mend: Option<String>,
}

/// What came of a probe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Every echo was answered.
    Fine,
    /// As [`Verdict::Fine`], but only at the second try.
    Late,
    /// It need not work, for this reason.
    Excused(&'static str),
    /// It does not work.
    Failed(Cause),
}

/// One probe that failed.
pub(super) struct Case<'a> {
    scene: &'a Scene,
    probe: &'a Probe,
    answer: Answer,
}

/// Whether a probe is to be looked into.
pub fn is_wrong(scene: &Scene, probe: &Probe, answer: &Answer, count: u32) -> bool {
    match probe.unasked {
        None => answer.received < count,
        Some(Unasked::Missing) => true,
        // Nothing was sent; a wire that is down is wrong all the same.
        Some(Unasked::Unnumbered) => Case { scene, probe, answer: *answer }.wire().is_some(),
        Some(_) => false,
    }
}

/// Why a probe failed, or that it may.
pub fn verdict(scene: &Scene, probe: &Probe, answer: Answer, count: u32) -> Verdict {
    let case = Case { scene, probe, answer };
    if probe.unasked.is_none() && answer.received >= count {
        return Verdict::Late;
    }
    if probe.what == What::Neighbour && case.isolated() {
        return Verdict::Excused("apart");
    }
    let cause = match answer.received {
        0 => case.cause(),
        // The way is there.
        received => case.lossy(received),
    };
    Verdict::Failed(cause)
}

/// What is asked of the kernel to decide that: for which addresses a place has a way.
pub fn questions<'a>(
    scene: &Scene,
    probes: impl Iterator<Item = &'a Probe>,
) -> BTreeMap<Place, BTreeSet<IpAddr>> {
    let mut asked: BTreeMap<Place, BTreeSet<IpAddr>> = BTreeMap::new();
    for probe in probes {
        let Some(to) = probe.to else { continue };
        if is_link_local(to) {
            continue;
        }
        asked.entry(probe.from.place.clone()).or_default().insert(to);
        let sources = scene.addresses(&probe.from, probe.ipv6);
        let back = match (&probe.at, probe.what) {
            (Some(at), _) => at.place.clone(),
            // The host sends it on.
            (None, _) => {
                asked.entry(Place::Host).or_default().insert(to);
                Place::Host
            }
        };
        asked.entry(back).or_default().extend(sources.iter().map(ipnet::IpNet::addr));
    }
    asked.retain(|place, _| scene.sites.contains_key(place));
    asked
}

/// Which settings of which places are to be read to decide that.
pub fn settings<'a>(
    scene: &Scene,
    probes: impl Iterator<Item = &'a Probe>,
) -> BTreeMap<Place, BTreeSet<String>> {
    let mut asked: BTreeMap<Place, BTreeSet<String>> = BTreeMap::new();
    for probe in probes {
        let mut links = scene.wire(&probe.from, probe.at.as_ref());
        if probe.at.is_none() {
            let host = scene.sites.get(&Place::Host).into_iter().flat_map(|site| &site.links);
            let addressed = host.filter(|(_, link)| !link.addresses.is_empty());
            links.extend(addressed.map(|(name, _)| LinkId::host(name.clone())));
        }
        for LinkId { place, name } in links {
            let paths = asked.entry(place).or_default();
            for one in ["rp_filter", "forwarding"] {
                paths.insert(format!("ipv4/conf/{name}/{one}"));
                paths.insert(format!("ipv4/conf/all/{one}"));
            }
            for one in ["disable_ipv6", "force_forwarding"] {
                paths.insert(format!("ipv6/conf/{name}/{one}"));
            }
            paths.extend(["ipv6/conf/all/forwarding", stack::IGNORE[0], stack::IGNORE[1]].map(str::to_owned));
        }
        // The frames of namespaces meet the rules of the host, too.
        asked.entry(Place::Host).or_default().insert("bridge/bridge-nf-call-iptables".to_owned());
    }
    asked.retain(|place, _| scene.sites.contains_key(place));
    asked
}

fn is_link_local(address: IpAddr) -> bool {
    matches!(address, IpAddr::V6(address) if address.is_unicast_link_local())
}

impl Case<'_> {
    fn cause(&self) -> Cause {
        self.wire()
            .or_else(|| self.addresses())
            .or_else(|| self.way_there())
            .or_else(|| self.fixed_neighbour())
            .or_else(|| self.refused())
            .or_else(|| self.ignored())
            .or_else(|| self.way_back())
            .or_else(|| self.forwarding())
            .or_else(|| self.beyond())
            .or_else(|| self.dropped(true))
            .or_else(|| self.reverse_path())
            .or_else(|| self.not_translated())
            .or_else(|| self.silent())
            .or_else(|| self.dropped(false))
            .or_else(|| self.told())
            .unwrap_or_else(|| self.unknown())
    }

    /// What the routing table of the sender says.
    fn way(&self) -> Option<&Way> {
        self.scene.ways.get(&(self.probe.from.place.clone(), self.probe.to?))
    }

    /// The address it is sent from.
    fn source(&self) -> Option<IpAddr> {
        let by_way = match self.way() {
            Some(Way::Out { source, .. }) => *source,
            _ => None,
        };
        let own = self.scene.addresses(&self.probe.from, self.probe.ipv6);
        let near = own.iter().find(|net| self.probe.to.is_some_and(|to| net.contains(&to)));
        by_way.or_else(|| near.or(own.first()).map(ipnet::IpNet::addr))
    }

    fn packet(&self, reply: bool, iif: Option<&LinkId>, oif: Option<&LinkId>) -> Option<Packet> {
        let (source, to) = (self.source()?, self.probe.to?);
        let name = |link: Option<&LinkId>| link.map(|link| link.name.to_string());
        let (source, target) = if reply { (to, source) } else { (source, to) };
        Some(Packet { source, target, iif: name(iif), oif: name(oif), reply })
    }

    fn lossy(&self, received: u32) -> Cause {
        let Probe { from, .. } = self.probe;
        let (sent, to) = (self.answer.sent, self.target());
        Cause {
            kind: "loss",
            place: from.place.clone(),
            what: format!(
                "{} of {sent} echoes to {to} were lost: there is a way, and it loses packets",
                sent - received
            ),
            mend: None,
        }
    }

    /// Who says that it did not arrive, where nothing else is known.
    fn told(&self) -> Option<Cause> {
        let (from, kind, code) = self.answer.told?;
        Some(Cause {
            kind: "told",
            place: self.probe.from.place.clone(),
            what: format!(
                "{from} says that {} cannot be reached (ICMP type {kind} code {code})",
                self.target()
            ),
            mend: None,
        })
    }

    fn unknown(&self) -> Cause {
        let Probe { from, .. } = self.probe;
        let (place, sent) = (&from.place, self.answer.sent);
        let tcpdump = format!("{}tcpdump -ni {} icmp or icmp6", super::scene::within(place), from.name);
        let to = self.target();
        Cause {
            kind: "unknown",
            place: place.clone(),
            what: format!(
                "{to} does not answer, {sent} echoes left {}, and nothing in the way is wrong as far as can be seen from \
                 here; see with: {tcpdump}",
                named(place)
            ),
            mend: None,
        }
    }

    fn target(&self) -> String {
        self.probe.to.map_or_else(|| "an address".to_owned(), |to| to.to_string())
    }
}
