//! Everything that changes what is counted. One at a time: [`super::Probes`] holds the writer behind a lock; the table
//! that scrapes read is locked only for the moments in which a count moves.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    sync::RwLock,
};

use aya::{maps::Map, programs::tc::SchedClassifierLink};

use crate::{sample::AttachMode, topology::names::Cookie};

use super::{
    Enter, Hook, ProbeError, Side, Target,
    abi::SlotRecord,
    clsact,
    load::{Loader, Pair},
    pins::Pins,
    store::Store,
    table::{Table, read_lock, write_lock},
    tcx,
};

/// See the file's comment.
pub(super) struct Writer {
    pub(super) loader: Loader,
    pub(super) shared: Pair,
    /// The array of chunks.
    pub(super) outer: Map,
    pub(super) store: Store,
    pub(super) pin_dir: Option<PathBuf>,
    pub(super) pins: Option<Pins>,
    /// Without pins, what keeps the links and the programs of interfaces with a map of their own.
    pub(super) links: BTreeMap<(u64, Hook), SchedClassifierLink>,
    pub(super) owns: BTreeMap<u64, Pair>,
    pub(super) enter: Enter,
    pub(super) mode: AttachMode,
    /// Namespaces whose new interfaces are summed with others from the start.
    pub(super) summed: BTreeSet<Cookie>,
}

impl Writer {
    /// Which of the two programs the kernel says are attached to the target: ours, of this build, on that interface.
    pub(super) fn counting(
        &self,
        id: u64,
        target: &Target,
        record: &SlotRecord,
    ) -> Result<[bool; 2], ProbeError> {
        let [ingress, egress] = record.programs;
        match record.mode() {
            AttachMode::Tcx => Ok([
                self.tcx_counts(id, target, Hook::Ingress, ingress)?,
                self.tcx_counts(id, target, Hook::Egress, egress)?,
            ]),
            AttachMode::Clsact => within(&self.enter, target, || {
                Ok([
                    clsact::attached_program(target, Hook::Ingress)? == Some(ingress),
                    clsact::attached_program(target, Hook::Egress)? == Some(egress),
                ])
            }),
        }
    }

    fn tcx_counts(&self, id: u64, target: &Target, hook: Hook, program: u32) -> Result<bool, ProbeError> {
        let info = self.with_link(id, hook, |link| tcx::info(link, target))?;
        match info.filter(|info| info.program == program) {
            Some(info) => tcx::is_on(info, target, hook),
            None => Ok(false),
        }
    }

    pub(super) fn with_link<R>(
        &self,
        id: u64,
        hook: Hook,
        look: impl FnOnce(&SchedClassifierLink) -> Result<R, ProbeError>,
    ) -> Result<Option<R>, ProbeError> {
        match &self.pins {
            Some(pins) => tcx::open(&pins.link(id, hook))?.as_ref().map(look).transpose(),
            None => self.links.get(&(id, hook)).map(look).transpose(),
        }
    }

    /// Sets the names of a slot.
    pub(super) fn relabel(
        &mut self,
        table: &RwLock<Table>,
        id: u64,
        target: &Target,
    ) -> Result<(), ProbeError> {
        let mut record = read_lock(table).slots[&id].record;
        if record.target() == *target {
            return Ok(());
        }
        record.set_target(target);
        self.save(table, id, record)
    }

    /// Writes the record of a slot in the table.
    pub(super) fn save(
        &mut self,
        table: &RwLock<Table>,
        id: u64,
        record: SlotRecord,
    ) -> Result<(), ProbeError> {
        let mut table = write_lock(table);
        self.store.write_slot(id, &record)?;
        if let Some(slot) = table.slots.get_mut(&id) {
            slot.target = record.target();
            slot.record = record;
        }
        Ok(())
    }
}

/// Runs something in the namespace where a target's interface is.
pub(crate) fn within<R: Send>(
    enter: &Enter,
    target: &Target,
    act: impl FnOnce() -> Result<R, ProbeError> + Send,
) -> Result<R, ProbeError> {
    if let Side::HostEnd { .. } = target.side {
        return act();
    }
    let (mut act, mut outcome) = (Some(act), None);
    enter(target, &mut || outcome = act.take().map(|act| act()))
        .map_err(|error| ProbeError::new("enter the namespace", target, &*error))?;
    outcome.unwrap_or_else(|| Err(ProbeError::failed("enter the namespace", target, "nothing was run there")))
}
