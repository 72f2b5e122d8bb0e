//! The kernel's wiring: looking at it, and performing steps. Blocking; nothing stays open in between.

mod bulk;
mod connections;
mod ethtool;
pub mod figures;
mod inside;
mod knob;
mod lease;
mod leftover;
mod link;
mod nft;
mod observe;
mod obstacle;
mod outside;
mod policy;
mod session;
pub mod site;
pub mod watch;

use std::{
    collections::{BTreeMap, BTreeSet},
    os::fd::AsRawFd,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};

pub use self::{figures::figures, leftover::Leftover, session::NetlinkError};
use self::{
    knob::Before,
    lease::Leases,
    link::Found,
    session::{Pool, Session, session},
};
use crate::{
    netns::{self, NetnsError, Records},
    topology::{
        Observed, Topology,
        figures::Parts,
        inner::MacvlanMode,
        names::{Cookie, IfName, LinkId, MacAddr, NsName, Place, SysctlKey, stable_hash},
        step::{NewEnd, Step},
    },
};

/// How long the kernel may take to let go of the name of a veth whose namespace was just deleted.
const NAME_FREE: Duration = Duration::from_secs(1);

/// The kernel's wiring, as one run directory sees it.
pub struct Kernel {
    netns_dir: PathBuf,
    records: Records,
    /// What the alias of every link of ours starts with.
    tag: String,
    /// The device group that links of ours are made in.
    group: u32,
    /// The name of nft tables of ours.
    table: String,
    before: Before,
    leases: Leases,
    figures: Parts,
    /// Open while a plan is performed.
    pool: Mutex<Option<Pool>>,
}

/// While this lives, connections stay open from one step to the next.
pub struct Performing<'a>(&'a Kernel);

impl Drop for Performing<'_> {
    fn drop(&mut self) {
        *self.0.pool() = None;
    }
}

impl Kernel {
    /// Opens nothing.
    pub fn new(netns_dir: &Path, run_dir: &Path) -> Self {
        let tag = format!("netns-monitor:{}:", run_dir.display());
        let group = group(&tag);
        Self {
            netns_dir: netns_dir.to_owned(),
            records: Records::new(run_dir),
            tag,
            group,
            table: nft::table_name(run_dir),
            before: Before::new(run_dir),
            leases: Leases::new(run_dir),
            figures: Parts::NONE,
            pool: Mutex::new(None),
        }
    }

    /// Reads only these figures.
    #[must_use]
    pub fn with_figures(self, figures: Parts) -> Self {
        Self { figures, ..self }
    }

