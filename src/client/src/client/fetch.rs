//! Fetching: one request for the whole account, one verdict for each device.
//!
//! Guarantees: a bundle that comes out was verified at this device's time, against the pinned
//! identity key and the user's signed device list, if there are such. A bad bundle spoils itself
//! and not the others. One idempotency key names the fetch through every attempt.
//!
//! Leaves out: pinning. A fetch leaves no trace on the device; the first handshake pins.

use bytes::Bytes;
use oncekey_api::{
    bundle::{Bundle as WireBundle, Fetch, Fetched as WireFetched, OneTimePreKeyStatus},
    path,
};
use oncekey_types::{
    DeviceId, OneTimePreKeyId, RegistrationId, RequestId, Seq, Slot, TextError, TimestampMs, UserId,
};
use oncekey_x3dh::{
    Address, Expectations, Failure, VerifiedBundle,
    bundle::{BundleError, IdentityError},
    device_list::{SuccessionError, VerifiedDeviceList},
};
use rand_core::Rng as _;

use super::{Client, IdentityChanged, os_random};
use crate::{
    keystore::{self, KeyStore},
    machine::{DeviceListRefused, PinnedDeviceList},
    transport::{Attempts, Call, CallError, Method, Route, Transport},
    wire::{self, BundleMalformed},
};

/// How to fetch.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct FetchOptions {
    /// Only these devices, in any order; all when absent.
    pub devices: Option<Vec<DeviceId>>,
    /// Refuse, popping nothing, when any bundle would lack its one-time prekey.
    pub require_opk: bool,
    /// The idempotency key of an earlier fetch of the same user whose outcome is unknown, to be
    /// given its keys; a new one when absent.
    pub request: Option<RequestId>,
}

/// The bundles of a user.
#[derive(Debug)]
pub struct Fetched {
    /// The idempotency key of the fetch.
    pub request: RequestId,
    /// One verdict for each device, in the order of their ids.
    pub bundles: Vec<DeviceBundle>,
    /// Whether the server had given this very answer before.
    pub repeated: bool,
    /// Age of the data when no quorum was within reach.
    pub as_of: Option<TimestampMs>,
    /// Where the answer came from.
    pub route: Route,
    /// Every attempt of the fetch.
    pub attempts: Attempts,
}

/// What was fetched for one device.
#[derive(Debug)]
pub struct DeviceBundle {
    /// The device.
    pub device: DeviceId,
    /// Its registration; another one than before means that the device started anew.
    pub registration: RegistrationId,
    /// What became of the one-time prekey.
    pub one_time_prekey_status: OneTimePreKeyStatus,
    /// The one-time prekey that the server handed out, if any.
    pub one_time_prekey: Option<OneTimePreKeyId>,
    /// The bundle, ready for a handshake, or why it must not be used.
    pub bundle: Result<VerifiedBundle, BundleRefused>,
}

/// Why a bundle must not be used.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BundleRefused {
    /// It holds something that is not a key or a signature.
    #[error(transparent)]
    Malformed(#[from] BundleMalformed),
    /// Its identity key is not the one pinned.
    #[error(transparent)]
    IdentityChanged(Box<IdentityChanged>),
    /// A signature, a time, or the device list.
    #[error(transparent)]
    Invalid(BundleError),
}

impl BundleRefused {
    /// The reason, for telemetry.
    #[must_use]
    pub fn failure(&self) -> Failure {
        match self {
            Self::Malformed(_) => Failure::Malformed,
            Self::IdentityChanged(_) => Failure::IdentityChanged,
            Self::Invalid(error) => (*error).into(),
        }
    }
}

/// Why a fetch gave nothing.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FetchError {
    /// The call. Fetch again with the same `request` to be given the keys that it may have popped.
    #[error("{error}")]
    Call {
        /// The idempotency key.
        request: RequestId,
        /// What went wrong.
        #[source]
        error: CallError,
    },
    /// The reply is about another user or other devices than asked for.
    #[error("the reply does not answer the request")]
    OtherAnswer,
    /// The user's device list. When that may pass, fetch again with the same `request`.
    #[error("{error}")]
    DeviceList {
        /// The idempotency key.
        request: RequestId,
        /// What went wrong.
        #[source]
        error: ListError,
    },
    /// The key store.
    #[error(transparent)]
    Store(#[from] keystore::Error),
    /// A new idempotency key could not be made.
    #[error("no idempotency key: it {0}")]
    Request(TextError),
}

impl FetchError {
    /// Whether the same fetch, with the same idempotency key, may succeed later.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Call { error, .. } => error.is_retryable(),
            Self::DeviceList { error, .. } => error.is_retryable(),
            Self::OtherAnswer | Self::Store(_) | Self::Request(_) => false,
        }
    }
}

/// Why a user's device list could not be had.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ListError {
    /// The list is not to be believed. Show it to the user; do not heal it silently.
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

