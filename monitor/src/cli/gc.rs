//! `netns-monitor gc`.

use clap::Args;

use super::{Global, print};
use crate::agent::{Failure, engine::Engine};

/// Options of `gc`.
#[derive(Debug, Args)]
pub(super) struct Options {
    /// Only print what would be removed
    #[arg(long)]
    dry_run: bool,
}

pub(super) fn run(global: &Global, Options { dry_run }: &Options) -> Result<(), Failure> {
    let look = Engine::look(&global.host())?;
    let count = if *dry_run {
        let garbage = look.garbage()?;
        print(&garbage.iter().map(|garbage| format!("{garbage}\n")).collect::<String>())?;
        garbage.len()
    } else {
        look.clear(&mut |garbage| print(&format!("{garbage}\n")).unwrap_or(()))?
    };
    match count {
        0 => print("nothing to do\n"),
        _ => Ok(()),
    }
}
