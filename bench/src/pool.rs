//! What the stores hold: pools of one-time keys, and who takes from which.
//!
//! Every user has [`KEYS_PER_USER`] keys. Pops go round the users, so a pool is neither fought over
//! nor empty before all are; that is the kindest order for every store.

use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context, Result, ensure};

/// Keys in the pool of one user.
pub(crate) const KEYS_PER_USER: u64 = 100;
/// Bytes of a key with its signature.
pub(crate) const KEY_BYTES: usize = 96;

/// A one-time key that was popped.
#[derive(Debug)]
pub(crate) struct Key {
    /// Different for every key of a store.
    pub(crate) id: u64,
    /// Key and signature.
    pub(crate) bytes: Vec<u8>,
}

/// The value of key `id` in stores without columns: its id, then filling that compresses badly.
pub(crate) fn value(id: u64) -> [u8; KEY_BYTES] {
    let mut value = [0; KEY_BYTES];
    let mut word = id;
    for chunk in value.chunks_exact_mut(8) {
        chunk.copy_from_slice(&word.to_be_bytes());
        // The step of SplitMix64.
        word = word.wrapping_add(0x9e37_79b9_7f4a_7c15);
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    }
    value
}

/// Reads back a [`value`].
pub(crate) fn key(value: Vec<u8>) -> Result<Key> {
    let id = value.first_chunk().context("a value without an id")?;
    Ok(Key { id: u64::from_be_bytes(*id), bytes: value })
}

/// Ids of the keys of a user.
pub(crate) fn ids(user: u32) -> std::ops::Range<u64> {
    let first = u64::from(user) * KEYS_PER_USER;
    first..first + KEYS_PER_USER
}

/// Hands out the pops of one store to its clients.
pub(crate) struct Turns {
    users: u32,
    next: AtomicU64,
}

/// One pop to do.
#[derive(Clone, Copy)]
pub(crate) struct Turn {
    /// Whose pool.
    pub(crate) user: u32,
    /// The idempotency key, different for every pop.
    pub(crate) request: u64,
}

impl Turns {
    /// Turns over this many users.
    pub(crate) fn new(users: u32) -> Self {
        Self { users, next: AtomicU64::new(0) }
    }

    /// The next pop.
    pub(crate) fn next(&self) -> Turn {
        let request = self.next.fetch_add(1, Ordering::Relaxed);
        let user = request % u64::from(self.users);
        Turn { user: u32::try_from(user).unwrap_or_default(), request }
    }
}

/// Checks that no key is handed out twice.
pub(crate) struct Issued {
    seen: Vec<bool>,
}

impl Issued {
    /// For a store with this many users.
    pub(crate) fn new(users: u32) -> Self {
        let keys = u64::from(users) * KEYS_PER_USER;
        Self { seen: vec![false; usize::try_from(keys).unwrap_or(0)] }
    }

    /// Notes that this key was handed out; an error if it was before, or never existed.
    pub(crate) fn note(&mut self, id: u64) -> Result<()> {
        let seen = usize::try_from(id).ok().and_then(|id| self.seen.get_mut(id));
        let seen = seen.with_context(|| format!("key {id} was never loaded"))?;
        ensure!(!*seen, "key {id} was handed out twice");
        *seen = true;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_names_its_key() -> Result<()> {
        let key = key(value(70_001).to_vec())?;
        assert_eq!(key.id, 70_001);
        assert_eq!(key.bytes.len(), KEY_BYTES);
        Ok(())
    }

    #[test]
    fn a_key_that_comes_twice_is_noticed() -> Result<()> {
        let mut issued = Issued::new(2);
        issued.note(199)?;
        assert!(issued.note(199).is_err());
        assert!(issued.note(200).is_err());
        Ok(())
    }

    #[test]
    fn turns_go_round_the_users() {
        let turns = Turns::new(2);
        let users: Vec<_> = (0..4).map(|_| turns.next().user).collect();
        assert_eq!(users, [0, 1, 0, 1]);
    }
}
