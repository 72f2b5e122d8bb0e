//! The agent: the only room that knows the order. Observe → plan → execute → retire, on every change and every
//! [`PASS_INTERVAL`]; the counts are read when somebody scrapes.
//!
//! All kernel work happens in blocking functions off the runtime's threads; the runtime serves HTTP, waits for events
//! and signals, and never enters a namespace.

mod assemble;
pub mod engine;
mod holding;
pub mod lock;
mod lost;
pub mod runs;
pub mod smoke;
mod state;
mod watch;
mod wiring;

use std::{
    fmt,
    net::SocketAddr,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use sd_notify::NotifyState;
use tokio::{
    io::{Interest, unix::AsyncFd},
    net::TcpListener,
    signal::unix::{SignalKind, signal},
    sync::watch::{Receiver, channel},
};
use tracing::{debug, error, info, warn};

pub use self::watch::{WatchedLink, WatchedNetns};
use self::{
    engine::{Engine, Host},
    lock::{LockError, RunLock},
    state::State,
};
use crate::{
    config::{self, ConfigErrors},
    discover::ear::{Ear, Heard, Waker},
    export::http,
    metrics::Collectors,
    probe::Logger,
    reconcile::watch::{Change, Watch},
    topology::Topology,
};

/// Longest time between two passes when nothing seems to change. Also how old the kernel's interface counters on
/// `/metrics` can be.
pub const PASS_INTERVAL: Duration = Duration::from_secs(15);

/// Quiet time after an event before a pass: a set-up by hand makes many events, one pass answers them all.
const SETTLE: Duration = Duration::from_millis(50);
/// The same before a look at who else is on the host, which costs less.
const LOOK_SETTLE: Duration = Duration::from_millis(5);

/// How the agent is run.
pub struct Options {
    /// The host's directories and how to attach.
    pub host: Host,
    /// Where the wanted topology comes from.
    pub source: Source,
    /// Where to serve metrics.
    pub listen: Vec<SocketAddr>,
    /// What is served.
    pub collectors: Collectors,
    /// One pass, then exit.
    pub once: bool,
    /// Remove everything when stopped.
    pub cleanup: bool,
    /// A first pass that fails ends the agent, where otherwise it tries again.
    pub must_start: bool,
    /// Called once when everything is built and served.
    pub on_start: Option<OnStart>,
}

/// What is called with the running agent when it is up; ends by itself when [`Running::stopped`] turns true.
pub type OnStart = Box<dyn FnOnce(Running) + Send>;

/// A running agent, as far as its starter may look.
pub struct Running {
    /// Addresses that serve metrics.
    pub addresses: Vec<SocketAddr>,
    /// Reads a sample, as a scrape does.
    pub sample: Arc<dyn Fn() -> anyhow::Result<crate::sample::Sample> + Send + Sync>,
    /// Turns true when the agent stops.
    pub stopped: Receiver<bool>,
}

/// Where the wanted topology comes from.
pub enum Source {
    /// A file, read again on SIGHUP and when it changes.
    File(PathBuf),
    /// Text built into the program, under this name.
    Text(&'static str, &'static str),
}

/// Why a command failed: one line for a person, and an exit code.
#[derive(Debug)]
pub enum Failure {
    /// Bad usage: exit code 2, nothing was touched.
    Usage(String),
    /// A bad file: exit code 2, nothing was touched.
    Config(ConfigErrors),
    /// A privilege or kernel feature is missing: exit code 3.
    Missing(String),
    /// Anything else: exit code 1.
    Failed(anyhow::Error),
}

impl Failure {
    /// The documented exit code.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Usage(_) | Self::Config(_) => 2,
            Self::Missing(_) => 3,
            Self::Failed(_) => 1,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Usage(why) | Self::Missing(why) => f.write_str(why),
            Self::Config(errors) => errors.fmt(f),
            Self::Failed(error) => write!(f, "{error:#}"),
        }
    }
}

impl From<ConfigErrors> for Failure {
    fn from(errors: ConfigErrors) -> Self {
        Self::Config(errors)
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self::Failed(error)
    }
}

impl Source {
    fn load(&self) -> Result<Topology, ConfigErrors> {
        match self {
            Self::File(path) => config::load(path),
            Self::Text(name, text) => config::parse(text, name),
        }
    }

    fn file(&self) -> Option<&std::path::Path> {
        match self {
            Self::File(path) => Some(path),
            Self::Text(..) => None,
        }
    }
}

