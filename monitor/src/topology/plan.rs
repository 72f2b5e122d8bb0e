//! From what is to what shall be: ordered steps. Pure and deterministic; planning on what the plan has built gives nothing.
//!
//! The order: what is no longer wanted goes; namespaces; bridges; veth pairs, each counted before it is set up; `lo`;
//! what depends on them (sysctls of interfaces, neighbours, routes, rules). Deliberately absent: an MTU or MAC address that
//! the file does not give stays as it is; a route, rule or neighbour that somebody added by hand stays (routing daemons do
//! that), unless the namespace is ours and the file has one in its place.
//!
//! One pass is enough, with one exception: a bridge that is there and is newly given the MTU it happens to have may lose it to
//! a port that joins in the same pass, and the next pass sets it for good. The kernel does not show which MTU it keeps.

mod build;
mod inner;
mod inside;
mod outside;
mod peers;
mod refuse;
mod remove;

use std::collections::BTreeSet;

use ipnet::IpNet;

use self::{build::Plan, peers::Peers, remove::Removal};
use super::{
    Observed, Route, Topology,
    allocate::{self, Exhausted},
    inner::Lease,
    names::{IfName, LinkId, NsName},
    step::Step,
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
    /// A namespace of that name is there, and the file says not to take it.
    #[error(
        "namespace {name} exists and was not made by netns-monitor, and the file says `adopt = false`: write `adopt = true` to wire it and leave it be, `adopt = \"own\"` to take it over, or choose another name"
    )]
    NotAdopted {
        /// Its name.
        name: NsName,
    },
    /// What has the name of a namespace in the directory is none.
    #[error("{0}")]
    Junk(String),
    /// A route, or neighbour, of somebody else is in the place of a wanted one, in a namespace that is not ours.
    #[error(
        "namespace {name} has `{found}`, which netns-monitor did not make, where the file wants `{wanted}`: it stays; remove it, or change the file"
    )]
    Occupied {
        /// The namespace.
        name: NsName,
        /// What is there.
        found: String,
        /// What the file wants.
        wanted: String,
    },
    /// A wanted prefix overlaps a route the host has.
    #[error("{wanted} of {link} overlaps the host's route `{route}`: choose another prefix in the file")]
    OverlapRoute {
        /// The prefix from the file.
        wanted: IpNet,
        /// The link it is for.
        link: LinkId,
        /// The route in the way.
        route: Box<Route>,
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
    /// A device of the host cannot be used as wanted.
    #[error("{device} for {link}: {why}")]
    Device {
        /// The device.
        device: IfName,
        /// The interface it is for.
        link: LinkId,
        /// Why not.
        why: String,
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
    let peers = Peers::new(observed);
    refuse::foreign(desired, observed, &peers)?;
    inner::refuse(desired, observed)?;
    refuse::overlaps(desired, observed)?;
    let addresses = allocate::addresses(desired, observed)
        .map_err(|Exhausted { link, pool }| PlanError::Exhausted { link, pool })?;

    let mut steps = Vec::new();
    let links: BTreeSet<&LinkId> = desired.ends().map(|end| &end.link).collect();
    let namespaces: BTreeSet<&NsName> = desired.namespaces.iter().map(|netns| &netns.name).collect();
    let bridges: BTreeSet<&IfName> = desired.bridges.iter().map(|bridge| &bridge.name).collect();
    let outside = outside::Change::new(desired, observed, &addresses);
    outside.put_back(&mut steps);
    let mut removal = Removal::new(observed, &peers);
    inner::take_back(observed, &|lease| !inner::is_wanted(desired, lease), &mut removal, &mut steps);
    removal.sweep(
        &|link| !links.contains(link),
        &|name| !namespaces.contains(name),
        &|name| !bridges.contains(name),
        &mut steps,
    );
    let mut plan = Plan::new(observed, options, addresses, removal, outside.excepted(desired), steps);
    plan.leave(&|name| !namespaces.contains(name));
    plan.namespaces(desired);
    plan.sysctls(desired, false);
    // Before anything that the rules are about can send.
    outside.tables(&mut plan.steps);
    desired.bridges.iter().for_each(|bridge| plan.bridge(bridge));
    desired.veths.iter().for_each(|veth| plan.veth(veth));
    desired.inner.iter().for_each(|inner| plan.inner(inner));
    plan.loopbacks(desired);
    plan.sysctls(desired, true);
    plan.neighbours(desired);
    plan.routes(desired);
    plan.rules(desired);
    outside.turn_on(&mut plan.steps);
    Ok(plan.steps)
}

/// The steps that remove what the file names and we made; what was adopted is left as it was.
pub fn teardown(desired: &Topology, observed: &Observed) -> Vec<Step> {
    let links: BTreeSet<&LinkId> = desired.ends().map(|end| &end.link).collect();
    let namespaces: BTreeSet<&NsName> = desired.namespaces.iter().map(|netns| &netns.name).collect();
    let bridges: BTreeSet<&IfName> = desired.bridges.iter().map(|bridge| &bridge.name).collect();
    let stays = observed
        .host
        .iter()
        .any(|(name, link)| link.owned && link.kind == "bridge" && !bridges.contains(name))
        || observed.namespaces.iter().any(|(name, netns)| netns.owned && !namespaces.contains(name));
    down(observed, !stays, &|link| links.contains(link), &|name| namespaces.contains(name), &|name| {
        bridges.contains(name)
    })
}

/// The steps that remove everything we made.
pub fn teardown_all(observed: &Observed) -> Vec<Step> {
    down(observed, true, &|_| true, &|_| true, &|_| true)
}

fn down(
    observed: &Observed,
    everything: bool,
    links: &dyn Fn(&LinkId) -> bool,
    namespaces: &dyn Fn(&NsName) -> bool,
    bridges: &dyn Fn(&IfName) -> bool,
) -> Vec<Step> {
    let mut steps = Vec::new();
    if everything {
        outside::teardown(observed, &mut steps);
    }
    let peers = Peers::new(observed);
    let mut removal = Removal::new(observed, &peers);
    let ended = |lease: &Lease| links(&lease.link) || inner::is_in(lease, namespaces);
    inner::take_back(observed, &ended, &mut removal, &mut steps);
    removal.sweep(links, namespaces, bridges, &mut steps);
    let (options, excepted) = (PlanOptions { attach: false }, Default::default());
    let mut plan = Plan::new(observed, options, Default::default(), removal, excepted, steps);
    plan.leave(namespaces);
    plan.steps
}
