//! Every namespace of the host, whoever made it, as of the last look: who it is, what it is called, which links it has and
//! where each is counted. Events say what to look at anew; from time to time everything is.
//!
//! A namespace is entered to ask who it is and what links it has, on a thread that then ends; nothing of it stays open. One
//! that nothing shows any more is asked for by the number the host's namespace knows it by, which keeps nothing alive.

mod choose;
mod drift;
mod wire;

use std::{
    collections::{BTreeMap, BTreeSet},
    os::fd::{AsFd as _, BorrowedFd},
    time::{Duration, Instant},
};

use anyhow::Context as _;
use tracing::debug;

use self::wire::{Ends, Place};
pub(super) use self::{choose::Filed, drift::Drift};
use crate::{
    agent::engine::Host,
    discover::{
        self, Container, Pace, Processes, Scope, Sighting, Source,
        ear::Heard,
        engines::{Answers, Engines, Questions},
        label::{Label, distinct, label},
        netlink::{Link, Netlink},
    },
    netns::{self, Identity, NetnsError, Way},
    probe::{Side, Target},
    reconcile::figures,
    sample::{ByDirection, NetnsState},
    topology::{
        figures::{Figures, Parts},
        names::{Cookie, NsName},
    },
};

/// Everything is looked at anew at least that often, unless that takes more than its share of a core.
const FULL: Duration = Duration::from_secs(15);
/// The same of processes.
const PROCESSES: Duration = Duration::from_secs(1);
/// The same of what keeps a namespace alive without a name or a process.
const HELD: Duration = Duration::from_secs(60);
/// A look that took a second is not repeated for 500.
const SHARE: u32 = 500;

/// The namespaces of the host.
#[derive(Clone, Debug, Default)]
pub struct Watched {
    /// By age.
    pub namespaces: Vec<WatchedNetns>,
    /// Those that live and are not to be watched.
    pub left_out: BTreeSet<Cookie>,
    /// Those of `namespaces` that are beyond the ceiling: counted, and summed.
    pub cut: BTreeSet<Cookie>,
    /// Those of which a name is still to be asked for, by which it is chosen; until then they stay as they are.
    pub undecided: BTreeSet<Cookie>,
}

/// A namespace.
#[derive(Clone, Debug)]
pub struct WatchedNetns {
    /// Who it is.
    pub cookie: Cookie,
    /// Its inode; a hint.
    pub inode: u64,
    /// The look that saw it first: a cookie tells the age only of those of one CPU.
    pub since: u64,
    /// A way into it; absent where nothing shows one.
    pub way: Option<Way>,
    /// The number the host's namespace knows it by.
    pub nsid: Option<i32>,
    /// Whether this agent made it, of one that lost its name.
    pub owned: bool,
    /// What it is called: distinct among those that live.
    pub label: String,
    /// Every name it has, with the source of each.
    pub aliases: Vec<(Source, String)>,
    /// Whether it has a name, never had one, or lost it.
    pub state: NetnsState,
    /// The containers in it, with the name of each where its engine told it.
    pub containers: Vec<(Container, Option<String>)>,
    /// Whether the engines were asked for all of these names.
    pub asked: bool,
    /// The Kubernetes pod it is of, by uid.
    pub pod: Option<String>,
    /// The unit of systemd whose processes are in it.
    pub unit: Option<String>,
    /// Its links.
    pub links: Vec<WatchedLink>,
    /// What the kernel says of its network, as of the last look at everything.
    pub figures: Option<Figures>,
}

/// A link of a namespace.
#[derive(Clone, Debug)]
pub struct WatchedLink {
    /// As the kernel has it.
    pub link: Link,
    /// Where its packets are counted; absent for loopback.
    pub side: Option<Side>,
    /// The other end of a veth pair: its namespace (none: the host's) and name.
    pub peer: Option<(Option<Cookie>, String)>,
    /// What the kernel counts at the device where we do, of this very look; only where that is as we count.
    pub kernel: Option<ByDirection<u64>>,
    /// Packets that the kernel counted there and we did not, see [`Drift`].
    pub uncounted: Option<ByDirection<u64>>,
}

