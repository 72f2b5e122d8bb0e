//! What the kernel itself counted, as `ip` and `/proc` tell it: the referee, and none of our code.

use std::{collections::BTreeMap, fs};

use serde_json::Value;

use crate::host::{inside, ip};

/// The kernel's counters of a device, from the device's point of view.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Packets (one per skb) received by the device.
    pub rx_packets: u64,
    /// Bytes received.
    pub rx_bytes: u64,
    /// Received and dropped.
    pub rx_dropped: u64,
    /// Packets (one per skb) sent by the device.
    pub tx_packets: u64,
    /// Bytes sent.
    pub tx_bytes: u64,
    /// To be sent and dropped; a veth whose other end is down or whose queue is full drops here.
    pub tx_dropped: u64,
}

/// Counters of a device of the test's host.
///
/// # Panics
/// When there is no such device.
#[must_use]
pub fn stats(device: &str) -> Stats {
    parse(&ip(&format!("-j -s -s link show dev {device}")))
}

/// Counters of a device inside a namespace.
///
/// # Panics
/// When there is no such device.
#[must_use]
pub fn stats_inside(netns: &str, device: &str) -> Stats {
    parse(&ip(&format!("-n {netns} -j -s -s link show dev {device}")))
}

fn parse(json: &str) -> Stats {
    let links: Value = serde_json::from_str(json).unwrap_or_else(|error| panic!("{error}: {json}"));
    let number = |direction: &str, what: &str| {
        let number = links[0]["stats64"][direction][what].as_u64();
        number.unwrap_or_else(|| panic!("no {direction} {what} in {json}"))
    };
    Stats {
        rx_packets: number("rx", "packets"),
        rx_bytes: number("rx", "bytes"),
        rx_dropped: number("rx", "dropped"),
        tx_packets: number("tx", "packets"),
        tx_bytes: number("tx", "bytes"),
        tx_dropped: number("tx", "dropped"),
    }
}

/// `/proc/net/snmp` and `/proc/net/netstat` of a namespace: values as `Tcp.OutSegs`.
///
/// # Panics
/// When they cannot be read.
#[must_use]
pub fn protocol_counters(netns: &str) -> BTreeMap<String, u64> {
    let read = |file| fs::read_to_string(format!("/proc/thread-self/net/{file}")).expect("counters of /proc");
    let text = inside(netns, || read("snmp") + &read("netstat"));
    let mut counters = BTreeMap::new();
    let lines: Vec<&str> = text.lines().collect();
    for pair in lines.chunks_exact(2) {
        let (Some((group, names)), Some((_, values))) = (pair[0].split_once(':'), pair[1].split_once(':'))
        else {
            panic!("not in pairs: {pair:?}")
        };
        for (name, value) in names.split_whitespace().zip(values.split_whitespace()) {
            // Only Tcp.MaxConn is negative.
            counters.insert(format!("{group}.{name}"), value.parse().unwrap_or_default());
        }
    }
    counters
}

/// Every link, address and route of the test's host as `ip -j` shows them, without what changes by itself.
///
/// # Panics
/// When `ip` fails.
#[must_use]
pub fn wiring() -> String {
    // Names alone: the kernel gives ids when somebody looks.
    let netns = fs::read_dir("/run/netns").map_or_else(|_| Vec::new(), |entries| entries.flatten().collect());
    let mut netns: Vec<_> =
        netns.iter().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    netns.sort();
    // What the kernel finds out by itself a moment after a link is up.
    let addresses = ip("-j addr").replace("\"operstate\":\"UNKNOWN\"", "\"operstate\":\"UP\"");
    let addresses = addresses.replace("\"tentative\":true,", "");
    [addresses, ip("-j route show table all"), ip("-j -6 route show table all"), netns.join(" ")].join(
        "
",
    )
}

/// Names of the links of the test's host.
///
/// # Panics
/// When `ip` fails.
#[must_use]
pub fn links() -> Vec<String> {
    let links: Value = serde_json::from_str(&ip("-j link")).expect("JSON of ip");
    let name = |link: &Value| link["ifname"].as_str().expect("a name").to_owned();
    links.as_array().expect("a list").iter().map(name).collect()
}

/// One field of a link, as `ip -j -d addr show` tells it.
///
/// # Panics
/// When there is no such link.
#[must_use]
pub fn link(netns: Option<&str>, device: &str) -> Value {
    let netns = netns.map(|netns| format!("-n {netns} ")).unwrap_or_default();
    let json = ip(&format!("{netns}-j -d addr show dev {device}"));
    let links: Value = serde_json::from_str(&json).expect("JSON of ip");
    links[0].clone()
}

/// Everything below the bpffs of the test's host but the kernel's own two files.
///
/// # Panics
/// When a directory cannot be read.
#[must_use]
pub fn pins() -> Vec<String> {
    let mut found = Vec::new();
    let mut left = vec![std::path::PathBuf::from("/sys/fs/bpf")];
    while let Some(directory) = left.pop() {
        for entry in fs::read_dir(&directory).expect("a directory") {
            let path = entry.expect("an entry").path();
            // The kernel puts two of its own iterators into every bpffs.
            if path.extension().is_some_and(|extension| extension == "debug") {
                continue;
            }
            found.push(path.display().to_string());
            if path.is_dir() {
                left.push(path);
            }
        }
    }
    // Where CONFIG_BPF_PRELOAD is on, every bpffs has them.
    found.retain(|path| !path.ends_with("/maps.debug") && !path.ends_with("/progs.debug"));
    found.sort();
    found
}
