//! openraft's state machine of one group: the rules of `oncekey-store`, or those of the membership,
//! over the records of `oncekey-storage`.
//!
//! Guarantees: an entry's changes and its log id are committed together, so an entry is applied
//! exactly once to whatever of the state a crash leaves; a snapshot is only reported built when the
//! state it stands for is durable, so the log is never purged ahead of the disk; a fault of the
//! engine or a damaged record ends the node and never becomes an outcome.
//!
//! Leaves out: durability of each apply. After a crash the state may be older than before; the log
//! rebuilds it.

use std::{io, sync::Arc};

use futures_util::{Stream, TryStreamExt};
use oncekey_planted::{self as planted, Bug};
use oncekey_storage::{
    failpoint,
    state::{EngineError, ShardReader, ShardSpace, ShardView},
};
use oncekey_store::{
    codec::entry,
    command::Command,
    query,
    state::{ReadFault, Record, StateRead, StateScan},
};
use oncekey_types::LogIndex;
use openraft::{
    EntryPayload, OptionalSend, RaftSnapshotBuilder,
    storage::{EntryResponder, RaftStateMachine, Snapshot},
};
use tokio::{task::JoinHandle, time::Instant};

use crate::{
    codec::{StateHeader, decode_header, encode_header},
    environment::Blocking,
    error::FaultSink,
    measures::ShardMeasures,
    membership::{self, Published, State},
    origins::Origins,
    transfer::{self, ShardSnapshot},
    type_config::{Entry, LogId, Reply, SnapshotMeta, SnapshotOf, StoredMembership, TypeConfig},
    watchers::Watchers,
};

/// Records of a shard as the state machine reads them.
pub(crate) struct Records<'a, R>(pub(crate) &'a R);

impl StateRead for Records<'_, ShardReader<'_>> {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, ReadFault> {
        self.0.get(key).map_err(read_fault)
    }
}

impl StateRead for Records<'_, ShardView> {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, ReadFault> {
        self.0.get(key).map_err(read_fault)
    }
}

impl StateScan for Records<'_, ShardView> {
    fn range(&self, from: &[u8], to: &[u8], limit: usize) -> Result<Vec<Record>, ReadFault> {
        self.0.range(from, Some(to), limit).map_err(read_fault)
    }
}

fn read_fault(error: EngineError) -> ReadFault {
    ReadFault(Box::new(error))
}

/// What the entries of a group mean.
#[derive(Clone)]
pub(crate) enum Rules {
    /// Batches of commands of a shard; whom to wake when one was applied, and where it is noted where
    /// the shard's records come from.
    Shard(Watchers, Arc<Origins>),
    /// Changes of the membership; where its state is published.
    Membership(Published),
}

/// The state machine of one group, as openraft drives it.
pub(crate) struct Machine {
    space: ShardSpace,
    header: StateHeader,
    /// The last flush that was begun; one at a time.
    flush: Option<JoinHandle<()>>,
    blocking: Blocking,
    faults: FaultSink,
    measures: Arc<ShardMeasures>,
    rules: Rules,
    /// Whether the origin of the state is noted, when it is a shard's.
    is_noted: bool,
}

impl Machine {
    /// The machine over `space`, as it was committed last.
    pub(crate) fn open(
        space: ShardSpace,
        blocking: Blocking,
        faults: FaultSink,
        measures: Arc<ShardMeasures>,
        rules: Rules,
    ) -> Result<Self, io::Error> {
        let header = read_header(&space).map_err(|error| faults.raise_io(&*error))?;
        let is_noted = false;
        let mut machine =
            Self { space, header, flush: None, blocking, faults, measures, rules, is_noted };
        machine.tell_all().map_err(|error| machine.faults.raise_io(&*error))?;
        Ok(machine)
    }

    /// Tells whoever follows the state that all of it may be new.
    fn tell_all(&mut self) -> Result<(), BoxError> {
        if self.header.applied.is_some() {
            self.note_origin()?;
        }
        match &self.rules {
            Rules::Shard(watchers, _) => watchers.wake_all(),
            Rules::Membership(published) => {
                let record = self.space.read().get(membership::KEY)?;
                let state = record.map(|bytes| membership::decode_state(&bytes)).transpose()?;
                published.send_replace(Arc::new(state.unwrap_or_default()));
            }
        }
        Ok(())
    }

