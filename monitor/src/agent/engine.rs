//! What `agent`, `apply`, `destroy` and the looking subcommands do to the kernel, in order. Blocking.

mod gc;
mod live;
mod look;
mod pins;
mod talk;
mod traced;
mod watch;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::PathBuf,
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use anyhow::Context as _;
use tracing::{debug, info, warn};

use self::pins::{is_unused, pin_dir, pins};
use self::watch::Watching;
pub use self::{
    gc::Garbage,
    live::{Live, Moment},
    watch::Look as Watch,
};
use super::{
    Failure,
    lock::RunLock,
    runs::{Run, Runs},
    watch::Watched,
};
use crate::{
    discover::{Scope, Source, choice::Choice, ear::Heard},
    netns,
    probe::{self, AttachChoice, Attached, Probes, Readings, Side, Target, bpffs},
    reconcile::{Kernel, Performing},
    sample::{AttachMode, Sample},
    talk::{Talk, Wanted},
    topology::{
        Observed, Topology,
        execute::{self, Perform},
        figures::Parts,
        names::{Cookie, IfName, LinkId, Place},
        outside::Outside,
        plan::{self, PlanOptions},
        step::Step,
    },
    trace::{Drops, Tcp},
};

/// The host's directories, and how to attach.
#[derive(Clone, Debug)]
pub struct Host {
    /// Lock and records.
    pub run_dir: PathBuf,
    /// Where a bpffs is, or can be mounted.
    pub bpffs: PathBuf,
    /// Where named namespaces are mounted.
    pub netns_dir: PathBuf,
    /// How programs are attached; absent where nothing shall be counted.
    pub attach: Option<AttachChoice>,
    /// Where namespaces are looked for.
    pub sources: Vec<Source>,
    /// Sockets of container engines, which are asked for names.
    pub engines: Vec<PathBuf>,
    /// Whether a file says what shall be. Without one only commands of `run` are wired, and what else stands is left alone.
    pub builds: bool,
    /// What is looked at beside the counting; absent for who leaves that as it is.
    pub talk: Option<Wanted>,
    /// What of it is watched; what a file names always is.
    pub choice: Choice,
    /// How many namespaces have series of their own; 0: all.
    pub max_namespaces: usize,
    /// Whether our counters are compared with the kernel's.
    pub drift: bool,
    /// Whether drops are counted.
    pub drops: bool,
    /// Whether what TCP meets with is.
    pub tcp: bool,
    /// What is read of the kernel's own figures.
    pub figures: Parts,
}

impl Host {
    pub(super) fn scope(&self) -> Scope {
        Scope { netns_dirs: vec![self.netns_dir.clone()], sources: self.sources.clone() }
    }

    fn kernel(&self) -> Kernel {
        Kernel::new(&self.netns_dir, &self.run_dir).with_figures(self.figures)
    }
}

/// The kernel in our hands: the lock is held, programs are loaded, what was attached before is adopted.
pub struct Engine {
    host: Host,
    kernel: Kernel,
    /// Absent where this kernel or our privileges do not allow it: the wiring works all the same.
    probes: Option<Probes>,
    /// Where everything is pinned; absent where counts end with this process.
    pin_dir: Option<PathBuf>,
    /// Opened by the first pass; absent where this kernel or our privileges do not allow it.
    drops: OnceLock<Option<Drops>>,
    /// The same.
    tcp: OnceLock<Option<Tcp>>,
    /// The opt-in programs beside the counting ones.
    talk: Talk,
    /// A pass is one at a time.
    passing: Mutex<()>,
    watching: Watching,
    /// Namespaces that the last look of a pass saw, with their inodes.
    named: Mutex<BTreeMap<Cookie, u64>>,
    /// Times a program that somebody removed was put back.
    reattached: AtomicU64,
    /// What was said of obstacles; it is not said again while it stays.
    told: Mutex<Vec<String>>,
    /// A bpffs that this process mounted, to be unmounted when everything is removed.
    mounted: bool,
    _lock: RunLock,
}

