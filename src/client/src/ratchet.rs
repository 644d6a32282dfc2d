//! The conversation after the first message, on vodozemac's Double Ratchet.
//!
//! ```text
//! responder   sends on CK0, under SPK_B as its ratchet key, with RK as root key
//! initiator   hears on CK0 under SPK_B; its first message makes T_A and
//!             (RK1, CKs) = HKDF-SHA256(salt = RK, ikm = DH(T_A, SPK_B), info = "OLM_RATCHET", 64)
//! ```
//!
//! RK and CK0 take the place of what Olm's own triple Diffie-Hellman gives, with the sides swapped:
//! in Olm the initiator has the first ratchet key, here the responder has, for it published SPK_B.
//! So the responder may answer before it has heard more than the first message, and from the
//! initiator's first message on, Olm's ratchet goes on as it always does: AES-256-CBC, HMAC-SHA256
//! cut to 8 bytes, 40 skipped messages in each of the last five chains.
//!
//! Guarantees: messages may come late, twice or in another order; one opens once, and has one form
//! on the wire. A message that does not open changes nothing. A ratchet that a [`Client`](crate::Client) makes
//! takes RK and CK0 out of the key store, where they are erased: no second ratchet goes on from them.
//! A responder that has only seen a first message *again* sends nothing before the initiator has shown
//! a fresh ratchet key: it may have used CK0 before.
//!
//! Leaves out: keeping the state. Store [`Ratchet::to_bytes`] after each
//! [`encrypt`](Ratchet::encrypt) before the message leaves, and after each
//! [`decrypt`](Ratchet::decrypt) before the text is shown; never go back to an older state, which
//! would encrypt two messages under one key. Store the first state at once: a process that ends before
//! has lost the session, whose keys are in no other place. Until the first answers have gone both
//! ways, protection is that of the handshake: whoever has both the message and the secrets of the
//! prekeys that it names can make RK and CK0 again. A handshake without a one-time prekey names one
//! only, which the responder holds until its retention is over. Authenticating who is at the other end is the handshake's,
//! whose transcript RK and CK0 are bound to.
//!
//! vodozemac has a constructor for one of the two sides, `Session::from_root_key_material`. The
//! other side is read from the form in which vodozemac stores a session. That form is the crate's
//! own and has to be read by its later versions, but it is not documented: the version is pinned
//! exactly, and the tests here fail if it changes.

use oncekey_x3dh::{
    SessionKeys,
    keys::{SignedPreKeyPair, SignedPreKeyPublic},
};
use serde::Serialize;
use vodozemac::{
    Curve25519PublicKey,
    olm::{
        DecryptionError, EncryptionError, Message, OlmMessage, Session, SessionConfig,
        SessionKeys as OlmSessionKeys, SessionPickle,
    },
};
use zeroize::Zeroizing;

use crate::{
    client::TakeKeysError,
    keystore::{self, KeysTaken},
};

/// The first byte of a stored state. Stable, never reuse.
const FORM: u8 = 1;
/// Room for the state of a new session, so that the buffer does not grow.
const STATE_BYTES: usize = 64 * 1024;

/// A ratchet that a handshake has started.
pub struct Ratchet {
    session: Session,
    /// Nothing is sent until the peer has shown a fresh ratchet key.
    listens_first: bool,
}

