//! From a request to typed parts.
//!
//! Guarantees: what a handler receives has been parsed and is inside its limits: a path whose
//! parts are percent-encoded UTF-8, a query without unknown parameters, a body that came in time,
//! is no longer than allowed, is declared as JSON and has the required form. Anything else is a
//! problem document and reaches no handler.
//!
//! Leaves out: what keys and signatures mean; see [`check`](crate::check).

use std::{sync::Arc, time::Duration};

use axum::{
    body::{Body, Bytes, HttpBody as _},
    extract::{FromRequest, FromRequestParts, RawPathParams, Request},
    http::{HeaderMap, Uri, header, request::Parts},
};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use oncekey_api::{Code, Problem, device::Register, header as names, path};
use oncekey_types::{DeviceId, RequestId, Seq, UserId};
use serde::de::DeserializeOwned;
use sha2::{Digest as _, Sha256};

use crate::{
    app::App,
    auth::{Caller, DeviceAuthority, Received, Registering, Remover, Reporter, single_header},
    reply::Rejection,
};

/// The user that the path names.
pub(crate) struct UserPath(pub(crate) UserId);

impl FromRequestParts<Arc<App>> for UserPath {
    type Rejection = Rejection;

    async fn from_request_parts(head: &mut Parts, app: &Arc<App>) -> Result<Self, Rejection> {
        no_query(&head.uri)?;
        let params = path_params(head, app).await?;
        Ok(Self(user(&params)?))
    }
}

/// The target has no parameters.
pub(crate) struct NoQuery;

impl FromRequestParts<Arc<App>> for NoQuery {
    type Rejection = Rejection;

    async fn from_request_parts(head: &mut Parts, _: &Arc<App>) -> Result<Self, Rejection> {
        no_query(&head.uri)?;
        Ok(Self)
    }
}

/// The right to read what belongs to a device.
impl FromRequestParts<Arc<App>> for DeviceAuthority {
    type Rejection = Rejection;

    async fn from_request_parts(head: &mut Parts, app: &Arc<App>) -> Result<Self, Rejection> {
        no_query(&head.uri)?;
        let (user, device) = device_path(head, app).await?;
        let request = Received { head, body: &[] };
        Ok(app.authenticator.device(request, &user, device).await?)
    }
}

/// The right to hear what there is for a device to look at. Its target names the device in the
/// query, so that whoever signs the target signs the device.
pub(crate) struct EventsOf(pub(crate) DeviceAuthority);

impl FromRequestParts<Arc<App>> for EventsOf {
    type Rejection = Rejection;

    async fn from_request_parts(head: &mut Parts, app: &Arc<App>) -> Result<Self, Rejection> {
        let named = head.uri.query().and_then(path::device_of_events);
        let (user, device) = named.ok_or_else(|| {
            Problem::new(Code::MalformedQuery, "the parameters are user and device, in this order")
        })?;
        let request = Received { head, body: &[] };
        Ok(Self(app.authenticator.device(request, &user, device).await?))
    }
}

/// A device's removal.
pub(crate) struct Removal {
    pub(crate) user: UserId,
    pub(crate) device: DeviceId,
    pub(crate) remover: Remover,
    /// Number of the write, when the device itself asks.
    pub(crate) seq: Option<Seq>,
}

impl FromRequestParts<Arc<App>> for Removal {
    type Rejection = Rejection;

    async fn from_request_parts(head: &mut Parts, app: &Arc<App>) -> Result<Self, Rejection> {
        let seq = seq_query(&head.uri)?;
        let (user, device) = device_path(head, app).await?;
        let request = Received { head, body: &[] };
        let remover = app.authenticator.remover(request, &user, device).await?;
        if matches!(remover, Remover::Device(_)) && seq.is_none() {
            let detail = "a device numbers its removal, as its other writes: ?seq=…";
            return Err(Problem::new(Code::SeqMissing, detail).into());
        }
        Ok(Self { user, device, remover, seq })
    }
}

/// A device's write with a body.
pub(crate) struct DeviceWrite<T> {
    pub(crate) authority: DeviceAuthority,
    pub(crate) body: T,
    /// SHA-256 of method, path and body: two requests are the same write when it agrees.
    pub(crate) digest: [u8; 32],
}

impl<T: DeserializeOwned> FromRequest<Arc<App>> for DeviceWrite<T> {
    type Rejection = Rejection;

    async fn from_request(request: Request, app: &Arc<App>) -> Result<Self, Rejection> {
        let (mut head, bytes) = read_body(request, app).await?;
        no_query(&head.uri)?;
        let (user, device) = device_path(&mut head, app).await?;
        let request = Received { head: &head, body: &bytes };
        let authority = app.authenticator.device(request, &user, device).await?;
        let digest = write_digest(&head, &bytes);
        Ok(Self { authority, body: parse_json(&bytes)?, digest })
    }
}

/// A device's registration.
pub(crate) struct Registration(pub(crate) DeviceWrite<Register>);

