//! Public keys and signatures; see the [parent module](super) for what is checked.

use core::fmt;

use curve25519_dalek::{
    edwards::{CompressedEdwardsY, EdwardsPoint},
    montgomery::MontgomeryPoint,
};
use ed25519_dalek::VerifyingKey;

/// Length of a public key in bytes.
pub(crate) const KEY_BYTES: usize = 32;

/// Why the bytes of a public or secret key were refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// Not 32 bytes.
    #[error("the key has {bytes} bytes and not 32")]
    Length {
        /// Length of what was given.
        bytes: usize,
    },
    /// The tag of the key's form is not known, or its form is not built in.
    #[error("keys of kind {kind} are not supported")]
    Kind {
        /// The tag.
        kind: u8,
    },
    /// No point of the curve has this encoding.
    #[error("the key is not a point of the curve")]
    NotOnCurve,
    /// The point has another, shorter encoding.
    #[error("the key is not canonically encoded")]
    NotCanonical,
    /// The point has a small order: a Diffie-Hellman with it gives a known result.
    #[error("the key has low order")]
    LowOrder,
    /// The point has a torsion component: seven other keys would agree on the same secrets.
    #[error("the key has a torsion component")]
    Torsion,
}

/// A signature does not fit its message and key.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the signature is invalid")]
pub struct SignatureInvalid;

/// An Ed25519 or XEdDSA signature. Nothing is known of it until it is verified.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Signature([u8; 64]);

impl Signature {
    /// Wraps the bytes of a signature.
    #[must_use]
    pub fn from_bytes(bytes: [u8; 64]) -> Self {
        Self(bytes)
    }

    /// The bytes of the signature.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 64] {
        &self.0
    }

    pub(crate) fn verify(
        &self,
        key: &VerifyingKey,
        message: &[u8],
    ) -> Result<(), SignatureInvalid> {
        let signature = ed25519_dalek::Signature::from_bytes(&self.0);
        key.verify_strict(message, &signature).map_err(|_| SignatureInvalid)
    }
}

impl fmt::Debug for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Signature(..)")
    }
}

/// Form of an identity key. The numbers are stable, never reuse.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(u8)]
pub enum IdentityKind {
    /// An Ed25519 key.
    Ed25519 = 1,
    /// A Curve25519 key that signs with XEdDSA. Only with the feature `interop`.
    Curve25519 = 2,
}

impl IdentityKind {
    /// The tag that stands for the kind.
    #[must_use]
    pub fn tag(self) -> u8 {
        match self {
            Self::Ed25519 => 1,
            Self::Curve25519 => 2,
        }
    }

    /// The kind that `tag` stands for.
    ///
    /// # Errors
    ///
    /// [`KeyError::Kind`], also for a kind that this build leaves out.
    pub fn from_tag(tag: u8) -> Result<Self, KeyError> {
        match tag {
            1 => Ok(Self::Ed25519),
            2 if cfg!(feature = "interop") => Ok(Self::Curve25519),
            kind => Err(KeyError::Kind { kind }),
        }
    }
}

/// A device's identity key (IK): verifies signatures and takes part in Diffie-Hellman.
#[derive(Clone, Copy)]
pub struct IdentityPublic {
    kind: IdentityKind,
    bytes: [u8; KEY_BYTES],
    verifying: VerifyingKey,
    dh: DhPublic,
}

impl IdentityPublic {
    /// Checks an identity key in the form that `kind` names.
    ///
    /// # Errors
    ///
    /// The [`KeyError`] of the first check that fails.
    pub fn from_parts(kind: IdentityKind, key: &[u8]) -> Result<Self, KeyError> {
        let bytes = key_bytes(key)?;
        let (verifying, dh) = match kind {
            IdentityKind::Ed25519 => {
                let point = edwards_point(bytes)?;
                (VerifyingKey::from(point), DhPublic(point.to_montgomery()))
            }
            IdentityKind::Curve25519 => {
                IdentityKind::from_tag(kind.tag())?;
                let dh = DhPublic::from_bytes(bytes)?;
                let point = dh.0.to_edwards(0).ok_or(KeyError::NotOnCurve)?;
                check_order(&point)?;
                (VerifyingKey::from(point), dh)
            }
        };
        Ok(Self { kind, bytes, verifying, dh })
    }

