//! The records of a shard: one file for each kind of key.
//!
//! A key is the kind's prefix byte and the parts of the key: names as `u8 length ‖ bytes`, numbers
//! big-endian. No key is a prefix of another one.
//!
//! | prefix | kind | key | value |
//! |---|---|---|---|
//! | 0x01 | meta | – | log time, ends of the two queues |
//! | 0x02 | account | user | devices with their cursors, registrations, floor of the one-time prekey ids, position of the list, the user's buckets |
//! | 0x03 | device list | user | the signed device list |
//! | 0x04 | device | user, device | registration, keys, last writes |
//! | 0x05 | lot | user, device, number | one-time prekeys, packed; never rewritten |
//! | 0x06 | retry | caller, idempotency key | what was dispensed |
//! | 0x07 | queue | number | keys of retries, and when to look at them |
//!
//! Guarantees: a key or a value that was not written by this code is found to be corrupt, and not
//! taken for another one. Leaves out: bit flips that give another valid value; the engine's
//! checksums find those.

pub(crate) mod account;
pub(crate) mod callers;
pub(crate) mod device;
pub(crate) mod kept;
pub(crate) mod meta;
pub(crate) mod pool;
pub(crate) mod queue;
pub(crate) mod retry;

use core::fmt;

use oncekey_types::{CallerId, DeviceId, RequestId, UserId};
use serde::{Serialize, de::DeserializeOwned};

use crate::{
    codec::{DecodeError, EncodeError, value},
    command::DeviceList,
};

/// All keys lie from the first of these (included) to the second (excluded).
pub const KEY_SPACE: (&[u8], &[u8]) = (&[0x01], &[0x08]);

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
    /// A part of a device's pool.
    Lot = 0x05,
    /// What was dispensed to a request.
    Retry = 0x06,
    /// Retries in the order in which they are looked at.
    Queue = 0x07,
}

impl Kind {
    const ALL: [Self; 7] = [
        Self::Meta,
        Self::Account,
        Self::DeviceList,
        Self::Device,
        Self::Lot,
        Self::Retry,
        Self::Queue,
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
            Self::Meta => check::<meta::Meta>(key, value, |_| Some(())),
            Self::Account => check::<account::Account>(key, value, |key| key.user().map(drop)),
            Self::DeviceList => check::<DeviceList>(key, value, |key| key.user().map(drop)),
            Self::Device => check::<device::Device>(key, value, device::read_key),
            Self::Lot => check::<pool::Lot>(key, value, pool::read_lot_key),
            Self::Retry => check::<retry::Retry>(key, value, retry::read_key),
            Self::Queue => queue::check(key, value),
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
            Self::Lot => "lot",
            Self::Retry => "retry",
            Self::Queue => "queue",
        })
    }
}

/// A key, which says what stands under it. Borrows its parts.
pub(crate) trait Key {
    type Value: Value;

    /// The parts behind the prefix byte.
    fn write(&self, bytes: &mut KeyWriter<'_>);

    fn append_to(&self, bytes: &mut Vec<u8>) {
        bytes.push(Self::Value::KIND as u8);
        self.write(&mut KeyWriter(bytes));
    }

    fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.append_to(&mut bytes);
        bytes
    }
}

/// What stands under a kind of key.
pub(crate) trait Value: Sized {
    const KIND: Kind;

    fn append_to(&self, bytes: &mut Vec<u8>) -> Result<(), EncodeError>;
    fn from_bytes(bytes: &[u8]) -> Result<Self, CorruptRecord>;
}

/// A value that is one bincode value with a version.
pub(crate) trait Versioned: Serialize + DeserializeOwned {
    const KIND: Kind;
    const VERSION: u8;
}

impl<T: Versioned> Value for T {
    const KIND: Kind = T::KIND;

    fn append_to(&self, bytes: &mut Vec<u8>) -> Result<(), EncodeError> {
        value::encode(T::VERSION, self, bytes)
    }

