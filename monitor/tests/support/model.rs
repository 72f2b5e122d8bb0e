//! A kernel of plain values: what steps do to an [`Observed`], as far as the planner relies on it.
//!
//! It refuses what the kernel refuses (a name twice, a missing link, a route whose next hop is in no network) and takes along
//! what goes along (peers, addresses, routes). Indexes are given as by the kernel, from 2 in each new namespace, so that
//! different pairs look alike by index. Not modelled: time, carrier, secondary addresses, anything about packets.

#![allow(dead_code, reason = "each test program uses a part of it")]

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, Result, bail, ensure};
use ipnet::IpNet;
use monitor::topology::{
    LinkStats, Observed, ObservedLink, ObservedNetns, Route,
    adopt::{Adopt, Before},
    execute::Perform,
    inner::Lease,
    names::{Cookie, IfName, LinkId, MacAddr, NsName, Place},
    outside::{ObservedTable, TableId, TableState},
    route::{Neighbour, Rule},
    step::{NewEnd, Step},
};

/// The model.
#[derive(Clone, Default)]
pub(crate) struct Model {
    /// What looking at it shows.
    pub(crate) observed: Observed,
    /// The true other end of each veth; indexes alone do not tell.
    peers: BTreeMap<LinkId, LinkId>,
    /// Next index by namespace; the host's under no name.
    next: BTreeMap<Option<NsName>, u32>,
    /// Bridges whose MTU was changed by a request; that of others follows their ports (`br_mtu_auto_adjust`).
    pinned: BTreeSet<IfName>,
    cookie: u64,
    /// Every step performed, in order.
    pub(crate) done: Vec<Step>,
    /// How many more steps succeed; then each that `fails` chooses is refused.
    pub(crate) budget: Option<usize>,
    /// Steps that are refused whenever they come.
    pub(crate) fails: Option<fn(&Step) -> bool>,
}

impl Perform for Model {
    fn perform(&mut self, step: &Step) -> Result<()> {
        if self.budget == Some(0) {
            self.budget = None;
            bail!("refused by the test");
        }
        if self.fails.is_some_and(|fails| fails(step)) {
            bail!("always refused by the test");
        }
        self.budget = self.budget.map(|budget| budget - 1);
        self.apply(step).with_context(|| format!("the model refuses `{step}`"))?;
        self.done.push(step.clone());
        Ok(())
    }
}

impl Model {
    /// Performs all steps.
    pub(crate) fn run(&mut self, steps: &[Step]) {
        for step in steps {
            self.perform(step).unwrap_or_else(|error| panic!("{error:#}\nplan:\n{}", text(steps)));
        }
    }

    /// A namespace that somebody made by hand.
    pub(crate) fn foreign_netns(&mut self, name: &str) {
        self.apply(&Step::CreateNetns { name: ns(name) }).expect("free");
        self.netns(&ns(name)).expect("made").owned = false;
    }

    /// A link that somebody made by hand in the host.
    pub(crate) fn foreign_link(&mut self, name: &str, kind: &str) -> &mut ObservedLink {
        let id = host(name);
        let ifindex = self.index(&Place::Host);
        let link = ObservedLink { owned: false, ..self.blank(kind, ifindex) };
        self.observed.host.insert(id.name.clone(), link);
        self.link(&id).expect("made")
    }

    /// A veth pair that somebody made by hand.
    pub(crate) fn foreign_pair(&mut self, a: &LinkId, b: &LinkId) {
        let end = |link: &LinkId| NewEnd { link: link.clone(), mac: None, mtu: None, queues: None };
        self.apply(&Step::CreateVeth { a: end(a), b: end(b) }).expect("free");
        for id in [a, b] {
            self.link(id).expect("made").owned = false;
        }
    }

    /// A link to look at or to change behind the agent's back.
    pub(crate) fn link(&mut self, id: &LinkId) -> Result<&mut ObservedLink> {
        let links = self.links(&id.place)?;
        links.get_mut(&id.name).with_context(|| format!("there is no link {id}"))
    }

