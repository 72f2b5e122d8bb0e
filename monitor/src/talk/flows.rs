//! Flows: what each conversation of a namespace came to, which of them fall out of the table, and what they had counted.

use std::{
    collections::{BTreeMap, BTreeSet},
    iter,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    os::fd::AsFd as _,
    path::Path,
    time::{Duration, Instant},
};

use aya::maps::{IterableMap as _, MapType};
use monitor_ebpf::talk::{
    FLOWS, FLOWS_LAYOUT, FLOWS_MAP, Flow, FlowKey, NO_ROOM_MAP, SLOTS, SLOTS_MAP, Slot, Talked,
};
use nix::time::{ClockId, clock_gettime};

use super::{
    abi::{self, Counters, Fell, Records, Wire},
    absent_is_fine,
    beside::{self, Beside},
    pins::{Layout, Pins},
};
use crate::{
    probe::{Enter, ProbeError, Shape, Target, object, take_element, text},
    topology::names::Cookie,
};

pub(super) const NAME: &str = "flows";
const FELL: &str = "FELL";
/// `BPF_F_NO_PREALLOC`: memory follows the entries. Only for maps that user space alone inserts into.
const NO_PREALLOC: u32 = 1;

/// Room is made when the table is fuller than this (of four quarters), until it is as full as that.
const FULL: usize = 3;
const ENOUGH: usize = 2;
/// A flow that had a packet within this time never falls out.
const QUIET: Duration = Duration::from_secs(10);
/// Looking for what to throw out reads the whole table: not more often than this.
const SWEEP: Duration = Duration::from_secs(5);

/// One conversation, as the namespace sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conversation {
    /// The namespace.
    pub cookie: Cookie,
    /// Its interface.
    pub interface: String,
    /// IP protocol number.
    pub protocol: u8,
    /// The namespace's address and port; the port is 0 where there is none.
    pub local: (IpAddr, u16),
    /// The other's.
    pub remote: (IpAddr, u16),
    /// What was counted.
    pub talked: Talked,
    /// Since its first packet.
    pub age: Duration,
    /// Since its last one.
    pub idle: Duration,
}

/// Everything in the table, and what is not.
#[derive(Clone, Debug, Default)]
pub struct FlowReadings {
    /// How many flows there is room for, of all namespaces together.
    pub room: u32,
    /// How many there are.
    pub used: usize,
    /// They.
    pub flows: Vec<Conversation>,
    /// What fell out, by namespace.
    pub fell: BTreeMap<Cookie, Fell>,
    /// What found no room, by namespace.
    pub no_room: BTreeMap<Cookie, Talked>,
}

pub(super) struct Flows {
    beside: Beside,
    flows: Counters<Wire<FlowKey>, Flow>,
    no_room: Counters<u64, Talked>,
    fell: Records<u64, Fell>,
    room: u32,
    swept: Option<Instant>,
}

/// The object with a table of so many entries.
fn layout(room: u32) -> Layout {
    let per_cpu = |key: usize, value: usize, entries: u32, flags| Shape {
        kind: MapType::PerCpuHash,
        key: key as u32,
        value: value as u32,
        entries,
        flags,
    };
    Layout {
        name: NAME,
        version: FLOWS_LAYOUT,
        object: object::FLOWS,
        maps: vec![
            (SLOTS_MAP, super::slots()),
            (FLOWS_MAP, per_cpu(size_of::<FlowKey>(), size_of::<Flow>(), room, 0)),
            (NO_ROOM_MAP, per_cpu(8, size_of::<Talked>(), SLOTS as u32, NO_PREALLOC)),
        ],
    }
}

/// The layout as it is pinned, whatever its size.
fn pinned(pin_dir: &Path) -> Result<Option<(Layout, Pins)>, ProbeError> {
    let pins = Pins::of(&layout(FLOWS as u32), pin_dir);
    if !pins.is_complete(&layout(FLOWS as u32)) {
        return Ok(None);
    }
    let layout = layout(pins.entries(FLOWS_MAP)?);
    pins.check(&layout)?;
    Ok(Some((layout, pins)))
}

