//! Many commands, one log entry.
//!
//! While an entry of a shard is on its way to a quorum, the commands that come for the shard gather;
//! when it is committed they become the next entry. So the number of entries follows the round
//! trips and the syncs, not the requests. Under load an entry is held back a little, for at most
//! half of the time that the last one took, until the clients that were answered have come back.
//!
//! Guarantees: commands are proposed in the order they came; a command gets the outcome of the
//! entry it was in, or is told that this node does not lead the shard, in which case the command
//! was not applied through this node's proposal unless the entry was already on its way; every
//! command can be sent again without harm. The queue is bounded.
//!
//! Leaves out: deadlines; a caller that stops waiting leaves its command to its fate.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use oncekey_planted::{self as planted, Bug};
use oncekey_storage::failpoint;
use oncekey_store::{
    codec::entry,
    command::{Batch, Command, Policy, Restore, RestoreStep},
    outcome::Outcome,
};
use oncekey_types::{LogIndex, ShardId, limits};
use openraft::{
    ReadPolicy,
    errors::{ClientWriteError, RaftError},
    raft::ClientWriteResponse,
};
use tokio::{
    sync::{mpsc, oneshot},
    time::{Instant, timeout_at},
};

use crate::{
    environment::Clock,
    error::{Fault, FaultSink},
    measures::ShardMeasures,
    trace::{Attribute, Span, SpanKind, SpanSink, TraceContext},
    type_config::{self, Proposal, Raft, TypeConfig},
};

/// Bytes of commands in an entry.
pub(crate) const BATCH_BYTES: usize = 1 << 20;

/// Commands below which an entry is not held back for more.
const GATHER_MIN: usize = 4;
/// Longest time that an entry is held back.
const GATHER_MAX: Duration = Duration::from_millis(4);

/// Why commands have no outcome here.
#[derive(Clone, Debug)]
pub(crate) enum Rejected {
    /// This node does not lead the shard, or lost the lead while the entry was on its way.
    NotLeader { leader: Option<u64> },
    /// The queue is full; the commands were not proposed.
    Overloaded,
    /// They do not fit into one entry.
    TooLarge,
    /// Raft has ended on this node.
    Stopped,
}

/// The answer to commands that came together: their outcomes and the index of their entry.
pub(crate) type Reply = Result<(Vec<Outcome>, LogIndex), Rejected>;

/// The way into a shard that this node leads. Clones share the queue.
#[derive(Clone)]
pub(crate) struct Batcher {
    queue: mpsc::UnboundedSender<Waiting>,
    /// Commands in the queue.
    queued: Arc<AtomicUsize>,
}

/// Commands that came together and go into one entry.
struct Waiting {
    commands: Vec<Command>,
    bytes: usize,
    /// The requests among them that are traced, and when they came.
    traces: Vec<(TraceContext, Instant)>,
    reply: oneshot::Sender<Reply>,
}

impl Batcher {
    /// Starts proposing for `proposer`; ends when the last clone is dropped.
    pub(crate) fn start(proposer: Proposer) -> Self {
        let (queue, waiting) = mpsc::unbounded_channel();
        let queued = Arc::new(AtomicUsize::new(0));
        let source = Source { waiting, queued: Arc::clone(&queued), carried: None };
        tokio::spawn(proposer.run(source));
        Self { queue, queued }
    }

    /// Commands that wait for their turn.
    pub(crate) fn queued(&self) -> usize {
        self.queued.load(Ordering::Relaxed)
    }

    /// Proposes `command` with the next entry and waits for its outcome.
    pub(crate) async fn submit(
        &self,
        command: Command,
        trace: Option<TraceContext>,
    ) -> Result<(Outcome, LogIndex), Rejected> {
        let traces = trace.into_iter().collect();
        let (outcomes, index) = self.submit_all(vec![command], traces).await?;
        let outcome = outcomes.into_iter().next().ok_or(Rejected::Stopped)?;
        Ok((outcome, index))
    }

    /// Proposes `commands` with the next entry, all in one, and waits for their outcomes. `traces`
    /// has the requests among them that are traced.
    pub(crate) async fn submit_all(
        &self,
        commands: Vec<Command>,
        traces: Vec<TraceContext>,
    ) -> Reply {
        let (count, bytes) = (commands.len(), commands.iter().map(size).sum());
        if count > limits::BATCH_COMMANDS_MAX || bytes > BATCH_BYTES {
            return Err(Rejected::TooLarge);
        }
        if self.queued.fetch_add(count, Ordering::Relaxed) + count > limits::PROPOSAL_QUEUE_MAX {
            self.queued.fetch_sub(count, Ordering::Relaxed);
            return Err(Rejected::Overloaded);
        }
        let (reply, outcomes) = oneshot::channel();
        let traces = traces.into_iter().map(|trace| (trace, Instant::now())).collect();
        let waiting = Waiting { commands, bytes, traces, reply };
        self.queue.send(waiting).map_err(|_| Rejected::Stopped)?;
        outcomes.await.unwrap_or(Err(Rejected::Stopped))
    }
}

