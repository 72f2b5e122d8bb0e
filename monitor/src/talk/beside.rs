//! The programs of one opt-in object beside the counting ones: attached to the same hooks, directly behind them, and let
//! go with them. As there, links and maps are pinned and outlive the agent.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use aya::{EbpfLoader, programs::tc::SchedClassifierLink};
use monitor_ebpf::talk::{INSIDE, SLOT, SLOTS_MAP, Slot};

use super::{
    abi::{Records, Wire},
    pins::{Layout, Pins},
};
use crate::{
    probe::{Enter, Hook, Pair, ProbeError, Side, Target, bytes, tcx, text, within},
    topology::names::Cookie,
};

/// Slots below are interface indexes of the host's namespace, those from here on are inside namespaces.
const FIRST_INSIDE: u64 = 1 << 32;

/// See the file's comment.
pub(super) struct Beside {
    layout: Layout,
    pub(super) pins: Pins,
    enter: Enter,
    /// The instance of all host ends; absent for who only lets go.
    shared: Option<Pair>,
    slots: Records<u64, Slot>,
    known: BTreeMap<u64, Slot>,
    /// Interfaces that could not be attached to: said once.
    refused: BTreeSet<String>,
}

impl Beside {
    /// Loads the programs around the pinned maps and gives links that are pinned the programs of this build.
    pub(super) fn open(layout: Layout, pin_dir: &Path, enter: Enter) -> Result<Self, ProbeError> {
        if !tcx::is_supported() {
            return Err(ProbeError::Unsupported {
                call: "attach by TCX",
                object: layout.name.to_owned(),
                why: "the kernel knows no such hook (since 6.6)".to_owned(),
            });
        }
        let pins = Pins::create(&layout, pin_dir)?;
        let shared = load(&layout, &pins, 0, false)?;
        let mut beside = Self::around(layout, pins, enter, Some(shared))?;
        let known: Vec<_> = beside.known.iter().map(|(id, slot)| (*id, *slot)).collect();
        for (id, slot) in known {
            if let Err(error) = beside.renew(id, slot) {
                log::warn!("{error}");
            }
        }
        Ok(beside)
    }

    /// What an earlier life attached, for who attaches nothing: only to let go of what goes. None where there is nothing.
    pub(super) fn adopt(layout: Layout, pin_dir: &Path, enter: Enter) -> Result<Option<Self>, ProbeError> {
        let pins = Pins::of(&layout, pin_dir);
        if !pins.is_complete(&layout) {
            return Ok(None);
        }
        pins.check(&layout)?;
        Self::around(layout, pins, enter, None).map(Some)
    }

    fn around(layout: Layout, pins: Pins, enter: Enter, shared: Option<Pair>) -> Result<Self, ProbeError> {
        let slots: Records<u64, Slot> = pins.open(SLOTS_MAP)?;
        let known = read(&slots)?;
        pins.remove_unclaimed(|id| known.contains_key(&id))?;
        Ok(Self { layout, pins, enter, shared, slots, known, refused: BTreeSet::new() })
    }

    /// Whether this one attaches.
    pub(super) fn attaches(&self) -> bool {
        self.shared.is_some()
    }

    pub(super) fn known(&self) -> &BTreeMap<u64, Slot> {
        &self.known
    }

    /// Slots that none of these interfaces is in.
    pub(super) fn strangers(&self, targets: &[Target]) -> Vec<u64> {
        let is_there = |slot: &Slot| targets.iter().any(|target| is(slot, target));
        self.known.iter().filter(|(_, slot)| !is_there(slot)).map(|(id, _)| *id).collect()
    }

    /// The slot of another interface that had the index of this one.
    pub(super) fn in_the_way(&self, target: &Target) -> Option<u64> {
        let Side::HostEnd { ifindex } = target.side else { return None };
        let id = u64::from(ifindex);
        self.known.get(&id).filter(|slot| !is(slot, target)).map(|_| id)
    }

