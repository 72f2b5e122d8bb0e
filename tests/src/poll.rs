//! Waiting for a condition, never for a time.

use std::{
    fmt::Debug,
    thread,
    time::{Duration, Instant},
};

/// How long a thing may take that takes milliseconds on an idle machine.
pub const SOON: Duration = Duration::from_secs(60);

/// How long the agent may take to notice what no event tells: the longest pause between two passes, and the pass.
pub const ONE_PASS: Duration = Duration::from_secs(45);

const PAUSE: Duration = Duration::from_millis(20);

/// Asks until there is an answer, and returns it.
///
/// # Panics
/// When `within` is over, naming `what` was awaited.
pub fn until<T>(within: Duration, what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + within;
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(Instant::now() < end, "after {within:?} still not: {what}");
        thread::sleep(PAUSE);
    }
}

/// Asks for a pair until its halves are equal; packets still on their way make them differ for a moment.
///
/// # Panics
/// When they differ to the end, showing both.
pub fn until_equal<T: PartialEq + Debug>(within: Duration, what: &str, mut ask: impl FnMut() -> (T, T)) {
    let end = Instant::now() + within;
    loop {
        let (left, right) = ask();
        if left == right {
            return;
        }
        if Instant::now() >= end {
            assert_eq!(left, right, "{what}");
        }
        thread::sleep(PAUSE);
    }
}

/// Asks until the same answer came for as long as `quiet`, and returns it.
///
/// # Panics
/// When `within` is over.
pub fn until_stable<T: PartialEq + Debug>(
    within: Duration,
    quiet: Duration,
    what: &str,
    mut ask: impl FnMut() -> T,
) -> T {
    let mut last = ask();
    let mut since = Instant::now();
    until(within, what, || {
        let now = ask();
        if now != last {
            last = now;
            since = Instant::now();
            return None;
        }
        (since.elapsed() >= quiet).then_some(())
    });
    last
}
