//! What the API answers with: stated shapes, of which `/api/v1/schema` is the description for machines.
//!
//! Within `v1` names only come, none goes or changes its meaning. What is not known is `null`, never 0. Counts are totals that
//! only rise; a rate is a difference of two over that of their `time`.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Serialize;

/// The agent and the host.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub(super) struct Status {
    /// Version of netns-monitor.
    pub(super) version: &'static str,
    /// Name of the host.
    pub(super) host: String,
    /// When this was read (Unix seconds).
    pub(super) time: f64,
    /// Whether the host is as it shall be and everything is counted.
    pub(super) ready: bool,
    /// Why not.
    pub(super) why: Option<String>,
    /// How packets are counted: `tcx` or `clsact`; null where they are not.
    pub(super) mode: Option<&'static str>,
    /// Whether counts outlive the agent.
    pub(super) pinned: bool,
    /// Namespaces that are shown.
    pub(super) namespaces: u64,
    /// Namespaces beyond the ceiling, summed as `~other`.
    pub(super) cut: u64,
    /// Interfaces that are counted.
    pub(super) interfaces: u64,
    /// Interfaces that should be counted and are not.
    pub(super) unattached: u64,
    /// Whether drops are counted, by reason.
    pub(super) counts_drops: bool,
    /// Whether it is counted how TCP fares.
    pub(super) counts_tcp: bool,
}

/// Some of the namespaces.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub(super) struct List {
    /// When the counts were read (Unix seconds).
    pub(super) time: f64,
    /// How many there are of those that were asked for.
    pub(super) total: usize,
    /// How many of them come before these.
    pub(super) offset: usize,
    /// These.
    pub(super) namespaces: Vec<Row>,
}

/// One namespace in a line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub(super) struct Row {
    /// Its label, as `netns=` of the metrics. `~host` is the host's own namespace, `~other` the sum of those beyond the ceiling.
    pub(super) netns: String,
    /// Life-cycle.
    pub(super) state: State,
    /// Whether netns-monitor made it.
    pub(super) ours: bool,
    /// What else it is called: by paths, containers, pod, unit.
    pub(super) aliases: Vec<String>,
    /// Towards the namespace, all interfaces, those that are gone included.
    pub(super) receive: Option<Traffic>,
    /// From the namespace.
    pub(super) transmit: Option<Traffic>,
    /// Packets that the kernel dropped, whatever the reason.
    pub(super) drops: Option<u64>,
    /// Those of them that were a loss: their reason is none that is usual where nothing is wrong.
    pub(super) losses: Option<u64>,
    /// How TCP fares.
    pub(super) tcp: Option<Tcp>,
    /// What went wrong and how often, by the names that `/api/v1/symptoms` explains; what never happened is not in it.
    pub(super) symptoms: BTreeMap<String, u64>,
    /// Its interfaces.
    pub(super) interfaces: Vec<InterfaceRow>,
}

/// Life-cycle of a namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum State {
    /// It has a name.
    Named,
    /// Its name is gone, and something keeps it alive.
    Detached,
    /// It never had a name.
    Anonymous,
    /// The host's own.
    Host,
    /// A sum of many.
    Sum,
}

/// Packets as on the wire, and their bytes from the Ethernet header on, without FCS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub(super) struct Traffic {
    /// Packets.
    pub(super) packets: u64,
    /// Bytes.
    pub(super) bytes: u64,
}

/// How TCP fares, in sums.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub(super) struct Tcp {
    /// Connections that came to be.
    pub(super) opened: u64,
    /// Connects that failed.
    pub(super) failed: u64,
    /// Segments sent again.
    pub(super) retransmitted: u64,
    /// Resets, both ways.
    pub(super) resets: u64,
}

/// One interface in a line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub(super) struct InterfaceRow {
    /// Its name inside the namespace.
    pub(super) name: String,
    /// Operationally up.
    pub(super) running: Option<bool>,
    /// The other end of a veth pair.
    pub(super) peer: Option<Peer>,
    /// Towards the namespace.
    pub(super) receive: Option<Traffic>,
    /// From the namespace.
    pub(super) transmit: Option<Traffic>,
}

/// The other end of a veth pair.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub(super) struct Peer {
    /// Its namespace: empty for the host's; null where it is not known.
    pub(super) netns: Option<String>,
    /// Its name there.
    pub(super) interface: String,
}

