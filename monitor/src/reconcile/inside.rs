//! One namespace: looking into it, adopting and leaving it, its sysctls.

use anyhow::Context as _;

use super::{
    Kernel,
    figures::figures,
    session::{NetlinkError, session},
};
use crate::{
    netns::{
        self, Way,
        sysctl::{self, SysctlError},
    },
    topology::{
        ObservedNetns,
        adopt::{Adopt, Before},
        figures::Figures,
        names::{Cookie, NsName, SysctlKey},
    },
};

impl Kernel {
    /// What a namespace is like, with these sysctls and those that were changed, and the kernel's figures of it.
    pub(super) fn observe_netns(
        &self,
        name: &NsName,
        mut sysctls: Vec<SysctlKey>,
    ) -> anyhow::Result<(ObservedNetns, Figures)> {
        netns::inside(&self.netns_dir, name, || {
            let mut observed = self.wiring().with_context(|| format!("cannot look into namespace {name}"))?;
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
            anyhow::Ok((observed, figures(self.figures)))
        })?
    }

    /// What a namespace is like that is none of ours, by a way into it: links, addresses, routes.
    ///
    /// # Errors
    /// It cannot be entered any more, or another one is there by now.
    pub fn observe_other(&self, way: &Way, cookie: Cookie) -> anyhow::Result<ObservedNetns> {
        let observed = netns::by_way(way, || self.wiring())??;
        anyhow::ensure!(observed.cookie == cookie, "another namespace is at {} by now", way.path().display());
        Ok(observed)
    }

    /// The wiring of the calling thread's namespace, whoever's it is.
    fn wiring(&self) -> anyhow::Result<ObservedNetns> {
        let netns::Identity { cookie, inode } = netns::own_identity()?;
        session(async |session| {
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
