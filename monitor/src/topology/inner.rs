//! Interfaces of a namespace that are no veth: macvlans of a host's device, and devices of the host that are lent.

use std::fmt;

use ipnet::IpNet;

use super::{
    End, Route,
    names::{IfName, LinkId, MacAddr},
};

/// An interface of a namespace with no end in the host's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inner {
    /// The interface.
    pub end: End,
    /// What it is.
    pub kind: InnerKind,
}

/// What an interface is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum InnerKind {
    /// A macvlan.
    Macvlan {
        /// The device of the host it is on.
        parent: IfName,
        /// Who hears whom.
        mode: MacvlanMode,
    },
    /// A device of the host, moved in for as long as the file says so. Its name in the host's namespace.
    Device(IfName),
}

/// Who on one device hears whom (`IFLA_MACVLAN_MODE`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MacvlanMode {
    /// All macvlans of the device hear each other.
    #[default]
    Bridge,
    /// None hears another.
    Private,
    /// They hear each other by way of the switch outside.
    Vepa,
    /// The device has this one alone.
    Passthru,
}

/// What a lent device was like before, as far as that is put back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    /// Its name in the host's namespace.
    pub device: IfName,
    /// Where it is lent to, and its name there.
    pub link: LinkId,
    /// By this it is known, whatever its name.
    pub mac: MacAddr,
    /// MTU in bytes.
    pub mtu: u32,
    /// Whether it was up.
    pub up: bool,
    /// Its alias.
    pub alias: Option<String>,
    /// Its addresses.
    pub addresses: Vec<IpNet>,
    /// Routes through it that the kernel did not make.
    pub routes: Vec<Route>,
}

impl fmt::Display for MacvlanMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Bridge => "bridge",
            Self::Private => "private",
            Self::Vepa => "vepa",
            Self::Passthru => "passthru",
        })
    }
}
