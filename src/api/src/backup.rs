//! Taking a cluster's backup, and filling a new cluster from one, on the admin listener.
//!
//! A backup is read shard by shard: each reply to [`SHARD_BACKUP`](crate::path::SHARD_BACKUP) is a
//! stream of frames, each a `u32` length, big-endian, and that many bytes: a chunk of the shard's
//! backup. Its last chunk carries a digest over the others, so a stream that is cut off is found.
//!
//! A restore is a `POST` of [`RESTORE`](crate::path::RESTORE), then of every chunk to
//! [`RESTORE_RECORDS`](crate::path::RESTORE_RECORDS), then of
//! [`RESTORE_END`](crate::path::RESTORE_END). Each may be sent again, to any node.
//!
//! Leaves out: where backups lie.

use oncekey_types::{BackupId, Epoch, ShardId};
use serde::{Deserialize, Serialize};

use crate::cluster::Member;

/// Reply to `GET` [`BACKUP`](crate::path::BACKUP): what there is to be backed up.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Plan {
    /// Name of the cluster.
    pub cluster: String,
    /// Its epoch.
    pub epoch: Epoch,
    /// All its shards, in order.
    pub shards: Vec<ShardId>,
    /// The members, as the answering node knows them. A cluster that is made from the backup has
    /// its own.
    pub members: Vec<Member>,
}

/// `POST` [`RESTORE`](crate::path::RESTORE): a new cluster is to be filled from a backup. The reply
/// is a [`Restored`].
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Restore {
    /// The backup.
    pub backup: BackupId,
    /// The epoch that the cluster is to have; above that of every cluster before.
    pub epoch: Epoch,
}

/// What became of a step of a restore.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Restored {
    /// The epoch of the cluster: that of the first step, should a restore have been interrupted and
    /// begun again. It goes into the paths of the steps that follow.
    pub epoch: Epoch,
    /// Whether every shard has all its records: the cluster serves.
    pub is_done: bool,
}
