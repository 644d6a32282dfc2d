//! The X3DH handshake: keys, bundles, initiator, responder.
//!
//! Two profiles:
//!
//! * The native one, which everything but [`plain`] is about. Prekeys are
//!   signed with their owner, id and time; the secret is bound to both sides' names, devices and
//!   keys; the first message carries a payload. The formulae stand at the head of the modules:
//!   [`prekey`] and [`device_list`] (what is signed), [`schedule`] (the keys), [`message`] (the
//!   wire), [`initiator`] and [`responder`] (who computes what, in which order).
//! * The [`plain`] one: the X3DH of Signal's specification, byte for byte what the Python package
//!   X3DH computes.
//!
//! ```text
//! Bundle ── verify ──▶ VerifiedBundle ── initiate ──▶ Initiated ── seal ──▶ Sealed
//! bytes ── Received::parse ── open ──▶ Opened ── accept ──▶ Accepted ── commit ──▶ Delivered
//! ```
//!
//! ```
//! use oncekey_types::{DeviceId, SignedPreKeyId, UnixSeconds, UserId};
//! use oncekey_x3dh::{
//!     Address, AppAd, Bundle, Expectations, LocalDevice, Received,
//!     keys::{IdentityKeyPair, SignedPreKeyPair},
//! };
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let rng = &mut rand::rng();
//! let now = UnixSeconds(1_790_000_000);
//! let expires = UnixSeconds(now.0 + 90 * 24 * 3600);
//!
//! // Bob publishes.
//! let bob = Address::new(&UserId::new("bob")?, DeviceId(1));
//! let ik_b = IdentityKeyPair::generate(rng);
//! let spk_b = SignedPreKeyPair::generate(SignedPreKeyId(1), rng);
//! let bundle = Bundle {
//!     owner: bob.clone(),
//!     identity: *ik_b.public(),
//!     signed_prekey: spk_b.sign(&ik_b, &bob, now, expires, rng),
//!     one_time_prekey: None,
//! };
//!
//! // Alice fetches, verifies and sends.
//! let alice = Address::new(&UserId::new("alice")?, DeviceId(1));
//! let ik_a = IdentityKeyPair::generate(rng);
//! let local = LocalDevice { address: &alice, identity: &ik_a };
//! let sealed = bundle
//!     .verify(now, &Expectations::default())?
//!     .initiate(local, AppAd::default(), rng)?
//!     .seal(b"hello, bob")?;
//!
//! // Bob opens, stores and only then reads.
//! let local = LocalDevice { address: &bob, identity: &ik_b };
//! let delivered = Received::parse(&sealed.message, &bob)?
//!     .open(local, &spk_b, None, AppAd::default())?
//!     .accept(&Expectations { identity: Some(ik_a.public()), ..Expectations::default() })?
//!     .commit(|record| {
//!         // Insert record.dedup(), delete the one-time prekey, store record.session().
//!         Ok::<(), std::io::Error>(())
//!     })?;
//! assert_eq!(delivered.payload.as_bytes(), b"hello, bob");
//! assert_eq!(delivered.record.session().root().as_bytes(), sealed.session.root().as_bytes());
//! # Ok(())
//! # }
//! ```
//!
//! Guarantees: pure. No clock, no generator, no storage and no network of its own; times and
//! generators are arguments. What passes from one step to the next has been checked, and secrets
//! are erased where they are no longer needed.
//!
//! Leaves out: the ratchet, which starts from [`SessionKeys`]; the key store; post-quantum
//! prekeys, for which suite 0x0002 is kept free.
//!
//! What an attacker needs to recover SK, with every key that may leak: `(ik_a ∨ spk_b) ∧ (ek_a ∨
//! (ik_b ∧ spk_b ∧ (opk_b ∨ no OPK)))`. An OPK gives forward secrecy and protects from replay,
//! and only when its secret is erased on the device.
#![no_std]

extern crate alloc;
#[cfg(test)]
extern crate std;

mod address;
pub mod bundle;
#[cfg(feature = "conformance")]
pub mod conformance;
pub mod device_list;
mod encode;
mod failure;
pub mod initiator;
pub mod introduction;
pub mod keys;
pub mod message;
pub mod plain;
pub mod prekey;
pub mod responder;
mod safety_number;
pub mod schedule;

pub use address::{Address, UserTooLong};
pub use bundle::{Bundle, Expectations, VerifiedBundle};
pub use failure::{Failure, HandshakeRefused};
pub use initiator::LocalDevice;
pub use responder::Received;
pub use safety_number::{NotASafetyNumber, SafetyNumber};
pub use schedule::{AppAd, DedupKey, SessionKeys};
