//! What the opt-in programs share with the agent: who talks with whom (`flows`), and DNS (`dns`).
//!
//! Types and constants only, as in the rest of this library. Everything is as the namespace sees it: `local` is its own
//! address, `receive` what came to it.

/// Version of what the maps of `flows` hold. Raise it whenever one of them changes shape or meaning.
pub const FLOWS_LAYOUT: u32 = 1;
/// The same for `dns`.
pub const DNS_LAYOUT: u32 = 1;

/// Hash from a slot to [`Slot`]: the interfaces looked at; user space alone inserts.
pub const SLOTS_MAP: &str = "SLOTS";
/// Interfaces that can be looked at, and namespaces.
pub const SLOTS: usize = 65_536;

/// Read-only global (`u64`): the slot of the only interface an instance is attached to; 0 where the slot is the interface's
/// index (host ends, which share one instance).
pub const SLOT: &str = "SLOT";
/// Read-only global (`u32`): 1 where the programs are inside the namespace, 0 at the host end of its veth.
pub const INSIDE: &str = "INSIDE";

/// An interface looked at.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Slot {
    /// Identity of the namespace.
    pub cookie: u64,
    /// The kernel's tags of the programs attached, ingress first.
    pub tags: [u64; 2],
    /// Interface index, in the host's namespace or inside.
    pub ifindex: u32,
    /// As [`INSIDE`].
    pub inside: u32,
    /// Name inside the namespace, zero-filled.
    pub interface: [u8; 16],
}

/// Per-CPU hash from [`FlowKey`] to [`Flow`]. A new flow that finds it full goes to [`NO_ROOM_MAP`].
pub const FLOWS_MAP: &str = "FLOWS";
/// Entries of [`FLOWS_MAP`] unless the agent is told another number; about 110 bytes each, and 48 for each CPU.
pub const FLOWS: usize = 8192;
/// Per-CPU hash from a namespace's cookie to [`Talked`]: packets of flows that found no room.
pub const NO_ROOM_MAP: &str = "NO_ROOM";

/// One conversation of one interface. What has no ports (ICMP, later fragments) has 0 there.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct FlowKey {
    /// See [`SLOTS_MAP`].
    pub slot: u64,
    /// The namespace's address as it lies in the packet, an IPv4 address in the first four bytes.
    pub local: [u16; 8],
    /// The other's.
    pub remote: [u16; 8],
    /// The namespace's port, as it lies in the packet.
    pub local_port: u16,
    /// The other's.
    pub remote_port: u16,
    /// 4 or 6.
    pub family: u8,
    /// IP protocol number.
    pub protocol: u8,
    /// Always 0.
    pub reserved: u16,
}

/// Packets and bytes as on the wire, counted as [`crate::ClassCounters`] are.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Amount {
    /// Packets.
    pub packets: u64,
    /// Bytes from the Ethernet header on.
    pub bytes: u64,
}

/// Both directions.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Talked {
    /// Towards the namespace.
    pub receive: Amount,
    /// From the namespace.
    pub transmit: Amount,
}

/// What is known of a flow. Times are nanoseconds of `CLOCK_MONOTONIC_COARSE`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flow {
    /// Counts.
    pub talked: Talked,
    /// First packet; 0 on a CPU that saw none.
    pub first: u64,
    /// Last packet.
    pub last: u64,
}

/// The port of DNS.
pub const DNS_PORT: u16 = 53;
/// Per-CPU hash from [`RoleKey`] to [`DnsRole`]; user space alone inserts.
pub const DNS_MAP: &str = "DNS";
/// LRU hash from [`DnsKey`] to the time of the query (`CLOCK_MONOTONIC`, nanoseconds).
pub const PENDING_MAP: &str = "PENDING";
/// Queries that can wait for their answer; beyond that the one that waits longest falls out.
pub const PENDING: usize = 16_384;
/// How long a repeated query counts as the same one.
pub const REPEAT_NS: u64 = 10_000_000_000;

/// Answer codes told apart: those of the DNS header.
pub const RCODES: usize = 16;
/// Upper bounds (inclusive, nanoseconds) of the latency buckets; the last bucket is open.
pub const LATENCY_BOUNDS: [u64; 13] = [
    500_000,
    1_000_000,
    2_500_000,
    5_000_000,
    10_000_000,
    25_000_000,
    50_000_000,
    100_000_000,
    250_000_000,
    500_000_000,
    1_000_000_000,
    2_500_000_000,
    5_000_000_000,
];
/// Number of latency buckets.
pub const LATENCIES: usize = LATENCY_BOUNDS.len() + 1;
/// Places for them: what an index of four bits can name.
pub const LATENCY_PLACES: usize = 16;

/// A query that waits.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct DnsKey {
    /// The namespace.
    pub cookie: u64,
    /// The namespace's address.
    pub local: [u16; 8],
    /// The other's.
    pub remote: [u16; 8],
    /// The namespace's port, as it lies in the packet.
    pub local_port: u16,
    /// The other's.
    pub remote_port: u16,
    /// The query's number.
    pub id: u16,
    /// 4 or 6.
    pub family: u8,
    /// 1 where the namespace is asked, 0 where it asks.
    pub server: u8,
}

/// A namespace in one of its two roles. Not one entry for both: without CAP_PERFMON the kernel refuses a pointer that one
/// path moves and another does not.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct RoleKey {
    /// The namespace.
    pub cookie: u64,
    /// 1 where it is asked, 0 where it asks.
    pub server: u64,
}

/// DNS of one namespace in one role.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DnsRole {
    /// Queries, each repetition by itself.
    pub queries: u64,
    /// Responses to no query that waits.
    pub unmatched: u64,
    /// Responses to a query, by answer code.
    pub codes: [u64; RCODES],
    /// The same by latency, see [`LATENCY_BOUNDS`].
    pub latencies: [u64; LATENCY_PLACES],
    /// Sum of their latencies.
    pub nanoseconds: u64,
}

/// DNS of one namespace.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DnsCounters {
    /// It asks.
    pub client: DnsRole,
    /// It is asked.
    pub server: DnsRole,
}

const _: () = assert!(size_of::<Slot>() == 48);
const _: () = assert!(size_of::<FlowKey>() == 48);
const _: () = assert!(size_of::<Talked>() == 32);
const _: () = assert!(size_of::<Flow>() == 48);
const _: () = assert!(size_of::<DnsKey>() == 48);
const _: () = assert!(size_of::<RoleKey>() == 16);
const _: () = assert!(size_of::<DnsRole>() == 8 * 35);
