//! The signed list of a user's devices.
//!
//! ```text
//! bytes = lp(user) ‖ u64 seq ‖ prev_hash[32] ‖ u16 count
//!       ‖ count × (u32 device ‖ u8 kind ‖ lp(IK) ‖ lp(AK) ‖ u64 added_at)
//! hash  = SHA-256(lp("Oncekey v1 devices") ‖ bytes)
//! ```
//!
//! Signed by UK over `lp("Oncekey v1 devices") ‖ bytes`; each list names the hash of the one
//! before, the first (seq 1) names zeros.
//!
//! Guarantees: a list has exactly one encoding (devices in growing order, no trailing bytes), and
//! a [`VerifiedDeviceList`] was signed by the account key. So a server cannot add a device
//! silently, nor show two histories to one observer.
//!
//! Leaves out: pinning. The caller remembers the account key and the last list it saw, and asks
//! [`VerifiedDeviceList::check_successor_of`] before it takes the next.

use alloc::vec::Vec;

use oncekey_types::{DeviceId, Seq, UnixSeconds, limits};
use sha2::{Digest, Sha256};

use crate::{
    address::{Address, UserTooLong},
    encode::{Reader, Truncated, Writer},
    keys::{
        AccountKeyPair, AccountPublic, AuthenticationPublic, IdentityKind, IdentityPublic,
        KeyError, Signature, SignatureInvalid,
    },
};

const LABEL_DEVICES: &str = "Oncekey v1 devices";

/// The hash that the first list of a user names as its predecessor's.
pub const FIRST_PREV_HASH: DeviceListHash = DeviceListHash([0; 32]);

/// Hash of a device list.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct DeviceListHash(pub [u8; 32]);

/// One device of a list.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ListedDevice {
    /// The device.
    pub device: DeviceId,
    /// Its identity key (IK).
    pub identity: IdentityPublic,
    /// Its authentication key (AK).
    pub authentication: AuthenticationPublic,
    /// When the user added it.
    pub added_at: UnixSeconds,
}

/// Why a device list was refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DeviceListError {
    /// The bytes end inside a field.
    #[error("the device list is truncated")]
    Truncated,
    /// Bytes follow the last device.
    #[error("the device list has {bytes} trailing bytes")]
    Trailing {
        /// How many.
        bytes: usize,
    },
    /// The list is over [`DEVICE_LIST_MAX_BYTES`](limits::DEVICE_LIST_MAX_BYTES).
    #[error("the device list has {bytes} bytes, over the limit")]
    TooLong {
        /// Length of the list in bytes.
        bytes: usize,
    },
    /// The list names more devices than [`DEVICES_PER_USER_MAX`](limits::DEVICES_PER_USER_MAX).
    #[error("the device list names {devices} devices, over the limit")]
    TooManyDevices {
        /// How many.
        devices: usize,
    },
    /// The devices do not stand in growing order, or one stands twice.
    #[error("the devices are not in growing order")]
    Order,
    /// Sequence numbers start at 1, and only the first list names a hash of zeros.
    #[error("the sequence number does not fit the previous hash")]
    Start,
    /// The user's name is too long.
    #[error(transparent)]
    User(#[from] UserTooLong),
    /// A key of a device.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The account key did not sign this list.
    #[error(transparent)]
    Signature(#[from] SignatureInvalid),
}

impl From<Truncated> for DeviceListError {
    fn from(_: Truncated) -> Self {
        Self::Truncated
    }
}

/// Why a device list does not follow the one that is pinned.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SuccessionError {
    /// The lists are of different users.
    #[error("the device list is of another user")]
    User,
    /// The list is older than the pinned one.
    #[error("the device list was rolled back from {pinned} to {offered}")]
    Rollback {
        /// Sequence number of the pinned list.
        pinned: Seq,
        /// Sequence number of the list offered.
        offered: Seq,
    },
    /// The list has the pinned one's sequence number but is another list, or names another
    /// predecessor.
    #[error("the device list forks at {offered}")]
    Fork {
        /// Sequence number of the list offered.
        offered: Seq,
    },
    /// Lists between the pinned one and this are missing, so the chain cannot be followed. A
    /// server refuses this; a device that was away may take it, for the account key has signed it,
    /// and shows the change like any other.
    #[error("the device list skips from {pinned} to {offered}")]
    Gap {
        /// Sequence number of the pinned list.
        pinned: Seq,
        /// Sequence number of the list offered.
        offered: Seq,
    },
}

/// A device list with its canonical bytes. Not yet known to be signed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DeviceList {
    // The device of this address carries no meaning; the list is of the whole user.
    user: Address,
    seq: Seq,
    prev_hash: DeviceListHash,
    devices: Vec<ListedDevice>,
}

impl DeviceList {
    /// A list of `devices`, in any order. The user's name is taken from `user`.
    ///
    /// # Errors
    ///
    /// A [`DeviceListError`] when a limit is broken, a device stands twice or `seq` does not fit
    /// `prev_hash`.
    pub fn new(
        user: &Address,
        seq: Seq,
        prev_hash: DeviceListHash,
        mut devices: Vec<ListedDevice>,
    ) -> Result<Self, DeviceListError> {
        devices.sort_by_key(|listed| listed.device);
        let user = Address::from_bytes(user.user(), DeviceId(0))?;
        Self { user, seq, prev_hash, devices }.checked()
    }

