//! What is to be forgotten, and when: a queue of the keys of retries, in lots.
//!
//! ```text
//! lot = u8 version ‖ u64 due ‖ (u16 length ‖ the parts of a key) …
//! ```
//!
//! Numbers are big-endian. A lot takes in all that one batch puts into the queue and does not
//! change later; it is read from its first entry to its last, like a lot of one-time prekeys, and
//! deleted behind the last. One record for a batch and not one for a key, so that queueing costs
//! little beside what is queued.
//!
//! Guarantees: entries leave in the order in which they came; the queue's ends say how many there
//! are, and when to look at the first, without a read. Leaves out: an order by time; what is due
//! waits for what came before it.

use oncekey_types::TimestampMs;
use serde::{Deserialize, Serialize};

use super::{
    CorruptRecord, Key, KeyWriter, Kind, Value, corrupt, is_key,
    retry::{self, Retry},
};
use crate::codec::EncodeError;

/// The ends of the queue. Its lots have the numbers `head` to `tail - 1`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Queue {
    /// Number of the lot that holds the first entry.
    pub(crate) head: u64,
    /// Byte in that lot at which the first entry starts. Of no meaning in an empty queue.
    pub(crate) offset: u32,
    /// When to look at the entries of that lot. Of no meaning in an empty queue.
    pub(crate) due: TimestampMs,
    /// Number that the next lot will get.
    pub(crate) tail: u64,
    /// Entries.
    pub(crate) len: u64,
}

impl Queue {
    pub(crate) fn is_due(&self, now: TimestampMs) -> bool {
        self.len > 0 && self.due <= now
    }
}

/// The lot with this number.
pub(crate) struct QueueKey(pub(crate) u64);

impl Key for QueueKey {
    type Value = QueueLot;

    fn write(&self, bytes: &mut KeyWriter<'_>) {
        bytes.number(self.0);
    }
}

/// Value of a queue record, as its bytes: when to look at the entries, and the parts of their keys.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct QueueLot(Vec<u8>);

const VERSION: u8 = 1;

/// Offset of the first entry of a lot.
pub(crate) const QUEUE_LOT_START: u32 = 9;
const ENTRIES: usize = QUEUE_LOT_START as usize;

/// Room for the first few entries.
const LOT_USUAL_BYTES: usize = 128;

impl QueueLot {
    /// The bytes of a lot without entries.
    pub(crate) fn empty(due: TimestampMs) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(LOT_USUAL_BYTES);
        bytes.push(VERSION);
        bytes.extend_from_slice(&due.0.to_be_bytes());
        bytes
    }

    /// Appends `key` to the lot in `bytes`, which is due no later than `due` then. Gives the lot's
    /// time.
    pub(crate) fn push(
        bytes: &mut Vec<u8>,
        due: TimestampMs,
        key: &impl Key,
    ) -> Result<TimestampMs, CorruptRecord> {
        let due = due.min(Self::due(bytes)?);
        bytes[1..ENTRIES].copy_from_slice(&due.0.to_be_bytes());
        let start = bytes.len();
        bytes.extend_from_slice(&[0; 2]);
        key.write(&mut KeyWriter(bytes));
        let len = u16::try_from(bytes.len() - start - 2);
        let len = len.map_err(|_| malformed("has too long an entry"))?;
        bytes[start..start + 2].copy_from_slice(&len.to_be_bytes());
        Ok(due)
    }

    /// When to look at the entries of the lot in `bytes`.
    pub(crate) fn due(bytes: &[u8]) -> Result<TimestampMs, CorruptRecord> {
        match bytes.split_first() {
            Some((&VERSION, rest)) => rest.first_chunk().map(|due| u64::from_be_bytes(*due)),
            Some(_) | None => None,
        }
        .map(TimestampMs)
        .ok_or_else(|| malformed("is no lot of this version"))
    }

    /// The entry at byte `offset` of the lot in `bytes`, and the offset behind it if more follow.
    pub(crate) fn entry_at(
        bytes: &[u8],
        offset: u32,
    ) -> Result<(&[u8], Option<u32>), CorruptRecord> {
        let entry = || {
            let rest = bytes.get(usize::try_from(offset).ok()?..)?;
            let (len, rest) = rest.split_first_chunk()?;
            rest.split_at_checked(usize::from(u16::from_be_bytes(*len)))
        };
        let (entry, rest) = entry().ok_or_else(|| malformed("ends within an entry"))?;
        let next = u32::try_from(bytes.len() - rest.len());
        let next = next.map_err(|_| malformed("is too long"))?;
        Ok((entry, (!rest.is_empty()).then_some(next)))
    }
}

