//! From a handshake to a ratchet.
//!
//! Guarantees: the side that answers sends nothing under a session that was delivered before, until
//! it has heard the peer. Leaves out: see [`crate::ratchet`].

use super::{Client, Outgoing, Received};
use crate::{
    keystore::{KeyStore, Role, SignedPreKeyRecord},
    ratchet::{NoRatchet, Ratchet},
    transport::Transport,
};

impl<T: Transport, S: KeyStore> Client<T, S> {
    /// The ratchet of a session that this device has started.
    ///
    /// # Errors
    ///
    /// [`NoRatchet::State`] when vodozemac reads another form than this was written for.
    pub fn ratchet_of_sent(&self, outgoing: &Outgoing) -> Result<Ratchet, NoRatchet> {
        Ratchet::initiator(&outgoing.session.keys, &outgoing.signed_prekey)
    }

    /// The ratchet of a session that a first message has started.
    ///
    /// # Errors
    ///
    /// [`NoRatchet::OwnSession`] or [`NoRatchet::SignedPreKeyDeleted`].
    pub fn ratchet_of_received(&self, received: &Received) -> Result<Ratchet, NoRatchet> {
        let (Received::New { session, .. } | Received::Duplicate { session }) = received;
        if session.role == Role::Initiator {
            return Err(NoRatchet::OwnSession);
        }
        let ratchet = match self.store.signed_prekey(session.signed_prekey)? {
            SignedPreKeyRecord::Held(spk) => Ratchet::responder(&session.keys, &spk.pair),
            SignedPreKeyRecord::Deleted { .. } | SignedPreKeyRecord::Absent(_) => {
                return Err(NoRatchet::SignedPreKeyDeleted);
            }
        };
        Ok(match received {
            Received::New { .. } => ratchet,
            Received::Duplicate { .. } => ratchet.listening_first(),
        })
    }
}
