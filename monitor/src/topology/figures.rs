//! What the kernel itself says of a namespace's network in `/proc/net`, as far as it tells that something is lost.

use std::collections::BTreeMap;

/// Figures of one namespace, read at one moment. What the kernel does not have is absent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// Queues of sockets that overflowed, by queue, see [`QUEUES`].
    pub overflows: BTreeMap<&'static str, u64>,
    /// Connection requests that a listening socket dropped, for whatever reason (`ListenDrops`).
    pub listen_drops: Option<u64>,
    /// IP packets discarded though nothing was wrong with them, for want of memory for example: received, sent.
    pub discards: [Option<u64>; 2],
    /// IP packets for which there was no route: received (to be forwarded), sent.
    pub no_route: [Option<u64>; 2],
    /// Connection tracking; absent where the namespace has none.
    pub conntrack: Option<Conntrack>,
    /// TCP connections; absent where the kernel does not tell.
    pub connections: Option<Connections>,
}

/// TCP states by the kernel's number, `include/net/tcp_states.h`; under the empty name what is no connection.
const STATES: [&str; 13] = [
    "",
    "established",
    "syn_sent",
    "syn_recv",
    "fin_wait1",
    "fin_wait2",
    "time_wait",
    "",
    "close_wait",
    "last_ack",
    "listen",
    "closing",
    // Connection requests (`TCP_NEW_SYN_RECV`), which the kernel's tools show as what they are.
    "syn_recv",
];

/// TCP connections of one namespace by state, of both families; sockets that listen are among them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Connections([u64; STATES.len()]);

impl Connections {
    /// Counts a socket in this state.
    pub fn add(&mut self, state: u8) {
        // The two names of one state are one number.
        let state = if state == 12 { 3 } else { usize::from(state) };
        if let Some(count) = self.0.get_mut(state) {
            *count += 1;
        }
    }

    /// Every state and how many are in it.
    pub fn each(&self) -> impl Iterator<Item = (&'static str, u64)> {
        STATES.into_iter().zip(self.0).take(12).filter(|(state, _)| !state.is_empty())
    }
}

/// Whether a namespace has a TCP socket that is more than a descriptor, by its `/proc/net/sockstat` and `sockstat6`. Where
/// they are not as expected it may have some.
pub fn has_tcp(four: &str, six: &str) -> bool {
    let number = |text: &str, line: &str, name: &str| -> Option<u64> {
        let mut words = text.lines().find_map(|found| found.strip_prefix(line))?.split_whitespace();
        words.find(|word| *word == name)?;
        words.next()?.parse().ok()
    };
    let idle = number(four, "TCP:", "inuse") == Some(0) && number(four, "TCP:", "tw") == Some(0);
    !idle || (!six.is_empty() && number(six, "TCP6:", "inuse") != Some(0))
}

/// Which figures are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parts {
    /// Those of the network stack: [`Figures::overflows`] to [`Figures::no_route`], and connections.
    pub netstat: bool,
    /// [`Figures::conntrack`].
    pub conntrack: bool,
}

impl Parts {
    /// All.
    pub const ALL: Self = Self { netstat: true, conntrack: true };
    /// None: who only wires needs none.
    pub const NONE: Self = Self { netstat: false, conntrack: false };
}

/// Connection tracking of one namespace.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Conntrack {
    /// Connections tracked now.
    pub entries: u64,
    /// How many there can be (`net.netfilter.nf_conntrack_max`).
    pub limit: u64,
    /// Packets dropped because there was no room for their connection.
    pub drops: Option<u64>,
    /// Connections that were thrown out to make room.
    pub early_drops: Option<u64>,
    /// Connections that could not be entered.
    pub insert_failures: Option<u64>,
}

/// The files below `/proc/thread-self/net` that [`Figures::parse`] reads, in its order; the last is connection tracking's.
pub const FILES: [&str; 4] = ["snmp", "netstat", "snmp6", "stat/nf_conntrack"];

