//! Token buckets, by the generic cell rate algorithm (GCRA, ITU-T I.371) in whole milliseconds.
//!
//! A bucket is one number: the time at which it is full again. A token that is taken moves that
//! time by `refill_ms`; it may not move further than `capacity × refill_ms` from now.
//!
//! Guarantees: a bucket that is not stored is full, and a full one need not be stored. Leaves out:
//! exactness beyond `buckets` buckets in the shard; then the oldest is dropped, that is, full again.
//! A bucket keeps no memory of its policy: what was taken under a slower one is waited for as long
//! as that one said.

use core::time::Duration;

use oncekey_types::TimestampMs;

use super::{Machine, Stop, missing};
use crate::{
    ApplyFault,
    command::{BucketPolicy, Dispense},
    record::{
        Kind,
        bucket::{Bucket, BucketKey, BucketQueueKey, QueuedBucket},
    },
    state::StateRead,
};

/// Tokens that can be taken, with what becomes of their buckets.
pub(super) struct Tokens(Vec<(BucketKey, Bucket)>);

impl<S: StateRead> Machine<'_, S> {
    /// The tokens for one dispense; `None` when a bucket is empty. Takes nothing yet.
    pub(super) fn tokens(&mut self, request: &Dispense) -> Result<Option<Tokens>, Stop> {
        let policies = [
            (Some(request.caller.clone()), self.policy.per_caller),
            (None, self.policy.per_target),
        ];
        let mut tokens = Vec::new();
        for (caller, policy) in policies {
            if policy.capacity == 0 || policy.refill_ms == 0 {
                continue;
            }
            let key = BucketKey { target: request.user.clone(), caller };
            let bucket = self.records.read(&key)?;
            match take_one(bucket, policy, self.now()) {
                Some(bucket) => tokens.push((key, bucket)),
                None => return Ok(None),
            }
        }
        Ok(Some(Tokens(tokens)))
    }

    /// Takes them.
    pub(super) fn take(&mut self, tokens: Tokens) -> Result<(), ApplyFault> {
        for (key, bucket) in tokens.0 {
            let known = self.records.bytes(&key)?.is_some();
            self.records.write(&key, &bucket)?;
            if known {
                continue;
            }
            self.queue_bucket(key, bucket)?;
            if self.meta.buckets.len() > self.bounds.buckets {
                self.drop_oldest_bucket()?;
            }
        }
        Ok(())
    }

    /// Looks at the oldest bucket if it is time to: drops it if it is full, else queues it again.
    pub(super) fn forget_full_bucket(&mut self) -> Result<bool, ApplyFault> {
        let Some(queued) = self.oldest_bucket()? else { return Ok(false) };
        if queued.due > self.now() {
            return Ok(false);
        }
        let bucket = self.records.read(&queued.bucket)?.ok_or_else(|| missing(Kind::Bucket))?;
        self.unqueue_bucket();
        if bucket.full_at > self.now() {
            self.queue_bucket(queued.bucket, bucket)?;
        } else {
            self.records.delete(&queued.bucket);
        }
        Ok(true)
    }

    fn queue_bucket(&mut self, key: BucketKey, bucket: Bucket) -> Result<(), ApplyFault> {
        let number = self.meta.buckets.push();
        let queued = QueuedBucket { bucket: key, due: bucket.full_at };
        self.records.write(&BucketQueueKey(number), &queued)
    }

    fn oldest_bucket(&mut self) -> Result<Option<QueuedBucket>, ApplyFault> {
        let Some(front) = self.meta.buckets.front() else { return Ok(None) };
        let queued = self.records.read(&BucketQueueKey(front))?;
        Ok(Some(queued.ok_or_else(|| missing(Kind::BucketQueue))?))
    }

    /// Takes the oldest bucket out of the queue.
    fn unqueue_bucket(&mut self) {
        self.records.delete(&BucketQueueKey(self.meta.buckets.head));
        self.meta.buckets.pop();
    }

    fn drop_oldest_bucket(&mut self) -> Result<(), ApplyFault> {
        if let Some(oldest) = self.oldest_bucket()? {
            self.unqueue_bucket();
            self.records.delete(&oldest.bucket);
        }
        Ok(())
    }
}

/// The bucket after one token was taken; `None` when it has none.
fn take_one(bucket: Option<Bucket>, policy: BucketPolicy, now: TimestampMs) -> Option<Bucket> {
    let refill = Duration::from_millis(policy.refill_ms);
    let span = policy.refill_ms.saturating_mul(u64::from(policy.capacity));
    let full_at_most = now.plus(Duration::from_millis(span));
    let full_at = bucket.map_or(now, |bucket| bucket.full_at.max(now));
    let full_at = full_at.plus(refill);
    (full_at <= full_at_most).then_some(Bucket { full_at })
}
