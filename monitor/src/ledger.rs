//! Totals across lives: what an interface counted goes to its namespace when it dies, what a namespace counted goes
//! to the host's `gone` total. Nothing is lost, nothing counted twice, nothing falls: Σ live + Σ retired + gone is
//! conserved, also when the agent is killed between any two writes.
//!
//! Rules and arithmetic only. Where the totals are kept (pinned maps) is in `probe`, behind [`Storage`].

use std::collections::BTreeMap;

use crate::{
    sample::{ClassCounts, Counts, DirectionCounts},
    topology::names::Cookie,
};

/// Totals of everything that is gone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ledger {
    /// By namespace: what its dead interfaces counted.
    pub namespaces: BTreeMap<Cookie, Retired>,
    /// What the dead namespaces counted.
    pub gone: Counts,
    /// What was counted of namespaces that are summed with others: it stays there, whatever becomes of them.
    pub other: Counts,
}

/// What the dead interfaces of one namespace counted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Retired {
    /// The name the namespace last had.
    pub netns: String,
    /// Sum over the interfaces.
    pub counts: Counts,
}

/// Where a total is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Account {
    /// With a namespace.
    Netns(Cookie),
    /// With the host.
    Gone,
    /// With those that are summed.
    Other,
}

/// What ceases when its counts have moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The interface in a slot.
    Interface(u64),
    /// The total of a namespace.
    Netns(Cookie),
    /// The interface in a slot of another layout.
    OldInterface(u32, u64),
    /// A total of another layout.
    OldTotal(u32, Account),
    /// What the interface in a slot counted so far; it goes on from 0. Its record says so before the total is written.
    Part(u64),
}

/// One move of counts. It carries the absolute new total, so that doing it twice is doing it once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fold {
    /// From where.
    pub source: Source,
    /// To where.
    pub account: Account,
    /// Name of the namespace; empty for the other accounts.
    pub netns: String,
    /// The account's total after the move.
    pub total: Counts,
}

/// Where totals are kept. Each call is one write that happens wholly or not at all.
pub trait Storage {
    /// Why a write failed.
    type Error;
    /// Remembers the move that is about to be made; there is at most one.
    fn write_journal(&mut self, fold: &Fold) -> Result<(), Self::Error>;
    /// Sets the account of the move to its total.
    fn write_total(&mut self, fold: &Fold) -> Result<(), Self::Error>;
    /// Removes the source, if it is still there.
    fn drop_source(&mut self, source: Source) -> Result<(), Self::Error>;
    /// Whether the slot of a [`Source::Part`] says already that it goes on from 0.
    fn is_given(&self, slot: u64) -> Result<bool, Self::Error>;
    /// Forgets the move.
    fn clear_journal(&mut self) -> Result<(), Self::Error>;
}

/// Makes a move so that a crash after any write is repaired by [`finish`].
pub fn commit<S: Storage>(storage: &mut S, fold: &Fold) -> Result<(), S::Error> {
    storage.write_journal(fold)?;
    finish(storage, fold)
}

/// Makes a move of a [`Source::Part`]: `give` is the one write after which the slot goes on from 0. A crash after any write is
/// repaired by [`redo`].
pub fn give<S: Storage>(
    storage: &mut S,
    fold: &Fold,
    give: impl FnOnce(&mut S) -> Result<(), S::Error>,
) -> Result<(), S::Error> {
    storage.write_journal(fold)?;
    give(storage)?;
    finish(storage, fold)
}

/// Ends a move that an agent was killed in. What a slot counts meanwhile nobody knows any more: a part that was not given
/// stays where it is.
pub fn redo<S: Storage>(storage: &mut S, fold: &Fold) -> Result<(), S::Error> {
    match fold.source {
        Source::Part(slot) if !storage.is_given(slot)? => storage.clear_journal(),
        _ => finish(storage, fold),
    }
}

