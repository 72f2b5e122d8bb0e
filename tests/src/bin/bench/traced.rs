//! `bench traced`: what a dropped packet and a TCP connection cost in the programs that are called for them. No other packet
//! meets one.
//!
//! `BPF_PROG_TEST_RUN` has no clock for tracepoints, so the kernel's own statistics are read (`BPF_ENABLE_STATS`) while
//! packets are dropped and connections made. Taking the time is in each figure; a program that does nothing, on the same
//! tracepoint in the same run, shows how much that is.

use std::{
    collections::BTreeMap,
    io::Read as _,
    net::{TcpListener, TcpStream, UdpSocket},
    process::ExitCode,
    thread,
};

use anyhow::{Context as _, Result, ensure};
use aya::{
    programs::{ProgramInfo, loaded_programs},
    sys::{Stats, enable_stats},
};
use monitor_tests::{host::inside, scene::Scene, test_run::Loaded};

const DROPS: usize = 100_000;
const CONNECTIONS: usize = 5_000;

pub(crate) fn traced() -> Result<ExitCode> {
    let foreign: Vec<u32> = programs()?.iter().map(ProgramInfo::id).collect();
    let scene = Scene::two(&[]);
    let _nothing = Loaded::on_tracepoint("kfree_skb")?;
    let _statistics = enable_stats(Stats::RunTime).context("the kernel keeps no statistics")?;
    let before = times(&foreign)?;
    drop_packets()?;
    connect()?;
    let after = times(&foreign)?;
    drop(scene);

    println!("{DROPS} datagrams dropped, {CONNECTIONS} TCP connections made and closed");
    println!("{:<24} {:>10} {:>12}", "program", "runs", "ns each");
    for ((name, id), (runs, nanoseconds)) in &after {
        let (runs_before, nanoseconds_before) = before.get(&(name.clone(), *id)).copied().unwrap_or_default();
        let (runs, nanoseconds) = (runs - runs_before, nanoseconds - nanoseconds_before);
        if runs > 0 {
            println!("{name:<24} {runs:>10} {:>12.0}", nanoseconds as f64 / runs as f64);
        }
    }
    ensure!(after.keys().any(|(name, _)| name == "empty_trace"), "the empty program did not run");
    Ok(ExitCode::SUCCESS)
}

fn programs() -> Result<Vec<ProgramInfo>> {
    Ok(loaded_programs().collect::<Result<_, _>>()?)
}

/// Runs and nanoseconds of programs by name and id, but for those that were there before.
fn times(foreign: &[u32]) -> Result<BTreeMap<(String, u32), (u64, u128)>> {
    let ours = programs()?.into_iter().filter(|program| !foreign.contains(&program.id()));
    let name = |program: &ProgramInfo| program.name_as_str().unwrap_or_default().to_owned();
    Ok(ours
        .map(|program| ((name(&program), program.id()), (program.run_count(), program.run_time().as_nanos())))
        .collect())
}

/// To a port of `red` that nobody has.
fn drop_packets() -> Result<()> {
    inside("blue", || {
        let socket = UdpSocket::bind("198.51.100.2:0")?;
        for _ in 0..DROPS {
            // An answer that nobody is there is told to the next call.
            while socket.send_to(b"x", ("198.51.100.3", 9)).is_err() {}
        }
        Ok(())
    })
}

fn connect() -> Result<()> {
    let listener = inside("red", || TcpListener::bind("198.51.100.3:80"))?;
    let server = thread::spawn(move || {
        for stream in listener.incoming().take(CONNECTIONS) {
            let mut bytes = Vec::new();
            // Until the client closes.
            stream?.read_to_end(&mut bytes)?;
        }
        Ok::<_, std::io::Error>(())
    });
    inside("blue", || {
        for _ in 0..CONNECTIONS {
            drop(TcpStream::connect("198.51.100.3:80")?);
        }
        Ok::<_, std::io::Error>(())
    })?;
    server.join().map_err(|_panic| anyhow::anyhow!("the server panicked"))??;
    Ok(())
}
