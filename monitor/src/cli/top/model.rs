//! Readings as what is shown: per namespace how fast its counters rise, what went wrong lately, and how it went. Pure.
//!
//! A namespace is its cookie: one that gets the name of another starts with nothing.

use std::{
    collections::{BTreeMap, VecDeque},
    time::{Duration, Instant},
};

use monitor_ebpf::{CLASSES, health::TcpCounts};

use super::{
    meter::{LATELY, Meter, Recent, push},
    trouble::{self, Lately, Trouble},
};
use crate::{
    agent::engine::Moment,
    explain::drops::plain,
    sample::{
        ByDirection, Counts, InterfaceSample, NetnsSample,
        lost::{HOST, OTHER},
    },
    topology::figures::Figures,
    trace::NetnsDrops,
};

/// How many readings a graph can show.
pub(super) const HISTORY: usize = 400;
/// The key of what belongs to no namespace; no cookie is 0.
const OTHERS: u64 = 0;

/// Received bytes, sent bytes, received packets, sent packets.
pub(super) type Traffic = [f64; 4];

/// One row: a namespace.
#[derive(Clone, Debug)]
pub(super) struct Row {
    pub(super) key: u64,
    pub(super) label: String,
    /// Whether it is the host's or what belongs to none: not counted as the others are.
    pub(super) special: bool,
    /// A second; absent where not known.
    pub(super) rate: Option<Traffic>,
    /// Since counting began, in the same order; absent where nothing is counted.
    pub(super) total: Option<[u64; 4]>,
    pub(super) drops: Option<DropRow>,
    pub(super) tcp: Option<TcpRow>,
    /// The worst first.
    pub(super) troubles: Vec<Trouble>,
}

/// What one lost.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct DropRow {
    /// A second: of reasons that mean a loss, and of all.
    pub(super) lost_rate: f64,
    pub(super) rate: f64,
    /// Since counting began.
    pub(super) lost: u64,
    pub(super) all: u64,
    /// What is to be told first.
    pub(super) first: Option<String>,
}

/// One reason for drops.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Reason {
    pub(super) name: String,
    pub(super) rate: Option<f64>,
    pub(super) lately: u64,
    pub(super) total: u64,
    /// By address in the kernel, the most first.
    pub(super) places: Vec<(u64, u64)>,
}

/// How its TCP fares.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct TcpRow {
    /// A second: segments sent again, failed connects, resets, connections opened.
    pub(super) rate: Option<[f64; 4]>,
    /// The same since counting began.
    pub(super) total: [u64; 4],
    /// Mean of the smoothed round-trip time, in seconds: of the connections that ended lately, and of all.
    pub(super) rtt: Option<f64>,
    pub(super) rtt_all: Option<f64>,
    /// Connections that are established, as of the last look at everything.
    pub(super) established: Option<u64>,
}

/// One interface.
#[derive(Clone, Debug)]
pub(super) struct InterfaceRow {
    pub(super) interface: InterfaceSample,
    pub(super) rate: Option<Traffic>,
    /// What the device dropped and its errors, lately.
    pub(super) device: [u64; 2],
}

/// What is known of one namespace from one reading to the next.
#[derive(Default)]
struct Track {
    seen: u64,
    traffic: Meter<4>,
    sent: Recent<4>,
    classes: Meter<CLASS_NUMBERS>,
    interfaces: BTreeMap<String, Device>,
    /// By reason; absent until drops were read once.
    drops: Option<BTreeMap<String, (Meter<1>, Recent<1>)>>,
    tcp: Meter<4>,
    tcp_lately: VecDeque<TcpCounts>,
    stack: Meter<STACK>,
    stack_lately: Recent<STACK>,
    history: VecDeque<[f32; SERIES]>,
}

#[derive(Default)]
struct Device {
    traffic: Meter<4>,
    kernel: Meter<2>,
    kernel_lately: Recent<2>,
}

/// What a graph can show.
pub(super) const SERIES: usize = 6;
/// Lost packets and TCP's troubles, in a history beside traffic.
pub(super) const LOST: usize = 4;
pub(super) const TCP: usize = 5;

