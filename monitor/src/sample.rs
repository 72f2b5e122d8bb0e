//! What was read, as plain numbers from the namespace's point of view; no map, no Prometheus.

pub mod lost;
pub mod wiring;

use std::collections::BTreeMap;

use monitor_ebpf::{CLASSES, FLAGS, SIZES, talk::DnsCounters};

use self::lost::{Lost, OTHER};
use crate::topology::names::{Cookie, MacAddr};

/// Everything one scrape reports, read at one moment. Unknown things are absent, never 0 or -1.
#[derive(Clone, Debug, Default)]
pub struct Sample {
    /// Namespaces that live, named or not.
    pub namespaces: Vec<NetnsSample>,
    /// Totals of the namespaces that are gone.
    pub gone: Counts,
    /// Those that have no series of their own.
    pub other: OtherSample,
    /// Packets that were dropped, and why.
    pub lost: Lost,
    /// DNS by label of the namespace; empty where it is not counted.
    pub dns: BTreeMap<String, DnsCounters>,
    /// The agent itself.
    pub agent: AgentSample,
}

/// Namespaces beyond the ceiling, summed.
#[derive(Clone, Debug, Default)]
pub struct OtherSample {
    /// How many live.
    pub namespaces: u64,
    /// All that was ever counted of such namespaces while they were; absent where nothing was, and while an interface of one
    /// cannot be read.
    pub counts: Option<Counts>,
}

impl Sample {
    /// All that was counted of each namespace, by label, and of the others together.
    pub fn totals(&self) -> impl Iterator<Item = (&str, Counts)> {
        let own = self.namespaces.iter().filter_map(|netns| Some((netns.label.as_str(), netns.counts()?)));
        own.chain(self.other.counts.map(|counts| (OTHER, counts)))
    }
}

/// One namespace.
#[derive(Clone, Debug)]
pub struct NetnsSample {
    /// The label `netns`: its name, made unique among those that live.
    pub label: String,
    /// Identity.
    pub cookie: Cookie,
    /// Inode, where known.
    pub inode: Option<u64>,
    /// Life-cycle.
    pub state: NetnsState,
    /// Whether this agent made it.
    pub owned: bool,
    /// Who else it is.
    pub identity: IdentitySample,
    /// Interfaces that live.
    pub interfaces: Vec<InterfaceSample>,
    /// Totals of its interfaces that are gone.
    pub retired: Counts,
    /// Packets that rules of ours dropped, by chain, see [`crate::topology::outside::DROPS`]; those it has.
    pub drops: BTreeMap<&'static str, u64>,
}

/// What a namespace is beside its label.
#[derive(Clone, Debug, Default)]
pub struct IdentitySample {
    /// Every name it has, with the source of each.
    pub aliases: Vec<(&'static str, String)>,
    /// The containers in it.
    pub containers: Vec<ContainerSample>,
    /// The Kubernetes pod it is of, by uid.
    pub pod: Option<String>,
    /// The unit of systemd whose processes are in it.
    pub unit: Option<String>,
}

/// A container.
#[derive(Clone, Debug)]
pub struct ContainerSample {
    /// Its engine.
    pub runtime: &'static str,
    /// Its number there.
    pub id: String,
    /// Its name, where the engine told it.
    pub name: Option<String>,
}

/// Life-cycle of a namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NetnsState {
    /// It has a file in the namespace directory.
    Named,
    /// Its file is gone, but something keeps it alive.
    Detached,
    /// It never had a file: it lives with its processes, or by an open descriptor or socket.
    Anonymous,
}

/// One interface of a namespace.
#[derive(Clone, Debug)]
pub struct InterfaceSample {
    /// Name inside the namespace.
    pub name: String,
    /// What our programs counted; absent where none is attached or the map could not be read.
    pub counts: Option<Counts>,
    /// How the interface is counted; absent when it is not.
    pub mode: Option<AttachMode>,
    /// The link as the kernel last showed it; absent when it was not seen yet.
    pub link: Option<LinkSample>,
    /// Packets that the kernel counted and our programs did not, as far as can be told.
    pub uncounted: Option<ByDirection<u64>>,
}

/// The kernel's view of an interface, seen from the namespace.
#[derive(Clone, Debug)]
pub struct LinkSample {
    /// Interface index inside the namespace.
    pub ifindex: u32,
    /// `veth`, and so on.
    pub kind: String,
    /// MAC address, where it has one.
    pub mac: Option<MacAddr>,
    /// MTU in bytes.
    pub mtu: u32,
    /// Operationally up.
    pub running: bool,
    /// Name of the other end, where known.
    pub peer_interface: Option<String>,
    /// Namespace of the other end: empty for the host's; absent where unknown.
    pub peer_netns: Option<String>,
    /// The kernel's counters in each direction: dropped packets and errors.
    pub drops: ByDirection<u64>,
    /// See `drops`.
    pub errors: ByDirection<u64>,
}

/// How an interface is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AttachMode {
    /// TCX links (kernel 6.6 and later).
    Tcx,
    /// Filters on a clsact qdisc.
    Clsact,
}

/// A value for each direction, as seen by the namespace.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ByDirection<T> {
    /// Towards the namespace.
    pub receive: T,
    /// From the namespace.
    pub transmit: T,
}

