//! Commands on their way to a leader on another node.
//!
//! Commands for the same leader that are ready at the same moment travel in one frame, and get into
//! the leader's queue, into an entry and back together.
//!
//! Guarantees: every command gets an answer, or its caller is told that nothing is known. The queue
//! is bounded. Leaves out: finding the leader, and asking again, see `router`.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use oncekey_store::{command::Command, outcome::Outcome};
use oncekey_types::{LogIndex, ShardId, limits};
use tokio::sync::{mpsc, oneshot};

use crate::{
    batcher,
    peer::{PeerPool, Request, Response, ShardRequest},
    router::{Attempt, from_peer},
    trace::TraceContext,
};

/// Commands in one frame; their outcomes fit into one frame, too, however large they are.
const COMMANDS_MAX: usize = 64;
/// Bytes of commands in one frame, about: they fit into one entry.
const BYTES_MAX: usize = batcher::BATCH_BYTES;

/// What the leader answered.
type Answer = Attempt<(Outcome, LogIndex)>;

/// The way out of this node for one shard. Clones share the queue.
#[derive(Clone)]
pub(crate) struct Forwarder {
    queue: mpsc::UnboundedSender<Waiting>,
    /// Commands that have no answer yet.
    unanswered: Arc<AtomicUsize>,
}

struct Waiting {
    leader: u64,
    timeout: Duration,
    command: Command,
    trace: Option<TraceContext>,
    answer: oneshot::Sender<Answer>,
}

impl Forwarder {
    /// Starts forwarding commands of `shard`; ends when the last clone is dropped.
    pub(crate) fn start(shard: ShardId, pool: Arc<PeerPool>) -> Self {
        let (queue, waiting) = mpsc::unbounded_channel();
        tokio::spawn(run(shard, pool, waiting));
        Self { queue, unanswered: Arc::default() }
    }

    /// Sends `command` to `leader` and waits for its outcome.
    pub(crate) async fn submit(
        &self,
        leader: u64,
        command: Command,
        trace: Option<TraceContext>,
        timeout: Duration,
    ) -> Answer {
        let _place = Place(&self.unanswered);
        if self.unanswered.fetch_add(1, Ordering::Relaxed) >= limits::PROPOSAL_QUEUE_MAX {
            return Attempt::Overloaded;
        }
        let (answer, outcome) = oneshot::channel();
        if self.queue.send(Waiting { leader, timeout, command, trace, answer }).is_err() {
            return Attempt::Unknown;
        }
        outcome.await.unwrap_or(Attempt::Unknown)
    }
}

/// A command's place among the unanswered.
struct Place<'a>(&'a AtomicUsize);

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

async fn run(shard: ShardId, pool: Arc<PeerPool>, mut waiting: mpsc::UnboundedReceiver<Waiting>) {
    let mut carried = None;
    loop {
        if carried.is_none() {
            carried = waiting.recv().await;
            // Requests that are being read at this moment can come along.
            tokio::task::yield_now().await;
        }
        let Some(first) = carried.take() else { return };
        let (leader, mut bytes) = (first.leader, batcher::size(&first.command));
        let mut group = vec![first];
        while group.len() < COMMANDS_MAX {
            let Ok(next) = waiting.try_recv() else { break };
            bytes += batcher::size(&next.command);
            if next.leader != leader || bytes > BYTES_MAX {
                carried = Some(next);
                break;
            }
            group.push(next);
        }
        tokio::spawn(forward(shard, leader, Arc::clone(&pool), group));
    }
}

/// Sends `group` and tells each caller its part of the answer.
async fn forward(shard: ShardId, leader: u64, pool: Arc<PeerPool>, group: Vec<Waiting>) {
    let timeout = group.iter().map(|waiting| waiting.timeout).max().unwrap_or_default();
    let traces = group.iter().filter_map(|waiting| waiting.trace).collect();
    let (commands, callers): (Vec<_>, Vec<_>) =
        group.into_iter().map(|waiting| (waiting.command, waiting.answer)).unzip();
    let request = Request::Shard(shard.0, ShardRequest::Submit { commands, traces });
    let answer = from_peer(pool.call(leader, request, timeout).await, |response| match response {
        Response::Submitted { outcomes, index } if outcomes.len() == callers.len() => {
            Some((outcomes, LogIndex(index)))
        }
        _ => None,
    });
    // Callers that stopped waiting ask again if they want to know.
    match answer {
        Attempt::Done((outcomes, index)) => {
            for (caller, outcome) in callers.into_iter().zip(outcomes) {
                let _ = caller.send(Attempt::Done((outcome, index)));
            }
        }
        Attempt::NotLeader(leader) => {
            callers.into_iter().for_each(|caller| drop(caller.send(Attempt::NotLeader(leader))));
        }
        Attempt::Overloaded => {
            callers.into_iter().for_each(|caller| drop(caller.send(Attempt::Overloaded)));
        }
        Attempt::Unknown => {
            callers.into_iter().for_each(|caller| drop(caller.send(Attempt::Unknown)));
        }
    }
}
