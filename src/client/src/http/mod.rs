//! Any node will do: calls over HTTP to whichever node answers.
//!
//! Guarantees: all attempts of a call carry the same bytes and the same idempotency key, so that
//! a fetch pops at most one key however often it is tried. A node that cannot be reached, stalls,
//! breaks off, answers nonsense or says to try again costs one attempt; the next goes to the next
//! endpoint, after a growing, jittered pause. So does a node in a lower epoch than another has told,
//! which is of a cluster whose place another has taken. A refusal is final. No call takes longer than its
//! deadline, no reply is read beyond its limit.
//!
//! An endpoint with `https` is reached over TLS, with the cargo feature `tls`, which is on unless it
//! is left out. Leaves out: certificates of clients; a [`Dial`] of the application may bring them.

mod connect;
mod endpoint;
mod epochs;
mod events;
mod leaders;
mod pool;
mod retry;
#[cfg(feature = "tls")]
mod tls;
mod token;

use std::{sync::Arc, time::Duration};

use oncekey_types::{CallerId, Epoch, limits};
use parking_lot::Mutex;
use serde::de::DeserializeOwned;
use tokio::time::{Instant, timeout};

pub use connect::{Carrier, Connector, Dial, Dialing, Stream};
pub use endpoint::{Endpoint, EndpointError};
pub use events::EventStream;
pub use retry::Backoff;
#[cfg(feature = "tls")]
pub use tls::{Tls, TlsError};
pub use token::{Token, TokenError, TokenFile, TokenFuture, TokenSource};

use self::{epochs::Epochs, leaders::Leaders, pool::Pool, token::Tokens};
use crate::transport::{
    Answer, Attempt, AttemptFailure, Attempts, Call, CallError, Credentials, Route, Transport,
    Verdict,
};

/// Whom to ask, as whom, and how patiently.
#[derive(Clone, Debug)]
pub struct Config {
    endpoints: Vec<Endpoint>,
    caller: CallerId,
    tokens: Option<Tokens>,
    /// Longest time for one attempt.
    pub attempt_timeout: Duration,
    /// Longest time for a call, all attempts and pauses together.
    pub deadline: Duration,
    /// Pauses between attempts.
    pub backoff: Backoff,
    /// Whether to ask the leader of a shard first, when it is known and among the endpoints.
    pub leader_first: bool,
}

/// Why a configuration was refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// No endpoint, or too many.
    #[error("{endpoints} endpoints given, allowed are 1 to {limit}",
        limit = limits::ENDPOINTS_MAX)]
    Endpoints {
        /// How many were given.
        endpoints: usize,
    },
    /// The caller cannot stand in a header.
    #[error("the caller has a control character")]
    Caller,
}

impl Config {
    /// Asks `endpoints`, in this order, as `caller`.
    ///
    /// # Errors
    ///
    /// A [`ConfigError`].
    pub fn new(endpoints: Vec<Endpoint>, caller: CallerId) -> Result<Self, ConfigError> {
        if !(1..=limits::ENDPOINTS_MAX).contains(&endpoints.len()) {
            return Err(ConfigError::Endpoints { endpoints: endpoints.len() });
        }
        pool::header_value(caller.as_bytes()).map_err(|_| ConfigError::Caller)?;
        Ok(Self {
            endpoints,
            caller,
            tokens: None,
            attempt_timeout: Duration::from_secs(3),
            deadline: Duration::from_secs(20),
            backoff: Backoff::default(),
            leader_first: true,
        })
    }

    /// The same with tokens from `source`, which say who asks. Without, the caller's name does, which
    /// only nodes that are open to everyone believe.
    #[must_use]
    pub fn with_tokens(mut self, source: impl TokenSource) -> Self {
        self.tokens = Some(Tokens(Arc::new(source)));
        self
    }
}

/// A client of a cluster, of which any node will do. Cheap to clone; clones share connections.
#[derive(Clone, Debug)]
pub struct AnyNode {
    config: Config,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    pool: Pool,
    leaders: Mutex<Leaders>,
    epochs: Epochs,
}

impl AnyNode {
    /// A client with connections of its own. Over `https` it trusts the authorities that browsers
    /// trust.
    #[must_use]
    pub fn new(config: Config) -> Self {
        Self::over(config, Connector::new())
    }

    /// A client with connections of its own that over `https` trusts whom `tls` trusts.
    #[cfg(feature = "tls")]
    #[must_use]
    pub fn with_tls(config: Config, tls: Tls) -> Self {
        Self::over(config, Connector::with_tls(tls))
    }

    /// A client whose connections `dial` makes.
    #[must_use]
    pub fn with_dial(config: Config, dial: Arc<dyn Dial>) -> Self {
        Self::over(config, Connector::with_dial(dial))
    }

    fn over(config: Config, connector: Connector) -> Self {
        let shared = Shared {
            pool: Pool::new(connector),
            leaders: Mutex::default(),
            epochs: Epochs::default(),
        };
        Self { config, shared: Arc::new(shared) }
    }

