//! The tracing programs beside the passes: which namespaces they watch, and what they have counted.

use std::{collections::BTreeMap, fs, sync::PoisonError};

use tracing::{debug, warn};

use super::{Engine, Look, pins};
use crate::{
    agent::Failure,
    netns,
    topology::names::Cookie,
    trace::{self, Btf, DropReadings, Drops, Kernel, Missing, Tcp, TcpReadings, TraceError},
};

impl Engine {
    /// Loads the programs, or adopts what an earlier life attached, once. Where that cannot be, the log says why, and the
    /// rest works.
    pub(super) fn count_by_tracing(&self) {
        if self.host.attach.is_none() {
            return;
        }
        if self.drops.get().is_some() && self.tcp.get().is_some() {
            return;
        }
        let btf = Btf::running();
        self.drops.get_or_init(|| match self.open_drops(&btf) {
            Ok(drops) => drops,
            Err(error) => {
                warn!("drops are not counted: {error:#}");
                None
            }
        });
        self.tcp.get_or_init(|| match self.open_tcp(&btf) {
            Ok(None) => None,
            Ok(Some(tcp)) => {
                if !tcp.missing().is_empty() {
                    let missing = tcp.missing().join(", ");
                    warn!("of TCP is not counted what this kernel has no tracepoint for: {missing}");
                }
                Some(tcp)
            }
            Err(error) => {
                warn!("what TCP meets with is not counted: {error:#}");
                None
            }
        });
    }

    fn open_tcp(&self, btf: &Result<Btf, Missing>) -> anyhow::Result<Option<Tcp>> {
        if !self.host.tcp {
            // What an earlier life pinned would go on counting.
            self.pin_dir.as_deref().map_or(Ok(()), trace::remove_tcp)?;
            return Ok(None);
        }
        let netns::Identity { cookie, inode } = netns::own_identity()?;
        Ok(Some(Tcp::open(btf.as_ref().map_err(Clone::clone)?, self.pin_dir.as_deref(), (cookie, inode))?))
    }

    fn open_drops(&self, btf: &Result<Btf, Missing>) -> anyhow::Result<Option<Drops>> {
        if !self.host.drops {
            // As with TCP, at each packet that is dropped.
            self.pin_dir.as_deref().map_or(Ok(()), trace::remove_drops)?;
            return Ok(None);
        }
        let netns::Identity { cookie, inode } = netns::own_identity()?;
        Ok(Some(Drops::open(btf.as_ref().map_err(Clone::clone)?, self.pin_dir.as_deref(), (cookie, inode))?))
    }

    /// Watches every namespace that was seen; those of interfaces that are counted stay watched, also when nothing shows them.
    pub(super) fn watch_by_tracing(&self, counted: impl Iterator<Item = Cookie>) -> anyhow::Result<()> {
        let (drops, tcp) =
            (self.drops.get().and_then(Option::as_ref), self.tcp.get().and_then(Option::as_ref));
        if drops.is_none() && tcp.is_none() {
            return Ok(());
        }
        let watched = self.watched();
        let mut seen: BTreeMap<Cookie, u64> =
            self.named.lock().unwrap_or_else(PoisonError::into_inner).clone();
        seen.extend(watched.namespaces.iter().map(|netns| (netns.cookie, netns.inode)));
        // Those that are summed are not told apart by the programs either.
        seen.retain(|cookie, _| !watched.cut.contains(cookie));
        let counted = counted.filter(|cookie| !watched.cut.contains(cookie)).collect();
        // Each on its own: what one cannot do must not keep the other from it.
        let drops = drops.map_or(Ok(()), |drops| drops.watch(&seen, &counted));
        let tcp = tcp.map_or(Ok(()), |tcp| tcp.watch(&seen, &counted));
        Ok(drops.and(tcp)?)
    }

    /// Drops counted until now; absent where nothing counts them.
    pub fn drops(&self) -> Option<DropReadings> {
        let read = self.drops.get()?.as_ref()?.read();
        read.inspect_err(|error| warn!("drops are not shown: {error}")).ok()
    }

    /// What TCP met with until now; absent where nothing counts it.
    pub fn tcp(&self) -> Option<TcpReadings> {
        let read = self.tcp.get()?.as_ref()?.read();
        read.inspect_err(|error| warn!("what TCP met with is not shown: {error}")).ok()
    }

    /// Takes the programs and their counts away, also those of an earlier life.
    pub(super) fn forget_tracing(&self) -> anyhow::Result<()> {
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

    /// What is pinned of TCP; absent where nothing is. Changes nothing.
    ///
    /// # Errors
    /// What is pinned cannot be read.
    pub fn tcp(&self) -> Result<Option<TcpReadings>, Failure> {
        let Some(dir) = pins(&self.host) else { return Ok(None) };
        let mut readings = trace::look_at_tcp(&dir).map_err(anyhow::Error::from)?;
        if let Some(readings) = &mut readings {
            readings.host = Some(netns::own_identity().map_err(anyhow::Error::from)?.cookie);
        }
        Ok(readings)
    }
}
