//! The one place where secrets pass into storage and out of it.
//!
//! ```text
//! blob = u8 form = 1 ‖ nonce[24] ‖ XChaCha20-Poly1305(data key, nonce, aad, secret)
//! aad  = "Oncekey v1 record" ‖ u8 form ‖ u8 type ‖ record id
//! ```
//!
//! Guarantees: without the data key a blob says nothing but its length, and it opens only as the
//! record that it was sealed as: one key cannot be put in the place of another. Nonces are random;
//! 24 bytes never meet again.
//!
//! Leaves out: a whole file that is put back as it was some time ago. It opens; what follows from
//! that is told at [`discard_prekeys`](super::KeyStore::discard_prekeys).

use chacha20poly1305::{AeadInOut as _, KeyInit as _, XChaCha20Poly1305};
use oncekey_types::{DeviceId, OneTimePreKeyId, SignedPreKeyId};
use oncekey_x3dh::Address;
use zeroize::Zeroizing;

use super::{
    Error, SessionId,
    lock::{Label, StoreKey, Unlock, lock, random, unlock},
};

/// In the clear, as stores of version 1 kept secrets. Stable, never reuse.
const CLEAR: u8 = 0;
/// Under the data key. Stable, never reuse.
const SEALED: u8 = 1;

const LABEL: &[u8] = b"Oncekey v1 record";
const NONCE_BYTES: usize = 24;
const TAG_BYTES: usize = 16;

