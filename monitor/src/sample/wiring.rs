//! How the host is wired, as of the last pass: for who draws it.

use std::collections::BTreeMap;

use ipnet::IpNet;

use crate::topology::names::Cookie;

/// Links of the host, and what of namespaces no interface tells.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wiring {
    /// Links of the host, loopback left out.
    pub links: Vec<HostLink>,
    /// Routes of the host that the kernel did not make by itself, as `ip route` has them.
    pub routes: Vec<String>,
    /// Whether the host forwards everything of IPv4.
    pub forwards_ipv4: bool,
    /// The same of IPv6.
    pub forwards_ipv6: bool,
    /// The namespaces that a pass looks into.
    pub inside: BTreeMap<Cookie, Inside>,
    /// Ports of the host that lead to a namespace, of the file.
    pub published: Vec<Published>,
}

/// What no interface's counts tell of a namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Inside {
    /// Addresses with prefix length, by interface.
    pub addresses: BTreeMap<String, Vec<IpNet>>,
    /// Routes that the kernel did not make by itself.
    pub routes: Vec<String>,
}

/// A link of the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostLink {
    /// Its name.
    pub name: String,
    /// `veth`, `bridge`, or what the kernel calls it.
    pub kind: String,
    /// Operationally up.
    pub running: bool,
    /// Whether this agent made it.
    pub owned: bool,
    /// The bridge it is a port of.
    pub bridge: Option<String>,
    /// Whether the bridge keeps it apart from other such ports.
    pub isolated: bool,
    /// Whether what leaves the host from its subnets has the host's address, by the file.
    pub nat: bool,
    /// Addresses with prefix length.
    pub addresses: Vec<IpNet>,
}

/// A port of the host that leads to a namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Published {
    /// The namespace.
    pub netns: String,
    /// As the file has it: `8080:80/tcp`.
    pub port: String,
}
