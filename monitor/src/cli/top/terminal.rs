//! The terminal, taken and given back whatever happens.

use std::{
    io::{self, Stdout, stdout},
    panic, process,
    sync::mpsc::Sender,
    thread,
    time::Duration,
};

use nix::sys::signal::{SigSet, Signal};
use ratatui::{
    Terminal,
    backend::CrosstermBackend,
    crossterm::{
        cursor::Show,
        event::{self, DisableMouseCapture, EnableMouseCapture},
        execute,
        terminal::{EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode},
    },
};

use super::read::Message;

/// How long the screen may take to end by itself once a signal asked for it: its terminal may not take what it writes.
const PATIENCE: Duration = Duration::from_secs(3);

/// What Rust's own panics end a program with.
const PANICKED: i32 = 101;

/// The terminal while it is ours.
pub(super) struct Screen(pub(super) Terminal<CrosstermBackend<Stdout>>);

impl Screen {
    /// Takes it. A panic of any thread gives it back, says why and ends the program: what is left would draw on.
    pub(super) fn take() -> io::Result<Self> {
        let say = panic::take_hook();
        panic::set_hook(Box::new(move |why| {
            give_back();
            say(why);
            process::exit(PANICKED);
        }));
        enable_raw_mode()?;
        let taken = execute!(stdout(), EnterAlternateScreen, EnableMouseCapture);
        let terminal = taken.and_then(|()| Terminal::new(CrosstermBackend::new(stdout())));
        match terminal {
            Ok(terminal) => Ok(Self(terminal)),
            Err(error) => {
                give_back();
                Err(error)
            }
        }
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        give_back();
    }
}

/// Once or twice, it is the same. Where the terminal is gone there is nothing to give back.
fn give_back() {
    _ = execute!(stdout(), DisableMouseCapture, LeaveAlternateScreen, Show);
    _ = disable_raw_mode();
}

/// Tells of the signals that end a program. Call it before any other thread is started: they are kept from all of them.
pub(super) fn follow_signals(to: Sender<Message>) -> io::Result<()> {
    let mut signals = SigSet::empty();
    [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP].into_iter().for_each(|signal| signals.add(signal));
    signals.thread_block()?;
    thread::Builder::new().name("signals".to_owned()).spawn(move || {
        if signals.wait().is_ok() {
            _ = to.send(Message::Stop);
            thread::sleep(PATIENCE);
            give_back();
            process::exit(1);
        }
    })?;
    Ok(())
}

/// Tells of keys, the mouse and sizes.
pub(super) fn follow_events(to: Sender<Message>) -> io::Result<()> {
    thread::Builder::new().name("events".to_owned()).spawn(move || {
        loop {
            // A terminal that is gone gives an error.
            let message = event::read().map_or(Message::Stop, Message::Event);
            let ends = matches!(message, Message::Stop);
            if to.send(message).is_err() || ends {
                return;
            }
        }
    })?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::{env, process::Command};

    use super::*;

    const CHILD: &str = "NETNS_MONITOR_TEST_PANICS";

    /// Runs itself on a terminal of its own, where it panics.
    #[test]
    fn a_panic_gives_the_terminal_back_before_it_says_why_and_ends_the_program() {
        if env::var_os(CHILD).is_some() {
            let _screen = Screen::take().expect("a terminal");
            thread::spawn(|| panic!("so it is said")).join().expect_err("it does not come so far");
            unreachable!("the program has ended");
        }
        let own = env::current_exe().expect("this test");
        let name = "cli::top::terminal::tests::a_panic_gives_the_terminal_back_before_it_says_why_and_ends_the_program";
        let run = format!("{} --exact {name} --nocapture", own.display());
        let mut script = Command::new("script");
        let output = script.args(["-qec", &run, "/dev/null"]).env(CHILD, "1").output().expect("script");
        let said = String::from_utf8_lossy(&output.stdout);
        let at = |what: &str| said.find(what).unwrap_or_else(|| panic!("no {what:?} in {said:?}"));
        assert!(at("\x1b[?1049h") < at("\x1b[?1049l") && at("\x1b[?1049l") < at("so it is said"), "{said:?}");
        assert!(at("\x1b[?25h") < at("so it is said"), "the cursor: {said:?}");
        assert_eq!(output.status.code(), Some(PANICKED), "{said:?}");
    }
}
