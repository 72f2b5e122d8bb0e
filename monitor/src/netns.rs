//! Named network namespaces: entering, listing, making and removing them.
//!
//! The only file that calls `setns` and `unshare`, always on a fresh thread that then ends: a thread that changed its
//! namespace never runs anything else. Nothing here stays open: an idle agent keeps no namespace alive.

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::{
        fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd},
        unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _},
    },
    path::{Path, PathBuf},
    thread,
};

use nix::{
    fcntl::{Flock, FlockArg, OFlag, OpenHow, ResolveFlag, openat2},
    mount::{MntFlags, MsFlags, mount, umount2},
    sched::{CloneFlags, setns, unshare},
    sys::{
        socket::{AddressFamily, SockFlag, SockType, socket},
        statfs::{FsType, fstatfs},
    },
};

use crate::topology::names::{Cookie, NsName};

mod before;
mod enter;
mod held;
mod records;
mod stale;
pub mod sysctl;
mod way;

pub use before::Befores;
pub use enter::{become_program, enter};
pub use held::{Held, Running, hold};
pub use records::Records;
pub use stale::{Stale, clear, stale};
pub use way::{PidFd, Way, by_way, tour};

/// `NSFS_MAGIC` of `include/uapi/linux/magic.h`.
const NSFS_MAGIC: i64 = 0x6e73_6673;
/// `SO_NETNS_COOKIE` of `include/uapi/asm-generic/socket.h`, since kernel 5.14.
const SO_NETNS_COOKIE: i32 = 71;
/// `NS_GET_NSTYPE` of `include/uapi/linux/nsfs.h`: `_IO(0xb7, 3)`.
const NS_GET_NSTYPE: libc::Ioctl = 0xb703;

/// Who a namespace is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Never used twice within one boot.
    pub cookie: Cookie,
    /// Used again by the kernel; a hint.
    pub inode: u64,
}

/// Why a namespace could not be entered, made or removed.
#[derive(Debug, thiserror::Error)]
pub enum NetnsError {
    /// There is no such file.
    #[error("no namespace {name}: {} does not exist", path.display())]
    Missing {
        /// Its name.
        name: NsName,
        /// Where it should be.
        path: PathBuf,
    },
    /// The file is something else.
    #[error("{} is no network namespace but {what}; if nothing needs it, remove it and try again", path.display())]
    Junk {
        /// The file.
        path: PathBuf,
        /// What it is.
        what: &'static str,
    },
    /// A namespace of that name exists already, and we did not make it.
    #[error("{} exists already", path.display())]
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// The name is in use by a namespace that is not the one we made.
    #[error("{name} is not the namespace that was made here: it was replaced, and stays")]
    NotOurs {
        /// Its name.
        name: NsName,
    },
    /// The kernel refused.
    #[error("{call} {}: {source}{}", path.display(), hint(source))]
    Io {
        /// What was asked of the kernel.
        call: &'static str,
        /// On which path.
        path: PathBuf,
        /// Its answer.
        source: io::Error,
    },
    /// The thread that was to enter the namespace ended by a panic.
    #[error("a thread in a namespace panicked")]
    Panicked,
}

fn hint(error: &io::Error) -> &'static str {
    match error.raw_os_error() {
        Some(libc::ENOSPC) => " (the limit user.max_net_namespaces is reached)",
        Some(libc::EPERM) => " (CAP_SYS_ADMIN is needed: run as root)",
        _ => "",
    }
}

fn failed(call: &'static str, path: &Path) -> impl FnOnce(nix::Error) -> NetnsError {
    let path = path.to_owned();
    move |errno| NetnsError::Io { call, path, source: errno.into() }
}

fn failed_io(call: &'static str, path: &Path) -> impl FnOnce(io::Error) -> NetnsError {
    let path = path.to_owned();
    move |source| NetnsError::Io { call, path, source }
}

/// Runs `work` on a fresh thread inside a named namespace, and waits for it.
///
/// # Errors
/// There is none of that name, or it may not be entered; then `work` did not run.
pub fn inside<T: Send>(dir: &Path, name: &NsName, work: impl FnOnce() -> T + Send) -> Result<T, NetnsError> {
    let netns = open(dir, name)?;
    on_thread(|| {
        setns(netns.as_fd(), CloneFlags::CLONE_NEWNET).map_err(failed("setns", &dir.join(name.as_str())))?;
        drop(netns);
        Ok(work())
    })
}

