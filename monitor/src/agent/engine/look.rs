//! Looking at the kernel: what would be done, what is there, what is free.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use anyhow::Context as _;

use super::{Look, View, mark_attached, pins};
use crate::{
    agent::{
        Failure,
        assemble::assemble,
        lost::lost,
        runs::{Network, Runs},
        watch::{Filed, Watcher},
    },
    discover::ear::Heard,
    netns,
    probe::{self, Attached, Reading, Readings},
    reconcile::Kernel,
    sample::{AgentSample, Counts},
    topology::{
        Observed, Topology, allocate,
        names::{IfName, LinkId, NsName, Place},
        outside::Family,
        plan::{self, PlanOptions},
        step::Step,
    },
};

impl Look {
    /// The steps from what is to what the file says. Changes nothing.
    ///
    /// # Errors
    /// What stands in the way.
    pub fn plan(&self, topology: &Topology) -> Result<Vec<Step>, Failure> {
        let mut observed = self.kernel.observe_for(topology)?;
        mark_attached(&mut observed, &self.attached());
        let mut topology = topology.clone();
        let runs = Runs::new(&self.host.run_dir).alive();
        runs.iter()
            .filter(|run| observed.namespaces.contains_key(&run.name))
            .for_each(|run| run.add_to(&mut topology));
        Ok(plan::plan(&topology, &observed, PlanOptions { attach: self.host.attach.is_some() })
            .map_err(anyhow::Error::from)?)
    }

    /// The next free addresses on a bridge of ours, for a command. Under the lock of [`Runs::lock`].
    ///
    /// # Errors
    /// There is no such bridge; no address is free.
    pub fn place_on(&self, bridge: &IfName) -> Result<Network, Failure> {
        let observed = self.kernel.observe(&Default::default())?;
        let Some(seen) = observed.host.get(bridge).filter(|link| link.owned && link.kind == "bridge") else {
            let what =
                "there is no bridge of that name that netns-monitor made: apply a file that has it first";
            return Err(anyhow::anyhow!("--network {bridge}: {what}").into());
        };
        let runs = Runs::new(&self.host.run_dir).alive();
        let given = runs.into_iter().filter_map(|run| run.network).flat_map(|network| network.addresses);
        let links = observed.namespaces.values().flat_map(|netns| netns.links.values());
        let has = links.chain(observed.host.values()).flat_map(|link| link.addresses.iter().copied());
        let taken: BTreeSet<IpAddr> = given.chain(has).map(|address| address.addr()).collect();
        let addresses = seen.addresses.iter().map(|gateway| {
            let free = allocate::next_free(gateway, &taken);
            free.with_context(|| format!("--network {bridge}: no address of {} is free", gateway.trunc()))
        });
        let isolated =
            observed.host.values().any(|port| port.isolated && port.bridge.as_ref() == Some(bridge));
        Ok(Network {
            bridge: bridge.clone(),
            isolated,
            addresses: addresses.collect::<Result<_, _>>()?,
            gateways: seen.addresses.clone(),
        })
    }

    /// Every named namespace with its counts.
    ///
    /// # Errors
    /// What the kernel refused.
    pub fn view(&self) -> Result<View, Failure> {
        let names = netns::list(&self.host.netns_dir).map_err(anyhow::Error::from)?;
        let wanted = names.into_iter().map(|(name, _)| name).collect();
        let mut observed = self.kernel.observe(&wanted)?;
        let mut readings = match pins(&self.host) {
            Some(dir) => probe::look(&dir).map_err(anyhow::Error::from)?,
            None => Readings::default(),
        };
        // Who looks at one is shown what it counts, also where the agent sums it with others.
        readings.interfaces.iter_mut().for_each(|reading| reading.summed = false);
        let mut watcher = Watcher::new(&self.host, false)?;
        let targets: Vec<_> = readings.interfaces.iter().map(|reading| reading.target.clone()).collect();
        let before = |cookie| {
            let is_it = |target: &&probe::Target| target.cookie == cookie;
            targets.iter().find(is_it).map(|target| target.netns.clone())
        };
        let mut watched = watcher.look_and_ask(&Heard::default(), &before)?.unwrap_or_default();
        watched.mark_owned(|name, cookie| self.kernel.owns(name, cookie));
        // Without the file that an agent has: what it names is chosen like the rest.
        watched.choose(&self.host.choice, &Filed::default());
        let left_out = |cookie| watched.left_out.contains(&cookie) || watched.undecided.contains(&cookie);
        observed.namespaces.retain(|_, netns| !left_out(netns.cookie));
        let shown =
            |name: &Option<NsName>| name.as_ref().is_none_or(|name| observed.namespaces.contains_key(name));
        observed.figures.retain(|name, _| shown(name));
        readings.interfaces.retain(|reading| !left_out(reading.target.cookie));
        readings.retired.retain(|(cookie, _)| !left_out(*cookie));
        let mut sample = assemble(&observed, &watched, readings, AgentSample::default());
        sample.lost = lost(&sample.namespaces, &observed, &watched, None, None);
        Ok(View { observed, watched, sample })
    }

    /// The kernel itself, for who looks closer.
    pub fn kernel(&self) -> &Kernel {
        &self.kernel
    }

    /// These namespaces and all that are wired, without their counts.
    ///
    /// # Errors
    /// What the kernel refused.
    pub fn observe(&self, names: &BTreeSet<NsName>) -> Result<Observed, Failure> {
        Ok(self.kernel.observe(names)?)
    }

    /// What is counted of each interface, read now. A namespace is known by its name: one that lost it is left out.
    ///
    /// # Errors
    /// What is pinned cannot be read.
    pub fn counts(&self, observed: &Observed) -> anyhow::Result<BTreeMap<LinkId, Counts>> {
        let readings = match pins(&self.host) {
            Some(dir) => probe::look(&dir)?,
            None => Readings::default(),
        };
        let named = readings.interfaces.into_iter().filter_map(|Reading { target, counts, .. }| {
            let (name, _) = observed
                .namespaces
                .iter()
                .find(|(name, netns)| name.as_str() == target.netns && netns.cookie == target.cookie)?;
            let link = LinkId::inside(name.clone(), target.interface.parse().ok()?);
            Some((link, counts.ok()?))
        });
        Ok(named.collect())
    }

    /// What nft lists of a namespace's own rules, as far as they are of ours.
    ///
    /// # Errors
    /// It cannot be listed.
    pub fn rules(&self, netns: &str) -> Result<Option<String>, Failure> {
        let name = netns.parse::<NsName>().map_err(anyhow::Error::from)?;
        Ok(self.kernel.rules(&Place::Netns(name), Family::Inet)?)
    }

    /// What the pins say is counted.
    fn attached(&self) -> Vec<Attached> {
        let readings = pins(&self.host).and_then(|dir| probe::look(&dir).ok()).unwrap_or_default();
        let interfaces = readings.interfaces.into_iter();
        interfaces.map(|Reading { target, mode, .. }| Attached { target, mode, complete: true }).collect()
    }
}
