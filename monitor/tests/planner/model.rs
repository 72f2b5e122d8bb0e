//! A model of the kernel, for plans: performs steps on an [`Observed`], and refuses what the kernel would refuse.
//!
//! It knows only what the planner relies on; each rule here is anchored by a test against the real kernel in
//! `tests/tests/reconcile.rs`. Deliberately absent: counters, timing, everything asynchronous.

use std::collections::BTreeMap;

use anyhow::{Context as _, bail, ensure};
use monitor::topology::{
    LinkStats, Observed, ObservedLink, ObservedNetns, Topology,
    execute::Perform,
    names::{Cookie, IfName, LinkId, MacAddr, Place},
    plan::{PlanOptions, plan},
    step::{NewEnd, Step},
};

/// The model, with a step to refuse.
#[derive(Clone, Debug, Default)]
pub(crate) struct Model {
    /// What it has.
    pub(crate) observed: Observed,
    /// Steps performed, in order.
    pub(crate) done: Vec<Step>,
    /// Refuses to perform the step of this number (from 0) after which it works again.
    pub(crate) refuse: Option<usize>,
    /// Refuses every step that is this one.
    pub(crate) never: Option<Step>,
    pub(crate) asked: usize,
    pub(crate) next_ifindex: u32,
    pub(crate) next_cookie: u64,
}

pub(crate) const COUNTED: PlanOptions = PlanOptions { attach: true };

/// The plan as lines.
pub(crate) fn lines(topology: &Topology, observed: &Observed) -> Vec<String> {
    plan(topology, observed, COUNTED)
        .unwrap_or_else(|error| panic!("{error}"))
        .iter()
        .map(Step::to_string)
        .collect()
}

pub(crate) fn topology(text: &str) -> Topology {
    monitor::config::parse(text, "test.toml").unwrap_or_else(|errors| panic!("{errors}"))
}

impl Model {
    /// With everything of a topology built.
    pub(crate) fn built(topology: &Topology) -> Self {
        let mut model = Self::default();
        for step in plan(topology, &model.observed, COUNTED).expect("a plan") {
            model.perform(&step).unwrap_or_else(|error| panic!("{step}: {error:#}"));
        }
        model.done.clear();
        model.asked = 0;
        model
    }

    pub(crate) fn link(&mut self, name: &str) -> &mut ObservedLink {
        let id = match name.split_once('/') {
            Some((netns, name)) => {
                LinkId::inside(netns.parse().expect("a name"), name.parse().expect("a name"))
            }
            None => LinkId::host(name.parse().expect("a name")),
        };
        find(&mut self.observed, &id).expect("the link")
    }

    /// Something that somebody else made.
    pub(crate) fn foreign(&mut self, name: &str, kind: &str, address: Option<&str>) {
        let mut link = self.new_link(kind, None, None);
        link.owned = false;
        link.up = true;
        link.addresses.extend(address.map(|address| address.parse::<ipnet::IpNet>().expect("an address")));
        self.observed.host.insert(name.parse().expect("a name"), link);
    }

    fn new_link(&mut self, kind: &str, mtu: Option<u32>, mac: Option<MacAddr>) -> ObservedLink {
        self.next_ifindex += 1;
        let ifindex = self.next_ifindex;
        ObservedLink {
            ifindex,
            kind: kind.to_owned(),
            mac: mac.or(Some(MacAddr([2, 0xff, 0, 0, 0, ifindex as u8]))),
            mtu: mtu.unwrap_or(1500),
            up: false,
            running: false,
            bridge: None,
            owned: true,
            peer_ifindex: None,
            addresses: Vec::new(),
            stats: LinkStats::default(),
            attached: false,
        }
    }

    fn create_veth(&mut self, a: &NewEnd, b: &NewEnd) -> anyhow::Result<()> {
        for end in [a, b] {
            ensure!(links(&mut self.observed, &end.link.place)?.get(&end.link.name).is_none(), "File exists");
        }
        let (mut one, mut two) = (self.new_link("veth", a.mtu, a.mac), self.new_link("veth", b.mtu, b.mac));
        (one.peer_ifindex, two.peer_ifindex) = (Some(two.ifindex), Some(one.ifindex));
        links(&mut self.observed, &a.link.place)?.insert(a.link.name.clone(), one);
        links(&mut self.observed, &b.link.place)?.insert(b.link.name.clone(), two);
        Ok(())
    }

    /// A veth goes with its peer; a link that is gone is deleted; a foreign one stays.
    fn delete_link(&mut self, link: &LinkId) -> anyhow::Result<()> {
        let Ok(all) = links(&mut self.observed, &link.place) else { return Ok(()) };
        let Some(seen) = all.get(&link.name) else { return Ok(()) };
        ensure!(seen.owned, "not ours");
        let (ifindex, peer) = (seen.ifindex, seen.peer_ifindex);
        all.remove(&link.name);
        let is_peer = |seen: &ObservedLink| Some(seen.ifindex) == peer && seen.peer_ifindex == Some(ifindex);
        self.observed.host.retain(|_, seen| !is_peer(seen));
        for netns in self.observed.namespaces.values_mut() {
            netns.links.retain(|_, seen| !is_peer(seen));
            netns.routes.retain(|route| route.dev.as_ref().is_none_or(|dev| netns.links.contains_key(dev)));
        }
        Ok(())
    }