/// Runs `work` in several named namespaces, one after the other on one fresh thread; as [`inside`] of each. In the order of
/// the names.
///
/// # Errors
/// The thread panicked.
pub fn inside_each<T: Send>(
    dir: &Path,
    names: &[&NsName],
    mut work: impl FnMut(&NsName) -> T + Send,
) -> Result<Vec<Result<T, NetnsError>>, NetnsError> {
    on_thread(|| {
        let visit = |name: &&NsName| {
            let netns = open(dir, name)?;
            setns(netns.as_fd(), CloneFlags::CLONE_NEWNET)
                .map_err(failed("setns", &dir.join(name.as_str())))?;
            drop(netns);
            Ok(work(name))
        };
        Ok(names.iter().map(visit).collect())
    })
}

/// Runs `work` on a fresh thread inside a new namespace without a name, which goes with the thread.
///
/// # Errors
/// No namespace could be made; then `work` did not run.
pub fn in_new<T: Send>(work: impl FnOnce() -> T + Send) -> Result<T, NetnsError> {
    on_thread(|| {
        unshare(CloneFlags::CLONE_NEWNET).map_err(failed("unshare", Path::new("(a new namespace)")))?;
        Ok(work())
    })
}

fn on_thread<T: Send>(work: impl FnOnce() -> Result<T, NetnsError> + Send) -> Result<T, NetnsError> {
    thread::scope(|scope| scope.spawn(work).join().map_err(|_panic| NetnsError::Panicked)?)
}

/// Identity of the namespace of the calling thread.
///
/// # Errors
/// Kernels before 5.14 have no cookie.
pub fn own_identity() -> Result<Identity, NetnsError> {
    let path = Path::new("/proc/thread-self/ns/net");
    let inode = fs::metadata(path).map_err(failed_io("stat", path))?.ino();
    let socket = socket(AddressFamily::Unix, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)
        .map_err(failed("socket", path))?;
    Ok(Identity { cookie: cookie(&socket).map_err(failed_io("getsockopt SO_NETNS_COOKIE", path))?, inode })
}

/// Identity of a named namespace.
///
/// # Errors
/// As [`inside`].
pub fn identity(dir: &Path, name: &NsName) -> Result<Identity, NetnsError> {
    inside(dir, name, own_identity)?
}

#[expect(unsafe_code, reason = "nix does not know SO_NETNS_COOKIE")]
fn cookie(socket: &OwnedFd) -> io::Result<Cookie> {
    let mut cookie = 0_u64;
    let mut length = size_of::<u64>() as libc::socklen_t;
    // SAFETY: the kernel writes at most `length` bytes to `cookie`, which is that long.
    let done = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            SO_NETNS_COOKIE,
            (&raw mut cookie).cast(),
            &raw mut length,
        )
    };
    if done == 0 { Ok(Cookie(cookie)) } else { Err(io::Error::last_os_error()) }
}

/// The network namespaces of a directory, by name. What is no network namespace, and names we do not take, are left out.
///
/// # Errors
/// The directory cannot be read; one that does not exist is empty.
pub fn list(dir: &Path) -> Result<Vec<(NsName, Identity)>, NetnsError> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(failed_io("read", dir)(error)),
    };
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry.map_err(failed_io("read", dir))?;
        let Some(name) = entry.file_name().to_str().and_then(|name| name.parse::<NsName>().ok()) else {
            continue;
        };
        // Junk, or gone since the directory was read.
        if let Ok(identity) = identity(dir, &name) {
            found.push((name, identity));
        }
    }
    found.sort_by(|(a, _), (b, _)| a.cmp(b));
    Ok(found)
}

/// Makes a namespace and its name, in iproute2's order and under its lock, so that `ip netns` sees and removes it.
/// The record that it is ours is written before the name appears.
///
/// # Errors
/// The name is taken; the kernel refused. Then nothing is left behind.
pub fn create(dir: &Path, records: &Records, name: &NsName) -> Result<(), NetnsError> {
    name_it(dir, records, name, || {
        unshare(CloneFlags::CLONE_NEWNET).map_err(failed("unshare", &dir.join(name.as_str())))
    })
}

