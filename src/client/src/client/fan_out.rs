//! One message to every device of a user.
//!
//! Guarantees: one fetch for the whole account, one handshake for each device, and one outcome for
//! each device that is registered or listed. What goes wrong with one device spoils no other. What
//! was sealed is stored before it is returned.
//!
//! Leaves out: sending the bytes.

use oncekey_api::bundle::OneTimePreKeyStatus;
use oncekey_types::{DeviceId, RequestId, TimestampMs, UserId};

use super::{BundleRefused, Client, FetchError, FetchOptions, InitiateError, Outgoing};
use crate::{keystore::KeyStore, transport::Transport};

/// What became of a message to a user.
#[derive(Debug)]
pub struct FanOut {
    /// The idempotency key of the fetch; none when there was no device to fetch for.
    pub request: Option<RequestId>,
    /// One outcome for each device, in the order of their ids.
    pub devices: Vec<DeviceOutcome>,
    /// Age of the data when no quorum was within reach.
    pub as_of: Option<TimestampMs>,
}

/// What became of a message to one device.
#[derive(Debug)]
pub struct DeviceOutcome {
    /// The device.
    pub device: DeviceId,
    /// What became of its one-time prekey; none when the server gave no bundle.
    pub one_time_prekey_status: Option<OneTimePreKeyStatus>,
    /// The bytes to send and the session, or why there are none.
    pub outcome: Result<Outgoing, NotSent>,
}

/// Why nothing was sealed for a device.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NotSent {
    /// Its bundle must not be used.
    #[error(transparent)]
    Bundle(#[from] BundleRefused),
    /// The handshake.
    #[error(transparent)]
    Handshake(#[from] InitiateError),
    /// The user's signed list names it, and the server gave no bundle: it is not registered yet,
    /// or hidden.
    #[error("the device is listed, and the server gave no bundle for it")]
    NoBundle,
}

impl FanOut {
    /// Whether there is something to send to every device.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.devices.iter().all(|device| device.outcome.is_ok())
    }
}

impl<T: Transport, S: KeyStore> Client<T, S> {
    /// Fetches once and starts a handshake with each device of `user`, sealing `payload` as its
    /// first message. To the own user: with its other devices.
    ///
    /// # Errors
    ///
    /// A [`FetchError`]; nothing was sealed then. What is wrong with one device stands in its
    /// [`DeviceOutcome`].
    pub async fn send_to_all(
        &self,
        user: &UserId,
        payload: &[u8],
        app_ad: &[u8],
        options: &FetchOptions,
    ) -> Result<FanOut, FetchError> {
        let mut options = options.clone();
        let me = self.device.address().device();
        let is_own = user == self.user();
        if is_own && options.devices.is_none() {
            // So that no key of this very device is used up.
            options.devices = self.other_devices().await?;
        }
        if let (true, Some(devices)) = (is_own, &mut options.devices) {
            devices.retain(|device| *device != me);
            if devices.is_empty() {
                return Ok(FanOut { request: None, devices: Vec::new(), as_of: None });
            }
        }
        let fetched = self.fetch(user, &options).await?;
        let mut devices = Vec::with_capacity(fetched.bundles.len() + fetched.hidden.len());
        for bundle in fetched.bundles {
            if is_own && bundle.device == me {
                continue;
            }
            let outcome = match bundle.bundle {
                Ok(verified) => {
                    self.initiate(verified, payload, app_ad).map_err(NotSent::Handshake)
                }
                Err(refused) => Err(NotSent::Bundle(refused)),
            };
            devices.push(DeviceOutcome {
                device: bundle.device,
                one_time_prekey_status: Some(bundle.one_time_prekey_status),
                outcome,
            });
        }
        for device in fetched.hidden {
            if is_own && device == me {
                continue;
            }
            let outcome = Err(NotSent::NoBundle);
            devices.push(DeviceOutcome { device, one_time_prekey_status: None, outcome });
        }
        devices.sort_by_key(|outcome| outcome.device);
        Ok(FanOut { request: Some(fetched.request), devices, as_of: fetched.as_of })
    }

    /// The user's devices but this, when there is a signed list.
    async fn other_devices(&self) -> Result<Option<Vec<DeviceId>>, FetchError> {
        let user = self.user().clone();
        let list = self.stored(move |store| store.pinned_device_list(&user)).await?;
        let me = self.device.address().device();
        Ok(list.map(|list| {
            let listed = list.list().list().devices().iter().map(|listed| listed.device);
            listed.filter(|device| *device != me).collect()
        }))
    }
}
