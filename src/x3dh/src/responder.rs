//! Bob's side, in the order that keeps him safe.
//!
//! | step | what | by |
//! |---|---|---|
//! | 1 | strict parse and point checks, right recipient | [`Received::parse`] |
//! | 2 | seen before? | the caller looks [`Received::dedup_key`] up |
//! | 3 | SPK current or retained, else [`Failure::SpkUnknown`] | the caller |
//! | 4 | OPK named but absent: [`Failure::OpkReused`] with a tombstone, else [`Failure::OpkMissing`] | the caller |
//! | 5 | DHs, then AEAD | [`Received::open`] |
//! | 6 | IK_A is the one pinned or listed | [`Opened::accept`] |
//! | 7 | one transaction, and only then the plaintext | [`Accepted::commit`] |
//! | 8 | DHs, SK and K_init are erased | by dropping them |
//!
//! The dedup key is made of public keys, while the message names prekeys by id. So the caller
//! finds the public halves first: of the SPK, and of the OPK even when it is used up, which means
//! that a tombstone keeps the public key. It needs no secret key and no DH.
//!
//! Guarantees: each step's type is made only by the step before; the plaintext and the session
//! stay inside until the caller's transaction has succeeded; a message that names an OPK is never
//! opened without it. A message that fails to open changes nothing, so garbage cannot use up the
//! pool.
//!
//! Leaves out: the key store. The caller's one transaction inserts the dedup key, deletes the
//! OPK's secret and stores the session. A dedup key lives as long as its SPK's secret; after that
//! a replay fails as [`Failure::SpkUnknown`].
//!
//! [`Failure::SpkUnknown`]: crate::Failure::SpkUnknown
//! [`Failure::OpkReused`]: crate::Failure::OpkReused
//! [`Failure::OpkMissing`]: crate::Failure::OpkMissing

use alloc::vec::Vec;

use oncekey_types::{OneTimePreKeyId, SignedPreKeyId};
use zeroize::{ZeroizeOnDrop, Zeroizing};

use crate::{
    address::Address,
    bundle::{Expectations, IdentityError},
    initiator::LocalDevice,
    keys::{
        IdentityKeyPair, IdentityPublic, NonContributory, OneTimePreKeyPair, OneTimePreKeyPublic,
        SignedPreKeyPair, SignedPreKeyPublic,
    },
    message::{InitialMessage, MessageError},
    schedule::{AppAd, Context, DedupKey, Ikm, SessionKeys, SharedKey},
};

/// Why a message was refused before any key was looked up.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReceiveError {
    /// The bytes are not an initial message.
    #[error(transparent)]
    Message(#[from] MessageError),
    /// The message is for someone else.
    #[error("the message is for another device")]
    WrongRecipient,
}

/// Why a message could not be opened. Nothing has changed, the OPK stays.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The prekey pairs given are not those that the message names.
    #[error("the prekey pairs are not those that the message names")]
    WrongPreKeys,
    /// A key of the message gives a known secret.
    #[error(transparent)]
    NonContributory(#[from] NonContributory),
    /// The ciphertext does not authenticate.
    #[error("the message does not authenticate")]
    AeadFailed,
}

/// A message of right form for this device. Step 1 is done.
#[derive(Clone, Debug)]
pub struct Received(InitialMessage);

impl Received {
    /// Parses a message and checks that it is for `me`.
    ///
    /// # Errors
    ///
    /// A [`ReceiveError`].
    pub fn parse(bytes: &[u8], me: &Address) -> Result<Self, ReceiveError> {
        let message = InitialMessage::from_bytes(bytes)?;
        if message.recipient() != me {
            return Err(ReceiveError::WrongRecipient);
        }
        Ok(Self(message))
    }

    /// The message.
    #[must_use]
    pub fn message(&self) -> &InitialMessage {
        &self.0
    }

    /// The key under which this handshake is remembered once it is accepted.
    ///
    /// `spk` and `opk` are the public halves of the prekeys that the message names; `opk` may be
    /// taken from a tombstone.
    #[must_use]
    pub fn dedup_key(
        &self,
        spk: &SignedPreKeyPublic,
        opk: Option<&OneTimePreKeyPublic>,
    ) -> DedupKey {
        DedupKey::new(&self.0.identity, &self.0.ephemeral, spk, opk)
    }

    /// Computes the DHs and decrypts.
    ///
    /// # Errors
    ///
    /// An [`OpenError`]. The one-time prekey must be kept.
    pub fn open(
        self,
        local: LocalDevice<'_>,
        spk: &SignedPreKeyPair,
        opk: Option<&OneTimePreKeyPair>,
        app_ad: AppAd<'_>,
    ) -> Result<Opened, OpenError> {
        let message = self.0;
        if message.recipient != *local.address
            || message.spk_id != spk.id()
            || message.opk_id != opk.map(OneTimePreKeyPair::id)
        {
            return Err(OpenError::WrongPreKeys);
        }
        let th = context(&message, &local, spk, opk, app_ad).transcript();
        let ikm = agree(local.identity, spk, opk, &message)?;
        let (key, session) = SharedKey::derive(ikm, &th).expand(th);
        let payload = key.open(&message.ct).map_err(|_| OpenError::AeadFailed)?;
        let opk = opk.map(OneTimePreKeyPair::public);
        let dedup = DedupKey::new(&message.identity, &message.ephemeral, spk.public(), opk);
        let InitialMessage { sender, identity, spk_id, opk_id, .. } = message;
        let commit = Commit { sender, identity, spk_id, opk_id, dedup, session };
        Ok(Opened { commit, payload })
    }
}

