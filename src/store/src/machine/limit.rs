//! Token buckets, by the generic cell rate algorithm (GCRA, ITU-T I.371) in whole milliseconds.
//!
//! A bucket is one number: the time at which it is full again. A token that is taken moves that
//! time by `refill_ms`; it may not move further than `capacity × refill_ms` from now.
//!
//! Guarantees: the buckets of a user stand in the account, that of all callers together and those
//! of the callers of late; a full one need not be kept. Leaves out: exactness for more than
//! `callers` callers of a user at a time; then the one whose bucket is full soonest gets a full one
//! early, and the bucket that all share is what holds them. A bucket keeps no memory of its policy:
//! what was taken under a slower one is waited for as long as that one said.

use core::time::Duration;

use oncekey_types::TimestampMs;

use super::Machine;
use crate::{
    command::{BucketPolicy, Dispense},
    digest,
    record::{account::Account, callers::CallerBucket},
    state::StateRead,
};

/// Tokens that can be taken, with what becomes of their buckets; none where there is no limit.
pub(super) struct Tokens {
    caller: Option<CallerBucket>,
    target: Option<TimestampMs>,
}

impl<S: StateRead> Machine<'_, S> {
    /// The tokens for one dispense; `None` when a bucket is empty. Takes nothing yet.
    pub(super) fn tokens(&self, request: &Dispense, account: &Account) -> Option<Tokens> {
        let (now, policy) = (self.now(), self.policy);
        let mut tokens = Tokens { caller: None, target: None };
        if is_on(policy.per_caller) {
            let caller = digest::caller(&request.caller);
            let full_at = account.callers.find(caller).map_or(now, |bucket| bucket.full_at);
            let full_at = take_one(full_at, policy.per_caller, now)?;
            tokens.caller = Some(CallerBucket { caller, full_at });
        }
        if is_on(policy.per_target) {
            tokens.target = Some(take_one(account.full_at, policy.per_target, now)?);
        }
        Some(tokens)
    }

    /// Takes them. The account is left for the caller to write.
    pub(super) fn take(&self, account: &mut Account, tokens: &Tokens) {
        let Tokens { caller, target } = *tokens;
        if let Some(full_at) = target {
            account.full_at = full_at;
        }
        if let Some(bucket) = caller {
            account.callers.put(bucket, self.now(), self.bounds.callers);
        }
    }
}

fn is_on(policy: BucketPolicy) -> bool {
    policy.capacity > 0 && policy.refill_ms > 0
}

/// When the bucket is full after one token was taken; `None` when it has none.
fn take_one(full_at: TimestampMs, policy: BucketPolicy, now: TimestampMs) -> Option<TimestampMs> {
    let refill = Duration::from_millis(policy.refill_ms);
    let span = policy.refill_ms.saturating_mul(u64::from(policy.capacity));
    let full_at_most = now.plus(Duration::from_millis(span));
    let full_at = full_at.max(now).plus(refill);
    (full_at <= full_at_most).then_some(full_at)
}
