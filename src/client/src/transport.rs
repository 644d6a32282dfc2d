//! Calls to the server, as the client sees them.
//!
//! Guarantees: an error says whether the request *may* have been carried out. A timeout or a lost
//! connection is never reported as a refusal.
//!
//! Leaves out: how a call travels. [`AnyNode`](crate::http::AnyNode) sends it over HTTP; tests
//! answer it in the process.

use std::{fmt, future::Future, time::Duration};

use bytes::Bytes;
use oncekey_api::{Code, Problem, event::Event};
use oncekey_types::{Epoch, LogIndex, RequestId, ShardId, Slot, limits};
use serde::de::DeserializeOwned;

use crate::{http::TokenError, signer::Signer};

/// Carries calls to the server.
pub trait Transport: Send + Sync + 'static {
    /// Carries one call, trying as often and at as many nodes as it sees fit. Every attempt is
    /// the same request, byte for byte.
    fn call<R: DeserializeOwned + Send>(
        &self,
        call: &Call,
    ) -> impl Future<Output = Result<Answer<R>, CallError>> + Send;

    /// The highest epoch that a server has told, if one has.
    fn epoch(&self) -> Option<Epoch> {
        None
    }

    /// Says which epoch the servers are at least in. One that tells a lower one is of a cluster
    /// whose place another has taken; a transport that sees what servers tell asks it no further.
    fn expect_epoch(&self, _least: Epoch) {}
}

/// A transport over which servers can push.
pub trait Subscribe: Transport {
    /// A stream of events.
    type Events: EventSource;

    /// Opens a stream of events, at any node.
    fn subscribe(
        &self,
        call: &Call,
    ) -> impl Future<Output = Result<Self::Events, CallError>> + Send;
}

/// A stream of events.
pub trait EventSource: Send {
    /// The next event; none when the stream has ended or is of no further use. Nothing is lost
    /// when the future is dropped.
    fn next(&mut self) -> impl Future<Output = Option<Event>> + Send;
}

/// Method of a call.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Method {
    /// Reads.
    Get,
    /// Writes at a known place.
    Put,
    /// Adds or fetches.
    Post,
    /// Removes.
    Delete,
}

/// One request.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Call {
    /// The method.
    pub method: Method,
    /// Path and query, as [`oncekey_api::path`] makes them.
    pub path: String,
    /// The body in JSON; none when empty.
    pub body: Bytes,
    /// Names a fetch, so that a retry gets the same answer.
    pub idempotency_key: Option<RequestId>,
    /// The slot of the user that the call is about; lets a transport remember who leads it.
    pub slot: Slot,
    /// What shows who asks.
    pub credentials: Credentials,
}

/// What shows who sent a call.
#[derive(Clone, Debug)]
pub enum Credentials {
    /// The token of the user.
    Token,
    /// A signature of the device, beside the token if one is to be had.
    Signature(Signer),
}

/// A signature is made at each attempt: two calls that are signed by a device are the same request
/// when the rest of them is.
impl PartialEq for Credentials {
    fn eq(&self, other: &Self) -> bool {
        matches!(
            (self, other),
            (Self::Token, Self::Token) | (Self::Signature(_), Self::Signature(_))
        )
    }
}

impl Eq for Credentials {}

/// The reply to a call.
#[derive(Debug)]
pub struct Answer<R> {
    /// The reply.
    pub reply: R,
    /// Where it came from.
    pub route: Route,
    /// What it took.
    pub attempts: Attempts,
}

/// Where an answer came from, as far as the node said.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Route {
    /// The shard.
    pub shard: Option<ShardId>,
    /// Public address of the node that leads the shard.
    pub leader: Option<String>,
    /// Log index of the commit.
    pub index: Option<LogIndex>,
    /// The cluster's epoch.
    pub epoch: Option<Epoch>,
}

/// The attempts of one or more calls, in order; at most
/// [`ATTEMPTS_MAX`](limits::ATTEMPTS_MAX) of each call.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Attempts(Vec<Attempt>);

/// One attempt of a call.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Attempt {
    /// The node that was asked, as configured.
    pub endpoint: String,
    /// Why it failed; none when the node answered.
    pub failure: Option<AttemptFailure>,
    /// How long it took.
    pub took: Duration,
}

impl Attempts {
    /// Adds an attempt.
    pub fn push(&mut self, attempt: Attempt) {
        self.0.push(attempt);
    }

    /// Adds the attempts of a later call.
    pub fn extend(&mut self, later: Self) {
        self.0.extend(later.0);
    }

    /// Attempts that failed and were followed by another.
    #[must_use]
    pub fn retries(&self) -> usize {
        let followed = self.0.split_last().map_or(&[][..], |(_, followed)| followed);
        let failed = |attempt: &&Attempt| attempt.failure.is_some();
        followed.iter().filter(failed).count()
    }

    /// The attempts, in order.
    pub fn iter(&self) -> impl Iterator<Item = &Attempt> {
        self.0.iter()
    }

