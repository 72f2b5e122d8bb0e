//! From what is to what shall be: ordered steps. Pure and deterministic; planning on what the plan has built gives nothing.
//!
//! The order: what is no longer wanted goes; namespaces; bridges; veth pairs, each counted before it is set up; `lo`;
//! routes. Routes that somebody added by hand in a namespace of ours stay: routing daemons do that.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;

use super::{
    Bridge, End, Observed, ObservedLink, Topology, Veth,
    allocate::{self, Exhausted},
    names::{IfName, LinkId, NsName, Place},
    step::{NewEnd, Step},
};

/// How to plan.
#[derive(Clone, Copy, Debug)]
pub struct PlanOptions {
    /// Whether packets can be counted: then links that should be counted and are not get an [`Step::Attach`].
    pub attach: bool,
}

/// What stands in the way. Nothing is changed then.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// A name that is wanted belongs to something we did not make.
    #[error(
        "{what} exists and was not made by netns-monitor: it stays as it is; remove it, or choose another name in the file"
    )]
    Foreign {
        /// What it is, with its name.
        what: String,
    },
    /// A wanted prefix overlaps an address the host has.
    #[error("{wanted} of {link} overlaps {address} that {owner} has: choose another prefix in the file")]
    Overlap {
        /// The prefix from the file.
        wanted: IpNet,
        /// The link it is for.
        link: LinkId,
        /// The address in the way.
        address: IpNet,
        /// The link that has it.
        owner: IfName,
    },
    /// More interfaces than a pool has addresses.
    #[error("{link}: no address of {pool} is free: use a larger subnet, or give addresses")]
    Exhausted {
        /// The interface that gets none.
        link: LinkId,
        /// The pool.
        pool: IpNet,
    },
}

/// The steps from `observed` to `desired`.
///
/// # Errors
/// [`PlanError`] says what stands in the way.
pub fn plan(desired: &Topology, observed: &Observed, options: PlanOptions) -> Result<Vec<Step>, PlanError> {
    refuse_foreign(desired, observed)?;
    refuse_overlaps(desired, observed)?;
    let addresses = allocate::addresses(desired, observed)
        .map_err(|Exhausted { link, pool }| PlanError::Exhausted { link, pool })?;
    let mut plan = Plan { observed, options, addresses, deleted: BTreeSet::new(), steps: Vec::new() };
    plan.remove_unwanted(desired);
    for netns in &desired.namespaces {
        if !observed.namespaces.contains_key(&netns.name) {
            plan.steps.push(Step::CreateNetns { name: netns.name.clone() });
        }
    }
    desired.bridges.iter().for_each(|bridge| plan.bridge(bridge));
    desired.veths.iter().for_each(|veth| plan.veth(veth));
    plan.loopbacks(desired);
    plan.routes(desired);
    Ok(plan.steps)
}

/// The steps that remove what the file names and we made.
pub fn teardown(desired: &Topology, observed: &Observed) -> Vec<Step> {
    let links: BTreeSet<LinkId> = desired.ends().map(|end| end.link.clone()).collect();
    let bridges = desired.bridges.iter().map(|bridge| bridge.name.clone()).collect();
    let names = desired.namespaces.iter().map(|netns| netns.name.clone()).collect();
    removal(observed, &|link| links.contains(link), &names, &bridges)
}

/// The steps that remove everything we made.
pub fn teardown_all(observed: &Observed) -> Vec<Step> {
    let bridges = observed.host.keys().cloned().collect();
    let names = observed.namespaces.keys().cloned().collect();
    removal(observed, &|_| true, &names, &bridges)
}

/// Links first, so that nothing lingers while the kernel takes a namespace apart; bridges last.
fn removal(
    observed: &Observed,
    links: &dyn Fn(&LinkId) -> bool,
    namespaces: &BTreeSet<NsName>,
    bridges: &BTreeSet<IfName>,
) -> Vec<Step> {
    let mut steps = Vec::new();
    let mut gone: BTreeSet<(u32, u32)> = BTreeSet::new();
    for (link, seen) in owned_links(observed).filter(|(_, seen)| seen.kind == "veth") {
        let in_namespace = matches!(&link.place, Place::Netns(name) if namespaces.contains(name));
        if !links(&link) && !in_namespace {
            continue;
        }
        // A pair is deleted by one of its ends.
        let with_peer = seen.peer_ifindex.is_some_and(|peer| gone.contains(&(peer, seen.ifindex)));
        if !with_peer {
            gone.extend(seen.peer_ifindex.map(|peer| (seen.ifindex, peer)));
            steps.push(Step::DeleteLink { link });
        }
    }
    let owned = observed.namespaces.iter().filter(|(name, netns)| netns.owned && namespaces.contains(*name));
    steps.extend(owned.map(|(name, _)| Step::DeleteNetns { name: name.clone() }));
    let owned = observed
        .host
        .iter()
        .filter(|(name, seen)| seen.owned && seen.kind == "bridge" && bridges.contains(*name));
    steps.extend(owned.map(|(name, _)| Step::DeleteLink { link: LinkId::host(name.clone()) }));
    steps
}

