//! Devices of the host that are lent to namespaces: what they were like is noted before they go, and put back when they
//! return, by whichever way: a device that comes back because its namespace went has another name and is down.

use std::{
    fs::{self, File},
    io::{self, Write as _},
    os::{fd::AsRawFd as _, unix::fs::DirBuilderExt as _},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail};

use super::{Kernel, is};
use crate::{
    netns,
    topology::{
        Observed, ObservedLink, Route,
        inner::Lease,
        names::{IfName, LinkId, NsName, Place},
        route::RouteKind,
    },
};

/// What follows our tag in the alias of a lent device.
pub(super) const LENT: &str = "lent:";

/// The notes of one run directory.
#[derive(Clone, Debug)]
pub(super) struct Leases(PathBuf);

impl Leases {
    /// Those below `<run-dir>/leases`.
    pub(super) fn new(run_dir: &Path) -> Self {
        Self(run_dir.join("leases"))
    }

    pub(super) fn all(&self) -> Vec<Lease> {
        let Self(dir) = self;
        let Ok(entries) = fs::read_dir(dir) else { return Vec::new() };
        let names = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<IfName>().ok());
        let text = |name: &IfName| fs::read_to_string(dir.join(name.as_str())).ok();
        let mut all: Vec<Lease> = names.filter_map(|name| parse(name.clone(), &text(&name)?)).collect();
        all.sort_by(|a, b| a.device.cmp(&b.device));
        all
    }

    fn write(&self, lease: &Lease) -> anyhow::Result<()> {
        let Self(dir) = self;
        let path = dir.join(lease.device.as_str());
        let context = || format!("cannot write {}", path.display());
        fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).with_context(context)?;
        // No name of a link that is taken has a colon.
        let new = dir.join(format!("{}:new", lease.device));
        File::create(&new)
            .and_then(|mut file| file.write_all(text(lease).as_bytes()).and_then(|()| file.sync_all()))
            .and_then(|()| fs::rename(&new, &path))
            .with_context(context)
    }

    /// Removes the directory where nothing is noted: with what a crash left half written.
    ///
    /// # Errors
    /// Something is noted, or the kernel refused.
    fn remove_dir(&self) -> io::Result<()> {
        let Self(dir) = self;
        for entry in fs::read_dir(dir)? {
            let path = entry?.path();
            if path.to_string_lossy().ends_with(":new") {
                fs::remove_file(path)?;
            }
        }
        fs::remove_dir(dir)
    }

    fn remove(&self, device: &IfName) -> anyhow::Result<()> {
        let path = self.0.join(device.as_str());
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(error).with_context(|| format!("cannot remove {}", path.display()))
            }
            _ => Ok(()),
        }
    }
}

fn text(lease: &Lease) -> String {
    let Lease { device: _, link, mac, mtu, up, alias, addresses, routes } = lease;
    let Place::Netns(netns) = &link.place else { return String::new() };
    let mut text = format!("to {netns} {}\nmac {mac}\nmtu {mtu}\nup {}\n", link.name, u8::from(*up));
    if let Some(alias) = alias {
        text.push_str(&format!("alias {}\n", alias.escape_default()));
    }
    for address in addresses {
        text.push_str(&format!("address {address}\n"));
    }
    let shown =
        |address: Option<std::net::IpAddr>| address.map_or("-".to_owned(), |address| address.to_string());
    for Route { to, via, table, metric, src, protocol, .. } in routes {
        text.push_str(&format!("route {to} {} {table} {metric} {} {protocol}\n", shown(*via), shown(*src)));
    }
    text
}

fn parse(device: IfName, text: &str) -> Option<Lease> {
    let (mut link, mut mac, mut mtu, mut up, mut alias) = (None, None, None, false, None);
    let (mut addresses, mut routes) = (Vec::new(), Vec::new());
    for line in text.lines() {
        let (key, rest) = line.split_once(' ')?;
        let words: Vec<&str> = rest.split(' ').collect();
        match (key, &words[..]) {
            ("to", [netns, name]) => {
                link = Some(LinkId::inside(netns.parse::<NsName>().ok()?, name.parse().ok()?))
            }
            ("mac", [text]) => mac = text.parse().ok(),
            ("mtu", [text]) => mtu = text.parse().ok(),
            ("up", [text]) => up = *text == "1",
            // Of what stands there, backslashes and quotes alone differ from what was.
            ("alias", _) => {
                alias = Some(rest.replace("\\'", "'").replace("\\\"", "\"").replace("\\\\", "\\"))
            }
            ("address", [text]) => addresses.push(text.parse().ok()?),
            ("route", [to, via, table, metric, src, protocol]) => routes.push(Route {
                kind: RouteKind::Unicast,
                table: table.parse().ok()?,
                metric: metric.parse().ok()?,
                src: src.parse().ok(),
                protocol: protocol.parse().ok()?,
                ..Route::new(to.parse().ok()?, via.parse().ok(), Some(device.clone()))
            }),
            _ => return None,
        }
    }
    Some(Lease { device, link: link?, mac: mac?, mtu: mtu?, up, alias, addresses, routes })
}

impl Kernel {
    /// Removes the notes of devices that are lent, where there are none.
    ///
    /// # Errors
    /// A device is lent, or the kernel refused.
    pub fn forget_leases(&self) -> io::Result<()> {
        self.leases.remove_dir()
    }

