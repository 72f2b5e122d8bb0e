//! What is counted, and where on it the programs are.

use std::fmt;

use monitor_ebpf::{EGRESS, INGRESS};

use crate::topology::names::Cookie;

/// An interface of a namespace and the end of it that is counted. Its identity is the namespace's cookie, the side and
/// the interface index; the names are labels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// The namespace whose packets these are.
    pub cookie: Cookie,
    /// The namespace's name.
    pub netns: String,
    /// The interface's name inside the namespace.
    pub interface: String,
    /// Where the programs are.
    pub side: Side,
}

/// Which end is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The peer in the host's namespace: what it receives the namespace transmitted.
    HostEnd {
        /// Index of the peer in the host's namespace.
        ifindex: u32,
    },
    /// The interface itself, inside the namespace.
    Inside {
        /// Index inside the namespace.
        ifindex: u32,
    },
}

impl Target {
    /// Index of the interface the programs are on, in the namespace it is in.
    pub fn ifindex(&self) -> u32 {
        match self.side {
            Side::HostEnd { ifindex } | Side::Inside { ifindex } => ifindex,
        }
    }

    /// Whether another target is the same interface, whatever their names.
    pub fn is(&self, other: &Self) -> bool {
        self.cookie == other.cookie && self.side == other.side
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (place, ifindex) = match self.side {
            Side::HostEnd { ifindex } => ("host end", ifindex),
            Side::Inside { ifindex } => ("inside", ifindex),
        };
        write!(f, "{}/{} ({place}, index {ifindex})", self.netns, self.interface)
    }
}

/// Where a program is attached, as the device sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Hook {
    Ingress,
    Egress,
}

impl Hook {
    pub(crate) const BOTH: [Self; 2] = [Self::Ingress, Self::Egress];

    /// Name of its program in either object.
    pub(crate) fn program(self) -> &'static str {
        match self {
            Self::Ingress => INGRESS,
            Self::Egress => EGRESS,
        }
    }
}
