//! Safety numbers: 60 digits, or a QR code, that two users compare to know that no one stands
//! between them.
//!
//! ```text
//! key   = 0x06 ‖ UK
//! h     = SHA-512(0x0000 ‖ key ‖ user ‖ key), then 5199 times h = SHA-512(h ‖ key)
//! half  = the first 30 bytes of h as six 5-byte big-endian numbers mod 100000, five digits each
//! ```
//!
//! The two halves are sorted and joined, so both users see the same number. A code to be scanned
//! holds more of each h, and says which is whose:
//!
//! ```text
//! code = 08 02 ‖ 12 22 0a 20 ‖ the first 32 bytes of the own h
//!              ‖ 1a 22 0a 20 ‖ the first 32 bytes of the other's h
//! ```
//!
//! Guarantees: Signal's numeric fingerprint and its scannable form (a protocol buffer), version 2,
//! when the key is written `0x05 ‖ u` as Signal does. The lead byte `0x06` says that UK is an
//! Ed25519 key. Leaves out: drawing the code.

use core::fmt;

use sha2::{Digest, Sha512};

use crate::keys::AccountPublic;

const VERSION: [u8; 2] = [0, 0];
const ITERATIONS: usize = 5200;
const KEY_TYPE_ED25519: u8 = 0x06;
const HALF_DIGITS: usize = 30;
const HASH_BYTES: usize = 32;
/// Field 1, a number: version 2. Field 2 and 3, each a message of 34 bytes whose field 1 is 32
/// bytes long.
const CODE_VERSION: [u8; 2] = [0x08, 0x02];
const CODE_OWN: [u8; 4] = [0x12, 0x22, 0x0a, 0x20];
const CODE_OTHER: [u8; 4] = [0x1a, 0x22, 0x0a, 0x20];
/// Length of the content of a QR code in bytes.
const CODE_BYTES: usize = 2 + 2 * (4 + HASH_BYTES);

/// The number that two users compare, as one of them sees it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct SafetyNumber {
    own: [u8; HASH_BYTES],
    other: [u8; HASH_BYTES],
}

/// What was scanned is not the code of a safety number, or of another version.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the code is not that of a safety number")]
pub struct NotASafetyNumber;

impl SafetyNumber {
    /// The number of two users, each given by account key and name. The digits do not depend on
    /// the order; the code does.
    #[must_use]
    pub fn new(own: (&AccountPublic, &[u8]), other: (&AccountPublic, &[u8])) -> Self {
        let hash = |(key, user): (&AccountPublic, &[u8])| {
            let mut typed = [KEY_TYPE_ED25519; 33];
            typed[1..].copy_from_slice(key.as_bytes());
            fingerprint(&typed, user)
        };
        Self { own: hash(own), other: hash(other) }
    }

    /// The same for keys in any form, each written with its type byte.
    #[cfg(any(test, feature = "conformance"))]
    #[must_use]
    pub fn of_typed_keys(own: (&[u8], &[u8]), other: (&[u8], &[u8])) -> Self {
        Self { own: fingerprint(own.0, own.1), other: fingerprint(other.0, other.1) }
    }

    /// The content of the QR code that this user shows.
    #[must_use]
    pub fn to_code(&self) -> [u8; CODE_BYTES] {
        let mut code = [0; CODE_BYTES];
        let parts: [&[u8]; 5] = [&CODE_VERSION, &CODE_OWN, &self.own, &CODE_OTHER, &self.other];
        for (place, byte) in code.iter_mut().zip(parts.into_iter().flatten()) {
            *place = *byte;
        }
        code
    }

    /// Whether the code that the other user shows is the counterpart of this number.
    ///
    /// # Errors
    ///
    /// [`NotASafetyNumber`], which says nothing about the keys.
    pub fn matches_code(&self, scanned: &[u8]) -> Result<bool, NotASafetyNumber> {
        let counterpart = Self { own: self.other, other: self.own }.to_code();
        let is_frame = |position: usize| {
            (..6).contains(&position) || (6 + HASH_BYTES..10 + HASH_BYTES).contains(&position)
        };
        if scanned.len() != CODE_BYTES {
            return Err(NotASafetyNumber);
        }
        let mut differing = (0..CODE_BYTES)
            .filter(|position| scanned[*position] != counterpart[*position])
            .peekable();
        if differing.peek().is_none() {
            return Ok(true);
        }
        if differing.any(is_frame) { Err(NotASafetyNumber) } else { Ok(false) }
    }
}