/// Queues of sockets: our word, and the kernel's counters that are summed for it.
pub const QUEUES: [(&str, &[&str]); 6] = [
    ("udp_receive", &["Udp.RcvbufErrors", "Udp6RcvbufErrors"]),
    ("udp_send", &["Udp.SndbufErrors", "Udp6SndbufErrors"]),
    ("tcp_listen", &["TcpExt.ListenOverflows"]),
    ("tcp_syn", &["TcpExt.TCPReqQFullDrop"]),
    ("tcp_backlog", &["TcpExt.TCPBacklogDrop"]),
    ("tcp_receive", &["TcpExt.TCPRcvQDrop", "TcpExt.TCPOFODrop"]),
];

impl Figures {
    /// The counters of queues and tables that overflow, in words; those the kernel has.
    pub fn named(&self) -> BTreeMap<String, u64> {
        let queues =
            self.overflows.iter().map(|(queue, count)| (format!("{queue} queue full"), Some(*count)));
        let conntrack = |of: fn(Conntrack) -> Option<u64>| self.conntrack.and_then(of);
        let others = [
            ("listen drops", self.listen_drops),
            ("discarded, received", self.discards[0]),
            ("discarded, sent", self.discards[1]),
            ("no route, received", self.no_route[0]),
            ("no route, sent", self.no_route[1]),
            ("conntrack full", conntrack(|conntrack| conntrack.drops)),
            ("conntrack evictions", conntrack(|conntrack| conntrack.early_drops)),
            ("conntrack insert failures", conntrack(|conntrack| conntrack.insert_failures)),
        ];
        let others = others.into_iter().map(|(name, count)| (name.to_owned(), count));
        queues.chain(others).filter_map(|(name, count)| Some((name, count?))).collect()
    }

    /// What the texts of [`FILES`] say, with the number of tracked connections and its limit where they are known. A
    /// text that could not be read is empty.
    pub fn parse(texts: &[String; FILES.len()], conntrack: Option<(u64, u64)>) -> Self {
        let [snmp, netstat, snmp6, stat] = texts;
        let mut counters = BTreeMap::new();
        pairs(snmp, &mut counters);
        pairs(netstat, &mut counters);
        lines(snmp6, &mut counters);
        let sum = |names: &[&str]| {
            let found: Vec<u64> = names.iter().filter_map(|name| counters.get(*name).copied()).collect();
            (!found.is_empty()).then(|| found.iter().sum())
        };
        let stat = columns(stat);
        Self {
            overflows: QUEUES.iter().filter_map(|(queue, names)| Some((*queue, sum(names)?))).collect(),
            listen_drops: sum(&["TcpExt.ListenDrops"]),
            discards: [sum(&["Ip.InDiscards", "Ip6InDiscards"]), sum(&["Ip.OutDiscards", "Ip6OutDiscards"])],
            no_route: [
                sum(&["IpExt.InNoRoutes", "Ip6InNoRoutes"]),
                sum(&["Ip.OutNoRoutes", "Ip6OutNoRoutes"]),
            ],
            conntrack: conntrack.map(|(entries, limit)| Conntrack {
                entries,
                limit,
                drops: stat.get("drop").copied(),
                early_drops: stat.get("early_drop").copied(),
                insert_failures: stat.get("insert_failed").copied(),
            }),
            connections: None,
        }
    }
}

/// Pairs of lines, names over values: `Udp: InDatagrams NoPorts …` over `Udp: 5 0 …`.
fn pairs(text: &str, counters: &mut BTreeMap<String, u64>) {
    let mut lines = text.lines();
    while let (Some(names), Some(values)) = (lines.next(), lines.next()) {
        let (Some((group, names)), Some((_, values))) = (names.split_once(':'), values.split_once(':'))
        else {
            continue;
        };
        for (name, value) in names.split_whitespace().zip(values.split_whitespace()) {
            if let Ok(value) = value.parse() {
                counters.insert(format!("{group}.{name}"), value);
            }
        }
    }
}

/// One counter a line: `Ip6InNoRoutes 7`.
fn lines(text: &str, counters: &mut BTreeMap<String, u64>) {
    for line in text.lines() {
        let mut words = line.split_whitespace();
        if let (Some(name), Some(Ok(value))) = (words.next(), words.next().map(str::parse)) {
            counters.insert(name.to_owned(), value);
        }
    }
}

