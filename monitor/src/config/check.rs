//! From the file as written to a topology: every name, reference, address and route is checked, and everything wrong is
//! reported.

mod address;
mod build;
mod outside;
mod route;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    ops::Range,
};

use ipnet::IpNet;
use toml::Spanned;

pub(crate) use self::address::of_one_host;
use super::file;
use crate::topology::{
    Bridge, End, Namespace, Route, Topology, Veth,
    adopt::Adopt,
    names::{IfName, LinkId, MacAddr, NsName, Place, host_end},
};

/// Where in the text, and what is wrong there.
pub(super) type Report<'a> = &'a mut dyn FnMut(Range<usize>, String);

/// Checks everything; what it returns is only good when nothing was reported.
pub(super) fn check(written: &file::File, report: Report<'_>) -> Topology {
    let mut check = Check {
        report,
        said: 0,
        doubtful: BTreeSet::new(),
        broken: BTreeSet::new(),
        hosts: BTreeSet::new(),
        macs: BTreeSet::new(),
        addresses: BTreeSet::new(),
        bridges: BTreeMap::new(),
        lent: BTreeSet::new(),
        networks: Vec::new(),
    };
    let mut topology = Topology::default();
    for bridge in &written.bridge {
        let said = check.said;
        topology.bridges.extend(check.bridge(bridge));
        if check.said > said {
            check.broken.insert(bridge.name.get_ref().clone());
        }
    }
    check.reserve_names(written);

    let mut names = BTreeSet::new();
    for namespace in &written.namespace {
        let Some(name) = check.parse::<NsName>(&namespace.name) else { continue };
        if !names.insert(name.clone()) {
            check.say(
                namespace.name.span(),
                format!("namespace {name} is in the file twice: give each one name"),
            );
            continue;
        }
        let said = check.said;
        namespace.interface.iter().for_each(|interface| check.interface(&name, interface, &mut topology));
        if check.said > said {
            check.doubtful.insert(name.clone());
        }
        let firewall = check.firewall(&namespace.firewall);
        topology.namespaces.push(Namespace {
            name,
            lo_up: namespace.lo == file::Lo::Up,
            adopt: match namespace.adopt {
                None | Some(file::Adopt::Whether(true)) => Adopt::Wire,
                Some(file::Adopt::Whether(false)) => Adopt::Never,
                Some(file::Adopt::Own(file::Own::Own)) => Adopt::Own,
            },
            sysctls: check.sysctls(namespace),
            routes: Vec::new(),
            rules: check.rules(namespace),
            neighbours: check.neighbours(namespace),
            publish: Vec::new(),
            firewall,
        });
    }
    for veth in &written.veth {
        let said = check.said;
        topology.veths.extend(check.veth(veth, &names));
        if check.said > said {
            let ends = [&veth.a, &veth.b].into_iter().filter_map(|end| end.namespace.as_ref());
            check.doubtful.extend(ends.filter_map(|netns| netns.get_ref().parse().ok()));
        }
    }
    check.inside_names(written, &topology);
    check.pools(written, &topology);
    let isolated: BTreeSet<IfName> =
        topology.bridges.iter().filter(|bridge| bridge.isolate).map(|bridge| bridge.name.clone()).collect();
    for veth in &mut topology.veths {
        veth.a.isolated = veth.a.bridge.as_ref().is_some_and(|bridge| isolated.contains(bridge));
    }
    check.published(written, &mut topology);
    topology.allow = written.allow.iter().filter_map(|allow| check.allow(allow, &topology)).collect();
    let mut ends: BTreeMap<&NsName, Vec<&End>> = BTreeMap::new();
    for end in topology.ends() {
        if let Place::Netns(netns) = &end.link.place {
            ends.entry(netns).or_default().push(end);
        }
    }
    let mut routes = BTreeMap::new();
    for namespace in &written.namespace {
        if let Ok(name) = namespace.name.get_ref().parse::<NsName>() {
            let found = check.routes(&name, namespace, ends.get(&name));
            routes.insert(name, found);
        }
    }
    for namespace in &mut topology.namespaces {
        namespace.routes = routes.remove(&namespace.name).unwrap_or_default();
    }
    topology
}

/// What was seen so far, for what must be unique or must exist.
struct Check<'a> {
    report: Report<'a>,
    /// How many mistakes were reported.
    said: usize,
    /// Namespaces with a mistake in an interface: whether their routes work cannot be told.
    doubtful: BTreeSet<NsName>,
    /// Bridges with a mistake, as written: what hangs on them is not held against it.
    broken: BTreeSet<String>,
    /// Names of the host's links.
    hosts: BTreeSet<IfName>,
    /// MAC addresses by segment.
    macs: BTreeSet<(String, MacAddr)>,
    /// Addresses by the segment they are on: a bridge, or a pair by its first end.
    addresses: BTreeSet<(String, IpAddr)>,
    /// Subnets and gateways by bridge.
    bridges: BTreeMap<IfName, (Vec<IpNet>, Vec<IpNet>)>,
    /// Devices that are lent.
    lent: BTreeSet<IfName>,
    /// Networks of the host's links: they must not overlap.
    networks: Vec<(IpNet, String)>,
}