impl Flows {
    pub(super) fn open(room: u32, pin_dir: &Path, enter: Enter) -> Result<Self, ProbeError> {
        Self::around(Beside::open(layout(room), pin_dir, enter)?)
    }

    pub(super) fn adopt(pin_dir: &Path, enter: Enter) -> Result<Option<Self>, ProbeError> {
        let Some((layout, _)) = pinned(pin_dir)? else { return Ok(None) };
        Beside::adopt(layout, pin_dir, enter)?.map(Self::around).transpose()
    }

    fn around(beside: Beside) -> Result<Self, ProbeError> {
        let pins = &beside.pins;
        let fell = super::records(pins, FELL, SLOTS as u32)?;
        let (flows, no_room) = (pins.open(FLOWS_MAP)?, pins.open(NO_ROOM_MAP)?);
        let room = pins.entries(FLOWS_MAP)?;
        let new = Self { beside, flows, no_room, fell, room, swept: None };
        // Left by an agent that was killed in letting go of an interface: whose they were is not known any more.
        let stray: Vec<_> = read(&new.flows)?.into_keys().collect();
        for key in stray.into_iter().filter(|key| !new.beside.known().contains_key(&key.slot)) {
            new.take(&key)?;
        }
        Ok(new)
    }

    pub(super) fn attach(
        &mut self,
        target: &Target,
        counting: Option<[u32; 2]>,
        check: bool,
    ) -> Result<bool, ProbeError> {
        if let Some(id) = self.beside.in_the_way(target) {
            self.let_go(&[id])?;
        }
        if self.beside.attaches() {
            abi::ensure(&mut self.no_room, NO_ROOM_MAP, target.cookie.0)?;
        }
        Ok(self.beside.attach(target, counting, check))
    }

    /// Lets go of interfaces that are not among these, and of the rest of namespaces that are gone; makes room.
    pub(super) fn follow(&mut self, targets: &[Target], live: &BTreeSet<Cookie>) -> Result<(), ProbeError> {
        let strangers = self.beside.strangers(targets);
        self.let_go(&strangers)?;
        let used: BTreeSet<u64> = self.beside.known().values().map(|slot| slot.cookie).collect();
        let is_gone = |cookie: &u64| !live.contains(&Cookie(*cookie)) && !used.contains(cookie);
        for cookie in keys(self.no_room.keys(), NO_ROOM_MAP)?.into_iter().filter(is_gone) {
            absent_is_fine(self.no_room.remove(&cookie))
                .map_err(|error| ProbeError::new("delete from", NO_ROOM_MAP, &error))?;
        }
        for cookie in keys(self.fell.keys(), FELL)?.into_iter().filter(is_gone) {
            absent_is_fine(self.fell.remove(&cookie))
                .map_err(|error| ProbeError::new("delete from", FELL, &error))?;
        }
        self.sweep()
    }

    fn let_go(&mut self, slots: &[u64]) -> Result<(), ProbeError> {
        if slots.is_empty() {
            return Ok(());
        }
        let mut namespaces = BTreeMap::new();
        for &id in slots {
            let slot = self.beside.known().get(&id).copied();
            self.beside.let_go(id)?;
            namespaces.extend(slot.map(|slot| (id, slot)));
        }
        let keys: Vec<_> = read(&self.flows)?.into_keys().filter(|key| slots.contains(&key.slot)).collect();
        self.throw_out(&keys, &namespaces)
    }

    fn sweep(&mut self) -> Result<(), ProbeError> {
        let due = self.swept.is_none_or(|swept| swept.elapsed() >= SWEEP);
        if !due || !self.beside.attaches() {
            return Ok(());
        }
        self.swept = Some(Instant::now());
        let flows = read(&self.flows)?.into_iter().map(|(key, flow)| (flow.last, key)).collect();
        let keys = excess(flows, self.room as usize, now()?);
        let slots = self.beside.known().clone();
        self.throw_out(&keys, &slots)
    }

