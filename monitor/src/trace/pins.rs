//! Where the maps of tracing programs are pinned: `<pin dir>/drops-v<LAYOUT>/` and `tcp-v<LAYOUT>/`, by name. Says what is
//! there and checks it.

use std::{
    fs, io,
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
};

use aya::maps::MapType;
use monitor_ebpf::{
    health::{CONNECTING, CONNECTING_MAP, COUNTS_MAP, TCP_LAYOUT, TRACEPOINTS, TcpCounts, UNWATCHED_MAP},
    trace::{
        DROPS_LAYOUT, NetnsKey, OTHER_MAP, OTHERS, PLACES, PLACES_MAP, PROGRAMS_MAP, PlaceKey, REASONS,
        REASONS_MAP, ReasonKey, WATCHED, WATCHED_MAP,
    },
};

use super::{moves::Move, tcp};
use crate::probe::{ProbeError, Shape, bpffs, check_map};

pub(super) const GONE: &str = "gone";
pub(super) const JOURNAL: &str = "journal";
/// The link that keeps the program attached, and the program, of which the kernel says how often it was skipped.
pub(super) const LINK: &str = "link";
pub(super) const PROGRAM: &str = "program";

/// `BPF_F_NO_PREALLOC`: memory follows the entries. Only for maps that user space alone inserts into.
pub(super) const NO_PREALLOC: u32 = 1;
/// Reasons that totals are kept of.
pub(super) const GONE_ENTRIES: u32 = 65_536;

const fn shape(kind: MapType, key: usize, value: usize, entries: usize, flags: u32) -> Shape {
    Shape { kind, key: key as u32, value: value as u32, entries: entries as u32, flags }
}

/// What is pinned of one object.
#[derive(Debug)]
pub(super) struct Layout {
    /// What it counts.
    what: &'static str,
    /// What its directories begin with.
    prefix: &'static str,
    version: u32,
    /// The maps the programs use.
    shared: &'static [(&'static str, Shape)],
    /// The maps that only user space uses.
    own: &'static [(&'static str, Shape)],
}

/// Drops.
pub(super) static DROPS: Layout = Layout {
    what: "drops",
    prefix: "drops-v",
    version: DROPS_LAYOUT,
    shared: &[
        (PROGRAMS_MAP, shape(MapType::ProgramArray, 4, 4, 1, 0)),
        (WATCHED_MAP, shape(MapType::Hash, size_of::<NetnsKey>(), 8, WATCHED, NO_PREALLOC)),
        (PLACES_MAP, shape(MapType::PerCpuHash, size_of::<PlaceKey>(), 8, PLACES, 0)),
        (REASONS_MAP, shape(MapType::PerCpuHash, size_of::<ReasonKey>(), 8, REASONS, 0)),
        (OTHER_MAP, shape(MapType::PerCpuArray, 4, 8, OTHERS, 0)),
    ],
    own: &[
        (GONE, shape(MapType::Hash, 4, 8, GONE_ENTRIES as usize, NO_PREALLOC)),
        (JOURNAL, shape(MapType::Hash, 4, size_of::<Move>(), 1, NO_PREALLOC)),
    ],
};

/// What TCP meets with.
pub(super) static TCP: Layout = Layout {
    what: "TCP",
    prefix: "tcp-v",
    version: TCP_LAYOUT,
    shared: &[
        (PROGRAMS_MAP, shape(MapType::ProgramArray, 4, 4, TRACEPOINTS.len(), 0)),
        (WATCHED_MAP, shape(MapType::Hash, size_of::<NetnsKey>(), 8, WATCHED, NO_PREALLOC)),
        (COUNTS_MAP, shape(MapType::PerCpuHash, 8, size_of::<TcpCounts>(), WATCHED, NO_PREALLOC)),
        (UNWATCHED_MAP, shape(MapType::PerCpuArray, 4, size_of::<TcpCounts>(), 1, 0)),
        (CONNECTING_MAP, shape(MapType::Hash, 8, 8, CONNECTING, 0)),
    ],
    own: &[
        (GONE, shape(MapType::Hash, 4, size_of::<TcpCounts>(), 1, NO_PREALLOC)),
        (JOURNAL, shape(MapType::Hash, 4, size_of::<tcp::Move>(), 1, NO_PREALLOC)),
    ],
};

/// The pins of this layout.
#[derive(Clone, Debug)]
pub(super) struct Pins {
    pub(super) root: PathBuf,
    layout: &'static Layout,
}

impl Pins {
    /// Whether they are there or not.
    pub(super) fn of(layout: &'static Layout, pin_dir: &Path) -> Self {
        Self { root: pin_dir.join(format!("{}{}", layout.prefix, layout.version)), layout }
    }