/// Everything of one namespace.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub(super) struct Detail {
    /// When the counts were read (Unix seconds).
    pub(super) time: f64,
    /// It in a line.
    pub(super) row: Row,
    /// Identity (`SO_NETNS_COOKIE`), never used twice within one boot.
    pub(super) cookie: Option<u64>,
    /// Inode, where it is known.
    pub(super) inode: Option<u64>,
    /// Every name it has.
    pub(super) names: Vec<Name>,
    /// The containers in it.
    pub(super) containers: Vec<Container>,
    /// The Kubernetes pod it is of, by uid.
    pub(super) pod: Option<String>,
    /// The unit of systemd whose processes are in it.
    pub(super) unit: Option<String>,
    /// Its interfaces.
    pub(super) interfaces: Vec<Interface>,
    /// Routes beside those of its addresses; null where no pass looks into it.
    pub(super) routes: Option<Vec<String>>,
    /// Ports of the host that lead to it.
    pub(super) published: Vec<String>,
    /// Packets by class: each is in exactly one. Those that occurred.
    pub(super) protocols: Vec<Protocol>,
    /// Packets by size.
    pub(super) sizes: Option<Sizes>,
    /// What went wrong, the most first.
    pub(super) symptoms: Vec<Symptom>,
    /// Round-trip times of connections that ended, and handshakes.
    pub(super) times: Option<Times>,
    /// TCP connections by state, as of the last pass.
    pub(super) connections: Option<BTreeMap<&'static str, u64>>,
    /// Packets that rules of the file dropped, by chain.
    pub(super) firewall_drops: BTreeMap<&'static str, u64>,
    /// The kernel's figures of queues and tables, as of the last pass; those that are not 0.
    pub(super) figures: BTreeMap<String, u64>,
    /// Connection tracking; null where it has none.
    pub(super) conntrack: Option<Conntrack>,
}

/// A name and where it is from.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub(super) struct Name {
    /// How it was found: `named`, `mount`, `process` or `held`.
    pub(super) source: String,
    /// The name.
    pub(super) name: String,
}

/// A container.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub(super) struct Container {
    /// Its engine.
    pub(super) runtime: String,
    /// Its number there.
    pub(super) id: String,
    /// Its name, where the engine told it.
    pub(super) name: Option<String>,
}

/// An interface.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub(super) struct Interface {
    /// It in a line.
    #[serde(flatten)]
    pub(super) row: InterfaceRow,
    /// `veth`, and so on.
    pub(super) kind: Option<String>,
    /// Interface index inside the namespace.
    pub(super) ifindex: Option<u32>,
    /// MAC address.
    pub(super) mac: Option<String>,
    /// MTU in bytes.
    pub(super) mtu: Option<u32>,
    /// Addresses with prefix length; null where no pass looks into the namespace.
    pub(super) addresses: Option<Vec<String>>,
    /// How it is counted: `tcx` or `clsact`.
    pub(super) counted: Option<&'static str>,
    /// Packets that the kernel's counters say the device dropped, received and sent, as of the last look.
    pub(super) drops: Option<[u64; 2]>,
    /// The same of errors.
    pub(super) errors: Option<[u64; 2]>,
    /// Packets that the kernel counted and eBPF did not, received and sent.
    pub(super) uncounted: Option<[u64; 2]>,
}

/// Packets of one class.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub(super) struct Protocol {
    /// `ipv4`, `ipv6`, `arp` or `other`.
    pub(super) family: &'static str,
    /// `tcp`, `udp`, `icmp`, `icmpv6`, `sctp` or `other`.
    pub(super) protocol: &'static str,
    /// Towards the namespace.
    pub(super) receive: Traffic,
    /// From the namespace.
    pub(super) transmit: Traffic,
}

/// Packets by size on the wire.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub(super) struct Sizes {
    /// Upper bounds (inclusive, bytes) of the places; one more place is open.
    pub(super) bounds: Vec<u32>,
    /// Packets towards the namespace.
    pub(super) receive: Vec<u64>,
    /// Packets from the namespace.
    pub(super) transmit: Vec<u64>,
}

/// Something that goes wrong.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub(super) struct Symptom {
    /// Its name: `drop:` and the kernel's reason, `tcp:`, or `device:`.
    pub(super) name: String,
    /// How often it happened; not in the list of all there are.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) count: Option<u64>,
    /// What it is in a few words.
    pub(super) title: String,
    /// What happened, in a sentence.
    pub(super) says: String,
    /// What to look at or try.
    pub(super) look: String,
    /// Whether it happens where nothing is wrong.
    pub(super) usual: bool,
}

