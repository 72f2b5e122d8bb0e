//! `netns-monitor plan FILE`.

use std::path::PathBuf;

use clap::Args;
use serde_json::{Value, json};

use super::{Global, print};
use crate::{
    agent::{Failure, engine::Engine},
    config,
    topology::step::Step,
};

/// Options of `plan`.
#[derive(Debug, Args)]
pub(super) struct Options {
    /// The file that says what shall be
    file: PathBuf,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(global: &Global, Options { file, json }: &Options) -> Result<(), Failure> {
    let topology = config::load(file)?;
    let steps = Engine::look(&global.host())?.plan(&topology)?;
    if *json {
        let step = |step: &Step| json!({ "title": step.title(), "command": step.to_string() });
        return print(&format!("{:#}\n", steps.iter().map(step).collect::<Value>()));
    }
    let text: String = steps.iter().map(|step| format!("{step}\n")).collect();
    print(&text)
}
