//! Who holds a namespace, as it is shown to whoever reaches the port: programs without their arguments.

use crate::{
    export::{Holder, Holders},
    holders::{Descriptor, Mount, Process, Report, Target, find},
};

/// Looks through `/proc`. Blocks for as long as that takes.
pub(super) fn holding(inode: u64) -> Result<Holders, String> {
    let unreadable = |error: std::io::Error| format!("cannot read /proc: {error}");
    let report = find(&Target::of_inode(inode).map_err(unreadable)?).map_err(unreadable)?;
    Ok(told(report))
}

fn told(report: Report) -> Holders {
    let holder = |kind, process: Option<&Process>, at| Holder {
        kind,
        pid: process.map(|process| process.pid),
        uid: process.and_then(|process| process.uid),
        program: process.map(|process| program(&process.command).to_owned()),
        at,
    };
    let mut holders = Vec::new();
    for inside in &report.processes {
        let threads = inside.threads.len();
        let (kind, at) = match (inside.all, threads) {
            (true, 1) => ("process", String::new()),
            (true, _) => ("process", format!("{threads} threads")),
            (false, _) => ("thread", format!("{threads} of its threads")),
        };
        holders.push(holder(kind, Some(&inside.process), at));
    }
    for (kind, descriptors) in [("descriptor", &report.descriptors), ("socket", &report.sockets)] {
        let each = descriptors.iter();
        holders
            .extend(each.map(|Descriptor { process, fd }| holder(kind, Some(process), format!("fd {fd}"))));
    }
    holders.extend(report.mounts.iter().map(|Mount { path, elsewhere }| {
        let process = elsewhere.as_ref().map(|(_, process)| process);
        holder("mount", process, path.clone())
    }));
    Holders { holders, notes: report.notes }
}

/// The first word of a command line, without its folders.
fn program(command: &str) -> &str {
    let first = command.split_whitespace().next().unwrap_or_default();
    first.rsplit('/').next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::holders::Inside;

    #[test]
    fn arguments_are_not_told() {
        let process = |command: &str| Process { pid: 7, uid: Some(0), command: command.to_owned() };
        let inside = |command, threads: &[u32], all| Inside {
            process: process(command),
            threads: threads.to_vec(),
            all,
        };
        let report = Report {
            processes: vec![
                inside("/usr/bin/client --password=secret", &[7], true),
                inside("[sh]", &[8], false),
            ],
            sockets: vec![Descriptor { process: process("proxy -k key"), fd: 3 }],
            mounts: vec![Mount { path: "/run/elsewhere".to_owned(), elsewhere: None }],
            ..Report::default()
        };
        let told = told(report).holders;
        let lines: Vec<_> =
            told.iter().map(|one| (one.kind, one.program.as_deref(), one.at.as_str())).collect();
        assert_eq!(
            lines,
            [
                ("process", Some("client"), ""),
                ("thread", Some("[sh]"), "1 of its threads"),
                ("socket", Some("proxy"), "fd 3"),
                ("mount", None, "/run/elsewhere"),
            ]
        );
    }
}
