//! The records that a backup keeps: who the users are, their devices, and how far their numbers have
//! come.
//!
//! One-time prekeys, the answers for retries and their queue are left out: a cluster that is made
//! from a backup must not use them. They have the highest prefixes, so that a backup is the first
//! part of a snapshot.

use oncekey_types::{DeviceId, UserId};

use super::{KEY_SPACE, KeyReader, Kind, Value, account::Account, device::Device, meta::Meta};
use crate::command::DeviceList;

/// The keys of the records that a backup keeps lie from the first of these (included) to the second
/// (excluded).
pub(crate) const KEPT_SPACE: (&[u8], &[u8]) = (KEY_SPACE.0, &[Kind::Lot as u8]);

/// A record that a backup keeps.
#[expect(clippy::large_enum_variant, reason = "made and taken apart at once, one at a time")]
pub(crate) enum Kept {
    Meta(Meta),
    Account(UserId, Account),
    DeviceList(UserId, DeviceList),
    Device(UserId, DeviceId, Device),
}

/// A record of a backup; `None` when it is damaged, or of a kind that no backup has.
pub(crate) fn parse(key: &[u8], value: &[u8]) -> Option<Kept> {
    let kind = Kind::of(key)?;
    kind.check(key, value).ok()?;
    let mut parts = KeyReader(&key[1..]);
    match kind {
        Kind::Meta => Meta::from_bytes(value).ok().map(Kept::Meta),
        Kind::Account => Some(Kept::Account(parts.user()?, Account::from_bytes(value).ok()?)),
        Kind::DeviceList => {
            Some(Kept::DeviceList(parts.user()?, DeviceList::from_bytes(value).ok()?))
        }
        Kind::Device => {
            Some(Kept::Device(parts.user()?, parts.device()?, Device::from_bytes(value).ok()?))
        }
        Kind::Lot | Kind::Retry | Kind::Queue => None,
    }
}

/// The user whose record stands under `key`; `None` when it is nobody's, or no record of a backup.
#[must_use]
pub fn owner_of(key: &[u8]) -> Option<UserId> {
    match Kind::of(key)? {
        Kind::Account | Kind::DeviceList | Kind::Device => KeyReader(&key[1..]).user(),
        Kind::Meta | Kind::Lot | Kind::Retry | Kind::Queue => None,
    }
}

/// How much there is in a backup.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Census {
    /// Users with at least one device.
    pub users: u64,
    /// Their devices.
    pub devices: u64,
    /// Their one-time prekeys, which the backup does not have.
    pub one_time_prekeys: u64,
}

impl Census {
    /// Counts a record, if it is an account.
    pub fn count(&mut self, key: &[u8], value: &[u8]) {
        let Some(Kept::Account(_, account)) = parse(key, value) else { return };
        self.users += u64::from(!account.devices.is_empty());
        self.devices += account.devices.len() as u64;
        let keys = account.devices.iter().map(|enrolled| u64::from(enrolled.cursor.count));
        self.one_time_prekeys += keys.sum::<u64>();
    }
}
