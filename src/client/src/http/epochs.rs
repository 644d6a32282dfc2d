//! In which epoch the servers are.
//!
//! Guarantees: once one has told a higher epoch, the others are taken for what is left of an older
//! cluster. Leaves out: an epoch from the future, which is not believed, so that a lie does not keep
//! the device from the honest ones for ever.

use std::sync::atomic::{AtomicU64, Ordering};

use oncekey_types::Epoch;

use crate::{
    client::{Clock as _, SystemClock},
    machine::is_plausible,
    transport::AttemptFailure,
};

/// The highest epoch told, plus one; zero when none was.
#[derive(Debug, Default)]
pub(super) struct Epochs(AtomicU64);

impl Epochs {
    pub(super) fn highest(&self) -> Option<Epoch> {
        self.0.load(Ordering::Relaxed).checked_sub(1).map(Epoch)
    }

    pub(super) fn raise(&self, least: Epoch) {
        self.0.fetch_max(least.0.saturating_add(1), Ordering::Relaxed);
    }

    /// Takes in what a reply tells, and refuses one of an older cluster.
    pub(super) fn check(&self, told: Option<Epoch>) -> Result<(), AttemptFailure> {
        let Some(told) = told else { return Ok(()) };
        if is_plausible(told, SystemClock.now()) {
            self.raise(told);
        }
        match self.highest() {
            Some(known) if told < known => Err(AttemptFailure::OlderEpoch { known, told }),
            Some(_) | None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_of_an_older_cluster_is_not_believed_once_a_newer_one_was_heard() {
        let epochs = Epochs::default();
        assert_eq!(epochs.highest(), None);
        assert_eq!(epochs.check(None), Ok(()));
        assert_eq!(epochs.check(Some(Epoch::FIRST)), Ok(()));
        assert_eq!(epochs.check(Some(Epoch(7))), Ok(()));
        let older = AttemptFailure::OlderEpoch { known: Epoch(7), told: Epoch::FIRST };
        assert_eq!(epochs.check(Some(Epoch::FIRST)), Err(older));
        assert_eq!(epochs.check(None), Ok(()), "a proxy says nothing of epochs");
    }

    #[test]
    fn an_epoch_of_the_far_future_keeps_nobody_out() {
        let epochs = Epochs::default();
        assert_eq!(epochs.check(Some(Epoch(u64::MAX))), Ok(()));
        assert_eq!(epochs.check(Some(Epoch(7))), Ok(()));
        assert_eq!(epochs.highest(), Some(Epoch(7)));
    }
}
