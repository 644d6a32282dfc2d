//! The nodes of a cluster, on their admin listeners.
//!
//! Guarantees: every node is asked in turn, over and over, until one has an answer or the patience
//! ends; a refusal ends it at once. Leaves out: whom to trust over `https`, which the caller says.

use std::{
    error::Error,
    fmt,
    time::{Duration, Instant},
};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::{
    Method, Request, Response, Uri,
    body::Incoming,
    header::{self, HeaderValue},
};
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use oncekey_api::{Code, Problem, backup::Plan, header as names, path};
use oncekey_client::http::Connector;
use oncekey_types::{LogIndex, ShardId, limits};
use serde::{Serialize, de::DeserializeOwned};
use tokio::time::{sleep, timeout};

/// Time for one request to be answered, and for each piece of a stream to come.
const ANSWER_LIMIT: Duration = Duration::from_secs(30);
/// Pause before the nodes are asked again.
const PAUSE: Duration = Duration::from_millis(200);

/// Why the nodes have no answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AdminError {
    /// No endpoint was given, or one is none.
    #[error("{text:?} is not an endpoint: http://host:port or https://host:port")]
    Endpoint {
        /// The text.
        text: String,
    },
    /// No node answered in time.
    #[error("no node answered in {} s; the last, {endpoint}: {reason}", patience.as_secs())]
    Unanswered {
        /// How long they were asked.
        patience: Duration,
        /// The last one asked.
        endpoint: String,
        /// What became of it.
        reason: String,
    },
    /// A node refuses.
    #[error("{endpoint} refuses: {problem}")]
    Refused {
        /// The node.
        endpoint: String,
        /// Why.
        problem: Problem,
    },
}

/// The nodes of a cluster.
#[derive(Clone)]
pub struct Admin {
    client: Client<Connector, Full<Bytes>>,
    authorization: Option<HeaderValue>,
    endpoints: Vec<String>,
    patience: Duration,
}

/// What one node made of one request.
enum Attempt<T> {
    Done(T),
    /// Another node, or the same one later, may do better.
    NotYet(String),
    Refused(Problem),
}

impl Admin {
    /// The nodes at `endpoints`, reached over `connector` and asked for so long before they are given
    /// up.
    ///
    /// # Errors
    ///
    /// [`AdminError::Endpoint`].
    pub fn new(
        endpoints: &[String],
        connector: Connector,
        patience: Duration,
    ) -> Result<Self, AdminError> {
        let bad = |text: &str| AdminError::Endpoint { text: text.to_owned() };
        if endpoints.is_empty() {
            return Err(bad(""));
        }
        let endpoints = endpoints.iter().map(|text| {
            let uri: Uri = text.parse().map_err(|_| bad(text))?;
            match (uri.scheme_str(), uri.authority(), uri.path()) {
                (Some(scheme @ ("http" | "https")), Some(authority), "" | "/") => {
                    Ok(format!("{scheme}://{authority}"))
                }
                _ => Err(bad(text)),
            }
        });
        let endpoints = endpoints.collect::<Result<_, _>>()?;
        let client = Client::builder(TokioExecutor::new()).build(connector);
        Ok(Self { client, authorization: None, endpoints, patience })
    }

    /// The same with `value` in the header `authorization` of every request.
    #[must_use]
    pub fn authorized(mut self, value: Option<HeaderValue>) -> Self {
        self.authorization = value;
        self
    }

    pub(crate) async fn plan(&self) -> Result<Plan, AdminError> {
        self.ask(async |endpoint| {
            let request = Request::get(format!("{endpoint}{}", path::BACKUP));
            self.json(request.body(Full::default())).await
        })
        .await
    }

    /// Opens the backup of `shard` at a node that has it.
    pub(crate) async fn shard(&self, shard: ShardId) -> Result<ShardStream, AdminError> {
        self.ask(async |endpoint| {
            let request = Request::get(format!("{endpoint}{}", path::shard_backup(shard)));
            match self.response(request.body(Full::default())).await {
                Attempt::Done(response) => match index(&response) {
                    Some(index) => Attempt::Done(ShardStream { index, body: response.into_body() }),
                    None => Attempt::NotYet("the reply says no log index".to_owned()),
                },
                Attempt::NotYet(reason) => Attempt::NotYet(reason),
                Attempt::Refused(problem) => Attempt::Refused(problem),
            }
        })
        .await
    }

    pub(crate) async fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T, AdminError> {
        let body = Bytes::from(serde_json::to_vec(body).unwrap_or_default());
        self.ask(async |endpoint| {
            let request = Request::builder()
                .method(Method::POST)
                .uri(format!("{endpoint}{path}"))
                .header(header::CONTENT_TYPE, "application/json");
            self.json(request.body(Full::new(body.clone()))).await
        })
        .await
    }

    /// Posts bytes; the reply has no body.
    pub(crate) async fn post_bytes(&self, path: &str, body: Bytes) -> Result<(), AdminError> {
        self.ask(async |endpoint| {
            let request = Request::builder()
                .method(Method::POST)
                .uri(format!("{endpoint}{path}"))
                .header(header::CONTENT_TYPE, "application/octet-stream");
            match self.response(request.body(Full::new(body.clone()))).await {
                Attempt::Done(_) => Attempt::Done(()),
                Attempt::NotYet(reason) => Attempt::NotYet(reason),
                Attempt::Refused(problem) => Attempt::Refused(problem),
            }
        })
        .await
    }

