//! What a shard answers.
//!
//! Guarantees: the same on every replica; a [`Refusal`] changed nothing. Leaves out: local faults,
//! which are errors of [`apply`](crate::apply) and stop the node.

use oncekey_types::{
    DeviceId, Epoch, LogIndex, OneTimePreKeyId, RegistrationId, Seq, SignedPreKeyId, TimestampMs,
    UserId,
};
use serde::{Deserialize, Serialize};

use crate::command::{DeviceList, IdentityKey, KeyBytes, OneTimePreKey, SignedPreKey};

/// Answer to one [`Command`](crate::command::Command).
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Outcome {
    /// The device is registered.
    Registered(Registered),
    /// The signed prekey is in place.
    SignedPreKeyReplaced(PoolState),
    /// The one-time prekeys are in the pool.
    OneTimePreKeysAdded(PoolState),
    /// The device and all its keys are gone.
    DeviceRemoved,
    /// The device list is in place.
    DeviceListPut {
        /// Its position in the chain.
        seq: Seq,
    },
    /// Bundles were handed out, now or when the request came first.
    Dispensed(Dispensed),
    /// Nothing changed.
    Refused(Refusal),
    /// A step of a restore is done.
    Restored(Restored),
}

/// Answer to a step of a restore.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Restored {
    /// The epoch that the shard has: that of the first step, whichever a later one names.
    pub epoch: Epoch,
    /// Whether the shard has all its records and is open.
    pub is_done: bool,
}

/// Answer to a registration.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Registered {
    /// Number of this registration.
    pub registration: RegistrationId,
    /// The pool after it.
    pub pool: PoolState,
}

/// A device's pool right after a write.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct PoolState {
    /// One-time prekeys in the pool.
    pub count: u32,
    /// Current signed prekey.
    pub signed_prekey: SignedPreKeyId,
    /// Highest one-time prekey id ever accepted; none before the first upload.
    pub highest_accepted: Option<OneTimePreKeyId>,
}

/// Answer to a dispense: one bundle for each device, in the order of the device ids.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Dispensed {
    /// Log index at which the keys were popped; a retry carries the original one.
    pub index: LogIndex,
    /// Whether this answer was given before.
    pub repeated: bool,
    /// Version of the device list; none when the user has no account key.
    pub device_list_seq: Option<Seq>,
    /// The bundles.
    pub bundles: Vec<Bundle>,
}

/// What a sender needs to write to one device.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Bundle {
    /// The device.
    pub device: DeviceId,
    /// Its registration.
    pub registration: RegistrationId,
    /// Its identity key.
    pub identity_key: IdentityKey,
    /// Its current signed prekey.
    pub signed_prekey: SignedPreKey,
    /// A one-time prekey, or why there is none.
    pub one_time_prekey: Issue,
}

/// What became of the one-time prekey of a bundle.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Issue {
    /// This key, and it will never be handed out again.
    Issued(OneTimePreKey),
    /// The pool is empty.
    Exhausted,
    /// A limit of the caller or of the target is reached; no key was popped.
    Withheld,
}

