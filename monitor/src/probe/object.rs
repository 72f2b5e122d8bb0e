//! The eBPF objects as the build made them, inside this program.

/// Counts host ends of veths: one program for all, the slot found by interface index.
pub static SHARED: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/shared"));

/// Counts one interface: a program instance with a map of its own.
pub static INSIDE: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/inside"));

/// What the benchmark compares with.
pub static BASELINE: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/baseline"));
