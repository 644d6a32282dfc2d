//! Safety numbers: 60 digits that two users compare to know that no one stands between them.
//!
//! ```text
//! key   = 0x06 ‖ UK
//! h     = SHA-512(0x0000 ‖ key ‖ user ‖ key), then 5199 times h = SHA-512(h ‖ key)
//! half  = the first 30 bytes of h as six 5-byte big-endian numbers mod 100000, five digits each
//! ```
//!
//! The two halves are sorted and joined, so both users see the same number.
//!
//! Guarantees: Signal's numeric fingerprint, version 1 and 2, when the key is written `0x05 ‖ u`
//! as Signal does. The lead byte `0x06` says that UK is an Ed25519 key. Leaves out: the scannable
//! form.

use core::fmt;

use sha2::{Digest, Sha512};

use crate::keys::AccountPublic;

const VERSION: [u8; 2] = [0, 0];
const ITERATIONS: usize = 5200;
const KEY_TYPE_ED25519: u8 = 0x06;
const HALF_DIGITS: usize = 30;

/// The number that two users compare.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct SafetyNumber {
    halves: [[u8; HALF_DIGITS]; 2],
}

impl SafetyNumber {
    /// The number of two users, each given by account key and name. The order plays no part.
    #[must_use]
    pub fn new(local: (&AccountPublic, &[u8]), remote: (&AccountPublic, &[u8])) -> Self {
        let half = |(key, user): (&AccountPublic, &[u8])| {
            let mut typed = [KEY_TYPE_ED25519; 33];
            typed[1..].copy_from_slice(key.as_bytes());
            fingerprint(&typed, user)
        };
        Self::of_halves(half(local), half(remote))
    }

    /// The same for keys in any form, each written with its type byte.
    #[cfg(any(test, feature = "conformance"))]
    #[must_use]
    pub fn of_typed_keys(local: (&[u8], &[u8]), remote: (&[u8], &[u8])) -> Self {
        Self::of_halves(fingerprint(local.0, local.1), fingerprint(remote.0, remote.1))
    }

    fn of_halves(local: [u8; HALF_DIGITS], remote: [u8; HALF_DIGITS]) -> Self {
        let mut halves = [local, remote];
        halves.sort_unstable();
        Self { halves }
    }
}

/// The 60 digits, without spaces.
impl fmt::Display for SafetyNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.halves.iter().flatten().try_for_each(|digit| write!(f, "{digit}"))
    }
}

impl fmt::Debug for SafetyNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SafetyNumber({self})")
    }
}

fn fingerprint(key: &[u8], user: &[u8]) -> [u8; HALF_DIGITS] {
    let first = Sha512::new()
        .chain_update(VERSION)
        .chain_update(key)
        .chain_update(user)
        .chain_update(key)
        .finalize();
    let hash = (1..ITERATIONS)
        .fold(first, |hash, _| Sha512::new().chain_update(hash).chain_update(key).finalize());
    let mut digits = [0; HALF_DIGITS];
    for (chunk, out) in hash.chunks_exact(5).zip(digits.chunks_exact_mut(5)) {
        let mut number = chunk.iter().fold(0u64, |number, byte| number << 8 | u64::from(*byte));
        for digit in out.iter_mut().rev() {
            // A remainder of ten is one digit.
            *digit = u8::try_from(number % 10).unwrap_or_default();
            number /= 10;
        }
    }
    digits
}

#[cfg(test)]
mod tests {
    use alloc::string::ToString;

    use super::*;

    /// libsignal, `rust/protocol/src/fingerprint.rs`: the same digits for version 1 and 2.
    #[test]
    fn signals_published_number_comes_out() {
        let alice =
            hex::decode("0506863bc66d02b40d27b8d49ca7c09e9239236f9d7d25d6fcca5ce13c7064d868");
        let bob = hex::decode("05f781b6fb32fed9ba1cf2de978d4d5da28dc34046ae814402b5c0dbd96fda907b");
        let (alice, bob) = (alice.unwrap(), bob.unwrap());
        let alice = (alice.as_slice(), b"+14152222222".as_slice());
        let bob = (bob.as_slice(), b"+14153333333".as_slice());
        let number = "300354477692869396892869876765458257569162576843440918079131";
        assert_eq!(SafetyNumber::of_typed_keys(alice, bob).to_string(), number);
        assert_eq!(SafetyNumber::of_typed_keys(bob, alice).to_string(), number);
    }
}
