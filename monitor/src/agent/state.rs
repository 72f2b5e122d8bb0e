//! What the agent remembers between passes and scrapes.

use std::{
    fs,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Instant, SystemTime, UNIX_EPOCH},
};

use arc_swap::ArcSwap;
use tokio::task::spawn_blocking;
use tracing::info;

use super::{
    Failure,
    assemble::{assemble, dns},
    engine::{Engine, PassError},
    holding::holding,
    lost::lost,
    wiring::wiring,
};
use crate::{
    export::{App, Limits, Requests, Snapshot},
    metrics::{self, Collectors},
    probe::Readings,
    sample::{AgentSample, RECONCILE_BOUNDS, ReconcileSample, ReloadSample, Sample},
    topology::{Observed, Topology},
};

/// Collectors that need what is counted: interfaces and totals, and the namespaces that are known by them alone.
const COUNTED: [&str; 8] =
    ["traffic", "protocol", "size", "tcp", "interface", "namespace", "retired", "drops"];

/// Shared by the passes, the scrapes and the readiness probe.
pub(super) struct State {
    engine: Arc<Engine>,
    observed: ArcSwap<Observed>,
    /// What the file of the last pass asks for.
    topology: ArcSwap<Topology>,
    passes: Mutex<Passes>,
    overruns: AtomicU64,
    /// Interfaces of namespaces that no file names which should be counted and are not.
    unwatched: AtomicU64,
    reload: Mutex<ReloadSample>,
    requests: Arc<Requests>,
    /// Those that are switched on.
    collectors: Collectors,
}

/// The record of passes.
#[derive(Default)]
struct Passes {
    sample: ReconcileSample,
    unattached: u64,
    /// Why the host is not as the file says; absent when it is. `None` before the first pass.
    verdict: Option<Result<(), String>>,
}

impl State {
    pub(super) fn new(engine: Arc<Engine>, collectors: Collectors) -> Self {
        Self {
            engine,
            observed: ArcSwap::default(),
            topology: ArcSwap::default(),
            passes: Mutex::default(),
            overruns: AtomicU64::new(0),
            unwatched: AtomicU64::new(0),
            reload: Mutex::new(ReloadSample { successful: true, last_success: now() }),
            requests: Arc::default(),
            collectors,
        }
    }

    /// One pass of the engine, recorded. Blocks.
    pub(super) fn pass(&self, topology: &Topology) -> Result<(), Failure> {
        let began = Instant::now();
        self.topology.store(Arc::new(topology.clone()));
        let done = self.engine.pass(topology, &mut |_, step| info!("{}", step.title()));
        let mut passes = self.passes.lock().unwrap_or_else(PoisonError::into_inner);
        passes.record(began.elapsed().as_secs_f64());
        match done {
            Ok(pass) => {
                passes.sample.last_success = Some(now());
                passes.unattached = pass.unattached as u64;
                passes.verdict = Some(match pass.unattached {
                    0 => Ok(()),
                    some => Err(format!("{some} interfaces are not counted")),
                });
                self.observed.store(Arc::new(pass.observed));
                Ok(())
            }
            Err(PassError { stage, failure }) => {
                *passes.sample.errors.entry(stage).or_default() += 1;
                // The log has the whole of it; who can reach the port learns no paths of the host.
                passes.verdict =
                    Some(Err(format!("the last pass failed (stage {stage}); the agent's log says why")));
                drop(passes);
                // What is there is still shown, as far as it can be seen.
                if let Ok(observed) = self.engine.observe(topology) {
                    self.observed.store(Arc::new(observed));
                }
                Err(failure)
            }
        }
    }

    /// What a look of the watch left.
    pub(super) fn looked(&self, unattached: usize) {
        self.unwatched.store(unattached as u64, Ordering::Relaxed);
    }

