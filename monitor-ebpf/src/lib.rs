//! What the eBPF programs and the agent share: the layout of the counters, and names.
//!
//! Types and constants only. This library must never name `aya_ebpf`: that crate defines unmangled
//! `memcpy`, `memset` and `memmove` on every target, and naming it once makes an ordinary program
//! that links this library use them. `cargo xtask tidy` checks the agent's symbols.
#![no_std]

pub mod health;
pub mod talk;
pub mod trace;

/// Version of everything pinned: the maps, their values and what the programs write into them.
/// Raise it whenever [`Counters`] or a pinned map changes shape or meaning.
pub const LAYOUT: u32 = 1;

/// Interfaces in one chunk (one inner map of [`CHUNKS_MAP`]).
pub const CHUNK_SLOTS: u32 = 64;

/// Chunks the outer map can hold. The slot of an interface is its ifindex, so ifindexes below
/// `CHUNKS * CHUNK_SLOTS` (4,194,304) are counted by the shared program; an interface above that gets a
/// program instance of its own, like one inside a namespace. Costs 8 bytes each: 512 KiB.
pub const CHUNKS: u32 = 65_536;

/// Array of maps: chunk number (`ifindex / CHUNK_SLOTS`) to a per-CPU array of `CHUNK_SLOTS` [`Counters`].
pub const CHUNKS_MAP: &str = "CHUNKS";

/// Per-CPU array of one [`Counters`]: what a program instance of its own counts into.
pub const OWN_MAP: &str = "OWN";

/// Names of the two programs in the `shared` and in the `inside` object.
pub const INGRESS: &str = "ingress";
/// See [`INGRESS`].
pub const EGRESS: &str = "egress";

/// Read-only global (`u8`) of the `shared` object: the level up to which the program logs. aya-log's own name
/// (`aya_log::LEVEL`), set with `EbpfLoader::override_global`.
///
/// The loader must always set it, because aya-log's default (255) logs everything: to `aya_log::Level::Debug as u8` (4)
/// when the agent logs at debug or finer, else to 0, and then the verifier removes the diagnostics altogether.
/// The level is part of the loaded program: a change takes effect with the next load.
pub const LOG_LEVEL: &str = "AYA_LOG_LEVEL";

/// Number of classes; each packet is in exactly one, so Σ classes is the total.
pub const CLASSES: usize = 12;

/// Class numbers: `family * 5 + protocol` for the ten IP classes, then ARP and everything else.
pub mod class {
    /// First of the five IPv4 classes.
    pub const IPV4: usize = 0;
    /// First of the five IPv6 classes.
    pub const IPV6: usize = 5;
    /// Offset of TCP within a family.
    pub const TCP: usize = 0;
    /// Offset of UDP within a family.
    pub const UDP: usize = 1;
    /// Offset of ICMP (ICMPv6 for IPv6) within a family.
    pub const ICMP: usize = 2;
    /// Offset of SCTP within a family.
    pub const SCTP: usize = 3;
    /// Offset of every other protocol within a family.
    pub const OTHER: usize = 4;
    /// ARP.
    pub const ARP: usize = 10;
    /// Neither ARP nor a readable IPv4 or IPv6 header.
    pub const UNKNOWN: usize = 11;
}

/// Upper bounds (inclusive, bytes of one packet on the wire) of the size buckets; the last bucket is open.
pub const SIZE_BOUNDS: [u32; 10] = [64, 128, 256, 512, 1024, 1518, 4096, 9000, 16_384, 65_536];
/// Number of size buckets.
pub const SIZES: usize = SIZE_BOUNDS.len() + 1;

/// TCP control flags counted, by position in [`DirectionCounters::tcp_flags`].
pub mod flag {
    /// SYN without ACK.
    pub const SYN: usize = 0;
    /// SYN with ACK.
    pub const SYNACK: usize = 1;
    /// FIN.
    pub const FIN: usize = 2;
    /// RST.
    pub const RST: usize = 3;
}
/// Number of TCP control flags counted.
pub const FLAGS: usize = 4;

/// One class in one direction. Every field only rises; the program adds to `skbs` and `skb_bytes` for each
/// skb, and to the `extra_` fields only for an skb that stands for more than it weighs.
///
/// Wire packets are `skbs + extra_packets`, wire bytes `skb_bytes + extra_bytes`: sums of rising numbers,
/// so that a reader who meets the program in the middle of an update never sees a total fall.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClassCounters {
    /// Socket buffers seen, as the kernel's interface counters count packets.
    pub skbs: u64,
    /// `skb->len` summed: bytes from the Ethernet header on, as the kernel's interface counters count bytes.
    pub skb_bytes: u64,
    /// Packets on the wire beyond one per skb (segments of GSO packets).
    pub extra_packets: u64,
    /// Bytes on the wire beyond `skb_bytes` (repeated headers, offloaded VLAN tags).
    pub extra_bytes: u64,
}

/// One hook of one interface.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DirectionCounters {
    /// By class, see [`class`].
    pub classes: [ClassCounters; CLASSES],
    /// Wire packets by size, see [`SIZE_BOUNDS`].
    pub sizes: [u64; SIZES],
    /// TCP segments by control flag, see [`flag`].
    pub tcp_flags: [u64; FLAGS],
    /// Keeps the size a power of two; always 0.
    pub reserved: u64,
}

/// One interface on one CPU: what both hooks counted. The hook is named as the device sees it
/// (ingress = received by the device); who reads turns that into the namespace's point of view.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Counted by the ingress program.
    pub ingress: DirectionCounters,
    /// Counted by the egress program.
    pub egress: DirectionCounters,
}

const _: () = assert!(size_of::<ClassCounters>() == 32);
const _: () = assert!(size_of::<DirectionCounters>() == 512);
const _: () = assert!(size_of::<Counters>() == 1024);
