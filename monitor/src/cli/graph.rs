//! `netns-monitor graph [NS…]`.

mod live;

use std::{io::IsTerminal as _, path::PathBuf};

use clap::{Args, ValueEnum};

use super::{Global, print};
use crate::{
    agent::{Failure, engine::Engine},
    config,
    graph::{self, Graph, Unknown},
};

/// Options of `graph`.
#[derive(Debug, Args)]
pub(super) struct Options {
    /// Names of namespaces, as `ls` shows them; without one, all of them
    #[arg(value_name = "NS")]
    netns: Vec<String>,
    /// What is written [default: svg]
    #[arg(long, value_enum)]
    format: Option<Format>,
    /// What this file asks for instead of what there is
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Format {
    /// A picture that browsers show
    Svg,
    /// For Graphviz
    Dot,
    /// For Markdown that draws Mermaid
    Mermaid,
    /// Nodes and edges, for programs
    Json,
}

pub(super) fn run(global: &Global, Options { netns, format, file }: &Options) -> Result<(), Failure> {
    if format.is_none() && std::io::stdout().is_terminal() {
        let what = "a picture is nothing to read on a terminal: `netns-monitor graph > host.svg` and open that in a browser, or \
                    choose a --format";
        return Err(Failure::Usage(what.to_owned()));
    }
    let graph = match file {
        Some(file) => {
            let name = file.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
            graph::wanted(&config::load(file)?, &name)
        }
        None => look(global)?,
    };
    let graph = match netns.as_slice() {
        [] => graph,
        names => graph.only(names).map_err(unknown)?,
    };
    print(&graph.write(match format.unwrap_or(Format::Svg) {
        Format::Svg => graph::Format::Svg,
        Format::Dot => graph::Format::Dot,
        Format::Mermaid => graph::Format::Mermaid,
        Format::Json => graph::Format::Json,
    }))
}

fn unknown(Unknown { name, known }: Unknown) -> Failure {
    let known = match known.is_empty() {
        true => "there is none".to_owned(),
        false => format!("there are: {}", known.join(", ").escape_debug()),
    };
    Failure::Failed(anyhow::anyhow!("no namespace `{}`; {known}", name.escape_debug()))
}

fn look(global: &Global) -> Result<Graph, Failure> {
    let look = Engine::look(&global.host())?;
    let view = look.view()?;
    Ok(live::graph(&live::see(&look, &view)?))
}
