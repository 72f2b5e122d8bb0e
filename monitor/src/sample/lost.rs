//! What namespaces lost, and the kernel's own figures of it, by the label of the namespace.

use std::collections::BTreeMap;

use crate::topology::figures::Figures;

/// The label of the host's own namespace. No name of a namespace starts with `~`.
pub const HOST: &str = "~host";
/// The label of namespaces without series of their own: beyond the ceiling, or (of drops) not watched; and of packets that
/// belong to none.
pub const OTHER: &str = "~other";
/// The label of namespaces that are gone.
pub const GONE: &str = "~gone";

/// Everything that tells of losses.
#[derive(Clone, Debug, Default)]
pub struct Lost {
    /// Packets the kernel dropped; absent where nothing counts them.
    pub drops: Option<PacketDrops>,
    /// Figures of `/proc/net`, as of the last pass, by label.
    pub figures: BTreeMap<String, Figures>,
}

/// Packets the kernel dropped.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PacketDrops {
    /// By label and reason. Every drop the program saw is in one of them.
    pub netns: BTreeMap<String, BTreeMap<String, u64>>,
    /// Drops the kernel did not show to the program.
    pub missed: u64,
}
