//! The signed device list of a user: reading it, pinning it, changing one's own.
//!
//! Guarantees: a list is pinned on first use, and after that only ever replaced by one that the
//! same account key signed, at a higher position. What it changes is stored as an event in the
//! same transaction; what contradicts it is an event too and changes nothing. The own list is
//! continued from the pinned one, never from an older one that a server shows, and a device with
//! the account key takes no list of another key for its user's. A cluster that was restored from a
//! backup may show an older list than was pinned before: the pinned one stays, that is no
//! contradiction, and the user's devices give the cluster their newest one back.
//!
//! Leaves out: the way of a new device's [`PairingCode`] to one that has the account key. That is
//! the application's, and must not lead through the server.

use bytes::Bytes;
use oncekey_api::{Code, path, user::DeviceListPut};
use oncekey_types::{DeviceId, Epoch, Seq, Slot, UserId, limits};
use oncekey_x3dh::{
    device_list::{ListedDevice, SuccessionError},
    introduction::Introduction,
    keys::AccountKeyPair,
};

use super::{Client, WriteError, os_random, write::is_unregistered};
use crate::{
    keystore::{self, KeyStore},
    machine::{DeviceListRefused, ListChange, PinnedDeviceList},
    pairing::PairingCode,
    transport::{Answer, Attempts, Call, CallError, Credentials, Method, Transport},
    trust::{Change, DevicesChanged},
};

/// How new a reply is.
#[derive(Clone, Copy)]
pub(super) struct Shown {
    /// Whether a quorum stands behind it.
    pub(super) is_current: bool,
    /// The cluster's epoch, when it was told.
    pub(super) epoch: Option<Epoch>,
}

/// Why a user's device list could not be had.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ListError {
    /// The list is not to be believed. What there is to ask the user is an
    /// [event](Client::open_questions).
    #[error(transparent)]
    Refused(#[from] DeviceListRefused),
    /// The call for it.
    #[error(transparent)]
    Call(#[from] CallError),
    /// The key store.
    #[error(transparent)]
    Store(#[from] keystore::Error),
}

impl ListError {
    /// Whether another try may succeed.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Call(error) => error.is_retryable(),
            Self::Refused(DeviceListRefused::Behind { .. }) => true,
            Self::Store(error) => matches!(error, keystore::Error::Stale),
            Self::Refused(_) => false,
        }
    }
}

/// Why the user's own device list was not changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ChangeDevicesError {
    /// This device does not have the account key.
    #[error("this device does not have the account key")]
    NoAccountKey,
    /// The pairing code is of another user's device.
    #[error("the pairing code is of another user's device")]
    OtherUser,
    /// The current list, or the next one.
    #[error(transparent)]
    List(#[from] ListError),
    /// The call. When its outcome is unknown, the same change finds out.
    #[error(transparent)]
    Call(#[from] CallError),
    /// Other devices kept changing the list.
    #[error("the device list was changed by others {attempts} times")]
    OutOfDate {
        /// How many versions were made.
        attempts: usize,
    },
    /// The device is off the list, and could not be removed from the servers.
    #[error(transparent)]
    Remove(#[from] WriteError),
}

impl ChangeDevicesError {
    /// Whether the same change may succeed later.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::NoAccountKey | Self::OtherUser => false,
            Self::List(error) => error.is_retryable(),
            Self::Call(error) => error.is_retryable(),
            Self::OutOfDate { .. } => true,
            Self::Remove(error) => error.is_retryable(),
        }
    }
}