/// Links of ours, the host's first.
fn owned_links(observed: &Observed) -> impl Iterator<Item = (LinkId, &ObservedLink)> {
    let host = observed.host.iter().map(|(name, link)| (LinkId::host(name.clone()), link));
    let inside = observed.namespaces.iter().flat_map(|(netns, seen)| {
        seen.links.iter().map(|(name, link)| (LinkId::inside(netns.clone(), name.clone()), link))
    });
    host.chain(inside).filter(|(_, link)| link.owned)
}

fn refuse_foreign(desired: &Topology, observed: &Observed) -> Result<(), PlanError> {
    let foreign = |what: String| Err(PlanError::Foreign { what });
    for netns in &desired.namespaces {
        if observed.namespaces.get(&netns.name).is_some_and(|seen| !seen.owned) {
            return foreign(format!("namespace {}", netns.name));
        }
    }
    for bridge in &desired.bridges {
        match observed.host.get(&bridge.name) {
            Some(seen) if !seen.owned || seen.kind != "bridge" => {
                return foreign(format!("{} {}", seen.kind, bridge.name));
            }
            _ => {}
        }
    }
    for end in desired.ends() {
        match observed.link(&end.link) {
            Some(seen) if !seen.owned || seen.kind != "veth" => {
                return foreign(format!("{} {}", seen.kind, end.link));
            }
            _ => {}
        }
    }
    Ok(())
}

/// The host's own networks stay reachable: no prefix of ours on the host may overlap an address that is not ours.
fn refuse_overlaps(desired: &Topology, observed: &Observed) -> Result<(), PlanError> {
    let bridges = desired.bridges.iter().flat_map(|bridge| {
        bridge.gateways.iter().map(|address| (LinkId::host(bridge.name.clone()), address))
    });
    let ends = desired.ends().filter(|end| end.link.place == Place::Host);
    let ends = ends.flat_map(|end| end.addresses.iter().map(|address| (end.link.clone(), address)));
    for (link, wanted) in bridges.chain(ends) {
        for (owner, seen) in observed.host.iter().filter(|(_, seen)| !seen.owned && seen.kind != "loopback") {
            let overlaps =
                |address: &&IpNet| address.contains(&wanted.network()) || wanted.contains(&address.network());
            if let Some(address) = seen.addresses.iter().find(overlaps) {
                let (wanted, address, owner) = (wanted.trunc(), *address, owner.clone());
                return Err(PlanError::Overlap { wanted, link, address, owner });
            }
        }
    }
    Ok(())
}

struct Plan<'a> {
    observed: &'a Observed,
    options: PlanOptions,
    addresses: BTreeMap<LinkId, Vec<IpNet>>,
    /// Links that go by a step of this plan, with their peers.
    deleted: BTreeSet<LinkId>,
    steps: Vec<Step>,
}

