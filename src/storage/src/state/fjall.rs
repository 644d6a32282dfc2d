//! The state in fjall.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use fjall::compaction::Leveled;
use fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode, Readable, Snapshot};

use super::engine::{ChangeRef, Engine, Reader};
use super::{EngineError, EngineKind, EngineOptions, Record};

/// Greatest length of all journals: that of the tables which wait to be written, and to spare.
const JOURNAL_BYTES: u64 = 256 << 20;
/// Gathered in memory before it is written as a table. fjall makes writers wait, a tenth of a second
/// at a time, while four of these are full, and its one worker writes none while it compacts. So
/// they are large: there is less to compact then, and a compaction seldom lasts for four of them.
const MEMTABLE_BYTES: u64 = 64 << 20;
/// Length of a table that a compaction writes. fjall syncs each as a whole, and the syncs of the log
/// wait behind it on the same disk.
const TABLE_BYTES: u64 = 16 << 20;
/// The journal is synced after so many bytes. Nothing rests on it before a checkpoint. But fjall syncs what
/// is left of it before it writes a table, and nobody can write meanwhile; all of a memtable takes the
/// disk a tenth of a second.
const SYNC_BYTES: usize = 1 << 20;
/// One, because a second one spins while the first compacts: it takes the request to compact from
/// the queue and puts it back, over and over.
const WORKERS: usize = 1;

/// A fjall database with one key space for all shards. It keeps the settings with which it was made.
pub(super) struct Fjall {
    database: Database,
    records: Keyspace,
    /// Bytes of changes since the journal was synced last, about.
    unsynced: AtomicUsize,
}

impl Fjall {
    pub(super) fn open(dir: &Path, options: &EngineOptions) -> Result<Self, EngineError> {
        let database = Database::builder(dir)
            .cache_size(options.cache_bytes)
            .max_journaling_size(JOURNAL_BYTES)
            .worker_threads(WORKERS)
            .open()
            .map_err(fault("opening"))?;
        let tuning = || {
            KeyspaceCreateOptions::default().max_memtable_size(MEMTABLE_BYTES).compaction_strategy(
                Arc::new(Leveled::default().with_table_target_size(TABLE_BYTES)),
            )
        };
        let records = database.keyspace("state", tuning).map_err(fault("opening"))?;
        Ok(Self { database, records, unsynced: AtomicUsize::new(0) })
    }
}

impl Reader for Fjall {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, EngineError> {
        let value = self.records.get(key).map_err(fault("reading"))?;
        Ok(value.map(|value| value.to_vec()))
    }

    fn range(&self, from: &[u8], to: &[u8], limit: usize) -> Result<Vec<Record>, EngineError> {
        collect(self.records.range(from..to), limit)
    }
}

impl Engine for Fjall {
    fn apply(&self, changes: &mut dyn Iterator<Item = ChangeRef<'_>>) -> Result<(), EngineError> {
        let mut batch = self.database.batch();
        let mut bytes = 0;
        for (key, value) in changes {
            bytes += key.len() + value.map_or(0, <[u8]>::len);
            match value {
                Some(value) => batch.insert(&self.records, key, value),
                None => batch.remove(&self.records, key),
            }
        }
        if self.unsynced.fetch_add(bytes, Ordering::Relaxed) + bytes >= SYNC_BYTES {
            self.unsynced.store(0, Ordering::Relaxed);
            batch = batch.durability(Some(PersistMode::SyncData));
        }
        batch.commit().map_err(fault("writing"))
    }

    fn checkpoint(&self) -> Result<(), EngineError> {
        self.database.persist(PersistMode::SyncAll).map_err(fault("syncing"))
    }

    fn snapshot(&self) -> Option<Box<dyn Reader + Send + Sync>> {
        let snapshot = self.database.snapshot();
        Some(Box::new(FjallSnapshot { snapshot, records: self.records.clone() }))
    }

    fn disk_bytes(&self) -> Result<u64, EngineError> {
        self.database.disk_space().map_err(fault("measuring"))
    }
}

struct FjallSnapshot {
    snapshot: Snapshot,
    records: Keyspace,
}

impl Reader for FjallSnapshot {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, EngineError> {
        let value = self.snapshot.get(&self.records, key).map_err(fault("reading"))?;
        Ok(value.map(|value| value.to_vec()))
    }

    fn range(&self, from: &[u8], to: &[u8], limit: usize) -> Result<Vec<Record>, EngineError> {
        collect(self.snapshot.range(&self.records, from..to), limit)
    }
}

fn collect(records: fjall::Iter, limit: usize) -> Result<Vec<Record>, EngineError> {
    records
        .take(limit)
        .map(|record| {
            let (key, value) = record.into_inner().map_err(fault("reading"))?;
            Ok((key.to_vec(), value.to_vec()))
        })
        .collect()
}

fn fault(action: &'static str) -> impl Fn(fjall::Error) -> EngineError {
    move |error| EngineError::Engine {
        engine: EngineKind::Fjall,
        action,
        message: error.to_string(),
    }
}
