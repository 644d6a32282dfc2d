//! Fetching: one request for the whole account, one verdict for each device.
//!
//! Guarantees: a bundle that comes out was verified at this device's time, against the pinned
//! identity key and the user's signed device list, if there are such. A bad bundle spoils itself
//! and not the others. One idempotency key names the fetch through every attempt.
//!
//! Leaves out: pinning. A fetch leaves no trace on the device; the first handshake pins.

use bytes::Bytes;
use oncekey_api::{
    Problem,
    bundle::{
        Bundle as WireBundle, Fetch, FetchMany, Fetched as WireFetched, FetchedMany,
        OneTimePreKeyStatus, UserFetch, UserOutcome, UserResult,
    },
    path,
};
use oncekey_types::{
    DeviceId, OneTimePreKeyId, RegistrationId, RequestId, Slot, TextError, TimestampMs, UserId,
    limits,
};
use oncekey_x3dh::{
    Address, Expectations, Failure, VerifiedBundle,
    bundle::{BundleError, IdentityError},
    device_list::VerifiedDeviceList,
};
use rand_core::Rng as _;
use serde::Serialize;

use super::{Client, ListError, devices::Shown, os_random};
use crate::{
    keystore::{self, KeyStore},
    machine::PinnedDeviceList,
    transport::{Attempts, Call, CallError, Credentials, Method, Route, Transport},
    trust::{Change, IdentityChanged, Standing, TrustEventId},
    wire::{self, BundleMalformed},
};

/// How to fetch.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct FetchOptions {
    /// Only these devices, in any order; all when absent.
    pub devices: Option<Vec<DeviceId>>,
    /// Refuse, popping nothing, when any bundle would lack its one-time prekey. A bundle that
    /// lacks it all the same is refused here.
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
    /// Devices that the user's signed list names and of which the server gave no bundle: not
    /// registered yet, or hidden.
    pub hidden: Vec<DeviceId>,
    /// Whether the server had given this very answer before.
    pub repeated: bool,
    /// Age of the data when no quorum was within reach.
    pub as_of: Option<TimestampMs>,
    /// Where the answer came from.
    pub route: Route,
    /// Every attempt of the fetch.
    pub attempts: Attempts,
}