    /// Checks an Ed25519 identity key.
    ///
    /// # Errors
    ///
    /// As [`from_parts`](Self::from_parts).
    pub fn from_ed25519(key: &[u8]) -> Result<Self, KeyError> {
        Self::from_parts(IdentityKind::Ed25519, key)
    }

    /// Checks the 33 bytes of [`to_tagged_bytes`](Self::to_tagged_bytes).
    ///
    /// # Errors
    ///
    /// As [`from_parts`](Self::from_parts).
    pub fn from_tagged_bytes(bytes: &[u8]) -> Result<Self, KeyError> {
        let (tag, key) = bytes.split_first().ok_or(KeyError::Length { bytes: 0 })?;
        Self::from_parts(IdentityKind::from_tag(*tag)?, key)
    }

    /// The tag of the form, then the key.
    #[must_use]
    pub fn to_tagged_bytes(&self) -> [u8; 33] {
        let mut tagged = [self.kind.tag(); 33];
        tagged[1..].copy_from_slice(&self.bytes);
        tagged
    }

    /// The form of the key.
    #[must_use]
    pub fn kind(&self) -> IdentityKind {
        self.kind
    }

    /// The key as it is transmitted, without the tag of its form.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; KEY_BYTES] {
        &self.bytes
    }

    pub(crate) fn verify(
        &self,
        message: &[u8],
        signature: &Signature,
    ) -> Result<(), SignatureInvalid> {
        signature.verify(&self.verifying, message)
    }

    pub(crate) fn dh(&self) -> &DhPublic {
        &self.dh
    }

    pub(super) fn of_ed25519(key: &ed25519_dalek::SigningKey) -> Self {
        let verifying = key.verifying_key();
        let dh = DhPublic(verifying.to_montgomery());
        Self { kind: IdentityKind::Ed25519, bytes: verifying.to_bytes(), verifying, dh }
    }
}

impl PartialEq for IdentityPublic {
    fn eq(&self, other: &Self) -> bool {
        (self.kind, self.bytes) == (other.kind, other.bytes)
    }
}

impl Eq for IdentityPublic {}

impl fmt::Debug for IdentityPublic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IdentityPublic").field("kind", &self.kind).finish_non_exhaustive()
    }
}

macro_rules! ed25519_public {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq)]
        pub struct $name(VerifyingKey);

        impl $name {
            /// Checks the bytes of an Ed25519 key.
            ///
            /// # Errors
            ///
            /// The [`KeyError`] of the first check that fails.
            pub fn from_bytes(key: &[u8]) -> Result<Self, KeyError> {
                Ok(Self(VerifyingKey::from(edwards_point(key_bytes(key)?)?)))
            }

            /// The key as it is transmitted.
            #[must_use]
            pub fn as_bytes(&self) -> &[u8; KEY_BYTES] {
                self.0.as_bytes()
            }

            pub(super) fn of(key: &ed25519_dalek::SigningKey) -> Self {
                Self(key.verifying_key())
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(concat!(stringify!($name), "(..)"))
            }
        }
    };
}

ed25519_public! {
    /// A device's authentication key (AK): verifies its requests and nothing else.
    AuthenticationPublic
}
ed25519_public! {
    /// A user's account key (UK): verifies the user's device lists and nothing else.
    AccountPublic
}

impl AuthenticationPublic {
    /// Verifies a signature over the signature base of a request.
    ///
    /// # Errors
    ///
    /// [`SignatureInvalid`].
    pub fn verify(&self, message: &[u8], signature: &Signature) -> Result<(), SignatureInvalid> {
        signature.verify(&self.0, message)
    }
}

impl AccountPublic {
    pub(crate) fn verify(
        &self,
        message: &[u8],
        signature: &Signature,
    ) -> Result<(), SignatureInvalid> {
        signature.verify(&self.0, message)
    }
}

/// An X25519 public key that has passed its checks; the typed keys wrap it.
#[derive(Clone, Copy)]
pub(crate) struct DhPublic(MontgomeryPoint);

impl DhPublic {
    pub(crate) fn from_bytes(bytes: [u8; KEY_BYTES]) -> Result<Self, KeyError> {
        if !is_below_p(&bytes) {
            return Err(KeyError::NotCanonical);
        }
        if LOW_ORDER.contains(&bytes) {
            return Err(KeyError::LowOrder);
        }
        Ok(Self(MontgomeryPoint(bytes)))
    }