    /// Attaches to an interface that is not attached to yet, puts back what somebody removed, or takes note of its new
    /// name. `counting` are the programs to attach behind. What is refused is said once. Says whether it attached.
    pub(super) fn attach(&mut self, target: &Target, counting: Option<[u32; 2]>, check: bool) -> bool {
        let outcome = match self.known.iter().find(|(_, slot)| is(slot, target)) {
            None => self.attach_new(target, counting),
            Some((&id, &slot)) => self.keep(id, slot, target, counting, check),
        };
        match outcome {
            Ok(attached) => {
                if attached {
                    self.refused.remove(&target.to_string());
                }
                return attached;
            }
            Err(ProbeError::Gone { .. }) => log::debug!("{target} is gone again"),
            Err(error) => {
                if self.refused.insert(target.to_string()) {
                    log::warn!("{target}: {} are not counted: {error}", self.layout.name);
                }
            }
        }
        false
    }

    fn keep(
        &mut self,
        id: u64,
        slot: Slot,
        target: &Target,
        counting: Option<[u32; 2]>,
        check: bool,
    ) -> Result<bool, ProbeError> {
        let renamed = Slot { interface: bytes(&target.interface), ..slot };
        if renamed != slot {
            self.write(id, renamed)?;
        }
        if check && self.attaches() && !self.is_complete(id, target)? {
            log::info!("{target}: a program of {} was gone, and is put back", self.layout.name);
            self.detach(id, &renamed)?;
            self.attach_hooks(id, target, counting)?;
            return Ok(true);
        }
        Ok(false)
    }

    fn attach_new(&mut self, target: &Target, counting: Option<[u32; 2]>) -> Result<bool, ProbeError> {
        if !self.attaches() {
            return Ok(false);
        }
        let last = self.known.keys().next_back().copied().unwrap_or_default();
        let (id, ifindex, inside) = match target.side {
            Side::HostEnd { ifindex } => (u64::from(ifindex), ifindex, 0),
            Side::Inside { ifindex } => ((last + 1).max(FIRST_INSIDE), ifindex, 1),
        };
        let Cookie(cookie) = target.cookie;
        let interface = bytes(&target.interface);
        self.pins.remove_links(id)?;
        // Before the programs: they find the namespace by it.
        self.write(id, Slot { cookie, tags: [0; 2], ifindex, inside, interface })?;
        let outcome = self.attach_hooks(id, target, counting);
        if outcome.is_err() {
            self.forget(id)?;
        }
        outcome.map(|()| true)
    }

    fn attach_hooks(
        &mut self,
        id: u64,
        target: &Target,
        counting: Option<[u32; 2]>,
    ) -> Result<(), ProbeError> {
        let mut own = match target.side {
            Side::HostEnd { .. } => None,
            Side::Inside { .. } => Some(load(&self.layout, &self.pins, id, true)?),
        };
        let Some(pair) = own.as_mut().or(self.shared.as_mut()) else { return Ok(()) };
        let tags = pair.tags;
        let links = within(&self.enter, target, || {
            let mut links = Vec::new();
            for hook in Hook::BOTH {
                let behind = counting.map(|programs| programs[hook as usize]);
                links.push((hook, attach_behind(pair, target, hook, behind)?));
            }
            Ok(links)
        })?;
        for (hook, link) in links {
            tcx::pin(link, &self.pins.link(id, hook))?;
        }
        match self.known.get(&id) {
            Some(&slot) => self.write(id, Slot { tags, ..slot }),
            None => Ok(()),
        }
    }

    /// Lets the links of a slot run the programs of this build.
    fn renew(&mut self, id: u64, slot: Slot) -> Result<(), ProbeError> {
        let target = target(&slot);
        let mut own = None;
        if slot.inside == 1 {
            // An instance of the same instructions is as good, and loading one for each interface takes long.
            if self.shared.as_ref().is_some_and(|shared| shared.tags == slot.tags) {
                return Ok(());
            }
            own = Some(load(&self.layout, &self.pins, id, true)?);
        }
        let Some(pair) = own.as_mut().or(self.shared.as_mut()) else { return Ok(()) };
        let tags = pair.tags;
        for hook in Hook::BOTH {
            let Some(link) = tcx::open(&self.pins.link(id, hook))? else { continue };
            if tcx::info(&link, &target)?.ifindex == slot.ifindex {
                drop(tcx::update(pair.program(hook)?, link, &target)?);
            }
        }
        self.write(id, Slot { tags, ..slot })
    }

