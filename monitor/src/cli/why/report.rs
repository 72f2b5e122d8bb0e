//! What two readings of a namespace, some seconds apart, tell of its losses. Pure.

use std::collections::BTreeMap;

use crate::{
    sample::InterfaceSample,
    topology::{ObservedLink, figures::Figures},
    trace::{NetnsDrops, Symbols},
};

/// A number at the second reading, and how much of it came since the first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Count {
    pub(super) now: u64,
    pub(super) rose: u64,
}

impl Count {
    pub(super) fn new(before: u64, now: u64) -> Self {
        Self { now, rose: now.saturating_sub(before) }
    }
}

/// One reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Row {
    pub(super) reason: String,
    pub(super) drops: Count,
    /// By kernel function, the most first; under the empty name what is not told apart or hidden.
    pub(super) places: Vec<(String, Count)>,
}

/// One interface, or link of the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Link {
    pub(super) name: String,
    /// Absent where nobody looked at it.
    pub(super) running: Option<bool>,
    /// The kernel's counters of both directions: drops and errors.
    pub(super) drops: Count,
    pub(super) errors: Count,
}

/// The reasons of a namespace; those that rose first, then those with the most.
pub(super) fn rows(before: &NetnsDrops, now: &NetnsDrops, symbols: &Symbols) -> Vec<Row> {
    let mut rows: Vec<Row> = now
        .reasons
        .iter()
        .map(|(reason, &count)| {
            let drops = Count::new(before.reasons.get(reason).copied().unwrap_or(0), count);
            Row { reason: reason.clone(), drops, places: places(reason, drops, before, now, symbols) }
        })
        .filter(|row| row.drops.now > 0)
        .collect();
    rows.sort_by_key(|row| std::cmp::Reverse((row.drops.rose, row.drops.now)));
    rows
}

fn places(
    reason: &str,
    all: Count,
    before: &NetnsDrops,
    now: &NetnsDrops,
    symbols: &Symbols,
) -> Vec<(String, Count)> {
    let mut found: BTreeMap<&str, Count> = BTreeMap::new();
    let mut rest = all;
    for (key, &count) in now.places.iter().filter(|((name, _), _)| name == reason) {
        let count = Count::new(before.places.get(key).copied().unwrap_or(0), count);
        let sum = found.entry(symbols.function(key.1).unwrap_or_default()).or_default();
        *sum = Count { now: sum.now + count.now, rose: sum.rose + count.rose };
        rest = Count { now: rest.now.saturating_sub(count.now), rose: rest.rose.saturating_sub(count.rose) };
    }
    if rest.now > 0 {
        let sum = found.entry("").or_default();
        *sum = Count { now: sum.now + rest.now, rose: sum.rose + rest.rose };
    }
    let mut found: Vec<_> = found.into_iter().map(|(name, count)| (name.to_owned(), count)).collect();
    found.sort_by_key(|(_, count)| std::cmp::Reverse((count.rose, count.now)));
    found
}

/// The interfaces of a namespace.
pub(super) fn interfaces(before: &[InterfaceSample], now: &[InterfaceSample]) -> Vec<Link> {
    let sums = |interface: &InterfaceSample| {
        let link = interface.link.as_ref()?;
        let sum = |of: &crate::sample::ByDirection<u64>| of.receive + of.transmit;
        Some([sum(&link.drops), sum(&link.errors)])
    };
    let link = |interface: &InterfaceSample| {
        let earlier = before.iter().find(|earlier| earlier.name == interface.name).and_then(sums);
        let [drops, errors] = sums(interface).unwrap_or_default();
        let [drops_before, errors_before] = earlier.unwrap_or([drops, errors]);
        Link {
            name: interface.name.clone(),
            running: interface.link.as_ref().map(|link| link.running),
            drops: Count::new(drops_before, drops),
            errors: Count::new(errors_before, errors),
        }
    };
    now.iter().map(link).collect()
}

/// A link of the host.
pub(super) fn host_link(name: String, before: Option<&ObservedLink>, now: &ObservedLink) -> Link {
    let sums = |link: &ObservedLink| {
        [link.stats.rx.dropped + link.stats.tx.dropped, link.stats.rx.errors + link.stats.tx.errors]
    };
    let [drops, errors] = sums(now);
    let [drops_before, errors_before] = before.map_or([drops, errors], sums);
    Link {
        name,
        running: Some(now.running),
        drops: Count::new(drops_before, drops),
        errors: Count::new(errors_before, errors),
    }
}

/// Counters of a map, by name.
pub(super) fn counts<K: Ord + ToString>(
    before: &BTreeMap<K, u64>,
    now: &BTreeMap<K, u64>,
) -> Vec<(String, Count)> {
    let count = |(name, &now): (&K, &u64)| {
        (name.to_string(), Count::new(before.get(name).copied().unwrap_or(0), now))
    };
    now.iter().map(count).collect()
}

/// The kernel's own figures, in words; those it has.
pub(super) fn figures(before: &Figures, now: &Figures) -> Vec<(String, Count)> {
    counts(&before.named(), &now.named())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drops(reasons: &[(&str, u64)], places: &[(&str, u64, u64)]) -> NetnsDrops {
        NetnsDrops {
            reasons: reasons.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect(),
            places: places.iter().map(|(name, at, count)| (((*name).to_owned(), *at), *count)).collect(),
        }
    }

    fn symbols() -> Symbols {
        Symbols::parse("ffffffff81000100 T ip_rcv\nffffffff81000200 T udp_rcv\n")
    }

    const IP: u64 = 0xffff_ffff_8100_0110;
    const UDP: u64 = 0xffff_ffff_8100_0210;

    #[test]
    fn what_rose_comes_first_and_places_of_one_function_are_one() {
        let before = drops(&[("A", 100), ("B", 5)], &[("A", IP, 100), ("B", UDP, 5)]);
        let now = drops(
            &[("A", 100), ("B", 12)],
            &[("A", IP, 100), ("B", UDP, 7), ("B", UDP + 8, 3), ("B", IP, 2)],
        );
        let rows = rows(&before, &now, &symbols());
        let names: Vec<_> = rows.iter().map(|row| (row.reason.as_str(), row.drops)).collect();
        assert_eq!(names, [("B", Count { now: 12, rose: 7 }), ("A", Count { now: 100, rose: 0 })]);
        let places = [
            ("udp_rcv".to_owned(), Count { now: 10, rose: 5 }),
            ("ip_rcv".to_owned(), Count { now: 2, rose: 2 }),
        ];
        assert_eq!(rows[0].places, places);
    }

    #[test]
    fn what_is_not_told_apart_is_under_no_name_and_nothing_is_lost() {
        let now = drops(&[("A", 10)], &[("A", IP, 4), ("A", 7, 1)]);
        let rows = rows(&NetnsDrops::default(), &now, &symbols());
        assert_eq!(rows[0].places.iter().map(|(_, count)| count.now).sum::<u64>(), 10);
        assert_eq!(rows[0].places[0], (String::new(), Count { now: 6, rose: 6 }));
    }

    #[test]
    fn figures_that_are_absent_are_not_zero() {
        let now = Figures { listen_drops: Some(3), ..Figures::default() };
        assert_eq!(
            figures(&Figures::default(), &now),
            [("listen drops".to_owned(), Count { now: 3, rose: 3 })]
        );
    }
}
