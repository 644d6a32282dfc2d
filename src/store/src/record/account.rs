//! A user: the account and its signed device list.
//!
//! Guarantees: an account outlives its devices, so that registration numbers never repeat and a
//! one-time prekey that was handed out cannot come back with a device of the same number. The list
//! stands in a record of its own, because a dispense reads the account and needs only the list's
//! position. Leaves out: what the list says; the clients verify it.

use oncekey_types::{DeviceId, OneTimePreKeyId, RegistrationId, Seq, UserId};
use serde::{Deserialize, Serialize};

use super::{Key, KeyReader, KeyWriter, Kind, Versioned};
use crate::command::{DeviceList, KeyBytes};

#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct AccountKey(pub(crate) UserId);

/// Value of an account record.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Account {
    /// The devices that are registered, growing.
    pub(crate) devices: Vec<DeviceId>,
    /// The next registration's number. None when all numbers were given.
    pub(crate) next_registration: Option<RegistrationId>,
    /// Highest one-time prekey id that any replaced or removed registration ever accepted.
    pub(crate) opk_floor: Option<OneTimePreKeyId>,
    /// End of the chain of device lists.
    pub(crate) list: Option<ListHead>,
}

/// What continues the chain of device lists.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct ListHead {
    pub(crate) account_key: KeyBytes,
    pub(crate) seq: Seq,
    #[serde(with = "crate::octets")]
    pub(crate) hash: [u8; 32],
}

impl Default for Account {
    fn default() -> Self {
        Self {
            devices: Vec::new(),
            next_registration: Some(RegistrationId(1)),
            opk_floor: None,
            list: None,
        }
    }
}

impl Versioned for Account {
    const VERSION: u8 = 1;
}

impl Key for AccountKey {
    const KIND: Kind = Kind::Account;
    type Value = Account;

    fn write(&self, bytes: &mut KeyWriter) {
        bytes.name(self.0.as_str());
    }

    fn read(bytes: &mut KeyReader<'_>) -> Option<Self> {
        Some(Self(UserId::new(bytes.name()?).ok()?))
    }
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct DeviceListKey(pub(crate) UserId);

impl Versioned for DeviceList {
    const VERSION: u8 = 1;
}

impl Key for DeviceListKey {
    const KIND: Kind = Kind::DeviceList;
    type Value = DeviceList;

    fn write(&self, bytes: &mut KeyWriter) {
        bytes.name(self.0.as_str());
    }

    fn read(bytes: &mut KeyReader<'_>) -> Option<Self> {
        Some(Self(UserId::new(bytes.name()?).ok()?))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{generate, record::tests::assert_round_trip};

    proptest! {
        #[test]
        fn an_account_record_round_trips(
            user in generate::user(),
            devices: Vec<u32>,
            next: Option<u32>,
            floor: Option<u32>,
            list in proptest::option::of(generate::device_list()),
        ) {
            let account = Account {
                devices: devices.into_iter().map(DeviceId).collect(),
                next_registration: next.map(RegistrationId),
                opk_floor: floor.map(OneTimePreKeyId),
                list: list.map(|list| ListHead {
                    account_key: list.account_key,
                    seq: list.seq,
                    hash: list.hash,
                }),
            };
            assert_round_trip(&AccountKey(user), &account);
        }

        #[test]
        fn a_device_list_record_round_trips(
            user in generate::user(),
            list in generate::device_list(),
        ) {
            assert_round_trip(&DeviceListKey(user), &list);
        }
    }
}