    /// A namespace to look at or to change behind the agent's back.
    pub(crate) fn netns(&mut self, name: &NsName) -> Result<&mut ObservedNetns> {
        self.observed.namespaces.get_mut(name).with_context(|| format!("there is no namespace {name}"))
    }

    fn links(&mut self, place: &Place) -> Result<&mut BTreeMap<IfName, ObservedLink>> {
        match place {
            Place::Host => Ok(&mut self.observed.host),
            Place::Netns(name) => Ok(&mut self.netns(name)?.links),
        }
    }

    fn index(&mut self, place: &Place) -> u32 {
        let key = match place {
            Place::Host => None,
            Place::Netns(name) => Some(name.clone()),
        };
        let next = self.next.entry(key).or_insert(1);
        *next += 1;
        *next
    }

    fn blank(&self, kind: &str, ifindex: u32) -> ObservedLink {
        ObservedLink {
            ifindex,
            kind: kind.to_owned(),
            mac: Some(MacAddr([0x06, 0, 0, 0, (ifindex >> 8) as u8, ifindex as u8])),
            mtu: if kind == "loopback" { 65_536 } else { 1500 },
            up: false,
            running: false,
            bridge: None,
            isolated: false,
            owned: kind != "loopback",
            unclaimed: false,
            lent: false,
            peer_ifindex: None,
            macvlan: None,
            queues: 1,
            txqueuelen: 1000,
            offload: BTreeMap::new(),
            addresses: Vec::new(),
            stats: LinkStats::default(),
            attached: false,
        }
    }

