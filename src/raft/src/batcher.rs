//! Many commands, one log entry.
//!
//! While an entry of a shard is on its way to a quorum, the commands that come for the shard gather;
//! when it is committed they become the next entry. So the number of entries follows the round
//! trips and the syncs, not the requests.
//!
//! Guarantees: commands are proposed in the order they came; a command gets the outcome of the
//! entry it was in, or is told that this node does not lead the shard, in which case the command
//! was not applied through this node's proposal unless the entry was already on its way; every
//! command can be sent again without harm. The queue is bounded.
//!
//! Leaves out: deadlines; a caller that stops waiting leaves its command to its fate.

use std::time::{SystemTime, UNIX_EPOCH};

use oncekey_store::{
    codec::entry,
    command::{Batch, Command, Policy},
    outcome::Outcome,
};
use oncekey_types::{LogIndex, TimestampMs, limits};
use openraft::{
    ReadPolicy,
    errors::{ClientWriteError, RaftError},
    raft::ClientWriteResponse,
};
use tokio::sync::{mpsc, oneshot};

use crate::{
    error::{Fault, FaultSink},
    type_config::{Proposal, Raft, TypeConfig},
};

/// Bytes of commands after which a batch is closed; one command more may be in it.
const BATCH_BYTES: usize = 1 << 20;

/// Why a command has no outcome here.
#[derive(Clone, Debug)]
pub(crate) enum Rejected {
    /// This node does not lead the shard, or lost the lead while the entry was on its way.
    NotLeader { leader: Option<u64> },
    /// The queue is full; the command was not proposed.
    Overloaded,
    /// Raft has ended on this node.
    Stopped,
}

/// The answer to a command: its outcome and the index of its entry.
pub(crate) type Reply = Result<(Outcome, LogIndex), Rejected>;

/// The way into a shard that this node leads. Clones share the queue.
#[derive(Clone)]
pub(crate) struct Batcher {
    queue: mpsc::Sender<Waiting>,
}

struct Waiting {
    command: Command,
    reply: oneshot::Sender<Reply>,
}

impl Batcher {
    /// Starts proposing to `raft`; ends when the last clone is dropped.
    pub(crate) fn start(raft: Raft, policy: Policy, faults: FaultSink) -> Self {
        let (queue, commands) = mpsc::channel(limits::PROPOSAL_QUEUE_MAX);
        tokio::spawn(Proposer { raft, policy, faults }.run(commands));
        Self { queue }
    }

    /// Proposes `command` with the next entry and waits for its outcome.
    pub(crate) async fn submit(&self, command: Command) -> Reply {
        let (reply, outcome) = oneshot::channel();
        self.queue.try_send(Waiting { command, reply }).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => Rejected::Overloaded,
            mpsc::error::TrySendError::Closed(_) => Rejected::Stopped,
        })?;
        outcome.await.unwrap_or(Err(Rejected::Stopped))
    }
}

struct Proposer {
    raft: Raft,
    policy: Policy,
    faults: FaultSink,
}

impl Proposer {
    async fn run(self, mut commands: mpsc::Receiver<Waiting>) {
        let mut waiting = Vec::new();
        let mut carried = None;
        loop {
            if carried.is_none() {
                carried = commands.recv().await;
            }
            let Some(first) = carried.take() else { return };
            let mut bytes = size(&first.command);
            waiting.push(first);
            while waiting.len() < limits::BATCH_COMMANDS_MAX {
                let Ok(next) = commands.try_recv() else { break };
                bytes += size(&next.command);
                if bytes > BATCH_BYTES {
                    carried = Some(next);
                    break;
                }
                waiting.push(next);
            }
            self.propose(&mut waiting).await;
        }
    }

    /// Proposes all of `waiting` as one entry and answers them.
    async fn propose(&self, waiting: &mut Vec<Waiting>) {
        let (commands, replies): (Vec<_>, Vec<_>) =
            waiting.drain(..).map(|waiting| (waiting.command, waiting.reply)).unzip();
        let batch = Batch { time: now(), policy: self.policy, commands };
        let result = match entry::encode(&batch) {
            Ok(bytes) => self.write(bytes).await,
            Err(error) => {
                self.faults.raise(&Fault::new(format!("a batch cannot be encoded: {error}")));
                Err(Rejected::Stopped)
            }
        };
        match result {
            Ok((outcomes, index)) => {
                debug_assert_eq!(outcomes.len(), replies.len());
                for (reply, outcome) in replies.into_iter().zip(outcomes) {
                    // A caller that stopped waiting asks again if it wants to know.
                    let _ = reply.send(Ok((outcome, index)));
                }
            }
            Err(rejected) => {
                for reply in replies {
                    let _ = reply.send(Err(rejected.clone()));
                }
            }
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
        Ok(written) => Ok((written.data.0, LogIndex(written.log_id.index))),
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

/// The clock of this node.
pub(crate) fn now() -> TimestampMs {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    TimestampMs(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// About how many bytes `command` takes in an entry; generous.
fn size(command: &Command) -> usize {
    const KEY: usize = 192;
    const BASE: usize = 1024;
    match command {
        Command::Register(register) => {
            let list = register.device_list.as_ref().map_or(0, |list| list.bytes.len());
            BASE + list + KEY * register.one_time_prekeys.len()
        }
        Command::AddOneTimePreKeys(add) => BASE + KEY * add.one_time_prekeys.len(),
        Command::PutDeviceList(put) => BASE + put.list.bytes.len(),
        Command::ReplaceSignedPreKey(_) | Command::RemoveDevice(_) => BASE,
        Command::Dispense(_) => KEY,
    }
}
