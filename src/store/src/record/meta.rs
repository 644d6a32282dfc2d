//! Facts about the whole shard: one record.
//!
//! Guarantees: it is there as soon as one batch was applied. Leaves out: the applied log index,
//! which the caller commits beside the changes.

use oncekey_types::TimestampMs;
use serde::{Deserialize, Serialize};

use super::{Key, KeyReader, KeyWriter, Kind, Versioned};

#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct MetaKey;

/// Value of the one meta record.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Meta {
    /// Log time: the highest time of any batch so far.
    pub(crate) time: TimestampMs,
    pub(crate) retries: Queue,
    pub(crate) buckets: Queue,
}

/// A first-in, first-out queue. Its entries are records of their own, numbered without gaps, so
/// that the head is found by its key and not by a scan over what was deleted before it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Queue {
    /// Number of the oldest entry, when there is one.
    pub(crate) head: u64,
    /// Number that the next entry will get.
    pub(crate) tail: u64,
}

impl Queue {
    pub(crate) fn len(self) -> u64 {
        self.tail.saturating_sub(self.head)
    }

    /// The number of a new last entry.
    pub(crate) fn push(&mut self) -> u64 {
        let number = self.tail;
        self.tail += 1;
        number
    }

    /// The number of the oldest entry.
    pub(crate) fn front(self) -> Option<u64> {
        (self.head < self.tail).then_some(self.head)
    }

    /// Forgets the oldest entry.
    pub(crate) fn pop(&mut self) {
        debug_assert!(self.head < self.tail, "pop of an empty queue: {self:?}");
        self.head += 1;
    }
}

impl Default for Meta {
    fn default() -> Self {
        Self { time: TimestampMs(0), retries: Queue::default(), buckets: Queue::default() }
    }
}

impl Versioned for Meta {
    const VERSION: u8 = 1;
}

impl Key for MetaKey {
    const KIND: Kind = Kind::Meta;
    type Value = Meta;

    fn write(&self, _: &mut KeyWriter) {}

    fn read(_: &mut KeyReader<'_>) -> Option<Self> {
        Some(Self)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::record::tests::assert_round_trip;

    proptest! {
        #[test]
        fn a_meta_record_round_trips(time: u64, ends: [u64; 4]) {
            let [a, b, c, d] = ends;
            let meta = Meta {
                time: TimestampMs(time),
                retries: Queue { head: a, tail: b },
                buckets: Queue { head: c, tail: d },
            };
            assert_round_trip(&MetaKey, &meta);
        }
    }

    #[test]
    fn a_queue_counts_what_was_pushed_and_not_popped() {
        let mut queue = Queue::default();
        assert_eq!(queue.front(), None);
        assert_eq!((queue.push(), queue.push()), (0, 1));
        queue.pop();
        assert_eq!((queue.front(), queue.len()), (Some(1), 1));
    }
}
