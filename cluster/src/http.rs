//! HTTP requests by hand: to the admin listeners, and to whatever a test wants to poke at.
//!
//! Guarantees: one attempt on a connection of its own, a time limit on it, a limit on the size of
//! the reply. Leaves out: retries and routing; for those see the client library.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::{
    HeaderMap, Method, Request, StatusCode,
    header::{self, HeaderValue},
};
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use oncekey_api::Problem;
use oncekey_client::http::Connector;
use serde::{Serialize, de::DeserializeOwned};

const LIMIT: Duration = Duration::from_secs(10);
const REPLY_MAX_BYTES: usize = 16 * 1024 * 1024;

/// Sends requests.
#[derive(Clone, Debug)]
pub struct Http {
    client: Client<Connector, Full<Bytes>>,
    authorization: Option<HeaderValue>,
    limit: Duration,
}

/// What came back.
#[derive(Clone, Debug)]
pub struct Reply {
    /// The status.
    pub status: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
}

impl Default for Http {
    fn default() -> Self {
        Self::with_limit(LIMIT)
    }
}

impl Http {
    /// Requests that may take `limit`, reply included.
    #[must_use]
    pub fn with_limit(limit: Duration) -> Self {
        Self { client: client(Connector::new()), authorization: None, limit }
    }

    /// The same through `connector`, which knows whom to trust.
    #[must_use]
    pub fn through(mut self, connector: Connector) -> Self {
        self.client = client(connector);
        self
    }

    /// The same with another limit.
    #[must_use]
    pub fn within(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    /// The same with `value` in the header `authorization` of every request.
    #[must_use]
    pub fn authorized(mut self, value: Option<HeaderValue>) -> Self {
        self.authorization = value;
        self
    }

    /// Sends `request`.
    ///
    /// # Errors
    ///
    /// When there is no whole reply in time. Whether the request was carried out is then unknown.
    pub async fn send(&self, mut request: Request<Full<Bytes>>) -> Result<Reply> {
        let what = format!("{} {}", request.method(), request.uri());
        if let Some(value) = &self.authorization {
            request.headers_mut().insert(header::AUTHORIZATION, value.clone());
        }
        let exchange = async {
            let (head, body) = self.client.request(request).await?.into_parts();
            let body = match Limited::new(body, REPLY_MAX_BYTES).collect().await {
                Ok(body) => body.to_bytes(),
                Err(error) => bail!("the reply broke off: {error}"),
            };
            Ok(Reply { status: head.status, headers: head.headers, body })
        };
        tokio::time::timeout(self.limit, exchange)
            .await
            .with_context(|| format!("{what}: no reply within {:?}", self.limit))?
            .context(what)
    }

    /// Sends a request without a body.
    ///
    /// # Errors
    ///
    /// As [`send`](Self::send).
    pub async fn bare(&self, method: Method, url: &str) -> Result<Reply> {
        self.send(Request::builder().method(method).uri(url).body(Full::default())?).await
    }

    /// Sends `body` as JSON with further `headers`.
    ///
    /// # Errors
    ///
    /// As [`send`](Self::send).
    pub async fn json(
        &self,
        method: Method,
        url: &str,
        headers: &[(&str, &str)],
        body: &impl Serialize,
    ) -> Result<Reply> {
        let mut request = Request::builder()
            .method(method)
            .uri(url)
            .header(header::CONTENT_TYPE, "application/json");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        self.send(request.body(Full::from(serde_json::to_vec(body)?))?).await
    }
}

fn client(connector: Connector) -> Client<Connector, Full<Bytes>> {
    // A kept connection may be closed by the node just when it is used again.
    Client::builder(TokioExecutor::new()).pool_max_idle_per_host(0).build(connector)
}

impl Reply {
    /// The body of a success.
    ///
    /// # Errors
    ///
    /// The problem of any other reply.
    pub fn parse<T: DeserializeOwned>(&self) -> Result<T> {
        self.expect_success()?;
        serde_json::from_slice(&self.body)
            .with_context(|| format!("not the form of a reply: {}", self.text()))
    }

    /// Fails unless the reply is a success.
    ///
    /// # Errors
    ///
    /// The problem.
    pub fn expect_success(&self) -> Result<()> {
        if self.status.is_success() {
            return Ok(());
        }
        match self.problem() {
            Ok(problem) if problem.members.reasons.is_empty() => {
                bail!("{}: {problem}", self.status)
            }
            Ok(problem) => {
                bail!("{}: {problem}: {}", self.status, problem.members.reasons.join("; "))
            }
            Err(_) => bail!("{}: {}", self.status, self.text()),
        }
    }

    /// The problem document in the body.
    ///
    /// # Errors
    ///
    /// When there is none.
    pub fn problem(&self) -> Result<Problem> {
        serde_json::from_slice(&self.body).with_context(|| format!("no problem: {}", self.text()))
    }

    /// The body as text, for messages.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}
