//! Processes: one readlink for each tells whose namespace it is in. What a process belongs to is read once.

use std::{
    collections::{HashMap, HashSet},
    fs, io,
    path::{Path, PathBuf},
};

use super::{Group, Sighting, Source, cgroup::group, inode_of_link, numbers};
use crate::netns::Way;

/// What is known of processes from the look before.
#[derive(Debug, Default)]
pub struct Processes {
    known: HashMap<(u32, u64), (String, Group)>,
}

impl Processes {
    /// The namespaces of all processes but this one and but that with the inode `host`: a sighting for the first process of
    /// each group of processes in each.
    ///
    /// # Errors
    /// There is no `/proc`.
    pub fn look(&mut self, host: u64) -> io::Result<Vec<Sighting>> {
        let own = std::process::id();
        let mut pids = numbers(Path::new("/proc"))?;
        pids.sort_unstable();
        let mut sightings: Vec<Sighting> = Vec::new();
        let mut alive = HashSet::new();
        for pid in pids.into_iter().filter(|&pid| pid != own) {
            let path = PathBuf::from(format!("/proc/{pid}/ns/net"));
            let Some(inode) = inode_of_link(&path).filter(|&inode| inode != host) else { continue };
            alive.insert((pid, inode));
            let (name, group) = self.known.entry((pid, inode)).or_insert_with(|| what(pid)).clone();
            let same = |seen: &Sighting| seen.inode == inode && seen.group == group;
            if !sightings.iter().rev().any(same) {
                let (way, source) = (Way::Path(path), Source::Process);
                sightings.push(Sighting { inode, way, source, name, is_main: false, group });
            }
        }
        self.known.retain(|key, _| alive.contains(key));
        Ok(sightings)
    }

    /// Processes may have moved to other groups: everything is read again.
    pub fn forget(&mut self) {
        self.known.clear();
    }
}

/// Name and group of a process.
fn what(pid: u32) -> (String, Group) {
    // The first namespace of all, where kernel threads are: it has no name that says more.
    if pid <= 2 {
        return ("init".to_owned(), Group::default());
    }
    let text = |file: &str| fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default();
    let (comm, cgroup) = (text("comm"), text("cgroup"));
    (String::from_utf8_lossy(&comm).trim_end().to_owned(), group(&String::from_utf8_lossy(&cgroup)))
}
