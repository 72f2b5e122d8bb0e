//! Counting: programs attached to interfaces, their counters read, and what they counted kept when they go.
//!
//! The counters live in the kernel, in pinned maps, and so do the links: the agent may be killed at any moment and
//! nothing is lost. What is pinned is checked, adopted and given the programs of this build. Every call blocks, and
//! none changes the namespace of its thread: who opens [`Probes`] brings an [`Enter`] for interfaces inside namespaces.

mod abi;
mod adopt;
mod attach;
pub mod bpffs;
mod carry;
mod clsact;
mod cost;
mod error;
mod load;
pub mod object;
mod pins;
mod retire;
mod store;
mod summed;
mod sys;
mod table;
mod target;
pub(crate) mod tcx;
mod writer;

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError, RwLock},
};

use log::LevelFilter;

use crate::{
    ledger::Retired,
    sample::{AttachMode, Counts},
    topology::names::Cookie,
};

use self::{table::Table, writer::Writer};

pub(crate) use self::{
    abi::{bytes, text},
    load::Pair,
    pins::{Shape, check as check_map},
    sys::{take_element, wait_for_programs},
    target::Hook,
    writer::within,
};
pub use self::{
    cost::{Costs, Measuring, ProgramCost, costs},
    error::ProbeError,
    load::Logger,
    target::{Side, Target},
};

/// Runs a closure on a thread inside the namespace of a target whose side is [`Side::Inside`], after checking that
/// the namespace it entered has the target's cookie. An error means that the closure did not run.
pub type Enter = Box<
    dyn Fn(&Target, &mut (dyn FnMut() + Send)) -> Result<(), Box<dyn std::error::Error + Send + Sync>>
        + Send
        + Sync,
>;

/// How to count.
pub struct Options {
    /// Directory of this agent on a bpffs, made if missing; none: count from start, and until the agent ends.
    pub pin_dir: Option<PathBuf>,
    /// How new interfaces are attached to.
    pub attach: AttachChoice,
    /// What the eBPF programs may log.
    pub log_level: LevelFilter,
    /// The way into namespaces.
    pub enter: Enter,
}

/// How new interfaces are attached to; what is attached already stays as it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AttachChoice {
    /// By TCX where the kernel has it, otherwise by clsact.
    #[default]
    Auto,
    /// By TCX only.
    Tcx,
    /// By clsact only.
    Clsact,
}

/// A target and how it is counted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attached {
    /// What.
    pub target: Target,
    /// How.
    pub mode: AttachMode,
    /// Whether the kernel says that both programs are attached to that very interface.
    pub complete: bool,
}

/// Everything counted, at one moment: no packet is in two places of it, or in none.
#[derive(Debug, Default)]
pub struct Readings {
    /// What is counted now.
    pub interfaces: Vec<Reading>,
    /// What the dead interfaces of each namespace counted.
    pub retired: Vec<(Cookie, Retired)>,
    /// What the dead namespaces counted.
    pub gone: Counts,
    /// What was counted of namespaces that are, or once were, summed with others; beside the interfaces that are now.
    pub other: Counts,
}

/// The counts of one interface.
#[derive(Debug)]
pub struct Reading {
    /// Which.
    pub target: Target,
    /// How it is counted.
    pub mode: AttachMode,
    /// Its counts, or why they could not be read.
    pub counts: Result<Counts, ProbeError>,
    /// Whether its namespace is summed with others.
    pub summed: bool,
    /// The same for as long as these counts go on; where they begin anew, another.
    pub serial: u64,
}

/// The programs, what they are attached to, and their counters.
pub struct Probes {
    /// Whoever changes anything holds this, through system calls that may take long.
    writer: Mutex<Writer>,
    /// What a scrape reads; held for writing only while a count moves from one place to another.
    table: RwLock<Table>,
    logger: Mutex<Option<Logger>>,
    mode: AttachMode,
    pinned: bool,
}

/// Reads what is pinned below a directory, and changes nothing: for who looks while an agent runs, or none does.
///
/// # Errors
/// What is pinned is not what it should be, or cannot be read.
pub fn look(pin_dir: &Path) -> Result<Readings, ProbeError> {
    adopt::look(pin_dir)
}