impl Watched {
    /// Marks those that lost their name and are ours all the same, as `owns` says.
    pub fn mark_owned(&mut self, owns: impl Fn(&NsName, Cookie) -> bool) {
        for netns in self.namespaces.iter_mut().filter(|netns| netns.state == NetnsState::Detached) {
            netns.owned = netns.label.parse().is_ok_and(|name| owns(&name, netns.cookie));
        }
    }
}

impl WatchedNetns {
    /// Everything to be counted in it.
    pub fn targets(&self) -> impl Iterator<Item = Target> {
        self.links.iter().filter_map(|watched| {
            Some(Target {
                cookie: self.cookie,
                netns: self.label.clone(),
                interface: watched.link.name.clone(),
                side: watched.side?,
            })
        })
    }
}

/// What is known of one namespace.
struct Known {
    inode: u64,
    since: u64,
    /// The look that listed its links.
    listed: u64,
    way: Option<Way>,
    /// The number the host's namespace knows it by.
    nsid: Option<i32>,
    links: Vec<Link>,
    label: Option<Label>,
    sightings: Vec<Sighting>,
    /// It had a name once.
    was_named: bool,
    figures: Option<Figures>,
}

/// Looks, and remembers.
pub(super) struct Watcher {
    scope: Scope,
    /// Whether namespaces are given numbers: who only looks changes nothing.
    numbers: bool,
    figures: Parts,
    lo: bool,
    looks: u64,
    host: Identity,
    host_links: Vec<Link>,
    netlink: Netlink,
    known: BTreeMap<Cookie, Known>,
    processes: Processes,
    engines: Engines,
    named: Vec<Sighting>,
    running: Vec<Sighting>,
    held: Vec<Sighting>,
    /// Whether a namespace was entered since the host's links were listed.
    entered: bool,
    /// Numbers that nothing shows the namespace of; they were searched for.
    unknown: BTreeSet<i32>,
    /// What the next look finds is of interest, though nothing is new.
    again: bool,
    pace: Paces,
}

struct Paces {
    full: Pace,
    processes: Pace,
    held: Pace,
}

impl Watcher {
    /// Opened by a thread in the host's namespace; looks at nothing yet.
    ///
    /// # Errors
    /// The kernel gives no socket, or no cookies.
    pub(super) fn new(host: &Host, numbers: bool) -> anyhow::Result<Self> {
        Ok(Self {
            scope: host.scope(),
            numbers,
            figures: host.figures,
            lo: host.choice.lo,
            looks: 0,
            host: netns::own_identity()?,
            host_links: Vec::new(),
            netlink: Netlink::open().context("cannot open a netlink socket")?,
            known: BTreeMap::new(),
            processes: Processes::default(),
            engines: Engines::new(host.engines.clone()),
            named: Vec::new(),
            running: Vec::new(),
            held: Vec::new(),
            entered: false,
            unknown: BTreeSet::new(),
            again: true,
            pace: Paces {
                full: Pace::new(FULL, SHARE),
                processes: Pace::new(PROCESSES, SHARE),
                held: Pace::new(HELD, SHARE),
            },
        })
    }

    /// Whether the next look would be at everything.
    pub(super) fn is_due(&self, heard: &Heard) -> bool {
        heard.overrun || heard.woken || self.pace.full.is_due()
    }

    /// Until the next look is due though nothing was heard.
    pub(super) fn wait(&self) -> Duration {
        let Paces { full, processes, held: _ } = &self.pace;
        let process = self.scope.has(Source::Process).then(|| processes.wait());
        process.unwrap_or(Duration::MAX).min(full.wait())
    }

