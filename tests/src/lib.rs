//! Test hosts, senders and oracles for everything that is tested with privileges.

pub mod frames;
pub mod host;
pub mod random;
pub mod raw_socket;
pub mod reference;
pub mod test_run;
