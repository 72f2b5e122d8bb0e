//! `netns-monitor holders NS`.

use clap::Args;
use serde_json::{Value, json};

use super::{
    Global, print,
    table::{self, Column, Screen},
};
use crate::{
    agent::{Failure, engine::Engine, lock::RunLock},
    holders::{self, Descriptor, Mount, Process, Report, Target},
    topology::names::{NameError, NsName},
};

/// Options of `holders`.
#[derive(Debug, Args)]
pub(super) struct Options {
    /// Name of the namespace, or the label that `ls` shows
    #[arg(required_unless_present = "inode", conflicts_with = "inode")]
    netns: Option<String>,
    /// Its inode instead, for one without a name (`lsns -t net`, `ls -Li /proc/PID/ns/net`)
    #[arg(long, value_name = "N")]
    inode: Option<u64>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(global: &Global, Options { netns, inode, json }: &Options) -> Result<(), Failure> {
    let target = match (netns, inode) {
        (Some(netns), _) => target(global, netns)?,
        (None, Some(inode)) => Target::of_inode(*inode).map_err(unreadable)?,
        (None, None) => return Err(Failure::Usage("give a name, or --inode".to_owned())),
    };
    let mut report = holders::find(&target).map_err(unreadable)?;
    // The agent never holds one while idle. Where it does all the same, that is to be seen.
    let agent = RunLock::holder(&global.run_dir).and_then(|pid| pid.parse::<u32>().ok());
    if let Some(agent) = agent.filter(|agent| report.pids().any(|pid| pid == *agent)) {
        report.notes.push(format!(
            "process {agent} is the agent of {}: it enters namespaces only for a moment; if it is still here when \
             asked again, that is a fault of netns-monitor",
            global.run_dir.display()
        ));
    }
    match json {
        true => print(&format!("{:#}\n", as_json(netns.as_deref(), &target, &report))),
        false => print(&as_text(netns.as_deref(), &target, &report)),
    }
}

/// By its file, else by the label that `ls` shows.
fn target(global: &Global, netns: &str) -> Result<Target, Failure> {
    let by_file = netns
        .parse()
        .map_err(|error: NameError| Failure::Usage(error.to_string()))
        .and_then(|name: NsName| Ok(Target::named(&global.netns_dir, &name).map_err(anyhow::Error::from)?));
    let Err(why) = by_file else { return by_file };
    let view = Engine::look(&global.host()).and_then(|look| look.view());
    let found = view.ok().and_then(|view| {
        let mut all = view.sample.namespaces.iter();
        all.find(|found| found.label == netns).and_then(|found| found.inode)
    });
    match found {
        Some(inode) => Target::of_inode(inode).map_err(unreadable),
        None => Err(why),
    }
}

fn unreadable(error: std::io::Error) -> Failure {
    Failure::Failed(anyhow::anyhow!("cannot read /proc: {error}"))
}

const COLUMNS: [Column; 5] = [
    table::text("KIND"),
    table::text("PID"),
    table::text("UID").goes(1),
    table::text("COMMAND").wraps(),
    table::text("WHERE").wraps(),
];

fn as_text(netns: Option<&str>, target: &Target, report: &Report) -> String {
    let mut text = match (report.is_empty(), netns) {
        (true, Some(netns)) => format!("nothing holds {netns} besides its name\n"),
        (true, None) => format!("nothing holds a namespace of inode {}\n", target.inode),
        (false, _) => table::fitted(&COLUMNS, rows(report), Screen::stdout()),
    };
    for note in &report.notes {
        text.push_str(&format!("note: {note}\n"));
    }
    text
}

fn rows(report: &Report) -> Vec<Vec<String>> {
    let row = |kind: &str, process: Option<&Process>, at: String| {
        let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
        vec![
            kind.to_owned(),
            or_dash(process.map(|process| process.pid.to_string())),
            or_dash(process.and_then(|process| process.uid).map(|uid| uid.to_string())),
            or_dash(process.map(|process| process.command.clone())),
            at,
        ]
    };
    let mut rows = Vec::new();
    for inside in &report.processes {
        let (kind, at) = match (inside.all, inside.threads.as_slice()) {
            (true, [_]) => ("process", "-".to_owned()),
            (true, threads) => ("process", format!("{} threads", threads.len())),
            (false, threads) => {
                ("thread", threads.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "))
            }
        };
        rows.push(row(kind, Some(&inside.process), at));
    }
    for (kind, descriptors) in [("descriptor", &report.descriptors), ("socket", &report.sockets)] {
        let each = descriptors.iter();
        rows.extend(each.map(|Descriptor { process, fd }| row(kind, Some(process), format!("fd {fd}"))));
    }
    rows.extend(report.mounts.iter().map(|Mount { path, elsewhere }| match elsewhere {
        None => row("mount", None, path.clone()),
        Some((namespace, process)) => {
            row("mount", Some(process), format!("{path} in mount namespace {namespace}"))
        }
    }));
    rows
}

fn as_json(netns: Option<&str>, target: &Target, report: &Report) -> Value {
    let person =
        |Process { pid, uid, command }: &Process| json!({ "pid": pid, "uid": uid, "command": command });
    let with = |process: &Process, key: &str, value: Value| {
        let mut object = person(process);
        object[key] = value;
        object
    };
    let descriptors = |list: &[Descriptor]| -> Vec<Value> {
        list.iter().map(|Descriptor { process, fd }| with(process, "fd", json!(fd))).collect()
    };
    let processes: Vec<_> = report
        .processes
        .iter()
        .map(|inside| {
            let mut object = with(&inside.process, "threads", json!(inside.threads));
            object["all_threads"] = json!(inside.all);
            object
        })
        .collect();
    let mounts: Vec<_> = report
        .mounts
        .iter()
        .map(|Mount { path, elsewhere }| match elsewhere {
            None => json!({ "path": path }),
            Some((namespace, process)) => {
                let mut object = with(process, "path", json!(path));
                object["mount_namespace"] = json!(namespace);
                object
            }
        })
        .collect();
    json!({
        "netns": netns,
        "inode": target.inode,
        "processes": processes,
        "descriptors": descriptors(&report.descriptors),
        "sockets": descriptors(&report.sockets),
        "mounts": mounts,
        "notes": report.notes,
    })
}
