//! The drop program: loading it around the maps that are pinned, attaching it once, and saying which namespaces it watches.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    os::fd::{AsFd as _, AsRawFd as _},
    path::Path,
    sync::{Mutex, PoisonError, RwLock},
};

use aya::{
    Ebpf, EbpfLoader,
    maps::{HashMap, Map, MapData, MapError, PerCpuArray, PerCpuValues, ProgramArray},
    programs::{ProgramFd, ProgramInfo, RawTracePoint, links::FdLink},
    util::nr_cpus,
};
use monitor_ebpf::trace::{
    DROPPED, KFREE_SKB, NetnsKey, OTHER_MAP, PLACES_MAP, PROGRAMS_MAP, REASONS_MAP, REST, ReasonKey,
    WATCHED_MAP,
};

use super::{
    DropReadings, Kernel, Reasons as Names, TraceError,
    moves::{Move, Moves, Places, Reasons, Wire, absent_is_fine},
    pins::{LINK, PROGRAM, Pins, SHARED},
    read::{self, Entries},
};
use crate::{
    probe::{ProbeError, object, wait_for_programs},
    topology::names::Cookie,
};

/// `BPF_NOEXIST`.
const NO_EXIST: u64 = 1;

/// The program, and what it counted.
pub struct Drops {
    /// Whoever changes which namespaces are watched holds this, through a grace period.
    writer: Mutex<Known>,
    /// What a scrape reads; held for writing only while counts move.
    tables: RwLock<Tables>,
    names: Names,
    /// Namespaces are told apart by cookie.
    by_cookie: bool,
    host: Cookie,
    pins: Option<Pins>,
    /// Without pins, what keeps the program attached.
    _link: Option<FdLink>,
    _ebpf: Ebpf,
}

/// The numbers that counts may be under, with the key they are watched by; a number without one is of a namespace that an
/// agent was killed in retiring.
type Known = BTreeMap<u64, Option<NetnsKey>>;

struct Tables {
    watched: HashMap<MapData, Wire<NetnsKey>, u64>,
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
    pub fn open(pin_dir: Option<&Path>, host: (Cookie, u64)) -> Result<Self, TraceError> {
        let kernel = Kernel::running()?;
        let pins = pin_dir.map(Pins::create).transpose()?;
        let adopting = pins.as_ref().is_some_and(|pins| pins.is_complete() && pins.path(LINK).exists());
        if let Some(pins) = pins.as_ref().filter(|_| !adopting) {
            // A program left without one of its maps would count into nothing.
            pins.detach()?;
        }
        let mut ebpf = load(&kernel, pins.as_ref())?;
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
        // What is attached jumps to the program of this build from here on.
        let mut programs: ProgramArray<MapData> = map(&mut ebpf, PROGRAMS_MAP)?;
        let counting = program(&mut ebpf, DROPPED)?;
        counting.load().map_err(|error| ProbeError::new("load the eBPF program", DROPPED, &error))?;
        let counting = counting.fd().map_err(|error| ProbeError::new("find the program", DROPPED, &error))?;
        programs.set(0, counting, 0).map_err(|error| ProbeError::new("write", PROGRAMS_MAP, &error))?;
        tables._programs = Some(programs);
        let link = match &pins {
            Some(_) if adopting => None,
            pins => attach(&mut ebpf, pins.as_ref())?,
        };
        tables.program = attached(&mut ebpf, pins.as_ref());
        let known = tables.known()?;
        let drops = Self {
            writer: Mutex::new(known),
            tables: RwLock::new(tables),
            names: kernel.reasons().clone(),
            by_cookie: kernel.has_cookie(),
            host: host.0,
            pins,
            _link: link,
            _ebpf: ebpf,
        };
        drops.add(&[host].into())?;
        Ok(drops)
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
        self.add(namespaces)?;
        self.retire(|cookie| {
            cookie == self.host || namespaces.contains_key(&cookie) || alive.contains(&cookie)
        })
    }

    /// Everything counted: the scrape path.
    ///
    /// # Errors
    /// A map could not be read.
    pub fn read(&self) -> Result<DropReadings, ProbeError> {
        let tables = self.tables.read().unwrap_or_else(PoisonError::into_inner);
        tables.readings(&self.names, Some(self.host))
    }

    /// Detaches and unpins everything. All counts are lost.
    ///
    /// # Errors
    /// The kernel refused.
    pub fn remove(&self) -> Result<(), ProbeError> {
        self.pins.as_ref().map_or(Ok(()), Pins::wipe)
    }

    fn add(&self, namespaces: &BTreeMap<Cookie, u64>) -> Result<(), ProbeError> {
        let mut known = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        for (&Cookie(cookie), &inode) in namespaces {
            let key =
                NetnsKey { cookie: if self.by_cookie { cookie } else { 0 }, inum: inode as u32, reserved: 0 };
            if known.get(&cookie) == Some(&Some(key)) {
                continue;
            }
            let mut tables = self.tables.write().unwrap_or_else(PoisonError::into_inner);
            tables.watch(key, cookie)?;
            known.insert(cookie, Some(key));
        }
        Ok(())
    }