    fn is_complete(&self, id: u64, target: &Target) -> Result<bool, ProbeError> {
        for hook in Hook::BOTH {
            let attached = match tcx::open(&self.pins.link(id, hook))? {
                Some(link) => tcx::is_on(tcx::info(&link, target)?, target, hook)?,
                None => false,
            };
            if !attached {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Detaches; no CPU runs the programs for this interface any more after it.
    pub(super) fn let_go(&mut self, id: u64) -> Result<(), ProbeError> {
        if let Some(slot) = self.known.get(&id).copied() {
            self.detach(id, &slot)?;
        }
        self.forget(id)
    }

    fn detach(&self, id: u64, slot: &Slot) -> Result<(), ProbeError> {
        let target = target(slot);
        for hook in Hook::BOTH {
            if let Some(link) = tcx::open(&self.pins.link(id, hook))? {
                tcx::detach(&link, &target)?;
            }
        }
        self.pins.remove_links(id)
    }

    fn forget(&mut self, id: u64) -> Result<(), ProbeError> {
        self.pins.remove_links(id)?;
        self.known.remove(&id);
        super::absent_is_fine(self.slots.remove(&id))
            .map_err(|error| ProbeError::new("delete from", SLOTS_MAP, &error))
    }

    fn write(&mut self, id: u64, slot: Slot) -> Result<(), ProbeError> {
        let written = self.slots.insert(id, Wire(slot), 0);
        written.map_err(|error| ProbeError::new("write", SLOTS_MAP, &error))?;
        self.known.insert(id, slot);
        Ok(())
    }
}

/// The records as they are pinned.
pub(super) fn read(slots: &Records<u64, Slot>) -> Result<BTreeMap<u64, Slot>, ProbeError> {
    let rows = slots.iter().map(|row| row.map(|(id, Wire(slot))| (id, slot)));
    rows.collect::<Result<_, _>>().map_err(|error| ProbeError::new("read", SLOTS_MAP, &error))
}

/// Behind the counting program; at the head where that one is not there any more.
fn attach_behind(
    pair: &mut Pair,
    target: &Target,
    hook: Hook,
    behind: Option<u32>,
) -> Result<SchedClassifierLink, ProbeError> {
    let program = pair.program(hook)?;
    match tcx::attach(program, target, hook, behind) {
        Err(error) if behind.is_some() && !matches!(error, ProbeError::Gone { .. }) => {
            log::debug!("{target}: not behind the counting program: {error}");
            tcx::attach(program, target, hook, None)
        }
        done => done,
    }
}

fn load(layout: &Layout, pins: &Pins, slot: u64, inside: bool) -> Result<Pair, ProbeError> {
    let inside = u32::from(inside);
    let mut loader = EbpfLoader::new();
    // The programs need nothing of the kernel's types.
    loader.btf(None).override_global(SLOT, &slot, true).override_global(INSIDE, &inside, true);
    for (name, shape) in &layout.maps {
        loader.map_pin_path(name, pins.map(name));
        loader.map_max_entries(name, shape.entries);
    }
    Pair::load(&mut loader, layout.name, layout.object)
}

fn is(slot: &Slot, target: &Target) -> bool {
    let side = match target.side {
        Side::HostEnd { ifindex } => (0, ifindex),
        Side::Inside { ifindex } => (1, ifindex),
    };
    (slot.inside, slot.ifindex) == side && Cookie(slot.cookie) == target.cookie
}

/// Enough of a target to speak of.
fn target(slot: &Slot) -> Target {
    Target {
        cookie: Cookie(slot.cookie),
        netns: format!("cookie {}", slot.cookie),
        interface: text(&slot.interface),
        side: match slot.inside {
            0 => Side::HostEnd { ifindex: slot.ifindex },
            _ => Side::Inside { ifindex: slot.ifindex },
        },
    }
}