impl Value for QueueLot {
    const KIND: Kind = Kind::Queue;

    fn append_to(&self, bytes: &mut Vec<u8>) -> Result<(), EncodeError> {
        bytes.extend_from_slice(&self.0);
        Ok(())
    }

    fn from_bytes(bytes: &[u8]) -> Result<Self, CorruptRecord> {
        Self::due(bytes)?;
        entries(bytes, |_| Ok(()))?;
        Ok(Self(bytes.to_vec()))
    }
}

/// The key of a retry out of the queue: its parts, as they were written.
pub(crate) struct QueuedKey(Vec<u8>);

impl QueuedKey {
    pub(crate) fn new(parts: &[u8]) -> Self {
        Self(parts.to_vec())
    }
}

impl Key for QueuedKey {
    type Value = Retry;

    fn write(&self, bytes: &mut KeyWriter<'_>) {
        bytes.raw(&self.0);
    }
}

/// Checks a lot from outside: besides its form, that each entry is the key of a retry.
pub(super) fn check(key: &[u8], value: &[u8]) -> Result<(), CorruptRecord> {
    super::check::<QueueLot>(key, value, |key| key.number())?;
    entries(value, |parts| {
        let is_retry = is_key(parts, retry::read_key);
        if is_retry { Ok(()) } else { Err(malformed("has an entry that is no key")) }
    })
}

/// Shows every entry of the lot in `bytes`; there is at least one.
fn entries(
    bytes: &[u8],
    mut show: impl FnMut(&[u8]) -> Result<(), CorruptRecord>,
) -> Result<(), CorruptRecord> {
    let mut next = Some(QUEUE_LOT_START);
    while let Some(offset) = next {
        let (entry, behind) = QueueLot::entry_at(bytes, offset)?;
        show(entry)?;
        next = behind;
    }
    Ok(())
}

fn malformed(reason: &str) -> CorruptRecord {
    corrupt(Kind::Queue, "value", reason)
}

#[cfg(test)]
mod tests {
    use oncekey_types::{CallerId, RequestId};
    use proptest::{collection::vec, prelude::*};

    use super::*;
    use crate::{
        generate,
        record::{account::AccountKey, retry::RetryKey, tests::assert_round_trip},
    };

    fn request(text: &str) -> RequestId {
        RequestId::new(text).unwrap()
    }

    proptest! {
        #[test]
        fn a_lot_gives_back_the_keys_that_went_in_and_the_least_of_their_times(
            callers in vec((generate::caller(), 0u64..1000), 1..9),
            number: u64,
        ) {
            let mut bytes = QueueLot::empty(TimestampMs(u64::MAX));
            for (caller, due) in &callers {
                let key = RetryKey(caller, &request("r"));
                QueueLot::push(&mut bytes, TimestampMs(*due), &key).unwrap();
            }
            let least = callers.iter().map(|(_, due)| *due).min().unwrap();
            prop_assert_eq!(QueueLot::due(&bytes).unwrap(), TimestampMs(least));
            let mut next = Some(QUEUE_LOT_START);
            for (caller, _) in &callers {
                let (parts, behind) = QueueLot::entry_at(&bytes, next.unwrap()).unwrap();
                let key = QueuedKey::new(parts).to_bytes();
                prop_assert_eq!(key, RetryKey(caller, &request("r")).to_bytes());
                next = behind;
            }
            prop_assert_eq!(next, None);
            assert_round_trip(&QueueKey(number), &QueueLot::from_bytes(&bytes).unwrap());
        }
    }

    #[test]
    fn a_lot_with_an_entry_that_is_no_key_of_a_retry_is_corrupt() {
        let user = oncekey_types::UserId::new("bob").unwrap();
        let mut bytes = QueueLot::empty(TimestampMs(1));
        QueueLot::push(&mut bytes, TimestampMs(1), &AccountKey(&user)).unwrap();
        assert!(Kind::Queue.check(&QueueKey(7).to_bytes(), &bytes).is_err());
    }

    #[test]
    fn a_lot_that_is_empty_or_cut_off_is_corrupt() {
        let caller = CallerId::new("alice").unwrap();
        let mut bytes = QueueLot::empty(TimestampMs(1));
        QueueLot::push(&mut bytes, TimestampMs(1), &RetryKey(&caller, &request("r"))).unwrap();
        for len in 0..bytes.len() {
            assert!(QueueLot::from_bytes(&bytes[..len]).is_err(), "{len} bytes");
        }
        assert_eq!(Kind::Queue.check(&QueueKey(1).to_bytes(), &bytes), Ok(()));
    }
}
