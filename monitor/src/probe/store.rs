//! Records of slots, totals and the journal, in maps of the kernel: pinned they live and die with the counters,
//! otherwise with the agent. Reads and writes; the rules are in [`crate::ledger`].

use std::path::PathBuf;

use aya::{
    Pod,
    maps::{HashMap, Map, MapData, MapError},
};

use crate::ledger::{Fold, Ledger, Retired, Source, Storage, redo};

use super::{
    ProbeError,
    abi::{self, JournalRecord, SlotRecord, TotalRecord, Wire, account_key},
    error::errno,
    pins::{JOURNAL, NO_PREALLOC, Pins, RECORDS, SLOTS, TOTALS},
};

/// A map that only user space reads and writes.
pub(super) type Records<K, V> = HashMap<MapData, K, Wire<V>>;

/// See the file's comment.
pub(super) struct Store {
    slots: Records<u64, SlotRecord>,
    totals: Records<u64, TotalRecord>,
    journal: Records<u32, JournalRecord>,
    /// Where the maps of other layouts are pinned.
    pin_dir: Option<PathBuf>,
}

/// The journal's only key.
const ENTRY: u32 = 0;

impl Store {
    /// Opens what is pinned (checked before), makes the rest.
    pub(super) fn open(pins: Option<&Pins>, pin_dir: Option<PathBuf>) -> Result<Self, ProbeError> {
        Ok(Self {
            slots: records(pins, SLOTS, RECORDS)?,
            totals: records(pins, TOTALS, RECORDS)?,
            journal: records(pins, JOURNAL, 1)?,
            pin_dir,
        })
    }

    /// Finishes the move an agent was killed in, if there is one.
    pub(super) fn redo(&mut self) -> Result<(), ProbeError> {
        match self.journal.get(&ENTRY, 0) {
            Ok(Wire(record)) => match record.fold() {
                Some(fold) => redo(self, &fold),
                None => Err(ProbeError::failed(
                    "read",
                    JOURNAL,
                    format!("a move of unknown kind {}", record.kind),
                )),
            },
            Err(MapError::KeyNotFound) => Ok(()),
            Err(error) => Err(ProbeError::new("read", JOURNAL, &error)),
        }
    }

    /// All records of slots.
    pub(super) fn slots(&self) -> Result<Vec<(u64, SlotRecord)>, ProbeError> {
        let all: Result<Vec<_>, _> = self.slots.iter().collect();
        let all = all.map_err(|error| ProbeError::new("read", SLOTS, &error))?;
        Ok(all.into_iter().map(|(slot, Wire(record))| (slot, record)).collect())
    }

    /// All totals.
    pub(super) fn ledger(&self) -> Result<Ledger, ProbeError> {
        let mut ledger = Ledger::default();
        for entry in self.totals.iter() {
            let (key, Wire(record)) = entry.map_err(|error| ProbeError::new("read", TOTALS, &error))?;
            match abi::account(key) {
                crate::ledger::Account::Netns(cookie) => {
                    let retired = Retired { netns: record.netns(), counts: record.counts() };
                    ledger.namespaces.insert(cookie, retired);
                }
                crate::ledger::Account::Gone => ledger.gone = record.counts(),
                crate::ledger::Account::Other => ledger.other = record.counts(),
            }
        }
        Ok(ledger)
    }

    /// Writes a slot's record.
    pub(super) fn write_slot(&mut self, slot: u64, record: &SlotRecord) -> Result<(), ProbeError> {
        self.slots.insert(slot, Wire(*record), 0).map_err(|error| ProbeError::new("write", SLOTS, &error))
    }

    /// Removes a slot's record, if it is there.
    pub(super) fn remove_slot(&mut self, slot: u64) -> Result<(), ProbeError> {
        remove(&mut self.slots, SLOTS, slot)
    }
}

impl Storage for Store {
    type Error = ProbeError;

    fn write_journal(&mut self, fold: &Fold) -> Result<(), ProbeError> {
        self.journal
            .insert(ENTRY, Wire(JournalRecord::new(fold)), 0)
            .map_err(|error| ProbeError::new("write", JOURNAL, &error))
    }

    fn write_total(&mut self, fold: &Fold) -> Result<(), ProbeError> {
        self.totals
            .insert(account_key(fold.account), Wire(TotalRecord::new(&fold.netns, &fold.total)), 0)
            .map_err(|error| ProbeError::new("write", TOTALS, &error))
    }

    fn drop_source(&mut self, source: Source) -> Result<(), ProbeError> {
        let old = |layout| self.pin_dir.as_deref().map(|pin_dir| Pins::of(pin_dir, layout));
        match source {
            Source::Interface(slot) => self.remove_slot(slot),
            // The slot's record was written already.
            Source::Part(_) => Ok(()),
            Source::Netns(cookie) => remove(&mut self.totals, TOTALS, cookie.0),
            Source::OldInterface(layout, slot) => match old(layout).filter(Pins::in_use) {
                Some(pins) => {
                    remove(&mut records::<u64, SlotRecord>(Some(&pins), SLOTS, RECORDS)?, SLOTS, slot)
                }
                None => Ok(()),
            },
            Source::OldTotal(layout, account) => match old(layout).filter(Pins::in_use) {
                Some(pins) => remove(
                    &mut records::<u64, TotalRecord>(Some(&pins), TOTALS, RECORDS)?,
                    TOTALS,
                    account_key(account),
                ),
                None => Ok(()),
            },
        }
    }

    fn is_given(&self, slot: u64) -> Result<bool, ProbeError> {
        match self.slots.get(&slot, 0) {
            Ok(Wire(record)) => Ok(record.summed == 0),
            Err(MapError::KeyNotFound) => Ok(true),
            Err(error) => Err(ProbeError::new("read", SLOTS, &error)),
        }
    }

    fn clear_journal(&mut self) -> Result<(), ProbeError> {
        remove(&mut self.journal, JOURNAL, ENTRY)
    }
}

/// The pinned map of this name, made where there is none.
fn records<K: Pod, V: 'static>(
    pins: Option<&Pins>,
    name: &'static str,
    entries: u32,
) -> Result<Records<K, V>, ProbeError>
where
    Wire<V>: Pod,
{
    let wrong = |error: &MapError| ProbeError::new("open the map", name, error);
    let made = |entries| {
        Records::<K, V>::create(entries, NO_PREALLOC)
            .map_err(|error| ProbeError::new("make the map", name, &error))
    };
    let Some(path) = pins.map(|pins| pins.map(name)) else { return made(entries) };
    if !path.exists() {
        made(entries)?.pin(&path).map_err(|error| ProbeError::new("pin", path.display(), &error))?;
    }
    let data = MapData::from_pin(&path).map_err(|error| wrong(&error))?;
    Map::from_map_data(data).and_then(Records::try_from).map_err(|error| wrong(&error))
}

fn remove<K: Pod, V: 'static>(map: &mut Records<K, V>, name: &'static str, key: K) -> Result<(), ProbeError>
where
    Wire<V>: Pod,
{
    match map.remove(&key) {
        Err(error) if errno(&error) != Some(libc::ENOENT) && !matches!(error, MapError::KeyNotFound) => {
            Err(ProbeError::new("delete from", name, &error))
        }
        _ => Ok(()),
    }
}
