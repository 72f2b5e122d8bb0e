//! `netns-monitor why NS`.

mod report;
pub(super) mod tcp;

use std::{
    thread,
    time::{Duration, Instant},
};

use clap::Args;
use monitor_ebpf::health::TcpCounts;
use serde_json::{Value, json};

use self::report::{Count, Link, Row};
use super::{
    Global,
    table::{self, Column, Screen},
    watch::{Again, Seen as Shown},
};
use crate::{
    agent::{
        Failure,
        engine::{Engine, Look, View},
    },
    explain::drops::plain,
    sample::lost::HOST,
    topology::{
        figures::Figures,
        names::{Cookie, NsName},
    },
    trace::{DropReadings, NetnsDrops, Symbols, TcpReadings},
};

/// Options of `why`.
#[derive(Debug, Args)]
pub(super) struct Options {
    /// Name of the namespace, or ~host for the host's own
    netns: String,
    /// How long to look; 0 shows only what was counted so far
    #[arg(long, value_name = "S", default_value_t = 5, conflicts_with = "watch", value_parser = clap::value_parser!(u64).range(..=86_400))]
    seconds: u64,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    pub(super) again: Again,
}

/// One reading.
struct Seen {
    view: View,
    drops: Option<DropReadings>,
    tcp: Option<TcpReadings>,
}

/// What is told.
struct Report<'a> {
    netns: &'a str,
    seconds: u64,
    /// Absent where drops of this namespace are not counted; a note says why.
    rows: Option<Vec<Row>>,
    links: Vec<Link>,
    routes: Vec<String>,
    firewall: Vec<(String, Count)>,
    /// What TCP met with, at both readings; absent where it is not counted.
    tcp: Option<[TcpCounts; 2]>,
    figures: Vec<(String, Count)>,
    /// Connections tracked, and how many there can be.
    conntrack: Option<(u64, u64)>,
    notes: Vec<String>,
}

pub(super) fn run(global: &Global, Options { netns, seconds, json, again }: &Options) -> Result<(), Failure> {
    let look = Engine::look(&global.host())?;
    let mut earlier: Option<(Seen, Instant)> = None;
    let mut counted = true;
    let look_once = |screen| {
        if !again.is_on() {
            earlier = Some((see(&look, netns)?, Instant::now()));
            thread::sleep(Duration::from_secs(*seconds));
        }
        let (now, at) = (see(&look, netns)?, Instant::now());
        // At the first of many looks nothing could rise yet.
        let passed = match (&earlier, again.is_on()) {
            (_, false) => *seconds,
            (Some((_, then)), true) => (at - *then).as_secs_f64().round().max(1.0) as u64,
            (None, true) => 0,
        };
        let report = report(global, netns, passed, earlier.as_ref().map_or(&now, |(before, _)| before), &now);
        counted = report.rows.is_some();
        let shown = match json {
            true => Shown::Json(as_json(&report)),
            false => Shown::Text(as_text(&report, screen)),
        };
        earlier = Some((now, at));
        Ok(shown)
    };
    again.run(look_once)?;
    match counted {
        true => Ok(()),
        false => Err(Failure::Failed(anyhow::anyhow!("the drops of {netns} are not counted, see the note"))),
    }
}

fn see(look: &Look, netns: &str) -> Result<Seen, Failure> {
    let seen = Seen { view: look.view()?, drops: look.drops()?, tcp: look.tcp()? };
    exists(&seen.view, netns)?;
    Ok(seen)
}

fn exists(view: &View, netns: &str) -> Result<(), Failure> {
    let names = || view.sample.namespaces.iter().map(|netns| netns.label.as_str());
    if netns == HOST || names().any(|name| name == netns) {
        return Ok(());
    }
    let known: Vec<_> = names().chain([HOST]).collect();
    let what = format!("no namespace `{}`; there are: {}", netns.escape_debug(), known.join(", "));
    Err(Failure::Failed(anyhow::anyhow!(what)))
}

