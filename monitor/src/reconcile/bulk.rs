//! Deleting many links in one request.
//!
//! Each deletion waits for RCU grace periods; one of a whole device group waits once. The links that go are moved to a
//! group of their own first, and the group is deleted only when it has exactly those in it.

use std::{
    collections::BTreeSet,
    sync::atomic::{AtomicU32, Ordering},
    time::{SystemTime, UNIX_EPOCH},
};

use super::{
    Kernel,
    session::{NetlinkError, Session},
};
use crate::topology::{names::LinkId, step::Step};

/// So many are deleted in one request: every other change of links waits until it is done, and with TCX programs on them
/// that is 26 ms for each.
const AT_ONCE: usize = 64;

impl Kernel {
    /// How many of these steps, from the first on, delete links of one place.
    pub fn together(steps: &[Step]) -> usize {
        let place = |step: &Step| match step {
            Step::DeleteLink { link } => Some(link.place.clone()),
            _ => None,
        };
        let Some(first) = steps.first().and_then(place) else { return 1 };
        steps.iter().take(AT_ONCE).take_while(|step| place(step).as_ref() == Some(&first)).count()
    }

    /// Performs deletions of links that are in one place.
    ///
    /// # Errors
    /// As [`Kernel::perform`]; then those deleted before stay deleted.
    pub fn delete_links(&self, steps: &[Step]) -> anyhow::Result<()> {
        let links: Vec<&LinkId> = steps
            .iter()
            .filter_map(|step| match step {
                Step::DeleteLink { link } => Some(link),
                _ => None,
            })
            .collect();
        let Some(first) = links.first() else { return Ok(()) };
        links.iter().for_each(|link| self.forget(link));
        // One that cannot go this way goes the other, or says why it does not.
        let gone = self.at(&first.place, async |session| self.delete_as_group(session, &links).await);
        if let Err(error) = gone {
            tracing::debug!("{} links are not deleted in one go: {error:#}", links.len());
        }
        steps.iter().try_for_each(|step| self.perform(step))
    }

    /// Moves those that are ours to a group of their own, and deletes it unless something else is in it.
    async fn delete_as_group(&self, session: &mut Session, links: &[&LinkId]) -> Result<(), NetlinkError> {
        let group = fresh_group();
        if !session.members(group).await?.is_empty() {
            return Ok(());
        }
        let mut moved = BTreeSet::new();
        for link in links {
            let found = session.find(link.name.as_str()).await?;
            if let Some(found) = found.filter(|found| self.is_ours(found)) {
                session.set_link(found.ifindex, |link| link.link_group(group)).await?;
                moved.insert(found.ifindex);
            }
        }
        if moved.is_empty() || session.members(group).await? != moved {
            return Ok(());
        }
        session.delete_group(group).await
    }
}

/// A number that was not used before, so that what a crash leaves in a group never goes with the next.
fn fresh_group() -> u32 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_micros());
    0x2000_0000 | ((now as u32).wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed)) & 0x1fff_ffff)
}