/// Where the next entry comes from.
struct Source {
    waiting: mpsc::UnboundedReceiver<Waiting>,
    queued: Arc<AtomicUsize>,
    /// Taken from the queue, but too large for the last entry.
    carried: Option<Waiting>,
}

/// What goes into one entry.
#[derive(Default)]
struct Gathered {
    commands: Vec<Command>,
    bytes: usize,
    /// Whom to tell, with how many of the commands are theirs.
    replies: Vec<(usize, oneshot::Sender<Reply>)>,
    traces: Vec<(TraceContext, Instant)>,
}

impl Source {
    /// Waits for commands; `false` when there will be no more.
    async fn wait(&mut self) -> bool {
        if self.carried.is_none() {
            self.carried = self.waiting.recv().await;
        }
        self.carried.is_some()
    }

    /// Moves what waits to `gathered`, as far as there is room.
    fn gather(&mut self, gathered: &mut Gathered) {
        while let Some(next) = self.carried.take().or_else(|| self.waiting.try_recv().ok()) {
            let (count, bytes) = (next.commands.len(), next.bytes);
            let fits = gathered.commands.len() + count <= limits::BATCH_COMMANDS_MAX
                && gathered.bytes + bytes <= BATCH_BYTES;
            if !fits {
                self.carried = Some(next);
                return;
            }
            self.queued.fetch_sub(count, Ordering::Relaxed);
            gathered.bytes += bytes;
            gathered.commands.extend(next.commands);
            gathered.traces.extend(next.traces);
            gathered.replies.push((count, next.reply));
        }
    }

    /// Waits until `gathered` has as many commands as `expected`, or until `patience` ends.
    async fn gather_until(&mut self, gathered: &mut Gathered, expected: usize, patience: Instant) {
        while gathered.commands.len() < expected && self.carried.is_none() {
            match timeout_at(patience, self.waiting.recv()).await {
                Ok(Some(next)) => self.carried = Some(next),
                Ok(None) | Err(_) => return,
            }
            self.gather(gathered);
        }
    }
}

/// Makes entries of what waits.
pub(crate) struct Proposer {
    pub(crate) shard: ShardId,
    pub(crate) raft: Raft,
    pub(crate) policy: Policy,
    pub(crate) clock: Clock,
    pub(crate) measures: Arc<ShardMeasures>,
    pub(crate) spans: Option<Arc<dyn SpanSink>>,
    pub(crate) faults: FaultSink,
}

impl Proposer {
    async fn run(self, mut source: Source) {
        let (mut last, mut took) = (0, Duration::ZERO);
        while source.wait().await {
            let mut gathered = Gathered::default();
            source.gather(&mut gathered);
            // Clients that were answered together ask again together, nearly. Without this, one
            // half of them would wait while the other half's entry is on its way, for ever.
            let expected = (last + gathered.commands.len()) * 3 / 4;
            if expected >= GATHER_MIN {
                let patience = Instant::now() + (took / 2).min(GATHER_MAX);
                source.gather_until(&mut gathered, expected, patience).await;
            }
            last = gathered.commands.len();
            let began = Instant::now();
            self.propose(gathered).await;
            took = began.elapsed();
        }
    }

    /// Proposes all of `gathered` as one entry and answers them.
    async fn propose(&self, gathered: Gathered) {
        let Gathered { commands, replies, traces, .. } = gathered;
        let batch = Batch { time: self.clock.now(), policy: self.policy, commands };
        failpoint::BEFORE_PROPOSE.reach();
        self.measures.passage.proposed(Instant::now());
        let result = match entry::encode(&batch) {
            Ok(bytes) => self.write(bytes).await,
            Err(error) => {
                self.faults.raise(&Fault::new(format!("a batch cannot be encoded: {error}")));
                Err(Rejected::Stopped)
            }
        };
        if let (Ok((outcomes, index)), Some(spans)) = (&result, &self.spans) {
            for (trace, queued) in traces {
                self.trace(&**spans, trace, queued, *index, outcomes.len());
            }
        }
        // Callers that stopped waiting ask again if they want to know.
        match result {
            Ok((mut outcomes, index)) => {
                if planted::is(Bug::AnswersSwapped) {
                    outcomes.reverse();
                }
                debug_assert_eq!(outcomes.len(), batch.commands.len());
                let mut outcomes = outcomes.into_iter();
                for (count, reply) in replies {
                    let _ = reply.send(Ok((outcomes.by_ref().take(count).collect(), index)));
                }
            }
            Err(rejected) => {
                for (_, reply) in replies {
                    let _ = reply.send(Err(rejected.clone()));
                }
            }
        }
    }

