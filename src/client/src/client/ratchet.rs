//! From a handshake to a ratchet.
//!
//! Guarantees: the session's keys leave the key store with the ratchet that is made of them, so no
//! second one is. The side that answers sends nothing under a session that was delivered before,
//! until it has heard the peer. Leaves out: see [`crate::ratchet`].

use super::{Client, Outgoing, Received, TakeKeysError};
use crate::{
    keystore::{KeyStore, Role, Session, SignedPreKeyRecord},
    ratchet::{NoRatchet, Ratchet},
    transport::Transport,
};

impl<T: Transport, S: KeyStore> Client<T, S> {
    /// The ratchet of a session that this device has started, which takes its keys. Store its
    /// [state](Ratchet::to_bytes) next: a process that ends before has lost the session, see
    /// [`take_keys`](Client::take_keys).
    ///
    /// # Errors
    ///
    /// [`NoRatchet::KeysTaken`] the second time, [`NoRatchet::State`] when vodozemac reads another
    /// form than this was written for.
    pub fn ratchet_of_sent(&self, outgoing: &mut Outgoing) -> Result<Ratchet, NoRatchet> {
        let ratchet = Ratchet::initiator(outgoing.session.keys()?, &outgoing.signed_prekey)?;
        self.hand_over(&mut outgoing.session)?;
        Ok(ratchet)
    }

    /// The ratchet of a session that a first message has started, which takes its keys. Store its
    /// [state](Ratchet::to_bytes) next: a process that ends before has lost the session, see
    /// [`take_keys`](Client::take_keys).
    ///
    /// # Errors
    ///
    /// [`NoRatchet::KeysTaken`] the second time, [`NoRatchet::OwnSession`] or
    /// [`NoRatchet::SignedPreKeyDeleted`].
    pub fn ratchet_of_received(&self, received: &mut Received) -> Result<Ratchet, NoRatchet> {
        let (session, again) = match received {
            Received::New { session, .. } => (session, false),
            Received::Duplicate { session } => (session, true),
        };
        if session.role == Role::Initiator {
            return Err(NoRatchet::OwnSession);
        }
        let ratchet = match self.store.signed_prekey(session.signed_prekey)? {
            SignedPreKeyRecord::Held(spk) => Ratchet::responder(session.keys()?, &spk.pair),
            SignedPreKeyRecord::Deleted { .. } | SignedPreKeyRecord::Absent(_) => {
                return Err(NoRatchet::SignedPreKeyDeleted);
            }
        };
        self.hand_over(session)?;
        Ok(if again { ratchet.listening_first() } else { ratchet })
    }

    /// Erases the keys here and in the store. What was read from the store before may be old: only
    /// the one who takes them there may go on.
    fn hand_over(&self, session: &mut Session) -> Result<(), NoRatchet> {
        let taken = self.take_keys(session.id);
        if !matches!(taken, Err(TakeKeysError::Store(_))) {
            session.keys = None;
        }
        taken?;
        Ok(())
    }
}
