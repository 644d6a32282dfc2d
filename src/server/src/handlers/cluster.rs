//! What an operator reads of the cluster and changes in it, on the admin listener.
//!
//! Guarantees: a change is answered when it is decided or done, and may be asked for again. Leaves
//! out: who may ask.

use std::{collections::BTreeMap, sync::Arc};

use axum::{
    Json,
    extract::{RawQuery, State},
    http::StatusCode,
};
use oncekey_api::{
    Code, Problem,
    cluster::{
        Cluster, Drain, Init, Join, MemberState, MemberStatus, Placement, Replace, Shard,
        StateDigest, Transfer, WITH_STATE,
    },
    problem::Members,
};
use oncekey_raft::{ChangeError, PlacementStatus, Refusal, ShardStatus, Standing};
use oncekey_types::{LogIndex, NodeId, limits};
use tokio::time::Instant;

use crate::{
    app::App,
    config,
    extract::{JsonBody, NoQuery},
    handlers::nodes,
    reply::{Rejection, internal},
};

type Shared = State<Arc<App>>;

/// Time for a node to be replaced in all shards, as a multiple of the time for one write.
const REPLACE_WRITES: u32 = 12;

/// `GET /v1/cluster`
pub(crate) async fn cluster(
    State(app): Shared,
    RawQuery(query): RawQuery,
) -> Result<Json<Cluster>, Rejection> {
    let mut states = match query.as_deref() {
        None | Some("") => BTreeMap::new(),
        Some(WITH_STATE) => {
            let node = app.node.clone();
            let digests = tokio::task::spawn_blocking(move || node.digests());
            let digests = digests.await.map_err(|_| internal())?.map_err(|_| internal())?;
            digests.into_iter().map(|(shard, applied, state)| (shard, (applied, state))).collect()
        }
        Some(_) => {
            let detail = format!("the one query known here is {WITH_STATE}");
            return Err(Problem::new(Code::MalformedQuery, detail).into());
        }
    };
    let status = app.node.status();
    Ok(Json(Cluster {
        name: status.cluster,
        node: status.node,
        nodes: nodes::all(&app),
        members: status.members.into_iter().map(|(id, status)| member(id, status)).collect(),
        shards: status
            .shards
            .into_iter()
            .map(|status| {
                let state = states.remove(&status.shard);
                shard(status, state)
            })
            .collect(),
        placement: status.placement.into_iter().map(placement).collect(),
    }))
}

fn member(id: NodeId, status: oncekey_raft::MemberStatus) -> MemberStatus {
    let location = status.location.unwrap_or_default();
    MemberStatus {
        id,
        peer: status.member.peer,
        public: status.member.public,
        state: match status.standing {
            Standing::Joining => MemberState::Joining,
            Standing::Active => MemberState::Active,
            Standing::Draining { .. } => MemberState::Draining,
        },
        region: location.region,
        zone: location.zone,
        version: status.program,
        alive: status.is_alive,
    }
}

fn shard(status: ShardStatus, state: Option<(LogIndex, [u8; 32])>) -> Shard {
    let state = state.map(|(applied, digest)| StateDigest {
        applied: applied.0,
        sha256: digest.iter().map(|byte| format!("{byte:02x}")).collect(),
    });
    Shard {
        shard: status.shard,
        leader: status.leader,
        term: status.term,
        last_log: status.last_log.0,
        applied: status.applied.0,
        in_contact: status.in_contact,
        voters: status.voters,
        learners: status.learners,
        state,
    }
}

fn placement(status: PlacementStatus) -> Placement {
    let PlacementStatus { shard, leader, replicas, target, .. } = status;
    Placement { shard, leader, replicas, target }
}

