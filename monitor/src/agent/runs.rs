//! Commands of `run`: a small file each in the run directory, for as long as the command lives. An agent wires what it says
//! and leaves it alone; without one, `run` does that itself.

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use ipnet::IpNet;
use nix::fcntl::{Flock, FlockArg};

use crate::topology::{
    Bridge, End, Namespace, Observed, Route, Topology, Veth,
    names::{IfName, LinkId, NsName, Place, host_end},
};

/// Name of the interface inside.
const INNER: &str = "eth0";

/// The files of one run directory.
#[derive(Clone, Debug)]
pub struct Runs(PathBuf);

/// One command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// Name of its namespace.
    pub name: NsName,
    /// Pid of the command.
    pub pid: u32,
    /// When that process began, in ticks since boot: with it a pid is not taken for a later one.
    pub started: u64,
    /// The bridge it is on.
    pub network: Option<Network>,
}

/// A place on a bridge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Network {
    /// The bridge.
    pub bridge: IfName,
    /// Whether the port is kept apart from others.
    pub isolated: bool,
    /// One address of each subnet.
    pub addresses: Vec<IpNet>,
    /// The bridge's own address in each.
    pub gateways: Vec<IpNet>,
}

impl Runs {
    /// Those below `<run-dir>/run`.
    pub fn new(run_dir: &Path) -> Self {
        Self(run_dir.join("run"))
    }

    /// The directory.
    pub fn dir(&self) -> &Path {
        &self.0
    }