    /// How many there were.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there was none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Why an attempt gave no reply.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AttemptFailure {
    /// No connection, so nothing was sent.
    #[error("no connection to the node")]
    Connect,
    /// No token was to be had, so nothing was sent.
    #[error("no token: {0}")]
    NoToken(TokenError),
    /// The connection broke before the reply was complete.
    #[error("the connection to the node was lost")]
    Lost,
    /// No reply in time.
    #[error("the node did not answer in time")]
    Timeout,
    /// The reply is over [`REPLY_MAX_BYTES`](limits::REPLY_MAX_BYTES).
    #[error("the reply is over the limit of {limit} bytes", limit = limits::REPLY_MAX_BYTES)]
    ReplyTooLarge,
    /// The node says that it succeeded, in a form that this client does not understand.
    #[error("the reply is not what the call asks for")]
    ReplyMalformed,
    /// The node says why it failed.
    #[error("{0}")]
    Problem(Problem),
    /// A status without a problem document, as from a proxy.
    #[error("the reply has status {0}")]
    Status(u16),
    /// The node is of a cluster whose place another has taken, made from a backup.
    #[error("the node is in epoch {told}, the cluster in epoch {known}")]
    OlderEpoch {
        /// The cluster's.
        known: Epoch,
        /// The node's.
        told: Epoch,
    },
}

/// What a failed attempt says about the request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// It is refused. Every node would say so.
    Refused,
    /// It was not carried out; another attempt may succeed.
    NotDone,
    /// It may have been carried out; another attempt will tell.
    Unknown,
}

impl AttemptFailure {
    /// What the failure says about the request.
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        match self {
            // What was done there counts for nothing.
            Self::Connect | Self::NoToken(_) | Self::OlderEpoch { .. } => Verdict::NotDone,
            Self::Lost | Self::Timeout | Self::ReplyTooLarge | Self::ReplyMalformed => {
                Verdict::Unknown
            }
            Self::Problem(problem) if problem.code.is_outcome_unknown() => Verdict::Unknown,
            Self::Problem(problem) if problem.code.is_retryable() => Verdict::NotDone,
            Self::Problem(_) => Verdict::Refused,
            Self::Status(408 | 425 | 429) => Verdict::NotDone,
            Self::Status(status) if *status < 500 => Verdict::Refused,
            Self::Status(_) => Verdict::Unknown,
        }
    }

    /// The kind of failure, without anything that a node may have quoted: for logs and metrics.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::NoToken(_) => "no_token",
            Self::Lost => "lost",
            Self::Timeout => "timeout",
            Self::ReplyTooLarge => "reply_too_large",
            Self::ReplyMalformed => "reply_malformed",
            Self::Problem(problem) => problem.code.as_str(),
            Self::Status(_) => "status",
            Self::OlderEpoch { .. } => "older_epoch",
        }
    }

    /// Whether the reply had a status alone, as from a proxy.
    pub(crate) fn is_bare_status(&self) -> bool {
        matches!(self, Self::Status(_))
    }
}

/// Why a call got no reply.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CallError {
    /// A node refused the request; nothing was changed.
    #[error("the request was refused: {failure}")]
    Refused {
        /// The refusal: a problem or a bare status.
        failure: AttemptFailure,
        /// What was tried.
        attempts: Attempts,
    },
    /// No node carried the request out in time; nothing was changed.
    #[error("no node could take the request: {failure}")]
    Unavailable {
        /// The last failure.
        failure: AttemptFailure,
        /// What was tried.
        attempts: Attempts,
    },
    /// Some node may have carried the request out. The same request, with the same idempotency
    /// key or `seq`, finds out.
    #[error("whether the request was carried out is unknown: {failure}")]
    Unknown {
        /// The last failure.
        failure: AttemptFailure,
        /// What was tried.
        attempts: Attempts,
    },
}

impl CallError {
    /// Whether the same request may succeed later.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Refused { .. } => false,
            Self::Unavailable { .. } | Self::Unknown { .. } => true,
        }
    }

    /// Whether the request may have been carried out all the same.
    #[must_use]
    pub fn is_outcome_unknown(&self) -> bool {
        match self {
            Self::Unknown { .. } => true,
            Self::Refused { .. } | Self::Unavailable { .. } => false,
        }
    }

    /// What was tried.
    #[must_use]
    pub fn attempts(&self) -> &Attempts {
        match self {
            Self::Refused { attempts, .. }
            | Self::Unavailable { attempts, .. }
            | Self::Unknown { attempts, .. } => attempts,
        }
    }

    /// The problem with which a node refused.
    #[must_use]
    pub fn refusal(&self) -> Option<&Problem> {
        match self {
            Self::Refused { failure: AttemptFailure::Problem(problem), .. } => Some(problem),
            Self::Refused { .. } | Self::Unavailable { .. } | Self::Unknown { .. } => None,
        }
    }
}

/// Reads a reply of HTTP `status`.
///
/// # Errors
///
/// The [`AttemptFailure`] that the status, the problem document or the body stands for.
pub fn decode<R: DeserializeOwned>(status: u16, body: &[u8]) -> Result<R, AttemptFailure> {
    if (200..300).contains(&status) {
        // A reply without a body is the unit.
        let body = if body.is_empty() { b"null" } else { body };
        return serde_json::from_slice(body).map_err(|_| AttemptFailure::ReplyMalformed);
    }
    match serde_json::from_slice::<Problem>(body) {
        // A code of a later version is judged by the status.
        Ok(Problem { code: Code::Other, .. }) | Err(_) => Err(AttemptFailure::Status(status)),
        Ok(problem) => Err(AttemptFailure::Problem(problem)),
    }
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Get => "GET",
            Self::Put => "PUT",
            Self::Post => "POST",
            Self::Delete => "DELETE",
        })
    }
}
