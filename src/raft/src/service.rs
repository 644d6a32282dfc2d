//! What this node answers to others.
//!
//! Guarantees: appends of a shard enter its Raft core in the order they came, because nothing is
//! awaited before them; a shard that has not started yet answers that it cannot. Leaves out: who
//! may ask; the connection has been greeted before.

use std::{
    future::Future,
    pin::Pin,
    sync::{Arc, OnceLock},
};

use oncekey_storage::state::StateEngine;
use oncekey_types::{NodeId, ShardId};
use openraft::raft::{AppendEntriesResponse, VoteResponse};

use crate::{
    batcher::Rejected,
    config::Member,
    elections, elsewhere,
    environment::Blocking,
    error::{Fault, chain},
    formation::{Foundation, Founders},
    group::Group,
    identity::Identity,
    liveness::Liveness,
    members, membership,
    peer::{GroupRequest, PeerPool, Request, Response, Service, ShardRequest},
    reports::Reporter,
    router::{LocalRead, Router},
    transfer::{self, OpenTransfers},
    type_config::{SnapshotMeta, SnapshotOf, Vote},
};

/// Answers other nodes; shards are added when they have started.
pub(crate) struct Services {
    identity: Arc<Identity>,
    pool: Arc<PeerPool>,
    liveness: Arc<Liveness>,
    engine: StateEngine,
    blocking: Blocking,
    transfers: OpenTransfers,
    router: OnceLock<Arc<Router>>,
    foundation: OnceLock<Arc<Foundation>>,
    reporter: OnceLock<Arc<Reporter>>,
}

impl Services {
    pub(crate) fn new(
        identity: Arc<Identity>,
        pool: Arc<PeerPool>,
        liveness: Arc<Liveness>,
        engine: StateEngine,
        blocking: Blocking,
        transfers: OpenTransfers,
    ) -> Self {
        Self {
            identity,
            pool,
            liveness,
            engine,
            blocking,
            transfers,
            router: OnceLock::new(),
            foundation: OnceLock::new(),
            reporter: OnceLock::new(),
        }
    }

    /// Begins to answer for the shards of `router`, to lay a `foundation`, and with what `reporter`
    /// has counted.
    pub(crate) fn open(
        &self,
        router: Arc<Router>,
        foundation: Arc<Foundation>,
        reporter: Arc<Reporter>,
    ) {
        // A node opens its shards once.
        let _ = self.router.set(router);
        let _ = self.foundation.set(foundation);
        let _ = self.reporter.set(reporter);
    }

    /// The shards that this node leads with a quorum.
    fn leads(&self) -> Vec<u16> {
        let Some(router) = self.router.get() else { return Vec::new() };
        router.led_groups().map(|shard| shard.0).collect()
    }

    async fn for_shard(&self, from: NodeId, id: u16, request: ShardRequest) -> Response {
        let unknown = || Response::Failed { reason: format!("shard {id} has not started") };
        let Some(router) = self.router.get() else { return unknown() };
        let shard = router.shards.get(&ShardId(id));
        match (request, shard) {
            (ShardRequest::Group(request), _) => match router.group(ShardId(id)) {
                Some(group) => self.for_group(from, group, request).await,
                None => unknown(),
            },
            (_, None) => unknown(),
            (ShardRequest::Submit { commands, traces }, Some(shard)) => {
                match shard.batcher.submit_all(commands, traces).await {
                    Ok((outcomes, index)) => Response::Submitted { outcomes, index: index.0 },
                    Err(rejected) => from_rejected(&rejected),
                }
            }
            (ShardRequest::Query(query), Some(shard)) => {
                match shard.query_as_leader(&query).await {
                    Ok((answer, index)) => Response::Answered { answer, index: index.0 },
                    Err(rejected) => from_rejected(&rejected),
                }
            }
            (ShardRequest::Peek(query), Some(shard)) => {
                peeked(id, router.query_replica(shard, &query))
            }
            (ShardRequest::Await { query, known }, Some(shard)) => {
                peeked(id, elsewhere::hold(router, shard, &query, &known).await)
            }
            (ShardRequest::ReadIndex, Some(shard)) => match shard.read_index().await {
                Ok(index) => Response::ReadIndex { index: index.0 },
                Err(rejected) => from_rejected(&rejected),
            },
        }
    }

    async fn decide(&self, command: membership::Command) -> Response {
        let unknown = || Response::Failed { reason: "the membership has not started".to_owned() };
        let Some(router) = self.router.get() else { return unknown() };
        if !router.membership.leads() {
            return Response::NotLeader { leader: router.membership.group.leader() };
        }
        router.membership.decide(&command).await.map_or_else(unknown, Response::Decided)
    }

    fn found(&self, founders: Founders) -> Response {
        let Some(foundation) = self.foundation.get() else {
            return Response::Failed { reason: "the node has not started".to_owned() };
        };
        match foundation.take_part(founders) {
            Ok(()) => Response::Founding { met: self.identity.met() },
            Err(reason) => Response::Failed { reason },
        }
    }

