//! `netns-monitor destroy FILE`.

use std::path::PathBuf;

use clap::Args;

use super::{Global, print};
use crate::{
    agent::{Failure, engine::Engine},
    config,
};

/// Options of `destroy`.
#[derive(Debug, Args)]
pub(super) struct Options {
    /// The file whose namespaces, links and bridges go, where this agent made them
    file: PathBuf,
}

pub(super) fn run(global: &Global, Options { file }: &Options) -> Result<(), Failure> {
    let topology = config::load(file)?;
    let engine = Engine::open(&global.host())?;
    match engine.destroy(&topology, &mut |step| print(&format!("{step}\n")).unwrap_or(()))? {
        0 => print("nothing to do\n"),
        _ => Ok(()),
    }
}
