//! Between the keys of the handshake and their form on the wire.
//!
//! Guarantees: what comes out of a reply has passed every check of lengths and points. Leaves out:
//! signatures; the result is a [`Bundle`] that is yet to be verified.

use oncekey_api::{
    Base64,
    bundle::{Bundle as WireBundle, OneTimePreKeyStatus},
    key::{
        IdentityKey, IdentityKind as WireKind, OneTimePreKey as WireOneTimePreKey,
        SignedPreKey as WireSignedPreKey,
    },
};
use oncekey_types::UserId;
use oncekey_x3dh::{
    Address, Bundle,
    keys::{
        IdentityKind, IdentityPublic, KeyError, OneTimePreKeyPublic, Signature, SignedPreKeyPublic,
    },
    prekey::{OneTimePreKey, SignedPreKey},
};

/// Why a bundle on the wire is not a bundle.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BundleMalformed {
    /// A key.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// A signature has the wrong length.
    #[error("a signature has the wrong length")]
    SignatureLength,
    /// A one-time prekey is there and its status says otherwise, or the other way round.
    #[error("the one-time prekey contradicts its status")]
    Status,
}

pub(crate) fn identity(key: &IdentityPublic) -> IdentityKey {
    IdentityKey {
        kind: match key.kind() {
            IdentityKind::Ed25519 => WireKind::Ed25519,
            IdentityKind::Curve25519 => WireKind::Curve25519,
        },
        key: (*key.as_bytes()).into(),
    }
}

pub(crate) fn signed_prekey(spk: &SignedPreKey) -> WireSignedPreKey {
    WireSignedPreKey {
        id: spk.id,
        key: (*spk.key.as_bytes()).into(),
        created: spk.created,
        expires: spk.expires,
        signature: (*spk.signature.as_bytes()).into(),
    }
}

pub(crate) fn one_time_prekey(opk: &OneTimePreKey) -> WireOneTimePreKey {
    WireOneTimePreKey {
        id: opk.id,
        key: (*opk.key.as_bytes()).into(),
        signature: (*opk.signature.as_bytes()).into(),
    }
}

pub(crate) fn signature(bytes: &Base64) -> Option<Signature> {
    bytes.to_array().map(Signature::from_bytes)
}

/// Parses the bundle of a device of `user`.
pub(crate) fn bundle(user: &UserId, wire: &WireBundle) -> Result<Bundle, BundleMalformed> {
    let issued = wire.one_time_prekey_status == OneTimePreKeyStatus::Issued;
    if issued != wire.one_time_prekey.is_some() {
        return Err(BundleMalformed::Status);
    }
    let kind = match wire.identity_key.kind {
        WireKind::Ed25519 => IdentityKind::Ed25519,
        WireKind::Curve25519 => IdentityKind::Curve25519,
    };
    let spk = &wire.signed_prekey;
    let one_time_prekey = match &wire.one_time_prekey {
        Some(opk) => Some(OneTimePreKey {
            id: opk.id,
            key: OneTimePreKeyPublic::from_bytes(&opk.key.0)?,
            signature: signature(&opk.signature).ok_or(BundleMalformed::SignatureLength)?,
        }),
        None => None,
    };
    Ok(Bundle {
        owner: Address::new(user, wire.device),
        identity: IdentityPublic::from_parts(kind, &wire.identity_key.key.0)?,
        signed_prekey: SignedPreKey {
            id: spk.id,
            key: SignedPreKeyPublic::from_bytes(&spk.key.0)?,
            created: spk.created,
            expires: spk.expires,
            signature: signature(&spk.signature).ok_or(BundleMalformed::SignatureLength)?,
        },
        one_time_prekey,
    })
}
