//! What TCP met with in namespaces that are gone: one sum, into which the counts of each go exactly once, also across a
//! kill: the sum is written down first, as in `crate::ledger`.

use aya::maps::{HashMap, MapData, MapError, PerCpuValues};
use monitor_ebpf::health::{COUNTS_MAP, TcpCounts, Times};

use super::Counts;
use crate::{
    probe::ProbeError,
    trace::{
        moves::{Wire, absent_is_fine, opened},
        pins::{GONE, JOURNAL, NO_PREALLOC, Pins},
    },
};

/// The move being made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub(in crate::trace) struct Move {
    /// Whose counts.
    number: u64,
    /// The sum after it.
    total: TcpCounts,
}

macro_rules! plain {
    ($($record:ty),+) => {
        $(
            #[allow(unsafe_code, reason = "aya asks for a promise about the bytes")]
            // SAFETY: `repr(C)` 64-bit integers and nothing else, so that any bytes are a value and every byte of a value
            // is initialised.
            unsafe impl aya::Pod for Wire<$record> {}
        )+
    };
}
plain!(TcpCounts, Move);

const _: () = assert!(size_of::<Move>() == 8 + size_of::<TcpCounts>());

/// The only key of both maps.
const ENTRY: u32 = 0;

pub(super) struct Totals {
    gone: HashMap<MapData, u32, Wire<TcpCounts>>,
    journal: HashMap<MapData, u32, Wire<Move>>,
}

impl Totals {
    /// Opens what is pinned (checked before), makes the rest.
    pub(super) fn open(pins: Option<&Pins>) -> Result<Self, ProbeError> {
        Ok(Self {
            gone: opened(pins, GONE, || HashMap::create(1, NO_PREALLOC))?,
            journal: opened(pins, JOURNAL, || HashMap::create(1, NO_PREALLOC))?,
        })
    }

    /// The sum.
    pub(super) fn gone(&self) -> Result<TcpCounts, ProbeError> {
        match self.gone.get(&ENTRY, 0) {
            Ok(Wire(total)) => Ok(total),
            Err(MapError::KeyNotFound) => Ok(TcpCounts::default()),
            Err(error) => Err(ProbeError::new("read", GONE, &error)),
        }
    }

    /// Finishes the move an agent was killed in, if there is one.
    pub(super) fn redo(&mut self, counts: &mut Counts) -> Result<(), ProbeError> {
        match self.journal.get(&ENTRY, 0) {
            Ok(Wire(planned)) => self.finish(&planned, counts),
            Err(MapError::KeyNotFound) => Ok(()),
            Err(error) => Err(ProbeError::new("read", JOURNAL, &error)),
        }
    }

    /// Adds the counts of a namespace to the sum and takes them out of their map.
    pub(super) fn commit(
        &mut self,
        number: u64,
        all: &TcpCounts,
        counts: &mut Counts,
    ) -> Result<(), ProbeError> {
        let mut total = self.gone()?;
        add(&mut total, all);
        let planned = Move { number, total };
        self.journal
            .insert(ENTRY, Wire(planned), 0)
            .map_err(|error| ProbeError::new("write", JOURNAL, &error))?;
        self.finish(&planned, counts)
    }

    fn finish(&mut self, Move { number, total }: &Move, counts: &mut Counts) -> Result<(), ProbeError> {
        self.gone.insert(ENTRY, Wire(*total), 0).map_err(|error| ProbeError::new("write", GONE, &error))?;
        absent_is_fine(counts.remove(number))
            .map_err(|error| ProbeError::new("delete from", COUNTS_MAP, &error))?;
        absent_is_fine(self.journal.remove(&ENTRY))
            .map_err(|error| ProbeError::new("delete from", JOURNAL, &error))
    }
}

/// What all CPUs counted.
pub(super) fn sum(cpus: &PerCpuValues<Wire<TcpCounts>>) -> TcpCounts {
    let mut sum = TcpCounts::default();
    cpus.iter().for_each(|Wire(counts)| add(&mut sum, counts));
    sum
}

fn add(sum: &mut TcpCounts, other: &TcpCounts) {
    let TcpCounts { retransmits, failures, resets, opened, handshakes, rtt } = other;
    each(&mut sum.retransmits, retransmits);
    each(&mut sum.failures, failures);
    each(&mut sum.resets, resets);
    each(&mut sum.opened, opened);
    sum.handshakes.iter_mut().zip(handshakes).for_each(|(sum, times)| add_times(sum, times));
    add_times(&mut sum.rtt, rtt);
}

fn add_times(sum: &mut Times, Times { buckets, nanoseconds }: &Times) {
    each(&mut sum.buckets, buckets);
    sum.nanoseconds += nanoseconds;
}

fn each(sum: &mut [u64], others: &[u64]) {
    sum.iter_mut().zip(others).for_each(|(sum, other)| *sum += other);
}
