//! What a device must not lose, and what it must not keep.
//!
//! Guarantees, of every implementation: each method is one transaction, durable when it returns.
//! An id or sequence number is stored before it leaves the device. A handshake is accepted by
//! [`accept`](KeyStore::accept) alone, which remembers the handshake, erases the secret of its
//! one-time prekey and stores the session, or does none of it.
//!
//! Leaves out: when to do what; that is the [`machine`](crate::machine)'s and the
//! [`Client`](crate::Client)'s business. Sessions stay; their keys stay until they are [taken](KeyStore::take_keys).

mod change;
mod export;
#[cfg(feature = "fuzzing")]
pub(crate) mod fuzzing;
mod lock;
mod record;
mod seal;
mod sqlite;

use oncekey_types::{DeviceId, Epoch, OneTimePreKeyId, SignedPreKeyId, TimestampMs, UserId};
use oncekey_x3dh::{Address, DedupKey, keys::IdentityPublic, responder::Commit};

pub use export::Export;
pub use lock::{Passphrase, StoreKey, Unlock};
pub use record::{
    Absence, Acceptance, DeviceState, HeldSignedPreKey, KeysTaken, OneTimePreKeyRecord,
    PendingWrite, Resync, Role, Session, SessionId, Settled, SignedPreKeyRecord, Staged, Started,
    StartedSession, TakenKeys, WriteKind,
};
pub use sqlite::SqliteKeyStore;
#[cfg(test)]
pub(crate) use sqlite::{Crash, CrashPoint};

use crate::{
    machine::{Device, PinnedDeviceList},
    trust::{Answer, Change, DevicesChanged, TrustEvent, TrustEventId},
};

/// Why the key store could not do it. Nothing was changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The store holds no device yet.
    #[error("the key store holds no device")]
    NoDevice,
    /// The store holds a device already.
    #[error("the key store already holds a device")]
    DeviceExists,
    /// Another task or process has changed the device's state in between. Load it again.
    #[error("the state of the device has changed in between")]
    Stale,
    /// The store was written by another version of this library.
    #[error("the key store has version {found}, this library reads {supported}")]
    Version {
        /// Version of the store.
        found: i64,
        /// Version that this library reads.
        supported: i64,
    },
    /// A record does not have the form in which it was written.
    #[error("a record of the key store is damaged: {record}")]
    Damaged {
        /// The kind of record.
        record: &'static str,
    },
    /// The passphrase or key is not the one that the store, or the export, was locked with; or
    /// the lock is damaged, which looks the same.
    #[error("the passphrase or key does not open it")]
    Locked,
    /// The passphrase is empty or too long.
    #[error("a passphrase of {bytes} bytes is outside the limits")]
    Passphrase {
        /// Its length in bytes.
        bytes: usize,
    },
    /// The storage below.
    #[error("the key store failed")]
    Backend(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The runtime shuts down.
    #[error("the runtime shuts down")]
    ShuttingDown,
}

