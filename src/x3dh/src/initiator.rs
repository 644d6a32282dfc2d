//! Alice's side.
//!
//! ```text
//! DH1 = (IK_A, SPK_B), DH2 = (EK_A, IK_B), DH3 = (EK_A, SPK_B), DH4 = (EK_A, OPK_B)
//! ```
//!
//! Guarantees: one verified bundle and one fresh EK give one sealed message; ek_a, the DHs, SK and
//! K_init are erased before it is returned. A retry resends the stored bytes: there is no way to
//! encrypt again.
//!
//! Leaves out: storing and sending the message.

use alloc::vec::Vec;

use oncekey_types::limits;
use rand_core::CryptoRng;

use crate::{
    address::Address,
    bundle::{Bundle, VerifiedBundle},
    keys::{EphemeralKey, EphemeralPublic, IdentityKeyPair, IdentityKind, NonContributory},
    message::InitialMessage,
    schedule::{AppAd, Context, DedupKey, Ikm, InitialKey, SessionKeys, SharedKey},
};

/// A device with its identity: either side's own half of a handshake.
#[derive(Clone, Copy)]
pub struct LocalDevice<'a> {
    /// Its address.
    pub address: &'a Address,
    /// Its identity key pair (IK).
    pub identity: &'a IdentityKeyPair,
}

/// Why a handshake could not be started.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InitiateError {
    /// The own identity key is not Ed25519.
    #[error("suite 0x0001 takes no identity key of kind {kind:?}")]
    IdentityKind {
        /// The kind of the own identity key.
        kind: IdentityKind,
    },
    /// A key of the bundle gives a known secret.
    #[error(transparent)]
    NonContributory(#[from] NonContributory),
}

/// The payload is over [`INITIAL_PAYLOAD_MAX_BYTES`](limits::INITIAL_PAYLOAD_MAX_BYTES).
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the payload has {bytes} bytes, over the limit of {limit}",
    limit = limits::INITIAL_PAYLOAD_MAX_BYTES)]
pub struct PayloadTooLong {
    /// Length of the payload in bytes.
    pub bytes: usize,
}

impl VerifiedBundle {
    /// Agrees on keys with the bundle's owner. The bundle is used up.
    ///
    /// # Errors
    ///
    /// An [`InitiateError`]; the bundle is lost, fetch another.
    pub fn initiate<R: CryptoRng + ?Sized>(
        self,
        local: LocalDevice<'_>,
        app_ad: AppAd<'_>,
        rng: &mut R,
    ) -> Result<Initiated, InitiateError> {
        match local.identity.public().kind() {
            IdentityKind::Ed25519 => {}
            kind @ IdentityKind::Curve25519 => return Err(InitiateError::IdentityKind { kind }),
        }
        let bundle = self.0;
        let ephemeral = EphemeralKey::generate(rng);
        let context = context(&local, &bundle, ephemeral.public(), app_ad);
        let th = context.transcript();
        let ikm = agree(local.identity, &ephemeral, &bundle)?;
        let (key, session) = SharedKey::derive(ikm, &th).expand(th);
        let opk = bundle.one_time_prekey.as_ref();
        let dedup = DedupKey::new(
            local.identity.public(),
            ephemeral.public(),
            &bundle.signed_prekey.key,
            opk.map(|opk| &opk.key),
        );
        let message = InitialMessage {
            sender: local.address.clone(),
            recipient: bundle.owner.clone(),
            identity: *local.identity.public(),
            ephemeral: *ephemeral.public(),
            spk_id: bundle.signed_prekey.id,
            opk_id: opk.map(|opk| opk.id),
            ct: Vec::new(),
        };
        Ok(Initiated { message, key, session, dedup })
    }
}

/// A handshake whose first message is not yet written.
pub struct Initiated {
    message: InitialMessage,
    key: InitialKey,
    session: SessionKeys,
    dedup: DedupKey,
}

/// A started handshake: the message to store and send, and the session to keep.
pub struct Sealed {
    /// The bytes to send, and to send again until they are answered.
    pub message: Vec<u8>,
    /// Keys of the session.
    pub session: SessionKeys,
    /// The name under which the responder remembers the handshake.
    pub dedup: DedupKey,
}

impl Initiated {
    /// Encrypts the first payload. K_init is used up and erased.
    ///
    /// # Errors
    ///
    /// [`PayloadTooLong`].
    pub fn seal(self, payload: &[u8]) -> Result<Sealed, PayloadTooLong> {
        let too_long = PayloadTooLong { bytes: payload.len() };
        if payload.len() > limits::INITIAL_PAYLOAD_MAX_BYTES {
            return Err(too_long);
        }
        let Self { mut message, key, session, dedup } = self;
        message.ct = key.seal(payload).map_err(|_| too_long)?;
        Ok(Sealed { message: message.to_bytes(), session, dedup })
    }
}

pub(crate) fn context<'a>(
    local: &LocalDevice<'a>,
    bundle: &'a Bundle,
    ek_a: &'a EphemeralPublic,
    app_ad: AppAd<'a>,
) -> Context<'a> {
    Context {
        initiator: local.address,
        responder: &bundle.owner,
        ik_a: local.identity.public(),
        ik_b: &bundle.identity,
        ek_a,
        spk_b: (bundle.signed_prekey.id, &bundle.signed_prekey.key),
        opk_b: bundle.one_time_prekey.as_ref().map(|opk| (opk.id, &opk.key)),
        app_ad,
    }
}

pub(crate) fn agree(
    ik_a: &IdentityKeyPair,
    ek_a: &EphemeralKey,
    bundle: &Bundle,
) -> Result<Ikm, NonContributory> {
    let spk_b = bundle.signed_prekey.key.dh();
    let dh = [
        ik_a.diffie_hellman(spk_b)?,
        ek_a.diffie_hellman(bundle.identity.dh())?,
        ek_a.diffie_hellman(spk_b)?,
    ];
    let dh4 = match &bundle.one_time_prekey {
        Some(opk_b) => Some(ek_a.diffie_hellman(opk_b.key.dh())?),
        None => None,
    };
    Ok(Ikm::new(dh, dh4))
}
