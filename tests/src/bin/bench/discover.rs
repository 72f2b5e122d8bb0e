//! `bench discover [--namespaces N]`: how soon what other tools make is counted, how soon all is found at start, and what
//! watching costs when nothing happens.
//!
//! Attaching is the kernel's: each of the two programs of a veth waits for it once or more (RCU). What that takes is measured in
//! the same run by attaching an empty program, and told beside.

use std::{
    fs,
    process::ExitCode,
    rc::Rc,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use aya::programs::{TcAttachType, links::LinkOrder, tc::TcAttachOptions};
use monitor_tests::{
    agent::Agent,
    host::{TestHost, ip},
    oracle::pins,
    pid_namespace::PidNamespace,
    test_run::Loaded,
};

/// How many times a namespace and a veth are made.
const TIMES: usize = 200;
/// Milliseconds until it is counted, without what the kernel takes to attach (99th percentile).
const ATTACHED: f64 = 100.0;
/// Seconds until a thousand are found.
const FOUND: f64 = 3.0;
/// Seconds until a thousand interfaces are adopted.
const ADOPTED: f64 = 2.0;
/// Share of a core while nothing happens, in per cent.
const IDLE: f64 = 1.0;
/// How long the agent is watched doing nothing.
const WATCHED: Duration = Duration::from_secs(60);
const PATIENCE: Duration = Duration::from_secs(300);
const SOURCES: [&str; 2] = ["--watch.source", "named,mount,process,held"];

pub(crate) fn discover(namespaces: usize) -> Result<ExitCode> {
    ensure!((1..=10_000).contains(&namespaces), "1 to 10000 namespaces");
    let alone = |work: fn(usize) -> Result<Vec<Target>>| {
        thread::scope(|scope| scope.spawn(|| work(namespaces)).join())
            .map_err(|_panic| anyhow::anyhow!("a thread panicked"))?
    };
    let mut reached = true;
    for Target { what, is, limit } in alone(latency)?.into_iter().chain(alone(many)?) {
        let ok = is <= limit;
        println!("target {}: {what}: {is:.2} (to reach: {limit})", if ok { "reached" } else { "MISSED" });
        reached &= ok;
    }
    Ok(if reached { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

struct Target {
    what: String,
    is: f64,
    limit: f64,
}

/// Each time a namespace and a veth are made, until both programs are attached.
fn latency(_namespaces: usize) -> Result<Vec<Target>> {
    let host = TestHost::quiet();
    let processes = Rc::new(PidNamespace::new(&host));
    let _agent = Agent::start_among(&processes, &SOURCES);
    let attached = || pins().iter().filter(|pin| pin.ends_with("gress")).count();
    let (mut all, mut bare) = (Vec::new(), Vec::new());
    for number in 0..TIMES {
        let before = attached();
        ip(&format!("netns add n{number}"));
        ip(&format!("link add v{number} type veth peer name eth0 netns n{number}"));
        let start = Instant::now();
        wait("it is counted", || Ok(attached() == before + 2))?;
        all.push(start.elapsed().as_secs_f64() * 1e3);
        // Beside, and not at the same time.
        if number % 10 == 0 {
            bare.push(attach_bare()?);
        }
    }
    all.sort_by(f64::total_cmp);
    bare.sort_by(f64::total_cmp);
    let at = |sorted: &[f64], share: f64| sorted[((sorted.len() - 1) as f64 * share) as usize];
    println!("{:<58} {:>8} {:>8} {:>8}", "ms", "p50", "p99", "max");
    let row = |what: &str, sorted: &[f64]| {
        println!("{what:<58} {:>8.1} {:>8.1} {:>8.1}", at(sorted, 0.5), at(sorted, 0.99), at(sorted, 1.0));
    };
    row("from `ip link add` to both programs attached", &all);
    row("of it the kernel's: an empty program attached at both hooks", &bare);
    let own = at(&all, 0.99) - at(&bare, 0.5);
    let what = "ms until it is counted, 99th percentile, without the kernel's part (its median)".to_owned();
    Ok(vec![Target { what, is: own, limit: ATTACHED }])
}

/// Milliseconds to attach an empty program at both hooks of a new veth.
fn attach_bare() -> Result<f64> {
    ip("link add bare0 type veth peer name bare1");
    let mut loaded = Loaded::baseline()?;
    let program = loaded.program("empty")?;
    let start = Instant::now();
    for hook in [TcAttachType::Ingress, TcAttachType::Egress] {
        program.attach_with_options("bare0", hook, TcAttachOptions::TcxOrder(LinkOrder::default()))?;
    }
    let took = start.elapsed();
    ip("link delete bare0");
    Ok(took.as_secs_f64() * 1e3)
}

fn many(namespaces: usize) -> Result<Vec<Target>> {
    let host = TestHost::quiet();
    for number in 0..namespaces {
        ip(&format!("netns add n{number}"));
        ip(&format!("link add v{number} type veth peer name eth0 netns n{number}"));
    }
    let processes = Rc::new(PidNamespace::new(&host));
    let start = Instant::now();
    let mut agent = Agent::start_among(&processes, &SOURCES);
    let metric = |name: &str| agent.metrics().value(name, &[]).unwrap_or_default();
    wait("all are found", || Ok(metric("netns_network_namespaces") == namespaces as f64))?;
    let found = start.elapsed().as_secs_f64();
    wait("all are counted", || {
        Ok(agent.metrics().count("netns_interface_attached", &[("mode", "tcx")]) == namespaces as u64)
    })?;
    println!(
        "{namespaces} namespaces with a veth: found {found:.2} s after start, all counted after {:.1} s",
        start.elapsed().as_secs_f64()
    );
    let before = cpu(agent.pid())?;
    thread::sleep(WATCHED);
    let idle = (cpu(agent.pid())? - before) / WATCHED.as_secs_f64() * 100.0;
    let memory = memory(agent.pid())?;
    println!("while nothing happens for {} s: {idle:.2} % of a core, {memory:.0} MiB", WATCHED.as_secs());
    agent.kill9();
    let start = Instant::now();
    agent.restart();
    let adopted = start.elapsed().as_secs_f64();
    println!("killed and started again: ready, with all adopted, after {adopted:.2} s");
    let each = 1000.0 / namespaces as f64;
    Ok(vec![
        Target { what: "s until a thousand are found".to_owned(), is: found * each, limit: FOUND },
        Target {
            what: "s until a thousand interfaces are adopted after a crash".to_owned(),
            is: adopted * each,
            limit: ADOPTED,
        },
        Target {
            what: "% of a core with a thousand, without scrapes".to_owned(),
            is: idle * each,
            limit: IDLE,
        },
    ])
}

/// Seconds of CPU that a process used so far: user and system time, fields 14 and 15 (proc_pid_stat(5)).
pub(crate) fn cpu(pid: u32) -> Result<f64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let (_, rest) = stat.rsplit_once(')').context("a command in parentheses")?;
    let fields: Vec<&str> = rest.split_whitespace().collect();
    let ticks: f64 = fields[11].parse::<f64>()? + fields[12].parse::<f64>()?;
    let second = nix::unistd::sysconf(nix::unistd::SysconfVar::CLK_TCK)?.context("ticks of a second")?;
    Ok(ticks / second as f64)
}

/// Resident MiB.
pub(crate) fn memory(pid: u32) -> Result<f64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("VmRSS")?;
    Ok(line.trim().trim_end_matches(" kB").parse::<f64>()? / 1024.0)
}

pub(crate) fn wait(what: &str, is: impl Fn() -> Result<bool>) -> Result<()> {
    let start = Instant::now();
    while !is()? {
        if start.elapsed() > PATIENCE {
            bail!("after {PATIENCE:?} still not: {what}");
        }
        thread::sleep(Duration::from_millis(2));
    }
    Ok(())
}