    pub(crate) fn as_bytes(&self) -> &[u8; KEY_BYTES] {
        self.0.as_bytes()
    }

    pub(super) fn to_dalek(self) -> x25519_dalek::PublicKey {
        x25519_dalek::PublicKey::from(self.0.to_bytes())
    }

    pub(super) fn from_dalek(key: x25519_dalek::PublicKey) -> Self {
        Self(MontgomeryPoint(key.to_bytes()))
    }
}

macro_rules! x25519_public {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy)]
        pub struct $name(DhPublic);

        impl $name {
            /// Checks the bytes of an X25519 key.
            ///
            /// # Errors
            ///
            /// The [`KeyError`] of the first check that fails.
            pub fn from_bytes(key: &[u8]) -> Result<Self, KeyError> {
                DhPublic::from_bytes(key_bytes(key)?).map(Self)
            }

            /// The key as it is transmitted.
            #[must_use]
            pub fn as_bytes(&self) -> &[u8; KEY_BYTES] {
                self.0.as_bytes()
            }

            pub(crate) fn dh(&self) -> &DhPublic {
                &self.0
            }

            pub(super) fn of(key: x25519_dalek::PublicKey) -> Self {
                Self(DhPublic::from_dalek(key))
            }
        }

        impl PartialEq for $name {
            fn eq(&self, other: &Self) -> bool {
                self.as_bytes() == other.as_bytes()
            }
        }

        impl Eq for $name {}

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(concat!(stringify!($name), "(..)"))
            }
        }
    };
}

x25519_public! {
    /// A signed prekey (SPK).
    SignedPreKeyPublic
}
x25519_public! {
    /// A one-time prekey (OPK).
    OneTimePreKeyPublic
}
x25519_public! {
    /// An initiator's ephemeral key (EK).
    EphemeralPublic
}

fn key_bytes(bytes: &[u8]) -> Result<[u8; KEY_BYTES], KeyError> {
    bytes.try_into().map_err(|_| KeyError::Length { bytes: bytes.len() })
}

fn edwards_point(bytes: [u8; KEY_BYTES]) -> Result<EdwardsPoint, KeyError> {
    let compressed = CompressedEdwardsY(bytes);
    let point = compressed.decompress().ok_or(KeyError::NotOnCurve)?;
    if point.compress() != compressed {
        return Err(KeyError::NotCanonical);
    }
    check_order(&point)?;
    Ok(point)
}

fn check_order(point: &EdwardsPoint) -> Result<(), KeyError> {
    if point.is_small_order() {
        return Err(KeyError::LowOrder);
    }
    if !point.is_torsion_free() {
        return Err(KeyError::Torsion);
    }
    Ok(())
}

/// u < p = 2^255 − 19, which implies that bit 255 is clear. The bytes are little-endian.
fn is_below_p(bytes: &[u8; KEY_BYTES]) -> bool {
    let mut p = [0xff; KEY_BYTES];
    p[0] = 0xed;
    p[31] = 0x7f;
    bytes.iter().rev().lt(p.iter().rev())
}

/// The canonical u-coordinates of low order on the curve and its twist: 0, 1, the two of order
/// eight, and p − 1.
const LOW_ORDER: [[u8; KEY_BYTES]; 5] = [
    [0; KEY_BYTES],
    [
        1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
        0, 0,
    ],
    [
        0xe0, 0xeb, 0x7a, 0x7c, 0x3b, 0x41, 0xb8, 0xae, 0x16, 0x56, 0xe3, 0xfa, 0xf1, 0x9f, 0xc4,
        0x6a, 0xda, 0x09, 0x8d, 0xeb, 0x9c, 0x32, 0xb1, 0xfd, 0x86, 0x62, 0x05, 0x16, 0x5f, 0x49,
        0xb8, 0x00,
    ],
    [
        0x5f, 0x9c, 0x95, 0xbc, 0xa3, 0x50, 0x8c, 0x24, 0xb1, 0xd0, 0xb1, 0x55, 0x9c, 0x83, 0xef,
        0x5b, 0x04, 0x44, 0x5c, 0xc4, 0x58, 0x1c, 0x8e, 0x86, 0xd8, 0x22, 0x4e, 0xdd, 0xd0, 0x9f,
        0x11, 0x57,
    ],
    [
        0xec, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
        0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
        0xff, 0x7f,
    ],
];

#[cfg(test)]
mod tests;
