//! The drop program: loading it around the maps that are pinned, attaching it once, and saying which namespaces it watches.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use aya::{
    Ebpf,
    maps::{MapData, MapError, PerCpuArray, PerCpuValues, ProgramArray},
    programs::{ProgramFd, links::FdLink},
    util::nr_cpus,
};
use monitor_ebpf::trace::{
    DROPPED, KFREE_SKB, OTHER_MAP, PLACES_MAP, REASONS_MAP, REST, ReasonKey, WATCHED_MAP,
};

use super::{
    Btf, DropReadings, Kernel, Reasons as Names, TraceError,
    moves::{Move, Moves, Places, Reasons, Wire},
    object::{self, map, missed, pinned},
    pins::{DROPS, LINK, PROGRAM, Pins},
    read::{self, Entries},
    watched::{Counted, Known, Rows, Watching, numbers},
};
use crate::{
    probe::{self, ProbeError},
    topology::names::Cookie,
};

/// `BPF_NOEXIST`.
const NO_EXIST: u64 = 1;

/// The program, and what it counted.
pub struct Drops {
    watching: Watching<Tables>,
    names: Names,
    pins: Option<Pins>,
    /// Without pins, what keeps the program attached.
    _link: Option<FdLink>,
    _ebpf: Ebpf,
}

struct Tables {
    watched: Rows,
    places: Places,
    reasons: Reasons,
    other: PerCpuArray<MapData, u64>,
    moves: Moves,
    program: Option<ProgramFd>,
    _programs: Option<ProgramArray<MapData>>,
}

impl Drops {
    /// Loads the program, adopts what is pinned (counting goes on without a gap), or attaches it. Watches the host's
    /// namespace, whose identity is given.
    ///
    /// # Errors
    /// The kernel lacks something or refused.
    pub fn open(btf: &Btf, pin_dir: Option<&Path>, host: (Cookie, u64)) -> Result<Self, TraceError> {
        let kernel = Kernel::of(btf)?;
        let pins = pin_dir.map(|dir| Pins::create(&DROPS, dir)).transpose()?;
        let adopting = pins.as_ref().is_some_and(|pins| pins.is_complete() && pins.path(LINK).exists());
        if let Some(pins) = pins.as_ref().filter(|_| !adopting) {
            // A program left without one of its maps would count into nothing.
            pins.detach()?;
        }
        let mut ebpf = object::load(probe::object::DROPS, "drops", &kernel.globals, pins.as_ref())?;
        let mut tables = Tables {
            watched: map(&mut ebpf, WATCHED_MAP)?,
            places: map(&mut ebpf, PLACES_MAP)?,
            reasons: map(&mut ebpf, REASONS_MAP)?,
            other: map(&mut ebpf, OTHER_MAP)?,
            moves: Moves::open(pins.as_ref())?,
            program: None,
            _programs: None,
        };
        let Tables { moves, places, reasons, .. } = &mut tables;
        moves.redo(places, reasons)?;
        tables._programs = Some(object::put(&mut ebpf, &[(0, DROPPED)])?);
        let link = match &pins {
            Some(_) if adopting => None,
            pins => object::attach(&mut ebpf, KFREE_SKB, pins.as_ref().map(|pins| (pins, PROGRAM, LINK)))?,
        };
        tables.program = object::attached(&mut ebpf, KFREE_SKB, pins.as_ref().map(|pins| (pins, PROGRAM)));
        let known = tables.known()?;
        Ok(Self {
            watching: Watching::new(tables, known, kernel.has_cookie(), host)?,
            names: kernel.reasons().clone(),
            pins,
            _link: link,
            _ebpf: ebpf,
        })
    }

    /// Watches these namespaces (cookie, inode) from now on, and moves the counts of those that are neither among them nor
    /// in `alive` to the total of what is gone. Where nothing has changed this asks nothing of the kernel.
    ///
    /// # Errors
    /// The first thing the kernel refused; what was not done is done by the next call.
    pub fn watch(
        &self,
        namespaces: &BTreeMap<Cookie, u64>,
        alive: &BTreeSet<Cookie>,
    ) -> Result<(), ProbeError> {
        self.watching.watch(namespaces, alive)
    }

