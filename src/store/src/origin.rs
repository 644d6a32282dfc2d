//! Where the records of a shard come from, and so which epoch it is in.

use oncekey_types::{BackupId, Epoch};
use serde::{Deserialize, Serialize};

/// Where the records of a shard come from. Ordinals are stable, never reuse.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub enum Origin {
    /// The shard was made empty.
    #[default]
    New,
    /// It is being filled from a backup, and does nothing else until that is done.
    BeingRestored {
        /// The backup.
        backup: BackupId,
        /// The epoch that the restore began.
        epoch: Epoch,
    },
    /// It was filled from a backup.
    Restored {
        /// The backup.
        backup: BackupId,
        /// The epoch that the restore began.
        epoch: Epoch,
    },
}

impl Origin {
    /// The epoch of the shard.
    #[must_use]
    pub fn epoch(self) -> Epoch {
        match self {
            Self::New => Epoch::FIRST,
            Self::BeingRestored { epoch, .. } | Self::Restored { epoch, .. } => epoch,
        }
    }

    /// Whether the shard still waits for records.
    #[must_use]
    pub fn is_being_restored(self) -> bool {
        matches!(self, Self::BeingRestored { .. })
    }
}
