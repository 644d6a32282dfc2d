//! What an identity key signs: prekeys and the authentication key.
//!
//! ```text
//! SPK: lp("Oncekey v1 SPK") ‖ lp(user) ‖ u32 device ‖ lp(IK) ‖ u32 id ‖ u64 created ‖ u64 expires ‖ lp(pub)
//! OPK: lp("Oncekey v1 OPK") ‖ lp(user) ‖ u32 device ‖ lp(IK) ‖ u32 id ‖ lp(pub)
//! AK:  lp("Oncekey v1 AK")  ‖ lp(user) ‖ u32 device ‖ lp(IK) ‖ lp(AK)
//! ```
//!
//! Guarantees: a signature binds its key to one owner, one identity, one id and one use; a key of
//! one [`PreKeyKind`] can never pass for another. A signed prekey carries the time at which it
//! stops being valid, so that a server cannot hand out an old one for ever. One-time prekeys are
//! signed too: otherwise a server could plant its own and, after a later leak of IK and SPK,
//! recover the secret.
//!
//! Leaves out: KEM prekeys. Their labels are reserved here and their keys fit the encoding.

use alloc::vec::Vec;

use oncekey_types::{OneTimePreKeyId, SignedPreKeyId, UnixSeconds, limits};
use rand_core::CryptoRng;

use crate::{
    address::Address,
    encode::Writer,
    keys::{
        AuthenticationPublic, IdentityKeyPair, IdentityPublic, OneTimePreKeyPair,
        OneTimePreKeyPublic, Signature, SignatureInvalid, SignedPreKeyPair, SignedPreKeyPublic,
    },
};

/// What a prekey is for. The labels are stable, never reuse.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[non_exhaustive]
pub enum PreKeyKind {
    /// A signed prekey.
    Spk,
    /// A one-time prekey.
    Opk,
    /// A last-resort KEM prekey, never used up. Reserved.
    KemLastResort,
    /// A one-time KEM prekey. Reserved.
    KemOneTime,
}

impl PreKeyKind {
    /// The label that opens a signed message about a key of this kind.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Spk => "Oncekey v1 SPK",
            Self::Opk => "Oncekey v1 OPK",
            Self::KemLastResort => "Oncekey v1 KEM last resort",
            Self::KemOneTime => "Oncekey v1 KEM one-time",
        }
    }
}

const LABEL_AK: &str = "Oncekey v1 AK";

/// A signed prekey as published.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SignedPreKey {
    /// Its id.
    pub id: SignedPreKeyId,
    /// The key (SPK).
    pub key: SignedPreKeyPublic,
    /// When the device made it.
    pub created: UnixSeconds,
    /// When it stops being valid.
    pub expires: UnixSeconds,
    /// By the identity key.
    pub signature: Signature,
}

impl SignedPreKey {
    /// Verifies that `identity` signed this key for `owner`. Says nothing about its times.
    ///
    /// # Errors
    ///
    /// [`SignatureInvalid`].
    pub fn verify(
        &self,
        identity: &IdentityPublic,
        owner: &Address,
    ) -> Result<(), SignatureInvalid> {
        let message = spk_message(identity, owner, self.id, self.created, self.expires, &self.key);
        identity.verify(&message, &self.signature)
    }
}

/// A one-time prekey as published.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct OneTimePreKey {
    /// Its id.
    pub id: OneTimePreKeyId,
    /// The key (OPK).
    pub key: OneTimePreKeyPublic,
    /// By the identity key.
    pub signature: Signature,
}

impl OneTimePreKey {
    /// Verifies that `identity` signed this key for `owner`.
    ///
    /// # Errors
    ///
    /// [`SignatureInvalid`].
    pub fn verify(
        &self,
        identity: &IdentityPublic,
        owner: &Address,
    ) -> Result<(), SignatureInvalid> {
        identity.verify(&opk_message(identity, owner, self.id, &self.key), &self.signature)
    }
}

impl SignedPreKeyPair {
    /// The record to publish, valid from `created` until `expires`.
    pub fn sign<R: CryptoRng + ?Sized>(
        &self,
        identity: &IdentityKeyPair,
        owner: &Address,
        created: UnixSeconds,
        expires: UnixSeconds,
        rng: &mut R,
    ) -> SignedPreKey {
        let (id, key) = (self.id(), *self.public());
        let message = spk_message(identity.public(), owner, id, created, expires, &key);
        SignedPreKey { id, key, created, expires, signature: identity.sign(&message, rng) }
    }
}

impl OneTimePreKeyPair {
    /// The record to publish.
    pub fn sign<R: CryptoRng + ?Sized>(
        &self,
        identity: &IdentityKeyPair,
        owner: &Address,
        rng: &mut R,
    ) -> OneTimePreKey {
        let (id, key) = (self.id(), *self.public());
        let message = opk_message(identity.public(), owner, id, &key);
        OneTimePreKey { id, key, signature: identity.sign(&message, rng) }
    }
}

impl IdentityKeyPair {
    /// Binds an authentication key to this identity and its owner.
    pub fn sign_authentication_key<R: CryptoRng + ?Sized>(
        &self,
        owner: &Address,
        key: &AuthenticationPublic,
        rng: &mut R,
    ) -> Signature {
        self.sign(&ak_message(self.public(), owner, key), rng)
    }
}

impl IdentityPublic {
    /// Verifies what [`IdentityKeyPair::sign_authentication_key`] signed.
    ///
    /// # Errors
    ///
    /// [`SignatureInvalid`].
    pub fn verify_authentication_key(
        &self,
        owner: &Address,
        key: &AuthenticationPublic,
        signature: &Signature,
    ) -> Result<(), SignatureInvalid> {
        self.verify(&ak_message(self, owner, key), signature)
    }
}

fn labelled(label: &str, identity: &IdentityPublic, owner: &Address) -> Writer {
    Writer::with_capacity(limits::USER_ID_MAX_BYTES + 160)
        .lp(label.as_bytes())
        .lp(owner.user())
        .u32(owner.device().0)
        .lp(identity.as_bytes())
}

fn spk_message(
    identity: &IdentityPublic,
    owner: &Address,
    id: SignedPreKeyId,
    created: UnixSeconds,
    expires: UnixSeconds,
    key: &SignedPreKeyPublic,
) -> Vec<u8> {
    labelled(PreKeyKind::Spk.label(), identity, owner)
        .u32(id.0)
        .u64(created.0)
        .u64(expires.0)
        .lp(key.as_bytes())
        .finish()
}

fn opk_message(
    identity: &IdentityPublic,
    owner: &Address,
    id: OneTimePreKeyId,
    key: &OneTimePreKeyPublic,
) -> Vec<u8> {
    labelled(PreKeyKind::Opk.label(), identity, owner).u32(id.0).lp(key.as_bytes()).finish()
}

fn ak_message(identity: &IdentityPublic, owner: &Address, key: &AuthenticationPublic) -> Vec<u8> {
    labelled(LABEL_AK, identity, owner).lp(key.as_bytes()).finish()
}