    /// The next look says what there is also where nothing is new.
    pub(super) fn again(&mut self) {
        self.again = true;
    }

    /// A look at everything is done, and took so long, the kernel's time to attach left aside.
    pub(super) fn done(&mut self, took: Duration) {
        self.pace.full.done(took);
    }

    /// Looks at what was heard of, and at what is due; at everything where `full` says so. `before` gives labels of an earlier
    /// life, by cookie. Nothing where nothing is new.
    ///
    /// # Errors
    /// There is no `/proc`, or the kernel does not answer.
    pub(super) fn look(
        &mut self,
        heard: &Heard,
        full: bool,
        before: &dyn Fn(Cookie) -> Option<String>,
    ) -> anyhow::Result<Option<Watched>> {
        self.looks += 1;
        // Whatever fails below is looked at again.
        let again = std::mem::replace(&mut self.again, true);
        let search = self.scope.has(Source::Held) && self.pace.held.is_due();
        let asked = again || full || search || !heard.is_empty();
        if full || heard.mounts {
            self.named = discover::named(&self.scope).context("cannot read the table of mounts")?;
        }
        if full || heard.host {
            self.host_links = self.netlink.links(None).context("cannot list the host's links")?;
        }
        if self.pace.full.is_due() {
            // A process may have moved to another control group.
            self.processes.forget();
        }
        let strange = |watcher: &Self| watcher.strangers().difference(&watcher.unknown).next().is_some();
        let mut changed = false;
        if full || self.pace.processes.is_due() || (heard.host && strange(self)) {
            changed = self.look_at_processes()?;
        }
        if !asked && !changed {
            self.again = false;
            return Ok(None);
        }
        self.visit(full, &heard.nsids)?;
        // Somebody's other end leads to a namespace that nothing showed so far, or it is time.
        if self.scope.has(Source::Held) && (self.pace.held.is_due() || strange(self)) {
            self.look_at_held()?;
            self.visit(false, &BTreeSet::new())?;
            self.unknown = self.strangers();
        }
        // After the namespaces: of a pair whose one end was seen there, the other is seen here, unless it is elsewhere.
        if std::mem::take(&mut self.entered) {
            self.host_links = self.netlink.links(None).context("cannot list the host's links")?;
            self.number();
        }
        self.bury(full || heard.host);
        self.name(before);
        let watched = self.watched(full)?;
        self.again = false;
        Ok(Some(watched))
    }

    /// As [`Watcher::look`] at everything, with the names that engines tell. That may take seconds.
    ///
    /// # Errors
    /// As there.
    pub(super) fn look_and_ask(
        &mut self,
        heard: &Heard,
        before: &dyn Fn(Cookie) -> Option<String>,
    ) -> anyhow::Result<Option<Watched>> {
        let watched = self.look(heard, true, before)?;
        let answers = self.questions().ask();
        match self.note(answers) {
            true => Ok(self.look(&Heard::default(), false, before)?.or(watched)),
            false => Ok(watched),
        }
    }

    /// Containers whose names are to be asked for.
    pub(super) fn questions(&mut self) -> Questions {
        let all = self.known.values().flat_map(|known| &known.sightings);
        let ids: BTreeSet<&str> =
            all.filter_map(|seen| Some(seen.group.container.as_ref()?.id.as_str())).collect();
        self.engines.questions(ids.into_iter())
    }

    /// Notes what engines answered; says whether there are new names.
    pub(super) fn note(&mut self, answers: Answers) -> bool {
        let new = self.engines.note(answers);
        self.again |= new;
        new
    }

    /// Says whether there is anything new.
    fn look_at_processes(&mut self) -> anyhow::Result<bool> {
        if !self.scope.has(Source::Process) {
            return Ok(false);
        }
        let began = Instant::now();
        let running = self.processes.look(self.host.inode).context("cannot read /proc")?;
        self.pace.processes.done(began.elapsed());
        let new = running != self.running;
        self.running = running;
        Ok(new)
    }

