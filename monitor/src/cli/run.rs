//! `netns-monitor run -- CMD`.

use std::{
    ffi::OsString,
    os::unix::process::ExitStatusExt as _,
    process::{self, ExitCode, ExitStatus},
    sync::{
        Arc,
        atomic::{AtomicI32, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use clap::Args;
use nix::{
    sys::signal::{SigSet, Signal, kill},
    unistd::Pid,
};
use tracing::{debug, warn};

use super::{Global, exec};
use crate::{
    agent::{
        Failure,
        engine::{Engine, Host, Look},
        lock::RunLock,
        runs::{Run, Runs},
    },
    netns::{self, Held, Records, Running},
    topology::names::{IfName, NsName},
};

/// How long an agent may take to wire a namespace, or to take it away.
const SOON: Duration = Duration::from_secs(20);
const PAUSE: Duration = Duration::from_millis(10);

/// Options of `run`.
#[derive(Debug, Args)]
pub(super) struct Options {
    /// Bridge of netns-monitor's that the command gets an interface on; without one it has `lo` alone
    #[arg(long, value_name = "BRIDGE")]
    network: Option<String>,
    /// Name of the namespace, for as long as the command runs
    #[arg(long, value_name = "NS")]
    name: Option<String>,
    /// The command and its arguments, after `--`
    #[arg(last = true, required = true, value_name = "CMD")]
    command: Vec<OsString>,
}

pub(super) fn run(
    global: &Global,
    Options { network, name, command }: &Options,
) -> Result<ExitCode, Failure> {
    let usage = |error: crate::topology::names::NameError| Failure::Usage(error.to_string());
    let made_up = || format!("run-{}", process::id());
    let name: NsName = name.clone().unwrap_or_else(made_up).parse().map_err(usage)?;
    let bridge: Option<IfName> = network.as_deref().map(str::parse).transpose().map_err(usage)?;
    let host = global.host();
    let look = Engine::look(&host)?;
    let runs = Runs::new(&host.run_dir);
    // Signals are for the command; one that comes before it runs ends everything.
    let signals = Signals::new()?;

    let program = exec::program(command);
    let (held, run) = match hold(&host, &look, &runs, name.clone(), bridge, command) {
        Ok(held) => held,
        Err(failure) => {
            tidy(&host, &runs);
            return Err(failure);
        }
    };
    let records = Records::new(&host.run_dir);
    let wired = netns::create_of(&host.netns_dir, &records, &name, held.pid)
        .map_err(anyhow::Error::from)
        // Again: now there is something to wire.
        .and_then(|()| runs.write(&run));
    let wired = wired.map_err(Failure::from).and_then(|()| wire(&host, &runs, &run, &signals));
    let code = match wired {
        Ok(()) => match held.release() {
            Ok(running) => Ok(code_of(&program, wait(&running, &signals))),
            Err(error) => Err(anyhow::Error::from(error).context("the process is gone").into()),
        },
        Err(failure) => {
            drop(held);
            Err(failure)
        }
    };
    if let Err(failure) = clear(&host, &runs, &run) {
        warn!("namespace {name} is left (netns-monitor gc removes it): {failure}");
    }
    code
}

/// Clones the process, gives it a place, and notes both: what an agent and gc go by is there before the namespace has its
/// name.
fn hold(
    host: &Host,
    look: &Look,
    runs: &Runs,
    name: NsName,
    bridge: Option<IfName>,
    command: &[OsString],
) -> Result<(Held, Run), Failure> {
    let _giving = runs.lock()?;
    let taken = runs.alive().iter().any(|run| run.name == name);
    if taken || host.netns_dir.join(name.as_str()).symlink_metadata().is_ok() {
        return Err(anyhow::anyhow!("namespace {name} exists already: choose another --name").into());
    }
    let network = bridge.map(|bridge| look.place_on(&bridge)).transpose()?;
    let held = netns::hold(exec::program(command)).context("cannot clone into a new namespace")?;
    let run = Run::of(name, held.pid, network).context("the process is gone")?;
    runs.write(&run)?;
    Ok((held, run))
}

/// Removes what was made to note something, where nothing is noted.
fn tidy(host: &Host, runs: &Runs) {
    for (what, removed) in [("run", runs.remove_dir()), ("", std::fs::remove_dir(&host.run_dir))] {
        if let Err(error) = removed {
            debug!("{} stays: {error}", host.run_dir.join(what).display());
        }
    }
}

/// Has it wired, by an agent where there is one.
fn wire(host: &Host, runs: &Runs, run: &Run, signals: &Signals) -> Result<(), Failure> {
    let end = Instant::now() + SOON;
    loop {
        if runs.is_ready(&run.name) {
            return Ok(());
        }
        if signals.take().is_some() {
            return Err(anyhow::anyhow!("stopped before the command ran").into());
        }
        if RunLock::holder(&host.run_dir).is_none() {
            match Engine::open(host) {
                Ok(engine) => return engine.add_run(run).map_err(Failure::from),
                // Another of these was faster.
                Err(_) if RunLock::holder(&host.run_dir).is_some() => {}
                Err(failure) => return Err(failure),
            }
        }
        if Instant::now() >= end {
            let what = "the agent of this run directory did not wire the namespace in time; its log says why";
            return Err(anyhow::anyhow!("{what}").into());
        }
        thread::sleep(PAUSE);
    }
}

/// Waits for the command, and hands it the signals.
fn wait(running: &Running, signals: &Signals) -> std::io::Result<ExitStatus> {
    loop {
        if let Some(ended) = running.ended() {
            return ended;
        }
        if let Some(signal) = signals.take() {
            // It may be gone just now.
            let _gone = kill(Pid::from_raw(running.pid.cast_signed()), signal);
        }
        thread::sleep(PAUSE);
    }
}

fn code_of(program: &process::Command, ended: std::io::Result<ExitStatus>) -> ExitCode {
    match ended {
        Ok(status) => {
            let code = status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or_default());
            ExitCode::from(u8::try_from(code).unwrap_or(1))
        }
        Err(error) => exec::could_not(program, &error),
    }
}

/// Takes everything away again, or has an agent do it.
fn clear(host: &Host, runs: &Runs, run: &Run) -> Result<(), Failure> {
    if RunLock::holder(&host.run_dir).is_some() {
        runs.remove(&run.name)?;
    }
    let path = host.netns_dir.join(run.name.as_str());
    let end = Instant::now() + SOON;
    loop {
        if RunLock::holder(&host.run_dir).is_none() {
            match Engine::open(host) {
                Ok(engine) => {
                    engine.destroy(&run.topology(), &mut |_, _| {})?;
                    drop(engine);
                    runs.remove(&run.name)?;
                    tidy(host, runs);
                    return Ok(());
                }
                Err(_) if RunLock::holder(&host.run_dir).is_some() => {}
                Err(failure) => return Err(failure),
            }
        }
        // An agent that came meanwhile has it.
        runs.remove(&run.name)?;
        if path.symlink_metadata().is_err() {
            return Ok(());
        }
        if Instant::now() >= end {
            return Err(anyhow::anyhow!("the agent of this run directory did not remove it in time").into());
        }
        thread::sleep(PAUSE);
    }
}

/// Signals that are handed on: those that a terminal or a supervisor sends.
struct Signals(Arc<AtomicI32>);

impl Signals {
    /// From now on they are caught, on a thread of its own. The command has them as they were.
    fn new() -> anyhow::Result<Self> {
        let mut caught = SigSet::empty();
        // From a terminal these reach the command by themselves.
        for signal in [
            Signal::SIGINT,
            Signal::SIGQUIT,
            Signal::SIGTERM,
            Signal::SIGHUP,
            Signal::SIGUSR1,
            Signal::SIGUSR2,
        ] {
            caught.add(signal);
        }
        caught.thread_block().context("cannot block signals")?;
        let last = Arc::new(AtomicI32::new(0));
        let seen = Arc::clone(&last);
        thread::Builder::new().name("signals".to_owned()).spawn(move || {
            let by_terminal = std::io::IsTerminal::is_terminal(&std::io::stdin());
            while let Ok(signal) = caught.wait() {
                if !(by_terminal && matches!(signal, Signal::SIGINT | Signal::SIGQUIT)) {
                    seen.store(signal as i32, Ordering::SeqCst);
                }
            }
        })?;
        Ok(Self(last))
    }

    fn take(&self) -> Option<Signal> {
        let Self(last) = self;
        Signal::try_from(last.swap(0, Ordering::SeqCst)).ok()
    }
}
