//! Who asks, opened to the fuzz targets.

use std::time::Duration;

use axum::http::Request;
use oncekey_types::TimestampMs;
use oncekey_x3dh::keys::AuthenticationPublic;

use super::{
    Received,
    signature::{Expected, SignedRequest},
};

pub use super::tokens::fuzzing::KnownKeys;

/// A request, in parts.
#[derive(Clone, Copy, Debug)]
pub struct Parts<'a> {
    /// The method.
    pub method: &'a str,
    /// Path and query.
    pub target: &'a str,
    /// Header fields.
    pub fields: &'a [(&'a str, &'a [u8])],
    /// The body.
    pub body: &'a [u8],
}

/// A signature of a form that is taken, at its time.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Signed {
    /// Who says to have made it.
    pub key_id: String,
    /// What it is of.
    pub base: String,
    /// Whether it was made with the key that was asked for.
    pub is_of_key: bool,
}

/// The signature of `request` at the time `now`; none when it is no request, or the signature is not
/// taken.
#[must_use]
pub fn signature(
    request: Parts<'_>,
    now: TimestampMs,
    key: &AuthenticationPublic,
) -> Option<Signed> {
    let builder = Request::builder().method(request.method).uri(request.target);
    let builder =
        request.fields.iter().fold(builder, |builder, (name, value)| builder.header(*name, *value));
    let (head, ()) = builder.body(()).ok()?.into_parts();
    let received = Received { head: &head, body: request.body };
    let expected = Expected { now, skew: Duration::from_secs(30), authorities: &[] };
    let signed = SignedRequest::read(received, expected).ok()?;
    let is_of_key = signed.verify(key);
    Some(Signed { key_id: signed.key_id, base: signed.base, is_of_key })
}
