//! Why a handshake failed: in detail for this device's own telemetry, in one word for the peer.
//!
//! Guarantees: a reason is stable and says nothing about keys or users; the peer learns only that
//! the handshake was refused, whatever the cause. Leaves out: counting.

use crate::{
    bundle::{BundleError, IdentityError},
    initiator::InitiateError,
    responder::{OpenError, ReceiveError},
};

/// Why a handshake failed, for local telemetry only.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, thiserror::Error)]
#[non_exhaustive]
#[error("{}", self.reason())]
pub enum Failure {
    /// The bytes are not a message or hold a bad key.
    Malformed,
    /// The message is for another device.
    WrongRecipient,
    /// The handshake was accepted before.
    Replay,
    /// The signed prekey is neither current nor retained.
    SpkUnknown,
    /// The signed prekey of a bundle is past its time.
    SpkExpired,
    /// The one-time prekey was never held, or its tombstone is gone.
    OpkMissing,
    /// The one-time prekey has served a handshake before.
    OpkReused,
    /// A signature in a bundle is wrong.
    SignatureInvalid,
    /// The identity key is not the one pinned or listed.
    IdentityChanged,
    /// The message does not authenticate.
    AeadFailed,
}

impl Failure {
    /// The name of the cause. Stable, never reuse.
    #[must_use]
    pub fn reason(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::WrongRecipient => "wrong_recipient",
            Self::Replay => "replay",
            Self::SpkUnknown => "spk_unknown",
            Self::SpkExpired => "spk_expired",
            Self::OpkMissing => "opk_missing",
            Self::OpkReused => "opk_reused",
            Self::SignatureInvalid => "signature_invalid",
            Self::IdentityChanged => "identity_changed",
            Self::AeadFailed => "aead_failed",
        }
    }
}

/// All that a peer is told.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the handshake was refused")]
pub struct HandshakeRefused;

impl From<Failure> for HandshakeRefused {
    fn from(_: Failure) -> Self {
        Self
    }
}

impl From<ReceiveError> for Failure {
    fn from(error: ReceiveError) -> Self {
        match error {
            ReceiveError::Message(_) => Self::Malformed,
            ReceiveError::WrongRecipient => Self::WrongRecipient,
        }
    }
}

impl From<OpenError> for Failure {
    fn from(error: OpenError) -> Self {
        match error {
            OpenError::WrongPreKeys => Self::OpkMissing,
            OpenError::NonContributory(_) => Self::Malformed,
            OpenError::AeadFailed => Self::AeadFailed,
        }
    }
}

impl From<IdentityError> for Failure {
    fn from(error: IdentityError) -> Self {
        match error {
            IdentityError::Kind { .. } => Self::Malformed,
            IdentityError::Changed | IdentityError::NotListed => Self::IdentityChanged,
        }
    }
}

impl From<BundleError> for Failure {
    fn from(error: BundleError) -> Self {
        match error {
            BundleError::SignedPreKeySignature | BundleError::OneTimePreKeySignature => {
                Self::SignatureInvalid
            }
            BundleError::Expired { .. } => Self::SpkExpired,
            BundleError::Identity(error) => error.into(),
        }
    }
}

impl From<InitiateError> for Failure {
    fn from(error: InitiateError) -> Self {
        match error {
            InitiateError::IdentityKind { .. } | InitiateError::NonContributory(_) => {
                Self::Malformed
            }
        }
    }
}
