//! What a backup keeps of a shard, read from this node's replica.
//!
//! Guarantees: every command that was answered before the backup of a shard was asked for is in it;
//! it is of one moment, whatever is applied while it is read. Memory is bounded, whatever the size
//! of the shard. Leaves out: one moment for all shards; a user belongs to one.

use std::{error::Error, iter, sync::Arc};

use oncekey_storage::state::{EngineError, ShardView};
use oncekey_store::snapshot::{Content, Writer};
use oncekey_types::{LogIndex, ShardId};
use tokio::time::{Instant, timeout_at};

use crate::{
    codec::decode_header,
    error::{Fault, SubmitError},
    machine::Records,
    router::Router,
    shard::Shard,
};

/// Why there is no backup of a shard here.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BackupError {
    /// This node has no replica of the shard; another one has.
    #[error("this node has no replica of shard {shard}")]
    NotHosted {
        /// The shard.
        shard: ShardId,
    },
    /// This node's replica did not catch up in time.
    #[error("the replica of shard {shard} did not catch up in time")]
    Behind {
        /// The shard.
        shard: ShardId,
    },
    /// So much was written while it was read that the engine could not hold it still.
    #[error(
        "shard {shard} has changed too much while it was read; try again, or with another node"
    )]
    Overtaken {
        /// The shard.
        shard: ShardId,
    },
    /// The shard's leader did not answer.
    #[error(transparent)]
    Unanswered(#[from] SubmitError),
}

/// A shard at one moment, as a stream of chunks; see [`snapshot`](oncekey_store::snapshot).
pub struct ShardBackup {
    shard: Arc<Shard>,
    view: ShardView,
    index: LogIndex,
    writer: Writer,
}

impl ShardBackup {
    /// Index of the last entry in it.
    #[must_use]
    pub fn index(&self) -> LogIndex {
        self.index
    }

    /// The next chunk; `None` after the last one. Blocks.
    ///
    /// # Errors
    ///
    /// [`BackupError::Overtaken`]; or a fault, when the disk cannot tell; the node stops.
    pub fn next_chunk(&mut self) -> Result<Option<Vec<u8>>, BackupError> {
        let chunk = self.writer.next_chunk(&Records(&self.view));
        chunk.map_err(|error| match is_view_lost(&error) {
            true => BackupError::Overtaken { shard: self.shard.id() },
            false => SubmitError::Fault(self.shard.fault(&error)).into(),
        })
    }
}

/// Begins a backup of `shard` from this node's replica.
pub(crate) async fn begin(
    router: &Router,
    shard: ShardId,
    deadline: Instant,
) -> Result<ShardBackup, BackupError> {
    let hosted = router.shards.get(&shard).cloned();
    let hosted =
        hosted.filter(|hosted| router.hosts(hosted)).ok_or(BackupError::NotHosted { shard })?;
    let index = router.read_index(&hosted, deadline).await?;
    let caught_up = timeout_at(deadline, hosted.group.applied_at_least(index)).await;
    caught_up.map_err(|_| BackupError::Behind { shard })?;
    let open = {
        let hosted = Arc::clone(&hosted);
        move || open(hosted)
    };
    let opened = router.blocking.run(open).await;
    // It fails only when the runtime ends.
    let opened = opened.map_err(|_| SubmitError::ShuttingDown)?;
    Ok(opened.map_err(SubmitError::Fault)?)
}

/// Whether `error` comes from a view that was lost.
fn is_view_lost(error: &(dyn Error + 'static)) -> bool {
    let mut causes = iter::successors(Some(error), |error| (**error).source());
    causes.any(|cause| matches!(cause.downcast_ref(), Some(EngineError::ViewLost)))
}

fn open(shard: Arc<Shard>) -> Result<ShardBackup, Fault> {
    let view = shard.group.space.view().map_err(|error| shard.fault(&error))?;
    let header = view.header().map_err(|error| shard.fault(&error))?;
    let header = header.map(|bytes| decode_header(&bytes)).transpose();
    let header = header.map_err(|error| shard.fault(&error))?.unwrap_or_default();
    let index = LogIndex(header.applied_index());
    Ok(ShardBackup { shard, view, index, writer: Writer::of(Content::Backup) })
}
