//! Who talks with whom, and DNS: opt-in programs beside the counting ones, because they cost for each packet.
//!
//! They follow `probe`: what is counted there is looked at here, on the same hooks. As there, everything is pinned and goes
//! on while no agent runs; an agent that is told so, or not told to, takes it away. Without a bpffs, and where the kernel
//! has no TCX, there is nothing.

mod abi;
mod beside;
mod dns;
mod flows;
mod pins;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    sync::{Mutex, MutexGuard, PoisonError},
};

use aya::{
    Pod,
    maps::{HashMap, MapError, MapType},
};
use monitor_ebpf::talk::{DnsCounters, SLOTS, Slot};

pub use self::{
    abi::Fell,
    flows::{Conversation, FlowReadings},
};
use self::{
    abi::{Records, Wire},
    dns::Dns,
    flows::Flows,
    pins::Pins,
};
use crate::{
    probe::{Enter, ProbeError, Shape, Target},
    topology::names::Cookie,
};

/// What an agent is told to look at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// Flows, in a table of so many.
    pub flows: Option<u32>,
    /// DNS.
    pub dns: bool,
}

/// The opt-in programs.
#[derive(Default)]
pub struct Talk {
    flows: Mutex<Option<Flows>>,
    dns: Mutex<Option<Dns>>,
}

impl Talk {
    /// Loads what is wanted and takes away what is not; what cannot be had is logged, and the rest works. Who wants nothing
    /// in particular (`None`) attaches nothing, and lets go with what goes.
    pub fn open(pin_dir: Option<&Path>, wanted: Option<Wanted>, enter: impl Fn() -> Enter) -> Self {
        let Some(pin_dir) = pin_dir else {
            if wanted.is_some_and(|wanted| wanted != Wanted::default()) {
                log::warn!("flows and DNS are not counted: they need a bpffs");
            }
            return Self::default();
        };
        let flows = match wanted {
            None => Flows::adopt(pin_dir, enter()),
            Some(Wanted { flows: Some(room), .. }) => Flows::open(room, pin_dir, enter()).map(Some),
            Some(_) => pins::remove_all(flows::NAME, pin_dir).map(|()| None),
        };
        let dns = match wanted {
            None => Dns::adopt(pin_dir, enter()),
            Some(Wanted { dns: true, .. }) => Dns::open(pin_dir, enter()).map(Some),
            Some(_) => pins::remove_all(dns::NAME, pin_dir).map(|()| None),
        };
        Self { flows: Mutex::new(said(flows, flows::NAME)), dns: Mutex::new(said(dns, dns::NAME)) }
    }

    /// Looks at an interface from now on, behind the programs that count it. With `check` what somebody removed is put
    /// back. What is refused is logged, once. Says whether it was attached to now.
    pub fn attach(&self, target: &Target, counting: Option<[u32; 2]>, check: bool) -> bool {
        let (mut flows, mut dns) = (lock(&self.flows), lock(&self.dns));
        let flows = flows.as_mut().map(|flows| flows.attach(target, counting, check));
        let dns = dns.as_mut().map(|dns| dns.attach(target, counting, check));
        [flows, dns].into_iter().flatten().fold(false, |any, outcome| any | warn(outcome))
    }

    /// Lets go of interfaces that are not among these and of namespaces that do not live, and makes room for new flows.
    pub fn follow(&self, targets: &[Target], live: &BTreeSet<Cookie>) {
        if let Some(flows) = &mut *lock(&self.flows) {
            warn(flows.follow(targets, live));
        }
        if let Some(dns) = &mut *lock(&self.dns) {
            warn(dns.follow(targets, live));
        }
    }

    /// Whether there is anything to do.
    pub fn is_idle(&self) -> bool {
        lock(&self.flows).is_none() && lock(&self.dns).is_none()
    }
}

/// Reads the flows that are pinned below a directory, and changes nothing. Absent where none are counted.
///
/// # Errors
/// What is pinned is not what it should be, or cannot be read.
pub fn look(pin_dir: &Path) -> Result<Option<FlowReadings>, ProbeError> {
    flows::look(pin_dir)
}

/// The same of DNS.
///
/// # Errors
/// As [`look`].
pub fn look_dns(pin_dir: &Path) -> Result<Option<BTreeMap<Cookie, DnsCounters>>, ProbeError> {
    dns::look(pin_dir)
}

/// Detaches and unpins everything below a directory; what is not there is fine.
///
/// # Errors
/// The kernel refused.
pub fn remove(pin_dir: &Path) -> Result<(), ProbeError> {
    pins::remove_all(flows::NAME, pin_dir).and(pins::remove_all(dns::NAME, pin_dir))
}

fn said<T>(outcome: Result<Option<T>, ProbeError>, name: &str) -> Option<T> {
    outcome.unwrap_or_else(|error| {
        log::warn!("{name} are not counted: {error}");
        None
    })
}

fn warn<T: Default>(outcome: Result<T, ProbeError>) -> T {
    outcome.unwrap_or_else(|error| {
        log::warn!("{error}");
        T::default()
    })
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

const fn slots() -> Shape {
    Shape { kind: MapType::Hash, key: 8, value: size_of::<Slot>() as u32, entries: SLOTS as u32, flags: 1 }
}

/// The pinned map of this name that only user space uses, made where there is none.
fn records<K: Pod, V: 'static>(
    pins: &Pins,
    name: &'static str,
    entries: u32,
) -> Result<Records<K, V>, ProbeError>
where
    Wire<V>: Pod,
{
    let path = pins.map(name);
    if !path.exists() {
        let made = HashMap::<_, K, Wire<V>>::create(entries, 1);
        let made = made.map_err(|error| ProbeError::new("make the map", name, &error))?;
        made.pin(&path).map_err(|error| ProbeError::new("pin", path.display(), &error))?;
    }
    pins.open(name)
}

/// To delete what is not there is no error.
fn absent_is_fine(outcome: Result<(), MapError>) -> Result<(), MapError> {
    match outcome {
        Err(MapError::KeyNotFound) => Ok(()),
        Err(MapError::SyscallError(error)) if error.io_error.raw_os_error() == Some(libc::ENOENT) => Ok(()),
        other => other,
    }
}
