//! `netns-monitor config check FILE | schema | example`.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

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
    /// Print a commented example: everything there is, one pair as it is made by hand, or what a container engine sets up
    Example {
        /// Which
        #[arg(value_enum, default_value_t = Example::All)]
        which: Example,
    },
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Example {
    /// Every key, explained
    All,
    /// A namespace and a veth pair, beside the lines of `ip` they replace
    Article,
    /// A bridge, three namespaces apart from each other, NAT and a published port
    Docker0,
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
        What::Example { which } => print(match which {
            Example::All => config::EXAMPLE,
            Example::Article => config::ARTICLE,
            Example::Docker0 => config::DOCKER0,
        }),
    }
}