/// Gives the namespace of a process a name, and makes it ours.
///
/// # Errors
/// As [`create`].
pub fn create_of(dir: &Path, records: &Records, name: &NsName, pid: u32) -> Result<(), NetnsError> {
    let path = PathBuf::from(format!("/proc/{pid}/ns/net"));
    let netns = File::open(&path).map_err(failed_io("open", &path))?;
    name_it(dir, records, name, || {
        setns(netns.as_fd(), CloneFlags::CLONE_NEWNET).map_err(failed("setns", &path))
    })
}

/// Names the namespace that `go` takes a fresh thread to.
fn name_it(
    dir: &Path,
    records: &Records,
    name: &NsName,
    go: impl FnOnce() -> Result<(), NetnsError> + Send,
) -> Result<(), NetnsError> {
    let _lock = lock(dir)?;
    share(dir)?;
    let path = dir.join(name.as_str());
    clear_stale(&path, records, name)?;
    // A record of an earlier namespace stays as it is when somebody else has the name by now.
    if fs::symlink_metadata(&path).is_ok() {
        return Err(match open(dir, name) {
            Err(junk @ NetnsError::Junk { .. }) => junk,
            _ => NetnsError::Exists { path },
        });
    }
    let made = on_thread(|| {
        go()?;
        records.write(name, own_identity()?.cookie)?;
        let placeholder = OpenOptions::new().read(true).write(true).create_new(true).mode(0o0).open(&path);
        drop(placeholder.map_err(|error| match error.kind() {
            io::ErrorKind::AlreadyExists => NetnsError::Exists { path: path.clone() },
            _ => failed_io("create", &path)(error),
        })?);
        mount(Some("/proc/thread-self/ns/net"), &path, None::<&str>, MsFlags::MS_BIND, None::<&str>)
            .map_err(failed("mount", &path))
    });
    if let Err(error) = &made {
        // Both may be there or not: what matters is that neither of ours is after this.
        if !matches!(error, NetnsError::Exists { .. }) {
            let _removed = fs::remove_file(&path);
        }
        records.remove(name)?;
    }
    made
}

/// Takes a namespace over that somebody else made: from now on it is ours.
///
/// # Errors
/// There is none; the record cannot be written.
pub fn own(dir: &Path, records: &Records, name: &NsName) -> Result<(), NetnsError> {
    records.write(name, identity(dir, name)?.cookie)
}

/// Takes that back: the namespace stays, and is not ours.
///
/// # Errors
/// The record cannot be removed.
pub fn disown(records: &Records, name: &NsName) -> Result<(), NetnsError> {
    records.disown(name)
}

/// Removes the name of a namespace we made; the namespace goes with its last user. One that is gone already is removed.
///
/// # Errors
/// The name belongs to another namespace by now; the kernel refused.
pub fn remove(dir: &Path, records: &Records, name: &NsName) -> Result<(), NetnsError> {
    let path = dir.join(name.as_str());
    match identity(dir, name) {
        Ok(identity) if !records.owns(name, identity.cookie) => {
            return Err(NetnsError::NotOurs { name: name.clone() });
        }
        Ok(_) => {
            let _lock = lock(dir)?;
            match umount2(&path, MntFlags::MNT_DETACH) {
                Ok(()) | Err(nix::Error::EINVAL | nix::Error::ENOENT) => {}
                Err(errno) => return Err(failed("umount", &path)(errno)),
            }
            match fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(failed_io("unlink", &path)(error));
                }
                _ => {}
            }
        }
        Err(NetnsError::Missing { .. }) => {}
        Err(NetnsError::Junk { .. }) => clear_stale(&path, records, name)?,
        Err(error) => return Err(error),
    }
    records.remove(name)
}

/// Finishes what a crash left half made or half removed: on record, but with no namespace at the name.
///
/// # Errors
/// A record or a file cannot be removed.
pub fn sweep(dir: &Path, records: &Records) -> Result<(), NetnsError> {
    for name in records.names()? {
        let path = dir.join(name.as_str());
        if !is_mounted(&path) {
            clear_stale(&path, records, &name)?;
            records.remove(&name)?;
        }
    }
    for name in records.befores.names()? {
        if !is_mounted(&dir.join(name.as_str())) {
            records.befores.remove(&name)?;
        }
    }
    records.remove_unfinished()
}

