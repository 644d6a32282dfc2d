//! One shard on this node: its Raft group, its way in, its records.
//!
//! Guarantees: a linearizable read reflects every command that was answered before it began.
//! Leaves out: finding the leader, see `router`.

use std::sync::Arc;

use oncekey_planted::{self as planted, Bug};
use oncekey_store::{
    query::{self, Answer, Query},
    snapshot::state_digest,
};
use oncekey_types::{LogIndex, ShardId, TimestampMs};

use crate::{
    batcher::{Batcher, Rejected},
    codec::decode_header,
    environment::Clock,
    error::{Fault, FaultSink, chain},
    forwarder::Forwarder,
    group::Group,
    machine::{Records, read_header},
    measures::ShardMeasures,
    watchers::Watchers,
};

/// A shard on this node, whether it holds a replica of it or not.
pub(crate) struct Shard {
    pub(crate) group: Arc<Group>,
    pub(crate) batcher: Batcher,
    pub(crate) forwarder: Forwarder,
    pub(crate) clock: Clock,
    pub(crate) watchers: Watchers,
    pub(crate) measures: Arc<ShardMeasures>,
    pub(crate) faults: FaultSink,
}

impl Shard {
    pub(crate) fn id(&self) -> ShardId {
        self.group.id
    }

    /// When this replica was last known to be current: when it heard from a leader, or as a leader
    /// from a quorum. `None` when it has not since the start.
    pub(crate) fn current_as_of(&self) -> Option<TimestampMs> {
        let ago = u64::try_from(self.group.silence()?.as_millis()).unwrap_or(u64::MAX);
        Some(TimestampMs(self.clock.now().0.saturating_sub(ago)))
    }

    /// Reads from this replica after a quorum has confirmed that it leads.
    pub(crate) async fn query_as_leader(
        &self,
        query: &Query,
    ) -> Result<(Answer, LogIndex), Rejected> {
        if planted::is(Bug::StaleRead) {
            return self.query_replica(query).map_err(|_| Rejected::Stopped);
        }
        self.read_index().await?;
        self.query_replica(query).map_err(|_| Rejected::Stopped)
    }

    /// Index of an entry that is applied here and behind every command that was answered before,
    /// after a quorum has confirmed that this replica leads.
    pub(crate) async fn read_index(&self) -> Result<LogIndex, Rejected> {
        self.group.confirm_lead().await?;
        // What Raft says of itself may be behind the state.
        match read_header(&self.group.space) {
            Ok(header) => Ok(LogIndex(header.applied_index())),
            Err(error) => {
                self.fault(&*error);
                Err(Rejected::Stopped)
            }
        }
    }

    /// Reads from this replica as it is, with the index of the last entry that it has applied. Both
    /// are of one moment: what Raft says of itself may be behind the state.
    pub(crate) fn query_replica(&self, query: &Query) -> Result<(Answer, LogIndex), Fault> {
        let reader = self.group.space.read();
        let header = reader.header().map(decode_header).transpose();
        let header = header.map_err(|error| self.fault(&error))?.unwrap_or_default();
        match query::answer(&Records(&reader), query) {
            Ok(answer) => Ok((answer, LogIndex(header.applied_index()))),
            Err(error) => Err(self.fault(&error)),
        }
    }

    /// What the state of this replica hashes to, with the index of the last entry in it.
    pub(crate) fn digest(&self) -> Result<(ShardId, LogIndex, [u8; 32]), Fault> {
        let view = self.group.space.view().map_err(|error| self.fault(&error))?;
        let header = view.header().map_err(|error| self.fault(&error))?;
        let header = header.map(|bytes| decode_header(&bytes)).transpose();
        let header = header.map_err(|error| self.fault(&error))?.unwrap_or_default();
        let digest = state_digest(&Records(&view)).map_err(|error| self.fault(&error))?;
        Ok((self.id(), LogIndex(header.applied_index()), digest))
    }

    pub(crate) fn fault(&self, error: &dyn std::error::Error) -> Fault {
        let fault = Fault::new(format!("shard {}: {}", self.id(), chain(error)));
        self.faults.raise(&fault);
        fault
    }
}
