//! `netns-monitor destroy FILE`.

use std::path::PathBuf;

use clap::Args;

use super::{Global, print, progress::Progress};
use crate::{
    agent::{Failure, engine::Engine},
    config,
};

/// Options of `destroy`.
#[derive(Debug, Args)]
pub(super) struct Options {
    /// The file whose namespaces, links and bridges go, where this agent made them
    file: PathBuf,
    /// Print every step, also on a terminal that would show a bar
    #[arg(long, short)]
    verbose: bool,
}

pub(super) fn run(global: &Global, Options { file, verbose }: &Options) -> Result<(), Failure> {
    let topology = config::load(file)?;
    let engine = Engine::open(&global.host())?;
    let mut progress = Progress::new(*verbose);
    let steps = engine.destroy(&topology, &mut |of, step| progress.step(of, step))?;
    progress.done(steps);
    match steps {
        0 => print("nothing to do\n"),
        _ => Ok(()),
    }
}
