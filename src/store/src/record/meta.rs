//! Facts about the whole shard: one record.
//!
//! Guarantees: it is there as soon as one batch was applied. Leaves out: the applied log index,
//! which the caller commits beside the changes.

use oncekey_types::TimestampMs;
use serde::{Deserialize, Serialize};

use super::{Key, KeyWriter, Kind, Versioned, queue::Queue};

pub(crate) struct MetaKey;

/// Value of the one meta record.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Meta {
    /// Log time: the highest time of any batch so far.
    pub(crate) time: TimestampMs,
    /// The ends of the queue of retries.
    pub(crate) retries: Queue,
}

impl Versioned for Meta {
    const KIND: Kind = Kind::Meta;
    const VERSION: u8 = 1;
}

impl Key for MetaKey {
    type Value = Meta;

    fn write(&self, _: &mut KeyWriter<'_>) {}
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::record::tests::assert_round_trip;

    proptest! {
        #[test]
        fn a_meta_record_round_trips(time: u64, head: u64, offset: u32, due: u64, ends: [u64; 2]) {
            let due = TimestampMs(due);
            let retries = Queue { head, offset, due, tail: ends[0], len: ends[1] };
            assert_round_trip(&MetaKey, &Meta { time: TimestampMs(time), retries });
        }
    }
}
