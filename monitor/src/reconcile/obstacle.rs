//! What keeps packets from where a topology says they may go, and is not ours to change: told with what would mend it.

use std::{collections::BTreeSet, fs, process::Command};

use nftables::helper::{DEFAULT_NFT, get_current_ruleset_raw};
use serde_json::Value;
use tracing::debug;

use super::{Kernel, nft};
use crate::topology::{Observed, Topology, names::IfName};

impl Kernel {
    /// A line for each obstacle on the host; none where packets go as they should.
    pub fn obstacles(&self, desired: &Topology, observed: &Observed) -> Vec<String> {
        let mut told = Vec::new();
        if !desired.filters() {
            return told;
        }
        if let Some(why) = &observed.outside.unavailable {
            told.push(format!(
                "NAT, published ports, forwarding, isolation between bridges and rules of namespaces are off: {why}"
            ));
            return told;
        }
        if !desired.forwards() {
            return told;
        }
        let ipv6 = desired.bridges.iter().flat_map(|bridge| &bridge.subnets).any(|net| net.addr().is_ipv6());
        if ipv6 && !observed.outside.routes_ipv6 && !observed.outside.can_force {
            told.push(
                "IPv6 is not forwarded: before kernel 6.17 that makes the whole host a router, which is yours to \
                 decide: sysctl -w net.ipv6.conf.all.forwarding=1 (and net.ipv6.conf.UPLINK.accept_ra=2 to keep its \
                 own routes)"
                    .to_owned(),
            );
        }
        let devices = devices(desired);
        told.extend(self.dropping_chains(&devices, ipv6));
        told.extend(legacy(&devices));
        told
    }

    /// Chains of others that drop whatever they do not know, beside which our own word does not count.
    fn dropping_chains(&self, devices: &BTreeSet<&IfName>, ipv6: bool) -> Vec<String> {
        let listed = get_current_ruleset_raw(DEFAULT_NFT, ["list", "chains"]).ok();
        let listed: Option<Value> = listed.and_then(|listed| serde_json::from_str(&listed).ok());
        let Some(Value::Array(things)) = listed.as_ref().and_then(|listed| listed.get("nftables")) else {
            debug!("nft does not list chains");
            return Vec::new();
        };
        let chains = things.iter().filter_map(|thing| thing.get("chain"));
        let text = |chain: &Value, key: &str| chain.get(key).and_then(Value::as_str).map(ToOwned::to_owned);
        let mut told = Vec::new();
        for chain in chains {
            let dropping = text(chain, "hook").as_deref() == Some("forward")
                && text(chain, "policy").as_deref() == Some("drop");
            let (Some(family), Some(table), Some(name)) =
                (text(chain, "family"), text(chain, "table"), text(chain, "name"))
            else {
                continue;
            };
            let concerns = matches!(family.as_str(), "ip" | "inet") || (family == "ip6" && ipv6);
            if !dropping || !concerns || table == self.table {
                continue;
            }
            let rules = nft::listing(&["-s", "list", "table", &family, &table]).unwrap_or_default();
            let missing = missing(devices, &rules);
            if missing.is_empty() {
                continue;
            }
            let docker = rules.contains("chain DOCKER-USER");
            let into = if docker { "DOCKER-USER" } else { &name };
            told.push(format!(
                "chain {name} of table {family} {table}, which is not ours, drops what is forwarded for {}: {}",
                names(&missing, ", "),
                rule(&family, &table, into, &missing)
            ));
        }
        told
    }
}

/// The host's own devices that lead to namespaces.
fn devices(desired: &Topology) -> BTreeSet<&IfName> {
    let published = desired.namespaces.iter().filter(|netns| !netns.publish.is_empty());
    let ways = published.filter_map(|netns| Some(desired.way(&netns.name)?.0));
    desired.bridges.iter().map(|bridge| &bridge.name).chain(ways).collect()
}

/// Devices that no line of these rules accepts.
fn missing<'a>(devices: &BTreeSet<&'a IfName>, rules: &str) -> Vec<&'a IfName> {
    let accepted = |name: &IfName| {
        let said = |line: &&str| line.contains(&format!("\"{name}\"")) && line.contains("accept");
        ["iifname", "oifname"].iter().all(|side| rules.lines().filter(said).any(|line| line.contains(side)))
    };
    devices.iter().copied().filter(|name| !accepted(name)).collect()
}

/// The line that lets them through. `nft` and `iptables` of today write to the same place.
fn rule(family: &str, table: &str, chain: &str, devices: &[&IfName]) -> String {
    let quoted: Vec<String> = devices.iter().map(|name| format!("\"{name}\"")).collect();
    let set = match &quoted[..] {
        [one] => one.clone(),
        many => format!("{{ {} }}", many.join(", ")),
    };
    let at = format!("insert rule {family} {table} {chain}");
    format!("nft '{at} iifname {set} accept; {at} oifname {set} accept'")
}

fn names(devices: &[&IfName], separator: &str) -> String {
    devices.iter().map(ToString::to_string).collect::<Vec<_>>().join(separator)
}

/// The same for the old iptables, whose rules nft does not list.
fn legacy(devices: &BTreeSet<&IfName>) -> Option<String> {
    let tables = fs::read_to_string("/proc/net/ip_tables_names").unwrap_or_default();
    tables.lines().find(|name| *name == "filter")?;
    let output = Command::new("iptables-legacy").args(["-S"]).output().ok()?;
    let rules = String::from_utf8_lossy(&output.stdout).into_owned();
    rules.lines().find(|line| *line == "-P FORWARD DROP")?;
    let accepted = |name: &IfName| {
        ["-i", "-o"].iter().all(|side| {
            let said = |line: &str| line.contains(&format!("{side} {name} ")) && line.ends_with("-j ACCEPT");
            rules.lines().any(said)
        })
    };
    let missing: Vec<&IfName> = devices.iter().copied().filter(|name| !accepted(name)).collect();
    if missing.is_empty() {
        return None;
    }
    let chain = if rules.contains("-N DOCKER-USER") { "DOCKER-USER" } else { "FORWARD" };
    let line = |name: &&IfName| {
        format!(
            "iptables-legacy -I {chain} -i {name} -j ACCEPT && iptables-legacy -I {chain} -o {name} -j ACCEPT"
        )
    };
    Some(format!(
        "chain FORWARD of iptables-legacy, which is not ours, drops what is forwarded for {}: {}",
        names(&missing, ", "),
        missing.iter().map(line).collect::<Vec<_>>().join(" && ")
    ))
}
