//! One function for each endpoint: parse, check, propose, answer.
//!
//! Guarantees: a handler holds no state of its own and proposes only what has been checked.

pub(crate) mod admin;
pub(crate) mod bundles;
pub(crate) mod cluster;
pub(crate) mod devices;
pub(crate) mod events;
#[cfg(feature = "failpoints")]
pub(crate) mod failpoints;
mod nodes;
pub(crate) mod reports;
pub(crate) mod status_page;
pub(crate) mod users;