    /// Everything counted: the scrape path.
    ///
    /// # Errors
    /// A map could not be read.
    pub fn read(&self) -> Result<DropReadings, ProbeError> {
        self.watching.tables().readings(&self.names, Some(self.watching.host()))
    }

    /// Detaches and unpins everything. All counts are lost.
    ///
    /// # Errors
    /// The kernel refused.
    pub fn remove(&self) -> Result<(), ProbeError> {
        self.pins.as_ref().map_or(Ok(()), Pins::wipe)
    }
}

impl Tables {
    /// Everything pinned below a directory, opened to be read.
    fn pinned(pins: &Pins) -> Result<Self, ProbeError> {
        Ok(Self {
            watched: pinned(pins, WATCHED_MAP)?,
            places: pinned(pins, PLACES_MAP)?,
            reasons: pinned(pins, REASONS_MAP)?,
            other: pinned(pins, OTHER_MAP)?,
            moves: Moves::open(Some(pins))?,
            program: object::pinned_program(pins, PROGRAM),
            _programs: None,
        })
    }

    /// All numbers that something is counted under.
    fn known(&self) -> Result<Known, ProbeError> {
        let Entries { places, reasons } = Entries::read(&self.places, &self.reasons)?;
        let counted = places.keys().map(|key| key.netns).chain(reasons.keys().map(|key| key.netns));
        let mut known: Known = counted.map(|number| (number, None)).collect();
        known.extend(numbers(&self.watched)?.into_iter().map(|(number, key)| (number, Some(key))));
        Ok(known)
    }

    fn readings(&self, names: &Names, host: Option<Cookie>) -> Result<DropReadings, ProbeError> {
        let watched = numbers(&self.watched)?.into_keys();
        Ok(DropReadings {
            namespaces: Entries::read(&self.places, &self.reasons)?.named(watched, names),
            host,
            other: read::other(&self.other, names)?,
            gone: read::gone(&self.moves.gone, names)?,
            missed: self.program.as_ref().and_then(missed).unwrap_or(0),
        })
    }
}

impl Counted for Tables {
    fn rows(&mut self) -> &mut Rows {
        &mut self.watched
    }

    fn begin(&mut self, number: u64) -> Result<(), ProbeError> {
        let cpus = nr_cpus().map_err(|(path, error)| ProbeError::new("read", path, &error))?;
        let zero = PerCpuValues::try_from(vec![0_u64; cpus])
            .map_err(|error| ProbeError::new("write", REASONS_MAP, &error))?;
        let rest = Wire(ReasonKey { netns: number, reason: REST, reserved: 0 });
        match self.reasons.insert(rest, zero, NO_EXIST) {
            Ok(()) => {}
            Err(MapError::SyscallError(error)) if error.io_error.raw_os_error() == Some(libc::EEXIST) => {}
            // The table is full: what does not fit counts among the others.
            Err(error) => log::debug!("no room for the rest of namespace {number}: {error}"),
        }
        Ok(())
    }

    fn fold(&mut self, dead: &BTreeSet<u64>) -> Result<(), ProbeError> {
        let Self { places, reasons, moves, .. } = self;
        let entries = Entries::read(places, reasons)?;
        let by_place = entries.places.into_iter().map(|(key, count)| {
            (
                Move {
                    netns: key.netns,
                    location: key.location,
                    reason: key.reason,
                    table: Move::BY_PLACE,
                    total: 0,
                },
                count,
            )
        });
        let by_reason = entries.reasons.into_iter().map(|(key, count)| {
            (
                Move { netns: key.netns, location: 0, reason: key.reason, table: Move::BY_REASON, total: 0 },
                count,
            )
        });
        for (planned, count) in by_place.chain(by_reason).filter(|(planned, _)| dead.contains(&planned.netns))
        {
            moves.commit(planned, count, places, reasons)?;
        }
        Ok(())
    }
}

/// See [`super::look`].
pub(super) fn look(pin_dir: &Path, names: &Names) -> Result<Option<DropReadings>, ProbeError> {
    let pins = Pins::of(&DROPS, pin_dir);
    if !pins.is_complete() || !pins.path(LINK).exists() {
        return Ok(None);
    }
    pins.check()?;
    Tables::pinned(&pins)?.readings(names, None).map(Some)
}
