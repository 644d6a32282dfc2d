//! A user: the account and its signed device list.
//!
//! All that a pop changes about the user stands in the account, in a few bytes for each device and
//! each caller of late: the cursors of the pools and the buckets. So a pop reads it once and writes
//! it once, however many devices there are.
//!
//! Guarantees: an account outlives its devices, so that registration numbers never repeat and a
//! one-time prekey that was handed out cannot come back with a device of the same number. The list
//! stands in a record of its own, because a dispense needs only its position. Leaves out: what the
//! list says; the clients verify it.

use oncekey_types::{DeviceId, OneTimePreKeyId, RegistrationId, Seq, TimestampMs, UserId};
use serde::{Deserialize, Serialize};

use super::{Key, KeyWriter, Kind, Versioned, callers::CallerBuckets, pool::Cursor};
use crate::command::DeviceList;

pub(crate) struct AccountKey<'a>(pub(crate) &'a UserId);

/// Value of an account record.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Account {
    /// The devices that are registered, ids growing.
    pub(crate) devices: Vec<Enrolled>,
    /// The next registration's number. None when all numbers were given.
    pub(crate) next_registration: Option<RegistrationId>,
    /// Highest one-time prekey id that any replaced or removed registration ever accepted.
    pub(crate) opk_floor: Option<OneTimePreKeyId>,
    /// Position of the device list in its chain; none when the user has no account key.
    pub(crate) list: Option<Seq>,
    /// The log time at which the bucket of all callers together is full again.
    pub(crate) full_at: TimestampMs,
    /// The buckets of the callers of late.
    #[serde(with = "crate::octets")]
    pub(crate) callers: CallerBuckets,
}

/// A device of a user, with its pool.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Enrolled {
    pub(crate) device: DeviceId,
    pub(crate) cursor: Cursor,
}

impl Account {
    /// The place of `device`, or where it would be.
    pub(crate) fn place(&self, device: DeviceId) -> Result<usize, usize> {
        self.devices.binary_search_by_key(&device, |enrolled| enrolled.device)
    }

    pub(crate) fn cursor(&self, device: DeviceId) -> Option<Cursor> {
        self.place(device).ok().map(|place| self.devices[place].cursor)
    }

    pub(crate) fn has(&self, device: DeviceId) -> bool {
        self.place(device).is_ok()
    }

    /// Adds `device`, or puts its pool in the place of the one before.
    pub(crate) fn enroll(&mut self, device: DeviceId, cursor: Cursor) {
        let enrolled = Enrolled { device, cursor };
        match self.place(device) {
            Ok(place) => self.devices[place] = enrolled,
            Err(place) => self.devices.insert(place, enrolled),
        }
    }
}

impl Default for Account {
    fn default() -> Self {
        Self {
            devices: Vec::new(),
            next_registration: Some(RegistrationId(1)),
            opk_floor: None,
            list: None,
            full_at: TimestampMs(0),
            callers: CallerBuckets::default(),
        }
    }
}

impl Versioned for Account {
    const KIND: Kind = Kind::Account;
    const VERSION: u8 = 1;
}

impl Key for AccountKey<'_> {
    type Value = Account;

    fn write(&self, bytes: &mut KeyWriter<'_>) {
        bytes.name(self.0.as_str());
    }
}

pub(crate) struct DeviceListKey<'a>(pub(crate) &'a UserId);

impl Versioned for DeviceList {
    const KIND: Kind = Kind::DeviceList;
    const VERSION: u8 = 1;
}

impl Key for DeviceListKey<'_> {
    type Value = DeviceList;

    fn write(&self, bytes: &mut KeyWriter<'_>) {
        bytes.name(self.0.as_str());
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{
        generate,
        record::{
            callers::{CallerBucket, CallerTag},
            tests::assert_round_trip,
        },
    };

    proptest! {
        #[test]
        fn an_account_record_round_trips(
            user in generate::user(),
            devices: Vec<(u32, [u64; 2], u32, u32, Option<u32>)>,
            next: Option<u32>,
            floor: Option<u32>,
            list: Option<u64>,
            full_at: u64,
            callers: Vec<(u64, u64)>,
        ) {
            let mut account = Account {
                next_registration: next.map(RegistrationId),
                opk_floor: floor.map(OneTimePreKeyId),
                list: list.map(Seq),
                full_at: TimestampMs(full_at),
                ..Account::default()
            };
            for (caller, full_at) in callers {
                let (caller, full_at) = (CallerTag(caller), TimestampMs(full_at));
                account.callers.put(CallerBucket { caller, full_at }, TimestampMs(0), 8);
            }
            for (device, lots, offset, count, highest) in devices {
                let highest_accepted = highest.map(OneTimePreKeyId);
                let [head, tail] = lots;
                let cursor = Cursor { head, offset, tail, count, highest_accepted };
                account.enroll(DeviceId(device), cursor);
                prop_assert_eq!(account.cursor(DeviceId(device)), Some(cursor));
            }
            prop_assert!(account.devices.is_sorted_by(|a, b| a.device < b.device));
            assert_round_trip(&AccountKey(&user), &account);
        }

        #[test]
        fn a_device_list_record_round_trips(
            user in generate::user(),
            list in generate::device_list(),
        ) {
            assert_round_trip(&DeviceListKey(&user), &list);
        }
    }
}