/// What is pinned below a directory as counted, and is not: neither of its programs is attached any more. Changes nothing.
/// Of filters inside namespaces this cannot be told from here; they are left out.
///
/// # Errors
/// As [`look`].
pub fn dead(pin_dir: &Path) -> Result<Vec<Target>, ProbeError> {
    adopt::dead(pin_dir)
}

impl Probes {
    /// Loads the programs, checks what is pinned, adopts it (each link goes on counting and gets the program of this
    /// build), carries over what another layout counted, and moves the counts of dead interfaces to their namespaces.
    ///
    /// # Errors
    /// [`ProbeError::NotBpffs`] when the directory for pins is not on one; [`ProbeError::Privilege`] and
    /// [`ProbeError::Unsupported`] say what the kernel refused.
    pub fn open(options: Options) -> Result<Self, ProbeError> {
        let pinned = options.pin_dir.is_some();
        let mode = match (options.attach, tcx::is_supported()) {
            (AttachChoice::Tcx, false) => {
                return Err(ProbeError::Unsupported {
                    call: "attach by TCX",
                    object: "any interface".to_owned(),
                    why: "the kernel knows no such hook (since 6.6)".to_owned(),
                });
            }
            (AttachChoice::Auto, false) | (AttachChoice::Clsact, _) => AttachMode::Clsact,
            (AttachChoice::Auto | AttachChoice::Tcx, true) => AttachMode::Tcx,
        };
        let (writer, table, logger) = adopt::open(options, mode)?;
        Ok(Self {
            writer: Mutex::new(writer),
            table: RwLock::new(table),
            logger: Mutex::new(logger),
            mode,
            pinned,
        })
    }

    /// How new interfaces are attached to.
    pub fn mode(&self) -> AttachMode {
        self.mode
    }

    /// Whether counts outlive the agent.
    pub fn pinned(&self) -> bool {
        self.pinned
    }

