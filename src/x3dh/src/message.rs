//! The initial message on the wire.
//!
//! ```text
//! u8 version = 1 ‖ u16 suite ‖ u8 flags (bit 0 OPK, bit 1 PQ, others 0)
//! ‖ lp(userA) ‖ u32 devA ‖ lp(userB) ‖ u32 devB ‖ IK_A ‖ EK_A ‖ u32 spk_id ‖ [u32 opk_id]
//! ‖ u32 len ‖ ct
//! ```
//!
//! Guarantees: a message has one encoding; trailing bytes, unknown flags, unknown suites and keys
//! that fail a point check are refused. Every field but `ct` is bound by CTX, and `ct` by its
//! AEAD.
//!
//! Leaves out: whether the message is genuine. Nothing here is believed before it is opened.

use alloc::vec::Vec;

use oncekey_types::{DeviceId, OneTimePreKeyId, SignedPreKeyId, limits};

use crate::{
    address::{Address, UserTooLong},
    encode::{Reader, Truncated, Writer},
    keys::{EphemeralPublic, IdentityPublic, KeyError},
    schedule::{SUITE, TAG_BYTES},
};

const VERSION: u8 = 1;
const FLAG_OPK: u8 = 0b01;

/// Why bytes are not an initial message.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MessageError {
    /// The bytes end inside a field.
    #[error("the message is truncated")]
    Truncated,
    /// Bytes follow the ciphertext.
    #[error("the message has {bytes} trailing bytes")]
    Trailing {
        /// How many.
        bytes: usize,
    },
    /// A version that is not 1.
    #[error("version {version} is not supported")]
    Version {
        /// The version.
        version: u8,
    },
    /// A suite that is not 0x0001.
    #[error("suite {suite:#06x} is not supported")]
    Suite {
        /// The suite.
        suite: u16,
    },
    /// A flag that the suite does not know.
    #[error("flags {flags:#010b} are not supported")]
    Flags {
        /// All flags.
        flags: u8,
    },
    /// A user's name is too long.
    #[error(transparent)]
    User(#[from] UserTooLong),
    /// The identity key or the ephemeral key.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The ciphertext is shorter than its tag or over the limit.
    #[error("a ciphertext of {bytes} bytes is outside the limits")]
    CiphertextLength {
        /// Length of the ciphertext in bytes.
        bytes: usize,
    },
}

impl From<Truncated> for MessageError {
    fn from(_: Truncated) -> Self {
        Self::Truncated
    }
}

/// An initial message whose form and points are right; see the [module](self).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct InitialMessage {
    pub(crate) sender: Address,
    pub(crate) recipient: Address,
    pub(crate) identity: IdentityPublic,
    pub(crate) ephemeral: EphemeralPublic,
    pub(crate) spk_id: SignedPreKeyId,
    pub(crate) opk_id: Option<OneTimePreKeyId>,
    pub(crate) ct: Vec<u8>,
}

impl InitialMessage {
    /// Parses the bytes of a message, strictly.
    ///
    /// # Errors
    ///
    /// A [`MessageError`] for anything that [`to_bytes`](Self::to_bytes) would not write.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, MessageError> {
        let mut reader = Reader::new(bytes);
        match reader.u8()? {
            VERSION => {}
            version => return Err(MessageError::Version { version }),
        }
        match reader.u16()? {
            SUITE => {}
            suite => return Err(MessageError::Suite { suite }),
        }
        let flags = reader.u8()?;
        if flags & !FLAG_OPK != 0 {
            return Err(MessageError::Flags { flags });
        }
        let sender = address(&mut reader)?;
        let recipient = address(&mut reader)?;
        let identity = IdentityPublic::from_ed25519(reader.take(32)?)?;
        let ephemeral = EphemeralPublic::from_bytes(reader.take(32)?)?;
        let spk_id = SignedPreKeyId(reader.u32()?);
        let opk_id = match flags & FLAG_OPK {
            0 => None,
            _ => Some(OneTimePreKeyId(reader.u32()?)),
        };
        let len = usize::try_from(reader.u32()?).unwrap_or(usize::MAX);
        if !(TAG_BYTES..=limits::INITIAL_PAYLOAD_MAX_BYTES + TAG_BYTES).contains(&len) {
            return Err(MessageError::CiphertextLength { bytes: len });
        }
        let ct = reader.take(len)?.to_vec();
        match reader.remaining() {
            0 => Ok(Self { sender, recipient, identity, ephemeral, spk_id, opk_id, ct }),
            bytes => Err(MessageError::Trailing { bytes }),
        }
    }

    /// The bytes to send.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let flags = if self.opk_id.is_some() { FLAG_OPK } else { 0 };
        let writer = Writer::with_capacity(2 * limits::USER_ID_MAX_BYTES + 100 + self.ct.len())
            .u8(VERSION)
            .u16(SUITE)
            .u8(flags)
            .lp(self.sender.user())
            .u32(self.sender.device().0)
            .lp(self.recipient.user())
            .u32(self.recipient.device().0)
            .raw(self.identity.as_bytes())
            .raw(self.ephemeral.as_bytes())
            .u32(self.spk_id.0);
        let writer = match self.opk_id {
            Some(id) => writer.u32(id.0),
            None => writer,
        };
        // At most the payload limit and a tag, which fits.
        let len = u32::try_from(self.ct.len()).unwrap_or(u32::MAX);
        writer.u32(len).raw(&self.ct).finish()
    }

    /// Who says to have sent the message.
    #[must_use]
    pub fn sender(&self) -> &Address {
        &self.sender
    }

    /// Whom the message is for.
    #[must_use]
    pub fn recipient(&self) -> &Address {
        &self.recipient
    }

    /// The identity key (IK_A) the sender used.
    #[must_use]
    pub fn sender_identity(&self) -> &IdentityPublic {
        &self.identity
    }

    /// The signed prekey the sender used.
    #[must_use]
    pub fn signed_prekey_id(&self) -> SignedPreKeyId {
        self.spk_id
    }

    /// The one-time prekey the sender used, if any.
    #[must_use]
    pub fn one_time_prekey_id(&self) -> Option<OneTimePreKeyId> {
        self.opk_id
    }
}

fn address(reader: &mut Reader<'_>) -> Result<Address, MessageError> {
    let user = reader.lp()?;
    let device = DeviceId(reader.u32()?);
    Ok(Address::from_bytes(user, device)?)
}
