//! Where things are pinned: `<pin dir>/v<LAYOUT>/` with the maps by name, `chunks/<number>`, `own/<slot>`, and
//! `links/<slot>-<hook>`. (A bpffs allows no dot in names.) Says what is pinned and checks it; decides nothing.

use std::{
    fs, io,
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
};

use aya::maps::{MapInfo, MapType};
use monitor_ebpf::{CHUNK_SLOTS, CHUNKS, CHUNKS_MAP, Counters, LAYOUT};

use super::{
    Hook, ProbeError,
    abi::{JournalRecord, SlotRecord, TotalRecord},
    bpffs,
};

/// The pins of one layout.
#[derive(Clone, Debug)]
pub(super) struct Pins {
    root: PathBuf,
}

/// What a map must be to be used. aya takes any pinned map of a name, and a larger value than expected overruns memory.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Shape {
    pub(crate) kind: MapType,
    pub(crate) key: u32,
    pub(crate) value: u32,
    pub(crate) entries: u32,
    pub(crate) flags: u32,
}

/// `BPF_F_NO_PREALLOC`: memory follows the entries. Only user space inserts.
pub(super) const NO_PREALLOC: u32 = 1;
/// Entries of the maps that only user space reads.
pub(super) const RECORDS: u32 = 65_536;

pub(super) const SLOTS: &str = "slots";
pub(super) const TOTALS: &str = "totals";
pub(super) const JOURNAL: &str = "journal";

const DIRECTORIES: [&str; 3] = ["chunks", "own", "links"];

impl Shape {
    const fn records(key: u32, value: usize, entries: u32) -> Self {
        Self { kind: MapType::Hash, key, value: value as u32, entries, flags: NO_PREALLOC }
    }

    const fn counters(entries: u32) -> Self {
        Self { kind: MapType::PerCpuArray, key: 4, value: size_of::<Counters>() as u32, entries, flags: 0 }
    }

    pub(super) const CHUNK: Self = Self::counters(CHUNK_SLOTS);
    pub(super) const OWN: Self = Self::counters(1);
    const MAPS: [(&str, Self); 4] = [
        (CHUNKS_MAP, Self { kind: MapType::ArrayOfMaps, key: 4, value: 4, entries: CHUNKS, flags: 0 }),
        (SLOTS, Self::records(8, size_of::<SlotRecord>(), RECORDS)),
        (TOTALS, Self::records(8, size_of::<TotalRecord>(), RECORDS)),
        (JOURNAL, Self::records(4, size_of::<JournalRecord>(), 1)),
    ];
}

impl Pins {
    /// The pins of this build's layout, their directories made where missing.
    pub(super) fn create(pin_dir: &Path) -> Result<Self, ProbeError> {
        let nearest = pin_dir.ancestors().find(|path| path.exists()).unwrap_or(Path::new("/"));
        if !bpffs::is_bpffs(nearest) {
            return Err(ProbeError::NotBpffs { path: pin_dir.to_owned(), mount: nearest.to_owned() });
        }
        let pins = Self::of(pin_dir, LAYOUT);
        for directory in DIRECTORIES {
            let path = pins.root.join(directory);
            fs::DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(&path)
                .map_err(|error| ProbeError::new("mkdir", path.display(), &error))?;
        }
        Ok(pins)
    }

    /// The pins of a layout, whether they are there or not.
    pub(super) fn of(pin_dir: &Path, layout: u32) -> Self {
        Self { root: pin_dir.join(format!("v{layout}")) }
    }

    /// The other layouts that have a directory here.
    pub(super) fn other_layouts(pin_dir: &Path) -> Result<Vec<u32>, ProbeError> {
        let names = names(pin_dir)?;
        let layouts = names.iter().filter_map(|name| name.strip_prefix('v')?.parse().ok());
        Ok(layouts.filter(|&layout| layout != LAYOUT).collect())
    }

