//! HTTP wire types, version 1, shared by server and client.
//!
//! Guarantees: one definition of every path, header, body and error code, so that server and client
//! cannot disagree. Bytes are base64url without padding, ids are numbers, times are Unix
//! milliseconds unless a type says seconds, and a user is percent-encoded in paths. A request with
//! a field that is not known is refused; a reply may gain fields within version 1, so a reader
//! ignores those it does not know.
//!
//! Leaves out: what keys and signatures mean. A [`Base64`] of the wrong length is well-formed here
//! and refused by whoever parses the key.
pub mod backup;
mod base64url;
pub mod bundle;
pub mod cluster;
pub mod device;
pub mod event;
pub mod header;
pub mod key;
#[cfg(feature = "openapi")]
mod openapi;
pub mod path;
pub mod problem;
pub mod report;
pub mod signature;
pub mod user;

pub use base64url::Base64;
pub use problem::{Code, Problem};