    fn retire(&self, lives: impl Fn(Cookie) -> bool) -> Result<(), ProbeError> {
        let mut known = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let dead: BTreeSet<u64> = known.keys().copied().filter(|number| !lives(Cookie(*number))).collect();
        if dead.is_empty() {
            return Ok(());
        }
        let write = || self.tables.write().unwrap_or_else(PoisonError::into_inner);
        for key in dead.iter().filter_map(|number| known.get(number).copied().flatten()) {
            absent_is_fine(write().watched.remove(&Wire(key)))
                .map_err(|error| ProbeError::new("delete from", WATCHED_MAP, &error))?;
        }
        // No program still counts for one of them after this.
        wait_for_programs().map_err(|error| ProbeError::new("wait for running programs", "drops", &error))?;
        write().fold(&dead)?;
        known.retain(|number, _| !dead.contains(number));
        Ok(())
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
            program: ProgramInfo::from_pin(pins.path(PROGRAM)).and_then(|info| info.fd()).ok(),
            _programs: None,
        })
    }

    fn rows(&self) -> Result<BTreeMap<u64, NetnsKey>, ProbeError> {
        let rows = self.watched.iter().map(|row| row.map(|(Wire(key), number)| (number, key)));
        rows.collect::<Result<_, _>>().map_err(|error| ProbeError::new("read", WATCHED_MAP, &error))
    }

    /// All numbers that something is counted under.
    fn known(&self) -> Result<Known, ProbeError> {
        let Entries { places, reasons } = Entries::read(&self.places, &self.reasons)?;
        let counted = places.keys().map(|key| key.netns).chain(reasons.keys().map(|key| key.netns));
        let mut known: Known = counted.map(|number| (number, None)).collect();
        known.extend(self.rows()?.into_iter().map(|(number, key)| (number, Some(key))));
        Ok(known)
    }

    fn readings(&self, names: &Names, host: Option<Cookie>) -> Result<DropReadings, ProbeError> {
        let watched = self.rows()?.into_keys();
        Ok(DropReadings {
            namespaces: Entries::read(&self.places, &self.reasons)?.named(watched, names),
            host,
            other: read::other(&self.other, names)?,
            gone: read::gone(&self.moves.gone, names)?,
            missed: self.program.as_ref().and_then(missed).unwrap_or(0),
        })
    }

    /// Counts drops under a number from now on.
    fn watch(&mut self, key: NetnsKey, number: u64) -> Result<(), ProbeError> {
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
        self.watched
            .insert(Wire(key), number, 0)
            .map_err(|error| ProbeError::new("write", WATCHED_MAP, &error))
    }

    /// Moves all counts of dead namespaces.
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
    let pins = Pins::of(pin_dir);
    if !pins.is_complete() || !pins.path(LINK).exists() {
        return Ok(None);
    }
    pins.check()?;
    Tables::pinned(&pins)?.readings(names, None).map(Some)
}

fn load(kernel: &Kernel, pins: Option<&Pins>) -> Result<Ebpf, ProbeError> {
    let mut loader = EbpfLoader::new();
    // The offsets are all that is needed of the kernel's types.
    loader.btf(None);
    for (name, value) in &kernel.globals {
        loader.override_global(name, value, true);
    }
    for (name, _) in SHARED {
        if let Some(pins) = pins {
            loader.map_pin_path(name, pins.path(name));
        }
    }
    loader.load(object::DROPS).map_err(|error| ProbeError::new("load the eBPF object", "drops", &error))
}

/// Attaches the program that jumps to the counting one; without pins the link is what keeps it.
fn attach(ebpf: &mut Ebpf, pins: Option<&Pins>) -> Result<Option<FdLink>, ProbeError> {
    let wrong = |error| ProbeError::new("attach the eBPF program", KFREE_SKB, &error);
    let stub = program(ebpf, KFREE_SKB)?;
    stub.load().map_err(wrong)?;
    let link = stub.attach(KFREE_SKB).and_then(|id| stub.take_link(id)).map_err(wrong)?;
    let link = FdLink::from(link);
    let Some(pins) = pins else { return Ok(Some(link)) };
    stub.pin(pins.path(PROGRAM))
        .map_err(|error| ProbeError::new("pin", pins.path(PROGRAM).display(), &error))?;
    link.pin(pins.path(LINK)).map_err(|error| ProbeError::new("pin", pins.path(LINK).display(), &error))?;
    Ok(None)
}

/// The program that is attached, for its statistics; absent where it cannot be had.
fn attached(ebpf: &mut Ebpf, pins: Option<&Pins>) -> Option<ProgramFd> {
    match pins {
        Some(pins) => ProgramInfo::from_pin(pins.path(PROGRAM)).and_then(|info| info.fd()).ok(),
        None => program(ebpf, KFREE_SKB).ok()?.fd().ok()?.try_clone().ok(),
    }
}

/// How often the kernel skipped a program because it was running on that CPU.
fn missed(program: &ProgramFd) -> Option<u64> {
    let info = fs::read_to_string(format!("/proc/self/fdinfo/{}", program.as_fd().as_raw_fd())).ok()?;
    info.lines().find_map(|line| line.strip_prefix("recursion_misses:")?.trim().parse().ok())
}

fn program<'a>(ebpf: &'a mut Ebpf, name: &'static str) -> Result<&'a mut RawTracePoint, ProbeError> {
    let found = ebpf.program_mut(name);
    let found = found.ok_or_else(|| ProbeError::failed("find the program", name, "not in the object"))?;
    found.try_into().map_err(|error| ProbeError::new("find the program", name, &error))
}

fn map<M: TryFrom<Map, Error = MapError>>(ebpf: &mut Ebpf, name: &'static str) -> Result<M, ProbeError> {
    let found = ebpf.take_map(name);
    let found = found.ok_or_else(|| ProbeError::failed("find the map", name, "not in the object"))?;
    M::try_from(found).map_err(|error| ProbeError::new("find the map", name, &error))
}

fn pinned<M: TryFrom<Map, Error = MapError>>(pins: &Pins, name: &'static str) -> Result<M, ProbeError> {
    let path = pins.path(name);
    MapData::from_pin(&path)
        .and_then(Map::from_map_data)
        .and_then(M::try_from)
        .map_err(|error| ProbeError::new("open the pinned map", path.display(), &error))
}
