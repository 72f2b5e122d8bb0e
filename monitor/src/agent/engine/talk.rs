//! The opt-in programs beside the passes: what is counted they look at.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
};

use monitor_ebpf::talk::DnsCounters;
use tracing::{debug, warn};

use super::{Engine, Look, pins, watch::AT_ONCE};
use crate::{
    agent::{Failure, lock::RunLock},
    probe::{Probes, Target},
    talk::{self, FlowReadings},
    topology::names::Cookie,
};

impl Engine {
    /// Looks at what is counted now, and lets go of what is not; with `check`, puts back what somebody removed. Says
    /// whether there is more to attach to.
    pub(super) fn follow_talk(&self, probes: &Probes, live: &BTreeSet<Cookie>, check: bool) -> bool {
        if self.talk.is_idle() {
            return false;
        }
        let targets = probes.targets();
        self.talk.follow(&targets, live);
        let mut attached = targets.iter().map(|target| self.talk_to(probes, target, check));
        attached.by_ref().filter(|&new| new).take(AT_ONCE).count() == AT_ONCE
    }

    /// Looks at one interface that is counted; says whether that is new.
    pub(super) fn talk_to(&self, probes: &Probes, target: &Target, check: bool) -> bool {
        self.talk.attach(target, probes.programs(target), check)
    }

    /// DNS until now; absent where nobody wants it counted. Waits for nothing that is being attached.
    pub fn dns(&self) -> Option<BTreeMap<Cookie, DnsCounters>> {
        let wanted = self.host.talk.is_some_and(|wanted| wanted.dns);
        let dir = self.pin_dir.as_deref().filter(|_| wanted)?;
        talk::look_dns(dir).inspect_err(|error| warn!("DNS is not shown: {error}")).ok()?
    }

    /// Takes programs and counts away, also those of an earlier life.
    pub(super) fn forget_talk(&self) -> anyhow::Result<()> {
        let Some(pin_dir) = &self.pin_dir else { return Ok(()) };
        talk::remove(pin_dir)?;
        // Where nothing else is pinned. What else there is goes with its own room.
        if let Err(error) = fs::remove_dir(pin_dir) {
            debug!("{} stays: {error}", pin_dir.display());
        }
        Ok(())
    }
}

impl Look {
    /// Flows that are pinned; absent where none are counted. Changes nothing.
    ///
    /// # Errors
    /// They cannot be read.
    pub fn flows(&self) -> Result<Option<FlowReadings>, Failure> {
        let Some(dir) = pins(&self.host) else { return Ok(None) };
        Ok(talk::look(&dir).map_err(anyhow::Error::from)?)
    }

    /// Pid of the agent that holds the run directory.
    pub fn agent(&self) -> Option<String> {
        RunLock::holder(&self.host.run_dir)
    }
}