/// The kernel, looked at: nothing is changed, no lock is needed.
pub struct Look {
    host: Host,
    kernel: Kernel,
}

/// What one look saw.
pub struct View {
    /// Every named namespace, and the host's links.
    pub observed: Observed,
    /// Every namespace.
    pub watched: Watched,
    /// The same with its counts.
    pub sample: Sample,
}

/// What one pass did and left.
pub struct Pass {
    /// Steps performed.
    pub steps: usize,
    /// The kernel after them.
    pub observed: Observed,
    /// Interfaces that should be counted and are not.
    pub unattached: usize,
}

/// Why a pass failed, and in which stage (a label of the error counter).
pub struct PassError {
    /// `observe`, `plan`, `execute` or `retire`.
    pub stage: &'static str,
    /// What to tell.
    pub failure: Failure,
}

impl From<PassError> for Failure {
    fn from(error: PassError) -> Self {
        error.failure
    }
}

/// Marks a failure with the stage it came from.
fn at<E: Into<anyhow::Error>>(stage: &'static str) -> impl FnOnce(E) -> PassError {
    move |error| PassError { stage, failure: Failure::Failed(error.into()) }
}

impl Engine {
    /// Takes the lock, finds or mounts a bpffs, loads the programs and adopts what an earlier life attached.
    ///
    /// # Errors
    /// Another agent holds the run directory; not root. A kernel that cannot count is no error: the log says what is lost.
    pub fn open(host: &Host) -> Result<Self, Failure> {
        let engine = Self::open_with(host, true)?;
        // Under the lock that the engine holds.
        netns::sweep(&host.netns_dir, &netns::Records::new(&host.run_dir)).map_err(anyhow::Error::from)?;
        Ok(engine)
    }

    /// Without the sweep, for who shows what it removes; without programs where nothing is counted.
    fn open_with(host: &Host, count: bool) -> Result<Self, Failure> {
        need_root()?;
        let lock = RunLock::take(&host.run_dir).map_err(anyhow::Error::from)?;
        let kernel = host.kernel();
        let ways = watch::Ways::default();
        let new = |probes, pin_dir, talk, mounted, ways| Self {
            host: host.clone(),
            kernel,
            probes,
            pin_dir,
            drops: OnceLock::new(),
            tcp: OnceLock::new(),
            talk,
            passing: Mutex::new(()),
            watching: Watching::new(ways),
            named: Mutex::default(),
            reattached: AtomicU64::new(0),
            told: Mutex::default(),
            mounted,
            _lock: lock,
        };
        let Some(attach) = host.attach.filter(|_| count) else {
            return Ok(new(None, None, Talk::default(), false, ways));
        };
        let (pin_dir, mounted) = pin_dir(host);
        let options = probe::Options {
            pin_dir: pin_dir.clone(),
            attach,
            log_level: bpf_log_level(),
            enter: watch::enter(host.netns_dir.clone(), Arc::clone(&ways)),
        };
        let probes = match Probes::open(options) {
            Ok(probes) => Some(probes),
            Err(error) if attach != AttachChoice::Auto => {
                return Err(Failure::Missing(format!("--attach asks for what cannot be had: {error}")));
            }
            Err(error) => {
                warn!("nothing is counted: {error}; namespaces and links are managed all the same");
                None
            }
        };
        let enter = || watch::enter(host.netns_dir.clone(), Arc::clone(&ways));
        let talk = match &probes {
            Some(_) => Talk::open(pin_dir.as_deref(), host.talk, enter),
            None => Talk::default(),
        };
        Ok(new(probes, pin_dir, talk, mounted, ways))
    }

