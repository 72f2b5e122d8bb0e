//! What is told: a row for each direction of each wire, and what is wrong with what would mend it. Pure.

use std::{collections::BTreeSet, time::Duration};

use super::{
    counted::{Comparison, Counted},
    decide::{Cause, Verdict},
    differs::File,
    ping::Answer,
    scene::{Other, Scene, ip, named},
    targets::{self, Probe, Unasked, Wanted, What},
};
use crate::topology::names::{LinkId, NsName, Place};

/// Everything there is to tell.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// In the order of the namespaces.
    pub rows: Vec<Row>,
    /// What is wrong, each once.
    pub findings: Vec<Finding>,
}

/// One line of the table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// The namespace it is about.
    pub netns: NsName,
    /// From where to where, or what else.
    pub what: String,
    /// IPv6, else IPv4.
    pub ipv6: bool,
    /// Echo requests sent; of counted ones, packets that left the namespace.
    pub sent: u64,
    /// Answers; of counted ones, packets that came to the namespace.
    pub received: u64,
    /// Shortest, mean and longest time to an answer.
    pub rtt: Option<[Duration; 3]>,
    /// In a word or two.
    pub result: String,
    /// The finding that says why not, by position.
    pub finding: Option<usize>,
}

/// Something that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What and why, and what would mend it.
    pub cause: Cause,
    /// Whether the check fails by it; else it is good to know.
    pub fails: bool,
}

/// What a report is made of.
pub(super) struct Facts<'a> {
    pub(super) scene: &'a Scene,
    pub(super) wanted: &'a Wanted,
    pub(super) probes: &'a [Probe],
    pub(super) answers: &'a [Answer],
    pub(super) verdicts: &'a [Verdict],
    pub(super) counted: &'a [Counted],
    /// Interfaces that are counted and are not there any more.
    pub(super) gone: Vec<LinkId>,
    pub(super) file: Option<&'a File>,
}

impl Report {
    /// Whether nothing failed.
    pub fn is_fine(&self) -> bool {
        self.findings.iter().all(|finding| !finding.fails)
    }

    /// The finding's position; one that is there already is told once, also a rule that two probes met at different hooks.
    fn find(&mut self, cause: Cause, fails: bool) -> usize {
        let same = |Finding { cause: other, .. }: &Finding| {
            let one_rule = [other.kind, cause.kind] == ["firewall"; 2] && cause.mend.is_some();
            other.mend == cause.mend && (one_rule || other.what == cause.what)
        };
        self.findings.iter().position(same).unwrap_or_else(|| {
            self.findings.push(Finding { cause, fails });
            self.findings.len() - 1
        })
    }
}

/// Puts it together.
pub(super) fn report(facts: &Facts<'_>) -> Report {
    let mut report = Report::default();
    for netns in &facts.wanted.namespaces {
        let of = facts.probes.iter().zip(facts.answers).zip(facts.verdicts);
        for ((probe, answer), verdict) in of.filter(|((probe, _), _)| probe.netns == *netns) {
            add(&mut report, facts, probe, answer, verdict);
        }
        let inside = |counted: &&Counted| counted.link.place == Place::Netns(netns.clone());
        facts.counted.iter().filter(inside).for_each(|counted| add_counted(&mut report, netns, counted));
        mtus(&mut report, facts, netns);
    }
    for link in &facts.gone {
        let cause = Cause {
            kind: "link_missing",
            place: link.place.clone(),
            what: format!("{} of {} was counted and is gone", link.name, named(&link.place)),
            mend: facts.file.map(|file| file.apply.clone()),
        };
        report.find(cause, true);
    }
    differences(&mut report, facts);
    report
}

fn add(report: &mut Report, facts: &Facts<'_>, probe: &Probe, answer: &Answer, verdict: &Verdict) {
    let (result, finding) = match (verdict, probe.unasked) {
        (Verdict::Failed(cause), _) => {
            let better = facts.file.and_then(|file| file.better(&probe.netns, cause));
            let cause = Cause { mend: better.or_else(|| cause.mend.clone()), ..cause.clone() };
            ("FAILED".to_owned(), Some(report.find(cause, true)))
        }
        (Verdict::Excused(why), _) => ((*why).to_owned(), None),
        (Verdict::Late, _) => ("ok, at the second try".to_owned(), None),
        (Verdict::Fine, Some(unasked)) => (unasked_word(unasked).to_owned(), None),
        (Verdict::Fine, None) => ("ok".to_owned(), None),
    };
    report.rows.push(Row {
        netns: probe.netns.clone(),
        what: title(probe),
        ipv6: probe.ipv6,
        sent: answer.sent.into(),
        received: answer.received.into(),
        rtt: answer.rtt,
        result,
        finding,
    });
}

