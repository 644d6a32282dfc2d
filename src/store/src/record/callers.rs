//! The token buckets of the callers of one user; a part of the account.
//!
//! ```text
//! bucket = u64 caller ‖ u64 full_at
//! ```
//!
//! Numbers are big-endian. Kept as bytes, because a pop looks for one of them and changes that one.
//!
//! Guarantees: a caller has one bucket at most; a caller without one has a full one. Leaves out:
//! capacities, which come with each batch.

use oncekey_types::TimestampMs;

/// Stands for a caller in a few bytes. Two callers with the same tag would share a bucket; of the
/// few that one user keeps, no two will.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct CallerTag(pub(crate) u64);

/// The tokens of one caller.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct CallerBucket {
    pub(crate) caller: CallerTag,
    /// The log time at which it is full again; GCRA's "theoretical arrival time".
    pub(crate) full_at: TimestampMs,
}

/// The buckets of the callers of late.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct CallerBuckets(Vec<u8>);

const NUMBER: usize = size_of::<u64>();
const BUCKET: usize = 2 * NUMBER;

impl CallerBuckets {
    pub(crate) fn iter(&self) -> impl Iterator<Item = CallerBucket> {
        self.0.chunks_exact(BUCKET).map(unpack)
    }

    pub(crate) fn find(&self, caller: CallerTag) -> Option<CallerBucket> {
        self.iter().find(|bucket| bucket.caller == caller)
    }

    /// Puts `bucket` in the place of the one that the caller has, and drops those that are full.
    /// If there are more than `max` then, the one that is full soonest is dropped.
    pub(crate) fn put(&mut self, bucket: CallerBucket, now: TimestampMs, max: usize) {
        let kept = self.iter().filter(|old| old.full_at > now && old.caller != bucket.caller);
        let mut buckets: Vec<_> = kept.chain([bucket]).collect();
        if buckets.len() > max {
            let in_order = buckets.iter().enumerate();
            let soonest = in_order.min_by_key(|(_, bucket)| bucket.full_at);
            if let Some((place, _)) = soonest {
                buckets.remove(place);
            }
        }
        self.0.clear();
        self.0.extend(buckets.into_iter().flat_map(pack));
    }
}

impl AsRef<[u8]> for CallerBuckets {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

/// The bytes do not end with a whole bucket.
pub(crate) struct Torn;

impl TryFrom<&[u8]> for CallerBuckets {
    type Error = Torn;

    fn try_from(bytes: &[u8]) -> Result<Self, Torn> {
        if bytes.len().is_multiple_of(BUCKET) { Ok(Self(bytes.to_vec())) } else { Err(Torn) }
    }
}

fn pack(bucket: CallerBucket) -> [u8; BUCKET] {
    let packed = u128::from(bucket.caller.0) << u64::BITS | u128::from(bucket.full_at.0);
    packed.to_be_bytes()
}

fn unpack(bytes: &[u8]) -> CallerBucket {
    let number = |bytes: &[u8]| bytes.iter().fold(0, |number, byte| number << 8 | u64::from(*byte));
    let (caller, full_at) = bytes.split_at(NUMBER);
    CallerBucket { caller: CallerTag(number(caller)), full_at: TimestampMs(number(full_at)) }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::{collection::vec, prelude::*};

    use super::*;

    proptest! {
        #[test]
        fn the_buckets_are_a_map_that_forgets_the_full_ones(
            puts in vec((0u64..6, 0u64..40, 0u64..20), 1..40),
        ) {
            let (mut buckets, mut map) = (CallerBuckets::default(), BTreeMap::new());
            let mut now = 0;
            for (caller, more, passed) in puts {
                now += passed;
                let caller = u64::MAX - caller;
                let full_at = now + more;
                let bucket = CallerBucket { caller: CallerTag(caller), full_at: TimestampMs(full_at) };
                buckets.put(bucket, TimestampMs(now), 6);
                map.retain(|_, full_at| *full_at > now);
                map.insert(caller, full_at);
                let found = buckets.iter().map(|bucket| (bucket.caller.0, bucket.full_at.0));
                prop_assert_eq!(found.collect::<BTreeMap<_, _>>(), map.clone());
                prop_assert_eq!(buckets.iter().count(), map.len());
            }
        }
    }

    #[test]
    fn bytes_that_are_no_whole_buckets_are_refused() {
        for len in 0..40 {
            assert_eq!(CallerBuckets::try_from(&vec![7; len][..]).is_ok(), len % 16 == 0, "{len}");
        }
    }

    #[test]
    fn of_too_many_the_one_that_is_full_soonest_goes() {
        let mut buckets = CallerBuckets::default();
        for (caller, full_at) in [(1, 30), (2, 10), (3, 20), (4, 15)] {
            let bucket = CallerBucket { caller: CallerTag(caller), full_at: TimestampMs(full_at) };
            buckets.put(bucket, TimestampMs(0), 2);
        }
        let left: Vec<u64> = buckets.iter().map(|bucket| bucket.caller.0).collect();
        assert_eq!(left, [1, 3]);
    }
}