/// A crash between making the file and mounting on it leaves an empty file of mode 0. With a record of ours it is ours.
fn clear_stale(path: &Path, records: &Records, name: &NsName) -> Result<(), NetnsError> {
    match records.contains(name) && is_placeholder(path) {
        true => fs::remove_file(path).map_err(failed_io("unlink", path)),
        false => Ok(()),
    }
}

fn is_placeholder(path: &Path) -> bool {
    let empty = |meta: fs::Metadata| meta.is_file() && meta.len() == 0 && meta.mode() & 0o7777 == 0;
    fs::symlink_metadata(path).is_ok_and(empty) && !is_mounted(path)
}

fn is_mounted(path: &Path) -> bool {
    let parent = path.parent().and_then(|parent| fs::metadata(parent).ok()).map(|meta| meta.dev());
    fs::metadata(path).is_ok_and(|meta| Some(meta.dev()) != parent)
}

/// The lock that `ip netns` takes on the directory, made if missing.
fn lock(dir: &Path) -> Result<Flock<File>, NetnsError> {
    fs::DirBuilder::new().recursive(true).mode(0o755).create(dir).map_err(failed_io("mkdir", dir))?;
    let file = File::open(dir).map_err(failed_io("open", dir))?;
    Flock::lock(file, FlockArg::LockExclusive).map_err(|(_, errno)| failed("flock", dir)(errno))
}

/// Makes the directory a shared mount, as `ip netns` does, so that names made here reach other mount namespaces.
fn share(dir: &Path) -> Result<(), NetnsError> {
    let none = None::<&str>;
    let make_shared = || mount(Some(""), dir, Some("none"), MsFlags::MS_SHARED | MsFlags::MS_REC, none);
    match make_shared() {
        Ok(()) => Ok(()),
        // Not a mount point yet.
        Err(nix::Error::EINVAL) => {
            mount(Some(dir), dir, Some("none"), MsFlags::MS_BIND | MsFlags::MS_REC, none)
                .map_err(failed("mount", dir))?;
            make_shared().map_err(failed("mount --make-shared", dir))
        }
        Err(errno) => Err(failed("mount --make-shared", dir)(errno)),
    }
}

/// Opens a named namespace: no symbolic link, nothing outside the directory, and really a network namespace.
fn open(dir: &Path, name: &NsName) -> Result<OwnedFd, NetnsError> {
    let path = dir.join(name.as_str());
    let missing = || NetnsError::Missing { name: name.clone(), path: path.clone() };
    let folder = match File::open(dir) {
        Ok(folder) => folder,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(missing()),
        Err(error) => return Err(failed_io("open", dir)(error)),
    };
    let how = OpenHow::new()
        .flags(OFlag::O_RDONLY | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK)
        .resolve(ResolveFlag::RESOLVE_NO_SYMLINKS | ResolveFlag::RESOLVE_BENEATH);
    // RESOLVE_BENEATH lets mounts below the directory through: that is what a named namespace is.
    let file = match openat2(&folder, name.as_str(), how) {
        Ok(file) => file,
        Err(nix::Error::ENOENT) => return Err(missing()),
        Err(nix::Error::ELOOP | nix::Error::EXDEV) => {
            return Err(NetnsError::Junk { path, what: "a symbolic link" });
        }
        Err(errno) => return Err(failed("open", &path)(errno)),
    };
    is_netns(file.as_fd(), &path)?;
    Ok(file)
}

/// Whether an open file is a network namespace; what it is where it is none.
#[expect(unsafe_code, reason = "nix does not know NS_GET_NSTYPE")]
fn is_netns(file: BorrowedFd<'_>, path: &Path) -> Result<(), NetnsError> {
    let junk = |what| Err(NetnsError::Junk { path: path.to_owned(), what });
    let fs = fstatfs(file).map_err(failed("statfs", path))?;
    if fs.filesystem_type() != FsType(NSFS_MAGIC) {
        return junk("an ordinary file");
    }
    // SAFETY: the descriptor is open and the request takes no argument.
    let kind = unsafe { libc::ioctl(file.as_raw_fd(), NS_GET_NSTYPE) };
    match kind == libc::CLONE_NEWNET {
        true => Ok(()),
        false => junk("a namespace of another kind"),
    }
}

/// A file descriptor of a named namespace, for a request that names it. Let it go soon: it keeps the namespace alive.
///
/// # Errors
/// As [`inside`].
pub fn file(dir: &Path, name: &NsName) -> Result<OwnedFd, NetnsError> {
    open(dir, name)
}
