//! What namespaces lost, with the labels they have in a sample.

use std::collections::BTreeMap;

use super::watch::Watched;
use crate::{
    sample::{
        NetnsSample,
        lost::{GONE, HOST, Lost, OTHER, PacketDrops},
    },
    topology::{Observed, names::Cookie},
    trace::DropReadings,
};

/// Joins by cookie and by name. Of a namespace that has no label yet nothing is said until it has: were it counted with
/// the others, they would fall when it got one.
pub(super) fn lost(
    namespaces: &[NetnsSample],
    observed: &Observed,
    watched: &Watched,
    drops: Option<DropReadings>,
) -> Lost {
    let figures = observed.figures.iter().map(|(netns, figures)| {
        (netns.as_ref().map_or_else(|| HOST.to_owned(), ToString::to_string), figures.clone())
    });
    let shown = watched.namespaces.iter().filter(|netns| !watched.cut.contains(&netns.cookie));
    let others = shown.filter_map(|netns| Some((netns.label.clone(), netns.figures.clone()?)));
    // Of those in the file the pass, which comes more often, has the newer ones.
    let figures = others.chain(figures);
    Lost { drops: drops.map(|drops| packet_drops(namespaces, drops)), figures: figures.collect() }
}

fn packet_drops(namespaces: &[NetnsSample], readings: DropReadings) -> PacketDrops {
    let DropReadings { namespaces: drops, host, other, gone, missed } = readings;
    let labels: BTreeMap<Cookie, &String> =
        namespaces.iter().map(|netns| (netns.cookie, &netns.label)).collect();
    let label = |cookie: Cookie| {
        labels
            .get(&cookie)
            .map(|label| (*label).clone())
            .or_else(|| (host == Some(cookie)).then(|| HOST.to_owned()))
    };
    let mut netns: BTreeMap<_, _> =
        drops.into_iter().filter_map(|(cookie, drops)| Some((label(cookie)?, drops.reasons))).collect();
    netns.insert(OTHER.to_owned(), other);
    netns.insert(GONE.to_owned(), gone);
    PacketDrops { netns, missed }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        sample::{Counts, NetnsState},
        trace::NetnsDrops,
    };

    fn reasons(count: u64) -> BTreeMap<String, u64> {
        [("NO_SOCKET".to_owned(), count)].into()
    }

    #[test]
    fn every_row_has_the_label_of_its_namespace_and_none_is_guessed() {
        let blue = NetnsSample {
            label: "blue".to_owned(),
            cookie: Cookie(7),
            inode: None,
            state: NetnsState::Named,
            owned: true,
            identity: Default::default(),
            interfaces: Vec::new(),
            retired: Counts::default(),
            drops: BTreeMap::new(),
        };
        let row = |count| NetnsDrops { reasons: reasons(count), ..NetnsDrops::default() };
        let readings = DropReadings {
            namespaces: [(Cookie(1), row(10)), (Cookie(7), row(20)), (Cookie(9), row(30))].into(),
            host: Some(Cookie(1)),
            other: reasons(40),
            gone: reasons(50),
            missed: 3,
        };
        let lost =
            lost(&[blue], &Observed::default(), &Watched::default(), Some(readings)).drops.expect("counted");
        let found: Vec<_> =
            lost.netns.iter().map(|(label, drops)| (label.as_str(), drops["NO_SOCKET"])).collect();
        assert_eq!(found, [("blue", 20), ("~gone", 50), ("~host", 10), ("~other", 40)]);
        assert_eq!(lost.missed, 3);
    }
}