fn unasked_word(unasked: Unasked) -> &'static str {
    match unasked {
        Unasked::NoAddress => "no address",
        Unasked::Unnumbered => "up, no address",
        Unasked::Apart => "apart",
        Unasked::NoWayOut => "no way out",
        Unasked::Missing => "address missing",
    }
}

/// From where to where.
fn title(probe: &Probe) -> String {
    let Probe { netns, what, from, at, to, .. } = probe;
    let place = Place::Netns(netns.clone());
    let name = |link: &LinkId| if link.place == place { link.name.to_string() } else { link.to_string() };
    let address = to.map_or_else(|| "-".to_owned(), |to| to.to_string());
    match (what, at) {
        (What::Lo, _) => "lo".to_owned(),
        (What::Outside, _) => format!("outside {address}"),
        (What::Gateway, _) if from.place == place => format!("{} → gateway {address}", name(from)),
        (What::Gateway, Some(at)) => format!("gateway {} → {}", name(from), name(at)),
        (What::Peer, Some(at)) if from.place == place => format!("{} → peer {}", name(from), name(at)),
        (What::Peer, Some(at)) => format!("peer {} → {}", name(from), name(at)),
        (_, Some(at)) => format!("{} → {}", name(from), name(at)),
        (_, None) => format!("{} → {address}", name(from)),
    }
}

fn add_counted(report: &mut Report, netns: &NsName, counted: &Counted) {
    let Counted { link, ipv6, rise, expected, is } = counted;
    let (result, finding) = match is {
        Comparison::Exact => ("exact".to_owned(), None),
        Comparison::Beside(others) => (format!("ok, beside {others} others"), None),
        Comparison::Unclear => ("echoes were lost".to_owned(), None),
        Comparison::Fewer => {
            let what = format!(
                "{} of {} counted {} ICMP packets sent and {} received, and at least {} and {} were: see netns-monitor doctor",
                link.name,
                named(&link.place),
                rise.transmitted,
                rise.received,
                expected.transmitted,
                expected.received
            );
            let cause = Cause { kind: "not_counted", place: link.place.clone(), what, mend: None };
            ("FAILED".to_owned(), Some(report.find(cause, true)))
        }
    };
    report.rows.push(Row {
        netns: netns.clone(),
        what: format!("{} counted", link.name),
        ipv6: *ipv6,
        sent: rise.transmitted,
        received: rise.received,
        rtt: None,
        result,
        finding,
    });
}

/// Ends of a pair that take packets of different sizes: small ones pass, larger ones vanish.
fn mtus(report: &mut Report, facts: &Facts<'_>, netns: &NsName) {
    let scene = facts.scene;
    for id in targets::interfaces(scene, netns, facts.wanted.wired.contains(netns)) {
        let peer = match scene.other(&id) {
            Other::Bridge { port, .. } => port,
            Other::End(peer) => peer,
            Other::Unknown => continue,
        };
        let (Some(own), Some(other)) = (scene.link(&id), scene.link(&peer)) else { continue };
        if own.mtu == other.mtu {
            continue;
        }
        let ((large, _), (small, mtu)) = match own.mtu > other.mtu {
            true => ((&id, own.mtu), (&peer, other.mtu)),
            false => ((&peer, other.mtu), (&id, own.mtu)),
        };
        let cause = Cause {
            kind: "mtu_mismatch",
            place: large.place.clone(),
            what: format!(
                "MTU of {large} is {}, and of its other end {small} {mtu}: packets larger than that are lost",
                own.mtu.max(other.mtu)
            ),
            mend: Some(format!("{} link set {} mtu {mtu}", ip(&large.place), large.name)),
        };
        report.find(cause, false);
    }
}

/// What is not as the file says and was not told yet.
fn differences(report: &mut Report, facts: &Facts<'_>) {
    let Some(file) = facts.file else { return };
    let told: BTreeSet<Option<String>> =
        report.findings.iter().map(|finding| finding.cause.mend.clone()).collect();
    let names = file.namespaces();
    let selected = |netns: &&NsName| !facts.wanted.named || facts.wanted.includes(netns);
    for netns in [None].into_iter().chain(names.iter().filter(selected).map(Some)) {
        let Some(cause) = file.cause(netns) else { continue };
        // A finding that mends all of it has told it.
        let covered = told.iter().flatten().any(|mend| {
            cause.mend.as_ref().is_some_and(|own| *mend == file.apply || mend.contains(own.as_str()))
        });
        if !covered {
            report.find(cause, true);
        }
    }
}