/// A message that decrypted. Steps 1 to 5 are done.
///
/// The sender holds the secret of the identity key it showed; whether that key is the sender's is
/// the next question.
pub struct Opened {
    commit: Commit,
    payload: Zeroizing<Vec<u8>>,
}

impl Opened {
    /// Who says to have sent the message.
    #[must_use]
    pub fn sender(&self) -> &Address {
        &self.commit.sender
    }

    /// The identity key (IK_A) that the sender holds.
    #[must_use]
    pub fn sender_identity(&self) -> &IdentityPublic {
        &self.commit.identity
    }

    /// Checks the sender's identity key against what is known of it.
    ///
    /// # Errors
    ///
    /// An [`IdentityError`].
    pub fn accept(self, expectations: &Expectations<'_>) -> Result<Accepted, IdentityError> {
        expectations.check(&self.commit.sender, &self.commit.identity)?;
        Ok(Accepted(self))
    }
}

/// A message from the right sender. Steps 1 to 6 are done.
pub struct Accepted(Opened);

/// What the caller's transaction writes: insert [`dedup`](Self::dedup), delete the secret of
/// [`one_time_prekey_id`](Self::one_time_prekey_id), store [`session`](Self::session).
pub struct Commit {
    sender: Address,
    identity: IdentityPublic,
    spk_id: SignedPreKeyId,
    opk_id: Option<OneTimePreKeyId>,
    dedup: DedupKey,
    session: SessionKeys,
}

impl Commit {
    /// The sender.
    #[must_use]
    pub fn sender(&self) -> &Address {
        &self.sender
    }

    /// The sender's identity key, to be pinned when none was.
    #[must_use]
    pub fn sender_identity(&self) -> &IdentityPublic {
        &self.identity
    }

    /// The signed prekey, whose secret's life is also that of the dedup key.
    #[must_use]
    pub fn signed_prekey_id(&self) -> SignedPreKeyId {
        self.spk_id
    }

    /// The one-time prekey whose secret to delete.
    #[must_use]
    pub fn one_time_prekey_id(&self) -> Option<OneTimePreKeyId> {
        self.opk_id
    }

    /// The key under which a replay is recognised.
    #[must_use]
    pub fn dedup(&self) -> &DedupKey {
        &self.dedup
    }

    /// Keys of the session.
    #[must_use]
    pub fn session(&self) -> &SessionKeys {
        &self.session
    }
}

/// A first message that is delivered, once.
pub struct Delivered {
    /// What the transaction wrote.
    pub record: Commit,
    /// The plaintext.
    pub payload: Payload,
}

/// A decrypted payload, erased when dropped.
pub struct Payload(Zeroizing<Vec<u8>>);

impl ZeroizeOnDrop for Payload {}

impl Payload {
    /// The bytes that the initiator sealed.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl Accepted {
    /// Runs the caller's transaction and releases the plaintext when it has succeeded.
    ///
    /// # Errors
    ///
    /// Those of `transaction`; the plaintext is then erased.
    pub fn commit<E>(
        self,
        transaction: impl FnOnce(&Commit) -> Result<(), E>,
    ) -> Result<Delivered, E> {
        let Opened { commit, payload } = self.0;
        transaction(&commit)?;
        Ok(Delivered { record: commit, payload: Payload(payload) })
    }
}

pub(crate) fn context<'a>(
    message: &'a InitialMessage,
    local: &LocalDevice<'a>,
    spk: &'a SignedPreKeyPair,
    opk: Option<&'a OneTimePreKeyPair>,
    app_ad: AppAd<'a>,
) -> Context<'a> {
    Context {
        initiator: &message.sender,
        responder: local.address,
        ik_a: &message.identity,
        ik_b: local.identity.public(),
        ek_a: &message.ephemeral,
        spk_b: (spk.id(), spk.public()),
        opk_b: opk.map(|opk| (opk.id(), opk.public())),
        app_ad,
    }
}

pub(crate) fn agree(
    ik_b: &IdentityKeyPair,
    spk_b: &SignedPreKeyPair,
    opk_b: Option<&OneTimePreKeyPair>,
    message: &InitialMessage,
) -> Result<Ikm, NonContributory> {
    let ek_a = message.ephemeral.dh();
    let dh = [
        spk_b.diffie_hellman(message.identity.dh())?,
        ik_b.diffie_hellman(ek_a)?,
        spk_b.diffie_hellman(ek_a)?,
    ];
    let dh4 = match opk_b {
        Some(opk_b) => Some(opk_b.diffie_hellman(ek_a)?),
        None => None,
    };
    Ok(Ikm::new(dh, dh4))
}

#[cfg(test)]
mod tests;
