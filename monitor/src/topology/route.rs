//! Routes, policy rules and fixed neighbours of a namespace, as `ip` prints them.

use std::{fmt, net::IpAddr};

use ipnet::IpNet;

use super::names::{IfName, MacAddr};

/// What says that a route, a rule or a neighbour is ours (`rtm_protocol`, `FRA_PROTOCOL`, `NDA_PROTOCOL`); a number that
/// iproute2 gives no name.
pub const OURS: u8 = 110;
/// `RT_TABLE_MAIN` of `include/uapi/linux/rtnetlink.h`.
pub const MAIN: u32 = 254;
/// What the kernel gives an IPv6 route without a metric (`IP6_RT_PRIO_USER`).
pub const IPV6_METRIC: u32 = 1024;
/// What `ip` gives a route without a `proto`: `RTPROT_BOOT`.
const BOOT: u8 = 3;
/// `RTPROT_STATIC`.
const STATIC: u8 = 4;

/// What becomes of a packet that takes a route.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum RouteKind {
    /// It is sent on.
    #[default]
    Unicast,
    /// It is dropped.
    Blackhole,
    /// It is dropped, and the sender is told that the host is unreachable.
    Unreachable,
    /// It is dropped, and the sender is told that this is forbidden.
    Prohibit,
}

/// A route of a namespace.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Route {
    /// Destination; `0.0.0.0/0` or `::/0` for the default route.
    pub to: IpNet,
    /// Next hop.
    pub via: Option<IpAddr>,
    /// Outgoing interface; found by the kernel from `via` when absent.
    pub dev: Option<IfName>,
    /// What becomes of the packet.
    pub kind: RouteKind,
    /// Routing table, [`MAIN`] for the main one.
    pub table: u32,
    /// The lowest is taken; 0 where an IPv4 route has none, [`IPV6_METRIC`] where an IPv6 route has none.
    pub metric: u32,
    /// Source address of packets sent from here.
    pub src: Option<IpAddr>,
    /// Who made it (`rtm_protocol`), [`OURS`] for us.
    pub protocol: u8,
}

impl Route {
    /// A route of ours in the main table without a metric.
    pub fn new(to: IpNet, via: Option<IpAddr>, dev: Option<IfName>) -> Self {
        let metric = default_metric(&to);
        Self { to, via, dev, kind: RouteKind::Unicast, table: MAIN, metric, src: None, protocol: OURS }
    }

    /// Whether the kernel takes only one of the two.
    pub fn collides(&self, other: &Self) -> bool {
        (self.to, self.table, self.metric) == (other.to, other.table, other.metric)
    }

    /// Whether what the kernel has is what is wanted, whoever made it.
    pub fn fits(&self, found: &Self) -> bool {
        self.collides(found)
            && (self.via, self.kind, self.src) == (found.via, found.kind, found.src)
            && (self.dev.is_none() || self.dev == found.dev)
    }
}

/// The metric of a route that is given none.
pub fn default_metric(to: &IpNet) -> u32 {
    if to.addr().is_ipv6() { IPV6_METRIC } else { 0 }
}

/// A policy rule of a namespace: which packets look into which routing table.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rule {
    /// Rules are tried from the lowest on.
    pub priority: u32,
    /// For IPv6 packets, else for IPv4 ones.
    pub ipv6: bool,
    /// Source of the packet; any when absent.
    pub from: Option<IpNet>,
    /// Destination of the packet; any when absent.
    pub to: Option<IpNet>,
    /// Interface it came in by.
    pub iif: Option<IfName>,
    /// Interface its socket is bound to.
    pub oif: Option<IfName>,
    /// Its mark, all bits of it.
    pub fwmark: Option<u32>,
    /// The table to look into.
    pub table: u32,
}

/// A neighbour that is not asked for: a permanent entry of the ARP or neighbour table.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Neighbour {
    /// Through which interface.
    pub dev: IfName,
    /// Its address.
    pub address: IpAddr,
    /// Its MAC address; absent where the kernel has one of another form.
    pub mac: Option<MacAddr>,
    /// Who made it (`NDA_PROTOCOL`), [`OURS`] for us.
    pub protocol: u8,
}

/// As `ip route` prints it.
impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { to, via, dev, kind, table, metric, src, protocol } = self;
        match kind {
            RouteKind::Unicast => {}
            RouteKind::Blackhole => f.write_str("blackhole ")?,
            RouteKind::Unreachable => f.write_str("unreachable ")?,
            RouteKind::Prohibit => f.write_str("prohibit ")?,
        }
        match (to.prefix_len(), via) {
            (0, Some(_)) => f.write_str("default")?,
            _ => write!(f, "{to}")?,
        }
        if let Some(via) = via {
            write!(f, " via {via}")?;
        }
        if let Some(dev) = dev {
            write!(f, " dev {dev}")?;
        }
        if *table != MAIN {
            write!(f, " table {table}")?;
        }
        write!(f, "{}", Protocol(*protocol))?;
        if let Some(src) = src {
            write!(f, " src {src}")?;
        }
        match *metric == default_metric(to) {
            true => Ok(()),
            false => write!(f, " metric {metric}"),
        }
    }
}

/// As `ip rule add` takes it, without the family: `ip -6 rule add` for IPv6.
impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { priority, ipv6: _, from, to, iif, oif, fwmark, table } = self;
        write!(f, "priority {priority} from ")?;
        match from {
            Some(from) => write!(f, "{from}")?,
            None => f.write_str("all")?,
        }
        if let Some(to) = to {
            write!(f, " to {to}")?;
        }
        if let Some(mark) = fwmark {
            write!(f, " fwmark {mark:#x}")?;
        }
        if let Some(iif) = iif {
            write!(f, " iif {iif}")?;
        }
        if let Some(oif) = oif {
            write!(f, " oif {oif}")?;
        }
        write!(f, " lookup {table}{}", Protocol(OURS))
    }
}

/// As `ip neighbour` takes it.
impl fmt::Display for Neighbour {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { dev, address, mac, protocol } = self;
        write!(f, "{address} dev {dev}")?;
        if let Some(mac) = mac {
            write!(f, " lladdr {mac}")?;
        }
        f.write_str(" nud permanent")?;
        // `ip` gives a neighbour none unless told.
        match protocol {
            0 => Ok(()),
            other => write!(f, "{}", Protocol(*other)),
        }
    }
}

/// ` proto N`; nothing for what `ip` gives by itself.
struct Protocol(u8);

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            BOOT => Ok(()),
            STATIC => f.write_str(" proto static"),
            number => write!(f, " proto {number}"),
        }
    }
}
