//! A command on a terminal of its own (a pty): what it draws, and what it does when keys are pressed.

use std::{
    fs::File,
    io::{Read as _, Write as _},
    os::{fd::FromRawFd as _, unix::process::CommandExt as _},
    process::{Child, Command},
    sync::{Arc, Mutex, PoisonError},
    thread::{self, JoinHandle},
};

use crate::{
    agent::{Outcome, binary},
    poll::{SOON, until},
};

/// A running command and its terminal. Killed when dropped.
#[derive(Debug)]
pub struct Terminal {
    child: Child,
    keys: File,
    seen: Arc<Mutex<String>>,
    reader: Option<JoinHandle<()>>,
}

impl Terminal {
    /// Starts `netns-monitor ARGS` on a terminal of so many columns and lines, with these variables.
    ///
    /// # Panics
    /// When there are no terminals.
    #[must_use]
    pub fn start(size: (u16, u16), variables: &[(&str, &str)], args: &[&str]) -> Self {
        let (mut ours, mut theirs) = (0, 0);
        let size = libc::winsize { ws_row: size.1, ws_col: size.0, ws_xpixel: 0, ws_ypixel: 0 };
        let none = std::ptr::null_mut();
        // SAFETY: two numbers are written to where these point; the size is only read, and no name is asked for.
        let made =
            unsafe { libc::openpty(&raw mut ours, &raw mut theirs, none, std::ptr::null(), &raw const size) };
        assert_eq!(made, 0, "a terminal");
        // SAFETY: both were just opened, and belong to nobody else.
        let (ours, theirs) = unsafe { (File::from_raw_fd(ours), File::from_raw_fd(theirs)) };
        let end = || theirs.try_clone().expect("a descriptor");
        let mut command = Command::new(binary());
        command.args(args).stdin(end()).stdout(end()).stderr(end());
        for name in ["NO_COLOR", "CLICOLOR_FORCE", "RUST_LOG"] {
            command.env_remove(name);
        }
        command.env("TERM", "xterm-256color").envs(variables.iter().copied());
        let first = || {
            // SAFETY: between fork and exec these two calls touch nothing but the process itself and its standard input.
            unsafe {
                libc::setsid();
                libc::ioctl(0, libc::TIOCSCTTY, 0);
            }
            Ok(())
        };
        // SAFETY: it allocates nothing and takes no lock.
        unsafe { command.pre_exec(first) };
        let child = command.spawn().expect("netns-monitor");
        drop((theirs, command));
        let seen = Arc::new(Mutex::new(String::new()));
        let (mut from, to) = (ours.try_clone().expect("a descriptor"), Arc::clone(&seen));
        let reader = thread::spawn(move || {
            let mut buffer = [0; 1 << 14];
            // The last one that has it open closes it: then reading fails.
            while let Ok(length @ 1..) = from.read(&mut buffer) {
                let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
                to.lock().unwrap_or_else(PoisonError::into_inner).push_str(&text);
            }
        });
        Self { child, keys: ours, seen, reader: Some(reader) }
    }

    /// Everything that was written to it so far.
    #[must_use]
    pub fn seen(&self) -> String {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Presses keys.
    ///
    /// # Panics
    /// When the terminal is gone.
    pub fn press(&mut self, keys: &str) {
        self.keys.write_all(keys.as_bytes()).expect("a key");
    }

    /// Waits until the command ends; what it wrote is on `stdout`.
    ///
    /// # Panics
    /// When it does not end soon.
    pub fn end(mut self) -> Outcome {
        let status = until(SOON, "it ends", || self.child.try_wait().expect("its status"));
        self.reader.take().into_iter().for_each(|reader| reader.join().expect("its reader"));
        Outcome { code: status.code(), stdout: self.seen(), stderr: String::new() }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        if self.child.try_wait().is_ok_and(|status| status.is_none()) {
            self.child.kill().expect("killed");
            self.child.wait().expect("its status");
        }
    }
}
