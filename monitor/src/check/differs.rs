//! What is not as a file says, in words, by the steps that would make it so. Pure.

use super::decide::Cause;
use crate::topology::{
    Topology,
    names::{LinkId, NsName, Place},
    step::Step,
};

/// A file, and what is missing of it.
#[derive(Clone, Debug)]
pub struct File {
    /// What it asks for.
    pub topology: Topology,
    /// The steps from what is to that.
    pub steps: Vec<Step>,
    /// The line that does them all.
    pub apply: String,
}

/// How many lines are shown to be done by hand, and how many differences are named.
const FEW: usize = 6;

/// Reasons that a file has the last word on: how links, addresses and routes are to be.
const WIRING: [&str; 13] = [
    "lo_down",
    "link_down",
    "link_missing",
    "no_carrier",
    "not_in_bridge",
    "port_state",
    "address_missing",
    "wrong_prefix",
    "wrong_subnet",
    "no_route",
    "wrong_neighbour",
    "forwarding_off",
    "nat_missing",
];

impl File {
    /// Differences of one namespace, or of the host (`None`).
    pub fn of(&self, netns: Option<&NsName>) -> Vec<&Step> {
        self.steps.iter().filter(|step| self.concerns(step).as_ref() == netns).collect()
    }

    /// Namespaces that the file wants and there are not, or that it does not want and there are.
    pub fn namespaces(&self) -> Vec<NsName> {
        let mut names: Vec<NsName> = self.steps.iter().filter_map(|step| self.concerns(step)).collect();
        names.sort();
        names.dedup();
        names
    }

    /// The finding for those of a namespace.
    pub fn cause(&self, netns: Option<&NsName>) -> Option<Cause> {
        let steps = self.of(netns);
        if steps.is_empty() {
            return None;
        }
        let mut said: Vec<String> = steps.iter().take(FEW).map(|step| words(step)).collect();
        if steps.len() > FEW {
            said.push(format!("and {} more", steps.len() - FEW));
        }
        let place = netns.map_or(Place::Host, |netns| Place::Netns(netns.clone()));
        Some(Cause {
            kind: "differs",
            place: place.clone(),
            what: format!("{} is not as the file says: {}", super::scene::named(&place), said.join("; ")),
            mend: Some(self.mend(&steps)),
        })
    }

    /// What mends a reason found by looking, where the file knows better: with an interface that goes down, addresses and
    /// routes go too.
    pub fn better(&self, netns: &NsName, cause: &Cause) -> Option<String> {
        if !WIRING.contains(&cause.kind) {
            return None;
        }
        let mut steps = self.of(None);
        steps.extend(self.of(Some(netns)));
        if let Place::Netns(other) = &cause.place
            && other != netns
        {
            steps.extend(self.of(Some(other)));
        }
        (!steps.is_empty()).then(|| self.mend(&steps))
    }

    fn mend(&self, steps: &[&Step]) -> String {
        match steps.len() <= FEW && steps.iter().all(|step| by_hand(step)) {
            true => steps.iter().map(ToString::to_string).collect::<Vec<_>>().join(" && "),
            false => self.apply.clone(),
        }
    }

    /// The namespace that a step is about; none where it is about the host.
    fn concerns(&self, step: &Step) -> Option<NsName> {
        let inside = |place: &Place| match place {
            Place::Host => None,
            Place::Netns(netns) => Some(netns.clone()),
        };
        let of = |link: &LinkId| inside(&link.place).or_else(|| inside(&self.serves(link)?.place));
        match step {
            Step::CreateNetns { name }
            | Step::DeleteNetns { name }
            | Step::Adopt { name, .. }
            | Step::Leave { name, .. } => Some(name.clone()),
            Step::CreateBridge { .. } | Step::TurnOn { .. } | Step::PutBack { .. } => None,
            Step::CreateVeth { a, b } => of(&a.link).or_else(|| of(&b.link)),
            Step::CreateMacvlan { end, .. } => of(&end.link),
            Step::Lend { link, .. }
            | Step::TakeBack { link, .. }
            | Step::SetTxQueueLen { link, .. }
            | Step::SetOffload { link, .. }
            | Step::DeleteLink { link }
            | Step::SetBridge { link, .. }
            | Step::SetMtu { link, .. }
            | Step::SetMac { link, .. }
            | Step::Attach { link }
            | Step::AddAddress { link, .. }
            | Step::DeleteAddress { link, .. }
            | Step::SetUp { link }
            | Step::SetDown { link }
            | Step::SetIsolated { link, .. } => of(link),
            Step::SetSysctl { netns, .. } => Some(netns.clone()),
            Step::AddRoute { place, .. }
            | Step::DeleteRoute { place, .. }
            | Step::AddRule { place, .. }
            | Step::DeleteRule { place, .. }
            | Step::AddNeighbour { place, .. }
            | Step::DeleteNeighbour { place, .. } => inside(place),
            Step::SetTable { id, .. } | Step::DeleteTable { id, .. } => inside(&id.place),
        }
    }

