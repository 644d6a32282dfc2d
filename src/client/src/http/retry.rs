//! Pauses between attempts.

use std::time::Duration;

/// Full jitter: a pause is uniform between nothing and a bound that doubles up to a cap, so that
/// clients that failed together do not come back together.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Backoff {
    /// Bound of the first pause.
    pub first: Duration,
    /// Bound of every later pause.
    pub cap: Duration,
}

impl Default for Backoff {
    /// 10 ms, 400 ms.
    fn default() -> Self {
        Self { first: Duration::from_millis(10), cap: Duration::from_millis(400) }
    }
}

impl Backoff {
    /// The pause after retry number `retry`, counted from 0; `random` chooses within the bound.
    #[must_use]
    pub fn pause(&self, retry: usize, random: u32) -> Duration {
        let doublings = u32::try_from(retry).unwrap_or(u32::MAX);
        let factor = 2u32.checked_pow(doublings).unwrap_or(u32::MAX);
        let bound = self.first.saturating_mul(factor).min(self.cap);
        let nanos = bound.as_nanos() * u128::from(random) / u128::from(u32::MAX);
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }
}

impl Backoff {
    /// A pause after retry number `retry`, counted from 0.
    pub(crate) fn jittered(&self, retry: usize) -> Duration {
        self.pause(retry, random())
    }
}

/// A number for [`Backoff::pause`]. Without a generator the pause is the whole bound.
fn random() -> u32 {
    getrandom::u32().unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_pause_stays_within_its_bound(retry in 0usize..100, random: u32) {
            let backoff = Backoff::default();
            let bound = backoff.pause(retry, u32::MAX);
            prop_assert!(backoff.pause(retry, random) <= bound);
            prop_assert!(bound <= backoff.cap);
            prop_assert!(bound <= backoff.pause(retry + 1, u32::MAX));
        }
    }

    #[test]
    fn the_bound_doubles_up_to_the_cap() {
        let backoff = Backoff::default();
        let bounds: Vec<_> =
            (0..8).map(|retry| backoff.pause(retry, u32::MAX).as_millis()).collect();
        assert_eq!(bounds, [10, 20, 40, 80, 160, 320, 400, 400]);
        assert_eq!(backoff.pause(usize::MAX, 0), Duration::ZERO);
    }
}
