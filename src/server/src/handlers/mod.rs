//! One function for each endpoint: parse, check, propose, answer.
//!
//! Guarantees: a handler holds no state of its own and proposes only what has been checked.

pub(crate) mod admin;
pub(crate) mod backup;
pub(crate) mod bundles;
pub(crate) mod cluster;
pub(crate) mod devices;
pub(crate) mod events;
#[cfg(feature = "failpoints")]
pub(crate) mod failpoints;
mod nodes;
pub(crate) mod reports;
pub(crate) mod restore;
pub(crate) mod status_page;
pub(crate) mod users;

use std::str::FromStr;

use axum::extract::RawPathParams;
use oncekey_api::{Code, Problem};

/// The part of the path that a route names `name`.
fn part<T: FromStr>(params: &RawPathParams, name: &str) -> Result<T, Problem> {
    let value = params.iter().find(|(key, _)| *key == name).and_then(|(_, text)| text.parse().ok());
    let malformed = || Problem::new(Code::MalformedPath, format!("the path has no {name}"));
    value.ok_or_else(malformed)
}
