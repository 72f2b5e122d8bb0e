//! `netns-monitor gc`.

use clap::Args;
use serde_json::Value;

use super::{Global, print, progress::Progress};
use crate::agent::{Failure, engine::Engine};

/// Options of `gc`.
#[derive(Debug, Args)]
pub(super) struct Options {
    /// Only print what would be removed
    #[arg(long)]
    dry_run: bool,
    /// With --dry-run: print JSON
    #[arg(long, requires = "dry_run")]
    json: bool,
    /// Print everything, also on a terminal that would show a bar
    #[arg(long, short)]
    verbose: bool,
}

pub(super) fn run(global: &Global, Options { dry_run, json, verbose }: &Options) -> Result<(), Failure> {
    let look = Engine::look(&global.host())?;
    let count = if *dry_run {
        let garbage = look.garbage()?;
        if *json {
            let lines: Value = garbage.iter().map(ToString::to_string).collect();
            return print(&format!("{lines:#}\n"));
        }
        print(&garbage.iter().map(|garbage| format!("{garbage}\n")).collect::<String>())?;
        garbage.len()
    } else {
        let mut progress = Progress::new(*verbose);
        let title = |line: &str| line.lines().next().unwrap_or_default().to_owned();
        let count =
            look.clear(&mut |of, garbage| progress.show(of, garbage, &title(&garbage.to_string())))?;
        progress.done(count);
        count
    };
    match count {
        0 => print("nothing to do\n"),
        _ => Ok(()),
    }
}
