//! Test hosts, senders and oracles for everything that is tested with privileges.

pub mod agent;
pub mod browser;
pub mod engines;
pub mod exposition;
pub mod fleet;
pub mod frames;
pub mod host;
pub mod http;
pub mod killer;
pub mod ledger;
pub mod oracle;
pub mod outside;
pub mod package;
pub mod pid_namespace;
pub mod poll;
pub mod prometheus;
pub mod random;
pub mod raw_socket;
pub mod reference;
pub mod scene;
pub mod terminal;
pub mod test_run;
pub mod tmux;
pub mod traffic;
pub mod trouble;
