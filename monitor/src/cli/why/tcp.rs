//! What TCP met with in a namespace, in plain sentences. Pure.

use monitor_ebpf::health::{TcpCounts, direction, failure, kind, role};
use serde_json::{Value, json};

use super::report::Count;
use crate::sample::lost::{TCP_FAILURES, TCP_RETRANSMITS};

/// One thing that went wrong: how it reads of one and of many, and what it means.
struct Sentence {
    count: Count,
    one: &'static str,
    many: &'static str,
    means: &'static str,
}

/// What went wrong, each in a line; empty where nothing did.
pub(in crate::cli) fn lines(before: &TcpCounts, now: &TcpCounts) -> Vec<String> {
    let sentences = sentences(before, now).into_iter().filter(|sentence| sentence.count.now > 0);
    let line = |Sentence { count: Count { now, rose }, one, many, means }: Sentence| {
        let what = if now == 1 { one } else { many };
        let rose = if rose > 0 { format!(" (+{rose})") } else { String::new() };
        format!("{now} {what}{rose}: {means}")
    };
    sentences.map(line).collect()
}

fn sentences(before: &TcpCounts, now: &TcpCounts) -> Vec<Sentence> {
    let failed = |at: usize, one, many, means| {
        let count = Count::new(before.failures[at], now.failures[at]);
        Sentence { count, one, many, means }
    };
    let again = |at: usize, one, many, means| {
        let count = Count::new(before.retransmits[at], now.retransmits[at]);
        Sentence { count, one, many, means }
    };
    let reset = |at: usize, one, many, means| {
        let count = Count::new(before.resets[at], now.resets[at]);
        Sentence { count, one, many, means }
    };
    vec![
        failed(
            failure::REFUSED,
            "connect was refused",
            "connects were refused",
            "nobody listens on that port there, or a firewall answers in its place; ss -lnt where it went to",
        ),
        failed(
            failure::TIMEOUT,
            "connect timed out",
            "connects timed out",
            "no answer came: a firewall drops, the way back is missing, or the host is down; netns-monitor check",
        ),
        failed(
            failure::UNREACHABLE,
            "connect was unreachable",
            "connects were unreachable",
            "nobody answers for the address, or a router or firewall said so; ip neigh, ip route get ADDRESS",
        ),
        failed(
            failure::ABANDONED,
            "connect was given up",
            "connects were given up",
            "the program closed the socket before an answer came; its own time-out may be short",
        ),
        failed(
            failure::UNSENT,
            "connect was not sent",
            "connects were not sent",
            "no local port was free, mostly; ss -s, sysctl net.ipv4.ip_local_port_range",
        ),
        failed(
            failure::OTHER,
            "connect failed otherwise",
            "connects failed otherwise",
            "the program knows the error; strace -e connect",
        ),
        again(
            kind::SYN,
            "SYN was sent again",
            "SYNs were sent again",
            "the other end did not answer in time, each time a second or more is lost",
        ),
        again(
            kind::SYNACK,
            "SYN-ACK was sent again",
            "SYN-ACKs were sent again",
            "who connected did not answer in time: the way back loses packets, or does not exist",
        ),
        again(
            kind::FAST,
            "segment was sent again",
            "segments were sent again",
            "lost or far out of order on the way, and found out at once",
        ),
        again(
            kind::TIMEOUT,
            "segment was sent again after a time-out",
            "segments were sent again after a time-out",
            "no acknowledgement came at all: the connection stood still meanwhile",
        ),
        again(
            kind::PROBE,
            "segment was sent again to probe",
            "segments were sent again to probe",
            "the last ones before a pause were not acknowledged in time",
        ),
        reset(
            direction::RECEIVE,
            "reset came and ended a connection or connect",
            "resets came and ended a connection or connect",
            "the other end, or something between, does not know it any more or does not want it",
        ),
        reset(
            direction::TRANSMIT,
            "reset was sent",
            "resets were sent",
            "somebody came to a closed port, or a program closed a connection before it had read everything",
        ),
    ]
}

/// Everything, as JSON.
pub(in crate::cli) fn as_json(before: &TcpCounts, now: &TcpCounts) -> Value {
    let pair = |before: u64, now: u64| {
        let Count { now, rose } = Count::new(before, now);
        json!({ "rose": rose, "total": now })
    };
    let named = |names: &[&str], before: &[u64], now: &[u64]| -> Value {
        let each = names.iter().zip(before).zip(now);
        let each = each.map(|((name, before), now)| ((*name).to_owned(), pair(*before, *now)));
        each.collect::<serde_json::Map<_, _>>().into()
    };
    let of = |counts: [u64; 2], at: usize| counts[at];
    json!({
        "connect_failures": named(&TCP_FAILURES, &before.failures, &now.failures),
        "retransmitted_segments": named(&TCP_RETRANSMITS, &before.retransmits, &now.retransmits),
        "resets": {
            "receive": pair(of(before.resets, direction::RECEIVE), of(now.resets, direction::RECEIVE)),
            "transmit": pair(of(before.resets, direction::TRANSMIT), of(now.resets, direction::TRANSMIT)),
        },
        "connections_opened": {
            "client": pair(of(before.opened, role::CLIENT), of(now.opened, role::CLIENT)),
            "server": pair(of(before.opened, role::SERVER), of(now.opened, role::SERVER)),
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_did_not_happen_is_not_told_and_one_is_not_many() {
        assert!(lines(&TcpCounts::default(), &TcpCounts::default()).is_empty());
        let mut before = TcpCounts::default();
        before.failures[failure::TIMEOUT] = 2;
        let mut now = before;
        now.failures[failure::TIMEOUT] = 5;
        now.resets[direction::TRANSMIT] = 1;
        // What went well is none of it.
        now.opened = [7, 7];
        let lines = lines(&before, &now);
        assert_eq!(lines.len(), 2, "{lines:?}");
        assert!(lines[0].starts_with("5 connects timed out (+3): "), "{lines:?}");
        assert!(lines[1].starts_with("1 reset was sent (+1): "), "{lines:?}");
        assert_eq!(as_json(&before, &now)["connections_opened"]["server"]["total"], 7);
    }

    #[test]
    fn everything_that_can_go_wrong_has_a_sentence() {
        let now = TcpCounts {
            retransmits: [1; TCP_RETRANSMITS.len()],
            failures: [1; TCP_FAILURES.len()],
            resets: [1; 2],
            ..TcpCounts::default()
        };
        let lines = lines(&TcpCounts::default(), &now);
        assert_eq!(lines.len(), TCP_RETRANSMITS.len() + TCP_FAILURES.len() + 2);
    }
}
