//! Locks: bytes that only a passphrase or a key opens.
//!
//! ```text
//! box = head ‖ XChaCha20-Poly1305(KEK, nonce, aad = label ‖ head, secret)
//! head = u8 kind ‖ u32 memory_kib ‖ u32 passes ‖ u32 lanes ‖ salt[16] ‖ nonce[24]
//! KEK = Argon2id(passphrase, salt, memory_kib, passes, lanes)  or the key itself
//! ```
//!
//! Guarantees: a passphrase costs whoever guesses it 64 MiB and three passes for each guess. The
//! cost stands in the box and is authenticated, so that it can be raised later; a box that asks
//! its reader for more than the limits is refused before anything is computed.
//!
//! Leaves out: the strength of the passphrase.

use argon2::{Algorithm, Argon2, Params, Version};
use chacha20poly1305::{
    AeadInOut as _, KeyInit as _, XChaCha20Poly1305,
    aead::{Aead as _, Payload},
};
use getrandom::SysRng;
use oncekey_types::limits;
use rand_core::{Rng as _, UnwrapErr};
use zeroize::{ZeroizeOnDrop, Zeroizing};

use super::Error;

/// A passphrase, erased when dropped.
pub struct Passphrase(Zeroizing<String>);

impl ZeroizeOnDrop for Passphrase {}

impl Passphrase {
    /// Takes `text` as it is.
    ///
    /// # Errors
    ///
    /// [`Error::Passphrase`] when it is empty or over
    /// [`PASSPHRASE_MAX_BYTES`](limits::PASSPHRASE_MAX_BYTES).
    pub fn new(text: String) -> Result<Self, Error> {
        let text = Zeroizing::new(text);
        match text.len() {
            1..=limits::PASSPHRASE_MAX_BYTES => Ok(Self(text)),
            bytes => Err(Error::Passphrase { bytes }),
        }
    }
}

/// A random key that is kept elsewhere, as in the keychain of the operating system. Erased when
/// dropped.
pub struct StoreKey(Zeroizing<[u8; 32]>);

impl ZeroizeOnDrop for StoreKey {}

impl StoreKey {
    /// A new key.
    #[must_use]
    pub fn generate() -> Self {
        let mut key = Zeroizing::new([0; 32]);
        UnwrapErr(SysRng).fill_bytes(&mut *key);
        Self(key)
    }

    /// The key of stored bytes. They must be random: nothing is done to slow guesses down.
    #[must_use]
    pub fn from_bytes(bytes: &[u8; 32]) -> Self {
        Self(Zeroizing::new(*bytes))
    }

    /// The bytes to store elsewhere.
    #[must_use]
    pub fn to_bytes(&self) -> Zeroizing<[u8; 32]> {
        self.0.clone()
    }
}

/// What opens a key store or an export.
pub enum Unlock {
    /// A passphrase that someone types. Takes a good part of a second and 64 MiB.
    Passphrase(Passphrase),
    /// A key that is kept elsewhere.
    Key(StoreKey),
}

impl Unlock {
    /// The passphrase `text`.
    ///
    /// # Errors
    ///
    /// As [`Passphrase::new`].
    pub fn passphrase(text: impl Into<String>) -> Result<Self, Error> {
        Passphrase::new(text.into()).map(Self::Passphrase)
    }
}

impl std::fmt::Debug for Unlock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Passphrase(_) => "Passphrase(..)",
            Self::Key(_) => "Key(..)",
        })
    }
}

impl From<StoreKey> for Unlock {
    fn from(key: StoreKey) -> Self {
        Self::Key(key)
    }
}

/// What a box is for; one cannot pass for another. Stable, never reuse.
#[derive(Clone, Copy)]
pub(super) enum Label {
    DataKey,
    Export,
}

impl Label {
    fn text(self) -> &'static [u8] {
        match self {
            Self::DataKey => b"Oncekey v1 data key",
            Self::Export => b"Oncekey v1 export",
        }
    }
}

// Stable, never reuse.
const KIND_PASSPHRASE: u8 = 1;
const KIND_KEY: u8 = 2;

const SALT_BYTES: usize = 16;
const NONCE_BYTES: usize = 24;
const HEAD_BYTES: usize = 1 + 3 * 4 + SALT_BYTES + NONCE_BYTES;

