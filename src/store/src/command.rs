//! What can be asked of a shard.
//!
//! Guarantees: a [`Batch`] carries everything that applying it needs, time and policy included, so
//! that every replica computes the same. Leaves out: signatures and points, which the server has
//! checked before a command is proposed; keys are opaque bytes here.

use oncekey_types::{
    BackupId, CallerId, DeviceId, Epoch, OneTimePreKeyId, RegistrationId, RequestId, Seq,
    SignedPreKeyId, TimestampMs, UnixSeconds, UserId,
};
use serde::{Deserialize, Serialize};

/// The content of one log entry: commands that are applied together, in order.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Batch {
    /// The proposer's clock. The state never lets its own time fall.
    pub time: TimestampMs,
    /// The limits in force, as the proposer is configured.
    pub policy: Policy,
    /// At most [`BATCH_COMMANDS_MAX`](oncekey_types::limits::BATCH_COMMANDS_MAX) commands.
    pub commands: Vec<Command>,
}

/// Limits an operator can set. Part of every batch, so that replicas cannot disagree.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Policy {
    /// How long the outcome of a dispense is kept for retries, in milliseconds of log time.
    pub retry_window_ms: u64,
    /// Bucket of one caller for one target user.
    pub per_caller: BucketPolicy,
    /// Bucket of one target user, all callers together.
    pub per_target: BucketPolicy,
}

/// A token bucket: starts full, one dispense takes one token.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct BucketPolicy {
    /// Tokens in a full bucket. Zero switches the limit off.
    pub capacity: u32,
    /// Time after which one token comes back, in milliseconds. Zero switches the limit off.
    pub refill_ms: u64,
}

/// One request to the state machine.
#[expect(
    clippy::large_enum_variant,
    reason = "commands are moved seldom, and most of one is on the heap"
)]
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Command {
    /// Register a device, or register it anew.
    Register(Register),
    /// Replace the signed prekey of a device.
    ReplaceSignedPreKey(ReplaceSignedPreKey),
    /// Add one-time prekeys to the pool of a device.
    AddOneTimePreKeys(AddOneTimePreKeys),
    /// Remove a device and all its keys.
    RemoveDevice(RemoveDevice),
    /// Put the next signed device list of a user.
    PutDeviceList(PutDeviceList),
    /// Hand out bundles, with one one-time prekey for each device.
    Dispense(Dispense),
    /// A step of filling a new shard from a backup.
    Restore(Restore),
}

impl Command {
    /// The user whose records it is about, when it is about one.
    #[must_use]
    pub fn user(&self) -> Option<&UserId> {
        match self {
            Self::Register(command) => Some(&command.user),
            Self::ReplaceSignedPreKey(command) => Some(&command.user),
            Self::AddOneTimePreKeys(command) => Some(&command.user),
            Self::RemoveDevice(command) => Some(&command.user),
            Self::PutDeviceList(command) => Some(&command.user),
            Self::Dispense(command) => Some(&command.user),
            Self::Restore(_) => None,
        }
    }

    /// The epoch that its keys were made for, when it brings keys.
    #[must_use]
    pub fn epoch(&self) -> Option<Epoch> {
        match self {
            Self::Register(command) => Some(command.epoch),
            Self::ReplaceSignedPreKey(command) => Some(command.epoch),
            Self::AddOneTimePreKeys(command) => Some(command.epoch),
            Self::RemoveDevice(_)
            | Self::PutDeviceList(_)
            | Self::Dispense(_)
            | Self::Restore(_) => None,
        }
    }
}

/// A device's write: `seq` grows with each new write of a registration; the same `seq` with the
/// same `digest` is a re-send and gets the stored outcome.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct WriteTag {
    /// Sequence number of the write.
    pub seq: Seq,
    /// SHA-256 of the request, as the server received it.
    #[serde(with = "crate::octets")]
    pub digest: [u8; 32],
}

/// Opaque bytes of a key or a signature.
///
/// At most [`PUBLIC_KEY_MAX_BYTES`](oncekey_types::limits::PUBLIC_KEY_MAX_BYTES) long.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct KeyBytes(#[serde(with = "crate::octets")] pub Vec<u8>);

/// An identity key with the tag of its form.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct IdentityKey {
    /// Form of the key: 1 is Ed25519, 2 is Curve25519 with XEdDSA. Stable, never reuse.
    pub kind: u8,
    /// The public key.
    pub key: KeyBytes,
}

/// A signed prekey as published.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct SignedPreKey {
    /// Its id.
    pub id: SignedPreKeyId,
    /// The public key.
    pub key: KeyBytes,
    /// When the device made it.
    pub created: UnixSeconds,
    /// When it stops being valid.
    pub expires: UnixSeconds,
    /// The identity key's signature.
    pub signature: KeyBytes,
}

/// A one-time prekey as published.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct OneTimePreKey {
    /// Its id.
    pub id: OneTimePreKeyId,
    /// The public key.
    pub key: KeyBytes,
    /// The identity key's signature.
    pub signature: KeyBytes,
}