    /// The same kernel for who only looks.
    ///
    /// # Errors
    /// Not root: namespaces cannot be entered.
    pub fn look(host: &Host) -> Result<Look, Failure> {
        need_root()?;
        let host = Host { figures: Parts::ALL, ..host.clone() };
        Ok(Look { kernel: host.kernel(), host })
    }

    /// One pass: look, plan, do it, and move the counts of what is gone to where totals are kept.
    ///
    /// # Errors
    /// The stage that failed. What the steps before had done is undone.
    pub fn pass(
        &self,
        topology: &Topology,
        progress: &mut dyn FnMut(usize, &Step),
    ) -> Result<Pass, PassError> {
        let _one_at_a_time = self.passing.lock().unwrap_or_else(PoisonError::into_inner);
        self.note_filed(topology);
        self.count_by_tracing();
        // Commands that live keep what they have; those that ended are not wanted any more.
        let runs = Runs::new(&self.host.run_dir);
        let mut observed = self.observe(topology).map_err(at("observe"))?;
        for run in runs.dead() {
            if !self.host.builds {
                let steps = plan::teardown(&run.topology(), &observed);
                self.take_down(&steps, &run.topology(), progress)?;
                observed = self.observe(topology).map_err(at("observe"))?;
            }
            runs.remove(&run.name).map_err(at("observe"))?;
        }
        let mut topology = topology.clone();
        let alive: Vec<_> =
            runs.alive().into_iter().filter(|run| observed.namespaces.contains_key(&run.name)).collect();
        alive.iter().for_each(|run| run.add_to(&mut topology));
        let topology = &topology;
        // Before anything new is made: an interface index may be used again.
        self.retire(&observed).map_err(at("retire"))?;
        let steps = match self.host.builds {
            true => {
                let options = PlanOptions { attach: self.probes.is_some() };
                plan::plan(topology, &observed, options).map_err(at("plan"))?
            }
            false => self.wire_runs(&alive, topology, &observed)?,
        };
        if !steps.is_empty() {
            let mut performer = Performer::new(self, topology).map_err(at("execute"))?;
            execute::execute(&steps, &mut performer, &mut |_, step| progress(steps.len(), step))
                .map_err(at("execute"))?;
            drop(performer);
            observed = self.observe(topology).map_err(at("observe"))?;
            self.retire(&observed).map_err(at("retire"))?;
            // So that who asks after this pass sees what it made.
            let everything = Heard { woken: true, ..Heard::default() };
            if let Err(error) = self.look_and_count(&everything) {
                warn!("cannot look for namespaces: {error:#}");
            }
        }
        self.tell(self.kernel.obstacles(topology, &observed));
        let attached = |link: &LinkId| observed.link(link).is_some_and(|link| link.attached);
        let wanted = topology.counted().filter(|_| self.host.attach.is_some());
        let unattached = wanted.filter(|link| !attached(link)).count();
        for run in alive.iter().filter(|run| run.is_wired(topology, &observed, self.probes.is_some())) {
            runs.mark_ready(&run.name).map_err(at("observe"))?;
        }
        Ok(Pass { steps: steps.len(), observed, unattached })
    }

    /// What commands of `run` lack, and nothing else: their bridges stay as they are.
    fn wire_runs(
        &self,
        alive: &[Run],
        topology: &Topology,
        observed: &Observed,
    ) -> Result<Vec<Step>, PassError> {
        let counted = self.probes.is_some();
        let lacking = alive.iter().filter(|run| !run.is_wired(topology, observed, counted));
        let each = lacking.map(|run| self.plan_part(&run.topology_on(observed), observed.clone()));
        Ok(each.collect::<Result<Vec<_>, _>>()?.into_iter().flatten().collect())
    }

    /// Says what keeps packets from their way, once for as long as it stays so.
    fn tell(&self, obstacles: Vec<String>) {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        obstacles.iter().filter(|obstacle| !told.contains(obstacle)).for_each(|obstacle| warn!("{obstacle}"));
        told.iter().filter(|old| !obstacles.contains(old)).for_each(|old| info!("no longer: {old}"));
        *told = obstacles;
    }