impl FromRequest<Arc<App>> for Registration {
    type Rejection = Rejection;

    async fn from_request(request: Request, app: &Arc<App>) -> Result<Self, Rejection> {
        let (mut head, bytes) = read_body(request, app).await?;
        no_query(&head.uri)?;
        let (user, device) = device_path(&mut head, app).await?;
        let body: Register = parse_json(&bytes)?;
        let request = Received { head: &head, body: &bytes };
        let registering = Registering {
            user: &user,
            device,
            follows: body.follows,
            authentication_key: &body.authentication_key.0,
        };
        let authority = app.authenticator.registration(request, registering).await?;
        let digest = write_digest(&head, &bytes);
        Ok(Self(DeviceWrite { authority, body, digest }))
    }
}

/// What is written in the name of a user's account.
pub(crate) struct AccountWrite<T> {
    pub(crate) user: UserId,
    pub(crate) body: T,
}

impl<T: DeserializeOwned> FromRequest<Arc<App>> for AccountWrite<T> {
    type Rejection = Rejection;

    async fn from_request(request: Request, app: &Arc<App>) -> Result<Self, Rejection> {
        let (mut head, body) = request.into_parts();
        let UserPath(user) = UserPath::from_request_parts(&mut head, app).await?;
        app.authenticator.account(&head, &user).await?;
        let request = Request::from_parts(head, body);
        let JsonBody(body) = JsonBody::from_request(request, app).await?;
        Ok(Self { user, body })
    }
}

/// What a device tells of itself.
pub(crate) struct DeviceReport<T> {
    pub(crate) reporter: Reporter,
    pub(crate) body: T,
}

impl<T: DeserializeOwned> FromRequest<Arc<App>> for DeviceReport<T> {
    type Rejection = Rejection;

    async fn from_request(request: Request, app: &Arc<App>) -> Result<Self, Rejection> {
        let (head, bytes) = read_body(request, app).await?;
        no_query(&head.uri)?;
        let request = Received { head: &head, body: &bytes };
        let reporter = app.authenticator.reporter(request).await?;
        Ok(Self { reporter, body: parse_json(&bytes)? })
    }
}

/// A body that is JSON.
pub(crate) struct JsonBody<T>(pub(crate) T);

impl<T: DeserializeOwned> FromRequest<Arc<App>> for JsonBody<T> {
    type Rejection = Rejection;

    async fn from_request(request: Request, app: &Arc<App>) -> Result<Self, Rejection> {
        let (_, bytes) = read_body(request, app).await?;
        Ok(Self(parse_json(&bytes)?))
    }
}

impl FromRequestParts<Arc<App>> for Caller {
    type Rejection = Rejection;

    async fn from_request_parts(head: &mut Parts, app: &Arc<App>) -> Result<Self, Rejection> {
        Ok(app.authenticator.caller(head).await?)
    }
}

/// The name of a fetch.
pub(crate) struct IdempotencyKey(pub(crate) RequestId);

impl FromRequestParts<Arc<App>> for IdempotencyKey {
    type Rejection = Rejection;

    async fn from_request_parts(head: &mut Parts, _: &Arc<App>) -> Result<Self, Rejection> {
        Ok(Self(idempotency_key(head)?))
    }
}

pub(crate) fn idempotency_key(head: &Parts) -> Result<RequestId, Problem> {
    let name = names::IDEMPOTENCY_KEY;
    let Some(value) = single_header(head, name)? else {
        let detail = "a fetch names itself, so that a retry gets the same answer";
        return Err(Problem::new(Code::IdempotencyKeyMissing, detail));
    };
    RequestId::new(value)
        .map_err(|error| Problem::new(Code::MalformedHeader, format!("{name} {error}")))
}

/// The device that the path names.
async fn device_path(head: &mut Parts, app: &Arc<App>) -> Result<(UserId, DeviceId), Rejection> {
    let params = path_params(head, app).await?;
    Ok((user(&params)?, device(&params)?))
}

pub(crate) async fn path_params<S: Send + Sync>(
    head: &mut Parts,
    state: &S,
) -> Result<RawPathParams, Rejection> {
    let malformed = |what| Problem::new(Code::MalformedPath, what);
    if !is_percent_encoded(head.uri.path()) {
        return Err(malformed("a percent sign is not followed by two hexadecimal digits").into());
    }
    RawPathParams::from_request_parts(head, state)
        .await
        .map_err(|_| malformed("a part of the path is not UTF-8").into())
}

fn is_percent_encoded(path: &str) -> bool {
    let hex = |digit: Option<u8>| digit.is_some_and(|digit| digit.is_ascii_hexdigit());
    let mut bytes = path.bytes();
    while let Some(byte) = bytes.next() {
        if byte == b'%' && !(hex(bytes.next()) && hex(bytes.next())) {
            return false;
        }
    }
    true
}

pub(crate) fn user(params: &RawPathParams) -> Result<UserId, Problem> {
    UserId::new(param(params, "user"))
        .map_err(|error| Problem::new(Code::MalformedPath, format!("the user {error}")))
}

