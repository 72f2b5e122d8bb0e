//! From one layout to another, upwards or downwards: the links get the programs of this build, which count into maps of
//! this layout, and what the old maps counted is added once as a base. The old pins go last. A crash in between is
//! repaired by the next start, because a record says which layout its base already holds.

use std::{collections::BTreeMap, path::Path, sync::RwLock};

use monitor_ebpf::Counters;

use crate::{
    ledger::{Account, Source, commit},
    sample::AttachMode,
};

use super::{
    Hook, ProbeError, Target,
    abi::{self, SlotRecord},
    adopt::swap,
    pins::Pins,
    store::Store,
    sys,
    table::{self, Chunk, Place, Slot, Table, place, read_lock, write_lock},
    tcx,
    writer::Writer,
};

/// The pins of another layout that this build can read.
struct Old {
    layout: u32,
    pins: Pins,
    store: Store,
    chunks: BTreeMap<u32, Chunk>,
}

/// Carries over what the other layouts hold, and unpins them. A layout is readable when its maps are as ours.
pub(super) fn other_layouts(writer: &mut Writer, table: &RwLock<Table>) -> Result<(), ProbeError> {
    let Some(pin_dir) = writer.pin_dir.clone() else { return Ok(()) };
    let layouts = Pins::other_layouts(&pin_dir)?;
    forget_finished(writer, table, &pin_dir, &layouts)?;
    for layout in layouts {
        let pins = Pins::of(&pin_dir, layout);
        match Old::open(layout, pins.clone(), &pin_dir) {
            Ok(Some(old)) => carry(writer, table, old)?,
            Ok(None) => {}
            Err(error) => log::warn!(
                "{error}; the totals of layout {layout} cannot be read: they are dropped and counting starts anew"
            ),
        }
        pins.wipe()?;
    }
    Ok(())
}

impl Old {
    /// Nothing when it is empty.
    fn open(layout: u32, pins: Pins, pin_dir: &Path) -> Result<Option<Self>, ProbeError> {
        if !pins.in_use() {
            return Ok(None);
        }
        pins.check()?;
        let mut store = Store::open(Some(&pins), Some(pin_dir.to_owned()))?;
        store.redo()?;
        let mut chunks = BTreeMap::new();
        for number in pins.chunks()? {
            chunks.insert(number, table::open_chunk(&pins.chunk(number))?);
        }
        Ok(Some(Self { layout, pins, store, chunks }))
    }

    /// What a slot counted there, its own base included.
    fn counters(&self, id: u64, record: &SlotRecord, target: &Target) -> Result<Counters, ProbeError> {
        let now = match place(id) {
            Place::Chunk { number, index } => {
                let chunk = self.chunks.get(&number);
                let chunk =
                    chunk.ok_or_else(|| ProbeError::failed("read", target, "its chunk is missing"))?;
                table::read(chunk, index, target)?
            }
            Place::Own => table::read(&table::open_chunk(&self.pins.own(id))?, 0, target)?,
        };
        Ok(abi::plus(&now, &record.base))
    }
}

/// Clears the marks of carries that were finished but for that.
fn forget_finished(
    writer: &mut Writer,
    table: &RwLock<Table>,
    pin_dir: &Path,
    layouts: &[u32],
) -> Result<(), ProbeError> {
    let marked: Vec<_> = {
        let table = read_lock(table);
        let slots = table.slots.iter().map(|(id, slot)| (*id, slot.record));
        slots.filter(|(_, record)| record.carried != 0).collect()
    };
    for (id, mut record) in marked {
        let pins = Pins::of(pin_dir, record.carried);
        let pending = layouts.contains(&record.carried)
            && pins.in_use()
            && pins.check().is_ok()
            && Store::open(Some(&pins), None)?.slots()?.iter().any(|(slot, _)| *slot == id);
        if !pending {
            record.carried = 0;
            writer.save(table, id, record)?;
        }
    }
    Ok(())
}

