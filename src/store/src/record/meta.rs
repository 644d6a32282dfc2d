//! Facts about the whole shard: one record.
//!
//! Guarantees: it is there as soon as one batch was applied. Leaves out: the applied log index,
//! which the caller commits beside the changes.

use oncekey_types::TimestampMs;
use serde::{Deserialize, Serialize};

use super::{
    Key, KeyWriter, Kind, Versioned,
    queue::{Queue, QueueId},
};

pub(crate) struct MetaKey;

/// Value of the one meta record.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Meta {
    /// Log time: the highest time of any batch so far.
    pub(crate) time: TimestampMs,
    retries: Queue,
    buckets: Queue,
}

impl Meta {
    pub(crate) fn queue(&self, id: QueueId) -> &Queue {
        match id {
            QueueId::Retries => &self.retries,
            QueueId::Buckets => &self.buckets,
        }
    }

    pub(crate) fn queue_mut(&mut self, id: QueueId) -> &mut Queue {
        match id {
            QueueId::Retries => &mut self.retries,
            QueueId::Buckets => &mut self.buckets,
        }
    }
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
            let queue = Queue { head, offset, due, tail: ends[0], len: ends[1] };
            let meta = Meta { time: TimestampMs(time), retries: queue, buckets: Queue::default() };
            assert_round_trip(&MetaKey, &meta);
            let meta = Meta { retries: Queue::default(), buckets: queue, ..meta };
            assert_round_trip(&MetaKey, &meta);
        }
    }
}
