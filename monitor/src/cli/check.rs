//! `netns-monitor check [NS…]`.

use std::{collections::BTreeSet, net::IpAddr, path::PathBuf, process::ExitCode, time::Duration};

use clap::Args;
use serde_json::json;

use super::{
    Global, print,
    table::{self, Column, Screen},
};
use crate::{
    agent::{
        Failure,
        engine::{Engine, Look},
    },
    check::{Check, Report, Row, differs::File, ping::Pace, targets::Wanted},
    config, netns,
    topology::{
        Observed, Topology,
        names::{NsName, Place},
    },
};

/// Between two echoes.
const INTERVAL: Duration = Duration::from_millis(20);

/// Options of `check`.
#[derive(Debug, Args)]
pub(super) struct Options {
    /// Names of namespaces; without one, those that netns-monitor wired (of the file, where one is given)
    #[arg(value_name = "NS")]
    netns: Vec<String>,
    /// What should be there: what differs from it is named, too
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// An address outside that should answer; may be given more than once
    #[arg(long, value_name = "ADDRESS", value_parser = of_a_host)]
    outside: Vec<IpAddr>,
    /// Echoes to each address
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=1000))]
    count: u16,
    /// How many seconds an answer may take
    #[arg(long, value_name = "S", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=60))]
    timeout: u16,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// An address that can be somebody's, outside.
fn of_a_host(text: &str) -> Result<IpAddr, String> {
    let address = text.parse().map_err(|error| format!("{error}"))?;
    config::of_one_host(address).map_err(|why| format!("that {why}"))?;
    Ok(address)
}

