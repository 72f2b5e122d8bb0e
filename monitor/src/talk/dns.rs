//! DNS by namespace: queries, answers by code, latencies.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use aya::maps::MapType;
use monitor_ebpf::talk::{
    DNS_LAYOUT, DNS_MAP, DnsCounters, DnsKey, DnsRole, PENDING, PENDING_MAP, RoleKey, SLOTS, SLOTS_MAP,
};

use super::{
    abi::{self, Counters, Wire},
    absent_is_fine,
    beside::Beside,
    pins::{Layout, Pins},
};
use crate::{
    probe::{Enter, ProbeError, Shape, Target, object},
    topology::names::Cookie,
};

pub(super) const NAME: &str = "dns";
/// `BPF_F_NO_PREALLOC`: memory follows the entries, which user space alone inserts.
const NO_PREALLOC: u32 = 1;

pub(super) struct Dns {
    beside: Beside,
    counters: Counters<Wire<RoleKey>, DnsRole>,
}

fn layout() -> Layout {
    let shape = |kind, key: usize, value: usize, entries: usize, flags| Shape {
        kind,
        key: key as u32,
        value: value as u32,
        entries: entries as u32,
        flags,
    };
    Layout {
        name: NAME,
        version: DNS_LAYOUT,
        object: object::DNS,
        maps: vec![
            (SLOTS_MAP, super::slots()),
            (
                DNS_MAP,
                shape(
                    MapType::PerCpuHash,
                    size_of::<RoleKey>(),
                    size_of::<DnsRole>(),
                    2 * SLOTS,
                    NO_PREALLOC,
                ),
            ),
            (PENDING_MAP, shape(MapType::LruHash, size_of::<DnsKey>(), 8, PENDING, 0)),
        ],
    }
}

impl Dns {
    pub(super) fn open(pin_dir: &Path, enter: Enter) -> Result<Self, ProbeError> {
        Self::around(Beside::open(layout(), pin_dir, enter)?)
    }

    pub(super) fn adopt(pin_dir: &Path, enter: Enter) -> Result<Option<Self>, ProbeError> {
        Beside::adopt(layout(), pin_dir, enter)?.map(Self::around).transpose()
    }

    fn around(beside: Beside) -> Result<Self, ProbeError> {
        let counters = beside.pins.open(DNS_MAP)?;
        Ok(Self { beside, counters })
    }

    pub(super) fn attach(
        &mut self,
        target: &Target,
        counting: Option<[u32; 2]>,
        check: bool,
    ) -> Result<bool, ProbeError> {
        if let Some(id) = self.beside.in_the_way(target) {
            self.beside.let_go(id)?;
        }
        if self.beside.attaches() {
            for key in keys(target.cookie) {
                abi::ensure(&mut self.counters, DNS_MAP, key)?;
            }
        }
        Ok(self.beside.attach(target, counting, check))
    }

    /// Lets go of interfaces that are not among these, and of the counts of namespaces that are gone.
    pub(super) fn follow(&mut self, targets: &[Target], live: &BTreeSet<Cookie>) -> Result<(), ProbeError> {
        for id in self.beside.strangers(targets) {
            self.beside.let_go(id)?;
        }
        let used: BTreeSet<Cookie> = self.beside.known().values().map(|slot| Cookie(slot.cookie)).collect();
        let gone = self.read()?.into_keys().filter(|cookie| !live.contains(cookie) && !used.contains(cookie));
        for key in gone.flat_map(keys) {
            absent_is_fine(self.counters.remove(&key))
                .map_err(|error| ProbeError::new("delete from", DNS_MAP, &error))?;
        }
        Ok(())
    }

    pub(super) fn read(&self) -> Result<BTreeMap<Cookie, DnsCounters>, ProbeError> {
        read(&self.counters)
    }
}

/// See [`super::look_dns`].
pub(super) fn look(pin_dir: &Path) -> Result<Option<BTreeMap<Cookie, DnsCounters>>, ProbeError> {
    let layout = layout();
    let pins = Pins::of(&layout, pin_dir);
    if !pins.is_complete(&layout) {
        return Ok(None);
    }
    pins.check(&layout)?;
    read(&pins.open(DNS_MAP)?).map(Some)
}

/// Both roles.
fn keys(Cookie(cookie): Cookie) -> [Wire<RoleKey>; 2] {
    [0, 1].map(|server| Wire(RoleKey { cookie, server }))
}

fn read(counters: &Counters<Wire<RoleKey>, DnsRole>) -> Result<BTreeMap<Cookie, DnsCounters>, ProbeError> {
    let mut found: BTreeMap<Cookie, DnsCounters> = BTreeMap::new();
    for row in counters.iter() {
        let (Wire(key), values) = row.map_err(|error| ProbeError::new("read", DNS_MAP, &error))?;
        let counters = found.entry(Cookie(key.cookie)).or_default();
        let role = if key.server == 1 { &mut counters.server } else { &mut counters.client };
        *role = abi::role(values.iter().map(|Wire(role)| role));
    }
    Ok(found)
}
