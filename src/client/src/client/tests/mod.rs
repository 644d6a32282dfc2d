//! Devices and a server in one process.

mod backup;
mod crash;
mod devices;
mod fan_out;
mod fetch;
mod handshake;
mod keep;
mod lying;
mod publish;
mod report;
mod restored;
mod session;
mod tend;
mod trust;
mod weather;
mod weeks;

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use oncekey_types::{TimestampMs, UserId};

use super::{Client, Clock, Config, FetchOptions, NewDevice, Outgoing};
use crate::{
    fake::FakeServer,
    keystore::{SqliteKeyStore, StoreKey, Unlock},
    transport::Transport,
};

pub(super) const DAY_S: u64 = 24 * 60 * 60;

pub(super) type TestClient = Client<FakeServer, SqliteKeyStore>;

/// A clock that stands still until it is moved.
#[derive(Clone)]
pub(super) struct TestClock(Arc<AtomicU64>);

impl Clock for TestClock {
    fn now(&self) -> TimestampMs {
        TimestampMs(self.0.load(Ordering::Relaxed))
    }
}

impl TestClock {
    pub(super) fn pass_days(&self, days: u64) {
        self.pass_hours(days * 24);
    }

    pub(super) fn pass_hours(&self, hours: u64) {
        self.0.fetch_add(hours * DAY_S / 24 * 1000, Ordering::Relaxed);
    }
}

/// One server, one clock.
pub(super) struct World {
    pub(super) server: FakeServer,
    pub(super) clock: TestClock,
}

impl World {
    pub(super) fn new() -> Self {
        Self {
            server: FakeServer::default(),
            clock: TestClock(Arc::new(AtomicU64::new(1_790_000_000_000))),
        }
    }

    pub(super) fn config(&self) -> Config {
        Config { clock: Box::new(self.clock.clone()), ..Config::default() }
    }

    /// A new device in memory.
    pub(super) fn device(&self, user: &str, device: u32) -> TestClient {
        let store = SqliteKeyStore::in_memory().unwrap();
        let new = NewDevice::new(user_id(user), device);
        Client::create(store, self.server.clone(), new).unwrap().with_config(self.config())
    }

    /// A new device in a folder.
    pub(super) fn device_in(&self, folder: &Path, user: &str) -> TestClient {
        let store = SqliteKeyStore::open(folder, &unlock()).unwrap();
        let new = NewDevice::new(user_id(user), 1);
        Client::create(store, self.server.clone(), new).unwrap().with_config(self.config())
    }

    /// The device in a folder, after a restart.
    pub(super) fn reopen(&self, folder: &Path) -> TestClient {
        let store = SqliteKeyStore::open(folder, &unlock()).unwrap();
        Client::open(store, self.server.clone()).unwrap().with_config(self.config())
    }
}

/// What all stores of these tests are locked with.
pub(super) fn unlock() -> Unlock {
    Unlock::Key(StoreKey::from_bytes(&[7; 32]))
}

pub(super) fn user_id(name: &str) -> UserId {
    UserId::new(name).unwrap()
}

/// A first message of `alice` to the first device of `user`.
pub(super) async fn first_message<T: Transport>(alice: &Client<T>, user: &str) -> Outgoing {
    let fetched = alice.fetch(&user_id(user), &FetchOptions::default()).await.unwrap();
    let bundle = fetched.bundles.into_iter().next().unwrap().bundle.unwrap();
    alice.initiate(bundle, b"hello", b"ad").unwrap()
}