    /// Asks the nodes in turn.
    async fn ask<T>(&self, attempt: impl AsyncFn(&str) -> Attempt<T>) -> Result<T, AdminError> {
        let began = Instant::now();
        loop {
            let mut last = (String::new(), String::new());
            for endpoint in &self.endpoints {
                match attempt(endpoint).await {
                    Attempt::Done(answer) => return Ok(answer),
                    Attempt::Refused(problem) => {
                        return Err(AdminError::Refused { endpoint: endpoint.clone(), problem });
                    }
                    Attempt::NotYet(reason) => last = (endpoint.clone(), reason),
                }
            }
            if began.elapsed() >= self.patience {
                let (endpoint, reason) = last;
                return Err(AdminError::Unanswered { patience: self.patience, endpoint, reason });
            }
            sleep(PAUSE).await;
        }
    }

    async fn json<T: DeserializeOwned>(
        &self,
        request: Result<Request<Full<Bytes>>, hyper::http::Error>,
    ) -> Attempt<T> {
        let response = match self.response(request).await {
            Attempt::Done(response) => response,
            Attempt::NotYet(reason) => return Attempt::NotYet(reason),
            Attempt::Refused(problem) => return Attempt::Refused(problem),
        };
        match body(response).await.map(|bytes| serde_json::from_slice(&bytes)) {
            Ok(Ok(answer)) => Attempt::Done(answer),
            Ok(Err(error)) => Attempt::NotYet(format!("the reply cannot be read: {error}")),
            Err(reason) => Attempt::NotYet(reason),
        }
    }

    /// The head of a reply that says that it succeeded.
    async fn response(
        &self,
        request: Result<Request<Full<Bytes>>, hyper::http::Error>,
    ) -> Attempt<Response<Incoming>> {
        let mut request = match request {
            Ok(request) => request,
            Err(error) => return Attempt::NotYet(error.to_string()),
        };
        if let Some(value) = &self.authorization {
            request.headers_mut().insert(header::AUTHORIZATION, value.clone());
        }
        let response = match timeout(ANSWER_LIMIT, self.client.request(request)).await {
            Ok(Ok(response)) => response,
            Ok(Err(error)) => return Attempt::NotYet(told(&error)),
            Err(_) => return Attempt::NotYet("no answer in time".to_owned()),
        };
        let status = response.status();
        if status.is_success() {
            return Attempt::Done(response);
        }
        let problem = body(response).await.map(|bytes| serde_json::from_slice::<Problem>(&bytes));
        match problem {
            // Another node may have the shard.
            Ok(Ok(problem)) if problem.code == Code::UnknownShard => {
                Attempt::NotYet(problem.to_string())
            }
            Ok(Ok(problem)) if problem.code.is_retryable() => Attempt::NotYet(problem.to_string()),
            Ok(Ok(problem)) => Attempt::Refused(problem),
            Ok(Err(_)) => Attempt::NotYet(format!("status {status}")),
            Err(reason) => Attempt::NotYet(reason),
        }
    }
}

impl fmt::Debug for Admin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Admin").field("endpoints", &self.endpoints).finish_non_exhaustive()
    }
}

/// A shard's backup as it comes from a node.
pub(crate) struct ShardStream {
    /// Log index of the last entry in it.
    pub(crate) index: LogIndex,
    body: Incoming,
}

impl ShardStream {
    /// The next bytes; none at the end. The text says why the stream broke off.
    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>, String> {
        loop {
            let frame = timeout(ANSWER_LIMIT, self.body.frame()).await;
            match frame.map_err(|_| "nothing came in time".to_owned())? {
                None => return Ok(None),
                Some(Err(error)) => return Err(error.to_string()),
                Some(Ok(frame)) => {
                    if let Ok(bytes) = frame.into_data() {
                        return Ok(Some(bytes));
                    }
                }
            }
        }
    }
}

/// An error with what lies behind it.
fn told(error: &dyn Error) -> String {
    match error.source() {
        Some(cause) => format!("{error}: {}", told(cause)),
        None => error.to_string(),
    }
}

fn index(response: &Response<Incoming>) -> Option<LogIndex> {
    let text = response.headers().get(names::INDEX)?.to_str().ok()?;
    text.parse().ok()
}

async fn body(response: Response<Incoming>) -> Result<Bytes, String> {
    let body = Limited::new(response.into_body(), limits::REPLY_MAX_BYTES).collect();
    match timeout(ANSWER_LIMIT, body).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err("the reply did not come in time".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_is_a_host_and_nothing_more() {
        let new = |text: &str| Admin::new(&[text.to_owned()], Connector::new(), PAUSE);
        assert_eq!(new("http://10.0.0.1:9080/").unwrap().endpoints, ["http://10.0.0.1:9080"]);
        assert_eq!(new("https://node.example").unwrap().endpoints, ["https://node.example"]);
        for text in ["", "10.0.0.1:9080", "ftp://10.0.0.1", "http://10.0.0.1/v1", "http://"] {
            assert!(matches!(new(text), Err(AdminError::Endpoint { .. })), "{text}");
        }
        assert!(Admin::new(&[], Connector::new(), PAUSE).is_err());
    }
}
