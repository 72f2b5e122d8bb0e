//! The thread that reads, as often as is wished and no more than its share, and what it tells the screen.

use std::{
    path::PathBuf,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, mpsc::Sender},
    time::{Duration, Instant},
};

use ratatui::crossterm::event::Event;

use super::cost::{self, Cost};
use crate::{
    agent::engine::{Look, Moment},
    probe::Measuring,
    trace::Symbols,
};

/// A reading that took a second is not repeated for so many: whatever one wishes, three quarters of a core stay free.
const SHARE: u32 = 4;
/// The same of costs, which are more work and less urgent.
const COST_SHARE: u32 = 20;

/// What the screen is told.
pub(super) enum Message {
    /// What was read, and how long that took.
    Reading(Box<Moment>, Duration),
    Cost(Box<Cost>),
    Symbols(Arc<Symbols>),
    /// Run times cannot be measured.
    Unmeasured(String),
    /// Nothing could be read.
    Failed(String),
    /// A key, the mouse, another size.
    Event(Event),
    /// It is to end.
    Stop,
}

/// What the screen wishes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Wish {
    pub(super) interval: Duration,
    pub(super) paused: bool,
    pub(super) cost: bool,
    pub(super) measure: bool,
    pub(super) symbols: bool,
    pub(super) stop: bool,
}

/// The wish as both threads see it.
pub(super) struct Wishes(Mutex<Wish>, Condvar);

impl Wishes {
    pub(super) fn new(wish: Wish) -> Self {
        Self(Mutex::new(wish), Condvar::new())
    }

    fn lock(&self) -> MutexGuard<'_, Wish> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn set(&self, wish: Wish) {
        let mut now = self.lock();
        if *now != wish {
            *now = wish;
            self.1.notify_all();
        }
    }

    /// Waits until then, or until another wish comes; and the wish.
    fn wait(&self, until: Option<Instant>, last: Wish) -> Wish {
        let now = self.lock();
        let same = |wish: &mut Wish| *wish == last;
        match until {
            Some(until) => {
                let time = until.saturating_duration_since(Instant::now());
                *self.1.wait_timeout_while(now, time, same).unwrap_or_else(PoisonError::into_inner).0
            }
            None => *self.1.wait_while(now, same).unwrap_or_else(PoisonError::into_inner),
        }
    }
}

/// Reads until nobody listens any more.
pub(super) fn run(look: Look, pin_dir: Option<PathBuf>, wishes: &Wishes, to: &Sender<Message>) {
    let mut live = match look.live() {
        Ok(live) => live,
        Err(why) => {
            // Nobody listens: it ended meanwhile.
            _ = to.send(Message::Failed(why.to_string()));
            return;
        }
    };
    let mut costs = cost::Reader::default();
    let mut agent = None;
    let (mut read, mut weighed) = (Timer::default(), Timer::default());
    let mut measuring = None;
    let mut symbols = false;
    let mut wish = *wishes.lock();
    while !wish.stop {
        let mut sent = Ok(());
        if !wish.paused && read.is_due(wish.interval, SHARE) {
            let message = match read.time(|| live.read()) {
                Ok(moment) => {
                    agent = moment.agent.clone();
                    Message::Reading(Box::new(moment), read.took)
                }
                Err(why) => Message::Failed(format!("{why:#}")),
            };
            sent = sent.and(to.send(message));
        }
        if wish.measure != measuring.is_some() {
            measuring = None;
            if wish.measure {
                match Measuring::begin() {
                    Ok(begun) => measuring = Some(begun),
                    Err(why) => sent = sent.and(to.send(Message::Unmeasured(why.to_string()))),
                }
            }
        }
        if wish.cost && !wish.paused && weighed.is_due(wish.interval, COST_SHARE) {
            let dir = pin_dir.as_deref().filter(|dir| dir.is_dir());
            let cost = weighed.time(|| costs.read(agent.as_deref(), dir));
            sent = sent.and(to.send(Message::Cost(Box::new(cost))));
        }
        if wish.symbols && !symbols {
            symbols = true;
            let found = Symbols::running().unwrap_or_default();
            sent = sent.and(to.send(Message::Symbols(Arc::new(found))));
        }
        if sent.is_err() {
            return;
        }
        let next = [
            (!wish.paused).then(|| read.next(wish.interval, SHARE)),
            (wish.cost && !wish.paused).then(|| weighed.next(wish.interval, COST_SHARE)),
        ];
        wish = wishes.wait(next.into_iter().flatten().min(), wish);
    }
}

/// When something was last done, and how long it took.
#[derive(Default)]
struct Timer {
    began: Option<Instant>,
    took: Duration,
}

impl Timer {
    fn next(&self, interval: Duration, share: u32) -> Instant {
        self.began.map_or_else(Instant::now, |began| began + interval.max(self.took * share))
    }

    fn is_due(&self, interval: Duration, share: u32) -> bool {
        self.next(interval, share) <= Instant::now()
    }

    fn time<T>(&mut self, act: impl FnOnce() -> T) -> T {
        let began = Instant::now();
        let done = act();
        (self.began, self.took) = (Some(began), began.elapsed());
        done
    }
}
