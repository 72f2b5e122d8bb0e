//! Looking again and again, for who shows what moves: counts each time, what seldom changes as often as takes little.
//! Changes nothing, and works while an agent runs and while none does.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, PoisonError, RwLock,
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::Context as _;

use super::{Look, pins};
use crate::{
    agent::{
        Failure,
        assemble::assemble,
        watch::{Filed, Watched, Watcher},
    },
    discover::{Pace, ear::Heard},
    netns,
    probe::{self, Readings},
    sample::{AgentSample, Sample, lost::HOST},
    topology::{Observed, names::Cookie},
    trace::{self, DropReadings, Kernel, TcpReadings},
};

/// What comes and goes is looked for at least that often, unless that takes more than its share.
const NEWS: Duration = Duration::from_millis(500);
/// A look for it that took a second is not repeated for 20.
const NEWS_SHARE: u32 = 20;
/// The same of a look at everything: links, control groups, figures.
const FULL: Duration = Duration::from_secs(2);
const FULL_SHARE: u32 = 30;
/// The same of what only the agent's own passes look at: who made it, and counters of the file's rules.
const FILED: Duration = Duration::from_secs(10);
const FILED_SHARE: u32 = 100;
/// Counts that are moving to their totals stand in both for a moment: so often they are read again.
const TRIES: usize = 3;

/// Counts that are read again and again, and beside them a thread that looks what there is: on a large host that takes
/// seconds, and counts shall not wait for it.
pub struct Live {
    look: Look,
    /// The kernel's own types; absent with the reason where they cannot be read.
    kernel: Result<Kernel, String>,
    host: Cookie,
    /// Asks the other thread for a look, if it is due.
    ask: SyncSender<()>,
    survey: Arc<RwLock<Survey>>,
    /// Totals of what is gone, as of the last reading.
    retired: BTreeMap<Cookie, u64>,
}

/// What there is, as of the last look.
#[derive(Clone, Default)]
struct Survey {
    watched: Watched,
    /// Named ones, as far as it is not in `watched`.
    observed: Observed,
    /// Why the last look failed.
    failed: Option<String>,
    /// Whether there was one.
    done: bool,
}

/// What was read at one moment.
#[derive(Debug)]
pub struct Moment {
    /// When.
    pub at: Instant,
    /// Every namespace with its counts, and the kernel's figures by label.
    pub sample: Sample,
    /// Whether those that are not counted are among them: the first look at everything may take seconds.
    pub complete: bool,
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
    /// Begins to look again and again. From a thread whose namespace is the host's.
    ///
    /// # Errors
    /// The kernel gives no socket, no cookies, or no thread.
    pub fn live(self) -> Result<Live, Failure> {
        let kernel = Kernel::running().map_err(|error| format!("drops cannot be told: {error}"));
        let host = netns::own_identity().map_err(anyhow::Error::from)?.cookie;
        let survey = Arc::<RwLock<Survey>>::default();
        let surveyor = Surveyor::new(&self, Arc::clone(&survey))?;
        let (ask, asked) = sync_channel(1);
        let thread = thread::Builder::new().name("look".to_owned()).spawn(move || surveyor.run(&asked));
        thread.context("cannot start looking")?;
        Ok(Live { look: self, kernel, host, ask, survey, retired: BTreeMap::new() })
    }
}

/// Looks what there is.
struct Surveyor {
    look: Look,
    watcher: Watcher,
    observed: Observed,
    news: Pace,
    full: Pace,
    filed: Pace,
    survey: Arc<RwLock<Survey>>,
}

impl Surveyor {
    fn new(look: &Look, survey: Arc<RwLock<Survey>>) -> anyhow::Result<Self> {
        Ok(Self {
            watcher: Watcher::new(&look.host, false)?,
            observed: Observed::default(),
            news: Pace::new(NEWS, NEWS_SHARE),
            full: Pace::new(FULL, FULL_SHARE),
            filed: Pace::new(FILED, FILED_SHARE),
            look: Look { host: look.host.clone(), kernel: look.host.kernel() },
            survey,
        })
    }

