//! One change of the kernel, as a value: prints the `ip` line it equals and knows its undo.

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