/// Why there is no ratchet.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NoRatchet {
    /// The session was started by this device: take the [`Outgoing`](crate::Outgoing) that started it.
    #[error("the session was started by this device")]
    OwnSession,
    /// The secret of the session's signed prekey is deleted.
    #[error("the signed prekey of the session is deleted")]
    SignedPreKeyDeleted,
    /// The keys of the session were taken before: another ratchet has gone on from them. A process
    /// that ended before it stored that one has lost the session.
    #[error(transparent)]
    KeysTaken(#[from] KeysTaken),
    /// The key store has no such session: it is not the one that the session came from.
    #[error("the key store has no such session")]
    NoSession,
    /// The bytes are not a state that this version stores.
    #[error("the bytes are not the state of a ratchet")]
    State,
    /// The key store.
    #[error(transparent)]
    Store(#[from] keystore::Error),
}

impl From<TakeKeysError> for NoRatchet {
    fn from(error: TakeKeysError) -> Self {
        match error {
            TakeKeysError::NoSession => Self::NoSession,
            TakeKeysError::Taken(taken) => taken.into(),
            TakeKeysError::Store(error) => error.into(),
        }
    }
}

/// Why a message was not encrypted.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EncryptError {
    /// The first message had been delivered before, so this side may have sent before: it must
    /// hear from the peer first.
    #[error("nothing is sent before the peer is heard")]
    ListensFirst,
    /// The ratchet key of the peer gives a known secret.
    #[error(transparent)]
    Ratchet(#[from] EncryptionError),
}

/// Why a message was not decrypted. Nothing has changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DecryptError {
    /// The bytes are not a message of a ratchet.
    #[error("the bytes are not a message of a ratchet")]
    Malformed,
    /// Not a message of this session, one that was opened before, or one that comes too late.
    #[error(transparent)]
    Ratchet(#[from] DecryptionError),
}

impl Ratchet {
    /// The initiator's side of a handshake with the owner of `spk`.
    ///
    /// # Errors
    ///
    /// [`NoRatchet::State`] when vodozemac reads another form than this was written for.
    pub fn initiator(keys: &SessionKeys, spk: &SignedPreKeyPublic) -> Result<Self, NoRatchet> {
        let (root, chain) = (keys.root().as_bytes(), keys.chain().as_bytes());
        let pickle = Pickle {
            session_keys: envelope(keys),
            sending_ratchet: Inactive {
                kind: "inactive",
                root_key: Key { key: root },
                ratchet_key: spk.as_bytes(),
            },
            receiving_chains: Chains {
                inner: [Chain {
                    ratchet_key: spk.as_bytes(),
                    hkdf_ratchet: ChainKey { key: chain, index: 0 },
                    skipped_message_keys: Skipped { inner: [] },
                }],
            },
            config: SessionConfig::version_1(),
        };
        let mut json = Zeroizing::new(Vec::with_capacity(STATE_BYTES));
        serde_json::to_writer(&mut *json, &pickle).map_err(|_| NoRatchet::State)?;
        let pickle: SessionPickle = serde_json::from_slice(&json).map_err(|_| NoRatchet::State)?;
        Ok(Self { session: Session::from_pickle(pickle), listens_first: false })
    }

    /// The responder's side, which holds the secret of `spk`.
    #[must_use]
    pub fn responder(keys: &SessionKeys, spk: &SignedPreKeyPair) -> Self {
        let session = Session::from_root_key_material(
            SessionConfig::version_1(),
            envelope(keys),
            *keys.root().as_bytes(),
            *keys.chain().as_bytes(),
            *spk.to_secret(),
        );
        Self { session, listens_first: false }
    }

    /// The same ratchet, which sends nothing until it has heard the peer.
    #[must_use]
    pub fn listening_first(self) -> Self {
        Self { listens_first: true, ..self }
    }

    /// Encrypts the next message. Store the new state before it is sent.
    ///
    /// # Errors
    ///
    /// An [`EncryptError`].
    pub fn encrypt(&mut self, plaintext: &[u8]) -> Result<Vec<u8>, EncryptError> {
        if self.listens_first {
            return Err(EncryptError::ListensFirst);
        }
        Ok(match self.session.encrypt(plaintext)? {
            OlmMessage::Normal(message) => message.to_bytes(),
            // Around it is what Olm needs to do a handshake, which is done.
            OlmMessage::PreKey(message) => message.message().to_bytes(),
        })
    }

    /// Decrypts a message. Store the new state before the text is shown.
    ///
    /// # Errors
    ///
    /// A [`DecryptError`].
    pub fn decrypt(&mut self, message: &[u8]) -> Result<Zeroizing<Vec<u8>>, DecryptError> {
        let bytes = message;
        let message = Message::from_bytes(bytes).map_err(|_| DecryptError::Malformed)?;
        // vodozemac authenticates what it understood of the bytes; others can mean the same.
        if message.to_bytes() != bytes {
            return Err(DecryptError::Malformed);
        }
        let plaintext = self.session.decrypt(&OlmMessage::Normal(message))?;
        self.listens_first = false;
        Ok(Zeroizing::new(plaintext))
    }

    /// The state, to be stored where secrets are. Holds keys: seal it.
    ///
    /// # Errors
    ///
    /// [`NoRatchet::State`] when it cannot be written.
    pub fn to_bytes(&self) -> Result<Zeroizing<Vec<u8>>, NoRatchet> {
        let mut bytes = Zeroizing::new(Vec::with_capacity(STATE_BYTES));
        bytes.extend_from_slice(&[FORM, u8::from(self.listens_first)]);
        serde_json::to_writer(&mut *bytes, &self.session.pickle()).map_err(|_| NoRatchet::State)?;
        Ok(bytes)
    }

    /// The ratchet of a stored state.
    ///
    /// # Errors
    ///
    /// [`NoRatchet::State`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, NoRatchet> {
        let (listens_first, json) = match bytes {
            [FORM, flag @ (0 | 1), json @ ..] => (*flag == 1, json),
            _ => return Err(NoRatchet::State),
        };
        let pickle: SessionPickle = serde_json::from_slice(json).map_err(|_| NoRatchet::State)?;
        Ok(Self { session: Session::from_pickle(pickle), listens_first })
    }
}

impl std::fmt::Debug for Ratchet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ratchet")
            .field("listens_first", &self.listens_first)
            .finish_non_exhaustive()
    }
}

/// What Olm would name a session by. Both sides have the transcript in common.
fn envelope(keys: &SessionKeys) -> OlmSessionKeys {
    let transcript = Curve25519PublicKey::from_bytes(*keys.transcript().as_bytes());
    OlmSessionKeys { identity_key: transcript, base_key: transcript, one_time_key: transcript }
}

/// The form in which vodozemac stores a session that has heard one chain and sent nothing.
#[derive(Serialize)]
struct Pickle<'a> {
    session_keys: OlmSessionKeys,
    sending_ratchet: Inactive<'a>,
    receiving_chains: Chains<'a>,
    config: SessionConfig,
}

#[derive(Serialize)]
struct Inactive<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    root_key: Key<'a>,
    ratchet_key: &'a [u8; 32],
}

#[derive(Serialize)]
struct Key<'a> {
    key: &'a [u8; 32],
}

#[derive(Serialize)]
struct Chains<'a> {
    inner: [Chain<'a>; 1],
}

#[derive(Serialize)]
struct Chain<'a> {
    ratchet_key: &'a [u8; 32],
    hkdf_ratchet: ChainKey<'a>,
    skipped_message_keys: Skipped,
}

#[derive(Serialize)]
struct ChainKey<'a> {
    key: &'a [u8; 32],
    index: u64,
}

#[derive(Serialize)]
struct Skipped {
    inner: [(); 0],
}

#[cfg(test)]
mod tests;
