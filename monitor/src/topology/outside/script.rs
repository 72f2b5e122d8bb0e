//! What our tables say, as `nft -f` takes it.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::{self, Write as _},
    net::{IpAddr, Ipv6Addr},
};

use ipnet::IpNet;

use super::{Chain, Family, Knob, Party, Publish, TableId, knobs, uplinks};
use crate::topology::{
    Bridge, Observed, Topology,
    names::{IfName, LinkId, NsName, Place, stable_hash},
};

/// The inside of a table: counters and chains.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Script {
    /// Named counters.
    pub counters: BTreeSet<String>,
    /// Name, `type ... hook ... priority ...`, and rules of each chain.
    pub chains: Vec<(&'static str, &'static str, Vec<String>)>,
}

type Addresses = BTreeMap<LinkId, Vec<IpNet>>;

/// The tables that a topology asks for. Those of no rule are left out.
pub fn tables(desired: &Topology, observed: &Observed, addresses: &Addresses) -> BTreeMap<TableId, Script> {
    let mut tables = BTreeMap::new();
    if !desired.filters() {
        return tables;
    }
    let writer = Writer { desired, observed, addresses };
    let mut put = |place: Place, family, script: Script| {
        if script.chains.iter().any(|(_, _, rules)| !rules.is_empty()) {
            tables.insert(TableId { place, family }, script);
        }
    };
    put(Place::Host, Family::Inet, writer.host());
    put(Place::Host, Family::Bridge, writer.ports());
    for netns in &desired.namespaces {
        put(Place::Netns(netns.name.clone()), Family::Inet, inside(&netns.firewall));
    }
    tables
}

/// The counter of what a namespace sent and isolation dropped.
pub(super) fn sent(netns: &NsName) -> String {
    format!("from-{netns}")
}

/// The counter of what came from outside and was not let in.
pub(super) fn received(netns: &NsName) -> String {
    format!("to-{netns}")
}

/// The counters of what a namespace's own chains dropped.
pub(super) fn dropped(hook: impl fmt::Display) -> String {
    format!("dropped-{hook}")
}

fn inside(chains: &[Chain]) -> Script {
    let mut script = Script::default();
    for Chain { hook, drop, rules } in chains {
        let mut rules = rules.clone();
        if *drop {
            let counter = dropped(hook);
            rules.push(format!("counter name {counter} drop"));
            script.counters.insert(counter);
        }
        let (name, kind) = match hook {
            super::Hook::Input => ("input", "type filter hook input priority filter"),
            super::Hook::Forward => ("forward", "type filter hook forward priority filter"),
            super::Hook::Output => ("output", "type filter hook output priority filter"),
        };
        script.chains.push((name, kind, rules));
    }
    script
}

struct Writer<'a> {
    desired: &'a Topology,
    observed: &'a Observed,
    addresses: &'a Addresses,
}