pub(super) fn run(global: &Global, options: &Options) -> Result<ExitCode, Failure> {
    let asked: Result<Vec<NsName>, _> = options.netns.iter().map(|name| name.parse()).collect();
    let asked =
        asked.map_err(|error: crate::topology::names::NameError| Failure::Usage(error.to_string()))?;
    let topology = options.file.as_deref().map(config::load).transpose()?;
    let look = Engine::look(&global.host())?;
    let there = netns::list(&global.netns_dir).map_err(anyhow::Error::from)?;
    let there: BTreeSet<NsName> = there.into_iter().map(|(name, _)| name).collect();
    let in_file = |name: &NsName| topology.iter().any(|topology| has(topology, name));
    if let Some(unknown) = asked.iter().find(|name| !there.contains(name) && !in_file(name)) {
        let known: Vec<String> = there.iter().map(ToString::to_string).collect();
        let known = if known.is_empty() {
            "there is none".to_owned()
        } else {
            format!("there are: {}", known.join(", "))
        };
        return Err(Failure::Usage(format!("no namespace `{unknown}`; {known}")));
    }
    let observed = look.observe(&there)?;
    let mut wanted = wanted(asked, topology.as_ref(), &observed, options);
    (wanted.namespaces, wanted.absent) = wanted.namespaces.into_iter().partition(|name| there.contains(name));
    let file = match (topology, &options.file) {
        (Some(topology), Some(path)) => Some(difference(&look, topology, &path.display().to_string())?),
        _ => None,
    };
    if wanted.namespaces.is_empty() && file.as_ref().is_none_or(|file| file.steps.is_empty()) {
        print("nothing to check: netns-monitor wired no namespace here; name one, or apply a file first\n")?;
        return Ok(ExitCode::SUCCESS);
    }
    let check = Check {
        kernel: look.kernel(),
        netns_dir: &global.netns_dir,
        observed: &observed,
        wanted,
        pace: Pace {
            count: options.count,
            interval: INTERVAL,
            timeout: Duration::from_secs(options.timeout.into()),
        },
        file,
        counts: &|| look.counts(&observed),
    };
    let report = check.run()?;
    print(&if options.json {
        format!("{:#}\n", as_json(&report))
    } else {
        as_text(&report, Screen::stdout())
    })?;
    Ok(if report.is_fine() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn has(topology: &Topology, name: &NsName) -> bool {
    topology.namespaces.iter().any(|netns| netns.name == *name)
}

/// Which of these addresses a file gives which namespaces no way to.
fn inward(topology: &Topology, outside: &[IpAddr]) -> BTreeSet<(NsName, IpAddr)> {
    let reaches = |name: &NsName, to: &IpAddr| {
        let ends = topology.veths.iter().flat_map(|veth| [&veth.a, &veth.b]);
        let mut ends = ends.filter(|end| end.link.place == Place::Netns(name.clone()));
        ends.any(|end| end.addresses.iter().chain(&end.pools).any(|net| net.contains(to)))
    };
    let mut found = BTreeSet::new();
    for netns in &topology.namespaces {
        // Where a device or a rule is the namespace's own, it may have ways that are not in the file.
        let closed = netns.rules.is_empty()
            && !topology.inner.iter().any(|inner| inner.end.link.place == Place::Netns(netns.name.clone()));
        let routed = |to: &IpAddr| netns.routes.iter().any(|route| route.to.contains(to));
        let shut = outside.iter().filter(|to| closed && !routed(to) && !reaches(&netns.name, to));
        found.extend(shut.map(|to| (netns.name.clone(), *to)));
    }
    found
}

/// Which namespaces, and what is known of them.
fn wanted(asked: Vec<NsName>, topology: Option<&Topology>, observed: &Observed, options: &Options) -> Wanted {
    let wired: BTreeSet<NsName> = observed
        .namespaces
        .iter()
        .filter(|(_, netns)| netns.owned || netns.adopted())
        .map(|(name, _)| name.clone())
        .collect();
    let of_file = |name: &&NsName| topology.is_none_or(|topology| has(topology, name));
    let named = !asked.is_empty();
    let namespaces = if named { asked } else { wired.iter().filter(of_file).cloned().collect() };
    let lo_down = topology.iter().flat_map(|topology| &topology.namespaces).filter(|netns| !netns.lo_up);
    Wanted {
        namespaces,
        absent: Vec::new(),
        inward: topology.map(|topology| inward(topology, &options.outside)).unwrap_or_default(),
        without_lo: lo_down.map(|netns| netns.name.clone()).collect(),
        wired,
        outside: options.outside.clone(),
        named,
    }
}

fn difference(look: &Look, topology: Topology, path: &str) -> Result<File, Failure> {
    let steps = look.plan(&topology)?;
    Ok(File { topology, steps, apply: format!("netns-monitor apply {path}") })
}

const COLUMNS: [Column; 7] = [
    table::text("NETNS"),
    table::text("WHAT").wraps(),
    table::text("FAMILY").goes(2),
    table::number("SENT"),
    table::number("RECEIVED"),
    table::number("RTT MIN/AVG/MAX MS").goes(1),
    table::state("RESULT").wraps(),
];

fn as_text(report: &Report, screen: Screen) -> String {
    let rows = report.rows.iter().map(|row| {
        vec![
            row.netns.to_string(),
            row.what.clone(),
            family(row).to_owned(),
            row.sent.to_string(),
            row.received.to_string(),
            row.rtt.map_or_else(|| "-".to_owned(), |times| times.map(milliseconds).join("/")),
            row.result.clone(),
        ]
    });
    let mut text = table::fitted(&COLUMNS, rows, screen);
    for finding in &report.findings {
        let word = if finding.fails { screen.paint("failed") } else { "note".to_owned() };
        text.push_str(&format!("\n{word}: {}\n", finding.cause.what));
        if let Some(mend) = &finding.cause.mend {
            text.push_str(&format!("  mend: {mend}\n"));
        }
    }
    text
}

fn family(row: &Row) -> &'static str {
    if row.ipv6 { "ipv6" } else { "ipv4" }
}

fn milliseconds(time: Duration) -> String {
    format!("{:.3}", time.as_secs_f64() * 1e3)
}

fn as_json(report: &Report) -> serde_json::Value {
    let rows = report.rows.iter().map(|row| {
        json!({
            "netns": row.netns.as_str(),
            "what": row.what,
            "family": family(row),
            "sent": row.sent,
            "received": row.received,
            "rtt_seconds": row.rtt.map(|[min, avg, max]| json!({
                "min": min.as_secs_f64(), "avg": avg.as_secs_f64(), "max": max.as_secs_f64(),
            })),
            "result": row.result,
            "finding": row.finding,
        })
    });
    let findings = report.findings.iter().map(|finding| {
        json!({
            "kind": finding.cause.kind,
            "what": finding.cause.what,
            "mend": finding.cause.mend,
            "fails": finding.fails,
        })
    });
    json!({
        "fine": report.is_fine(),
        "rows": rows.collect::<Vec<_>>(),
        "findings": findings.collect::<Vec<_>>(),
    })
}
