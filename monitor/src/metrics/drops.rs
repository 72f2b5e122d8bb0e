//! Packets that the kernel dropped, by reason.

use super::{Collector, Metric, Series};
use crate::sample::Sample;

pub(super) const COLLECTOR: Collector = Collector {
    name: "drops",
    help: "Packets the kernel dropped, by namespace and reason.",
    metrics: &[DROPS, MISSED],
    collect,
};

const DROPS: Metric = Metric::counter(
    "netns_packet_drops_total",
    &["netns", "reason"],
    "Packets (socket buffers) the kernel dropped, by its own name of the reason (enum skb_drop_reason); reasons that \
     occurred only. Not each is a loss: TCP drops what it has already (TCP_OLD_DATA, TCP_OLD_ACK), a bridge floods to \
     who is not meant (OTHERHOST), and closing a socket drops what was not read (SOCKET_CLOSE, QUEUE_PURGE). \
     NOT_SPECIFIED is where the kernel does not say. Buffers of Unix and netlink sockets count too. The host is ~host, \
     namespaces not watched and packets of none are ~other, those gone ~gone; reason ~rest is what the tables had no room \
     to tell apart.",
);
const MISSED: Metric = Metric::counter(
    "netns_monitor_packet_drops_missed_total",
    &[],
    "Drops the kernel did not show to the program because it was at work on that CPU already; they are in no other metric.",
);

fn collect(sample: &Sample, series: &mut Series) -> anyhow::Result<()> {
    let Some(drops) = &sample.lost.drops else { return Ok(()) };
    for (netns, reasons) in &drops.netns {
        for (reason, &count) in reasons {
            series.count(&DROPS, &[netns, reason], count);
        }
    }
    series.count(&MISSED, &[], drops.missed);
    Ok(())
}
