//! The agent's process under the names every exporter uses, read from `/proc/self` (proc(5)).

use std::{fs, path::Path, sync::OnceLock};

use anyhow::Context as _;

use super::{Collector, Metric, Series};
use crate::sample::Sample;

pub(super) const COLLECTOR: Collector = Collector {
    name: "process",
    help: "The agent's process: CPU, memory, file descriptors, threads.",
    metrics: &[CPU, RESIDENT, VIRTUAL, OPEN_FDS, MAX_FDS, START, THREADS],
    collect,
};

const CPU: Metric = Metric::counter(
    "process_cpu_seconds_total",
    &[],
    "CPU time the agent's process used in user and kernel mode, in seconds.",
);
const RESIDENT: Metric =
    Metric::gauge("process_resident_memory_bytes", &[], "Resident memory of the agent's process in bytes.");
const VIRTUAL: Metric =
    Metric::gauge("process_virtual_memory_bytes", &[], "Virtual memory of the agent's process in bytes.");
const OPEN_FDS: Metric =
    Metric::gauge("process_open_fds", &[], "File descriptors the agent's process has open.");
const MAX_FDS: Metric =
    Metric::gauge("process_max_fds", &[], "File descriptors the agent's process may have open.");
const START: Metric = Metric::gauge(
    "process_start_time_seconds",
    &[],
    "When the agent's process started, in seconds since 1970.",
);
const THREADS: Metric = Metric::gauge("process_threads", &[], "Threads of the agent's process.");

/// `USER_HZ`: what `/proc` counts time in, 100 a second on every architecture eBPF runs on.
const TICKS: f64 = 100.0;

/// `/proc/stat` gives the boot time from the clock of now, which is set and slewed: a start time read anew at each
/// scrape would move, and look like a restart.
static STARTED: OnceLock<f64> = OnceLock::new();

fn collect(_: &Sample, series: &mut Series) -> anyhow::Result<()> {
    let proc = Path::new("/proc");
    let stat =
        Stat::parse(&read(&proc.join("self/stat"))?).context("/proc/self/stat: not as proc(5) says")?;
    series.number(&CPU, &[], stat.cpu_ticks as f64 / TICKS);

    let status = read(&proc.join("self/status"))?;
    let kib = |key| field(&status, key).map(|kib| kib * 1024);
    for (metric, value) in
        [(&RESIDENT, kib("VmRSS:")), (&VIRTUAL, kib("VmSize:")), (&THREADS, field(&status, "Threads:"))]
    {
        if let Some(value) = value {
            series.count(metric, &[], value);
        }
    }

    // Less the one that reads the directory.
    let open = fs::read_dir(proc.join("self/fd")).context("/proc/self/fd")?.count();
    series.count(&OPEN_FDS, &[], open.saturating_sub(1) as u64);
    if let Some(max) = field(&read(&proc.join("self/limits"))?, "Max open files") {
        series.count(&MAX_FDS, &[], max);
    }

    let boot = field(&read(&proc.join("stat"))?, "btime").context("/proc/stat: no btime")?;
    series.number(&START, &[], *STARTED.get_or_init(|| boot as f64 + stat.start_ticks as f64 / TICKS));
    Ok(())
}

/// What is needed of `/proc/self/stat`.
#[derive(Debug, PartialEq)]
struct Stat {
    cpu_ticks: u64,
    start_ticks: u64,
}

impl Stat {
    /// The command may hold spaces and parentheses, so the fields count from the last one.
    fn parse(stat: &str) -> Option<Self> {
        let fields: Vec<_> = stat.rsplit_once(") ")?.1.split_ascii_whitespace().collect();
        let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
        Some(Self { cpu_ticks: field(14)? + field(15)?, start_ticks: field(22)? })
    }
}

/// The first number after a key at the start of a line; absent where there is none (`unlimited`).
fn field(text: &str, key: &str) -> Option<u64> {
    let rest = text.lines().find_map(|line| line.strip_prefix(key))?;
    rest.split_ascii_whitespace().next()?.parse().ok()
}

fn read(path: &Path) -> anyhow::Result<String> {
    fs::read_to_string(path).with_context(|| path.display().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_with_spaces_and_parentheses_does_not_shift_the_fields() {
        let stat = "7 (a) b (c)) S 1 7 7 0 -1 4194560 100 0 0 0 31 11 0 0 20 0 5 0 12345 1000 200 18446744073709551615";
        assert_eq!(Stat::parse(stat), Some(Stat { cpu_ticks: 42, start_ticks: 12345 }));
        assert_eq!(Stat::parse("7 (a S 1 7"), None);
    }

    #[test]
    fn a_limit_that_is_no_number_is_absent() {
        let limits = "Limit  Soft  Hard  Units\nMax open files            1024    4096   files\n";
        assert_eq!(field(limits, "Max open files"), Some(1024));
        assert_eq!(field(&limits.replace("1024 ", "unlimited "), "Max open files"), None);
    }
}
