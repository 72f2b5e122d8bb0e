//! What namespaces lost, with the labels they have in a sample.

use std::collections::BTreeMap;

use super::watch::Watched;
use crate::{
    sample::{
        NetnsSample,
        lost::{GONE, HOST, Lost, OTHER, PacketDrops, TcpHealth},
    },
    topology::{Observed, names::Cookie},
    trace::{DropReadings, TcpReadings},
};

/// Joins by cookie and by name. Of a namespace that has no label yet nothing is said until it has: were it counted with
/// the others, they would fall when it got one.
pub(super) fn lost(
    namespaces: &[NetnsSample],
    observed: &Observed,
    watched: &Watched,
    drops: Option<DropReadings>,
    tcp: Option<TcpReadings>,
) -> Lost {
    let figures = observed.figures.iter().map(|(netns, figures)| {
        (netns.as_ref().map_or_else(|| HOST.to_owned(), ToString::to_string), figures.clone())
    });
    let shown = watched.namespaces.iter().filter(|netns| !watched.cut.contains(&netns.cookie));
    let others = shown.filter_map(|netns| Some((netns.label.clone(), netns.figures.clone()?)));
    // Of those in the file the pass, which comes more often, has the newer ones.
    let figures = others.chain(figures);
    Lost {
        drops: drops.map(|drops| packet_drops(namespaces, drops)),
        tcp: tcp.map(|tcp| tcp_health(namespaces, tcp)),
        figures: figures.collect(),
    }
}

fn tcp_health(namespaces: &[NetnsSample], readings: TcpReadings) -> TcpHealth {
    let TcpReadings { namespaces: counts, host, other, gone, missed, attached } = readings;
    let mut netns = labelled(namespaces, host, counts);
    netns.insert(OTHER.to_owned(), other);
    netns.insert(GONE.to_owned(), gone);
    TcpHealth { netns, missed, attached }
}

fn packet_drops(namespaces: &[NetnsSample], readings: DropReadings) -> PacketDrops {
    let DropReadings { namespaces: drops, host, other, gone, missed } = readings;
    let drops = drops.into_iter().map(|(cookie, drops)| (cookie, drops.reasons)).collect();
    let mut netns = labelled(namespaces, host, drops);
    netns.insert(OTHER.to_owned(), other);
    netns.insert(GONE.to_owned(), gone);
    PacketDrops { netns, missed }
}

/// What belongs to a namespace, under its label.
fn labelled<T>(
    namespaces: &[NetnsSample],
    host: Option<Cookie>,
    counts: BTreeMap<Cookie, T>,
) -> BTreeMap<String, T> {
    let labels: BTreeMap<Cookie, &String> =
        namespaces.iter().map(|netns| (netns.cookie, &netns.label)).collect();
    let label = |cookie: Cookie| {
        let label = labels.get(&cookie).map(|label| (*label).clone());
        label.or_else(|| (host == Some(cookie)).then(|| HOST.to_owned()))
    };
    counts.into_iter().filter_map(|(cookie, counts)| Some((label(cookie)?, counts))).collect()
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
        let lost = lost(&[blue], &Observed::default(), &Watched::default(), Some(readings), None);
        assert!(lost.tcp.is_none());
        let lost = lost.drops.expect("counted");
        let found: Vec<_> =
            lost.netns.iter().map(|(label, drops)| (label.as_str(), drops["NO_SOCKET"])).collect();
        assert_eq!(found, [("blue", 20), ("~gone", 50), ("~host", 10), ("~other", 40)]);
        assert_eq!(lost.missed, 3);
    }
}
