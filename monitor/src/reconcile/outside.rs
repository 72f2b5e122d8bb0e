//! The host's rules and switches, and the rules of namespaces.

use std::path::Path;

use anyhow::Context as _;

use super::{Kernel, knob, nft};
use crate::{
    netns,
    topology::{
        ObservedLink,
        names::{IfName, Place},
        outside::{Family, ObservedTable, Outside, Script, TableId},
        step::Update,
    },
};

impl Kernel {
    /// Rules and switches of the host, as far as they may concern us.
    pub(super) fn outside(
        &self,
        host: &std::collections::BTreeMap<IfName, ObservedLink>,
    ) -> anyhow::Result<Outside> {
        let mut outside = Outside { table: self.table.clone(), ..Outside::default() };
        outside.unavailable = nft::missing();
        match nft::names(&self.table) {
            Ok(families) if outside.unavailable.is_none() => {
                for family in families {
                    let id = TableId { place: Place::Host, family };
                    outside.tables.insert(id, nft::look(family, &self.table)?);
                }
            }
            Ok(_) => {}
            Err(error) => {
                let why = format!("the kernel has no nf_tables ({error}): load or build it");
                outside.unavailable.get_or_insert(why);
            }
        }
        let addressed = |link: &ObservedLink| link.kind != "loopback" && !link.addresses.is_empty();
        let may_matter =
            host.iter().filter(|(_, link)| addressed(link) || (link.owned && link.kind == "bridge"));
        outside.knobs = may_matter.flat_map(|(name, _)| knob::of(name)).collect();
        outside.before = self.before.read()?;
        [outside.routes_ipv4, outside.routes_ipv6] = knob::routes();
        outside.can_force = Path::new("/proc/sys/net/ipv6/conf/all/force_forwarding").exists();
        Ok(outside)
    }

    /// Our table in the namespace of the calling thread.
    pub(super) fn table_inside(&self) -> anyhow::Result<Option<ObservedTable>> {
        // Without nf_tables there is none.
        let families = nft::names(&self.table).unwrap_or_default();
        match families.contains(&Family::Inet) && nft::missing().is_none() {
            true => nft::look(Family::Inet, &self.table).map(Some),
            false => Ok(None),
        }
    }

    pub(super) fn set_table(
        &self,
        id: &TableId,
        name: &str,
        script: &Script,
        update: Option<&Update>,
    ) -> anyhow::Result<()> {
        self.within(&id.place, || nft::set(id, name, script, update))
            .with_context(|| format!("cannot set table {} {name}", id.family))
    }

    pub(super) fn delete_table(&self, id: &TableId, name: &str) -> anyhow::Result<()> {
        self.within(&id.place, || nft::delete(id.family, name))
            .with_context(|| format!("cannot delete table {} {name}", id.family))
    }

    /// What `nft` lists of our own rules in a namespace; absent where there are none.
    ///
    /// # Errors
    /// It cannot be listed.
    pub fn rules(&self, place: &Place, family: Family) -> anyhow::Result<Option<String>> {
        self.within(place, || {
            if !nft::names(&self.table).unwrap_or_default().contains(&family) || nft::missing().is_some() {
                return Ok(None);
            }
            nft::listing(&["list", "table", &family.to_string(), &self.table]).map(Some)
        })
    }

    /// Runs `work` on a thread of that namespace.
    pub(super) fn within<T: Send>(
        &self,
        place: &Place,
        work: impl FnOnce() -> anyhow::Result<T> + Send,
    ) -> anyhow::Result<T> {
        match place {
            Place::Host => work(),
            Place::Netns(name) => netns::inside(&self.netns_dir, name, work)?,
        }
    }
}