impl Writer<'_> {
    fn host(&self) -> Script {
        let mut script = Script::default();
        let loopback = self.guard();
        let forward = self.forward(&mut script.counters);
        script.chains = vec![
            ("guard", "type filter hook prerouting priority raw", loopback),
            ("forward", "type filter hook forward priority filter - 1", forward),
            ("prerouting", "type nat hook prerouting priority dstnat", self.published(false)),
            ("output", "type nat hook output priority -100", self.published(true)),
            ("postrouting", "type nat hook postrouting priority srcnat", self.masquerade()),
        ];
        script.chains.retain(|(_, _, rules)| !rules.is_empty());
        script
    }

    /// Where loopback addresses may be on the wire, nobody there reaches the host's own.
    fn guard(&self) -> Vec<String> {
        let knobs = knobs(self.desired, self.observed).into_iter();
        let loopback = knobs.filter(|(_, knob)| *knob == Knob::RouteLocalnet).map(|(name, _)| name);
        loopback.map(|name| format!("iifname \"{name}\" ip daddr 127.0.0.0/8 drop")).collect()
    }

    fn forward(&self, counters: &mut BTreeSet<String>) -> Vec<String> {
        let bridges: Vec<&IfName> = self.desired.bridges.iter().map(|bridge| &bridge.name).collect();
        let mut rules = vec!["ct state established,related accept".to_owned()];
        self.published_only(&bridges, &mut rules);
        let always = rules.len();
        rules.push("ct status dnat accept".to_owned());
        for [a, b] in &self.desired.allow {
            for (from, to) in [(a, b), (b, a)] {
                self.allow(from, to, &mut rules);
            }
        }
        let before = rules.len();
        if bridges.len() > 1 || self.desired.bridges.iter().any(|bridge| bridge.isolate) {
            for Bridge { name, isolate, .. } in &self.desired.bridges {
                // What isolated ports send to each other is counted where it comes in.
                let verdict = if *isolate { "drop" } else { "accept" };
                rules.push(format!("iifname \"{name}\" oifname \"{name}\" {verdict}"));
            }
            let between = format!("iifname {0} oifname {0}", devices(&bridges));
            for ipv6 in [false, true] {
                let map = self.by_address(&bridges, ipv6, sent, counters);
                rules.extend(map.map(|map| format!("{between} counter name {} saddr {map}", ip(ipv6))));
            }
            rules.push(format!("{between} drop"));
        }
        let hidden: Vec<&IfName> =
            self.desired.bridges.iter().filter(|bridge| bridge.nat).map(|bridge| &bridge.name).collect();
        if !hidden.is_empty() {
            let inbound = format!("iifname != {} oifname {}", devices(&bridges), devices(&hidden));
            for ipv6 in [false, true] {
                let map = self.by_address(&hidden, ipv6, received, counters);
                rules.extend(map.map(|map| format!("{inbound} counter name {} daddr {map}", ip(ipv6))));
            }
            rules.push(format!("{inbound} drop"));
        }
        // Exceptions to nothing.
        if rules.len() == before && always == 1 {
            rules.clear();
        }
        rules
    }

    /// Links that forward only because of us forward only to us.
    fn published_only(&self, bridges: &[&IfName], rules: &mut Vec<String>) {
        let wanted = knobs(self.desired, self.observed);
        let namespaces = self.desired.namespaces.iter().filter(|netns| !netns.publish.is_empty());
        let ways = namespaces.filter_map(|netns| Some(self.desired.way(&netns.name)?.0));
        let ours: BTreeSet<&IfName> = bridges.iter().copied().chain(ways).collect();
        let ours: Vec<&IfName> = ours.into_iter().collect();
        for (ipv6, knob) in [(false, Knob::Forwarding), (true, Knob::ForceForwarding)] {
            let up = uplinks(self.observed, ipv6).filter(|name| wanted.contains(&((*name).clone(), knob)));
            let up: Vec<&IfName> = up.collect();
            if !up.is_empty() {
                let family = if ipv6 { "ipv6" } else { "ipv4" };
                let (up, ours) = (devices(&up), devices(&ours));
                rules.push(format!("meta nfproto {family} iifname {up} oifname != {ours} drop"));
            }
        }
    }

    fn allow(&self, from: &Party, to: &Party, rules: &mut Vec<String>) {
        for ipv6 in [false, true] {
            let (from, to) = (self.party(from, ipv6), self.party(to, ipv6));
            let (Some((from, source)), Some((to, target))) = (from, to) else { continue };
            let side = |key, at: Option<IpAddr>| match at {
                Some(at) => format!("{} {key} {at} ", ip(ipv6)),
                None => String::new(),
            };
            let (source, target) = (side("saddr", source), side("daddr", target));
            let rule = format!("iifname \"{from}\" oifname \"{to}\" {source}{target}accept");
            if !rules.contains(&rule) {
                rules.push(rule);
            }
        }
    }

    /// The device of the host where somebody is, and the address; absent where it has none of this family.
    fn party(&self, party: &Party, ipv6: bool) -> Option<(IfName, Option<IpAddr>)> {
        match party {
            Party::Bridge(name) => Some((name.clone(), None)),
            Party::Netns(netns) => {
                let (dev, inner) = self.desired.way(netns)?;
                Some((dev.clone(), Some(self.address(inner, ipv6)?)))
            }
        }
    }

    fn address(&self, link: &LinkId, ipv6: bool) -> Option<IpAddr> {
        let addresses = self.addresses.get(link)?.iter().map(IpNet::addr);
        addresses.into_iter().find(|address| address.is_ipv6() == ipv6)
    }

    /// `map { ADDRESS : COUNTER, ... }` of all that is on these bridges.
    fn by_address(
        &self,
        bridges: &[&IfName],
        ipv6: bool,
        counter: fn(&NsName) -> String,
        counters: &mut BTreeSet<String>,
    ) -> Option<String> {
        let mut elements = BTreeMap::new();
        for (_, inner) in bridges.iter().flat_map(|bridge| self.desired.ports(bridge)) {
            let Place::Netns(netns) = &inner.place else { continue };
            for address in self.addresses.get(inner).into_iter().flatten().map(IpNet::addr) {
                if address.is_ipv6() == ipv6 {
                    elements.insert(address, counter(netns));
                }
            }
        }
        map(elements, counters)
    }

    fn published(&self, by_host: bool) -> Vec<String> {
        let mut rules = Vec::new();
        for netns in &self.desired.namespaces {
            let Some((_, inner)) = self.desired.way(&netns.name) else { continue };
            for publish in &netns.publish {
                for ipv6 in [false, true] {
                    let Some(to) = self.address(inner, ipv6) else { continue };
                    if publish.at.is_some_and(|at| at.is_ipv6() != ipv6 || (at.is_loopback() && !by_host)) {
                        continue;
                    }
                    rules.push(destination(publish, to, by_host));
                }
            }
        }
        rules
    }

    fn masquerade(&self) -> Vec<String> {
        let bridges: Vec<&IfName> = self.desired.bridges.iter().map(|bridge| &bridge.name).collect();
        let mut rules = Vec::new();
        for Bridge { subnets, .. } in self.desired.bridges.iter().filter(|bridge| bridge.nat) {
            for subnet in subnets {
                let ip = ip(subnet.addr().is_ipv6());
                rules.push(format!("{ip} saddr {subnet} oifname != {} masquerade", devices(&bridges)));
            }
        }
        // What comes back to the wire it came from, or has an address that no answer finds.
        let published = self.desired.namespaces.iter().filter(|netns| !netns.publish.is_empty());
        let ways: BTreeSet<(&IfName, &LinkId)> =
            published.filter_map(|netns| self.desired.way(&netns.name)).collect();
        let mut said = BTreeSet::new();
        for (dev, inner) in ways.into_iter().filter(|(dev, _)| said.insert(*dev)) {
            let bridge = self.desired.bridges.iter().find(|bridge| bridge.name == *dev);
            let nets = match bridge {
                Some(bridge) => bridge.subnets.clone(),
                None => self.addresses.get(inner).into_iter().flatten().map(IpNet::trunc).collect(),
            };
            for ipv6 in [false, true] {
                let nets = nets.iter().filter(|net| net.addr().is_ipv6() == ipv6).map(ToString::to_string);
                let loopback = (!ipv6).then(|| "127.0.0.0/8".to_owned());
                let nets: Vec<String> = nets.chain(loopback).collect();
                if !nets.is_empty() {
                    let (ip, nets) = (ip(ipv6), nets.join(", "));
                    rules
                        .push(format!("oifname \"{dev}\" ct status dnat {ip} saddr {{ {nets} }} masquerade"));
                }
            }
        }
        rules
    }

    /// Ports that are kept apart: what one sends to another is counted where it comes in. The kernel drops it
    /// (`BR_ISOLATED`); where some pairs may talk, these rules do.
    fn ports(&self) -> Script {
        let mut script = Script::default();
        let (mut count, mut forward) = (Vec::new(), Vec::new());
        for bridge in self.desired.bridges.iter().filter(|bridge| bridge.isolate) {
            let pairs = self.desired.neighbours_allowed(&bridge.name);
            let ports: BTreeMap<&IfName, String> = self
                .desired
                .ports(&bridge.name)
                .filter_map(|(port, inner)| match &inner.place {
                    Place::Netns(netns) => Some((port, sent(netns))),
                    Place::Host => None,
                })
                .collect();
            let names: Vec<&IfName> = ports.keys().copied().collect();
            let quoted = ports.into_iter().map(|(port, counter)| (format!("\"{port}\""), counter)).collect();
            let Some(map) = map(quoted, &mut script.counters) else { continue };
            for [(from, _), (to, inner)] in &pairs {
                forward.push(format!("iifname \"{from}\" oifname \"{to}\" accept"));
                for address in self.addresses.get(inner).into_iter().flatten().map(IpNet::addr) {
                    count
                        .push(format!("iifname \"{from}\" {} daddr {address} accept", ip(address.is_ipv6())));
                    if address.is_ipv4() {
                        count.push(format!("iifname \"{from}\" arp daddr ip {address} accept"));
                    }
                }
            }
            for (subnet, gateway) in bridge.subnets.iter().zip(&bridge.gateways) {
                let (ip, gateway) = (ip(subnet.addr().is_ipv6()), gateway.addr());
                let counted = format!("counter name iifname {map}");
                count.push(format!("{ip} daddr {subnet} {ip} daddr != {gateway} {counted}"));
                if gateway.is_ipv4() {
                    count.push(format!(
                        "arp operation request arp daddr ip {subnet} arp daddr ip != {gateway} {counted}"
                    ));
                }
                if let IpAddr::V6(gateway) = gateway {
                    // Who asks from :: asks whether its own address is free.
                    let (all, gateway) = ("ff02::1:ff00:0/104", solicited(gateway));
                    count.push(format!(
                        "ip6 saddr != :: ip6 daddr {all} ip6 daddr != {gateway} icmpv6 type nd-neighbor-solicit {counted}"
                    ));
                }
            }
            if !pairs.is_empty() {
                forward.push(format!("iifname {0} oifname {0} drop", devices(&names)));
            }
        }
        script.chains = vec![
            ("prerouting", "type filter hook prerouting priority 0", count),
            ("forward", "type filter hook forward priority 0", forward),
        ];
        script.chains.retain(|(_, _, rules)| !rules.is_empty());
        script
    }
}

