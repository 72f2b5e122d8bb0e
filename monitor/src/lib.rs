//! netns-monitor: builds, watches and explains network namespaces.
//!
//! ```text
//! config ──► topology ──► reconcile ──► probe ──► sample ──► metrics ──► export
//! as         desired,     observe,      attach,   plain      families    http
//! written    plan         execute       read      numbers
//!                ▲             ▲            ▲         ▲
//!                └─── netns ───┴────────────┘      ledger        agent: the only file that knows the order
//!                                               totals across lives       cli/: one file per subcommand
//! ```
//!
//! The data goes one way. Each room returns plain values to [`agent`]; no room calls back, and no room
//! holds a handle to a later one. `cargo xtask tidy` checks who imports whom.
#![deny(unsafe_code)]

pub mod agent;
pub mod check;
pub mod cli;
pub mod config;
pub mod discover;
pub mod explain;
pub mod export;
pub mod graph;
pub mod holders;
pub mod ledger;
pub mod metrics;
pub mod netns;
pub mod probe;
pub mod reconcile;
pub mod sample;
pub mod talk;
pub mod topology;
pub mod trace;
