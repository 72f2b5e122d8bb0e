//! Taking over what an earlier agent left: its pins are checked, its links get the programs of this build, what has
//! died meanwhile is moved to its namespace.

use std::{
    collections::BTreeSet,
    path::Path,
    sync::{PoisonError, RwLock},
};

use monitor_ebpf::LAYOUT;

use crate::sample::AttachMode;

use super::{
    Hook, Options, ProbeError, Readings, Side, Target,
    abi::SlotRecord,
    carry, clsact,
    load::{Loader, Logger, Pair},
    pins::Pins,
    store::Store,
    table::{self, FIRST_OWN, Own, Slot, Table, read_lock},
    tcx,
    writer::{Writer, within},
};

/// See [`super::Probes::open`].
pub(super) fn open(
    options: Options,
    mode: AttachMode,
) -> Result<(Writer, Table, Option<Logger>), ProbeError> {
    let Options { pin_dir, attach: _, log_level, enter } = options;
    let pins = pin_dir.as_deref().map(Pins::create).transpose()?;
    if let (Some(pins), Some(pin_dir)) = (&pins, &pin_dir) {
        // Never opened unless they are what they should be.
        if let Err(error) = pins.check() {
            log::warn!(
                "{error}; what is pinned here cannot be used: it is unpinned and counting starts anew"
            );
            pins.wipe()?;
            Pins::create(pin_dir)?;
        }
    }
    let mut loader = Loader::new(log_level);
    let (shared, outer, logger) = loader.shared(pins.as_ref())?;
    let mut store = Store::open(pins.as_ref(), pin_dir.clone())?;
    store.redo()?;
    let table = remembered(&store, pins.as_ref())?;
    if let Some(pins) = &pins {
        pins.remove_unclaimed(|id| table.slots.contains_key(&id))?;
    }
    let table = RwLock::new(table);
    let (links, owns) = (Default::default(), Default::default());
    let summed = BTreeSet::new();
    let mut writer = Writer { loader, shared, outer, store, pin_dir, pins, links, owns, enter, mode, summed };
    carry::other_layouts(&mut writer, &table)?;
    adopt_all(&mut writer, &table)?;
    Ok((writer, table.into_inner().unwrap_or_else(PoisonError::into_inner), logger))
}

/// See [`super::look`].
pub(super) fn look(pin_dir: &Path) -> Result<Readings, ProbeError> {
    let pins = Pins::of(pin_dir, LAYOUT);
    if !pins.in_use() {
        return Ok(Readings::default());
    }
    pins.check()?;
    let store = Store::open(Some(&pins), Some(pin_dir.to_owned()))?;
    Ok(remembered(&store, Some(&pins))?.readings())
}

/// See [`super::dead`].
pub(super) fn dead(pin_dir: &Path) -> Result<Vec<Target>, ProbeError> {
    let pins = Pins::of(pin_dir, LAYOUT);
    if !pins.in_use() {
        return Ok(Vec::new());
    }
    pins.check()?;
    let mut found = Vec::new();
    for (id, record) in Store::open(Some(&pins), Some(pin_dir.to_owned()))?.slots()? {
        let target = record.target();
        let mut attached = false;
        for hook in Hook::BOTH {
            attached |= match (record.mode(), target.side) {
                (AttachMode::Tcx, _) => match tcx::open(&pins.link(id, hook))? {
                    Some(link) => tcx::is_on(tcx::info(&link, &target)?, &target, hook)?,
                    None => false,
                },
                (AttachMode::Clsact, Side::HostEnd { ifindex }) => {
                    if_exists(ifindex) && clsact::attached_program(&target, hook)?.is_some()
                }
                (AttachMode::Clsact, Side::Inside { .. }) => true,
            };
        }
        if !attached {
            found.push(target);
        }
    }
    Ok(found)
}