impl Check<'_> {
    fn say(&mut self, at: Range<usize>, what: String) {
        self.said += 1;
        (self.report)(at, what);
    }

    /// Parses a value of its own; its error says what is wrong.
    fn parse<T: std::str::FromStr<Err: ToString>>(&mut self, text: &Spanned<String>) -> Option<T> {
        match text.get_ref().parse() {
            Ok(value) => Some(value),
            Err(error) => {
                self.say(text.span(), error.to_string());
                None
            }
        }
    }

    fn interface_name(&mut self, text: &Spanned<String>) -> Option<IfName> {
        let name: IfName = self.parse(text)?;
        if name.as_str() == "lo" {
            self.say(
                text.span(),
                "`lo` is the loopback interface that every namespace has: choose another name".to_owned(),
            );
            return None;
        }
        Some(name)
    }

    /// A name among the host's links, which must be free.
    fn host_name(&mut self, text: &Spanned<String>) -> Option<IfName> {
        let name = self.interface_name(text)?;
        if !self.hosts.insert(name.clone()) {
            self.say(
                text.span(),
                format!("the host's link {name} is in the file twice: choose another name"),
            );
            return None;
        }
        Some(name)
    }

    /// A MAC address, at most once on its segment.
    fn mac(&mut self, text: Option<&Spanned<String>>, segment: &str) -> Option<MacAddr> {
        let text = text?;
        let mac = self.parse(text)?;
        if !self.macs.insert((segment.to_owned(), mac)) {
            self.say(
                text.span(),
                format!("MAC address {mac} is used twice on {segment}: packets would go to either"),
            );
        }
        Some(mac)
    }

    /// Bounds: `ETH_MIN_MTU` and `ETH_MAX_MTU` of the kernel, and RFC 8200 section 5 for IPv6.
    fn mtu(&mut self, mtu: Option<&Spanned<i64>>, addresses: &[IpNet]) -> Option<u32> {
        let mtu = mtu?;
        let ipv6 = addresses.iter().any(|address| matches!(address, IpNet::V6(_)));
        let least = if ipv6 { 1280 } else { 68 };
        match u32::try_from(*mtu.get_ref()) {
            Ok(bytes) if (least..=65_535).contains(&bytes) => Some(bytes),
            _ => {
                let why = if ipv6 { " (IPv6 needs 1280)" } else { "" };
                self.say(
                    mtu.span(),
                    format!("MTU {} is not within {least} to 65535 bytes{why}", mtu.get_ref()),
                );
                None
            }
        }
    }

    fn bridge(&mut self, written: &file::Bridge) -> Option<Bridge> {
        let file::Bridge { name, subnet, gateway, mtu, mac, nat, isolate } = written;
        let subnets = subnet.as_ref().map(|subnet| self.subnets(subnet)).unwrap_or_default();
        let gateways = self.gateways(gateway.as_ref(), &subnets);
        let mac = self.mac(mac.as_ref(), &format!("bridge {}", name.get_ref().escape_debug()));
        let mtu = self.mtu(mtu.as_ref(), &gateways);
        let name_ = self.host_name(name)?;
        let at = subnet.as_ref().map_or(name.span(), Spanned::span);
        for subnet in &subnets {
            self.network(&at, *subnet, format!("bridge {name_}"));
        }
        self.bridges.insert(name_.clone(), (subnets.clone(), gateways.clone()));
        if let Some(nat) = nat.as_ref().filter(|nat| *nat.get_ref() && subnet.is_none()) {
            let what = format!(
                "bridge {name_} has no subnet whose packets could get the host's address: give it one"
            );
            self.say(nat.span(), what);
        }
        let nat = nat.as_ref().is_some_and(|nat| *nat.get_ref());
        Some(Bridge { name: name_, subnets, gateways, mtu, mac, nat, isolate: *isolate })
    }

    /// Networks on the host must not overlap, or packets go the wrong way.
    fn network(&mut self, at: &Range<usize>, network: IpNet, of: String) {
        let network = network.trunc();
        let overlaps = |(other, _): &&(IpNet, String)| other.contains(&network) || network.contains(other);
        if let Some((other, whose)) = self.networks.iter().find(overlaps) {
            let what = format!("{network} of {of} overlaps {other} of {whose}: choose another prefix");
            self.say(at.clone(), what);
        }
        self.networks.push((network, of));
    }
}
