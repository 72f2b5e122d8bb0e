//! The TCP programs: loading them around the maps that are pinned, attaching each once where this kernel has its
//! tracepoint, and reading what they counted.

mod totals;
mod types;

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    path::Path,
    thread,
    time::Duration,
};

use aya::{
    Ebpf,
    maps::{MapData, MapError, PerCpuArray, PerCpuHashMap, PerCpuValues, ProgramArray},
    programs::{ProgramFd, links::FdLink},
    util::nr_cpus,
};
use monitor_ebpf::{
    health::{COUNTING, COUNTS_MAP, TRACEPOINTS, TcpCounts, UNWATCHED_MAP},
    trace::WATCHED_MAP,
};

pub(super) use self::totals::Move;
use self::{
    totals::{Totals, sum},
    types::Types,
};
use super::{
    Btf, TraceError,
    moves::Wire,
    object::{self, map, missed, pinned},
    pins::{Pins, TCP},
    watched::{Counted, Known, Rows, Watching, numbers},
};
use crate::{
    probe::{self, ProbeError},
    topology::names::Cookie,
};

/// `BPF_NOEXIST`.
const NO_EXIST: u64 = 1;
/// The kernel hands out memory of maps a batch at a time; where it is used up for a moment, more is on its way.
const TRIES: u32 = 50;
const PAUSE: Duration = Duration::from_millis(2);

/// Everything counted, at one moment.
#[derive(Clone, Debug, Default)]
pub struct TcpReadings {
    /// By namespace that is watched, the host's among them.
    pub namespaces: BTreeMap<Cookie, TcpCounts>,
    /// Which of them is the host's.
    pub host: Option<Cookie>,
    /// Of namespaces that are not watched.
    pub other: TcpCounts,
    /// Of namespaces that are gone.
    pub gone: TcpCounts,
    /// Events that the kernel did not show to the programs, because they were at work on that CPU already.
    pub missed: u64,
    /// Which of [`TRACEPOINTS`] are counted.
    pub attached: [bool; TRACEPOINTS.len()],
}

/// The programs, and what they counted.
pub struct Tcp {
    watching: Watching<Tables>,
    missing: Vec<&'static str>,
    pins: Option<Pins>,
    /// Without pins, what keeps the programs attached.
    _links: Vec<FdLink>,
    _ebpf: Ebpf,
}

type Counts = PerCpuHashMap<MapData, u64, Wire<TcpCounts>>;

struct Tables {
    watched: Rows,
    counts: Counts,
    unwatched: PerCpuArray<MapData, Wire<TcpCounts>>,
    totals: Totals,
    attached: [bool; TRACEPOINTS.len()],
    programs: Vec<ProgramFd>,
    _counting: Option<ProgramArray<MapData>>,
}

impl Tcp {
    /// Loads the programs, adopts what is pinned (counting goes on without a gap), and attaches the others. Watches the
    /// host's namespace, whose identity is given. A tracepoint that this kernel does not have is left out, see
    /// [`Tcp::missing`].
    ///
    /// # Errors
    /// The kernel lacks something or refused.
    pub fn open(btf: &Btf, pin_dir: Option<&Path>, host: (Cookie, u64)) -> Result<Self, TraceError> {
        let types = Types::of(btf)?;
        let pins = pin_dir.map(|dir| Pins::create(&TCP, dir)).transpose()?;
        if let Some(pins) = pins.as_ref().filter(|pins| !pins.is_complete()) {
            // A program left without one of its maps would count into nothing.
            pins.detach()?;
        }
        let mut ebpf = object::load(probe::object::TCP, "tcp", &types.globals, pins.as_ref())?;
        let mut tables = Tables {
            watched: map(&mut ebpf, WATCHED_MAP)?,
            counts: map(&mut ebpf, COUNTS_MAP)?,
            unwatched: map(&mut ebpf, UNWATCHED_MAP)?,
            totals: Totals::open(pins.as_ref())?,
            attached: types.has,
            programs: Vec::new(),
            _counting: None,
        };
        let Tables { totals, counts, .. } = &mut tables;
        totals.redo(counts)?;
        let has = |number: usize| types.has[number];
        let counting: Vec<_> =
            (0..TRACEPOINTS.len()).filter(|&at| has(at)).map(|at| (at as u32, COUNTING[at])).collect();
        tables._counting = Some(object::put(&mut ebpf, &counting)?);
        let mut links = Vec::new();
        for tracepoint in (0..TRACEPOINTS.len()).filter(|&at| has(at)).map(|at| TRACEPOINTS[at]) {
            let (program, link) = pin_names(tracepoint);
            let pins = pins.as_ref();
            if !pins.is_some_and(|pins| pins.path(&link).exists()) {
                let pins = pins.map(|pins| pins.fresh(&program).map(|()| (pins, &*program, &*link)));
                links.extend(object::attach(&mut ebpf, tracepoint, pins.transpose()?)?);
            }
            let pins = pins.map(|pins| (pins, &*program));
            tables.programs.extend(object::attached(&mut ebpf, tracepoint, pins));
        }
        let known = tables.known()?;
        Ok(Self {
            watching: Watching::new(tables, known, types.has_cookie(), host)?,
            missing: (0..TRACEPOINTS.len()).filter(|&at| !has(at)).map(|at| TRACEPOINTS[at]).collect(),
            pins,
            _links: links,
            _ebpf: ebpf,
        })
    }

