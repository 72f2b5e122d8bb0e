//! The outside world, and what is kept apart: masquerading, published ports, isolation, rules of a namespace.

mod script;

use std::{collections::BTreeMap, fmt, net::IpAddr};

use ipnet::IpNet;

pub use self::script::{Script, tables};
use super::{
    Observed, Topology,
    names::{IfName, LinkId, NsName, Place},
};

/// A port of the host whose traffic goes to a namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Publish {
    /// Address of the host it is published at; any of them when absent.
    pub at: Option<IpAddr>,
    /// Ports of the host.
    pub ports: Ports,
    /// As many ports of the namespace.
    pub to: Ports,
    /// Protocol.
    pub protocol: Protocol,
}

/// Ports from the first to the last, both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ports {
    /// The first.
    pub first: u16,
    /// The last.
    pub last: u16,
}

/// A protocol with ports.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Protocol {
    /// TCP.
    #[default]
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

/// One of two that may talk to each other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Party {
    /// Everything on a bridge.
    Bridge(IfName),
    /// A namespace.
    Netns(NsName),
}

/// Rules at one hook of a namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chain {
    /// Where packets meet it.
    pub hook: Hook,
    /// Whether what no rule accepts is dropped.
    pub drop: bool,
    /// As `nft add rule` takes them.
    pub rules: Vec<String>,
}

/// Where packets meet a chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Hook {
    /// To this namespace.
    Input,
    /// Through it.
    Forward,
    /// From it.
    Output,
}

/// Family of an nft table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Family {
    /// IPv4 and IPv6.
    Inet,
    /// Frames between ports of a bridge.
    Bridge,
}

/// Which table; its name is the same everywhere.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct TableId {
    /// Where.
    pub place: Place,
    /// Its family.
    pub family: Family,
}

/// A table of ours as the kernel has it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ObservedTable {
    /// Fingerprint of the script it was made from.
    pub made_from: u64,
    /// What is known of changes since.
    pub state: TableState,
    /// The name of the set that holds both fingerprints; absent where it was taken out.
    pub stamp: Option<String>,
    /// Packets by named counter.
    pub counters: BTreeMap<String, u64>,
}

/// Whether a table is as it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TableState {
    /// It is.
    Intact,
    /// A crash came before that was noted.
    Unsealed,
    /// Somebody changed it.
    #[default]
    Changed,
}

/// What the host has besides links.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outside {
    /// The name of our tables; it tells run directories apart.
    pub table: String,
    /// Why there can be no tables; absent where there can.
    pub unavailable: Option<String>,
    /// Tables of ours.
    pub tables: BTreeMap<TableId, ObservedTable>,
    /// Switches of those links that may matter.
    pub knobs: BTreeMap<(IfName, Knob), bool>,
    /// How switches were before we changed them.
    pub before: BTreeMap<(IfName, Knob), bool>,
    /// Whether the host forwards everything of IPv4 (`net.ipv4.ip_forward`).
    pub routes_ipv4: bool,
    /// Whether it forwards everything of IPv6 (`net.ipv6.conf.all.forwarding`).
    pub routes_ipv6: bool,
    /// Whether the kernel has [`Knob::ForceForwarding`].
    pub can_force: bool,
}

/// A switch of a link of the host, below `/proc/sys/net`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Knob {
    /// IPv4 packets that come in here may be sent on.
    Forwarding,
    /// The same for IPv6; kernel 6.17 and later.
    ForceForwarding,
    /// Loopback addresses may be on the wire here.
    RouteLocalnet,
}

impl Knob {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Forwarding, Self::ForceForwarding, Self::RouteLocalnet];

    /// The folder of the family and the name, below `/proc/sys/net`.
    pub fn path(self) -> (&'static str, &'static str) {
        match self {
            Self::Forwarding => ("ipv4", "forwarding"),
            Self::ForceForwarding => ("ipv6", "force_forwarding"),
            Self::RouteLocalnet => ("ipv4", "route_localnet"),
        }
    }
}

impl Topology {
    /// Whether the host has to send packets on.
    pub fn forwards(&self) -> bool {
        self.bridges.iter().any(|bridge| bridge.nat)
            || !self.allow.is_empty()
            || self.namespaces.iter().any(|netns| !netns.publish.is_empty())
    }

    /// Whether it asks for rules of nft.
    pub fn filters(&self) -> bool {
        self.forwards()
            || self.bridges.len() > 1
            || self.bridges.iter().any(|bridge| bridge.isolate)
            || self.namespaces.iter().any(|netns| !netns.firewall.is_empty())
    }

    /// How the host reaches a namespace: its own device (a bridge, or its end of a pair), and the interface there.
    pub fn way(&self, netns: &NsName) -> Option<(&IfName, &LinkId)> {
        let inside = |link: &LinkId| link.place == Place::Netns(netns.clone());
        let mut veths = self.veths.iter().filter(|veth| veth.a.link.place == Place::Host);
        let veth = veths.find(|veth| inside(&veth.b.link))?;
        Some((veth.a.bridge.as_ref().unwrap_or(&veth.a.link.name), &veth.b.link))
    }

