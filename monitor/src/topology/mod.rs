//! The wiring a file asks for ([`Topology`]), the wiring the kernel has ([`Observed`]), and the steps
//! from one to the other ([`plan`]). Pure: nothing here reads or changes the kernel.

pub mod adopt;
pub mod allocate;
pub mod execute;
pub mod figures;
pub mod inner;
pub mod names;
pub mod outside;
pub mod plan;
pub mod route;
pub mod step;
pub mod tuning;

use std::collections::BTreeMap;

use ipnet::IpNet;

pub use self::route::Route;
use self::{
    adopt::{Adopt, Before},
    figures::Figures,
    inner::{Inner, Lease, MacvlanMode},
    names::{Cookie, IfName, LinkId, MacAddr, NsName, Place, SysctlKey},
    outside::{Chain, ObservedTable, Outside, Party, Publish},
    route::{Neighbour, Rule},
    tuning::{Feature, Tuning},
};

/// Everything one file asks for, valid by construction: names are unique and well-formed, every reference
/// resolves, addresses do not collide. In the order of the file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Topology {
    /// Bridges, all in the host's namespace.
    pub bridges: Vec<Bridge>,
    /// Namespaces to create and keep.
    pub namespaces: Vec<Namespace>,
    /// Every veth pair: those written as `[[veth]]`, and one for each `interface` of a namespace.
    pub veths: Vec<Veth>,
    /// Interfaces of namespaces that are no veth.
    pub inner: Vec<Inner>,
    /// Pairs that may talk to each other all the same.
    pub allow: Vec<[Party; 2]>,
}

/// A bridge in the host's namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bridge {
    /// Name of the bridge device.
    pub name: IfName,
    /// The pools that interfaces without an address draw from: at most one per family.
    pub subnets: Vec<IpNet>,
    /// The bridge's own addresses with the prefix length of their subnet: one for each subnet.
    pub gateways: Vec<IpNet>,
    /// MTU in bytes; the kernel's default when absent.
    pub mtu: Option<u32>,
    /// MAC address; the kernel's choice when absent.
    pub mac: Option<MacAddr>,
    /// Whether what leaves the host from its subnets has the host's address.
    pub nat: bool,
    /// Whether its ports are kept apart from each other.
    pub isolate: bool,
}

/// A network namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Namespace {
    /// Its name, as in `ip netns list`.
    pub name: NsName,
    /// Whether `lo` is up.
    pub lo_up: bool,
    /// What becomes of one of that name that is there already.
    pub adopt: Adopt,
    /// Kernel settings, in the order they are made: some set others.
    pub sysctls: Vec<(SysctlKey, String)>,
    /// Routes beside those the kernel makes for addresses.
    pub routes: Vec<Route>,
    /// Policy rules beside the kernel's own.
    pub rules: Vec<Rule>,
    /// Neighbours that are not asked for.
    pub neighbours: Vec<Neighbour>,
    /// Ports of the host whose traffic it gets.
    pub publish: Vec<Publish>,
    /// Its own firewall rules.
    pub firewall: Vec<Chain>,
}

/// A veth pair. When exactly one end is in the host's namespace it is `a`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Veth {
    /// One end.
    pub a: End,
    /// The other end.
    pub b: End,
}

/// One end of a veth pair.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct End {
    /// Where it is and its name there.
    pub link: LinkId,
    /// Addresses with prefix length.
    pub addresses: Vec<IpNet>,
    /// Subnets to take the next free address from, beside `addresses`; those of the peer's bridge.
    pub pools: Vec<IpNet>,
    /// Bridge this end is a port of (host ends only).
    pub bridge: Option<IfName>,
    /// Whether that port is kept apart from others.
    pub isolated: bool,
    /// MAC address; the kernel's choice when absent.
    pub mac: Option<MacAddr>,
    /// MTU in bytes; the kernel's default when absent.
    pub mtu: Option<u32>,
    /// Queues and offloads.
    pub tuning: Tuning,
}

/// What the kernel has, as far as this agent looks: the host's links, and every namespace in the
/// namespace directory that the file names or that this agent owns.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Observed {
    /// Links of the host's namespace by name. Names the kernel accepts but [`IfName`] does not are left out.
    pub host: BTreeMap<IfName, ObservedLink>,
    /// Routes of the host that the kernel did not make by itself.
    pub host_routes: Vec<Route>,
    /// Namespaces by name.
    pub namespaces: BTreeMap<NsName, ObservedNetns>,
    /// The host's rules and switches.
    pub outside: Outside,
    /// Devices of the host that are lent.
    pub leases: Vec<Lease>,
    /// The kernel's figures of each namespace, of the host's without a name.
    pub figures: BTreeMap<Option<NsName>, Figures>,
    /// What is in the namespace directory under a wanted name and is no network namespace, in words.
    pub junk: BTreeMap<NsName, String>,
}

/// A namespace as the kernel has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObservedNetns {
    /// Identity, never used twice within one boot.
    pub cookie: Cookie,
    /// Inode of the namespace; a hint only, inodes are used again.
    pub inode: u64,
    /// Whether this agent made it: its record in the run directory names this cookie.
    pub owned: bool,
    /// Links by name.
    pub links: BTreeMap<IfName, ObservedLink>,
    /// What it was like before we changed it; absent where we did not.
    pub before: Option<Before>,
    /// Routes of all tables, those the kernel made itself (`proto kernel`) left out.
    pub routes: Vec<Route>,
    /// Its own rules, as far as they are of ours.
    pub table: Option<ObservedTable>,
    /// Policy rules that say that they are ours.
    pub rules: Vec<Rule>,
    /// Permanent neighbours.
    pub neighbours: Vec<Neighbour>,
    /// Kernel settings that the file has or that we changed, where there are such.
    pub sysctls: BTreeMap<SysctlKey, String>,
}

