//! Drops as they are read: summed over the CPUs, reasons by name.

use std::collections::BTreeMap;

use aya::maps::{HashMap, MapData, MapError, PerCpuArray};
use monitor_ebpf::trace::{OTHERS, PlaceKey, REST, ReasonKey};

use super::{
    kernel::Reasons as Names,
    moves::{Places, Reasons, Wire},
};
use crate::{probe::ProbeError, topology::names::Cookie};

/// The name of the reason of drops that the tables had no room to tell apart.
pub const REST_NAME: &str = "~rest";

/// Everything counted, at one moment.
#[derive(Clone, Debug, Default)]
pub struct DropReadings {
    /// By namespace that is watched, the host's among them.
    pub namespaces: BTreeMap<Cookie, NetnsDrops>,
    /// Which of them is the host's.
    pub host: Option<Cookie>,
    /// By reason: of namespaces that are not watched, and of packets that neither a device nor a socket gives a namespace.
    pub other: BTreeMap<String, u64>,
    /// By reason: of namespaces that are gone.
    pub gone: BTreeMap<String, u64>,
    /// Drops that the kernel did not show to the program, because it was at work on that CPU already.
    pub missed: u64,
}

/// What one namespace lost.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NetnsDrops {
    /// By reason.
    pub reasons: BTreeMap<String, u64>,
    /// By reason and address in the kernel, as far as the table had room; part of `reasons`.
    pub places: BTreeMap<(String, u64), u64>,
}

/// Entries of the two tables, summed over the CPUs.
pub(super) struct Entries {
    pub(super) places: BTreeMap<PlaceKey, u64>,
    pub(super) reasons: BTreeMap<ReasonKey, u64>,
}

impl Entries {
    /// All that is in the tables. One that is being added may be missed: it is there next time.
    pub(super) fn read(places: &Places, reasons: &Reasons) -> Result<Self, ProbeError> {
        let wrong = |error: MapError| ProbeError::new("read", "drops", &error);
        let sum = |values: aya::maps::PerCpuValues<u64>| values.iter().sum::<u64>();
        // Into maps by key: whatever an iteration beside inserts does, nothing is there twice.
        let places = places.iter().map(|entry| entry.map(|(Wire(key), values)| (key, sum(values))));
        let reasons = reasons.iter().map(|entry| entry.map(|(Wire(key), values)| (key, sum(values))));
        Ok(Self {
            places: places.collect::<Result<_, _>>().map_err(wrong)?,
            reasons: reasons.collect::<Result<_, _>>().map_err(wrong)?,
        })
    }

    /// By namespace; those that are `watched` even where they lost nothing.
    pub(super) fn named(
        self,
        watched: impl Iterator<Item = u64>,
        names: &Names,
    ) -> BTreeMap<Cookie, NetnsDrops> {
        let mut namespaces: BTreeMap<Cookie, NetnsDrops> =
            watched.map(|number| (Cookie(number), NetnsDrops::default())).collect();
        for (PlaceKey { netns, location, reason, .. }, count) in self.places {
            let drops = namespaces.entry(Cookie(netns)).or_default();
            let name = name(names, reason);
            *drops.reasons.entry(name.clone()).or_default() += count;
            *drops.places.entry((name, location)).or_default() += count;
        }
        for (ReasonKey { netns, reason, .. }, count) in self.reasons {
            let drops = namespaces.entry(Cookie(netns)).or_default();
            // The entry for the rest is there from the start.
            if count > 0 || reason != REST {
                *drops.reasons.entry(name(names, reason)).or_default() += count;
            }
        }
        namespaces
    }
}

/// Drops of no watched namespace. All reasons of subsystems are one number there.
pub(super) fn other(
    map: &PerCpuArray<MapData, u64>,
    names: &Names,
) -> Result<BTreeMap<String, u64>, ProbeError> {
    let mut found = BTreeMap::new();
    for reason in 0..OTHERS as u32 {
        let values =
            map.get(&reason, 0).map_err(|error| ProbeError::new("read", "drops of others", &error))?;
        let sum: u64 = values.iter().sum();
        if sum > 0 {
            let last = reason == OTHERS as u32 - 1;
            found.insert(if last { REST_NAME.to_owned() } else { name(names, reason) }, sum);
        }
    }
    Ok(found)
}

/// Drops of namespaces that are gone.
pub(super) fn gone(
    map: &HashMap<MapData, u32, u64>,
    names: &Names,
) -> Result<BTreeMap<String, u64>, ProbeError> {
    let entries = map.iter().map(|entry| entry.map(|(reason, count)| (name(names, reason), count)));
    let entries: Result<BTreeMap<_, _>, _> = entries.collect();
    let mut found = entries.map_err(|error| ProbeError::new("read", "drops of what is gone", &error))?;
    found.retain(|_, count| *count > 0);
    Ok(found)
}

fn name(names: &Names, reason: u32) -> String {
    if reason == REST { REST_NAME.to_owned() } else { names.name(reason) }
}