    /// A client with another configuration, such as another caller or order of endpoints, over
    /// the same connections.
    #[must_use]
    pub fn with_config(&self, config: Config) -> Self {
        Self { config, shared: Arc::clone(&self.shared) }
    }

    /// The endpoints to try, over and over: the shard's leader once, then all as configured.
    fn order(&self, call: &Call) -> impl Iterator<Item = &Endpoint> {
        let leader = match self.config.leader_first {
            true => self.shared.leaders.lock().of(call.slot),
            false => None,
        };
        let endpoints = &self.config.endpoints;
        let leader = leader.and_then(|leader| endpoints.iter().find(|known| **known == leader));
        let others = endpoints.iter().filter(move |endpoint| Some(*endpoint) != leader);
        leader.into_iter().chain(others).chain(endpoints.iter().cycle())
    }

    /// Remembers who leads the shard, if that is an endpoint.
    fn learn(&self, call: &Call, route: &Route) {
        let Some(shard) = route.shard else { return };
        let leader = route.leader.as_ref().and_then(|address| {
            let mut endpoints = self.config.endpoints.iter();
            endpoints.find(|endpoint| endpoint.is_at(address))
        });
        self.shared.leaders.lock().learn(call.slot, shard, leader);
    }

    async fn attempt<R: DeserializeOwned>(
        &self,
        endpoint: &Endpoint,
        call: &Call,
        later: Duration,
        within: Duration,
    ) -> Result<Answer<R>, AttemptFailure> {
        let request = pool::request(endpoint, call, &self.asker(call).await?, later)?;
        let sent = self.shared.pool.send(request);
        let (route, reply) = timeout(within, sent).await.map_err(|_| AttemptFailure::Timeout)??;
        self.shared.epochs.check(route.epoch)?;
        self.learn(call, &route);
        Ok(Answer { reply: reply.decode()?, route, attempts: Attempts::default() })
    }
}

/// Who asks, as a request says it.
enum Asker<'a> {
    Name(&'a CallerId),
    Token(Arc<Token>),
    /// The device that has signed.
    Nobody,
}

impl AnyNode {
    async fn asker(&self, call: &Call) -> Result<Asker<'_>, AttemptFailure> {
        let Some(tokens) = &self.config.tokens else { return Ok(Asker::Name(&self.config.caller)) };
        match (tokens.0.token().await, &call.credentials) {
            (Ok(token), _) => Ok(Asker::Token(token)),
            // A signature will do for most.
            (Err(_), Credentials::Signature(_)) => Ok(Asker::Nobody),
            (Err(error), Credentials::Token) => Err(AttemptFailure::NoToken(error)),
        }
    }
}

impl Transport for AnyNode {
    fn epoch(&self) -> Option<Epoch> {
        self.shared.epochs.highest()
    }

    fn expect_epoch(&self, least: Epoch) {
        self.shared.epochs.raise(least);
    }

    async fn call<R: DeserializeOwned + Send>(&self, call: &Call) -> Result<Answer<R>, CallError> {
        let called = Instant::now();
        let deadline = called + self.config.deadline;
        let mut attempts = Attempts::default();
        let mut may_be_done = false;
        let order: Vec<_> = self.order(call).take(limits::ATTEMPTS_MAX).collect();
        let mut last = AttemptFailure::Timeout;
        for endpoint in order {
            let started = Instant::now();
            let within = self.config.attempt_timeout.min(deadline - started);
            let result = self.attempt(endpoint, call, called.elapsed(), within).await;
            attempts.push(Attempt {
                endpoint: endpoint.to_string(),
                failure: result.as_ref().err().cloned(),
                took: started.elapsed(),
            });
            let failure = match result {
                Ok(answer) => {
                    return Ok(Answer { attempts, ..answer });
                }
                Err(failure) => failure,
            };
            let number = attempts.len();
            tracing::debug!(%endpoint, failure = failure.kind(), number, "an attempt failed");
            match failure.verdict() {
                // A bare status may come from a proxy that knows nothing of earlier attempts.
                Verdict::Refused if may_be_done && failure.is_bare_status() => {
                    return Err(CallError::Unknown { failure, attempts });
                }
                Verdict::Refused => return Err(CallError::Refused { failure, attempts }),
                Verdict::Unknown => may_be_done = true,
                Verdict::NotDone => {}
            }
            self.shared.leaders.lock().forget(call.slot);
            last = failure;
            let pause = self.config.backoff.jittered(attempts.retries());
            if Instant::now() + pause >= deadline {
                break;
            }
            tokio::time::sleep(pause).await;
        }
        Err(if may_be_done {
            CallError::Unknown { failure: last, attempts }
        } else {
            CallError::Unavailable { failure: last, attempts }
        })
    }
}

#[cfg(test)]
mod scripted;
#[cfg(test)]
mod tests;
