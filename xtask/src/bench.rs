//! `bench`: builds the benchmarks (`tests/src/bin/bench`) in release and becomes the one asked for.

use std::{os::unix::process::CommandExt as _, process::ExitCode};

use anyhow::{Context as _, Result};

use crate::{
    misused, setup,
    tools::{Place, is_root, line},
    unprivileged,
};

const BENCHES: &[(&str, &str)] = &[
    ("datapath", "ns per packet of the real programs beside an empty one and one that only adds"),
    ("traced", "ns per dropped packet and per event of TCP connections"),
    ("wiring", "building and deleting 1,000 namespaces beside bare syscalls, `ip` and the CNI plugins"),
    ("discover", "how soon what others make is found and counted, and what watching costs"),
    ("fleet", "what a host costs a Prometheus, and what that makes of 1, 100 and 10,000 hosts"),
    ("page", "what it costs the agent that somebody has the live page open"),
];

/// `cargo xtask bench [NAME [ARGS]]`.
pub(crate) fn verb(place: &Place, args: &[String]) -> Result<ExitCode> {
    let Some(name) = args.first() else {
        for (name, about) in BENCHES {
            println!("cargo xtask bench {name}  {about}");
        }
        return Ok(ExitCode::SUCCESS);
    };
    if !BENCHES.iter().any(|(known, _)| known == name) {
        return Ok(misused(&format!("no benchmark {name:?}; `cargo xtask bench` lists them")));
    }
    if !is_root() {
        return Ok(unprivileged(&format!(
            "it makes namespaces and loads eBPF programs, which needs root; run: sudo -E env \"PATH=$PATH\" cargo xtask bench {}",
            args.join(" ")
        )));
    }
    setup::complete(place, setup::Scope::Everything, false)?;
    let mut agent = place.cargo(&["build", "--release", "--quiet", "--package", "monitor"]);
    if !agent.status().with_context(|| line(&agent))?.success() {
        return Ok(ExitCode::FAILURE);
    }
    let mut bench =
        place.cargo(&["run", "--release", "--quiet", "--package", "monitor-tests", "--bin", "bench", "--"]);
    bench.args(args).env("NETNS_MONITOR", place.agent("release")).env("ENGINES_DIR", place.engines());
    bench.env("PROMETHEUS_DIR", place.prometheus());
    Err(bench.exec()).with_context(|| line(&bench))
}
