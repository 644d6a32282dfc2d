//! Rate limits: one bucket for each caller of a target user. The bucket that all callers of a user
//! share stands in the account, see `account`.
//!
//! Guarantees: a bucket that is not there is full. Every bucket has exactly one entry in the queue
//! of buckets. Leaves out: capacities, which come with each batch.

use oncekey_types::{CallerId, TimestampMs, UserId};
use serde::{Deserialize, Serialize};

use super::{Key, KeyReader, KeyWriter, Kind, Versioned};

/// The tokens of `caller` for `target`.
pub(crate) struct BucketKey<'a> {
    pub(crate) target: &'a UserId,
    pub(crate) caller: &'a CallerId,
}

/// Value of a bucket record.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Bucket {
    /// The log time at which the bucket is full again; GCRA's "theoretical arrival time".
    pub(crate) full_at: TimestampMs,
}

impl Versioned for Bucket {
    const KIND: Kind = Kind::Bucket;
    const VERSION: u8 = 1;
}

impl Key for BucketKey<'_> {
    type Value = Bucket;

    fn write(&self, bytes: &mut KeyWriter<'_>) {
        bytes.name(self.target.as_str());
        bytes.name(self.caller.as_str());
    }
}

pub(super) fn read_key(key: &mut KeyReader<'_>) -> Option<()> {
    key.user()?;
    key.caller()
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
            caller in generate::caller(),
            time: u64,
        ) {
            let key = BucketKey { target: &target, caller: &caller };
            assert_round_trip(&key, &Bucket { full_at: TimestampMs(time) });
        }
    }
}
