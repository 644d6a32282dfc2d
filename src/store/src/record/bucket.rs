//! Rate limits: one bucket for a target user, and one for each of its callers, and the queue by
//! which those that are full again are dropped.
//!
//! Guarantees: a bucket that is not there is full. Every bucket has exactly one entry in the queue.
//! Leaves out: capacities, which come with each batch.

use oncekey_types::{CallerId, TimestampMs, UserId};
use serde::{Deserialize, Serialize};

use super::{Key, KeyReader, KeyWriter, Kind, Versioned};

/// Whose tokens: all callers of `target` together, or one of them.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub(crate) struct BucketKey {
    pub(crate) target: UserId,
    pub(crate) caller: Option<CallerId>,
}

/// Value of a bucket record.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Bucket {
    /// The log time at which the bucket is full again; GCRA's "theoretical arrival time".
    pub(crate) full_at: TimestampMs,
}

impl Versioned for Bucket {
    const VERSION: u8 = 1;
}

impl Key for BucketKey {
    const KIND: Kind = Kind::Bucket;
    type Value = Bucket;

    /// No caller is written as the empty name, which no caller has.
    fn write(&self, bytes: &mut KeyWriter) {
        bytes.name(self.target.as_str());
        bytes.name(self.caller.as_ref().map_or("", CallerId::as_str));
    }

    fn read(bytes: &mut KeyReader<'_>) -> Option<Self> {
        let target = UserId::new(bytes.name()?).ok()?;
        let caller = bytes.name()?;
        let caller = if caller.is_empty() { None } else { Some(CallerId::new(caller).ok()?) };
        Some(Self { target, caller })
    }
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct BucketQueueKey(pub(crate) u64);

/// Value of a bucket queue record.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct QueuedBucket {
    pub(crate) bucket: BucketKey,
    /// When to look whether the bucket is full again.
    pub(crate) due: TimestampMs,
}

impl Versioned for QueuedBucket {
    const VERSION: u8 = 1;
}

impl Key for BucketQueueKey {
    const KIND: Kind = Kind::BucketQueue;
    type Value = QueuedBucket;

    fn write(&self, bytes: &mut KeyWriter) {
        bytes.number(self.0);
    }

    fn read(bytes: &mut KeyReader<'_>) -> Option<Self> {
        Some(Self(bytes.number()?))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{generate, record::tests::assert_round_trip};

    proptest! {
        #[test]
        fn a_bucket_record_round_trips(
            target in generate::user(),
            caller in proptest::option::of(generate::caller()),
            number: u64,
            time: u64,
        ) {
            let key = BucketKey { target, caller };
            assert_round_trip(&key, &Bucket { full_at: TimestampMs(time) });
            let queued = QueuedBucket { bucket: key, due: TimestampMs(time) };
            assert_round_trip(&BucketQueueKey(number), &queued);
        }
    }
}