/// Times of TCP.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub(super) struct Times {
    /// Upper bounds (inclusive, µs) of the places; one more place is open.
    pub(super) bounds: Vec<u32>,
    /// Connections by their smoothed round-trip time when they ended.
    pub(super) round_trips: Vec<u64>,
    /// Handshakes by time, where it connected.
    pub(super) client_handshakes: Vec<u64>,
    /// Handshakes by time, where it was connected to.
    pub(super) server_handshakes: Vec<u64>,
}

/// Connection tracking.
#[derive(Clone, Copy, Debug, Serialize, JsonSchema)]
pub(super) struct Conntrack {
    /// Connections tracked now.
    pub(super) entries: u64,
    /// How many there can be.
    pub(super) limit: u64,
}

/// How the host is wired, as of the last pass.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub(super) struct Topology {
    /// When this was put together (Unix seconds).
    pub(super) time: f64,
    /// Name of the host.
    pub(super) host: String,
    /// Whether the host forwards everything, of IPv4 and of IPv6.
    pub(super) forwards: [bool; 2],
    /// Routes of the host that the kernel did not make by itself.
    pub(super) routes: Vec<String>,
    /// Links of the host but loopback; of more than `limit` only the first are in `links`.
    pub(super) total_links: usize,
    /// Those: bridges, then what is no port of one, then ports.
    pub(super) links: Vec<HostLink>,
    /// Namespaces there are; of more than `limit` only the first are in `namespaces`.
    pub(super) total: usize,
    /// The namespaces and where their interfaces lead.
    pub(super) namespaces: Vec<Wired>,
    /// Ports of the host that lead to a namespace, of the file.
    pub(super) published: Vec<Published>,
}

/// A link of the host.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub(super) struct HostLink {
    /// Its name.
    pub(super) name: String,
    /// `veth`, `bridge`, or what the kernel calls it.
    pub(super) kind: String,
    /// Operationally up.
    pub(super) running: bool,
    /// Whether netns-monitor made it.
    pub(super) ours: bool,
    /// The bridge it is a port of.
    pub(super) bridge: Option<String>,
    /// Whether the bridge keeps it apart from other such ports.
    pub(super) isolated: bool,
    /// Whether what leaves the host from its subnets has the host's address, by the file.
    pub(super) nat: bool,
    /// Addresses with prefix length.
    pub(super) addresses: Vec<String>,
}

/// A namespace in the wiring.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub(super) struct Wired {
    /// Its label.
    pub(super) netns: String,
    /// Its interfaces.
    pub(super) interfaces: Vec<WiredInterface>,
}

/// An interface in the wiring.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub(super) struct WiredInterface {
    /// Its name inside the namespace.
    pub(super) name: String,
    /// `veth`, and so on.
    pub(super) kind: Option<String>,
    /// Operationally up.
    pub(super) running: Option<bool>,
    /// The other end of a veth pair.
    pub(super) peer: Option<Peer>,
    /// The bridge that the other end is a port of.
    pub(super) bridge: Option<String>,
    /// Addresses with prefix length; null where no pass looks into the namespace.
    pub(super) addresses: Option<Vec<String>>,
}

/// A port of the host that leads to a namespace.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub(super) struct Published {
    /// The namespace.
    pub(super) netns: String,
    /// As the file has it: `8080:80/tcp`.
    pub(super) port: String,
}

/// What `/api/v1/events` sends first, and again after a client missed something.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub(super) struct All<'a> {
    /// When the counts were read (Unix seconds).
    pub(super) time: f64,
    /// The agent.
    pub(super) status: &'a Status,
    /// Every namespace.
    pub(super) namespaces: Vec<&'a Row>,
}

/// What `/api/v1/events` sends then, about once a second.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub(super) struct Change<'a> {
    /// When the counts were read (Unix seconds).
    pub(super) time: f64,
    /// The agent.
    pub(super) status: &'a Status,
    /// Namespaces that are new or of which something changed; of the others nothing did.
    pub(super) changed: Vec<&'a Row>,
    /// Labels of those that are gone.
    pub(super) gone: Vec<&'a str>,
}

/// Who keeps a namespace alive.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub(super) struct HeldBy {
    /// When this was looked for (Unix seconds).
    pub(super) time: f64,
    /// The namespace.
    pub(super) netns: String,
    /// Each, at most the first thousand.
    pub(super) holders: Vec<super::super::Holder>,
    /// What could not be looked at, and why.
    pub(super) notes: Vec<String>,
}

/// Why something was not answered.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub(super) struct Refusal {
    /// In a sentence.
    pub(super) error: String,
}