/// Makes a move that the journal holds; from the start, whatever of it was made before.
pub fn finish<S: Storage>(storage: &mut S, fold: &Fold) -> Result<(), S::Error> {
    storage.write_total(fold)?;
    storage.drop_source(fold.source)?;
    storage.clear_journal()
}

impl Ledger {
    /// The move of what a source counted to an account.
    pub fn fold(&self, source: Source, account: Account, netns: &str, counts: &Counts) -> Fold {
        let netns = match account {
            Account::Netns(_) => netns.to_owned(),
            Account::Gone | Account::Other => String::new(),
        };
        Fold { source, account, netns, total: sum(&self.total(account), counts) }
    }

    /// The move of a namespace's total to another account; nothing when it has none.
    pub fn fold_netns(&self, cookie: Cookie, account: Account) -> Option<Fold> {
        let retired = self.namespaces.get(&cookie)?;
        Some(self.fold(Source::Netns(cookie), account, "", &retired.counts))
    }

    /// What the ledger says once a move is made.
    pub fn apply(&mut self, fold: &Fold) {
        match fold.account {
            Account::Netns(cookie) => {
                let retired = Retired { netns: fold.netns.clone(), counts: fold.total };
                self.namespaces.insert(cookie, retired);
            }
            Account::Gone => self.gone = fold.total,
            Account::Other => self.other = fold.total,
        }
        if let Source::Netns(cookie) = fold.source {
            self.namespaces.remove(&cookie);
        }
    }

    /// The total of an account; zero where nothing was moved to it.
    pub fn total(&self, account: Account) -> Counts {
        match account {
            Account::Netns(cookie) => {
                self.namespaces.get(&cookie).map(|retired| retired.counts).unwrap_or_default()
            }
            Account::Gone => self.gone,
            Account::Other => self.other,
        }
    }
}

/// The sum of two counts. A counter that would pass `u64::MAX` stays there: counters only rise.
pub fn sum(a: &Counts, b: &Counts) -> Counts {
    Counts {
        receive: sum_direction(&a.receive, &b.receive),
        transmit: sum_direction(&a.transmit, &b.transmit),
    }
}

fn sum_direction(a: &DirectionCounts, b: &DirectionCounts) -> DirectionCounts {
    let mut total = *a;
    let DirectionCounts { classes, sizes, tcp_flags } = b;
    for (mine, other) in total.classes.iter_mut().zip(classes) {
        let ClassCounts { skbs, skb_bytes, packets, bytes } = other;
        add(&mut mine.skbs, skbs);
        add(&mut mine.skb_bytes, skb_bytes);
        add(&mut mine.packets, packets);
        add(&mut mine.bytes, bytes);
    }
    total.sizes.iter_mut().zip(sizes).for_each(|(mine, other)| add(mine, other));
    total.tcp_flags.iter_mut().zip(tcp_flags).for_each(|(mine, other)| add(mine, other));
    total
}