fn carry(writer: &mut Writer, table: &RwLock<Table>, mut old: Old) -> Result<(), ProbeError> {
    let slots = old.store.slots()?;
    log::info!("carrying over layout {}: {} interfaces", old.layout, slots.len());
    for (id, record) in &slots {
        take_links(writer, table, &old, *id, record)?;
    }
    sys::wait_for_programs()
        .map_err(|error| ProbeError::new("wait for running programs", old.layout, &error))?;
    for (id, record) in &slots {
        take_counts(writer, table, &mut old, *id, record)?;
    }
    for (account, netns, counts) in totals(&old)? {
        let mut table = write_lock(table);
        let source = Source::OldTotal(old.layout, account);
        let fold = table.ledger.fold(source, account, &netns, &counts);
        commit(&mut writer.store, &fold)?;
        table.ledger.apply(&fold);
    }
    Ok(())
}

fn totals(old: &Old) -> Result<Vec<(Account, String, crate::sample::Counts)>, ProbeError> {
    let ledger = old.store.ledger()?;
    let namespaces = ledger.namespaces.into_iter();
    let namespaces =
        namespaces.map(|(cookie, retired)| (Account::Netns(cookie), retired.netns, retired.counts));
    Ok(namespaces
        .chain([(Account::Gone, String::new(), ledger.gone), (Account::Other, String::new(), ledger.other)])
        .collect())
}

/// From here on the packets of a slot are counted in this layout.
fn take_links(
    writer: &mut Writer,
    table: &RwLock<Table>,
    old: &Old,
    id: u64,
    from: &SlotRecord,
) -> Result<(), ProbeError> {
    let target = from.target();
    let Some(pins) = writer.pins.clone() else { return Ok(()) };
    let here = read_lock(table).slots.get(&id).map(|slot| slot.target.clone());
    if here.as_ref().is_some_and(|here| !here.is(&target)) {
        // Another interface has the index now, so this one is gone; its counts go to its namespace.
        return Ok(());
    }
    let mut pair = None;
    let mut record = if here.is_some() {
        let table = read_lock(table);
        let slot = &table.slots[&id];
        if slot.own.is_some() {
            pair = Some(writer.loader.inside(Some(pins.own(id)))?);
        }
        slot.record
    } else {
        let (own, made) = writer.make_counters(table, id, &target)?;
        pair = made;
        let mut slot = Slot::new(&target, from.mode(), own);
        slot.record.qdisc = from.qdisc;
        slot.record.summed = from.summed;
        let record = slot.record;
        writer.store.write_slot(id, &record)?;
        write_lock(table).slots.insert(id, slot);
        record
    };
    swap(writer, pair.as_mut(), &old.pins, id, &mut record)?;
    if from.mode() == AttachMode::Tcx {
        for hook in Hook::BOTH {
            let path = pins.link(id, hook);
            match tcx::open(&old.pins.link(id, hook))? {
                Some(link) if !path.exists() => tcx::pin(link, &path)?,
                _ => {}
            }
        }
    }
    writer.save(table, id, record)
}

/// Adds what the old layout counted for a slot to its base here, once.
fn take_counts(
    writer: &mut Writer,
    table: &RwLock<Table>,
    old: &mut Old,
    id: u64,
    from: &SlotRecord,
) -> Result<(), ProbeError> {
    let target = from.target();
    let counters = old.counters(id, from, &target)?;
    let here = read_lock(table).slots.get(&id).filter(|slot| slot.target.is(&target)).map(|slot| slot.record);
    let Some(mut record) = here else {
        let mut table = write_lock(table);
        let counts = abi::counts(&counters, target.side);
        let source = Source::OldInterface(old.layout, id);
        let fold = table.ledger.fold(source, from.account(), &target.netns, &counts);
        commit(&mut writer.store, &fold)?;
        table.ledger.apply(&fold);
        return Ok(());
    };
    if record.carried != old.layout {
        record.base = abi::plus(&record.base, &counters);
        record.carried = old.layout;
        writer.save(table, id, record)?;
    }
    old.store.remove_slot(id)?;
    record.carried = 0;
    writer.save(table, id, record)
}
