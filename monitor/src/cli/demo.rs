//! `netns-monitor demo`: the whole agent on a small built-in topology, with a little traffic made inside its
//! namespaces, and a table of the counts as they move.

use std::{
    io::IsTerminal as _,
    net::{Ipv4Addr, SocketAddr, UdpSocket},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use clap::Args;

use super::{Global, print, table};
use crate::{
    agent::{self, Failure, Running},
    config,
    metrics::Collectors,
    netns,
    sample::{ByDirection, Sample},
    topology::names::NsName,
};

/// Options of `demo`.
#[derive(Debug, Args)]
pub(super) struct Options {
    /// Where metrics are served
    #[arg(long = "web.listen-address", value_name = "ADDRESS:PORT", default_value = "127.0.0.1:10490")]
    listen: SocketAddr,
    /// Stop by itself after so many seconds
    #[arg(long, value_name = "SECONDS")]
    seconds: Option<u64>,
}

/// Where the built-in topology puts `red`.
const RED: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 3);
const PORT: u16 = 5001;
/// Between two rounds of traffic: one ICMP echo and two datagrams each.
const ROUND: Duration = Duration::from_millis(400);
const REDRAW: Duration = Duration::from_secs(1);

pub(super) fn run(global: &Global, Options { listen, seconds }: &Options) -> Result<(), Failure> {
    let mut host = global.host();
    // Beside an agent that may already run here, not in its place.
    if host.run_dir == Path::new("/run/netns-monitor") {
        host.run_dir = PathBuf::from("/run/netns-monitor-demo");
    }
    // Its own namespaces are all it is about: those of others are left alone.
    host.sources.clear();
    let netns_dir = host.netns_dir.clone();
    let seconds = seconds.map(Duration::from_secs);
    agent::run(agent::Options {
        host,
        source: agent::Source::Text("built-in demonstration", config::DEMO),
        listen: vec![*listen],
        collectors: Collectors::all(),
        once: false,
        cleanup: true,
        must_start: true,
        on_start: Some(Box::new(move |running| watch(&running, &netns_dir, seconds))),
    })
}

/// Makes traffic and draws until the agent stops.
fn watch(running: &Running, netns_dir: &Path, limit: Option<Duration>) {
    let stop = Arc::new(AtomicBool::new(false));
    let workers =
        [("red", answer as fn(&AtomicBool) -> std::io::Result<()>), ("blue", ask)].map(|(name, work)| {
            let (stop, dir) = (Arc::clone(&stop), netns_dir.to_owned());
            thread::spawn(move || {
                let Ok(name) = name.parse::<NsName>() else { return };
                match netns::inside(&dir, &name, || work(&stop)) {
                    Ok(Ok(())) => {}
                    Ok(Err(error)) => tracing::warn!("demonstration traffic in {name}: {error}"),
                    Err(error) => tracing::warn!("demonstration traffic in {name}: {error}"),
                }
            })
        });
    draw(running, limit);
    stop.store(true, Ordering::Relaxed);
    for worker in workers {
        if worker.join().is_err() {
            tracing::warn!("a thread that made demonstration traffic panicked");
        }
    }
}

fn draw(running: &Running, limit: Option<Duration>) {
    let terminal = std::io::stdout().is_terminal();
    let began = Instant::now();
    let mut before: Option<(Instant, Sample)> = None;
    while !*running.stopped.borrow() {
        match (running.sample)() {
            Ok(sample) => {
                let now = Instant::now();
                let text =
                    screen(&sample, before.as_ref().map(|(then, sample)| (now - *then, sample)), running);
                let clear = if terminal { "\x1b[H\x1b[J" } else { "" };
                if print(&format!("{clear}{text}")).is_err() {
                    return;
                }
                before = Some((now, sample));
            }
            Err(error) => tracing::warn!("cannot read the counts: {error:#}"),
        }
        if limit.is_some_and(|limit| began.elapsed() >= limit) {
            // As Ctrl-C would: the agent ends by its own way and removes what it made.
            if nix::sys::signal::raise(nix::sys::signal::Signal::SIGTERM).is_ok() {
                return;
            }
        }
        let until = Instant::now() + REDRAW;
        while Instant::now() < until && !*running.stopped.borrow() {
            thread::sleep(Duration::from_millis(50));
        }
    }
}