impl<T: Transport, S: KeyStore> Client<T, S> {
    /// Reads the signed device list of `user` and pins it, when it follows the one pinned. For
    /// when a message comes from a device that the pinned list does not have, and for the own
    /// user, to learn of devices that were added.
    ///
    /// # Errors
    ///
    /// A [`ListError`].
    pub async fn refresh_device_list(
        &self,
        user: &UserId,
    ) -> Result<Option<PinnedDeviceList>, ListError> {
        let pinned = self.pinned_list(user).await?;
        let Answer { reply, route, .. } = self.shown_user(user).await?;
        let shown = Shown { is_current: reply.as_of.is_none(), epoch: route.epoch };
        let is_current = self.may_be_newest(user, shown).await?;
        let shown = reply.device_list.map(|list| PinnedDeviceList::from_wire(&list, user));
        let shown = shown.transpose()?;
        // Of the own list, this device may know the key before it has seen a list.
        let own = self.device.account().filter(|_| user == self.device.user());
        let account = own.map(AccountKeyPair::public);
        let account = account.or(pinned.as_ref().map(PinnedDeviceList::account));
        let refused = match (&pinned, &shown) {
            (None, None) => return Ok(None),
            (_, Some(shown)) if account.is_some_and(|known| known != shown.account()) => {
                Some(DeviceListRefused::AccountChanged)
            }
            (None, Some(_)) => None,
            (Some(_), None) => Some(DeviceListRefused::Disappeared),
            (Some(pinned), Some(shown)) => shown.check_follows(pinned).err(),
        };
        match (refused, shown) {
            (Some(refused), shown) => {
                // A node without a quorum may not have the newest list, honestly, and neither may a
                // cluster that was restored since.
                if let (false, Some(pinned)) = (is_current, &pinned)
                    && is_older(&refused)
                {
                    let shown = shown.map_or(Seq(0), |shown| shown.seq());
                    let behind = DeviceListRefused::Behind { shown, bundles: pinned.seq() };
                    return Err(behind.into());
                }
                let position = pinned.as_ref().map(PinnedDeviceList::seq);
                let change =
                    Change::of_refused_list(user, &refused, account, position, shown.as_ref());
                if let Some(change) = change {
                    self.noticed(change).await?;
                }
                Err(refused.into())
            }
            (None, Some(shown)) => {
                let epoch = route.epoch.unwrap_or_default();
                self.pin_list(user, pinned.as_ref(), &shown, epoch).await?;
                Ok(Some(shown))
            }
            (None, None) => Ok(None),
        }
    }

    /// The device list that is pinned for `user`.
    ///
    /// # Errors
    ///
    /// An error of the store.
    pub fn pinned_device_list(
        &self,
        user: &UserId,
    ) -> Result<Option<PinnedDeviceList>, keystore::Error> {
        self.store.pinned_device_list(user)
    }

    /// This device as a list names it: what another device of the user, which has the account key,
    /// takes to [`add_device`](Self::add_device).
    #[must_use]
    pub fn listed(&self) -> ListedDevice {
        self.device.listed(self.now())
    }

    /// What this device shows to one of the user's that has the account key; see
    /// [`pairing`](crate::pairing).
    #[must_use]
    pub fn pairing_code(&self) -> PairingCode {
        let device = &self.device;
        PairingCode::new(Introduction::new(
            device.address().clone(),
            device.identity(),
            *device.authentication().public(),
            &mut os_random(),
        ))
    }

    /// Adds the device that showed `code` to the user's signed list, in place of another under its
    /// number. Takes the account key. May be repeated at will.
    ///
    /// # Errors
    ///
    /// A [`ChangeDevicesError`].
    pub async fn add_paired(
        &self,
        code: &PairingCode,
    ) -> Result<PinnedDeviceList, ChangeDevicesError> {
        if code.introduction().owner().user() != self.user().as_bytes() {
            return Err(ChangeDevicesError::OtherUser);
        }
        self.add_device(code.introduction().listed(self.now().to_seconds())).await
    }

    /// Adds a device to the user's signed list, in place of another under its number. Takes the
    /// account key. May be repeated at will.
    ///
    /// # Errors
    ///
    /// A [`ChangeDevicesError`].
    pub async fn add_device(
        &self,
        device: ListedDevice,
    ) -> Result<PinnedDeviceList, ChangeDevicesError> {
        self.change_devices(&ListChange::Add(Box::new(device))).await
    }

