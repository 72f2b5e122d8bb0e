//! `previews`: draws the dashboards without Grafana (`tests/src/bin/previews`) into dashboards/pictures.

use std::{os::unix::process::CommandExt as _, process::ExitCode};

use anyhow::{Context as _, Result};

use crate::{
    misused, setup,
    tools::{Place, is_root, line},
    unprivileged,
};

/// `cargo xtask previews`.
pub(crate) fn verb(place: &Place, args: &[String]) -> Result<ExitCode> {
    if let [first, ..] = args {
        return Ok(misused(&format!("previews takes no argument, not {first:?}")));
    }
    if !is_root() {
        return Ok(unprivileged(
            "it makes namespaces and loads eBPF programs, which needs root; run: sudo -E env \"PATH=$PATH\" cargo xtask previews",
        ));
    }
    setup::complete(place, setup::Scope::Everything, false)?;
    let mut agent = place.cargo(&["build", "--quiet", "--package", "monitor", "--bin", "netns-monitor"]);
    if !agent.status().with_context(|| line(&agent))?.success() {
        return Ok(ExitCode::FAILURE);
    }
    let mut previews = place.cargo(&["run", "--quiet", "--package", "monitor-tests", "--bin", "previews"]);
    previews
        .env("NETNS_MONITOR", place.agent("debug"))
        .env("PROMETHEUS_DIR", place.prometheus())
        .env("CHROMIUM_DIR", place.chromium());
    Err(previews.exec()).with_context(|| line(&previews))
}
