//! Whose counts are summed with those of other namespaces. What is in the sum stays there: a namespace that gets a series of
//! its own begins it at 0.

use std::{collections::BTreeSet, sync::RwLock};

use crate::{
    ledger::{Account, Source, commit, give},
    topology::names::Cookie,
};

use super::{
    ProbeError, abi,
    table::{Table, read_lock, serial, write_lock},
    writer::Writer,
};

impl Writer {
    /// See [`super::Probes::sum`].
    pub(super) fn sum(
        &mut self,
        table: &RwLock<Table>,
        summed: &BTreeSet<Cookie>,
        own: &BTreeSet<Cookie>,
    ) -> Result<(), ProbeError> {
        self.summed.clone_from(summed);
        let (join, leave, totals) = {
            let table = read_lock(table);
            let of = |wanted: &BTreeSet<Cookie>, state: u8| -> Vec<u64> {
                let slots = table.slots.iter();
                let is_it = slots
                    .filter(|(_, slot)| slot.record.summed == state && wanted.contains(&slot.target.cookie));
                is_it.map(|(id, _)| *id).collect()
            };
            let totals = table.ledger.namespaces.keys().filter(|cookie| summed.contains(cookie));
            (of(summed, 0), of(own, 1), totals.copied().collect::<Vec<_>>())
        };
        for id in join {
            let mut record = read_lock(table).slots[&id].record;
            record.summed = 1;
            self.save(table, id, record)?;
        }
        for cookie in totals {
            let mut table = write_lock(table);
            let Some(fold) = table.ledger.fold_netns(cookie, Account::Other) else { continue };
            commit(&mut self.store, &fold)?;
            table.ledger.apply(&fold);
        }
        leave.into_iter().try_for_each(|id| self.leave(table, id))
    }

    /// What a slot counted so far stays in the sum; from here on it counts for itself.
    fn leave(&mut self, table: &RwLock<Table>, id: u64) -> Result<(), ProbeError> {
        let mut table = write_lock(table);
        let counted = table.counters(id)?;
        let Some(slot) = table.slots.get(&id) else { return Ok(()) };
        let mut record = slot.record;
        let counts = abi::counts(&counted, slot.target.side);
        let fold = table.ledger.fold(Source::Part(id), Account::Other, "", &counts);
        record.base = abi::minus(&record.base, &counted);
        record.summed = 0;
        give(&mut self.store, &fold, |store| store.write_slot(id, &record))?;
        table.ledger.apply(&fold);
        if let Some(slot) = table.slots.get_mut(&id) {
            (slot.record, slot.serial) = (record, serial());
        }
        Ok(())
    }
}
