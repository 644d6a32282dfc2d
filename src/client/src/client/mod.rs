//! One device: its keys, its store and its way to the servers, in the right order.
//!
//! Guarantees: see the [crate](crate). Leaves out: threads of its own; nothing happens but in a
//! call. [`publish`](Client::publish), [`rotate`](Client::rotate) and
//! [`replenish`](Client::replenish) take turns within a client, and the store keeps several
//! clients of one device apart.

mod devices;
mod fan_out;
mod fetch;
mod handshake;
mod keep;
#[cfg(feature = "ratchet")]
mod ratchet;
mod report;
mod session;
mod tend;
mod trust;
mod write;

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use getrandom::SysRng;
use oncekey_types::{DeviceId, TimestampMs, UserId};
use oncekey_x3dh::{
    Address, Failure,
    keys::{AccountKeyPair, IdentityPublic},
};
use parking_lot::Mutex;
use rand_core::UnwrapErr;

pub use devices::{ChangeDevicesError, ListError};
pub use fan_out::{DeviceOutcome, FanOut, NotSent};
pub use fetch::{BundleRefused, DeviceBundle, FetchError, FetchOptions, Fetched, UserFetched};
pub use handshake::{InitiateError, Outgoing, ReceiveError, Received, WhyGone};
pub use report::Reports;
pub use session::TakeKeysError;
pub use tend::{ServerEvent, Tended};
pub use trust::NoSafetyNumber;
pub use write::{Published, StatusReport, WriteError, Written};

use self::report::Tally;
use crate::{
    keystore::{self, Export, KeyStore, SqliteKeyStore},
    machine::{Device, Lifetimes, PoolPlan},
    transport::Transport,
    trust::NewDevices,
};

/// Tells the time. A device with a wrong clock refuses good bundles and keeps secrets too long.
pub trait Clock: Send + Sync + 'static {
    /// The time.
    fn now(&self) -> TimestampMs;
}

/// The clock of the machine.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> TimestampMs {
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        TimestampMs(since.map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX)))
    }
}

/// How a client behaves; see [`Preset`](crate::Preset) for two ways to fill it in.
pub struct Config {
    /// How long keys live.
    pub lifetimes: Lifetimes,
    /// When to add one-time prekeys.
    pub pool: PoolPlan,
    /// What to do with devices that a pinned account key adds.
    pub new_devices: NewDevices,
    /// Whether the servers are told why handshakes fail.
    pub reports: Reports,
    /// Refuse every bundle without a one-time prekey, whatever a single fetch says.
    pub require_opk: bool,
    /// The clock.
    pub clock: Box<dyn Clock>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            lifetimes: Lifetimes::default(),
            pool: PoolPlan::default(),
            new_devices: NewDevices::default(),
            reports: Reports::default(),
            require_opk: false,
            clock: Box::new(SystemClock),
        }
    }
}

/// Which device to create.
pub struct NewDevice {
    user: UserId,
    device: DeviceId,
    account: Option<AccountKeyPair>,
}

impl NewDevice {
    /// Device number `device` of `user`.
    #[must_use]
    pub fn new(user: UserId, device: u32) -> Self {
        Self { user, device: DeviceId(device), account: None }
    }

    /// Gives the device a new account key: for the first device of a user.
    #[must_use]
    pub fn with_new_account(self) -> Self {
        self.with_account(AccountKeyPair::generate(&mut os_random()))
    }

    /// Gives the device the user's account key, with which it adds itself to the user's signed
    /// device list when it registers.
    #[must_use]
    pub fn with_account(mut self, account: AccountKeyPair) -> Self {
        self.account = Some(account);
        self
    }
}

/// One device, able to publish, fetch and agree on keys; see the [crate](crate).
pub struct Client<T, S = SqliteKeyStore> {
    device: Device,
    store: Arc<S>,
    transport: T,
    config: Config,
    /// Held through a write: a device has one write under way.
    turn: tokio::sync::Mutex<()>,
    tally: Mutex<Tally>,
}

