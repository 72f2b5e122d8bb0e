//! Which network namespaces there are on this host, whoever made them: by names, by processes and containers, and by what
//! else keeps one alive. Looks and changes nothing; nothing stays open.
//!
//! A sighting is a hint: it says that there is, or was a moment ago, a namespace with that inode, and a way into it. Who it
//! is, its cookie tells, which the one who enters it asks for.

pub mod cgroup;
pub mod choice;
mod deep;
pub mod ear;
pub mod engines;
pub mod label;
mod names;
pub mod netlink;
mod processes;

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use crate::netns::Way;

pub use self::{
    cgroup::{Container, Group},
    processes::Processes,
};

/// Where namespaces are looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Source {
    /// A file in a directory of names: `ip netns`.
    Named,
    /// A mount of it elsewhere, of a container engine for example.
    Mount,
    /// A process in it.
    Process,
    /// An open descriptor of it, or a socket in it, of a process outside; a thread whose process is outside.
    Held,
}

/// Every source with its name in the file and in labels, and what a look there costs.
pub const SOURCES: &[(Source, &str, &str)] = &[
    (Source::Named, "named", "one read of /proc/self/mountinfo on each change of mounts"),
    (Source::Mount, "mount", "nothing beside `named`"),
    (Source::Process, "process", "one readlink for each process, as often as takes 1/400 of a core"),
    (Source::Held, "held", "a look at every descriptor of every process, as seldom as takes 1/400 of a core"),
];

impl Source {
    /// Its name.
    pub fn name(self) -> &'static str {
        SOURCES.iter().find(|(source, ..)| *source == self).map_or("", |(_, name, _)| name)
    }
}

/// Where to look.
#[derive(Clone, Debug)]
pub struct Scope {
    /// Directories of names, the one that names are made in first.
    pub netns_dirs: Vec<PathBuf>,
    /// Sources to use.
    pub sources: Vec<Source>,
}

impl Scope {
    /// Whether a source is looked at.
    pub fn has(&self, source: Source) -> bool {
        self.sources.contains(&source)
    }
}

/// What was seen of one namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sighting {
    /// Its inode.
    pub inode: u64,
    /// A way into it.
    pub way: Way,
    /// By which source.
    pub source: Source,
    /// Its name there: of a file in the first directory of names, otherwise the path; of a process its own name.
    pub name: String,
    /// Whether the name is one of the first directory of names.
    pub is_main: bool,
    /// What the process belongs to.
    pub group: Group,
}

/// How long looks took, and when the next is due: never more than a share of one core.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    least: Duration,
    share: u32,
    next: Instant,
}

impl Pace {
    /// Due at once; then at least every `least`, and `share` times as long after as it took.
    pub fn new(least: Duration, share: u32) -> Self {
        Self { least, share, next: Instant::now() }
    }

    /// Whether it is time.
    pub fn is_due(&self) -> bool {
        Instant::now() >= self.next
    }

    /// Until then.
    pub fn wait(&self) -> Duration {
        self.next.saturating_duration_since(Instant::now())
    }

    /// It was done, and took so long.
    pub fn done(&mut self, took: Duration) {
        self.next = Instant::now() + self.least.max(took * self.share);
    }

    /// It shall be done at the next opportunity.
    pub fn now(&mut self) {
        self.next = Instant::now();
    }
}

/// Everything seen by names: files in the directories of names, and mounts elsewhere.
///
/// # Errors
/// There is no `/proc`.
pub fn named(scope: &Scope) -> io::Result<Vec<Sighting>> {
    let text = fs::read("/proc/thread-self/mountinfo")?;
    let dirs: Vec<PathBuf> =
        scope.netns_dirs.iter().map(|dir| fs::canonicalize(dir).unwrap_or_else(|_| dir.clone())).collect();
    let mut seen = names::names(&String::from_utf8_lossy(&text), &dirs);
    seen.retain(|sighting| scope.has(sighting.source));
    Ok(seen)
}

/// Everything kept alive by something that is no name and no process's own namespace. Takes long on a large host.
///
/// # Errors
/// There is no `/proc`.
pub fn held(host: u64) -> io::Result<Vec<Sighting>> {
    deep::held(Path::new("/proc"), host)
}

/// All sightings of one namespace together, by inode.
pub fn by_inode(sightings: impl IntoIterator<Item = Sighting>) -> BTreeMap<u64, Vec<Sighting>> {
    let mut grouped: BTreeMap<u64, Vec<Sighting>> = BTreeMap::new();
    for sighting in sightings {
        grouped.entry(sighting.inode).or_default().push(sighting);
    }
    for sightings in grouped.values_mut() {
        sightings.sort_by(|a, b| (a.source, !a.is_main, &a.way).cmp(&(b.source, !b.is_main, &b.way)));
        sightings.dedup_by(|later, first| later.way == first.way);
    }
    grouped
}

/// The entries of a directory of `/proc` that are numbers.
fn numbers(path: &Path) -> io::Result<Vec<u32>> {
    let entries = fs::read_dir(path)?;
    Ok(entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect())
}

/// The inode of the namespace that a link like `/proc/PID/ns/net` names, without opening it.
fn inode_of_link(path: &Path) -> Option<u64> {
    let link = fs::read_link(path).ok()?;
    link.to_str()?.strip_prefix("net:[")?.strip_suffix(']')?.parse().ok()
}
