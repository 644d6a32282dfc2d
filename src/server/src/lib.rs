//! The HTTP server of a node.
//!
//! Guarantees: input from the network is parsed and checked before it is proposed: what reaches
//! the state machine has valid points and signatures and is inside its limits. Bad input gets a
//! problem document and changes nothing. A reply that cannot tell whether a write was carried out
//! says so.
//!
//! Leaves out: consensus and storage (`oncekey-raft`), and whether a command may be carried out
//! (`oncekey-store`).
//!
//! Start with [`Server`] and [`Config`]; a request passes `listener` (connections), `edge`
//! (admission, metrics), `extract` (parsing), [`auth`] (who asks), `handlers`, and `check` (points and
//! signatures).

mod addresses;
mod app;
pub mod auth;
mod check;
pub mod config;
mod convert;
mod edge;
mod extract;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod handlers;
mod impatient;
mod listener;
mod metrics;
mod openapi;
mod reply;
mod server;
pub mod tls;
mod trace;

pub use config::{Config, Overrides};
pub use server::{RunError, Server, StartError};