    fn look_at_held(&mut self) -> anyhow::Result<()> {
        let began = Instant::now();
        self.held = discover::held(self.host.inode).context("cannot read /proc")?;
        self.pace.held.done(began.elapsed());
        Ok(())
    }

    /// Numbers that links of the host lead to, and nothing known has.
    fn strangers(&self) -> BTreeSet<i32> {
        let known: BTreeSet<i32> = self.known.values().filter_map(|known| known.nsid).collect();
        let leading = self.host_links.iter().filter_map(|link| link.peer_nsid);
        leading.filter(|nsid| *nsid >= 0 && !known.contains(nsid)).collect()
    }

    /// Enters every namespace that is new, or whose links changed, or all; asks who it is and lists its links.
    fn visit(&mut self, all: bool, changed: &BTreeSet<i32>) -> anyhow::Result<()> {
        let sightings = [&self.named, &self.running, &self.held].into_iter().flatten();
        let sighted = discover::by_inode(sightings.filter(|seen| seen.inode != self.host.inode).cloned());
        let by_inode: BTreeMap<u64, Cookie> =
            self.known.iter().map(|(cookie, known)| (known.inode, *cookie)).collect();
        for known in self.known.values_mut() {
            known.sightings = sighted.get(&known.inode).cloned().unwrap_or_default();
        }
        let is_due = |inode: &u64| match by_inode.get(inode).and_then(|cookie| self.known.get(cookie)) {
            Some(known) => all || known.nsid.is_some_and(|nsid| changed.contains(&nsid)),
            None => true,
        };
        let mut due: Vec<(u64, Vec<Sighting>)> =
            sighted.into_iter().filter(|(inode, _)| is_due(inode)).collect();
        // One way is as good as another, as long as it leads there.
        while !due.is_empty() {
            let ways: Vec<Way> = due.iter().map(|(_, sightings)| sightings[0].way.clone()).collect();
            let visits = self.tour(&ways, all)?;
            let mut again = Vec::new();
            for ((inode, sightings), (way, visit)) in due.into_iter().zip(ways.into_iter().zip(visits)) {
                match visit {
                    Some(visit) if visit.identity.inode == inode => self.enter(visit, way, sightings),
                    _ => again.push((inode, sightings.into_iter().skip(1).collect::<Vec<_>>())),
                }
            }
            due = again.into_iter().filter(|(_, sightings)| !sightings.is_empty()).collect();
        }
        // Those that nothing leads into any more.
        let taken: BTreeSet<i32> =
            self.known.values().filter(|known| known.way.is_some()).filter_map(|known| known.nsid).collect();
        for known in self.known.values_mut().filter(|known| known.sightings.is_empty()) {
            known.way = None;
            let Some(nsid) = known.nsid.filter(|nsid| !taken.contains(nsid)) else { continue };
            if (all || changed.contains(&nsid))
                && let Ok(links) = self.netlink.links(Some(nsid))
            {
                (known.links, known.listed) = (links, self.looks);
            }
        }
        Ok(())
    }

