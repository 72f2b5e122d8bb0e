//! The file system that keeps pinned maps and links. Mounting it is the agent's decision, not made here.

use std::{io, path::Path};

use nix::{
    mount::{MsFlags, mount as mount_fs, umount},
    sys::statfs::{BPF_FS_MAGIC, statfs},
};

/// Whether a path is on a bpffs; false where it does not exist.
pub fn is_bpffs(path: &Path) -> bool {
    statfs(path).is_ok_and(|fs| fs.filesystem_type() == BPF_FS_MAGIC)
}

/// Mounts a bpffs at an existing directory, readable by root only: `mount -t bpf -o mode=0700 bpf PATH`.
///
/// # Errors
/// What mount(2) said; `EPERM` without `CAP_SYS_ADMIN`.
pub fn mount(path: &Path) -> io::Result<()> {
    mount_fs(Some("bpf"), path, Some("bpf"), MsFlags::empty(), Some("mode=0700")).map_err(io::Error::from)
}

/// Unmounts a bpffs: `umount PATH`.
///
/// # Errors
/// What umount(2) said; `EBUSY` while somebody is in it.
pub fn unmount(path: &Path) -> io::Result<()> {
    umount(path).map_err(io::Error::from)
}