/// What one guess of a passphrase costs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Cost {
    memory_kib: u32,
    passes: u32,
    lanes: u32,
}

impl Cost {
    const PASSPHRASE: Self = Self { memory_kib: 64 * 1024, passes: 3, lanes: 4 };
    const KEY: Self = Self { memory_kib: 0, passes: 0, lanes: 0 };
}

/// Locks `secret` under `unlock`.
pub(super) fn lock(unlock: &Unlock, label: Label, secret: &[u8]) -> Result<Vec<u8>, Error> {
    let (kind, cost) = match unlock {
        Unlock::Passphrase(_) => (KIND_PASSPHRASE, Cost::PASSPHRASE),
        Unlock::Key(_) => (KIND_KEY, Cost::KEY),
    };
    let mut head = Vec::with_capacity(HEAD_BYTES + secret.len() + 16);
    head.push(kind);
    for number in [cost.memory_kib, cost.passes, cost.lanes] {
        head.extend_from_slice(&number.to_be_bytes());
    }
    let salt = random::<SALT_BYTES>();
    let nonce = random::<NONCE_BYTES>();
    head.extend_from_slice(&salt);
    head.extend_from_slice(&nonce);
    let kek = key_encryption_key(unlock, cost, &salt)?;
    let aad = [label.text(), &head].concat();
    let sealed = XChaCha20Poly1305::new((&*kek).into())
        .encrypt(&nonce.into(), Payload { msg: secret, aad: &aad })
        .map_err(|_| Error::Locked)?;
    head.extend_from_slice(&sealed);
    Ok(head)
}

/// Opens what [`lock`] gave.
pub(super) fn unlock(
    unlock: &Unlock,
    label: Label,
    locked: &[u8],
) -> Result<Zeroizing<Vec<u8>>, Error> {
    let (head, sealed) = locked.split_at_checked(HEAD_BYTES).ok_or(Error::Locked)?;
    let (numbers, rest) = head[1..].split_at(12);
    let (salt, nonce) = rest.split_at(SALT_BYTES);
    let number = |n: usize| {
        let bytes = [numbers[4 * n], numbers[4 * n + 1], numbers[4 * n + 2], numbers[4 * n + 3]];
        u32::from_be_bytes(bytes)
    };
    let cost = Cost { memory_kib: number(0), passes: number(1), lanes: number(2) };
    let expected = match unlock {
        Unlock::Passphrase(_) => KIND_PASSPHRASE,
        Unlock::Key(_) => KIND_KEY,
    };
    if head[0] != expected {
        return Err(Error::Locked);
    }
    let salt: [u8; SALT_BYTES] = salt.try_into().map_err(|_| Error::Locked)?;
    let nonce: [u8; NONCE_BYTES] = nonce.try_into().map_err(|_| Error::Locked)?;
    let kek = key_encryption_key(unlock, cost, &salt)?;
    let aad = [label.text(), head].concat();
    let mut secret = Zeroizing::new(sealed.to_vec());
    XChaCha20Poly1305::new((&*kek).into())
        .decrypt_in_place(&nonce.into(), &aad, &mut *secret)
        .map_err(|_| Error::Locked)?;
    Ok(secret)
}

fn key_encryption_key(
    unlock: &Unlock,
    cost: Cost,
    salt: &[u8; SALT_BYTES],
) -> Result<Zeroizing<[u8; 32]>, Error> {
    let passphrase = match unlock {
        Unlock::Key(key) => return Ok(key.0.clone()),
        Unlock::Passphrase(passphrase) => passphrase,
    };
    if cost.memory_kib > limits::ARGON2_MEMORY_MAX_KIB
        || cost.passes > limits::ARGON2_PASSES_MAX
        || cost.lanes > limits::ARGON2_PASSES_MAX
    {
        return Err(Error::Locked);
    }
    let params = Params::new(cost.memory_kib, cost.passes, cost.lanes, Some(32))
        .map_err(|_| Error::Locked)?;
    let mut kek = Zeroizing::new([0; 32]);
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
        .hash_password_into(passphrase.0.as_bytes(), salt, &mut *kek)
        .map_err(|_| Error::Locked)?;
    Ok(kek)
}

