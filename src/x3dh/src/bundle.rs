//! Bundles: what an initiator fetches, and what must hold before it is used.
//!
//! Guarantees: a [`VerifiedBundle`] has a signed prekey that its identity key signed for its owner
//! and that is still valid, a one-time prekey (if any) that was signed too, and an identity key
//! that meets the caller's [`Expectations`]. It is used for one handshake, by move.
//!
//! Leaves out: trust on first use. With no expectations, whoever answers is who the bundle says;
//! the caller pins what it saw and expects it the next time.

use oncekey_types::{OneTimePreKeyId, SignedPreKeyId, UnixSeconds};

use crate::{
    address::Address,
    device_list::VerifiedDeviceList,
    keys::{IdentityKind, IdentityPublic, SignatureInvalid, SignedPreKeyPublic},
    prekey::{OneTimePreKey, SignedPreKey},
};

/// A bundle of one device as fetched. Nothing in it has been verified.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Bundle {
    /// The device that was asked for; never taken from the answer.
    pub owner: Address,
    /// Its identity key (IK).
    pub identity: IdentityPublic,
    /// Its signed prekey (SPK).
    pub signed_prekey: SignedPreKey,
    /// A one-time prekey (OPK), if one was handed out.
    pub one_time_prekey: Option<OneTimePreKey>,
}

/// What the caller knows of a peer beforehand.
#[derive(Clone, Copy, Debug, Default)]
pub struct Expectations<'a> {
    /// The identity key that was pinned for the device.
    pub identity: Option<&'a IdentityPublic>,
    /// The user's device list, verified under the pinned account key.
    pub devices: Option<&'a VerifiedDeviceList>,
}

/// An identity key is not the one expected.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IdentityError {
    /// The suite takes Ed25519 identities only.
    #[error("suite 0x0001 takes no identity key of kind {kind:?}")]
    Kind {
        /// The kind that was offered.
        kind: IdentityKind,
    },
    /// Another key was pinned.
    #[error("the identity key is not the pinned one")]
    Changed,
    /// The signed device list does not bind this key to this device.
    #[error("the identity key is not in the signed device list")]
    NotListed,
}

/// Why a bundle was refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BundleError {
    /// The signature on the signed prekey.
    #[error("the signature on the signed prekey is invalid")]
    SignedPreKeySignature,
    /// The signature on the one-time prekey.
    #[error("the signature on the one-time prekey is invalid")]
    OneTimePreKeySignature,
    /// The signed prekey is past its time.
    #[error("the signed prekey expired at {expires}")]
    Expired {
        /// When it stopped being valid.
        expires: UnixSeconds,
    },
    /// The identity key.
    #[error(transparent)]
    Identity(#[from] IdentityError),
}

impl Bundle {
    /// Verifies the bundle at the time `now`.
    ///
    /// # Errors
    ///
    /// The [`BundleError`] of the first check that fails.
    pub fn verify(
        self,
        now: UnixSeconds,
        expectations: &Expectations<'_>,
    ) -> Result<VerifiedBundle, BundleError> {
        expectations.check(&self.owner, &self.identity)?;
        self.signed_prekey
            .verify(&self.identity, &self.owner)
            .map_err(|SignatureInvalid| BundleError::SignedPreKeySignature)?;
        if let Some(opk) = &self.one_time_prekey {
            opk.verify(&self.identity, &self.owner)
                .map_err(|SignatureInvalid| BundleError::OneTimePreKeySignature)?;
        }
        let expires = self.signed_prekey.expires;
        if expires <= now {
            return Err(BundleError::Expired { expires });
        }
        Ok(VerifiedBundle(self))
    }
}

impl Expectations<'_> {
    /// Checks the identity key that a peer shows.
    ///
    /// # Errors
    ///
    /// The [`IdentityError`] of the first check that fails.
    pub fn check(&self, peer: &Address, identity: &IdentityPublic) -> Result<(), IdentityError> {
        match identity.kind() {
            IdentityKind::Ed25519 => {}
            kind @ IdentityKind::Curve25519 => return Err(IdentityError::Kind { kind }),
        }
        if self.identity.is_some_and(|pinned| pinned != identity) {
            return Err(IdentityError::Changed);
        }
        if self.devices.is_some_and(|devices| !devices.lists(peer, identity)) {
            return Err(IdentityError::NotListed);
        }
        Ok(())
    }
}

/// A bundle that passed every check of [`Bundle::verify`].
///
/// Used up by [`initiate`](Self::initiate). Not `Clone`: a bundle with a one-time prekey serves
/// one handshake.
#[derive(Debug)]
pub struct VerifiedBundle(pub(crate) Bundle);

impl VerifiedBundle {
    /// The device the bundle belongs to.
    #[must_use]
    pub fn owner(&self) -> &Address {
        &self.0.owner
    }

    /// Its identity key.
    #[must_use]
    pub fn identity(&self) -> &IdentityPublic {
        &self.0.identity
    }

    /// Id of its signed prekey.
    #[must_use]
    pub fn signed_prekey_id(&self) -> SignedPreKeyId {
        self.0.signed_prekey.id
    }

    /// Its signed prekey.
    #[must_use]
    pub fn signed_prekey(&self) -> &SignedPreKeyPublic {
        &self.0.signed_prekey.key
    }

    /// Id of its one-time prekey, if it has one.
    #[must_use]
    pub fn one_time_prekey_id(&self) -> Option<OneTimePreKeyId> {
        self.0.one_time_prekey.as_ref().map(|opk| opk.id)
    }

    /// Whether the bundle has a one-time prekey.
    #[must_use]
    pub fn has_one_time_prekey(&self) -> bool {
        self.0.one_time_prekey.is_some()
    }
}
