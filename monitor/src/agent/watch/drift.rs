//! Whether we count what the kernel counts: at each look at everything, its own counters of a device are compared with ours,
//! read before and after. What grew more there than here was not counted.
//!
//! Never too much is said: where packets pass while the look goes on, ours are taken as large as they can be. That also
//! leaves out packets still on their way between the two counters. What we count and the kernel does not (it was offered
//! to a queue, and dropped there) is no drift. Packets from before the first look are in no difference.

use std::collections::BTreeMap;

use super::{Watched, WatchedLink};
use crate::{
    discover::netlink::Link,
    probe::{Reading, Side, Target},
    sample::{ByDirection, Counts, DirectionCounts},
    topology::names::Cookie,
};

/// Packets not counted, since the first look.
#[derive(Debug, Default)]
pub(in crate::agent) struct Drift(BTreeMap<(Cookie, bool, u32), Device>);

/// No counts have this serial.
const NOT_NOW: u64 = u64::MAX;

/// A device that is counted.
#[derive(Debug)]
struct Device {
    serial: u64,
    receive: Way,
    transmit: Way,
}

/// One direction of it.
#[derive(Clone, Copy, Debug, Default)]
struct Way {
    kernel: u64,
    /// Ours as it was before the kernel's was read.
    ours: Ours,
    /// Whether packets passed meanwhile.
    quiet: bool,
    unit: Option<Unit>,
    uncounted: u64,
}

/// What the kernel counts as one: an skb as we do, or, behind GRO, each packet it was made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Unit {
    Skb,
    Packet,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Ours {
    skbs: u64,
    packets: u64,
}

/// The kernel's packets at a device, as the namespace sees them. Only of devices that count an skb as one packet, and all
/// that they hand on; drivers of hardware count as they like, and XDP may take what nobody else sees.
pub(super) fn kernel(device: &Link, side: Side) -> Option<ByDirection<u64>> {
    let plain = matches!(device.kind.as_str(), "veth" | "loopback") && !device.xdp;
    let (received, sent) = (device.stats.rx.packets, device.stats.tx.packets);
    plain.then_some(match side {
        Side::HostEnd { .. } => ByDirection { receive: sent, transmit: received },
        Side::Inside { .. } => ByDirection { receive: received, transmit: sent },
    })
}

impl Drift {
    /// Compares, where there is something of this look, with what was read `before` and `after` it; and says of each
    /// interface what is known.
    pub(in crate::agent) fn note(&mut self, watched: &mut Watched, before: &[Reading], after: &[Reading]) {
        let by_key = |readings: &[Reading]| -> BTreeMap<_, (u64, Counts)> {
            let read = readings.iter().filter_map(|reading| {
                Some((key(&reading.target), (reading.serial, *reading.counts.as_ref().ok()?)))
            });
            read.collect()
        };
        let (before, after) = (by_key(before), by_key(after));
        let mut last = std::mem::take(&mut self.0);
        for netns in &mut watched.namespaces {
            let cookie = netns.cookie;
            for link in &mut netns.links {
                let Some(side) = link.side else { continue };
                let key = key_of(cookie, side);
                let mut device = last.remove(&key);
                if let (Some(kernel), Some((serial, low)), Some((same, high))) =
                    (link.kernel, before.get(&key), after.get(&key))
                    && serial == same
                {
                    let goes_on = device.as_ref().is_some_and(|device| device.serial == *serial);
                    let device = device.get_or_insert_default();
                    device.serial = *serial;
                    device.receive.note(goes_on, kernel.receive, ours(&low.receive), ours(&high.receive));
                    device.transmit.note(goes_on, kernel.transmit, ours(&low.transmit), ours(&high.transmit));
                } else if let Some(device) = device.as_mut().filter(|_| before.contains_key(&key)) {
                    // They cannot be compared now: what comes after begins anew.
                    device.serial = NOT_NOW;
                }
                show(link, device.as_ref());
                self.0.extend(device.map(|device| (key, device)));
            }
        }
    }
}

impl Default for Device {
    fn default() -> Self {
        Self { serial: NOT_NOW, receive: Way::default(), transmit: Way::default() }
    }
}