    /// What each way leads to, in the order of the ways.
    fn tour(&mut self, ways: &[Way], all: bool) -> Result<Vec<Option<Visit>>, NetnsError> {
        let mut visits: Vec<Option<Visit>> = ways.iter().map(|_| None).collect();
        let (host, numbers, parts) = (&mut self.netlink, self.numbers, self.figures);
        let mut at = |number: usize, identity: Identity, netns: BorrowedFd<'_>| {
            let nsid = if numbers { host.nsid_or_new(netns) } else { host.nsid(netns) };
            let links = Netlink::open().and_then(|mut inside| inside.links(None));
            match links {
                Ok(links) => {
                    let (nsid, figures) = (nsid.ok().flatten(), all.then(|| figures(parts)));
                    visits[number] = Some(Visit { identity, nsid, links, figures });
                }
                Err(error) => debug!("{}: {error}", ways[number].path().display()),
            }
        };
        let refs: Vec<&Way> = ways.iter().collect();
        for (way, done) in ways.iter().zip(netns::tour(&refs, &mut at)?) {
            if let Err(error) = done {
                debug!("{}: {error}", way.path().display());
            }
        }
        Ok(visits)
    }

    fn enter(&mut self, visit: Visit, way: Way, sightings: Vec<Sighting>) {
        let Visit { identity: Identity { cookie, inode }, nsid, links, figures } = visit;
        if cookie == self.host.cookie {
            return;
        }
        self.entered = true;
        // An inode that was used again: whoever had it is gone.
        self.known.retain(|other, known| known.inode != inode || *other == cookie);
        let before = self.known.remove(&cookie);
        let since = before.as_ref().map_or(self.looks, |before| before.since);
        let (label, was_named, old) =
            before.map_or((None, false, None), |before| (before.label, before.was_named, before.figures));
        let figures = figures.or(old);
        let listed = self.looks;
        let known =
            Known { inode, since, listed, way: Some(way), nsid, links, label, sightings, was_named, figures };
        self.known.insert(cookie, known);
    }

    /// Asks again for numbers: who lists the host's links has those given one that they lead to.
    fn number(&mut self) {
        for known in self.known.values_mut().filter(|known| known.nsid.is_none()) {
            let opened = known.way.as_ref().and_then(|way| way.open().ok());
            known.nsid = opened.and_then(|netns| self.netlink.nsid(netns.as_fd()).ok().flatten());
        }
    }

    /// Forgets those that are gone: nothing leads there, and the host's namespace knows none by that number.
    fn bury(&mut self, ask: bool) {
        let taken: BTreeSet<i32> =
            self.known.values().filter(|known| known.way.is_some()).filter_map(|known| known.nsid).collect();
        let netlink = &mut self.netlink;
        let numbers = ask.then(|| netlink.nsids().ok()).flatten();
        self.known.retain(|_, known| {
            let shown = !known.sightings.is_empty();
            let Some(numbers) = numbers.as_ref().filter(|_| !shown) else { return true };
            known.nsid.is_some_and(|nsid| numbers.contains(&nsid) && !taken.contains(&nsid))
        });
    }

    fn name(&mut self, before: &dyn Fn(Cookie) -> Option<String>) {
        let engines = &self.engines;
        for (cookie, known) in &mut self.known {
            known.was_named |= known.sightings.iter().any(|seen| seen.source == Source::Named);
            let name_of = |id: &str| engines.name(id);
            let mut new = label(*cookie, &known.sightings, &name_of, known.label.as_ref());
            // What an earlier life called it, as long as nothing better is known.
            if known.label.is_none()
                && new.rank > discover::label::Rank::Number
                && let Some(text) = before(*cookie)
            {
                // Neither a process, nor a container, nor a unit gave it that label: a file did.
                let by_file = |seen: &Sighting| seen.group.container.is_none() && seen.group.unit.is_none();
                let of_process = text.ends_with(&format!("~{cookie}"));
                known.was_named |= !of_process && known.sightings.iter().all(by_file);
                new.text = text;
            }
            known.label = Some(new);
        }
    }

    fn watched(&mut self, full: bool) -> anyhow::Result<Watched> {
        let labels: Vec<(Cookie, Label)> =
            self.known.iter().filter_map(|(cookie, known)| Some((*cookie, known.label.clone()?))).collect();
        let labels: BTreeMap<Cookie, String> =
            labels.iter().map(|(cookie, _)| *cookie).zip(distinct(&labels)).collect();
        let places = self.known.iter().map(|(cookie, known)| Place {
            cookie: *cookie,
            nsid: known.nsid,
            links: &known.links,
        });
        let ends = Ends::new(&self.host_links, places.collect(), self.lo);
        let doubts = ends.doubts();
        let ways = |cookie: &Cookie| self.known.get(cookie).and_then(|known| known.way.clone());
        let wires = ends.wires(&ask_for_numbers(&doubts, &ways)?);
        let hosts: BTreeMap<u32, &Link> = self.host_links.iter().map(|link| (link.ifindex, link)).collect();
        let namespaces = self.known.iter().map(|(cookie, known)| {
            let links = known.links.iter().map(|link| {
                let (side, peer) = wires.get(&(*cookie, link.ifindex)).cloned().unwrap_or_default();
                let device = match side {
                    Some(Side::HostEnd { ifindex }) => hosts.get(&ifindex).copied().filter(|_| full),
                    _ => Some(link).filter(|_| known.listed == self.looks),
                };
                let kernel = device.zip(side).and_then(|(device, side)| drift::kernel(device, side));
                WatchedLink { link: link.clone(), side, peer, kernel, uncounted: None }
            });
            self.shown(*cookie, known, labels.get(cookie).cloned().unwrap_or_default(), links.collect())
        });
        Ok(Watched { namespaces: namespaces.collect(), ..Watched::default() })
    }

    fn shown(&self, cookie: Cookie, known: &Known, label: String, links: Vec<WatchedLink>) -> WatchedNetns {
        let mut aliases: Vec<(Source, String)> =
            known.sightings.iter().map(|seen| (seen.source, seen.name.clone())).collect();
        aliases.sort();
        aliases.dedup();
        let groups = || known.sightings.iter().map(|seen| &seen.group);
        let containers: BTreeSet<Container> = groups().filter_map(|group| group.container.clone()).collect();
        let named = known.sightings.iter().any(|seen| matches!(seen.source, Source::Named | Source::Mount));
        let state = match (named, known.was_named) {
            (true, _) => NetnsState::Named,
            (false, true) => NetnsState::Detached,
            (false, false) => NetnsState::Anonymous,
        };
        WatchedNetns {
            cookie,
            inode: known.inode,
            since: known.since,
            way: known.way.clone(),
            nsid: known.nsid,
            owned: false,
            label,
            aliases,
            state,
            asked: containers.iter().all(|container| self.engines.is_asked(&container.id)),
            containers: containers
                .into_iter()
                .map(|container| {
                    let name = self.engines.name(&container.id);
                    (container, name)
                })
                .collect(),
            pod: groups().find_map(|group| group.pod.clone()),
            unit: groups().find_map(|group| group.unit.clone()),
            links,
            figures: known.figures.clone(),
        }
    }
}

