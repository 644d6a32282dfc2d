//! What every handler shares.

use std::{sync::Arc, time::Duration};

use oncekey_api::{Problem, bundle::Route};
use oncekey_raft::{Committed, Node};
use oncekey_store::{command::Command, outcome::Outcome};
use oncekey_types::{LogIndex, NodeId, ShardId, TimestampMs, UserId};
use tokio::{
    sync::{Semaphore, watch},
    time::Instant,
};

use crate::{
    auth::Authenticator,
    config::Http,
    handlers::{events::Streams, reports::Reporters},
    metrics::Metrics,
    reply,
    trace::Tracing,
};

/// Signatures up to which an upload is verified where it arrives; more go to another thread.
const INLINE_SIGNATURES_MAX: usize = 4;

/// Time for a replica on another node to answer when there is no quorum.
const NEARBY_TIMEOUT: Duration = Duration::from_millis(500);

/// Until when a replica without a quorum may take to answer.
pub(crate) fn nearby_deadline() -> Instant {
    Instant::now() + NEARBY_TIMEOUT
}

/// The node behind the handlers.
pub(crate) struct App {
    pub(crate) node: Node,
    pub(crate) authenticator: Arc<dyn Authenticator>,
    pub(crate) http: Http,
    pub(crate) low_watermark: u32,
    pub(crate) signed_prekey_due: Duration,
    pub(crate) metrics: Metrics,
    pub(crate) tracing: Tracing,
    pub(crate) reporters: Reporters,
    pub(crate) streams: Streams,
    /// Whether clients are served only once the cluster was filled from a backup.
    awaits_restore: bool,
    /// Requests that may be served at once.
    pub(crate) requests: Semaphore,
    /// Uploads that may be verified at once: one for each core, so that the rest of the node
    /// keeps its turn.
    verifications: Semaphore,
    draining: watch::Sender<bool>,
}

impl App {
    pub(crate) fn new(
        node: Node,
        authenticator: Arc<dyn Authenticator>,
        http: Http,
        low_watermark: u32,
        signed_prekey_due: Duration,
        tracing: Tracing,
        awaits_restore: bool,
    ) -> Self {
        let streams = Streams::new(http.events_max.min(http.connections_max / 2));
        let cores = node.environment().blocking.parallelism();
        Self {
            metrics: Metrics::new(&node, &streams, Arc::clone(&tracing.counts)),
            tracing,
            node,
            authenticator,
            http,
            low_watermark,
            signed_prekey_due,
            reporters: Reporters::default(),
            streams,
            awaits_restore,
            requests: Semaphore::new(http.concurrency_max),
            verifications: Semaphore::new(cores),
            draining: watch::Sender::new(false),
        }
    }

    /// From now on the node says that it is not ready.
    pub(crate) fn drain(&self) {
        self.draining.send_replace(true);
    }

    pub(crate) fn is_draining(&self) -> bool {
        *self.draining.borrow()
    }

    /// Why clients are not served, when they are not.
    pub(crate) fn closed(&self) -> Option<&'static str> {
        let status = self.node.epoch();
        if status.is_being_restored {
            Some("the cluster is being restored")
        } else if self.awaits_restore && status.epoch.is_none_or(|epoch| epoch.is_first()) {
            Some("the cluster waits to be restored")
        } else {
            None
        }
    }

    /// Ends when the node drains.
    pub(crate) async fn drained(&self) {
        // The sender lives as long as this.
        let _ = self.draining.subscribe().wait_for(|draining| *draining).await;
    }

    /// The wall clock.
    pub(crate) fn now(&self) -> TimestampMs {
        self.node.environment().clock.now()
    }

    /// Until when a write or a read may take.
    pub(crate) fn write_deadline(&self) -> Instant {
        Instant::now() + self.http.write_timeout
    }

    /// Commits a write and says where it was.
    ///
    /// A refusal comes as a problem; see [`Refusal`](oncekey_store::outcome::Refusal).
    pub(crate) async fn commit(
        &self,
        user: &UserId,
        command: Command,
    ) -> Result<(Route, Outcome), reply::Rejection> {
        let committed = self.node.submit(user, command, self.write_deadline()).await?;
        let Committed { outcome, shard, index, leader, .. } = committed;
        match outcome {
            Outcome::Refused(refusal) => Err(refusal.into()),
            outcome => Ok((self.route(shard, Some(leader), Some(index)), outcome)),
        }
    }

    pub(crate) fn route(
        &self,
        shard: ShardId,
        leader: Option<NodeId>,
        index: Option<LogIndex>,
    ) -> Route {
        let leader = leader.and_then(|leader| self.node.member(leader)).map(|member| member.public);
        Route { shard, leader, index }
    }

    /// Runs `check`, which verifies `signatures` signatures, off the threads that serve requests
    /// when they are many.
    pub(crate) async fn verify<T, F>(&self, signatures: usize, check: F) -> Result<T, Problem>
    where
        T: Send + 'static,
        F: FnOnce() -> Result<T, Problem> + Send + 'static,
    {
        self.metrics.signatures_checked(u64::try_from(signatures).unwrap_or(u64::MAX));
        if signatures <= INLINE_SIGNATURES_MAX {
            return check();
        }
        // Neither fails: the semaphore is never closed and checks do not panic.
        let _turn = self.verifications.acquire().await.map_err(|_| reply::internal())?;
        let blocking = &self.node.environment().blocking;
        blocking.run(check).await.unwrap_or_else(|_| Err(reply::internal()))
    }
}
