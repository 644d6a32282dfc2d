//! What an operator reads and asks, on the admin listener.

use std::{collections::BTreeMap, sync::Arc};

use axum::{
    Json,
    extract::{RawQuery, State},
    http::{StatusCode, header},
    response::{IntoResponse as _, Response},
};
use oncekey_api::{
    Code, Problem,
    cluster::{Cluster, Health, Member, Replace, Shard, StateDigest, WITH_STATE},
    problem::Members,
};
use oncekey_raft::{NodeStatus, ReplaceError, ShardStatus};
use oncekey_types::{LogIndex, NodeId};
use tokio::time::Instant;
use utoipa::openapi::OpenApi;

use crate::{
    app::App,
    config,
    extract::{JsonBody, NoQuery},
    handlers::nodes,
    metrics, openapi,
    reply::{Rejection, internal},
};

type Shared = State<Arc<App>>;

/// Committed entries that a replica of a ready node may still have to apply.
const READY_LAG_MAX: u64 = 1000;
/// Time for a node to be replaced in all shards, as a multiple of the time for one write.
const REPLACE_WRITES: u32 = 12;

/// `GET /livez`: the process runs.
pub(crate) async fn livez() -> Json<Health> {
    Json(Health { ok: true })
}

/// `GET /readyz`: every shard this node hosts has a leader and is caught up.
pub(crate) async fn readyz(State(app): Shared) -> Result<Json<Health>, Rejection> {
    let mut reasons = unready(&app.node.status());
    if app.is_draining() {
        reasons.insert(0, "the node is shutting down".to_owned());
    }
    if reasons.is_empty() {
        return Ok(Json(Health { ok: true }));
    }
    let members = Members { reasons, ..Members::default() };
    Err(Problem::with(Code::NotReady, "not every shard can be served", members).into())
}

fn unready(status: &NodeStatus) -> Vec<String> {
    if status.shards.is_empty() {
        return vec!["the node hosts no shards yet".to_owned()];
    }
    status
        .shards
        .iter()
        .filter_map(|shard| why_not(shard).map(|why| format!("shard {} {why}", shard.shard)))
        .collect()
}

fn why_not(shard: &ShardStatus) -> Option<String> {
    let lag = shard.committed.0.saturating_sub(shard.applied.0);
    if shard.leader.is_none() {
        Some("has no leader".to_owned())
    } else if !shard.in_contact {
        Some("is out of contact".to_owned())
    } else if lag > READY_LAG_MAX {
        Some(format!("is {lag} entries behind"))
    } else {
        None
    }
}

/// `GET /metrics`
pub(crate) async fn metrics(State(app): Shared) -> Result<Response, Rejection> {
    let text = app.metrics.encode().map_err(|_| internal())?;
    Ok(([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], text).into_response())
}

/// `GET /openapi.json`
pub(crate) async fn openapi(NoQuery: NoQuery) -> Json<OpenApi> {
    Json(openapi::document())
}

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
        members: status
            .members
            .into_iter()
            .map(|(id, member)| Member { id, peer: member.peer, public: member.public })
            .collect(),
        shards: status
            .shards
            .into_iter()
            .map(|status| {
                let state = states.remove(&status.shard);
                shard(status, state)
            })
            .collect(),
    }))
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
    app.node
        .replace_member(old, new.id, member, deadline)
        .await
        .map_err(|error| not_replaced(&error))?;
    Ok(StatusCode::NO_CONTENT)
}

fn unusable(pointer: &str, why: String) -> Problem {
    let members = Members { pointer: Some(pointer.to_owned()), ..Members::default() };
    Problem::with(Code::InvalidBody, why, members)
}

fn not_replaced(error: &ReplaceError) -> Problem {
    let code = match error {
        ReplaceError::NotAMember { .. } => Code::UnknownNode,
        ReplaceError::NotMet { .. } => Code::MembershipConflict,
        // A shard that did not answer; the enum may grow.
        _ => Code::NoQuorum,
    };
    Problem::new(code, error.to_string())
}
