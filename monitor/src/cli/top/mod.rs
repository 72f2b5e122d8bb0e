//! `netns-monitor top`: the namespaces as they live, on a terminal.
//!
//! A thread reads (`read`), the model makes rows and rates of it (`model`, `meter`, `trouble`), the state is what one
//! looks at (`state`, `columns`, `input`), and `draw` is a frame of it.

mod columns;
mod cost;
mod draw;
mod input;
mod meter;
mod model;
mod numbers;
mod once;
mod read;
mod state;
mod terminal;
mod theme;
mod trouble;

#[cfg(test)]
mod tests;

use std::{
    io::{self, IsTerminal as _, stdout},
    sync::{
        Arc,
        mpsc::{self, Receiver},
    },
    thread,
    time::Duration,
};

use anyhow::Context as _;
use clap::Args;

use self::{
    columns::Tab,
    input::{Action, action, apart},
    read::{Message, Wish, Wishes},
    state::State,
    terminal::Screen,
    theme::Theme,
};
use super::Global;
use crate::agent::{Failure, engine::Engine};

/// Options of `top`.
#[derive(Debug, Args)]
pub(super) struct Options {
    /// Show only those with this in a name, as `/` does
    search: Option<String>,
    /// Print one look as a table, and end
    #[arg(long)]
    once: bool,
    /// With --once: print JSON
    #[arg(long, requires = "once")]
    json: bool,
    /// Time between two readings
    #[arg(long, value_name = "SECONDS", default_value_t = 1.0)]
    interval: f64,
}

impl Options {
    /// Whether it draws on the terminal, so that a log would spoil it.
    pub(super) fn draws(&self) -> bool {
        !self.once
    }
}

pub(super) fn run(global: &Global, options: &Options) -> Result<(), Failure> {
    let Options { search, once, json, interval } = options;
    if !(0.1..=3600.0).contains(interval) {
        return Err(Failure::Usage("--interval: 0.1 to 3600 seconds".to_owned()));
    }
    if !once && !stdout().is_terminal() {
        let why =
            "standard output is no terminal: `top --once` prints one look, `top --once --json` for programs";
        return Err(Failure::Usage(why.to_owned()));
    }
    let look = Engine::look(&global.host())?;
    let search = search.clone().unwrap_or_default();
    if *once {
        return once::run(&look, &search, *json);
    }
    let (to, from) = mpsc::channel();
    terminal::follow_signals(to.clone()).context("cannot follow signals")?;
    let mut state = State::new(Duration::from_secs_f64(*interval));
    state.search = search;
    let pin_dir = global.run_dir.file_name().map(|name| global.bpffs.join(name));
    state.bpffs = global.bpffs.display().to_string();
    let wishes = Arc::new(Wishes::new(wish(&state)));
    let mut screen = Screen::take().context("cannot draw on this terminal")?;
    terminal::follow_events(to.clone()).context("cannot follow the keys")?;
    let reader = {
        let wishes = Arc::clone(&wishes);
        thread::Builder::new().name("read".to_owned()).spawn(move || read::run(look, pin_dir, &wishes, &to))
    };
    reader.context("cannot start reading")?;
    let done = show(&mut screen, &mut state, &from, &wishes);
    wishes.set(Wish { stop: true, ..wish(&state) });
    drop(screen);
    Ok(done.context("cannot draw on this terminal")?)
}

/// Draws until it is to end.
fn show(screen: &mut Screen, state: &mut State, from: &Receiver<Message>, wishes: &Wishes) -> io::Result<()> {
    let theme = Theme::of_terminal();
    loop {
        screen.0.draw(|frame| draw::draw(frame, state, &theme))?;
        // The screen's own threads hold the other end for as long as this runs.
        let Ok(first) = from.recv() else { return Ok(()) };
        for message in std::iter::once(first).chain(from.try_iter()) {
            if heard(state, message) == Action::Quit {
                return Ok(());
            }
        }
        wishes.set(wish(state));
    }
}

/// Takes one message into the state.
fn heard(state: &mut State, message: Message) -> Action {
    match message {
        Message::Reading(moment, took) => {
            state.failed = None;
            state.took = took;
            // One that was under way when the pause began.
            if !state.paused {
                state.model.take(*moment);
            }
        }
        Message::Cost(cost) => state.cost = Some(*cost),
        Message::Symbols(symbols) => state.symbols = Some(symbols),
        Message::Unmeasured(why) => {
            state.measure = false;
            state.failed = Some(why);
        }
        Message::Failed(why) => state.failed = Some(why),
        Message::Event(event) => {
            for event in apart(event) {
                let action = action(&event, state);
                state.act(action);
                if action == Action::Quit {
                    return action;
                }
            }
        }
        Message::Stop => return Action::Quit,
    }
    Action::None
}

/// What is to be read for what is shown.
fn wish(state: &State) -> Wish {
    Wish {
        interval: state.interval,
        paused: state.paused,
        cost: state.tab == Tab::Agent,
        measure: state.measure,
        symbols: state.wants_symbols(),
        stop: false,
    }
}
