//! Becoming a program inside a namespace, as `ip netns exec` does it.

use std::{
    fs, io,
    os::{fd::AsFd as _, unix::process::CommandExt as _},
    path::Path,
    process::Command,
};

use nix::{
    mount::{MntFlags, MsFlags, mount, umount2},
    sched::{CloneFlags, setns, unshare},
    sys::statvfs::{FsFlags, statvfs},
};

use super::{NetnsError, failed, open};
use crate::topology::names::NsName;

/// Where files for one namespace are, in a folder of its name.
const ETC: &str = "/etc/netns";

/// Takes this process into a namespace: with a mount namespace of its own, where `/sys` shows the namespace's devices and
/// the files of `/etc/netns/NAME` are bound over those of `/etc`. For a process of one thread. Returns what of that could
/// not be bound.
///
/// # Errors
/// There is no such namespace, or the kernel refused.
pub fn enter(dir: &Path, name: &NsName) -> Result<Vec<String>, NetnsError> {
    let netns = open(dir, name)?;
    setns(netns.as_fd(), CloneFlags::CLONE_NEWNET).map_err(failed("setns", &dir.join(name.as_str())))?;
    unshare(CloneFlags::CLONE_NEWNS).map_err(failed("unshare", Path::new("/")))?;
    own_sys()?;
    Ok(bind_etc(&Path::new(ETC).join(name.as_str())))
}

/// A `/sys` of the namespace that this process is in, in a mount namespace of its own.
pub(super) fn own_sys() -> Result<(), NetnsError> {
    let (none, root, sys) = (None::<&str>, Path::new("/"), Path::new("/sys"));
    // Mounts made outside come in, those made here do not go out.
    mount(none, root, none, MsFlags::MS_SLAVE | MsFlags::MS_REC, none).map_err(failed("mount", root))?;
    let mut flags = MsFlags::empty();
    // One that cannot be taken away is covered; a read-only one only by another of that kind.
    if umount2(sys, MntFlags::MNT_DETACH).is_err()
        && statvfs(sys).is_ok_and(|stat| stat.flags().contains(FsFlags::ST_RDONLY))
    {
        flags = MsFlags::MS_RDONLY;
    }
    mount(Some("sysfs"), sys, Some("sysfs"), flags, none).map_err(failed("mount", sys))
}

/// Binds each file of a folder over the one of that name in `/etc`. Who could not be bound is told.
fn bind_etc(folder: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let mut failed = Vec::new();
    for from in entries.flatten().map(|entry| entry.path()) {
        let Some(name) = from.file_name() else { continue };
        let to = Path::new("/etc").join(name);
        if let Err(errno) = mount(Some(&from), &to, None::<&str>, MsFlags::MS_BIND, None::<&str>) {
            failed.push(format!("cannot bind {} over {}: {errno}", from.display(), to.display()));
        }
    }
    failed.sort();
    failed
}

/// Becomes a program; returns only when it could not, with why.
pub fn become_program(command: &mut Command) -> io::Error {
    command.exec()
}
