//! The bytes in the maps.

use std::iter;

use aya::maps::{HashMap, MapData, MapError, PerCpuHashMap, PerCpuValues};
use aya::util::nr_cpus;
use monitor_ebpf::talk::{Amount, DnsRole, Flow, FlowKey, RoleKey, Slot, Talked};

use crate::probe::ProbeError;

/// A value as it lies in a map.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(transparent)]
pub(super) struct Wire<T>(pub(super) T);

macro_rules! plain {
    ($($record:ty),+) => {
        $(
            #[allow(unsafe_code, reason = "aya asks for a promise about the bytes")]
            // SAFETY: `repr(C)` integers and arrays of them without padding (their sizes are asserted), so that any bytes
            // are a value and every byte of a value is initialised.
            unsafe impl aya::Pod for Wire<$record> {}
        )+
    };
}
plain!(Slot, FlowKey, Flow, Talked, Fell, RoleKey, DnsRole);

/// Flows of a namespace that are told apart no more.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Fell {
    /// How many.
    pub flows: u64,
    /// What they had counted.
    pub talked: Talked,
}

const _: () = assert!(size_of::<Fell>() == 40);

pub(super) type Records<K, V> = HashMap<MapData, K, Wire<V>>;
pub(super) type Counters<K, V> = PerCpuHashMap<MapData, K, Wire<V>>;

/// All possible CPUs' values of 0.
pub(super) fn zeros<V: Copy + Default + 'static>(
    of: &'static str,
) -> Result<PerCpuValues<Wire<V>>, ProbeError>
where
    Wire<V>: aya::Pod,
{
    let cpus = cpus()?;
    PerCpuValues::try_from(vec![Wire(V::default()); cpus])
        .map_err(|error| ProbeError::new("write", of, &error))
}

/// How many CPUs a per-CPU value is of.
pub(super) fn cpus() -> Result<usize, ProbeError> {
    nr_cpus().map_err(|(path, error)| ProbeError::new("read", path, &error))
}

/// Makes an entry of 0 where there is none.
pub(super) fn ensure<K: aya::Pod, V: Copy + Default + 'static>(
    map: &mut Counters<K, V>,
    name: &'static str,
    key: K,
) -> Result<(), ProbeError>
where
    Wire<V>: aya::Pod,
{
    match map.get(&key, 0) {
        Ok(_) => Ok(()),
        Err(MapError::KeyNotFound) => {
            map.insert(key, zeros(name)?, 0).map_err(|error| ProbeError::new("write", name, &error))
        }
        Err(error) => Err(ProbeError::new("read", name, &error)),
    }
}

/// The values of one entry together: counts are summed, times the first and the last of them.
pub(super) fn flow<'a>(values: impl IntoIterator<Item = &'a Flow>) -> Flow {
    values.into_iter().filter(|flow| flow.first != 0).fold(Flow::default(), |sum, flow| Flow {
        talked: talked([&sum.talked, &flow.talked]),
        first: if sum.first == 0 { flow.first } else { sum.first.min(flow.first) },
        last: sum.last.max(flow.last),
    })
}

pub(super) fn talked<'a>(values: impl IntoIterator<Item = &'a Talked>) -> Talked {
    let amount = |a: Amount, b: Amount| Amount { packets: a.packets + b.packets, bytes: a.bytes + b.bytes };
    values.into_iter().fold(Talked::default(), |sum, value| Talked {
        receive: amount(sum.receive, value.receive),
        transmit: amount(sum.transmit, value.transmit),
    })
}

pub(super) fn role<'a>(values: impl IntoIterator<Item = &'a DnsRole>) -> DnsRole {
    let mut sum = DnsRole::default();
    for DnsRole { queries, unmatched, codes, latencies, nanoseconds } in values {
        sum.queries += queries;
        sum.unmatched += unmatched;
        sum.nanoseconds += nanoseconds;
        let mine = sum.codes.iter_mut().chain(&mut sum.latencies);
        iter::zip(mine, codes.iter().chain(latencies)).for_each(|(mine, other)| *mine += other);
    }
    sum
}

/// A flow out of the words the kernel wrote.
pub(super) fn flow_of_words(words: &[u64; 6]) -> Flow {
    let [rx_packets, rx_bytes, tx_packets, tx_bytes, first, last] = *words;
    Flow {
        talked: Talked {
            receive: Amount { packets: rx_packets, bytes: rx_bytes },
            transmit: Amount { packets: tx_packets, bytes: tx_bytes },
        },
        first,
        last,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cpu_that_saw_nothing_of_a_flow_does_not_make_it_older() {
        let seen = |packets, first, last| flow_of_words(&[packets, 100 * packets, 1, 60, first, last]);
        let sum = flow(&[Flow::default(), seen(2, 50, 90), seen(3, 40, 45), Flow::default()]);
        assert_eq!(sum, flow_of_words(&[5, 500, 2, 120, 40, 90]));
        assert_eq!(flow(&[]), Flow::default());
    }

    #[test]
    fn every_field_of_dns_is_summed() {
        let of = |n: u64| DnsRole {
            queries: n,
            unmatched: 2 * n,
            codes: [3 * n; 16],
            latencies: [4 * n; 16],
            nanoseconds: 5 * n,
        };
        assert_eq!(role(&[of(1), of(2)]), of(3));
    }
}
