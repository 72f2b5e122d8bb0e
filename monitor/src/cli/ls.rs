//! `netns-monitor ls`.

use std::{collections::BTreeMap, time::Instant};

use clap::Args;
use serde_json::json;

use super::{
    Global, mode_name,
    table::{self, Column, Screen},
    watch::{Again, Seen},
};
use crate::{
    agent::{Failure, engine::Engine},
    sample::{Counts, NetnsSample, NetnsState},
    topology::names::Cookie,
};

/// Options of `ls`.
#[derive(Debug, Args)]
pub(super) struct Options {
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    pub(super) again: Again,
}

const COLUMNS: [Column; 9] = [
    table::text("NETNS"),
    table::state("STATE").goes(6),
    table::text("OURS").goes(1),
    table::text("COUNTED").goes(2),
    table::number("INTERFACES").goes(3),
    table::number("RX PACKETS").goes(7),
    table::number("RX BYTES").goes(4),
    table::number("TX PACKETS").goes(7),
    table::number("TX BYTES").goes(4),
];

/// Behind them, where it was looked before.
const RATES: [Column; 4] = [
    table::number("RX P/S"),
    table::number("RX B/S").goes(5),
    table::number("TX P/S"),
    table::number("TX B/S").goes(5),
];

pub(super) fn run(global: &Global, Options { json, again }: &Options) -> Result<(), Failure> {
    let look = Engine::look(&global.host())?;
    let mut before = Before::default();
    again.run(|screen| {
        let view = look.view()?;
        let namespaces = &view.sample.namespaces;
        let rates = before.rates(namespaces);
        Ok(match json {
            true => Seen::Json(namespaces.iter().map(|netns| with_rate(to_json(netns), netns, &rates)).collect()),
            false if namespaces.is_empty() => Seen::Text(format!(
                "no namespaces in {}: write a file (`netns-monitor config example`) and apply it, or see `netns-monitor demo`\n",
                global.netns_dir.display()
            )),
            false => Seen::Text(as_text(namespaces, &rates, screen)),
        })
    })
}

fn as_text(namespaces: &[NetnsSample], rates: &Rates, screen: Screen) -> String {
    let rows = namespaces.iter().map(|netns| {
        let counts = netns.counts();
        let number = |value: fn(&Counts) -> u64| {
            counts.as_ref().map_or_else(|| "-".to_owned(), |c| value(c).to_string())
        };
        let mut row = vec![
            netns.label.clone(),
            state(netns.state).to_owned(),
            if netns.owned { "yes" } else { "no" }.to_owned(),
            mode_name(netns.interfaces.iter().find_map(|interface| interface.mode)).to_owned(),
            netns.interfaces.len().to_string(),
            number(|c| c.receive.total().packets),
            number(|c| c.receive.total().bytes),
            number(|c| c.transmit.total().packets),
            number(|c| c.transmit.total().bytes),
        ];
        if let Some(rates) = rates {
            row.extend(match rates.get(&netns.cookie) {
                Some(rate) => rate.map(table::short),
                None => std::array::from_fn(|_| "-".to_owned()),
            });
        }
        row
    });
    let columns = match rates {
        Some(_) => [&COLUMNS[..], &RATES].concat(),
        None => COLUMNS.to_vec(),
    };
    table::fitted(&columns, rows, screen)
}

/// Packets and bytes a second: received, then sent; absent at the first look.
pub(super) type Rates = Option<BTreeMap<Cookie, [f64; 4]>>;

/// What the look before saw.
#[derive(Default)]
pub(super) struct Before(Option<(Instant, BTreeMap<Cookie, [u64; 4]>)>);

impl Before {
    /// What came since the look before, a second.
    pub(super) fn rates(&mut self, namespaces: &[NetnsSample]) -> Rates {
        let now = Instant::now();
        let counted = namespaces.iter().filter_map(|netns| Some((netns.cookie, numbers(&netns.counts()?))));
        let counted: BTreeMap<Cookie, [u64; 4]> = counted.collect();
        let (then, old) = self.0.replace((now, counted.clone()))?;
        let seconds = (now - then).as_secs_f64();
        let rate = |(cookie, new): (Cookie, [u64; 4])| {
            let old = old.get(&cookie)?;
            Some((cookie, std::array::from_fn(|at| new[at].saturating_sub(old[at]) as f64 / seconds)))
        };
        Some(counted.into_iter().filter_map(rate).collect())
    }
}

fn numbers(counts: &Counts) -> [u64; 4] {
    let (receive, transmit) = (counts.receive.total(), counts.transmit.total());
    [receive.packets, receive.bytes, transmit.packets, transmit.bytes]
}

/// The same with what came a second, where that is known.
pub(super) fn with_rate(
    mut object: serde_json::Value,
    netns: &NetnsSample,
    rates: &Rates,
) -> serde_json::Value {
    if let Some([rx_packets, rx_bytes, tx_packets, tx_bytes]) =
        rates.as_ref().and_then(|rates| rates.get(&netns.cookie))
    {
        object["rate"] = json!({
            "receive": { "packets": rx_packets, "bytes": rx_bytes },
            "transmit": { "packets": tx_packets, "bytes": tx_bytes },
        });
    }
    object
}

