//! What happens to packets beside the counting on interfaces: drops with their reason, and what TCP meets with, by tracing
//! programs.
//!
//! Tracepoints are of the whole machine: one program counts for all namespaces, those that are watched by name and the
//! others together. As in `probe` the counts live in pinned maps and go on while no agent runs. Nothing here enters a
//! namespace.

mod btf;
mod drops;
mod kernel;
mod moves;
mod object;
mod pins;
mod read;
mod symbols;
mod tcp;
mod watched;

use std::path::{Path, PathBuf};

pub use self::{
    btf::{Btf, BtfError},
    drops::Drops,
    kernel::{Kernel, Missing, Reasons},
    read::{DropReadings, NetnsDrops, REST_NAME},
    symbols::Symbols,
    tcp::{Tcp, TcpReadings},
};
use crate::probe::ProbeError;

/// Why something cannot be counted.
#[derive(Debug, thiserror::Error)]
pub enum TraceError {
    /// The kernel lacks something.
    #[error("{0}")]
    Missing(#[from] Missing),
    /// A call failed.
    #[error(transparent)]
    Failed(#[from] ProbeError),
}

/// Where drops are pinned below an agent's directory on a bpffs.
pub fn drops_dir(pin_dir: &Path) -> PathBuf {
    pins::Pins::of(&pins::DROPS, pin_dir).root
}

/// Reads what is pinned below a directory, and changes nothing: for who looks while an agent runs, or none does. Absent
/// where nothing is pinned.
///
/// # Errors
/// What is pinned is not what it should be, or cannot be read.
pub fn look(pin_dir: &Path, reasons: &Reasons) -> Result<Option<DropReadings>, ProbeError> {
    drops::look(pin_dir, reasons)
}

/// The same of what TCP met with.
///
/// # Errors
/// What is pinned is not what it should be, or cannot be read.
pub fn look_at_tcp(pin_dir: &Path) -> Result<Option<TcpReadings>, ProbeError> {
    tcp::look(pin_dir)
}

/// Detaches and unpins everything of every layout below a directory; what is not there is fine.
///
/// # Errors
/// The kernel refused.
pub fn remove(pin_dir: &Path) -> Result<(), ProbeError> {
    remove_drops(pin_dir)?;
    remove_tcp(pin_dir)
}

/// The same of drops alone.
///
/// # Errors
/// The kernel refused.
pub fn remove_drops(pin_dir: &Path) -> Result<(), ProbeError> {
    pins::remove(&pins::DROPS, pin_dir)
}

/// The same of TCP alone.
///
/// # Errors
/// The kernel refused.
pub fn remove_tcp(pin_dir: &Path) -> Result<(), ProbeError> {
    pins::remove(&pins::TCP, pin_dir)
}
