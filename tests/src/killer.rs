//! Ending a program at any point of its way: with SIGKILL, as it enters its n-th system call that changes something.

use std::{
    os::unix::process::CommandExt as _,
    process::{Command, Stdio},
};

use nix::{
    errno::Errno,
    sys::{
        ptrace::{self, Options},
        signal::Signal,
        wait::{WaitPidFlag, WaitStatus, waitpid},
    },
    unistd::Pid,
};

/// System calls that change the kernel's state or the file system's. Between any two of them nothing else can be cut off.
const CHANGING: &[i64] = &[
    libc::SYS_sendto,
    libc::SYS_sendmsg,
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_unshare,
    libc::SYS_setns,
    libc::SYS_bpf,
    libc::SYS_write,
    libc::SYS_fsync,
    libc::SYS_ftruncate,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_rename,
    libc::SYS_renameat,
    libc::SYS_renameat2,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_mkdir,
    libc::SYS_mkdirat,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_rmdir,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_unlink,
    libc::SYS_unlinkat,
];

/// Flags of an `openat` that can change something.
const WRITING: i32 = libc::O_CREAT | libc::O_WRONLY | libc::O_RDWR;

/// How a program ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Killed where it should be.
    Killed,
    /// It came to its end before, with this exit code.
    Finished(i32),
}

/// Runs a program, and kills it as it enters its `nth` (from 1) system call that changes something, in whichever thread.
///
/// # Panics
/// When it cannot be started or traced.
#[expect(clippy::zombie_processes, reason = "it is waited for with waitpid, which tells what a tracer needs")]
pub fn kill_at(command: &mut Command, nth: usize) -> End {
    command.stdout(Stdio::null()).stderr(Stdio::null());
    trace(command);
    let child = command.spawn().expect("the program starts");
    let main = Pid::from_raw(child.id().cast_signed());
    let mut seen = 0;
    let mut prepared = false;
    loop {
        // Of this thread's children only: other tests have their own.
        let status = match waitpid(None::<Pid>, Some(WaitPidFlag::__WALL | WaitPidFlag::__WNOTHREAD)) {
            Err(Errno::EINTR) => continue,
            status => status.expect("a traced program"),
        };
        match status {
            WaitStatus::Exited(pid, code) if pid == main => return End::Finished(code),
            WaitStatus::Signaled(pid, ..) if pid == main => return End::Killed,
            WaitStatus::Exited(..) | WaitStatus::Signaled(..) => {}
            WaitStatus::PtraceSyscall(pid) => {
                if entered(pid).is_some_and(|(call, flags)| {
                    CHANGING.contains(&call) || (call == libc::SYS_openat && flags & WRITING != 0)
                }) {
                    seen += 1;
                    if seen == nth {
                        nix::sys::signal::kill(main, Signal::SIGKILL).expect("it is there");
                        continue;
                    }
                }
                resume(pid, None);
            }
            WaitStatus::Stopped(pid, Signal::SIGTRAP) if !prepared => {
                prepared = true;
                let options = Options::PTRACE_O_TRACESYSGOOD
                    | Options::PTRACE_O_TRACECLONE
                    | Options::PTRACE_O_EXITKILL;
                ptrace::setoptions(pid, options).expect("options");
                resume(pid, None);
            }
            // A new thread begins with a stop of its own.
            WaitStatus::Stopped(pid, Signal::SIGSTOP) => resume(pid, None),
            WaitStatus::Stopped(pid, signal) => resume(pid, Some(signal)),
            WaitStatus::PtraceEvent(pid, ..) => resume(pid, None),
            other => panic!("{other:?}"),
        }
    }
}

fn resume(pid: Pid, signal: Option<Signal>) {
    match ptrace::syscall(pid, signal) {
        // Killed meanwhile.
        Ok(()) | Err(Errno::ESRCH) => {}
        Err(errno) => panic!("{errno}"),
    }
}

#[expect(unsafe_code, reason = "only the program itself can ask to be traced from its first instruction on")]
fn trace(command: &mut Command) {
    // SAFETY: ptrace(PTRACE_TRACEME) is one system call and touches no memory.
    unsafe { command.pre_exec(|| Ok(ptrace::traceme()?)) };
}

/// The number of the system call that is being entered, and its third argument; nothing at its way out.
#[expect(unsafe_code, reason = "what is in the union follows from `op`")]
fn entered(pid: Pid) -> Option<(i64, i32)> {
    let info = ptrace::syscall_info(pid).ok()?;
    // SAFETY: the kernel has filled in `entry` where it says so.
    (info.op == libc::PTRACE_SYSCALL_INFO_ENTRY)
        .then(|| unsafe { (info.u.entry.nr as i64, info.u.entry.args[2] as i32) })
}