const CLASS_NUMBERS: usize = 4 * CLASSES;
/// Figures of the stack that are told, see [`stack`].
pub(super) const STACK: usize = 4;

/// Everything that is shown.
#[derive(Default)]
pub(super) struct Model {
    readings: u64,
    times: VecDeque<Instant>,
    tracks: BTreeMap<u64, Track>,
    /// Of all namespaces together.
    all: VecDeque<[f32; SERIES]>,
    pub(super) rows: Vec<Row>,
    /// The last reading.
    pub(super) moment: Option<Moment>,
}

impl Model {
    /// Takes a reading.
    pub(super) fn take(&mut self, moment: Moment) {
        let before = self.times.back().copied();
        self.readings += 1;
        push(&mut self.times, moment.at, LATELY + 1);
        let mut rows = Vec::with_capacity(moment.sample.namespaces.len() + 2);
        for netns in &moment.sample.namespaces {
            let seen = Seen::of(&moment, netns);
            let track = self.tracks.entry(netns.cookie.0).or_default();
            rows.push(track.take(self.readings, moment.at, before, &seen));
        }
        for seen in Seen::special(&moment) {
            let track = self.tracks.entry(seen.key).or_default();
            rows.push(track.take(self.readings, moment.at, before, &seen));
        }
        // One that is gone, and whose cookie never comes again.
        let readings = self.readings;
        self.tracks.retain(|_, track| track.seen == readings);
        let sum = |of: fn(&Row) -> Option<f64>| rows.iter().filter_map(of).sum::<f64>() as f32;
        let traffic: [fn(&Row) -> Option<f64>; 4] = [
            |row| row.rate.map(|rate| rate[0]),
            |row| row.rate.map(|rate| rate[1]),
            |row| row.rate.map(|rate| rate[2]),
            |row| row.rate.map(|rate| rate[3]),
        ];
        let [a, b, c, d] = traffic.map(sum);
        let lost = sum(|row| row.drops.as_ref().map(|drops| drops.lost_rate));
        let tcp = sum(|row| row.tcp.as_ref()?.rate.map(|[again, failed, ..]| again + failed));
        if before.is_some() {
            push(&mut self.all, [a, b, c, d, lost, tcp], HISTORY);
        }
        self.rows = rows;
        self.moment = Some(moment);
    }

    /// How long "lately" was.
    pub(super) fn lately(&self) -> Duration {
        match (self.times.front(), self.times.back()) {
            (Some(first), Some(last)) => last.saturating_duration_since(*first),
            _ => Duration::ZERO,
        }
    }

    /// Of all namespaces together: received and sent bytes and packets a second.
    pub(super) fn sum(&self) -> Option<[f32; SERIES]> {
        self.all.back().copied()
    }

    /// How it went, the newest last: of one namespace, or of all.
    pub(super) fn history(&self, key: Option<u64>) -> Option<&VecDeque<[f32; SERIES]>> {
        match key {
            Some(key) => self.tracks.get(&key).map(|track| &track.history),
            None => Some(&self.all),
        }
    }

    /// The namespace of a key, as it was read.
    pub(super) fn netns(&self, key: u64) -> Option<&NetnsSample> {
        self.moment.as_ref()?.sample.namespaces.iter().find(|netns| netns.cookie.0 == key)
    }

    pub(super) fn row(&self, key: u64) -> Option<&Row> {
        self.rows.iter().find(|row| row.key == key)
    }

