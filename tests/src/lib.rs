//! Test hosts, senders and oracles for everything that is tested with privileges.

pub mod host;
