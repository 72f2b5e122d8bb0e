//! Making what is missing and mending what is wrong, one thing after the other.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;

use super::{
    super::{
        Bridge, End, Observed, ObservedLink, Veth,
        names::{IfName, LinkId, MacAddr},
        step::{NewEnd, Step},
    },
    PlanOptions,
    remove::Removal,
};

/// What the kernel gives a bridge (`ETH_DATA_LEN`).
const DEFAULT_MTU: u32 = 1500;

/// The steps so far, and what the kernel will have after them.
pub(super) struct Plan<'a> {
    pub(super) observed: &'a Observed,
    pub(super) options: PlanOptions,
    pub(super) addresses: BTreeMap<LinkId, Vec<IpNet>>,
    pub(super) removal: Removal<'a>,
    /// Links that lose their IPv4 routes by a step of this plan.
    pub(super) flushed: BTreeSet<LinkId>,
    /// Ports that may talk to some others: rules keep them apart from the rest.
    excepted: BTreeSet<IfName>,
    pub(super) steps: Vec<Step>,
}

impl<'a> Plan<'a> {
    pub(super) fn new(
        observed: &'a Observed,
        options: PlanOptions,
        addresses: BTreeMap<LinkId, Vec<IpNet>>,
        removal: Removal<'a>,
        excepted: BTreeSet<IfName>,
        steps: Vec<Step>,
    ) -> Self {
        Self { observed, options, addresses, removal, flushed: BTreeSet::new(), excepted, steps }
    }

    pub(super) fn bridge(&mut self, bridge: &Bridge) {
        let Bridge { name, gateways, mtu, mac, .. } = bridge;
        let link = LinkId::host(name.clone());
        if self.seen(&link).is_some_and(|seen| seen.unclaimed) {
            self.removal.delete(&link, &mut self.steps);
        }
        let seen = self.seen(&link);
        match seen {
            None => self.new_bridge(name, *mtu, *mac),
            Some(seen) => self.properties(&link, seen, *mtu, *mac),
        }
        self.addresses_of(&link, gateways, seen);
        if !seen.is_some_and(|seen| seen.up) {
            self.steps.push(Step::SetUp { link });
        }
    }

    /// The MTU of a bridge follows its ports until a request changes it (`BROPT_MTU_SET_BY_USER` in net/bridge/br_device.c):
    /// what it is made with does not count, nor does a request for what it has.
    fn new_bridge(&mut self, name: &IfName, mtu: Option<u32>, mac: Option<MacAddr>) {
        let first = mtu.filter(|mtu| *mtu == DEFAULT_MTU).map(|mtu| mtu - 1);
        self.steps.push(Step::CreateBridge { name: name.clone(), mtu: first, mac });
        if let Some(to) = mtu {
            let link = LinkId::host(name.clone());
            self.steps.push(Step::SetMtu { link, from: first.unwrap_or(DEFAULT_MTU), to });
        }
    }

    /// A pair that is whole is mended; one that is not is made anew.
    pub(super) fn veth(&mut self, veth: &Veth) {
        let whole = match (self.seen(&veth.a.link), self.seen(&veth.b.link)) {
            (Some(a), Some(b)) => {
                let mutual = a.peer_ifindex == Some(b.ifindex) && b.peer_ifindex == Some(a.ifindex);
                let queues = |end: &End, seen: &ObservedLink| {
                    end.tuning.queues.is_none_or(|queues| seen.queues == queues)
                };
                mutual && a.owned && b.owned && queues(&veth.a, a) && queues(&veth.b, b)
            }
            _ => false,
        };
        if !whole {
            self.removal.delete(&veth.a.link, &mut self.steps);
            self.removal.delete(&veth.b.link, &mut self.steps);
            let new = |end: &End| NewEnd {
                link: end.link.clone(),
                mac: end.mac,
                mtu: end.mtu,
                queues: end.tuning.queues,
            };
            self.steps.push(Step::CreateVeth { a: new(&veth.a), b: new(&veth.b) });
        }
        let ends = [&veth.a, &veth.b].map(|end| (end, self.seen(&end.link)));
        for (end, seen) in ends {
            if let Some(seen) = seen {
                self.properties(&end.link, seen, end.mtu, end.mac);
            }
            self.port(end, seen);
            self.tune(end, seen);
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

    /// The link as it is after the steps so far; absent when it is to be made.
    pub(super) fn seen(&self, link: &LinkId) -> Option<&'a ObservedLink> {
        self.observed.link(link).filter(|_| !self.removal.is_gone(link))
    }

    fn port(&mut self, end: &End, seen: Option<&ObservedLink>) {
        // A bridge that goes lets its ports go.
        let from = seen.and_then(|seen| seen.bridge.clone());
        let from = from.filter(|bridge| !self.removal.is_gone(&LinkId::host(bridge.clone())));
        if from != end.bridge {
            self.steps.push(Step::SetBridge {
                link: end.link.clone(),
                from: from.clone(),
                to: end.bridge.clone(),
            });
        }
        // A new port is not.
        let isolated = from == end.bridge && seen.is_some_and(|seen| seen.isolated);
        let wanted = end.isolated && !self.excepted.contains(&end.link.name);
        if isolated != wanted {
            self.steps.push(Step::SetIsolated { link: end.link.clone(), on: wanted });
        }
    }

    pub(super) fn properties(
        &mut self,
        link: &LinkId,
        seen: &ObservedLink,
        mtu: Option<u32>,
        mac: Option<MacAddr>,
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

    pub(super) fn addresses_of(&mut self, link: &LinkId, wanted: &[IpNet], seen: Option<&ObservedLink>) {
        let has = seen.map_or(&[][..], |seen| &seen.addresses);
        let (kept, extra): (Vec<&IpNet>, Vec<&IpNet>) =
            has.iter().partition(|address| wanted.contains(address));
        let ipv4 = |address: &&&IpNet| address.addr().is_ipv4();
        // With its last IPv4 address a device loses its IPv4 routes (`fib_disable_ip` in net/ipv4/fib_frontend.c).
        if extra.iter().any(|address| ipv4(&address)) && !kept.iter().any(|address| ipv4(&address)) {
            self.flushed.insert(link.clone());
        }
        let delete = |address: &&IpNet| Step::DeleteAddress { link: link.clone(), address: **address };
        self.steps.extend(extra.iter().map(delete));
        let missing = wanted.iter().filter(|address| !has.contains(address));
        self.steps.extend(missing.map(|address| Step::AddAddress { link: link.clone(), address: *address }));
    }
}
