//! Digests that uploads and pools are compared by.
//!
//! `lp(x)` is `u16be(length of x) ‖ x`; numbers are big-endian. Guarantees: two different inputs of
//! one label never give the same bytes to the hash. Leaves out: secrets; nothing here is keyed.

use oncekey_types::CallerId;
use sha2::{Digest, Sha256};

use crate::{
    command::{OneTimePreKey, SignedPreKey},
    record::callers::CallerTag,
};

/// The keys of an upload.
///
/// `SHA-256(lp("Oncekey v1 upload") ‖ u32 n ‖ n × (u32 id ‖ lp(key) ‖ lp(signature)))`
pub(crate) fn upload(keys: &[OneTimePreKey]) -> [u8; 32] {
    let mut hash = Hash::new("Oncekey v1 upload");
    hash.count(keys.len());
    for key in keys {
        hash.u32(key.id.0);
        hash.lp(&key.key.0);
        hash.lp(&key.signature.0);
    }
    hash.finish()
}

/// See [`pool_digest`](crate::query::pool_digest).
pub(crate) fn pool(signed_prekey: &SignedPreKey, pool: &[OneTimePreKey]) -> [u8; 32] {
    let mut hash = Hash::new("Oncekey v1 pool");
    hash.u32(signed_prekey.id.0);
    hash.lp(&signed_prekey.key.0);
    hash.count(pool.len());
    for key in pool {
        hash.u32(key.id.0);
        hash.lp(&key.key.0);
    }
    hash.finish()
}

/// A caller, as the buckets know it: the first eight bytes of
/// `SHA-256(lp("Oncekey v1 caller") ‖ lp(caller))`, big-endian.
pub(crate) fn caller(caller: &CallerId) -> CallerTag {
    let mut hash = Hash::new("Oncekey v1 caller");
    hash.lp(caller.as_str().as_bytes());
    let [a, b, c, d, e, f, g, h, ..] = hash.finish();
    CallerTag(u64::from_be_bytes([a, b, c, d, e, f, g, h]))
}

struct Hash(Sha256);

impl Hash {
    fn new(label: &str) -> Self {
        let mut hash = Self(Sha256::new());
        hash.lp(label.as_bytes());
        hash
    }

    fn u32(&mut self, number: u32) {
        self.0.update(number.to_be_bytes());
    }

    fn count(&mut self, count: usize) {
        self.u32(u32::try_from(count).unwrap_or(u32::MAX));
    }

    /// What goes in is a name or a key that was checked, and both are far shorter than 64 KiB.
    fn lp(&mut self, bytes: &[u8]) {
        self.0.update(u16::try_from(bytes.len()).unwrap_or(u16::MAX).to_be_bytes());
        self.0.update(bytes);
    }

    fn finish(self) -> [u8; 32] {
        self.0.finalize().into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::generate;

    #[test]
    fn the_pool_digest_follows_its_formula() {
        let key = generate::keys(&[7]).remove(0);
        let spk = generate::signed_prekey(12);
        let mut bytes = Vec::new();
        bytes.extend_from_slice(&[0, 15]);
        bytes.extend_from_slice(b"Oncekey v1 pool");
        bytes.extend_from_slice(&[0, 0, 0, 12, 0, 32]);
        bytes.extend_from_slice(&spk.key.0);
        bytes.extend_from_slice(&[0, 0, 0, 1, 0, 0, 0, 7, 0, 32]);
        bytes.extend_from_slice(&key.key.0);
        let expected: [u8; 32] = Sha256::digest(&bytes).into();
        assert_eq!(pool(&spk, &[key]), expected);
    }
}