impl<T: Transport, S: KeyStore> Client<T, S> {
    /// Creates a device in an empty store, with new keys.
    ///
    /// # Errors
    ///
    /// [`DeviceExists`](keystore::Error::DeviceExists), or an error of the store.
    pub fn create(store: S, transport: T, new: NewDevice) -> Result<Self, keystore::Error> {
        let device = Device::generate(new.user, new.device, new.account, &mut os_random());
        store.create(&device)?;
        Self::open(store, transport)
    }

    /// Creates the device of a backup in an empty store. Its prekeys are lost: publish next, so
    /// that the servers hand out new ones. See [`Export`] for what a backup means.
    ///
    /// # Errors
    ///
    /// [`DeviceExists`](keystore::Error::DeviceExists), or an error of the store.
    pub fn import(store: S, transport: T, export: &Export) -> Result<Self, keystore::Error> {
        store.import(export, SystemClock.now())?;
        Self::open(store, transport)
    }

    /// Opens the device in a store.
    ///
    /// # Errors
    ///
    /// [`NoDevice`](keystore::Error::NoDevice), or an error of the store.
    pub fn open(store: S, transport: T) -> Result<Self, keystore::Error> {
        let device = store.device()?;
        transport.expect_epoch(store.state()?.epoch);
        Ok(Self {
            device,
            store: Arc::new(store),
            transport,
            config: Config::default(),
            turn: tokio::sync::Mutex::new(()),
            tally: Mutex::default(),
        })
    }

    /// The same client with another configuration.
    #[must_use]
    pub fn with_config(mut self, config: Config) -> Self {
        self.config = config;
        self
    }

    /// The same device with another way to reach the servers.
    #[must_use]
    pub fn with_transport<U: Transport>(self, transport: U) -> Client<U, S> {
        if let Some(epoch) = self.transport.epoch() {
            transport.expect_epoch(epoch);
        }
        Client {
            device: self.device,
            store: self.store,
            transport,
            config: self.config,
            turn: self.turn,
            tally: self.tally,
        }
    }

    /// Its user.
    #[must_use]
    pub fn user(&self) -> &UserId {
        self.device.user()
    }

    /// Its address.
    #[must_use]
    pub fn address(&self) -> &Address {
        self.device.address()
    }

    /// Its public identity key.
    #[must_use]
    pub fn identity(&self) -> &IdentityPublic {
        self.device.identity().public()
    }

    /// What of the device may leave it in a backup; see [`Export`] for what that means.
    ///
    /// # Errors
    ///
    /// An error of the store.
    pub fn export(&self) -> Result<Export, keystore::Error> {
        self.store.export()
    }

    /// How many handshakes failed since the client was opened, by reason. What the servers are told
    /// of it, see [`Reports`].
    #[must_use]
    pub fn failures(&self) -> BTreeMap<Failure, u64> {
        self.tally.lock().counted().clone()
    }

    fn now(&self) -> TimestampMs {
        self.config.clock.now()
    }

    fn count(&self, failure: Failure) {
        self.tally.lock().count(failure);
    }

    /// Runs a transaction of the store where it may block.
    async fn stored<R: Send + 'static>(
        &self,
        run: impl FnOnce(&S) -> Result<R, keystore::Error> + Send + 'static,
    ) -> Result<R, keystore::Error> {
        let store = Arc::clone(&self.store);
        match tokio::task::spawn_blocking(move || run(&store)).await {
            Ok(result) => result,
            Err(error) => match error.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                Err(_) => Err(keystore::Error::ShuttingDown),
            },
        }
    }
}

/// The generator of the operating system. It panics when that has none, which no code here could
/// mend.
fn os_random() -> UnwrapErr<SysRng> {
    UnwrapErr(SysRng)
}

#[cfg(test)]
mod tests;
