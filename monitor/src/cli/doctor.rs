//! `netns-monitor doctor`: every privilege, mount, kernel feature and program that is needed or would be used, whether
//! it is there, and what is lost without it. Tried for real in a throwaway namespace; the host is not changed.

use std::{fs, path::Path};

use clap::Args;
use serde_json::json;

use super::{
    Global, print,
    table::{self, Column, Screen},
};
use crate::{
    agent::{Failure, lock::RunLock, smoke},
    netns,
    probe::bpffs,
    sample::AttachMode,
};

/// Options of `doctor`.
#[derive(Debug, Args)]
pub(super) struct Options {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// One thing looked at.
struct Finding {
    what: String,
    there: bool,
    /// Without it the main job does not work.
    required: bool,
    /// What was seen.
    seen: String,
    /// What it is for, and so what is lost without it.
    lost: &'static str,
}

pub(super) fn run(global: &Global, Options { json }: &Options) -> Result<(), Failure> {
    let findings: Vec<Finding> =
        [privileges(), mounts(global), features(), settings(), programs()].into_iter().flatten().collect();
    let text = match json {
        true => format!("{:#}\n", json!(findings.iter().map(Finding::to_json).collect::<Vec<_>>())),
        false => report(&findings),
    };
    print(&text)?;
    match findings.iter().filter(|finding| finding.required && !finding.there).count() {
        0 => Ok(()),
        missing => Err(Failure::Missing(format!(
            "{missing} of the things it needs are missing (marked MISSING above)"
        ))),
    }
}

const COLUMNS: [Column; 4] =
    [table::text("WHAT"), table::state("STATE"), table::text("SEEN").wraps(), table::text("").wraps()];

fn report(findings: &[Finding]) -> String {
    let rows = findings.iter().map(|finding| {
        let state = match (finding.there, finding.required) {
            (true, _) => "ok",
            (false, true) => "MISSING",
            (false, false) => "absent",
        };
        let lost = if finding.there { String::new() } else { format!("lost: {}", finding.lost) };
        vec![finding.what.clone(), state.to_owned(), finding.seen.clone(), lost]
    });
    table::fitted(&COLUMNS, rows, Screen::stdout())
}

impl Finding {
    fn to_json(&self) -> serde_json::Value {
        let Self { what, there, required, seen, lost } = self;
        json!({ "what": what, "there": there, "required": required, "seen": seen, "lost_without": lost })
    }

    fn needed(what: &str, there: bool, seen: impl Into<String>, lost: &'static str) -> Self {
        Self { what: what.to_owned(), there, required: true, seen: seen.into(), lost }
    }

    fn used(what: &str, there: bool, seen: impl Into<String>, lost: &'static str) -> Self {
        Self { required: false, ..Self::needed(what, there, seen, lost) }
    }

    /// From an attempt: what it said is what was seen.
    fn tried(what: &str, attempt: &anyhow::Result<()>, lost: &'static str) -> Self {
        match attempt {
            Ok(()) => Self::needed(what, true, "tried, works", lost),
            Err(error) => Self::needed(what, false, format!("{error:#}"), lost),
        }
    }
}

/// Capabilities by number, from `include/uapi/linux/capability.h`.
const CAPABILITIES: [(&str, u32, bool, &str); 8] = [
    ("CAP_NET_ADMIN", 12, true, "links, addresses, routes, attaching programs"),
    ("CAP_SYS_ADMIN", 21, true, "creating and entering namespaces, mounting them"),
    ("CAP_NET_BROADCAST", 11, true, "hearing what changes in namespaces of others: the agent does not start"),
    ("CAP_BPF", 39, true, "loading programs and maps: nothing is counted"),
    ("CAP_PERFMON", 38, false, "tracing programs (drops with reason, what TCP meets with)"),
    ("CAP_SYS_PTRACE", 19, false, "namespaces that only other users' processes hold"),
    ("CAP_DAC_READ_SEARCH", 2, false, "namespaces that only descriptors of other users' processes hold"),
    (
        "CAP_SYS_CHROOT",
        18,
        false,
        "making namespaces visible from a service with a mount namespace of its own",
    ),
];

fn privileges() -> Vec<Finding> {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let effective = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok())
        .unwrap_or(0);
    let finding = |(name, bit, required, lost): (&str, u32, bool, &'static str)| {
        let there = effective >> bit & 1 == 1;
        let seen = if there { "in the effective set" } else { "not in the effective set: run as root" };
        Finding { required, ..Finding::needed(name, there, seen, lost) }
    };
    CAPABILITIES.into_iter().map(finding).collect()
}