/// What was seen inside.
struct Visit {
    identity: Identity,
    nsid: Option<i32>,
    links: Vec<Link>,
    figures: Option<Figures>,
}

/// By which number each of some namespaces knows each of some others.
fn ask_for_numbers(
    doubts: &BTreeMap<Cookie, BTreeSet<Cookie>>,
    way: &dyn Fn(&Cookie) -> Option<Way>,
) -> Result<BTreeMap<(Cookie, Cookie), i32>, NetnsError> {
    let mut answers = BTreeMap::new();
    for (from, others) in doubts {
        let Some(here) = way(from) else { continue };
        let there: Vec<(Cookie, Way)> =
            others.iter().filter_map(|other| Some((*other, way(other)?))).collect();
        let asked = netns::by_way(&here, || {
            let mut netlink = Netlink::open().ok()?;
            let ask = |(cookie, way): (Cookie, Way)| {
                let netns = way.open().ok()?;
                Some((cookie, netlink.nsid(netns.as_fd()).ok()??))
            };
            Some(there.into_iter().filter_map(ask).collect::<Vec<_>>())
        });
        match asked {
            Ok(found) => answers
                .extend(found.unwrap_or_default().into_iter().map(|(other, nsid)| ((*from, other), nsid))),
            Err(error) => debug!("{}: {error}", here.path().display()),
        }
    }
    Ok(answers)
}
