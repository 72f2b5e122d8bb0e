//! What the pages show beside the metrics, as plain values.

use std::sync::Arc;

use futures_util::future::BoxFuture;
use schemars::JsonSchema;
use serde::Serialize;

use crate::sample::{Sample, wiring::Wiring};

/// Reads a snapshot: maps and memory, no namespace and no netlink. What an error says goes to the log.
pub type Read = Arc<dyn Fn() -> BoxFuture<'static, Result<Snapshot, String>> + Send + Sync>;

/// Looks through `/proc` for who holds the namespace of this inode.
pub type Hold = Arc<dyn Fn(u64) -> BoxFuture<'static, Result<Holders, String>> + Send + Sync>;

/// Everything at one moment.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// When it was read (Unix seconds).
    pub time: f64,
    /// Name of the host.
    pub host: String,
    /// Why the agent is not ready; absent when it is.
    pub unready: Option<String>,
    /// The counts.
    pub sample: Sample,
    /// The wiring.
    pub wiring: Wiring,
}

/// Who keeps a namespace alive.
#[derive(Clone, Debug, Default)]
pub struct Holders {
    /// Each.
    pub holders: Vec<Holder>,
    /// What could not be looked at, and why.
    pub notes: Vec<String>,
}

/// Something that keeps a namespace alive.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Holder {
    /// `process`, `thread`, `descriptor`, `socket` or `mount`.
    pub kind: &'static str,
    /// The process; null for a mount that the agent itself sees.
    pub pid: Option<u32>,
    /// Its effective user.
    pub uid: Option<u32>,
    /// What it is called: its program without arguments, which may be secret.
    pub program: Option<String>,
    /// Threads, descriptor, or path.
    pub at: String,
}
