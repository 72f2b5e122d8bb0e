//! Where the drop program's maps are pinned: `<pin dir>/drops-v<LAYOUT>/`, by name. Says what is there and checks it.

use std::{
    fs, io,
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
};

use aya::maps::MapType;
use monitor_ebpf::trace::{
    DROPS_LAYOUT, NetnsKey, OTHER_MAP, OTHERS, PLACES, PLACES_MAP, PROGRAMS_MAP, PlaceKey, REASONS,
    REASONS_MAP, ReasonKey, WATCHED, WATCHED_MAP,
};

use super::moves::Move;
use crate::probe::{ProbeError, Shape, bpffs, check_map};

const PREFIX: &str = "drops-v";

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

/// The maps the programs use.
pub(super) const SHARED: [(&str, Shape); 5] = [
    (PROGRAMS_MAP, shape(MapType::ProgramArray, 4, 4, 1, 0)),
    (WATCHED_MAP, shape(MapType::Hash, size_of::<NetnsKey>(), 8, WATCHED, NO_PREALLOC)),
    (PLACES_MAP, shape(MapType::PerCpuHash, size_of::<PlaceKey>(), 8, PLACES, 0)),
    (REASONS_MAP, shape(MapType::PerCpuHash, size_of::<ReasonKey>(), 8, REASONS, 0)),
    (OTHER_MAP, shape(MapType::PerCpuArray, 4, 8, OTHERS, 0)),
];
/// The maps that only user space uses.
const OWN: [(&str, Shape); 2] = [
    (GONE, shape(MapType::Hash, 4, 8, GONE_ENTRIES as usize, NO_PREALLOC)),
    (JOURNAL, shape(MapType::Hash, 4, size_of::<Move>(), 1, NO_PREALLOC)),
];

/// The pins of this layout.
#[derive(Clone, Debug)]
pub(super) struct Pins {
    pub(super) root: PathBuf,
}

impl Pins {
    /// Whether they are there or not.
    pub(super) fn of(pin_dir: &Path) -> Self {
        Self { root: pin_dir.join(format!("{PREFIX}{DROPS_LAYOUT}")) }
    }

    /// Makes the directory. What another layout counted is taken over where its maps are as ours, by giving its directory
    /// our name; any other is detached and dropped, and said.
    pub(super) fn create(pin_dir: &Path) -> Result<Self, ProbeError> {
        let nearest = pin_dir.ancestors().find(|path| path.exists()).unwrap_or(Path::new("/"));
        if !bpffs::is_bpffs(nearest) {
            return Err(ProbeError::NotBpffs { path: pin_dir.to_owned(), mount: nearest.to_owned() });
        }
        let pins = Self::of(pin_dir);
        for root in layouts(pin_dir)?.into_iter().filter(|root| *root != pins.root) {
            let old = Self { root };
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
                        "{}: drops are counted in another layout, this one is removed",
                        old.root.display()
                    );
                    old.wipe()?;
                }
                Err(error) => {
                    log::warn!("{error}; drops counted in another layout cannot be read, and start anew");
                    old.wipe()?;
                }
            }
        }
        if let Err(error) = pins.check() {
            log::warn!("{error}; what is pinned here cannot be used: drops are counted anew");
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
        SHARED.iter().chain(&OWN).all(|(name, _)| self.path(name).exists())
    }

    /// Checks the maps that are there.
    pub(super) fn check(&self) -> Result<(), ProbeError> {
        let there = SHARED.iter().chain(&OWN).map(|(name, shape)| (self.path(name), *shape));
        there.filter(|(path, _)| path.exists()).try_for_each(|(path, shape)| check_map(&path, shape))
    }

    /// Unpins the link, which detaches the program.
    pub(super) fn detach(&self) -> Result<(), ProbeError> {
        [LINK, PROGRAM].into_iter().try_for_each(|name| match fs::remove_file(self.path(name)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(ProbeError::new("unpin", self.path(name).display(), &error))
            }
            _ => Ok(()),
        })
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
pub(super) fn remove_all(pin_dir: &Path) -> Result<(), ProbeError> {
    layouts(pin_dir)?.into_iter().try_for_each(|root| Pins { root }.wipe())
}

/// The directories of all layouts.
fn layouts(pin_dir: &Path) -> Result<Vec<PathBuf>, ProbeError> {
    let wrong = |error: &io::Error| ProbeError::new("list", pin_dir.display(), error);
    let entries = match fs::read_dir(pin_dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(wrong(&error)),
    };
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry.map_err(|error| wrong(&error))?;
        if entry.file_name().to_string_lossy().starts_with(PREFIX) {
            found.push(entry.path());
        }
    }
    Ok(found)
}