    fn from_bytes(bytes: &[u8]) -> Result<Self, CorruptRecord> {
        value::decode(T::VERSION, bytes).map_err(|error| undecoded::<T>(&error))
    }
}

/// Writes the parts of a key.
pub(crate) struct KeyWriter<'a>(&'a mut Vec<u8>);

impl KeyWriter<'_> {
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

    /// Parts that were written before.
    fn raw(&mut self, parts: &[u8]) {
        self.0.extend_from_slice(parts);
    }
}

/// Takes the parts of a key that this node has not written.
pub(crate) struct KeyReader<'a>(&'a [u8]);

impl<'a> KeyReader<'a> {
    fn user(&mut self) -> Option<UserId> {
        UserId::new(self.name()?).ok()
    }

    fn caller(&mut self) -> Option<()> {
        CallerId::new(self.name()?).ok().map(drop)
    }

    fn request(&mut self) -> Option<()> {
        RequestId::new(self.name()?).ok().map(drop)
    }

    fn device(&mut self) -> Option<DeviceId> {
        let (number, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(DeviceId(u32::from_be_bytes(*number)))
    }

    fn number(&mut self) -> Option<()> {
        self.take(size_of::<u64>()).map(drop)
    }

    fn name(&mut self) -> Option<&'a str> {
        let &[len] = self.take(1)? else { return None };
        core::str::from_utf8(self.take(usize::from(len))?).ok()
    }

    fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (head, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(head)
    }
}

pub(crate) fn corrupt(kind: Kind, part: &'static str, reason: impl Into<String>) -> CorruptRecord {
    CorruptRecord { kind, part, reason: reason.into() }
}

/// The first field of a value, read without the others.
fn first_field<V: Versioned, T: DeserializeOwned>(bytes: &[u8]) -> Result<T, CorruptRecord> {
    value::decode_first(V::VERSION, bytes).map_err(|error| undecoded::<V>(&error))
}

fn undecoded<T: Versioned>(error: &DecodeError) -> CorruptRecord {
    corrupt(T::KIND, "value", error.to_string())
}

/// Takes the parts of a key; `None` when they are malformed.
type ReadKey = fn(&mut KeyReader<'_>) -> Option<()>;

fn is_key(parts: &[u8], read: ReadKey) -> bool {
    let mut rest = KeyReader(parts);
    read(&mut rest).is_some() && rest.0.is_empty()
}

fn check<V: Value>(key: &[u8], value: &[u8], read: ReadKey) -> Result<(), CorruptRecord> {
    match key.split_first() {
        Some((&prefix, parts)) if prefix == V::KIND as u8 && is_key(parts, read) => {
            V::from_bytes(value).map(drop)
        }
        Some(_) | None => Err(corrupt(V::KIND, "key", "is malformed")),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use core::fmt::Debug;

    use proptest::prelude::*;

    use super::*;

    pub(crate) fn to_bytes<V: Value>(value: &V) -> Vec<u8> {
        let mut bytes = Vec::new();
        value.append_to(&mut bytes).unwrap();
        bytes
    }

    /// What every kind of record has to do.
    pub(crate) fn assert_round_trip<K>(key: &K, value: &K::Value)
    where
        K: Key,
        K::Value: PartialEq + Debug,
    {
        let (key_bytes, value_bytes) = (key.to_bytes(), to_bytes(value));
        let kind = K::Value::KIND;
        assert_eq!(&K::Value::from_bytes(&value_bytes).unwrap(), value);
        assert_eq!(Kind::of(&key_bytes), Some(kind));
        assert_eq!(kind.check(&key_bytes, &value_bytes), Ok(()));
        let space = KEY_SPACE.0..KEY_SPACE.1;
        assert!(space.contains(&key_bytes.as_slice()));
        let longer = [key_bytes.as_slice(), &[0]].concat();
        assert!(kind.check(&longer, &value_bytes).is_err());
        let shorter = &key_bytes[..key_bytes.len() - 1];
        assert!(kind.check(shorter, &value_bytes).is_err());
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
        assert_eq!(Kind::of(&[0x08]), None);
    }
}