    pub(super) fn count_overrun(&self) {
        self.overruns.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn reloaded(&self, successful: bool) {
        let mut reload = self.reload.lock().unwrap_or_else(PoisonError::into_inner);
        reload.successful = successful;
        if successful {
            reload.last_success = now();
        }
    }

    /// Everything that these collectors report. Reads maps and memory only, and no map that none of them needs; blocks for as
    /// long as the maps take.
    pub(super) fn sample(&self, collectors: &Collectors) -> anyhow::Result<Sample> {
        let readings = match collectors.has(&COUNTED) {
            true => self.engine.read(),
            false => Readings::default(),
        };
        let passes = self.passes.lock().unwrap_or_else(PoisonError::into_inner);
        let agent = AgentSample {
            mode: self.engine.mode(),
            pinned: self.engine.pinned(),
            unattached: passes.unattached + self.unwatched.load(Ordering::Relaxed),
            reattached: self.engine.reattached(),
            reconciles: passes.sample.clone(),
            netlink_overruns: self.overruns.load(Ordering::Relaxed),
            config_reload: Some(*self.reload.lock().unwrap_or_else(PoisonError::into_inner)),
            http_requests: self.requests.counts(),
        };
        drop(passes);
        let observed = self.observed.load();
        let watched = self.engine.watched();
        let mut sample = assemble(&observed, &watched, readings, agent);
        let drops = if collectors.has(&["drops"]) { self.engine.drops() } else { None };
        let tcp = if collectors.has(&["tcp_health"]) { self.engine.tcp() } else { None };
        sample.lost = lost(&sample.namespaces, &observed, &watched, drops, tcp);
        let counted = if collectors.has(&["dns"]) { self.engine.dns() } else { None };
        sample.dns = counted.map(|counters| dns(&sample.namespaces, &counters)).unwrap_or_default();
        Ok(sample)
    }

    /// Everything that the page shows. Reads maps and memory only, and blocks for as long as the maps take.
    fn snapshot(&self) -> anyhow::Result<Snapshot> {
        let sample = self.sample(&self.collectors)?;
        Ok(Snapshot {
            time: now(),
            host: fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default().trim().to_owned(),
            unready: self.verdict().err(),
            sample,
            wiring: wiring(&self.topology.load(), &self.observed.load()),
        })
    }

    /// Why the host is not as it shall be, for whoever can reach the port.
    fn verdict(&self) -> Result<(), String> {
        let passes = self.passes.lock().unwrap_or_else(PoisonError::into_inner);
        passes.verdict.clone().unwrap_or_else(|| Err("the first pass is not done yet".to_owned()))
    }

    /// What the HTTP server serves.
    pub(super) fn app(self: &Arc<Self>) -> App {
        let [metrics, ready, snapshot] = [(); 3].map(|()| Arc::clone(self));
        App {
            collectors: self.collectors.clone(),
            metrics: Arc::new(move |collectors| {
                let state = Arc::clone(&metrics);
                Box::pin(blocking(move || {
                    let sample = state.sample(&collectors).map_err(|error| format!("{error:#}"))?;
                    metrics::render_with(&collectors.table(), &Arc::new(sample))
                        .map(String::into_bytes)
                        .map_err(|error| error.to_string())
                }))
            }),
            ready: Arc::new(move || ready.verdict()),
            snapshot: Arc::new(move || {
                let state = Arc::clone(&snapshot);
                Box::pin(blocking(move || state.snapshot().map_err(|error| format!("{error:#}"))))
            }),
            hold: Arc::new(|inode| Box::pin(blocking(move || holding(inode)))),
            requests: Arc::clone(&self.requests),
            limits: Limits::default(),
        }
    }
}

/// Runs what blocks off the runtime's threads.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, String> + Send + 'static,
) -> Result<T, String> {
    spawn_blocking(work).await.map_err(|error| error.to_string()).flatten()
}

impl Passes {
    fn record(&mut self, seconds: f64) {
        let bucket =
            RECONCILE_BOUNDS.iter().position(|&bound| seconds <= bound).unwrap_or(RECONCILE_BOUNDS.len());
        self.sample.durations[bucket] += 1;
        self.sample.seconds += seconds;
    }
}

fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}