    /// Notes what a device is like, and moves it.
    pub(super) fn lend(&self, device: &IfName, link: &LinkId) -> anyhow::Result<()> {
        let Place::Netns(netns) = &link.place else { bail!("{device} is lent to a namespace") };
        let observed = self.observe(&Default::default())?;
        let noted = self.leases.all().into_iter().find(|lease| lease.device == *device);
        let lease = match noted {
            // It came back in the middle of a lease: it was like that before.
            Some(lease) => Lease { link: link.clone(), ..lease },
            None => self.lease_of(device, link, &observed)?,
        };
        let here = found(&observed, &lease).with_context(|| format!("there is no device {device}"))?;
        self.leases.write(&lease)?;
        let file = netns::file(&self.netns_dir, netns)?;
        let alias = format!("{}{LENT}{device}", self.tag);
        self.at(&Place::Host, async |session| {
            session.set_link(here.1.ifindex, |link| link.down()).await?;
            session.set_link(here.1.ifindex, |message| message.alias(alias)).await?;
            let name = link.name.to_string();
            session.set_link(here.1.ifindex, |message| message.name(name).setns_by_fd(file.as_raw_fd())).await
        })
    }

    fn lease_of(&self, device: &IfName, link: &LinkId, observed: &Observed) -> anyhow::Result<Lease> {
        let seen = observed.host.get(device).with_context(|| format!("there is no device {device}"))?;
        let alias = self.at(&Place::Host, async |session| session.find(device.as_str()).await)?;
        let through = observed.host_routes.iter().filter(|route| route.dev.as_ref() == Some(device));
        Ok(Lease {
            device: device.clone(),
            link: link.clone(),
            mac: seen.mac.with_context(|| format!("{device} has no MAC address to know it by"))?,
            mtu: seen.mtu,
            up: seen.up,
            alias: alias.and_then(|found| found.alias),
            addresses: seen.addresses.clone(),
            routes: through.cloned().collect(),
        })
    }

    /// Takes a device back, from wherever it is, and puts it as it was.
    pub(super) fn take_back(&self, device: &IfName) -> anyhow::Result<()> {
        let noted = self.leases.all().into_iter().find(|lease| lease.device == *device);
        // Done already.
        let Some(lease) = noted else { return Ok(()) };
        self.fetch(&lease)?;
        let observed = self.observe(&Default::default())?;
        if let Some((name, seen)) = found(&observed, &lease) {
            self.put_as_it_was(&lease, name, seen, &observed)?;
        }
        // One that is nowhere was unplugged.
        self.leases.remove(device)
    }

    fn fetch(&self, lease: &Lease) -> anyhow::Result<()> {
        let Place::Netns(netns) = &lease.link.place else { return Ok(()) };
        let Ok(host) = File::open("/proc/self/ns/net") else { bail!("cannot open the host's namespace") };
        let here = netns::inside(&self.netns_dir, netns, || ());
        if here.is_err() {
            return Ok(());
        }
        let mac = lease.mac;
        self.at(&lease.link.place, async |session| {
            let links = session.links(&self.tag, self.group).await?;
            if let Some((_, seen)) = links.iter().find(|(_, seen)| seen.mac == Some(mac) && seen.lent) {
                session.set_link(seen.ifindex, |link| link.down()).await?;
                // Under a name that is free there, whatever it is called here.
                let name = format!("lent{}", seen.ifindex);
                session.set_link(seen.ifindex, |link| link.name(name).setns_by_fd(host.as_raw_fd())).await?;
            }
            Ok::<_, super::NetlinkError>(())
        })
    }

    fn put_as_it_was(
        &self,
        lease: &Lease,
        name: &IfName,
        seen: &ObservedLink,
        observed: &Observed,
    ) -> anyhow::Result<()> {
        if *name != lease.device && observed.host.contains_key(&lease.device) {
            bail!(
                "{name} was {} before it was lent, and another link has that name by now: rename one",
                lease.device
            );
        }
        let alias = lease.alias.clone().unwrap_or_default();
        let wanted = lease.device.to_string();
        self.at(&Place::Host, async |session| {
            let ifindex = seen.ifindex;
            if *name != lease.device {
                session.set_link(ifindex, |link| link.down()).await?;
                session.set_link(ifindex, |link| link.name(wanted)).await?;
            }
            session.set_link(ifindex, |link| link.mtu(lease.mtu)).await?;
            session.set_link(ifindex, |link| link.alias(alias)).await?;
            for address in lease.addresses.iter().filter(|address| !seen.addresses.contains(address)) {
                session.add_address(ifindex, *address).await?;
            }
            if lease.up {
                session.set_link(ifindex, |link| link.up()).await?;
            }
            Ok::<_, super::NetlinkError>(())
        })?;
        for route in &lease.routes {
            match self.add_route(&Place::Host, route) {
                Err(error) if !is(&error, libc::EEXIST) => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }
}

/// The device among the host's links, whatever its name.
fn found<'a>(observed: &'a Observed, lease: &Lease) -> Option<(&'a IfName, &'a ObservedLink)> {
    let mut same =
        observed.host.iter().filter(|(_, seen)| seen.mac == Some(lease.mac) && seen.kind != "bridge");
    let by_name = observed.host.get_key_value(&lease.device).filter(|(_, seen)| seen.mac == Some(lease.mac));
    by_name.or_else(|| same.next())
}
