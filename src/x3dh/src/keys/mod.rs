//! Keys.
//!
//! | key | algorithm | holder |
//! |---|---|---|
//! | IK identity | Ed25519, as X25519 for DH | one per device |
//! | AK authentication | Ed25519, signs requests only | one per device |
//! | UK account | Ed25519, signs device lists only | one per user |
//! | SPK signed prekey | X25519 | device |
//! | OPK one-time prekey | X25519 | device, one handshake |
//! | EK ephemeral | X25519 | initiator, one handshake |
//!
//! Guarantees:
//!
//! * A public key exists only after its point has passed every check. Ed25519: it decompresses,
//!   `compress() == bytes`, it is not of low order and has no torsion. X25519: bit 255 is clear,
//!   u < p, and the order is not low. So each key has exactly one encoding, and a bytewise search
//!   for duplicates finds them all.
//! * A Diffie-Hellman whose result does not depend on both keys is refused.
//! * A secret key is erased when dropped, and is neither `Clone` nor `Debug` nor serialisable. It
//!   leaves only through a method that returns [`Zeroizing`](zeroize::Zeroizing) bytes.
//!
//! Leaves out: what the keys sign ([`prekey`](crate::prekey), [`device_list`](crate::device_list))
//! and where secrets are kept.

mod public;
mod secret;
#[cfg(feature = "interop")]
mod xeddsa;

pub use public::{
    AccountPublic, AuthenticationPublic, EphemeralPublic, IdentityKind, IdentityPublic, KeyError,
    OneTimePreKeyPublic, Signature, SignatureInvalid, SignedPreKeyPublic,
};
pub use secret::{
    AccountKeyPair, AuthenticationKeyPair, IdentityKeyPair, NonContributory, OneTimePreKeyPair,
    SignedPreKeyPair,
};
pub(crate) use secret::{EphemeralKey, SharedSecret};
