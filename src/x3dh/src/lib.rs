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
pub use safety_number::SafetyNumber;
pub use schedule::{AppAd, DedupKey, SessionKeys};