fn add(mine: &mut u64, other: &u64) {
    *mine = mine.saturating_add(*other);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The kernel side of a test: live interfaces, totals, journal; fails at the write it is told to.
    #[derive(Clone, Default)]
    struct Host {
        live: BTreeMap<u64, (Cookie, Counts)>,
        old: BTreeMap<Account, Counts>,
        ledger: Ledger,
        given: bool,
        journal: Option<Fold>,
        writes_left: Option<usize>,
    }

    #[derive(Debug, PartialEq)]
    struct Killed;

    impl Host {
        fn step(&mut self) -> Result<(), Killed> {
            match &mut self.writes_left {
                Some(0) => Err(Killed),
                Some(left) => {
                    *left -= 1;
                    Ok(())
                }
                None => Ok(()),
            }
        }

        fn restart(&mut self) {
            self.writes_left = None;
            if let Some(fold) = self.journal.clone() {
                redo(self, &fold).expect("no crash on restart");
            }
        }

        fn all(&self) -> Counts {
            let retired = self.ledger.namespaces.values().map(|retired| retired.counts);
            let live = self.live.values().map(|(_, counts)| *counts);
            let old = self.old.values().copied();
            let totals = sum(&self.ledger.gone, &self.ledger.other);
            live.chain(retired).chain(old).fold(totals, |total, counts| sum(&total, &counts))
        }

        fn facts(&self) -> (Vec<u64>, Ledger, Option<Fold>) {
            (self.live.keys().copied().collect(), self.ledger.clone(), self.journal.clone())
        }
    }

    impl Storage for Host {
        type Error = Killed;

        fn write_journal(&mut self, fold: &Fold) -> Result<(), Killed> {
            self.step()?;
            self.journal = Some(fold.clone());
            Ok(())
        }

        fn write_total(&mut self, fold: &Fold) -> Result<(), Killed> {
            self.step()?;
            match fold.account {
                Account::Netns(cookie) => {
                    let retired = Retired { netns: fold.netns.clone(), counts: fold.total };
                    self.ledger.namespaces.insert(cookie, retired);
                }
                Account::Gone => self.ledger.gone = fold.total,
                Account::Other => self.ledger.other = fold.total,
            }
            Ok(())
        }

        fn drop_source(&mut self, source: Source) -> Result<(), Killed> {
            self.step()?;
            match source {
                Source::Interface(slot) => drop(self.live.remove(&slot)),
                Source::Netns(cookie) => drop(self.ledger.namespaces.remove(&cookie)),
                Source::OldTotal(_, account) => drop(self.old.remove(&account)),
                Source::OldInterface(..) | Source::Part(_) => {}
            }
            Ok(())
        }

        fn is_given(&self, _slot: u64) -> Result<bool, Killed> {
            Ok(self.given)
        }

        fn clear_journal(&mut self) -> Result<(), Killed> {
            self.step()?;
            self.journal = None;
            Ok(())
        }
    }

    const BLUE: Cookie = Cookie(7);

    fn counts(skbs: u64) -> Counts {
        let mut counts = Counts::default();
        counts.receive.classes[0] =
            ClassCounts { skbs, skb_bytes: 60 * skbs, packets: skbs + 1, bytes: 61 * skbs };
        counts.transmit.sizes[3] = skbs;
        counts.transmit.tcp_flags[1] = 2 * skbs;
        counts
    }

    fn host() -> Host {
        let retired = Retired { netns: "blue".to_owned(), counts: counts(100) };
        Host {
            live: [(3, (BLUE, counts(5))), (4, (BLUE, counts(11)))].into(),
            old: [(Account::Gone, counts(1000))].into(),
            ledger: Ledger { namespaces: [(BLUE, retired)].into(), gone: counts(40), other: counts(70) },
            ..Host::default()
        }
    }

    fn crash_everywhere(fold: impl Fn(&Host) -> Fold) {
        let mut whole = host();
        let planned = fold(&whole);
        commit(&mut whole, &planned).expect("no crash");
        assert_eq!(whole.all(), host().all(), "conserved without a crash");
        for writes in 0..4 {
            let mut crashed = host();
            crashed.writes_left = Some(writes);
            assert_eq!(commit(&mut crashed, &planned), Err(Killed));
            crashed.restart();
            assert_eq!(crashed.all(), host().all(), "conserved with a crash after {writes} writes");
            if writes == 0 {
                // Nothing was written: the move is found anew and made.
                let again = fold(&crashed);
                commit(&mut crashed, &again).expect("no crash");
            }
            assert_eq!(crashed.facts(), whole.facts(), "same end with a crash after {writes} writes");
        }
    }

    #[test]
    fn an_interface_folds_into_its_namespace_through_a_crash_after_each_write() {
        crash_everywhere(|host| {
            let (cookie, counts) = host.live.get(&3).expect("lives");
            host.ledger.fold(Source::Interface(3), Account::Netns(*cookie), "blue", counts)
        });
    }

    #[test]
    fn a_namespace_folds_into_the_gone_total_through_a_crash_after_each_write() {
        crash_everywhere(|host| host.ledger.fold_netns(BLUE, Account::Gone).expect("has a total"));
    }

    #[test]
    fn what_is_summed_with_others_stays_there_through_a_crash_after_each_write() {
        crash_everywhere(|host| {
            let (_, counts) = host.live.get(&3).expect("lives");
            host.ledger.fold(Source::Interface(3), Account::Other, "blue", counts)
        });
        crash_everywhere(|host| host.ledger.fold_netns(BLUE, Account::Other).expect("has a total"));
    }

    #[test]
    fn a_part_is_given_once_through_a_crash_after_each_write_though_packets_pass_meanwhile() {
        let part = |host: &mut Host| {
            let (_, counted) = host.live[&3];
            let fold = host.ledger.fold(Source::Part(3), Account::Other, "", &counted);
            give(host, &fold, |host: &mut Host| {
                host.step()?;
                host.given = true;
                host.live.insert(3, (BLUE, Counts::default()));
                Ok(())
            })
        };
        for writes in 0..6 {
            let mut crashed = host();
            crashed.writes_left = Some(writes);
            let done = part(&mut crashed);
            assert_eq!(done.is_ok(), writes == 5);
            // Seven more packets before the next start.
            let (_, counted) = crashed.live[&3];
            crashed.live.insert(3, (BLUE, sum(&counted, &counts(7))));
            crashed.restart();
            let mut expected = host();
            expected.live.insert(9, (BLUE, counts(7)));
            assert_eq!(crashed.all(), expected.all(), "conserved with a crash after {writes} writes");
            assert_eq!(crashed.journal, None);
            assert_eq!(crashed.given, writes > 1, "before that, nothing has happened");
        }
    }

    #[test]
    fn a_total_of_another_layout_is_carried_once_through_a_crash_after_each_write() {
        crash_everywhere(|host| {
            host.ledger.fold(Source::OldTotal(9, Account::Gone), Account::Gone, "", &host.old[&Account::Gone])
        });
    }

    #[test]
    fn a_fold_without_its_journal_would_count_twice() {
        let mut killed = host();
        let (_, counts) = killed.live[&3];
        let fold = killed.ledger.fold(Source::Interface(3), Account::Netns(BLUE), "blue", &counts);
        killed.write_total(&fold).expect("no crash");
        // Killed here, with no journal to finish: the interface is still live and in the total.
        killed.restart();
        assert_ne!(killed.all(), host().all());
    }

    #[test]
    fn applying_a_fold_says_what_the_storage_holds() {
        let mut host = host();
        let mut ledger = host.ledger.clone();
        for fold in [
            host.ledger.fold(Source::Interface(4), Account::Netns(BLUE), "azure", &counts(11)),
            host.ledger.fold(Source::Interface(9), Account::Netns(Cookie(8)), "red", &counts(2)),
        ] {
            commit(&mut host, &fold).expect("no crash");
            ledger.apply(&fold);
        }
        let fold = ledger.fold_netns(BLUE, Account::Gone).expect("has a total");
        commit(&mut host, &fold).expect("no crash");
        ledger.apply(&fold);
        assert_eq!(ledger, host.ledger);
        assert_eq!(ledger.gone, sum(&sum(&counts(100), &counts(11)), &counts(40)));
        assert_eq!(ledger.fold_netns(BLUE, Account::Gone), None, "a second time there is nothing to move");
    }

    #[test]
    fn a_counter_at_its_end_stays_there() {
        let mut full = counts(0);
        full.receive.sizes[0] = u64::MAX;
        let mut more = counts(0);
        more.receive.sizes[0] = 1;
        assert_eq!(sum(&full, &more).receive.sizes[0], u64::MAX);
    }
}
