//! Who keeps a network namespace alive: threads in it, descriptors of it, mounts of it, and sockets that belong to it in
//! the hands of processes outside. Looks once and changes nothing.
//!
//! Deliberately absent: descriptors on their way through a Unix socket, which nothing shows, and this process, which
//! holds what it looks at only while it looks.

mod parse;
mod scan;

use std::{
    fs::{self, File},
    io,
    os::unix::fs::MetadataExt as _,
    path::Path,
};

use crate::{
    netns::{self, NetnsError},
    topology::names::NsName,
};

/// A field of a mountinfo as it was: space, tab, newline and backslash come as three octal digits.
pub fn unescape(field: &str) -> String {
    parse::unescape(field)
}

/// The inode that a `/proc/PID/fdinfo/N` names (since kernel 5.14).
pub fn inode_of_fdinfo(text: &str) -> Option<u64> {
    parse::inode_of_fdinfo(text)
}

/// Which namespace.
#[derive(Clone, Debug)]
pub struct Target {
    /// Device of the kernel's file system of namespaces.
    device: u64,
    /// Its inode there: what `ls -i` and `lsns` show.
    pub inode: u64,
    /// Where its name is mounted; none for a namespace without a name.
    mounted: Option<String>,
}

/// A process, as it is shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Process {
    /// Its number in the PID namespace of `/proc`.
    pub pid: u32,
    /// Its effective user; absent where it ended meanwhile.
    pub uid: Option<u32>,
    /// Its command line, or its name in brackets.
    pub command: String,
}

/// A process with threads in the namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inside {
    /// Which.
    pub process: Process,
    /// Those of its threads that are in the namespace.
    pub threads: Vec<u32>,
    /// Whether these are all it has.
    pub all: bool,
}

/// A descriptor of a process that keeps the namespace alive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Descriptor {
    /// Whose.
    pub process: Process,
    /// Its number there.
    pub fd: i32,
}

/// A mount of the namespace beside its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// Where, as seen by who has it.
    pub path: String,
    /// Inode of the mount namespace it is in, and a process there; none for the mount namespace of this process.
    pub elsewhere: Option<(u64, Process)>,
}

/// Everything found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Processes with threads in the namespace.
    pub processes: Vec<Inside>,
    /// Descriptors of the namespace itself.
    pub descriptors: Vec<Descriptor>,
    /// Sockets in the namespace, of processes with threads outside.
    pub sockets: Vec<Descriptor>,
    /// Mounts beside its name.
    pub mounts: Vec<Mount>,
    /// What could not be looked at, and why: one line each.
    pub notes: Vec<String>,
}

impl Target {
    /// A namespace by its name.
    ///
    /// # Errors
    /// There is none of that name.
    pub fn named(dir: &Path, name: &NsName) -> Result<Self, NetnsError> {
        let path = dir.join(name.as_str());
        let failed = |call| {
            let path = path.clone();
            move |source| NetnsError::Io { call, path, source }
        };
        let meta = File::from(netns::file(dir, name)?).metadata().map_err(failed("stat"))?;
        // As mountinfo has it: without symbolic links, /var/run for example.
        let mounted = fs::canonicalize(&path).map_err(failed("resolve"))?.to_string_lossy().into_owned();
        Ok(Self { device: meta.dev(), inode: meta.ino(), mounted: Some(mounted) })
    }

    /// A namespace by its inode, for one that has no name.
    ///
    /// # Errors
    /// `/proc` cannot be read.
    pub fn of_inode(inode: u64) -> io::Result<Self> {
        Ok(Self { device: fs::metadata("/proc/thread-self/ns/net")?.dev(), inode, mounted: None })
    }

    fn is(&self, meta: &fs::Metadata) -> bool {
        (meta.dev(), meta.ino()) == (self.device, self.inode)
    }
}

impl Report {
    /// Whether nothing was found.
    pub fn is_empty(&self) -> bool {
        let Self { processes, descriptors, sockets, mounts, notes: _ } = self;
        processes.is_empty() && descriptors.is_empty() && sockets.is_empty() && mounts.is_empty()
    }

    /// Every process that was found to hold it.
    pub fn pids(&self) -> impl Iterator<Item = u32> {
        let descriptors = self.descriptors.iter().chain(&self.sockets);
        let inside = self.processes.iter().map(|inside| inside.process.pid);
        inside.chain(descriptors.map(|descriptor| descriptor.process.pid))
    }
}

/// Looks at every process and mount that `/proc` shows. What cannot be looked at is in the notes.
///
/// # Errors
/// There is no `/proc`.
pub fn find(target: &Target) -> io::Result<Report> {
    scan::find(target)
}
