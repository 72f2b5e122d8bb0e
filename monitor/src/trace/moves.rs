//! Moving what a namespace lost to the total of those that are gone, exactly once, also across a kill: each move is
//! written down first with its absolute result, as in `crate::ledger`.

use aya::maps::{HashMap, Map, MapData, MapError, PerCpuHashMap};
use monitor_ebpf::trace::{NetnsKey, PlaceKey, ReasonKey};

use super::pins::{GONE, GONE_ENTRIES, JOURNAL, NO_PREALLOC, Pins};
use crate::probe::ProbeError;

/// A value as it lies in a map.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(transparent)]
pub(super) struct Wire<T>(pub(super) T);

/// The move being made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub(super) struct Move {
    /// From where: an entry of the places, or with [`Move::BY_REASON`] of the reasons.
    pub(super) netns: u64,
    pub(super) location: u64,
    pub(super) reason: u32,
    pub(super) table: u32,
    /// What the total of the reason is after the move.
    pub(super) total: u64,
}

impl Move {
    pub(super) const BY_PLACE: u32 = 0;
    pub(super) const BY_REASON: u32 = 1;
}

macro_rules! plain {
    ($($record:ty),+) => {
        $(
            #[allow(unsafe_code, reason = "aya asks for a promise about the bytes")]
            // SAFETY: `repr(C)` integers without padding (their sizes are asserted), so that any bytes are a value and
            // every byte of a value is initialised.
            unsafe impl aya::Pod for Wire<$record> {}
        )+
    };
}
plain!(NetnsKey, PlaceKey, ReasonKey, Move);

const _: () = assert!(size_of::<Move>() == 32);

pub(super) type Places = PerCpuHashMap<MapData, Wire<PlaceKey>, u64>;
pub(super) type Reasons = PerCpuHashMap<MapData, Wire<ReasonKey>, u64>;

/// The journal's only key.
const ENTRY: u32 = 0;

/// The totals of what is gone, and the move being made.
pub(super) struct Moves {
    pub(super) gone: HashMap<MapData, u32, u64>,
    journal: HashMap<MapData, u32, Wire<Move>>,
}

impl Moves {
    /// Opens what is pinned (checked before), makes the rest.
    pub(super) fn open(pins: Option<&Pins>) -> Result<Self, ProbeError> {
        Ok(Self {
            gone: opened(pins, GONE, || HashMap::<MapData, u32, u64>::create(GONE_ENTRIES, NO_PREALLOC))?,
            journal: opened(pins, JOURNAL, || HashMap::<MapData, u32, Wire<Move>>::create(1, NO_PREALLOC))?,
        })
    }

    /// Finishes the move an agent was killed in, if there is one.
    pub(super) fn redo(&mut self, places: &mut Places, reasons: &mut Reasons) -> Result<(), ProbeError> {
        match self.journal.get(&ENTRY, 0) {
            Ok(Wire(planned)) => self.finish(planned, places, reasons),
            Err(MapError::KeyNotFound) => Ok(()),
            Err(error) => Err(ProbeError::new("read", JOURNAL, &error)),
        }
    }

    /// Adds a count to the total of its reason and takes it out of its table.
    pub(super) fn commit(
        &mut self,
        mut planned: Move,
        count: u64,
        places: &mut Places,
        reasons: &mut Reasons,
    ) -> Result<(), ProbeError> {
        let total = match self.gone.get(&planned.reason, 0) {
            Ok(total) => total,
            Err(MapError::KeyNotFound) => 0,
            Err(error) => return Err(ProbeError::new("read", GONE, &error)),
        };
        planned.total = total.saturating_add(count);
        self.journal
            .insert(ENTRY, Wire(planned), 0)
            .map_err(|error| ProbeError::new("write", JOURNAL, &error))?;
        self.finish(planned, places, reasons)
    }

    fn finish(
        &mut self,
        planned: Move,
        places: &mut Places,
        reasons: &mut Reasons,
    ) -> Result<(), ProbeError> {
        let Move { netns, location, reason, table, total } = planned;
        self.gone.insert(reason, total, 0).map_err(|error| ProbeError::new("write", GONE, &error))?;
        let removed = match table {
            Move::BY_REASON => reasons.remove(&Wire(ReasonKey { netns, reason, reserved: 0 })),
            _ => places.remove(&Wire(PlaceKey { netns, location, reason, reserved: 0 })),
        };
        absent_is_fine(removed).map_err(|error| ProbeError::new("delete from", "drops", &error))?;
        absent_is_fine(self.journal.remove(&ENTRY))
            .map_err(|error| ProbeError::new("delete from", JOURNAL, &error))
    }
}

/// Removing what is not there is no error.
pub(super) fn absent_is_fine(removed: Result<(), MapError>) -> Result<(), MapError> {
    match removed {
        Err(MapError::KeyNotFound) => Ok(()),
        Err(MapError::SyscallError(error)) if error.io_error.raw_os_error() == Some(libc::ENOENT) => Ok(()),
        other => other,
    }
}

/// The pinned map of this name, made where there is none.
pub(super) fn opened<M>(
    pins: Option<&Pins>,
    name: &'static str,
    make: impl FnOnce() -> Result<M, MapError>,
) -> Result<M, ProbeError>
where
    M: Pinned + TryFrom<Map, Error = MapError>,
{
    let wrong = |call| move |error: MapError| ProbeError::new(call, name, &error);
    let Some(path) = pins.map(|pins| pins.path(name)) else { return make().map_err(wrong("make the map")) };
    if !path.exists() {
        make().map_err(wrong("make the map"))?.pin_at(&path)?;
    }
    let data = MapData::from_pin(&path).map_err(wrong("open the map"))?;
    Map::from_map_data(data).and_then(M::try_from).map_err(wrong("open the map"))
}

/// A map that can be pinned.
pub(super) trait Pinned {
    fn pin_at(self, path: &std::path::Path) -> Result<(), ProbeError>;
}

impl<V: aya::Pod> Pinned for HashMap<MapData, u32, V> {
    fn pin_at(self, path: &std::path::Path) -> Result<(), ProbeError> {
        self.pin(path).map_err(|error| ProbeError::new("pin", path.display(), &error))
    }
}
