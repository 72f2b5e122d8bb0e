//! `netns-monitor plan FILE`.

use std::path::PathBuf;

use clap::Args;

use super::{Global, print};
use crate::{
    agent::{Failure, engine::Engine},
    config,
};

/// Options of `plan`.
#[derive(Debug, Args)]
pub(super) struct Options {
    /// The file that says what shall be
    file: PathBuf,
}

pub(super) fn run(global: &Global, Options { file }: &Options) -> Result<(), Failure> {
    let topology = config::load(file)?;
    let steps = Engine::look(&global.host())?.plan(&topology)?;
    let text: String = steps.iter().map(|step| format!("{step}\n")).collect();
    print(&text)
}