/// Storage of one device's secrets, counters, sessions and pins; see the [module](self).
pub trait KeyStore: Send + Sync + 'static {
    /// Stores a new device.
    ///
    /// # Errors
    ///
    /// [`Error::DeviceExists`] when there is one.
    fn create(&self, device: &Device) -> Result<(), Error>;

    /// The device.
    ///
    /// # Errors
    ///
    /// [`Error::NoDevice`] before [`create`](Self::create).
    fn device(&self) -> Result<Device, Error>;

    /// Counters and the pending write.
    ///
    /// # Errors
    ///
    /// As [`device`](Self::device).
    fn state(&self) -> Result<DeviceState, Error>;

    /// Stores a write and its new secrets before the write is sent.
    ///
    /// # Errors
    ///
    /// [`Error::Stale`] when the state is no longer the one that `staged` was made from.
    fn stage(&self, staged: &Staged) -> Result<(), Error>;

    /// Stores what became of the pending write. Does nothing when another write is pending.
    ///
    /// # Errors
    ///
    /// An [`Error`] of the storage.
    fn settle(
        &self,
        write: &PendingWrite,
        settled: &Settled,
        now: TimestampMs,
    ) -> Result<(), Error>;

    /// Deletes the secrets of signed prekeys that were replaced at or before `replaced_until`,
    /// with the handshakes remembered under them, and whatever is over the limits.
    ///
    /// # Errors
    ///
    /// An [`Error`] of the storage.
    fn purge(&self, replaced_until: TimestampMs) -> Result<(), Error>;

    /// Throws away every prekey, the handshakes remembered under them, the pending write and the
    /// registration. Ids go on growing, pins and sessions stay.
    ///
    /// For a store that is a copy from some time ago: what it has forgotten to be used could be
    /// replayed, so nothing may open under its prekeys any more.
    ///
    /// # Errors
    ///
    /// [`Error::NoDevice`], or an [`Error`] of the storage.
    fn discard_prekeys(&self) -> Result<(), Error>;

    /// A signed prekey, current or replaced, or what is remembered of it.
    ///
    /// # Errors
    ///
    /// An [`Error`] of the storage.
    fn signed_prekey(&self, id: SignedPreKeyId) -> Result<SignedPreKeyRecord, Error>;

    /// A one-time prekey, or what is remembered of it.
    ///
    /// # Errors
    ///
    /// An [`Error`] of the storage.
    fn one_time_prekey(&self, id: OneTimePreKeyId) -> Result<OneTimePreKeyRecord, Error>;

    /// The session of a handshake that was accepted before.
    ///
    /// # Errors
    ///
    /// An [`Error`] of the storage.
    fn accepted(&self, dedup: &DedupKey) -> Result<Option<Session>, Error>;

    /// Accepts a handshake: remembers it, erases the one-time prekey's secret and leaves a
    /// tombstone, pins the sender's identity key when none was pinned, and stores the session.
    /// All of it or nothing.
    ///
    /// # Errors
    ///
    /// An [`Error`] of the storage; the handshake was then not accepted.
    fn accept(&self, commit: &Commit, now: TimestampMs) -> Result<Acceptance, Error>;

    /// Stores a session that this device starts, with its first message, and pins the peer's
    /// identity key when none was pinned. Nothing is stored when another key is pinned, or when a
    /// session with the same one-time prekey is stored: the peer would open only one of the two.
    ///
    /// # Errors
    ///
    /// An [`Error`] of the storage, or [`Error::Damaged`] when the keys of the session were taken.
    fn start(&self, started: &StartedSession<'_>, now: TimestampMs) -> Result<Started, Error>;

    /// A session.
    ///
    /// # Errors
    ///
    /// An [`Error`] of the storage.
    fn session(&self, id: SessionId) -> Result<Option<Session>, Error>;

    /// Reads the keys of a session and erases them. Everything else of the session stays.
    ///
    /// # Errors
    ///
    /// An [`Error`] of the storage; the keys are then still there.
    fn take_keys(&self, id: SessionId) -> Result<TakenKeys, Error>;

    /// The first message of a session that this device started, to be sent again.
    ///
    /// # Errors
    ///
    /// An [`Error`] of the storage.
    fn first_message(&self, id: SessionId) -> Result<Option<Vec<u8>>, Error>;

    /// The identity key that is pinned for a device of a peer.
    ///
    /// # Errors
    ///
    /// An [`Error`] of the storage.
    fn pinned_identity(&self, peer: &Address) -> Result<Option<IdentityPublic>, Error>;

    /// The device list that is pinned for a user.
    ///
    /// # Errors
    ///
    /// An [`Error`] of the storage.
    fn pinned_device_list(&self, user: &UserId) -> Result<Option<PinnedDeviceList>, Error>;

    /// Pins a device list that was shown in an epoch of the cluster, unless one with a higher
    /// sequence number is pinned, and stores what it changes as an event. When the change is trusted, the identity keys of renewed devices take
    /// the place of those pinned before. All of it or nothing.
    ///
    /// # Errors
    ///
    /// [`Error::Stale`] when a list with a higher sequence number is pinned.
    fn pin_device_list(
        &self,
        user: &UserId,
        list: &PinnedDeviceList,
        change: Option<&DevicesChanged>,
        epoch: Epoch,
        now: TimestampMs,
    ) -> Result<(), Error>;

    /// The epoch in which the list that is pinned for a user was shown.
    ///
    /// # Errors
    ///
    /// An [`Error`] of the storage.
    fn device_list_epoch(&self, user: &UserId) -> Result<Epoch, Error>;

    /// Stores a change of trust, unless it is stored already. One that is open and asks the same
    /// with other keys is replaced by it.
    ///
    /// # Errors
    ///
    /// An [`Error`] of the storage.
    fn notice(&self, change: &Change, now: TimestampMs) -> Result<TrustEventId, Error>;

    /// The changes of trust of a user, or of all, with the answers given, in the order in which
    /// they were noticed.
    ///
    /// # Errors
    ///
    /// An [`Error`] of the storage.
    fn trust_events(&self, user: Option<&[u8]>)
    -> Result<Vec<(TrustEvent, Option<Answer>)>, Error>;

    /// Stores the answer to an event and pins what was accepted. All of it or nothing.
    ///
    /// # Errors
    ///
    /// [`Error::Stale`] when the event has been answered, or asks about other keys by now.
    fn answer(&self, event: &TrustEvent, answer: Answer, now: TimestampMs) -> Result<(), Error>;

    /// What of the device may leave it in a backup.
    ///
    /// # Errors
    ///
    /// [`Error::NoDevice`], or an [`Error`] of the storage.
    fn export(&self) -> Result<Export, Error>;

    /// Stores the device of a backup, as one that has lost all its prekeys.
    ///
    /// # Errors
    ///
    /// [`Error::DeviceExists`] when there is a device.
    fn import(&self, export: &Export, now: TimestampMs) -> Result<(), Error>;

    /// Lowers nothing and raises counters to what a server says is used.
    ///
    /// # Errors
    ///
    /// An [`Error`] of the storage.
    fn resync(&self, resync: &Resync) -> Result<(), Error>;

    /// Ids of one-time prekeys among `ranges` whose secrets this device does not hold.
    ///
    /// # Errors
    ///
    /// An [`Error`] of the storage.
    fn missing_secrets(&self, ranges: &[(OneTimePreKeyId, OneTimePreKeyId)]) -> Result<u64, Error>;
}

/// The device half of an address as a store keeps it.
pub(crate) fn address_of(user: &[u8], device: u32) -> Result<Address, Error> {
    Address::from_bytes(user, DeviceId(device)).map_err(|_| Error::Damaged { record: "address" })
}