    /// What a step does, whoever does it.
    pub(crate) fn apply(&mut self, step: &Step) -> Result<()> {
        match step {
            Step::CreateNetns { name } => {
                ensure!(!self.observed.namespaces.contains_key(name), "File exists");
                self.cookie += 1;
                self.next.insert(Some(name.clone()), 1);
                let lo = "lo".parse().expect("a name");
                let netns = ObservedNetns {
                    cookie: Cookie(self.cookie),
                    inode: 4_026_532_000 + self.cookie,
                    owned: true,
                    links: BTreeMap::from([(lo, self.blank("loopback", 1))]),
                    before: None,
                    routes: Vec::new(),
                    rules: Vec::new(),
                    neighbours: Vec::new(),
                    sysctls: BTreeMap::new(),
                    table: None,
                };
                self.observed.namespaces.insert(name.clone(), netns);
            }
            Step::DeleteNetns { name } => {
                ensure!(self.netns(name)?.owned, "a namespace that is not ours is deleted");
                let inside: Vec<LinkId> = self.netns(name)?.links.keys().map(|link| id(name, link)).collect();
                inside.iter().for_each(|link| self.remove(link));
                self.observed.namespaces.remove(name);
            }
            Step::CreateBridge { name, mtu, mac } => {
                ensure!(!self.observed.host.contains_key(name), "File exists");
                let ifindex = self.index(&Place::Host);
                let blank = self.blank("bridge", ifindex);
                let bridge = ObservedLink { mtu: mtu.unwrap_or(1500), mac: mac.or(blank.mac), ..blank };
                self.observed.host.insert(name.clone(), bridge);
            }
            Step::CreateVeth { a, b } => self.create_veth(a, b)?,
            Step::DeleteLink { link } => {
                // What is gone is deleted, as for the agent.
                let Ok(seen) = self.link(link) else { return Ok(()) };
                ensure!(seen.owned || seen.unclaimed, "a link that is not ours is deleted");
                self.remove(link);
            }
            Step::SetBridge { link, from, to } => {
                let ours = |model: &mut Self, name: &IfName| {
                    model.observed.host.get(name).is_some_and(|bridge| bridge.kind == "bridge")
                };
                if let Some(bridge) = to {
                    ensure!(ours(self, bridge), "there is no bridge {bridge}");
                }
                let seen = self.link(link)?;
                ensure!(seen.bridge == *from, "a port of {:?} before, not of {from:?}", seen.bridge);
                seen.bridge = to.clone();
                seen.isolated = false;
                self.follow_ports();
            }
            Step::SetMtu { link, from, to } => {
                let seen = self.link(link)?;
                let bridge = seen.kind == "bridge";
                // That of a bridge may have followed a port which went by an earlier step.
                ensure!(seen.mtu == *from || bridge, "MTU {} before, not {from}", seen.mtu);
                let from = &std::mem::replace(&mut seen.mtu, *to);
                // A request for what is there already changes nothing, so it pins nothing (`netif_set_mtu_ext`).
                if bridge && from != to {
                    self.pinned.insert(link.name.clone());
                }
                self.follow_ports();
            }
            Step::SetMac { link, from, to } => {
                let seen = self.link(link)?;
                ensure!(seen.mac == Some(*from), "MAC {:?} before, not {from}", seen.mac);
                seen.mac = Some(*to);
            }
            Step::Attach { link } => self.link(link)?.attached = true,
            Step::AddAddress { link, address } => {
                let seen = self.link(link)?;
                ensure!(!seen.addresses.contains(address), "File exists");
                seen.addresses.push(*address);
                seen.addresses.sort();
            }
            Step::DeleteAddress { link, address } => self.delete_address(link, address)?,
            Step::SetUp { link } => self.link(link)?.up = true,
            Step::SetDown { link } => {
                let seen = self.link(link)?;
                seen.up = false;
                // `addrconf_ifdown`; IPv4 addresses stay.
                seen.addresses.retain(|address| address.addr().is_ipv4());
                self.flush(link, |_| true);
            }
            Step::AddRoute { place, route } => self.add_route(place, route)?,
            Step::Adopt { name, how: Adopt::Own } => self.netns(name)?.owned = true,
            Step::Adopt { name, .. } => {
                let lo_up = self.netns(name)?.links.values().any(|link| link.kind == "loopback" && link.up);
                let netns = self.netns(name)?;
                ensure!(!netns.owned, "ours is adopted");
                netns.before.get_or_insert(Before { lo_up, ..Before::default() });
            }
            Step::Leave { name, how: Adopt::Own } => self.netns(name)?.owned = false,
            Step::Leave { name, .. } => self.netns(name)?.before = None,
            Step::SetSysctl { netns, key, from, to } => {
                let seen = self.netns(netns)?;
                let was = seen.sysctls.insert(key.clone(), to.clone());
                ensure!(was == *from, "`{was:?}` before, not `{from:?}`");
                let before = seen.before.get_or_insert_default();
                let first = before.sysctls.entry(key.clone()).or_insert_with(|| was.unwrap_or_default());
                if first == to {
                    before.sysctls.remove(key);
                }
            }
            Step::AddRule { place, rule } => {
                let rules = self.rules(place)?;
                rules.push(rule.clone());
                rules.sort();
            }
            Step::DeleteRule { place, rule } => {
                let rules = self.rules(place)?;
                let at = rules.iter().position(|found| found == rule).context("No such file or directory")?;
                rules.remove(at);
            }
            Step::AddNeighbour { place, neighbour } => {
                self.link(&LinkId { place: place.clone(), name: neighbour.dev.clone() })?;
                let neighbours = self.neighbours(place)?;
                neighbours.retain(|found| (&found.dev, found.address) != (&neighbour.dev, neighbour.address));
                neighbours.push(neighbour.clone());
                neighbours.sort();
            }
            Step::DeleteNeighbour { place, neighbour } => {
                let same =
                    |found: &Neighbour| (&found.dev, found.address) == (&neighbour.dev, neighbour.address);
                let neighbours = self.neighbours(place)?;
                let at = neighbours.iter().position(same).context("No such file or directory")?;
                neighbours.remove(at);
            }
            Step::CreateMacvlan { parent, mode, end } => {
                ensure!(self.link(&end.link).is_err(), "{}: File exists", end.link);
                let on =
                    self.observed.host.get(parent).with_context(|| format!("there is no {parent}"))?.ifindex;
                let ifindex = self.index(&end.link.place);
                let blank = self.blank("macvlan", ifindex);
                let link = ObservedLink {
                    mtu: end.mtu.unwrap_or(1500),
                    mac: end.mac.or(blank.mac),
                    peer_ifindex: Some(on),
                    macvlan: Some(*mode),
                    queues: end.queues.unwrap_or(1),
                    ..blank
                };
                self.links(&end.link.place)?.insert(end.link.name.clone(), link);
            }
            Step::Lend { device, link } => {
                ensure!(self.link(link).is_err(), "{link}: File exists");
                let mut seen =
                    self.observed.host.remove(device).with_context(|| format!("there is no {device}"))?;
                ensure!(!seen.owned, "a link of ours is lent");
                let noted = self.observed.leases.iter().position(|lease| lease.device == *device);
                let lease = noted.map(|at| self.observed.leases.remove(at)).unwrap_or_else(|| Lease {
                    device: device.clone(),
                    link: link.clone(),
                    mac: seen.mac.expect("a MAC address"),
                    mtu: seen.mtu,
                    up: seen.up,
                    alias: None,
                    addresses: seen.addresses.clone(),
                    routes: Vec::new(),
                });
                self.observed.leases.push(Lease { link: link.clone(), ..lease });
                seen.addresses.clear();
                (seen.up, seen.lent) = (false, true);
                self.links(&link.place)?.insert(link.name.clone(), seen);
            }
            Step::TakeBack { device, .. } => {
                let at = self.observed.leases.iter().position(|lease| lease.device == *device);
                let lease = self.observed.leases.remove(at.context("nothing is noted")?);
                let inside =
                    self.links(&lease.link.place).ok().and_then(|links| links.remove(&lease.link.name));
                let by_mac = |seen: &ObservedLink| seen.mac == Some(lease.mac);
                let here =
                    self.observed.host.iter().find(|(_, seen)| by_mac(seen)).map(|(name, _)| name.clone());
                let seen = inside.or_else(|| self.observed.host.remove(&here?));
                if let Some(seen) = seen {
                    self.flush(&lease.link, |_| true);
                    let addresses = lease.addresses.clone();
                    let back = ObservedLink { lent: false, mtu: lease.mtu, up: lease.up, addresses, ..seen };
                    self.observed.host.insert(device.clone(), back);
                }
            }
            Step::SetTxQueueLen { link, from: _, to } => self.link(link)?.txqueuelen = *to,
            Step::SetOffload { link, feature, on } => {
                self.link(link)?.offload.insert(*feature, *on);
            }
            Step::SetIsolated { link, on } => {
                let seen = self.link(link)?;
                ensure!(seen.bridge.is_some(), "{link} is no port");
                seen.isolated = *on;
            }
            Step::SetTable { id, script, update, .. } => {
                let counters = script.counters.iter().map(|name| (name.clone(), 0)).collect();
                let (state, stamp) = (TableState::Intact, Some("stamp".to_owned()));
                let new = ObservedTable { made_from: script.fingerprint(), state, stamp, counters };
                let old = self.put_table(id, Some(new))?;
                ensure!(update.is_none() || old.is_some(), "No such file or directory");
            }
            Step::DeleteTable { id, .. } => drop(self.put_table(id, None)?),
            Step::TurnOn { link, knob } => {
                ensure!(self.observed.host.contains_key(link), "there is no link {link}");
                let key = (link.clone(), *knob);
                let was = self.observed.outside.knobs.insert(key.clone(), true).unwrap_or(false);
                self.observed.outside.before.entry(key).or_insert(was);
            }
            Step::PutBack { link, knob, to } => {
                let key = (link.clone(), *knob);
                self.observed.outside.before.remove(&key).context("nothing is noted")?;
                self.observed.outside.knobs.insert(key, *to);
            }
            Step::DeleteRoute { place, route } => {
                let routes = self.routes(place)?;
                let same = |found: &Route| route.fits(found);
                let at = routes.iter().position(same).context("No such process")?;
                routes.remove(at);
            }
        }
        Ok(())
    }

