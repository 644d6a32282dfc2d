//! The records of a shard: one file for each kind of key.
//!
//! A key is the kind's prefix byte and the parts of the key: names as `u8 length ‖ bytes`, numbers
//! big-endian. No key is a prefix of another one.
//!
//! | prefix | kind | key | value |
//! |---|---|---|---|
//! | 0x01 | meta | – | log time, ends of the two queues |
//! | 0x02 | account | user | devices, registrations, floor of the one-time prekey ids, end of the list chain |
//! | 0x03 | device list | user | the signed device list |
//! | 0x04 | device | user, device | registration, keys, last writes |
//! | 0x05 | cursor | user, device | first lot and offset, number of keys, highest id |
//! | 0x06 | lot | user, device, number | one-time prekeys, packed; never rewritten |
//! | 0x07 | retry | caller, idempotency key | what was dispensed |
//! | 0x08 | retry queue | number | a retry |
//! | 0x09 | bucket | user, caller or none | when it is full again |
//! | 0x0a | bucket queue | number | a bucket |
//!
//! Guarantees: a key or a value that was not written by this code is found to be corrupt, and not
//! taken for another one. Leaves out: bit flips that give another valid value; the engine's
//! checksums find those.

pub(crate) mod account;
pub(crate) mod bucket;
pub(crate) mod device;
pub(crate) mod meta;
pub(crate) mod pool;
pub(crate) mod retry;

use core::fmt;

use oncekey_types::DeviceId;
use serde::{Serialize, de::DeserializeOwned};

use crate::codec::{EncodeError, value};

/// All keys lie from the first of these (included) to the second (excluded).
pub const KEY_SPACE: (&[u8], &[u8]) = (&[0x01], &[0x0b]);

/// A record in the state that is not what was written.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("a {kind} record of the state is corrupt: its {part} {reason}")]
pub struct CorruptRecord {
    /// Its kind.
    pub kind: Kind,
    /// What is wrong: `key`, `value` or a part of it.
    pub part: &'static str,
    /// What is wrong with it.
    pub reason: String,
}

/// What a record is. The first byte of its key. Stable, never reuse.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[repr(u8)]
pub enum Kind {
    /// Facts about the whole shard.
    Meta = 0x01,
    /// A user.
    Account = 0x02,
    /// A user's signed device list.
    DeviceList = 0x03,
    /// A device.
    Device = 0x04,
    /// Where a device's pool begins and ends.
    Cursor = 0x05,
    /// A part of a device's pool.
    Lot = 0x06,
    /// What was dispensed to a request.
    Retry = 0x07,
    /// The retries, oldest first.
    RetryQueue = 0x08,
    /// A rate limit.
    Bucket = 0x09,
    /// The rate limits, in the order in which they are looked at.
    BucketQueue = 0x0a,
}

impl Kind {
    const ALL: [Self; 10] = [
        Self::Meta,
        Self::Account,
        Self::DeviceList,
        Self::Device,
        Self::Cursor,
        Self::Lot,
        Self::Retry,
        Self::RetryQueue,
        Self::Bucket,
        Self::BucketQueue,
    ];

    /// The kind of the record under `key`, if there is such a kind.
    #[must_use]
    pub fn of(key: &[u8]) -> Option<Self> {
        let prefix = *key.first()?;
        Self::ALL.into_iter().find(|kind| *kind as u8 == prefix)
    }

    /// Checks a record from outside: its key is well-formed and its value decodes.
    pub(crate) fn check(self, key: &[u8], value: &[u8]) -> Result<(), CorruptRecord> {
        match self {
            Self::Meta => check::<meta::MetaKey>(key, value),
            Self::Account => check::<account::AccountKey>(key, value),
            Self::DeviceList => check::<account::DeviceListKey>(key, value),
            Self::Device => check::<device::DeviceKey>(key, value),
            Self::Cursor => check::<pool::CursorKey>(key, value),
            Self::Lot => check::<pool::LotKey>(key, value),
            Self::Retry => check::<retry::RetryKey>(key, value),
            Self::RetryQueue => check::<retry::RetryQueueKey>(key, value),
            Self::Bucket => check::<bucket::BucketKey>(key, value),
            Self::BucketQueue => check::<bucket::BucketQueueKey>(key, value),
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Meta => "meta",
            Self::Account => "account",
            Self::DeviceList => "device list",
            Self::Device => "device",
            Self::Cursor => "cursor",
            Self::Lot => "lot",
            Self::Retry => "retry",
            Self::RetryQueue => "retry queue",
            Self::Bucket => "bucket",
            Self::BucketQueue => "bucket queue",
        })
    }
}

/// A kind of key, with the values that stand under it.
pub(crate) trait Key: Sized {
    const KIND: Kind;
    type Value: Value;

    /// The parts behind the prefix byte.
    fn write(&self, bytes: &mut KeyWriter);
    fn read(bytes: &mut KeyReader<'_>) -> Option<Self>;

    fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = KeyWriter(vec![Self::KIND as u8]);
        self.write(&mut bytes);
        bytes.0
    }

