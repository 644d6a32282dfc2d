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
    HeaderMap, Request, Response,
    body::Incoming,
    header::{AUTHORIZATION, CONTENT_TYPE, HOST, HeaderValue, InvalidHeaderValue},
};
use hyper_util::{
    client::legacy::Client,
    rt::{TokioExecutor, TokioTimer},
};
use oncekey_api::{event::EVENT_STREAM, header};
use oncekey_types::{LogIndex, ShardId, limits};
use serde::de::{DeserializeOwned, IgnoredAny};

use super::{Asker, Endpoint, connect::Connector};
use crate::transport::{AttemptFailure, Call, Credentials, Method, Route, decode};

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
        let (head, body) = self.response(request).await?.into_parts();
        let reply = Reply { status: head.status.as_u16(), body: read(body).await? };
        Ok((route(&head.headers), reply))
    }

    /// The body of a reply that is a stream of events.
    pub(super) async fn open_events(
        &self,
        request: Request<Full<Bytes>>,
    ) -> Result<Incoming, AttemptFailure> {
        let (head, body) = self.response(request).await?.into_parts();
        let kind = head.headers.get(CONTENT_TYPE).map(HeaderValue::as_bytes);
        if head.status.is_success() && kind.is_some_and(|k| k.starts_with(EVENT_STREAM.as_bytes()))
        {
            return Ok(body);
        }
        let reply = Reply { status: head.status.as_u16(), body: read(body).await? };
        reply.decode::<IgnoredAny>().and(Err(AttemptFailure::ReplyMalformed))
    }

    async fn response(
        &self,
        request: Request<Full<Bytes>>,
    ) -> Result<Response<Incoming>, AttemptFailure> {
        self.0.request(request).await.map_err(|error| {
            if error.is_connect() { AttemptFailure::Connect } else { AttemptFailure::Lost }
        })
    }
}

pub(super) fn header_value(bytes: &[u8]) -> Result<HeaderValue, InvalidHeaderValue> {
    HeaderValue::from_bytes(bytes)
}

/// The request of `call` by `asker` to the node at `endpoint`, so much `later` than the call was made.
pub(super) fn request(
    endpoint: &Endpoint,
    call: &Call,
    asker: &Asker<'_>,
    later: Duration,
) -> Result<Request<Full<Bytes>>, AttemptFailure> {
    let method = match call.method {
        Method::Get => hyper::Method::GET,
        Method::Put => hyper::Method::PUT,
        Method::Post => hyper::Method::POST,
        Method::Delete => hyper::Method::DELETE,
    };
    // None can fail: paths are percent-encoded and the rest was checked. Were it otherwise,
    // nothing would be sent.
    let uri = endpoint.uri(&call.path).ok_or(AttemptFailure::Connect)?;
    let value = |text: &str| header_value(text.as_bytes()).map_err(|_| AttemptFailure::Connect);
    let host = value(endpoint.authority())?;
    let mut request = Request::new(Full::new(call.body.clone()));
    *request.method_mut() = method;
    *request.uri_mut() = uri;
    let headers = request.headers_mut();
    match asker {
        Asker::Name(caller) => drop(headers.insert(header::CALLER, value(caller.as_str())?)),
        Asker::Token(token) => {
            let bearer = token.bearer().map_err(|_| AttemptFailure::Connect)?;
            headers.insert(AUTHORIZATION, bearer);
        }
        Asker::Nobody => {}
    }
    if let Credentials::Signature(signer) = &call.credentials {
        let signed = signer.sign(call.method, endpoint.authority(), &call.path, &call.body, later);
        headers.insert(header::CONTENT_DIGEST, value(&signed.content_digest)?);
        headers.insert(header::SIGNATURE_INPUT, value(&signed.signature_input)?);
        headers.insert(header::SIGNATURE, value(&signed.signature)?);
    }
    if !call.body.is_empty() {
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    }
    if let Some(key) = &call.idempotency_key {
        headers.insert(header::IDEMPOTENCY_KEY, value(key.as_str())?);
    }
    // As it was signed.
    headers.insert(HOST, host);
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
        epoch: text(header::EPOCH).and_then(|epoch| epoch.parse().ok()),
    }
}