    /// The other end, where that is in a namespace.
    fn serves(&self, link: &LinkId) -> Option<&LinkId> {
        let mut pairs = self.topology.veths.iter().map(|veth| (&veth.a.link, &veth.b.link));
        pairs.find(|(a, _)| *a == link).map(|(_, b)| b)
    }
}

/// Whether the line does it as well as we do: what we make is tagged as ours, what a shell makes is not.
fn by_hand(step: &Step) -> bool {
    matches!(
        step,
        Step::SetUp { .. }
            | Step::SetDown { .. }
            | Step::AddAddress { .. }
            | Step::DeleteAddress { .. }
            | Step::SetBridge { .. }
            | Step::SetMtu { .. }
            | Step::SetMac { .. }
            | Step::SetTxQueueLen { .. }
            | Step::SetIsolated { .. }
            | Step::AddRoute { .. }
            | Step::DeleteRoute { .. }
            | Step::AddRule { .. }
            | Step::DeleteRule { .. }
            | Step::AddNeighbour { .. }
            | Step::DeleteNeighbour { .. }
            | Step::TurnOn { .. }
    )
}

fn words(step: &Step) -> String {
    match step {
        Step::CreateNetns { name } => format!("namespace {name} is missing"),
        Step::DeleteNetns { name } => format!("namespace {name} is there and not in the file"),
        Step::CreateBridge { name, .. } => format!("bridge {name} is missing"),
        Step::CreateVeth { a, b } => format!("links {} and {} are missing", a.link, b.link),
        Step::CreateMacvlan { end, .. } => format!("link {} is missing", end.link),
        Step::Lend { device, link } => format!("device {device} is not {link}"),
        Step::TakeBack { device, .. } => format!("device {device} is lent and not in the file"),
        Step::DeleteLink { link } => format!("link {link} is there and not as in the file"),
        Step::SetBridge { link, to: Some(to), .. } => format!("{link} is no port of {to}"),
        Step::SetBridge { link, from: Some(from), .. } => format!("{link} is a port of {from}"),
        Step::SetMtu { link, from, to } => format!("MTU of {link} is {from} and not {to}"),
        Step::SetMac { link, from, to } => format!("MAC address of {link} is {from} and not {to}"),
        Step::Attach { link } => format!("{link} is not counted"),
        Step::AddAddress { link, address } => format!("address {address} of {link} is missing"),
        Step::DeleteAddress { link, address } => format!("address {address} of {link} is not in the file"),
        Step::SetUp { link } => format!("{link} is down"),
        Step::SetDown { link } => format!("{link} is up"),
        Step::SetSysctl { key, from, to, .. } => match from {
            Some(from) => format!("{key} is {from} and not {to}"),
            None => format!("{key} is not {to}"),
        },
        Step::AddRoute { route, .. } => format!("route `{route}` is missing"),
        Step::DeleteRoute { route, .. } => format!("route `{route}` is not in the file"),
        Step::SetIsolated { link, on: true } => format!("{link} is not isolated"),
        Step::SetIsolated { link, on: false } => format!("{link} is isolated"),
        Step::SetTable { id, name, .. } => format!("table {} {name} is missing or changed", id.family),
        Step::DeleteTable { id, name } => format!("table {} {name} is not in the file", id.family),
        Step::TurnOn { link, knob } => format!("{} of {link} is off", knob.path().1),
        Step::PutBack { link, knob, .. } => format!("{} of {link} is not in the file", knob.path().1),
        Step::AddRule { rule, .. } => format!("rule `{rule}` is missing"),
        Step::DeleteRule { rule, .. } => format!("rule `{rule}` is not in the file"),
        Step::AddNeighbour { neighbour, .. } => format!("neighbour `{neighbour}` is missing"),
        Step::DeleteNeighbour { neighbour, .. } => format!("neighbour `{neighbour}` is not in the file"),
        other => other.title(),
    }
}
