//! `netns-monitor ls`.

use clap::Args;
use serde_json::json;

use super::{Global, mode_name, print, table};
use crate::{
    agent::{Failure, engine::Engine},
    sample::{Counts, NetnsSample, NetnsState},
};

/// Options of `ls`.
#[derive(Debug, Args)]
pub(super) struct Options {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(global: &Global, Options { json }: &Options) -> Result<(), Failure> {
    let view = Engine::look(&global.host())?.view()?;
    let namespaces = &view.sample.namespaces;
    if *json {
        let list: Vec<_> = namespaces.iter().map(to_json).collect();
        return print(&format!("{:#}\n", json!(list)));
    }
    if namespaces.is_empty() {
        return print(&format!(
            "no namespaces in {}: write a file (`netns-monitor config example`) and apply it, or see `netns-monitor demo`\n",
            global.netns_dir.display()
        ));
    }
    let rows = namespaces.iter().map(|netns| {
        let counts = netns.counts();
        let number = |value: fn(&Counts) -> u64| {
            counts.as_ref().map_or_else(|| "-".to_owned(), |c| value(c).to_string())
        };
        vec![
            netns.label.clone(),
            state(netns.state).to_owned(),
            if netns.owned { "yes" } else { "no" }.to_owned(),
            mode_name(netns.interfaces.iter().find_map(|interface| interface.mode)).to_owned(),
            netns.interfaces.len().to_string(),
            number(|c| c.receive.total().packets),
            number(|c| c.receive.total().bytes),
            number(|c| c.transmit.total().packets),
            number(|c| c.transmit.total().bytes),
        ]
    });
    let header = [
        "NETNS",
        "STATE",
        "OURS",
        "COUNTED",
        "INTERFACES",
        "RX PACKETS",
        "RX BYTES",
        "TX PACKETS",
        "TX BYTES",
    ];
    print(&table::table(&header, 4, rows))
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
