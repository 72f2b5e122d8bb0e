//! `netns-monitor flows NS`.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    thread,
    time::{Duration, Instant},
};

use clap::Args;
use monitor_ebpf::talk::{Amount, Talked};
use serde_json::{Value, json};

use super::{
    Global,
    show::named,
    table::{self, Column, Screen},
    watch::{Again, Seen},
};
use crate::{
    agent::{
        Failure,
        engine::{Engine, Look},
    },
    talk::{Conversation, Fell, FlowReadings},
    topology::names::Cookie,
};

/// Options of `flows`.
#[derive(Debug, Args)]
pub(super) struct Options {
    /// Name of the namespace
    netns: String,
    /// How many flows are shown; 0 for all
    #[arg(long, value_name = "N", default_value_t = 10)]
    top: usize,
    /// Look twice, so many seconds apart: the heaviest of that time, with their rates
    #[arg(long, value_name = "SECONDS", conflicts_with = "watch")]
    sample: Option<f64>,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    pub(super) again: Again,
}

/// What is shown of a namespace.
struct Picture {
    netns: String,
    shown: Vec<Row>,
    /// Flows that are in the table and not shown.
    rest: Fell,
    fell: Fell,
    no_room: Talked,
    room: u32,
    used: usize,
    /// Whether an agent makes room.
    kept: bool,
}

struct Row {
    flow: Conversation,
    /// Packets and bytes a second.
    rate: Option<[f64; 4]>,
}

pub(super) fn run(global: &Global, options: &Options) -> Result<(), Failure> {
    if options.sample.is_some_and(|seconds| !(0.0..=3600.0).contains(&seconds) || seconds == 0.0) {
        return Err(Failure::Usage("--sample: more than 0 and at most 3600 seconds".to_owned()));
    }
    let look = Engine::look(&global.host())?;
    let mut earlier = None;
    options.again.run(|screen| {
        let cookie = named(&look.view()?.sample, &options.netns)?.cookie;
        if let Some(seconds) = options.sample {
            earlier = Some((readings(&look)?, Instant::now()));
            thread::sleep(Duration::from_secs_f64(seconds));
        }
        let (now, at) = (readings(&look)?, Instant::now());
        let before =
            earlier.replace((now.clone(), at)).map(|(before, then)| (before, (at - then).as_secs_f64()));
        let picture = picture(options, cookie, now, before, look.agent().is_some());
        Ok(match options.json {
            true => Seen::Json(as_json(&picture)),
            false => Seen::Text(as_text(&picture, screen)),
        })
    })
}

fn readings(look: &Look) -> Result<FlowReadings, Failure> {
    if let Some(readings) = look.flows()? {
        return Ok(readings);
    }
    let what = match look.agent() {
        Some(pid) => format!("the agent (pid {pid}) runs without it: start it again with --collector.flows"),
        None => "no agent runs: start one, `netns-monitor agent --collector.flows`".to_owned(),
    };
    Err(Failure::Failed(anyhow::anyhow!("flows are not counted; {what}")))
}

fn picture(
    options: &Options,
    cookie: Cookie,
    readings: FlowReadings,
    before: Option<(FlowReadings, f64)>,
    kept: bool,
) -> Picture {
    let FlowReadings { room, used, flows, fell, no_room } = readings;
    let earlier: Option<(BTreeMap<Key, Talked>, f64)> = before.map(|(before, seconds)| {
        let flows = before.flows.iter().filter(|flow| flow.cookie == cookie);
        (flows.map(|flow| (key(flow), flow.talked)).collect(), seconds)
    });
    let rows = flows.into_iter().filter(|flow| flow.cookie == cookie).map(|flow| {
        let rate = earlier.as_ref().map(|(earlier, seconds)| rate(&flow, earlier.get(&key(&flow)), *seconds));
        Row { flow, rate }
    });
    let mut shown: Vec<_> = rows.collect();
    shown.sort_by(|a, b| weight(b).total_cmp(&weight(a)).then_with(|| key(&a.flow).cmp(&key(&b.flow))));
    let most = if options.top == 0 { shown.len() } else { options.top };
    let rest = shown.drain(most.min(shown.len())..).fold(Fell::default(), |rest, row| Fell {
        flows: rest.flows + 1,
        talked: sum(rest.talked, row.flow.talked),
    });
    Picture {
        netns: options.netns.clone(),
        shown,
        rest,
        fell: fell.get(&cookie).copied().unwrap_or_default(),
        no_room: no_room.get(&cookie).copied().unwrap_or_default(),
        room,
        used,
        kept,
    }
}