impl Way {
    fn note(&mut self, goes_on: bool, kernel: u64, low: Ours, high: Ours) {
        let quiet = low == high;
        if goes_on {
            let grown = kernel.saturating_sub(self.kernel);
            // As large as it can be.
            let skbs = high.skbs.saturating_sub(self.ours.skbs);
            let packets = high.packets.saturating_sub(self.ours.packets);
            if quiet && self.quiet && skbs != packets {
                // Which of the two the kernel counts shows where they differ.
                match grown {
                    grown if grown == skbs => self.unit = Some(Unit::Skb),
                    grown if grown == packets => self.unit = Some(Unit::Packet),
                    _ => {}
                }
            }
            let counted = match self.unit {
                Some(Unit::Skb) => skbs,
                Some(Unit::Packet) | None => packets.max(skbs),
            };
            self.uncounted += grown.saturating_sub(counted);
        }
        (self.kernel, self.ours, self.quiet) = (kernel, low, quiet);
    }
}

fn show(link: &mut WatchedLink, device: Option<&Device>) {
    link.uncounted = device
        .map(|device| ByDirection { receive: device.receive.uncounted, transmit: device.transmit.uncounted });
}

fn ours(counts: &DirectionCounts) -> Ours {
    let total = counts.total();
    Ours { skbs: total.skbs, packets: total.packets }
}

fn key(target: &Target) -> (Cookie, bool, u32) {
    key_of(target.cookie, target.side)
}

fn key_of(cookie: Cookie, side: Side) -> (Cookie, bool, u32) {
    match side {
        Side::HostEnd { ifindex } => (cookie, true, ifindex),
        Side::Inside { ifindex } => (cookie, false, ifindex),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn skbs(skbs: u64) -> Ours {
        Ours { skbs, packets: skbs }
    }

    #[test]
    fn what_only_the_kernel_counted_is_told_once() {
        let mut way = Way::default();
        way.note(false, 1000, skbs(10), skbs(10));
        assert_eq!(way.uncounted, 0, "what was before the first look is no drift");
        way.note(true, 1100, skbs(110), skbs(110));
        assert_eq!(way.uncounted, 0);
        way.note(true, 1107, skbs(110), skbs(110));
        way.note(true, 1207, skbs(210), skbs(210));
        assert_eq!(way.uncounted, 7);
        way.note(false, 0, skbs(0), skbs(0));
        way.note(true, 5, skbs(5), skbs(5));
        assert_eq!(way.uncounted, 7, "an interface that began anew");
    }

    #[test]
    fn packets_that_pass_during_a_look_are_no_drift() {
        let mut way = Way::default();
        // The kernel's was read somewhere between the two.
        for (kernel, low, high) in [(50, 40, 60), (160, 140, 160), (240, 240, 300), (400, 390, 400)] {
            way.note(true, kernel, skbs(low), skbs(high));
            assert_eq!(way.uncounted, 0, "at {kernel}");
        }
        way.note(true, 500, skbs(400), skbs(400));
        assert_eq!(way.uncounted, 90, "at least so many, as 10 may have been the look's");
    }

    #[test]
    fn what_the_kernel_does_not_count_is_no_credit_for_later() {
        let mut way = Way::default();
        way.note(false, 0, skbs(0), skbs(0));
        way.note(true, 10, skbs(40), skbs(40));
        way.note(true, 15, skbs(40), skbs(40));
        assert_eq!(way.uncounted, 5);
    }

    #[test]
    fn either_unit_of_the_kernel_is_taken_for_what_it_is() {
        let both = |skbs, packets| Ours { skbs, packets };
        let mut gro = Way::default();
        gro.note(false, 0, both(0, 0), both(0, 0));
        gro.note(true, 450, both(10, 450), both(10, 450));
        assert_eq!((gro.uncounted, gro.unit), (0, Some(Unit::Packet)));
        let mut plain = Way::default();
        plain.note(false, 0, both(0, 0), both(0, 0));
        plain.note(true, 10, both(10, 450), both(10, 450));
        assert_eq!((plain.uncounted, plain.unit), (0, Some(Unit::Skb)));
        plain.note(true, 33, both(20, 900), both(20, 900));
        assert_eq!(plain.uncounted, 13, "not hidden behind the packets of an skb");
    }
}