/// A device id has one spelling, so that a target names one device only.
pub(crate) fn device(params: &RawPathParams) -> Result<DeviceId, Problem> {
    let text = param(params, "device");
    text.parse::<DeviceId>().ok().filter(|device| device.to_string() == text).ok_or_else(|| {
        Problem::new(Code::MalformedPath, "the device is not a number from 0 to 4294967295")
    })
}

/// The parameter of the route; empty, and so refused, when the route has none of this name.
fn param<'a>(params: &'a RawPathParams, name: &str) -> &'a str {
    params.iter().find(|(key, _)| *key == name).map_or("", |(_, value)| value)
}

fn no_query(uri: &Uri) -> Result<(), Problem> {
    match uri.query() {
        None | Some("") => Ok(()),
        Some(_) => Err(Problem::new(Code::MalformedQuery, "no parameters are known here")),
    }
}

pub(crate) fn seq_query(uri: &Uri) -> Result<Option<Seq>, Problem> {
    let Some(query) = uri.query().filter(|query| !query.is_empty()) else { return Ok(None) };
    query
        .strip_prefix("seq=")
        .and_then(|text| text.parse::<Seq>().ok().filter(|seq| seq.to_string() == text))
        .map(Some)
        .ok_or_else(|| Problem::new(Code::MalformedQuery, "the one parameter is seq, a number"))
}

async fn read_body(request: Request, app: &App) -> Result<(Parts, Bytes), Problem> {
    let (head, body) = request.into_parts();
    if !is_json(&head.headers) {
        let detail = "the header content-type must say application/json";
        return Err(Problem::new(Code::UnsupportedMediaType, detail));
    }
    Ok((head, read_bytes(body, app.http.body_max_bytes, app.http.body_timeout).await?))
}

/// A body of at most `limit` bytes, when it comes in time.
pub(crate) async fn read_bytes(
    body: Body,
    limit: usize,
    timeout: Duration,
) -> Result<Bytes, Problem> {
    let too_large = || Problem::new(Code::BodyTooLarge, format!("the limit is {limit} bytes"));
    if body.size_hint().lower() > u64::try_from(limit).unwrap_or(u64::MAX) {
        // Announced, so there is no need to wait for it.
        return Err(too_large());
    }
    let body = Limited::new(body, limit).collect();
    match tokio::time::timeout(timeout, body).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(too_large()),
        Ok(Err(_)) => Err(Problem::new(Code::MalformedJson, "the body broke off")),
        Err(_) => Err(Problem::new(
            Code::RequestTimeout,
            format!("the body must arrive within {} ms", timeout.as_millis()),
        )),
    }
}

fn is_json(headers: &HeaderMap) -> bool {
    let Some(Ok(value)) = headers.get(header::CONTENT_TYPE).map(|value| value.to_str()) else {
        return false;
    };
    let media_type = value.split(';').next().unwrap_or_default().trim();
    media_type.eq_ignore_ascii_case("application/json")
}

pub(crate) fn parse_json<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Problem> {
    // A derived parser would also take the fields as an array, in their order.
    if bytes.trim_ascii_start().first() == Some(&b'[') {
        return Err(Problem::new(Code::InvalidBody, "the body must be an object"));
    }
    serde_json::from_slice(bytes).map_err(|error| {
        let code = if error.is_data() { Code::InvalidBody } else { Code::MalformedJson };
        Problem::new(code, error.to_string())
    })
}

/// `SHA-256("oncekey write v1" ‖ lp(method) ‖ lp(path) ‖ body)`, where lp puts the length in
/// front as two big-endian bytes.
fn write_digest(head: &Parts, body: &[u8]) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash.update(b"oncekey write v1");
    for part in [head.method.as_str(), head.uri.path()] {
        // A head is shorter than 64 KiB.
        let length = u16::try_from(part.len()).unwrap_or(u16::MAX);
        hash.update(length.to_be_bytes());
        hash.update(part.as_bytes());
    }
    hash.update(body);
    hash.finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_percent_sign_needs_two_digits() {
        for path in ["/v1/users/bob", "/v1/users/%62ob", "/%E2%82%AC", ""] {
            assert!(is_percent_encoded(path), "{path}");
        }
        for path in ["/%", "/%6", "/%zz", "/%6g", "/%%41"] {
            assert!(!is_percent_encoded(path), "{path}");
        }
    }

    #[test]
    fn the_one_query_parameter_has_one_spelling() {
        let seq = |target: &'static str| seq_query(&Uri::from_static(target)).ok();
        assert_eq!(seq("/d"), Some(None));
        assert_eq!(seq("/d?seq=7"), Some(Some(Seq(7))));
        for target in
            ["/d?seq=", "/d?seq=07", "/d?seq=+7", "/d?seq=7&seq=8", "/d?sec=7", "/d?seq=-1"]
        {
            assert_eq!(seq(target), None, "{target}");
        }
    }
}
