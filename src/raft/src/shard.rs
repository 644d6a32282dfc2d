//! One shard on this node: its Raft group, its way in, its records.
//!
//! Guarantees: a linearizable read reflects every command that was answered before it began
//! (ReadIndex: the leader asks a quorum, never a lease). Leaves out: finding the leader, see
//! `router`.

use std::{sync::Arc, time::Duration};

use oncekey_planted::{self as planted, Bug};
use oncekey_storage::state::ShardSpace;
use oncekey_store::{
    query::{self, Answer, Query},
    snapshot::state_digest,
};
use oncekey_types::{LogIndex, ShardId, TimestampMs};
use openraft::{
    ReadPolicy,
    async_runtime::{Instant as _, WatchReceiver},
    errors::{LinearizableReadError, RaftError},
    metrics::RaftMetrics,
};
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::{
    batcher::{Batcher, Rejected},
    codec::decode_header,
    environment::Clock,
    error::{Fault, FaultSink, chain},
    forwarder::Forwarder,
    log_store::LogStore,
    machine::Records,
    measures::ShardMeasures,
    type_config::{Raft, TypeConfig},
    watchers::Watchers,
};

/// A shard that this node holds a replica of.
pub(crate) struct Shard {
    pub(crate) id: ShardId,
    pub(crate) raft: Raft,
    pub(crate) batcher: Batcher,
    pub(crate) forwarder: Forwarder,
    pub(crate) log: LogStore,
    pub(crate) space: ShardSpace,
    pub(crate) clock: Clock,
    pub(crate) watchers: Watchers,
    pub(crate) measures: Arc<ShardMeasures>,
    pub(crate) faults: FaultSink,
    /// When this replica last heard from a leader.
    pub(crate) heard: Mutex<Option<Instant>>,
}

impl Shard {
    /// The leader as this replica knows it; perhaps one that is gone.
    pub(crate) fn leader(&self) -> Option<u64> {
        self.raft.metrics().borrow_watched().current_leader
    }

    pub(crate) fn metrics(&self) -> RaftMetrics<TypeConfig> {
        self.raft.metrics().borrow_watched().clone()
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

    /// Notes that a leader was heard.
    pub(crate) fn heard(&self) {
        *self.heard.lock() = Some(Instant::now());
    }

    /// When this replica was last known to be current: when it heard from a leader, or as a leader
    /// from a quorum. `None` when it has not since the start.
    pub(crate) fn current_as_of(&self) -> Option<TimestampMs> {
        let ago = u64::try_from(self.silence()?.as_millis()).unwrap_or(u64::MAX);
        Some(TimestampMs(self.clock.now().0.saturating_sub(ago)))
    }

    /// How long no leader, or as a leader no quorum, has been heard.
    pub(crate) fn silent_for(&self, since_start: Duration) -> Duration {
        self.silence().unwrap_or(since_start)
    }

    /// The same; `None` when it has not been heard since the start. Not by the wall clock, which
    /// may be set back: a node would not campaign until it has caught up.
    fn silence(&self) -> Option<Duration> {
        let quorum_acked = {
            let metrics = self.raft.metrics();
            let metrics = metrics.borrow_watched();
            let leads = metrics.current_leader == Some(metrics.id);
            metrics.last_quorum_acked.filter(|_| leads).map(|at| at.elapsed())
        };
        quorum_acked.or_else(|| self.heard.lock().map(|heard| heard.elapsed()))
    }

    /// Reads from this replica after a quorum has confirmed that it leads.
    pub(crate) async fn query_as_leader(
        &self,
        query: &Query,
    ) -> Result<(Answer, LogIndex), Rejected> {
        if planted::is(Bug::StaleRead) {
            return self.query_replica(query).map_err(|_| Rejected::Stopped);
        }
        match self.raft.ensure_linearizable(ReadPolicy::ReadIndex).await {
            Ok(_) => self.query_replica(query).map_err(|_| Rejected::Stopped),
            Err(RaftError::APIError(LinearizableReadError::ForwardToLeader(forward))) => {
                Err(Rejected::NotLeader { leader: forward.leader_id })
            }
            Err(RaftError::APIError(_)) => Err(Rejected::NotLeader { leader: None }),
            Err(RaftError::Fatal(_)) => Err(Rejected::Stopped),
        }
    }

    /// Reads from this replica as it is, with the index of the last entry that it has applied. Both
    /// are of one moment: what Raft says of itself may be behind the state.
    pub(crate) fn query_replica(&self, query: &Query) -> Result<(Answer, LogIndex), Fault> {
        let reader = self.space.read();
        let header = reader.header().map(decode_header).transpose();
        let header = header.map_err(|error| self.fault(&error))?.unwrap_or_default();
        match query::answer(&Records(&reader), query) {
            Ok(answer) => Ok((answer, LogIndex(header.applied_index()))),
            Err(error) => Err(self.fault(&error)),
        }
    }

    /// What the state of this replica hashes to, with the index of the last entry in it.
    pub(crate) fn digest(&self) -> Result<(ShardId, LogIndex, [u8; 32]), Fault> {
        let view = self.space.view().map_err(|error| self.fault(&error))?;
        let header = view.header().map_err(|error| self.fault(&error))?;
        let header = header.map(|bytes| decode_header(&bytes)).transpose();
        let header = header.map_err(|error| self.fault(&error))?.unwrap_or_default();
        let digest = state_digest(&Records(&view)).map_err(|error| self.fault(&error))?;
        Ok((self.id, LogIndex(header.applied_index()), digest))
    }

    fn fault(&self, error: &dyn std::error::Error) -> Fault {
        let fault = Fault::new(format!("shard {}: {}", self.id, chain(error)));
        self.faults.raise(&fault);
        fault
    }
}
