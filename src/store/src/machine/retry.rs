//! The table of retries.
//!
//! Guarantees: an answer is found again until its time is up, as long as it is among the last
//! `retries` answers of the shard. Leaves out: refusals.

use core::time::Duration;

use oncekey_planted::{self as planted, Bug};

use super::{Machine, Stop, overlay::Slot};
use crate::{
    ApplyFault,
    command::Dispense,
    outcome::{Dispensed, Refusal},
    record::retry::{Asked, Retry, RetryKey},
    state::StateRead,
};

impl<S: StateRead> Machine<'_, S> {
    /// The answer that this request was given before.
    pub(super) fn remembered(
        &self,
        request: &Dispense,
        slot: Slot<Retry>,
    ) -> Result<Option<Dispensed>, Stop> {
        let retry = self.records.value(slot)?.filter(|retry| self.now() < retry.due);
        let Some(retry) = retry else { return Ok(None) };
        if retry.asked != Asked::by(request) && !planted::is(Bug::RetryOfAnyQuestion) {
            return Err(Refusal::RequestIdConflict.into());
        }
        Ok(Some(Dispensed { repeated: true, ..retry.dispensed }))
    }

    /// Keeps an answer, at the cost of the oldest one when there are too many, and gives it back.
    pub(super) fn remember(
        &mut self,
        request: &Dispense,
        slot: Slot<Retry>,
        dispensed: Dispensed,
    ) -> Result<Dispensed, ApplyFault> {
        let due = self.now().plus(Duration::from_millis(self.policy.retry_window_ms));
        if planted::is(Bug::RetryNotKept) {
            return Ok(dispensed);
        }
        let key = RetryKey(&request.caller, &request.request);
        let lot = self.enqueue(due, &key)?;
        let retry = Retry { lot, due, asked: Asked::by(request), dispensed };
        self.records.set(slot, &retry)?;
        if self.meta.retries.len > self.bounds.retries {
            self.forget_oldest_retry()?;
        }
        Ok(retry.dispensed)
    }

    pub(super) fn forget_oldest_retry(&mut self) -> Result<(), ApplyFault> {
        let (lot, key) = self.dequeue()?;
        let slot = self.records.find(&key)?;
        let found = self.records.bytes(slot).map(Retry::lot).transpose()?;
        // A retry of another lot is a later use of the same idempotency key.
        if found == Some(lot) {
            self.records.remove(slot);
        }
        Ok(())
    }
}
