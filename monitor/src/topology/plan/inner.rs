//! Macvlans, and devices of the host that are lent.

use super::{
    super::{
        End, Observed, ObservedLink, Topology,
        inner::{Inner, InnerKind, Lease},
        names::{LinkId, NsName, Place},
        step::{NewEnd, Step},
    },
    PlanError,
    build::Plan,
    remove::Removal,
};

/// What is wanted of the host's devices and cannot be had.
pub(super) fn refuse(desired: &Topology, observed: &Observed) -> Result<(), PlanError> {
    for Inner { end, kind } in &desired.inner {
        let (device, lent) = match kind {
            InnerKind::Macvlan { parent, .. } => (parent, false),
            InnerKind::Device(device) => {
                let lease = observed.leases.iter().find(|lease| lease.device == *device);
                if lease.is_some_and(|lease| lease.link == end.link) {
                    continue;
                }
                (device, true)
            }
        };
        let refuse = |why: &str| {
            Err(PlanError::Device { device: device.clone(), link: end.link.clone(), why: why.to_owned() })
        };
        let wanted = desired.bridges.iter().any(|bridge| bridge.name == *device);
        let Some(seen) = observed.host.get(device) else {
            match wanted && !lent {
                true => continue,
                false => return refuse("the host has no device of that name"),
            }
        };
        if lent && (seen.owned || seen.kind == "bridge" || seen.kind == "loopback") {
            return refuse(
                "a device that netns-monitor made, a bridge and a loopback interface cannot be lent",
            );
        }
        if let Some(bridge) = seen.bridge.as_ref().filter(|_| lent) {
            return refuse(&format!("it is a port of {bridge}: take it out of there first"));
        }
    }
    Ok(())
}

/// Devices whose lease has ended come back first: with its namespace a device would go, or come back as something else.
pub(super) fn take_back(
    observed: &Observed,
    ended: &dyn Fn(&Lease) -> bool,
    removal: &mut Removal<'_>,
    steps: &mut Vec<Step>,
) {
    for lease in observed.leases.iter().filter(|lease| ended(lease)) {
        steps.push(Step::TakeBack { device: lease.device.clone(), link: lease.link.clone() });
        removal.note_gone(&lease.link);
    }
}

/// Whether a topology still wants a device where it is.
pub(super) fn is_wanted(desired: &Topology, lease: &Lease) -> bool {
    let same =
        |inner: &Inner| inner.end.link == lease.link && inner.kind == InnerKind::Device(lease.device.clone());
    desired.inner.iter().any(same)
}

/// Whether it is lent to one of these namespaces.
pub(super) fn is_in(lease: &Lease, namespaces: &dyn Fn(&NsName) -> bool) -> bool {
    matches!(&lease.link.place, Place::Netns(name) if namespaces(name))
}

impl Plan<'_> {
    pub(super) fn inner(&mut self, Inner { end, kind }: &Inner) {
        let link = &end.link;
        match kind {
            InnerKind::Macvlan { parent, mode } => {
                let on = self.seen(&LinkId::host(parent.clone())).map(|parent| parent.ifindex);
                let fits = |seen: &ObservedLink| {
                    seen.owned
                        && seen.kind == "macvlan"
                        && seen.peer_ifindex == on
                        && seen.macvlan == Some(*mode)
                };
                if !self.seen(link).is_some_and(fits) {
                    self.removal.delete(link, &mut self.steps);
                    let new =
                        NewEnd { link: link.clone(), mac: end.mac, mtu: end.mtu, queues: end.tuning.queues };
                    self.steps.push(Step::CreateMacvlan { parent: parent.clone(), mode: *mode, end: new });
                }
            }
            InnerKind::Device(device) => {
                let lent =
                    self.observed.leases.iter().any(|lease| lease.device == *device && lease.link == *link);
                if !(lent && self.seen(link).is_some_and(|seen| seen.lent)) {
                    self.steps.push(Step::Lend { device: device.clone(), link: link.clone() });
                    let before = self.observed.host.get(device).map(|seen| seen.mtu);
                    if let (Some(from), Some(to)) = (before, end.mtu)
                        && from != to
                    {
                        self.steps.push(Step::SetMtu { link: link.clone(), from, to });
                    }
                }
            }
        }
        let seen = self.seen(link);
        if let Some(seen) = seen {
            self.properties(link, seen, end.mtu, end.mac);
        }
        self.tune(end, seen);
        self.finish(end, seen);
    }

    fn finish(&mut self, end: &End, seen: Option<&ObservedLink>) {
        if self.options.attach && !seen.is_some_and(|seen| seen.attached) {
            self.steps.push(Step::Attach { link: end.link.clone() });
        }
        let addresses = self.addresses.get(&end.link).cloned().unwrap_or_default();
        self.addresses_of(&end.link, &addresses, seen);
        if !seen.is_some_and(|seen| seen.up) {
            self.steps.push(Step::SetUp { link: end.link.clone() });
        }
    }

    /// Queue length and offloads, where they are not as the file says.
    pub(super) fn tune(&mut self, end: &End, seen: Option<&ObservedLink>) {
        let link = &end.link;
        if let Some(to) = end.tuning.txqueuelen.filter(|to| seen.is_none_or(|seen| seen.txqueuelen != *to)) {
            self.steps.push(Step::SetTxQueueLen {
                link: link.clone(),
                from: seen.map(|seen| seen.txqueuelen),
                to,
            });
        }
        for (feature, on) in &end.tuning.offload {
            if seen.and_then(|seen| seen.offload.get(feature)) != Some(on) {
                self.steps.push(Step::SetOffload { link: link.clone(), feature: *feature, on: *on });
            }
        }
    }
}
