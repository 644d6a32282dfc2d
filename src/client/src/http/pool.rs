//! Connections, requests and replies.
//!
//! Guarantees: connections are kept alive and shared; a request is sent once, so that every
//! attempt is counted by the caller.
//!
//! Leaves out: how connections are made; see `connect`.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper::{
    HeaderMap, Request,
    body::Incoming,
    header::{CONTENT_TYPE, HeaderValue, InvalidHeaderValue},
};
use hyper_util::{
    client::legacy::Client,
    rt::{TokioExecutor, TokioTimer},
};
use oncekey_api::header;
use oncekey_types::{CallerId, LogIndex, ShardId, limits};
use serde::de::DeserializeOwned;

use super::{Endpoint, connect::Connector};
use crate::transport::{AttemptFailure, Call, Method, Route, decode};

/// How long an idle connection is kept.
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);

#[derive(Debug)]
pub(super) struct Pool(Client<Connector, Full<Bytes>>);

impl Pool {
    pub(super) fn new(connector: Connector) -> Self {
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE_TIMEOUT)
            .pool_max_idle_per_host(limits::IDLE_CONNECTIONS_MAX)
            // A hidden second attempt would not be counted.
            .retry_canceled_requests(false)
            .build(connector);
        Self(client)
    }
}

/// A reply whose status and body are in, not yet understood.
pub(super) struct Reply {
    status: u16,
    body: Bytes,
}

impl Reply {
    pub(super) fn decode<R: DeserializeOwned>(&self) -> Result<R, AttemptFailure> {
        decode(self.status, &self.body)
    }
}

impl Pool {
    pub(super) async fn send(
        &self,
        request: Request<Full<Bytes>>,
    ) -> Result<(Route, Reply), AttemptFailure> {
        let response = self.0.request(request).await.map_err(|error| {
            if error.is_connect() { AttemptFailure::Connect } else { AttemptFailure::Lost }
        })?;
        let (head, body) = response.into_parts();
        let reply = Reply { status: head.status.as_u16(), body: read(body).await? };
        Ok((route(&head.headers), reply))
    }
}

pub(super) fn header_value(bytes: &[u8]) -> Result<HeaderValue, InvalidHeaderValue> {
    HeaderValue::from_bytes(bytes)
}

/// The request of `call` to the node at `endpoint`.
pub(super) fn request(
    endpoint: &Endpoint,
    caller: &CallerId,
    call: &Call,
) -> Result<Request<Full<Bytes>>, AttemptFailure> {
    let method = match call.method {
        Method::Get => hyper::Method::GET,
        Method::Put => hyper::Method::PUT,
        Method::Post => hyper::Method::POST,
        Method::Delete => hyper::Method::DELETE,
    };
    // Neither can fail: paths are percent-encoded and the caller was checked. Were it otherwise,
    // nothing would be sent.
    let uri = endpoint.uri(&call.path).ok_or(AttemptFailure::Connect)?;
    let caller = header_value(caller.as_bytes()).map_err(|_| AttemptFailure::Connect)?;
    let mut request = Request::new(Full::new(call.body.clone()));
    *request.method_mut() = method;
    *request.uri_mut() = uri;
    let headers = request.headers_mut();
    headers.insert(header::CALLER, caller);
    if !call.body.is_empty() {
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    }
    if let Some(key) = &call.idempotency_key {
        let key = header_value(key.as_bytes()).map_err(|_| AttemptFailure::Connect)?;
        headers.insert(header::IDEMPOTENCY_KEY, key);
    }
    Ok(request)
}

async fn read(body: Incoming) -> Result<Bytes, AttemptFailure> {
    match Limited::new(body, limits::REPLY_MAX_BYTES).collect().await {
        Ok(body) => Ok(body.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(AttemptFailure::ReplyTooLarge),
        Err(_) => Err(AttemptFailure::Lost),
    }
}

fn route(headers: &HeaderMap) -> Route {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    Route {
        shard: text(header::SHARD).and_then(|shard| shard.parse().ok().map(ShardId)),
        leader: text(header::LEADER).map(str::to_owned),
        index: text(header::INDEX).and_then(|index| index.parse().ok().map(LogIndex)),
    }
}