    /// Reasons for its drops; those that rise first.
    pub(super) fn reasons(&self, key: u64) -> Option<Vec<Reason>> {
        let drops = drops_of(self.moment.as_ref()?, key)?;
        let meters = self.tracks.get(&key)?.drops.as_ref()?;
        let reason = |(name, &total): (&String, &u64)| {
            let meter = meters.get(name);
            let places = drops.places.iter().filter(|((of, _), _)| of == name);
            let mut places: Vec<_> = places.map(|((_, at), count)| (*at, *count)).collect();
            places.sort_by_key(|(at, count)| (std::cmp::Reverse(*count), *at));
            Reason {
                name: name.clone(),
                rate: meter.and_then(|(meter, _)| meter.rate()).map(|[rate]| rate),
                lately: meter.map_or(0, |(_, recent)| recent.sum()[0]),
                total,
                places,
            }
        };
        let mut reasons: Vec<_> = drops.reasons.iter().filter(|(_, total)| **total > 0).map(reason).collect();
        reasons.sort_by(|a, b| {
            (is_loss(&b.name), b.lately, b.total).cmp(&(is_loss(&a.name), a.lately, a.total))
        });
        Some(reasons)
    }

    /// What TCP met with, at the beginning of "lately" and now.
    pub(super) fn tcp(&self, key: u64) -> Option<[TcpCounts; 2]> {
        let lately = &self.tracks.get(&key)?.tcp_lately;
        Some([*lately.front()?, *lately.back()?])
    }

    /// Its interfaces.
    pub(super) fn interfaces(&self, key: u64) -> Vec<InterfaceRow> {
        let (Some(netns), Some(track)) = (self.netns(key), self.tracks.get(&key)) else { return Vec::new() };
        let row = |interface: &InterfaceSample| {
            let device = track.interfaces.get(&interface.name);
            InterfaceRow {
                interface: interface.clone(),
                rate: device.and_then(|device| device.traffic.rate()),
                device: device.map_or([0; 2], |device| device.kernel_lately.sum()),
            }
        };
        netns.interfaces.iter().map(row).collect()
    }

    /// Its classes of packets that there were any of: a second, and since counting began.
    pub(super) fn classes(&self, key: u64) -> Vec<(usize, Option<Traffic>, [u64; 4])> {
        let counts = self.netns(key).and_then(NetnsSample::counts);
        let (Some(counts), Some(track)) = (counts, self.tracks.get(&key)) else { return Vec::new() };
        let rates = track.classes.rate();
        let numbers = numbers_by_class(&counts);
        let class = |class: usize| {
            let of = |i: usize| 4 * class + i;
            let rate = rates.map(|rates| std::array::from_fn(|i| rates[of(i)]));
            (class, rate, std::array::from_fn(|i| numbers[of(i)]))
        };
        let some =
            |(_, _, total): &(usize, Option<Traffic>, [u64; 4])| total.iter().any(|number| *number > 0);
        (0..CLASSES).map(class).filter(some).collect()
    }

    /// The kernel's figures of one.
    pub(super) fn figures(&self, key: u64) -> Option<&Figures> {
        let label = &self.row(key)?.label;
        self.moment.as_ref()?.sample.lost.figures.get(label)
    }
}

/// One namespace in a reading.
struct Seen<'a> {
    key: u64,
    label: &'a str,
    netns: Option<&'a NetnsSample>,
    drops: Option<&'a BTreeMap<String, u64>>,
    tcp: Option<TcpCounts>,
    figures: Option<&'a Figures>,
}

impl<'a> Seen<'a> {
    fn of(moment: &'a Moment, netns: &'a NetnsSample) -> Self {
        Self {
            key: netns.cookie.0,
            label: &netns.label,
            netns: Some(netns),
            drops: drops_of(moment, netns.cookie.0).map(|drops| &drops.reasons),
            tcp: moment.tcp.as_ref().and_then(|tcp| tcp.namespaces.get(&netns.cookie)).copied(),
            figures: moment.sample.lost.figures.get(&netns.label),
        }
    }

    /// The host's own, and what belongs to none.
    fn special(moment: &'a Moment) -> impl Iterator<Item = Self> {
        let host = Self {
            key: moment.host.0,
            label: HOST,
            netns: None,
            drops: drops_of(moment, moment.host.0).map(|drops| &drops.reasons),
            tcp: moment.tcp.as_ref().and_then(|tcp| tcp.namespaces.get(&moment.host)).copied(),
            figures: moment.sample.lost.figures.get(HOST),
        };
        let others = Self {
            key: OTHERS,
            label: OTHER,
            netns: None,
            drops: moment.drops.as_ref().map(|drops| &drops.other),
            tcp: moment.tcp.as_ref().map(|tcp| tcp.other),
            figures: None,
        };
        [host, others].into_iter().filter(|seen| seen.drops.is_some() || seen.tcp.is_some())
    }
}