    /// Where commands of `run` are noted.
    pub fn runs(&self) -> Runs {
        Runs::new(&self.host.run_dir)
    }

    /// The name of nft tables of ours.
    pub fn table(&self) -> &str {
        self.kernel.table()
    }

    /// Makes one part, and changes nothing else.
    fn add(&self, part: &Topology) -> Result<(), PassError> {
        let observed = self.observe(part).map_err(at("observe"))?;
        self.retire(&observed).map_err(at("retire"))?;
        let steps = self.plan_part(part, observed)?;
        self.take_down(&steps, part, &mut |_, step| debug!("{}", step.title()))
    }

    /// The steps that make one part, and change nothing else.
    fn plan_part(&self, part: &Topology, mut observed: Observed) -> Result<Vec<Step>, PassError> {
        let wanted = |link: &LinkId| part.ends().any(|end| end.link == *link);
        let is_bridge = |name: &IfName| part.bridges.iter().any(|bridge| bridge.name == *name);
        observed.host.retain(|name, _| is_bridge(name) || wanted(&LinkId::host(name.clone())));
        observed.namespaces.retain(|name, _| part.namespaces.iter().any(|netns| netns.name == *name));
        observed.outside = Outside::default();
        observed.host_routes.clear();
        plan::plan(part, &observed, PlanOptions { attach: self.probes.is_some() }).map_err(at("plan"))
    }

    /// Wires the namespace of a command, and changes nothing else.
    ///
    /// # Errors
    /// As [`Engine::pass`].
    pub fn add_run(&self, run: &Run) -> Result<(), PassError> {
        let observed = self.observe(&Topology::default()).map_err(at("observe"))?;
        self.add(&run.topology_on(&observed))
    }

    /// Removes what the file names and we made. When nothing of ours is left after that, the counts go too.
    ///
    /// # Errors
    /// As [`Engine::pass`].
    pub fn destroy(
        &self,
        topology: &Topology,
        progress: &mut dyn FnMut(usize, &Step),
    ) -> Result<usize, PassError> {
        let observed = self.observe(topology).map_err(at("observe"))?;
        let steps = plan::teardown(topology, &observed);
        self.take_down(&steps, topology, progress)?;
        let rest = self.observe(&Topology::default()).map_err(at("observe"))?;
        self.retire(&rest).map_err(at("retire"))?;
        if plan::teardown_all(&rest).is_empty() {
            self.forget().map_err(at("retire"))?;
        }
        Ok(steps.len())
    }

    /// Removes everything we made: namespaces, links, programs, counts, pins.
    ///
    /// # Errors
    /// As [`Engine::pass`].
    pub fn remove_everything(&self) -> Result<(), PassError> {
        let observed = self.observe(&Topology::default()).map_err(at("observe"))?;
        let steps = plan::teardown_all(&observed);
        self.take_down(&steps, &Topology::default(), &mut |_, step| info!("{}", step.title()))?;
        self.forget().map_err(at("retire"))
    }

    fn take_down(
        &self,
        steps: &[Step],
        topology: &Topology,
        progress: &mut dyn FnMut(usize, &Step),
    ) -> Result<(), PassError> {
        let mut performer = Performer::new(self, topology).map_err(at("execute"))?;
        execute::execute(steps, &mut performer, &mut |_, step| progress(steps.len(), step))
            .map_err(at("execute"))
    }

