//! The table of retries.
//!
//! Guarantees: an answer is found again until its time is up, as long as it is among the last
//! `retries` answers of the shard. Leaves out: refusals.

use core::time::Duration;

use super::{Machine, Stop, missing};
use crate::{
    ApplyFault,
    command::Dispense,
    outcome::{Dispensed, Refusal},
    record::{
        Kind,
        retry::{QueuedRetry, Retry, RetryKey, RetryQueueKey},
    },
    state::StateRead,
};

impl<S: StateRead> Machine<'_, S> {
    /// The answer that this request was given before.
    pub(super) fn remembered(
        &mut self,
        request: &Dispense,
        digest: &[u8; 32],
    ) -> Result<Option<Dispensed>, Stop> {
        let key = RetryKey(request.caller.clone(), request.request.clone());
        let Some(retry) = self.records.read(&key)?.filter(|retry| self.now() < retry.due) else {
            return Ok(None);
        };
        if retry.digest != *digest {
            return Err(Refusal::RequestIdConflict.into());
        }
        Ok(Some(Dispensed { repeated: true, ..retry.dispensed }))
    }

    /// Keeps an answer, at the cost of the oldest one when there are too many.
    pub(super) fn remember(
        &mut self,
        request: &Dispense,
        digest: [u8; 32],
        dispensed: &Dispensed,
    ) -> Result<(), ApplyFault> {
        let due = self.now().plus(Duration::from_millis(self.policy.retry_window_ms));
        let number = self.meta.retries.push();
        let (caller, request) = (request.caller.clone(), request.request.clone());
        let queued = QueuedRetry { caller: caller.clone(), request: request.clone(), due };
        self.records.write(&RetryQueueKey(number), &queued)?;
        let retry = Retry { number, due, digest, dispensed: dispensed.clone() };
        self.records.write(&RetryKey(caller, request), &retry)?;
        if self.meta.retries.len() > self.bounds.retries {
            self.forget_oldest_retry()?;
        }
        Ok(())
    }

    /// Forgets the oldest answer if its time is up.
    pub(super) fn forget_expired_retry(&mut self) -> Result<bool, ApplyFault> {
        let Some(front) = self.meta.retries.front() else { return Ok(false) };
        let queued = self.records.read(&RetryQueueKey(front))?;
        let queued = queued.ok_or_else(|| missing(Kind::RetryQueue))?;
        let expired = queued.due <= self.now();
        if expired {
            self.forget_oldest_retry()?;
        }
        Ok(expired)
    }

    fn forget_oldest_retry(&mut self) -> Result<(), ApplyFault> {
        let Some(front) = self.meta.retries.front() else { return Ok(()) };
        let queue_key = RetryQueueKey(front);
        let queued = self.records.read(&queue_key)?.ok_or_else(|| missing(Kind::RetryQueue))?;
        let key = RetryKey(queued.caller, queued.request);
        // A retry with another number is a later use of the same idempotency key.
        if self.records.read(&key)?.is_some_and(|retry| retry.number == front) {
            self.records.delete(&key);
        }
        self.records.delete(&queue_key);
        self.meta.retries.pop();
        Ok(())
    }
}
