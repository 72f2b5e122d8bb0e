//! `top --once`: one look, as a plain table or as JSON.

use serde_json::{Value, json};

use super::model::is_loss;
use crate::{
    agent::{
        Failure,
        engine::{Look, View},
    },
    cli::{
        ls::{state, to_json},
        print, table,
        why::tcp::as_json,
    },
    sample::NetnsSample,
    trace::{DropReadings, NetnsDrops, TcpReadings},
};
use monitor_ebpf::health::TcpCounts;

pub(super) fn run(look: &Look, search: &str, json: bool) -> Result<(), Failure> {
    let view = look.view()?;
    let (drops, tcp) = (look.drops()?, look.tcp()?);
    let shown = view.sample.namespaces.iter().filter(|netns| netns.label.contains(search));
    let shown: Vec<&NetnsSample> = shown.collect();
    match json {
        true => {
            let list: Vec<Value> =
                shown.iter().map(|netns| one(netns, drops.as_ref(), tcp.as_ref())).collect();
            print(&format!("{:#}\n", json!(list)))
        }
        false => print(&as_text(&view, &shown, drops.as_ref(), tcp.as_ref())),
    }
}

fn drops_of<'a>(netns: &NetnsSample, drops: Option<&'a DropReadings>) -> Option<&'a NetnsDrops> {
    drops?.namespaces.get(&netns.cookie)
}

fn tcp_of<'a>(netns: &NetnsSample, tcp: Option<&'a TcpReadings>) -> Option<&'a TcpCounts> {
    tcp?.namespaces.get(&netns.cookie)
}

/// What `ls --json` says of it, its drops by reason, and its TCP.
fn one(netns: &NetnsSample, drops: Option<&DropReadings>, tcp: Option<&TcpReadings>) -> Value {
    let mut object = to_json(netns);
    object["drops"] = json!(drops_of(netns, drops).map(|drops| &drops.reasons));
    object["tcp"] = json!(tcp_of(netns, tcp).map(|tcp| as_json(&TcpCounts::default(), tcp)));
    object
}

fn as_text(
    view: &View,
    shown: &[&NetnsSample],
    drops: Option<&DropReadings>,
    tcp: Option<&TcpReadings>,
) -> String {
    if view.sample.namespaces.is_empty() {
        return "no network namespaces but the host's own\n".to_owned();
    }
    let header = [
        "NETNS",
        "STATE",
        "RX PACKETS",
        "RX BYTES",
        "TX PACKETS",
        "TX BYTES",
        "LOST",
        "DROPS",
        "RESENT",
        "FAILED",
        "DOWN",
    ];
    let rows = shown.iter().map(|netns| {
        let counts = netns.counts();
        let total = counts.as_ref().map(|counts| {
            let (receive, transmit) = (counts.receive.total(), counts.transmit.total());
            [receive.packets, receive.bytes, transmit.packets, transmit.bytes]
        });
        let reasons = drops_of(netns, drops).map(|drops| &drops.reasons);
        let lost = reasons.map(|reasons| {
            let lost = reasons.iter().filter(|(reason, _)| is_loss(reason));
            [lost.map(|(_, count)| count).sum::<u64>(), reasons.values().sum()]
        });
        let tcp = tcp_of(netns, tcp)
            .map(|tcp| [tcp.retransmits.iter().sum::<u64>(), tcp.failures.iter().sum::<u64>()]);
        let down = netns
            .interfaces
            .iter()
            .filter(|interface| interface.link.as_ref().is_some_and(|link| !link.running));
        let down: Vec<&str> = down.map(|interface| interface.name.as_str()).collect();
        let mut row = vec![netns.label.clone(), state(netns.state).to_owned()];
        row.extend(numbers(total));
        row.extend(numbers(lost));
        row.extend(numbers(tcp));
        row.push(if down.is_empty() { "-".to_owned() } else { down.join(",") });
        row
    });
    table::table(&header, 2, rows)
}

fn numbers<const N: usize>(numbers: Option<[u64; N]>) -> [String; N] {
    std::array::from_fn(|at| numbers.map_or_else(|| "-".to_owned(), |numbers| numbers[at].to_string()))
}
