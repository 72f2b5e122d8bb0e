//! `netns-monitor agent`.

use std::{net::SocketAddr, path::PathBuf};

use clap::{Args, value_parser};
use monitor_ebpf::talk::FLOWS;

use super::{Global, switches::Switches};
use crate::{
    agent::{self, Failure},
    talk::Wanted,
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
    /// Count who talks with whom, for `netns-monitor flows`; costs for each packet
    #[arg(long = "collector.flows")]
    flows: bool,
    /// How many flows there is room for, of all namespaces together; about 110 bytes each, and 48 for each CPU
    #[arg(long = "collector.flows.max", value_name = "N", default_value_t = FLOWS as u32,
          value_parser = value_parser!(u32).range(16..=4_194_304))]
    flows_max: u32,
}

pub(super) fn run(global: &Global, options: Options) -> Result<(), Failure> {
    let Options {
        config,
        listen,
        max_namespaces,
        switches: Switches(collectors),
        once,
        cleanup,
        flows,
        flows_max,
    } = options;
    let mut host = global.host();
    host.builds = config.is_some();
    host.talk = Some(Wanted { flows: flows.then_some(flows_max), dns: collectors.has(&["dns"]) });
    host.max_namespaces = max_namespaces;
    host.drift = collectors.has(&["drift"]);
    host.drops = collectors.has(&["drops"]);
    host.tcp = collectors.has(&["tcp_health"]);
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
