//! One reading for all who look: at most one a second, and none while nobody looks.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, OnceLock, PoisonError},
    time::{Duration, Instant},
};

use axum::body::Bytes;
use futures_util::Stream;
use serde::Serialize;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, watch},
    task::spawn_blocking,
    time::sleep,
};

use super::{
    super::{Read, Snapshot},
    build,
    shapes::{All, Change, Refusal, Row, Status},
};

/// At most this part of the time is spent reading.
const SHARE: u32 = 20;
/// Without an event for that long, a comment keeps the connection up.
const HEARTBEAT: Duration = Duration::from_secs(15);

/// What a client is told when the counts could not be read; the log has the whole of it.
pub(super) const UNREAD: &str = "The counts could not be read; the agent's log says why.";

/// Reads for all.
pub(super) struct Feed {
    read: Read,
    every: Duration,
    last: tokio::sync::Mutex<Option<Last>>,
    ticks: watch::Sender<State>,
    /// Whether somebody makes ticks.
    ticking: Mutex<bool>,
    watchers: Arc<Semaphore>,
    stopping: watch::Receiver<()>,
}

struct Last {
    end: Instant,
    took: Duration,
    snapshot: Arc<Snapshot>,
}

#[derive(Clone)]
enum State {
    Waiting,
    Tick(Arc<Tick>),
    Trouble,
}

/// One reading, as those who watch get it.
struct Tick {
    number: u64,
    time: f64,
    status: Status,
    rows: Vec<Row>,
    /// What became different since the tick before.
    change: Bytes,
    all: OnceLock<Bytes>,
}

impl Feed {
    pub(super) fn new(
        read: Read,
        every: Duration,
        watchers: usize,
        stopping: watch::Receiver<()>,
    ) -> Arc<Self> {
        Arc::new(Self {
            read,
            every,
            last: tokio::sync::Mutex::default(),
            ticks: watch::Sender::new(State::Waiting),
            ticking: Mutex::default(),
            watchers: Arc::new(Semaphore::new(watchers)),
            stopping,
        })
    }

    /// What was read within the last second, or now.
    ///
    /// # Errors
    /// It could not be read; the log has been told why.
    pub(super) async fn snapshot(self: &Arc<Self>) -> Result<Arc<Snapshot>, &'static str> {
        let feed = Arc::clone(self);
        // In a task of its own: a client that leaves starts no second reading beside the one it left.
        let read = tokio::spawn(async move {
            let mut last = feed.last.lock().await;
            if let Some(last) =
                last.as_ref().filter(|last| last.end.elapsed() < feed.rest(last.took) * 9 / 10)
            {
                return Ok(Arc::clone(&last.snapshot));
            }
            let began = Instant::now();
            let snapshot = Arc::new((feed.read)().await?);
            let end = Instant::now();
            *last = Some(Last { end, took: end - began, snapshot: Arc::clone(&snapshot) });
            Ok::<_, String>(snapshot)
        });
        let read = read.await.map_err(|error| error.to_string()).flatten();
        read.map_err(|error| {
            tracing::error!("read the counts: {error}");
            UNREAD
        })
    }

    /// From one reading to the next: slow ones come less often.
    fn rest(&self, took: Duration) -> Duration {
        self.every.max(took * SHARE)
    }

    /// Everything, then what changes, until the server stops; absent while as many watch as may.
    pub(super) fn watch(
        self: &Arc<Self>,
    ) -> Option<impl Stream<Item = Result<Bytes, std::io::Error>> + use<>> {
        let permit = Arc::clone(&self.watchers).try_acquire_owned().ok()?;
        let mut ticking = self.ticking.lock().unwrap_or_else(PoisonError::into_inner);
        let mut ticks = self.ticks.subscribe();
        if !*ticking {
            *ticking = true;
            self.ticks.send_replace(State::Waiting);
            tokio::spawn(Arc::clone(self).tick());
        }
        drop(ticking);
        // The state as it is now is news for this one.
        ticks.mark_changed();
        let watcher = Watcher { ticks, stopping: self.stopping.clone(), seen: None, _permit: permit };
        Some(futures_util::stream::unfold(watcher, |mut watcher| async {
            let bytes = watcher.next().await?;
            Some((Ok(bytes), watcher))
        }))
    }

    /// Makes ticks for as long as somebody watches.
    async fn tick(self: Arc<Self>) {
        let mut stopping = self.stopping.clone();
        let mut before: Option<Arc<Tick>> = None;
        loop {
            let began = Instant::now();
            let state = match self.snapshot().await {
                Ok(snapshot) => {
                    let earlier = before.clone();
                    match spawn_blocking(move || Tick::new(&snapshot, earlier.as_deref())).await {
                        Ok(tick) => {
                            let tick = Arc::new(tick);
                            before = Some(Arc::clone(&tick));
                            State::Tick(tick)
                        }
                        Err(error) => {
                            tracing::error!("put an event together: {error}");
                            State::Trouble
                        }
                    }
                }
                Err(_) => State::Trouble,
            };
            let rest = self.rest(began.elapsed());
            {
                let mut ticking = self.ticking.lock().unwrap_or_else(PoisonError::into_inner);
                if self.ticks.send(state).is_err() {
                    // The last one left; who comes next starts anew.
                    *ticking = false;
                    return;
                }
            }
            tokio::select! { _ = stopping.changed() => return, () = sleep(rest) => {} }
        }
    }
}

