//! Where an opt-in object is pinned: `<pin dir>/<name>-v<LAYOUT>/` with its maps by name and `links/<slot>-<hook>`. Says
//! what is there and checks it.

use std::{
    fs, io,
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
};

use aya::maps::{Map, MapData, MapError, MapInfo};

use crate::probe::{Hook, ProbeError, Shape, bpffs, check_map};

const LINKS: &str = "links";

/// An object and its maps.
#[derive(Clone, Debug)]
pub(super) struct Layout {
    pub(super) name: &'static str,
    pub(super) version: u32,
    pub(super) object: &'static [u8],
    pub(super) maps: Vec<(&'static str, Shape)>,
}

/// Its pins.
#[derive(Clone, Debug)]
pub(super) struct Pins {
    root: PathBuf,
}

impl Pins {
    /// Whether they are there or not.
    pub(super) fn of(layout: &Layout, pin_dir: &Path) -> Self {
        Self { root: pin_dir.join(format!("{}-v{}", layout.name, layout.version)) }
    }

    /// Makes the directories. What is pinned in another layout, or with maps of another shape, is detached and dropped.
    pub(super) fn create(layout: &Layout, pin_dir: &Path) -> Result<Self, ProbeError> {
        let nearest = pin_dir.ancestors().find(|path| path.exists()).unwrap_or(Path::new("/"));
        if !bpffs::is_bpffs(nearest) {
            return Err(ProbeError::NotBpffs { path: pin_dir.to_owned(), mount: nearest.to_owned() });
        }
        let pins = Self::of(layout, pin_dir);
        for root in layouts(layout.name, pin_dir)?.into_iter().filter(|root| *root != pins.root) {
            log::info!("{} is of another layout: it is removed and counted anew", root.display());
            Self { root }.wipe()?;
        }
        if let Err(error) = pins.check(layout) {
            log::info!("{error}: it is removed and counted anew");
            pins.wipe()?;
        }
        let links = pins.root.join(LINKS);
        let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(&links);
        made.map_err(|error| ProbeError::new("mkdir", links.display(), &error))?;
        Ok(pins)
    }

    pub(super) fn map(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    pub(super) fn link(&self, slot: u64, hook: Hook) -> PathBuf {
        self.root.join(LINKS).join(format!("{slot}-{}", hook.program()))
    }

    /// Whether all the maps are there.
    pub(super) fn is_complete(&self, layout: &Layout) -> bool {
        layout.maps.iter().all(|(name, _)| self.map(name).exists())
    }

    /// Checks the maps that are there.
    pub(super) fn check(&self, layout: &Layout) -> Result<(), ProbeError> {
        let there = layout.maps.iter().map(|(name, shape)| (self.map(name), *shape));
        there.filter(|(path, _)| path.exists()).try_for_each(|(path, shape)| check_map(&path, shape))
    }

    /// Opens a pinned map that was checked.
    pub(super) fn open<M: TryFrom<Map, Error = MapError>>(&self, name: &str) -> Result<M, ProbeError> {
        let path = self.map(name);
        MapData::from_pin(&path)
            .and_then(Map::from_map_data)
            .and_then(M::try_from)
            .map_err(|error| ProbeError::new("open the pinned map", path.display(), &error))
    }

    /// How many entries a pinned map has room for.
    pub(super) fn entries(&self, name: &str) -> Result<u32, ProbeError> {
        let path = self.map(name);
        let info = MapInfo::from_pin(&path);
        let info = info.map_err(|error| ProbeError::new("open the pinned map", path.display(), &error))?;
        Ok(info.max_entries())
    }

    /// Unpins the links of a slot; what is not there is fine.
    pub(super) fn remove_links(&self, slot: u64) -> Result<(), ProbeError> {
        Hook::BOTH.into_iter().try_for_each(|hook| remove(&self.link(slot, hook)))
    }

    /// Unpins links of slots that no record claims: left by an agent killed in between.
    pub(super) fn remove_unclaimed(&self, claimed: impl Fn(u64) -> bool) -> Result<(), ProbeError> {
        for path in entries(&self.root.join(LINKS))? {
            let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
            let slot = name.split('-').next().and_then(|slot| slot.parse().ok());
            if !slot.is_some_and(&claimed) {
                remove(&path)?;
            }
        }
        Ok(())
    }

    fn wipe(&self) -> Result<(), ProbeError> {
        match fs::remove_dir_all(&self.root) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(ProbeError::new("unpin", self.root.display(), &error))
            }
            _ => Ok(()),
        }
    }
}

/// Unpins every layout of an object: its programs are detached, its counts lost. What is not there is fine.
pub(super) fn remove_all(name: &str, pin_dir: &Path) -> Result<(), ProbeError> {
    layouts(name, pin_dir)?.into_iter().try_for_each(|root| Pins { root }.wipe())
}

fn layouts(name: &str, pin_dir: &Path) -> Result<Vec<PathBuf>, ProbeError> {
    let prefix = format!("{name}-v");
    let mut found = entries(pin_dir)?;
    found.retain(|path| path.file_name().is_some_and(|file| file.to_string_lossy().starts_with(&prefix)));
    Ok(found)
}

fn entries(directory: &Path) -> Result<Vec<PathBuf>, ProbeError> {
    let wrong = |error: &io::Error| ProbeError::new("list", directory.display(), error);
    match fs::read_dir(directory) {
        Ok(entries) => entries
            .map(|entry| entry.map(|entry| entry.path()))
            .collect::<Result<_, _>>()
            .map_err(|error| wrong(&error)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(wrong(&error)),
    }
}

fn remove(path: &Path) -> Result<(), ProbeError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(ProbeError::new("unpin", path.display(), &error))
        }
        _ => Ok(()),
    }
}