/// One rule that sends a published port to where it belongs.
fn destination(publish: &Publish, to: IpAddr, by_host: bool) -> String {
    let Publish { at, ports, to: inner, protocol } = publish;
    let mut rule = String::new();
    let ip = ip(to.is_ipv6());
    if let Some(at) = at {
        let _infallible = write!(rule, "{ip} daddr {at} ");
    } else if by_host && to.is_ipv6() {
        // The kernel sends nothing from ::1 to anywhere else.
        rule.push_str("ip6 daddr != ::1 ");
    } else {
        let _infallible = write!(rule, "meta nfproto {} ", if to.is_ipv6() { "ipv6" } else { "ipv4" });
    }
    let _infallible = write!(rule, "fib daddr type local {protocol} dport {ports} dnat {ip} to ");
    let _infallible = match (to, ports.first == inner.first) {
        (_, true) => write!(rule, "{to}"),
        (to, false) if ports.first == ports.last => match to {
            IpAddr::V4(to) => write!(rule, "{to}:{}", inner.first),
            IpAddr::V6(to) => write!(rule, "[{to}]:{}", inner.first),
        },
        // A range would be filled in any order: each port has its own.
        (to, false) => {
            let pairs = (ports.first..=ports.last).zip(inner.first..=inner.last);
            let pairs: Vec<String> = pairs.map(|(from, to)| format!("{from} : {to}")).collect();
            write!(rule, "{to} : {protocol} dport map {{ {} }}", pairs.join(", "))
        }
    };
    rule
}

