//! `netns-monitor agent`.

use std::{net::SocketAddr, path::PathBuf};

use clap::Args;

use super::{Global, switches::Switches};
use crate::{
    agent::{self, Failure},
    topology::figures::Parts,
};

/// Options of `agent`.
#[derive(Debug, Args)]
pub(super) struct Options {
    /// The file that says what shall be (TOML; see `netns-monitor config example`); without one it makes nothing, and watches
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Where metrics are served; may be given more than once
    #[arg(long = "web.listen-address", value_name = "ADDRESS:PORT", default_value = "127.0.0.1:10490")]
    listen: Vec<SocketAddr>,
    /// How many namespaces have series of their own (0: all); the others are counted and summed as netns="~other"
    #[arg(long = "metrics.max-namespaces", value_name = "N", default_value_t = 2000)]
    max_namespaces: usize,
    #[command(flatten)]
    switches: Switches,
    /// Make one pass, then exit; what was attached goes on counting
    #[arg(long)]
    once: bool,
    /// When stopped, remove everything that was made: namespaces, links, programs and counts
    #[arg(long)]
    cleanup: bool,
}

pub(super) fn run(global: &Global, options: Options) -> Result<(), Failure> {
    let Options { config, listen, max_namespaces, switches: Switches(collectors), once, cleanup } = options;
    let mut host = global.host();
    host.max_namespaces = max_namespaces;
    host.drift = collectors.has(&["drift"]);
    host.drops = collectors.has(&["drops"]);
    host.figures = Parts { netstat: collectors.has(&["netstat"]), conntrack: collectors.has(&["conntrack"]) };
    agent::run(agent::Options {
        host,
        source: config.map_or(agent::Source::Text("no file", ""), agent::Source::File),
        listen,
        collectors,
        once,
        cleanup,
        must_start: false,
        on_start: None,
    })
}
