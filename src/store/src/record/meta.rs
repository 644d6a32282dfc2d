//! Facts about the whole shard: one record.
//!
//! Guarantees: it is there as soon as one batch was applied. Version 1 has no origin; a shard that
//! was made new is written in it still, so that its records are the same whichever program wrote
//! them. Leaves out: the applied log index, which the caller commits beside the changes.

use oncekey_types::TimestampMs;
use serde::{Deserialize, Serialize};

use super::{CorruptRecord, Key, KeyWriter, Kind, Value, corrupt, queue::Queue};
use crate::{
    codec::{EncodeError, value},
    origin::Origin,
};

pub(crate) struct MetaKey;

/// Value of the one meta record.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Meta {
    /// Log time: the highest time of any batch so far.
    pub(crate) time: TimestampMs,
    /// The ends of the queue of retries.
    pub(crate) retries: Queue,
    /// Where the shard's records come from.
    pub(crate) origin: Origin,
}

/// Version without the origin.
const WITHOUT_ORIGIN: u8 = 1;
const VERSION: u8 = 2;

impl Value for Meta {
    const KIND: Kind = Kind::Meta;

    fn append_to(&self, bytes: &mut Vec<u8>) -> Result<(), EncodeError> {
        match self.origin {
            Origin::New => value::encode(WITHOUT_ORIGIN, &(self.time, self.retries), bytes),
            Origin::BeingRestored { .. } | Origin::Restored { .. } => {
                value::encode(VERSION, self, bytes)
            }
        }
    }

    fn from_bytes(bytes: &[u8]) -> Result<Self, CorruptRecord> {
        let decoded = if bytes.first() == Some(&WITHOUT_ORIGIN) {
            value::decode(WITHOUT_ORIGIN, bytes).map(|(time, retries)| Self {
                time,
                retries,
                origin: Origin::New,
            })
        } else {
            value::decode(VERSION, bytes)
        };
        decoded.map_err(|error| corrupt(Kind::Meta, "value", error.to_string()))
    }
}

impl Key for MetaKey {
    type Value = Meta;

    fn write(&self, _: &mut KeyWriter<'_>) {}
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use oncekey_types::{BackupId, Epoch};

    use super::*;
    use crate::record::tests::{assert_round_trip, to_bytes};

    proptest! {
        #[test]
        fn a_meta_record_round_trips(
            time: u64,
            head: u64,
            offset: u32,
            due: u64,
            ends: [u64; 2],
            backup: [u8; 16],
            epoch: u64,
        ) {
            let due = TimestampMs(due);
            let retries = Queue { head, offset, due, tail: ends[0], len: ends[1] };
            let (backup, epoch) = (BackupId(backup), Epoch(epoch));
            for (origin, version) in [
                (Origin::New, WITHOUT_ORIGIN),
                (Origin::BeingRestored { backup, epoch }, VERSION),
                (Origin::Restored { backup, epoch }, VERSION),
            ] {
                let meta = Meta { time: TimestampMs(time), retries, origin };
                assert_round_trip(&MetaKey, &meta);
                prop_assert_eq!(to_bytes(&meta)[0], version);
            }
        }
    }
}