    /// Takes programs, maps and pins away, a bpffs that we mounted, and the run directory.
    fn forget(&self) -> anyhow::Result<()> {
        self.forget_tracing()?;
        self.forget_talk()?;
        if let Some(probes) = &self.probes {
            probes.remove_everything()?;
        }
        if self.mounted && is_unused(&self.host.bpffs) {
            bpffs::unmount(&self.host.bpffs).context("cannot unmount the bpffs that was mounted at start")?;
        }
        // The lock stays held on the file that is gone; whoever comes next makes a new one. What somebody else put
        // there keeps the directory.
        let run_dir = &self.host.run_dir;
        for (what, removed) in [
            ("netns", fs::remove_dir(run_dir.join("netns"))),
            ("before", fs::remove_dir(run_dir.join("before"))),
            ("switches.new", fs::remove_file(run_dir.join("switches.new"))),
            ("run", Runs::new(run_dir).remove_dir()),
            ("leases", self.kernel.forget_leases()),
            ("lock", fs::remove_file(run_dir.join("lock"))),
            ("", fs::remove_dir(run_dir)),
        ] {
            if let Err(error) = removed {
                debug!("{} stays: {error}", run_dir.join(what).display());
            }
        }
        Ok(())
    }

    /// The kernel as it is, with what is counted marked.
    ///
    /// # Errors
    /// What the kernel refused.
    pub fn observe(&self, topology: &Topology) -> anyhow::Result<Observed> {
        let mut observed = self.kernel.observe_for(topology)?;
        if let Some(probes) = &self.probes {
            let cookies: BTreeSet<Cookie> = observed.namespaces.values().map(|netns| netns.cookie).collect();
            mark_attached(&mut observed, &probes.attached(|target| cookies.contains(&target.cookie)));
        }
        Ok(observed)
    }

    /// Moves the counts of interfaces and namespaces that are gone to where totals are kept.
    fn retire(&self, observed: &Observed) -> anyhow::Result<()> {
        let Some(probes) = &self.probes else { return self.watch_by_tracing([].into_iter()) };
        let hosts: BTreeSet<u32> = observed.host.values().map(|link| link.ifindex).collect();
        let inside: BTreeSet<(Cookie, u32)> = observed
            .namespaces
            .values()
            .flat_map(|netns| netns.links.values().map(|link| (netns.cookie, link.ifindex)))
            .collect();
        let seen = |target: &Target| match target.side {
            Side::HostEnd { ifindex } => hosts.contains(&ifindex),
            Side::Inside { ifindex } => inside.contains(&(target.cookie, ifindex)),
        };
        // Beside what this look saw, whatever the kernel says our programs are still attached to: an interface of a
        // namespace that lost its name is out of sight, and alive.
        let out_of_sight = probes.attached(|target| !seen(target));
        let complete: Vec<&Target> = out_of_sight
            .iter()
            .filter(|attached| attached.complete)
            .map(|attached| &attached.target)
            .collect();
        let alive = |target: &Target| seen(target) || complete.iter().any(|other| other.is(target));
        let named = observed.namespaces.values().map(|netns| (netns.cookie, netns.inode)).collect();
        *self.named.lock().unwrap_or_else(PoisonError::into_inner) = named;
        let live = self.live(&self.watched());
        probes.retire_dead(&alive, &live)?;
        self.follow_talk(probes, &live, false);
        self.watch_by_tracing(probes.targets().iter().map(|target| target.cookie))
    }

    /// Counts a link: finds out whose packets these are, and attaches.
    fn attach(&self, topology: &Topology, link: &LinkId) -> anyhow::Result<()> {
        let Some(probes) = &self.probes else { return Ok(()) };
        let whose = topology.counted_as(link).with_context(|| format!("{link} is not in the file"))?;
        let Place::Netns(netns) = &whose.place else { anyhow::bail!("{whose} is in no namespace") };
        let cookie = netns::identity(&self.host.netns_dir, netns)?.cookie;
        let side = match &link.place {
            Place::Host => Side::HostEnd { ifindex: ifindex(&link.name)? },
            Place::Netns(place) => {
                Side::Inside { ifindex: netns::inside(&self.host.netns_dir, place, || ifindex(&link.name))?? }
            }
        };
        let target = Target { cookie, netns: netns.to_string(), interface: whose.name.to_string(), side };
        Ok(self.attach_to(probes, &target)?)
    }