/// `POST /v1/cluster/replace`
pub(crate) async fn replace(
    State(app): Shared,
    NoQuery: NoQuery,
    JsonBody(body): JsonBody<Replace>,
) -> Result<StatusCode, Rejection> {
    let Replace { old, new } = body;
    for (pointer, address) in [("/new/peer", &new.peer), ("/new/public", &new.public)] {
        config::host_port(address).map_err(|why| unusable(pointer, why))?;
    }
    if new.id == NodeId(0) {
        return Err(unusable("/new/id", "must be at least 1".to_owned()).into());
    }
    let member = oncekey_raft::Member { peer: new.peer, public: new.public };
    let deadline = Instant::now() + app.http.write_timeout * REPLACE_WRITES;
    tracing::info!(%old, new = %new.id, "replacing a node");
    done(app.node.replace_member(old, new.id, member, deadline).await)
}

fn unusable(pointer: &str, why: String) -> Problem {
    let members = Members { pointer: Some(pointer.to_owned()), ..Members::default() };
    Problem::with(Code::InvalidBody, why, members)
}

/// `POST /v1/cluster/init`
pub(crate) async fn init(
    State(app): Shared,
    NoQuery: NoQuery,
    JsonBody(body): JsonBody<Init>,
) -> Result<StatusCode, Rejection> {
    let Init { peers, replicas } = body;
    if peers.len() >= limits::NODES_MAX {
        let detail = format!("{} peers, allowed are fewer than {}", peers.len(), limits::NODES_MAX);
        return Err(Problem::new(Code::LimitExceeded, detail).into());
    }
    for (position, peer) in peers.iter().enumerate() {
        let pointer = format!("/peers/{position}");
        config::host_port(peer).map_err(|why| unusable(&pointer, why))?;
    }
    if let Some(replicas) = replicas
        && !(1..=limits::REPLICAS_MAX).contains(&replicas)
    {
        let detail = format!("{replicas} replicas, allowed are 1 to {}", limits::REPLICAS_MAX);
        return Err(Problem::new(Code::LimitExceeded, detail).into());
    }
    tracing::info!(?peers, "forming a cluster");
    done(app.node.found_cluster(&peers, replicas).await)
}

/// `POST /v1/cluster/join`
pub(crate) async fn join(
    State(app): Shared,
    NoQuery: NoQuery,
    JsonBody(body): JsonBody<Join>,
) -> Result<StatusCode, Rejection> {
    let node = body.node.unwrap_or_else(|| app.node.status().node);
    tracing::info!(%node, "letting a node in");
    done(app.node.activate(node, app.write_deadline()).await)
}

/// `POST /v1/cluster/drain`
pub(crate) async fn drain(
    State(app): Shared,
    NoQuery: NoQuery,
    JsonBody(body): JsonBody<Drain>,
) -> Result<StatusCode, Rejection> {
    tracing::info!(node = %body.node, "draining a node");
    done(app.node.drain_node(body.node, app.write_deadline()).await)
}

/// `POST /v1/cluster/transfer`
pub(crate) async fn transfer(
    State(app): Shared,
    NoQuery: NoQuery,
    JsonBody(body): JsonBody<Transfer>,
) -> Result<StatusCode, Rejection> {
    let Transfer { shard, to } = body;
    tracing::info!(%shard, %to, "giving the lead of a shard away");
    done(app.node.transfer_leader(shard, to, app.write_deadline()).await)
}

fn done(result: Result<(), ChangeError>) -> Result<StatusCode, Rejection> {
    result.map(|()| StatusCode::NO_CONTENT).map_err(|error| unchanged(&error).into())
}

fn unchanged(error: &ChangeError) -> Problem {
    let code = match error {
        ChangeError::Refused(Refusal::UnknownNode { .. }) => Code::UnknownNode,
        ChangeError::UnknownShard => Code::UnknownShard,
        ChangeError::Refused(_)
        | ChangeError::NotAVoter { .. }
        | ChangeError::NotMet { .. }
        | ChangeError::NotFresh { .. } => Code::MembershipConflict,
        // A group that did not answer, or that is not done yet; the enum may grow.
        _ => Code::NoQuorum,
    };
    Problem::new(code, error.to_string())
}