/// Why nothing changed.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error, Serialize, Deserialize)]
pub enum Refusal {
    /// No device of the user is registered.
    #[error("the user is not known")]
    UnknownUser,
    /// The device is not registered.
    #[error("device {device} is not registered")]
    UnknownDevice {
        /// The device asked for.
        device: DeviceId,
    },
    /// The user has as many devices as are allowed.
    #[error("the user has {limit} devices, the most allowed")]
    TooManyDevices {
        /// The limit.
        limit: u32,
    },
    /// The write's sequence number was used for another write, or is lower than the last.
    #[error("the write has seq {given}, the last one accepted is {last}")]
    StaleSeq {
        /// The one given.
        given: Seq,
        /// The last accepted.
        last: Seq,
    },
    /// The write was signed for another registration; the device has registered anew meanwhile.
    #[error("the write is of another registration, the current one is {current}")]
    OtherRegistration {
        /// The current one.
        current: RegistrationId,
    },
    /// The signed prekey's id does not grow.
    #[error("signed prekey id {given} is not above the current {current}")]
    SignedPreKeyIdNotGrowing {
        /// The one given.
        given: SignedPreKeyId,
        /// The current one.
        current: SignedPreKeyId,
    },
    /// One-time prekey ids at or below the highest ever accepted, or not in growing order.
    #[error("{} one-time prekey ids do not grow above {highest}", conflicts.len())]
    OneTimePreKeyIdsNotGrowing {
        /// The ids in conflict.
        conflicts: Vec<OneTimePreKeyId>,
        /// The highest ever accepted; zero when nothing was accepted yet.
        highest: OneTimePreKeyId,
    },
    /// The pool would be over its limit.
    #[error("the pool has {count} one-time prekeys, {given} more are over the limit of {limit}")]
    PoolFull {
        /// In the pool now.
        count: u32,
        /// In the upload.
        given: u32,
        /// The limit.
        limit: u32,
    },
    /// A list, key or batch is over its limit, empty, or out of order.
    #[error("{what} breaks a limit")]
    Malformed {
        /// What it is, in the words of the interface.
        what: Malformed,
    },
    /// The device list does not continue the chain.
    #[error("the device list has seq {given}, the next one is {expected}")]
    DeviceListOutOfOrder {
        /// Its position.
        given: Seq,
        /// The position that would continue the chain.
        expected: Seq,
    },
    /// The device list names another list as the one before.
    #[error("the device list does not name the hash of the list before")]
    DeviceListBrokenChain,
    /// The device list is signed by another account key than the first one.
    #[error("the device list is of another account key")]
    DeviceListOtherAccount,
    /// The idempotency key was used by this caller for a different request.
    #[error("the idempotency key was used for a different request")]
    RequestIdConflict,
    /// A one-time prekey was required and a device has none to give; nothing was popped.
    #[error("device {device} has no one-time prekey to give")]
    OneTimePreKeyRequired {
        /// The first such device.
        device: DeviceId,
        /// Whether a limit is the reason; otherwise the pool is empty.
        withheld: bool,
    },
    /// The keys were made for another epoch: by a device that does not know yet that the cluster
    /// was restored, or long ago.
    #[error("the write is of epoch {given}, the cluster is in epoch {current}")]
    OtherEpoch {
        /// The one named.
        given: Epoch,
        /// The cluster's.
        current: Epoch,
    },
    /// The shard is being filled from a backup.
    #[error("the cluster is being restored")]
    BeingRestored,
    /// Something was done here before, or another backup was restored.
    #[error("the cluster is not new: only one in which nothing was ever done can be restored")]
    NotNew,
    /// The step of a restore comes before its beginning.
    #[error("no restore has begun")]
    NoRestore,
    /// The registration does not follow the current one; it is late, or another came first.
    #[error("the registration does not follow the device's current one")]
    DoesNotFollow {
        /// The device's current registration; none when it is not registered.
        current: Option<RegistrationId>,
    },
}

/// What was malformed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Malformed {
    /// Too many or no one-time prekeys.
    OneTimePreKeys,
    /// A key or signature that is too long or empty.
    Key,
    /// The device list is too long.
    DeviceList,
    /// The devices named are none, too many or not growing.
    Devices,
    /// A record of a backup that is damaged, or that no backup has.
    Records,
}

impl core::fmt::Display for Malformed {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Self::OneTimePreKeys => "the number of one-time prekeys",
            Self::Key => "a key or signature",
            Self::DeviceList => "the device list",
            Self::Devices => "the list of devices",
            Self::Records => "a record of the backup",
        })
    }
}

/// A device's keys as the server has them, for the device itself.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct DeviceStatus {
    /// Its registration.
    pub registration: RegistrationId,
    /// Sequence number of its last write.
    pub seq: Seq,
    /// The cluster's epoch.
    pub epoch: Epoch,
    /// Its pool.
    pub pool: PoolState,
    /// When the current signed prekey was accepted, in log time.
    pub signed_prekey_accepted: TimestampMs,
    /// Ids in the pool as closed ranges, growing.
    pub ids: Vec<(OneTimePreKeyId, OneTimePreKeyId)>,
    /// SHA-256 over the signed prekey and the pool; see [`pool_digest`](crate::query::pool_digest).
    #[serde(with = "crate::octets")]
    pub digest: [u8; 32],
}

/// What of a device it is told as it changes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct DeviceSummary {
    /// Its registration.
    pub registration: RegistrationId,
    /// Its pool.
    pub pool: PoolState,
    /// When the current signed prekey was accepted, in log time.
    pub signed_prekey_accepted: TimestampMs,
    /// Version of the user's device list; none when the user has no account key.
    pub device_list_seq: Option<Seq>,
}

/// A user as anyone may see it; nothing is popped.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct UserView {
    /// The user.
    pub user: UserId,
    /// Its devices, in the order of their ids.
    pub devices: Vec<DeviceView>,
    /// Its signed device list, when it has an account key.
    pub device_list: Option<DeviceList>,
}

/// A device as anyone may see it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct DeviceView {
    /// The device.
    pub device: DeviceId,
    /// Its registration.
    pub registration: RegistrationId,
    /// Its identity key.
    pub identity_key: IdentityKey,
    /// Its authentication key.
    pub authentication_key: KeyBytes,
    /// Signature of the identity key over the authentication key.
    pub authentication_signature: KeyBytes,
}

/// A bundle without a one-time prekey, read and not popped.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct PeekedBundles {
    /// Version of the device list; none when the user has no account key.
    pub device_list_seq: Option<Seq>,
    /// The devices with their current signed prekeys.
    pub devices: Vec<(DeviceView, SignedPreKey)>,
}