    /// Makes the directory. What another layout counted is taken over where its maps are as ours, by giving its directory
    /// our name; any other is detached and dropped, and said.
    pub(super) fn create(layout: &'static Layout, pin_dir: &Path) -> Result<Self, ProbeError> {
        let nearest = pin_dir.ancestors().find(|path| path.exists()).unwrap_or(Path::new("/"));
        if !bpffs::is_bpffs(nearest) {
            return Err(ProbeError::NotBpffs { path: pin_dir.to_owned(), mount: nearest.to_owned() });
        }
        let pins = Self::of(layout, pin_dir);
        let what = layout.what;
        for root in roots(layout, pin_dir)?.into_iter().filter(|root| *root != pins.root) {
            let old = Self { root, layout };
            match old.check() {
                Ok(()) if !pins.root.exists() => {
                    log::info!("taking over {}", old.root.display());
                    fs::rename(&old.root, &pins.root)
                        .map_err(|error| ProbeError::new("rename", old.root.display(), &error))?;
                    // Its program is not ours, and its link cannot be given ours.
                    pins.detach()?;
                }
                Ok(()) => {
                    log::warn!(
                        "{}: {what} is counted in another layout, this one is removed",
                        old.root.display()
                    );
                    old.wipe()?;
                }
                Err(error) => {
                    log::warn!("{error}; {what} counted in another layout cannot be read, and starts anew");
                    old.wipe()?;
                }
            }
        }
        if let Err(error) = pins.check() {
            log::warn!("{error}; what is pinned here cannot be used: {what} is counted anew");
            pins.wipe()?;
        }
        let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(&pins.root);
        made.map_err(|error| ProbeError::new("mkdir", pins.root.display(), &error))?;
        Ok(pins)
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    /// Whether all the maps are there.
    pub(super) fn is_complete(&self) -> bool {
        self.maps().all(|(name, _)| self.path(name).exists())
    }

    /// Checks the maps that are there.
    pub(super) fn check(&self) -> Result<(), ProbeError> {
        let there = self.maps().map(|(name, shape)| (self.path(name), *shape));
        there.filter(|(path, _)| path.exists()).try_for_each(|(path, shape)| check_map(&path, shape))
    }

    /// Names of the maps the programs use.
    pub(super) fn shared(&self) -> impl Iterator<Item = &'static str> {
        self.layout.shared.iter().map(|(name, _)| *name)
    }

    fn maps(&self) -> impl Iterator<Item = &'static (&'static str, Shape)> {
        self.layout.shared.iter().chain(self.layout.own)
    }

    /// Makes sure that a name is free.
    pub(super) fn fresh(&self, name: &str) -> Result<(), ProbeError> {
        match fs::remove_file(self.path(name)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(ProbeError::new("unpin", self.path(name).display(), &error))
            }
            _ => Ok(()),
        }
    }

    /// Unpins everything but the maps: links, which detaches the programs.
    pub(super) fn detach(&self) -> Result<(), ProbeError> {
        let wrong = |path: &Path, error: &io::Error| ProbeError::new("unpin", path.display(), error);
        let entries = match fs::read_dir(&self.root) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            entries => entries.map_err(|error| wrong(&self.root, &error))?,
        };
        for entry in entries {
            let entry = entry.map_err(|error| wrong(&self.root, &error))?;
            if !self.maps().any(|(name, _)| entry.file_name() == *name) {
                fs::remove_file(entry.path()).map_err(|error| wrong(&entry.path(), &error))?;
            }
        }
        Ok(())
    }

    pub(super) fn wipe(&self) -> Result<(), ProbeError> {
        match fs::remove_dir_all(&self.root) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(ProbeError::new("unpin", self.root.display(), &error))
            }
            _ => Ok(()),
        }
    }
}

/// See [`super::remove`].
pub(super) fn remove(layout: &'static Layout, pin_dir: &Path) -> Result<(), ProbeError> {
    roots(layout, pin_dir)?.into_iter().try_for_each(|root| Pins { root, layout }.wipe())
}

/// The directories of all versions of a layout.
fn roots(layout: &Layout, pin_dir: &Path) -> Result<Vec<PathBuf>, ProbeError> {
    let wrong = |error: &io::Error| ProbeError::new("list", pin_dir.display(), error);
    let entries = match fs::read_dir(pin_dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(wrong(&error)),
    };
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry.map_err(|error| wrong(&error))?;
        if entry.file_name().to_string_lossy().starts_with(layout.prefix) {
            found.push(entry.path());
        }
    }
    Ok(found)
}
