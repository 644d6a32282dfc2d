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
    elections,
    environment::Blocking,
    error::chain,
    identity::Identity,
    liveness::Liveness,
    members,
    peer::{PeerPool, Request, Response, Service, ShardRequest},
    reports::Reporter,
    router::Router,
    shard::Shard,
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
            reporter: OnceLock::new(),
        }
    }

    /// Begins to answer for the shards of `router`, and with what `reporter` has counted.
    pub(crate) fn open(&self, router: Arc<Router>, reporter: Arc<Reporter>) {
        // A node opens its shards once.
        let _ = self.router.set(router);
        let _ = self.reporter.set(reporter);
    }

    /// The shards that this node leads with a quorum.
    fn leads(&self) -> Vec<u16> {
        let Some(router) = self.router.get() else { return Vec::new() };
        router.led_shards().map(|shard| shard.0).collect()
    }

    fn shard(&self, shard: u16) -> Option<&Arc<Shard>> {
        self.router.get()?.shards.get(&ShardId(shard))
    }

    async fn for_shard(&self, from: NodeId, shard: &Arc<Shard>, request: ShardRequest) -> Response {
        match request {
            ShardRequest::Append(rpc) => match shard.raft.append_entries(rpc).await {
                Ok(response) => {
                    // A leader that was deposed is not a leader heard.
                    if !matches!(response, AppendEntriesResponse::HigherVote(_)) {
                        shard.heard();
                    }
                    Response::Append(response)
                }
                Err(error) => failed(&error),
            },
            ShardRequest::Vote(rpc) => match shard.raft.vote(rpc).await {
                Ok(response) => Response::Vote(response),
                Err(error) => failed(&error),
            },
            ShardRequest::PreVote(rpc)
                if elections::refuses_pre_vote(
                    self.identity.node().0,
                    &self.liveness,
                    shard,
                    &rpc,
                ) =>
            {
                let vote = shard.metrics().vote;
                Response::Vote(VoteResponse::new(vote, shard.log.last(), false))
            }
            ShardRequest::PreVote(rpc) => match shard.raft.pre_vote(rpc).await {
                Ok(response) => Response::Vote(response),
                Err(error) => failed(&error),
            },
            ShardRequest::TransferLeader(rpc) => {
                match shard.raft.handle_transfer_leader(rpc).await {
                    Ok(response) => Response::TransferLeader(response),
                    Err(error) => failed(&error),
                }
            }
            ShardRequest::InstallSnapshot { vote } => {
                self.install_snapshot(from, shard, vote).await
            }
            ShardRequest::Submit { commands, traces } => {
                match shard.batcher.submit_all(commands, traces).await {
                    Ok((outcomes, index)) => Response::Submitted { outcomes, index: index.0 },
                    Err(rejected) => from_rejected(&rejected),
                }
            }
            ShardRequest::Query(query) => match shard.query_as_leader(&query).await {
                Ok((answer, index)) => Response::Answered { answer, index: index.0 },
                Err(rejected) => from_rejected(&rejected),
            },
            ShardRequest::Replace(replacement) => {
                let me = self.identity.node().0;
                Response::Replaced(members::replace(me, shard, &self.pool, &replacement).await)
            }
        }
    }

    /// Fetches the shard's state from its leader and hands it to Raft, which installs it if it is
    /// newer than what is here.
    async fn install_snapshot(&self, leader: NodeId, shard: &Shard, vote: Vote) -> Response {
        let fetched =
            transfer::fetch(&self.pool, &self.blocking, leader.0, shard.id, &shard.space).await;
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
        match shard.raft.install_full_snapshot(vote, snapshot).await {
            Ok(response) => {
                shard.heard();
                Response::Installed(response)
            }
            Err(error) => failed(&error),
        }
    }

    async fn open_snapshot(self: Arc<Self>, shard: u16) -> Response {
        let blocking = self.blocking.clone();
        let opened = blocking.run(move || {
            let space = self.engine.shard(ShardId(shard)).map_err(|error| chain(&error))?;
            self.transfers.open(&space).map_err(|error| chain(&*error))
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
    fn met(&self, node: NodeId, member: &Member) {
        self.pool.learn(node.0, member);
    }

    fn answer(
        self: Arc<Self>,
        from: NodeId,
        request: Request,
    ) -> Pin<Box<dyn Future<Output = Response> + Send>> {
        match request {
            Request::Shard(shard, request) => Box::pin(async move {
                match self.shard(shard).cloned() {
                    Some(shard) => self.for_shard(from, &shard, request).await,
                    None => Response::Failed { reason: format!("shard {shard} has not started") },
                }
            }),
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

fn failed(error: &dyn std::error::Error) -> Response {
    Response::Failed { reason: chain(error) }
}
