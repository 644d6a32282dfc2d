//! Secret keys; see the [parent module](super) for what is promised of them.

use ed25519_dalek::{Signer, SigningKey};
use oncekey_types::{OneTimePreKeyId, SignedPreKeyId};
use rand_core::CryptoRng;
use x25519_dalek::{ReusableSecret, StaticSecret};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use super::public::{
    AccountPublic, AuthenticationPublic, DhPublic, EphemeralPublic, IdentityPublic,
    OneTimePreKeyPublic, Signature, SignedPreKeyPublic,
};
#[cfg(feature = "interop")]
use super::{
    public::{IdentityKind, KeyError},
    xeddsa,
};

/// A Diffie-Hellman gave a result that does not depend on both keys.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the key agreement was not contributory")]
pub struct NonContributory;

/// The result of one Diffie-Hellman.
pub(crate) struct SharedSecret(x25519_dalek::SharedSecret);

impl SharedSecret {
    fn new(secret: x25519_dalek::SharedSecret) -> Result<Self, NonContributory> {
        if secret.was_contributory() { Ok(Self(secret)) } else { Err(NonContributory) }
    }

    pub(crate) fn as_bytes(&self) -> &[u8; 32] {
        self.0.as_bytes()
    }
}

/// A device's identity key pair (IK).
///
/// Signs only the labelled messages of this crate; never a request.
pub struct IdentityKeyPair {
    secret: IdentitySecret,
    public: IdentityPublic,
}

enum IdentitySecret {
    Seed(SigningKey),
    #[cfg(feature = "interop")]
    Scalar(StaticSecret),
}

impl IdentityKeyPair {
    /// A new Ed25519 identity.
    pub fn generate<R: CryptoRng + ?Sized>(rng: &mut R) -> Self {
        Self::from_seed(&random_seed(rng))
    }

    /// The Ed25519 identity of a stored seed.
    #[must_use]
    pub fn from_seed(seed: &[u8; 32]) -> Self {
        let key = SigningKey::from_bytes(seed);
        let public = IdentityPublic::of_ed25519(&key);
        Self { secret: IdentitySecret::Seed(key), public }
    }

    /// The public half.
    #[must_use]
    pub fn public(&self) -> &IdentityPublic {
        &self.public
    }

    /// The seed of an Ed25519 identity, to be stored; none when the identity was made from a
    /// scalar.
    #[must_use]
    pub fn to_seed(&self) -> Option<Zeroizing<[u8; 32]>> {
        match &self.secret {
            IdentitySecret::Seed(key) => Some(Zeroizing::new(key.to_bytes())),
            #[cfg(feature = "interop")]
            IdentitySecret::Scalar(_) => None,
        }
    }

    /// Signs `message`. Only XEdDSA takes bytes from `rng`; Ed25519 is deterministic.
    pub(crate) fn sign<R: CryptoRng + ?Sized>(&self, message: &[u8], rng: &mut R) -> Signature {
        match &self.secret {
            IdentitySecret::Seed(key) => {
                // Deterministic, so the generator stays untouched.
                let _ = rng;
                Signature::from_bytes(key.sign(message).to_bytes())
            }
            #[cfg(feature = "interop")]
            IdentitySecret::Scalar(scalar) => {
                xeddsa::sign(scalar.as_bytes(), self.public.kind(), message, rng)
            }
        }
    }

    pub(crate) fn diffie_hellman(&self, other: &DhPublic) -> Result<SharedSecret, NonContributory> {
        match &self.secret {
            IdentitySecret::Seed(key) => {
                let mut scalar = key.to_scalar_bytes();
                let secret = StaticSecret::from(scalar);
                scalar.zeroize();
                SharedSecret::new(secret.diffie_hellman(&other.to_dalek()))
            }
            #[cfg(feature = "interop")]
            IdentitySecret::Scalar(scalar) => {
                SharedSecret::new(scalar.diffie_hellman(&other.to_dalek()))
            }
        }
    }
}

#[cfg(feature = "interop")]
impl IdentityKeyPair {
    /// The identity of a bare scalar, which signs with XEdDSA, with its public key in the form
    /// `kind`. An identity made by another implementation may have no seed.
    ///
    /// # Errors
    ///
    /// [`KeyError`] when the scalar has an invalid public key.
    pub fn from_scalar(kind: IdentityKind, scalar: &[u8; 32]) -> Result<Self, KeyError> {
        let public = IdentityPublic::from_parts(kind, &xeddsa::public_key(scalar, kind))?;
        Ok(Self { secret: IdentitySecret::Scalar(StaticSecret::from(*scalar)), public })
    }

