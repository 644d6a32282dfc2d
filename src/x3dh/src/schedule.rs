//! The key schedule of suite 0x0001.
//!
//! ```text
//! CTX = lp("Oncekey v1") ‖ u16 suite ‖ lp(userA) ‖ u32 devA ‖ lp(userB) ‖ u32 devB
//!     ‖ lp(IK_A) ‖ lp(IK_B) ‖ lp(EK_A) ‖ u32 spk_id ‖ lp(SPK_B)
//!     ‖ (0x01 ‖ u32 opk_id ‖ lp(OPK_B)  |  0x00) ‖ 0x00 ‖ lp(app_ad)
//! th  = SHA-256(CTX)
//! SK  = HKDF-SHA256(salt = 0³², ikm = F ‖ DH1 ‖ DH2 ‖ DH3 [‖ DH4], info = "Oncekey v1 SK" ‖ th, 32)
//! K_init ‖ RK ‖ CK0 = HKDF-Expand(PRK = SK, "Oncekey v1 keys" ‖ th, 96)
//! dedup = SHA-256("Oncekey v1 dedup" ‖ IK_A ‖ EK_A ‖ SPK_B ‖ [OPK_B])
//! ct    = ChaCha20-Poly1305(K_init, nonce = 0¹², aad = th, payload)
//! ```
//!
//! F is 32 bytes of 0xFF. The lone `0x00` before `app_ad` says that there is no KEM part; suite
//! 0x0002 would write its KEM prekey and ciphertext there and append its shared secret to the ikm.
//!
//! Guarantees: both sides derive the same keys exactly when they agree on every field of CTX and
//! on every DH. The input keying material lives in one fixed buffer that is erased; K_init is used
//! for one message, by move.
//!
//! Leaves out: who computes which DH ([`initiator`](crate::initiator),
//! [`responder`](crate::responder)).

use alloc::vec::Vec;
use core::fmt;

use chacha20poly1305::{
    AeadInOut, ChaCha20Poly1305, KeyInit,
    aead::{Aead, Payload},
};
use hkdf::{Hkdf, HkdfExtract};
use oncekey_types::{OneTimePreKeyId, SignedPreKeyId, limits};
use sha2::{Digest, Sha256};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::{
    address::Address,
    encode::Writer,
    keys::{
        EphemeralPublic, IdentityPublic, OneTimePreKeyPublic, SharedSecret, SignedPreKeyPublic,
    },
};

/// Number of the suite: X25519, SHA-256, ChaCha20-Poly1305, Ed25519 identities.
pub(crate) const SUITE: u16 = 0x0001;

const LABEL_CTX: &[u8] = b"Oncekey v1";
const LABEL_SK: &[u8] = b"Oncekey v1 SK";
const LABEL_KEYS: &[u8] = b"Oncekey v1 keys";
const LABEL_DEDUP: &[u8] = b"Oncekey v1 dedup";

/// F: keeps the input keying material apart from any input of XEdDSA.
pub(crate) const F: [u8; 32] = [0xff; 32];
/// F, four DHs and room for one KEM secret.
const IKM_BYTES: usize = 192;
const NONCE: [u8; 12] = [0; 12];
/// Length of the authentication tag that ends a ciphertext.
pub(crate) const TAG_BYTES: usize = 16;

/// Everything that both sides must agree on.
#[derive(Clone, Copy)]
pub(crate) struct Context<'a> {
    pub(crate) initiator: &'a Address,
    pub(crate) responder: &'a Address,
    pub(crate) ik_a: &'a IdentityPublic,
    pub(crate) ik_b: &'a IdentityPublic,
    pub(crate) ek_a: &'a EphemeralPublic,
    pub(crate) spk_b: (SignedPreKeyId, &'a SignedPreKeyPublic),
    pub(crate) opk_b: Option<(OneTimePreKeyId, &'a OneTimePreKeyPublic)>,
    pub(crate) app_ad: AppAd<'a>,
}

/// Data of the application that both sides must agree on and that is not sent.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct AppAd<'a>(&'a [u8]);

/// The application's data is over [`APP_AD_MAX_BYTES`](limits::APP_AD_MAX_BYTES).
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the associated data has {bytes} bytes, over the limit of {limit}",
    limit = limits::APP_AD_MAX_BYTES)]
pub struct AppAdTooLong {
    /// Length of the data in bytes.
    pub bytes: usize,
}

