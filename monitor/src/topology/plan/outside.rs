//! Tables and switches: what the topology asks for against what is there.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;

use super::super::{
    Observed, Topology,
    names::{IfName, LinkId, Place},
    outside::{self, Knob, ObservedTable, Script, TableId, TableState},
    step::{Step, Update},
};

/// What is wanted of rules and switches.
pub(super) struct Change<'a> {
    observed: &'a Observed,
    tables: BTreeMap<TableId, Script>,
    knobs: Vec<(IfName, Knob)>,
}

impl<'a> Change<'a> {
    pub(super) fn new(
        desired: &Topology,
        observed: &'a Observed,
        addresses: &BTreeMap<LinkId, Vec<IpNet>>,
    ) -> Self {
        // Without rules that say who may, nothing is forwarded.
        let (tables, knobs) = match observed.outside.unavailable {
            Some(_) => Default::default(),
            None => (outside::tables(desired, observed, addresses), outside::knobs(desired, observed)),
        };
        Self { observed, tables, knobs }
    }

    /// Ports of namespaces that may talk to some on their bridge.
    pub(super) fn excepted(&self, desired: &Topology) -> BTreeSet<IfName> {
        if self.observed.outside.unavailable.is_some() {
            return BTreeSet::new();
        }
        let bridges = desired.bridges.iter();
        let pairs = bridges.flat_map(|bridge| desired.neighbours_allowed(&bridge.name));
        pairs.map(|[(port, _), _]| port.clone()).collect()
    }

    /// Switches that are not wanted any more.
    pub(super) fn put_back(&self, steps: &mut Vec<Step>) {
        for ((link, knob), to) in &self.observed.outside.before {
            if !self.knobs.contains(&(link.clone(), *knob)) {
                steps.push(Step::PutBack { link: link.clone(), knob: *knob, to: *to });
            }
        }
    }

    pub(super) fn tables(&self, steps: &mut Vec<Step>) {
        let name = &self.observed.outside.table;
        for (id, _) in there(self.observed).filter(|(id, _)| !self.tables.contains_key(id)) {
            // With a namespace that goes, so does its table.
            let goes = |place: &Place| {
                steps.iter().any(|step| matches!((step, place), (Step::DeleteNetns { name }, Place::Netns(netns)) if name == netns))
            };
            if !goes(&id.place) {
                steps.push(Step::DeleteTable { id, name: name.clone() });
            }
        }
        for (id, script) in &self.tables {
            let seen = there(self.observed).find(|(found, _)| found == id).map(|(_, seen)| seen);
            let update = match seen {
                Some(ObservedTable { state: TableState::Intact, made_from, .. })
                    if *made_from == script.fingerprint() =>
                {
                    continue;
                }
                // What somebody else has put there goes.
                None | Some(ObservedTable { state: TableState::Changed, .. }) => None,
                Some(ObservedTable { stamp, counters, .. }) => {
                    let gone = counters.keys().filter(|name| !script.counters.contains(*name));
                    Some(Update { counters: gone.cloned().collect(), stamp: stamp.clone() })
                }
            };
            steps.push(Step::SetTable { id: id.clone(), name: name.clone(), script: script.clone(), update });
        }
    }

    pub(super) fn turn_on(&self, steps: &mut Vec<Step>) {
        for (link, knob) in &self.knobs {
            if self.observed.outside.knobs.get(&(link.clone(), *knob)) != Some(&true) {
                steps.push(Step::TurnOn { link: link.clone(), knob: *knob });
            }
        }
    }
}

/// The steps that leave no switch turned and no table of the host's. Those of namespaces go with them.
pub(super) fn teardown(observed: &Observed, steps: &mut Vec<Step>) {
    for ((link, knob), to) in &observed.outside.before {
        steps.push(Step::PutBack { link: link.clone(), knob: *knob, to: *to });
    }
    for (id, _) in there(observed) {
        let keeps = matches!(&id.place, Place::Netns(name) if observed.namespaces.get(name).is_some_and(|netns| netns.owned));
        if !keeps {
            steps.push(Step::DeleteTable { id, name: observed.outside.table.clone() });
        }
    }
}

/// Tables of ours, wherever they are.
fn there(observed: &Observed) -> impl Iterator<Item = (TableId, &ObservedTable)> {
    let inside = observed.namespaces.iter().filter_map(|(name, netns)| {
        let id = TableId { place: Place::Netns(name.clone()), family: outside::Family::Inet };
        Some((id, netns.table.as_ref()?))
    });
    observed.outside.tables.iter().map(|(id, table)| (id.clone(), table)).chain(inside)
}