impl Plan<'_> {
    fn remove_unwanted(&mut self, desired: &Topology) {
        let wanted: BTreeSet<&LinkId> = desired.ends().map(|end| &end.link).collect();
        let names: BTreeSet<&NsName> = desired.namespaces.iter().map(|netns| &netns.name).collect();
        let bridges: BTreeSet<&IfName> = desired.bridges.iter().map(|bridge| &bridge.name).collect();
        let namespaces =
            self.observed.namespaces.keys().filter(|name| !names.contains(name)).cloned().collect();
        let bridges = self.observed.host.keys().filter(|name| !bridges.contains(name)).cloned().collect();
        self.steps = removal(self.observed, &|link| !wanted.contains(link), &namespaces, &bridges);
    }

    fn bridge(&mut self, bridge: &Bridge) {
        let Bridge { name, subnets: _, gateways, mtu, mac } = bridge;
        let link = LinkId::host(name.clone());
        let seen = self.observed.host.get(name);
        match seen {
            None => self.steps.push(Step::CreateBridge { name: name.clone(), mtu: *mtu, mac: *mac }),
            Some(seen) => self.properties(&link, seen, *mtu, *mac),
        }
        self.addresses_of(&link, gateways, seen);
        if !seen.is_some_and(|seen| seen.up) {
            self.steps.push(Step::SetUp { link });
        }
    }

    /// A pair that is whole is mended; one that is not is made anew.
    fn veth(&mut self, veth: &Veth) {
        let (a, b) = (self.observed.link(&veth.a.link), self.observed.link(&veth.b.link));
        let whole = match (a, b) {
            (Some(a), Some(b)) => a.peer_ifindex == Some(b.ifindex) && b.peer_ifindex == Some(a.ifindex),
            _ => false,
        };
        if !whole {
            for (end, seen) in [(&veth.a, a), (&veth.b, b)] {
                if seen.is_some() {
                    self.deleted.insert(end.link.clone());
                    self.steps.push(Step::DeleteLink { link: end.link.clone() });
                }
            }
            let new = |end: &End| NewEnd { link: end.link.clone(), mac: end.mac, mtu: end.mtu };
            self.steps.push(Step::CreateVeth { a: new(&veth.a), b: new(&veth.b) });
        }
        let seen = |link| if whole { link } else { None };
        let ends = [(&veth.a, seen(a)), (&veth.b, seen(b))];
        for (end, seen) in ends {
            if let Some(seen) = seen {
                self.properties(&end.link, seen, end.mtu, end.mac);
            }
            let from = seen.and_then(|seen| seen.bridge.clone());
            if from != end.bridge {
                self.steps.push(Step::SetBridge { link: end.link.clone(), from, to: end.bridge.clone() });
            }
        }
        if self.options.attach {
            let counted = |link: &LinkId| {
                ends.iter().any(|(end, seen)| end.link == *link && seen.is_some_and(|seen| seen.attached))
            };
            let missing = veth.counted().filter(|link| !counted(link));
            self.steps.extend(missing.map(|link| Step::Attach { link: link.clone() }));
        }
        for (end, seen) in ends {
            let addresses = self.addresses.get(&end.link).cloned().unwrap_or_default();
            self.addresses_of(&end.link, &addresses, seen);
        }
        // The inner end first: when the host's end comes up, the first packet has somewhere to go.
        for (end, seen) in [&ends[1], &ends[0]] {
            if !seen.is_some_and(|seen| seen.up) {
                self.steps.push(Step::SetUp { link: end.link.clone() });
            }
        }
    }

    fn properties(
        &mut self,
        link: &LinkId,
        seen: &ObservedLink,
        mtu: Option<u32>,
        mac: Option<super::names::MacAddr>,
    ) {
        if let Some(to) = mtu.filter(|mtu| *mtu != seen.mtu) {
            self.steps.push(Step::SetMtu { link: link.clone(), from: seen.mtu, to });
        }
        if let (Some(to), Some(from)) = (mac, seen.mac)
            && to != from
        {
            self.steps.push(Step::SetMac { link: link.clone(), from, to });
        }
    }

    fn addresses_of(&mut self, link: &LinkId, wanted: &[IpNet], seen: Option<&ObservedLink>) {
        let has = seen.map_or(&[][..], |seen| &seen.addresses);
        let extra = has.iter().filter(|address| !wanted.contains(address));
        self.steps.extend(extra.map(|address| Step::DeleteAddress { link: link.clone(), address: *address }));
        let missing = wanted.iter().filter(|address| !has.contains(address));
        self.steps.extend(missing.map(|address| Step::AddAddress { link: link.clone(), address: *address }));
    }

    fn loopbacks(&mut self, desired: &Topology) {
        let Ok(lo) = "lo".parse::<IfName>() else { return };
        for netns in &desired.namespaces {
            let link = LinkId::inside(netns.name.clone(), lo.clone());
            // A new namespace has it down.
            let up = self.observed.link(&link).is_some_and(|seen| seen.up);
            match (netns.lo_up, up) {
                (true, false) => self.steps.push(Step::SetUp { link }),
                (false, true) => self.steps.push(Step::SetDown { link }),
                _ => {}
            }
        }
    }

    fn routes(&mut self, desired: &Topology) {
        for netns in &desired.namespaces {
            let seen = self.observed.namespaces.get(&netns.name);
            for route in &netns.routes {
                let there = seen.is_some_and(|seen| {
                    seen.routes.iter().any(|found| {
                        let dev = found.dev.as_ref();
                        // A route goes with its link.
                        let stays = dev.is_none_or(|dev| !self.goes(&netns.name, dev));
                        let same_dev = route.dev.is_none() || route.dev.as_ref() == dev;
                        found.to == route.to && found.via == route.via && same_dev && stays
                    })
                });
                if !there {
                    let place = Place::Netns(netns.name.clone());
                    self.steps.push(Step::AddRoute { place, route: route.clone() });
                }
            }
        }
    }

    fn goes(&self, netns: &NsName, dev: &IfName) -> bool {
        self.deleted.contains(&LinkId::inside(netns.clone(), dev.clone()))
    }
}