fn drops_of(moment: &Moment, key: u64) -> Option<&NetnsDrops> {
    let drops = moment.drops.as_ref()?;
    drops.namespaces.get(&crate::topology::names::Cookie(key))
}

impl Track {
    fn take(&mut self, reading: u64, at: Instant, before: Option<Instant>, seen: &Seen<'_>) -> Row {
        // Counters that appear in a namespace that was there before began at 0 then.
        let known = before.filter(|_| self.seen > 0);
        self.seen = reading;
        let counts = seen.netns.and_then(NetnsSample::counts);
        let total = counts.as_ref().map(numbers);
        self.traffic.take(at, total);
        self.sent.push(self.traffic.rose());
        self.classes.take(at, counts.as_ref().map(numbers_by_class));
        let mut devices = Vec::new();
        if let Some(netns) = seen.netns {
            self.interfaces
                .retain(|name, _| netns.interfaces.iter().any(|interface| interface.name == *name));
            for interface in &netns.interfaces {
                let device = self.interfaces.entry(interface.name.clone()).or_default();
                device.take(at, interface);
                devices.push((interface, device.kernel_lately.sum()));
            }
        }
        let (drops, lost) = self.take_drops(at, known, seen.drops);
        let tcp = self.take_tcp(at, seen);
        self.stack.take(at, seen.figures.map(stack));
        self.stack_lately.push(self.stack.rose());
        let tcp_lately = self.tcp_lately.front().zip(self.tcp_lately.back());
        let mut troubles = trouble::of(&Lately {
            devices: &devices,
            counted: counts.is_some(),
            lost: &lost,
            tcp: tcp_lately,
            sent: counts.is_some().then(|| self.sent.sum()[3]),
            stack: self.stack_lately.sum(),
            conntrack: seen.figures.and_then(|figures| figures.conntrack),
        });
        if seen.key == OTHERS {
            // Nobody's.
            troubles.clear();
        }
        let rate = self.traffic.rate();
        if known.is_some() {
            let [a, b, c, d] = rate.unwrap_or([f64::NAN; 4]).map(|rate| rate as f32);
            let lost = drops.as_ref().map_or(f32::NAN, |drops| drops.lost_rate as f32);
            let again = tcp.as_ref().and_then(|tcp| tcp.rate);
            let again = again.map_or(f32::NAN, |[again, failed, ..]| (again + failed) as f32);
            push(&mut self.history, [a, b, c, d, lost, again], HISTORY);
        }
        Row {
            key: seen.key,
            label: seen.label.to_owned(),
            special: seen.netns.is_none(),
            rate,
            total,
            drops,
            tcp,
            troubles,
        }
    }

    /// And what of it means a loss and came lately.
    fn take_drops(
        &mut self,
        at: Instant,
        known: Option<Instant>,
        reasons: Option<&BTreeMap<String, u64>>,
    ) -> (Option<DropRow>, Vec<(String, u64)>) {
        let Some(reasons) = reasons else {
            self.drops = None;
            return (None, Vec::new());
        };
        let since = known.filter(|_| self.drops.is_some());
        let meters = self.drops.get_or_insert_default();
        let (mut row, mut lately) = (DropRow::default(), Vec::new());
        let mut first = None;
        for (name, &total) in reasons {
            let fresh = || (since.map_or_else(Meter::default, Meter::from_zero), Recent::default());
            if !meters.contains_key(name) {
                meters.insert(name.clone(), fresh());
            }
            let Some((meter, recent)) = meters.get_mut(name) else { continue };
            meter.take(at, Some([total]));
            recent.push(meter.rose());
            let rate = meter.rate().map_or(0.0, |[rate]| rate);
            let [rose] = recent.sum();
            let loss = is_loss(name);
            row.rate += rate;
            row.all += total;
            if loss {
                row.lost_rate += rate;
                row.lost += total;
                if rose > 0 {
                    lately.push((name.clone(), rose));
                }
            }
            let weight = (loss && rose > 0, rose, loss, total);
            if total > 0 && first.as_ref().is_none_or(|(most, _)| weight > *most) {
                first = Some((weight, name.clone()));
            }
        }
        row.first = first.map(|(_, name)| name);
        lately.sort_by_key(|(_, rose)| std::cmp::Reverse(*rose));
        (Some(row), lately)
    }

