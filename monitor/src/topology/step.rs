//! One change of the kernel, as a value: prints the `ip` line it equals and knows its undo.

use std::fmt;

use ipnet::IpNet;

use super::{
    Route,
    names::{IfName, LinkId, MacAddr, NsName, Place},
};

/// One change. Steps carry names, never handles or indexes, so a plan needs no result of an earlier step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Create a namespace, kept by its bind mount, and record that it is ours.
    CreateNetns {
        /// Its name.
        name: NsName,
    },
    /// Delete a namespace of ours: its mount and its record.
    DeleteNetns {
        /// Its name.
        name: NsName,
    },
    /// Create a bridge (down), tagged as ours.
    CreateBridge {
        /// Its name.
        name: IfName,
        /// MTU in bytes.
        mtu: Option<u32>,
        /// MAC address.
        mac: Option<MacAddr>,
    },
    /// Create a veth pair (both ends down), each end directly where it belongs, tagged as ours.
    CreateVeth {
        /// One end; the host's when exactly one is.
        a: NewEnd,
        /// The other end.
        b: NewEnd,
    },
    /// Delete a link of ours (a veth goes with its peer).
    DeleteLink {
        /// Which.
        link: LinkId,
    },
    /// Make a host link a port of a bridge, or of none.
    SetBridge {
        /// The port.
        link: LinkId,
        /// The bridge it is a port of before.
        from: Option<IfName>,
        /// The bridge it is a port of after.
        to: Option<IfName>,
    },
    /// Change the MTU.
    SetMtu {
        /// Of which link.
        link: LinkId,
        /// Before, in bytes.
        from: u32,
        /// After, in bytes.
        to: u32,
    },
    /// Change the MAC address.
    SetMac {
        /// Of which link.
        link: LinkId,
        /// Before.
        from: MacAddr,
        /// After.
        to: MacAddr,
    },
    /// Count the link's packets: both programs, before the link is set up.
    Attach {
        /// Which.
        link: LinkId,
    },
    /// Add an address.
    AddAddress {
        /// To which link.
        link: LinkId,
        /// With prefix length.
        address: IpNet,
    },
    /// Remove an address.
    DeleteAddress {
        /// From which link.
        link: LinkId,
        /// With prefix length.
        address: IpNet,
    },
    /// Set a link up.
    SetUp {
        /// Which.
        link: LinkId,
    },
    /// Set a link down.
    SetDown {
        /// Which.
        link: LinkId,
    },
    /// Add a route to the main table.
    AddRoute {
        /// Where.
        place: Place,
        /// Which.
        route: Route,
    },
    /// Remove a route from the main table.
    DeleteRoute {
        /// Where.
        place: Place,
        /// Which.
        route: Route,
    },
}

/// One end of a veth pair to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewEnd {
    /// Where, and its name there.
    pub link: LinkId,
    /// MAC address; the kernel's choice when absent.
    pub mac: Option<MacAddr>,
    /// MTU in bytes; the kernel's default when absent.
    pub mtu: Option<u32>,
}

impl Step {
    /// The step that takes this one back; absent where there is none: what is deleted cannot be brought back, and
    /// programs go with the link they are attached to.
    pub fn undo(&self) -> Option<Self> {
        Some(match self.clone() {
            Self::CreateNetns { name } => Self::DeleteNetns { name },
            Self::CreateBridge { name, .. } => Self::DeleteLink { link: LinkId::host(name) },
            Self::CreateVeth { a, .. } => Self::DeleteLink { link: a.link },
            Self::SetBridge { link, from, to } => Self::SetBridge { link, from: to, to: from },
            Self::SetMtu { link, from, to } => Self::SetMtu { link, from: to, to: from },
            Self::SetMac { link, from, to } => Self::SetMac { link, from: to, to: from },
            Self::AddAddress { link, address } => Self::DeleteAddress { link, address },
            Self::DeleteAddress { link, address } => Self::AddAddress { link, address },
            Self::SetUp { link } => Self::SetDown { link },
            Self::SetDown { link } => Self::SetUp { link },
            Self::AddRoute { place, route } => Self::DeleteRoute { place, route },
            Self::DeleteRoute { place, route } => Self::AddRoute { place, route },
            Self::DeleteNetns { .. } | Self::DeleteLink { .. } | Self::Attach { .. } => return None,
        })
    }
}

/// The line of `ip` that the step equals.
impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CreateNetns { name } => write!(f, "ip netns add {name}"),
            Self::DeleteNetns { name } => write!(f, "ip netns delete {name}"),
            Self::CreateBridge { name, mtu, mac } => {
                write!(f, "ip link add {name}{} type bridge", Properties { mtu: *mtu, mac: *mac })
            }
            Self::CreateVeth { a, b } => {
                let NewEnd { link, mac, mtu } = a;
                write!(
                    f,
                    "{} link add {}{}",
                    At(&link.place),
                    link.name,
                    Properties { mtu: *mtu, mac: *mac }
                )?;
                let NewEnd { link, mac, mtu } = b;
                write!(f, " type veth peer name {}", link.name)?;
                if let (Place::Netns(netns), true) = (&link.place, link.place != a.link.place) {
                    write!(f, " netns {netns}")?;
                }
                write!(f, "{}", Properties { mtu: *mtu, mac: *mac })
            }
            Self::DeleteLink { link } => write!(f, "{} link delete {}", At(&link.place), link.name),
            Self::SetBridge { link, from: _, to: Some(bridge) } => {
                write!(f, "{} link set {} master {bridge}", At(&link.place), link.name)
            }
            Self::SetBridge { link, from: _, to: None } => {
                write!(f, "{} link set {} nomaster", At(&link.place), link.name)
            }
            Self::SetMtu { link, from: _, to } => {
                write!(f, "{} link set {} mtu {to}", At(&link.place), link.name)
            }
            Self::SetMac { link, from: _, to } => {
                write!(f, "{} link set {} address {to}", At(&link.place), link.name)
            }
            Self::Attach { link } => {
                write!(f, "# count {link}: attach eBPF to its tcx_ingress and tcx_egress (no ip equivalent)")
            }
            Self::AddAddress { link, address } => {
                // IPv6 addresses are usable at once: nobody else is given the same.
                let nodad = if matches!(address, IpNet::V6(_)) { " nodad" } else { "" };
                write!(f, "{} address add {address} dev {}{nodad}", At(&link.place), link.name)
            }
            Self::DeleteAddress { link, address } => {
                write!(f, "{} address delete {address} dev {}", At(&link.place), link.name)
            }
            Self::SetUp { link } => write!(f, "{} link set {} up", At(&link.place), link.name),
            Self::SetDown { link } => write!(f, "{} link set {} down", At(&link.place), link.name),
            Self::AddRoute { place, route } => write!(f, "{} route add {route}", At(place)),
            Self::DeleteRoute { place, route } => write!(f, "{} route delete {route}", At(place)),
        }
    }
}

/// `ip`, or `ip -n NETNS`.
struct At<'a>(&'a Place);

impl fmt::Display for At<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Place::Host => f.write_str("ip"),
            Place::Netns(netns) => write!(f, "ip -n {netns}"),
        }
    }
}

/// What may be given when a link is made.
struct Properties {
    mtu: Option<u32>,
    mac: Option<MacAddr>,
}

impl fmt::Display for Properties {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(mtu) = self.mtu {
            write!(f, " mtu {mtu}")?;
        }
        match self.mac {
            Some(mac) => write!(f, " address {mac}"),
            None => Ok(()),
        }
    }
}
