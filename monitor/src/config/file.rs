//! The file as written: keys, types, defaults. Nothing is checked here but that.

use std::{collections::BTreeMap, fmt, ops::Range};

use schemars::JsonSchema;
use serde::{
    Deserialize, Deserializer,
    de::{Error, SeqAccess, Visitor},
};
use toml::Spanned;

/// A file of netns-monitor: the bridges, namespaces and veth pairs that shall be.
#[derive(Debug, Default, JsonSchema)]
#[schemars(title = "netns-monitor", deny_unknown_fields)]
pub(super) struct File {
    /// Bridges, all in the host's namespace.
    #[schemars(default)]
    pub(super) bridge: Vec<Bridge>,
    /// Network namespaces to create and keep.
    #[schemars(default)]
    pub(super) namespace: Vec<Namespace>,
    /// Veth pairs written out: between the host and a namespace, or between two namespaces.
    #[schemars(default)]
    pub(super) veth: Vec<Veth>,
    /// Pairs of bridges or namespaces that may talk to each other although they are kept apart.
    #[schemars(default)]
    pub(super) allow: Vec<Allow>,
}

/// A bridge in the host's namespace.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Bridge {
    /// Name of the bridge, at most 15 bytes.
    #[schemars(with = "String")]
    pub(super) name: Spanned<String>,
    /// The subnet that interfaces without an address draw from, such as "198.51.100.0/24"; a list may have one of each family.
    #[schemars(with = "Option<OneOrMany>")]
    pub(super) subnet: Option<Spanned<OneOrMany>>,
    /// The bridge's own address in each subnet, without prefix length; the first address of the subnet when absent.
    #[schemars(with = "Option<OneOrMany>")]
    pub(super) gateway: Option<Spanned<OneOrMany>>,
    /// MTU in bytes.
    #[schemars(with = "Option<u32>")]
    pub(super) mtu: Option<Spanned<i64>>,
    /// MAC address, such as "02:00:00:00:00:01".
    #[schemars(with = "Option<String>")]
    pub(super) mac: Option<Spanned<String>>,
    /// Whether what leaves the host from its subnets has the host's address, and nothing comes in unless it is published.
    #[serde(default)]
    #[schemars(with = "bool", default)]
    pub(super) nat: Option<Spanned<bool>>,
    /// Whether its ports are kept apart from each other.
    #[serde(default)]
    pub(super) isolate: bool,
}

/// Two that may talk to each other.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Allow {
    /// Names of two bridges or namespaces.
    #[schemars(with = "[String; 2]")]
    pub(super) between: Spanned<Vec<Spanned<String>>>,
}

/// Rules inside a namespace, as `nft add rule` takes them.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Firewall {
    /// For packets to the namespace.
    pub(super) input: Option<Chain>,
    /// For packets through it.
    pub(super) forward: Option<Chain>,
    /// For packets from it.
    pub(super) output: Option<Chain>,
}

/// Rules at one hook.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Chain {
    /// What becomes of packets that no rule decides.
    #[serde(default)]
    pub(super) policy: Policy,
    /// Rules in order, such as "tcp dport 80 accept".
    #[serde(default)]
    #[schemars(with = "Vec<String>", default)]
    pub(super) rule: Vec<Spanned<String>>,
}

/// What becomes of packets that no rule decides.
#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub(super) enum Policy {
    /// They pass.
    #[default]
    Accept,
    /// They are dropped, and counted.
    Drop,
}

/// A network namespace.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Namespace {
    /// Its name, as `ip netns list` shows it.
    #[schemars(with = "String")]
    pub(super) name: Spanned<String>,
    /// Whether the loopback interface is up.
    #[serde(default)]
    pub(super) lo: Lo,
    /// Interfaces on bridges.
    #[serde(default)]
    pub(super) interface: Vec<Interface>,
    /// Routes beside those that come with addresses.
    #[serde(default)]
    pub(super) route: Vec<Route>,
    /// What becomes of a namespace of this name that somebody else made: true wires it and leaves it as it was when the
    /// file no longer names it, "own" makes it ours, false refuses.
    pub(super) adopt: Option<Adopt>,
    /// Kernel settings of the namespace, such as { "net.ipv4.ip_forward" = 1 }.
    #[serde(default)]
    #[schemars(with = "BTreeMap<String, Setting>", default)]
    pub(super) sysctl: BTreeMap<Spanned<String>, Spanned<Setting>>,
    /// Policy rules beside the kernel's own.
    #[serde(default)]
    pub(super) rule: Vec<Rule>,
    /// Neighbours that are not asked for.
    #[serde(default)]
    pub(super) neighbour: Vec<Neighbour>,
    /// Ports of the host whose traffic it gets: "8080:80", "127.0.0.1:8080:80/tcp", "9000-9010:9000-9010/udp".
    #[schemars(with = "Option<OneOrMany>")]
    pub(super) publish: Option<Spanned<OneOrMany>>,
    /// Rules of its own.
    #[serde(default)]
    pub(super) firewall: Firewall,
}