    /// The reader of what the eBPF programs log, once: wait on its file descriptor, then call `flush`, which writes to
    /// the `log` crate's logger of the moment `open` was called.
    pub fn take_logger(&self) -> Option<Logger> {
        self.logger.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Which of these are counted, and whether the kernel agrees. Takes a few system calls for each interface.
    pub fn attached(&self, of: impl Fn(&Target) -> bool) -> Vec<Attached> {
        let writer = self.writer();
        let slots: Vec<_> = self.table().slots.iter().map(|(id, slot)| (*id, slot.record)).collect();
        let slots = slots.into_iter().map(|(id, record)| (id, record, record.target()));
        let attached = slots.filter(|(.., target)| of(target)).map(|(id, record, target)| {
            let complete = match writer.counting(id, &target, &record) {
                Ok(hooks) => hooks == [true, true],
                Err(error) => {
                    log::debug!("{target}: {error}");
                    false
                }
            };
            Attached { target, mode: record.mode(), complete }
        });
        attached.collect()
    }

    /// What is counted, whether or not the kernel agrees. Asks nothing.
    pub fn targets(&self) -> Vec<Target> {
        self.table().slots.values().map(|slot| slot.target.clone()).collect()
    }

    /// Whether an interface has counters here. Asks nothing.
    pub fn is_counted(&self, target: &Target) -> bool {
        self.table().find(target).is_some()
    }

    /// Ids of the programs that count an interface by TCX, ingress first. Asks nothing.
    pub fn programs(&self, target: &Target) -> Option<[u32; 2]> {
        let table = self.table();
        let record = table.find(target).map(|id| table.slots[&id].record);
        record.filter(|record| record.mode() == AttachMode::Tcx).map(|record| record.programs)
    }

    /// Whether the kernel says that both programs are attached to a counted interface.
    pub fn is_complete(&self, target: &Target) -> bool {
        let writer = self.writer();
        let found = {
            let table = self.table();
            table.find(target).map(|id| (id, table.slots[&id].record))
        };
        found.is_some_and(|(id, record)| {
            writer.counting(id, target, &record).is_ok_and(|hooks| hooks == [true, true])
        })
    }

    /// From now on the counts of the namespaces in `summed` belong to the sum of others, and stay there. Those in `own` that were
    /// summed go on from 0 by themselves. No counter falls, also when the agent is killed on the way.
    ///
    /// # Errors
    /// What the kernel refused; calling again goes on where it stopped.
    pub fn sum(&self, summed: &BTreeSet<Cookie>, own: &BTreeSet<Cookie>) -> Result<(), ProbeError> {
        self.writer().sum(&self.table, summed, own)
    }

    /// Namespaces with an interface that is counted and not summed.
    pub fn own(&self) -> BTreeSet<Cookie> {
        let table = self.table();
        let own = table.slots.values().filter(|slot| slot.record.summed == 0);
        own.map(|slot| slot.target.cookie).collect()
    }

    /// Moves the totals of namespaces that are not in `live` and have no interface left to the host's.
    ///
    /// # Errors
    /// What the kernel refused.
    pub fn retire_namespaces(&self, live: &BTreeSet<Cookie>) -> Result<(), ProbeError> {
        self.writer().retire_namespaces(&self.table, live)
    }

    /// Counts an interface from now on: both programs, or an error and none. What is attached already stays, under
    /// the names given now; of a program that somebody detached a new one takes the place and goes on counting. An
    /// interface both of whose programs are gone has died: its counts move to its namespace and it starts at 0.
    ///
    /// # Errors
    /// [`ProbeError::Gone`] when the interface is no longer there.
    pub fn attach(&self, target: &Target) -> Result<(), ProbeError> {
        self.writer().attach(&self.table, target)
    }

    /// Stops counting an interface; its counts move to its namespace. Nothing happens when it is not counted.
    ///
    /// # Errors
    /// What the kernel refused; calling again goes on where it stopped.
    pub fn detach(&self, target: &Target) -> Result<(), ProbeError> {
        let mut writer = self.writer();
        let slot = self.table().find(target);
        slot.map_or(Ok(()), |slot| writer.retire(&self.table, slot))
    }

    /// Gives a counted interface the names it has now. Nothing happens when it is not counted.
    ///
    /// # Errors
    /// When the record could not be written.
    pub fn rename(&self, target: &Target) -> Result<(), ProbeError> {
        let mut writer = self.writer();
        let slot = self.table().find(target);
        slot.map_or(Ok(()), |slot| writer.relabel(&self.table, slot, target))
    }

    /// Moves the counts of interfaces that are not `alive` to their namespaces, then the totals of namespaces that are
    /// not in `live` and have no interface left to the host's. Doing it twice is doing it once.
    ///
    /// # Errors
    /// The first thing the kernel refused; the others are done all the same.
    pub fn retire_dead(
        &self,
        alive: &dyn Fn(&Target) -> bool,
        live: &BTreeSet<Cookie>,
    ) -> Result<(), ProbeError> {
        let mut writer = self.writer();
        let dead: Vec<u64> = {
            let table = self.table();
            table.slots.iter().filter(|(_, slot)| !alive(&slot.target)).map(|(id, _)| *id).collect()
        };
        let mut outcome = Ok(());
        for id in dead {
            outcome = outcome.and(writer.retire(&self.table, id));
        }
        outcome.and(writer.retire_namespaces(&self.table, live))
    }

    /// Reads everything counted: the scrape path. Never waits for an interface being attached.
    pub fn read(&self) -> Readings {
        self.table().readings()
    }

    /// Detaches everything, unpins it and removes the directory for pins. All counts are lost.
    ///
    /// # Errors
    /// The first thing the kernel refused; the rest is removed all the same.
    pub fn remove_everything(&self) -> Result<(), ProbeError> {
        self.writer().remove_everything(&self.table)
    }

    fn writer(&self) -> MutexGuard<'_, Writer> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn table(&self) -> std::sync::RwLockReadGuard<'_, Table> {
        table::read_lock(&self.table)
    }
}

impl Drop for Probes {
    /// What is pinned goes on counting. Without pins TCX links end with their file descriptors; filters would not.
    fn drop(&mut self) {
        if !self.pinned {
            self.writer().remove_filters(&self.table);
        }
    }
}