    async fn for_group(&self, from: NodeId, group: &Group, request: GroupRequest) -> Response {
        let me = self.identity.node().0;
        match request {
            GroupRequest::Append(rpc) => match group.raft.append_entries(rpc).await {
                Ok(response) => {
                    // A leader that was deposed is not a leader heard.
                    if !matches!(response, AppendEntriesResponse::HigherVote(_)) {
                        group.heard();
                    }
                    Response::Append(response)
                }
                Err(error) => failed(&error),
            },
            GroupRequest::Vote(rpc) => match group.raft.vote(rpc).await {
                Ok(response) => Response::Vote(response),
                Err(error) => failed(&error),
            },
            GroupRequest::PreVote(rpc)
                if elections::refuses_pre_vote(me, &self.liveness, group, &rpc) =>
            {
                let vote = group.metrics().vote;
                Response::Vote(VoteResponse::new(vote, group.log.last(), false))
            }
            GroupRequest::PreVote(rpc) => match group.raft.pre_vote(rpc).await {
                Ok(response) => Response::Vote(response),
                Err(error) => failed(&error),
            },
            GroupRequest::TransferLeader(rpc) => {
                match group.raft.handle_transfer_leader(rpc).await {
                    Ok(response) => Response::TransferLeader(response),
                    Err(error) => failed(&error),
                }
            }
            GroupRequest::InstallSnapshot { vote } => {
                self.install_snapshot(from, group, vote).await
            }
            GroupRequest::Change(change) => {
                Response::Changed(members::make(me, group, &self.pool, &change).await)
            }
        }
    }

    /// Fetches the shard's state from its leader and hands it to Raft, which installs it if it is
    /// newer than what is here.
    async fn install_snapshot(&self, leader: NodeId, group: &Group, vote: Vote) -> Response {
        let fetched =
            transfer::fetch(&self.pool, &self.blocking, leader.0, group.id, &group.space).await;
        let fetched = match fetched {
            Ok(fetched) => fetched,
            Err(error) => return Response::Failed { reason: chain(&error) },
        };
        let header = fetched.header();
        let snapshot = SnapshotOf {
            meta: SnapshotMeta {
                last_log_id: header.applied,
                last_membership: header.membership.clone(),
            },
            snapshot: fetched.into(),
        };
        match group.raft.install_full_snapshot(vote, snapshot).await {
            Ok(response) => {
                group.heard();
                Response::Installed(response)
            }
            Err(error) => failed(&error),
        }
    }

    async fn open_snapshot(self: Arc<Self>, shard: u16) -> Response {
        let blocking = self.blocking.clone();
        let opened = blocking.run(move || {
            let space = self.engine.shard(ShardId(shard)).map_err(|error| chain(&error))?;
            self.transfers.open(ShardId(shard), &space).map_err(|error| chain(&*error))
        });
        match opened.await {
            Ok(Ok((transfer, header))) => Response::SnapshotOpened { transfer, header },
            Ok(Err(reason)) => Response::Failed { reason },
            Err(error) => Response::Failed { reason: error.to_string() },
        }
    }

    async fn pull_snapshot(self: Arc<Self>, transfer: u64) -> Response {
        let blocking = self.blocking.clone();
        let pulled = blocking.run(move || self.transfers.pull(transfer)).await;
        match pulled {
            Ok(Ok(part)) => Response::Snapshot(part),
            Ok(Err(error)) => Response::Failed { reason: chain(&*error) },
            Err(error) => Response::Failed { reason: error.to_string() },
        }
    }
}

impl Service for Services {
    fn could_found_with(&self, other: NodeId) -> Result<(), String> {
        let foundation = self.foundation.get().ok_or("the node has not started")?;
        foundation.check_with(other)
    }

    fn met(&self, node: NodeId, member: &Member) {
        self.pool.learn(node.0, member);
    }

    fn answer(
        self: Arc<Self>,
        from: NodeId,
        request: Request,
    ) -> Pin<Box<dyn Future<Output = Response> + Send>> {
        match request {
            Request::Shard(shard, request) => {
                Box::pin(async move { self.for_shard(from, shard, request).await })
            }
            Request::OpenSnapshot { shard } => Box::pin(self.open_snapshot(shard)),
            Request::PullSnapshot { transfer } => Box::pin(self.pull_snapshot(transfer)),
            Request::Ping => Box::pin(async move {
                let (leads, progress) = (self.leads(), self.identity.progress());
                Response::Pong { leads, progress }
            }),
            Request::Report => Box::pin(async move {
                match self.reporter.get() {
                    Some(reporter) => Response::Report(reporter.report()),
                    None => Response::Failed { reason: "the node has not started".to_owned() },
                }
            }),
            Request::Acquaintances => Box::pin(async move {
                Response::Acquaintances { met: self.identity.met(), members: self.pool.known() }
            }),
            Request::Membership(command) => Box::pin(async move { self.decide(command).await }),
            Request::Found(founders) => Box::pin(async move { self.found(founders) }),
        }
    }
}

fn from_rejected(rejected: &Rejected) -> Response {
    match rejected {
        Rejected::NotLeader { leader } => Response::NotLeader { leader: *leader },
        Rejected::Overloaded => Response::Overloaded,
        Rejected::TooLarge => Response::Failed { reason: "too much for one entry".to_owned() },
        Rejected::Stopped => Response::Failed { reason: "the shard has stopped".to_owned() },
    }
}

fn peeked(shard: u16, read: Result<Option<LocalRead>, Fault>) -> Response {
    match read {
        Ok(Some(LocalRead { answer, index, as_of, .. })) => {
            Response::Peeked { answer, index: index.0, as_of }
        }
        Ok(None) => Response::Failed { reason: format!("no replica of shard {shard} here") },
        Err(fault) => failed(&fault),
    }
}

fn failed(error: &dyn std::error::Error) -> Response {
    Response::Failed { reason: chain(error) }
}
