//! What TCP met with in a namespace, in plain sentences. Pure.

use monitor_ebpf::health::{TcpCounts, direction, role};
use serde_json::{Value, json};

use super::report::Count;
use crate::{
    explain::tcp::{SENTENCES, Sentence},
    sample::lost::{TCP_FAILURES, TCP_RETRANSMITS},
};

/// What went wrong, each in a line; empty where nothing did.
pub(in crate::cli) fn lines(before: &TcpCounts, now: &TcpCounts) -> Vec<String> {
    let counted = SENTENCES.map(|sentence| (sentence, Count::new((sentence.of)(before), (sentence.of)(now))));
    let line = |(sentence, Count { now, rose }): (Sentence, Count)| {
        let Sentence { one, many, means, .. } = sentence;
        let what = if now == 1 { one } else { many };
        let rose = if rose > 0 { format!(" (+{rose})") } else { String::new() };
        format!("{now} {what}{rose}: {means}")
    };
    counted.into_iter().filter(|(_, count)| count.now > 0).map(line).collect()
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
    use monitor_ebpf::health::failure;

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