/// Which record a blob belongs to.
#[derive(Clone, Copy)]
pub(super) enum Record<'a> {
    Identity(&'a Address),
    Authentication(&'a Address),
    Account(&'a Address),
    SignedPreKey(SignedPreKeyId),
    OneTimePreKey(OneTimePreKeyId),
    Session(SessionId),
    PinnedIdentity(&'a Address),
    PinnedAccount(&'a [u8]),
    TrustEvent(u64),
}

impl Record<'_> {
    /// For errors.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Identity(_) | Self::Authentication(_) | Self::Account(_) => "device",
            Self::SignedPreKey(_) => "signed prekey",
            Self::OneTimePreKey(_) => "one-time prekey",
            Self::Session(_) => "session",
            Self::PinnedIdentity(_) => "pinned identity",
            Self::PinnedAccount(_) => "pinned device list",
            Self::TrustEvent(_) => "trust event",
        }
    }

    /// Stable, never reuse.
    fn number(self) -> u8 {
        match self {
            Self::Identity(_) => 1,
            Self::Authentication(_) => 2,
            Self::Account(_) => 3,
            Self::SignedPreKey(_) => 4,
            Self::OneTimePreKey(_) => 5,
            Self::Session(_) => 6,
            Self::PinnedIdentity(_) => 7,
            Self::PinnedAccount(_) => 8,
            Self::TrustEvent(_) => 9,
        }
    }

    fn aad(self) -> Vec<u8> {
        let mut aad = LABEL.to_vec();
        aad.extend_from_slice(&[SEALED, self.number()]);
        match self {
            Self::Identity(of)
            | Self::Authentication(of)
            | Self::Account(of)
            | Self::PinnedIdentity(of) => {
                let DeviceId(device) = of.device();
                aad.extend_from_slice(&device.to_be_bytes());
                aad.extend_from_slice(of.user());
            }
            Self::SignedPreKey(id) => aad.extend_from_slice(&id.0.to_be_bytes()),
            Self::OneTimePreKey(id) => aad.extend_from_slice(&id.0.to_be_bytes()),
            Self::Session(id) => aad.extend_from_slice(&id.0),
            Self::PinnedAccount(user) => aad.extend_from_slice(user),
            Self::TrustEvent(id) => aad.extend_from_slice(&id.to_be_bytes()),
        }
        aad
    }
}

/// Seals and opens the blobs of one store.
pub(super) struct Sealer {
    data_key: StoreKey,
}

impl Sealer {
    /// With a new data key.
    pub(super) fn generate() -> Self {
        Self { data_key: StoreKey::generate() }
    }

    /// The data key under `with`, to be stored beside the blobs.
    pub(super) fn lock(&self, with: &Unlock) -> Result<Vec<u8>, Error> {
        lock(with, Label::DataKey, &*self.data_key.to_bytes())
    }

    /// With a data key that [`lock`](Self::lock) gave.
    pub(super) fn unlock(with: &Unlock, locked: &[u8]) -> Result<Self, Error> {
        let key = unlock(with, Label::DataKey, locked)?;
        let key: &[u8; 32] = key.as_slice().try_into().map_err(|_| Error::Locked)?;
        Ok(Self { data_key: StoreKey::from_bytes(key) })
    }

    /// The blob to store for `secret`.
    pub(super) fn seal(&self, record: Record<'_>, secret: &[u8]) -> Result<Vec<u8>, Error> {
        let nonce = random::<NONCE_BYTES>();
        // Sized up front: a buffer that grew would leave copies of the secret behind.
        let mut blob = Vec::with_capacity(1 + NONCE_BYTES + secret.len() + TAG_BYTES);
        blob.push(SEALED);
        blob.extend_from_slice(&nonce);
        blob.extend_from_slice(secret);
        let tag = self
            .cipher()
            .encrypt_inout_detached(
                &nonce.into(),
                &record.aad(),
                (&mut blob[1 + NONCE_BYTES..]).into(),
            )
            .map_err(|_| Error::Damaged { record: record.name() })?;
        blob.extend_from_slice(&tag);
        Ok(blob)
    }

    /// The secret of a stored blob.
    pub(super) fn open(
        &self,
        record: Record<'_>,
        blob: &[u8],
    ) -> Result<Zeroizing<Vec<u8>>, Error> {
        let damaged = || Error::Damaged { record: record.name() };
        let Some((&SEALED, rest)) = blob.split_first() else {
            return Err(damaged());
        };
        let (nonce, sealed) = rest.split_at_checked(NONCE_BYTES).ok_or_else(damaged)?;
        let nonce: [u8; NONCE_BYTES] = nonce.try_into().map_err(|_| damaged())?;
        let mut secret = Zeroizing::new(sealed.to_vec());
        self.cipher()
            .decrypt_in_place(&nonce.into(), &record.aad(), &mut *secret)
            .map_err(|_| damaged())?;
        Ok(secret)
    }

    /// The `N` secret bytes of a stored blob.
    pub(super) fn open_array<const N: usize>(
        &self,
        record: Record<'_>,
        blob: &[u8],
    ) -> Result<Zeroizing<[u8; N]>, Error> {
        let secret = self.open(record, blob)?;
        let mut bytes = Zeroizing::new([0; N]);
        if secret.len() != N {
            return Err(Error::Damaged { record: record.name() });
        }
        bytes.copy_from_slice(&secret);
        Ok(bytes)
    }

    fn cipher(&self) -> XChaCha20Poly1305 {
        XChaCha20Poly1305::new((&*self.data_key.to_bytes()).into())
    }
}

/// The secret of a blob of a store of version 1, which kept it in the clear.
pub(super) fn open_clear(record: Record<'_>, blob: &[u8]) -> Result<Zeroizing<Vec<u8>>, Error> {
    match blob.split_first() {
        Some((&CLEAR, secret)) => Ok(Zeroizing::new(secret.to_vec())),
        _ => Err(Error::Damaged { record: record.name() }),
    }
}

#[cfg(test)]
mod tests {
    use oncekey_types::UserId;
    use proptest::prelude::*;

    use super::*;

    const OPK: Record<'_> = Record::OneTimePreKey(OneTimePreKeyId(7));

    proptest! {
        #[test]
        fn a_secret_comes_back_as_it_went(secret in any::<[u8; 32]>()) {
            let sealer = Sealer::generate();
            let blob = sealer.seal(OPK, &secret).unwrap();
            prop_assert_eq!(*sealer.open_array::<32>(OPK, &blob).unwrap(), secret);
            prop_assert!(!blob.windows(32).any(|window| window == secret));
            prop_assert!(sealer.open_array::<31>(OPK, &blob).is_err());
        }
    }

    #[test]
    fn a_blob_opens_only_as_the_record_it_was_sealed_as() {
        let sealer = Sealer::generate();
        let address =
            |user: &str, device| Address::new(&UserId::new(user).unwrap(), DeviceId(device));
        let (one, two, bob) = (address("alice", 1), address("alice", 2), address("bob", 1));
        let records = [
            Record::Identity(&one),
            Record::Authentication(&one),
            Record::Account(&one),
            Record::PinnedIdentity(&one),
            Record::PinnedIdentity(&two),
            Record::PinnedIdentity(&bob),
            Record::PinnedAccount(b"alice"),
            Record::SignedPreKey(SignedPreKeyId(7)),
            OPK,
            Record::OneTimePreKey(OneTimePreKeyId(8)),
            Record::Session(SessionId([7; 32])),
            Record::TrustEvent(7),
        ];
        for (sealed_as, record) in records.iter().enumerate() {
            let blob = sealer.seal(*record, &[9; 32]).unwrap();
            for (opened_as, other) in records.iter().enumerate() {
                let opened = sealer.open(*other, &blob).is_ok();
                assert_eq!(opened, sealed_as == opened_as, "{sealed_as} as {opened_as}");
            }
        }
    }

    #[test]
    fn every_changed_byte_every_cut_and_another_data_key_is_damage() {
        let sealer = Sealer::generate();
        let blob = sealer.seal(OPK, &[9; 32]).unwrap();
        for position in 0..blob.len() {
            let mut changed = blob.clone();
            changed[position] ^= 1;
            assert!(sealer.open(OPK, &changed).is_err(), "byte {position}");
            assert!(sealer.open(OPK, &blob[..position]).is_err(), "cut at {position}");
        }
        assert!(Sealer::generate().open(OPK, &blob).is_err());
    }

    #[test]
    fn the_same_secret_never_gives_the_same_blob() {
        let sealer = Sealer::generate();
        assert_ne!(sealer.seal(OPK, &[9; 32]).unwrap(), sealer.seal(OPK, &[9; 32]).unwrap());
    }
}
