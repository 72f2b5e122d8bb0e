//! Test hosts, senders and oracles for everything that is tested with privileges.

pub mod frames;
pub mod host;
pub mod test_run;
