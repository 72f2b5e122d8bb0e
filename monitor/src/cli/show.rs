//! `netns-monitor show NS`.

use clap::Args;
use monitor_ebpf::class;
use serde_json::json;

use super::{
    Global,
    ls::{Before, Rates, state, to_json, with_rate},
    mode_name,
    table::{self, Column, Screen},
    watch::{Again, Seen},
};
use crate::{
    agent::{
        Failure,
        engine::{Engine, Look, View},
    },
    sample::{Counts, IdentitySample, NetnsSample, Sample},
    topology::ObservedNetns,
};

/// Options of `show`.
#[derive(Debug, Args)]
pub(super) struct Options {
    /// Name of the namespace
    netns: String,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    pub(super) again: Again,
}

pub(super) fn run(global: &Global, options: &Options) -> Result<(), Failure> {
    let look = Engine::look(&global.host())?;
    let mut before = Before::default();
    options.again.run(|screen| see(&look, options, &mut before, screen))
}

fn see(look: &Look, options: &Options, before: &mut Before, screen: Screen) -> Result<Seen, Failure> {
    let view = look.view()?;
    let sample = named(&view.sample, &options.netns)?;
    let rates = before.rates(std::slice::from_ref(sample));
    let filed = view.observed.namespaces.values().find(|observed| observed.cookie == sample.cookie);
    let other = match filed {
        Some(_) => None,
        None => other(look, &view, sample),
    };
    let observed = filed.or(other.as_ref());
    Ok(match options.json {
        true => Seen::Json(with_rate(as_json(sample, observed), sample, &rates)),
        false => {
            let rules = observed.filter(|observed| observed.table.is_some());
            let rules = rules.and_then(|_| look.rules(&sample.label).transpose()).transpose()?;
            Seen::Text(as_text(sample, observed, rules.as_deref(), &rates, screen))
        }
    })
}

/// The namespace of a name; who asks for another one hears which there are.
pub(super) fn named<'a>(sample: &'a Sample, netns: &str) -> Result<&'a NetnsSample, Failure> {
    find(&sample.namespaces, netns).ok_or_else(|| {
        let known: Vec<_> = sample.namespaces.iter().map(|netns| netns.label.as_str()).collect();
        let known = if known.is_empty() {
            "there is none".to_owned()
        } else {
            format!("there are: {}", known.join(", "))
        };
        Failure::Failed(anyhow::anyhow!("no namespace `{}`; {known}", netns.escape_debug()))
    })
}

/// The namespace of this label; else the only one that has this name too: of a container, a path, a process.
fn find<'a>(namespaces: &'a [NetnsSample], name: &str) -> Option<&'a NetnsSample> {
    let is_called = |netns: &&NetnsSample| {
        let IdentitySample { aliases, containers, .. } = &netns.identity;
        let mut names = aliases.iter().map(|(_, alias)| alias.as_str());
        names.any(|alias| alias == name)
            || containers.iter().any(|one| one.id == name || one.name.as_deref() == Some(name))
    };
    let labelled = namespaces.iter().find(|netns| netns.label == name);
    labelled.or_else(|| {
        let mut called = namespaces.iter().filter(is_called);
        called.next().filter(|_| called.next().is_none())
    })
}

/// What one is like that no file of the first directory names. Where nothing leads into it, that is not known.
fn other(look: &Look, view: &View, sample: &NetnsSample) -> Option<ObservedNetns> {
    let watched = view.watched.namespaces.iter().find(|watched| watched.cookie == sample.cookie)?;
    let seen = look.kernel().observe_other(watched.way.as_ref()?, sample.cookie);
    seen.inspect_err(|error| tracing::warn!("{}: {error:#}", sample.label)).ok()
}

fn as_json(sample: &NetnsSample, observed: Option<&ObservedNetns>) -> serde_json::Value {
    let mut object = to_json(sample);
    object["routes"] =
        json!(observed.map(|observed| observed.routes.iter().map(ToString::to_string).collect::<Vec<_>>()));
    object["addresses"] = json!(observed.map(|observed| {
        let links = observed.links.iter();
        links.map(|(name, link)| (name.to_string(), addresses(link))).collect::<serde_json::Map<_, _>>()
    }));
    let classes = classes(&sample.counts().unwrap_or_default());
    object["protocols"] = json!(
        classes
            .iter()
            .map(|(name, [rx_packets, rx_bytes, tx_packets, tx_bytes])| json!({
                "class": name,
                "receive": { "packets": rx_packets, "bytes": rx_bytes },
                "transmit": { "packets": tx_packets, "bytes": tx_bytes },
            }))
            .collect::<Vec<_>>()
    );
    object
}

fn addresses(link: &crate::topology::ObservedLink) -> serde_json::Value {
    json!(link.addresses.iter().map(ToString::to_string).collect::<Vec<_>>())
}