    pub(super) fn map(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    pub(super) fn chunk(&self, number: u32) -> PathBuf {
        self.root.join("chunks").join(number.to_string())
    }

    pub(super) fn own(&self, slot: u64) -> PathBuf {
        self.root.join("own").join(slot.to_string())
    }

    pub(super) fn link(&self, slot: u64, hook: Hook) -> PathBuf {
        self.root.join("links").join(format!("{slot}-{}", hook.program()))
    }

    /// Numbers of the pinned chunks.
    pub(super) fn chunks(&self) -> Result<Vec<u32>, ProbeError> {
        Ok(names(&self.root.join("chunks"))?.iter().filter_map(|name| name.parse().ok()).collect())
    }

    /// Checks every pinned map that has a fixed name; those not pinned yet are fine.
    pub(super) fn check(&self) -> Result<(), ProbeError> {
        for (name, shape) in Shape::MAPS {
            let path = self.map(name);
            if path.exists() {
                check(&path, shape)?;
            }
        }
        for chunk in self.chunks()? {
            check(&self.chunk(chunk), Shape::CHUNK)?;
        }
        for own in names(&self.root.join("own"))? {
            check(&self.root.join("own").join(own), Shape::OWN)?;
        }
        Ok(())
    }

    /// Whether anything has been pinned here.
    pub(super) fn in_use(&self) -> bool {
        self.map(SLOTS).exists()
    }

    /// Unpins what belongs to a slot; what is not there is fine.
    pub(super) fn remove_slot(&self, slot: u64) -> Result<(), ProbeError> {
        for hook in Hook::BOTH {
            remove(&self.link(slot, hook))?;
        }
        remove(&self.own(slot))
    }

    /// Unpins links and own maps of slots that no record claims: left by an agent killed in between.
    pub(super) fn remove_unclaimed(&self, claimed: impl Fn(u64) -> bool) -> Result<(), ProbeError> {
        for directory in ["links", "own"] {
            for name in names(&self.root.join(directory))? {
                let slot = name.split('-').next().and_then(|slot| slot.parse().ok());
                if !slot.is_some_and(&claimed) {
                    remove(&self.root.join(directory).join(name))?;
                }
            }
        }
        Ok(())
    }

    /// Unpins everything of this layout and removes its directories.
    pub(super) fn wipe(&self) -> Result<(), ProbeError> {
        match fs::remove_dir_all(&self.root) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(ProbeError::new("unpin", self.root.display(), &error))
            }
            _ => Ok(()),
        }
    }
}

/// Checks a pinned map.
pub(crate) fn check(path: &Path, shape: Shape) -> Result<(), ProbeError> {
    let info = MapInfo::from_pin(path)
        .map_err(|error| ProbeError::new("open the pinned map", path.display(), &error))?;
    let kind = info.map_type().map_err(|error| ProbeError::new("read the type", path.display(), &error))?;
    let found = Shape {
        kind,
        key: info.key_size(),
        value: info.value_size(),
        entries: info.max_entries(),
        flags: info.map_flags(),
    };
    match found == shape {
        true => Ok(()),
        false => Err(ProbeError::Layout {
            path: path.to_owned(),
            why: format!("the pinned map is {found:?}, and {shape:?} was expected"),
        }),
    }
}

/// Unpins a file, if it is there.
pub(super) fn remove(path: &Path) -> Result<(), ProbeError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(ProbeError::new("unpin", path.display(), &error))
        }
        _ => Ok(()),
    }
}

/// Names in a directory; none where there is no such directory.
fn names(path: &Path) -> Result<Vec<String>, ProbeError> {
    let wrong = |error: &io::Error| ProbeError::new("list", path.display(), error);
    let entries = match fs::read_dir(path) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(wrong(&error)),
    };
    entries
        .map(|entry| entry.map(|entry| entry.file_name().to_string_lossy().into_owned()))
        .collect::<Result<_, _>>()
        .map_err(|error| wrong(&error))
}