    /// Notes where the records of a shard come from.
    fn note_origin(&mut self) -> Result<(), BoxError> {
        if let Rules::Shard(_, origins) = &self.rules {
            origins.note(self.space.id(), query::origin(&Records(&self.space.read()))?);
        }
        self.is_noted = true;
        Ok(())
    }

    /// Applies `entry`; `mine` when this node proposed it.
    fn apply_entry(&mut self, entry: &Entry, mine: bool) -> Result<Reply, BoxError> {
        let mine = mine && matches!(entry.payload, EntryPayload::Normal(_));
        let began = Instant::now();
        let mut reply = Reply::Outcomes(Vec::new());
        let mut changes = Vec::new();
        let mut commands = Vec::new();
        let mut decided = None;
        match &entry.payload {
            EntryPayload::Blank => {}
            EntryPayload::Normal(proposal) => match &self.rules {
                Rules::Shard(..) => {
                    let batch = entry::decode(&proposal.0)?;
                    let index = LogIndex(entry.log_id.index);
                    let records = self.space.read();
                    let applied = oncekey_store::apply(&Records(&records), index, &batch)?;
                    if mine {
                        self.measures.committed(began);
                        self.measures.applied(&applied.outcomes, &applied.met);
                    }
                    reply = Reply::Outcomes(applied.outcomes);
                    changes.extend(applied.changes.0);
                    commands = batch.commands;
                }
                Rules::Membership(published) => {
                    let mut state = State::clone(&published.borrow());
                    let command = membership::decode_command(&proposal.0)?;
                    reply = Reply::Decided(membership::apply(&mut state, command));
                    let record = membership::encode_state(&state)?;
                    changes.push((membership::KEY.to_vec(), Some(record.to_vec())));
                    decided = Some(state);
                }
            },
            EntryPayload::Membership(membership) => {
                self.header.membership =
                    StoredMembership::new(Some(entry.log_id), membership.clone());
            }
        }
        self.header.applied = Some(entry.log_id);
        let header = encode_header(&self.header)?;
        self.space.commit(changes, &header)?;
        let ended = Instant::now();
        self.measures.node.apply.note_duration(ended - began);
        if mine {
            self.measures.passage.applied(ended);
        }
        if !self.is_noted || commands.iter().any(|command| matches!(command, Command::Restore(_))) {
            self.note_origin()?;
        }
        match &self.rules {
            Rules::Shard(watchers, _) => watchers.wake(commands.iter().filter_map(Command::user)),
            Rules::Membership(published) => {
                if let Some(state) = decided {
                    published.send_replace(Arc::new(state));
                }
            }
        }
        if self.space.is_flush_due() && self.flush.as_ref().is_none_or(JoinHandle::is_finished) {
            self.flush = Some(self.begin_flush());
        }
        Ok(reply)
    }

    /// Hands what has been committed to the engine, beside everything else.
    fn begin_flush(&self) -> JoinHandle<()> {
        let (space, faults) = (self.space.clone(), self.faults.clone());
        self.blocking.spawn(move || {
            if let Err(error) = space.flush() {
                faults.raise_io(&error);
            }
        })
    }
}

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// The header of `space`; the default one for a shard that has no state yet.
pub(crate) fn read_header(space: &ShardSpace) -> Result<StateHeader, BoxError> {
    Ok(space.header().map(|bytes| decode_header(&bytes)).transpose()?.unwrap_or_default())
}

