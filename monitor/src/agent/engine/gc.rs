//! Clearing up what this run directory made and needs no longer. Never beside an agent; wiring that stands is left alone.

use std::fmt;

use super::{Engine, Look, pins};
use crate::{
    agent::{
        Failure,
        lock::{LockError, RunLock},
        runs::{Run, Runs},
    },
    probe::{self, Readings, Target},
    reconcile::Leftover,
    sample::Counts,
    topology::{Topology, plan, step::Step},
};

/// One thing to clear up.
pub enum Garbage {
    /// A link or a file.
    Left(Leftover),
    /// The namespace of a command of `run` that has ended.
    Ended(Run),
    /// The counts of an interface that is gone: they move to its namespace's totals.
    Counts(Target),
    /// Nothing of ours is left, and nothing was counted: the pins and the run directory go.
    Empty,
}

/// The line it equals; where there is none, a comment.
impl fmt::Display for Garbage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Left(leftover) => leftover.fmt(f),
            Self::Ended(Run { name, .. }) => write!(f, "ip netns delete {name}  # its command has ended"),
            Self::Counts(Target { netns, interface, .. }) => {
                write!(
                    f,
                    "# {netns}/{interface} is gone: its counts go to what {netns} has retired (no ip equivalent)"
                )
            }
            Self::Empty => f.write_str(
                "# nothing of this run directory is left: remove it with its pins (no ip equivalent)",
            ),
        }
    }
}

impl Look {
    /// What is to be cleared up. Changes nothing.
    ///
    /// # Errors
    /// An agent holds the run directory: it may be in the middle of making something.
    pub fn garbage(&self) -> Result<Vec<Garbage>, Failure> {
        let run_dir = &self.host.run_dir;
        if let Some(holder) = RunLock::holder(run_dir) {
            let held = LockError::Held { run_dir: run_dir.clone(), holder };
            return Err(anyhow::Error::from(held).into());
        }
        let left = self.kernel.leftovers()?;
        let observed = self.kernel.observe(&Default::default())?;
        let (mut readings, mut dead) = (Readings::default(), Vec::new());
        let pins = pins(&self.host);
        if let Some(dir) = &pins {
            readings = probe::look(dir).map_err(anyhow::Error::from)?;
            dead = probe::dead(dir).map_err(anyhow::Error::from)?;
        }
        let goes = |step: &Step| match step {
            Step::DeleteLink { link } => {
                left.iter().any(|left| matches!(left, Leftover::Strayed { link: other, .. } if other == link))
            }
            _ => false,
        };
        let empty = pins.is_some() && is_zero(&readings) && plan::teardown_all(&observed).iter().all(goes);
        let ended = Runs::new(run_dir).dead();
        let mut garbage: Vec<_> = ended.into_iter().map(Garbage::Ended).collect();
        garbage.extend(left.into_iter().map(Garbage::Left));
        garbage.extend(dead.into_iter().map(Garbage::Counts));
        garbage.extend(empty.then_some(Garbage::Empty));
        Ok(garbage)
    }

    /// Clears it up; `progress` hears of each before, one of about so many. Returns how many there were.
    ///
    /// # Errors
    /// As [`Look::garbage`]; the first thing that could not be removed, the others are removed all the same.
    pub fn clear(&self, progress: &mut dyn FnMut(usize, &Garbage)) -> Result<usize, Failure> {
        let before = self.garbage()?;
        if before.is_empty() {
            return Ok(0);
        }
        // Where nothing is pinned, nothing is to be: programs are not even loaded.
        let engine = Engine::open_with(&self.host, pins(&self.host).is_some())?;
        engine.clear(before, progress)
    }
}

impl Engine {
    fn clear(
        &self,
        before: Vec<Garbage>,
        progress: &mut dyn FnMut(usize, &Garbage),
    ) -> Result<usize, Failure> {
        let (mut count, mut outcome) = (0, Ok(()));
        let of = before.len();
        for ended in before.iter().filter(|garbage| matches!(garbage, Garbage::Ended(_))) {
            progress(of, ended);
            count += 1;
            let Garbage::Ended(run) = ended else { continue };
            // Its counts are retired below, with everything else.
            let observed = self.observe(&run.topology())?;
            let steps = plan::teardown(&run.topology(), &observed);
            let removed =
                self.take_down(&steps, &run.topology(), &mut |_, _| {}).map_err(|error| error.failure);
            outcome =
                outcome.and(removed).and_then(|()| Ok(Runs::new(&self.host.run_dir).remove(&run.name)?));
        }
        // Looked up again under the lock.
        for left in self.kernel.leftovers()? {
            let garbage = Garbage::Left(left);
            progress(of, &garbage);
            count += 1;
            let Garbage::Left(left) = garbage else { continue };
            outcome = outcome.and(self.kernel.clear(&left).map_err(Failure::from));
        }
        // These were retired when the pins were opened.
        for counts in before.iter().filter(|garbage| matches!(garbage, Garbage::Counts(_))) {
            progress(of, counts);
            count += 1;
        }
        let rest = self.observe(&Topology::default())?;
        self.retire(&rest)?;
        outcome?;
        let readable = self.pinned() || pins(&self.host).is_none();
        if readable && plan::teardown_all(&rest).is_empty() && is_zero(&self.read()) {
            if self.pinned() {
                progress(of, &Garbage::Empty);
                count += 1;
            }
            self.forget()?;
        }
        Ok(count)
    }
}

/// Whether nothing is counted, and nothing ever was.
fn is_zero(Readings { interfaces, retired, gone, other }: &Readings) -> bool {
    let nothing = Counts::default();
    let totals = [gone, other].into_iter().all(|total| *total == nothing);
    interfaces.is_empty() && totals && retired.iter().all(|(_, retired)| retired.counts == nothing)
}
