//! One namespace: looking into it, adopting and leaving it, its sysctls.

use std::{collections::BTreeMap, thread};

use anyhow::Context as _;
use tokio::runtime::Runtime;

use super::{
    Kernel,
    figures::figures,
    session::{NetlinkError, runtime, session, session_on},
};
use crate::{
    netns::{
        self, NetnsError, Way,
        sysctl::{self, SysctlError},
    },
    topology::{
        ObservedNetns,
        adopt::{Adopt, Before},
        figures::{Figures, Parts},
        names::{Cookie, NsName, SysctlKey},
    },
};

/// What a namespace is like, and the kernel's figures of it where they are asked for.
pub(super) type Looked = (ObservedNetns, Option<Figures>);

impl Kernel {
    /// What each of these namespaces is like, with the sysctls asked for and those that were changed, and the kernel's figures
    /// of it. As many at a time as there are cores.
    ///
    /// # Errors
    /// A thread panicked.
    pub(super) fn observe_each(
        &self,
        names: Vec<NsName>,
        wanted: &BTreeMap<NsName, &[(SysctlKey, String)]>,
    ) -> anyhow::Result<Vec<(NsName, anyhow::Result<Looked>)>> {
        let cores = thread::available_parallelism().map_or(1, usize::from);
        let share = names.len().div_ceil(cores).max(1);
        let sysctls = |name: &NsName| {
            let keys = wanted.get(name).copied().unwrap_or_default().iter().map(|(key, _)| key.clone());
            keys.collect::<Vec<SysctlKey>>()
        };
        let look = |names: &[NsName]| -> anyhow::Result<Vec<anyhow::Result<Looked>>> {
            let runtime = runtime()?;
            let each: Vec<&NsName> = names.iter().collect();
            let looked = netns::inside_each(&self.netns_dir, &each, |name| {
                self.observe_here(name, sysctls(name), &runtime)
            })?;
            Ok(looked.into_iter().map(|looked| looked.map_err(anyhow::Error::from).flatten()).collect())
        };
        let all = thread::scope(|scope| {
            let threads: Vec<_> = names.chunks(share).map(|names| scope.spawn(|| look(names))).collect();
            let mut all = Vec::with_capacity(names.len());
            for thread in threads {
                all.extend(thread.join().map_err(|_panic| NetnsError::Panicked)??);
            }
            anyhow::Ok(all)
        })?;
        Ok(names.into_iter().zip(all).collect())
    }

    /// What the calling thread's namespace is like, which has that name.
    fn observe_here(
        &self,
        name: &NsName,
        mut sysctls: Vec<SysctlKey>,
        runtime: &Runtime,
    ) -> anyhow::Result<Looked> {
        let mut observed =
            self.wiring(runtime).with_context(|| format!("cannot look into namespace {name}"))?;
        let cookie = observed.cookie;
        observed.before = self.records.befores.of(name, cookie);
        let changed = observed.before.iter().flat_map(|before| before.sysctls.keys().cloned());
        sysctls.extend(changed);
        observed.owned = self.records.owns(name, cookie);
        observed.table =
            if observed.owned || observed.before.is_some() { self.table_inside()? } else { None };
        // One that cannot be read is not what is wanted: writing it says why.
        observed.sysctls =
            sysctls.into_iter().filter_map(|key| Some((key.clone(), sysctl::read(&key).ok()?))).collect();
        Ok((observed, (self.figures != Parts::NONE).then(|| figures(self.figures))))
    }

    /// What a namespace is like that is none of ours, by a way into it: links, addresses, routes.
    ///
    /// # Errors
    /// It cannot be entered any more, or another one is there by now.
    pub fn observe_other(&self, way: &Way, cookie: Cookie) -> anyhow::Result<ObservedNetns> {
        let observed = netns::by_way(way, || self.wiring(&runtime()?))??;
        anyhow::ensure!(observed.cookie == cookie, "another namespace is at {} by now", way.path().display());
        Ok(observed)
    }

    /// The wiring of the calling thread's namespace, whoever's it is.
    fn wiring(&self, runtime: &Runtime) -> anyhow::Result<ObservedNetns> {
        let netns::Identity { cookie, inode } = netns::own_identity()?;
        session_on(runtime, async |session| {
            let links = session.links(&self.tag, self.group).await?;
            let (routes, rules) = (session.routes(&links).await?, session.rules().await?);
            let neighbours = session.neighbours(&links).await?;
            let (sysctls, owned) = (Default::default(), false);
            Ok::<_, NetlinkError>(ObservedNetns {
                cookie,
                inode,
                owned,
                links,
                before: None,
                routes,
                rules,
                neighbours,
                sysctls,
                table: None,
            })
        })
        .map_err(Into::into)
    }

    pub(super) fn adopt(&self, name: &NsName, how: Adopt) -> anyhow::Result<()> {
        if how == Adopt::Own {
            return Ok(netns::own(&self.netns_dir, &self.records, name)?);
        }
        let (cookie, before) = self.before(name)?;
        Ok(self.records.befores.write(name, cookie, &before)?)
    }

    pub(super) fn leave(&self, name: &NsName, how: Adopt) -> anyhow::Result<()> {
        match how {
            Adopt::Own => Ok(netns::disown(&self.records, name)?),
            _ => Ok(self.records.befores.remove(name)?),
        }
    }

    /// What is written down of a namespace; what it is like now where nothing is.
    fn before(&self, name: &NsName) -> anyhow::Result<(Cookie, Before)> {
        netns::inside(&self.netns_dir, name, || {
            let cookie = netns::own_identity()?.cookie;
            if let Some(before) = self.records.befores.of(name, cookie) {
                return Ok((cookie, before));
            }
            let links = session(async |session| session.links(&self.tag, self.group).await)?;
            let lo_up = links.iter().any(|(name, link)| name.as_str() == "lo" && link.up);
            Ok((cookie, Before { lo_up, ..Before::default() }))
        })?
    }

    /// Writes down what was before, then changes the value; the other way round when it becomes what it was before.
    pub(super) fn set_sysctl(&self, name: &NsName, key: &SysctlKey, value: &str) -> anyhow::Result<()> {
        let (cookie, mut before) = self.before(name)?;
        let earlier = before.sysctls.get(key).cloned();
        let puts_back = earlier.as_deref() == Some(value);
        let inside = |work: &(dyn Fn() -> Result<String, SysctlError> + Sync)| {
            Ok::<_, anyhow::Error>(netns::inside(&self.netns_dir, name, work)??)
        };
        if earlier.is_none() {
            before.sysctls.insert(key.clone(), inside(&|| sysctl::read(key))?);
            self.records.befores.write(name, cookie, &before)?;
        }
        let written = inside(&|| sysctl::write(key, value).map(|()| String::new()));
        match written {
            // Its interface is gone.
            Err(error) if puts_back && matches!(error.downcast_ref(), Some(SysctlError::Unknown(_))) => {}
            // Nothing was changed, so nothing is to be put back.
            Err(error) if earlier.is_none() => {
                before.sysctls.remove(key);
                self.records.befores.write(name, cookie, &before)?;
                return Err(error);
            }
            written => drop(written?),
        }
        if puts_back {
            before.sysctls.remove(key);
            self.records.befores.write(name, cookie, &before)?;
        }
        Ok(())
    }
}