impl<T: Transport, S: KeyStore> Client<T, S> {
    /// Fetches a bundle for each device of `user`.
    ///
    /// # Errors
    ///
    /// A [`FetchError`] when there is no answer at all; what is wrong with one device stands in
    /// its [`DeviceBundle`].
    pub async fn fetch(
        &self,
        user: &UserId,
        options: &FetchOptions,
    ) -> Result<Fetched, FetchError> {
        let request = match &options.request {
            Some(request) => request.clone(),
            None => new_request().map_err(FetchError::Request)?,
        };
        let devices = options.devices.clone().map(|mut devices| {
            devices.sort_unstable();
            devices.dedup();
            devices
        });
        let body = Fetch { devices, require_opk: options.require_opk };
        let call = Call {
            method: Method::Post,
            path: path::user_bundles(user),
            body: serde_json::to_vec(&body).map(Bytes::from).unwrap_or_default(),
            idempotency_key: Some(request.clone()),
            slot: Slot::of(user),
        };
        let answer = self.transport.call::<WireFetched>(&call).await;
        let answer =
            answer.map_err(|error| FetchError::Call { request: request.clone(), error })?;
        let reply = answer.reply;
        if !answers(&reply, user, options) {
            return Err(FetchError::OtherAnswer);
        }
        let list = self.device_list_at(user, reply.device_list_seq).await;
        let list =
            list.map_err(|error| FetchError::DeviceList { request: request.clone(), error })?;
        let list = list.as_ref().map(PinnedDeviceList::list);
        let mut bundles = Vec::with_capacity(reply.bundles.len());
        for wire in &reply.bundles {
            let bundle = self.verify(user, wire, list).await?;
            if let Err(refused) = &bundle {
                self.count(refused.failure());
            }
            bundles.push(DeviceBundle {
                device: wire.device,
                registration: wire.registration,
                one_time_prekey_status: wire.one_time_prekey_status,
                one_time_prekey: wire.one_time_prekey.as_ref().map(|opk| opk.id),
                bundle,
            });
        }
        Ok(Fetched {
            request,
            bundles,
            repeated: reply.repeated,
            as_of: reply.as_of,
            route: answer.route,
            attempts: answer.attempts,
        })
    }

    /// Reads the signed device list of `user` and pins it, when it follows the one pinned. For
    /// when a message comes from a device that the pinned list does not have.
    ///
    /// # Errors
    ///
    /// A [`ListError`].
    pub async fn refresh_device_list(
        &self,
        user: &UserId,
    ) -> Result<Option<PinnedDeviceList>, ListError> {
        let pinned = self.pinned_list(user).await?;
        let shown = self.shown_user(user).await?.reply.device_list;
        let Some(shown) = shown else {
            return match pinned {
                Some(_) => Err(DeviceListRefused::Disappeared.into()),
                None => Ok(None),
            };
        };
        let shown = PinnedDeviceList::from_wire(&shown, user)?;
        if let Some(pinned) = &pinned {
            shown.check_follows(pinned)?;
        }
        let (owner, list) = (user.clone(), shown.clone());
        self.stored(move |store| store.pin_device_list(&owner, &list)).await?;
        Ok(Some(shown))
    }

    /// The list that bundles made under position `seq` are to be judged by.
    async fn device_list_at(
        &self,
        user: &UserId,
        seq: Option<Seq>,
    ) -> Result<Option<PinnedDeviceList>, ListError> {
        let pinned = self.pinned_list(user).await?;
        match (pinned, seq) {
            (None, None) => Ok(None),
            (Some(_), None) => Err(DeviceListRefused::Disappeared.into()),
            (Some(pinned), Some(seq)) if pinned.seq() == seq => Ok(Some(pinned)),
            (Some(pinned), Some(seq)) if pinned.seq() > seq => {
                Err(DeviceListRefused::Succession(SuccessionError::Rollback {
                    pinned: pinned.seq(),
                    offered: seq,
                })
                .into())
            }
            (_, Some(seq)) => match self.refresh_device_list(user).await? {
                Some(list) if list.seq() >= seq => Ok(Some(list)),
                Some(list) => {
                    Err(DeviceListRefused::Behind { shown: list.seq(), bundles: seq }.into())
                }
                None => Err(DeviceListRefused::Disappeared.into()),
            },
        }
    }

    async fn pinned_list(&self, user: &UserId) -> Result<Option<PinnedDeviceList>, ListError> {
        let user = user.clone();
        Ok(self.stored(move |store| store.pinned_device_list(&user)).await?)
    }

    async fn verify(
        &self,
        user: &UserId,
        wire: &WireBundle,
        devices: Option<&VerifiedDeviceList>,
    ) -> Result<Result<VerifiedBundle, BundleRefused>, keystore::Error> {
        let bundle = match wire::bundle(user, wire) {
            Ok(bundle) => bundle,
            Err(malformed) => return Ok(Err(malformed.into())),
        };
        let peer: Address = bundle.owner.clone();
        let pinned = {
            let peer = peer.clone();
            self.stored(move |store| store.pinned_identity(&peer)).await?
        };
        let expectations = Expectations { identity: pinned.as_ref(), devices };
        let offered = bundle.identity;
        let verified = bundle.verify(self.now().to_seconds(), &expectations);
        Ok(verified.map_err(|error| match (error, pinned) {
            (BundleError::Identity(IdentityError::Changed), Some(pinned)) => {
                BundleRefused::IdentityChanged(Box::new(IdentityChanged { peer, pinned, offered }))
            }
            (error, _) => BundleRefused::Invalid(error),
        }))
    }
}

/// 128 random bits in hexadecimal.
fn new_request() -> Result<RequestId, TextError> {
    let mut rng = os_random();
    RequestId::new(format!("{:016x}{:016x}", rng.next_u64(), rng.next_u64()))
}

/// Whether the reply is about the user and the devices asked for, each once and in order.
fn answers(reply: &WireFetched, user: &UserId, options: &FetchOptions) -> bool {
    let growing = reply.bundles.windows(2).all(|pair| pair[0].device < pair[1].device);
    let asked = options
        .devices
        .as_ref()
        .is_none_or(|devices| reply.bundles.iter().all(|bundle| devices.contains(&bundle.device)));
    reply.user == *user && growing && asked
}
