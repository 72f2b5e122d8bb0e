//! `run`: set-up, build, then this process becomes the agent, so that signals reach it.

use std::{
    os::unix::process::CommandExt as _,
    process::{Command, ExitCode},
};

use anyhow::{Context as _, Result, bail};

use crate::{
    misused, setup,
    tools::{Place, is_root, line},
    unprivileged,
};

/// `cargo xtask run [-- ARGS]`.
pub(crate) fn verb(place: &Place, args: &[String]) -> Result<ExitCode> {
    let demo = ["demo".to_owned()];
    let agent_args = match args.split_first() {
        None => &demo[..],
        Some((dashes, rest)) if dashes == "--" => {
            if rest.is_empty() {
                &demo
            } else {
                rest
            }
        }
        Some((first, _)) => {
            return Ok(misused(&format!("the agent's arguments come after `--`: run -- {first} ...")));
        }
    };
    setup::complete(place, setup::Scope::Build, false)?;
    let mut build = place.cargo(&["build", "--release", "--package", "monitor", "--bin", "netns-monitor"]);
    let status = build.status().with_context(|| line(&build))?;
    if !status.success() {
        bail!("`{}` failed ({status}); the messages are above", line(&build));
    }
    let mut agent = Command::new(place.agent("release"));
    agent.args(agent_args);
    // With arguments of the user's own the agent says itself what it may not do.
    if agent_args == demo && !is_root() {
        return Ok(unprivileged(&format!("the demonstration needs root; try: sudo {}", line(&agent))));
    }
    // `exec` returns only when it fails.
    Err(agent.exec()).with_context(|| line(&agent))
}
