//! Attaching: the counters first, then both programs, or neither.

use std::sync::RwLock;

use aya::{maps::ArrayOfMaps, programs::tc::SchedClassifierLink};
use monitor_ebpf::CHUNK_SLOTS;

use crate::sample::AttachMode;

use super::{
    Hook, ProbeError, Target, clsact,
    load::{Pair, own_map},
    pins,
    table::{self, Chunk, Own, Place, Slot, Table, place, read_lock, write_lock},
    tcx,
    writer::{Writer, within},
};

impl Writer {
    /// See [`super::Probes::attach`].
    pub(super) fn attach(&mut self, table: &RwLock<Table>, target: &Target) -> Result<(), ProbeError> {
        let found = read_lock(table).find(target);
        if let Some(id) = found {
            let record = read_lock(table).slots[&id].record;
            match self.counting(id, target, &record)? {
                [true, true] => return self.relabel(table, id, target),
                [false, false] => self.retire(table, id)?,
                [ingress, _] => {
                    let missing = if ingress { Hook::Egress } else { Hook::Ingress };
                    self.attach_missing(table, id, missing)?;
                    return self.relabel(table, id, target);
                }
            }
        }
        let id = read_lock(table).slot_for(target);
        let taken = read_lock(table).slots.contains_key(&id);
        if taken {
            // The index belonged to an interface that is gone.
            self.retire(table, id)?;
        }
        let outcome = self.attach_new(table, id, target);
        if outcome.is_err() {
            self.undo(table, id);
        }
        outcome
    }

    fn attach_new(&mut self, table: &RwLock<Table>, id: u64, target: &Target) -> Result<(), ProbeError> {
        if let Some(pins) = &self.pins {
            pins.remove_slot(id)?;
        }
        let (own, mut pair) = self.make_counters(table, id, target)?;
        let mut slot = Slot::new(target, self.mode, own);
        slot.record.summed = self.summed.contains(&target.cookie).into();
        let programs = pair.as_ref().unwrap_or(&self.shared);
        (slot.record.programs, slot.record.tags) = (programs.ids, programs.tags);
        self.store.write_slot(id, &slot.record)?;
        slot.record.qdisc |=
            u8::from(self.attach_hooks(id, target, slot.record.mode(), pair.as_mut(), &Hook::BOTH)?);
        self.store.write_slot(id, &slot.record)?;
        self.keep(id, pair);
        write_lock(table).slots.insert(id, slot);
        Ok(())
    }

    fn attach_missing(&mut self, table: &RwLock<Table>, id: u64, hook: Hook) -> Result<(), ProbeError> {
        let (target, mut record, is_own) = {
            let table = read_lock(table);
            let slot = &table.slots[&id];
            (slot.target.clone(), slot.record, slot.own.is_some())
        };
        let mut pair = match (is_own, &self.pins) {
            (true, Some(pins)) => Some(self.loader.inside(Some(pins.own(id)))?),
            (true, None) => self.owns.remove(&id),
            (false, _) => None,
        };
        if let Some(pins) = &self.pins {
            pins::remove(&pins.link(id, hook))?;
        }
        record.programs[hook as usize] = pair.as_ref().unwrap_or(&self.shared).ids[hook as usize];
        let outcome = self.attach_hooks(id, &target, record.mode(), pair.as_mut(), &[hook]);
        self.keep(id, pair);
        record.qdisc |= u8::from(outcome?);
        self.save(table, id, record)
    }

    /// Attaches in the target's namespace and keeps the links. Says whether a clsact qdisc was made.
    fn attach_hooks(
        &mut self,
        id: u64,
        target: &Target,
        mode: AttachMode,
        own: Option<&mut Pair>,
        hooks: &[Hook],
    ) -> Result<bool, ProbeError> {
        let pair = own.unwrap_or(&mut self.shared);
        let (links, made) = within(&self.enter, target, || attach_here(pair, target, mode, hooks))?;
        for (hook, link) in links {
            match &self.pins {
                Some(pins) => tcx::pin(link, &pins.link(id, hook))?,
                None => drop(self.links.insert((id, hook), link)),
            }
        }
        Ok(made)
    }

    /// Makes the counters of a new slot, all 0 on every possible CPU: in its chunk, or a map and programs of its own.
    pub(super) fn make_counters(
        &mut self,
        table: &RwLock<Table>,
        id: u64,
        target: &Target,
    ) -> Result<(Option<Own>, Option<Pair>), ProbeError> {
        match place(id) {
            Place::Chunk { number, index } => {
                let there = read_lock(table).chunks.contains_key(&number);
                if !there {
                    let chunk = self.make_chunk(number)?;
                    write_lock(table).chunks.insert(number, chunk);
                }
                let mut table = write_lock(table);
                let chunk =
                    table.chunks.get_mut(&number).expect("made above, and only the writer removes chunks");
                table::zero(chunk, index, target)?;
                Ok((None, None))
            }
            Place::Own => {
                let pin = self.pins.as_ref().map(|pins| pins.own(id));
                let mut pair = self.loader.inside(pin.clone())?;
                let own = match pin {
                    Some(path) => Own::Pinned(path),
                    None => Own::Held(own_map(&mut pair)?),
                };
                Ok((Some(own), Some(pair)))
            }
        }
    }

    /// A chunk is pinned after it is in the array, so that every pinned chunk is in use by the programs.
    fn make_chunk(&mut self, number: u32) -> Result<Chunk, ProbeError> {
        let wrong = |error| ProbeError::new("make a chunk of counters", number, &error);
        let chunk = Chunk::create(CHUNK_SLOTS, 0).map_err(wrong)?;
        ArrayOfMaps::<_, Chunk>::try_from(&mut self.outer)
            .and_then(|mut outer| outer.set(number, &chunk, 0))
            .map_err(wrong)?;
        let Some(pins) = &self.pins else { return Ok(chunk) };
        let path = pins.chunk(number);
        chunk.pin(&path).map_err(|error| ProbeError::new("pin", path.display(), &error))?;
        table::open_chunk(&path)
    }

    /// Keeps the programs of a slot where no pin does.
    pub(super) fn keep(&mut self, id: u64, pair: Option<Pair>) {
        if let (Some(pair), None) = (pair, &self.pins) {
            self.owns.insert(id, pair);
        }
    }

    /// Takes back what a failed attachment left; what cannot be taken back now is found by the next start.
    fn undo(&mut self, table: &RwLock<Table>, id: u64) {
        let undone = self.store.remove_slot(id).and(self.forget(table, id));
        if let Err(error) = undone {
            log::warn!("after a failed attachment: {error}");
        }
    }
}

/// Attaches in the calling thread's namespace: all of the hooks or none. Says whether a clsact qdisc was made.
fn attach_here(
    pair: &mut Pair,
    target: &Target,
    mode: AttachMode,
    hooks: &[Hook],
) -> Result<(Vec<(Hook, SchedClassifierLink)>, bool), ProbeError> {
    let (mut links, mut made) = (Vec::new(), false);
    for &hook in hooks {
        let id = pair.ids[hook as usize];
        let program = pair.program(hook)?;
        match mode {
            AttachMode::Tcx => links.push((hook, tcx::attach(program, target, hook, None)?)),
            AttachMode::Clsact => match clsact::attach(program, id, target, hook) {
                Ok(qdisc) => made |= qdisc,
                Err(error) => {
                    if hooks.len() > 1 {
                        clsact::detach(target, made)?;
                    }
                    return Err(error);
                }
            },
        }
    }
    Ok((links, made))
}