    /// Tracepoints that this kernel does not have.
    pub fn missing(&self) -> &[&'static str] {
        &self.missing
    }

    /// As [`super::Drops::watch`].
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
    pub fn read(&self) -> Result<TcpReadings, ProbeError> {
        self.watching.tables().readings(Some(self.watching.host()))
    }

    /// Detaches and unpins everything. All counts are lost.
    ///
    /// # Errors
    /// The kernel refused.
    pub fn remove(&self) -> Result<(), ProbeError> {
        self.pins.as_ref().map_or(Ok(()), Pins::wipe)
    }
}

/// What is pinned of a tracepoint: the program, of which the kernel says how often it was skipped, and the link that keeps
/// it attached.
fn pin_names(tracepoint: &str) -> (String, String) {
    (format!("program-{tracepoint}"), format!("link-{tracepoint}"))
}

impl Tables {
    /// Everything pinned below a directory, opened to be read.
    fn pinned(pins: &Pins) -> Result<Self, ProbeError> {
        let names = TRACEPOINTS.map(pin_names);
        Ok(Self {
            watched: pinned(pins, WATCHED_MAP)?,
            counts: pinned(pins, COUNTS_MAP)?,
            unwatched: pinned(pins, UNWATCHED_MAP)?,
            totals: Totals::open(Some(pins))?,
            attached: names.each_ref().map(|(_, link)| pins.path(link).exists()),
            programs: names.iter().filter_map(|(program, _)| object::pinned_program(pins, program)).collect(),
            _counting: None,
        })
    }

    /// All numbers that something is counted under.
    fn known(&self) -> Result<Known, ProbeError> {
        let counted = self.counts.keys().map(|number| Ok((number.map_err(wrong)?, None)));
        let mut known: Known = counted.collect::<Result<_, ProbeError>>()?;
        known.extend(numbers(&self.watched)?.into_iter().map(|(number, key)| (number, Some(key))));
        Ok(known)
    }

    fn readings(&self, host: Option<Cookie>) -> Result<TcpReadings, ProbeError> {
        let namespaces = self.counts.iter().map(|entry| {
            let (number, counts) = entry.map_err(wrong)?;
            Ok((Cookie(number), sum(&counts)))
        });
        Ok(TcpReadings {
            namespaces: namespaces.collect::<Result<_, ProbeError>>()?,
            host,
            other: sum(&self.unwatched.get(&0, 0).map_err(wrong)?),
            gone: self.totals.gone()?,
            missed: self.programs.iter().filter_map(missed).sum(),
            attached: self.attached,
        })
    }
}

fn wrong(error: MapError) -> ProbeError {
    ProbeError::new("read", COUNTS_MAP, &error)
}

impl Counted for Tables {
    fn rows(&mut self) -> &mut Rows {
        &mut self.watched
    }

    fn begin(&mut self, number: u64) -> Result<(), ProbeError> {
        let cpus = nr_cpus().map_err(|(path, error)| ProbeError::new("read", path, &error))?;
        for tries in 1.. {
            let zero = PerCpuValues::try_from(vec![Wire(TcpCounts::default()); cpus])
                .map_err(|error| ProbeError::new("write", COUNTS_MAP, &error))?;
            let error = match self.counts.insert(number, zero, NO_EXIST) {
                Ok(()) => return Ok(()),
                Err(error) => error,
            };
            match errno(&error) {
                Some(libc::EEXIST) => return Ok(()),
                Some(libc::ENOMEM) if tries < TRIES => thread::sleep(PAUSE),
                _ => return Err(ProbeError::new("write", COUNTS_MAP, &error)),
            }
        }
        Ok(())
    }

    fn fold(&mut self, dead: &BTreeSet<u64>) -> Result<(), ProbeError> {
        for number in dead {
            match self.counts.get(number, 0) {
                Ok(counts) => self.totals.commit(*number, &sum(&counts), &mut self.counts)?,
                Err(MapError::KeyNotFound) => {}
                Err(error) => return Err(wrong(error)),
            }
        }
        Ok(())
    }
}

fn errno(error: &MapError) -> Option<i32> {
    match error {
        MapError::SyscallError(error) => io::Error::raw_os_error(&error.io_error),
        _ => None,
    }
}

/// See [`super::look_at_tcp`].
pub(super) fn look(pin_dir: &Path) -> Result<Option<TcpReadings>, ProbeError> {
    let pins = Pins::of(&TCP, pin_dir);
    if !pins.is_complete() {
        return Ok(None);
    }
    pins.check()?;
    Tables::pinned(&pins)?.readings(None).map(Some)
}
