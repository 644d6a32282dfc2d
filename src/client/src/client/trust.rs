//! Questions to the user, and the number that two users compare.
//!
//! Guarantees: an answer is given to what the user was shown; if the question has changed since,
//! it must be read again. Leaves out: see [`crate::trust`].

use oncekey_types::UserId;
use oncekey_x3dh::{
    Address, SafetyNumber,
    keys::{AccountPublic, IdentityPublic},
};

use super::Client;
use crate::{
    keystore::{self, KeyStore},
    transport::Transport,
    trust::{Answer, Change, Standing, TrustEvent, standing},
};

/// Why there is no safety number.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NoSafetyNumber {
    /// This user has no account key, or its list was never read here:
    /// [refresh](Client::refresh_device_list) it.
    #[error("the own account key is not known")]
    OwnAccount,
    /// The other user has no account key, or its list was never read here.
    #[error("the other user's account key is not known")]
    OtherAccount,
    /// The key store.
    #[error(transparent)]
    Store(#[from] keystore::Error),
}

impl<T: Transport, S: KeyStore> Client<T, S> {
    /// The changes of trust that wait for an answer, in the order in which they were noticed. Ask
    /// for them after each [`fetch`](Self::fetch), [`receive`](Self::receive) and
    /// [`refresh_device_list`](Self::refresh_device_list).
    ///
    /// # Errors
    ///
    /// An error of the store.
    pub fn open_questions(&self) -> Result<Vec<TrustEvent>, keystore::Error> {
        let events = self.store.trust_events(None)?.into_iter();
        Ok(events.filter(|(_, answer)| answer.is_none()).map(|(event, _)| event).collect())
    }

    /// Answers a question, after asking the user.
    ///
    /// # Errors
    ///
    /// [`Stale`](keystore::Error::Stale) when it was answered already or has changed since: read
    /// the [open questions](Self::open_questions) again.
    pub fn answer(&self, event: &TrustEvent, answer: Answer) -> Result<(), keystore::Error> {
        self.store.answer(event, answer, self.now())
    }

    /// The number that the users of this device and of another compare: 60 digits to read out, and
    /// the content of a QR code. Takes a few milliseconds.
    ///
    /// # Errors
    ///
    /// A [`NoSafetyNumber`].
    pub fn safety_number(&self, with: &UserId) -> Result<SafetyNumber, NoSafetyNumber> {
        let own = match self.device.account() {
            Some(account) => *account.public(),
            None => self.pinned_account(self.user())?.ok_or(NoSafetyNumber::OwnAccount)?,
        };
        let other = self.pinned_account(with)?.ok_or(NoSafetyNumber::OtherAccount)?;
        Ok(SafetyNumber::new((&own, self.user().as_bytes()), (&other, with.as_bytes())))
    }

    fn pinned_account(&self, user: &UserId) -> Result<Option<AccountPublic>, keystore::Error> {
        Ok(self.store.pinned_device_list(user)?.map(|list| *list.account()))
    }

    /// Whether something stands against a device that is listed.
    pub(super) fn standing(
        &self,
        peer: &Address,
        identity: &IdentityPublic,
    ) -> Result<Standing, keystore::Error> {
        let events = self.store.trust_events(Some(peer.user()))?;
        Ok(standing(&events, peer.device(), identity))
    }

    pub(super) async fn standing_of(
        &self,
        peer: &Address,
        identity: &IdentityPublic,
    ) -> Result<Standing, keystore::Error> {
        let (user, device, identity) = (peer.user().to_vec(), peer.device(), *identity);
        let events = self.stored(move |store| store.trust_events(Some(&user))).await?;
        Ok(standing(&events, device, &identity))
    }

    pub(super) async fn noticed(&self, change: Change) -> Result<(), keystore::Error> {
        let now = self.now();
        self.stored(move |store| store.notice(&change, now)).await?;
        Ok(())
    }
}
