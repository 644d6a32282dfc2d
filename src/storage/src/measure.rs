//! Counting while it happens: counters and histograms made of atomics.
//!
//! Guarantees: noting a value takes no lock and no memory: a search among a few bounds and two
//! relaxed additions. Leaves out: names and labels, which belong to whoever shows the numbers; and
//! one moment for all of them: a [`Distribution`] that is taken while values come in may miss the
//! last of them in one of its numbers.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

/// A number that only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Counts one more.
    pub fn one(&self) {
        self.add(1);
    }

    /// Counts `number` more.
    pub fn add(&self, number: u64) {
        self.0.fetch_add(number, Ordering::Relaxed);
    }

    /// What has been counted.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// How often values were seen, by size.
#[derive(Debug)]
pub struct Histogram {
    bounds: &'static [u64],
    /// One for each bound, and one for what is above all of them.
    counts: Box<[AtomicU64]>,
    sum: AtomicU64,
}

/// Bounds of a histogram of durations, in microseconds: 16 µs to 8.4 s, each twice the one before.
pub const MICROSECONDS: &[u64] = &[
    16, 32, 64, 128, 256, 512, 1_024, 2_048, 4_096, 8_192, 16_384, 32_768, 65_536, 131_072,
    262_144, 524_288, 1_048_576, 2_097_152, 4_194_304, 8_388_608,
];

impl Histogram {
    /// An empty histogram. A value belongs to the first of the growing `bounds` that is not below
    /// it.
    #[must_use]
    pub fn new(bounds: &'static [u64]) -> Self {
        debug_assert!(bounds.is_sorted());
        let counts = (0..=bounds.len()).map(|_| AtomicU64::new(0)).collect();
        Self { bounds, counts, sum: AtomicU64::new(0) }
    }

    /// An empty histogram of durations.
    #[must_use]
    pub fn of_durations() -> Self {
        Self::new(MICROSECONDS)
    }

    /// Notes a value.
    pub fn note(&self, value: u64) {
        let place = self.bounds.partition_point(|bound| *bound < value);
        self.counts[place].fetch_add(1, Ordering::Relaxed);
        self.sum.fetch_add(value, Ordering::Relaxed);
    }

    /// Notes a duration in microseconds.
    pub fn note_duration(&self, duration: Duration) {
        self.note(u64::try_from(duration.as_micros()).unwrap_or(u64::MAX >> 1));
    }

    /// Notes how long it has been since `began`.
    pub fn note_since(&self, began: Instant) {
        self.note_duration(began.elapsed());
    }

    /// What has been noted.
    #[must_use]
    pub fn distribution(&self) -> Distribution {
        Distribution {
            counts: self.counts.iter().map(|count| count.load(Ordering::Relaxed)).collect(),
            sum: self.sum.load(Ordering::Relaxed),
        }
    }

    /// The bounds it was made with.
    #[must_use]
    pub fn bounds(&self) -> &'static [u64] {
        self.bounds
    }
}

/// What a [`Histogram`] holds.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Distribution {
    /// Values at or below each bound and above the one before; the last is of those above all.
    pub counts: Vec<u64>,
    /// Sum of the values.
    pub sum: u64,
}

impl Distribution {
    /// Number of values.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// Adds what `other` holds, which was made with the same bounds.
    pub fn add(&mut self, other: &Self) {
        self.counts.resize(self.counts.len().max(other.counts.len()), 0);
        for (count, more) in self.counts.iter_mut().zip(&other.counts) {
            *count += more;
        }
        self.sum += other.sum;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_value_belongs_to_the_first_bound_that_is_not_below_it() {
        let histogram = Histogram::new(&[0, 10, 20]);
        for value in [0, 1, 10, 11, 20, 21, 1000] {
            histogram.note(value);
        }
        let seen = histogram.distribution();
        assert_eq!(seen, Distribution { counts: vec![1, 2, 2, 2], sum: 1063 });
    }

    proptest! {
        #[test]
        fn two_distributions_together_hold_what_each_held(
            one in prop::collection::vec(0_u64..3_000, 0..50),
            other in prop::collection::vec(0_u64..3_000, 0..50),
        ) {
            let of = |values: &[u64]| {
                let histogram = Histogram::of_durations();
                values.iter().for_each(|value| histogram.note(*value));
                histogram.distribution()
            };
            let mut sum = of(&one);
            sum.add(&of(&other));
            let all: Vec<u64> = one.iter().chain(&other).copied().collect();
            prop_assert_eq!(&sum, &of(&all));
            prop_assert_eq!(sum.total(), all.len() as u64);
            let mut from_nothing = Distribution::default();
            from_nothing.add(&sum);
            prop_assert_eq!(from_nothing, sum);
        }
    }
}