    /// Tells how a traced request of the entry at `index` got into it and through it.
    fn trace(
        &self,
        spans: &dyn SpanSink,
        parent: TraceContext,
        queued: Instant,
        index: LogIndex,
        commands: usize,
    ) {
        let [proposed, committed, applied] = self.measures.passage.stations();
        let commit = parent.child();
        spans.record(Span {
            name: "commit",
            context: commit,
            parent: Some(parent.span),
            kind: SpanKind::Internal,
            began: queued,
            ended: Instant::now(),
            attributes: vec![
                ("oncekey.shard", Attribute::Number(self.shard.0.into())),
                ("oncekey.log_index", Attribute::Number(index.0)),
                (
                    "oncekey.commands",
                    Attribute::Number(u64::try_from(commands).unwrap_or(u64::MAX)),
                ),
            ],
        });
        for (name, began, ended) in [
            ("queue", queued, proposed),
            ("replicate", proposed, committed),
            ("apply", committed, applied),
        ] {
            spans.record(Span {
                name,
                context: commit.child(),
                parent: Some(commit.span),
                kind: SpanKind::Internal,
                began,
                ended: ended.max(began),
                attributes: Vec::new(),
            });
        }
    }

    async fn write(&self, batch: Vec<u8>) -> Result<(Vec<Outcome>, LogIndex), Rejected> {
        let proposal = Proposal(batch.into());
        match self.raft.client_write(proposal.clone()).await {
            Err(RaftError::APIError(ClientWriteError::ForwardToLeader(forward)))
                if forward.leader_id.is_none() && self.raft.is_leader() =>
            {
                // A leader that was idle longer than its lease must hear from a quorum before it
                // takes a write. Nothing was proposed yet.
                if self.raft.ensure_linearizable(ReadPolicy::ReadIndex).await.is_err() {
                    return Err(Rejected::NotLeader { leader: None });
                }
                written(self.raft.client_write(proposal).await)
            }
            result => written(result),
        }
    }
}

type Written =
    Result<ClientWriteResponse<TypeConfig>, RaftError<TypeConfig, ClientWriteError<TypeConfig>>>;

fn written(result: Written) -> Result<(Vec<Outcome>, LogIndex), Rejected> {
    match result {
        Ok(written) => match written.data {
            type_config::Reply::Outcomes(outcomes) => {
                Ok((outcomes, LogIndex(written.log_id.index)))
            }
            type_config::Reply::Decided(_) => Err(Rejected::Stopped),
        },
        Err(RaftError::APIError(
            ClientWriteError::ForwardToLeader(forward)
            | ClientWriteError::LogEntryDiscarded(forward),
        )) => Err(Rejected::NotLeader { leader: forward.leader_id }),
        Err(RaftError::APIError(
            ClientWriteError::ChangeMembershipError(_) | ClientWriteError::PreconditionFailed(_),
        )) => Err(Rejected::NotLeader { leader: None }),
        Err(RaftError::Fatal(_)) => Err(Rejected::Stopped),
    }
}

/// About how many bytes `command` takes in an entry; generous.
pub(crate) fn size(command: &Command) -> usize {
    const KEY: usize = 192;
    const BASE: usize = 1024;
    /// The lengths of a record's key and value.
    const RECORD: usize = 16;
    match command {
        Command::Register(register) => {
            let list = register.device_list.as_ref().map_or(0, |list| list.bytes.len());
            BASE + list + KEY * register.one_time_prekeys.len()
        }
        Command::AddOneTimePreKeys(add) => BASE + KEY * add.one_time_prekeys.len(),
        Command::PutDeviceList(put) => BASE + put.list.bytes.len(),
        Command::ReplaceSignedPreKey(_) | Command::RemoveDevice(_) => BASE,
        Command::Dispense(_) => KEY,
        Command::Restore(Restore { step: RestoreStep::Put(records), .. }) => {
            let bytes = records.iter().map(|record| record.key.len() + record.value.len());
            bytes.map(|bytes| bytes + RECORD).sum::<usize>() + BASE
        }
        Command::Restore(_) => BASE,
    }
}
