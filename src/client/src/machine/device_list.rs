//! The signed device list of a user: which one to believe, and how to make the next.
//!
//! Guarantees: a pinned list is only ever followed by one that the same account key signed, with a
//! higher sequence number; the direct successor must name its hash.
//!
//! Leaves out: the lists in between when several changes were missed. The account key's signature
//! vouches for the newest; that it continues the chain cannot be checked without them.

use oncekey_api::key::DeviceList as WireList;
use oncekey_types::{DeviceId, Seq, TimestampMs, UserId};
use oncekey_x3dh::{
    device_list::{
        DeviceList, DeviceListError, FIRST_PREV_HASH, ListedDevice, SuccessionError,
        VerifiedDeviceList,
    },
    keys::{AccountPublic, KeyError, Signature},
};

use super::Device;
use crate::wire;

/// Why a device list was not believed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DeviceListRefused {
    /// The account key is not a key.
    #[error("the account key of the device list is invalid")]
    AccountKey(#[source] KeyError),
    /// The signature has the wrong length.
    #[error("the signature on the device list has the wrong length")]
    SignatureLength,
    /// The list or its signature.
    #[error(transparent)]
    List(#[from] DeviceListError),
    /// The list is of another user.
    #[error("the device list is of another user")]
    OtherUser,
    /// Another account key signed it than the one pinned.
    #[error("the account key is not the pinned one")]
    AccountChanged,
    /// It does not follow the pinned list.
    #[error(transparent)]
    Succession(SuccessionError),
    /// A server no longer shows a list that was there.
    #[error("the device list has disappeared")]
    Disappeared,
    /// A server shows an older list than the bundles were made under.
    #[error("the device list is at {shown}, the bundles at {bundles}")]
    Behind {
        /// Position of the list shown.
        shown: Seq,
        /// Position that the bundles name.
        bundles: Seq,
    },
}

/// A device list with the account key that signed it, as it is pinned.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PinnedDeviceList {
    account: AccountPublic,
    list: VerifiedDeviceList,
    signature: Signature,
}

impl PinnedDeviceList {
    /// Checks a list as a server shows it.
    ///
    /// # Errors
    ///
    /// A [`DeviceListRefused`].
    pub fn from_wire(wire: &WireList, user: &UserId) -> Result<Self, DeviceListRefused> {
        let account = AccountPublic::from_bytes(&wire.account_key.0)
            .map_err(DeviceListRefused::AccountKey)?;
        let signature =
            wire::signature(&wire.signature).ok_or(DeviceListRefused::SignatureLength)?;
        let list = DeviceList::from_bytes(&wire.list.0)?
            .verify(&account, &signature)
            .map_err(DeviceListError::from)?;
        if list.list().user() != user.as_bytes() {
            return Err(DeviceListRefused::OtherUser);
        }
        Ok(Self { account, list, signature })
    }

    /// The list as it is sent.
    #[must_use]
    pub fn to_wire(&self) -> WireList {
        WireList {
            account_key: (*self.account.as_bytes()).into(),
            list: self.list.list().to_bytes().into(),
            signature: (*self.signature.as_bytes()).into(),
        }
    }

    /// The account key (UK).
    #[must_use]
    pub fn account(&self) -> &AccountPublic {
        &self.account
    }

    /// The list.
    #[must_use]
    pub fn list(&self) -> &VerifiedDeviceList {
        &self.list
    }

    /// Position in the chain.
    #[must_use]
    pub fn seq(&self) -> Seq {
        self.list.list().seq()
    }

    /// Checks that this list may take the place of `pinned`.
    ///
    /// # Errors
    ///
    /// [`AccountChanged`](DeviceListRefused::AccountChanged) or
    /// [`Succession`](DeviceListRefused::Succession).
    pub fn check_follows(&self, pinned: &Self) -> Result<(), DeviceListRefused> {
        if self.account != pinned.account {
            return Err(DeviceListRefused::AccountChanged);
        }
        match self.list.check_successor_of(&pinned.list) {
            // Lists in between were missed; the account key has signed this one all the same.
            Ok(()) | Err(SuccessionError::Gap { .. }) => Ok(()),
            Err(error) => Err(DeviceListRefused::Succession(error)),
        }
    }
}

/// A change of a user's list of devices.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ListChange {
    /// The device is in it with these keys, in place of others under its number.
    Add(Box<ListedDevice>),
    /// The device is not in it.
    Remove(DeviceId),
}

impl ListChange {
    fn is_done_in(&self, devices: &[ListedDevice]) -> bool {
        match self {
            Self::Add(wanted) => devices.iter().any(|listed| {
                (listed.device, listed.identity, listed.authentication)
                    == (wanted.device, wanted.identity, wanted.authentication)
            }),
            Self::Remove(device) => devices.iter().all(|listed| listed.device != *device),
        }
    }

    fn apply(&self, devices: &mut Vec<ListedDevice>) {
        let number = match self {
            Self::Add(wanted) => wanted.device,
            Self::Remove(device) => *device,
        };
        devices.retain(|listed| listed.device != number);
        match self {
            Self::Add(wanted) => devices.push(**wanted),
            Self::Remove(_) => {}
        }
    }
}

impl Device {
    /// This device as a list names it.
    #[must_use]
    pub fn listed(&self, now: TimestampMs) -> ListedDevice {
        ListedDevice {
            device: self.address().device(),
            identity: *self.identity().public(),
            authentication: *self.authentication().public(),
            added_at: now.to_seconds(),
        }
    }

    /// The user's next device list, signed, with `change` made in `current`. None when there is
    /// nothing to change, or when this device does not have the account key.
    ///
    /// # Errors
    ///
    /// A [`DeviceListRefused`] when the list would break a limit, or when the current one is of
    /// another account key.
    pub fn next_device_list(
        &self,
        current: Option<&PinnedDeviceList>,
        change: &ListChange,
    ) -> Result<Option<PinnedDeviceList>, DeviceListRefused> {
        let Some(account) = self.account() else {
            return Ok(None);
        };
        let (seq, prev_hash, mut devices) = match current {
            None => (Seq(1), FIRST_PREV_HASH, Vec::new()),
            Some(current) if current.account != *account.public() => {
                return Err(DeviceListRefused::AccountChanged);
            }
            Some(current) => {
                let list = current.list.list();
                (Seq(list.seq().0.saturating_add(1)), list.hash(), list.devices().to_vec())
            }
        };
        if change.is_done_in(&devices) {
            return Ok(None);
        }
        change.apply(&mut devices);
        let list = DeviceList::new(self.address(), seq, prev_hash, devices)?;
        let signature = list.sign(account);
        let list = list.verify(account.public(), &signature).map_err(DeviceListError::from)?;
        Ok(Some(PinnedDeviceList { account: *account.public(), list, signature }))
    }
}