fn map<K: fmt::Display>(elements: BTreeMap<K, String>, counters: &mut BTreeSet<String>) -> Option<String> {
    if elements.is_empty() {
        return None;
    }
    let text: Vec<String> = elements.iter().map(|(key, counter)| format!("{key} : \"{counter}\"")).collect();
    counters.extend(elements.into_values());
    Some(format!("map {{ {} }}", text.join(", ")))
}

/// Where a neighbour of this address is asked for (RFC 4291, section 2.7.1).
fn solicited(address: Ipv6Addr) -> Ipv6Addr {
    let base = u128::from(Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00, 0));
    (base | (u128::from(address) & 0xff_ffff)).into()
}

fn ip(ipv6: bool) -> &'static str {
    if ipv6 { "ip6" } else { "ip" }
}

fn devices(names: &[&IfName]) -> String {
    match names {
        [one] => format!("\"{one}\""),
        many => {
            let many: Vec<String> = many.iter().map(|name| format!("\"{name}\"")).collect();
            format!("{{ {} }}", many.join(", "))
        }
    }
}

impl Script {
    /// The same for the same script, on every machine.
    pub fn fingerprint(&self) -> u64 {
        stable_hash(&self.to_string())
    }
}

/// The inside of `table FAMILY NAME { ... }`.
impl fmt::Display for Script {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for counter in &self.counters {
            writeln!(f, "\tcounter {counter} {{ }}")?;
        }
        for (name, kind, rules) in &self.chains {
            writeln!(f, "\tchain {name} {{\n\t\t{kind}; policy accept;")?;
            for rule in rules {
                writeln!(f, "\t\t{rule}")?;
            }
            writeln!(f, "\t}}")?;
        }
        Ok(())
    }
}