    /// Looks when asked, until nobody can ask any more. While nobody does, nothing is looked at.
    fn run(mut self, asked: &Receiver<()>) {
        for () in asked {
            let done = self.step();
            let mut survey = self.survey.write().unwrap_or_else(PoisonError::into_inner);
            match done {
                Ok(None) => {}
                Ok(Some(watched)) => {
                    *survey = Survey { watched, observed: self.observed.clone(), failed: None, done: true };
                }
                Err(why) => survey.failed = Some(format!("{why:#}")),
            }
        }
    }

    /// One look, if it is due.
    fn step(&mut self) -> anyhow::Result<Option<Watched>> {
        let full = self.full.is_due();
        if !full && !self.news.is_due() {
            return Ok(None);
        }
        let began = Instant::now();
        let labels = self.labels(full)?;
        let before = |cookie| labels.get(&cookie).cloned();
        // Names come and go by mounts, ends of pairs by links of the host. Only what is new is entered.
        let heard = Heard { mounts: true, host: true, ..Heard::default() };
        let looked = match full {
            true => self.watcher.look_and_ask(&heard, &before)?,
            false => self.watcher.look(&heard, false, &before)?,
        };
        let Some(mut watched) = looked else { return Ok(None) };
        if full {
            self.full.done(began.elapsed());
        }
        self.news.done(began.elapsed());
        let kernel = &self.look.kernel;
        watched.mark_owned(|name, cookie| kernel.owns(name, cookie));
        watched.choose(&self.look.host.choice, &Filed::default());
        if full && self.filed.is_due() {
            let began = Instant::now();
            let names = netns::list(&self.look.host.netns_dir)?;
            let wanted = names.into_iter().map(|(name, _)| name).collect();
            self.observed = self.look.kernel.observe(&wanted)?;
            self.filed.done(began.elapsed());
        }
        // It is older: what is not there any more must not be shown again.
        let lives = |cookie| watched.namespaces.iter().any(|netns| netns.cookie == cookie);
        self.observed.namespaces.retain(|_, netns| lives(netns.cookie));
        Ok(Some(watched))
    }

    /// What is counted was called so before; only who is seen for the first time needs to be told.
    fn labels(&self, full: bool) -> anyhow::Result<BTreeMap<Cookie, String>> {
        let Some(dir) = pins(&self.look.host).filter(|_| full) else { return Ok(BTreeMap::new()) };
        let targets = probe::look(&dir)?.interfaces.into_iter().map(|reading| reading.target);
        Ok(targets.map(|target| (target.cookie, target.netns)).collect())
    }
}

impl Live {
    /// Reads the counts, and takes what there is from the last look.
    ///
    /// # Errors
    /// What the kernel refused; the next reading may succeed.
    pub fn read(&mut self) -> anyhow::Result<Moment> {
        // One that waits already is enough; and a thread that has ended has said why.
        _ = self.ask.try_send(());
        let mut readings = self.counts()?;
        let at = Instant::now();
        let mut notes = Vec::new();
        let (drops, tcp) = (self.drops(&mut notes), self.tcp(&mut notes));
        let survey = self.survey.read().unwrap_or_else(PoisonError::into_inner);
        let Survey { watched, observed, failed, done } = &*survey;
        let complete = *done;
        notes.extend(failed.clone());
        let left_out = |cookie| watched.left_out.contains(&cookie) || watched.undecided.contains(&cookie);
        readings.interfaces.retain(|reading| !left_out(reading.target.cookie));
        readings.retired.retain(|(cookie, _)| !left_out(*cookie));
        let mut sample = assemble(observed, watched, readings, AgentSample::default());
        let figures = watched.namespaces.iter();
        sample.lost.figures =
            figures.filter_map(|netns| Some((netns.label.clone(), netns.figures.clone()?))).collect();
        if let Some(host) = observed.figures.get(&None) {
            sample.lost.figures.insert(HOST.to_owned(), host.clone());
        }
        drop(survey);
        let agent = self.look.agent();
        let pinned = pins(&self.look.host).is_some();
        Ok(Moment { at, sample, complete, drops, tcp, host: self.host, agent, pinned, notes })
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
