//! What is counted now, and reading it: the scrape path. Nothing here waits for the kernel to attach anything.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{
        PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard,
        atomic::{AtomicU64, Ordering},
    },
};

use aya::{
    maps::{Map, MapData, PerCpuArray, PerCpuValues},
    util::nr_cpus,
};
use monitor_ebpf::{CHUNK_SLOTS, CHUNKS, Counters};

use crate::{
    ledger::Ledger,
    sample::{AttachMode, Counts},
};

use super::{
    ProbeError, Reading, Readings, Side, Target,
    abi::{self, SlotRecord, Wire},
};

/// Counters of a chunk of interfaces, or of one.
pub(super) type Chunk = PerCpuArray<MapData, Wire<Counters>>;

/// Slots below are interface indexes of the host's namespace, those from here on have a map of their own.
pub(super) const FIRST_OWN: u64 = 1 << 32;

/// Everything a scrape needs.
#[derive(Default)]
pub(super) struct Table {
    pub(super) slots: BTreeMap<u64, Slot>,
    pub(super) chunks: BTreeMap<u32, Chunk>,
    pub(super) ledger: Ledger,
}

/// One interface that is counted.
pub(super) struct Slot {
    pub(super) target: Target,
    pub(super) record: SlotRecord,
    /// Its own map; none where it counts into a chunk.
    pub(super) own: Option<Own>,
    /// Of this beginning of its counts.
    pub(super) serial: u64,
}

/// A number that no beginning had before.
pub(super) fn serial() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// A map of one interface.
pub(super) enum Own {
    /// Opened for each reading, so that a thousand interfaces do not take a thousand file descriptors.
    Pinned(PathBuf),
    /// Without a bpffs nothing else keeps it.
    Held(Chunk),
}

/// Where the counts of a slot lie.
pub(super) enum Place {
    Chunk { number: u32, index: u32 },
    Own,
}

/// Where a slot counts.
pub(super) fn place(slot: u64) -> Place {
    match u32::try_from(slot) {
        Ok(ifindex) => Place::Chunk { number: ifindex / CHUNK_SLOTS, index: ifindex % CHUNK_SLOTS },
        Err(_own) => Place::Own,
    }
}

/// The slot of a target in the chunks; none where it needs a map of its own.
pub(super) fn shared_slot(target: &Target) -> Option<u64> {
    match target.side {
        Side::HostEnd { ifindex } if ifindex / CHUNK_SLOTS < CHUNKS => Some(u64::from(ifindex)),
        _ => None,
    }
}

impl Slot {
    pub(super) fn new(target: &Target, mode: AttachMode, own: Option<Own>) -> Self {
        Self { target: target.clone(), record: SlotRecord::new(target, mode), own, serial: serial() }
    }
}

impl Table {
    /// The slot of a target, by identity.
    pub(super) fn find(&self, target: &Target) -> Option<u64> {
        match shared_slot(target) {
            Some(slot) => self.slots.get(&slot).filter(|found| found.target.is(target)).map(|_| slot),
            None => self.slots.iter().find(|(_, slot)| slot.target.is(target)).map(|(id, _)| *id),
        }
    }

    /// The slot a new target gets.
    pub(super) fn slot_for(&self, target: &Target) -> u64 {
        shared_slot(target).unwrap_or_else(|| {
            let last = self.slots.keys().next_back().copied().unwrap_or_default();
            (last + 1).max(FIRST_OWN)
        })
    }

    /// What a slot counted, carried-over counts included; hooks as the device sees them.
    pub(super) fn counters(&self, id: u64) -> Result<Counters, ProbeError> {
        let slot = self.slots.get(&id).ok_or_else(|| ProbeError::failed("read", id, "no such slot"))?;
        let name = &slot.target;
        let now = match (place(id), &slot.own) {
            (Place::Chunk { number, index }, None) => {
                let chunk = self.chunks.get(&number);
                read(
                    chunk.ok_or_else(|| ProbeError::failed("read", name, "its chunk is missing"))?,
                    index,
                    name,
                )?
            }
            (_, Some(Own::Pinned(path))) => read(&open_chunk(path)?, 0, name)?,
            (_, Some(Own::Held(map))) => read(map, 0, name)?,
            (Place::Own, None) => return Err(ProbeError::failed("read", name, "its map is missing")),
        };
        Ok(abi::plus(&now, &slot.record.base))
    }

    /// The same from the namespace's point of view.
    pub(super) fn counts(&self, id: u64) -> Result<Counts, ProbeError> {
        let counters = self.counters(id)?;
        Ok(abi::counts(&counters, self.slots[&id].target.side))
    }

    /// Everything counted.
    pub(super) fn readings(&self) -> Readings {
        let interfaces = self.slots.iter().map(|(id, slot)| Reading {
            target: slot.target.clone(),
            mode: slot.record.mode(),
            counts: self.counts(*id),
            summed: slot.record.summed == 1,
            serial: slot.serial,
        });
        Readings {
            interfaces: interfaces.collect(),
            retired: self.ledger.namespaces.iter().map(|(cookie, total)| (*cookie, total.clone())).collect(),
            gone: self.ledger.gone,
            other: self.ledger.other,
        }
    }

    /// Whether any slot counts into a chunk.
    pub(super) fn uses_chunk(&self, number: u32) -> bool {
        let first = u64::from(number) * u64::from(CHUNK_SLOTS);
        self.slots.range(first..first + u64::from(CHUNK_SLOTS)).next().is_some()
    }
}

/// The sum over all possible CPUs of one entry of a map.
pub(super) fn read(chunk: &Chunk, index: u32, of: &Target) -> Result<Counters, ProbeError> {
    let values = chunk.get(&index, 0).map_err(|error| ProbeError::new("read the counters", of, &error))?;
    Ok(abi::sum(values.iter()))
}

/// Sets one entry of a map to 0 on all possible CPUs.
pub(super) fn zero(chunk: &mut Chunk, index: u32, of: &Target) -> Result<(), ProbeError> {
    let cpus = nr_cpus().map_err(|(path, error)| ProbeError::new("read", path, &error))?;
    let values = PerCpuValues::try_from(vec![Wire(Counters::default()); cpus])
        .map_err(|error| ProbeError::new("zero the counters", of, &error))?;
    chunk.set(index, values, 0).map_err(|error| ProbeError::new("zero the counters", of, &error))
}

/// Opens a pinned map of counters that was checked before.
pub(super) fn open_chunk(path: &Path) -> Result<Chunk, ProbeError> {
    MapData::from_pin(path)
        .and_then(Map::from_map_data)
        .and_then(Chunk::try_from)
        .map_err(|error| ProbeError::new("open the pinned map", path.display(), &error))
}

/// The table, to be read; a panic elsewhere leaves it whole.
pub(super) fn read_lock(table: &RwLock<Table>) -> RwLockReadGuard<'_, Table> {
    table.read().unwrap_or_else(PoisonError::into_inner)
}

/// The table, to be changed.
pub(super) fn write_lock(table: &RwLock<Table>) -> RwLockWriteGuard<'_, Table> {
    table.write().unwrap_or_else(PoisonError::into_inner)
}
