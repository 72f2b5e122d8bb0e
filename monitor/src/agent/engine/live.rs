//! Looking again and again, for who shows what moves: counts each time, what seldom changes as often as takes little.
//! Changes nothing, and works while an agent runs and while none does.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use super::{Look, pins};
use crate::{
    agent::{
        Failure,
        assemble::assemble,
        watch::{Filed, Watcher},
    },
    discover::{Pace, ear::Heard},
    netns,
    probe::{self, Readings},
    sample::{AgentSample, Sample, lost::HOST},
    topology::{Observed, figures::Figures, names::Cookie},
    trace::{self, DropReadings, Kernel, TcpReadings},
};

/// Links, addresses of processes and figures are read at least that often, unless that takes more than its share.
const FULL: Duration = Duration::from_secs(2);
/// A look at everything that took a second is not repeated for 30.
const FULL_SHARE: u32 = 30;
/// The same of what only a file brings: who made it, and counters of its rules.
const FILED: Duration = Duration::from_secs(10);
const FILED_SHARE: u32 = 100;
/// Counts that are moving to their totals stand in both for a moment: so often they are read again.
const TRIES: usize = 3;

/// A [`Look`] that remembers.
pub struct Live {
    look: Look,
    watcher: Watcher,
    observed: Observed,
    /// The kernel's own types; absent with the reason where they cannot be read.
    kernel: Result<Kernel, String>,
    host: Cookie,
    full: Pace,
    filed: Pace,
    /// Totals of what is gone, as of the last reading.
    retired: BTreeMap<Cookie, u64>,
}

/// What was read at one moment.
#[derive(Debug)]
pub struct Moment {
    /// When.
    pub at: Instant,
    /// Every namespace with its counts, and the kernel's figures by label.
    pub sample: Sample,
    /// Drops; absent where nothing counts them.
    pub drops: Option<DropReadings>,
    /// What TCP met with; absent where nothing counts it.
    pub tcp: Option<TcpReadings>,
    /// The host's own namespace.
    pub host: Cookie,
    /// Pid of the agent that holds the run directory.
    pub agent: Option<String>,
    /// Whether anything is counted that outlives an agent.
    pub pinned: bool,
    /// What could not be read, in words.
    pub notes: Vec<String>,
}

impl Look {
    /// Begins to look again and again. From the thread whose namespace is the host's, which then looks.
    ///
    /// # Errors
    /// The kernel gives no socket, or no cookies.
    pub fn live(self) -> Result<Live, Failure> {
        let watcher = Watcher::new(&self.host, false)?;
        let kernel = Kernel::running().map_err(|error| format!("drops cannot be told: {error}"));
        Ok(Live {
            watcher,
            observed: Observed::default(),
            kernel,
            host: netns::own_identity().map_err(anyhow::Error::from)?.cookie,
            full: Pace::new(FULL, FULL_SHARE),
            filed: Pace::new(FILED, FILED_SHARE),
            retired: BTreeMap::new(),
            look: self,
        })
    }
}

impl Live {
    /// Reads everything that is due.
    ///
    /// # Errors
    /// What the kernel refused; the next reading may succeed.
    pub fn read(&mut self) -> anyhow::Result<Moment> {
        if self.filed.is_due() {
            let began = Instant::now();
            let names = netns::list(&self.look.host.netns_dir)?;
            let wanted = names.into_iter().map(|(name, _)| name).collect();
            self.observed = self.look.kernel.observe(&wanted)?;
            self.filed.done(began.elapsed());
        }
        let mut readings = self.counts()?;
        let at = Instant::now();
        let mut watched = {
            let before = |cookie| {
                let found = readings.interfaces.iter().find(|reading| reading.target.cookie == cookie);
                found.map(|reading| reading.target.netns.clone())
            };
            let began = Instant::now();
            let full = self.full.is_due();
            // Names come and go by mounts; their table is read each time, and only what is new is entered.
            let heard = Heard { mounts: true, ..Heard::default() };
            let mut watched = self.watcher.look(&heard, full, &before)?;
            if full {
                let answers = self.watcher.questions().ask();
                if self.watcher.note(answers) {
                    watched = self.watcher.look(&Heard::default(), false, &before)?;
                }
                self.full.done(began.elapsed());
            }
            watched
        };
        let kernel = &self.look.kernel;
        watched.mark_owned(|name, cookie| kernel.owns(name, cookie));
        watched.choose(&self.look.host.choice, &Filed::default());
        let left_out = |cookie| watched.left_out.contains(&cookie) || watched.undecided.contains(&cookie);
        readings.interfaces.retain(|reading| !left_out(reading.target.cookie));
        readings.retired.retain(|(cookie, _)| !left_out(*cookie));
        // It is older: what is not there any more must not be shown again.
        let lives = |cookie| watched.namespaces.iter().any(|netns| netns.cookie == cookie);
        self.observed.namespaces.retain(|_, netns| lives(netns.cookie));
        let mut sample = assemble(&self.observed, &watched, readings, AgentSample::default());
        let figures = watched.namespaces.iter();
        sample.lost.figures =
            figures.filter_map(|netns| Some((netns.label.clone(), netns.figures.clone()?))).collect();
        if let Some(host) = self.observed.figures.get(&None) {
            sample.lost.figures.insert(HOST.to_owned(), Figures::clone(host));
        }
        let mut notes = Vec::new();
        let (drops, tcp) = (self.drops(&mut notes), self.tcp(&mut notes));
        let agent = self.look.agent();
        let pinned = pins(&self.look.host).is_some();
        Ok(Moment { at, sample, drops, tcp, host: self.host, agent, pinned, notes })
    }

    /// What is counted. While an interface's counts move to its namespace's totals they are in both for a moment.
    fn counts(&mut self) -> anyhow::Result<Readings> {
        let Some(dir) = pins(&self.look.host) else { return Ok(Readings::default()) };
        let mut readings = Readings::default();
        for _ in 0..TRIES {
            readings = probe::look(&dir)?;
            let retired = readings.retired.iter().map(|(cookie, retired)| {
                let counts = &retired.counts;
                (*cookie, counts.receive.total().skbs + counts.transmit.total().skbs)
            });
            let before = std::mem::replace(&mut self.retired, retired.collect());
            if before == self.retired {
                break;
            }
        }
        // Who looks at one is shown what it counts, also where the agent sums it with others.
        readings.interfaces.iter_mut().for_each(|reading| reading.summed = false);
        Ok(readings)
    }

    fn drops(&self, notes: &mut Vec<String>) -> Option<DropReadings> {
        let dir = pins(&self.look.host)?;
        let kernel = self.kernel.as_ref().inspect_err(|why| notes.push((*why).clone())).ok()?;
        let read = trace::look(&dir, kernel.reasons());
        let mut readings =
            read.inspect_err(|why| notes.push(format!("drops are not shown: {why}"))).ok()??;
        readings.host = Some(self.host);
        Some(readings)
    }

    fn tcp(&self, notes: &mut Vec<String>) -> Option<TcpReadings> {
        let dir = pins(&self.look.host)?;
        let read = trace::look_at_tcp(&dir);
        let why = |why: &probe::ProbeError| notes.push(format!("what TCP meets with is not shown: {why}"));
        let mut readings = read.inspect_err(why).ok()??;
        readings.host = Some(self.host);
        Some(readings)
    }
}
