//! Is it wired right? Echoes are sent both ways over every wire; where one is not answered, the kernel is looked at for the
//! reason. Changes nothing but what the packets themselves do: neighbours are learnt, counters rise.
//!
//! The order: look, decide whom to ask, ask; and for what was lost: look closer, ask again, look again, decide why.

pub mod counted;
pub mod decide;
pub mod differs;
mod echo;
mod filter;
mod gather;
mod nat;
pub mod ping;
mod report;
pub mod scene;
pub mod targets;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

pub use self::report::{Finding, Report, Row};
use self::{
    decide::Verdict,
    differs::File,
    ping::{Answer, Pace, Question},
    scene::Scene,
    targets::{Probe, Wanted},
};
use crate::{
    reconcile::{Kernel, site::Closer},
    sample::Counts,
    topology::{
        Observed,
        names::{LinkId, Place},
    },
};

/// What is counted, by interface; read when it is called.
pub type ReadCounts<'a> = dyn Fn() -> anyhow::Result<BTreeMap<LinkId, Counts>> + 'a;

/// What is checked, and with what.
pub struct Check<'a> {
    /// The kernel.
    pub kernel: &'a Kernel,
    /// Where named namespaces are mounted.
    pub netns_dir: &'a Path,
    /// What a look saw.
    pub observed: &'a Observed,
    /// Which namespaces, and whom outside.
    pub wanted: Wanted,
    /// How to ask.
    pub pace: Pace,
    /// What should be there, where a file says so.
    pub file: Option<File>,
    /// Counters.
    pub counts: &'a ReadCounts<'a>,
}

impl Check<'_> {
    /// Does it.
    ///
    /// # Errors
    /// What the kernel refused: that an echo is lost is none.
    pub fn run(&self) -> anyhow::Result<Report> {
        let mut scene = gather::scene(self.kernel, self.observed, &self.wanted.namespaces)?;
        if !self.wanted.outside.is_empty() {
            let rules = self.look_closer(&BTreeMap::from([(Place::Host, BTreeSet::new())]))?;
            scene.closer.extend(rules.into_iter().map(|(place, rules)| (place, [rules.clone(), rules])));
        }
        let probes = targets::probes(&scene, &self.wanted);
        let before = (self.counts)()?;
        let answers = self.ask(&scene, &probes)?;
        let after = (self.counts)()?;
        let counted = counted::compare(&probes, &answers, [&before, &after]);
        let (last, verdicts) = self.judge(&mut scene, &probes, &answers)?;
        let lost = after.keys().filter(|link| self.is_selected(link) && scene.link(link).is_none());
        Ok(report::report(&report::Facts {
            scene: &scene,
            wanted: &self.wanted,
            probes: &probes,
            answers: &last,
            verdicts: &verdicts,
            counted: &counted,
            gone: lost.cloned().collect(),
            file: self.file.as_ref(),
        }))
    }

    fn is_selected(&self, link: &LinkId) -> bool {
        matches!(&link.place, Place::Netns(netns) if self.wanted.namespaces.contains(netns))
    }

    /// Asks all at once, each place on a thread of its own. In the order of the probes.
    fn ask(&self, scene: &Scene, probes: &[Probe]) -> anyhow::Result<Vec<Answer>> {
        let mut by_place: BTreeMap<Place, Vec<(usize, Question)>> = BTreeMap::new();
        for (index, probe) in probes.iter().enumerate().filter(|(_, probe)| probe.unasked.is_none()) {
            let Some(to) = probe.to else { continue };
            let scope = scene.link(&probe.from).map_or(0, |link| link.ifindex);
            let scope = if probe.is_link_local() { scope } else { 0 };
            by_place.entry(probe.from.place.clone()).or_default().push((index, Question { to, scope }));
        }
        let places: Vec<Place> = by_place.keys().cloned().collect();
        let (netns_dir, pace) = (self.netns_dir, self.pace);
        let found = gather::each(&places, |place| {
            let questions: Vec<Question> = by_place[place].iter().map(|(_, question)| *question).collect();
            ping::ask(netns_dir, place, &questions, pace)
        })?;
        let mut answers = vec![Answer::default(); probes.len()];
        for (place, found) in found {
            for ((index, _), answer) in by_place[&place].iter().zip(found) {
                answers[*index] = answer;
            }
        }
        Ok(answers)
    }

    /// Looks into what was lost. The answers to be reported, and what came of each probe.
    fn judge(
        &self,
        scene: &mut Scene,
        probes: &[Probe],
        answers: &[Answer],
    ) -> anyhow::Result<(Vec<Answer>, Vec<Verdict>)> {
        let count = u32::from(self.pace.count);
        let wrong: Vec<usize> = (0..probes.len())
            .filter(|index| decide::is_wrong(scene, &probes[*index], &answers[*index], count))
            .collect();
        let mut verdicts = vec![Verdict::Fine; probes.len()];
        let mut last = answers.to_vec();
        if wrong.is_empty() {
            return Ok((last, verdicts));
        }
        let again: Vec<Probe> = wrong.iter().map(|index| probes[*index].clone()).collect();
        let settings = decide::settings(scene, again.iter());
        let before = self.look_closer(&settings)?;
        let answers = self.ask(scene, &again)?;
        let after = self.look_closer(&settings)?;
        scene.closer = after
            .into_iter()
            .map(|(place, after)| {
                let before = before.get(&place).cloned().unwrap_or_else(|| after.clone());
                (place, [before, after])
            })
            .collect();
        let places: Vec<Place> =
            scene.sites.keys().filter(|place| settings.contains_key(place)).cloned().collect();
        gather::look(self.kernel, scene, places)?;
        scene.ways = gather::ways(self.kernel, &decide::questions(scene, again.iter()))?;
        for ((index, probe), answer) in wrong.into_iter().zip(&again).zip(answers) {
            verdicts[index] = decide::verdict(scene, probe, answer, count);
            last[index] = answer;
        }
        Ok((last, verdicts))
    }

    fn look_closer(
        &self,
        settings: &BTreeMap<Place, BTreeSet<String>>,
    ) -> anyhow::Result<BTreeMap<Place, Closer>> {
        gather::closer(self.kernel, settings)
    }
}
