//! What the tracing programs share with the agent: names, keys, and where in the kernel's structures things are.
//!
//! Types and constants only, as in the rest of this library.

/// Version of what the drop program's maps hold. Raise it whenever one of them changes shape or meaning.
pub const DROPS_LAYOUT: u32 = 1;

/// The program that is attached: it jumps to [`DROPPED`] and never changes, because the link of a raw tracepoint cannot
/// be given another program.
pub const KFREE_SKB: &str = "kfree_skb";
/// The program that counts.
pub const DROPPED: &str = "dropped";

/// Program array of one: what [`KFREE_SKB`] jumps to.
pub const PROGRAMS_MAP: &str = "PROGRAMS";
/// Hash from [`NetnsKey`] to the number a watched namespace is counted by; user space alone inserts.
pub const WATCHED_MAP: &str = "WATCHED";
/// Per-CPU hash from [`PlaceKey`] to a count: where each drop goes while there is room.
pub const PLACES_MAP: &str = "PLACES";
/// Per-CPU hash from [`ReasonKey`] to a count: where it goes when there is none.
pub const REASONS_MAP: &str = "REASONS";
/// Per-CPU array by reason: the drops of no watched namespace.
pub const OTHER_MAP: &str = "OTHER";

/// Namespaces that can be watched.
pub const WATCHED: usize = 65_536;
/// Triples of namespace, reason and kernel function that are told apart. What comes after is counted without its function.
pub const PLACES: usize = 16_384;
/// Pairs of namespace and reason that are told apart beyond those. What comes after is counted by namespace alone.
pub const REASONS: usize = 8192;
/// Entries of [`OTHER_MAP`]; reasons from the last one on (those of subsystems) share it.
pub const OTHERS: usize = 256;

/// The reason of what did not fit: each watched namespace has an entry of [`REASONS_MAP`] under it from the start.
pub const REST: u32 = u32::MAX;

/// Value of an offset that this kernel does not have.
pub const ABSENT: u32 = u32::MAX;

/// Read-only globals (`u32`, bytes): offset of `dev` in `struct sk_buff`.
pub const SKB_DEV: &str = "SKB_DEV";
/// Of `sk` in `struct sk_buff`.
pub const SKB_SK: &str = "SKB_SK";
/// Of the pointer to the namespace in `struct net_device`.
pub const DEV_NET: &str = "DEV_NET";
/// Of the pointer to the namespace in `struct sock`.
pub const SOCK_NET: &str = "SOCK_NET";
/// Of the cookie in `struct net`, or [`ABSENT`].
pub const NET_COOKIE: &str = "NET_COOKIE";
/// Of the inode in `struct net`.
pub const NET_INUM: &str = "NET_INUM";
/// 1 where the tracepoint has a fourth argument, the socket that was to receive the packet (since 6.11); else 0.
pub const HAS_RX_SK: &str = "HAS_RX_SK";

/// A namespace as the kernel's structure names it. Both parts, so that what is read through a stale pointer is no namespace.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct NetnsKey {
    /// Cookie; 0 where the kernel's structure has none.
    pub cookie: u64,
    /// Inode number.
    pub inum: u32,
    /// Always 0.
    pub reserved: u32,
}

/// A place where packets of a namespace were dropped.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct PlaceKey {
    /// The number from [`WATCHED_MAP`].
    pub netns: u64,
    /// Address in the kernel function that let go of the packet.
    pub location: u64,
    /// `enum skb_drop_reason`.
    pub reason: u32,
    /// Always 0.
    pub reserved: u32,
}

/// A reason for which packets of a namespace were dropped.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct ReasonKey {
    /// The number from [`WATCHED_MAP`].
    pub netns: u64,
    /// `enum skb_drop_reason`.
    pub reason: u32,
    /// Always 0.
    pub reserved: u32,
}

const _: () = assert!(size_of::<NetnsKey>() == 16);
const _: () = assert!(size_of::<PlaceKey>() == 24);
const _: () = assert!(size_of::<ReasonKey>() == 16);