fn report<'a>(global: &Global, netns: &'a str, seconds: u64, before: &Seen, now: &Seen) -> Report<'a> {
    let mut notes = Vec::new();
    let symbols = symbols(&mut notes);
    let rows = match (&now.drops, drops_of(now, netns)) {
        (_, Some(drops)) => {
            let earlier = drops_of(before, netns).unwrap_or_default();
            Some(report::rows(&earlier, &drops, &symbols))
        }
        (None, None) => {
            let path = global.bpffs.display();
            notes.push(format!(
                "drops are not counted: nothing of it is pinned below {path}; start `netns-monitor agent`, and see what \
                 `netns-monitor doctor` says of drops"
            ));
            None
        }
        (Some(_), None) => {
            notes.push(format!(
                "{netns} is not watched, its drops are among those of the others: an agent watches the namespaces of its file"
            ));
            None
        }
    };
    let sample =
        |seen: &'_ Seen| seen.view.sample.namespaces.iter().find(|found| found.label == netns).cloned();
    let (sample_before, sample_now) = (sample(before), sample(now));
    let links = match (&sample_before, &sample_now) {
        (earlier, Some(now)) => {
            let earlier = earlier.as_ref().map(|earlier| earlier.interfaces.as_slice());
            report::interfaces(earlier.unwrap_or_default(), &now.interfaces)
        }
        _ => {
            let host = now.view.observed.host.iter().filter(|(_, link)| link.kind != "loopback");
            let link = |name| before.view.observed.host.get(name);
            host.map(|(name, now)| report::host_link(name.to_string(), link(name), now)).collect()
        }
    };
    let name = netns.parse::<NsName>().ok().filter(|_| netns != HOST);
    let observed = name.as_ref().and_then(|name| now.view.observed.namespaces.get(name));
    let routes = match netns == HOST {
        true => &now.view.observed.host_routes[..],
        false => observed.map_or(&[][..], |observed| &observed.routes),
    };
    let figures =
        |seen: &Seen| -> Figures { seen.view.sample.lost.figures.get(netns).cloned().unwrap_or_default() };
    let figures_now = figures(now);
    let firewall = |sample: &Option<crate::sample::NetnsSample>| {
        sample.as_ref().map(|sample| sample.drops.clone()).unwrap_or_default()
    };
    if let Some(missed) = now.drops.as_ref().map(|drops| drops.missed).filter(|&missed| missed > 0) {
        notes.push(format!(
            "the kernel did not show {missed} drops of the whole host: the program was at work"
        ));
    }
    let tcp = tcp_of(now, netns).map(|now| [tcp_of(before, netns).unwrap_or_default(), now]);
    if tcp.is_none() {
        notes.push(format!(
            "what TCP meets with in {netns} is not counted; see what `netns-monitor doctor` says of it"
        ));
    }
    Report {
        netns,
        seconds,
        rows,
        tcp,
        links,
        routes: routes.iter().map(ToString::to_string).collect(),
        firewall: report::counts(&firewall(&sample_before), &firewall(&sample_now)),
        conntrack: figures_now.conntrack.map(|conntrack| (conntrack.entries, conntrack.limit)),
        figures: report::figures(&figures(before), &figures_now),
        notes,
    }
}

/// The kernel's functions, or a note why they have no names.
fn symbols(notes: &mut Vec<String>) -> Symbols {
    match Symbols::running() {
        Ok(symbols) if symbols.is_hidden() => {
            notes.push(
                "the kernel hides where its functions are: sysctl kernel.kptr_restrict=1 shows them to root"
                    .to_owned(),
            );
            symbols
        }
        Ok(symbols) => symbols,
        Err(error) => {
            notes.push(format!("kernel functions have no names: /proc/kallsyms: {error}"));
            Symbols::default()
        }
    }
}

/// What a namespace lost; absent where it is not watched.
fn drops_of(seen: &Seen, netns: &str) -> Option<NetnsDrops> {
    let drops = seen.drops.as_ref()?;
    drops.namespaces.get(&cookie(seen, netns, drops.host)?).cloned()
}

/// The same of TCP.
fn tcp_of(seen: &Seen, netns: &str) -> Option<TcpCounts> {
    let tcp = seen.tcp.as_ref()?;
    tcp.namespaces.get(&cookie(seen, netns, tcp.host)?).copied()
}

fn cookie(seen: &Seen, netns: &str, host: Option<Cookie>) -> Option<Cookie> {
    let named = seen.view.sample.namespaces.iter().find(|found| found.label == netns);
    named.map(|found| found.cookie).or(host.filter(|_| netns == HOST))
}

fn as_text(report: &Report<'_>, screen: Screen) -> String {
    let Report { netns, seconds, rows, links, routes, firewall, tcp, conntrack, figures, notes } = report;
    let mut text = String::new();
    if let Some(rows) = rows {
        let sum = |of: fn(&Count) -> u64| rows.iter().map(|row| of(&row.drops)).sum::<u64>();
        let (rose, all) = (sum(|drops| drops.rose), sum(|drops| drops.now));
        text.push_str(&match seconds {
            0 => format!("{netns}: {all} packets dropped since counting began\n"),
            _ => format!("{netns}: {rose} packets dropped in {seconds} s, {all} since counting began\n"),
        });
        text.push_str(&drops_text(rows, *seconds, screen));
    }
    let link = |Link { name, running, drops, errors }: &Link| {
        let state = match running {
            Some(true) => screen.paint("up"),
            Some(false) => screen.paint("DOWN"),
            None => "unknown".to_owned(),
        };
        let counts = [("dropped", drops), ("errors", errors)];
        let counts = counts.into_iter().filter(|(_, count)| count.now > 0);
        let counts: Vec<_> = counts.map(|(what, count)| format!("{what} {}", counted(count))).collect();
        format!("{name} {state}{}{}", if counts.is_empty() { "" } else { ": " }, counts.join(", "))
    };
    let or_none =
        |lines: Vec<String>, none: &str| if lines.is_empty() { vec![none.to_owned()] } else { lines };
    let named = |list: &[(String, Count)]| -> Vec<String> {
        let some = list.iter().filter(|(_, count)| count.now > 0);
        some.map(|(name, count)| format!("{name} {}", counted(count))).collect()
    };
    section(
        &mut text,
        "links",
        or_none(links.iter().map(link).collect(), "none but lo: no packet comes in or out"),
    );
    section(
        &mut text,
        "routes beside those of its addresses",
        or_none(routes.clone(), "none: only its own subnets are reached"),
    );
    if !firewall.is_empty() {
        section(&mut text, "dropped by rules of the file", or_none(named(firewall), "nothing"));
    }
    if let Some([before, now]) = tcp {
        section(&mut text, "its TCP", or_none(tcp::lines(before, now), "nothing went wrong"));
    }
    let mut lines = named(figures);
    if let Some((entries, limit)) = conntrack.filter(|(entries, _)| *entries > 0) {
        let full = if entries >= limit { ": FULL, each new connection is dropped" } else { "" };
        lines.push(format!("conntrack has {entries} of {limit} connections{full}"));
    }
    section(&mut text, "queues and tables of its network stack", or_none(lines, "nothing overflowed"));
    for note in notes {
        text.push_str(&format!("note: {note}\n"));
    }
    text
}

