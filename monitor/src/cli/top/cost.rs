//! What the agent costs, and this screen: read from `/proc`, from the kernel's objects, and from what the agent serves.

use std::{
    collections::BTreeSet,
    fs,
    io::{self, Read as _, Write as _},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream},
    path::Path,
    time::{Duration, Instant},
};

use crate::probe::{Costs, costs};

/// What `/proc` counts time in, 100 a second on every architecture eBPF runs on.
const TICKS: f64 = 100.0;
/// How long the agent may take to answer.
const DEADLINE: Duration = Duration::from_secs(20);
/// A whole scrape is asked for at most that often, and never more than a hundredth of the time.
const SCRAPES: Duration = Duration::from_secs(60);
const SCRAPE_SHARE: u32 = 100;

/// Everything, at one moment.
#[derive(Clone, Debug)]
pub(super) struct Cost {
    pub(super) at: Instant,
    /// Absent where no agent runs.
    pub(super) agent: Option<Process>,
    pub(super) own: Option<Process>,
    /// Absent with the reason.
    pub(super) objects: Result<Costs, String>,
    pub(super) served: Option<Served>,
    /// The reading before, for what is shown a second.
    pub(super) before: Option<Box<Cost>>,
}

/// A process.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Process {
    pub(super) pid: u32,
    /// CPU time, in seconds.
    pub(super) cpu: f64,
    pub(super) resident: u64,
    pub(super) threads: u64,
    /// Absent where we may not look.
    pub(super) descriptors: Option<u64>,
    /// How long it runs.
    pub(super) age: Option<Duration>,
}

/// What the agent says of itself.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Served {
    pub(super) address: Option<SocketAddr>,
    /// Passes, how long they took together in seconds, and how many failed.
    pub(super) passes: Option<[f64; 3]>,
    pub(super) unattached: Option<f64>,
    pub(super) reattached: Option<f64>,
    /// The last whole scrape: how long it took, how long it is, when.
    pub(super) scrape: Option<(Duration, usize, Instant)>,
}

/// Reads it again and again.
#[derive(Default)]
pub(super) struct Reader {
    last: Option<Cost>,
    scraped: Option<(Duration, usize, Instant)>,
}

impl Reader {
    pub(super) fn read(&mut self, agent: Option<&str>, pin_dir: Option<&Path>) -> Cost {
        let agent = agent.and_then(|pid| pid.parse().ok()).and_then(process);
        let served = agent.as_ref().and_then(|agent| self.served(agent.pid));
        let objects = match pin_dir {
            Some(dir) => costs(dir).map_err(|error| error.to_string()),
            None => Err("nothing is pinned".to_owned()),
        };
        let before = self.last.take().map(|mut before| {
            before.before = None;
            Box::new(before)
        });
        let cost =
            Cost { at: Instant::now(), agent, own: process(std::process::id()), objects, served, before };
        self.last = Some(Cost { before: None, ..cost.clone() });
        cost
    }

    fn served(&mut self, pid: u32) -> Option<Served> {
        let mut found = Served::default();
        for address in listening(pid) {
            let Ok(text) = get(address, "/metrics?collect[]=agent") else { continue };
            if !text.contains("netns_monitor_build_info") {
                continue;
            }
            let passes = ["count", "sum"]
                .map(|what| number(&text, &format!("netns_monitor_reconcile_duration_seconds_{what}")));
            let failed = sum(&text, "netns_monitor_reconcile_errors_total");
            found = Served {
                address: Some(address),
                passes: passes[0].zip(passes[1]).map(|(count, sum)| [count, sum, failed]),
                unattached: number(&text, "netns_monitor_interfaces_unattached"),
                reattached: number(&text, "netns_monitor_reattached_total"),
                scrape: None,
            };
            let is_due = self
                .scraped
                .is_none_or(|(took, _, at)| at.elapsed() >= SCRAPES.max(took.saturating_mul(SCRAPE_SHARE)));
            if is_due {
                let began = Instant::now();
                if let Ok(text) = get(address, "/metrics") {
                    self.scraped = Some((began.elapsed(), text.len(), Instant::now()));
                }
            }
            found.scrape = self.scraped;
            break;
        }
        Some(found)
    }
}

/// A process by its number; absent where there is none, or `/proc` is not as it should be.
fn process(pid: u32) -> Option<Process> {
    let dir = Path::new("/proc").join(pid.to_string());
    let stat = fs::read_to_string(dir.join("stat")).ok()?;
    let status = fs::read_to_string(dir.join("status")).ok()?;
    let (ticks, started) = times(&stat)?;
    let uptime: Option<f64> =
        fs::read_to_string("/proc/uptime").ok().and_then(|text| text.split_whitespace().next()?.parse().ok());
    let age = uptime.map(|uptime| Duration::from_secs_f64((uptime - started as f64 / TICKS).max(0.0)));
    Some(Process {
        pid,
        cpu: ticks as f64 / TICKS,
        resident: field(&status, "VmRSS:").unwrap_or(0) * 1024,
        threads: field(&status, "Threads:").unwrap_or(0),
        descriptors: fs::read_dir(dir.join("fd")).ok().map(|dir| dir.count() as u64),
        age,
    })
}

/// CPU time and start in ticks, out of `/proc/PID/stat`: the command may hold spaces and parentheses.
fn times(stat: &str) -> Option<(u64, u64)> {
    let fields: Vec<_> = stat.rsplit_once(") ")?.1.split_ascii_whitespace().collect();
    let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
    Some((field(14)? + field(15)?, field(22)?))
}