/// What was counted, in both directions.
pub type Counts = ByDirection<DirectionCounts>;

/// What was counted in one direction, summed over the CPUs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DirectionCounts {
    /// By class, numbered as in [`monitor_ebpf::class`].
    pub classes: [ClassCounts; CLASSES],
    /// Wire packets by size, bounded as in [`monitor_ebpf::SIZE_BOUNDS`].
    pub sizes: [u64; SIZES],
    /// TCP segments by control flag, numbered as in [`monitor_ebpf::flag`].
    pub tcp_flags: [u64; FLAGS],
}

/// What was counted of one class.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClassCounts {
    /// Socket buffers, as the kernel's interface counters count packets.
    pub skbs: u64,
    /// Bytes of those buffers, as the kernel's interface counters count bytes.
    pub skb_bytes: u64,
    /// Packets as on the wire.
    pub packets: u64,
    /// Bytes as on the wire, from the Ethernet header on, without FCS.
    pub bytes: u64,
}

/// The agent itself.
#[derive(Clone, Debug, Default)]
pub struct AgentSample {
    /// How this kernel is attached to; absent when it cannot be.
    pub mode: Option<AttachMode>,
    /// Interfaces that should be counted and are not.
    pub unattached: u64,
    /// Whether counts outlive the agent (a bpffs is there).
    pub pinned: bool,
    /// Passes of the reconciler.
    pub reconciles: ReconcileSample,
    /// Times a program of ours that somebody removed was put back.
    pub reattached: u64,
    /// Times the netlink socket overran and everything was read anew.
    pub netlink_overruns: u64,
    /// Whether the last reading of the file succeeded, and when one last did (Unix seconds).
    pub config_reload: Option<ReloadSample>,
    /// HTTP requests by handler and code.
    pub http_requests: BTreeMap<(&'static str, u16), u64>,
}

/// Passes of the reconciler since the agent started.
#[derive(Clone, Debug, Default)]
pub struct ReconcileSample {
    /// Durations in seconds by the histogram bounds in [`RECONCILE_BOUNDS`], the last open.
    pub durations: [u64; RECONCILE_BOUNDS.len() + 1],
    /// Sum of the durations in seconds.
    pub seconds: f64,
    /// Failed passes by stage, see [`RECONCILE_STAGES`].
    pub errors: BTreeMap<&'static str, u64>,
    /// When a pass last succeeded (Unix seconds).
    pub last_success: Option<f64>,
}

/// Upper bounds in seconds of the histogram of reconcile durations.
pub const RECONCILE_BOUNDS: [f64; 8] = [0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 30.0];

/// Stages of a pass, the keys of [`ReconcileSample::errors`]; exposed as zeros from the start.
pub const RECONCILE_STAGES: [&str; 4] = ["observe", "plan", "execute", "retire"];

/// The last reading of the file.
#[derive(Clone, Copy, Debug)]
pub struct ReloadSample {
    /// Whether it succeeded.
    pub successful: bool,
    /// When a reading last succeeded (Unix seconds).
    pub last_success: f64,
}

impl NetnsSample {
    /// All that was counted in this namespace: by its interfaces that live and by those that are gone.
    ///
    /// Absent where nothing was ever counted, and while one attached interface cannot be read: a sum without it
    /// would fall, and rise again.
    pub fn counts(&self) -> Option<Counts> {
        if self.interfaces.iter().any(|interface| interface.mode.is_some() && interface.counts.is_none()) {
            return None;
        }
        let mut sum = self.retired;
        self.interfaces.iter().filter_map(|interface| interface.counts.as_ref()).for_each(|c| sum.add(c));
        self.is_counted().then_some(sum)
    }

    /// Whether anything in it is or was counted.
    pub fn is_counted(&self) -> bool {
        let counted = |interface: &InterfaceSample| interface.mode.is_some() || interface.counts.is_some();
        self.interfaces.iter().any(counted) || self.retired != Counts::default()
    }
}

impl ClassCounts {
    /// Adds another's counts.
    pub fn add(&mut self, other: &Self) {
        let Self { skbs, skb_bytes, packets, bytes } = other;
        self.skbs += skbs;
        self.skb_bytes += skb_bytes;
        self.packets += packets;
        self.bytes += bytes;
    }
}

impl DirectionCounts {
    /// Adds another's counts.
    pub fn add(&mut self, other: &Self) {
        let Self { classes, sizes, tcp_flags } = other;
        self.classes.iter_mut().zip(classes).for_each(|(mine, class)| mine.add(class));
        self.sizes.iter_mut().zip(sizes).for_each(|(mine, size)| *mine += size);
        self.tcp_flags.iter_mut().zip(tcp_flags).for_each(|(mine, flag)| *mine += flag);
    }

    /// All classes together.
    pub fn total(&self) -> ClassCounts {
        let mut total = ClassCounts::default();
        self.classes.iter().for_each(|class| total.add(class));
        total
    }
}

impl Counts {
    /// Adds another's counts.
    pub fn add(&mut self, other: &Self) {
        self.receive.add(&other.receive);
        self.transmit.add(&other.transmit);
    }
}

impl<T> ByDirection<T> {
    /// Both values with the word for their direction.
    pub fn each(&self) -> [(&'static str, &T); 2] {
        [("receive", &self.receive), ("transmit", &self.transmit)]
    }
}