    fn decode(bytes: &[u8]) -> Result<Self::Value, CorruptRecord> {
        Self::Value::from_bytes(bytes).map_err(|reason| corrupt(Self::KIND, "value", reason))
    }
}

/// A kind of value.
pub(crate) trait Value: Sized {
    fn to_bytes(&self) -> Result<Vec<u8>, EncodeError>;
    fn from_bytes(bytes: &[u8]) -> Result<Self, String>;
}

/// A value that is one bincode value with a version.
pub(crate) trait Versioned: Serialize + DeserializeOwned {
    const VERSION: u8;
}

impl<T: Versioned> Value for T {
    fn to_bytes(&self) -> Result<Vec<u8>, EncodeError> {
        value::encode(Self::VERSION, self)
    }

    fn from_bytes(bytes: &[u8]) -> Result<Self, String> {
        value::decode(Self::VERSION, bytes).map_err(|error| error.to_string())
    }
}

/// Writes the parts of a key.
pub(crate) struct KeyWriter(Vec<u8>);

impl KeyWriter {
    /// A name has at most 255 bytes, so that its length fits.
    fn name(&mut self, name: &str) {
        debug_assert!(u8::try_from(name.len()).is_ok(), "a name of {} bytes", name.len());
        self.0.push(u8::try_from(name.len()).unwrap_or(u8::MAX));
        self.0.extend_from_slice(name.as_bytes());
    }

    fn device(&mut self, device: DeviceId) {
        self.0.extend_from_slice(&device.0.to_be_bytes());
    }

    fn number(&mut self, number: u64) {
        self.0.extend_from_slice(&number.to_be_bytes());
    }
}

/// Reads the parts of a key.
pub(crate) struct KeyReader<'a>(&'a [u8]);

impl KeyReader<'_> {
    fn name(&mut self) -> Option<String> {
        let (&len, rest) = self.0.split_first()?;
        let (name, rest) = rest.split_at_checked(usize::from(len))?;
        self.0 = rest;
        String::from_utf8(name.to_vec()).ok()
    }

    fn device(&mut self) -> Option<DeviceId> {
        self.array().map(u32::from_be_bytes).map(DeviceId)
    }

    fn number(&mut self) -> Option<u64> {
        self.array().map(u64::from_be_bytes)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*head)
    }
}

pub(crate) fn corrupt(kind: Kind, part: &'static str, reason: impl Into<String>) -> CorruptRecord {
    CorruptRecord { kind, part, reason: reason.into() }
}

/// The key in `bytes`, all of them.
fn parse<K: Key>(bytes: &[u8]) -> Option<K> {
    let (&prefix, rest) = bytes.split_first()?;
    let mut rest = KeyReader(rest);
    let key = K::read(&mut rest)?;
    (prefix == K::KIND as u8 && rest.0.is_empty()).then_some(key)
}

fn check<K: Key>(key: &[u8], value: &[u8]) -> Result<(), CorruptRecord> {
    if parse::<K>(key).is_none() {
        return Err(corrupt(K::KIND, "key", "is malformed"));
    }
    K::decode(value).map(|_| ())
}

#[cfg(test)]
pub(crate) mod tests {
    use core::fmt::Debug;

    use proptest::prelude::*;

    use super::*;

    /// What every kind of record has to do.
    pub(crate) fn assert_round_trip<K>(key: &K, value: &K::Value)
    where
        K: Key + PartialEq + Debug,
        K::Value: PartialEq + Debug,
    {
        let (key_bytes, value_bytes) = (key.to_bytes(), value.to_bytes().unwrap());
        assert_eq!(parse::<K>(&key_bytes).as_ref(), Some(key));
        assert_eq!(&K::decode(&value_bytes).unwrap(), value);
        assert_eq!(Kind::of(&key_bytes), Some(K::KIND));
        assert_eq!(K::KIND.check(&key_bytes, &value_bytes), Ok(()));
        let space = KEY_SPACE.0..KEY_SPACE.1;
        assert!(space.contains(&key_bytes.as_slice()));
        let longer = [key_bytes.as_slice(), &[0]].concat();
        assert!(K::KIND.check(&longer, &value_bytes).is_err());
        let shorter = &key_bytes[..key_bytes.len() - 1];
        assert!(K::KIND.check(shorter, &value_bytes).is_err());
    }

    proptest! {
        #[test]
        fn no_bytes_from_outside_make_the_check_panic(
            key in proptest::collection::vec(any::<u8>(), 0..40),
            value in proptest::collection::vec(any::<u8>(), 0..80),
            version in 0u8..3,
        ) {
            let value = [&[version], value.as_slice()].concat();
            for kind in Kind::ALL {
                let key = [&[kind as u8], key.as_slice()].concat();
                let _ = kind.check(&key, &value);
            }
        }
    }

    #[test]
    fn every_prefix_is_inside_the_key_space_and_unique() {
        for kind in Kind::ALL {
            assert_eq!(Kind::of(&[kind as u8]), Some(kind));
            assert!(KEY_SPACE.0 <= &[kind as u8][..] && &[kind as u8][..] < KEY_SPACE.1);
        }
        assert_eq!(Kind::of(&[]), None);
        assert_eq!(Kind::of(&[0x0b]), None);
    }
}
