//! Any node, always an answer.
//!
//! A request goes to the leader of its user's shard, here or on another node, and again when the
//! leader changes, until it has an outcome or its deadline passes.
//!
//! Guarantees: sending a command again is safe because every command is recognised when it comes
//! twice; so an outcome is the outcome of the one application, whichever attempt brought it.
//! [`SubmitError::NoQuorum`] says nothing about whether the command was applied.
//!
//! Leaves out: retries across nodes, which the client makes.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use oncekey_planted::{self as planted, Bug};
use oncekey_storage::failpoint;
use oncekey_store::{
    command::Command,
    outcome::Outcome,
    query::{Answer, Query},
};
use oncekey_types::{LogIndex, NodeId, RequestId, ShardId, SlotMap, TimestampMs, UserId};
use tokio::time::{Instant, sleep_until};

use crate::{
    batcher::Rejected,
    elsewhere::Held,
    environment::Blocking,
    error::{Fault, FaultSink, SubmitError},
    group::Group,
    liveness::Liveness,
    membership::{self, Membership},
    peer::{CallError, PeerPool, Request, Response, ShardRequest},
    shard::Shard,
    trace::{self, Attribute, Span, SpanKind, SpanSink},
};

/// Silence of a shard after which it counts as out of contact and its requests are given up early.
/// Longer than an idle leader takes to be heard.
pub(crate) const OUTAGE_AFTER: Duration = Duration::from_secs(3);
/// How long a request waits for a shard that has been silent for so long.
const OUTAGE_PATIENCE: Duration = Duration::from_millis(250);
/// Pause before the same leader is asked again.
const RETRY_PAUSE: Duration = Duration::from_millis(20);

/// An outcome that a quorum has on disk.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Committed {
    /// What the state machine answered.
    pub outcome: Outcome,
    /// The shard.
    pub shard: ShardId,
    /// Index of the log entry.
    pub index: LogIndex,
    /// The leader that committed it.
    pub leader: NodeId,
}

/// A linearizable read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Read {
    /// What the state holds.
    pub answer: Answer,
    /// The shard.
    pub shard: ShardId,
    /// Index of the last entry the state had applied.
    pub index: LogIndex,
    /// The leader that answered.
    pub leader: NodeId,
}

/// A read of one replica, this node's own when it has one; perhaps a stale one.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LocalRead {
    /// What the replica holds.
    pub answer: Answer,
    /// The shard.
    pub shard: ShardId,
    /// Index of the last entry the replica had applied.
    pub index: LogIndex,
    /// When the replica was last known to be current; `None` when it has not heard from a leader
    /// since the node started.
    pub as_of: Option<TimestampMs>,
    /// The leader as the replica knows it.
    pub leader: Option<NodeId>,
}

/// Routes requests to the leaders of their shards.
pub(crate) struct Router {
    pub(crate) me: u64,
    pub(crate) slots: SlotMap,
    pub(crate) shards: BTreeMap<ShardId, Arc<Shard>>,
    pub(crate) membership: Arc<Membership>,
    pub(crate) liveness: Arc<Liveness>,
    pub(crate) pool: Arc<PeerPool>,
    pub(crate) blocking: Blocking,
    pub(crate) faults: FaultSink,
    pub(crate) started: Instant,
    pub(crate) spans: Option<Arc<dyn SpanSink>>,
    pub(crate) held: Held,
}

/// What one attempt at a leader brought.
pub(crate) enum Attempt<T> {
    Done(T),
    NotLeader(Option<u64>),
    Overloaded,
    Unknown,
}

impl<T> Attempt<T> {
    /// What came of it, in a word.
    fn word(&self) -> &'static str {
        match self {
            Self::Done(_) => "done",
            Self::NotLeader(_) => "not_leader",
            Self::Overloaded => "overloaded",
            Self::Unknown => "unknown",
        }
    }
}

impl Router {
    pub(crate) async fn submit(
        &self,
        user: &UserId,
        command: Command,
        deadline: Instant,
    ) -> Result<Committed, SubmitError> {
        self.submit_to(self.shard_of(user), command, deadline).await
    }

    pub(crate) async fn submit_to(
        &self,
        shard: &Shard,
        command: Command,
        deadline: Instant,
    ) -> Result<Committed, SubmitError> {
        let command = &command;
        let attempt = move |leader: u64, left: Duration| async move {
            let mut command = command.clone();
            if planted::now_and_then(Bug::RetryAsNewRequest, 10) {
                change_request(&mut command);
            }
            if leader == self.me {
                return from_local(shard.batcher.submit(command, trace::current()).await);
            }
            self.forward(shard, leader, command, left).await
        };
        let ((outcome, index), leader) = self.ask_leader(shard, deadline, attempt).await?;
        failpoint::BEFORE_REPLY.reach();
        Ok(Committed { outcome, shard: shard.id(), index, leader })
    }

