//! Publishing: register, rotate, replenish, remove.
//!
//! Guarantees: a write is stored with its secrets, then sent, then settled. A write without an
//! answer is sent again, byte for byte, before any other. A write that the server finds out of
//! date is made anew above what the server has; its secrets are kept, because an attempt that is
//! still on its way may yet be accepted, or was, by a cluster that was restored since.
//!
//! Leaves out: deciding when, which [`tend`](Client::tend) does.

use oncekey_api::{
    Code,
    device::{Pool, Registered, Status},
    path,
    user::User,
};
use oncekey_types::{Epoch, RegistrationId, Slot, limits};

use super::{Client, os_random};
use crate::{
    client::ListError,
    keystore::{
        self, DeviceState, KeyStore, PendingWrite, Resync, Settled, SignedPreKeyRecord, Staged,
        WriteKind,
    },
    machine::{ListChange, PinnedDeviceList, PlanError, Signing, is_plausible, refused},
    transport::{Answer, Attempts, Call, CallError, Credentials, Method, Transport},
    wire,
};

/// Why a write failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WriteError {
    /// The write could not be made.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// The call. When its outcome is unknown the write stays stored and is sent again before the
    /// next one.
    #[error(transparent)]
    Call(#[from] CallError),
    /// The user's device list.
    #[error(transparent)]
    DeviceList(#[from] ListError),
    /// The key store.
    #[error(transparent)]
    Store(#[from] keystore::Error),
    /// Another installation, with another identity key, has registered under this device's
    /// number. Publishing over it would lock the other out; [remove](Client::remove_device) it first
    /// if that is what the user wants, or register under another number.
    #[error("another installation has registered under this device's number")]
    Replaced,
    /// The server has accepted writes that the key store does not know, or hands out one-time
    /// prekeys whose secrets are not here: the store is a copy from some time ago, or another copy
    /// of it is in use. [Discard](Client::discard_prekeys) its prekeys, then publish; what was
    /// forgotten to be used could be replayed.
    #[error("the key store is older than what the server has")]
    StoreIsOld,
    /// The servers were restored from a backup that is older than this device's registration.
    /// [Publish](Client::publish) again, as [`tend`](Client::tend) does by itself.
    #[error("the servers were restored from a backup that does not have this device")]
    Forgotten,
    /// The server found every version of the write out of date.
    #[error("the server refused the write as out of date {attempts} times")]
    OutOfDate {
        /// How many versions were made.
        attempts: usize,
    },
}

impl WriteError {
    /// Whether the same intent may succeed later.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Call(error) => error.is_retryable(),
            Self::DeviceList(error) => error.is_retryable(),
            Self::Store(error) => matches!(error, keystore::Error::Stale),
            Self::OutOfDate { .. } | Self::Forgotten => true,
            Self::Plan(_) | Self::Replaced | Self::StoreIsOld => false,
        }
    }
}

/// The device is registered and its keys are out.
#[derive(Debug)]
pub struct Published {
    /// Number of the registration.
    pub registration: RegistrationId,
    /// The pool after the last write.
    pub pool: Pool,
    /// Every attempt of every call.
    pub attempts: Attempts,
}

/// A write is done.
#[derive(Debug)]
pub struct Written {
    /// The pool after it.
    pub pool: Pool,
    /// Every attempt of every call.
    pub attempts: Attempts,
}

/// What the server holds, and how it compares with the device.
#[derive(Debug)]
pub struct StatusReport {
    /// The server's view.
    pub server: Status,
    /// One-time prekeys that the server may still hand out and whose secrets are not here, as
    /// after restoring an old copy of the store.
    pub missing_secrets: u64,
    /// Every attempt of the call.
    pub attempts: Attempts,
}

/// What to write.
#[derive(Clone, Copy)]
pub(super) enum Intent {
    Register(usize),
    Rotate,
    Replenish(usize),
    Remove,
}

/// What became of a write that was delivered.
enum Delivery {
    Done(Option<Pool>),
    /// The server has moved on. A registration made anew follows this one.
    OutOfDate(Option<RegistrationId>),
}