/// Random bytes of the operating system.
pub(super) fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    UnwrapErr(SysRng).fill_bytes(&mut bytes);
    bytes
}

#[cfg(test)]
mod tests {
    use std::fmt::Debug;

    use serde::Serialize;
    use static_assertions::{assert_impl_all, assert_not_impl_any};

    use super::*;

    assert_impl_all!(Passphrase: ZeroizeOnDrop);
    assert_impl_all!(StoreKey: ZeroizeOnDrop);
    assert_not_impl_any!(Passphrase: Clone, Debug, Serialize);
    assert_not_impl_any!(StoreKey: Clone, Debug, Serialize);
    assert_not_impl_any!(Unlock: Clone, Serialize);
    assert_not_impl_any!(crate::keystore::seal::Sealer: Clone, Debug, Serialize);
    assert_not_impl_any!(crate::keystore::Export: Clone, Serialize);
    assert_not_impl_any!(crate::machine::Device: Clone, Serialize);

    fn passphrase(text: &str) -> Unlock {
        Unlock::passphrase(text).unwrap()
    }

    #[test]
    fn a_box_opens_with_what_locked_it_and_with_nothing_else() {
        let key = StoreKey::generate();
        let same = Unlock::Key(StoreKey::from_bytes(&key.to_bytes()));
        for (right, again, wrong) in [
            (Unlock::Key(key), same, Unlock::Key(StoreKey::generate())),
            (passphrase("correct horse"), passphrase("correct horse"), passphrase("Correct horse")),
        ] {
            let locked = lock(&right, Label::DataKey, b"secret").unwrap();
            assert_eq!(**unlock(&again, Label::DataKey, &locked).unwrap(), *b"secret");
            assert!(matches!(unlock(&wrong, Label::DataKey, &locked), Err(Error::Locked)));
            let other = unlock(&again, Label::Export, &locked);
            assert!(matches!(other, Err(Error::Locked)), "for another use");
        }
    }

    #[test]
    fn every_changed_bit_and_every_cut_of_a_box_is_refused() {
        let key = Unlock::Key(StoreKey::generate());
        let locked = lock(&key, Label::Export, b"secret").unwrap();
        for bit in 0..locked.len() * 8 {
            let mut changed = locked.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            assert!(unlock(&key, Label::Export, &changed).is_err(), "bit {bit}");
        }
        for length in 0..locked.len() {
            assert!(unlock(&key, Label::Export, &locked[..length]).is_err(), "cut at {length}");
        }
    }

    #[test]
    fn a_box_cannot_make_its_reader_spend_more_than_the_limits() {
        let mut locked = lock(&passphrase("p"), Label::Export, b"secret").unwrap();
        // The first byte of memory, passes and lanes.
        for byte in [1, 5, 9] {
            let was = locked[byte];
            locked[byte] = 0xff;
            assert!(matches!(unlock(&passphrase("p"), Label::Export, &locked), Err(Error::Locked)));
            locked[byte] = was;
        }
        assert!(unlock(&passphrase("p"), Label::Export, &locked).is_ok());
    }

    #[test]
    fn a_passphrase_has_a_length() {
        assert!(Passphrase::new(String::new()).is_err());
        assert!(Passphrase::new("x".repeat(limits::PASSPHRASE_MAX_BYTES)).is_ok());
        assert!(Passphrase::new("x".repeat(limits::PASSPHRASE_MAX_BYTES + 1)).is_err());
    }

    /// The same parameters through the reference implementation:
    /// `python3 -c "from argon2.low_level import *; print(hash_secret_raw(b'passphrase',
    /// bytes(range(16)), 3, 65536, 4, 32, Type.ID).hex())"`
    #[test]
    fn the_key_of_a_passphrase_is_argon2id_as_specified() {
        let mut salt = [0; SALT_BYTES];
        for (byte, value) in salt.iter_mut().zip(0..) {
            *byte = value;
        }
        let kek = key_encryption_key(&passphrase("passphrase"), Cost::PASSPHRASE, &salt).unwrap();
        let hex: String = kek.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, "a63a15b42af06b59d4c2663f62f7511446bed6402c23be66a7b69d3d39a963b8");
    }
}
