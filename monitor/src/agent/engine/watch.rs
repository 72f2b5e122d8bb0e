//! Counting every namespace of the host: what was seen is compared with what is counted, and the difference is attached,
//! renamed or let go.

use std::{
    cell::LazyCell,
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError, RwLock, atomic::Ordering},
    time::{Duration, Instant},
};

use anyhow::Context as _;
use arc_swap::ArcSwap;
use tracing::{debug, info, warn};

use super::Engine;
use crate::{
    agent::watch::{Drift, Filed, Watched, Watcher},
    discover::ear::Heard,
    netns::{self, Way},
    probe::{Enter, ProbeError, Probes, Side, Target},
    topology::{
        Topology,
        names::{Cookie, NsName},
    },
};

/// How many interfaces are attached to before a pass may come in between: each takes two grace periods of the kernel.
pub(super) const AT_ONCE: usize = 32;

/// What is watched, and what the rest of the engine needs of it.
pub(super) struct Watching {
    watcher: Mutex<Option<Watcher>>,
    /// As of the last look.
    pub(super) watched: ArcSwap<Watched>,
    /// The way into each namespace, for who attaches inside.
    pub(super) ways: Ways,
    /// What the kernel counts and we do not.
    drift: Mutex<Drift>,
    /// What the file names.
    filed: ArcSwap<Filed>,
    /// What the last look led to.
    looked: Mutex<Look>,
    /// Attachments that failed: said once, tried again at each full look.
    refused: Mutex<BTreeMap<String, (u8, String)>>,
}

/// Ways by cookie.
pub(super) type Ways = Arc<RwLock<BTreeMap<Cookie, Way>>>;

/// What a look led to.
#[derive(Clone, Copy, Debug, Default)]
pub struct Look {
    /// Interfaces that should be counted and are not.
    pub unattached: usize,
    /// There is more to attach to.
    pub more: bool,
    /// How long it took to attach: the kernel's time, mostly.
    attaching: Duration,
}

impl Watching {
    pub(super) fn new(ways: Ways) -> Self {
        Self {
            watcher: Mutex::default(),
            watched: ArcSwap::default(),
            ways,
            drift: Mutex::default(),
            filed: ArcSwap::default(),
            looked: Mutex::default(),
            refused: Mutex::default(),
        }
    }
}

impl Engine {
    /// Begins to watch. From the thread whose namespace is the host's.
    ///
    /// # Errors
    /// The kernel gives no socket, or no cookies.
    pub fn begin_watch(&self) -> anyhow::Result<()> {
        let watcher = Watcher::new(&self.host, true)?;
        *self.watching.watcher.lock().unwrap_or_else(PoisonError::into_inner) = Some(watcher);
        Ok(())
    }

    /// The namespaces of the host, as of the last look.
    pub fn watched(&self) -> Arc<Watched> {
        self.watching.watched.load_full()
    }

    /// Looks at what was heard of and at what is due, and counts what is new. Nothing happens before [`Engine::begin_watch`].
    ///
    /// # Errors
    /// The kernel does not show what there is.
    pub fn watch(&self, heard: &Heard) -> anyhow::Result<Look> {
        let _one_at_a_time = self.passing.lock().unwrap_or_else(PoisonError::into_inner);
        self.look_and_count(heard)
    }

