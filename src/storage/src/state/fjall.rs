//! The state in fjall.

use std::path::Path;

use fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode, Readable, Snapshot};

use super::engine::{ChangeRef, Engine, Reader};
use super::{EngineError, EngineKind, EngineOptions, Record};

/// fjall asks for at least this; with it a restart has little to replay.
const JOURNAL_BYTES: u64 = 64 << 20;
/// Flushed to a table beyond this. A small one keeps memory low.
const MEMTABLE_BYTES: u64 = 16 << 20;
/// One, because a second one spins while the first compacts: it takes the request to compact from
/// the queue and puts it back, over and over.
const WORKERS: usize = 1;

/// A fjall database with one key space for all shards.
pub(super) struct Fjall {
    database: Database,
    records: Keyspace,
}

impl Fjall {
    pub(super) fn open(dir: &Path, options: &EngineOptions) -> Result<Self, EngineError> {
        let database = Database::builder(dir)
            .cache_size(options.cache_bytes)
            .max_journaling_size(JOURNAL_BYTES)
            .worker_threads(WORKERS)
            .open()
            .map_err(fault("opening"))?;
        let tuning = || KeyspaceCreateOptions::default().max_memtable_size(MEMTABLE_BYTES);
        let records = database.keyspace("state", tuning).map_err(fault("opening"))?;
        Ok(Self { database, records })
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
        for (key, value) in changes {
            match value {
                Some(value) => batch.insert(&self.records, key, value),
                None => batch.remove(&self.records, key),
            }
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
