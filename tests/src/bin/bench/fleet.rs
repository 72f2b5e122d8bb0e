//! `bench fleet [--seconds N]`: what a host costs a Prometheus, measured by scraping real agents with a real one, and what that makes
//! of 1, 100 and 10,000 hosts. Hosts beyond those measured are arithmetic, and the tables say so.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    path::Path,
    process::ExitCode,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use monitor_tests::{
    agent::{Agent, repository},
    exposition::Metrics,
    host::{TestHost, ip},
    http,
    prometheus::Prometheus,
    scene::silence,
};

/// Namespaces on the hosts that are measured.
const SIZES: [usize; 3] = [10, 50, 300];
/// What the tables of hosts assume: namespaces on each, groups that those are of, and seconds between scrapes.
const EACH: f64 = 50.0;
const GROUPS: f64 = 10.0;
const INTERVAL: f64 = 30.0;
const HOSTS: [f64; 3] = [1.0, 100.0, 10_000.0];

/// One host, as its scrapes show it.
struct Host {
    namespaces: usize,
    series: f64,
    plain: f64,
    packed: f64,
    /// Milliseconds, the median.
    took: f64,
}

/// What Prometheus keeps.
struct Kept {
    /// On disk, of a sample in a block: its chunks, and all of the block.
    chunk: f64,
    block: f64,
    /// In memory, of a series.
    memory: f64,
    /// Series that the fleet's rules record: of a host by itself, and of each group on it.
    host: f64,
    group: f64,
    /// Series that are sent on beside those recorded.
    plain: f64,
}

pub(crate) fn fleet(seconds: u64) -> Result<ExitCode> {
    ensure!(seconds >= 150, "150 seconds at least: a chunk has 120 samples");
    let mut hosts = Vec::new();
    let mut kept = None;
    for namespaces in SIZES {
        let typical = namespaces as f64 == EACH;
        // Each on a thread, whose end is the host's.
        let run = move || measure(namespaces, typical.then_some(seconds));
        let (host, of_prometheus) = thread::scope(|scope| scope.spawn(run).join())
            .map_err(|_panic| anyhow::anyhow!("a thread panicked"))??;
        println!("measured a host with {namespaces} namespaces");
        hosts.push(host);
        kept = kept.or(of_prometheus);
    }
    print!("{}", tables(&hosts, &kept.context("a host of the size of the tables is among them")?));
    Ok(ExitCode::SUCCESS)
}

fn measure(namespaces: usize, seconds: Option<u64>) -> Result<(Host, Option<Kept>)> {
    let _host = TestHost::quiet();
    ip("link add nm0 type bridge mcast_snooping 0");
    ip("link set nm0 up");
    for number in 0..namespaces {
        // Names of as many groups as the tables assume.
        let name = format!("{}-{number}", char::from(b'a' + (number % GROUPS as usize) as u8));
        ip(&format!("netns add {name}"));
        silence(&[&name]);
        ip(&format!("link add v{number} type veth peer name eth0 netns {name}"));
        ip(&format!("link set v{number} master nm0 up"));
        ip(&format!("-n {name} addr add 198.18.{}.{}/15 dev eth0", number / 200, number % 200 + 1));
        ip(&format!("-n {name} link set eth0 up"));
    }
    let agent = Agent::start("", &[]);
    let start = Instant::now();
    while agent.metrics().count("netns_interface_attached", &[("mode", "tcx")]) < namespaces as u64 {
        ensure!(start.elapsed() < Duration::from_secs(120), "not all are counted");
        thread::sleep(Duration::from_millis(100));
    }
    traffic(namespaces, 2);
    let plain = raw(agent.address(), "identity")?;
    let mut took: Vec<f64> = (0..9)
        .map(|_| {
            let start = Instant::now();
            raw(agent.address(), "gzip").map(|_body| start.elapsed().as_secs_f64() * 1e3)
        })
        .collect::<Result<_>>()?;
    took.sort_by(f64::total_cmp);
    let host = Host {
        namespaces,
        series: Metrics::parse(std::str::from_utf8(&plain)?).len() as f64,
        plain: plain.len() as f64,
        packed: raw(agent.address(), "gzip")?.len() as f64,
        took: took[took.len() / 2],
    };
    let kept = seconds.map(|seconds| keep(&agent, namespaces, seconds)).transpose()?;
    Ok((host, kept))
}

