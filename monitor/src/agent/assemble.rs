//! One sample out of what the kernel showed and what the maps held.

use std::collections::{BTreeMap, BTreeSet};

use monitor_ebpf::talk::DnsCounters;
use tracing::warn;

use super::watch::{Watched, WatchedNetns};
use crate::{
    ledger::Retired,
    probe::{Reading, Readings},
    sample::{
        AgentSample, AttachMode, ByDirection, ContainerSample, Counts, IdentitySample, InterfaceSample,
        LinkSample, NetnsSample, NetnsState, OtherSample, Sample, lost::Lost,
    },
    topology::{
        Observed, ObservedLink, ObservedNetns,
        names::{Cookie, IfName, NsName},
        outside,
    },
};

/// Joins links and counts by the cookie of their namespace: what was watched, what the last pass saw and the watch did not
/// yet, and what is counted and nothing shows any more, which something keeps alive.
pub(super) fn assemble(
    observed: &Observed,
    watched: &Watched,
    readings: Readings,
    agent: AgentSample,
) -> Sample {
    let Readings { interfaces, retired, gone, other } = readings;
    let (summed, interfaces): (Vec<_>, Vec<_>) = interfaces.into_iter().partition(|reading| reading.summed);
    let mut counted: BTreeMap<Cookie, Vec<Reading>> = BTreeMap::new();
    for reading in interfaces {
        counted.entry(reading.target.cookie).or_default().push(reading);
    }
    let mut retired: BTreeMap<Cookie, Retired> = retired.into_iter().collect();
    let mut take = |cookie: Cookie| {
        let retired = retired.remove(&cookie).map_or_else(Counts::default, |retired| retired.counts);
        (counted.remove(&cookie).unwrap_or_default(), retired)
    };
    let ours: BTreeMap<Cookie, (&NsName, &ObservedNetns)> =
        observed.namespaces.iter().map(|(name, netns)| (netns.cookie, (name, netns))).collect();
    let names: BTreeMap<Cookie, &str> =
        watched.namespaces.iter().map(|netns| (netns.cookie, netns.label.as_str())).collect();
    // Between a look and the next, one that has counts of its own by now is shown with them.
    let is_cut = |cookie, readings: &[Reading]| watched.cut.contains(&cookie) && readings.is_empty();
    let mut cut = BTreeSet::new();
    let mut namespaces = Vec::new();
    for netns in &watched.namespaces {
        let (readings, retired) = take(netns.cookie);
        if is_cut(netns.cookie, &readings) && retired == Counts::default() {
            cut.insert(netns.cookie);
            continue;
        }
        let seen = ours.get(&netns.cookie);
        namespaces.push(NetnsSample {
            label: netns.label.clone(),
            cookie: netns.cookie,
            inode: Some(netns.inode),
            state: netns.state,
            owned: netns.owned || seen.is_some_and(|(_, netns)| netns.owned),
            identity: identity(netns),
            interfaces: interfaces_watched(netns, &names, readings),
            retired,
            drops: seen.map(|(name, _)| outside::drops(observed, name)).unwrap_or_default(),
        });
    }
    let ends = Ends::new(observed);
    for (name, netns) in observed.namespaces.iter().filter(|(_, netns)| !names.contains_key(&netns.cookie)) {
        let (readings, retired) = take(netns.cookie);
        namespaces.push(NetnsSample {
            label: name.to_string(),
            cookie: netns.cookie,
            inode: Some(netns.inode),
            state: NetnsState::Named,
            owned: netns.owned,
            identity: IdentitySample::default(),
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
            owned: false,
            identity: IdentitySample::default(),
            interfaces: readings
                .into_iter()
                .map(|reading| interface(reading.target.interface.clone(), Some(reading), None))
                .collect(),
            retired,
            drops: BTreeMap::new(),
        });
    }
    let other = OtherSample { namespaces: cut.len() as u64, counts: sum_of(&summed, other, cut.is_empty()) };
    Sample { namespaces, gone, other, agent, lost: Lost::default(), dns: BTreeMap::new() }
}

/// The sum of others; absent where there never was one, and while one cannot be read, as it would fall.
fn sum_of(summed: &[Reading], kept: Counts, none_is_cut: bool) -> Option<Counts> {
    if none_is_cut && summed.is_empty() && kept == Counts::default() {
        return None;
    }
    summed.iter().try_fold(kept, |mut sum, reading| match &reading.counts {
        Ok(counts) => {
            sum.add(counts);
            Some(sum)
        }
        Err(error) => {
            warn!("{}: {error}", reading.target);
            None
        }
    })
}

/// DNS by label. Of a namespace that has no label yet nothing is said until it has.
pub(super) fn dns(
    namespaces: &[NetnsSample],
    counters: &BTreeMap<Cookie, DnsCounters>,
) -> BTreeMap<String, DnsCounters> {
    let labelled = |netns: &NetnsSample| Some((netns.label.clone(), *counters.get(&netns.cookie)?));
    namespaces.iter().filter_map(labelled).collect()
}

fn identity(netns: &WatchedNetns) -> IdentitySample {
    IdentitySample {
        aliases: netns.aliases.iter().map(|(source, name)| (source.name(), name.clone())).collect(),
        containers: netns
            .containers
            .iter()
            .map(|(container, name)| ContainerSample {
                runtime: container.runtime,
                id: container.id.clone(),
                name: name.clone(),
            })
            .collect(),
        pod: netns.pod.clone(),
        unit: netns.unit.clone(),
    }
}

fn interfaces_watched(
    netns: &WatchedNetns,
    names: &BTreeMap<Cookie, &str>,
    readings: Vec<Reading>,
) -> Vec<InterfaceSample> {
    let mut readings: Vec<Option<Reading>> = readings.into_iter().map(Some).collect();
    let mut interfaces: Vec<_> = netns
        .links
        .iter()
        .filter_map(|watched| Some((watched, watched.side?)))
        .map(|(watched, side)| {
            let is_it = |reading: &&mut Option<Reading>| {
                reading.as_ref().is_some_and(|reading| reading.target.side == side)
            };
            let reading = readings.iter_mut().find(is_it).and_then(Option::take);
            let link = &watched.link;
            let peer = watched.peer.as_ref();
            let peer_netns = peer.and_then(|(cookie, _)| match cookie {
                None => Some(String::new()),
                Some(cookie) => names.get(cookie).map(|name| (*name).to_owned()),
            });
            let seen = LinkSample {
                ifindex: link.ifindex,
                kind: link.kind.clone(),
                mac: link.mac,
                mtu: link.mtu,
                running: link.running,
                peer_interface: peer.map(|(_, name)| name.clone()),
                peer_netns,
                drops: ByDirection { receive: link.stats.rx.dropped, transmit: link.stats.tx.dropped },
                errors: ByDirection { receive: link.stats.rx.errors, transmit: link.stats.tx.errors },
            };
            InterfaceSample {
                uncounted: watched.uncounted,
                ..interface(link.name.clone(), reading, Some(seen))
            }
        })
        .collect();
    // Counted, but not among the links of this look: still there for the one who scrapes, unless its name is another's now.
    for reading in readings.into_iter().flatten() {
        let mut name = reading.target.interface.clone();
        if interfaces.iter().any(|interface| interface.name == name) {
            name = format!("{name}~{}", reading.target.ifindex());
        }
        interfaces.push(interface(name, Some(reading), None));
    }
    interfaces
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
    InterfaceSample { name, counts, mode, link, uncounted: None }
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
