//! One sample out of what the kernel showed and what the maps held.

use std::collections::{BTreeMap, BTreeSet};

use tracing::warn;

use crate::{
    ledger::Retired,
    probe::{Reading, Readings},
    sample::{
        AgentSample, AttachMode, ByDirection, Counts, InterfaceSample, LinkSample, NetnsSample, NetnsState,
        Sample, lost::Lost,
    },
    topology::{
        Observed, ObservedLink, ObservedNetns,
        names::{Cookie, IfName, NsName},
        outside,
    },
};

/// Joins links and counts by the cookie of their namespace. A namespace that is counted but has no name any more is
/// detached: something keeps it alive.
pub(super) fn assemble(observed: &Observed, readings: Readings, agent: AgentSample) -> Sample {
    let Readings { interfaces, retired, gone } = readings;
    let mut counted: BTreeMap<Cookie, Vec<Reading>> = BTreeMap::new();
    for reading in interfaces {
        counted.entry(reading.target.cookie).or_default().push(reading);
    }
    let mut retired: BTreeMap<Cookie, Retired> = retired.into_iter().collect();
    let ends = Ends::new(observed);
    let mut namespaces = Vec::new();
    for (name, netns) in &observed.namespaces {
        let readings = counted.remove(&netns.cookie).unwrap_or_default();
        let retired = retired.remove(&netns.cookie).map_or_else(Counts::default, |retired| retired.counts);
        namespaces.push(NetnsSample {
            label: name.to_string(),
            cookie: netns.cookie,
            inode: Some(netns.inode),
            state: NetnsState::Named,
            owned: netns.owned,
            interfaces: interfaces_of(&ends, name, netns, readings),
            retired,
            drops: outside::drops(observed, name),
        });
    }
    let mut labels: BTreeSet<String> = namespaces.iter().map(|netns| netns.label.clone()).collect();
    let detached: BTreeSet<Cookie> = counted.keys().chain(retired.keys()).copied().collect();
    for cookie in detached {
        let readings = counted.remove(&cookie).unwrap_or_default();
        let Retired { netns, counts: retired } = retired.remove(&cookie).unwrap_or_default();
        let name = readings.first().map_or(netns, |reading| reading.target.netns.clone());
        // Its name may be in use again: two namespaces never share a label.
        let label = if labels.contains(&name) { format!("{name}~{cookie}") } else { name };
        labels.insert(label.clone());
        namespaces.push(NetnsSample {
            label,
            cookie,
            inode: None,
            state: NetnsState::Detached,
            owned: true,
            interfaces: readings
                .into_iter()
                .map(|reading| interface(reading.target.interface.clone(), Some(reading), None))
                .collect(),
            retired,
            drops: BTreeMap::new(),
        });
    }
    Sample { namespaces, gone, agent, lost: Lost::default() }
}

fn interfaces_of(
    ends: &Ends<'_>,
    name: &NsName,
    netns: &ObservedNetns,
    readings: Vec<Reading>,
) -> Vec<InterfaceSample> {
    let mut readings: BTreeMap<String, Reading> =
        readings.into_iter().map(|reading| (reading.target.interface.clone(), reading)).collect();
    let mut interfaces: Vec<_> = netns
        .links
        .iter()
        .filter(|(_, link)| link.kind != "loopback")
        .map(|(ifname, link)| {
            let seen = seen(link, ends.peer_of(name, ifname, link));
            interface(ifname.to_string(), readings.remove(ifname.as_str()), Some(seen))
        })
        .collect();
    // Counted, but not among the links of this look: still there for the one who scrapes.
    interfaces.extend(readings.into_iter().map(|(ifname, reading)| interface(ifname, Some(reading), None)));
    interfaces
}

fn interface(name: String, reading: Option<Reading>, link: Option<LinkSample>) -> InterfaceSample {
    let mode: Option<AttachMode> = reading.as_ref().map(|reading| reading.mode);
    let counts = reading.and_then(|reading| match reading.counts {
        Ok(counts) => Some(counts),
        Err(error) => {
            warn!("{name}: {error}");
            None
        }
    });
    InterfaceSample { name, counts, mode, link }
}

fn seen(link: &ObservedLink, peer: Option<(Option<&NsName>, &IfName)>) -> LinkSample {
    LinkSample {
        ifindex: link.ifindex,
        kind: link.kind.clone(),
        mac: link.mac,
        mtu: link.mtu,
        running: link.running,
        peer_interface: peer.map(|(_, name)| name.to_string()),
        peer_netns: peer.map(|(netns, _)| netns.map(ToString::to_string).unwrap_or_default()),
        drops: ByDirection { receive: link.stats.rx.dropped, transmit: link.stats.tx.dropped },
        errors: ByDirection { receive: link.stats.rx.errors, transmit: link.stats.tx.errors },
    }
}

/// Ends of veth pairs by their own interface index and their peer's: (namespace, `None` for the host's; name).
struct Ends<'a>(BTreeMap<(u32, u32), Vec<Place<'a>>>);

type Place<'a> = (Option<&'a NsName>, &'a IfName);

impl<'a> Ends<'a> {
    fn new(observed: &'a Observed) -> Self {
        let inside = observed.namespaces.iter().flat_map(|(netns, observed)| {
            observed.links.iter().map(move |(name, link)| (Some(netns), name, link))
        });
        let mut ends: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for (netns, name, link) in observed.host.iter().map(|(name, link)| (None, name, link)).chain(inside) {
            if let (Some(peer), "veth") = (link.peer_ifindex, link.kind.as_str()) {
                ends.entry((link.ifindex, peer)).or_default().push((netns, name));
            }
        }
        Self(ends)
    }

    /// The end that this link points to and that points back. Interface indexes repeat across namespaces: where two
    /// links answer, neither is named.
    fn peer_of(
        &self,
        netns: &NsName,
        name: &IfName,
        link: &ObservedLink,
    ) -> Option<(Option<&'a NsName>, &'a IfName)> {
        let candidates = self.0.get(&(link.peer_ifindex?, link.ifindex))?;
        let mut others = candidates.iter().filter(|(other, ifname)| *other != Some(netns) || *ifname != name);
        let peer = others.next()?;
        others.next().is_none().then_some(*peer)
    }
}
