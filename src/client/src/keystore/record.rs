//! Records that pass between the machine and the key store.

use std::fmt;

use oncekey_types::{
    Epoch, OneTimePreKeyId, RegistrationId, Seq, SignedPreKeyId, TimestampMs, UnixSeconds,
};
use oncekey_x3dh::{
    Address, SessionKeys,
    keys::{IdentityPublic, OneTimePreKeyPair, OneTimePreKeyPublic, SignedPreKeyPair},
};

/// Counters of a device, and the write whose answer it does not know.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DeviceState {
    /// The registration, once there is one.
    pub registration: Option<RegistrationId>,
    /// The cluster's epoch, as this device knows it.
    pub epoch: Epoch,
    /// Number of the last write; 0 before the first.
    pub seq: Seq,
    /// The signed prekey that a server last accepted.
    pub current: Option<SignedPreKeyId>,
    /// Highest signed prekey id ever made or heard of; 0 before the first.
    pub highest_signed_prekey: SignedPreKeyId,
    /// Highest one-time prekey id ever made or heard of; 0 before the first.
    pub highest_one_time_prekey: OneTimePreKeyId,
    /// The write that was stored and whose answer is not known.
    pub pending: Option<PendingWrite>,
}

/// What a write does. The numbers are stable, never reuse.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum WriteKind {
    /// Register the device.
    Register = 1,
    /// Replace the signed prekey.
    Rotate = 2,
    /// Add one-time prekeys.
    Replenish = 3,
    /// Remove the device.
    Remove = 4,
}

impl WriteKind {
    /// The kind that `number` stands for.
    #[must_use]
    pub fn from_number(number: u8) -> Option<Self> {
        match number {
            1 => Some(Self::Register),
            2 => Some(Self::Rotate),
            3 => Some(Self::Replenish),
            4 => Some(Self::Remove),
            _ => None,
        }
    }
}

/// A write as it is sent, and sent again byte for byte until it is answered.
#[derive(Clone, PartialEq, Eq)]
pub struct PendingWrite {
    /// Its number.
    pub seq: Seq,
    /// What it does.
    pub kind: WriteKind,
    /// The signed prekey that it publishes, if any.
    pub signed_prekey: Option<SignedPreKeyId>,
    /// The body; empty for a removal.
    pub body: Vec<u8>,
}

impl fmt::Debug for PendingWrite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PendingWrite")
            .field("seq", &self.seq)
            .field("kind", &self.kind)
            .field("body_bytes", &self.body.len())
            .finish_non_exhaustive()
    }
}

/// A write together with the secrets of the keys that it publishes.
pub struct Staged {
    /// Number of the last write in the state that this was made from.
    pub after: Seq,
    /// The write.
    pub write: PendingWrite,
    /// A new signed prekey.
    pub signed_prekey: Option<HeldSignedPreKey>,
    /// New one-time prekeys, ids growing.
    pub one_time_prekeys: Vec<OneTimePreKeyPair>,
}

impl fmt::Debug for Staged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Staged")
            .field("write", &self.write)
            .field("one_time_prekeys", &self.one_time_prekeys.len())
            .finish_non_exhaustive()
    }
}

/// A signed prekey with its secret.
pub struct HeldSignedPreKey {
    /// The pair.
    pub pair: SignedPreKeyPair,
    /// When it was made.
    pub created: UnixSeconds,
    /// When it stops being valid, as signed.
    pub expires: UnixSeconds,
    /// When a server accepted its successor.
    pub replaced: Option<TimestampMs>,
}

impl fmt::Debug for HeldSignedPreKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HeldSignedPreKey")
            .field("id", &self.pair.id())
            .field("replaced", &self.replaced)
            .finish_non_exhaustive()
    }
}

/// Why a device has no trace of one of its prekeys.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Absence {
    /// It never made a prekey with this id: whoever handed it out made it up.
    NeverMade,
    /// It threw all its prekeys away since, because it was restored from a backup.
    Discarded,
    /// It was made, or skipped, too long ago to be remembered.
    Forgotten,
}

impl fmt::Display for Absence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NeverMade => "was never made here",
            Self::Discarded => "was thrown away when the device was restored",
            Self::Forgotten => "is too old to be remembered",
        })
    }
}

/// What a device knows of one of its signed prekeys.
#[derive(Debug)]
pub enum SignedPreKeyRecord {
    /// Its secret is held.
    Held(HeldSignedPreKey),
    /// Its secret was deleted when its time was over.
    Deleted {
        /// When its successor was accepted.
        replaced: TimestampMs,
    },
    /// There is no trace of it.
    Absent(Absence),
}

