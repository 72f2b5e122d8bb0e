//! Kernel settings of the namespace of the calling thread, through descriptors that were checked to be procfs: no symbolic
//! link and nothing that somebody mounted over a part of it is followed (CVE-2025-52881 is what that leads to).

use std::{
    fs::File,
    io::{self, Read as _, Write as _},
    os::fd::{AsFd as _, OwnedFd},
    path::Path,
};

use nix::{
    fcntl::{OFlag, OpenHow, ResolveFlag, open, openat2},
    sys::{
        stat::{Mode, fstat},
        statfs::{PROC_SUPER_MAGIC, fstatfs},
    },
};

use crate::topology::names::SysctlKey;

/// `PROC_ROOT_INO` of `include/linux/proc_fs.h`: the root of every procfs, and of nothing below one.
const PROC_ROOT: u64 = 1;

/// Why a setting could not be read or made.
#[derive(Debug, thiserror::Error)]
pub enum SysctlError {
    /// This kernel has none of that name, here and now.
    #[error(
        "this namespace has no sysctl {0}: is it misspelt, its interface missing, or its kernel module not loaded?"
    )]
    Unknown(SysctlKey),
    /// It is there for all namespaces together.
    #[error("sysctl {0} cannot be changed in a namespace: it is the host's")]
    ReadOnly(SysctlKey),
    /// `/proc` is something else, or something is mounted over a part of it.
    #[error("sysctl {0} is not used: /proc is not the kernel's own there, something else is mounted over it")]
    NotProc(SysctlKey),
    /// The kernel does not take the value.
    #[error("the kernel refuses the value `{value}` for sysctl {key}: {source}")]
    Refused {
        /// Which.
        key: SysctlKey,
        /// What was asked for.
        value: String,
        /// Its answer.
        source: io::Error,
    },
    /// The kernel took the value and has another.
    #[error("sysctl {key} is `{found}` after `{value}` was written to it")]
    Other {
        /// Which.
        key: SysctlKey,
        /// What was asked for.
        value: String,
        /// What is there.
        found: String,
    },
    /// Anything else.
    #[error("sysctl {key}: {source}")]
    Io {
        /// Which.
        key: SysctlKey,
        /// The kernel's answer.
        source: io::Error,
    },
}

/// The value, its parts separated by single spaces.
///
/// # Errors
/// There is none, or it cannot be read.
pub fn read(key: &SysctlKey) -> Result<String, SysctlError> {
    let mut text = String::new();
    file(key, OFlag::O_RDONLY)?
        .read_to_string(&mut text)
        .map_err(|source| SysctlError::Io { key: key.clone(), source })?;
    Ok(words(&text))
}

/// Changes the value, and looks whether the kernel has it then.
///
/// # Errors
/// There is none, or the kernel has another value after that.
pub fn write(key: &SysctlKey, value: &str) -> Result<(), SysctlError> {
    let refused = |source| SysctlError::Refused { key: key.clone(), value: value.to_owned(), source };
    file(key, OFlag::O_WRONLY)?.write_all(value.as_bytes()).map_err(refused)?;
    let found = read(key)?;
    match found == words(value) {
        true => Ok(()),
        false => Err(SysctlError::Other { key: key.clone(), value: value.to_owned(), found }),
    }
}

fn words(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn file(key: &SysctlKey, access: OFlag) -> Result<File, SysctlError> {
    let failed = |errno: nix::Error| SysctlError::Io { key: key.clone(), source: errno.into() };
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let proc = open(Path::new("/proc"), flags, Mode::empty()).map_err(failed)?;
    if !is_proc(&proc) || fstat(&proc).map_err(failed)?.st_ino != PROC_ROOT {
        return Err(SysctlError::NotProc(key.clone()));
    }
    let resolve = ResolveFlag::RESOLVE_BENEATH
        | ResolveFlag::RESOLVE_NO_XDEV
        | ResolveFlag::RESOLVE_NO_SYMLINKS
        | ResolveFlag::RESOLVE_NO_MAGICLINKS;
    let how = OpenHow::new().flags(access | OFlag::O_CLOEXEC).resolve(resolve);
    match openat2(&proc, format!("sys/{}", key.path()).as_str(), how) {
        Ok(file) if is_proc(&file) => Ok(file.into()),
        Ok(_) | Err(nix::Error::EXDEV | nix::Error::ELOOP) => Err(SysctlError::NotProc(key.clone())),
        Err(nix::Error::ENOENT | nix::Error::ENOTDIR | nix::Error::EISDIR) => {
            Err(SysctlError::Unknown(key.clone()))
        }
        Err(nix::Error::EACCES | nix::Error::EPERM | nix::Error::EROFS) => {
            Err(SysctlError::ReadOnly(key.clone()))
        }
        Err(errno) => Err(failed(errno)),
    }
}

fn is_proc(file: &OwnedFd) -> bool {
    fstatfs(file.as_fd()).is_ok_and(|fs| fs.filesystem_type() == PROC_SUPER_MAGIC)
}
