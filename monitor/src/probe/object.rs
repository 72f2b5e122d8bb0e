//! The eBPF objects, as `build.rs` compiled them, inside the agent's binary.
//!
//! Aligned, because the loader reads ELF headers in place. Nothing here loads or attaches them.

/// Programs for host ends: one instance for all, which counts by ifindex into the chunked map.
pub static SHARED: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/shared"));

/// Programs for an end counted inside its namespace: one instance each, with a slot of its own.
pub static INSIDE: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/inside"));

/// Drops by namespace and reason: one instance for the whole host.
pub static DROPS: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/drops"));

/// What TCP meets with, by namespace: one instance for the whole host.
pub static TCP: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/tcp"));

/// What the benchmark compares the others with; the agent never loads it.
#[doc(hidden)]
pub static BASELINE: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/baseline"));

/// Who talks with whom: one instance for host ends, one each inside namespaces. Opt-in.
pub static FLOWS: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/flows"));

/// DNS by answer code and latency, as [`FLOWS`]. Opt-in.
pub static DNS: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/dns"));