/// A signed device list, parsed as far as the chain needs it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct DeviceList {
    /// The account key (UK) that signs the list. Fixed by the user's first list.
    pub account_key: KeyBytes,
    /// Position in the chain, from 1; each list's is one higher than the last one's.
    pub seq: Seq,
    /// Hash of the list before; zeros for the first.
    #[serde(with = "crate::octets")]
    pub prev_hash: [u8; 32],
    /// Hash of this list.
    #[serde(with = "crate::octets")]
    pub hash: [u8; 32],
    /// The list's canonical bytes, at most
    /// [`DEVICE_LIST_MAX_BYTES`](oncekey_types::limits::DEVICE_LIST_MAX_BYTES).
    #[serde(with = "crate::octets")]
    pub bytes: Vec<u8>,
    /// The account key's signature over the canonical bytes.
    pub signature: KeyBytes,
}

/// What a registration comes after. It is refused when the device has moved on since.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Follows {
    /// It was made when registrations did not say, and replaces whatever there is. Only in entries of
    /// version 1.
    Unsaid,
    /// The device is not registered.
    Nothing,
    /// The device's current registration.
    Registration(RegistrationId),
}

impl From<Option<RegistrationId>> for Follows {
    fn from(current: Option<RegistrationId>) -> Self {
        current.map_or(Self::Nothing, Self::Registration)
    }
}

/// See [`Command::Register`].
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Register {
    /// The owner.
    pub user: UserId,
    /// The device.
    pub device: DeviceId,
    /// Sequence number and digest.
    pub tag: WriteTag,
    /// The registration that it replaces.
    pub follows: Follows,
    /// Identity key (IK).
    pub identity_key: IdentityKey,
    /// Authentication key (AK).
    pub authentication_key: KeyBytes,
    /// Signature of the identity key over the authentication key.
    pub authentication_signature: KeyBytes,
    /// First signed prekey.
    pub signed_prekey: SignedPreKey,
    /// First one-time prekeys, ids growing, at most
    /// [`UPLOAD_MAX`](oncekey_types::limits::UPLOAD_MAX).
    pub one_time_prekeys: Vec<OneTimePreKey>,
    /// The next device list, when the user has an account key.
    pub device_list: Option<DeviceList>,
    /// The cluster's epoch, as the device knows it; refused in another one.
    pub epoch: Epoch,
}

/// See [`Command::ReplaceSignedPreKey`].
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ReplaceSignedPreKey {
    /// The owner.
    pub user: UserId,
    /// The device.
    pub device: DeviceId,
    /// Sequence number and digest.
    pub tag: WriteTag,
    /// The registration whose identity key signed what follows.
    pub registration: RegistrationId,
    /// The new key; its id is higher than the current one's.
    pub signed_prekey: SignedPreKey,
    /// The cluster's epoch, as the device knows it; refused in another one.
    pub epoch: Epoch,
}

/// See [`Command::AddOneTimePreKeys`].
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct AddOneTimePreKeys {
    /// The owner.
    pub user: UserId,
    /// The device.
    pub device: DeviceId,
    /// Sequence number and digest.
    pub tag: WriteTag,
    /// The registration whose identity key signed what follows.
    pub registration: RegistrationId,
    /// The keys, ids growing and above the highest id ever accepted, 1 to
    /// [`UPLOAD_MAX`](oncekey_types::limits::UPLOAD_MAX).
    pub one_time_prekeys: Vec<OneTimePreKey>,
    /// The cluster's epoch, as the device knows it; refused in another one.
    pub epoch: Epoch,
}

/// See [`Command::RemoveDevice`].
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct RemoveDevice {
    /// The owner.
    pub user: UserId,
    /// The device.
    pub device: DeviceId,
    /// Number of the write, when the device itself asks; above the last one accepted.
    pub seq: Option<Seq>,
    /// The registration whose authentication key signed the request, when one did.
    pub registration: Option<RegistrationId>,
}

/// See [`Command::PutDeviceList`].
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct PutDeviceList {
    /// The owner.
    pub user: UserId,
    /// The list.
    pub list: DeviceList,
}

/// See [`Command::Dispense`].
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Dispense {
    /// Whose bundles.
    pub user: UserId,
    /// Which devices: all, or those named (1 to
    /// [`DEVICES_PER_USER_MAX`](oncekey_types::limits::DEVICES_PER_USER_MAX), growing).
    pub devices: Option<Vec<DeviceId>>,
    /// Who asks.
    pub caller: CallerId,
    /// The idempotency key, unique within the caller.
    pub request: RequestId,
    /// Refuse the whole request, popping nothing, when any device would get no one-time prekey.
    pub require_one_time_prekey: bool,
}

/// See [`Command::Restore`].
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Restore {
    /// The backup.
    pub backup: BackupId,
    /// The epoch that the new cluster gets.
    pub epoch: Epoch,
    /// Which step.
    pub step: RestoreStep,
}

/// A step of a restore. Each may come twice. Ordinals are stable, never reuse.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum RestoreStep {
    /// The shard, in which nothing was ever done, is to be filled.
    Begin,
    /// Records of users of the shard, as the backup has them; at most
    /// [`RESTORE_PUT_MAX_BYTES`](oncekey_types::limits::RESTORE_PUT_MAX_BYTES) in all.
    Put(Vec<RestoredRecord>),
    /// That was all of them.
    End,
}

/// A record of a backup.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct RestoredRecord {
    /// Its key.
    #[serde(with = "crate::octets")]
    pub key: Vec<u8>,
    /// Its value.
    #[serde(with = "crate::octets")]
    pub value: Vec<u8>,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            retry_window_ms: 10 * 60 * 1000,
            per_caller: BucketPolicy { capacity: 6, refill_ms: 10 * 60 * 1000 },
            per_target: BucketPolicy { capacity: 200, refill_ms: 30 * 1000 },
        }
    }
}