    /// Has `leader` carry `command` out.
    async fn forward(
        &self,
        shard: &Shard,
        leader: u64,
        command: Command,
        left: Duration,
    ) -> Attempt<(Outcome, LogIndex)> {
        let (Some(spans), Some(parent)) = (&self.spans, trace::current()) else {
            return shard.forwarder.submit(leader, command, None, left).await;
        };
        let (context, began) = (parent.child(), Instant::now());
        let answer = shard.forwarder.submit(leader, command, Some(context), left).await;
        spans.record(Span {
            name: "forward",
            context,
            parent: Some(parent.span),
            kind: SpanKind::Client,
            began,
            ended: Instant::now(),
            attributes: vec![
                ("oncekey.shard", Attribute::Number(shard.id().0.into())),
                ("oncekey.leader", Attribute::Number(leader)),
                ("oncekey.answered", Attribute::Word(answer.word())),
            ],
        });
        answer
    }

    pub(crate) async fn query(
        &self,
        query: &Query,
        deadline: Instant,
    ) -> Result<Read, SubmitError> {
        let shard = self.shard_of(query.user());
        let attempt = move |leader: u64, left: Duration| async move {
            if leader == self.me {
                return from_local(shard.query_as_leader(query).await);
            }
            let request = Request::Shard(shard.id().0, ShardRequest::Query(query.clone()));
            from_peer(self.pool.call(leader, request, left).await, |response| match response {
                Response::Answered { answer, index } => Some((answer, LogIndex(index))),
                _ => None,
            })
        };
        let ((answer, index), leader) = self.ask_leader(shard, deadline, attempt).await?;
        Ok(Read { answer, shard: shard.id(), index, leader })
    }

    /// Index of an entry behind every command that `shard` has answered before.
    pub(crate) async fn read_index(
        &self,
        shard: &Shard,
        deadline: Instant,
    ) -> Result<LogIndex, SubmitError> {
        let attempt = move |leader: u64, left: Duration| async move {
            if leader == self.me {
                return from_local(shard.read_index().await);
            }
            let request = Request::Shard(shard.id().0, ShardRequest::ReadIndex);
            from_peer(self.pool.call(leader, request, left).await, |response| match response {
                Response::ReadIndex { index } => Some(LogIndex(index)),
                _ => None,
            })
        };
        Ok(self.ask_leader(shard, deadline, attempt).await?.0)
    }

    /// Reads this node's own replica, or else that of another node; none when no replica is in reach.
    pub(crate) async fn query_nearby(
        &self,
        query: &Query,
        deadline: Instant,
    ) -> Result<Option<LocalRead>, Fault> {
        let shard = self.shard_of(query.user());
        if let Some(read) = self.query_replica(shard, query)? {
            return Ok(Some(read));
        }
        let placement = self.membership.state().shards.get(&shard.id().0).cloned();
        for node in placement.into_iter().flat_map(|placement| placement.replicas) {
            let left = deadline.saturating_duration_since(Instant::now());
            if !self.liveness.is_alive(node) || left.is_zero() {
                continue;
            }
            let request = Request::Shard(shard.id().0, ShardRequest::Peek(query.clone()));
            if let Ok(Response::Peeked { answer, index, as_of }) =
                self.pool.call(node, request, left).await
            {
                let (index, leader) = (LogIndex(index), self.leader_of(shard).map(NodeId));
                return Ok(Some(LocalRead { answer, shard: shard.id(), index, as_of, leader }));
            }
        }
        Ok(None)
    }

    /// Reads this node's own replica, if it holds one.
    pub(crate) fn query_replica(
        &self,
        shard: &Shard,
        query: &Query,
    ) -> Result<Option<LocalRead>, Fault> {
        if !self.hosts(shard) {
            return Ok(None);
        }
        let as_of = shard.current_as_of();
        let (answer, index) = shard.query_replica(query)?;
        let leader = self.leader_of(shard).map(NodeId);
        Ok(Some(LocalRead { answer, shard: shard.id(), index, as_of, leader }))
    }

