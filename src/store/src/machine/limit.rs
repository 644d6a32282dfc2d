//! Token buckets, by the generic cell rate algorithm (GCRA, ITU-T I.371) in whole milliseconds.
//!
//! A bucket is one number: the time at which it is full again. A token that is taken moves that
//! time by `refill_ms`; it may not move further than `capacity × refill_ms` from now.
//!
//! Guarantees: the bucket of a user stands in the account. Those of its callers are records; one
//! that is not stored is full, and a full one need not be stored. Leaves out: exactness beyond
//! `buckets` records in the shard; then the oldest is dropped, that is, full again. A bucket keeps
//! no memory of its policy: what was taken under a slower one is waited for as long as that one
//! said.

use core::time::Duration;

use oncekey_types::TimestampMs;

use super::{Machine, Stop, missing, overlay::Slot};
use crate::{
    ApplyFault,
    command::{BucketPolicy, Dispense},
    record::{
        Key, Kind,
        account::Account,
        bucket::{Bucket, BucketKey},
        queue::QueueId,
    },
    state::StateRead,
};

/// Tokens that can be taken, with what becomes of their buckets; none where there is no limit.
pub(super) struct Tokens {
    caller: Option<(Slot<Bucket>, TimestampMs)>,
    target: Option<TimestampMs>,
}

impl<S: StateRead> Machine<'_, S> {
    /// The tokens for one dispense; `None` when a bucket is empty. Takes nothing yet.
    pub(super) fn tokens(
        &mut self,
        request: &Dispense,
        account: &Account,
    ) -> Result<Option<Tokens>, Stop> {
        let (now, policy) = (self.now(), self.policy);
        let mut tokens = Tokens { caller: None, target: None };
        if is_on(policy.per_caller) {
            let slot = self.records.find(&bucket_key(request))?;
            let full_at = self.records.value(slot)?.map_or(now, |bucket| bucket.full_at);
            let Some(full_at) = take_one(full_at, policy.per_caller, now) else { return Ok(None) };
            tokens.caller = Some((slot, full_at));
        }
        if is_on(policy.per_target) {
            let full_at = take_one(account.full_at, policy.per_target, now);
            let Some(full_at) = full_at else { return Ok(None) };
            tokens.target = Some(full_at);
        }
        Ok(Some(tokens))
    }

    /// Takes them. The account is left for the caller to write.
    pub(super) fn take(
        &mut self,
        request: &Dispense,
        account: &mut Account,
        tokens: &Tokens,
    ) -> Result<(), ApplyFault> {
        if let Some(full_at) = tokens.target {
            account.full_at = full_at;
        }
        let Some((slot, full_at)) = tokens.caller else { return Ok(()) };
        let known = self.records.bytes(slot).is_some();
        self.records.set(slot, &Bucket { full_at })?;
        if !known {
            self.queue_bucket(&bucket_key(request), full_at)?;
            if self.meta.queue(QueueId::Buckets).len > self.bounds.buckets {
                let (_, oldest) = self.dequeue::<Bucket>(QueueId::Buckets)?;
                self.records.delete(&oldest);
            }
        }
        Ok(())
    }

    /// Drops the oldest bucket if it is full, else queues it again.
    pub(super) fn look_at_oldest_bucket(&mut self) -> Result<(), ApplyFault> {
        let (_, key) = self.dequeue::<Bucket>(QueueId::Buckets)?;
        let slot = self.records.find(&key)?;
        let bucket = self.records.value(slot)?.ok_or_else(|| missing(Kind::Bucket))?;
        if bucket.full_at > self.now() {
            self.queue_bucket(&key, bucket.full_at)
        } else {
            self.records.remove(slot);
            Ok(())
        }
    }

    /// A bucket is looked at when it can be full, but not before a new one would be: so the new
    /// buckets of a batch and those that it queues again share one lot. Each look at a bucket that
    /// is not full is paid for by a token that was taken since the last one.
    fn queue_bucket(
        &mut self,
        key: &impl Key<Value = Bucket>,
        full_at: TimestampMs,
    ) -> Result<(), ApplyFault> {
        let refill = Duration::from_millis(self.policy.per_caller.refill_ms);
        let due = full_at.max(self.now().plus(refill));
        self.enqueue(QueueId::Buckets, due, key).map(|_| ())
    }
}

fn bucket_key(request: &Dispense) -> BucketKey<'_> {
    BucketKey { target: &request.user, caller: &request.caller }
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
