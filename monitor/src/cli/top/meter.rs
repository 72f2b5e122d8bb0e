//! Counters read again and again, and how fast they rise. Pure.
//!
//! A reading beside an agent that moves counts may be too low once; a counter that begins anew stays low. Neither may give
//! a negative rate, nor a spike after it.

use std::{collections::VecDeque, time::Instant};

/// How many readings "lately" are.
pub(super) const LATELY: usize = 10;

/// Some counters that are read together.
#[derive(Clone, Debug)]
pub(super) struct Meter<const N: usize> {
    /// The last reading that is believed.
    base: Option<(Instant, [u64; N])>,
    /// A reading below that.
    low: Option<(Instant, [u64; N])>,
    /// What came with the last reading; absent where that is not known.
    rose: Option<[u64; N]>,
    /// The same a second.
    rate: Option<[f64; N]>,
}

impl<const N: usize> Default for Meter<N> {
    fn default() -> Self {
        Self { base: None, low: None, rose: None, rate: None }
    }
}

impl<const N: usize> Meter<N> {
    /// Of counters that were 0 at some time.
    pub(super) fn from_zero(at: Instant) -> Self {
        Self { base: Some((at, [0; N])), ..Self::default() }
    }

    /// Takes a reading; none where they could not be read.
    pub(super) fn take(&mut self, at: Instant, now: Option<[u64; N]>) {
        (self.rose, self.rate) = (None, None);
        let Some(now) = now else { return };
        let below = |than: &[u64; N]| now.iter().zip(than).any(|(now, than)| now < than);
        let from = match (self.base, self.low) {
            (None, _) => None,
            (Some((_, base)), low) if below(&base) => match low {
                // Seen low before, and rising from there: it began anew.
                Some((since, low)) if !below(&low) => Some((since, low)),
                _ => {
                    self.low = Some((at, now));
                    return;
                }
            },
            (base, _) => base,
        };
        (self.base, self.low) = (Some((at, now)), None);
        let Some((since, before)) = from else { return };
        let seconds = at.saturating_duration_since(since).as_secs_f64();
        if seconds > 0.0 {
            let rose = std::array::from_fn(|i| now[i].saturating_sub(before[i]));
            self.rose = Some(rose);
            self.rate = Some(rose.map(|rose| rose as f64 / seconds));
        }
    }

    /// How much came with the last reading.
    pub(super) fn rose(&self) -> Option<[u64; N]> {
        self.rose
    }

    /// A second.
    pub(super) fn rate(&self) -> Option<[f64; N]> {
        self.rate
    }
}

/// What came with the last readings.
#[derive(Clone, Debug)]
pub(super) struct Recent<const N: usize>(VecDeque<[u64; N]>);

impl<const N: usize> Default for Recent<N> {
    fn default() -> Self {
        Self(VecDeque::with_capacity(LATELY))
    }
}

impl<const N: usize> Recent<N> {
    /// Takes what came with one reading.
    pub(super) fn push(&mut self, rose: Option<[u64; N]>) {
        push(&mut self.0, rose.unwrap_or([0; N]), LATELY);
    }

    /// All of it.
    pub(super) fn sum(&self) -> [u64; N] {
        std::array::from_fn(|i| self.0.iter().map(|rose| rose[i]).sum())
    }
}

/// Adds to a ring.
pub(super) fn push<T>(ring: &mut VecDeque<T>, value: T, most: usize) {
    while ring.len() >= most {
        ring.pop_front();
    }
    ring.push_back(value);
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// The rates that readings a second apart give.
    fn rates(readings: &[Option<u64>]) -> Vec<Option<f64>> {
        let (mut meter, start) = (Meter::<1>::default(), Instant::now());
        let each = readings.iter().enumerate().map(|(second, reading)| {
            meter.take(start + Duration::from_secs(second as u64), reading.map(|reading| [reading]));
            meter.rate().map(|[rate]| rate)
        });
        each.collect()
    }

    #[test]
    fn the_first_reading_has_no_rate_and_a_gap_is_averaged_over() {
        assert_eq!(rates(&[Some(1000), Some(1010), Some(1010)]), [None, Some(10.0), Some(0.0)]);
        assert_eq!(rates(&[Some(0), None, None, Some(30)]), [None, None, None, Some(10.0)]);
    }

    #[test]
    fn a_reading_that_is_too_low_once_gives_neither_a_negative_rate_nor_a_spike() {
        assert_eq!(
            rates(&[Some(1000), Some(1010), Some(7), Some(1030), Some(1040)]),
            [None, Some(10.0), None, Some(10.0), Some(10.0)]
        );
        // Twice, and still falling: which of them is right is not known.
        assert_eq!(rates(&[Some(1000), Some(9), Some(7), Some(1030)]), [None, None, None, Some(10.0)]);
    }

    #[test]
    fn a_counter_that_began_anew_is_believed_at_its_second_reading() {
        assert_eq!(rates(&[Some(1000), Some(3), Some(8), Some(20)]), [None, None, Some(5.0), Some(12.0)]);
        assert_eq!(rates(&[Some(1000), Some(0), Some(0), Some(4)]), [None, None, Some(0.0), Some(4.0)]);
    }

    #[test]
    fn what_is_known_to_have_begun_at_zero_has_a_rate_at_once() {
        let start = Instant::now();
        let mut meter = Meter::<2>::from_zero(start);
        meter.take(start + Duration::from_secs(2), Some([4, 10]));
        assert_eq!((meter.rose(), meter.rate()), (Some([4, 10]), Some([2.0, 5.0])));
    }

    #[test]
    fn lately_forgets() {
        let mut recent = Recent::<1>::default();
        (0..LATELY as u64 + 2).for_each(|number| recent.push(Some([number])));
        recent.push(None);
        // Of 0 to 11, the last nine and a pause.
        assert_eq!(recent.sum(), [(3..12).sum::<u64>()]);
    }
}