    /// Puts a table in its place, or takes it away; the one before.
    pub(crate) fn put_table(
        &mut self,
        id: &TableId,
        table: Option<ObservedTable>,
    ) -> Result<Option<ObservedTable>> {
        Ok(match (&id.place, table) {
            (Place::Netns(name), table) => std::mem::replace(&mut self.netns(name)?.table, table),
            (Place::Host, Some(table)) => self.observed.outside.tables.insert(id.clone(), table),
            (Place::Host, None) => self.observed.outside.tables.remove(id),
        })
    }

    fn create_veth(&mut self, a: &NewEnd, b: &NewEnd) -> Result<()> {
        for end in [a, b] {
            ensure!(self.link(&end.link).is_err(), "{}: File exists", end.link);
            self.links(&end.link.place)?;
        }
        let indexes = [self.index(&a.link.place), self.index(&b.link.place)];
        for (end, ifindex, peer, other) in [(a, indexes[0], indexes[1], b), (b, indexes[1], indexes[0], a)] {
            let blank = self.blank("veth", ifindex);
            let link = ObservedLink {
                mtu: end.mtu.unwrap_or(1500),
                mac: end.mac.or(blank.mac),
                peer_ifindex: Some(peer),
                queues: end.queues.unwrap_or(1),
                ..blank
            };
            self.links(&end.link.place)?.insert(end.link.name.clone(), link);
            self.peers.insert(end.link.clone(), other.link.clone());
        }
        Ok(())
    }