    fn take_tcp(&mut self, at: Instant, seen: &Seen<'_>) -> Option<TcpRow> {
        let Some(now) = seen.tcp else {
            (self.tcp, self.tcp_lately) = Default::default();
            return None;
        };
        let sum = |of: &[u64]| of.iter().sum::<u64>();
        let total = [sum(&now.retransmits), sum(&now.failures), sum(&now.resets), sum(&now.opened)];
        self.tcp.take(at, Some(total));
        push(&mut self.tcp_lately, now, LATELY + 1);
        let then = self.tcp_lately.front().copied().unwrap_or(now);
        let mean = |before: Option<&TcpCounts>| {
            let zero = TcpCounts::default();
            let before = before.unwrap_or(&zero);
            let count =
                sum(&now.rtt.buckets).checked_sub(sum(&before.rtt.buckets)).filter(|&count| count > 0)?;
            let time = now.rtt.nanoseconds.checked_sub(before.rtt.nanoseconds)?;
            Some(time as f64 / count as f64 / 1e9)
        };
        let connections = seen.figures.and_then(|figures| figures.connections);
        let established = connections.and_then(|connections| {
            connections.each().find(|(state, _)| *state == "established").map(|(_, count)| count)
        });
        Some(TcpRow {
            rate: self.tcp.rate(),
            total,
            rtt: mean(Some(&then)),
            rtt_all: mean(None),
            established,
        })
    }
}

impl Device {
    fn take(&mut self, at: Instant, interface: &InterfaceSample) {
        self.traffic.take(at, interface.counts.as_ref().map(numbers));
        let sum = |both: &ByDirection<u64>| both.receive + both.transmit;
        let kernel = interface.link.as_ref().map(|link| [sum(&link.drops), sum(&link.errors)]);
        self.kernel.take(at, kernel);
        self.kernel_lately.push(self.kernel.rose());
    }
}

/// Whether packets dropped for it were lost to somebody.
pub(super) fn is_loss(reason: &str) -> bool {
    plain(reason).is_none_or(|plain| !plain.usual)
}

fn numbers(counts: &Counts) -> [u64; 4] {
    let (receive, transmit) = (counts.receive.total(), counts.transmit.total());
    [receive.bytes, transmit.bytes, receive.packets, transmit.packets]
}

fn numbers_by_class(counts: &Counts) -> [u64; CLASS_NUMBERS] {
    std::array::from_fn(|i| {
        let (receive, transmit) = (&counts.receive.classes[i / 4], &counts.transmit.classes[i / 4]);
        match i % 4 {
            0 => receive.bytes,
            1 => transmit.bytes,
            2 => receive.packets,
            _ => transmit.packets,
        }
    })
}

/// Connection requests that a listening socket dropped, packets for which a socket's queue was full, packets without a
/// route, packets that connection tracking had no room for.
fn stack(figures: &Figures) -> [u64; STACK] {
    let queues = ["udp_receive", "udp_send", "tcp_backlog", "tcp_receive"];
    let full = queues.iter().filter_map(|queue| figures.overflows.get(queue)).sum();
    let no_route = figures.no_route.iter().flatten().sum();
    let untracked = figures.conntrack.and_then(|conntrack| conntrack.drops);
    [figures.listen_drops.unwrap_or(0), full, no_route, untracked.unwrap_or(0)]
}