/// A line of names over one line of hexadecimal values for each CPU: their sums.
fn columns(text: &str) -> BTreeMap<&str, u64> {
    let mut lines = text.lines();
    let Some(names) = lines.next() else { return BTreeMap::new() };
    let mut sums: BTreeMap<&str, u64> = BTreeMap::new();
    for line in lines {
        for (name, value) in names.split_whitespace().zip(line.split_whitespace()) {
            *sums.entry(name).or_default() += u64::from_str_radix(value, 16).unwrap_or(0);
        }
    }
    sums
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts() -> [String; FILES.len()] {
        [
            "Ip: InDiscards OutDiscards OutNoRoutes\nIp: 1 2 3\nTcp: MaxConn\nTcp: -1\n\
             Udp: InDatagrams RcvbufErrors SndbufErrors\nUdp: 9 10 0\n",
            "TcpExt: ListenOverflows ListenDrops TCPRcvQDrop TCPOFODrop\nTcpExt: 4 5 6 7\nIpExt: InNoRoutes\nIpExt: 8\n",
            "Ip6InNoRoutes                   \t20\nUdp6RcvbufErrors\t30\nIp6OutDiscards 40\n",
            "entries  drop early_drop insert_failed\n00000010  0000000a 00000001 00000000\n00000010  00000001 00000000 00000002\n",
        ]
        .map(ToOwned::to_owned)
    }

    #[test]
    fn both_families_and_all_cpus_are_summed() {
        let figures = Figures::parse(&texts(), Some((16, 300)));
        assert_eq!(
            figures.overflows,
            [("udp_receive", 40), ("udp_send", 0), ("tcp_listen", 4), ("tcp_receive", 13)].into()
        );
        assert_eq!(figures.listen_drops, Some(5));
        assert_eq!((figures.discards, figures.no_route), ([Some(1), Some(42)], [Some(28), Some(3)]));
        let expected = Conntrack {
            entries: 16,
            limit: 300,
            drops: Some(11),
            early_drops: Some(1),
            insert_failures: Some(2),
        };
        assert_eq!(figures.conntrack, Some(expected));
    }

    #[test]
    fn what_is_not_there_is_absent() {
        assert_eq!(Figures::parse(&Default::default(), None), Figures::default());
        let mut texts = texts();
        texts[3].clear();
        let conntrack = Figures::parse(&texts, Some((1, 2))).conntrack.expect("there");
        assert_eq!((conntrack.entries, conntrack.drops), (1, None));
    }

    #[test]
    fn only_a_namespace_that_surely_has_no_socket_is_not_asked() {
        let four = |inuse, tw| {
            format!("sockets: used 9\nTCP: inuse {inuse} orphan 7 tw {tw} alloc 9 mem 1\nUDP: inuse 3\n")
        };
        let six = |inuse| format!("TCP6: inuse {inuse}\nUDP6: inuse 4\n");
        assert!(!has_tcp(&four(0, 0), &six(0)));
        assert!(!has_tcp(&four(0, 0), ""), "a kernel without IPv6");
        for (four, six) in [(four(1, 0), six(0)), (four(0, 1), six(0)), (four(0, 0), six(1))] {
            assert!(has_tcp(&four, &six), "{four} {six}");
        }
        assert!(has_tcp("", "") && has_tcp(&four(0, 0), "UDP6: inuse 0\n") && has_tcp("TCP: inuse\n", ""));
    }

    #[test]
    fn states_that_are_no_connection_are_left_out() {
        let mut connections = Connections::default();
        (0..=255).for_each(|state| connections.add(state));
        let all: Vec<_> = connections.each().collect();
        assert_eq!(all.len(), 10);
        assert!(
            all.iter().all(|(state, count)| *count == if *state == "syn_recv" { 2 } else { 1 }),
            "{all:?}"
        );
    }

    #[test]
    fn nonsense_is_no_figure() {
        for text in ["Ip: A B", "Ip\nIp: 1", "Ip: A\nIp: x", "\n\n\n", "Udp: RcvbufErrors\nUdp:"] {
            let texts = [text, text, text, text].map(ToOwned::to_owned);
            assert_eq!(Figures::parse(&texts, None), Figures::default(), "{text:?}");
        }
    }
}