    /// The link, its peer, and the routes through both.
    fn remove(&mut self, link: &LinkId) {
        for gone in [Some(link.clone()), self.peers.get(link).cloned()].into_iter().flatten() {
            self.flush(&gone, |_| true);
            if let Ok(neighbours) = self.neighbours(&gone.place) {
                neighbours.retain(|found| found.dev != gone.name);
            }
            self.peers.remove(&gone);
            if let Ok(links) = self.links(&gone.place) {
                links.remove(&gone.name);
            }
            if gone.place == Place::Host {
                for port in self.observed.host.values_mut() {
                    port.bridge = port.bridge.take().filter(|bridge| *bridge != gone.name);
                    port.isolated &= port.bridge.is_some();
                }
                self.observed.outside.knobs.retain(|(name, _), _| *name != gone.name);
                self.pinned.remove(&gone.name);
            }
        }
        self.follow_ports();
    }

    fn follow_ports(&mut self) {
        let mut least: BTreeMap<IfName, u32> = BTreeMap::new();
        for port in self.observed.host.values() {
            if let Some(bridge) = &port.bridge {
                let mtu = least.entry(bridge.clone()).or_insert(port.mtu);
                *mtu = port.mtu.min(*mtu);
            }
        }
        for (name, link) in &mut self.observed.host {
            if link.owned && link.kind == "bridge" && !self.pinned.contains(name) {
                // One that never had a port keeps what it was made with; the last port leaves it at the default.
                link.mtu = least.get(name).copied().unwrap_or(link.mtu);
            }
        }
    }

    /// With its last IPv4 address a device loses its IPv4 routes (`fib_disable_ip`).
    fn delete_address(&mut self, link: &LinkId, address: &IpNet) -> Result<()> {
        let seen = self.link(link)?;
        // What is gone is deleted, as for the agent.
        seen.addresses.retain(|found| found != address);
        if address.addr().is_ipv4() && !seen.addresses.iter().any(|left| left.addr().is_ipv4()) {
            self.flush(link, |route| route.to.addr().is_ipv4());
        }
        Ok(())
    }