    /// The identity whose scalar is that of an Ed25519 seed and whose public key has the form
    /// `kind`.
    ///
    /// # Errors
    ///
    /// As [`from_scalar`](Self::from_scalar).
    pub fn from_seed_as(kind: IdentityKind, seed: &[u8; 32]) -> Result<Self, KeyError> {
        match kind {
            IdentityKind::Ed25519 => Ok(Self::from_seed(seed)),
            IdentityKind::Curve25519 => {
                let scalar = Zeroizing::new(SigningKey::from_bytes(seed).to_scalar_bytes());
                Self::from_scalar(kind, &scalar)
            }
        }
    }
}

macro_rules! ed25519_pair {
    ($(#[$doc:meta])* $name:ident, $public:ident) => {
        $(#[$doc])*
        pub struct $name {
            secret: SigningKey,
            public: $public,
        }

        impl $name {
            /// A new key pair.
            pub fn generate<R: CryptoRng + ?Sized>(rng: &mut R) -> Self {
                Self::from_seed(&random_seed(rng))
            }

            /// The key pair of a stored seed.
            #[must_use]
            pub fn from_seed(seed: &[u8; 32]) -> Self {
                let secret = SigningKey::from_bytes(seed);
                let public = $public::of(&secret);
                Self { secret, public }
            }

            /// The seed, to be stored.
            #[must_use]
            pub fn to_seed(&self) -> Zeroizing<[u8; 32]> {
                Zeroizing::new(self.secret.to_bytes())
            }

            /// The public half.
            #[must_use]
            pub fn public(&self) -> &$public {
                &self.public
            }
        }

        // `SigningKey` erases itself.
        impl ZeroizeOnDrop for $name {}
    };
}

ed25519_pair! {
    /// A device's authentication key pair (AK): signs its requests and nothing else.
    AuthenticationKeyPair, AuthenticationPublic
}
ed25519_pair! {
    /// A user's account key pair (UK): signs the user's device lists and nothing else.
    AccountKeyPair, AccountPublic
}

impl AuthenticationKeyPair {
    /// Signs the signature base of a request.
    #[must_use]
    pub fn sign(&self, message: &[u8]) -> Signature {
        Signature::from_bytes(self.secret.sign(message).to_bytes())
    }
}

impl AccountKeyPair {
    pub(crate) fn sign(&self, message: &[u8]) -> Signature {
        Signature::from_bytes(self.secret.sign(message).to_bytes())
    }
}

macro_rules! x25519_pair {
    ($(#[$doc:meta])* $name:ident, $id:ident, $public:ident) => {
        $(#[$doc])*
        pub struct $name {
            id: $id,
            secret: StaticSecret,
            public: $public,
        }

        impl $name {
            /// A new key pair under `id`.
            pub fn generate<R: CryptoRng + ?Sized>(id: $id, rng: &mut R) -> Self {
                Self::from_secret(id, &random_seed(rng))
            }

            /// The key pair of a stored secret.
            #[must_use]
            pub fn from_secret(id: $id, secret: &[u8; 32]) -> Self {
                let secret = StaticSecret::from(*secret);
                let public = $public::of(x25519_dalek::PublicKey::from(&secret));
                Self { id, secret, public }
            }

            /// The secret, to be stored.
            #[must_use]
            pub fn to_secret(&self) -> Zeroizing<[u8; 32]> {
                Zeroizing::new(self.secret.to_bytes())
            }

            /// The id.
            #[must_use]
            pub fn id(&self) -> $id {
                self.id
            }

            /// The public half.
            #[must_use]
            pub fn public(&self) -> &$public {
                &self.public
            }

            pub(crate) fn diffie_hellman(
                &self,
                other: &DhPublic,
            ) -> Result<SharedSecret, NonContributory> {
                SharedSecret::new(self.secret.diffie_hellman(&other.to_dalek()))
            }
        }

        // `StaticSecret` erases itself.
        impl ZeroizeOnDrop for $name {}
    };
}

x25519_pair! {
    /// A signed prekey pair (SPK).
    SignedPreKeyPair, SignedPreKeyId, SignedPreKeyPublic
}
x25519_pair! {
    /// A one-time prekey pair (OPK).
    OneTimePreKeyPair, OneTimePreKeyId, OneTimePreKeyPublic
}

// `SigningKey` and `StaticSecret` erase themselves.
impl ZeroizeOnDrop for IdentityKeyPair {}

/// An initiator's ephemeral key pair (EK). Has no way in for stored bytes and no way out.
pub(crate) struct EphemeralKey {
    secret: ReusableSecret,
    public: EphemeralPublic,
}

impl EphemeralKey {
    pub(crate) fn generate<R: CryptoRng + ?Sized>(rng: &mut R) -> Self {
        let secret = ReusableSecret::random_from_rng(rng);
        let public = EphemeralPublic::of(x25519_dalek::PublicKey::from(&secret));
        Self { secret, public }
    }

    pub(crate) fn public(&self) -> &EphemeralPublic {
        &self.public
    }

    pub(crate) fn diffie_hellman(&self, other: &DhPublic) -> Result<SharedSecret, NonContributory> {
        SharedSecret::new(self.secret.diffie_hellman(&other.to_dalek()))
    }
}

fn random_seed<R: CryptoRng + ?Sized>(rng: &mut R) -> Zeroizing<[u8; 32]> {
    let mut seed = Zeroizing::new([0; 32]);
    rng.fill_bytes(&mut *seed);
    seed
}

#[cfg(test)]
mod tests {
    use core::fmt::Debug;

    use rand::{SeedableRng, rngs::StdRng};
    use serde::Serialize;
    use static_assertions::{assert_impl_all, assert_not_impl_any};

    use super::*;

    macro_rules! assert_secret {
        ($($name:ty),+ $(,)?) => {$(
            assert_impl_all!($name: ZeroizeOnDrop);
            assert_not_impl_any!($name: Clone, Debug, Serialize);
        )+};
    }

    assert_secret!(
        IdentityKeyPair,
        AuthenticationKeyPair,
        AccountKeyPair,
        SignedPreKeyPair,
        OneTimePreKeyPair,
        crate::schedule::SessionKeys,
        crate::schedule::RootKey,
        crate::schedule::ChainKey,
        crate::plain::Agreed,
        crate::responder::Payload,
    );
    // Erased by what they are made of.
    assert_impl_all!(SigningKey: ZeroizeOnDrop);
    assert_impl_all!(StaticSecret: ZeroizeOnDrop);
    assert_impl_all!(ReusableSecret: ZeroizeOnDrop);
    assert_impl_all!(x25519_dalek::SharedSecret: ZeroizeOnDrop);
    assert_not_impl_any!(EphemeralKey: Clone, Debug, Serialize);
    assert_not_impl_any!(SharedSecret: Clone, Debug, Serialize);
    assert_not_impl_any!(crate::schedule::Ikm: Clone, Debug, Serialize);
    assert_not_impl_any!(crate::schedule::SharedKey: Clone, Debug, Serialize);
    assert_not_impl_any!(crate::schedule::InitialKey: Clone, Debug, Serialize);
    assert_not_impl_any!(crate::responder::Opened: Clone, Debug, Serialize);
    assert_not_impl_any!(crate::responder::Accepted: Clone, Debug, Serialize);
    assert_not_impl_any!(crate::initiator::Initiated: Clone, Debug, Serialize);
    assert_not_impl_any!(crate::initiator::Sealed: Clone, Debug, Serialize);

    #[test]
    fn a_stored_key_pair_comes_back() {
        let rng = &mut StdRng::seed_from_u64(1);
        let identity = IdentityKeyPair::generate(rng);
        let seed = identity.to_seed().unwrap();
        assert_eq!(IdentityKeyPair::from_seed(&seed).public(), identity.public());

        let account = AccountKeyPair::generate(rng);
        assert_eq!(AccountKeyPair::from_seed(&account.to_seed()).public(), account.public());

        let spk = SignedPreKeyPair::generate(SignedPreKeyId(3), rng);
        let again = SignedPreKeyPair::from_secret(spk.id(), &spk.to_secret());
        assert_eq!((again.id(), again.public()), (spk.id(), spk.public()));
    }

    #[test]
    fn both_sides_of_a_diffie_hellman_agree() {
        let rng = &mut StdRng::seed_from_u64(2);
        let identity = IdentityKeyPair::generate(rng);
        let ephemeral = EphemeralKey::generate(rng);
        let a = identity.diffie_hellman(ephemeral.public().dh()).unwrap();
        let b = ephemeral.diffie_hellman(identity.public().dh()).unwrap();
        assert_eq!(a.as_bytes(), b.as_bytes());
    }

    #[test]
    fn a_key_agreement_with_a_point_of_low_order_is_refused() {
        // No parser lets such a key in; should one ever, the agreement still fails.
        let low = DhPublic::from_dalek(x25519_dalek::PublicKey::from([0; 32]));
        let rng = &mut StdRng::seed_from_u64(3);
        let refused = Err(NonContributory);
        let unit = |result: Result<SharedSecret, _>| result.map(drop);
        assert_eq!(unit(IdentityKeyPair::generate(rng).diffie_hellman(&low)), refused);
        assert_eq!(unit(EphemeralKey::generate(rng).diffie_hellman(&low)), refused);
        let spk = SignedPreKeyPair::generate(SignedPreKeyId(1), rng);
        assert_eq!(unit(spk.diffie_hellman(&low)), refused);
        let opk = OneTimePreKeyPair::generate(OneTimePreKeyId(1), rng);
        assert_eq!(unit(opk.diffie_hellman(&low)), refused);
    }
}
