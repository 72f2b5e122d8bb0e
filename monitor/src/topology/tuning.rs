//! What can be set of an interface beside addresses: queues, and what the device does instead of the CPU.

use std::{collections::BTreeMap, fmt};

/// What the file says of it; what it does not say stays as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tuning {
    /// Queues in each direction, from when the link is made.
    pub queues: Option<u32>,
    /// Packets that may wait to be sent (`ip link ... txqueuelen`).
    pub txqueuelen: Option<u32>,
    /// Whether the device does this.
    pub offload: BTreeMap<Feature, bool>,
}

/// What a device can do (`ethtool -K`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Feature {
    /// Check sums of received packets.
    Rx,
    /// Check sums of sent packets.
    Tx,
    /// Send packets from memory in pieces.
    Sg,
    /// TCP segmentation.
    Tso,
    /// Segmentation, as late as possible.
    Gso,
    /// Joining of received packets.
    Gro,
}

impl Feature {
    /// All of them, in the order in which they are set: some need others.
    pub const ALL: [Self; 6] = [Self::Rx, Self::Tx, Self::Sg, Self::Tso, Self::Gso, Self::Gro];
}

/// As `ethtool -K` takes it.
impl fmt::Display for Feature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Rx => "rx",
            Self::Tx => "tx",
            Self::Sg => "sg",
            Self::Tso => "tso",
            Self::Gso => "gso",
            Self::Gro => "gro",
        })
    }
}