    /// Makes the directory, and takes the lock under which addresses are given.
    ///
    /// # Errors
    /// It cannot be made or locked.
    pub fn lock(&self) -> anyhow::Result<Flock<File>> {
        let Self(dir) = self;
        let context = || format!("cannot lock {}", dir.display());
        fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).with_context(context)?;
        let file =
            OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(dir.join(".lock"));
        Flock::lock(file.with_context(context)?, FlockArg::LockExclusive)
            .map_err(|(_file, errno)| anyhow::Error::from(errno).context(context()))
    }

    /// Commands that live.
    pub fn alive(&self) -> Vec<Run> {
        self.all().into_iter().filter(Run::is_alive).collect()
    }

    /// Commands that have ended, and whose file is still there.
    pub fn dead(&self) -> Vec<Run> {
        self.all().into_iter().filter(|run| !run.is_alive()).collect()
    }

    fn all(&self) -> Vec<Run> {
        let Self(dir) = self;
        let Ok(entries) = fs::read_dir(dir) else { return Vec::new() };
        let names = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<NsName>().ok());
        let mut all: Vec<Run> = names.filter_map(|name| self.read(name)).collect();
        all.sort_by(|a, b| a.name.cmp(&b.name));
        all
    }

    fn read(&self, name: NsName) -> Option<Run> {
        let Self(dir) = self;
        let text = fs::read_to_string(dir.join(name.as_str())).ok()?;
        let mut lines = text.lines().map(|line| line.split(' ').collect::<Vec<_>>());
        let (pid, started) = match lines.next()?[..] {
            ["pid", pid, "started", started] => (pid.parse().ok()?, started.parse().ok()?),
            _ => return None,
        };
        let mut network: Option<Network> = None;
        for line in lines {
            match (&line[..], &mut network) {
                (["bridge", bridge, kind], _) => {
                    let (bridge, isolated) = (bridge.parse().ok()?, *kind == "isolated");
                    network = Some(Network { bridge, isolated, addresses: Vec::new(), gateways: Vec::new() });
                }
                (["address", address, "gateway", gateway], Some(network)) => {
                    network.addresses.push(address.parse().ok()?);
                    network.gateways.push(gateway.parse().ok()?);
                }
                _ => return None,
            }
        }
        Some(Run { name, pid, started, network })
    }

    /// Writes a file, whole or not at all. Again, it tells an agent to look.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn write(&self, run: &Run) -> anyhow::Result<()> {
        let Self(dir) = self;
        let path = dir.join(run.name.as_str());
        let new = dir.join(format!(".{}", run.name));
        let mut text = format!("pid {} started {}\n", run.pid, run.started);
        if let Some(Network { bridge, isolated, addresses, gateways }) = &run.network {
            text.push_str(&format!("bridge {bridge} {}\n", if *isolated { "isolated" } else { "open" }));
            for (address, gateway) in addresses.iter().zip(gateways) {
                text.push_str(&format!("address {address} gateway {gateway}\n"));
            }
        }
        fs::write(&new, text)
            .and_then(|()| fs::rename(&new, &path))
            .with_context(|| format!("cannot write {}", path.display()))
    }

    /// Says that a command's namespace is wired.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn mark_ready(&self, name: &NsName) -> anyhow::Result<()> {
        let path = self.ready(name);
        match path.exists() {
            true => Ok(()),
            false => fs::write(&path, "").with_context(|| format!("cannot write {}", path.display())),
        }
    }

    /// Whether that was said.
    pub fn is_ready(&self, name: &NsName) -> bool {
        self.ready(name).exists()
    }

    fn ready(&self, name: &NsName) -> PathBuf {
        // No namespace has a name that begins with a dot.
        self.0.join(format!(".{name}.ready"))
    }

    /// Forgets a command.
    ///
    /// # Errors
    /// A file cannot be removed.
    pub fn remove(&self, name: &NsName) -> anyhow::Result<()> {
        let Self(dir) = self;
        for path in [self.ready(name), dir.join(format!(".{name}")), dir.join(name.as_str())] {
            match fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(error).with_context(|| format!("cannot remove {}", path.display()));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Removes the directory where no command is noted: with its lock, and with what a crash left half written.
    ///
    /// # Errors
    /// A command is noted, or the kernel refused.
    pub fn remove_dir(&self) -> io::Result<()> {
        let Self(dir) = self;
        if self.all().is_empty() {
            for entry in fs::read_dir(dir)? {
                fs::remove_file(entry?.path())?;
            }
        }
        fs::remove_dir(dir)
    }
}

impl Run {
    /// Of a process that lives now.
    pub fn of(name: NsName, pid: u32, network: Option<Network>) -> Option<Self> {
        Some(Self { name, pid, started: started(pid)?, network })
    }

    fn is_alive(&self) -> bool {
        started(self.pid) == Some(self.started)
    }

    /// What it asks for, by itself.
    pub fn topology(&self) -> Topology {
        let mut topology = Topology::default();
        self.add_to(&mut topology);
        topology
    }

    /// The same with its bridge as it is, for who changes nothing else.
    pub fn topology_on(&self, observed: &Observed) -> Topology {
        let mut topology = self.topology();
        if let Some(network) = &self.network
            && let Some(seen) = observed.host.get(&network.bridge)
        {
            topology.bridges.push(Bridge {
                name: network.bridge.clone(),
                subnets: seen.addresses.iter().map(IpNet::trunc).collect(),
                gateways: seen.addresses.clone(),
                mtu: None,
                mac: None,
                nat: false,
                // That is in the host's table, which has the bridge already; ports are isolated one by one.
                isolate: false,
            });
        }
        topology
    }

    /// Adds it to what a file asks for; a name that the file has is the file's.
    pub fn add_to(&self, topology: &mut Topology) {
        let Self { name, network, .. } = self;
        if topology.namespaces.iter().any(|netns| netns.name == *name) {
            return;
        }
        let mut namespace = Namespace::new(name.clone());
        if let (Some(network), Ok(inner)) = (network, INNER.parse::<IfName>()) {
            let taken = |host: &IfName| {
                topology.bridges.iter().any(|bridge| bridge.name == *host)
                    || topology.ends().any(|end| end.link == LinkId::host(host.clone()))
            };
            if let Some(outer) = host_end(name, &inner).find(|host| !taken(host)) {
                let end = |link, addresses: Vec<IpNet>, bridge: Option<IfName>, isolated| End {
                    link,
                    addresses,
                    pools: Vec::new(),
                    bridge,
                    isolated,
                    mac: None,
                    mtu: None,
                    tuning: Default::default(),
                };
                let isolated = match topology.bridges.iter().find(|bridge| bridge.name == network.bridge) {
                    Some(bridge) => bridge.isolate,
                    None => network.isolated,
                };
                topology.veths.push(Veth {
                    a: end(LinkId::host(outer), Vec::new(), Some(network.bridge.clone()), isolated),
                    b: end(LinkId::inside(name.clone(), inner), network.addresses.clone(), None, false),
                });
                namespace.routes = network.gateways.iter().filter_map(default_route).collect();
            }
        }
        topology.namespaces.push(namespace);
    }

    /// Whether all of it is there; counted too, where that is to be.
    pub fn is_wired(&self, topology: &Topology, observed: &Observed, counted: bool) -> bool {
        let inside = Place::Netns(self.name.clone());
        let mut veths = topology.veths.iter().filter(|veth| veth.b.link.place == inside);
        observed.namespaces.contains_key(&self.name)
            && veths.all(|veth| {
                let up = |link| observed.link(link).is_some_and(|seen| seen.up);
                let is_counted = |link| observed.link(link).is_some_and(|seen| seen.attached);
                up(&veth.a.link) && up(&veth.b.link) && (!counted || veth.counted().all(is_counted))
            })
    }
}

fn default_route(gateway: &IpNet) -> Option<Route> {
    let to = if gateway.addr().is_ipv6() { "::/0" } else { "0.0.0.0/0" };
    Some(Route::new(to.parse().ok()?, Some(gateway.addr()), None))
}

/// When a process began: field 22 of `/proc/PID/stat`, counted after the name, which may have spaces and brackets.
fn started(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_whitespace();
    // One that has ended and is not yet waited for does nothing any more.
    let state = fields.next()?;
    fields.nth(18)?.parse().ok().filter(|_| !matches!(state, "Z" | "X"))
}
