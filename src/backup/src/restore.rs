//! Filling a new cluster from a backup.
//!
//! Guarantees: the backup is read and checked as a whole before the cluster is touched; a restore
//! that was interrupted is gone on with by starting it again. Leaves out: the old cluster, which must
//! not go on beside the new one.

use oncekey_api::{
    backup::{Restore, Restored},
    path,
};
use oncekey_types::{Epoch, TimestampMs};

use crate::{
    admin::{Admin, AdminError},
    location::Location,
    manifest::{Manifest, ShardFile},
    verify::{VerifyError, read_shard, verify},
};

/// Why the cluster was not restored.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RestoreError {
    /// The backup is not whole; the cluster was not touched, unless the backup was changed meanwhile.
    #[error(transparent)]
    Backup(#[from] VerifyError),
    /// The clock is behind the backup's, so the epoch would not grow.
    #[error(
        "the clock of this machine says {now}, the backup was taken at {taken} of Unix time: set \
         the clock"
    )]
    Clock {
        /// This machine's.
        now: TimestampMs,
        /// The one that took the backup.
        taken: TimestampMs,
    },
    /// The nodes.
    #[error(transparent)]
    Admin(#[from] AdminError),
}

/// Fills the new cluster of `admin` from the backup at `location`, and gives it an epoch that no
/// cluster had: the time `now`, in milliseconds. Tells `progress` of each shard of the backup that is
/// done.
///
/// # Errors
///
/// A [`RestoreError`].
pub async fn restore(
    admin: &Admin,
    location: &Location,
    now: TimestampMs,
    mut progress: impl FnMut(&ShardFile, usize),
) -> Result<(Manifest, Restored), RestoreError> {
    let manifest = verify(location).await?;
    let epoch = Epoch(now.0);
    if now <= manifest.taken_ms || epoch <= manifest.epoch {
        return Err(RestoreError::Clock { now, taken: manifest.taken_ms });
    }
    let backup = manifest.backup;
    let began: Restored = admin.post(path::RESTORE, &Restore { backup, epoch }).await?;
    if began.is_done {
        return Ok((manifest, began));
    }
    let records = path::restore_records(backup, began.epoch);
    for file in &manifest.shards {
        let put = async |chunk| Ok::<_, RestoreError>(admin.post_bytes(&records, chunk).await?);
        read_shard(location, file, put).await?;
        progress(file, manifest.shards.len());
    }
    let end = path::restore_end(backup, began.epoch);
    let ended = admin.post(&end, &serde_json::json!({})).await?;
    Ok((manifest, ended))
}