impl<T: Transport, S: KeyStore> Client<T, S> {
    /// Registers the device if it is not registered, and fills its pool up to
    /// `one_time_prekeys`, at most [`POOL_MAX`](limits::POOL_MAX). May be repeated at will.
    ///
    /// # Errors
    ///
    /// A [`WriteError`].
    pub async fn publish(&self, one_time_prekeys: usize) -> Result<Published, WriteError> {
        let _turn = self.turn.lock().await;
        let mut attempts = Attempts::default();
        let before = self.state().await?;
        self.flush(&mut attempts).await?;
        let target = one_time_prekeys.min(limits::POOL_MAX);
        let (mut pool, known) = match self.registered(before.epoch, &mut attempts).await {
            Err(error) if !matches!(error, WriteError::Forgotten) => return Err(error),
            Ok(Some(status)) => (status.pool, Some(status.registration)),
            Ok(None) | Err(_) => {
                let first = Intent::Register(target.min(limits::UPLOAD_MAX));
                (self.write_pool(first, &mut attempts).await?, None)
            }
        };
        self.fill(target, &mut pool, &mut attempts).await?;
        self.drop_expired_secrets().await?;
        match known.or(self.state().await?.registration) {
            Some(registration) => Ok(Published { registration, pool, attempts }),
            None => Err(keystore::Error::Stale.into()),
        }
    }

    /// Replaces the signed prekey. The secret of the old one is kept for a while, for messages
    /// that are on their way.
    ///
    /// # Errors
    ///
    /// A [`WriteError`].
    pub async fn rotate(&self) -> Result<Written, WriteError> {
        let _turn = self.turn.lock().await;
        let mut attempts = Attempts::default();
        self.flush(&mut attempts).await?;
        let pool = self.write_pool(Intent::Rotate, &mut attempts).await?;
        self.drop_expired_secrets().await?;
        Ok(Written { pool, attempts })
    }

    /// Replaces the signed prekey when it is older than
    /// [`rotate_after_s`](crate::Lifetimes::rotate_after_s).
    ///
    /// # Errors
    ///
    /// A [`WriteError`].
    pub async fn rotate_if_due(&self) -> Result<Option<Written>, WriteError> {
        self.drop_expired_secrets().await?;
        let Some(id) = self.state().await?.current else {
            return Ok(None);
        };
        let spk = self.stored(move |store| store.signed_prekey(id)).await?;
        match spk {
            SignedPreKeyRecord::Held(spk) if !self.config.lifetimes.is_due(&spk, self.now()) => {
                Ok(None)
            }
            SignedPreKeyRecord::Held(_)
            | SignedPreKeyRecord::Deleted { .. }
            | SignedPreKeyRecord::Absent(_) => self.rotate().await.map(Some),
        }
    }

    /// Fills the pool up to `target` one-time prekeys, at most [`POOL_MAX`](limits::POOL_MAX).
    ///
    /// # Errors
    ///
    /// A [`WriteError`].
    pub async fn replenish(&self, target: usize) -> Result<Written, WriteError> {
        let _turn = self.turn.lock().await;
        let mut attempts = Attempts::default();
        self.flush(&mut attempts).await?;
        let mut pool = self.own_status(&mut attempts).await?.pool;
        self.fill(target.min(limits::POOL_MAX), &mut pool, &mut attempts).await?;
        Ok(Written { pool, attempts })
    }

    /// What the server holds of this device.
    ///
    /// # Errors
    ///
    /// A [`WriteError`].
    pub async fn status(&self) -> Result<StatusReport, WriteError> {
        let answer = self.server_status().await?;
        let ids = answer.reply.ids.clone();
        let missing_secrets = self.stored(move |store| store.missing_secrets(&ids)).await?;
        Ok(StatusReport { server: answer.reply, missing_secrets, attempts: answer.attempts })
    }

    /// Removes the device and its public keys from the servers. The store stays as it is. A
    /// device that was not there is removed.
    ///
    /// # Errors
    ///
    /// A [`WriteError`].
    pub async fn remove(&self) -> Result<Attempts, WriteError> {
        let _turn = self.turn.lock().await;
        let mut attempts = Attempts::default();
        self.flush(&mut attempts).await?;
        self.write(Intent::Remove, &mut attempts).await?;
        Ok(attempts)
    }