fn section(text: &mut String, title: &str, lines: Vec<String>) {
    text.push_str(&format!("\n{title}\n  {}\n", lines.join("\n  ")));
}

const COLUMNS: [Column; 4] =
    [table::text("DROPPED"), table::text("SINCE BEGIN"), table::text("REASON"), table::text("WHERE").wraps()];

fn drops_text(rows: &[Row], seconds: u64, screen: Screen) -> String {
    if rows.is_empty() {
        return String::new();
    }
    let mut lines = Vec::new();
    for Row { reason, drops, places } in rows {
        let mut columns = vec![drops.rose.to_string(), drops.now.to_string(), reason.clone()];
        columns.push(places.iter().map(place).collect::<Vec<_>>().join(", "));
        // Nothing could rise.
        lines.push(if seconds == 0 { columns.split_off(1) } else { columns });
    }
    let columns = if seconds == 0 { &COLUMNS[1..] } else { &COLUMNS[..] };
    let mut text = format!("\n{}", table::fitted(columns, lines, screen));
    for row in rows {
        match plain(&row.reason) {
            Some(plain) => {
                let usual = if plain.usual { " (usual)" } else { "" };
                text.push_str(&format!("\n{}{usual}: {}\n  look: {}\n", row.reason, plain.says, plain.look));
            }
            None => text.push_str(&format!(
                "\n{}: the kernel's own name; nothing is known of it here.\n",
                row.reason
            )),
        }
    }
    text
}

fn place((function, count): &(String, Count)) -> String {
    format!("{} {}", if function.is_empty() { "elsewhere" } else { function }, count.now)
}

/// `12`, or `12 (+3)`.
fn counted(Count { now, rose }: &Count) -> String {
    if *rose > 0 { format!("{now} (+{rose})") } else { now.to_string() }
}

fn as_json(report: &Report<'_>) -> Value {
    let Report { netns, seconds, rows, links, routes, firewall, tcp, conntrack, figures, notes } = report;
    let pair = |count: &Count| json!({ "dropped": count.rose, "total": count.now });
    let named = |list: &[(String, Count)]| -> Value {
        let each = list
            .iter()
            .map(|(name, count)| (name.clone(), json!({ "rose": count.rose, "total": count.now })));
        each.collect::<serde_json::Map<_, _>>().into()
    };
    let row = |Row { reason, drops, places }: &Row| {
        let plain = plain(reason);
        let place = |(function, count): &(String, Count)| {
            let mut object = pair(count);
            object["function"] = json!(Some(function).filter(|function| !function.is_empty()));
            object
        };
        json!({
            "reason": reason,
            "dropped": drops.rose,
            "total": drops.now,
            "usual": plain.map(|plain| plain.usual),
            "says": plain.map(|plain| plain.says),
            "look": plain.map(|plain| plain.look),
            "where": places.iter().map(place).collect::<Vec<_>>(),
        })
    };
    let link = |Link { name, running, drops, errors }: &Link| {
        json!({
            "name": name,
            "running": running,
            "drops": { "rose": drops.rose, "total": drops.now },
            "errors": { "rose": errors.rose, "total": errors.now },
        })
    };
    json!({
        "netns": netns,
        "seconds": seconds,
        "drops": rows.as_ref().map(|rows| rows.iter().map(row).collect::<Vec<_>>()),
        "links": links.iter().map(link).collect::<Vec<_>>(),
        "routes": routes,
        "firewall_drops": named(firewall),
        "conntrack": conntrack.map(|(entries, limit)| json!({ "entries": entries, "limit": limit })),
        "tcp": tcp.map(|[before, now]| tcp::as_json(&before, &now)),
        "figures": named(figures),
        "notes": notes,
    })
}
