//! What keeps a namespace alive without a name and without a process in it: threads, descriptors and sockets of processes
//! outside, and mounts in other mount namespaces. A look at everything `/proc` shows.

use std::{
    collections::{HashMap, HashSet},
    fs::{self, File},
    io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use super::{Group, Sighting, Source, inode_of_link, names, numbers};
use crate::{
    holders::inode_of_fdinfo,
    netns::{PidFd, Way},
};

/// `PROC_DYNAMIC_FIRST` of `fs/proc/generic.c`: inodes of namespaces begin there. Others may have such a number too; who enters
/// sees that they are no namespace.
const FIRST_INODE: u64 = 0xf000_0000;

/// See [`super::held`].
pub(super) fn held(proc: &Path, host: u64) -> io::Result<Vec<Sighting>> {
    let own = std::process::id();
    let mut look = Look { host, ..Look::default() };
    // What is mounted where we are is a name, told as that.
    look.mount_namespaces.extend(fs::read_link(proc.join("thread-self/ns/mnt")).ok().map(|own| (own, ())));
    for pid in numbers(proc)?.into_iter().filter(|&pid| pid != own) {
        let path = proc.join(pid.to_string());
        // One that ended meanwhile, or may not be looked into, holds nothing that can be shown.
        look.threads(&path);
        look.mounts(&path);
        look.descriptors(&path, pid);
    }
    Ok(look.sightings)
}

#[derive(Default)]
struct Look {
    host: u64,
    sightings: Vec<Sighting>,
    /// Sockets that were asked, by their inode.
    asked: HashSet<u64>,
    mount_namespaces: HashMap<PathBuf, ()>,
}

impl Look {
    fn add(&mut self, inode: u64, way: Way, path: &Path) {
        if inode == self.host || self.sightings.iter().any(|seen| seen.inode == inode) {
            return;
        }
        let comm = fs::read(path.join("comm")).unwrap_or_default();
        let name = String::from_utf8_lossy(&comm).trim_end().to_owned();
        let (source, group) = (Source::Held, Group::default());
        self.sightings.push(Sighting { inode, way, source, name, is_main: false, group });
    }

    /// Threads whose process is elsewhere.
    fn threads(&mut self, path: &Path) {
        let Ok(tasks) = numbers(&path.join("task")) else { return };
        if tasks.len() < 2 {
            return;
        }
        let process = inode_of_link(&path.join("ns/net"));
        for task in tasks {
            let way = path.join("task").join(task.to_string()).join("ns/net");
            if let Some(inode) = inode_of_link(&way).filter(|inode| Some(*inode) != process) {
                self.add(inode, Way::Path(way), path);
            }
        }
    }

    /// Mounts in a mount namespace that was not seen yet; the way there is by the process's own root.
    fn mounts(&mut self, path: &Path) {
        let Ok(namespace) = fs::read_link(path.join("ns/mnt")) else { return };
        if self.mount_namespaces.insert(namespace, ()).is_some() {
            return;
        }
        let Ok(table) = fs::read(path.join("mountinfo")) else { return };
        for seen in names::names(&String::from_utf8_lossy(&table), &[]) {
            if let Way::Path(point) = &seen.way {
                let through = path.join("root").join(point.strip_prefix("/").unwrap_or(point));
                self.add(seen.inode, Way::Path(through), path);
            }
        }
    }

    fn descriptors(&mut self, path: &Path, pid: u32) {
        let Ok(fds) = numbers(&path.join("fd")) else { return };
        let process = inode_of_link(&path.join("ns/net"));
        let mut pidfd = None;
        for fd in fds {
            let file = path.join("fd").join(fd.to_string());
            if let Some(inode) = inode_of_link(&file) {
                self.add(inode, Way::Path(file), path);
                continue;
            }
            let Ok(link) = fs::read_link(&file) else { continue };
            let link = link.to_string_lossy();
            // One that was opened by a name is shown by that, or by what is left of it.
            if link.starts_with('/') && !link.starts_with("/dev/") {
                let info = fs::read_to_string(path.join("fdinfo").join(fd.to_string())).unwrap_or_default();
                if let Some(inode) = inode_of_fdinfo(&info).filter(|inode| *inode >= FIRST_INODE) {
                    self.add(inode, Way::Path(file), path);
                }
                continue;
            }
            let socket = link.strip_prefix("socket:[").and_then(|rest| rest.strip_suffix(']')?.parse().ok());
            if socket.is_none() && link != "/dev/net/tun" {
                continue;
            }
            if socket.is_some_and(|socket| !self.asked.insert(socket)) {
                continue;
            }
            let Ok(fd) = i32::try_from(fd) else { continue };
            if pidfd.is_none() {
                pidfd = PidFd::open(pid).ok();
            }
            let netns = pidfd.as_ref().and_then(|pidfd| pidfd.netns_of_socket(fd).ok());
            let Some(Ok(meta)) = netns.map(|netns| File::from(netns).metadata()) else { continue };
            if Some(meta.ino()) != process {
                self.add(meta.ino(), Way::Socket { pid, fd }, path);
            }
        }
    }
}