/// Bytes of both directions: a second where that is known, else in all.
fn weight(Row { flow, rate }: &Row) -> f64 {
    match rate {
        Some([_, receive, _, transmit]) => receive + transmit,
        None => (flow.talked.receive.bytes + flow.talked.transmit.bytes) as f64,
    }
}

type Key = (String, u8, (IpAddr, u16), (IpAddr, u16));

fn key(flow: &Conversation) -> Key {
    (flow.interface.clone(), flow.protocol, flow.local, flow.remote)
}

/// A flow that fell out and came again began anew.
fn rate(flow: &Conversation, before: Option<&Talked>, seconds: f64) -> [f64; 4] {
    let before = before.filter(|_| flow.age.as_secs_f64() >= seconds).copied().unwrap_or_default();
    let numbers = |talked: Talked| {
        let Talked { receive, transmit } = talked;
        [receive.packets, receive.bytes, transmit.packets, transmit.bytes]
    };
    let (now, before) = (numbers(flow.talked), numbers(before));
    std::array::from_fn(|i| now[i].saturating_sub(before[i]) as f64 / seconds)
}

fn sum(a: Talked, b: Talked) -> Talked {
    let amount = |a: Amount, b: Amount| Amount { packets: a.packets + b.packets, bytes: a.bytes + b.bytes };
    Talked { receive: amount(a.receive, b.receive), transmit: amount(a.transmit, b.transmit) }
}

fn protocol(flow: &Conversation) -> String {
    match flow.protocol {
        1 => "icmp".to_owned(),
        6 => "tcp".to_owned(),
        17 => "udp".to_owned(),
        58 => "icmpv6".to_owned(),
        132 => "sctp".to_owned(),
        other => other.to_string(),
    }
}

/// The port only where there is one.
fn end((address, port): (IpAddr, u16)) -> String {
    match (address, port) {
        (address, 0) => address.to_string(),
        (IpAddr::V6(address), port) => format!("[{address}]:{port}"),
        (address, port) => format!("{address}:{port}"),
    }
}

fn time(duration: Duration) -> String {
    match duration.as_secs() {
        seconds @ ..100 => format!("{seconds}s"),
        seconds @ 100..6000 => format!("{}m", seconds / 60),
        seconds @ 6000..360_000 => format!("{}h", seconds / 3600),
        seconds => format!("{}d", seconds / 86_400),
    }
}

const COLUMNS: [Column; 10] = [
    table::text("INTERFACE").goes(2),
    table::text("PROTOCOL").goes(5),
    table::text("LOCAL"),
    table::text("REMOTE"),
    table::number("RX PACKETS").goes(4),
    table::number("RX BYTES").goes(6),
    table::number("TX PACKETS").goes(4),
    table::number("TX BYTES").goes(6),
    table::number("AGE").goes(1),
    table::number("IDLE").goes(3),
];

/// Behind them, where it was looked before.
const RATES: [Column; 2] = [table::number("RX B/S"), table::number("TX B/S")];

fn as_text(picture: &Picture, screen: Screen) -> String {
    let sampled = picture.shown.iter().any(|row| row.rate.is_some());
    let columns = if sampled { [&COLUMNS[..], &RATES].concat() } else { COLUMNS.to_vec() };
    let rows = picture.shown.iter().map(|Row { flow, rate }| {
        let Talked { receive, transmit } = flow.talked;
        let numbers = [receive.packets, receive.bytes, transmit.packets, transmit.bytes];
        let mut row = vec![flow.interface.clone(), protocol(flow), end(flow.local), end(flow.remote)];
        row.extend(numbers.map(|number| number.to_string()));
        row.extend([time(flow.age), time(flow.idle)]);
        if let Some([_, receive, _, transmit]) = rate {
            row.extend([table::short(*receive), table::short(*transmit)]);
        }
        row
    });
    let mut text = table::fitted(&columns, rows, screen);
    let Picture { rest, fell, no_room, room, used, kept, .. } = picture;
    text.push('\n');
    let mut tell = |what: &str, talked: &Talked| {
        let Talked { receive, transmit } = talked;
        text.push_str(&format!(
            "{what}: rx {} packets, {} bytes; tx {} packets, {} bytes\n",
            receive.packets, receive.bytes, transmit.packets, transmit.bytes
        ));
    };
    if rest.flows > 0 {
        tell(&format!("not shown, {} more flows", rest.flows), &rest.talked);
    }
    tell(&format!("fell out, {} flows", fell.flows), &fell.talked);
    tell("found no room", no_room);
    text.push_str(&format!("the table holds {used} of {room} flows, those of all namespaces together\n"));
    if !kept {
        text.push_str("no agent runs: flows are still counted, but nothing makes room for new ones\n");
    }
    text
}