impl<'a> AppAd<'a> {
    /// Checks the length of `data`.
    ///
    /// # Errors
    ///
    /// [`AppAdTooLong`].
    pub fn new(data: &'a [u8]) -> Result<Self, AppAdTooLong> {
        if data.len() > limits::APP_AD_MAX_BYTES {
            return Err(AppAdTooLong { bytes: data.len() });
        }
        Ok(Self(data))
    }
}

impl fmt::Debug for AppAd<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AppAd(..)")
    }
}

impl Context<'_> {
    pub(crate) fn to_bytes(self) -> Vec<u8> {
        let writer = Writer::with_capacity(512)
            .lp(LABEL_CTX)
            .u16(SUITE)
            .lp(self.initiator.user())
            .u32(self.initiator.device().0)
            .lp(self.responder.user())
            .u32(self.responder.device().0)
            .lp(self.ik_a.as_bytes())
            .lp(self.ik_b.as_bytes())
            .lp(self.ek_a.as_bytes())
            .u32(self.spk_b.0.0)
            .lp(self.spk_b.1.as_bytes());
        let writer = match self.opk_b {
            Some((id, key)) => writer.u8(1).u32(id.0).lp(key.as_bytes()),
            None => writer.u8(0),
        };
        writer.u8(0).lp(self.app_ad.0).finish()
    }

    pub(crate) fn transcript(self) -> TranscriptHash {
        TranscriptHash(Sha256::digest(self.to_bytes()).into())
    }
}

/// `th`: names a handshake and everything both sides agreed on. Not secret.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct TranscriptHash([u8; 32]);

impl TranscriptHash {
    /// The bytes of the hash.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

/// Names a handshake by its public keys: a responder that has seen it before must not accept it
/// again. Not secret.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct DedupKey([u8; 32]);

impl DedupKey {
    pub(crate) fn new(
        ik_a: &IdentityPublic,
        ek_a: &EphemeralPublic,
        spk_b: &SignedPreKeyPublic,
        opk_b: Option<&OneTimePreKeyPublic>,
    ) -> Self {
        let hash = Sha256::new()
            .chain_update(LABEL_DEDUP)
            .chain_update(ik_a.as_bytes())
            .chain_update(ek_a.as_bytes())
            .chain_update(spk_b.as_bytes());
        let hash = match opk_b {
            Some(opk_b) => hash.chain_update(opk_b.as_bytes()),
            None => hash,
        };
        Self(hash.finalize().into())
    }

    /// The bytes to store.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The key of stored bytes.
    #[must_use]
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }
}

/// The input keying material, in one buffer that never grows and is erased.
pub(crate) struct Ikm {
    buffer: Zeroizing<[u8; IKM_BYTES]>,
    len: usize,
}

impl Ikm {
    /// F ‖ DH1 ‖ DH2 ‖ DH3 [‖ DH4]. The inputs are erased.
    #[expect(clippy::needless_pass_by_value, reason = "dropping the inputs erases them")]
    pub(crate) fn new(dh: [SharedSecret; 3], dh4: Option<SharedSecret>) -> Self {
        let mut ikm = Self { buffer: Zeroizing::new([0; IKM_BYTES]), len: 0 };
        ikm.push(&F);
        for secret in dh.iter().chain(&dh4) {
            ikm.push(secret.as_bytes());
        }
        ikm
    }

    fn push(&mut self, bytes: &[u8; 32]) {
        let end = self.len + bytes.len();
        self.buffer[self.len..end].copy_from_slice(bytes);
        self.len = end;
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.buffer[..self.len]
    }
}

/// SK: exists only between the DHs and [`expand`](Self::expand).
pub(crate) struct SharedKey(Zeroizing<[u8; 32]>);

impl SharedKey {
    #[expect(clippy::needless_pass_by_value, reason = "dropping the input erases it")]
    pub(crate) fn derive(ikm: Ikm, th: &TranscriptHash) -> Self {
        let mut sk = Zeroizing::new([0; 32]);
        let mut extract = HkdfExtract::<Sha256>::new(Some(&[0; 32]));
        extract.input_ikm(ikm.as_bytes());
        let (mut prk, hkdf) = extract.finalize();
        prk.as_mut_slice().zeroize();
        expand(&hkdf, &[LABEL_SK, &th.0], &mut *sk);
        Self(sk)
    }