struct Watcher {
    ticks: watch::Receiver<State>,
    stopping: watch::Receiver<()>,
    /// The tick that was sent last.
    seen: Option<u64>,
    _permit: OwnedSemaphorePermit,
}

impl Watcher {
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            tokio::select! {
                _ = self.stopping.changed() => return None,
                () = sleep(HEARTBEAT) => return Some(Bytes::from_static(b": still here\n\n")),
                changed = self.ticks.changed() => changed.ok()?,
            }
            let state = self.ticks.borrow_and_update().clone();
            match state {
                State::Waiting => {}
                State::Trouble => return Some(event("trouble", None, &Refusal { error: UNREAD.to_owned() })),
                State::Tick(tick) => {
                    // Who missed one, because it reads slowly, gets everything anew.
                    let follows = self.seen.is_some_and(|seen| seen + 1 == tick.number);
                    self.seen = Some(tick.number);
                    return Some(if follows { tick.change.clone() } else { tick.all() });
                }
            }
        }
    }
}

impl Tick {
    fn new(snapshot: &Snapshot, before: Option<&Self>) -> Self {
        let (time, status, rows) = (snapshot.time, build::status(snapshot), build::rows(snapshot));
        let number = before.map_or(1, |before| before.number + 1);
        let earlier = before.map_or(&[][..], |before| &before.rows[..]);
        let (changed, gone) = difference(earlier, &rows);
        let change = event("change", Some(number), &Change { time, status: &status, changed, gone });
        Self { number, time, status, rows, change, all: OnceLock::new() }
    }

    fn all(&self) -> Bytes {
        let Self { number, time, status, rows, .. } = self;
        let make =
            || event("all", Some(*number), &All { time: *time, status, namespaces: rows.iter().collect() });
        self.all.get_or_init(make).clone()
    }
}

/// Rows that are new or different, and labels of those that are gone.
fn difference<'a>(before: &'a [Row], now: &'a [Row]) -> (Vec<&'a Row>, Vec<&'a str>) {
    let old: std::collections::BTreeMap<&str, &Row> =
        before.iter().map(|row| (row.netns.as_str(), row)).collect();
    let labels: BTreeSet<&str> = now.iter().map(|row| row.netns.as_str()).collect();
    let changed = now.iter().filter(|row| old.get(row.netns.as_str()) != Some(row)).collect();
    (changed, old.into_keys().filter(|label| !labels.contains(label)).collect())
}

/// An event of `text/event-stream`. JSON without line breaks is one line of data.
fn event(name: &str, number: Option<u64>, data: &impl Serialize) -> Bytes {
    let id = number.map(|number| format!("id: {number}\n")).unwrap_or_default();
    let data = serde_json::to_string(data).unwrap_or_else(|error| {
        tracing::error!("an event as JSON: {error}");
        "{}".to_owned()
    });
    format!("event: {name}\n{id}data: {data}\n\n").into()
}