    /// The same under the lock of a pass.
    pub(super) fn look_and_count(&self, heard: &Heard) -> anyhow::Result<Look> {
        let mut watcher = self.watching.watcher.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(watcher) = watcher.as_mut() else { return Ok(Look::default()) };
        let mut last = self.watching.looked.lock().unwrap_or_else(PoisonError::into_inner);
        let began = Instant::now();
        let full = watcher.is_due(heard);
        let counted = LazyCell::new(|| self.probes.as_ref().map(Probes::targets).unwrap_or_default());
        let before =
            |cookie| counted.iter().find(|target| target.cookie == cookie).map(|target| target.netns.clone());
        let compare = || {
            let probes = self.probes.as_ref().filter(|_| full && self.host.drift);
            probes.map(|probes| probes.read().interfaces).unwrap_or_default()
        };
        let earlier = compare();
        let Some(mut watched) = watcher.look(heard, full, &before)? else { return Ok(*last) };
        let mut drift = self.watching.drift.lock().unwrap_or_else(PoisonError::into_inner);
        drift.note(&mut watched, &earlier, &compare());
        drop(drift);
        watched.mark_owned(|name, cookie| self.kernel.owns(name, cookie));
        let ways = watched.namespaces.iter().filter_map(|netns| Some((netns.cookie, netns.way.clone()?)));
        *self.watching.ways.write().unwrap_or_else(PoisonError::into_inner) = ways.collect();
        let filed = self.watching.filed.load();
        watched.choose(&self.host.choice, &filed);
        let mut shown = self.watched().shown();
        shown.extend(self.probes.iter().flat_map(Probes::own));
        watched.cut(self.host.max_namespaces, &filed, &shown);
        // Before anything says that they are cut: what is in neither group would be missing from a scrape.
        if let Some(probes) = &self.probes
            && let Err(error) = probes.sum(&watched.cut, &watched.shown())
        {
            warn!("{error}");
        }
        let watched = Arc::new(watched);
        self.watching.watched.store(Arc::clone(&watched));
        *last = match &self.probes {
            Some(probes) => self.count(probes, &watched, &counted, heard, full),
            None => Look::default(),
        };
        if last.more {
            watcher.again();
        }
        if full {
            watcher.done(began.elapsed().saturating_sub(last.attaching));
        }
        Ok(*last)
    }

    /// Until the next look is due though nothing was heard.
    pub fn watch_wait(&self) -> Duration {
        let watcher = self.watching.watcher.lock().unwrap_or_else(PoisonError::into_inner);
        watcher.as_ref().map_or(Duration::MAX, Watcher::wait)
    }

    /// Asks engines for names of new containers; says whether there are new names. May take seconds, and holds up no pass.
    pub fn learn_names(&self) -> bool {
        let watcher = || self.watching.watcher.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(questions) = watcher().as_mut().map(Watcher::questions) else { return false };
        let answers = questions.ask();
        watcher().as_mut().is_some_and(|watcher| watcher.note(answers))
    }

    fn count(
        &self,
        probes: &Probes,
        watched: &Watched,
        counted: &[Target],
        heard: &Heard,
        full: bool,
    ) -> Look {
        let wanted: Vec<Target> = watched.namespaces.iter().flat_map(|netns| netns.targets()).collect();
        let key = |target: &Target| (target.cookie, side_key(target.side));
        let have: BTreeMap<_, &Target> = counted.iter().map(|target| (key(target), target)).collect();
        let want: BTreeSet<_> = wanted.iter().map(key).collect();
        let changed: BTreeSet<Cookie> = watched
            .namespaces
            .iter()
            .filter(|netns| netns.nsid.is_some_and(|nsid| heard.nsids.contains(&nsid)))
            .map(|netns| netns.cookie)
            .collect();
        // An index may have been used again, a program removed: asked where something changed, and now and then of all.
        let in_doubt = |target: &Target| {
            full || changed.contains(&target.cookie)
                || matches!(target.side, Side::HostEnd { ifindex } if heard.links.contains(&ifindex))
        };
        let mut left = AT_ONCE;
        let mut look = Look::default();
        let mut refused = BTreeMap::new();
        let before = self.watching.refused.lock().unwrap_or_else(PoisonError::into_inner).clone();
        for target in &wanted {
            let same = have.get(&key(target));
            let counts = same.is_some() && (!in_doubt(target) || probes.is_complete(target));
            if counts {
                if same.is_some_and(|same| *same != target)
                    && let Err(error) = probes.rename(target)
                {
                    debug!("{target}: {error}");
                }
                continue;
            }
            // What was refused is tried again now and then, and where something changed.
            if let Some((_, why)) = before.get(&target.to_string()).filter(|_| !in_doubt(target)) {
                look.unattached += 1;
                refused.insert(target.to_string(), why.clone());
                continue;
            }
            if left == 0 {
                look.more = true;
                continue;
            }
            left -= 1;
            let began = Instant::now();
            let attached = self.attach_to(probes, target);
            look.attaching += began.elapsed();
            match attached {
                Ok(()) => debug!("counting {target}"),
                Err(ProbeError::Gone { .. }) => debug!("{target} is gone again"),
                Err(error) => {
                    look.unattached += 1;
                    refused.insert(target.to_string(), error.to_string());
                }
            }
        }
        self.tell_refused(refused, look.more);
        let alive = watched.namespaces.iter().map(|netns| netns.cookie);
        let alive: BTreeSet<Cookie> = alive.chain(watched.left_out.iter().copied()).collect();
        // Not there any more: gone, moved away, or its namespace is; or it is not to be watched.
        let is_over =
            |target: &&Target| !want.contains(&key(target)) && !watched.undecided.contains(&target.cookie);
        for target in counted.iter().filter(is_over) {
            let moved = alive.contains(&target.cookie);
            if (moved || !probes.is_complete(target))
                && let Err(error) = probes.detach(target)
            {
                warn!("{target}: {error}");
            }
        }
        let live = self.live(watched);
        if let Err(error) = probes.retire_namespaces(&live) {
            warn!("{error}");
        }
        look.more |= self.follow_talk(probes, &live, full);
        if let Err(error) = self.watch_by_tracing(probes.targets().iter().map(|target| target.cookie)) {
            warn!("{error:#}");
        }
        look
    }

