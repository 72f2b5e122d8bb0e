//! What can go wrong with probes: the call, the object, the reason, and what to try.

use std::{error::Error, io, path::PathBuf};

use aya::programs::{ProgramError, tc::TcError};

/// Why probes could not be opened, attached, read or removed. The variants are what a caller decides by.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// The directory for pins is not on a bpffs.
    #[error(
        "{} is not on a BPF file system; mount one (`mount -t bpf bpf {}`) or counts start anew with the agent",
        path.display(), mount.display()
    )]
    NotBpffs {
        /// Directory for pins.
        path: PathBuf,
        /// The nearest directory that exists.
        mount: PathBuf,
    },
    /// The kernel refused for want of privilege.
    #[error(
        "{call} on {object}: {why}; run as root, or with CAP_BPF and CAP_NET_ADMIN (and see whether a lockdown or seccomp policy forbids bpf())"
    )]
    Privilege {
        /// What was asked of the kernel.
        call: &'static str,
        /// Of which object.
        object: String,
        /// The kernel's answer.
        why: String,
    },
    /// The kernel lacks the feature.
    #[error("{call} on {object}: {why}; this kernel lacks it (see `netns-monitor doctor`)")]
    Unsupported {
        /// What was asked of the kernel.
        call: &'static str,
        /// Of which object.
        object: String,
        /// The kernel's answer.
        why: String,
    },
    /// The interface or its namespace is gone.
    #[error("{call} on {object}: {why}; it is gone, the next pass looks again")]
    Gone {
        /// What was asked of the kernel.
        call: &'static str,
        /// Of which object.
        object: String,
        /// The kernel's answer.
        why: String,
    },
    /// A pinned object is not what it should be.
    #[error("{}: {why}", path.display())]
    Layout {
        /// The pin.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// Anything else.
    #[error("{call} on {object}: {why}")]
    Failed {
        /// What was asked of the kernel.
        call: &'static str,
        /// Of which object.
        object: String,
        /// The kernel's answer.
        why: String,
    },
}

impl ProbeError {
    /// Sorts an error by its errno, and says what was done to what.
    pub(crate) fn new(call: &'static str, object: impl ToString, error: &(dyn Error + 'static)) -> Self {
        let (object, why) = (object.to_string(), chain(error));
        match errno(error) {
            Some(libc::EPERM | libc::EACCES) => Self::Privilege { call, object, why },
            Some(libc::ENOSYS | libc::EOPNOTSUPP) => Self::Unsupported { call, object, why },
            Some(libc::ENODEV | libc::ENXIO) => Self::Gone { call, object, why },
            _ => Self::Failed { call, object, why },
        }
    }

    /// An error of our own finding.
    pub(crate) fn failed(call: &'static str, object: impl ToString, why: impl ToString) -> Self {
        Self::Failed { call, object: object.to_string(), why: why.to_string() }
    }
}

/// The errno somewhere below an error.
pub(super) fn errno(error: &(dyn Error + 'static)) -> Option<i32> {
    let mut next = Some(error);
    while let Some(error) = next {
        let found = error
            .downcast_ref::<io::Error>()
            .and_then(io::Error::raw_os_error)
            .or_else(|| error.downcast_ref::<nix::Error>().map(|errno| *errno as i32))
            .or_else(|| error.downcast_ref::<ProgramError>().and_then(of_program))
            .or_else(|| error.downcast_ref::<TcError>().and_then(of_tc));
        if found.is_some() {
            return found;
        }
        next = error.source();
    }
    None
}

/// aya's transparent errors name the cause of their cause, and leave out the cause itself.
fn of_program(error: &ProgramError) -> Option<i32> {
    match error {
        ProgramError::TcError(error) => of_tc(error),
        ProgramError::IOError(error) => error.raw_os_error(),
        ProgramError::NetlinkError(error) => error.raw_os_error(),
        _ => None,
    }
}

fn of_tc(error: &TcError) -> Option<i32> {
    match error {
        TcError::IoError(error) => error.raw_os_error(),
        TcError::NetlinkError(error) => error.raw_os_error(),
        _ => None,
    }
}

/// An error with its causes, each said once, on one line: of the verifier's log only the end, which says why.
fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(error) = next {
        let cause = error.to_string();
        if !text.contains(&cause) {
            text = format!("{text}: {cause}");
        }
        next = error.source();
    }
    let lines: Vec<_> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    match lines.as_slice() {
        [first, .., why, _, _, _] if lines.len() > LOG_LINES => format!("{} … {why}", cut(first)),
        lines => lines.join("; "),
    }
}

/// Lines of a message shown whole.
const LOG_LINES: usize = 8;

fn cut(line: &str) -> String {
    line.chars().take(120).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_errno_is_found_where_aya_hides_it_and_decides_the_variant() {
        let hidden = |errno| ProgramError::TcError(TcError::IoError(io::Error::from_raw_os_error(errno)));
        assert!(matches!(
            ProbeError::new("attach", "blue/eth0", &hidden(libc::ENODEV)),
            ProbeError::Gone { .. }
        ));
        assert!(matches!(ProbeError::new("attach", "x", &hidden(libc::EPERM)), ProbeError::Privilege { .. }));
        assert!(matches!(ProbeError::new("attach", "x", &hidden(libc::EINVAL)), ProbeError::Failed { .. }));
    }

    #[test]
    fn a_verifier_log_becomes_one_line_with_its_reason() {
        let mut log = String::from("Invalid argument. Verifier output: 0: R1=ctx()\n");
        log.extend((0..1000).map(|n| format!("{n}: (bf) r6 = r1\n")));
        log += "BPF program is too large. Processed 1000001 insn\nverification time 6 usec\nstack depth 8\nprocessed 1\n";
        let error = ProbeError::new("load", "ingress", &io::Error::other(log)).to_string();
        assert_eq!(
            error,
            "load on ingress: Invalid argument. Verifier output: 0: R1=ctx() … BPF program is too large. Processed 1000001 insn"
        );
    }
}