fn as_text(
    sample: &NetnsSample,
    observed: Option<&ObservedNetns>,
    rules: Option<&str>,
    rates: &Rates,
    screen: Screen,
) -> String {
    let inode = sample.inode.map_or_else(|| "unknown".to_owned(), |inode| inode.to_string());
    let ours = if sample.owned { "made by netns-monitor" } else { "not made by netns-monitor" };
    let mut text = format!(
        "{}  {}  cookie {}  inode {inode}  {ours}\n\n",
        sample.label,
        screen.paint(state(sample.state)),
        sample.cookie
    );
    text.push_str(&interfaces(sample, observed, screen));
    let routes: Vec<_> =
        observed.map_or_else(Vec::new, |observed| observed.routes.iter().map(ToString::to_string).collect());
    if !routes.is_empty() {
        text.push_str(&format!("\nroutes beside those of its addresses\n  {}\n", routes.join("\n  ")));
    }
    if !sample.drops.is_empty() {
        let drops: Vec<_> =
            sample.drops.iter().map(|(chain, packets)| format!("{chain} {packets}")).collect();
        text.push_str(&format!("\npackets dropped by rules of the file\n  {}\n", drops.join("  ")));
    }
    if let Some(rules) = rules {
        text.push_str(&format!("\nits own rules\n{rules}"));
    }
    if let Some(counts) = sample.counts() {
        let rows = classes(&counts).into_iter().map(|(name, numbers)| {
            let mut row = vec![name];
            row.extend(numbers.map(|number| number.to_string()));
            row
        });
        text.push('\n');
        text.push_str(&table::fitted(&PROTOCOLS, rows, screen));
    }
    if let Some([rx_packets, rx_bytes, tx_packets, tx_bytes]) =
        rates.as_ref().and_then(|rates| rates.get(&sample.cookie)).map(|rate| rate.map(table::short))
    {
        text.push_str(&format!(
            "\na second: receives {rx_packets} packets, {rx_bytes} bytes; sends {tx_packets} packets, {tx_bytes} bytes\n"
        ));
    }
    text
}

const INTERFACES: [Column; 8] = [
    table::text("INTERFACE"),
    table::state("STATE"),
    table::text("KIND").goes(3),
    table::text("MAC").goes(1),
    table::text("MTU").goes(2),
    table::text("PEER").goes(5),
    table::text("COUNTED").goes(4),
    table::text("ADDRESSES").wraps(),
];

const PROTOCOLS: [Column; 5] = [
    table::text("PROTOCOL"),
    table::number("RX PACKETS"),
    table::number("RX BYTES").goes(1),
    table::number("TX PACKETS"),
    table::number("TX BYTES").goes(1),
];

fn interfaces(sample: &NetnsSample, observed: Option<&ObservedNetns>, screen: Screen) -> String {
    let unknown = || "-".to_owned();
    let rows = sample.interfaces.iter().map(|interface| {
        let link = interface.link.as_ref();
        let addresses = observed.and_then(|observed| {
            let (_, link) = observed.links.iter().find(|(name, _)| name.as_str() == interface.name)?;
            Some(link.addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "))
        });
        let peer = link.and_then(|link| {
            let name = link.peer_interface.as_ref()?;
            Some(match link.peer_netns.as_deref() {
                Some("") | None => name.clone(),
                Some(netns) => format!("{netns}/{name}"),
            })
        });
        vec![
            interface.name.clone(),
            link.map_or_else(unknown, |link| if link.running { "up" } else { "down" }.to_owned()),
            link.map_or_else(unknown, |link| link.kind.clone()),
            link.and_then(|link| link.mac).map_or_else(unknown, |mac| mac.to_string()),
            link.map_or_else(unknown, |link| link.mtu.to_string()),
            peer.unwrap_or_else(unknown),
            mode_name(interface.mode).to_owned(),
            addresses.filter(|text| !text.is_empty()).unwrap_or_else(unknown),
        ]
    });
    table::fitted(&INTERFACES, rows, screen)
}

/// The classes that saw a packet, with receive packets and bytes, transmit packets and bytes; and their sum.
fn classes(counts: &Counts) -> Vec<(String, [u64; 4])> {
    let numbers = |of: fn(&crate::sample::DirectionCounts, usize) -> [u64; 2], index| {
        let ([a, b], [c, d]) = (of(&counts.receive, index), of(&counts.transmit, index));
        [a, b, c, d]
    };
    let mut rows: Vec<_> = (0..monitor_ebpf::CLASSES)
        .map(|index| {
            (
                class_name(index),
                numbers(|counts, index| [counts.classes[index].packets, counts.classes[index].bytes], index),
            )
        })
        .filter(|(_, numbers)| numbers.iter().any(|&number| number > 0))
        .collect();
    rows.push(("total".to_owned(), numbers(|counts, _| [counts.total().packets, counts.total().bytes], 0)));
    rows
}

pub(super) fn class_name(index: usize) -> String {
    let family = |first: usize, name: &str, icmp: &str| {
        let protocol = match index - first {
            class::TCP => "tcp",
            class::UDP => "udp",
            class::ICMP => icmp,
            class::SCTP => "sctp",
            _ => "other",
        };
        format!("{name} {protocol}")
    };
    match index {
        class::ARP => "arp".to_owned(),
        class::UNKNOWN => "other".to_owned(),
        index if index >= class::IPV6 => family(class::IPV6, "ipv6", "icmpv6"),
        _ => family(class::IPV4, "ipv4", "icmp"),
    }
}
