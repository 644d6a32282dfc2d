//! One Raft group on this node: that of a shard, or that of the membership.
//!
//! Guarantees: a read at the leader reflects everything that was answered before it began
//! (ReadIndex: the leader asks a quorum, never a lease). Leaves out: what the entries mean.
//!
//! A node runs every group of its cluster. Which nodes hold a replica is the group's Raft
//! membership; a group that this node is no member of costs memory and no work.

use std::{sync::Arc, time::Duration};

use oncekey_storage::state::ShardSpace;
use oncekey_types::{LogIndex, ShardId};
use openraft::{
    ReadPolicy,
    async_runtime::{Instant as _, WatchReceiver},
    errors::{LinearizableReadError, RaftError},
    metrics::RaftMetrics,
};
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::{
    batcher::Rejected,
    lead,
    log_store::LogStore,
    measures::ShardMeasures,
    peer::PeerPool,
    type_config::{Raft, TypeConfig},
};

/// A group that this node takes part in, or could.
pub(crate) struct Group {
    /// The shard, or the number that stands for the membership.
    pub(crate) id: ShardId,
    pub(crate) raft: Raft,
    pub(crate) log: LogStore,
    pub(crate) space: ShardSpace,
    pub(crate) measures: Arc<ShardMeasures>,
    pool: Arc<PeerPool>,
    /// When this replica last heard from a leader.
    heard: Mutex<Option<Instant>>,
}

impl Group {
    pub(crate) fn new(
        id: ShardId,
        raft: Raft,
        log: LogStore,
        space: ShardSpace,
        measures: Arc<ShardMeasures>,
        pool: Arc<PeerPool>,
    ) -> Self {
        Self { id, raft, log, space, measures, pool, heard: Mutex::default() }
    }

    /// The leader as this replica knows it; perhaps one that is gone.
    pub(crate) fn leader(&self) -> Option<u64> {
        self.raft.metrics().borrow_watched().current_leader
    }

    pub(crate) fn metrics(&self) -> RaftMetrics<TypeConfig> {
        self.raft.metrics().borrow_watched().clone()
    }

    /// Whether `node` votes here, as far as this replica knows.
    pub(crate) fn has_voter(&self, node: u64) -> bool {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        metrics.membership_config.voter_ids().any(|voter| voter == node)
    }

    /// Waits until the leader is another one than `known`. Never ends if it stays.
    pub(crate) async fn leader_other_than(&self, known: Option<u64>) {
        let mut metrics = self.raft.server_metrics();
        loop {
            if metrics.borrow_watched().current_leader != known {
                return;
            }
            if metrics.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// Waits until this replica has applied the entry at `index`.
    pub(crate) async fn applied_at_least(&self, index: LogIndex) {
        let mut metrics = self.raft.data_metrics();
        loop {
            let applied = metrics.borrow_watched().last_applied;
            if applied.map_or(0, |log_id| log_id.index) >= index.0 {
                return;
            }
            if metrics.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// Notes that a leader was heard.
    pub(crate) fn heard(&self) {
        *self.heard.lock() = Some(Instant::now());
    }

    /// How long no leader, or as a leader no quorum, has been heard.
    pub(crate) fn silent_for(&self, since_start: Duration) -> Duration {
        self.silence().unwrap_or(since_start)
    }

    /// The same; `None` when it has not been heard since the start. Not by the wall clock, which
    /// may be set back: a node would not campaign until it has caught up.
    pub(crate) fn silence(&self) -> Option<Duration> {
        let quorum_acked = {
            let metrics = self.raft.metrics();
            let metrics = metrics.borrow_watched();
            let leads = metrics.current_leader == Some(metrics.id);
            // Alone, it is its own quorum, and openraft notes none.
            if leads && metrics.membership_config.voter_ids().eq([metrics.id]) {
                return Some(Duration::ZERO);
            }
            metrics.last_quorum_acked.filter(|_| leads).map(|at| at.elapsed())
        };
        quorum_acked.or_else(|| self.heard.lock().map(|heard| heard.elapsed()))
    }

    /// Waits until this replica reflects all that was answered, after a quorum has confirmed that
    /// this node leads.
    pub(crate) async fn confirm_lead(&self) -> Result<(), Rejected> {
        // At the same time: the one sees to the state, the other to the lead.
        let applied = self.raft.ensure_linearizable(ReadPolicy::ReadIndex);
        let (applied, is_followed) = tokio::join!(applied, lead::is_followed(self, &self.pool));
        match applied {
            Ok(_) if is_followed => Ok(()),
            Ok(_) => Err(Rejected::NotLeader { leader: None }),
            Err(RaftError::APIError(LinearizableReadError::ForwardToLeader(forward))) => {
                Err(Rejected::NotLeader { leader: forward.leader_id })
            }
            Err(RaftError::APIError(_)) => Err(Rejected::NotLeader { leader: None }),
            Err(RaftError::Fatal(_)) => Err(Rejected::Stopped),
        }
    }
}