/// The table, and below it what to try.
fn screen(sample: &Sample, before: Option<(Duration, &Sample)>, running: &Running) -> String {
    let mut rows = Vec::new();
    for netns in &sample.namespaces {
        for interface in &netns.interfaces {
            let Some(counts) = &interface.counts else { continue };
            let old = before.and_then(|(_, old)| {
                let old = old.namespaces.iter().find(|old| old.cookie == netns.cookie)?;
                old.interfaces.iter().find(|old| old.name == interface.name)?.counts.as_ref()
            });
            let mut row = vec![netns.label.clone(), interface.name.clone()];
            let totals = ByDirection { receive: counts.receive.total(), transmit: counts.transmit.total() };
            row.extend(
                totals
                    .each()
                    .iter()
                    .flat_map(|(_, total)| [total.packets.to_string(), total.bytes.to_string()]),
            );
            let rates = before.zip(old).map(|((passed, _), old)| {
                let old = [old.receive.total().packets, old.transmit.total().packets];
                [totals.receive.packets, totals.transmit.packets].map({
                    let mut old = old.into_iter();
                    move |new| (new - old.next().unwrap_or(new)) as f64 / passed.as_secs_f64()
                })
            });
            match rates {
                Some(rates) => row.extend(rates.map(|rate| format!("{}/s", table::short(rate)))),
                None => row.extend([String::from("-"), String::from("-")]),
            }
            rows.push(row);
        }
    }
    let header =
        ["NETNS", "INTERFACE", "RX PACKETS", "RX BYTES", "TX PACKETS", "TX BYTES", "RX RATE", "TX RATE"];
    let mut text = table::table(&header, 2, rows);
    for address in &running.addresses {
        text.push_str(&format!("\nlive page: http://{address}/   metrics: http://{address}/metrics\n"));
    }
    text.push_str("look:    ip netns exec blue ping 198.51.100.3   |   ip -s link show blue-eth0\n");
    text.push_str("stop:    Ctrl-C removes everything that was made\n");
    text
}

/// In `red`: sends every datagram back. The kernel answers the echo requests.
fn answer(stop: &AtomicBool) -> std::io::Result<()> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, PORT))?;
    socket.set_read_timeout(Some(ROUND))?;
    let mut buffer = [0; 1500];
    while !stop.load(Ordering::Relaxed) {
        if let Ok((length, from)) = socket.recv_from(&mut buffer) {
            socket.send_to(&buffer[..length], from)?;
        }
    }
    Ok(())
}

/// In `blue`: one echo request and two datagrams a round.
fn ask(stop: &AtomicBool) -> std::io::Result<()> {
    let udp = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    let mut sequence = 0_u16;
    while !stop.load(Ordering::Relaxed) {
        // Nobody may listen yet, or the link may be away for a moment: the next round tries again.
        let sent = udp.send_to(&[0; 200], (RED, PORT)).and_then(|_| udp.send_to(&[0; 1000], (RED, PORT)));
        if let Err(error) = sent.and_then(|_| echo(sequence)) {
            tracing::debug!("demonstration traffic: {error}");
        }
        sequence = sequence.wrapping_add(1);
        thread::sleep(ROUND);
    }
    Ok(())
}

/// One ICMP echo request (RFC 792); the answer is left to the kernel to drop.
fn echo(sequence: u16) -> std::io::Result<()> {
    use nix::sys::socket::{
        AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrIn, sendto, socket,
    };
    let raw = socket(AddressFamily::Inet, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::Icmp)?;
    let mut packet = [0_u8; 64];
    packet[0] = 8;
    packet[6..8].copy_from_slice(&sequence.to_be_bytes());
    let sum: u32 = packet.chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum();
    let checksum = !((sum & 0xffff) + (sum >> 16)) as u16;
    packet[2..4].copy_from_slice(&checksum.to_be_bytes());
    let to = SockaddrIn::from(std::net::SocketAddrV4::new(RED, 0));
    sendto(std::os::fd::AsRawFd::as_raw_fd(&raw), &packet, &to, MsgFlags::empty())?;
    Ok(())
}