/// What was fetched for one user of several.
#[derive(Debug)]
pub struct UserFetched {
    /// The user.
    pub user: UserId,
    /// Its bundles, or why there are none.
    pub outcome: Result<Fetched, FetchError>,
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
    /// The device is new in its user's list, and the user of this one has not said yes.
    /// [Answer](Client::answer) the event and fetch again.
    #[error("the device waits for an answer")]
    Questioned {
        /// The event.
        event: TrustEventId,
    },
    /// It has no one-time prekey, and one is required. The server was asked to refuse then.
    #[error("the bundle has no one-time prekey, which is required")]
    NoOneTimePreKey,
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
            Self::IdentityChanged(_) | Self::Questioned { .. } => Failure::IdentityChanged,
            // An honest server refuses such a fetch.
            Self::NoOneTimePreKey => Failure::Malformed,
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
    /// The server has no bundles of this user; others of the same request may have theirs.
    #[error("{problem}")]
    Refused {
        /// The idempotency key.
        request: RequestId,
        /// What the server says.
        problem: Problem,
    },
    /// No users, or more than fit one request.
    #[error("{users} users in one fetch, allowed are 1 to {limit}",
        limit = limits::USERS_PER_FETCH_MAX)]
    Users {
        /// How many different ones were given.
        users: usize,
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
            Self::Refused { problem, .. } => problem.code.is_retryable(),
            Self::Users { .. } | Self::OtherAnswer | Self::Store(_) | Self::Request(_) => false,
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
        let request = named(options.request.as_ref())?;
        let devices = options.devices.clone().map(|mut devices| {
            devices.sort_unstable();
            devices.dedup();
            devices
        });
        let require_opk = options.require_opk || self.config.require_opk;
        let body = Fetch { devices, require_opk };
        let call = fetch_call(path::user_bundles(user), &body, &request, user);
        let answer = self.transport.call::<WireFetched>(&call).await;
        let answer =
            answer.map_err(|error| FetchError::Call { request: request.clone(), error })?;
        let from = From { request, require_opk, route: answer.route, attempts: answer.attempts };
        self.judge(user, options.devices.as_deref(), answer.reply, from).await
    }

    /// Fetches a bundle for each device of each of `users`, at most
    /// [`USERS_PER_FETCH_MAX`](limits::USERS_PER_FETCH_MAX), in one request. Each user is a fetch
    /// of its own; a retry with the same `request` may name fewer of them.
    ///
    /// # Errors
    ///
    /// A [`FetchError`] when there is no answer at all; what is wrong with one user stands in its
    /// [`UserFetched`].
    pub async fn fetch_many(
        &self,
        users: &[UserId],
        require_opk: bool,
        request: Option<&RequestId>,
    ) -> Result<Vec<UserFetched>, FetchError> {
        let mut users = users.to_vec();
        users.sort_unstable();
        users.dedup();
        let (Some(first), 1..=limits::USERS_PER_FETCH_MAX) = (users.first(), users.len()) else {
            return Err(FetchError::Users { users: users.len() });
        };
        let request = named(request)?;
        let parts = users.iter().map(|user| UserFetch { user: user.clone(), devices: None });
        let require_opk = require_opk || self.config.require_opk;
        let body = FetchMany { users: parts.collect(), require_opk };
        let call = fetch_call(path::BUNDLES.to_owned(), &body, &request, first);
        let answer = self.transport.call::<FetchedMany>(&call).await;
        let answer =
            answer.map_err(|error| FetchError::Call { request: request.clone(), error })?;
        let results = answer.reply.results;
        if !results.iter().map(|result| &result.user).eq(users.iter()) {
            return Err(FetchError::OtherAnswer);
        }
        let mut fetched = Vec::with_capacity(users.len());
        for UserResult { user, route, outcome } in results {
            let route = Route {
                shard: Some(route.shard),
                leader: route.leader,
                index: route.index,
                epoch: answer.route.epoch,
            };
            let attempts = answer.attempts.clone();
            let from = From { request: request.clone(), require_opk, route, attempts };
            let outcome = match outcome {
                UserOutcome::Fetched(reply) => self.judge(&user, None, reply, from).await,
                UserOutcome::Problem(problem) => {
                    Err(FetchError::Refused { request: request.clone(), problem })
                }
            };
            fetched.push(UserFetched { user, outcome });
        }
        Ok(fetched)
    }

    /// Verifies every bundle of a reply.
    async fn judge(
        &self,
        user: &UserId,
        asked: Option<&[DeviceId]>,
        reply: WireFetched,
        from: From,
    ) -> Result<Fetched, FetchError> {
        if !answers(&reply, user, asked) {
            return Err(FetchError::OtherAnswer);
        }
        let From { request, require_opk, route, attempts } = from;
        let shown = Shown { is_current: reply.as_of.is_none(), epoch: route.epoch };
        let list = self.device_list_at(user, reply.device_list_seq, shown).await;
        let list =
            list.map_err(|error| FetchError::DeviceList { request: request.clone(), error })?;
        let list = list.as_ref().map(PinnedDeviceList::list);
        let mut bundles = Vec::with_capacity(reply.bundles.len());
        for wire in &reply.bundles {
            let bundle = match self.verify(user, wire, list).await? {
                Ok(bundle) if require_opk && bundle.one_time_prekey_id().is_none() => {
                    Err(BundleRefused::NoOneTimePreKey)
                }
                verified => verified,
            };
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
        let hidden = hidden(list, asked, &bundles);
        Ok(Fetched {
            request,
            bundles,
            hidden,
            repeated: reply.repeated,
            as_of: reply.as_of,
            route,
            attempts,
        })
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
        let error = match bundle.verify(self.now().to_seconds(), &expectations) {
            Ok(verified) => {
                return Ok(match self.standing_of(&peer, &offered).await? {
                    Standing::Good => Ok(verified),
                    Standing::Questioned(event) => Err(BundleRefused::Questioned { event }),
                });
            }
            Err(error) => error,
        };
        Ok(Err(match (error, pinned) {
            (BundleError::Identity(IdentityError::Changed), Some(pinned)) => {
                let changed = IdentityChanged { peer, pinned, offered };
                self.noticed(Change::Identity(changed.clone())).await?;
                BundleRefused::IdentityChanged(Box::new(changed))
            }
            (error, _) => BundleRefused::Invalid(error),
        }))
    }
}

/// Where a reply came from.
struct From {
    request: RequestId,
    require_opk: bool,
    route: Route,
    attempts: Attempts,
}

fn named(request: Option<&RequestId>) -> Result<RequestId, FetchError> {
    match request {
        Some(request) => Ok(request.clone()),
        None => new_request().map_err(FetchError::Request),
    }
}

fn fetch_call(path: String, body: &impl Serialize, request: &RequestId, user: &UserId) -> Call {
    Call {
        method: Method::Post,
        path,
        body: serde_json::to_vec(body).map(Bytes::from).unwrap_or_default(),
        idempotency_key: Some(request.clone()),
        slot: Slot::of(user),
        credentials: Credentials::Token,
    }
}

/// Devices of the signed list that were asked for and of which there is no bundle.
fn hidden(
    list: Option<&VerifiedDeviceList>,
    asked: Option<&[DeviceId]>,
    bundles: &[DeviceBundle],
) -> Vec<DeviceId> {
    let listed = list.map_or(&[][..], |list| list.list().devices()).iter();
    listed
        .map(|listed| listed.device)
        .filter(|device| asked.is_none_or(|asked| asked.contains(device)))
        .filter(|device| bundles.iter().all(|bundle| bundle.device != *device))
        .collect()
}

/// 128 random bits in hexadecimal.
fn new_request() -> Result<RequestId, TextError> {
    let mut rng = os_random();
    RequestId::new(format!("{:016x}{:016x}", rng.next_u64(), rng.next_u64()))
}

/// Whether the reply is about the user and the devices asked for, each once and in order.
fn answers(reply: &WireFetched, user: &UserId, asked: Option<&[DeviceId]>) -> bool {
    let growing = reply.bundles.windows(2).all(|pair| pair[0].device < pair[1].device);
    let asked = asked
        .is_none_or(|devices| reply.bundles.iter().all(|bundle| devices.contains(&bundle.device)));
    reply.user == *user && growing && asked
}