/// State of a loopback interface.
#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub(super) enum Lo {
    /// Up.
    #[default]
    Up,
    /// Down, as the kernel makes it.
    Down,
}

/// An interface of a namespace: on a bridge (a veth whose other end is a port of the bridge), a macvlan, or a device of the
/// host.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Interface {
    /// Name inside the namespace.
    #[schemars(with = "String")]
    pub(super) name: Spanned<String>,
    /// The bridge.
    #[schemars(with = "Option<String>")]
    pub(super) bridge: Option<Spanned<String>>,
    /// The device of the host that it is a macvlan of.
    #[schemars(with = "Option<String>")]
    pub(super) macvlan: Option<Spanned<String>>,
    /// Mode of the macvlan: which of one device hear each other.
    #[schemars(with = "Option<Mode>")]
    pub(super) mode: Option<Spanned<Mode>>,
    /// The device of the host that is moved in, for as long as it is here.
    #[schemars(with = "Option<String>")]
    pub(super) device: Option<Spanned<String>>,
    /// Addresses with prefix length; when absent, the next free one of each subnet of the bridge.
    #[schemars(with = "Option<OneOrMany>")]
    pub(super) address: Option<Spanned<OneOrMany>>,
    /// MTU in bytes, of both ends.
    #[schemars(with = "Option<u32>")]
    pub(super) mtu: Option<Spanned<i64>>,
    /// MAC address inside the namespace.
    #[schemars(with = "Option<String>")]
    pub(super) mac: Option<Spanned<String>>,
    /// Name of the host's end; made of the namespace's and the interface's when absent.
    #[schemars(with = "Option<String>")]
    pub(super) host: Option<Spanned<String>>,
    /// Queues in each direction.
    #[schemars(with = "Option<u32>")]
    pub(super) queues: Option<Spanned<i64>>,
    /// Packets that may wait to be sent.
    #[schemars(with = "Option<u32>")]
    pub(super) txqueuelen: Option<Spanned<i64>>,
    /// What the device does instead of the CPU: rx, tx, sg, tso, gso, gro, each true or false.
    #[serde(default)]
    #[schemars(with = "BTreeMap<String, bool>", default)]
    pub(super) offload: BTreeMap<Spanned<String>, bool>,
}

/// Mode of a macvlan.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum Mode {
    /// All hear each other.
    Bridge,
    /// None hears another.
    Private,
    /// They hear each other by way of the switch outside.
    Vepa,
    /// The device has this one alone.
    Passthru,
}

/// A route.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Route {
    /// "default", or a prefix such as "203.0.113.0/24".
    #[schemars(with = "String")]
    pub(super) to: Spanned<String>,
    /// Next hop.
    #[schemars(with = "Option<String>")]
    pub(super) via: Option<Spanned<String>>,
    /// Interface to send through.
    #[schemars(with = "Option<String>")]
    pub(super) dev: Option<Spanned<String>>,
    /// Routing table, 254 (the main one) when absent.
    #[schemars(with = "Option<u32>")]
    pub(super) table: Option<Spanned<i64>>,
    /// The lowest is taken.
    #[schemars(with = "Option<u32>")]
    pub(super) metric: Option<Spanned<i64>>,
    /// Source address of packets sent from the namespace itself.
    #[schemars(with = "Option<String>")]
    pub(super) src: Option<Spanned<String>>,
    /// What becomes of packets that take it.
    #[serde(default, rename = "type")]
    pub(super) kind: RouteKind,
}

/// What becomes of packets that take a route.
#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub(super) enum RouteKind {
    /// They are sent on.
    #[default]
    Unicast,
    /// They are dropped.
    Blackhole,
    /// They are dropped, and the sender is told that the host is unreachable.
    Unreachable,
    /// They are dropped, and the sender is told that this is forbidden.
    Prohibit,
}