    pub(super) fn slot(&self) -> Slot {
        Slot::of(self.device.user())
    }

    /// Shows that the device sent what is sent now.
    pub(super) fn signature(&self) -> Credentials {
        Credentials::Signature(self.device.signer(self.now()))
    }

    pub(super) async fn state(&self) -> Result<DeviceState, keystore::Error> {
        self.stored(S::state).await
    }

    pub(super) async fn drop_expired_secrets(&self) -> Result<(), keystore::Error> {
        let until = self.config.lifetimes.replaced_until(self.now());
        self.stored(move |store| store.purge(until)).await
    }

    /// What the server holds, when the device is registered as far as it and the server know. The
    /// device knew of the epoch `known`, and knows of the server's from now on.
    pub(super) async fn registered(
        &self,
        known: Epoch,
        attempts: &mut Attempts,
    ) -> Result<Option<Status>, WriteError> {
        if self.state().await?.registration.is_none() {
            return Ok(None);
        }
        match self.own_status(attempts).await {
            Ok(status) => {
                let adopted = Resync { epoch: Some(status.epoch), ..Resync::default() };
                let adopted = self.believed(adopted);
                self.stored(move |store| store.resync(&adopted)).await?;
                Ok(Some(status))
            }
            Err(WriteError::Call(error)) if is_unregistered(&error) => {
                if self.transport.epoch() > Some(known) {
                    return Err(WriteError::Forgotten);
                }
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// What the server holds, when the device that is registered is this one.
    async fn own_status(&self, attempts: &mut Attempts) -> Result<Status, WriteError> {
        let status = match self.server_status().await {
            Ok(status) => status,
            // A device that was replaced has no key here any more.
            Err(error) if is_of_another_key(&error) => {
                return Err(match self.own_registration(attempts).await {
                    Err(WriteError::Replaced) => WriteError::Replaced,
                    Ok(_) | Err(_) => error.into(),
                });
            }
            Err(error) => return Err(error.into()),
        };
        attempts.extend(status.attempts);
        let own = self.state().await?.registration;
        if own.is_some_and(|own| own != status.reply.registration) {
            // This device's own, when its answer was lost or the servers were restored; else someone
            // else's.
            if self.own_registration(attempts).await?.is_none() {
                return Err(WriteError::Replaced);
            }
        }
        Ok(status.reply)
    }

    /// The registration under this device's number; none when there is none.
    ///
    /// Fails with [`Replaced`](WriteError::Replaced) when it has another identity key.
    pub(super) async fn own_registration(
        &self,
        attempts: &mut Attempts,
    ) -> Result<Option<RegistrationId>, WriteError> {
        let shown = match self.shown_user(self.device.user()).await {
            Ok(shown) => shown,
            Err(error) if is_unregistered(&error) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        attempts.extend(shown.attempts);
        let number = self.device.address().device();
        match shown.reply.devices.iter().find(|shown| shown.device == number) {
            None => Ok(None),
            Some(shown) if shown.identity_key == wire::identity(self.identity()) => {
                Ok(Some(shown.registration))
            }
            Some(_) => Err(WriteError::Replaced),
        }
    }

    /// Adds one-time prekeys until the pool has `target`, or stops when others keep taking them.
    pub(super) async fn fill(
        &self,
        target: usize,
        pool: &mut Pool,
        attempts: &mut Attempts,
    ) -> Result<(), WriteError> {
        for _ in 0..=limits::POOL_MAX / limits::UPLOAD_MAX {
            let count = usize::try_from(pool.count).unwrap_or(usize::MAX);
            let missing = target.saturating_sub(count);
            if missing == 0 {
                break;
            }
            let upload = Intent::Replenish(missing.min(limits::UPLOAD_MAX));
            *pool = self.write_pool(upload, attempts).await?;
        }
        Ok(())
    }

    /// Sends the write that an earlier call, or an earlier life, got no answer to.
    pub(super) async fn flush(&self, attempts: &mut Attempts) -> Result<(), WriteError> {
        let state = self.state().await?;
        let Some(write) = state.pending.clone() else {
            return Ok(());
        };
        match self.deliver(&state, &write, attempts).await {
            // Whoever wanted a refused write has gone; what is wanted now comes next.
            Ok(_) | Err(WriteError::Call(CallError::Refused { .. })) => Ok(()),
            Err(error) => Err(error),
        }
    }

    pub(super) async fn write_pool(
        &self,
        intent: Intent,
        attempts: &mut Attempts,
    ) -> Result<Pool, WriteError> {
        match self.write(intent, attempts).await? {
            Some(pool) => Ok(pool),
            None => Err(keystore::Error::Stale.into()),
        }
    }

    /// Makes a write, stores it, sends it and settles it; again when it was out of date.
    async fn write(
        &self,
        intent: Intent,
        attempts: &mut Attempts,
    ) -> Result<Option<Pool>, WriteError> {
        // A device registers when the servers know none of its number.
        let mut follows = None;
        for _ in 0..limits::RESYNCS_MAX {
            let state = self.state().await?;
            let staged = self.plan(intent, &state, follows).await?;
            let write = staged.write.clone();
            self.stored(move |store| store.stage(&staged)).await?;
            match self.deliver(&state, &write, attempts).await? {
                Delivery::Done(pool) => return Ok(pool),
                Delivery::OutOfDate(current) => follows = current,
            }
        }
        Err(WriteError::OutOfDate { attempts: limits::RESYNCS_MAX })
    }

    async fn plan(
        &self,
        intent: Intent,
        state: &DeviceState,
        follows: Option<RegistrationId>,
    ) -> Result<Staged, WriteError> {
        let device_list = match intent {
            Intent::Register(_) => self.next_device_list().await?,
            Intent::Rotate | Intent::Replenish(_) | Intent::Remove => None,
        };
        let mut rng = os_random();
        let at = Signing { now: self.now(), lifetimes: &self.config.lifetimes, rng: &mut rng };
        let staged = match intent {
            Intent::Register(count) => {
                self.device.register(state, follows, count, device_list, at)?
            }
            Intent::Rotate => self.device.rotate(state, at)?,
            Intent::Replenish(count) => self.device.replenish(state, count, at.rng)?,
            Intent::Remove => self.device.remove(state)?,
        };
        Ok(staged)
    }

    /// The user's next device list, when this device has the account key and is not in it.
    async fn next_device_list(&self) -> Result<Option<oncekey_api::key::DeviceList>, WriteError> {
        if self.device.account().is_none() {
            return Ok(None);
        }
        let current = self.own_device_list().await?;
        let change = ListChange::Add(Box::new(self.device.listed(self.now())));
        let next = self.device.next_device_list(current.as_ref(), &change);
        Ok(next.map_err(ListError::from)?.as_ref().map(PinnedDeviceList::to_wire))
    }

    /// Sends a stored write and stores what became of it.
    async fn deliver(
        &self,
        state: &DeviceState,
        write: &PendingWrite,
        attempts: &mut Attempts,
    ) -> Result<Delivery, WriteError> {
        let call = self.call_of(write);
        let (settled, pool) = match write.kind {
            WriteKind::Register => match self.send::<Registered>(&call, attempts).await {
                Ok(reply) => (Settled::Registered(reply.registration), Some(reply.pool)),
                Err(error) => return self.settle_refusal(state, write, error, attempts).await,
            },
            WriteKind::Rotate | WriteKind::Replenish => {
                match self.send::<Pool>(&call, attempts).await {
                    Ok(pool) => (Settled::Accepted, Some(pool)),
                    Err(error) => return self.settle_refusal(state, write, error, attempts).await,
                }
            }
            WriteKind::Remove => match self.send::<()>(&call, attempts).await {
                Ok(()) => (Settled::Unregistered, None),
                Err(error) if is_unregistered(&error) => (Settled::Unregistered, None),
                Err(error) => return self.settle_refusal(state, write, error, attempts).await,
            },
        };
        self.settle(write, settled).await?;
        Ok(Delivery::Done(pool))
    }

    async fn send<R: serde::de::DeserializeOwned + Send>(
        &self,
        call: &Call,
        attempts: &mut Attempts,
    ) -> Result<R, CallError> {
        let answer = self.transport.call::<R>(call).await?;
        attempts.extend(answer.attempts);
        Ok(answer.reply)
    }

    async fn settle_refusal(
        &self,
        state: &DeviceState,
        write: &PendingWrite,
        error: CallError,
        attempts: &mut Attempts,
    ) -> Result<Delivery, WriteError> {
        let refusal = match &error {
            CallError::Refused { .. } => match error.refusal() {
                Some(problem) => refused(state, problem),
                None => crate::machine::Refusal {
                    settled: Settled::Refused(Resync::default()),
                    redo: false,
                },
            },
            // The write may be, or become, accepted: it stays.
            CallError::Unavailable { .. } | CallError::Unknown { .. } => return Err(error.into()),
        };
        let settled = match refusal.settled {
            Settled::Refused(resync) => Settled::Refused(self.believed(resync)),
            // Perhaps the servers have forgotten the device; `registered` finds out.
            Settled::Unregistered if self.transport.epoch() > Some(state.epoch) => {
                Settled::Refused(Resync::default())
            }
            settled => settled,
        };
        self.settle(write, settled).await?;
        if !refusal.redo {
            return Err(error.into());
        }
        tracing::info!(kind = ?write.kind, "a write was out of date and is made anew");
        let current = match write.kind {
            WriteKind::Register => self.own_registration(attempts).await?,
            WriteKind::Rotate | WriteKind::Replenish | WriteKind::Remove => None,
        };
        // The refusal names what it stumbled over; the status names everything.
        if let Ok(answer) = self.server_status().await {
            let used = self.believed(Resync::of_status(&answer.reply).bounded(state));
            self.stored(move |store| store.resync(&used)).await?;
        }
        Ok(Delivery::OutOfDate(current))
    }

    /// Without an epoch that cannot be.
    fn believed(&self, resync: Resync) -> Resync {
        let epoch = resync.epoch.filter(|epoch| is_plausible(*epoch, self.now()));
        Resync { epoch, ..resync }
    }

    async fn settle(&self, write: &PendingWrite, settled: Settled) -> Result<(), keystore::Error> {
        let (write, now) = (write.clone(), self.now());
        self.stored(move |store| store.settle(&write, &settled, now)).await
    }

    async fn server_status(&self) -> Result<Answer<Status>, CallError> {
        let device = self.device.address().device();
        let call = Call {
            method: Method::Get,
            path: path::prekeys(self.device.user(), device),
            body: bytes::Bytes::new(),
            idempotency_key: None,
            slot: self.slot(),
            credentials: self.signature(),
        };
        self.transport.call(&call).await
    }

    pub(super) async fn shown_user(
        &self,
        user: &oncekey_types::UserId,
    ) -> Result<Answer<User>, CallError> {
        let call = Call {
            method: Method::Get,
            path: path::user(user),
            body: bytes::Bytes::new(),
            idempotency_key: None,
            slot: Slot::of(user),
            credentials: Credentials::Token,
        };
        self.transport.call(&call).await
    }

    fn call_of(&self, write: &PendingWrite) -> Call {
        let (user, device) = (self.device.user(), self.device.address().device());
        let (method, path) = match write.kind {
            WriteKind::Register => (Method::Put, path::device(user, device)),
            WriteKind::Rotate => (Method::Put, path::signed_prekey(user, device)),
            WriteKind::Replenish => (Method::Post, path::one_time_prekeys(user, device)),
            WriteKind::Remove => (Method::Delete, path::remove_device(user, device, write.seq)),
        };
        Call {
            method,
            path,
            body: write.body.clone().into(),
            idempotency_key: None,
            slot: self.slot(),
            credentials: self.signature(),
        }
    }
}

/// Whether the server does not know the device.
pub(super) fn is_unregistered(error: &CallError) -> bool {
    error
        .refusal()
        .is_some_and(|problem| matches!(problem.code, Code::UnknownUser | Code::UnknownDevice))
}

/// Whether the server knows another key under the device's number.
fn is_of_another_key(error: &CallError) -> bool {
    error.refusal().is_some_and(|problem| problem.code == Code::RequestSignatureInvalid)
}