    /// Keeps connections open until what it returns is dropped: for a plan of many steps.
    ///
    /// # Errors
    /// The kernel gives no descriptors.
    pub fn performing(&self) -> Result<Performing<'_>, NetlinkError> {
        *self.pool() = Some(Pool::new()?);
        Ok(Performing(self))
    }

    /// The name of nft tables of ours: an event that has it concerns us.
    pub fn table(&self) -> &str {
        &self.table
    }

    /// Whether the namespace of this cookie, of that name or once of it, is ours.
    pub fn owns(&self, name: &NsName, cookie: Cookie) -> bool {
        self.records.owns(name, cookie)
    }

    fn pool(&self) -> MutexGuard<'_, Option<Pool>> {
        self.pool.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Before a link goes: another may have its name after it.
    fn forget(&self, link: &LinkId) {
        if let Some(pool) = &mut *self.pool() {
            pool.forget(&link.place, link.name.as_str());
        }
    }

    /// Before a namespace is made or removed: a connection would be to the one before, and keep it alive.
    fn close(&self, netns: &NsName) {
        if let Some(pool) = &mut *self.pool() {
            pool.close(&Place::Netns(netns.clone()));
        }
    }

    /// Links of the host, and every namespace that is `wanted` or on record, as far as it exists.
    ///
    /// # Errors
    /// What the kernel refused. A namespace that went meanwhile is left out.
    pub fn observe(&self, wanted: &BTreeSet<NsName>) -> anyhow::Result<Observed> {
        self.observe_with(wanted.iter().map(|name| (name.clone(), &[][..])).collect())
    }

    /// The same of the namespaces of a topology, with the sysctls it has.
    ///
    /// # Errors
    /// As [`Kernel::observe`].
    pub fn observe_for(&self, topology: &Topology) -> anyhow::Result<Observed> {
        let wanted = topology.namespaces.iter().map(|netns| (netns.name.clone(), &netns.sysctls[..]));
        let mut observed = self.observe_with(wanted.collect())?;
        for end in topology.ends().filter(|end| !end.tuning.offload.is_empty()) {
            let features = || end.tuning.offload.keys().copied();
            let read = || {
                Ok(features()
                    .filter_map(|one| Some((one, ethtool::get(&end.link.name, one).ok()?)))
                    .collect())
            };
            if let Some(seen) = observed.link_mut(&end.link) {
                // One that went meanwhile is made anew by the next pass.
                seen.offload = self.within(&end.link.place, read).unwrap_or_default();
            }
        }
        Ok(observed)
    }

    fn observe_with(&self, wanted: BTreeMap<NsName, &[(SysctlKey, String)]>) -> anyhow::Result<Observed> {
        let look = async |session: &mut Session| {
            let links = session.links(&self.tag, self.group).await?;
            let routes = session.routes(&links).await?;
            Ok::<_, NetlinkError>((links, routes))
        };
        let (host, host_routes) = self.at(&Place::Host, look)?;
        let outside = self.outside(&host)?;
        let leases = self.leases.all();
        let figures =
            (self.figures != Parts::NONE).then(|| (None, figures(self.figures))).into_iter().collect();
        let mut observed = Observed { host, host_routes, outside, leases, figures, ..Observed::default() };
        let mut names: BTreeSet<NsName> = wanted.keys().cloned().collect();
        names.extend(self.records.names()?);
        names.extend(self.records.befores.names()?);
        for (name, looked) in self.observe_each(names.into_iter().collect(), &wanted)? {
            match looked {
                Ok((netns, figures)) => {
                    observed.figures.extend(figures.map(|figures| (Some(name.clone()), figures)));
                    observed.namespaces.insert(name, netns);
                }
                Err(error) => match error.downcast_ref() {
                    Some(NetnsError::Missing { .. }) => {}
                    // What a crash left of ours is swept up by who comes to change something.
                    Some(NetnsError::Junk { .. }) if !self.records.contains(&name) => {
                        observed.junk.insert(name, format!("{error:#}"));
                    }
                    Some(NetnsError::Junk { .. }) => {}
                    _ => return Err(error),
                },
            }
        }
        Ok(observed)
    }

    /// Performs one step; attaching is not among those performed here.
    ///
    /// # Errors
    /// What the kernel refused, with a hint where one is known.
    pub fn perform(&self, step: &Step) -> anyhow::Result<()> {
        match step {
            Step::CreateNetns { name } => {
                self.close(name);
                Ok(netns::create(&self.netns_dir, &self.records, name)?)
            }
            Step::DeleteNetns { name } => {
                self.close(name);
                Ok(netns::remove(&self.netns_dir, &self.records, name)?)
            }
            Step::CreateBridge { name, mtu, mac } => self.create_bridge(name, *mtu, *mac),
            Step::CreateVeth { a, b } => self.create_veth(a, b),
            Step::CreateMacvlan { parent, mode, end } => self.create_macvlan(parent, *mode, end),
            Step::Lend { device, link } => self.lend(device, link),
            Step::TakeBack { device, link } => {
                self.forget(link);
                self.take_back(device)
            }
            Step::SetTxQueueLen { link, from: _, to } => self.on(link, async |session, ifindex| {
                session.set_link(ifindex, |link| link.txqueuelen(*to)).await
            }),
            Step::SetOffload { link, feature, on } => {
                let done = self.within(&link.place, || Ok(ethtool::set(&link.name, *feature, *on)?));
                done.with_context(|| {
                    format!("cannot turn {feature} of {link} {}", if *on { "on" } else { "off" })
                })
            }
            Step::DeleteLink { link } => self.delete_link(link),
            Step::SetBridge { link, from: _, to } => self.set_bridge(link, to.as_ref()),
            Step::SetMtu { link, from: _, to } => {
                self.on(link, async |session, ifindex| session.set_link(ifindex, |link| link.mtu(*to)).await)
            }
            Step::SetMac { link, from: _, to } => self.on(link, async |session, ifindex| {
                session.set_link(ifindex, |link| link.address(to.0.to_vec())).await
            }),
            Step::AddAddress { link, address } => {
                let done = self.on(link, async |session, ifindex| {
                    match session.add_address(ifindex, *address).await {
                        Err(error) if error.errno() == Some(libc::EEXIST) => Ok(()),
                        done => done,
                    }
                });
                let hint = if address.addr().is_ipv6() {
                    " (is IPv6 disabled in the kernel or by sysctl?)"
                } else {
                    ""
                };
                done.with_context(|| format!("cannot add {address} to {link}{hint}"))
            }
            Step::DeleteAddress { link, address } => self.on(link, async |session, ifindex| {
                match session.delete_address(ifindex, *address).await {
                    Err(error) if error.errno() == Some(libc::EADDRNOTAVAIL) => Ok(()),
                    done => done,
                }
            }),
            Step::SetUp { link } => {
                self.on(link, async |session, ifindex| session.set_link(ifindex, |link| link.up()).await)
            }
            Step::SetDown { link } => {
                self.on(link, async |session, ifindex| session.set_link(ifindex, |link| link.down()).await)
            }
            Step::Adopt { name, how } => self.adopt(name, *how),
            Step::Leave { name, how } => self.leave(name, *how),
            Step::SetSysctl { netns, key, from: _, to } => self.set_sysctl(netns, key, to),
            Step::AddRoute { place, route } => self.add_route(place, route),
            Step::DeleteRoute { place, route } => self.delete_route(place, route),
            Step::SetIsolated { link, on } => {
                self.on(link, async |session, ifindex| session.set_isolated(ifindex, *on).await)
            }
            Step::SetTable { id, name, script, update } => self.set_table(id, name, script, update.as_ref()),
            Step::DeleteTable { id, name } => self.delete_table(id, name),
            Step::TurnOn { link, knob } => self.before.turn_on(link, *knob),
            Step::PutBack { link, knob, to } => self.before.put_back(link, *knob, *to),
            Step::AddRule { place, rule } => self.add_rule(place, rule),
            Step::DeleteRule { place, rule } => self.delete_rule(place, rule),
            Step::AddNeighbour { place, neighbour } => self.add_neighbour(place, neighbour),
            Step::DeleteNeighbour { place, neighbour } => self.delete_neighbour(place, neighbour),
            Step::Attach { link } => bail!("attaching to {link} is not done here"),
        }
    }

    /// Runs `work` with a session in a place. The session is there; the thread may be anywhere.
    fn at<T: Send, E>(
        &self,
        place: &Place,
        work: impl AsyncFnOnce(&mut Session) -> Result<T, E> + Send,
    ) -> anyhow::Result<T>
    where
        E: From<NetlinkError> + Into<anyhow::Error> + Send,
    {
        if let Some(pool) = &mut *self.pool() {
            let open = |runtime: &tokio::runtime::Handle| -> anyhow::Result<Session> {
                Ok(match place {
                    Place::Host => Session::open(runtime)?,
                    Place::Netns(name) => netns::inside(&self.netns_dir, name, || Session::open(runtime))??,
                })
            };
            return pool.run(place, open, async |session| work(session).await.map_err(Into::into));
        }
        match place {
            Place::Host => session(work).map_err(Into::into),
            Place::Netns(name) => netns::inside(&self.netns_dir, name, || session(work))?.map_err(Into::into),
        }
    }

    /// Runs `work` with a session where the link is, and its index.
    fn on(
        &self,
        link: &LinkId,
        work: impl AsyncFnOnce(&mut Session, u32) -> Result<(), NetlinkError> + Send,
    ) -> anyhow::Result<()> {
        self.at(&link.place, async |session| {
            let ifindex = self.index(session, link).await?;
            anyhow::Ok(work(session, ifindex).await?)
        })
    }

    /// The index of a link of ours, or of `lo`.
    async fn index(&self, session: &mut Session, link: &LinkId) -> anyhow::Result<u32> {
        let name = link.name.as_str();
        if let Some(ifindex) = session.known(name) {
            return Ok(ifindex);
        }
        let found = session.find(name).await?.with_context(|| format!("there is no link {link}"))?;
        if name != "lo" && !self.is_ours(&found) && !self.is_unclaimed(&found) {
            bail!(
                "{link} is not ours any more (its alias does not say so): somebody put another in its place"
            );
        }
        session.remember(name, found.ifindex);
        Ok(found.ifindex)
    }

    fn create_bridge(&self, name: &IfName, mtu: Option<u32>, mac: Option<MacAddr>) -> anyhow::Result<()> {
        let link = LinkId::host(name.clone());
        self.create(&[&link], || {
            self.at(&link.place, async |session| {
                session.add_bridge(name.as_str(), self.group, mtu, mac).await
            })
        })?;
        let claimed = self.claim(&link, &link);
        if claimed.is_err() {
            self.drop_unclaimed(&link)?;
        }
        claimed
    }

    fn create_macvlan(&self, parent: &IfName, mode: MacvlanMode, end: &NewEnd) -> anyhow::Result<()> {
        let Place::Netns(netns) = &end.link.place else { bail!("a macvlan is for a namespace") };
        let file = netns::file(&self.netns_dir, netns)?;
        self.create(&[&end.link], || {
            self.at(&Place::Host, async |session| {
                let parent = session
                    .find(parent.as_str())
                    .await?
                    .with_context(|| format!("there is no device {parent}"))?;
                anyhow::Ok(
                    session.add_macvlan(parent.ifindex, mode, end, self.group, file.as_raw_fd()).await?,
                )
            })
        })?;
        drop(file);
        let claimed = self.claim(&end.link, &end.link);
        if claimed.is_err() {
            self.drop_unclaimed(&end.link)?;
        }
        claimed
    }

    fn create_veth(&self, a: &NewEnd, b: &NewEnd) -> anyhow::Result<()> {
        let serves = match (&a.link.place, &b.link.place) {
            // The host's end says whom it serves; elsewhere an end says what it is.
            (Place::Host, Place::Netns(_)) => &b.link,
            _ => &a.link,
        };
        let peer = match &b.link.place {
            place if *place == a.link.place => None,
            Place::Netns(name) => Some(netns::file(&self.netns_dir, name)?),
            Place::Host => bail!("the end in the host's namespace comes first"),
        };
        self.create(&[&a.link, &b.link], || {
            let peer = peer.as_ref().map(AsRawFd::as_raw_fd);
            self.at(&a.link.place, async |session| session.add_veth(a, b, self.group, peer).await)
        })?;
        drop(peer);
        let claimed = self.claim(&b.link, &b.link).and_then(|()| self.claim(&a.link, serves));
        if claimed.is_err() {
            self.drop_unclaimed(&a.link)?;
        }
        claimed
    }

    fn is_ours(&self, link: &Found) -> bool {
        link.alias.as_ref().is_some_and(|alias| alias.starts_with(&self.tag))
    }

    /// Made by us and killed before it was given its tag.
    fn is_unclaimed(&self, link: &Found) -> bool {
        link.group == self.group && link.alias.is_none()
    }

    /// Makes new links in our group, so that one which a crash leaves without its tag is known as ours. (The kernel takes
    /// a group when it makes a link, but no alias; a rename instead would wait for an RCU grace period.)
    fn create(&self, links: &[&LinkId], make: impl Fn() -> anyhow::Result<()>) -> anyhow::Result<()> {
        let deadline = Instant::now() + NAME_FREE;
        loop {
            let error = match make() {
                Err(error) if is(&error, libc::EEXIST) => error,
                made => return made,
            };
            // A link whose namespace is being taken apart keeps its name a little, whether it is still seen or not. One
            // that is not ours keeps it for good.
            for link in links {
                self.drop_unclaimed(link)?;
                let taken = self.at(&link.place, async |session| session.find(link.name.as_str()).await)?;
                if taken.is_some_and(|taken| !self.is_ours(&taken)) {
                    return Err(error.context(format!("cannot make {link}: it is there, and not ours")));
                }
            }
            if Instant::now() >= deadline {
                return Err(error.context("the kernel does not let go of a name"));
            }
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// Tags a new link as ours.
    fn claim(&self, link: &LinkId, serves: &LinkId) -> anyhow::Result<()> {
        let alias = format!("{}{serves}", self.tag);
        self.at(&link.place, async |session| {
            let new = session.find(link.name.as_str()).await?.filter(|found| self.is_unclaimed(found));
            let new = new.with_context(|| format!("the link just made, {link}, is gone"))?;
            let tagged = session.set_link(new.ifindex, |link| link.alias(alias.as_str())).await;
            tagged.with_context(|| format!("cannot tag the new link {link}"))?;
            session.remember(link.name.as_str(), new.ifindex);
            anyhow::Ok(())
        })
    }

    fn drop_unclaimed(&self, link: &LinkId) -> anyhow::Result<()> {
        self.at(&link.place, async |session| {
            if let Some(found) =
                session.find(link.name.as_str()).await?.filter(|link| self.is_unclaimed(link))
            {
                session.delete_link(found.ifindex).await?;
            }
            Ok::<_, NetlinkError>(())
        })
    }

    /// Deletes a link of ours by its index, looked up and checked just before; one that is gone is deleted.
    fn delete_link(&self, link: &LinkId) -> anyhow::Result<()> {
        let gone = |error: &anyhow::Error| {
            matches!(error.downcast_ref(), Some(NetnsError::Missing { .. })) || is(error, libc::ENODEV)
        };
        self.forget(link);
        let deleted = self.at(&link.place, async |session| match session.find(link.name.as_str()).await? {
            None => Ok(()),
            Some(found) if !self.is_ours(&found) && !self.is_unclaimed(&found) => {
                bail!("{link} is not ours (its alias does not say so), it stays")
            }
            Some(found) => Ok(session.delete_link(found.ifindex).await?),
        });
        deleted.or_else(|error| if gone(&error) { Ok(()) } else { Err(error) })
    }

    fn set_bridge(&self, link: &LinkId, bridge: Option<&IfName>) -> anyhow::Result<()> {
        self.at(&link.place, async |session| {
            // Both may be somebody else's.
            let ifindex = async |session: &mut Session, name: &IfName| match session.known(name.as_str()) {
                Some(ifindex) => Ok(Some(ifindex)),
                None => session.find(name.as_str()).await.map(|found| Some(found?.ifindex)),
            };
            let port = ifindex(session, &link.name).await?;
            let port = port.with_context(|| format!("there is no link {link}"))?;
            let bridge = match bridge {
                Some(name) => {
                    let found = ifindex(session, name).await?;
                    found.with_context(|| format!("there is no bridge {name}"))?
                }
                None => 0,
            };
            anyhow::Ok(session.set_link(port, |link| link.controller(bridge)).await?)
        })
    }
}

/// A number for the links of one run directory, out of the way of those people choose.
fn group(tag: &str) -> u32 {
    0x4000_0000 | (stable_hash(tag) >> 34) as u32
}

fn is(error: &anyhow::Error, errno: i32) -> bool {
    error.downcast_ref::<NetlinkError>().is_some_and(|error| error.errno() == Some(errno))
}