    /// Tries `attempt` at the leader, and at the next one, until one has an answer.
    async fn ask_leader<T, F>(
        &self,
        shard: &Shard,
        deadline: Instant,
        attempt: impl Fn(u64, Duration) -> F,
    ) -> Result<(T, NodeId), SubmitError>
    where
        F: Future<Output = Attempt<T>>,
    {
        let deadline = self.patience(shard, deadline);
        let mut hint = None;
        loop {
            if let Some(fault) = self.faults.current() {
                return Err(fault.into());
            }
            let known = shard.group.leader();
            let leader = self.leader_of(shard);
            if let Some(leader) = hint.take().or(leader) {
                let left = deadline.saturating_duration_since(Instant::now());
                let result = tokio::select! {
                    biased;
                    result = attempt(leader, left) => result,
                    () = shard.group.leader_other_than(known) => Attempt::Unknown,
                    () = sleep_until(deadline) => Attempt::Unknown,
                };
                match result {
                    Attempt::Done(value) => return Ok((value, NodeId(leader))),
                    Attempt::Overloaded => {
                        return Err(SubmitError::Overloaded { shard: shard.id() });
                    }
                    Attempt::NotLeader(Some(other))
                        if other != leader && Some(other) != self.leader_of(shard) =>
                    {
                        hint = Some(other);
                    }
                    Attempt::NotLeader(_) | Attempt::Unknown => {}
                }
            }
            if Instant::now() >= deadline {
                return Err(SubmitError::NoQuorum { shard: shard.id() });
            }
            if hint.is_none() {
                let pause = (Instant::now() + RETRY_PAUSE).min(deadline);
                tokio::select! {
                    () = shard.group.leader_other_than(known) => {}
                    () = sleep_until(pause) => {}
                }
            }
        }
    }

    /// The groups that this node leads and has a quorum for.
    pub(crate) fn led_groups(&self) -> impl Iterator<Item = ShardId> {
        let leads = |group: &&Arc<Group>| {
            group.leader() == Some(self.me) && group.silent_for(Duration::ZERO) < OUTAGE_AFTER
        };
        self.groups().filter(leads).map(|group| group.id)
    }

    /// The Raft groups of all shards, and that of the membership.
    pub(crate) fn groups(&self) -> impl Iterator<Item = &Arc<Group>> {
        self.shards.values().map(|shard| &shard.group).chain([&self.membership.group])
    }

    /// The group of this number.
    pub(crate) fn group(&self, id: ShardId) -> Option<&Arc<Group>> {
        match id {
            membership::GROUP => Some(&self.membership.group),
            _ => self.shards.get(&id).map(|shard| &shard.group),
        }
    }

    /// Whether this node holds a replica of `shard`, one that has caught up and is to stay.
    pub(crate) fn hosts(&self, shard: &Shard) -> bool {
        match self.membership.state().shards.get(&shard.id().0) {
            Some(placement) => {
                placement.replicas.contains(&self.me) && placement.wanted().contains(&self.me)
            }
            None => shard.group.has_voter(self.me),
        }
    }

    /// The leader of `shard`: as its replica here knows it, else as the nodes say.
    pub(crate) fn leader_of(&self, shard: &Shard) -> Option<u64> {
        let known = shard.group.leader();
        known
            .filter(|leader| *leader == self.me || self.hosts(shard))
            .or_else(|| self.liveness.leader_of(shard.id()))
    }

    /// In an outage nobody waits long: when the shard has been silent for a while, `deadline`
    /// comes sooner.
    fn patience(&self, shard: &Shard, deadline: Instant) -> Instant {
        if shard.group.silent_for(self.started.elapsed()) > OUTAGE_AFTER {
            deadline.min(Instant::now() + OUTAGE_PATIENCE)
        } else {
            deadline
        }
    }

    #[expect(clippy::expect_used, reason = "a node holds a replica of every shard of the slot map")]
    pub(crate) fn shard_of(&self, user: &UserId) -> &Arc<Shard> {
        self.shards.get(&self.slots.shard_of(user)).expect("every shard has a replica here")
    }
}

/// What a planted bug does to a dispense.
fn change_request(command: &mut Command) {
    if let Command::Dispense(dispense) = command
        && let Ok(request) = RequestId::new(format!("{}-again", dispense.request))
    {
        dispense.request = request;
    }
}

fn from_local<T>(reply: Result<T, Rejected>) -> Attempt<T> {
    match reply {
        Ok(value) => Attempt::Done(value),
        Err(Rejected::NotLeader { leader }) => Attempt::NotLeader(leader),
        Err(Rejected::Overloaded) => Attempt::Overloaded,
        Err(Rejected::TooLarge | Rejected::Stopped) => Attempt::Unknown,
    }
}

pub(crate) fn from_peer<T>(
    response: Result<Response, CallError>,
    expected: impl FnOnce(Response) -> Option<T>,
) -> Attempt<T> {
    match response {
        Ok(Response::NotLeader { leader }) => Attempt::NotLeader(leader),
        Ok(Response::Overloaded) => Attempt::Overloaded,
        Ok(response) => expected(response).map_or(Attempt::Unknown, Attempt::Done),
        Err(_) => Attempt::Unknown,
    }
}