impl RaftStateMachine<TypeConfig> for Machine {
    type SnapshotData = ShardSnapshot;
    type SnapshotBuilder = SnapshotBuilder;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, StoredMembership), io::Error> {
        Ok((self.header.applied, self.header.membership.clone()))
    }

    async fn apply<S>(&mut self, mut entries: S) -> Result<(), io::Error>
    where
        S: Stream<Item = Result<EntryResponder<TypeConfig>, io::Error>> + Unpin + OptionalSend,
    {
        while let Some((entry, responder)) = entries.try_next().await? {
            failpoint::BEFORE_APPLY.reach();
            let reply = self
                .apply_entry(&entry, responder.is_some())
                .map_err(|error| self.faults.raise_io(&*error))?;
            failpoint::BEFORE_OUTCOME.reach();
            if let Some(responder) = responder {
                responder.send(reply);
            }
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> SnapshotBuilder {
        let Self { space, blocking, faults, .. } = self;
        SnapshotBuilder { space: space.clone(), blocking: blocking.clone(), faults: faults.clone() }
    }

    async fn install_snapshot(
        &mut self,
        _meta: &SnapshotMeta,
        snapshot: ShardSnapshot,
    ) -> Result<(), io::Error> {
        let space = self.space.clone();
        failpoint::BEFORE_INSTALL.reach();
        let installed = self.blocking.run(move || transfer::install(&space, snapshot)).await;
        match installed.map_err(io::Error::other)? {
            Ok(header) => {
                self.header = header;
                self.tell_all().map_err(|error| self.faults.raise_io(&*error))
            }
            Err(error) => Err(self.faults.raise_io(&*error)),
        }
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<SnapshotOf>, io::Error> {
        // openraft purges the log up to whatever it is given here, also when it has just applied a log
        // anew at a start and nothing of that is on disk.
        match self.header.applied {
            None => Ok(None),
            Some(_) if planted::is(Bug::SnapshotNotDurable) => {
                Ok(Some(snapshot_of(&self.header, &self.space)))
            }
            Some(_) => self.get_snapshot_builder().await.build_snapshot().await.map(Some),
        }
    }
}

/// Makes the state durable and calls that a snapshot: the state on disk is its own snapshot, and
/// a copy is only made when a follower asks for one.
pub(crate) struct SnapshotBuilder {
    space: ShardSpace,
    blocking: Blocking,
    faults: FaultSink,
}

impl RaftSnapshotBuilder<TypeConfig> for SnapshotBuilder {
    type SnapshotData = ShardSnapshot;

    async fn build_snapshot(&mut self) -> Result<SnapshotOf, io::Error> {
        let space = self.space.clone();
        let checkpoint = move || -> Result<StateHeader, BoxError> {
            // Read first: what is committed before the checkpoint is durable after it.
            let header = read_header(&space)?;
            failpoint::BEFORE_CHECKPOINT.reach();
            space.checkpoint()?;
            failpoint::AFTER_CHECKPOINT.reach();
            Ok(header)
        };
        let built = self.blocking.run(checkpoint).await.map_err(io::Error::other)?;
        match built {
            Ok(header) => Ok(snapshot_of(&header, &self.space)),
            Err(error) => Err(self.faults.raise_io(&*error)),
        }
    }
}

fn snapshot_of(header: &StateHeader, space: &ShardSpace) -> SnapshotOf {
    Snapshot {
        meta: SnapshotMeta {
            last_log_id: header.applied,
            last_membership: header.membership.clone(),
        },
        snapshot: ShardSnapshot::Current(space.clone()),
    }
}

#[cfg(test)]
mod tests {
    use oncekey_storage::state::{EngineOptions, MemoryState, StateEngine};
    use oncekey_types::ShardId;
    use openraft::vote::leader_id_adv::LeaderId;

    use super::*;
    use crate::measures::NodeMeasures;

    fn open(state: &MemoryState) -> Machine {
        let engine = StateEngine::in_memory(state, &EngineOptions::default()).unwrap();
        let space = engine.shard(ShardId(0)).unwrap();
        let (faults, rules) =
            (FaultSink::default(), Rules::Shard(Watchers::default(), Arc::default()));
        let measures = Arc::new(ShardMeasures::new(Arc::new(NodeMeasures::new())));
        Machine::open(space, Blocking::Threads, faults, measures, rules).unwrap()
    }

    /// openraft asks for one when it has applied its log anew, and purges up to it.
    #[tokio::test]
    async fn what_is_called_a_snapshot_survives_a_power_cut() {
        let state = MemoryState::new();
        let mut machine = open(&state);
        assert!(machine.get_current_snapshot().await.unwrap().is_none(), "there is no state yet");
        let applied = LogId::new(LeaderId { term: 3, node_id: 1 }, 7);
        machine.header.applied = Some(applied);
        let header = encode_header(&machine.header).unwrap();
        machine.space.commit([], &header).unwrap();
        let snapshot = machine.get_current_snapshot().await.unwrap().unwrap();
        assert_eq!(snapshot.meta.last_log_id, Some(applied));
        state.power_cut(0);
        assert_eq!(open(&state).header.applied, Some(applied));
    }
}
