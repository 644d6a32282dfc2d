//! Reading a backup, shard by shard.
//!
//! Guarantees: what is streamed was linearizable when it was asked for, and memory is bounded by one
//! chunk for each stream, whatever the size of the shard. When this node fails in the middle the
//! stream is cut off, which its reader finds.
//!
//! Leaves out: writing it anywhere; whoever asks does.

use std::sync::Arc;

use axum::{
    Json,
    body::{Body, Bytes},
    extract::{RawPathParams, State},
    http::header,
    response::{IntoResponse as _, Response},
};
use futures_util::stream;
use oncekey_api::{Code, Problem, backup::Plan, bundle::Route, cluster::Member};
use oncekey_raft::{BackupError, ShardBackup};
use oncekey_types::{Epoch, ShardId};
use tokio::time::Instant;

use super::part;
use crate::{
    app::App,
    extract::NoQuery,
    reply::{Rejection, unanswered, with_route},
};

type Shared = State<Arc<App>>;

/// `GET /v1/cluster/backup`
pub(crate) async fn plan(State(app): Shared, NoQuery: NoQuery) -> Result<Json<Plan>, Rejection> {
    if let Some(why) = app.closed() {
        return Err(Problem::new(Code::NotReady, why).into());
    }
    let members = app.node.status().members.into_iter();
    let member = |(id, status): (_, oncekey_raft::MemberStatus)| Member {
        id,
        peer: status.member.peer,
        public: status.member.public,
    };
    Ok(Json(Plan {
        cluster: app.node.cluster(),
        epoch: app.node.epoch().epoch.unwrap_or(Epoch::FIRST),
        shards: app.node.shards().collect(),
        members: members.map(member).collect(),
    }))
}

/// `GET /v1/cluster/backup/{shard}`
pub(crate) async fn shard(
    State(app): Shared,
    NoQuery: NoQuery,
    params: RawPathParams,
) -> Result<Response, Rejection> {
    let shard: ShardId = part(&params, "shard")?;
    let deadline = Instant::now() + app.http.write_timeout;
    let backup = app.node.backup(shard, deadline).await.map_err(|error| no_backup(&error))?;
    tracing::info!(%shard, index = backup.index().0, "backing up");
    let route = Route { shard, leader: None, index: Some(backup.index()) };
    let response = ([(header::CONTENT_TYPE, "application/octet-stream")], frames(app, backup));
    Ok(with_route(&route, response.into_response()))
}

/// The chunks as a body, each read when the one before is on its way.
fn frames(app: Arc<App>, backup: ShardBackup) -> Body {
    let next = async |(app, mut backup): (Arc<App>, ShardBackup)| {
        let read = move || {
            let chunk = backup.next_chunk();
            (chunk, backup)
        };
        let (chunk, backup) = app.node.environment().blocking.run(read).await?;
        type Error = Box<dyn std::error::Error + Send + Sync>;
        let Some(chunk) = chunk? else { return Ok::<_, Error>(None) };
        let length = u32::try_from(chunk.len())?.to_be_bytes();
        let frame: Bytes = [&length[..], &chunk].concat().into();
        Ok(Some((frame, (app, backup))))
    };
    Body::from_stream(stream::try_unfold((app, backup), next))
}

fn no_backup(error: &BackupError) -> Problem {
    match error {
        BackupError::NotHosted { .. } => Problem::new(Code::UnknownShard, error.to_string()),
        BackupError::Unanswered(error) => unanswered(error),
        // A replica that is behind; the enum may grow.
        _ => Problem::new(Code::NotReady, error.to_string()),
    }
}
