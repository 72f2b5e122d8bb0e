//! How many connections there may be, and which one goes when one more comes.
//!
//! A flood of clients that never finish a request must not lock the scraper out: when all seats are taken, the
//! connection that has been without a request in progress for the most connections gives up its seat.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use tokio::sync::Notify;

/// The seats of all connections.
pub(super) struct Seats {
    most: usize,
    taken: Mutex<Taken>,
}

#[derive(Default)]
struct Taken {
    next: u64,
    by_age: BTreeMap<u64, Arc<Seat>>,
}

/// What is known of one connection.
#[derive(Default)]
pub(super) struct Seat {
    /// Between the end of a request's header and the last byte of its answer.
    pub(super) busy: AtomicBool,
    /// Told when the seat is needed by another.
    pub(super) give_up: Notify,
}

/// A seat for as long as this lives.
pub(super) struct Taking {
    seats: Arc<Seats>,
    number: u64,
    /// The seat.
    pub(super) seat: Arc<Seat>,
}

impl Seats {
    pub(super) fn new(most: usize) -> Arc<Self> {
        Arc::new(Self { most, taken: Mutex::default() })
    }

    /// A seat, at need that of the oldest connection without a request in progress; none when all are busy.
    pub(super) fn take(self: &Arc<Self>) -> Option<Taking> {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        if taken.by_age.len() >= self.most {
            let idle = |(_, seat): &(&u64, &Arc<Seat>)| !seat.busy.load(Ordering::Relaxed);
            let oldest = *taken.by_age.iter().find(idle)?.0;
            if let Some(seat) = taken.by_age.remove(&oldest) {
                seat.give_up.notify_one();
            }
        }
        let number = taken.next;
        taken.next += 1;
        let seat = Arc::<Seat>::default();
        taken.by_age.insert(number, seat.clone());
        Some(Taking { seats: self.clone(), number, seat })
    }
}

impl Drop for Taking {
    fn drop(&mut self) {
        self.seats.taken.lock().unwrap_or_else(PoisonError::into_inner).by_age.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_idle_connection_gives_up_its_seat_and_a_busy_one_never() {
        let seats = Seats::new(2);
        let (busy, idle) = (seats.take().expect("free"), seats.take().expect("free"));
        busy.seat.busy.store(true, Ordering::Relaxed);
        let third = seats.take().expect("the idle one's");
        third.seat.busy.store(true, Ordering::Relaxed);
        assert!(seats.take().is_none());
        // Who gave up its seat takes nobody else's with it when it ends.
        drop(idle);
        assert!(seats.take().is_none());
        drop(busy);
        assert!(seats.take().is_some());
    }
}
