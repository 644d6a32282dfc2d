//! What the state needs of an engine.

use super::{EngineError, Record};

/// Reads a database, live or as it was at one moment.
pub(super) trait Reader {
    /// The value of a key.
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, EngineError>;

    /// The first `limit` records with `from <= key < to`.
    fn range(&self, from: &[u8], to: &[u8], limit: usize) -> Result<Vec<Record>, EngineError>;
}

/// A change of one key: its new value, or `None` to remove it.
pub(super) type ChangeRef<'a> = (Vec<u8>, Option<&'a [u8]>);

/// An ordered database with atomic batches.
pub(super) trait Engine: Reader + Send + Sync {
    /// Applies all changes or none.
    fn apply(&self, changes: &mut dyn Iterator<Item = ChangeRef<'_>>) -> Result<(), EngineError>;

    /// Makes everything applied before the call durable.
    fn checkpoint(&self) -> Result<(), EngineError>;

    /// The database as of now; `None` when the engine cannot do that.
    fn snapshot(&self) -> Option<Box<dyn Reader + Send + Sync>>;

    /// Bytes on disk.
    fn disk_bytes(&self) -> Result<u64, EngineError>;
}