    fn act(&mut self, step: &Step) -> anyhow::Result<()> {
        match step {
            Step::CreateNetns { name } => {
                ensure!(!self.observed.namespaces.contains_key(name), "File exists");
                self.next_cookie += 1;
                let mut lo = self.new_link("loopback", Some(65_536), None);
                lo.owned = false;
                let links = BTreeMap::from([("lo".parse::<IfName>()?, lo)]);
                let cookie = Cookie(self.next_cookie);
                let netns = ObservedNetns { cookie, inode: cookie.0, owned: true, links, routes: Vec::new() };
                self.observed.namespaces.insert(name.clone(), netns);
            }
            Step::DeleteNetns { name } => {
                let netns = self.observed.namespaces.get(name).context("no such namespace")?;
                ensure!(netns.owned, "not ours");
                let inside: Vec<_> = netns.links.iter().filter(|(_, link)| link.kind == "veth").collect();
                ensure!(inside.is_empty(), "links linger: {inside:?}");
                self.observed.namespaces.remove(name);
            }
            Step::CreateBridge { name, mtu, mac } => {
                ensure!(!self.observed.host.contains_key(name), "File exists");
                let bridge = self.new_link("bridge", *mtu, *mac);
                self.observed.host.insert(name.clone(), bridge);
            }
            Step::CreateVeth { a, b } => self.create_veth(a, b)?,
            Step::DeleteLink { link } => self.delete_link(link)?,
            Step::SetBridge { link, from, to } => {
                if let Some(to) = to {
                    ensure!(
                        self.observed.host.get(to).is_some_and(|seen| seen.kind == "bridge"),
                        "no bridge {to}"
                    );
                }
                let seen = find(&mut self.observed, link)?;
                ensure!(seen.bridge == *from, "is a port of {:?}", seen.bridge);
                seen.bridge.clone_from(to);
            }
            Step::SetMtu { link, from, to } => {
                let seen = find(&mut self.observed, link)?;
                ensure!(seen.mtu == *from, "has MTU {}", seen.mtu);
                seen.mtu = *to;
            }
            Step::SetMac { link, from, to } => {
                let seen = find(&mut self.observed, link)?;
                ensure!(seen.mac == Some(*from), "has MAC {:?}", seen.mac);
                seen.mac = Some(*to);
            }
            Step::Attach { link } => {
                let seen = find(&mut self.observed, link)?;
                ensure!(seen.kind == "veth", "is a {}", seen.kind);
                seen.attached = true;
            }
            Step::AddAddress { link, address } => {
                let seen = find(&mut self.observed, link)?;
                ensure!(!seen.addresses.contains(address), "File exists");
                seen.addresses.push(*address);
                seen.addresses.sort();
            }
            Step::DeleteAddress { link, address } => {
                let seen = find(&mut self.observed, link)?;
                ensure!(seen.addresses.contains(address), "Cannot assign requested address");
                seen.addresses.retain(|other| other != address);
            }
            Step::SetUp { link } => find(&mut self.observed, link)?.up = true,
            Step::SetDown { link } => {
                find(&mut self.observed, link)?.up = false;
                // The kernel drops what went through it.
                if let Place::Netns(name) = &link.place {
                    let netns = self.observed.namespaces.get_mut(name).context("no such namespace")?;
                    netns.routes.retain(|route| route.dev.as_ref() != Some(&link.name));
                }
            }
            Step::AddRoute { place: Place::Netns(name), route } => {
                let netns = self.observed.namespaces.get_mut(name).context("no such namespace")?;
                let through = netns.links.iter().find(|(name, link)| {
                    let reaches = route
                        .via
                        .is_none_or(|via| link.addresses.iter().any(|address| address.contains(&via)));
                    link.up && reaches && route.dev.as_ref().is_none_or(|dev| dev == *name)
                });
                let (dev, _) = through.context("Network is unreachable")?;
                ensure!(netns.routes.iter().all(|other| other.to != route.to), "File exists");
                let mut route = route.clone();
                route.dev = Some(dev.clone());
                netns.routes.push(route);
                netns.routes.sort();
            }
            Step::DeleteRoute { place: Place::Netns(name), route } => {
                let netns = self.observed.namespaces.get_mut(name).context("no such namespace")?;
                let before = netns.routes.len();
                netns.routes.retain(|other| other.to != route.to || other.via != route.via);
                ensure!(netns.routes.len() < before, "No such process");
            }
            step => bail!("the model does not know {step}"),
        }
        Ok(())
    }
}

impl Perform for Model {
    fn perform(&mut self, step: &Step) -> anyhow::Result<()> {
        let number = self.asked;
        self.asked += 1;
        if self.refuse == Some(number) || self.never.as_ref() == Some(step) {
            bail!("refused");
        }
        self.act(step)?;
        self.done.push(step.clone());
        Ok(())
    }
}

fn links<'a>(
    observed: &'a mut Observed,
    place: &Place,
) -> anyhow::Result<&'a mut BTreeMap<IfName, ObservedLink>> {
    match place {
        Place::Host => Ok(&mut observed.host),
        Place::Netns(name) => Ok(&mut observed.namespaces.get_mut(name).context("no such namespace")?.links),
    }
}

fn find<'a>(observed: &'a mut Observed, link: &LinkId) -> anyhow::Result<&'a mut ObservedLink> {
    links(observed, &link.place)?.get_mut(&link.name).context("no such link")
}