/// What a device knows of one of its one-time prekeys.
pub enum OneTimePreKeyRecord {
    /// Its secret is held.
    Held(OneTimePreKeyPair),
    /// It has served a handshake and its secret is erased.
    Used(OneTimePreKeyPublic),
    /// There is no trace of it.
    Absent(Absence),
}

impl fmt::Debug for OneTimePreKeyRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Held(_) => f.write_str("Held(..)"),
            Self::Used(_) => f.write_str("Used(..)"),
            Self::Absent(absence) => write!(f, "Absent({absence:?})"),
        }
    }
}

/// What became of a write.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Settled {
    /// A server accepted the registration.
    Registered(RegistrationId),
    /// A server accepted the write.
    Accepted,
    /// The device is no longer registered.
    Unregistered,
    /// A server refused the write; it will not be sent again. Its secrets are kept: an attempt
    /// that is still on its way may yet be accepted.
    Refused(Resync),
}

/// What a server says is used already.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Resync {
    /// The cluster's epoch.
    pub epoch: Option<Epoch>,
    /// Number of the last write accepted.
    pub seq: Option<Seq>,
    /// The current signed prekey.
    pub signed_prekey: Option<SignedPreKeyId>,
    /// Highest one-time prekey id ever accepted.
    pub one_time_prekey: Option<OneTimePreKeyId>,
}

/// What became of an attempt to accept a handshake.
#[derive(Debug)]
pub enum Acceptance {
    /// It is accepted; the secret of the one-time prekey is gone.
    Accepted,
    /// It was accepted before.
    Duplicate(SessionId),
    /// The secret of its one-time prekey was erased in between.
    OneTimePreKeyUsed,
    /// The secret of its signed prekey was deleted in between.
    SignedPreKeyDeleted,
    /// Another identity key was pinned for the sender in between.
    IdentityChanged,
}

/// What became of an attempt to store a session that this device starts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Started {
    /// It is stored.
    Stored,
    /// Another identity key is pinned for the peer.
    IdentityChanged,
    /// This device has used the same one-time prekey of the peer before, in this session.
    OneTimePreKeyUsed(SessionId),
}

/// Which side started a session. The numbers are stable, never reuse.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Role {
    /// This device did.
    Initiator = 1,
    /// The peer did.
    Responder = 2,
}

/// Names a session; the same on both sides, and not secret.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct SessionId(pub [u8; 32]);

impl SessionId {
    /// The session of these keys.
    #[must_use]
    pub fn of(keys: &SessionKeys) -> Self {
        Self(*keys.transcript().as_bytes())
    }
}

/// What became of an attempt to take the keys of a session.
pub enum TakenKeys {
    /// Here they are; the store holds them no more.
    Now(SessionKeys),
    /// They were taken before.
    Before,
    /// There is no such session.
    NoSession,
}

impl fmt::Debug for TakenKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Now(_) => "Now(..)",
            Self::Before => "Before",
            Self::NoSession => "NoSession",
        })
    }
}

/// The keys of the session were taken: a ratchet has them, or had them.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the keys of the session were taken")]
pub struct KeysTaken;

/// A session: what a handshake leaves to the ratchet.
pub struct Session {
    /// Its name.
    pub id: SessionId,
    /// Who started it.
    pub role: Role,
    /// The other device.
    pub peer: Address,
    /// The other device's identity key.
    pub peer_identity: IdentityPublic,
    /// The responder's signed prekey.
    pub signed_prekey: SignedPreKeyId,
    /// The responder's one-time prekey, if one was used.
    pub one_time_prekey: Option<OneTimePreKeyId>,
    /// The root key and the first chain key; none when they were taken.
    pub keys: Option<SessionKeys>,
}

impl Session {
    /// The root key and the first chain key.
    ///
    /// # Errors
    ///
    /// [`KeysTaken`].
    pub fn keys(&self) -> Result<&SessionKeys, KeysTaken> {
        self.keys.as_ref().ok_or(KeysTaken)
    }
}

/// Says which session, and nothing of its keys or its peer.
impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session")
            .field("id", &self.id)
            .field("role", &self.role)
            .finish_non_exhaustive()
    }
}

/// A session that this device starts.
#[derive(Debug)]
pub struct StartedSession<'a> {
    /// The session.
    pub session: &'a Session,
    /// The first message.
    pub message: &'a [u8],
}