    /// Host ends by bridge.
    pub(super) fn ports<'a>(&'a self, bridge: &'a IfName) -> impl Iterator<Item = (&'a IfName, &'a LinkId)> {
        let on = move |veth: &&super::Veth| veth.a.bridge.as_ref() == Some(bridge);
        self.veths.iter().filter(on).map(|veth| (&veth.a.link.name, &veth.b.link))
    }

    /// Pairs of namespaces on one bridge that may talk, by the names of their ports and interfaces, each pair both ways.
    pub(super) fn neighbours_allowed<'a>(&'a self, bridge: &'a IfName) -> Vec<[(&'a IfName, &'a LinkId); 2]> {
        let on = |party: &Party| -> Vec<(&'a IfName, &'a LinkId)> {
            let Party::Netns(netns) = party else { return Vec::new() };
            let place = Place::Netns(netns.clone());
            self.ports(bridge).filter(|(_, inner)| inner.place == place).collect()
        };
        let mut pairs = Vec::new();
        for [a, b] in &self.allow {
            for a in on(a) {
                for b in on(b) {
                    pairs.extend([[a, b], [b, a]]);
                }
            }
        }
        pairs
    }
}

/// The chains that drop: between bridges and ports, from outside, and those of the namespace itself.
pub const DROPS: [&str; 5] = ["isolation", "inbound", "input", "forward", "output"];

/// What our rules dropped of a namespace's packets, by chain; those that exist.
pub fn drops(observed: &Observed, netns: &NsName) -> BTreeMap<&'static str, u64> {
    let inside = observed.namespaces.get(netns).and_then(|netns| netns.table.as_ref());
    let host = &observed.outside.tables;
    let named = |chain: &str| match chain {
        "isolation" => script::sent(netns),
        "inbound" => script::received(netns),
        own => script::dropped(own),
    };
    let of = |chain: &'static str| {
        let name = named(chain);
        let own = inside.filter(|_| !matches!(chain, "isolation" | "inbound"));
        let tables = own.into_iter().chain(host.values().filter(|_| own.is_none()));
        let counts: Vec<u64> = tables.filter_map(|table| table.counters.get(&name)).copied().collect();
        (!counts.is_empty()).then(|| (chain, counts.iter().sum()))
    };
    DROPS.into_iter().filter_map(of).collect()
}

/// Links of the host that others made and that have an address of this family.
pub(super) fn uplinks(observed: &Observed, ipv6: bool) -> impl Iterator<Item = &IfName> {
    let has = move |address: &IpNet| address.addr().is_ipv6() == ipv6;
    let foreign = observed.host.iter().filter(|(_, link)| !link.owned && !link.unclaimed);
    let foreign = foreign.filter(|(_, link)| link.kind != "loopback");
    foreign.filter(move |(_, link)| link.addresses.iter().any(has)).map(|(name, _)| name)
}

/// The switches that shall be on. Where the whole host forwards, none is needed for that.
pub(super) fn knobs(desired: &Topology, observed: &Observed) -> Vec<(IfName, Knob)> {
    let mut wanted = Vec::new();
    if !desired.forwards() {
        return wanted;
    }
    let outside = &observed.outside;
    let mut inner: Vec<(&IfName, [bool; 2])> = Vec::new();
    for bridge in &desired.bridges {
        let family = |ipv6| bridge.subnets.iter().any(|subnet| subnet.addr().is_ipv6() == ipv6);
        inner.push((&bridge.name, [family(false), family(true)]));
    }
    for netns in desired.namespaces.iter().filter(|netns| !netns.publish.is_empty()) {
        if let Some((dev, _)) = desired.way(&netns.name)
            && inner.iter().all(|(name, _)| *name != dev)
        {
            inner.push((dev, [true, true]));
        }
    }
    for (ipv6, knob, all) in
        [(false, Knob::Forwarding, outside.routes_ipv4), (true, Knob::ForceForwarding, outside.routes_ipv6)]
    {
        let ours = inner.iter().filter(|(_, families)| families[usize::from(ipv6)]).map(|(name, _)| *name);
        let ours: Vec<&IfName> = ours.collect();
        // Without the switch for one link the whole host would have to become a router: its owner's to decide.
        let possible = knob != Knob::ForceForwarding || outside.can_force;
        if all || ours.is_empty() || !possible {
            continue;
        }
        wanted.extend(ours.into_iter().chain(uplinks(observed, ipv6)).map(|name| (name.clone(), knob)));
    }
    for netns in &desired.namespaces {
        let by_loopback = netns.publish.iter().any(Publish::by_loopback);
        if let Some((dev, _)) = desired.way(&netns.name).filter(|_| by_loopback) {
            wanted.push((dev.clone(), Knob::RouteLocalnet));
        }
    }
    wanted.sort();
    wanted.dedup();
    wanted
}

impl Publish {
    /// Whether it is reached at 127.0.0.1.
    pub(super) fn by_loopback(&self) -> bool {
        self.at.is_none_or(|at| at.is_ipv4() && at.is_loopback())
    }

    /// Whether two take the same port of the host.
    pub fn collides(&self, other: &Self) -> bool {
        let (a, b) = (self.ports, other.ports);
        self.protocol == other.protocol
            && a.first <= b.last
            && b.first <= a.last
            && (self.at.is_none() || other.at.is_none() || self.at == other.at)
    }
}

impl fmt::Display for Publish {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.at {
            Some(IpAddr::V4(at)) => write!(f, "{at}:")?,
            Some(IpAddr::V6(at)) => write!(f, "[{at}]:")?,
            None => {}
        }
        write!(f, "{}:{}/{}", self.ports, self.to, self.protocol)
    }
}

impl fmt::Display for Ports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.first == self.last {
            true => self.first.fmt(f),
            false => write!(f, "{}-{}", self.first, self.last),
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
        })
    }
}

impl fmt::Display for Hook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Input => "input",
            Self::Forward => "forward",
            Self::Output => "output",
        })
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Inet => "inet",
            Self::Bridge => "bridge",
        })
    }
}

impl fmt::Display for Party {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bridge(name) => name.fmt(f),
            Self::Netns(name) => name.fmt(f),
        }
    }
}
