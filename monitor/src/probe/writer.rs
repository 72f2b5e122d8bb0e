//! Everything that changes what is counted. One at a time: [`super::Probes`] holds the writer behind a lock; the table
//! that scrapes read is locked only for the moments in which a count moves.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    sync::RwLock,
};

use aya::{
    maps::{ArrayOfMaps, Map},
    programs::tc::SchedClassifierLink,
};

use crate::{
    ledger::{Account, Source, commit},
    sample::AttachMode,
    topology::names::Cookie,
};

use super::{
    Enter, Hook, ProbeError, Side, Target,
    abi::SlotRecord,
    clsact,
    load::{Loader, Pair, own_map},
    pins::{self, Pins},
    store::Store,
    sys,
    table::{self, Chunk, Own, Place, Slot, Table, place, read_lock, write_lock},
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
}

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
        let Some(info) = info.filter(|info| info.ifindex == target.ifindex() && info.program == program)
        else {
            return Ok(false);
        };
        match target.side {
            // Links follow an interface into another namespace, where it may keep its index.
            Side::HostEnd { ifindex } => match sys::tcx_links(ifindex, hook) {
                Ok(links) => Ok(links.contains(&info.id)),
                Err(error) if error.raw_os_error() == Some(libc::ENODEV) => Ok(false),
                Err(error) => Err(ProbeError::new("list the TCX links", tcx::at(target, hook), &error)),
            },
            Side::Inside { .. } => Ok(true),
        }
    }

    fn with_link<R>(
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

    fn attach_new(&mut self, table: &RwLock<Table>, id: u64, target: &Target) -> Result<(), ProbeError> {
        if let Some(pins) = &self.pins {
            pins.remove_slot(id)?;
        }
        let (own, mut pair) = self.make_counters(table, id, target)?;
        let mut slot = Slot::new(target, self.mode, own);
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
        let chunk = Chunk::create(monitor_ebpf::CHUNK_SLOTS, 0).map_err(wrong)?;
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
            let account = Account::Netns(target.cookie);
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
            let Some(fold) = table.ledger.fold_netns(cookie) else { continue };
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
    fn forget(&mut self, table: &RwLock<Table>, id: u64) -> Result<(), ProbeError> {
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
        match sys::delete_element(std::os::fd::AsFd::as_fd(outer.fd()), number) {
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
            AttachMode::Tcx => links.push((hook, tcx::attach(program, target, hook)?)),
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

/// Runs something in the namespace where a target's interface is.
pub(super) fn within<R: Send>(
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
