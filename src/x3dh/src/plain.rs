//! The plain profile: X3DH as Signal specified it, with nothing of ours added.
//!
//! ```text
//! SK = HKDF(hash, salt = zeros of hash size, F ‖ DH1 ‖ DH2 ‖ DH3 [‖ DH4], info, 32)
//! AD = Encode(IK_A) ‖ Encode(IK_B) ‖ appendix
//! ```
//!
//! `Encode` is the key as transmitted, or `0x05` and the key. The signature covers `Encode(SPK)`
//! and nothing else, one-time prekeys are not signed, and a header names keys and not ids. OMEMO 2
//! is [`Profile::OMEMO_2`] with Ed25519 identities.
//!
//! Guarantees: agrees with the Python package X3DH, in both forms of identity keys (Curve25519
//! only with the feature `interop`), on every key that passes our point checks.
//!
//! Leaves out: everything that the native profile adds, above all expiry, signed one-time prekeys
//! and the binding to names. For peers that speak this and nothing better.

use alloc::vec::Vec;

use hkdf::HkdfExtract;
use rand_core::CryptoRng;
use sha2::{Sha256, Sha512};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::{
    keys::{
        EphemeralKey, EphemeralPublic, IdentityKeyPair, IdentityPublic, NonContributory,
        OneTimePreKeyPair, OneTimePreKeyPublic, Signature, SignatureInvalid, SignedPreKeyPair,
        SignedPreKeyPublic,
    },
    schedule::Ikm,
};

/// The hash of the key derivation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum HashFunction {
    /// SHA-256.
    Sha256,
    /// SHA-512.
    Sha512,
}

/// How a public key is written in signatures and associated data.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum KeyEncoding {
    /// The 32 bytes of the key.
    Raw,
    /// The byte `0x05`, then the key.
    Djb05,
}

impl KeyEncoding {
    fn write(self, key: &[u8; 32], out: &mut Vec<u8>) {
        match self {
            Self::Raw => {}
            Self::Djb05 => out.push(0x05),
        }
        out.extend_from_slice(key);
    }
}

/// What both sides have agreed on beforehand.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Profile<'a> {
    /// The hash.
    pub hash: HashFunction,
    /// The encoding of keys.
    pub encoding: KeyEncoding,
    /// Names the application.
    pub info: &'a [u8],
}

/// A bundle as fetched, with at most one of its one-time prekeys.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Bundle {
    /// IK_B.
    pub identity: IdentityPublic,
    /// SPK_B.
    pub signed_prekey: SignedPreKeyPublic,
    /// Signature by IK_B over the encoded SPK_B.
    pub signature: Signature,
    /// OPK_B, if there is one.
    pub one_time_prekey: Option<OneTimePreKeyPublic>,
}

/// What the responder needs to agree on the same secret.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Header {
    /// IK_A.
    pub identity: IdentityPublic,
    /// EK_A.
    pub ephemeral: EphemeralPublic,
    /// SPK_B.
    pub signed_prekey: SignedPreKeyPublic,
    /// OPK_B, if one was used.
    pub one_time_prekey: Option<OneTimePreKeyPublic>,
}

/// The result of a handshake.
pub struct Agreed {
    sk: Zeroizing<[u8; 32]>,
    ad: Vec<u8>,
}

impl Agreed {
    /// SK, the shared secret.
    #[must_use]
    pub fn sk(&self) -> &[u8; 32] {
        &self.sk
    }

    /// AD, to be authenticated by what follows.
    #[must_use]
    pub fn ad(&self) -> &[u8] {
        &self.ad
    }
}

impl ZeroizeOnDrop for Agreed {}

/// Why there is no shared secret.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The signature on the signed prekey.
    #[error(transparent)]
    Signature(#[from] SignatureInvalid),
    /// The prekey pairs given are not those that the header names.
    #[error("the prekey pairs are not those that the header names")]
    WrongPreKeys,
    /// A key gives a known secret.
    #[error(transparent)]
    NonContributory(#[from] NonContributory),
}

impl Profile<'static> {
    /// OMEMO 2 (XEP-0384).
    pub const OMEMO_2: Self =
        Self { hash: HashFunction::Sha256, encoding: KeyEncoding::Raw, info: b"OMEMO X3DH" };
}