fn if_exists(ifindex: u32) -> bool {
    // nix 0.31 makes an empty name of an index that does not exist.
    nix::net::if_::if_indextoname(ifindex).is_ok_and(|name| !name.is_empty())
}

/// The table as the pinned maps tell it.
fn remembered(store: &Store, pins: Option<&Pins>) -> Result<Table, ProbeError> {
    let mut table = Table { ledger: store.ledger()?, ..Table::default() };
    let Some(pins) = pins else { return Ok(table) };
    for number in pins.chunks()? {
        table.chunks.insert(number, table::open_chunk(&pins.chunk(number))?);
    }
    for (id, record) in store.slots()? {
        let own = (id >= FIRST_OWN).then(|| Own::Pinned(pins.own(id)));
        table.slots.insert(id, Slot { target: record.target(), record, own, serial: table::serial() });
    }
    Ok(table)
}

fn adopt_all(writer: &mut Writer, table: &RwLock<Table>) -> Result<(), ProbeError> {
    let slots: Vec<_> = read_lock(table).slots.iter().map(|(id, slot)| (*id, slot.record)).collect();
    for (id, record) in slots {
        match adopt(writer, table, id, record) {
            Ok([false, false]) => writer.retire(table, id)?,
            Ok(_) => {}
            // Perhaps its namespace cannot be entered now: the agent looks at it again.
            Err(error) => log::warn!("{error}"),
        }
    }
    let chunks: Vec<_> = read_lock(table).chunks.keys().copied().collect();
    chunks.into_iter().try_for_each(|number| writer.free_chunk(table, number))
}

/// Gives the links of one slot the programs of this build; says which of them count.
fn adopt(
    writer: &mut Writer,
    table: &RwLock<Table>,
    id: u64,
    before: SlotRecord,
) -> Result<[bool; 2], ProbeError> {
    let mut record = before;
    let pins = writer.pins.clone();
    let Some(pins) = pins else { return Ok([false, false]) };
    // An instance of the same instructions is as good, and loading one for each interface takes long.
    let mut own = None;
    if id >= FIRST_OWN {
        if writer.loader.inside_tags()? == before.tags {
            return writer.counting(id, &before.target(), &before);
        }
        own = Some(writer.loader.inside(Some(pins.own(id)))?);
    }
    swap(writer, own.as_mut(), &pins, id, &mut record)?;
    if record.programs != before.programs || record.tags != before.tags {
        writer.save(table, id, record)?;
    }
    writer.counting(id, &record.target(), &record)
}

/// Lets the links or filters of a slot, pinned at `pins`, run other programs. No packet is lost or counted twice.
pub(super) fn swap(
    writer: &mut Writer,
    own: Option<&mut Pair>,
    pins: &Pins,
    id: u64,
    record: &mut SlotRecord,
) -> Result<(), ProbeError> {
    let target = record.target();
    let pair = own.unwrap_or(&mut writer.shared);
    let ids = pair.ids;
    record.tags = pair.tags;
    let mut swapped = [false; 2];
    match record.mode() {
        AttachMode::Tcx => {
            for hook in Hook::BOTH {
                let Some(link) = tcx::open(&pins.link(id, hook))? else { continue };
                if tcx::info(&link, &target)?.ifindex == target.ifindex() {
                    drop(tcx::update(pair.program(hook)?, link, &target)?);
                    swapped[hook as usize] = true;
                }
            }
        }
        AttachMode::Clsact => {
            swapped = within(&writer.enter, &target, || {
                let mut swapped = [false; 2];
                for hook in Hook::BOTH {
                    if clsact::attached_program(&target, hook)?.is_some() {
                        clsact::attach(pair.program(hook)?, ids[hook as usize], &target, hook)?;
                        swapped[hook as usize] = true;
                    }
                }
                Ok(swapped)
            })?;
        }
    }
    for hook in Hook::BOTH {
        if swapped[hook as usize] {
            record.programs[hook as usize] = ids[hook as usize];
        }
    }
    Ok(())
}