/// The 60 digits, without spaces.
impl fmt::Display for SafetyNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut halves = [digits(&self.own), digits(&self.other)];
        halves.sort_unstable();
        halves.iter().flatten().try_for_each(|digit| write!(f, "{digit}"))
    }
}

impl fmt::Debug for SafetyNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SafetyNumber({self})")
    }
}

fn fingerprint(key: &[u8], user: &[u8]) -> [u8; HASH_BYTES] {
    let first = Sha512::new()
        .chain_update(VERSION)
        .chain_update(key)
        .chain_update(user)
        .chain_update(key)
        .finalize();
    let hash = (1..ITERATIONS)
        .fold(first, |hash, _| Sha512::new().chain_update(hash).chain_update(key).finalize());
    let mut bytes = [0; HASH_BYTES];
    bytes.copy_from_slice(&hash[..HASH_BYTES]);
    bytes
}

fn digits(hash: &[u8; HASH_BYTES]) -> [u8; HALF_DIGITS] {
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

    const ALICE: &str = "0506863bc66d02b40d27b8d49ca7c09e9239236f9d7d25d6fcca5ce13c7064d868";
    const BOB: &str = "05f781b6fb32fed9ba1cf2de978d4d5da28dc34046ae814402b5c0dbd96fda907b";

    fn number(own: (&str, &str), other: (&str, &str)) -> SafetyNumber {
        let (own_key, other_key) = (hex::decode(own.0).unwrap(), hex::decode(other.0).unwrap());
        let own = (own_key.as_slice(), own.1.as_bytes());
        SafetyNumber::of_typed_keys(own, (other_key.as_slice(), other.1.as_bytes()))
    }

    fn alice_and_bob() -> (SafetyNumber, SafetyNumber) {
        let (alice, bob) = ((ALICE, "+14152222222"), (BOB, "+14153333333"));
        (number(alice, bob), number(bob, alice))
    }

    /// libsignal, `rust/protocol/src/fingerprint.rs`: the same digits for version 1 and 2.
    #[test]
    fn signals_published_number_comes_out() {
        let (alice, bob) = alice_and_bob();
        let number = "300354477692869396892869876765458257569162576843440918079131";
        assert_eq!(alice.to_string(), number);
        assert_eq!(bob.to_string(), number);
    }

    /// From the same file: `ALICE_SCANNABLE_FINGERPRINT_V2`, `BOB_SCANNABLE_FINGERPRINT_V2`.
    #[test]
    fn signals_published_codes_come_out() {
        let (alice, bob) = alice_and_bob();
        assert_eq!(
            hex::encode(alice.to_code()),
            "080212220a201e301a0353dce3dbe7684cb8336e85136cdc0ee96219494ada305d62a7bd61df\
             1a220a20d62cbf73a11592015b6b9f1682ac306fea3aaf3885b84d12bca631e9d4fb3a4d"
        );
        assert_eq!(
            hex::encode(bob.to_code()),
            "080212220a20d62cbf73a11592015b6b9f1682ac306fea3aaf3885b84d12bca631e9d4fb3a4d\
             1a220a201e301a0353dce3dbe7684cb8336e85136cdc0ee96219494ada305d62a7bd61df"
        );
    }

    #[test]
    fn a_code_matches_its_counterpart_and_nothing_else() {
        let (alice, bob) = alice_and_bob();
        assert_eq!(alice.matches_code(&bob.to_code()), Ok(true));
        assert_eq!(bob.matches_code(&alice.to_code()), Ok(true));
        assert_eq!(alice.matches_code(&alice.to_code()), Ok(false), "a mirror");
        let eve = number((BOB, "+14152222222"), (ALICE, "+14153333333"));
        assert_eq!(alice.matches_code(&eve.to_code()), Ok(false));
        for position in 0..CODE_BYTES {
            let mut changed = bob.to_code();
            changed[position] ^= 1;
            assert_ne!(alice.matches_code(&changed), Ok(true), "byte {position}");
            assert!(alice.matches_code(&changed[..position]).is_err(), "cut at {position}");
        }
        // Version 1.
        let mut older = bob.to_code();
        older[1] = 1;
        assert_eq!(alice.matches_code(&older), Err(NotASafetyNumber));
    }
}
