//! How a new device shows itself to whoever has the user's account key.
//!
//! ```text
//! bytes = u8 version = 1 ‖ lp(user) ‖ u32 device ‖ u8 kind ‖ lp(IK) ‖ lp(AK) ‖ signature[64]
//! ```
//!
//! The signature is that of IK over AK, as the device registers with it:
//! `lp("Oncekey v1 AK") ‖ lp(user) ‖ u32 device ‖ lp(IK) ‖ lp(AK)`.
//!
//! Guarantees: whoever made an [`Introduction`] has the identity key, and meant this user, this
//! number and this authentication key; so no part of it can be exchanged, and a slip on the way is
//! noticed. It has one encoding and holds no secret.
//!
//! Leaves out: whose device it is. Whoever can exchange the whole of it introduces a device of its
//! own. It goes from screen to camera, not through a server.

use alloc::vec::Vec;

use oncekey_types::{DeviceId, UnixSeconds};
use rand_core::CryptoRng;

use crate::{
    address::{Address, UserTooLong},
    device_list::ListedDevice,
    encode::{Reader, Truncated, Writer},
    keys::{
        AuthenticationPublic, IdentityKeyPair, IdentityKind, IdentityPublic, KeyError, Signature,
        SignatureInvalid,
    },
};

/// Stable, never reuse.
const VERSION: u8 = 1;

/// A device with its keys, as its identity key vouches for them.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Introduction {
    owner: Address,
    identity: IdentityPublic,
    authentication: AuthenticationPublic,
    signature: Signature,
}

/// Why bytes do not introduce a device.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IntroductionError {
    /// A version that this library does not read.
    #[error("version {version} of an introduction is not supported")]
    Version {
        /// The version.
        version: u8,
    },
    /// The bytes end inside a field.
    #[error("the introduction is truncated")]
    Truncated,
    /// Bytes follow the signature.
    #[error("the introduction has {bytes} trailing bytes")]
    Trailing {
        /// How many.
        bytes: usize,
    },
    /// The user's name is too long.
    #[error(transparent)]
    User(#[from] UserTooLong),
    /// A key.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The identity key did not sign this.
    #[error(transparent)]
    Signature(#[from] SignatureInvalid),
}

impl From<Truncated> for IntroductionError {
    fn from(_: Truncated) -> Self {
        Self::Truncated
    }
}

impl Introduction {
    /// Introduces the device at `owner`.
    #[must_use]
    pub fn new<R: CryptoRng + ?Sized>(
        owner: Address,
        identity: &IdentityKeyPair,
        authentication: AuthenticationPublic,
        rng: &mut R,
    ) -> Self {
        let signature = identity.sign_authentication_key(&owner, &authentication, rng);
        Self { owner, identity: *identity.public(), authentication, signature }
    }

    /// Parses and verifies.
    ///
    /// # Errors
    ///
    /// An [`IntroductionError`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, IntroductionError> {
        let mut reader = Reader::new(bytes);
        let version = reader.u8()?;
        if version != VERSION {
            return Err(IntroductionError::Version { version });
        }
        let (user, device) = (reader.lp()?, DeviceId(reader.u32()?));
        let owner = Address::from_bytes(user, device)?;
        let kind = IdentityKind::from_tag(reader.u8()?)?;
        let identity = IdentityPublic::from_parts(kind, reader.lp()?)?;
        let authentication = AuthenticationPublic::from_bytes(reader.lp()?)?;
        let signature = Signature::from_bytes(reader.array()?);
        match reader.remaining() {
            0 => {}
            bytes => return Err(IntroductionError::Trailing { bytes }),
        }
        identity.verify_authentication_key(&owner, &authentication, &signature)?;
        Ok(Self { owner, identity, authentication, signature })
    }

    /// The bytes to show.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        Writer::default()
            .u8(VERSION)
            .lp(self.owner.user())
            .u32(self.owner.device().0)
            .u8(self.identity.kind().tag())
            .lp(self.identity.as_bytes())
            .lp(self.authentication.as_bytes())
            .raw(self.signature.as_bytes())
            .finish()
    }

    /// Whose device, and which.
    #[must_use]
    pub fn owner(&self) -> &Address {
        &self.owner
    }

    /// The device as the user's list is to name it.
    #[must_use]
    pub fn listed(&self, added_at: UnixSeconds) -> ListedDevice {
        ListedDevice {
            device: self.owner.device(),
            identity: self.identity,
            authentication: self.authentication,
            added_at,
        }
    }
}

#[cfg(test)]
mod tests {
    use rand::{SeedableRng, rngs::StdRng};

    use super::*;
    use crate::keys::AuthenticationKeyPair;

    fn introduction(user: &[u8], seed: u64) -> Introduction {
        let rng = &mut StdRng::seed_from_u64(seed);
        let identity = IdentityKeyPair::generate(rng);
        let authentication = AuthenticationKeyPair::generate(rng);
        let owner = Address::from_bytes(user, DeviceId(2)).unwrap();
        Introduction::new(owner, &identity, *authentication.public(), rng)
    }

    #[test]
    fn an_introduction_comes_back_as_it_went_and_names_the_device_for_a_list() {
        for user in [b"bob".as_slice(), &[0xff; 255], b"x"] {
            let shown = introduction(user, 1);
            let seen = Introduction::from_bytes(&shown.to_bytes()).unwrap();
            assert_eq!(seen, shown);
            let listed = seen.listed(UnixSeconds(7));
            assert_eq!((listed.device, listed.added_at), (DeviceId(2), UnixSeconds(7)));
            assert_eq!(
                (listed.identity, listed.authentication),
                (shown.identity, shown.authentication)
            );
        }
    }

    #[test]
    fn the_form_is_the_documented_one() {
        let bytes = introduction(b"bob", 1).to_bytes();
        assert_eq!(bytes[..10], [1, 0, 3, b'b', b'o', b'b', 0, 0, 0, 2]);
        assert_eq!(bytes.len(), 1 + (2 + 3) + 4 + 1 + (2 + 32) + (2 + 32) + 64);
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_refused() {
        let bytes = introduction(b"bob", 1).to_bytes();
        for position in 0..bytes.len() {
            for bit in 0..8 {
                let mut flipped = bytes.clone();
                flipped[position] ^= 1 << bit;
                assert!(Introduction::from_bytes(&flipped).is_err(), "bit {bit} of {position}");
            }
            assert!(Introduction::from_bytes(&bytes[..position]).is_err(), "cut at {position}");
        }
        let longer = [bytes.as_slice(), &[0]].concat();
        let trailing = Err(IntroductionError::Trailing { bytes: 1 });
        assert_eq!(Introduction::from_bytes(&longer), trailing);
        let later = [&[2], &bytes[1..]].concat();
        let version = Err(IntroductionError::Version { version: 2 });
        assert_eq!(Introduction::from_bytes(&later), version);
    }

    #[test]
    fn keys_of_two_devices_do_not_make_one() {
        let (bob, eve) = (introduction(b"bob", 1), introduction(b"bob", 2));
        let mixed = [
            Introduction { authentication: eve.authentication, ..bob.clone() },
            Introduction { identity: eve.identity, ..bob.clone() },
            Introduction { owner: introduction(b"carol", 1).owner, ..bob },
        ];
        for mixed in mixed {
            let refused = Introduction::from_bytes(&mixed.to_bytes());
            assert_eq!(refused, Err(IntroductionError::Signature(SignatureInvalid)));
        }
    }
}