fn mounts(global: &Global) -> Vec<Finding> {
    let path = &global.bpffs;
    let mounted = bpffs::is_bpffs(path);
    let seen = match (mounted, path.is_dir()) {
        (true, _) => "a bpffs".to_owned(),
        (false, true) => "a folder; the agent mounts a bpffs there".to_owned(),
        (false, false) => "no such folder".to_owned(),
    };
    let lost = "counts do not outlive the agent";
    let bpffs = Finding::used(&format!("bpffs {}", path.display()), mounted || path.is_dir(), seen, lost);
    let dir = &global.netns_dir;
    let seen = if dir.is_dir() { "there" } else { "not there yet; made with the first namespace" };
    let named = Finding::needed(&format!("named namespaces {}", dir.display()), true, seen, "");
    let holder = RunLock::holder(&global.run_dir);
    let seen = holder.map_or_else(|| "no agent holds it".to_owned(), |pid| format!("held by process {pid}"));
    let run = Finding::needed(&format!("run directory {}", global.run_dir.display()), true, seen, "");
    let btf = Path::new("/sys/kernel/btf/vmlinux").exists();
    let seen = if btf { "/sys/kernel/btf/vmlinux" } else { "no /sys/kernel/btf/vmlinux" };
    vec![
        bpffs,
        named,
        run,
        Finding::used("kernel type information (BTF)", btf, seen, "drops with reason, what TCP meets with"),
    ]
}

/// Tries the features themselves: versions say little on kernels with backports.
fn features() -> Vec<Finding> {
    let cookie = netns::own_identity().map(|_| ()).map_err(anyhow::Error::from);
    let (bridge, veth) = (smoke::bridge(), smoke::veth());
    let (tcx, clsact) = (smoke::count(AttachMode::Tcx), smoke::count(AttachMode::Clsact));
    let either = match (&tcx, &clsact) {
        (Ok(()), _) => Finding::needed("counting", true, "by tcx", ""),
        (Err(_), Ok(())) => Finding::needed("counting", true, "by clsact", ""),
        (Err(error), Err(_)) => {
            Finding::needed("counting", false, format!("{error:#}"), "nothing is counted")
        }
    };
    vec![
        Finding::tried("network namespace", &smoke::namespace(), "everything"),
        Finding::tried("namespace cookie (5.14)", &cookie, "telling namespaces apart"),
        Finding::tried("veth", &veth, "wiring namespaces"),
        Finding::tried("bridge", &bridge, "`[[bridge]]` and interfaces on one"),
        either,
        Finding {
            required: false,
            ..Finding::tried(
                "TCX links (6.6)",
                &tcx,
                "clsact is used: no links that outlive it, one shared qdisc",
            )
        },
        Finding {
            required: false,
            ..Finding::tried(
                "drops with reason (5.17, BTF)",
                &smoke::drops(),
                "netns_packet_drops_total, and what `why` tells of drops",
            )
        },
        Finding {
            required: false,
            ..Finding::tried(
                "tracepoints of TCP (4.16, BTF)",
                &smoke::tcp(),
                "failed connects, retransmits, resets, times of handshakes and round trips, and what `why` tells of them",
            )
        },
        Finding {
            required: false,
            ..Finding::tried("clsact (4.5)", &clsact, "the fallback where TCX is missing")
        },
    ]
}

fn settings() -> Vec<Finding> {
    let read = |path: &str| fs::read_to_string(path).map(|text| text.trim().to_owned()).ok();
    let is = |path: &str, value: &str| read(path).is_some_and(|text| text == value);
    let jit = !is("/proc/sys/net/core/bpf_jit_enable", "0");
    let ipv6 = is("/proc/sys/net/ipv6/conf/all/disable_ipv6", "0");
    let expedited = is("/sys/kernel/rcu_expedited", "1");
    let writable = fs::OpenOptions::new().write(true).open("/proc/sys/net/ipv4/ip_forward").is_ok();
    let limit = read("/proc/sys/user/max_net_namespaces");
    let proc = "/proc/sys/net";
    vec![
        Finding::used(
            "eBPF compiler (JIT)",
            jit,
            if jit { "on" } else { "net.core.bpf_jit_enable = 0" },
            "speed: programs are interpreted",
        ),
        Finding::used(
            "IPv6",
            ipv6,
            if ipv6 { "on" } else { "off in this kernel or by sysctl" },
            "IPv6 addresses in the file",
        ),
        Finding::used(
            proc,
            writable,
            if writable { "writable" } else { "read-only" },
            "settings of namespaces",
        ),
        Finding::used(
            "limit of namespaces",
            limit.as_deref() != Some("0"),
            limit.map_or_else(|| "unknown".to_owned(), |limit| format!("user.max_net_namespaces = {limit}")),
            "creating namespaces",
        ),
        Finding::used(
            "expedited RCU grace periods",
            expedited,
            if expedited { "on" } else { "off, as usual" },
            "one TCX attach takes milliseconds instead of microseconds; packets cost the same",
        ),
    ]
}

fn programs() -> Vec<Finding> {
    let found = |name: &str| {
        let path = std::env::var_os("PATH").unwrap_or_default();
        std::env::split_paths(&path).map(|dir| dir.join(name)).find(|path| path.is_file())
    };
    let finding = |name: &str, lost: &'static str| {
        let seen = found(name);
        let text = seen.as_ref().map_or_else(|| "not on PATH".to_owned(), |path| path.display().to_string());
        Finding::used(&format!("program {name}"), seen.is_some(), text, lost)
    };
    vec![finding("ip", "nothing: the agent talks to the kernel itself; you may want it to look with")]
}
