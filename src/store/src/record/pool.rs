//! A device's one-time prekeys: packed, immutable lots, and a small cursor that alone changes at a
//! pop.
//!
//! Guarantees: a lot is written once and deleted when its last key was popped, or with its
//! registration. The keys of the pool are those of the lots `head` to `tail - 1`, from byte
//! `offset` of the first one. Leaves out: which ids may come in; the cursor only holds the highest.

use oncekey_types::{DeviceId, OneTimePreKeyId, UserId};
use serde::{Deserialize, Serialize};

use super::{CorruptRecord, Key, KeyReader, KeyWriter, Kind, Value, corrupt};
use crate::{
    codec::{EncodeError, value},
    command::OneTimePreKey,
};

/// Keys in one lot. A pop reads a whole lot, so it is kept to about a kilobyte.
pub(crate) const LOT_KEYS_MAX: usize = 8;

/// Where a device's pool begins and ends; stands in the account, see `account`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Cursor {
    /// Number of the lot that holds the oldest key.
    pub(crate) head: u64,
    /// Byte in that lot at which the oldest key starts.
    pub(crate) offset: u32,
    /// Number that the next lot will get.
    pub(crate) tail: u64,
    /// Keys in the pool.
    pub(crate) count: u32,
    /// Highest id that this device, or one replaced or removed before it, ever accepted.
    pub(crate) highest_accepted: Option<OneTimePreKeyId>,
}

impl Cursor {
    /// An empty pool. `lot` is the first lot's number.
    pub(crate) fn empty(lot: u64, highest_accepted: Option<OneTimePreKeyId>) -> Self {
        Self { head: lot, offset: LOT_START, tail: lot, count: 0, highest_accepted }
    }
}

pub(crate) struct LotKey<'a> {
    pub(crate) user: &'a UserId,
    pub(crate) device: DeviceId,
    pub(crate) number: u64,
}

/// Value of a lot record: one-time prekeys, ids growing, never none.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Lot(pub(crate) Vec<OneTimePreKey>);

/// Offset of the first key of a lot.
pub(crate) const LOT_START: u32 = 1;
const LOT_VERSION: u8 = 1;

impl Lot {
    /// The key at byte `offset` of the lot in `bytes`, and the offset behind it if more follow.
    pub(crate) fn key_at(
        bytes: &[u8],
        offset: u32,
    ) -> Result<(OneTimePreKey, Option<u32>), CorruptRecord> {
        let offset = usize::try_from(offset).unwrap_or(usize::MAX);
        let (key, next) = value::decode_packed(LOT_VERSION, bytes, offset)
            .map_err(|error| corrupt(Kind::Lot, "value", error.to_string()))?
            .ok_or_else(|| corrupt(Kind::Lot, "value", "ends before the cursor"))?;
        let next = if next < bytes.len() {
            Some(u32::try_from(next).map_err(|_| corrupt(Kind::Lot, "value", "is too long"))?)
        } else {
            None
        };
        Ok((key, next))
    }

    /// The keys from byte `offset` on.
    pub(crate) fn keys_from(
        bytes: &[u8],
        offset: u32,
    ) -> Result<Vec<OneTimePreKey>, CorruptRecord> {
        let mut keys = Vec::new();
        let mut next = Some(offset);
        while let Some(offset) = next {
            let (key, behind) = Self::key_at(bytes, offset)?;
            keys.push(key);
            next = behind;
        }
        Ok(keys)
    }
}

impl Value for Lot {
    const KIND: Kind = Kind::Lot;

    fn append_to(&self, bytes: &mut Vec<u8>) -> Result<(), EncodeError> {
        value::encode_packed(LOT_VERSION, &self.0, bytes)
    }

    fn from_bytes(bytes: &[u8]) -> Result<Self, CorruptRecord> {
        let keys = Self::keys_from(bytes, LOT_START)?;
        if keys.len() > LOT_KEYS_MAX {
            return Err(corrupt(Kind::Lot, "value", format!("has {} keys", keys.len())));
        }
        if !keys.is_sorted_by(|a, b| a.id < b.id) {
            return Err(corrupt(Kind::Lot, "value", "has ids that do not grow"));
        }
        Ok(Self(keys))
    }
}

impl Key for LotKey<'_> {
    type Value = Lot;

    fn write(&self, bytes: &mut KeyWriter<'_>) {
        bytes.name(self.user.as_str());
        bytes.device(self.device);
        bytes.number(self.number);
    }
}

pub(super) fn read_lot_key(key: &mut KeyReader<'_>) -> Option<()> {
    key.user()?;
    key.device()?;
    key.number()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{
        generate,
        record::tests::{assert_round_trip, to_bytes},
    };

    proptest! {
        #[test]
        fn a_lot_record_round_trips_and_reads_from_every_key_on(
            user in generate::user(),
            device: u32,
            number: u64,
            keys in generate::one_time_prekeys(1..=LOT_KEYS_MAX),
        ) {
            let lot = Lot(keys.clone());
            let key = LotKey { user: &user, device: DeviceId(device), number };
            assert_round_trip(&key, &lot);
            let bytes = to_bytes(&lot);
            let mut offset = Some(LOT_START);
            for first in 0..keys.len() {
                let at = offset.expect("an offset for each key");
                prop_assert_eq!(Lot::keys_from(&bytes, at).unwrap(), &keys[first..]);
                offset = Lot::key_at(&bytes, at).unwrap().1;
            }
            prop_assert_eq!(offset, None);
        }
    }

    #[test]
    fn a_lot_without_keys_or_out_of_order_is_corrupt() {
        assert!(Lot::from_bytes(&to_bytes(&Lot(Vec::new()))).is_err());
        let mut keys = generate::keys(&[1, 2]);
        keys.reverse();
        assert!(Lot::from_bytes(&to_bytes(&Lot(keys))).is_err());
    }
}