/// A link as the kernel has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObservedLink {
    /// Interface index within its namespace.
    pub ifindex: u32,
    /// `veth`, `bridge`, `loopback`, or what the kernel calls it.
    pub kind: String,
    /// MAC address, where it has one of six bytes.
    pub mac: Option<MacAddr>,
    /// MTU in bytes.
    pub mtu: u32,
    /// Administratively up (`IFF_UP`).
    pub up: bool,
    /// Operationally up: carrier, and not dormant (`IF_OPER_UP`, or `IF_OPER_UNKNOWN` on loopback).
    pub running: bool,
    /// Name of the bridge it is a port of.
    pub bridge: Option<IfName>,
    /// Whether the bridge keeps it apart from other such ports (`BR_ISOLATED`).
    pub isolated: bool,
    /// Whether its alias says that this agent made it.
    pub owned: bool,
    /// Whether this agent made it and was killed before it gave it its alias.
    pub unclaimed: bool,
    /// Whether its alias says that it is lent to where it is.
    pub lent: bool,
    /// Interface index of the other end of a veth pair, or of the device a macvlan is on, in its own namespace.
    pub peer_ifindex: Option<u32>,
    /// Mode of a macvlan.
    pub macvlan: Option<MacvlanMode>,
    /// Queues for sending.
    pub queues: u32,
    /// Packets that may wait to be sent.
    pub txqueuelen: u32,
    /// What the device does instead of the CPU, as far as the file says something of it.
    pub offload: BTreeMap<Feature, bool>,
    /// Addresses with prefix length, IPv6 link-local ones left out.
    pub addresses: Vec<IpNet>,
    /// The kernel's counters (`IFLA_STATS64`), from this device's point of view.
    pub stats: LinkStats,
    /// Whether both hooks of this link are counted by a program of ours. Set by who knows: the agent.
    pub attached: bool,
}

/// The kernel's own counters of a link, from the device's point of view.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LinkStats {
    /// Received by the device.
    pub rx: FlowStats,
    /// Sent by the device.
    pub tx: FlowStats,
}

/// One direction of [`LinkStats`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FlowStats {
    /// Packets (one per skb).
    pub packets: u64,
    /// Bytes.
    pub bytes: u64,
    /// Errors.
    pub errors: u64,
    /// Packets dropped.
    pub dropped: u64,
}

impl Namespace {
    /// One with nothing in it but `lo`.
    pub fn new(name: NsName) -> Self {
        Self {
            name,
            lo_up: true,
            adopt: Adopt::Wire,
            sysctls: Vec::new(),
            routes: Vec::new(),
            rules: Vec::new(),
            neighbours: Vec::new(),
            publish: Vec::new(),
            firewall: Vec::new(),
        }
    }
}

impl Topology {
    /// All ends of all veth pairs, in order, and after them the interfaces that are none.
    pub fn ends(&self) -> impl Iterator<Item = &End> {
        let pairs = self.veths.iter().flat_map(|veth| [&veth.a, &veth.b]);
        pairs.chain(self.inner.iter().map(|inner| &inner.end))
    }

    /// The links that programs are attached to: each interface of a namespace is counted at exactly one.
    pub fn counted(&self) -> impl Iterator<Item = &LinkId> {
        self.veths.iter().flat_map(Veth::counted).chain(self.inner.iter().map(|inner| &inner.end.link))
    }

    /// The interface whose packets are counted at a link: its peer where the link is the host's end of a pair, else
    /// the link itself. Absent for links that are not counted.
    pub fn counted_as(&self, link: &LinkId) -> Option<&LinkId> {
        if let Some(inner) = self.inner.iter().find(|inner| inner.end.link == *link) {
            return Some(&inner.end.link);
        }
        let mut pairs = self.veths.iter().map(|veth| (&veth.a.link, &veth.b.link, veth));
        let (a, b, _) = pairs.find(|(_, _, veth)| veth.counted().any(|counted| counted == link))?;
        let (this, other) = if a == link { (a, b) } else { (b, a) };
        Some(if this.place == Place::Host { other } else { this })
    }
}

impl Veth {
    /// The ends that programs are attached to: the host's end, or both where none is the host's. A pair within the
    /// host is not counted.
    pub fn counted(&self) -> impl Iterator<Item = &LinkId> {
        let ends = match (&self.a.link.place, &self.b.link.place) {
            (Place::Host, Place::Host) => [None, None],
            (Place::Host, Place::Netns(_)) => [Some(&self.a.link), None],
            (Place::Netns(_), Place::Host) => [Some(&self.b.link), None],
            (Place::Netns(_), Place::Netns(_)) => [Some(&self.a.link), Some(&self.b.link)],
        };
        ends.into_iter().flatten()
    }
}

impl ObservedNetns {
    /// Whether it is wired by us and was made by somebody else.
    pub fn adopted(&self) -> bool {
        self.before.is_some() && !self.owned
    }
}

impl Observed {
    /// The same to be changed.
    pub fn link_mut(&mut self, id: &LinkId) -> Option<&mut ObservedLink> {
        match &id.place {
            Place::Host => self.host.get_mut(&id.name),
            Place::Netns(name) => self.namespaces.get_mut(name)?.links.get_mut(&id.name),
        }
    }

    /// The link with this identity, if the kernel has it.
    pub fn link(&self, id: &LinkId) -> Option<&ObservedLink> {
        match &id.place {
            Place::Host => self.host.get(&id.name),
            Place::Netns(name) => self.namespaces.get(name)?.links.get(&id.name),
        }
    }
}