/// Runs the agent until a signal ends it (or one pass is made, with `once`).
///
/// # Errors
/// A bad file, a missing privilege, a run directory held by another agent, an address in use; and with `once` a failed pass.
/// Once it runs, failed passes are logged, counted and tried again.
pub fn run(options: Options) -> Result<(), Failure> {
    let topology = options.source.load()?;
    if options.once {
        let steps = Engine::open(&options.host)?.pass(&topology, &mut |_, step| info!("{step}"))?.steps;
        info!("{steps} steps done");
        return Ok(());
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name("agent")
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    runtime.block_on(keep(topology, options))
}

/// Everything between start and stop.
async fn keep(mut topology: Topology, options: Options) -> Result<(), Failure> {
    let Options { host, source, listen, collectors, once: _, cleanup, must_start, on_start } = options;
    // Before the first pass, so that no event and no signal between observing and waiting is lost.
    let mut hangup = signal(SignalKind::hangup()).context("SIGHUP")?;
    let mut terminate = signal(SignalKind::terminate()).context("SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("SIGINT")?;
    // The likeliest reason for an address in use, and the better answer.
    if let Some(holder) = RunLock::holder(&host.run_dir) {
        return Err(Failure::Failed(LockError::Held { run_dir: host.run_dir, holder }.into()));
    }
    let listeners = bind(&listen).await?;
    let addresses = listeners.iter().map(TcpListener::local_addr).collect::<Result<Vec<_>, _>>();
    let addresses = addresses.context("cannot tell the address of a listening socket")?;

    let netns_dir = host.netns_dir.clone();
    let engine = Arc::new(blocking(move || Engine::open(&host)).await??);
    let mut events = Watch::new(&netns_dir, engine.runs().dir(), source.file(), engine.table())
        .context("cannot watch the kernel for changes")?;
    let state = Arc::new(State::new(Arc::clone(&engine), collectors));
    engine.note_filed(&topology);
    let watch = Watching::start(&engine, &state)?;
    if let Some(logger) = engine.take_logger() {
        tokio::spawn(forward(logger));
    }

    let (stop, stopped) = channel(false);
    let server = tokio::spawn(http::serve(listeners, state.app(), until(stopped.clone())));
    for address in &addresses {
        info!("listening on http://{address}/metrics, live page http://{address}/");
    }
    let (mut on_start, mut started) = (on_start, None);
    let (mut failures, mut fatal, mut told) = (0, None, false);
    loop {
        let began = Instant::now();
        match pass(&state, &topology).await? {
            Ok(()) => failures = 0,
            Err(failure) if must_start && on_start.is_some() => {
                fatal = Some(failure);
                break;
            }
            Err(failure) => {
                error!("pass failed: {failure}");
                failures += 1;
            }
        }
        if !std::mem::replace(&mut told, true) {
            // Also when it failed: the agent runs, serves, and tries again.
            tell_systemd(NotifyState::Ready);
        }
        if let Some(on_start) = on_start.take() {
            let state = Arc::clone(&state);
            let running = Running {
                addresses: addresses.clone(),
                sample: Arc::new(move || state.sample(&Collectors::all())),
                stopped: stopped.clone(),
            };
            started = Some(std::thread::spawn(move || on_start(running)));
        }
        // A pass on a host with many namespaces takes time: spend at most half of it passing.
        let rest = SETTLE.max(began.elapsed());
        tokio::select! {
            biased;
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            _ = hangup.recv() => reload(&source, &state, &mut topology),
            () = tokio::time::sleep(wait(failures)) => {}
            change = events.changed() => {
                tokio::select! {
                    biased;
                    _ = terminate.recv() => break,
                    _ = interrupt.recv() => break,
                    () = tokio::time::sleep(rest) => {}
                }
                note(change, &source, &state, &mut topology);
            }
        }
    }
    info!("stopping");
    tell_systemd(NotifyState::Stopping);
    stop.send_replace(true);
    blocking(move || watch.stop()).await?;
    if let Err(error) = server.await.context("the HTTP server panicked").and_then(|done| done) {
        warn!("HTTP: {error:#}");
    }
    if let Some(started) = started {
        let ended = blocking(move || started.join()).await?;
        ended.map_err(|_panic| {
            Failure::Failed(anyhow::anyhow!("what was started beside the agent panicked"))
        })?;
    }
    match cleanup {
        true => blocking(move || engine.remove_everything()).await??,
        false => {
            info!("what was made stays, and counts go on where they are pinned; --cleanup would remove it")
        }
    }
    fatal.map_or(Ok(()), Err)
}

/// Tells systemd how it stands, where that waits to be told (`Type=notify`).
fn tell_systemd(state: NotifyState<'_>) {
    if let Err(error) = sd_notify::notify(&[state]) {
        warn!("systemd cannot be told: {error}");
    }
}

/// The thread that watches every namespace of the host.
struct Watching {
    waker: Waker,
    stopped: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Watching {
    /// Starts to listen, and then the thread.
    fn start(engine: &Arc<Engine>, state: &Arc<State>) -> Result<Self, Failure> {
        engine.begin_watch()?;
        let mut ear = Ear::open().context("cannot listen for changes of namespaces")?;
        let (waker, stopped) = (ear.waker(), Arc::new(AtomicBool::new(false)));
        let (engine, state, ended) = (Arc::clone(engine), Arc::clone(state), Arc::clone(&stopped));
        let run = move || {
            let mut heard = Heard { overrun: true, ..Heard::default() };
            while !ended.load(Ordering::Relaxed) {
                let began = Instant::now();
                let more = look(&engine, &state, &heard);
                let rest = if more { Duration::ZERO } else { engine.watch_wait() };
                // Under a storm of events, at most half of the time is spent looking.
                heard = ear.wait(rest, LOOK_SETTLE, began.elapsed());
            }
        };
        let thread = std::thread::Builder::new().name("watch".to_owned()).spawn(run);
        Ok(Self { waker, stopped, thread: thread.context("cannot start a thread")? })
    }

    fn stop(self) {
        self.stopped.store(true, Ordering::Relaxed);
        self.waker.wake();
        if self.thread.join().is_err() {
            error!("the thread that watches namespaces panicked");
        }
    }
}

/// One look of the watch; says whether there is more to do at once.
fn look(engine: &Engine, state: &State, heard: &Heard) -> bool {
    if heard.overrun {
        debug!("looking at every namespace anew");
    }
    match engine.watch(heard) {
        Ok(looked) => {
            state.looked(looked.unattached);
            // Beside what is to be attached, names can wait.
            looked.more || engine.learn_names()
        }
        Err(error) => {
            error!("cannot look for namespaces: {error:#}");
            false
        }
    }
}

/// Hands what the eBPF programs log to our own log.
async fn forward(logger: Logger) {
    #[expect(
        deprecated,
        reason = "what its unsafe successor asks for holds: the logger owns its descriptor for life"
    )]
    let registered = AsyncFd::with_interest(logger, Interest::READABLE);
    let mut logger = match registered {
        Ok(logger) => logger,
        Err(error) => return warn!("what the eBPF programs log is not shown: {error}"),
    };
    while let Ok(mut ready) = logger.readable_mut().await {
        ready.get_inner_mut().flush();
        ready.clear_ready();
    }
}

/// One pass; how it went is counted. The outer error is a panic.
async fn pass(state: &Arc<State>, topology: &Topology) -> Result<Result<(), Failure>, Failure> {
    let (state, topology) = (Arc::clone(state), topology.clone());
    blocking(move || state.pass(&topology)).await
}

/// Until the next pass, after so many failures in a row: what failed for a moment is tried again soon.
fn wait(failures: u32) -> Duration {
    match failures {
        0 => PASS_INTERVAL,
        some => PASS_INTERVAL.min(Duration::from_secs(1 << some.min(5).saturating_sub(1))),
    }
}

/// What an event asks for beside the pass that follows every event.
fn note(change: Change, source: &Source, state: &State, topology: &mut Topology) {
    debug!("changed: {change:?}");
    match change {
        Change::File => reload(source, state, topology),
        Change::Overrun => {
            warn!("netlink overran: events were lost, looking at everything anew");
            state.count_overrun();
        }
        Change::Netlink | Change::Netfilter | Change::Netns => {}
    }
}

/// Reads the file again; a bad one changes nothing but the log and the metric.
fn reload(source: &Source, state: &State, topology: &mut Topology) {
    match source.load() {
        Ok(new) => {
            if new != *topology {
                info!("the file changed");
            }
            *topology = new;
            state.reloaded(true);
        }
        Err(errors) => {
            error!("the file is bad, the old one stays in force: {errors}");
            state.reloaded(false);
        }
    }
}

async fn bind(addresses: &[SocketAddr]) -> Result<Vec<TcpListener>, Failure> {
    let mut listeners = Vec::new();
    for address in addresses {
        let listener = TcpListener::bind(address)
            .await
            .with_context(|| format!("cannot listen on {address}: choose another --web.listen-address"))?;
        if !address.ip().is_loopback() {
            warn!("{address} is reachable from other machines, without encryption or password");
        }
        listeners.push(listener);
    }
    Ok(listeners)
}

async fn until(mut stopped: Receiver<bool>) {
    // An error means that the sender is gone: stopped too.
    if stopped.wait_for(|stopped| *stopped).await.is_err() {
        debug!("whoever could stop the server is gone");
    }
}

/// Runs kernel work where it may block.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Failure> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|error| Failure::Failed(anyhow::anyhow!("a task panicked: {error}")))
}
