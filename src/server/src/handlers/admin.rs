//! What a supervisor asks on the admin listener: health, metrics, the interface itself.

use std::sync::Arc;

use axum::{
    Json,
    extract::State,
    http::header,
    response::{IntoResponse as _, Response},
};
use oncekey_api::{Code, Problem, cluster::Health, problem::Members};
use oncekey_raft::{NodeStatus, ShardStatus, Standing};
use oncekey_types::NodeId;
use utoipa::openapi::OpenApi;

use crate::{
    app::App,
    extract::NoQuery,
    metrics,
    openapi::{self, Guards},
    reply::{Rejection, internal},
};

type Shared = State<Arc<App>>;

/// Committed entries that a replica of a ready node may still have to apply.
const READY_LAG_MAX: u64 = 1000;

/// `GET /livez`: the process runs.
pub(crate) async fn livez() -> Json<Health> {
    Json(Health { ok: true })
}

/// `GET /readyz`: the node is a member, and every shard has a leader and, where it is hosted here, has
/// a quorum in reach and is caught up. While a lost leader is replaced, the node stays ready: nothing
/// is gained by sending everybody elsewhere, to nodes that wait as well.
pub(crate) async fn readyz(State(app): Shared) -> Result<Json<Health>, Rejection> {
    let mut reasons = unready(&app.node.status());
    if app.is_draining() {
        reasons.insert(0, "the node is shutting down".to_owned());
    }
    reasons.extend(app.closed().map(str::to_owned));
    if reasons.is_empty() {
        return Ok(Json(Health { ok: true }));
    }
    let members = Members { reasons, ..Members::default() };
    Err(Problem::with(Code::NotReady, "not every shard can be served", members).into())
}

fn unready(status: &NodeStatus) -> Vec<String> {
    let standing = status.members.get(&status.node).map(|member| member.standing);
    let reason = match standing {
        _ if status.is_removed => "the node was removed from the cluster",
        None if status.shards.is_empty() => "the node belongs to no cluster yet",
        // A founder holds its shards before the membership knows it.
        Some(Standing::Joining) if status.shards.is_empty() => {
            "the node has asked to join and was not let in yet"
        }
        None | Some(Standing::Joining | Standing::Active | Standing::Draining { .. }) => "",
    };
    if !reason.is_empty() {
        return vec![reason.to_owned()];
    }
    let hosted = |shard| status.shards.iter().any(|status| status.shard == shard);
    let elsewhere = status.placement.iter().filter(|placed| !hosted(placed.shard));
    let unled = elsewhere.filter(|placed| placed.leader.is_none());
    status
        .shards
        .iter()
        .filter_map(|shard| {
            why_not(shard, status).map(|why| format!("shard {} {why}", shard.shard))
        })
        .chain(unled.map(|placed| format!("shard {} has no leader", placed.shard)))
        .collect()
}

fn why_not(shard: &ShardStatus, status: &NodeStatus) -> Option<String> {
    // Whoever is no member yet, or no more, is not looked after.
    let is_silent = |node: &&NodeId| status.members.get(*node).is_some_and(|told| !told.is_alive);
    let silent = shard.voters.iter().filter(is_silent).count();
    let lag = shard.committed.0.saturating_sub(shard.applied.0);
    if shard.leader.is_none() {
        Some("has no leader".to_owned())
    } else if !shard.in_contact || silent * 2 >= shard.voters.len() {
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
pub(crate) async fn openapi(NoQuery: NoQuery, guards: Guards) -> Json<OpenApi> {
    Json(openapi::document(guards))
}