/// Echoes from every namespace to the next.
fn traffic(namespaces: usize, count: usize) {
    for number in 0..namespaces {
        let name = format!("{}-{number}", char::from(b'a' + (number % GROUPS as usize) as u8));
        let next = (number + 1) % namespaces;
        let to = format!("198.18.{}.{}", next / 200, next % 200 + 1);
        ip(&format!("netns exec {name} ping -q -c {count} -i 0.002 -W 5 {to}"));
    }
}

/// The body of a scrape, as it is on the wire.
fn raw(agent: SocketAddr, encoding: &str) -> Result<Vec<u8>> {
    let mut stream = TcpStream::connect(agent)?;
    write!(stream, "GET /metrics HTTP/1.0\r\nHost: {agent}\r\nAccept-Encoding: {encoding}\r\n\r\n")?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    let end = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n").context("a head")?;
    Ok(answer.split_off(end + 4))
}

/// Lets Prometheus scrape it every second under traffic, and asks what that took.
fn keep(agent: &Agent, namespaces: usize, seconds: u64) -> Result<Kept> {
    let home = Path::new("/run/prometheus");
    let rules = repository("dashboards/fleet/rules/recording.yml");
    let config = format!(
        "global: {{ scrape_interval: 1s, evaluation_interval: 10s }}\nrule_files: ['{}']\nscrape_configs:\n  \
         - job_name: netns-monitor\n    static_configs: [{{ targets: ['{}'] }}]\n  \
         - job_name: prometheus\n    static_configs: [{{ targets: ['127.0.0.1:9090'] }}]\n",
        rules.display(),
        agent.address()
    );
    let address = SocketAddr::from(([127, 0, 0, 1], 9090));
    let before = Prometheus::run(&home.join("empty"), address, "global: {}\n", &[]);
    thread::sleep(Duration::from_secs(5));
    let bare =
        Metrics::parse(&http::get(address, "/metrics")?.body).value("process_resident_memory_bytes", &[]);
    drop(before);
    let prometheus = Prometheus::run(home, address, &config, &["--web.enable-admin-api"]);
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(seconds) {
        traffic(namespaces, 3);
    }
    let one = |expression: &str| -> Result<f64> {
        let answer = prometheus.query(expression).map_err(anyhow::Error::msg)?;
        let text = answer.first().and_then(|series| series["value"][1].as_str()).unwrap_or("0");
        Ok(text.parse()?)
    };
    let own = Metrics::parse(&http::get(address, "/metrics")?.body);
    let value = |name: &str| own.value(name, &[]).with_context(|| name.to_owned());
    let (memory, series) = (value("process_resident_memory_bytes")?, value("prometheus_tsdb_head_series")?);
    let recorded = r#"{__name__=~"instance:.+"}"#;
    let grouped = r#"{__name__=~"instance_group:.+"}"#;
    let sent = r#"{job="netns-monitor",__name__=~"up|netns_network_namespaces|netns_monitor_(attach_info|build_info|interfaces_unattached|namespaces_cut)|process_(cpu_seconds_total|resident_memory_bytes|start_time_seconds)|scrape_(duration_seconds|samples_scraped)"}"#;
    let host = one(&format!("count({recorded})"))?;
    let group = one(&format!("count({grouped})"))? / GROUPS;
    let plain = one(&format!("count({sent})"))?;
    // A block of everything so far, as one is written every two hours.
    post(address, "/api/v1/admin/tsdb/snapshot")?;
    let own = Metrics::parse(&http::get(address, "/metrics")?.body);
    let sum = |name: &str| own.value(name, &[]).with_context(|| name.to_owned());
    let chunk = sum("prometheus_tsdb_compaction_chunk_size_bytes_sum")?
        / sum("prometheus_tsdb_compaction_chunk_samples_sum")?;
    let (bytes, samples) = blocks(&home.join("data/snapshots"))?;
    let missed =
        one("count_over_time(up{job=\"netns-monitor\"}[1h]) - sum_over_time(up{job=\"netns-monitor\"}[1h])")?;
    ensure!(missed == 0.0, "{missed} scrapes failed: this machine is too busy for these figures");
    println!("Prometheus: {samples} samples of {series} series in {} s", start.elapsed().as_secs());
    Ok(Kept {
        chunk,
        block: bytes / samples,
        memory: (memory - bare.context("its memory")?) / series,
        host,
        group,
        plain,
    })
}

