//! `bench wiring [--namespaces N]`: namespaces with a veth on a bridge, an address, `lo` and a default route, built and
//! deleted by us, by the bare system calls, by `ip` and by the CNI plugins, each on a host of its own, in one run.
//!
//! A hundred namespaces share a bridge: with more, the kernel's own neighbour discovery, which every bridge floods to every
//! port, takes most of the time of all of them.
//!
//! Deleting is over when the kernel has nothing left: no name, no link, no namespace that a link still numbers.

use std::{
    env,
    fmt::Write as _,
    fs,
    io::Write as _,
    net::Ipv4Addr,
    path::{Path, PathBuf},
    process::{Command, ExitCode, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use monitor_tests::{
    engines,
    host::{TestHost, ip},
    oracle::links,
};

use crate::bare;

const PORTS: usize = 100;
/// How long deleting may take.
const PATIENCE: Duration = Duration::from_secs(300);
/// Times the bare system calls that building may take.
const ABOVE_BARE: f64 = 2.5;
/// How many times faster than `ip` and CNI it shall be.
const BELOW_OTHERS: f64 = 5.0;
/// Seconds that deleting a thousand may take.
const DELETE: f64 = 10.0;

/// What is built: bridges with their namespaces. Addresses are in the range for benchmarks (RFC 2544), a /24 for a bridge.
pub(crate) struct Plan {
    pub(crate) bridges: Vec<Segment>,
}

/// A bridge with its namespaces.
pub(crate) struct Segment {
    pub(crate) bridge: String,
    pub(crate) gateway: Ipv4Addr,
    /// Names and addresses.
    pub(crate) namespaces: Vec<(String, Ipv4Addr)>,
}

/// Of every segment.
pub(crate) const PREFIX: u8 = 24;

impl Plan {
    fn new(namespaces: usize) -> Result<Self> {
        ensure!((1..=10_000).contains(&namespaces), "1 to 10000 namespaces");
        let numbers: Vec<usize> = (0..namespaces).collect();
        let segment = |(index, numbers): (usize, &[usize])| {
            let address = |host: usize| Ipv4Addr::new(198, 18, index as u8, host as u8);
            let netns = |(host, number): (usize, &usize)| (format!("n{number}"), address(host + 2));
            Segment {
                bridge: format!("nm{index}"),
                gateway: address(1),
                namespaces: numbers.iter().enumerate().map(netns).collect(),
            }
        };
        Ok(Self { bridges: numbers.chunks(PORTS).enumerate().map(segment).collect() })
    }

    fn namespaces(&self) -> usize {
        self.bridges.iter().map(|segment| segment.namespaces.len()).sum()
    }
}

impl Segment {
    fn subnet(&self) -> String {
        format!("{}/{PREFIX}", Ipv4Addr::from(u32::from(self.gateway) & !0xff))
    }
}

/// Who builds, and how.
struct Contestant {
    name: &'static str,
    build: fn(&Plan) -> Result<()>,
    delete: fn(&Plan) -> Result<()>,
}

/// Seconds.
struct Figure {
    name: &'static str,
    build: f64,
    delete: f64,
}

const CONTESTANTS: [Contestant; 6] = [
    Contestant { name: "bare system calls", build: bare::build, delete: bare::delete },
    Contestant {
        name: "netns-monitor, wiring only",
        build: |plan| ours(plan, "none", "apply"),
        delete: |plan| ours(plan, "none", "destroy"),
    },
    Contestant {
        name: "netns-monitor, counted (clsact)",
        build: |plan| ours(plan, "clsact", "apply"),
        delete: |plan| ours(plan, "clsact", "destroy"),
    },
    Contestant {
        name: "netns-monitor, counted (TCX)",
        build: |plan| ours(plan, "auto", "apply"),
        delete: |plan| ours(plan, "auto", "destroy"),
    },
    Contestant { name: "ip", build: ip_build, delete: ip_delete },
    Contestant { name: "ip netns + CNI bridge", build: cni_build, delete: cni_delete },
];

pub(crate) fn wiring(namespaces: usize) -> Result<ExitCode> {
    let plan = Plan::new(namespaces)?;
    println!("{:<34} {:>9} {:>14} {:>9}", "", "build s", "ms a namespace", "delete s");
    let mut figures: Vec<Figure> = Vec::new();
    for contestant in &CONTESTANTS {
        let figure = thread::scope(|scope| scope.spawn(|| measure(contestant, &plan)).join())
            .map_err(|_panic| anyhow::anyhow!("{} panicked", contestant.name))?
            .with_context(|| contestant.name)?;
        let each = figure.build * 1e3 / namespaces as f64;
        println!("{:<34} {:>9.2} {each:>14.2} {:>9.2}", figure.name, figure.build, figure.delete);
        figures.push(figure);
    }
    Ok(report(&figures, namespaces))
}

fn report(figures: &[Figure], namespaces: usize) -> ExitCode {
    let build =
        |name: &str| figures.iter().find(|figure| figure.name.contains(name)).map(|figure| figure.build);
    let ours = figures.iter().find(|figure| figure.name.contains("wiring only"));
    let (Some(ours), Some(bare)) = (ours, build("bare")) else { return ExitCode::FAILURE };
    let mut reached = true;
    let mut verdict = |ok: bool, what: String| {
        println!("target {}: {what}", if ok { "reached" } else { "MISSED" });
        reached &= ok;
    };
    let ratio = ours.build / bare;
    verdict(
        ratio <= ABOVE_BARE,
        format!("building takes {ratio:.2} times the bare calls (to reach: {ABOVE_BARE})"),
    );
    for other in ["ip", "CNI"] {
        let figure = if other == "ip" {
            figures.iter().find(|f| f.name == "ip").map(|f| f.build)
        } else {
            build(other)
        };
        if let Some(ratio) = figure.map(|figure| figure / ours.build) {
            let what = format!("building is {ratio:.1} times faster than {other} (to reach: {BELOW_OTHERS})");
            verdict(ratio >= BELOW_OTHERS, what);
        }
    }
    let delete = ours.delete * 1e3 / namespaces as f64;
    verdict(delete <= DELETE, format!("deleting a thousand takes {delete:.1} s (to reach: {DELETE})"));
    if reached { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn measure(contestant: &Contestant, plan: &Plan) -> Result<Figure> {
    let _host = TestHost::quiet();
    fs::write("/run/wiring.toml", file(plan))?;
    let start = Instant::now();
    (contestant.build)(plan)?;
    let build = start.elapsed();
    check(plan)?;
    let start = Instant::now();
    (contestant.delete)(plan)?;
    until_gone(start)?;
    Ok(Figure { name: contestant.name, build: build.as_secs_f64(), delete: start.elapsed().as_secs_f64() })
}

/// The first and the last namespace of each bridge have what all shall have.
fn check(plan: &Plan) -> Result<()> {
    let ports = links().len() - 1 - plan.bridges.len();
    ensure!(ports == plan.namespaces(), "{ports} links on the host");
    for Segment { bridge: _, gateway, namespaces } in &plan.bridges {
        for (name, own) in [namespaces.first(), namespaces.last()].into_iter().flatten() {
            let address = ip(&format!("-n {name} -4 -br address show dev eth0"));
            ensure!(address.contains("UP") && address.contains(&own.to_string()), "{name}: {address}");
            let route = ip(&format!("-n {name} route show default"));
            ensure!(route.contains(&format!("via {gateway}")), "{name}: {route}");
            let lo = ip(&format!("-n {name} -br link show dev lo"));
            ensure!(lo.contains("LOOPBACK,UP"), "{name}: {lo}");
        }
    }
    Ok(())
}

fn until_gone(start: Instant) -> Result<()> {
    loop {
        let names = fs::read_dir("/run/netns")?.count();
        let links = links().len();
        let numbered = ip("netns list-id").lines().count();
        if (names, links, numbered) == (0, 1, 0) {
            return Ok(());
        }
        if start.elapsed() > PATIENCE {
            bail!("left: {names} names, {links} links, {numbered} namespaces");
        }
        thread::sleep(Duration::from_millis(20));
    }
}

fn file(plan: &Plan) -> String {
    let mut file = String::new();
    for segment in &plan.bridges {
        let Segment { bridge, gateway, namespaces } = segment;
        let _always = write!(file, "[[bridge]]\nname = \"{bridge}\"\nsubnet = \"{}\"\n", segment.subnet());
        for (name, _) in namespaces {
            let _always = write!(
                file,
                "[[namespace]]\nname = \"{name}\"\ninterface = [{{ name = \"eth0\", bridge = \"{bridge}\" }}]\n\
                 route = [{{ to = \"default\", via = \"{gateway}\" }}]\n"
            );
        }
    }
    file
}

fn ours(_plan: &Plan, attach: &str, verb: &str) -> Result<()> {
    let program =
        env::var_os("NETNS_MONITOR").context("NETNS_MONITOR names the program: cargo xtask bench wiring")?;
    let mut command = Command::new(program);
    command.args(["--attach", attach, verb, "/run/wiring.toml"]).stdout(Stdio::null());
    succeed(&mut command)
}

fn ip_build(plan: &Plan) -> Result<()> {
    for Segment { bridge, gateway, namespaces } in &plan.bridges {
        ip(&format!("link add {bridge} type bridge"));
        ip(&format!("address add {gateway}/{PREFIX} dev {bridge}"));
        ip(&format!("link set {bridge} up"));
        for (name, address) in namespaces {
            ip(&format!("netns add {name}"));
            ip(&format!("link add {name}-eth0 type veth peer name eth0 netns {name}"));
            ip(&format!("link set {name}-eth0 master {bridge} up"));
            ip(&format!("-n {name} link set lo up"));
            ip(&format!("-n {name} address add {address}/{PREFIX} dev eth0"));
            ip(&format!("-n {name} link set eth0 up"));
            ip(&format!("-n {name} route add default via {gateway}"));
        }
    }
    Ok(())
}

fn ip_delete(plan: &Plan) -> Result<()> {
    for Segment { bridge, gateway: _, namespaces } in &plan.bridges {
        namespaces.iter().for_each(|(name, _)| drop(ip(&format!("netns delete {name}"))));
        ip(&format!("link delete {bridge}"));
    }
    Ok(())
}

/// Debian's, as the set-up unpacks them.
fn cni(plugin: &str) -> PathBuf {
    engines::directory().join("usr/lib/cni").join(plugin)
}

fn cni_build(plan: &Plan) -> Result<()> {
    for segment in &plan.bridges {
        for (name, _) in &segment.namespaces {
            ip(&format!("netns add {name}"));
            plugin(segment, name, "loopback", "ADD", "lo")?;
            plugin(segment, name, "bridge", "ADD", "eth0")?;
        }
    }
    Ok(())
}

fn cni_delete(plan: &Plan) -> Result<()> {
    for segment in &plan.bridges {
        for (name, _) in &segment.namespaces {
            plugin(segment, name, "bridge", "DEL", "eth0")?;
            ip(&format!("netns delete {name}"));
        }
        ip(&format!("link delete {}", segment.bridge));
    }
    Ok(())
}

/// As a container runtime calls it: the configuration on standard input, the rest in the environment.
fn plugin(segment: &Segment, netns: &str, kind: &str, verb: &str, interface: &str) -> Result<()> {
    let program = cni(kind);
    let config = serde_json::json!({
        "cniVersion": "0.4.0", "name": segment.bridge, "type": kind, "bridge": segment.bridge, "isGateway": true,
        "ipam": {
            "type": "host-local", "subnet": segment.subnet(), "gateway": segment.gateway.to_string(),
            "routes": [{ "dst": "0.0.0.0/0" }], "dataDir": "/run/cni",
        },
    });
    let mut command = Command::new(&program);
    command
        .env("CNI_COMMAND", verb)
        .env("CNI_CONTAINERID", netns)
        .env("CNI_NETNS", format!("/run/netns/{netns}"))
        .env("CNI_IFNAME", interface)
        .env("CNI_PATH", program.parent().unwrap_or(Path::new("/")))
        .stdin(Stdio::piped())
        .stdout(Stdio::null());
    let mut child = command.spawn().with_context(|| program.display().to_string())?;
    child.stdin.take().context("its input")?.write_all(config.to_string().as_bytes())?;
    let status = child.wait()?;
    ensure!(status.success(), "CNI {kind} {verb} of {netns}: {status}");
    Ok(())
}

fn succeed(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("{command:?}"))?;
    ensure!(status.success(), "{command:?}: {status}");
    Ok(())
}
