//! `netns-monitor config check FILE | schema | example`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::print;
use crate::{agent::Failure, config};

/// Options of `config`.
#[derive(Debug, Args)]
pub(super) struct Options {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Check a file and touch nothing
    Check {
        /// The file
        file: PathBuf,
    },
    /// Print the JSON schema of the file
    Schema,
    /// Print a commented example
    Example,
}

pub(super) fn run(Options { what }: &Options) -> Result<(), Failure> {
    match what {
        What::Check { file } => {
            let topology = config::load(file)?;
            print(&format!(
                "{}: {} namespaces, {} bridges, {} veth pairs\n",
                file.display(),
                topology.namespaces.len(),
                topology.bridges.len(),
                topology.veths.len()
            ))
        }
        What::Schema => print(&config::schema()),
        What::Example => print(config::EXAMPLE),
    }
}
