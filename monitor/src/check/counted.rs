//! Whether the eBPF counters of an interface rose by exactly the echoes that passed it. Pure.

use std::collections::BTreeMap;

use monitor_ebpf::class;

use super::{
    ping::Answer,
    targets::{Probe, What},
};
use crate::{
    sample::Counts,
    topology::names::{LinkId, Place},
};

/// ICMP packets of one family that an interface transmitted and received.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Icmp {
    /// From the namespace.
    pub transmitted: u64,
    /// To the namespace.
    pub received: u64,
}

/// One interface and family.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counted {
    /// Which.
    pub link: LinkId,
    /// IPv6, else IPv4.
    pub ipv6: bool,
    /// By how much its counters rose.
    pub rise: Icmp,
    /// What passed of ours.
    pub expected: Icmp,
    /// How the two compare.
    pub is: Comparison,
}

/// How what was counted compares to what was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Comparison {
    /// The same, in both directions.
    Exact,
    /// So many more: other ICMP packets passed meanwhile.
    Beside(u64),
    /// Fewer, in one direction at least.
    Fewer,
    /// Echoes were lost, and nobody knows where.
    Unclear,
}

/// The ICMP packets of a family among all that was counted.
pub fn icmp(counts: &Counts, ipv6: bool) -> Icmp {
    let index = if ipv6 { class::IPV6 } else { class::IPV4 } + class::ICMP;
    let [transmitted, received] =
        [&counts.transmit, &counts.receive].map(|direction| direction.classes[index].packets);
    Icmp { transmitted, received }
}

/// Compares two readings with what was sent between them. Interfaces that are not counted are left out.
pub fn compare(
    probes: &[Probe],
    answers: &[Answer],
    [before, after]: [&BTreeMap<LinkId, Counts>; 2],
) -> Vec<Counted> {
    let mut expected: BTreeMap<(LinkId, bool), (Icmp, bool)> = BTreeMap::new();
    let sent =
        probes.iter().zip(answers).filter(|(probe, _)| probe.unasked.is_none() && probe.what != What::Lo);
    for (probe, answer) in sent {
        // What the kernel did not take went nowhere.
        let clear = answer.received == answer.sent;
        let (requests, replies) = (u64::from(answer.sent), u64::from(answer.received));
        let mut passes = |link: &LinkId, out: u64, back: u64| {
            if matches!(link.place, Place::Netns(_)) {
                let (icmp, all) =
                    expected.entry((link.clone(), probe.ipv6)).or_insert((Icmp::default(), true));
                icmp.transmitted += out;
                icmp.received += back;
                *all &= clear;
            }
        };
        passes(&probe.from, requests, replies);
        if let Some(at) = &probe.at {
            passes(at, replies, requests);
        }
    }
    let compared = expected.into_iter().filter_map(|((link, ipv6), (expected, clear))| {
        let (before, after) = (icmp(before.get(&link)?, ipv6), icmp(after.get(&link)?, ipv6));
        let rise = Icmp {
            transmitted: after.transmitted.saturating_sub(before.transmitted),
            received: after.received.saturating_sub(before.received),
        };
        let is = if clear { comparison(rise, expected) } else { Comparison::Unclear };
        Some(Counted { link, ipv6, rise, expected, is })
    });
    compared.collect()
}

fn comparison(rise: Icmp, expected: Icmp) -> Comparison {
    let more =
        [rise.transmitted.checked_sub(expected.transmitted), rise.received.checked_sub(expected.received)];
    match more {
        [Some(0), Some(0)] => Comparison::Exact,
        [Some(out), Some(back)] => Comparison::Beside(out + back),
        _ => Comparison::Fewer,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(netns: &str) -> LinkId {
        LinkId::inside(netns.parse().unwrap(), "eth0".parse().unwrap())
    }

    fn counts(transmitted: u64, received: u64) -> Counts {
        let mut counts = Counts::default();
        counts.transmit.classes[class::IPV4 + class::ICMP].packets = transmitted;
        counts.receive.classes[class::IPV4 + class::ICMP].packets = received;
        counts
    }

    fn compared([sent, received]: [u32; 2], after: Counts) -> Vec<Counted> {
        let probe = Probe {
            netns: "blue".parse().unwrap(),
            what: What::Neighbour,
            ipv6: false,
            from: link("blue"),
            to: Some([198, 51, 100, 3].into()),
            at: Some(link("red")),
            unasked: None,
        };
        let answer = Answer { sent, received, ..Answer::default() };
        let before = BTreeMap::from([(link("blue"), counts(10, 20))]);
        compare(&[probe], &[answer], [&before, &BTreeMap::from([(link("blue"), after)])])
    }

    #[test]
    fn what_passed_is_compared_in_both_directions_and_what_is_not_counted_is_left_out() {
        let exact = compared([3, 3], counts(13, 23));
        assert_eq!(exact.len(), 1, "red is not counted");
        assert_eq!((exact[0].is, exact[0].rise), (Comparison::Exact, exact[0].expected));
        assert_eq!(compared([3, 3], counts(14, 25))[0].is, Comparison::Beside(3));
        assert_eq!(compared([3, 3], counts(12, 24))[0].is, Comparison::Fewer);
        assert_eq!(compared([3, 2], counts(13, 23))[0].is, Comparison::Unclear);
        assert_eq!(compared([0, 0], counts(10, 20))[0].is, Comparison::Exact, "the kernel took none");
    }
}