    /// K_init ‖ RK ‖ CK0. SK is erased.
    pub(crate) fn expand(self, th: TranscriptHash) -> (InitialKey, SessionKeys) {
        let mut okm = Zeroizing::new([0; 96]);
        // HKDF-Extract is left out: SK is the PRK.
        #[expect(clippy::expect_used, reason = "SK is as long as a SHA-256 hash")]
        let hkdf = Hkdf::<Sha256>::from_prk(&*self.0).expect("a PRK of 32 bytes");
        expand(&hkdf, &[LABEL_KEYS, &th.0], &mut *okm);
        let part = |n: usize| {
            let mut key = Zeroizing::new([0; 32]);
            key.copy_from_slice(&okm[32 * n..32 * (n + 1)]);
            key
        };
        let session =
            SessionKeys { root: RootKey(part(1)), chain: ChainKey(part(2)), transcript: th };
        (InitialKey { key: part(0), th }, session)
    }

    #[cfg(any(test, feature = "conformance"))]
    pub(crate) fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

/// K_init: encrypts the payload of one initial message.
pub(crate) struct InitialKey {
    key: Zeroizing<[u8; 32]>,
    th: TranscriptHash,
}

/// The payload is not what the initiator sealed, or not in this context.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct AeadFailed;

impl InitialKey {
    /// Encrypts `payload`. The nonce is fixed, so the key is used up.
    pub(crate) fn seal(self, payload: &[u8]) -> Result<Vec<u8>, AeadFailed> {
        let cipher = ChaCha20Poly1305::new((&*self.key).into());
        let payload = Payload { msg: payload, aad: &self.th.0 };
        cipher.encrypt(&NONCE.into(), payload).map_err(|_| AeadFailed)
    }

    /// Decrypts what [`seal`](Self::seal) gave.
    pub(crate) fn open(self, ct: &[u8]) -> Result<Zeroizing<Vec<u8>>, AeadFailed> {
        let cipher = ChaCha20Poly1305::new((&*self.key).into());
        let mut buffer = Zeroizing::new(ct.to_vec());
        cipher.decrypt_in_place(&NONCE.into(), &self.th.0, &mut *buffer).map_err(|_| AeadFailed)?;
        Ok(buffer)
    }

    #[cfg(any(test, feature = "conformance"))]
    pub(crate) fn as_bytes(&self) -> &[u8; 32] {
        &self.key
    }
}

/// What a handshake leaves to the ratchet.
///
/// The initiator starts a Double Ratchet with `(RK1, CKs) = HKDF(salt = RK, DH(T_A, SPK_B), info,
/// 64)`; CK0 is the responder's chain under SPK_B.
pub struct SessionKeys {
    root: RootKey,
    chain: ChainKey,
    transcript: TranscriptHash,
}

impl SessionKeys {
    /// RK, the ratchet's root key.
    #[must_use]
    pub fn root(&self) -> &RootKey {
        &self.root
    }

    /// CK0, the responder's first sending chain.
    #[must_use]
    pub fn chain(&self) -> &ChainKey {
        &self.chain
    }

    /// `th`, the same on both sides: names the session.
    #[must_use]
    pub fn transcript(&self) -> &TranscriptHash {
        &self.transcript
    }

    /// The keys of a stored session.
    #[must_use]
    pub fn from_parts(
        root: Zeroizing<[u8; 32]>,
        chain: Zeroizing<[u8; 32]>,
        transcript: [u8; 32],
    ) -> Self {
        let transcript = TranscriptHash(transcript);
        Self { root: RootKey(root), chain: ChainKey(chain), transcript }
    }
}

// Both keys erase themselves.
impl ZeroizeOnDrop for SessionKeys {}

macro_rules! session_key {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        pub struct $name(Zeroizing<[u8; 32]>);

        impl $name {
            /// The key. A copy of it is the caller's to erase.
            #[must_use]
            pub fn as_bytes(&self) -> &[u8; 32] {
                &self.0
            }
        }

        impl ZeroizeOnDrop for $name {}
    };
}

session_key! {
    /// RK: root key of a Double Ratchet.
    RootKey
}
session_key! {
    /// CK0: a chain key.
    ChainKey
}

#[expect(clippy::expect_used, reason = "all outputs are far below 255 hashes long")]
fn expand(hkdf: &Hkdf<Sha256>, info: &[&[u8]], okm: &mut [u8]) {
    hkdf.expand_multi_info(info, okm).expect("an output of at most 255 hashes");
}