    /// What is counted, read now; nothing where nothing can be counted.
    pub fn read(&self) -> Readings {
        self.probes.as_ref().map_or_else(Readings::default, Probes::read)
    }

    /// How interfaces are counted; absent where they cannot be.
    pub fn mode(&self) -> Option<AttachMode> {
        self.probes.as_ref().map(Probes::mode)
    }

    /// Times a program of ours that somebody removed was put back.
    pub fn reattached(&self) -> u64 {
        self.reattached.load(Ordering::Relaxed)
    }

    /// Whether counts outlive this process.
    pub fn pinned(&self) -> bool {
        self.probes.as_ref().is_some_and(Probes::pinned)
    }

    /// The reader of what the eBPF programs log, once.
    pub fn take_logger(&self) -> Option<probe::Logger> {
        self.probes.as_ref().and_then(Probes::take_logger)
    }
}

/// Sends attaching to the probes and everything else to the kernel.
struct Performer<'a> {
    engine: &'a Engine,
    topology: &'a Topology,
    _performing: Performing<'a>,
}

impl<'a> Performer<'a> {
    fn new(engine: &'a Engine, topology: &'a Topology) -> anyhow::Result<Self> {
        Ok(Self { engine, topology, _performing: engine.kernel.performing()? })
    }
}

impl Perform for Performer<'_> {
    fn perform(&mut self, step: &Step) -> anyhow::Result<()> {
        match step {
            // A link that cannot be counted is wired all the same; the next pass tries again, and readiness says so.
            Step::Attach { link } => {
                if let Err(error) = self.engine.attach(self.topology, link) {
                    warn!("{link} is not counted: {error:#}");
                }
                Ok(())
            }
            // The rest is wired all the same, where /proc/sys cannot be written to.
            Step::TurnOn { .. } => {
                if let Err(error) = self.engine.kernel.perform(step) {
                    warn!("{error:#}: do it yourself: {step}");
                }
                Ok(())
            }
            step => self.engine.kernel.perform(step),
        }
    }

    fn together(&self, steps: &[Step]) -> usize {
        Kernel::together(steps)
    }

    fn perform_together(&mut self, steps: &[Step]) -> anyhow::Result<()> {
        self.engine.kernel.delete_links(steps)
    }
}

fn need_root() -> Result<(), Failure> {
    match nix::unistd::geteuid().is_root() {
        true => Ok(()),
        false => {
            Err(Failure::Missing("it enters namespaces and loads eBPF programs: run it as root".to_owned()))
        }
    }
}

fn ifindex(name: &IfName) -> anyhow::Result<u32> {
    nix::net::if_::if_nametoindex(name.as_str()).with_context(|| format!("no link {name}"))
}

fn mark_attached(observed: &mut Observed, attached: &[Attached]) {
    let complete = attached.iter().filter(|attached| attached.complete).map(|attached| &attached.target);
    let complete: BTreeSet<(Option<Cookie>, u32)> = complete
        .map(|target| match target.side {
            Side::HostEnd { ifindex } => (None, ifindex),
            Side::Inside { ifindex } => (Some(target.cookie), ifindex),
        })
        .collect();
    for link in observed.host.values_mut() {
        link.attached = complete.contains(&(None, link.ifindex));
    }
    for netns in observed.namespaces.values_mut() {
        for link in netns.links.values_mut() {
            link.attached = complete.contains(&(Some(netns.cookie), link.ifindex));
        }
    }
}

/// What the eBPF side may log is what our own log lets through: below that it is not even sent.
fn bpf_log_level() -> log::LevelFilter {
    match tracing::level_filters::LevelFilter::current() {
        level if level >= tracing::level_filters::LevelFilter::DEBUG => log::LevelFilter::Debug,
        _ => log::LevelFilter::Warn,
    }
}
