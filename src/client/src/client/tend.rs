//! What a device does by itself: rotate, replenish, forget.
//!
//! Guarantees: [`tend`](Client::tend) may be called at any time and as often as one likes; it does
//! what is due. An event of the server makes it look, and no more: what is done follows from what
//! the server holds and the device's own plan.
//!
//! Leaves out: a timer. Run [`keep_tended`](Client::keep_tended), or call [`tend`](Client::tend) when
//! the device comes online, when it has opened what came in while it was away, on every
//! [`ServerEvent`], and again after [`Tended::again_after`].

use std::time::Duration;

use oncekey_api::device::{Pool, Status};
use oncekey_types::{Epoch, SignedPreKeyId, limits};

use super::{Client, ListError, WriteError, write::Intent};
use crate::{
    keystore::{self, DeviceState, KeyStore, SignedPreKeyRecord},
    machine::PoolPlan,
    transport::{Attempts, Transport},
};

/// Longest time between two polls.
const POLL_EVERY: Duration = Duration::from_secs(6 * 60 * 60);

/// What a server, or a push notification, tells a device.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum ServerEvent {
    /// The pool is at or below a watermark.
    PoolLow,
    /// The signed prekey is old.
    SignedPreKeyDue,
    /// The user's device list has changed.
    DeviceListChanged,
}

/// What was done.
#[derive(Debug)]
pub struct Tended {
    /// The signed prekey that took the place of one that was due.
    pub rotated: Option<SignedPreKeyId>,
    /// One-time prekeys that were added.
    pub added: u32,
    /// The servers' new epoch, when they were restored from a backup since the device looked last.
    /// Its one-time prekeys and whatever else they had lost are out again.
    pub restored: Option<Epoch>,
    /// The pool after it.
    pub pool: Pool,
    /// When to look again.
    pub again_after: Duration,
    /// Every attempt of every call.
    pub attempts: Attempts,
}

impl<T: Transport, S: KeyStore> Client<T, S> {
    /// Does what is due: deletes secrets whose time is over, sends a write that was left
    /// unanswered, replaces the signed prekey when it is old, adds one-time prekeys when the pool
    /// is at the watermark of the [`PoolPlan`] or of the server, and [reports](Self::report) why
    /// handshakes failed. None when the device is not registered.
    ///
    /// When the servers were restored from a backup, everything that they lost is due: new one-time
    /// prekeys, the signed prekey, the user's device list, the registration itself.
    ///
    /// # Errors
    ///
    /// A [`WriteError`]. [`StoreIsOld`](WriteError::StoreIsOld) before anything was uploaded, when
    /// the store is a copy.
    pub async fn tend(&self) -> Result<Option<Tended>, WriteError> {
        let _turn = self.turn.lock().await;
        let mut attempts = Attempts::default();
        self.drop_expired_secrets().await?;
        let before = self.state().await?;
        self.flush(&mut attempts).await?;
        let Some(status) = self.look(&before, &mut attempts).await? else {
            return Ok(None);
        };
        let restored = (status.epoch > before.epoch).then_some(status.epoch);
        match self.give_back_device_list(status.epoch).await {
            // What there is to say of a refused list is an open question by now.
            Ok(()) | Err(ListError::Refused(_)) => {}
            Err(error) => return Err(error.into()),
        }
        let mut pool = status.pool;
        let mut rotated = None;
        let is_lost = self.state().await?.current.is_some_and(|own| pool.signed_prekey < own);
        if is_lost || self.due_in(pool.signed_prekey).await?.is_zero() {
            pool = self.write_pool(Intent::Rotate, &mut attempts).await?;
            rotated = Some(pool.signed_prekey);
            self.drop_expired_secrets().await?;
        }
        let count = pool.count;
        let plan = self.plan_beside(&pool);
        if plan.missing(count) > 0 {
            let target = usize::try_from(plan.target).unwrap_or(limits::POOL_MAX);
            self.fill(target, &mut pool, &mut attempts).await?;
        }
        let due = self.due_in(pool.signed_prekey).await?;
        self.report_if_due(&mut attempts).await;
        Ok(Some(Tended {
            rotated,
            added: pool.count.saturating_sub(count),
            restored,
            pool,
            again_after: due.min(POLL_EVERY),
            attempts,
        }))
    }

    /// Does what an event of the server asks for, if it is due.
    ///
    /// # Errors
    ///
    /// A [`WriteError`].
    pub async fn on_event(&self, event: ServerEvent) -> Result<Option<Tended>, WriteError> {
        match event {
            ServerEvent::PoolLow | ServerEvent::SignedPreKeyDue => self.tend().await,
            ServerEvent::DeviceListChanged => {
                match self.refresh_device_list(self.user()).await {
                    // What there is to say of a refused list is an open question by now.
                    Ok(_) | Err(ListError::Refused(_)) => Ok(None),
                    Err(error) => Err(error.into()),
                }
            }
        }
    }

    /// Throws away every prekey, and the registration, of a store that is a copy from some time
    /// ago. [Publish](Self::publish) next. Messages to the old prekeys cannot be opened any more:
    /// which of them were opened before is forgotten.
    ///
    /// # Errors
    ///
    /// An error of the store.
    pub async fn discard_prekeys(&self) -> Result<(), keystore::Error> {
        let _turn = self.turn.lock().await;
        self.stored(S::discard_prekeys).await
    }

    /// What the servers hold of the device, which registers again when they have forgotten it. None
    /// when it is not registered.
    async fn look(
        &self,
        before: &DeviceState,
        attempts: &mut Attempts,
    ) -> Result<Option<Status>, WriteError> {
        let mut own_seq = before.seq;
        let status = match self.registered(before.epoch, attempts).await {
            Err(WriteError::Forgotten) => {
                let target = usize::try_from(self.config.pool.target).unwrap_or(limits::POOL_MAX);
                let register = Intent::Register(target.min(limits::UPLOAD_MAX));
                self.write_pool(register, attempts).await?;
                own_seq = self.state().await?.seq;
                self.registered(before.epoch, attempts).await?
            }
            registered => registered?,
        };
        if let Some(status) = &status {
            let ids = status.ids.clone();
            let missing = self.stored(move |store| store.missing_secrets(&ids)).await?;
            // Every write was stored here before it was sent.
            if status.seq > own_seq || missing > 0 {
                return Err(WriteError::StoreIsOld);
            }
        }
        Ok(status)
    }

    /// Time until the signed prekey is due.
    async fn due_in(&self, id: SignedPreKeyId) -> Result<Duration, keystore::Error> {
        let lifetimes = &self.config.lifetimes;
        Ok(match self.stored(move |store| store.signed_prekey(id)).await? {
            SignedPreKeyRecord::Held(spk) => {
                let due = spk.created.0.saturating_add(lifetimes.rotate_after_s);
                Duration::from_secs(due.saturating_sub(self.now().to_seconds().0))
            }
            SignedPreKeyRecord::Deleted { .. } | SignedPreKeyRecord::Absent(_) => Duration::ZERO,
        })
    }

    /// The plan, raised to the server's watermark.
    fn plan_beside(&self, pool: &Pool) -> PoolPlan {
        let own = self.config.pool;
        let most = u32::try_from(limits::POOL_MAX).unwrap_or(u32::MAX);
        let watermark = own.watermark.max(pool.low_watermark).min(most.saturating_sub(own.batch));
        PoolPlan { watermark, target: watermark.saturating_add(own.batch), ..own }
    }
}