/// A policy rule: which packets look into which routing table.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Rule {
    /// Rules are tried from the lowest on; 1 to 32765.
    #[schemars(with = "u32")]
    pub(super) priority: Spanned<i64>,
    /// Source prefix of the packets.
    #[schemars(with = "Option<String>")]
    pub(super) from: Option<Spanned<String>>,
    /// Destination prefix of the packets.
    #[schemars(with = "Option<String>")]
    pub(super) to: Option<Spanned<String>>,
    /// Interface they come in by.
    #[schemars(with = "Option<String>")]
    pub(super) iif: Option<Spanned<String>>,
    /// Interface that their socket is bound to.
    #[schemars(with = "Option<String>")]
    pub(super) oif: Option<Spanned<String>>,
    /// Their mark.
    #[schemars(with = "Option<u32>")]
    pub(super) fwmark: Option<Spanned<i64>>,
    /// Routing table to look into.
    #[schemars(with = "u32")]
    pub(super) table: Spanned<i64>,
    /// Whether it is for IPv6, where no prefix says so.
    #[serde(default)]
    pub(super) ipv6: bool,
}

/// A neighbour that is not asked for.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Neighbour {
    /// Its address.
    #[schemars(with = "String")]
    pub(super) address: Spanned<String>,
    /// Its MAC address.
    #[schemars(with = "String")]
    pub(super) mac: Spanned<String>,
    /// Interface it is behind.
    #[schemars(with = "String")]
    pub(super) dev: Spanned<String>,
}

/// A number or a text.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
pub(super) enum Setting {
    /// A number.
    Number(i64),
    /// A text.
    Text(String),
}

/// What becomes of a namespace that is there already.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
pub(super) enum Adopt {
    /// Whether it is wired, and left as it was.
    Whether(bool),
    /// It is ours from then on.
    Own(Own),
}

/// The word for it.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum Own {
    /// Ours.
    Own,
}

/// A veth pair.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Veth {
    /// One end.
    pub(super) a: End,
    /// The other end.
    pub(super) b: End,
}

/// One end of a veth pair.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct End {
    /// Name of the interface.
    #[schemars(with = "String")]
    pub(super) name: Spanned<String>,
    /// The namespace it is in; the host's when absent.
    #[schemars(with = "Option<String>")]
    pub(super) namespace: Option<Spanned<String>>,
    /// Addresses with prefix length.
    #[schemars(with = "Option<OneOrMany>")]
    pub(super) address: Option<Spanned<OneOrMany>>,
    /// MTU in bytes.
    #[schemars(with = "Option<u32>")]
    pub(super) mtu: Option<Spanned<i64>>,
    /// MAC address.
    #[schemars(with = "Option<String>")]
    pub(super) mac: Option<Spanned<String>>,
    /// Bridge it is a port of; only for the host's end.
    #[schemars(with = "Option<String>")]
    pub(super) bridge: Option<Spanned<String>>,
    /// Queues in each direction.
    #[schemars(with = "Option<u32>")]
    pub(super) queues: Option<Spanned<i64>>,
    /// Packets that may wait to be sent.
    #[schemars(with = "Option<u32>")]
    pub(super) txqueuelen: Option<Spanned<i64>>,
    /// What the device does instead of the CPU: rx, tx, sg, tso, gso, gro, each true or false.
    #[serde(default)]
    #[schemars(with = "BTreeMap<String, bool>", default)]
    pub(super) offload: BTreeMap<Spanned<String>, bool>,
}

/// A string, or a list of them.
#[derive(Debug, JsonSchema)]
#[schemars(untagged)]
pub(super) enum OneOrMany {
    /// One.
    One(String),
    /// Several, each with its place: a list may go over many lines.
    Many(#[schemars(with = "Vec<String>")] Vec<Spanned<String>>),
}

/// Each string with its place.
pub(super) fn texts(written: &Spanned<OneOrMany>) -> Vec<(Range<usize>, &str)> {
    match written.get_ref() {
        OneOrMany::One(one) => vec![(written.span(), one)],
        OneOrMany::Many(many) => many.iter().map(|text| (text.span(), text.get_ref().as_str())).collect(),
    }
}

/// By hand: serde's own way to choose between the two forgets places.
impl<'de> Deserialize<'de> for OneOrMany {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;

        impl<'de> Visitor<'de> for Either {
            type Value = OneOrMany;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string or a list of strings")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<OneOrMany, E> {
                Ok(OneOrMany::One(text.to_owned()))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<OneOrMany, A::Error> {
                let mut many = Vec::new();
                while let Some(text) = list.next_element()? {
                    many.push(text);
                }
                Ok(OneOrMany::Many(many))
            }
        }

        deserializer.deserialize_any(Either)
    }
}
