//! What went wrong in a namespace lately, in words, the worst first. Pure.

use monitor_ebpf::health::{TcpCounts, failure};

use super::model::STACK;
use crate::{explain::drops::plain, sample::InterfaceSample, topology::figures::Conntrack};

/// What told of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum From {
    Drops,
    Tcp,
    /// The kernel's figures, and devices.
    Else,
}

/// One thing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Trouble {
    pub(super) from: From,
    /// Whether somebody waits for it; else it may be meant so.
    pub(super) bad: bool,
    /// What, in a few words.
    pub(super) what: String,
    /// What that means, or what to look at.
    pub(super) means: &'static str,
}

/// What was seen of one namespace.
pub(super) struct Lately<'a> {
    /// Its interfaces, with what each device dropped and its errors.
    pub(super) devices: &'a [(&'a InterfaceSample, [u64; 2])],
    /// Whether anything is counted in it.
    pub(super) counted: bool,
    /// Drops that mean a loss, the most first.
    pub(super) lost: &'a [(String, u64)],
    /// What TCP met with: then, and now.
    pub(super) tcp: Option<(&'a TcpCounts, &'a TcpCounts)>,
    /// Packets it sent; absent where that is not counted.
    pub(super) sent: Option<u64>,
    /// What its stack dropped, see [`super::model`].
    pub(super) stack: [u64; STACK],
    pub(super) conntrack: Option<Conntrack>,
}

/// Everything that went wrong.
pub(super) fn of(lately: &Lately<'_>) -> Vec<Trouble> {
    let mut found = Vec::new();
    let mut tell = |from, bad, what: String, means| found.push(Trouble { from, bad, what, means });
    if lately.conntrack.is_some_and(|conntrack| conntrack.limit > 0 && conntrack.entries >= conntrack.limit) {
        tell(From::Else, true, "connection tracking is full".to_owned(), "each new connection is dropped");
    }
    if let Some((before, now)) = lately.tcp {
        for (at, one, many, means) in FAILURES {
            let count = now.failures[at].saturating_sub(before.failures[at]);
            if count > 0 {
                tell(From::Tcp, true, format!("{count} {}", if count == 1 { one } else { many }), means);
            }
        }
    }
    for (reason, count) in lately.lost {
        let means =
            plain(reason).map_or("the kernel's own name; nothing is known of it here", |plain| plain.says);
        tell(From::Drops, true, format!("{count} dropped: {reason}"), means);
    }
    if let Some((before, now)) = lately.tcp {
        let sum = |counts: &TcpCounts| counts.retransmits.iter().sum::<u64>();
        let again = sum(now).saturating_sub(sum(before));
        let part = lately.sent.map(|sent| again as f64 * 100.0 / sent.max(again).max(1) as f64);
        // One in a thousand is how networks are.
        if again > 0 && part.is_none_or(|part| part >= 0.1) {
            let percent = part.map_or(String::new(), |part| format!(" ({part:.1} %)"));
            // One in a hundred is what a person feels.
            let many = part.is_some_and(|part| part >= 1.0);
            tell(
                From::Tcp,
                many,
                format!("{again} sent again{percent}"),
                "segments were lost or late on the way, or on the way back",
            );
        }
    }
    let [listen, full, no_route, untracked] = lately.stack;
    for (count, bad, what, means) in [
        (
            listen,
            true,
            "connection requests dropped",
            "a program accepts too slowly; ss -lnt: Recv-Q and Send-Q",
        ),
        (full, true, "dropped at full sockets", "a program reads too slowly; ss -um, ss -tm"),
        (untracked, true, "not tracked", "connection tracking has no room"),
        (no_route, false, "without a route", "ip route get ADDRESS says which is missing"),
    ] {
        if count > 0 {
            tell(From::Else, bad, format!("{count} {what}"), means);
        }
    }
    for (interface, [drops, errors]) in lately.devices {
        let name = &interface.name;
        if *errors > 0 {
            tell(
                From::Else,
                true,
                format!("{name}: {errors} errors"),
                "the device could not send or receive them",
            );
        }
        if *drops > 0 {
            tell(
                From::Else,
                true,
                format!("{name}: {drops} dropped"),
                "the device had no room or nobody to give them to",
            );
        }
        if interface.link.as_ref().is_some_and(|link| !link.running) {
            tell(
                From::Else,
                false,
                format!("{name} is down"),
                "nothing comes in or out there; this end or the other is down",
            );
        }
        if lately.counted && interface.mode.is_none() {
            tell(
                From::Else,
                false,
                format!("{name} is not counted"),
                "the agent's log and netns-monitor doctor say why",
            );
        }
    }
    found.sort_by_key(|trouble| !trouble.bad);
    found
}

const FAILURES: [(usize, &str, &str, &str); 6] = [
    (
        failure::REFUSED,
        "connect refused",
        "connects refused",
        "nobody listens on that port there, or a firewall answers in its place",
    ),
    (
        failure::TIMEOUT,
        "connect timed out",
        "connects timed out",
        "no answer came: a firewall drops, the way back is missing, or the host is down",
    ),
    (
        failure::UNREACHABLE,
        "connect unreachable",
        "connects unreachable",
        "nobody answers for the address, or a router or firewall said so",
    ),
    (
        failure::ABANDONED,
        "connect given up",
        "connects given up",
        "the program closed the socket before an answer came",
    ),
    (failure::UNSENT, "connect not sent", "connects not sent", "no local port was free, mostly"),
    (failure::OTHER, "connect failed", "connects failed", "the program knows the error; strace -e connect"),
];

#[cfg(test)]
mod tests {
    use monitor_ebpf::health::kind;

    use super::*;

    /// What is said where so many segments were sent again, of so many packets.
    fn said(again: u64, sent: Option<u64>) -> Vec<(bool, String)> {
        let (before, mut now) = (TcpCounts::default(), TcpCounts::default());
        now.retransmits[kind::TIMEOUT] = again;
        let lately = Lately {
            devices: &[],
            counted: true,
            lost: &[],
            tcp: Some((&before, &now)),
            sent,
            stack: [0; STACK],
            conntrack: None,
        };
        of(&lately).into_iter().map(|trouble| (trouble.bad, trouble.what)).collect()
    }

    #[test]
    fn what_was_sent_again_is_a_hint_from_one_in_a_thousand_and_bad_from_one_in_a_hundred() {
        assert_eq!(said(1, Some(1001)), []);
        assert_eq!(said(1, Some(1000)), [(false, "1 sent again (0.1 %)".to_owned())]);
        assert_eq!(said(10, Some(1000)), [(true, "10 sent again (1.0 %)".to_owned())]);
        assert_eq!(said(3, None), [(false, "3 sent again".to_owned())], "of how many is not known");
        assert_eq!(said(0, Some(0)), []);
    }

    #[test]
    fn what_is_bad_comes_before_what_is_a_hint() {
        let conntrack = Conntrack { entries: 8, limit: 8, ..Conntrack::default() };
        let lately = Lately {
            devices: &[],
            counted: true,
            lost: &[],
            tcp: None,
            sent: None,
            stack: [0, 2, 5, 0],
            conntrack: Some(conntrack),
        };
        let what: Vec<_> = of(&lately).into_iter().map(|trouble| trouble.what).collect();
        assert_eq!(what, ["connection tracking is full", "2 dropped at full sockets", "5 without a route"]);
    }
}
