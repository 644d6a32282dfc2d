//! Taking a backup.

use oncekey_types::{BackupId, ShardId, TimestampMs};

use crate::{
    admin::{Admin, AdminError, ShardStream},
    frames::{Checked, Frames, Passed, StreamError},
    location::Location,
    manifest::{Digest, FORMAT, Manifest, ShardFile, Totals},
};

/// Attempts at one shard: a node may go away while it streams.
const ATTEMPTS: usize = 5;

/// Why there is no backup. Without a manifest, what was written so far is none.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TakeError {
    /// Something is there already.
    #[error("{location} is in use; each backup has a place of its own")]
    InUse {
        /// The place.
        location: String,
    },
    /// The nodes.
    #[error(transparent)]
    Admin(#[from] AdminError),
    /// A shard's stream broke off, whichever node was asked.
    #[error("the backup of shard {shard} broke off {ATTEMPTS} times: {reason}")]
    BrokeOff {
        /// The shard.
        shard: ShardId,
        /// What happened last.
        reason: String,
    },
    /// The store.
    #[error("the backup cannot be written")]
    Store(#[from] object_store::Error),
    /// The store, while it finished a file.
    #[error("the backup cannot be written")]
    Finish(#[source] std::io::Error),
    /// The manifest could not be encoded.
    #[error("the manifest cannot be encoded")]
    Manifest(#[source] serde_json::Error),
}

/// How one attempt at a shard ended.
enum Broken {
    /// Another may succeed.
    Stream(String),
    Fatal(TakeError),
}

/// Takes a backup of the cluster of `admin`, begun at `now`, and puts it to `location`, where there
/// must be nothing. Tells `progress` of each shard that is done.
///
/// # Errors
///
/// A [`TakeError`].
pub async fn take(
    admin: &Admin,
    location: &Location,
    now: TimestampMs,
    mut progress: impl FnMut(&ShardFile, usize),
) -> Result<Manifest, TakeError> {
    if !location.is_unused().await? {
        return Err(TakeError::InUse { location: location.to_string() });
    }
    let plan = admin.plan().await?;
    let mut shards = Vec::with_capacity(plan.shards.len());
    let mut totals = Totals::default();
    for shard in &plan.shards {
        let file = take_shard(admin, location, *shard).await?;
        totals += file.totals;
        progress(&file, plan.shards.len());
        shards.push(file);
    }
    let manifest = Manifest {
        format: FORMAT,
        backup: BackupId(rand::random()),
        cluster: plan.cluster,
        epoch: plan.epoch,
        taken_ms: now,
        program: env!("CARGO_PKG_VERSION").to_owned(),
        members: plan.members,
        shards,
        totals,
        checksum: Digest([0; 32]),
    };
    let (manifest, bytes) = manifest.encode().map_err(TakeError::Manifest)?;
    location.write_manifest(bytes).await?;
    Ok(manifest)
}

async fn take_shard(
    admin: &Admin,
    location: &Location,
    shard: ShardId,
) -> Result<ShardFile, TakeError> {
    let file = format!("shard-{:05}.backup", shard.0);
    let mut reason = String::new();
    for _ in 0..ATTEMPTS {
        let stream = admin.shard(shard).await?;
        let index = stream.index;
        match copy(stream, location, &file).await {
            Ok(Passed { sha256, bytes, census }) => {
                return Ok(ShardFile { shard, file, index, bytes, sha256, totals: census.into() });
            }
            Err(Broken::Fatal(error)) => return Err(error),
            Err(Broken::Stream(why)) => {
                tracing::debug!(%shard, why, "a shard's stream broke off");
                reason = why;
            }
        }
    }
    Err(TakeError::BrokeOff { shard, reason })
}

/// Copies a stream to a file, checking it on the way.
async fn copy(mut stream: ShardStream, location: &Location, file: &str) -> Result<Passed, Broken> {
    let mut writer = location.writer(file);
    let (mut frames, mut checked) = (Frames::default(), Checked::new());
    let result = async {
        while let Some(bytes) = stream.next().await.map_err(Broken::Stream)? {
            frames.push(&bytes);
            while let Some(chunk) = frames.next_chunk()? {
                let frame = checked.pass(&chunk)?;
                writer.write(frame).await.map_err(|error| Broken::Fatal(error.into()))?;
            }
        }
        frames.finish()?;
        Ok(checked.finish()?)
    }
    .await;
    match result {
        Ok(passed) => {
            writer.finish().await.map_err(|error| Broken::Fatal(TakeError::Finish(error)))?;
            Ok(passed)
        }
        Err(broken) => {
            writer.abort().await;
            Err(broken)
        }
    }
}

impl From<StreamError> for Broken {
    fn from(error: StreamError) -> Self {
        Self::Stream(error.to_string())
    }
}