    /// Parses canonical bytes, strictly.
    ///
    /// # Errors
    ///
    /// A [`DeviceListError`] for anything that [`to_bytes`](Self::to_bytes) would not write.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, DeviceListError> {
        if bytes.len() > limits::DEVICE_LIST_MAX_BYTES {
            return Err(DeviceListError::TooLong { bytes: bytes.len() });
        }
        let mut reader = Reader::new(bytes);
        let user = Address::from_bytes(reader.lp()?, DeviceId(0))?;
        let seq = Seq(reader.u64()?);
        let prev_hash = DeviceListHash(reader.array()?);
        let count = usize::from(reader.u16()?);
        if count > limits::DEVICES_PER_USER_MAX {
            return Err(DeviceListError::TooManyDevices { devices: count });
        }
        let mut devices = Vec::with_capacity(count);
        for _ in 0..count {
            devices.push(ListedDevice {
                device: DeviceId(reader.u32()?),
                identity: {
                    let kind = IdentityKind::from_tag(reader.u8()?)?;
                    IdentityPublic::from_parts(kind, reader.lp()?)?
                },
                authentication: AuthenticationPublic::from_bytes(reader.lp()?)?,
                added_at: UnixSeconds(reader.u64()?),
            });
        }
        match reader.remaining() {
            0 => Self { user, seq, prev_hash, devices }.checked(),
            bytes => Err(DeviceListError::Trailing { bytes }),
        }
    }

    /// The canonical bytes.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        self.write(Writer::default())
    }

    /// The hash that the next list names.
    #[must_use]
    pub fn hash(&self) -> DeviceListHash {
        DeviceListHash(Sha256::digest(self.signed_bytes()).into())
    }

    /// Name of the user.
    #[must_use]
    pub fn user(&self) -> &[u8] {
        self.user.user()
    }

    /// Position in the chain, from 1.
    #[must_use]
    pub fn seq(&self) -> Seq {
        self.seq
    }

    /// Hash of the list before.
    #[must_use]
    pub fn prev_hash(&self) -> DeviceListHash {
        self.prev_hash
    }

    /// The devices, in growing order.
    #[must_use]
    pub fn devices(&self) -> &[ListedDevice] {
        &self.devices
    }

    /// Signs the list.
    #[must_use]
    pub fn sign(&self, account: &AccountKeyPair) -> Signature {
        account.sign(&self.signed_bytes())
    }

    /// Verifies that `account` signed the list.
    ///
    /// # Errors
    ///
    /// [`SignatureInvalid`].
    pub fn verify(
        self,
        account: &AccountPublic,
        signature: &Signature,
    ) -> Result<VerifiedDeviceList, SignatureInvalid> {
        account.verify(&self.signed_bytes(), signature)?;
        Ok(VerifiedDeviceList(self))
    }

    fn checked(self) -> Result<Self, DeviceListError> {
        if self.devices.len() > limits::DEVICES_PER_USER_MAX {
            return Err(DeviceListError::TooManyDevices { devices: self.devices.len() });
        }
        if !self.devices.windows(2).all(|pair| pair[0].device < pair[1].device) {
            return Err(DeviceListError::Order);
        }
        let first = self.prev_hash == FIRST_PREV_HASH;
        if self.seq == Seq(0) || first != (self.seq == Seq(1)) {
            return Err(DeviceListError::Start);
        }
        Ok(self)
    }

    fn signed_bytes(&self) -> Vec<u8> {
        self.write(Writer::default().lp(LABEL_DEVICES.as_bytes()))
    }

    fn write(&self, writer: Writer) -> Vec<u8> {
        // At most DEVICES_PER_USER_MAX, which fits.
        let count = u16::try_from(self.devices.len()).unwrap_or(u16::MAX);
        let head = writer.lp(self.user()).u64(self.seq.0).raw(&self.prev_hash.0).u16(count);
        self.devices
            .iter()
            .fold(head, |writer, listed| {
                writer
                    .u32(listed.device.0)
                    .u8(listed.identity.kind().tag())
                    .lp(listed.identity.as_bytes())
                    .lp(listed.authentication.as_bytes())
                    .u64(listed.added_at.0)
            })
            .finish()
    }
}

/// A device list that its user's account key signed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct VerifiedDeviceList(DeviceList);

impl VerifiedDeviceList {
    /// The list.
    #[must_use]
    pub fn list(&self) -> &DeviceList {
        &self.0
    }

    /// Whether the list binds `owner` to `identity`.
    #[must_use]
    pub fn lists(&self, owner: &Address, identity: &IdentityPublic) -> bool {
        self.0.user() == owner.user()
            && self
                .0
                .devices
                .iter()
                .any(|listed| listed.device == owner.device() && listed.identity == *identity)
    }

    /// Checks that this list is the pinned one or directly follows it.
    ///
    /// # Errors
    ///
    /// A [`SuccessionError`]. Each is to be shown to the user, none to be healed silently.
    pub fn check_successor_of(&self, pinned: &Self) -> Result<(), SuccessionError> {
        let (old, new) = (&pinned.0, &self.0);
        if old.user() != new.user() {
            return Err(SuccessionError::User);
        }
        let offered = new.seq;
        if offered < old.seq {
            return Err(SuccessionError::Rollback { pinned: old.seq, offered });
        }
        if offered == old.seq {
            return if old == new { Ok(()) } else { Err(SuccessionError::Fork { offered }) };
        }
        if offered.0 - old.seq.0 > 1 {
            return Err(SuccessionError::Gap { pinned: old.seq, offered });
        }
        if new.prev_hash == old.hash() { Ok(()) } else { Err(SuccessionError::Fork { offered }) }
    }
}
