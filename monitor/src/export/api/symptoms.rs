//! What goes wrong in a namespace, by name and in sentences.

use std::collections::BTreeMap;

use monitor_ebpf::health::TcpCounts;

use super::shapes::Symptom;
use crate::explain::{
    drops::{PLAIN, Plain, plain},
    tcp::{SENTENCES, Sentence},
};

const DROP: &str = "drop:";
const TCP: &str = "tcp:";

/// What a device counts by itself.
const DEVICE: [(&str, &str, &str, &str); 2] = [
    (
        "device:drops",
        "device drops",
        "An interface dropped packets: its queue was full, or it was down.",
        "ip -s -s link show in the namespace; tc -s qdisc",
    ),
    (
        "device:errors",
        "device errors",
        "An interface met with errors.",
        "ip -s -s link show in the namespace; ethtool -S",
    ),
];

/// Drops that were a loss. A reason nothing is known of is taken for one.
pub(super) fn losses(reasons: &BTreeMap<String, u64>) -> u64 {
    let is_usual = |reason: &str| plain(reason).is_some_and(|plain| plain.usual);
    reasons.iter().filter(|(reason, _)| !is_usual(reason)).map(|(_, count)| count).sum()
}

/// What happened and how often.
pub(super) fn counted(
    drops: Option<&BTreeMap<String, u64>>,
    tcp: Option<&TcpCounts>,
) -> BTreeMap<String, u64> {
    let drops = drops.into_iter().flatten().map(|(reason, count)| (format!("{DROP}{reason}"), *count));
    let tcp = tcp.into_iter().flat_map(|tcp| {
        SENTENCES.iter().map(|sentence| (format!("{TCP}{}", sentence.name), (sentence.of)(tcp)))
    });
    drops.chain(tcp).filter(|(_, count)| *count > 0).collect()
}

/// The same in sentences, the most first.
pub(super) fn explained(counted: &BTreeMap<String, u64>) -> Vec<Symptom> {
    let mut symptoms: Vec<Symptom> =
        counted.iter().map(|(name, count)| Symptom { count: Some(*count), ..explain(name) }).collect();
    symptoms.sort_by_key(|symptom| (symptom.usual, std::cmp::Reverse(symptom.count)));
    symptoms
}

/// All that something is known of.
pub(super) fn all() -> Vec<Symptom> {
    let drops = PLAIN.iter().map(|plain| of_drop(plain.reason, Some(plain)));
    drops.chain(SENTENCES.iter().map(of_tcp)).chain(DEVICE.map(of_device)).collect()
}

fn explain(name: &str) -> Symptom {
    let tcp = name.strip_prefix(TCP).and_then(|name| SENTENCES.iter().find(|known| known.name == name));
    let device = DEVICE.into_iter().find(|(device, ..)| *device == name);
    match (tcp, device) {
        (Some(sentence), _) => of_tcp(sentence),
        (None, Some(device)) => of_device(device),
        (None, None) => {
            let reason = name.strip_prefix(DROP).unwrap_or(name);
            of_drop(reason, plain(reason))
        }
    }
}

fn of_drop(reason: &str, plain: Option<&Plain>) -> Symptom {
    Symptom {
        name: format!("{DROP}{reason}"),
        count: None,
        title: reason.to_owned(),
        says: plain
            .map_or("The kernel's own name; nothing is known of it here.", |plain| plain.says)
            .to_owned(),
        look: plain
            .map_or("netns-monitor why: in which function of the kernel it was", |plain| plain.look)
            .to_owned(),
        usual: plain.is_some_and(|plain| plain.usual),
    }
}

fn of_tcp(sentence: &Sentence) -> Symptom {
    let (says, look) = sentence.means.split_once("; ").unwrap_or((sentence.means, ""));
    let (first, rest) = says.split_at(says.chars().next().map_or(0, char::len_utf8));
    Symptom {
        name: format!("{TCP}{}", sentence.name),
        count: None,
        title: sentence.many.to_owned(),
        says: format!("{}{rest}.", first.to_uppercase()),
        look: look.to_owned(),
        usual: false,
    }
}

fn of_device((name, title, says, look): (&str, &str, &str, &str)) -> Symptom {
    Symptom {
        name: name.to_owned(),
        count: None,
        title: title.to_owned(),
        says: says.to_owned(),
        look: look.to_owned(),
        usual: false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_usual_is_no_loss_and_what_is_not_known_is_one() {
        let reasons = [("NO_SOCKET", 1), ("TCP_OLD_ACK", 20), ("SUBSYSTEM_3", 300)];
        let reasons = reasons.map(|(reason, count)| (reason.to_owned(), count)).into();
        assert_eq!(losses(&reasons), 301);
    }

    #[test]
    fn every_symptom_is_explained_by_its_own_name() {
        for known in all() {
            let found = explain(&known.name);
            assert_eq!((&found.says, &found.title, found.usual), (&known.says, &known.title, known.usual));
            assert!(!known.says.is_empty(), "{}", known.name);
        }
    }

    #[test]
    fn losses_come_before_what_is_usual() {
        let counted = [("drop:TCP_OLD_ACK", 900), ("tcp:connect_refused", 3), ("drop:X<b>", 5)];
        let counted = counted.map(|(name, count)| (name.to_owned(), count)).into();
        let names: Vec<_> = explained(&counted).into_iter().map(|symptom| symptom.name).collect();
        assert_eq!(names, ["drop:X<b>", "tcp:connect_refused", "drop:TCP_OLD_ACK"]);
    }
}
