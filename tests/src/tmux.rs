//! A terminal as a user has it: a shell in tmux on the test's host, keys to it, and what it shows.

use std::{
    fs,
    process::{Command, Stdio},
    thread,
};

use crate::{
    agent::binary,
    poll::{SOON, until},
};

const SOCKET: &str = "/run/tmux.sock";

/// A tmux server of the test's own with one window. Ended when dropped; what it showed last is shown when the test fails.
#[derive(Debug)]
pub struct Tmux {
    server: String,
}

impl Tmux {
    /// Starts it at this size, with a shell that has the binary under test as `$NM` and says nothing by itself.
    ///
    /// # Panics
    /// When it does not start.
    #[must_use]
    pub fn start(width: u16, height: u16) -> Self {
        let mut command = tmux();
        command.args([
            "-f",
            "/dev/null",
            "new-session",
            "-d",
            "-x",
            &width.to_string(),
            "-y",
            &height.to_string(),
        ]);
        command.args(["env", "PS1=$ ", "sh"]).env("NM", binary());
        let output = command.output().expect("tmux: cargo xtask setup installs it");
        assert!(output.status.success(), "tmux: {}", String::from_utf8_lossy(&output.stderr));
        let tmux = Self { server: ask("#{pid}") };
        tmux.until("a prompt", |screen| screen.starts_with('$'));
        tmux
    }

    /// Presses keys, by tmux's names for them; `Enter`, `Escape`, `C-c` or characters.
    ///
    /// # Panics
    /// When tmux is gone.
    pub fn press(&self, keys: &[&str]) {
        tell(&[&["send-keys"], keys].concat());
    }

    /// Types a line.
    ///
    /// # Panics
    /// When tmux is gone.
    pub fn line(&self, text: &str) {
        tell(&["send-keys", "-l", text]);
        self.press(&["Enter"]);
    }

    /// Makes it another size.
    ///
    /// # Panics
    /// When tmux is gone.
    pub fn resize(&self, width: u16, height: u16) {
        tell(&["resize-window", "-x", &width.to_string(), "-y", &height.to_string()]);
    }

    /// The text that is shown.
    ///
    /// # Panics
    /// When tmux is gone.
    #[must_use]
    pub fn screen(&self) -> String {
        tell(&["capture-pane", "-p"])
    }

    /// The same with colours.
    ///
    /// # Panics
    /// When tmux is gone.
    #[must_use]
    pub fn coloured(&self) -> String {
        tell(&["capture-pane", "-p", "-e"])
    }

    /// Waits until the screen is as it should be, and returns it.
    ///
    /// # Panics
    /// When it is not soon, with what it shows.
    pub fn until(&self, what: &str, is_so: impl Fn(&str) -> bool) -> String {
        let end = std::time::Instant::now() + SOON;
        loop {
            let screen = self.screen();
            if is_so(&screen) {
                return screen;
            }
            assert!(std::time::Instant::now() < end, "still not: {what}; the screen is\n{screen}");
            thread::sleep(std::time::Duration::from_millis(20));
        }
    }

    /// Whether a program has taken the terminal: its second screen, the mouse, or the cursor.
    ///
    /// # Panics
    /// When tmux is gone.
    #[must_use]
    pub fn is_taken(&self) -> bool {
        ask("#{alternate_on}#{mouse_any_flag}#{cursor_flag}") != "001"
    }
}

fn tmux() -> Command {
    let mut command = Command::new("tmux");
    command.args(["-u", "-S", SOCKET]).stdin(Stdio::null());
    command.env("LC_ALL", "C.UTF-8").env("TERM", "xterm-256color").env_remove("TMUX");
    command.env_remove("NO_COLOR").env_remove("COLORTERM").env_remove("RUST_LOG");
    command
}

fn tell(args: &[&str]) -> String {
    let output = tmux().args(args).output().expect("tmux");
    assert!(output.status.success(), "tmux {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("UTF-8")
}

fn ask(format: &str) -> String {
    tell(&["display-message", "-p", format]).trim_end().to_owned()
}

impl Drop for Tmux {
    fn drop(&mut self) {
        if thread::panicking() {
            let screen = tmux().args(["capture-pane", "-p"]).output().map(|output| output.stdout);
            eprintln!("--- screen ---\n{}---", String::from_utf8_lossy(&screen.unwrap_or_default()));
        }
        let killed = tmux().arg("kill-server").output();
        if killed.is_ok() && !thread::panicking() {
            let stat = format!("/proc/{}/stat", self.server);
            let is_gone = || fs::read_to_string(&stat).map_or(true, |text| text.contains(") Z "));
            until(SOON, "tmux has ended", || is_gone().then_some(()));
        }
    }
}