impl Profile<'_> {
    /// Signs a prekey for a bundle. The ids of prekey pairs play no part in this profile.
    pub fn sign<R: CryptoRng + ?Sized>(
        &self,
        identity: &IdentityKeyPair,
        spk: &SignedPreKeyPublic,
        rng: &mut R,
    ) -> Signature {
        identity.sign(&self.encoded(spk), rng)
    }

    /// Alice's side. `appendix` ends the associated data.
    ///
    /// # Errors
    ///
    /// [`Error::Signature`] or [`Error::NonContributory`].
    pub fn initiate<R: CryptoRng + ?Sized>(
        &self,
        ik_a: &IdentityKeyPair,
        bundle: &Bundle,
        appendix: &[u8],
        rng: &mut R,
    ) -> Result<(Agreed, Header), Error> {
        let Bundle { identity: ik_b, signed_prekey: spk_b, signature, one_time_prekey: opk_b } =
            bundle;
        ik_b.verify(&self.encoded(spk_b), signature)?;
        let ek_a = EphemeralKey::generate(rng);
        let dh = [
            ik_a.diffie_hellman(spk_b.dh())?,
            ek_a.diffie_hellman(ik_b.dh())?,
            ek_a.diffie_hellman(spk_b.dh())?,
        ];
        let dh4 = match opk_b {
            Some(opk_b) => Some(ek_a.diffie_hellman(opk_b.dh())?),
            None => None,
        };
        let agreed = self.agreed(Ikm::new(dh, dh4), [ik_a.public(), ik_b], appendix);
        let header = Header {
            identity: *ik_a.public(),
            ephemeral: *ek_a.public(),
            signed_prekey: *spk_b,
            one_time_prekey: *opk_b,
        };
        Ok((agreed, header))
    }

    /// Bob's side, with the prekey pairs that the header names.
    ///
    /// # Errors
    ///
    /// [`Error::WrongPreKeys`] or [`Error::NonContributory`]. Nothing authenticates the header, so
    /// the one-time prekey must be kept until a message under SK has been opened.
    pub fn respond(
        &self,
        ik_b: &IdentityKeyPair,
        spk_b: &SignedPreKeyPair,
        opk_b: Option<&OneTimePreKeyPair>,
        header: &Header,
        appendix: &[u8],
    ) -> Result<Agreed, Error> {
        if header.signed_prekey != *spk_b.public()
            || header.one_time_prekey.as_ref() != opk_b.map(OneTimePreKeyPair::public)
        {
            return Err(Error::WrongPreKeys);
        }
        let ek_a = header.ephemeral.dh();
        let dh = [
            spk_b.diffie_hellman(header.identity.dh())?,
            ik_b.diffie_hellman(ek_a)?,
            spk_b.diffie_hellman(ek_a)?,
        ];
        let dh4 = match opk_b {
            Some(opk_b) => Some(opk_b.diffie_hellman(ek_a)?),
            None => None,
        };
        Ok(self.agreed(Ikm::new(dh, dh4), [&header.identity, ik_b.public()], appendix))
    }

    fn encoded(&self, spk: &SignedPreKeyPublic) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(33);
        self.encoding.write(spk.as_bytes(), &mut bytes);
        bytes
    }

    #[expect(clippy::needless_pass_by_value, reason = "dropping the input erases it")]
    fn agreed(&self, ikm: Ikm, identities: [&IdentityPublic; 2], appendix: &[u8]) -> Agreed {
        let mut ad = Vec::with_capacity(66 + appendix.len());
        for identity in identities {
            self.encoding.write(identity.as_bytes(), &mut ad);
        }
        ad.extend_from_slice(appendix);
        Agreed { sk: self.derive(&ikm), ad }
    }

    #[expect(clippy::expect_used, reason = "the output is shorter than one hash")]
    fn derive(&self, ikm: &Ikm) -> Zeroizing<[u8; 32]> {
        let mut sk = Zeroizing::new([0; 32]);
        let expanded = match self.hash {
            HashFunction::Sha256 => {
                let mut extract = HkdfExtract::<Sha256>::new(Some(&[0; 32]));
                extract.input_ikm(ikm.as_bytes());
                let (mut prk, hkdf) = extract.finalize();
                prk.as_mut_slice().zeroize();
                hkdf.expand(self.info, &mut *sk)
            }
            HashFunction::Sha512 => {
                let mut extract = HkdfExtract::<Sha512>::new(Some(&[0; 64]));
                extract.input_ikm(ikm.as_bytes());
                let (mut prk, hkdf) = extract.finalize();
                prk.as_mut_slice().zeroize();
                hkdf.expand(self.info, &mut *sk)
            }
        };
        expanded.expect("an output of one hash at most");
        sk
    }
}