    fn flush(&mut self, link: &LinkId, which: impl Fn(&Route) -> bool) {
        if let Ok(routes) = self.routes(&link.place) {
            routes.retain(|route| route.dev.as_ref() != Some(&link.name) || !which(route));
        }
    }

    fn routes(&mut self, place: &Place) -> Result<&mut Vec<Route>> {
        match place {
            Place::Host => bail!("the host's routes are not modelled"),
            Place::Netns(name) => Ok(&mut self.netns(name)?.routes),
        }
    }

    fn rules(&mut self, place: &Place) -> Result<&mut Vec<Rule>> {
        match place {
            Place::Host => bail!("the host's rules are not modelled"),
            Place::Netns(name) => Ok(&mut self.netns(name)?.rules),
        }
    }

    fn neighbours(&mut self, place: &Place) -> Result<&mut Vec<Neighbour>> {
        match place {
            Place::Host => bail!("the host's neighbours are not modelled"),
            Place::Netns(name) => Ok(&mut self.netns(name)?.neighbours),
        }
    }

    fn add_route(&mut self, place: &Place, route: &Route) -> Result<()> {
        let links = self.links(place)?.clone();
        let reaches = |link: &ObservedLink| {
            link.up && route.via.is_none_or(|via| link.addresses.iter().any(|net| net.contains(&via)))
        };
        let mut through = links.iter().filter(|(_, link)| reaches(link)).map(|(name, _)| name);
        let dev = match &route.dev {
            Some(dev) => through.find(|name| *name == dev).context("Nexthop has invalid gateway")?,
            None => through.next().context("Network is unreachable")?,
        };
        let full = Route { dev: Some(dev.clone()), ..route.clone() };
        let routes = self.routes(place)?;
        ensure!(!routes.iter().any(|found| found.collides(route)), "File exists");
        routes.push(full);
        routes.sort();
        Ok(())
    }

    /// What can be compared before and after: indexes, cookies and made-up MAC addresses differ when something was made anew.
    pub(crate) fn shape(&self) -> BTreeSet<String> {
        let mut lines = BTreeSet::new();
        let mut links = |place: &Place, links: &BTreeMap<IfName, ObservedLink>| {
            for (name, link) in links {
                let id = LinkId { place: place.clone(), name: name.clone() };
                let ObservedLink { kind, mtu, up, bridge, owned, addresses, attached, mac, .. } = link;
                let peer = self.peers.get(&id).map(ToString::to_string);
                lines.insert(format!(
                    "{id} {kind} {mtu} {up} {bridge:?} {owned} {addresses:?} {attached} {mac:?} {peer:?}"
                ));
            }
        };
        links(&Place::Host, &self.observed.host);
        for (name, netns) in &self.observed.namespaces {
            links(&Place::Netns(name.clone()), &netns.links);
        }
        for (name, netns) in &self.observed.namespaces {
            lines.insert(format!("{name} {} {}", netns.owned, netns.cookie));
            lines.extend(netns.routes.iter().map(|route| format!("{name}: {route}")));
        }
        lines
    }
}

/// A plan as it is printed.
pub(crate) fn text(steps: &[Step]) -> String {
    steps.iter().map(|step| format!("{step}\n")).collect()
}

/// A namespace's name.
pub(crate) fn ns(name: &str) -> NsName {
    name.parse().expect("a name")
}

/// A link of the host.
pub(crate) fn host(name: &str) -> LinkId {
    LinkId::host(name.parse().expect("a name"))
}

/// A link inside a namespace.
pub(crate) fn inside(netns: &str, name: &str) -> LinkId {
    id(&ns(netns), &name.parse().expect("a name"))
}

fn id(netns: &NsName, name: &IfName) -> LinkId {
    LinkId::inside(netns.clone(), name.clone())
}
