//! `bench page [--namespaces N]`: what it costs the agent that somebody has the live page open, while packets come.

use std::{
    io::Read as _,
    net::TcpStream,
    process::ExitCode,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use anyhow::{Result, ensure};
use monitor_tests::{
    agent::Agent,
    host::{TestHost, inside, ip},
    http,
    ledger::Ledger,
    pid_namespace::PidNamespace,
    traffic::send_every_class,
};

use crate::discover::{cpu, memory, wait};

/// How long each is looked at.
const WATCHED: Duration = Duration::from_secs(30);
/// How many have the page open.
const WATCHERS: [usize; 3] = [0, 1, 16];
/// Share of a core that the page may take with a thousand, in per cent.
const SHARE: f64 = 5.0;

pub(crate) fn page(namespaces: usize) -> Result<ExitCode> {
    ensure!((1..=10_000).contains(&namespaces), "1 to 10000 namespaces");
    let host = TestHost::quiet();
    for number in 0..namespaces {
        ip(&format!("netns add n{number}"));
        ip(&format!("link add v{number} type veth peer name eth0 netns n{number}"));
        ip(&format!("link set v{number} up"));
        ip(&format!("-n n{number} link set eth0 up"));
    }
    let processes = Rc::new(PidNamespace::new(&host));
    let agent = Agent::start_among(&processes, &["--watch.source", "named"]);
    wait("all are counted", || {
        Ok(agent.metrics().count("netns_interface_attached", &[("mode", "tcx")]) == namespaces as u64)
    })?;
    let mut nobody = 0.0;
    let mut one = 0.0;
    for watchers in WATCHERS {
        let (share, received) = look(&agent, namespaces, watchers)?;
        println!(
            "{watchers:>2} have the page open: {share:.2} % of a core, {:.0} kB/s to each, {:.0} MiB",
            received as f64 / 1e3 / WATCHED.as_secs_f64() / watchers.max(1) as f64,
            memory(agent.pid())?
        );
        match watchers {
            0 => nobody = share,
            1 => one = share,
            _ => {}
        }
    }
    let is = (one - nobody) * 1000.0 / namespaces as f64;
    let ok = is <= SHARE;
    let word = if ok { "reached" } else { "MISSED" };
    println!(
        "target {word}: % of a core that the first page takes with a thousand: {is:.2} (to reach: {SHARE})"
    );
    Ok(if ok { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The share of a core in per cent while so many watch and a tenth of the namespaces sends, and what all of them got in bytes.
fn look(agent: &Agent, namespaces: usize, watchers: usize) -> Result<(f64, u64)> {
    let received = Arc::new(AtomicU64::new(0));
    let mut streams = Vec::new();
    for _ in 0..watchers {
        let mut stream = TcpStream::connect(agent.address())?;
        std::io::Write::write_all(&mut stream, b"GET /api/v1/events HTTP/1.0\r\n\r\n")?;
        streams.push(stream.try_clone()?);
        let received = Arc::clone(&received);
        thread::spawn(move || {
            let mut buffer = vec![0; 1 << 16];
            while let Ok(read @ 1..) = stream.read(&mut buffer) {
                received.fetch_add(read as u64, Ordering::Relaxed);
            }
        });
    }
    // The first event is everything; what is measured is what follows.
    wait("the first events", || Ok(watchers == 0 || received.load(Ordering::Relaxed) > 0))?;
    thread::sleep(Duration::from_secs(2));
    let (before, got) = (cpu(agent.pid())?, received.load(Ordering::Relaxed));
    let end = std::time::Instant::now() + WATCHED;
    while std::time::Instant::now() < end {
        for number in (0..namespaces).step_by(10) {
            inside(&format!("n{number}"), || send_every_class("eth0", 1, &mut Ledger::new()));
        }
        thread::sleep(Duration::from_millis(500));
    }
    let share = (cpu(agent.pid())? - before) / WATCHED.as_secs_f64() * 100.0;
    ensure!(http::get(agent.address(), "/-/ready")?.status == 200, "the agent is not ready any more");
    for stream in streams {
        stream.shutdown(std::net::Shutdown::Both)?;
    }
    Ok((share, received.load(Ordering::Relaxed) - got))
}
