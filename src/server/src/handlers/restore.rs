//! Filling a new cluster from a backup.
//!
//! Guarantees: every step reaches every shard that it is for, or the reply says that it did not; a
//! step that is sent again does no harm. Leaves out: whether the backup is whole, which whoever
//! sends it has checked.

use std::{collections::BTreeMap, sync::Arc};

use axum::{
    Json,
    extract::{RawPathParams, Request, State},
    http::StatusCode,
};
use oncekey_api::{
    Code, Problem,
    backup::{Restore, Restored},
};
use oncekey_store::{
    command::{self, RestoreStep, RestoredRecord},
    outcome::Outcome,
    owner_of, snapshot,
};
use oncekey_types::{BackupId, Epoch, ShardId, limits};
use tokio::time::Instant;

use super::part;
use crate::{
    app::App,
    extract::{JsonBody, NoQuery, read_bytes},
    reply::{Rejection, internal},
};

type Shared = State<Arc<App>>;

/// `POST /v1/cluster/restore`
pub(crate) async fn begin(
    State(app): Shared,
    NoQuery: NoQuery,
    JsonBody(Restore { backup, mut epoch }): JsonBody<Restore>,
) -> Result<Json<Restored>, Rejection> {
    tracing::info!(%backup, %epoch, "a restore begins");
    let mut is_done = true;
    for shard in app.node.shards() {
        // One after the other: the first shard says with which epoch a restore began before.
        let restored = step(&app, shard, backup, epoch, RestoreStep::Begin).await?;
        epoch = restored.epoch;
        is_done &= restored.is_done;
    }
    Ok(Json(Restored { epoch, is_done }))
}

/// `POST /v1/cluster/restore/{backup}/{epoch}/records`
pub(crate) async fn records(
    State(app): Shared,
    NoQuery: NoQuery,
    params: RawPathParams,
    request: Request,
) -> Result<StatusCode, Rejection> {
    let (backup, epoch) = (part(&params, "backup")?, part(&params, "epoch")?);
    let limit = snapshot::CHUNK_MAX_BYTES;
    let chunk = read_bytes(request.into_body(), limit, app.http.body_timeout).await?;
    let records = snapshot::records_of(&chunk).map_err(|error| {
        Problem::new(Code::InvalidBody, format!("this is no chunk of a backup: {error}"))
    })?;
    for (shard, records) in by_shard(&app, records) {
        step(&app, shard, backup, epoch, RestoreStep::Put(records)).await?;
    }
    Ok(StatusCode::NO_CONTENT)
}

/// `POST /v1/cluster/restore/{backup}/{epoch}/end`
pub(crate) async fn end(
    State(app): Shared,
    NoQuery: NoQuery,
    params: RawPathParams,
) -> Result<Json<Restored>, Rejection> {
    let (backup, epoch) = (part(&params, "backup")?, part(&params, "epoch")?);
    for shard in app.node.shards() {
        step(&app, shard, backup, epoch, RestoreStep::End).await?;
    }
    tracing::info!(%backup, %epoch, "the cluster is restored");
    Ok(Json(Restored { epoch, is_done: true }))
}

async fn step(
    app: &App,
    shard: ShardId,
    backup: BackupId,
    epoch: Epoch,
    step: RestoreStep,
) -> Result<oncekey_store::outcome::Restored, Rejection> {
    let step = command::Restore { backup, epoch, step };
    let deadline = Instant::now() + app.http.write_timeout;
    match app.node.restore(shard, step, deadline).await? {
        Outcome::Restored(restored) => Ok(restored),
        Outcome::Refused(refusal) => Err(refusal.into()),
        _ => Err(internal().into()),
    }
}

/// The records, for each shard in parts that fit a command. What belongs to no user, the time of the
/// old log, goes to all shards.
fn by_shard(app: &App, records: Vec<(Vec<u8>, Vec<u8>)>) -> Vec<(ShardId, Vec<RestoredRecord>)> {
    let mut parts = Vec::new();
    let mut open = BTreeMap::<ShardId, (usize, Vec<RestoredRecord>)>::new();
    for (key, value) in records {
        let shards: Vec<_> = match owner_of(&key) {
            Some(user) => vec![app.node.shard_of(&user)],
            None => app.node.shards().collect(),
        };
        let record = RestoredRecord { key, value };
        let bytes = record.key.len() + record.value.len();
        for shard in shards {
            let (size, part) = open.entry(shard).or_default();
            if *size + bytes > limits::RESTORE_PUT_MAX_BYTES {
                parts.push((shard, std::mem::take(part)));
                *size = 0;
            }
            *size += bytes;
            part.push(record.clone());
        }
    }
    parts.extend(open.into_iter().map(|(shard, (_, part))| (shard, part)));
    parts
}
