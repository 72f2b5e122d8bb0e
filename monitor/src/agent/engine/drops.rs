//! The drop program beside the passes: which namespaces it watches, and what it has counted.

use std::{collections::BTreeMap, fs, sync::PoisonError};

use tracing::{debug, warn};

use super::{Engine, Look, pins};
use crate::{
    agent::Failure,
    netns,
    topology::names::Cookie,
    trace::{self, DropReadings, Drops, Kernel, TraceError},
};

impl Engine {
    /// Loads the program, or adopts what an earlier life attached, once. Where that cannot be, the log says why, and the
    /// rest works.
    pub(super) fn count_drops(&self) {
        if self.host.attach.is_none() {
            return;
        }
        let open = || match self.host.drops {
            true => self.open_drops().map(Some),
            // What an earlier life pinned would go on at each packet that is dropped.
            false => self.forget_drops().map(|()| None),
        };
        self.drops.get_or_init(|| match open() {
            Ok(drops) => drops,
            Err(error) => {
                warn!("drops are not counted: {error:#}");
                None
            }
        });
    }

    fn open_drops(&self) -> anyhow::Result<Drops> {
        let netns::Identity { cookie, inode } = netns::own_identity()?;
        Ok(Drops::open(self.pin_dir.as_deref(), (cookie, inode))?)
    }

    /// Watches every namespace that was seen; those of interfaces that are counted stay watched, also when nothing shows them.
    pub(super) fn watch_drops(&self, counted: impl Iterator<Item = Cookie>) -> anyhow::Result<()> {
        let Some(Some(drops)) = self.drops.get() else { return Ok(()) };
        let watched = self.watched();
        let mut seen: BTreeMap<Cookie, u64> =
            self.named.lock().unwrap_or_else(PoisonError::into_inner).clone();
        seen.extend(watched.namespaces.iter().map(|netns| (netns.cookie, netns.inode)));
        // Those that are summed are not told apart by the program either.
        seen.retain(|cookie, _| !watched.cut.contains(cookie));
        Ok(drops.watch(&seen, &counted.filter(|cookie| !watched.cut.contains(cookie)).collect())?)
    }

    /// Drops counted until now; absent where nothing counts them.
    pub fn drops(&self) -> Option<DropReadings> {
        let read = self.drops.get()?.as_ref()?.read();
        read.inspect_err(|error| warn!("drops are not shown: {error}")).ok()
    }

    /// Takes the program and its counts away, also those of an earlier life.
    pub(super) fn forget_drops(&self) -> anyhow::Result<()> {
        let Some(pin_dir) = &self.pin_dir else { return Ok(()) };
        trace::remove(pin_dir)?;
        // Where nothing else is pinned. What else there is goes with its own room.
        if let Err(error) = fs::remove_dir(pin_dir) {
            debug!("{} stays: {error}", pin_dir.display());
        }
        Ok(())
    }
}

impl Look {
    /// What is pinned of drops; absent where nothing is. Changes nothing.
    ///
    /// # Errors
    /// The kernel's types cannot be read; what is pinned cannot be.
    pub fn drops(&self) -> Result<Option<DropReadings>, Failure> {
        let Some(dir) = pins(&self.host) else { return Ok(None) };
        let kernel = Kernel::running().map_err(TraceError::from);
        let kernel = kernel.map_err(|error| Failure::Missing(format!("drops cannot be told: {error}")))?;
        let mut readings = trace::look(&dir, kernel.reasons()).map_err(anyhow::Error::from)?;
        if let Some(readings) = &mut readings {
            readings.host = Some(netns::own_identity().map_err(anyhow::Error::from)?.cookie);
        }
        Ok(readings)
    }
}