fn post(server: SocketAddr, path: &str) -> Result<()> {
    let mut stream = TcpStream::connect(server)?;
    write!(stream, "POST {path} HTTP/1.0\r\nHost: {server}\r\nContent-Length: 0\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    ensure!(answer.contains("success"), "{path}: {answer}");
    Ok(())
}

/// Bytes and samples of all blocks below a folder.
fn blocks(folder: &Path) -> Result<(f64, f64)> {
    let (mut bytes, mut samples) = (0.0, 0.0);
    for entry in fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let path = entry?.path();
        if path.is_dir() {
            let below = blocks(&path)?;
            (bytes, samples) = (bytes + below.0, samples + below.1);
            continue;
        }
        bytes += fs::metadata(&path)?.len() as f64;
        if path.ends_with("meta.json") {
            let meta: serde_json::Value = serde_json::from_str(&fs::read_to_string(&path)?)?;
            samples += meta["stats"]["numSamples"].as_f64().context("numSamples")?;
        }
    }
    Ok((bytes, samples))
}

fn tables(hosts: &[Host], kept: &Kept) -> String {
    let mut text = "\n| namespaces | series | scrape | gzip | bytes a series | scrape takes |\n|---|---|---|---|---|---|\n".to_owned();
    for Host { namespaces, series, plain, packed, took } in hosts {
        text += &format!(
            "| {namespaces} | {} | {:.0} kB | {:.0} kB | {:.0} ({:.1} gzip) | {took:.0} ms |\n",
            grouped(*series),
            plain / 1e3,
            packed / 1e3,
            plain / series,
            packed / series
        );
    }
    let Kept { chunk, block, memory, host, group, plain } = kept;
    text += &format!(
        "\nPrometheus: {chunk:.2} bytes a sample in chunks, {block:.2} with the index of a block; {:.1} kB of memory a series in the head.\n",
        memory / 1e3
    );
    text += &format!(
        "Sent on: {host} recorded and {plain} plain series of a host, {group} of each group on it.\n\n"
    );
    // A line through the smallest and the largest host.
    let (least, most) = (&hosts[0], &hosts[hosts.len() - 1]);
    let each = (most.series - least.series) / (most.namespaces - least.namespaces) as f64;
    let series = least.series + each * (EACH - least.namespaces as f64);
    let packed = most.packed / most.series;
    let sent = host + plain + group * GROUPS;
    text += &format!(
        "{EACH} namespaces of {GROUPS} groups on each host, a scrape every {INTERVAL} s: {series:.0} series a host, {sent:.0} sent on\n\n\
         | | {} |\n|---|---|---|---|\n",
        HOSTS
            .map(|hosts| format!("{} host{}", grouped(hosts), if hosts > 1.0 { "s" } else { "" }))
            .join(" | ")
    );
    let mut row = |what: &str, of: &dyn Fn(f64) -> String| {
        text += &format!("| {what} | {} |\n", HOSTS.map(of).join(" | "));
    };
    row("series", &|hosts| grouped(hosts * series));
    row("samples a second", &|hosts| grouped(hosts * series / INTERVAL));
    row("network, gzip", &|hosts| si(hosts * series * packed / INTERVAL, "B/s"));
    row("memory for the head", &|hosts| si(hosts * series * memory, "B"));
    row("disk a day", &|hosts| si(hosts * series / INTERVAL * 86_400.0 * block, "B"));
    row("disk in 15 days", &|hosts| si(hosts * series / INTERVAL * 86_400.0 * 15.0 * block, "B"));
    row("series sent on", &|hosts| grouped(hosts * sent));
    row("samples a second sent on", &|hosts| grouped(hosts * sent / INTERVAL));
    row("memory for those sent on", &|hosts| si(hosts * sent * memory, "B"));
    row("disk in a year of those sent on", &|hosts| {
        si(hosts * sent / INTERVAL * 86_400.0 * 365.0 * block, "B")
    });
    text
}

/// A whole number with its thousands apart.
fn grouped(number: f64) -> String {
    let digits = format!("{number:.0}");
    let parts: Vec<_> = digits.as_bytes().rchunks(3).rev().map(String::from_utf8_lossy).collect();
    parts.join(",")
}

fn si(number: f64, unit: &str) -> String {
    let steps = [(1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")];
    let step = steps.into_iter().find(|(least, _)| number >= *least);
    let (least, prefix) = step.unwrap_or((1.0, ""));
    let value = number / least;
    format!("{value:.*} {prefix}{unit}", if value < 10.0 { 1 } else { 0 })
}
