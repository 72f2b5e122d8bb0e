//! `netns-monitor apply FILE`.

use std::path::PathBuf;

use clap::Args;

use super::{Global, print};
use crate::{
    agent::{Failure, engine::Engine},
    config,
};

/// Options of `apply`.
#[derive(Debug, Args)]
pub(super) struct Options {
    /// The file that says what shall be
    file: PathBuf,
}

pub(super) fn run(global: &Global, Options { file }: &Options) -> Result<(), Failure> {
    let topology = config::load(file)?;
    let engine = Engine::open(&global.host())?;
    let steps = engine.pass(&topology, &mut |step| print(&format!("{step}\n")).unwrap_or(()))?.steps;
    match steps {
        0 => print("nothing to do\n"),
        _ => Ok(()),
    }
}
