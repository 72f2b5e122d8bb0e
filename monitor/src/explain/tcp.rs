//! What TCP meets with, in plain sentences.

use monitor_ebpf::health::{FAILURES, KINDS, TcpCounts, direction, failure, kind};

/// One thing that goes wrong: how it reads of one and of many, and what it means.
#[derive(Clone, Copy, Debug)]
pub struct Sentence {
    /// Its name, in letters and underscores.
    pub name: &'static str,
    /// How often it happened.
    pub of: fn(&TcpCounts) -> u64,
    /// After the number one.
    pub one: &'static str,
    /// After any other.
    pub many: &'static str,
    /// What it means, and what to look at.
    pub means: &'static str,
}

/// Everything that can go wrong.
pub const SENTENCES: [Sentence; FAILURES + KINDS + 2] = [
    Sentence {
        name: "connect_refused",
        of: |counts| counts.failures[failure::REFUSED],
        one: "connect was refused",
        many: "connects were refused",
        means: "nobody listens on that port there, or a firewall answers in its place; ss -lnt where it went to",
    },
    Sentence {
        name: "connect_timeout",
        of: |counts| counts.failures[failure::TIMEOUT],
        one: "connect timed out",
        many: "connects timed out",
        means: "no answer came: a firewall drops, the way back is missing, or the host is down; netns-monitor check",
    },
    Sentence {
        name: "connect_unreachable",
        of: |counts| counts.failures[failure::UNREACHABLE],
        one: "connect was unreachable",
        many: "connects were unreachable",
        means: "nobody answers for the address, or a router or firewall said so; ip neigh, ip route get ADDRESS",
    },
    Sentence {
        name: "connect_abandoned",
        of: |counts| counts.failures[failure::ABANDONED],
        one: "connect was given up",
        many: "connects were given up",
        means: "the program closed the socket before an answer came; its own time-out may be short",
    },
    Sentence {
        name: "connect_unsent",
        of: |counts| counts.failures[failure::UNSENT],
        one: "connect was not sent",
        many: "connects were not sent",
        means: "no local port was free, mostly; ss -s, sysctl net.ipv4.ip_local_port_range",
    },
    Sentence {
        name: "connect_other",
        of: |counts| counts.failures[failure::OTHER],
        one: "connect failed otherwise",
        many: "connects failed otherwise",
        means: "the program knows the error; strace -e connect",
    },
    Sentence {
        name: "retransmit_syn",
        of: |counts| counts.retransmits[kind::SYN],
        one: "SYN was sent again",
        many: "SYNs were sent again",
        means: "the other end did not answer in time, each time a second or more is lost",
    },
    Sentence {
        name: "retransmit_synack",
        of: |counts| counts.retransmits[kind::SYNACK],
        one: "SYN-ACK was sent again",
        many: "SYN-ACKs were sent again",
        means: "who connected did not answer in time: the way back loses packets, or does not exist",
    },
    Sentence {
        name: "retransmit_fast",
        of: |counts| counts.retransmits[kind::FAST],
        one: "segment was sent again",
        many: "segments were sent again",
        means: "lost or far out of order on the way, and found out at once",
    },
    Sentence {
        name: "retransmit_timeout",
        of: |counts| counts.retransmits[kind::TIMEOUT],
        one: "segment was sent again after a time-out",
        many: "segments were sent again after a time-out",
        means: "no acknowledgement came at all: the connection stood still meanwhile",
    },
    Sentence {
        name: "retransmit_probe",
        of: |counts| counts.retransmits[kind::PROBE],
        one: "segment was sent again to probe",
        many: "segments were sent again to probe",
        means: "the last ones before a pause were not acknowledged in time",
    },
    Sentence {
        name: "reset_received",
        of: |counts| counts.resets[direction::RECEIVE],
        one: "reset came and ended a connection or connect",
        many: "resets came and ended a connection or connect",
        means: "the other end, or something between, does not know it any more or does not want it",
    },
    Sentence {
        name: "reset_sent",
        of: |counts| counts.resets[direction::TRANSMIT],
        one: "reset was sent",
        many: "resets were sent",
        means: "somebody came to a closed port, or a program closed a connection before it had read everything",
    },
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn each_counter_of_what_goes_wrong_has_one_sentence() {
        let names: BTreeSet<_> = SENTENCES.iter().map(|sentence| sentence.name).collect();
        assert_eq!(names.len(), SENTENCES.len());
        // Each number is another: two sentences of one counter would be equal.
        let mut next = 0..;
        let mut fresh = || next.next().expect("numbers do not end");
        let counts = TcpCounts {
            retransmits: std::array::from_fn(|_| fresh()),
            failures: std::array::from_fn(|_| fresh()),
            resets: std::array::from_fn(|_| fresh()),
            ..TcpCounts::default()
        };
        let told: BTreeSet<u64> = SENTENCES.iter().map(|sentence| (sentence.of)(&counts)).collect();
        assert_eq!(told, (0..SENTENCES.len() as u64).collect());
    }
}