    /// Takes a device, such as a lost one, off the user's signed list and then off the servers.
    /// Takes the account key. May be repeated at will.
    ///
    /// Peers stop writing to it, and taking messages from it, when they next see the list. What it
    /// holds stays with whoever holds it: messages it has read, and sessions. One that has the
    /// account key can put itself back; if that is lost too, only a new account key helps, and
    /// every peer is asked about it.
    ///
    /// # Errors
    ///
    /// A [`ChangeDevicesError`].
    pub async fn remove_device(
        &self,
        device: DeviceId,
    ) -> Result<PinnedDeviceList, ChangeDevicesError> {
        let list = self.change_devices(&ListChange::Remove(device)).await?;
        if device == self.device.address().device() {
            match self.own_registration(&mut Attempts::default()).await {
                // Another installation has the number, of whose key this one knows nothing.
                Err(WriteError::Replaced) => {}
                Ok(_) | Err(_) => {
                    self.remove().await?;
                    return Ok(list);
                }
            }
        }
        let user = self.device.user();
        let call = Call {
            method: Method::Delete,
            path: path::device(user, device),
            body: Bytes::new(),
            idempotency_key: None,
            slot: self.slot(),
            credentials: Credentials::Token,
        };
        match self.transport.call::<()>(&call).await {
            Ok(_) => Ok(list),
            Err(error) if is_unregistered(&error) => Ok(list),
            Err(error) => Err(error.into()),
        }
    }

    /// The own list to continue from.
    pub(super) async fn own_device_list(&self) -> Result<Option<PinnedDeviceList>, ListError> {
        let user = self.device.user();
        match self.refresh_device_list(user).await {
            // Before the first registration, and after the last removal.
            Err(ListError::Call(error)) if is_unregistered(&error) => self.pinned_list(user).await,
            // A cluster that was restored has lost the pinned one.
            Err(ListError::Refused(DeviceListRefused::Behind { .. }))
                if self.is_from_before(user, self.transport.epoch()).await? =>
            {
                self.pinned_list(user).await
            }
            result => result,
        }
    }