    /// Takes flows out of the table; what they had counted goes to what fell out of their namespace.
    fn throw_out(&mut self, keys: &[FlowKey], slots: &BTreeMap<u64, Slot>) -> Result<(), ProbeError> {
        let mut out: BTreeMap<u64, Fell> = BTreeMap::new();
        for key in keys {
            let (Some(flow), Some(slot)) = (self.take(key)?, slots.get(&key.slot)) else { continue };
            let fell = out.entry(slot.cookie).or_default();
            fell.flows += 1;
            fell.talked = abi::talked([&fell.talked, &flow.talked]);
        }
        for (cookie, more) in out {
            let Wire(before) = self.fell.get(&cookie, 0).unwrap_or(Wire(Fell::default()));
            let after = Fell {
                flows: before.flows + more.flows,
                talked: abi::talked([&before.talked, &more.talked]),
            };
            let written = self.fell.insert(cookie, Wire(after), 0);
            written.map_err(|error| ProbeError::new("write", FELL, &error))?;
        }
        Ok(())
    }

    /// What a flow had counted at the moment it went.
    fn take(&self, key: &FlowKey) -> Result<Option<Flow>, ProbeError> {
        const WORDS: usize = size_of::<Flow>() / 8;
        let mut words = vec![0; WORDS * abi::cpus()?];
        let taken = take_element(self.flows.map().fd().as_fd(), key, &mut words);
        let taken = taken.map_err(|error| ProbeError::new("delete from", FLOWS_MAP, &error))?;
        let values: Vec<_> = words.as_chunks::<WORDS>().0.iter().map(abi::flow_of_words).collect();
        Ok(taken.then(|| abi::flow(&values)))
    }
}

/// Which flows make room: those that are quiet for longest. In order of time, so that equals are taken alike.
fn excess(mut flows: Vec<(u64, FlowKey)>, room: usize, now: u64) -> Vec<FlowKey> {
    if flows.len() * 4 <= room * FULL {
        return Vec::new();
    }
    flows.sort_unstable();
    let before = now.saturating_sub(QUIET.as_nanos() as u64);
    let most = flows.len() - room * ENOUGH / 4;
    flows.into_iter().take(most).take_while(|(last, _)| *last < before).map(|(_, key)| key).collect()
}

/// See [`super::look`].
pub(super) fn look(pin_dir: &Path) -> Result<Option<FlowReadings>, ProbeError> {
    let Some((_, pins)) = pinned(pin_dir)? else { return Ok(None) };
    let slots = beside::read(&pins.open(SLOTS_MAP)?)?;
    // What falls out between the readings is told twice rather than never.
    let flows = read(&pins.open(FLOWS_MAP)?)?;
    let (no_room, fell): (Counters<u64, Talked>, Option<Records<u64, Fell>>) =
        (pins.open(NO_ROOM_MAP)?, pins.map(FELL).exists().then(|| pins.open(FELL)).transpose()?);
    let now = now()?;
    let mut readings =
        FlowReadings { room: pins.entries(FLOWS_MAP)?, used: flows.len(), ..Default::default() };
    for (key, flow) in flows {
        // Of an interface that is just let go of.
        let Some(slot) = slots.get(&key.slot) else { continue };
        readings.flows.push(conversation(&key, slot, &flow, now));
    }
    for row in no_room.iter() {
        let (cookie, values) = row.map_err(|error| ProbeError::new("read", NO_ROOM_MAP, &error))?;
        readings.no_room.insert(Cookie(cookie), abi::talked(values.iter().map(|Wire(talked)| talked)));
    }
    for row in fell.iter().flat_map(|fell| fell.iter()) {
        let (cookie, Wire(fell)) = row.map_err(|error| ProbeError::new("read", FELL, &error))?;
        readings.fell.insert(Cookie(cookie), fell);
    }
    Ok(Some(readings))
}

