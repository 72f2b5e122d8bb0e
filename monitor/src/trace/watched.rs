//! Which namespaces a tracing program counts by name: begun as they are seen, and folded into the total of what is gone
//! once nothing leads to them any more.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Mutex, PoisonError, RwLock, RwLockReadGuard},
};

use aya::maps::{HashMap, MapData};
use monitor_ebpf::trace::{NetnsKey, WATCHED_MAP};

use super::moves::{Wire, absent_is_fine};
use crate::{
    probe::{ProbeError, wait_for_programs},
    topology::names::Cookie,
};

/// The numbers that counts may be under, with the key they are watched by; a number without one is of a namespace that an
/// agent was killed in retiring.
pub(super) type Known = BTreeMap<u64, Option<NetnsKey>>;

/// The map of namespaces that are watched, with the number each is counted by.
pub(super) type Rows = HashMap<MapData, Wire<NetnsKey>, u64>;

/// What is counted, by the number of a namespace.
pub(super) trait Counted {
    /// Namespaces that are watched.
    fn rows(&mut self) -> &mut Rows;

    /// Makes room for what will be counted under a number.
    fn begin(&mut self, number: u64) -> Result<(), ProbeError>;

    /// Moves all counts under these numbers to the total of what is gone.
    fn fold(&mut self, dead: &BTreeSet<u64>) -> Result<(), ProbeError>;
}

/// The tables of one object, and which namespaces they are about.
pub(super) struct Watching<T> {
    /// Whoever changes which namespaces are watched holds this, through a grace period.
    writer: Mutex<Known>,
    /// What a scrape reads; held for writing only while counts move.
    tables: RwLock<T>,
    /// Namespaces are told apart by cookie.
    by_cookie: bool,
    host: Cookie,
}

impl<T: Counted> Watching<T> {
    /// Watches the host's namespace, whose identity is given, and those known from before.
    pub(super) fn new(
        tables: T,
        known: Known,
        by_cookie: bool,
        host: (Cookie, u64),
    ) -> Result<Self, ProbeError> {
        let watching =
            Self { writer: Mutex::new(known), tables: RwLock::new(tables), by_cookie, host: host.0 };
        watching.add(&[host].into())?;
        Ok(watching)
    }

    pub(super) const fn host(&self) -> Cookie {
        self.host
    }

    pub(super) fn tables(&self) -> RwLockReadGuard<'_, T> {
        self.tables.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Watches these namespaces (cookie, inode) from now on, and moves the counts of those that are neither among them nor
    /// in `alive` to the total of what is gone. Where nothing has changed this asks nothing of the kernel.
    pub(super) fn watch(
        &self,
        namespaces: &BTreeMap<Cookie, u64>,
        alive: &BTreeSet<Cookie>,
    ) -> Result<(), ProbeError> {
        self.add(namespaces)?;
        self.retire(|cookie| {
            cookie == self.host || namespaces.contains_key(&cookie) || alive.contains(&cookie)
        })
    }

    fn add(&self, namespaces: &BTreeMap<Cookie, u64>) -> Result<(), ProbeError> {
        let mut known = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        for (&Cookie(cookie), &inode) in namespaces {
            let key =
                NetnsKey { cookie: if self.by_cookie { cookie } else { 0 }, inum: inode as u32, reserved: 0 };
            if known.get(&cookie) == Some(&Some(key)) {
                continue;
            }
            let mut tables = self.tables.write().unwrap_or_else(PoisonError::into_inner);
            tables.begin(cookie)?;
            tables
                .rows()
                .insert(Wire(key), cookie, 0)
                .map_err(|error| ProbeError::new("write", WATCHED_MAP, &error))?;
            known.insert(cookie, Some(key));
        }
        Ok(())
    }

    fn retire(&self, lives: impl Fn(Cookie) -> bool) -> Result<(), ProbeError> {
        let mut known = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let dead: BTreeSet<u64> = known.keys().copied().filter(|number| !lives(Cookie(*number))).collect();
        if dead.is_empty() {
            return Ok(());
        }
        let write = || self.tables.write().unwrap_or_else(PoisonError::into_inner);
        for key in dead.iter().filter_map(|number| known.get(number).copied().flatten()) {
            absent_is_fine(write().rows().remove(&Wire(key)))
                .map_err(|error| ProbeError::new("delete from", WATCHED_MAP, &error))?;
        }
        // No program still counts for one of them after this.
        wait_for_programs().map_err(|error| {
            ProbeError::new("wait for running programs", "namespaces that are gone", &error)
        })?;
        write().fold(&dead)?;
        known.retain(|number, _| !dead.contains(number));
        Ok(())
    }
}

/// The numbers of all namespaces that are watched, with their keys.
pub(super) fn numbers(rows: &Rows) -> Result<BTreeMap<u64, NetnsKey>, ProbeError> {
    let rows = rows.iter().map(|row| row.map(|(Wire(key), number)| (number, key)));
    rows.collect::<Result<_, _>>().map_err(|error| ProbeError::new("read", WATCHED_MAP, &error))
}