pub(super) fn state(state: NetnsState) -> &'static str {
    match state {
        NetnsState::Named => "named",
        NetnsState::Detached => "detached",
        NetnsState::Anonymous => "anonymous",
    }
}

/// Counts as JSON, wire units, or null where nothing is counted.
pub(super) fn counts_json(counts: Option<&Counts>) -> serde_json::Value {
    let Some(counts) = counts else { return serde_json::Value::Null };
    counts
        .each()
        .into_iter()
        .map(|(direction, counts)| {
            let total = counts.total();
            let counts = json!({
                "packets": total.packets, "bytes": total.bytes, "skbs": total.skbs, "skb_bytes": total.skb_bytes,
            });
            (direction.to_owned(), counts)
        })
        .collect::<serde_json::Map<_, _>>()
        .into()
}

pub(super) fn to_json(netns: &NetnsSample) -> serde_json::Value {
    let interfaces: Vec<_> = netns
        .interfaces
        .iter()
        .map(|interface| {
            let link = interface.link.as_ref();
            json!({
                "name": interface.name,
                "counted": interface.mode.map(|mode| mode_name(Some(mode))),
                "counts": counts_json(interface.counts.as_ref()),
                "ifindex": link.map(|link| link.ifindex),
                "kind": link.map(|link| &link.kind),
                "mac": link.and_then(|link| link.mac).map(|mac| mac.to_string()),
                "mtu": link.map(|link| link.mtu),
                "running": link.map(|link| link.running),
                "peer_interface": link.and_then(|link| link.peer_interface.as_ref()),
                "peer_netns": link.and_then(|link| link.peer_netns.as_ref()),
            })
        })
        .collect();
    json!({
        "netns": netns.label,
        "cookie": netns.cookie.0,
        "inode": netns.inode,
        "state": state(netns.state),
        "ours": netns.owned,
        "aliases": netns.identity.aliases.iter()
            .map(|(source, name)| json!({ "source": source, "name": name })).collect::<Vec<_>>(),
        "containers": netns.identity.containers.iter()
            .map(|one| json!({ "runtime": one.runtime, "id": one.id, "name": one.name })).collect::<Vec<_>>(),
        "pod": netns.identity.pod,
        "unit": netns.identity.unit,
        "interfaces": interfaces,
        "counts": counts_json(netns.counts().as_ref()),
        "firewall_drops": netns.drops,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::{IdentitySample, InterfaceSample};

    fn netns(cookie: u64, packets: Option<u64>) -> NetnsSample {
        let mut counts = Counts::default();
        counts.receive.classes[0].packets = packets.unwrap_or_default();
        counts.transmit.classes[1].bytes = packets.unwrap_or_default() * 10;
        let eth0 = InterfaceSample {
            name: "eth0".into(),
            counts: Some(counts),
            mode: None,
            link: None,
            uncounted: None,
        };
        NetnsSample {
            label: format!("ns{cookie}"),
            cookie: Cookie(cookie),
            inode: None,
            state: NetnsState::Named,
            owned: true,
            identity: IdentitySample::default(),
            interfaces: packets.map(|_| eth0).into_iter().collect(),
            retired: Counts::default(),
            drops: BTreeMap::new(),
        }
    }

    #[test]
    fn rates_are_of_what_came_since_the_look_before_and_unknown_for_what_is_new() {
        let mut before = Before::default();
        assert_eq!(before.rates(&[netns(1, Some(100)), netns(3, None)]), None);
        let (then, _) = before.0.as_mut().expect("a look");
        *then -= std::time::Duration::from_secs(1000);
        let namespaces = [netns(1, Some(5100)), netns(2, Some(7)), netns(3, None)];
        let rates = before.rates(&namespaces);
        let [packets, bytes] = [0, 3].map(|at| rates.as_ref().expect("rates")[&Cookie(1)][at]);
        assert!((packets - 5.0).abs() < 0.1 && (bytes - 50.0).abs() < 1.0, "{packets} {bytes}");
        assert_eq!(rates.as_ref().map(BTreeMap::len), Some(1));
        let text = as_text(&namespaces, &rates, Screen::default());
        let last: Vec<Vec<&str>> =
            text.lines().skip(1).map(|line| line.split_whitespace().skip(9).collect()).collect();
        assert_eq!(last, [["5", "0", "0", "50"], ["-"; 4], ["-"; 4]], "{text}");
        assert!(with_rate(json!({}), &namespaces[1], &rates).get("rate").is_none());
    }

    #[test]
    fn on_a_narrow_terminal_the_name_and_the_rates_stay() {
        let namespaces = [netns(1, Some(100))];
        let rates = Some([(Cookie(1), [1.0; 4])].into());
        for width in [20, 30, 40, 80, 120] {
            let text = as_text(&namespaces, &rates, Screen { width: Some(width), ..Screen::default() });
            let mut lines = text.lines();
            let (header, row) = (lines.next().expect("a header"), lines.next().expect("a row"));
            assert!(
                header.starts_with("NETNS") && header.contains("RX P/S") && row.starts_with("ns1"),
                "{text}"
            );
            assert!(header.len() <= usize::from(width).max(21), "{width}\n{text}");
        }
    }
}
