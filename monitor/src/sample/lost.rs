//! What namespaces lost, and the kernel's own figures of it, by the label of the namespace.

use std::collections::BTreeMap;

use monitor_ebpf::health::{FAILURES, KINDS, TRACEPOINTS, TcpCounts, failure, kind};

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
    /// What TCP met with; absent where nothing counts it.
    pub tcp: Option<TcpHealth>,
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

/// What TCP met with.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TcpHealth {
    /// By label. Every event the programs saw is in one of them.
    pub netns: BTreeMap<String, TcpCounts>,
    /// Events the kernel did not show to the programs.
    pub missed: u64,
    /// Which of the tracepoints are counted; of the others nothing is known.
    pub attached: [bool; TRACEPOINTS.len()],
}

/// What segments sent again are called, by number.
pub const TCP_RETRANSMITS: [&str; KINDS] = {
    let mut names = [""; KINDS];
    names[kind::SYN] = "syn";
    names[kind::SYNACK] = "synack";
    names[kind::FAST] = "fast";
    names[kind::TIMEOUT] = "timeout";
    names[kind::PROBE] = "probe";
    names
};

/// What reasons of failed connects are called, by number.
pub const TCP_FAILURES: [&str; FAILURES] = {
    let mut names = [""; FAILURES];
    names[failure::REFUSED] = "refused";
    names[failure::TIMEOUT] = "timeout";
    names[failure::UNREACHABLE] = "unreachable";
    names[failure::ABANDONED] = "abandoned";
    names[failure::UNSENT] = "unsent";
    names[failure::OTHER] = "other";
    names
};
