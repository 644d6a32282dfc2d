//! What can go wrong, by operation.
//!
//! Guarantees: [`SubmitError`] never claims that a command was not applied when it may have been;
//! a [`Fault`] is raised at most once and ends the node. Leaves out: refusals of the state
//! machine, which are outcomes.

use std::sync::{Arc, OnceLock};

use oncekey_types::{NodeId, ShardId};
use tokio::sync::Notify;

use crate::membership::Refusal;

/// Why a node could not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The folder belongs to another node or another cluster, or its identity is unreadable.
    #[error("{0}")]
    Identity(String),
    /// The write-ahead log cannot be opened.
    #[error("the write-ahead log cannot be opened: {0}")]
    Log(String),
    /// The state engine cannot be opened.
    #[error("the state cannot be opened: {0}")]
    State(String),
    /// The listener cannot be bound.
    #[error("cannot listen for peers on {address}: {source}")]
    Listen {
        /// The address asked for.
        address: std::net::SocketAddr,
        /// The reason.
        source: std::io::Error,
    },
    /// The configuration contradicts itself.
    #[error("{0}")]
    Config(String),
    /// A Raft group cannot be started.
    #[error("shard {shard} cannot be started: {reason}")]
    Shard {
        /// The shard.
        shard: ShardId,
        /// The reason.
        reason: String,
    },
}

impl StartError {
    /// Whether the disk or what is on it is the reason, so that starting again will not help.
    #[must_use]
    pub fn is_fault(&self) -> bool {
        match self {
            Self::Log(_) | Self::State(_) | Self::Shard { .. } => true,
            Self::Identity(_) | Self::Listen { .. } | Self::Config(_) => false,
        }
    }
}

/// A local fault: the disk, a damaged record, a disk that is not the one this node had. The node
/// must end; nothing it holds is trusted further.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{what}")]
pub struct Fault {
    what: Arc<str>,
}

impl Fault {
    pub(crate) fn new(what: impl Into<String>) -> Self {
        Self { what: what.into().into() }
    }
}

/// Why there is no outcome.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SubmitError {
    /// No leader with a quorum answered in time. Whether the command was or will be applied is
    /// unknown; sending the same command again is safe.
    #[error("no quorum of shard {shard} answered in time")]
    NoQuorum {
        /// The shard.
        shard: ShardId,
    },
    /// Too many commands wait for the shard; this one was not proposed.
    #[error("too many commands wait for shard {shard}")]
    Overloaded {
        /// The shard.
        shard: ShardId,
    },
    /// The node had a local fault.
    #[error(transparent)]
    Fault(#[from] Fault),
    /// The node is shutting down; this command was not proposed.
    #[error("the node is shutting down")]
    ShuttingDown,
}

impl SubmitError {
    /// Whether sending the same command again, here or to another node, may succeed.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::NoQuorum { .. } | Self::Overloaded { .. } | Self::ShuttingDown => true,
            Self::Fault(_) => false,
        }
    }
}

/// Why members or leaders were not changed as asked. Sending the same request again continues where
/// the last one stopped.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ChangeError {
    /// The membership does not take the change.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The membership has no leader with a quorum in reach. The change may have been decided.
    #[error("the membership has no leader with a quorum in reach")]
    Undecided,
    /// It was decided and is not finished in time; it goes on.
    #[error("it is decided and goes on: {what}")]
    Unfinished {
        /// What is still to be done.
        what: String,
    },
    /// The node cannot form a cluster.
    #[error("{reason}")]
    NotFresh {
        /// Why.
        reason: String,
    },
    /// The node that is to lead does not vote.
    #[error("node {node} does not hold a replica that votes")]
    NotAVoter {
        /// The node.
        node: NodeId,
    },
    /// The new node has not been met by all others, so they could not tell its disk from another.
    #[error("node {node} has not been met by node {by}")]
    NotMet {
        /// The new node.
        node: NodeId,
        /// Who has not met it.
        by: NodeId,
    },
    /// The cluster has no such shard.
    #[error("the cluster has no such shard")]
    UnknownShard,
    /// A shard's leader refused or did not answer in time.
    #[error("shard {shard}: {reason}")]
    Shard {
        /// The shard.
        shard: ShardId,
        /// The reason.
        reason: String,
    },
}

/// Takes the node's first fault and wakes whoever waits for it.
#[derive(Clone, Default)]
pub(crate) struct FaultSink {
    inner: Arc<FaultState>,
}

#[derive(Default)]
struct FaultState {
    fault: OnceLock<Fault>,
    raised: Notify,
}

impl FaultSink {
    /// Records `fault` if it is the first, with one line for the operator.
    pub(crate) fn raise(&self, fault: &Fault) {
        if self.inner.fault.set(fault.clone()).is_ok() {
            tracing::error!(%fault, "this node stops: it cannot go on without risking its state");
        }
        self.inner.raised.notify_waiters();
    }

    /// Raises `error` as a fault and returns it in the form that openraft wants.
    pub(crate) fn raise_io(&self, error: &dyn std::error::Error) -> std::io::Error {
        let what = chain(error);
        self.raise(&Fault::new(what.clone()));
        std::io::Error::other(what)
    }

    pub(crate) fn current(&self) -> Option<Fault> {
        self.inner.fault.get().cloned()
    }

    pub(crate) async fn wait(&self) -> Fault {
        loop {
            let raised = self.inner.raised.notified();
            if let Some(fault) = self.current() {
                return fault;
            }
            raised.await;
        }
    }
}

/// The message of `error` and of all it was caused by, in one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut line = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        line.push_str(": ");
        line.push_str(&error.to_string());
        cause = error.source();
    }
    line
}
