//! Letting go: detach, read for the last time, move the counts, release what belonged to the slot; in this order, so
//! that a crash in between leaves a slot that the next start finds dead and finishes.

use std::{collections::BTreeSet, os::fd::AsFd as _, sync::RwLock};

use aya::maps::Map;

use crate::{
    ledger::{Account, Source, commit},
    sample::AttachMode,
    topology::names::Cookie,
};

use super::{
    Hook, ProbeError, Target,
    abi::SlotRecord,
    clsact, pins, sys,
    table::{Place, Table, place, read_lock, write_lock},
    tcx,
    writer::{Writer, within},
};

impl Writer {
    /// Detaches a slot, reads it for the last time and moves its counts to its namespace.
    pub(super) fn retire(&mut self, table: &RwLock<Table>, id: u64) -> Result<(), ProbeError> {
        let (target, record) = {
            let table = read_lock(table);
            let Some(slot) = table.slots.get(&id) else { return Ok(()) };
            (slot.target.clone(), slot.record)
        };
        self.detach_hooks(id, &target, &record)?;
        {
            let mut table = write_lock(table);
            let counts = table.counts(id)?;
            let account = table.slots.get(&id).map_or(record.account(), |slot| slot.record.account());
            let fold = table.ledger.fold(Source::Interface(id), account, &target.netns, &counts);
            commit(&mut self.store, &fold)?;
            table.ledger.apply(&fold);
            table.slots.remove(&id);
        }
        self.forget(table, id)
    }

    /// Moves the totals of dead namespaces to the host's.
    pub(super) fn retire_namespaces(
        &mut self,
        table: &RwLock<Table>,
        live: &BTreeSet<Cookie>,
    ) -> Result<(), ProbeError> {
        let mut table = write_lock(table);
        let counted: BTreeSet<_> = table.slots.values().map(|slot| slot.target.cookie).collect();
        let dead: Vec<_> = table.ledger.namespaces.keys().copied().collect();
        for cookie in dead.into_iter().filter(|cookie| !live.contains(cookie) && !counted.contains(cookie)) {
            let Some(fold) = table.ledger.fold_netns(cookie, Account::Gone) else { continue };
            commit(&mut self.store, &fold)?;
            table.ledger.apply(&fold);
        }
        Ok(())
    }

    /// Detaches both programs; returns when no CPU runs them for this interface any more.
    fn detach_hooks(&mut self, id: u64, target: &Target, record: &SlotRecord) -> Result<(), ProbeError> {
        match record.mode() {
            AttachMode::Tcx => {
                for hook in Hook::BOTH {
                    self.with_link(id, hook, |link| tcx::detach(link, target))?;
                    self.links.remove(&(id, hook));
                }
                Ok(())
            }
            AttachMode::Clsact => {
                let entered = within(&self.enter, target, || Ok(clsact::detach(target, record.qdisc == 1)));
                match entered {
                    Ok(detached) => detached?,
                    // A namespace that cannot be entered is gone, and the filters with it.
                    Err(error) => log::debug!("{error}"),
                }
                sys::wait_for_programs()
                    .map_err(|error| ProbeError::new("wait for running programs", target, &error))
            }
        }
    }

    /// Releases what belonged to a slot that is no longer in the records.
    pub(super) fn forget(&mut self, table: &RwLock<Table>, id: u64) -> Result<(), ProbeError> {
        self.links.retain(|(slot, _), _| *slot != id);
        self.owns.remove(&id);
        if let Some(pins) = &self.pins {
            pins.remove_slot(id)?;
        }
        match place(id) {
            Place::Chunk { number, .. } => self.free_chunk(table, number),
            Place::Own => Ok(()),
        }
    }

    /// Gives a chunk's memory back once no slot is in it.
    pub(super) fn free_chunk(&mut self, table: &RwLock<Table>, number: u32) -> Result<(), ProbeError> {
        {
            let mut table = write_lock(table);
            if table.uses_chunk(number) || table.chunks.remove(&number).is_none() {
                return Ok(());
            }
        }
        if let Some(pins) = &self.pins {
            pins::remove(&pins.chunk(number))?;
        }
        let Map::ArrayOfMaps(outer) = &self.outer else { return Ok(()) };
        match sys::delete_element(outer.fd().as_fd(), number) {
            Err(error) if error.raw_os_error() != Some(libc::ENOENT) => {
                Err(ProbeError::new("free a chunk of counters", number, &error))
            }
            _ => Ok(()),
        }
    }

    /// See [`super::Probes::remove_everything`].
    pub(super) fn remove_everything(&mut self, table: &RwLock<Table>) -> Result<(), ProbeError> {
        let mut outcome = Ok(());
        let slots: Vec<_> = read_lock(table).slots.iter().map(|(id, slot)| (*id, slot.record)).collect();
        for (id, record) in slots {
            outcome = outcome.and(self.detach_hooks(id, &record.target(), &record));
        }
        *write_lock(table) = Table::default();
        if let (Some(pins), Some(pin_dir)) = (self.pins.take(), self.pin_dir.take()) {
            outcome = outcome.and(pins.wipe());
            outcome = outcome.and(
                std::fs::remove_dir(&pin_dir)
                    .map_err(|error| ProbeError::new("rmdir", pin_dir.display(), &error)),
            );
        }
        outcome
    }

    /// Removes the filters that nothing will replace.
    pub(super) fn remove_filters(&mut self, table: &RwLock<Table>) {
        let slots: Vec<_> = read_lock(table).slots.iter().map(|(id, slot)| (*id, slot.record)).collect();
        for (id, record) in slots.into_iter().filter(|(_, record)| record.mode() == AttachMode::Clsact) {
            if let Err(error) = self.detach_hooks(id, &record.target(), &record) {
                log::warn!("{error}");
            }
        }
    }
}
