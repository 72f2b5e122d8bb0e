//! `--watch`: the same look again and again, drawn in place, until Ctrl-C.

use std::{
    io::{IsTerminal as _, Write as _},
    os::fd::AsFd as _,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use clap::Args;
use nix::{
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::{
        signal::{SigSet, Signal},
        signalfd::{SfdFlags, SignalFd},
    },
};
use serde_json::Value;

use super::{print, table::Screen};
use crate::agent::Failure;

/// Options of what can be watched.
#[derive(Clone, Copy, Debug, Default, Args)]
pub(super) struct Again {
    /// Look again every so many seconds (2 where none are given), until Ctrl-C; with --json, one line a look
    #[arg(long, value_name = "SECONDS", num_args = 0..=1, default_missing_value = "2", value_parser = seconds)]
    watch: Option<Duration>,
}

/// What one look gives.
pub(super) enum Seen {
    /// For people.
    Text(String),
    /// For programs.
    Json(Value),
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|error| {
        format!("{error}: a number of seconds is expected here; a name goes before --watch")
    })?;
    match (0.1..=86_400.0).contains(&seconds) {
        true => Ok(Duration::from_secs_f64(seconds)),
        false => Err("at least 0.1 and at most 86400 seconds".to_owned()),
    }
}

impl Again {
    /// Looks once, or until it is told to stop. `look` gets what is drawn to.
    ///
    /// # Errors
    /// What `look` says.
    pub(super) fn run(self, mut look: impl FnMut(Screen) -> Result<Seen, Failure>) -> Result<(), Failure> {
        let Some(pause) = self.watch else {
            return match look(Screen::stdout())? {
                Seen::Text(text) => print(&text),
                Seen::Json(value) => print(&format!("{value:#}\n")),
            };
        };
        let signals = Signals::new().context("cannot wait for signals")?;
        let mut picture = None;
        loop {
            let began = Instant::now();
            let screen = Screen::stdout();
            let goes_on = match look(screen)? {
                Seen::Json(value) => write(&format!("{value}\n"))?,
                Seen::Text(text) if std::io::stdout().is_terminal() => {
                    picture.get_or_insert_with(Picture::begin).draw(&text, screen)?
                }
                Seen::Text(text) => write(&format!("{text}\n"))?,
            };
            if !goes_on || signals.wait(began + pause)? {
                return Ok(());
            }
        }
    }

    /// Whether it looks more than once.
    pub(super) fn is_on(self) -> bool {
        self.watch.is_some()
    }

    /// Whether it draws in place, where a line of a log would be in the way.
    pub(super) fn draws(self) -> bool {
        self.watch.is_some() && std::io::stdout().is_terminal()
    }
}

/// Whether anybody still reads.
fn write(text: &str) -> Result<bool, Failure> {
    let mut stdout = std::io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(anyhow::anyhow!("cannot write to standard output: {error}").into()),
    }
}

/// The terminal's other screen, for as long as this lives.
struct Picture;

impl Picture {
    fn begin() -> Self {
        // What cannot be written now cannot be drawn either, which is told then.
        let _told_later = write("\x1b[?1049h\x1b[?25l");
        Self
    }

    /// Each line over the old one, and all in one go: nothing is empty in between.
    fn draw(&mut self, text: &str, screen: Screen) -> Result<bool, Failure> {
        write(&frame(text, screen.height.map_or(usize::MAX, usize::from)))
    }
}

impl Drop for Picture {
    fn drop(&mut self) {
        let _gone = write("\x1b[?25h\x1b[?1049l");
    }
}

fn frame(text: &str, height: usize) -> String {
    let lines: Vec<&str> = text.lines().collect();
    let mut shown: Vec<String> = lines.iter().map(|line| (*line).to_owned()).collect();
    if lines.len() > height.max(2) {
        let shows = height.max(2) - 1;
        shown.truncate(shows);
        shown.push(format!("({} more lines: a taller terminal, or without --watch)", lines.len() - shows));
    }
    format!("\x1b[H{}\x1b[K\x1b[J", shown.join("\x1b[K\r\n"))
}

/// Signals that end the watching, and the one that says that the terminal has another size.
struct Signals(SignalFd);

impl Signals {
    fn new() -> nix::Result<Self> {
        let mut set = SigSet::empty();
        [Signal::SIGINT, Signal::SIGTERM, Signal::SIGWINCH].into_iter().for_each(|signal| set.add(signal));
        // Threads that are started later have the same mask; programs get an empty one.
        set.thread_block()?;
        Ok(Self(SignalFd::with_flags(&set, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?))
    }

    /// Whether it is over; else it is time to look again.
    fn wait(&self, until: Instant) -> Result<bool, Failure> {
        loop {
            if let Some(signal) = self.0.read_signal().context("cannot read signals")? {
                // Of another size: at once, and no end.
                return Ok(signal.ssi_signo != Signal::SIGWINCH as u32);
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(false);
            }
            let left = PollTimeout::try_from(left + Duration::from_millis(1)).unwrap_or(PollTimeout::MAX);
            let mut fds = [PollFd::new(self.0.as_fd(), PollFlags::POLLIN)];
            match poll(&mut fds, left) {
                Ok(_) | Err(nix::errno::Errno::EINTR) => {}
                Err(error) => return Err(anyhow::anyhow!("cannot wait: {error}").into()),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_overwrites_line_by_line_and_never_scrolls() {
        assert_eq!(frame("a\nb\n", 5), "\x1b[Ha\x1b[K\r\nb\x1b[K\x1b[J");
        let long: String = (0..9).map(|line| format!("{line}\n")).collect();
        let frame = frame(&long, 4);
        assert_eq!(frame.matches("\r\n").count(), 3, "four lines: {frame:?}");
        assert!(frame.contains("2\x1b[K\r\n(6 more lines: "), "{frame:?}");
    }

    #[test]
    fn a_pause_is_a_sensible_number() {
        assert_eq!(seconds("0.5"), Ok(Duration::from_millis(500)));
        for wrong in ["0", "-1", "nan", "inf", "1e9", "blue", ""] {
            assert!(seconds(wrong).is_err(), "{wrong}");
        }
    }
}
