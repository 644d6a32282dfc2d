//! The pool of a device: keys go in at one end and out at the other.
//!
//! Guarantees: keys leave in the order in which they came. The cursor says how many there are.
//! Leaves out: which keys may come in; see `check`.

use oncekey_planted::{self as planted, Bug};
use oncekey_types::{DeviceId, UserId};

use super::{Machine, missing};
use crate::{
    ApplyFault,
    command::OneTimePreKey,
    outcome::Refusal,
    record::{
        Kind, corrupt,
        pool::{Cursor, LOT_START, Lot, LotKey},
    },
    state::StateRead,
};

impl<S: StateRead> Machine<'_, S> {
    /// Whether `keys` find room beside `count` others.
    pub(super) fn room(&self, count: u32, keys: &[OneTimePreKey]) -> Result<(), Refusal> {
        let given = u32::try_from(keys.len()).unwrap_or(u32::MAX);
        let limit = self.bounds.pool;
        if count.saturating_add(given) > limit {
            return Err(Refusal::PoolFull { count, given, limit });
        }
        Ok(())
    }

    /// Puts `keys`, which were checked, behind the others. The cursor is left for the caller to
    /// write.
    pub(super) fn push_keys(
        &mut self,
        user: &UserId,
        device: DeviceId,
        cursor: &mut Cursor,
        keys: &[OneTimePreKey],
    ) -> Result<(), ApplyFault> {
        for keys in keys.chunks(self.bounds.lot_keys) {
            let key = LotKey { user, device, number: cursor.tail };
            let mut lot = Lot(keys.to_vec());
            if planted::is(Bug::NewestFirst) {
                lot.0.reverse();
            }
            self.records.write(&key, &lot)?;
            cursor.tail += 1;
            cursor.count += u32::try_from(keys.len()).unwrap_or(u32::MAX);
        }
        if let Some(last) = keys.last() {
            debug_assert!(Some(last.id) > cursor.highest_accepted, "ids do not grow");
            cursor.highest_accepted = Some(last.id);
        }
        Ok(())
    }

    /// Takes the oldest key out of a pool that is not empty. The cursor is left for the caller to
    /// write.
    pub(super) fn pop_key(
        &mut self,
        user: &UserId,
        device: DeviceId,
        cursor: &mut Cursor,
    ) -> Result<OneTimePreKey, ApplyFault> {
        let lot = self.records.find(&LotKey { user, device, number: cursor.head })?;
        let bytes = self.records.bytes(lot).ok_or_else(|| missing(Kind::Lot))?;
        let (key, next) = Lot::key_at(bytes, cursor.offset)?;
        if cursor.highest_accepted < Some(key.id) {
            return Err(corrupt(Kind::Lot, "value", "has an id that was never accepted").into());
        }
        if planted::is(Bug::KeyStays) {
            return Ok(key);
        }
        cursor.count = cursor
            .count
            .checked_sub(1)
            .ok_or_else(|| corrupt(Kind::Account, "cursor", "counts too few keys"))?;
        if let Some(next) = next {
            cursor.offset = next;
        } else {
            self.records.remove(lot);
            cursor.head += 1;
            cursor.offset = LOT_START;
        }
        if (cursor.head == cursor.tail) != (cursor.count == 0) {
            return Err(corrupt(Kind::Account, "cursor", "does not fit the lots").into());
        }
        Ok(key)
    }

    /// Deletes every key of a pool.
    pub(super) fn delete_lots(&mut self, user: &UserId, device: DeviceId, cursor: &Cursor) {
        for number in cursor.head..cursor.tail {
            self.records.delete(&LotKey { user, device, number });
        }
    }
}