    /// Attaches; one of ours that somebody removed is counted as put back.
    pub(super) fn attach_to(&self, probes: &Probes, target: &Target) -> Result<(), ProbeError> {
        let removed = probes.is_counted(target) && !probes.is_complete(target);
        probes.attach(target)?;
        if removed {
            info!("{target}: an eBPF program of ours was gone, and is put back");
            self.reattached.fetch_add(1, Ordering::Relaxed);
        }
        self.talk_to(probes, target, removed);
        Ok(())
    }

    /// Says why interfaces are not counted, once for as long as it stays so; not of what is gone by the next look.
    fn tell_refused(&self, now: BTreeMap<String, String>, more: bool) {
        let mut refused = self.watching.refused.lock().unwrap_or_else(PoisonError::into_inner);
        for (target, why) in &now {
            let times = refused.get(target).map_or(0, |(times, _)| *times);
            if times == 1 {
                warn!("{target} is not counted: {why}");
            }
        }
        let now = now.into_iter().map(|(target, why)| {
            let times = refused.get(&target).map_or(0, |(times, _)| *times);
            (target, (times.saturating_add(1), why))
        });
        let now: BTreeMap<_, _> = now.collect();
        match more {
            true => refused.extend(now),
            false => *refused = now,
        }
    }

    /// Namespaces whose totals stay their own: those that were seen.
    pub(super) fn live(&self, watched: &Watched) -> BTreeSet<Cookie> {
        let named = self.named.lock().unwrap_or_else(PoisonError::into_inner);
        let undecided = watched.undecided.iter().copied();
        let seen = watched.namespaces.iter().map(|netns| netns.cookie).chain(undecided);
        seen.chain(named.keys().copied()).collect()
    }

    /// Notes what a file names: it is watched whatever is chosen, from the first look on.
    pub fn note_filed(&self, topology: &Topology) {
        let mut topology = topology.clone();
        self.runs().alive().iter().for_each(|run| run.add_to(&mut topology));
        let filed = Filed::new(&topology);
        if **self.watching.filed.load() == filed {
            return;
        }
        self.watching.filed.store(Arc::new(filed));
        let mut watcher = self.watching.watcher.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(watcher) = watcher.as_mut() {
            watcher.again();
        }
    }
}

fn side_key(side: Side) -> (bool, u32) {
    match side {
        Side::HostEnd { ifindex } => (true, ifindex),
        Side::Inside { ifindex } => (false, ifindex),
    }
}

/// The way into the namespace of a target, checked by its cookie: as it was seen last, or by its name.
pub(super) fn enter(netns_dir: PathBuf, ways: Ways) -> Enter {
    Box::new(move |target, work| {
        let seen = ways.read().unwrap_or_else(PoisonError::into_inner).get(&target.cookie).cloned();
        let mut run = || match netns::own_identity() {
            Ok(identity) if identity.cookie == target.cookie => {
                work();
                Ok(())
            }
            Ok(_) => Err(format!("{} is another namespace by now", target.netns)),
            Err(error) => Err(error.to_string()),
        };
        if let Some(way) = seen
            && let Ok(done) = netns::by_way(&way, &mut run)
            && done.is_ok()
        {
            return Ok(());
        }
        let name: NsName =
            target.netns.parse().with_context(|| format!("nothing leads to {}", target.netns))?;
        netns::inside(&netns_dir, &name, run)?.map_err(Into::into)
    })
}