fn as_json(picture: &Picture) -> Value {
    let amounts = |Talked { receive, transmit }: &Talked| {
        json!({
            "receive": { "packets": receive.packets, "bytes": receive.bytes },
            "transmit": { "packets": transmit.packets, "bytes": transmit.bytes },
        })
    };
    let place = |(address, port): (IpAddr, u16)| json!({ "address": address.to_string(), "port": (port != 0).then_some(port) });
    let flows = picture.shown.iter().map(|Row { flow, rate }| {
        let mut object = amounts(&flow.talked);
        object["interface"] = json!(flow.interface);
        object["family"] = json!(if flow.local.0.is_ipv4() { "ipv4" } else { "ipv6" });
        object["protocol"] = json!(protocol(flow));
        object["local"] = place(flow.local);
        object["remote"] = place(flow.remote);
        object["age_seconds"] = json!(flow.age.as_secs_f64());
        object["idle_seconds"] = json!(flow.idle.as_secs_f64());
        if let Some([rx_packets, rx_bytes, tx_packets, tx_bytes]) = rate {
            object["rate"] = json!({
                "receive": { "packets": rx_packets, "bytes": rx_bytes },
                "transmit": { "packets": tx_packets, "bytes": tx_bytes },
            });
        }
        object
    });
    let flows: Vec<_> = flows.collect();
    let with_flows = |fell: &Fell| {
        let mut object = amounts(&fell.talked);
        object["flows"] = json!(fell.flows);
        object
    };
    json!({
        "netns": picture.netns,
        "flows": flows,
        "not_shown": with_flows(&picture.rest),
        "fell_out": with_flows(&picture.fell),
        "no_room": amounts(&picture.no_room),
        "table": { "room": picture.room, "used": picture.used, "agent": picture.kept },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flow(cookie: u64, port: u16, bytes: u64) -> Conversation {
        Conversation {
            cookie: Cookie(cookie),
            interface: "eth0".to_owned(),
            protocol: 6,
            local: ("192.0.2.2".parse().expect("an address"), port),
            remote: ("2001:db8::1".parse().expect("an address"), 80),
            talked: Talked {
                receive: Amount { packets: 1, bytes },
                transmit: Amount { packets: 2, bytes: 10 },
            },
            age: Duration::from_secs(200),
            idle: Duration::from_secs(3),
        }
    }

    fn options(top: usize) -> Options {
        Options { netns: "blue".to_owned(), top, sample: None, json: false, again: Again::default() }
    }

    fn of(flows: Vec<Conversation>) -> FlowReadings {
        FlowReadings { room: 16, used: flows.len(), flows, ..FlowReadings::default() }
    }

    #[test]
    fn the_heaviest_come_first_and_what_is_not_shown_is_summed() {
        let flows = vec![flow(7, 1, 50), flow(8, 2, 900), flow(7, 3, 70), flow(7, 4, 60), flow(7, 5, 70)];
        let picture = picture(&options(2), Cookie(7), of(flows), None, true);
        let ports: Vec<_> = picture.shown.iter().map(|row| row.flow.local.1).collect();
        assert_eq!(ports, [3, 5]);
        let Fell { flows, talked } = picture.rest;
        assert_eq!((flows, talked.receive.bytes, talked.transmit.packets), (2, 110, 4));
        assert_eq!(picture.used, 5, "of all namespaces");
    }

    #[test]
    fn sampled_the_order_is_that_of_the_time_between() {
        let before = (of(vec![flow(7, 1, 50_000), flow(7, 2, 100)]), 2.0);
        let flows = vec![flow(7, 1, 50_010), flow(7, 2, 500)];
        let picture = picture(&options(0), Cookie(7), of(flows), Some(before), true);
        let rates: Vec<_> = picture.shown.iter().map(|row| (row.flow.local.1, row.rate)).collect();
        assert_eq!(rates, [(2, Some([0.0, 200.0, 0.0, 0.0])), (1, Some([0.0, 5.0, 0.0, 0.0]))]);
    }

    #[test]
    fn ends_and_times_read_as_one_writes_them() {
        let v6: IpAddr = "2001:db8::1".parse().expect("an address");
        let v4: IpAddr = "192.0.2.1".parse().expect("an address");
        assert_eq!(
            [end((v6, 80)), end((v4, 80)), end((v6, 0))],
            ["[2001:db8::1]:80", "192.0.2.1:80", "2001:db8::1"]
        );
        let times =
            [0, 99, 100, 5999, 6000, 359_999, 360_000].map(|seconds| time(Duration::from_secs(seconds)));
        assert_eq!(times, ["0s", "99s", "1m", "99m", "1h", "99h", "4d"]);
    }
}