fn conversation(key: &FlowKey, slot: &Slot, flow: &Flow, now: u64) -> Conversation {
    let since = |then: u64| Duration::from_nanos(now.saturating_sub(then));
    Conversation {
        cookie: Cookie(slot.cookie),
        interface: text(&slot.interface),
        protocol: key.protocol,
        local: (address(key.family, key.local), u16::from_be(key.local_port)),
        remote: (address(key.family, key.remote), u16::from_be(key.remote_port)),
        talked: flow.talked,
        age: since(flow.first),
        idle: since(flow.last),
    }
}

fn address(family: u8, words: [u16; 8]) -> IpAddr {
    let mut bytes = [0; 16];
    for (bytes, word) in iter::zip(bytes.as_chunks_mut::<2>().0, words) {
        *bytes = word.to_ne_bytes();
    }
    match family {
        4 => Ipv4Addr::new(bytes[0], bytes[1], bytes[2], bytes[3]).into(),
        _ => Ipv6Addr::from(bytes).into(),
    }
}

/// All that is in the table, by key: whatever is inserted or deleted meanwhile, nothing is there twice.
fn read(flows: &Counters<Wire<FlowKey>, Flow>) -> Result<BTreeMap<FlowKey, Flow>, ProbeError> {
    let rows = flows
        .iter()
        .map(|row| row.map(|(Wire(key), values)| (key, abi::flow(values.iter().map(|Wire(flow)| flow)))));
    rows.collect::<Result<_, _>>().map_err(|error| ProbeError::new("read", FLOWS_MAP, &error))
}

fn keys(
    keys: impl Iterator<Item = Result<u64, aya::maps::MapError>>,
    name: &'static str,
) -> Result<Vec<u64>, ProbeError> {
    keys.collect::<Result<_, _>>().map_err(|error| ProbeError::new("read", name, &error))
}

/// The clock of the programs.
fn now() -> Result<u64, ProbeError> {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC_COARSE);
    let now = now.map_err(|error| ProbeError::new("read", "CLOCK_MONOTONIC_COARSE", &error))?;
    Ok(Duration::from(now).as_nanos() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flows(lasts: &[u64]) -> Vec<(u64, FlowKey)> {
        let key = |(slot, &last): (usize, &u64)| (last, FlowKey { slot: slot as u64, ..FlowKey::default() });
        lasts.iter().enumerate().map(key).collect()
    }

    #[test]
    fn room_is_made_by_those_quiet_for_longest_and_never_by_who_talks() {
        let second = 1_000_000_000;
        let slots = |lasts: &[u64], room| -> Vec<u64> {
            let lasts: Vec<_> = lasts.iter().map(|last| last * second).collect();
            excess(flows(&lasts), room, 100 * second).iter().map(|key| key.slot).collect()
        };
        assert_eq!(slots(&[1, 2, 3, 4, 5, 6], 8), [] as [u64; 0], "three quarters are not too many");
        assert_eq!(slots(&[7, 3, 4, 2, 5, 6, 99], 8), [3, 1, 2], "until half is left");
        assert_eq!(slots(&[95, 3, 96, 99, 99, 99, 98], 8), [1], "within ten seconds is now");
        assert_eq!(slots(&[99; 8], 8), [] as [u64; 0]);
    }

    #[test]
    fn addresses_read_as_they_lie_in_the_packet() {
        let mut words = [0; 8];
        words[0] = u16::from_ne_bytes([192, 0]);
        words[1] = u16::from_ne_bytes([2, 7]);
        assert_eq!(address(4, words).to_string(), "192.0.2.7");
        words[7] = u16::from_ne_bytes([0, 9]);
        assert_eq!(address(6, words).to_string(), "c000:207::9");
    }
}