    /// Gives a cluster that was restored the user's list back that came after the backup, if that
    /// is pinned here.
    pub(super) async fn give_back_device_list(&self, epoch: Epoch) -> Result<(), ListError> {
        let user = self.device.user();
        let Some(pinned) = self.pinned_list(user).await? else { return Ok(()) };
        if !self.is_from_before(user, Some(epoch)).await? {
            return Ok(());
        }
        match self.refresh_device_list(user).await {
            Err(ListError::Refused(DeviceListRefused::Behind { .. })) => {}
            result => return result.map(drop),
        }
        match self.put_device_list(&pinned).await {
            Ok(()) => {
                let (owner, now) = (user.clone(), self.now());
                let pin = move |store: &S| store.pin_device_list(&owner, &pinned, None, epoch, now);
                Ok(self.stored(pin).await?)
            }
            // Another device was faster.
            Err(error) if is_out_of_date(&error) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    async fn put_device_list(&self, list: &PinnedDeviceList) -> Result<(), CallError> {
        let user = self.device.user();
        let call = Call {
            method: Method::Put,
            path: path::device_list(user),
            body: serde_json::to_vec(&list.to_wire()).map(Bytes::from).unwrap_or_default(),
            idempotency_key: None,
            slot: Slot::of(user),
            credentials: Credentials::Token,
        };
        self.transport.call::<DeviceListPut>(&call).await.map(drop)
    }

    /// Whether the pinned list of `user` was shown before the cluster was restored that is in
    /// `epoch`, so that an older one contradicts nothing.
    async fn is_from_before(
        &self,
        user: &UserId,
        epoch: Option<Epoch>,
    ) -> Result<bool, keystore::Error> {
        let Some(epoch) = epoch.filter(|epoch| !epoch.is_first()) else { return Ok(false) };
        let user = user.clone();
        Ok(self.stored(move |store| store.device_list_epoch(&user)).await? < epoch)
    }

    /// Whether what was shown has to be at least as new as the pinned list.
    async fn may_be_newest(&self, user: &UserId, shown: Shown) -> Result<bool, keystore::Error> {
        Ok(shown.is_current && !self.is_from_before(user, shown.epoch).await?)
    }

    async fn change_devices(
        &self,
        change: &ListChange,
    ) -> Result<PinnedDeviceList, ChangeDevicesError> {
        if self.device.account().is_none() {
            return Err(ChangeDevicesError::NoAccountKey);
        }
        let user = self.device.user();
        for _ in 0..limits::RESYNCS_MAX {
            let current = self.own_device_list().await?;
            let next = self.device.next_device_list(current.as_ref(), change);
            let next = match (next.map_err(ListError::from)?, current) {
                (Some(next), _) => next,
                (None, Some(current)) => return Ok(current),
                // To remove a device from no list.
                (None, None) => {
                    return Err(ListError::from(DeviceListRefused::Disappeared).into());
                }
            };
            match self.put_device_list(&next).await {
                Ok(()) => {
                    let (owner, list, now) = (user.clone(), next.clone(), self.now());
                    let epoch = self.transport.epoch().unwrap_or_default();
                    let pin =
                        move |store: &S| store.pin_device_list(&owner, &list, None, epoch, now);
                    self.stored(pin).await.map_err(ListError::from)?;
                    return Ok(next);
                }
                Err(error) if is_out_of_date(&error) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(ChangeDevicesError::OutOfDate { attempts: limits::RESYNCS_MAX })
    }

    /// The list that bundles made under position `seq` are to be judged by: never an older one
    /// than the pinned.
    ///
    /// A lower position alone is no contradiction. A repeated answer names the list of its first
    /// time, and an account key that is new starts a chain of its own; what the server shows now
    /// decides.
    pub(super) async fn device_list_at(
        &self,
        user: &UserId,
        seq: Option<Seq>,
        shown: Shown,
    ) -> Result<Option<PinnedDeviceList>, ListError> {
        let pinned = self.pinned_list(user).await?;
        let position = pinned.as_ref().map(PinnedDeviceList::seq);
        if position == seq || (position > seq && !self.may_be_newest(user, shown).await?) {
            return Ok(pinned);
        }
        match (self.refresh_device_list(user).await?, seq) {
            (Some(list), Some(bundles)) if list.seq() < bundles => {
                Err(DeviceListRefused::Behind { shown: list.seq(), bundles }.into())
            }
            (None, Some(bundles)) => {
                Err(DeviceListRefused::Behind { shown: Seq(0), bundles }.into())
            }
            (list, _) => Ok(list),
        }
    }

    async fn pinned_list(&self, user: &UserId) -> Result<Option<PinnedDeviceList>, ListError> {
        let user = user.clone();
        Ok(self.stored(move |store| store.pinned_device_list(&user)).await?)
    }

    async fn pin_list(
        &self,
        user: &UserId,
        pinned: Option<&PinnedDeviceList>,
        shown: &PinnedDeviceList,
        epoch: Epoch,
    ) -> Result<(), ListError> {
        let policy = self.config.new_devices;
        let mut change =
            pinned.and_then(|pinned| DevicesChanged::between(user, pinned, shown, policy));
        if let Some(changed) = &mut change
            && user == self.device.user()
        {
            // That this device was added is no news to its user.
            let me = self.device.listed(self.now());
            let is_me = |listed: &ListedDevice| {
                (listed.device, listed.identity) == (me.device, me.identity)
            };
            changed.added.retain(|listed| !is_me(listed));
            changed.renewed.retain(|listed| !is_me(listed));
        }
        let change = change.filter(|changed| !changed.is_empty());
        let (owner, list, now) = (user.clone(), shown.clone(), self.now());
        Ok(self
            .stored(move |store| store.pin_device_list(&owner, &list, change.as_ref(), epoch, now))
            .await?)
    }
}

fn is_older(refused: &DeviceListRefused) -> bool {
    matches!(
        refused,
        DeviceListRefused::Disappeared
            | DeviceListRefused::Succession(SuccessionError::Rollback { .. })
    )
}

fn is_out_of_date(error: &CallError) -> bool {
    error.refusal().is_some_and(|problem| {
        matches!(problem.code, Code::DeviceListOutOfOrder | Code::DeviceListBrokenChain)
    })
}
