//! The client library: publish, fetch, handshake.
//!
//! A device has a [`Client`]: its long-term keys, a [key store](keystore) and a way to reach the
//! servers. Bob publishes; Alice fetches, gets one bundle for each of Bob's devices, and sends a
//! first message to each; Bob's devices open theirs.
//!
//! ```no_run
//! # async fn story() -> Result<(), Box<dyn std::error::Error>> {
//! use oncekey_client::{
//!     Client, FetchOptions, NewDevice, Received, SqliteKeyStore, Unlock,
//!     http::{AnyNode, Config},
//! };
//!
//! # fn deliver(_: &[u8]) -> Vec<u8> { Vec::new() }
//! let endpoints = vec!["127.0.0.1:8081".parse()?, "127.0.0.1:8082".parse()?];
//! let nodes = AnyNode::new(Config::new(endpoints, "alice/1".parse()?)?);
//!
//! // Once for each device. Later: `Client::open`.
//! let unlock = Unlock::passphrase("correct horse battery staple")?;
//! let store = SqliteKeyStore::open("alice", &unlock)?;
//! let alice = Client::create(store, nodes.clone(), NewDevice::new("alice".parse()?, 1))?;
//! let store = SqliteKeyStore::open("bob", &unlock)?;
//! let bob = Client::create(store, nodes, NewDevice::new("bob".parse()?, 1))?;
//!
//! bob.publish(100).await?;
//!
//! let fetched = alice.fetch(&"bob".parse()?, &FetchOptions::default()).await?;
//! for device in fetched.bundles {
//!     let outgoing = alice.initiate(device.bundle?, b"hello", b"")?;
//!     match bob.receive(&deliver(&outgoing.message), b"")? {
//!         Received::New { payload, session } => {
//!             assert_eq!(payload.as_bytes(), b"hello");
//!             assert_eq!(session.id, outgoing.session.id);
//!         }
//!         Received::Duplicate { .. } => {} // delivered before: nothing to show
//!     }
//! }
//! # Ok(())
//! # }
//! ```
//!
//! Guarantees:
//!
//! * A fetch pops at most one key for each device, through any number of retries at any number of
//!   nodes.
//! * A write is stored before it is sent, and sent again byte for byte until it is answered: after
//!   a crash between the two, no key is out whose secret is not here.
//! * A message is delivered at most once. Its one-time prekey's secret is erased in the transaction that
//!   stores the session; a message that does not open erases nothing.
//! * Secrets lie sealed in the key store, under a passphrase or a key kept elsewhere.
//! * A change of trust is an event that the application answers, never a silence; see [`trust`].
//!
//! Leaves out: the ratchet that goes on from a [`Session`], unless the feature `ratchet` is on;
//! TLS.
//!
//! Three layers: [`machine`] is pure and decides, [`keystore`] remembers, [`http`] retries.
//! [`Client`] puts them in the right order.

mod client;
#[cfg(test)]
mod fake;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
pub mod http;
pub mod keystore;
pub mod machine;
pub mod pairing;
pub mod preset;
#[cfg(feature = "qr")]
pub mod qr;
#[cfg(feature = "ratchet")]
pub mod ratchet;
mod signer;
pub mod transport;
pub mod trust;
mod wire;

pub use client::{
    BundleRefused, ChangeDevicesError, Client, Clock, Config, DeviceBundle, DeviceOutcome, FanOut,
    FetchError, FetchOptions, Fetched, InitiateError, ListError, NewDevice, NoSafetyNumber,
    NotSent, Outgoing, Published, ReceiveError, Received, Reports, ServerEvent, StatusReport,
    SystemClock, TakeKeysError, Tended, UserFetched, WhyGone, WriteError, Written,
};
pub use keystore::{Export, KeysTaken, Session, SessionId, SqliteKeyStore, StoreKey, Unlock};
pub use machine::{Demand, Lifetimes, PoolPlan};
pub use pairing::PairingCode;
pub use preset::Preset;
pub use signer::{SignatureFields, Signer};
pub use transport::{Attempts, CallError};
pub use trust::{Answer, Change, IdentityChanged, NewDevices, TrustEvent};

pub use oncekey_x3dh::{
    Address, Failure, SafetyNumber, SessionKeys, device_list::ListedDevice, keys::AccountKeyPair,
};
pub use wire::BundleMalformed;
