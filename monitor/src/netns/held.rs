//! A command that is cloned into a new namespace and held there until its wiring is done.

use std::{
    io::{self, PipeWriter, Read as _, Write as _},
    os::{
        fd::{AsRawFd as _, RawFd},
        unix::process::CommandExt as _,
    },
    process::{Command, ExitStatus},
    sync::mpsc::{Receiver, channel},
    thread,
};

use nix::{
    sched::{CloneFlags, unshare},
    sys::signal::SigSet,
};

use super::enter::own_sys;

/// What a held process ends with when nobody releases it.
const NOT_RELEASED: i32 = 125;

/// A process in a network namespace of its own that waits before it becomes its command. Dropped, it ends without.
pub struct Held {
    /// Its pid.
    pub pid: u32,
    go: PipeWriter,
    end: Receiver<io::Result<ExitStatus>>,
}

/// A command that runs.
pub struct Running {
    /// Its pid.
    pub pid: u32,
    end: Receiver<io::Result<ExitStatus>>,
}

/// Clones a process into a new network namespace, with a `/sys` that shows it; it waits there. When this process dies
/// first, it ends without having run the command; later, the command gets SIGTERM.
///
/// # Errors
/// No process, no namespace.
#[expect(unsafe_code, reason = "between fork and exec, system calls alone are made")]
pub fn hold(mut command: Command) -> io::Result<Held> {
    let (mut ready_reader, ready_writer) = io::pipe()?;
    let (go_reader, go_writer) = io::pipe()?;
    let (ready, go, other) = (ready_writer.as_raw_fd(), go_reader.as_raw_fd(), go_writer.as_raw_fd());
    // SAFETY: `wait_for_wiring` makes system calls and allocates nothing.
    unsafe { command.pre_exec(move || wait_for_wiring(ready, go, other)) };
    let (sender, end) = channel();
    // Starting takes until the command runs, so it has a thread; the kernel takes the death of that one for ours, so it
    // waits for the command too.
    thread::Builder::new().name("command".to_owned()).spawn(move || {
        let child = command.spawn();
        drop((ready_writer, go_reader));
        let ended = child.and_then(|mut child| child.wait());
        // Nobody listens any more when it was not to run.
        let _unheard = sender.send(ended);
    })?;
    let mut pid = [0; 4];
    match ready_reader.read_exact(&mut pid) {
        Ok(()) => Ok(Held { pid: u32::from_ne_bytes(pid), go: go_writer, end }),
        Err(_) => match end.recv() {
            Ok(Err(error)) => Err(error),
            _ => Err(io::Error::other("the process ended before it had its namespace")),
        },
    }
}

/// In the child: its namespace, its pid to the parent, and then until the parent says so.
#[expect(unsafe_code, reason = "the calls have no safe form that allocates nothing")]
fn wait_for_wiring(ready: RawFd, go: RawFd, other: RawFd) -> io::Result<()> {
    // SAFETY: system calls on descriptors that fork has given this process, and on memory of its own.
    unsafe {
        // The writing end must be nobody's but the parent's, or its death would not be the end of the pipe.
        libc::close(other);
        libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGTERM);
    }
    unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS)?;
    own_sys().map_err(|_refused| io::Error::from_raw_os_error(libc::EPERM))?;
    // SAFETY: as above.
    unsafe {
        let pid = libc::getpid().to_ne_bytes();
        if libc::write(ready, pid.as_ptr().cast(), pid.len()) != 4 {
            return Err(io::Error::last_os_error());
        }
        libc::close(ready);
        let mut byte = 0_u8;
        loop {
            match libc::read(go, (&raw mut byte).cast(), 1) {
                1 => break,
                -1 if *libc::__errno_location() == libc::EINTR => {}
                _ => libc::_exit(NOT_RELEASED),
            }
        }
    }
    // The parent has blocked those that it hands on.
    SigSet::empty().thread_set_mask()?;
    Ok(())
}

impl Held {
    /// Lets it become its command.
    ///
    /// # Errors
    /// It is gone.
    pub fn release(mut self) -> io::Result<Running> {
        self.go.write_all(b"!")?;
        Ok(Running { pid: self.pid, end: self.end })
    }
}

impl Running {
    /// How the command ended; none while it runs.
    ///
    /// # Errors
    /// There is no such program, or it may not be run.
    pub fn ended(&self) -> Option<io::Result<ExitStatus>> {
        self.end.try_recv().ok()
    }
}
