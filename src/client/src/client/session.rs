//! Sessions that handshakes have left.
//!
//! Guarantees: the keys of a session are taken once at most, and are erased from the store before
//! they are handed out. Leaves out: the ratchet that goes on from them.

use oncekey_x3dh::SessionKeys;

use super::Client;
use crate::{
    keystore::{self, KeyStore, KeysTaken, Session, SessionId, TakenKeys},
    transport::Transport,
};

/// Why the keys of a session were not taken.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TakeKeysError {
    /// There is no such session.
    #[error("the key store has no such session")]
    NoSession,
    /// They were taken before.
    #[error(transparent)]
    Taken(#[from] KeysTaken),
    /// The key store.
    #[error(transparent)]
    Store(#[from] keystore::Error),
}

impl<T: Transport, S: KeyStore> Client<T, S> {
    /// A session.
    ///
    /// # Errors
    ///
    /// An error of the store.
    pub fn session(&self, id: SessionId) -> Result<Option<Session>, keystore::Error> {
        self.store.session(id)
    }

    /// Takes the root key and the first chain key of a session out of the key store, for a ratchet
    /// to go on from. They are erased there before this returns; the rest of the session stays, so
    /// that a replay is known as one and the first message can be sent again.
    ///
    /// A process that ends before it has stored what it made of the keys has lost the session, as
    /// nothing can be read or sent under it any more. That is the safe side: were the keys handed
    /// out again, two ratchets could encrypt under one key. Start another session, or let the peer
    /// start one.
    ///
    /// # Errors
    ///
    /// A [`TakeKeysError`].
    pub fn take_keys(&self, id: SessionId) -> Result<SessionKeys, TakeKeysError> {
        match self.store.take_keys(id)? {
            TakenKeys::Now(keys) => Ok(keys),
            TakenKeys::Before => Err(KeysTaken.into()),
            TakenKeys::NoSession => Err(TakeKeysError::NoSession),
        }
    }

    /// The first message of a session that this device started, to be sent again.
    ///
    /// # Errors
    ///
    /// An error of the store.
    pub fn first_message(&self, id: SessionId) -> Result<Option<Vec<u8>>, keystore::Error> {
        self.store.first_message(id)
    }

    pub(super) fn stored_session(&self, id: SessionId) -> Result<Session, keystore::Error> {
        self.store.session(id)?.ok_or(keystore::Error::Damaged { record: "session" })
    }
}