fn field(text: &str, key: &str) -> Option<u64> {
    let rest = text.lines().find_map(|line| line.strip_prefix(key))?;
    rest.split_ascii_whitespace().next()?.parse().ok()
}

/// Where a process listens for TCP.
fn listening(pid: u32) -> Vec<SocketAddr> {
    let dir = Path::new("/proc").join(pid.to_string());
    let links = fs::read_dir(dir.join("fd")).into_iter().flatten().flatten();
    let sockets: BTreeSet<u64> = links
        .filter_map(|entry| {
            let target = fs::read_link(entry.path()).ok()?;
            target.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
        })
        .collect();
    let mut found = Vec::new();
    for name in ["tcp", "tcp6"] {
        let text = fs::read_to_string(dir.join("net").join(name)).unwrap_or_default();
        found.extend(text.lines().filter_map(listener).filter(|(_, inode)| sockets.contains(inode)));
    }
    found.into_iter().map(|(address, _)| reachable(address)).collect()
}

/// A line of `/proc/net/tcp` or `tcp6` of a socket that listens: its address and inode.
fn listener(line: &str) -> Option<(SocketAddr, u64)> {
    let fields: Vec<_> = line.split_ascii_whitespace().collect();
    let (local, state, inode) = (fields.get(1)?, fields.get(3)?, fields.get(9)?);
    if *state != "0A" {
        return None;
    }
    let (address, port) = local.split_once(':')?;
    // Words of 32 bits in the order of this machine.
    let words: Option<Vec<[u8; 4]>> = (0..address.len() / 8)
        .map(|at| Some(u32::from_str_radix(address.get(8 * at..8 * at + 8)?, 16).ok()?.to_ne_bytes()))
        .collect();
    let address: IpAddr = match words?.as_slice() {
        [four] => Ipv4Addr::from(*four).into(),
        six => Ipv6Addr::from(<[u8; 16]>::try_from(six.concat()).ok()?).into(),
    };
    Some((SocketAddr::new(address, u16::from_str_radix(port, 16).ok()?), inode.parse().ok()?))
}

/// Who listens on all addresses is reached at loopback.
fn reachable(address: SocketAddr) -> SocketAddr {
    match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => SocketAddr::new(Ipv4Addr::LOCALHOST.into(), address.port()),
        IpAddr::V6(ip) if ip.is_unspecified() => SocketAddr::new(Ipv6Addr::LOCALHOST.into(), address.port()),
        _ => address,
    }
}

/// One GET by HTTP/1.0, so that the answer is neither chunked nor compressed and ends with the connection.
fn get(server: SocketAddr, path: &str) -> io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&server, DEADLINE)?;
    stream.set_read_timeout(Some(DEADLINE))?;
    stream.write_all(format!("GET {path} HTTP/1.0\r\nHost: {server}\r\n\r\n").as_bytes())?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    let (head, body) = text.split_once("\r\n\r\n").ok_or_else(|| io::Error::other("no HTTP"))?;
    match head.split(' ').nth(1) {
        Some("200") => Ok(body.to_owned()),
        code => Err(io::Error::other(format!("HTTP {}", code.unwrap_or_default()))),
    }
}

/// The value of a series without labels.
fn number(text: &str, name: &str) -> Option<f64> {
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))?;
    value.trim().parse().ok()
}

/// Of all series of a name together.
fn sum(text: &str, name: &str) -> f64 {
    let series = text.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix('{'));
    series.filter_map(|rest| rest.rsplit_once(' ')?.1.parse::<f64>().ok()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_the_kernels_table_is_an_address() {
        let four = "   0: 0100007F:28FA 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4711 1 0000000000000000 100 0 0 10 0";
        assert_eq!(listener(four), Some(("127.0.0.1:10490".parse().expect("an address"), 4711)));
        assert_eq!(listener(&four.replace(" 0A ", " 01 ")), None, "it does not listen");
        let six = "   0: 00000000000000000000000001000000:28FA 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 12 1 0 100 0 0 10 0";
        assert_eq!(listener(six), Some(("[::1]:10490".parse().expect("an address"), 12)));
        assert_eq!(listener("  sl  local_address rem_address   st"), None);
        let all: SocketAddr = "0.0.0.0:80".parse().expect("an address");
        assert_eq!(reachable(all), "127.0.0.1:80".parse().expect("an address"));
    }

    #[test]
    fn series_are_read_by_their_whole_name() {
        let text = "# HELP x y\nx_sum 1.5\nx_errors_total{stage=\"plan\"} 2\nx_errors_total{stage=\"retire\"} 3\nx 7\n";
        assert_eq!(
            (number(text, "x"), number(text, "x_sum"), number(text, "x_")),
            (Some(7.0), Some(1.5), None)
        );
        assert_eq!((sum(text, "x_errors_total"), sum(text, "y")), (5.0, 0.0));
    }

    #[test]
    fn this_process_is_read_as_it_is() {
        let own = process(std::process::id()).expect("it is here");
        assert!(own.resident > 1 << 20 && own.threads >= 1 && own.descriptors.is_some_and(|open| open >= 3));
        assert_eq!(
            times("7 (a) b (c)) S 1 7 7 0 -1 0 1 0 0 0 31 11 0 0 20 0 5 0 12345 1 2"),
            Some((42, 12345))
        );
    }
}
