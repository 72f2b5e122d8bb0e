//! Steps as they are done: a line each, or on a terminal, where there are many, a bar.

use std::{fmt::Display, io::IsTerminal as _};

use indicatif::{ProgressBar, ProgressStyle};

use super::print;
use crate::topology::step::Step;

/// As many lines as one can follow.
const MANY: usize = 50;

/// How steps are shown.
pub(super) struct Progress {
    /// Whether a bar may be drawn: both outputs are a terminal, and nobody asked for every line.
    bars: bool,
    bar: Option<ProgressBar>,
}

impl Progress {
    /// `verbose`: a line each, however many there are.
    pub(super) fn new(verbose: bool) -> Self {
        let terminal = std::io::stdout().is_terminal() && std::io::stderr().is_terminal();
        Self { bars: terminal && !verbose, bar: None }
    }

    /// Shows a step before it is done, one of so many.
    pub(super) fn step(&mut self, of: usize, step: &Step) {
        self.show(of, step, &step.title());
    }

    /// Shows something before it is done, one of about so many: in full, or by its title at a bar.
    pub(super) fn show(&mut self, of: usize, what: &dyn Display, title: &str) {
        if !self.bars || of < MANY {
            // Who no longer reads is no reason to stop half way.
            return print(&format!("{what}\n")).unwrap_or(());
        }
        let bar = self.bar.get_or_insert_with(|| {
            let style = ProgressStyle::with_template("{bar:30} {pos}/{len}  {elapsed}  {wide_msg}");
            ProgressBar::new(of as u64).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
        });
        bar.set_message(title.to_owned());
        bar.inc(1);
    }

    /// Says what a bar has hidden; nothing where every step had its line.
    pub(super) fn done(self, steps: usize) {
        if let Some(bar) = self.bar {
            bar.finish_and_clear();
            print(&format!("{steps} steps done\n")).unwrap_or(());
        }
    }
}
