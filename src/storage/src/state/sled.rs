//! The state in sled.
//!
//! Guarantees what [`Engine`] asks for, except through a power cut: see [`EngineKind::Sled`].

use std::fs::File;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::engine::{ChangeRef, Engine, Reader};
use super::{EngineError, EngineKind, EngineOptions, Record};

/// After a database was dropped, sled's own threads hold its lock a little longer. A process that
/// opens it again waits this long; one that finds it in use by another fails after that.
const LOCK_WAIT: Duration = Duration::from_secs(5);
const LOCK_POLL: Duration = Duration::from_millis(5);

/// A sled database; its default tree holds all shards.
pub(super) struct Sled {
    dir: PathBuf,
    database: sled::Db,
}

impl Sled {
    pub(super) fn open(dir: &Path, options: &EngineOptions) -> Result<Self, EngineError> {
        let config = sled::Config::new()
            .path(dir)
            .cache_capacity(options.cache_bytes)
            // Its own flusher only logs an error; a checkpoint returns it.
            .flush_every_ms(None);
        let deadline = Instant::now() + LOCK_WAIT;
        let database = loop {
            // sled panics on some of the damage that it leaves behind at a power cut.
            let opened = catch_unwind(AssertUnwindSafe(|| config.open()))
                .unwrap_or_else(|_| Err(sled::Error::ReportableBug("it panicked".to_owned())));
            match opened {
                Err(error) if is_locked(&error) && Instant::now() < deadline => {
                    std::thread::sleep(LOCK_POLL);
                }
                opened => break opened.map_err(fault("opening"))?,
            }
        };
        Ok(Self { dir: dir.to_owned(), database })
    }
}

impl Reader for Sled {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, EngineError> {
        let value = self.database.get(key).map_err(fault("reading"))?;
        Ok(value.map(|value| value.to_vec()))
    }

    fn range(&self, from: &[u8], to: &[u8], limit: usize) -> Result<Vec<Record>, EngineError> {
        self.database
            .range(from..to)
            .take(limit)
            .map(|record| {
                let (key, value) = record.map_err(fault("reading"))?;
                Ok((key.to_vec(), value.to_vec()))
            })
            .collect()
    }
}

impl Engine for Sled {
    fn apply(&self, changes: &mut dyn Iterator<Item = ChangeRef<'_>>) -> Result<(), EngineError> {
        let mut batch = sled::Batch::default();
        for (key, value) in changes {
            match value {
                Some(value) => batch.insert(key, value),
                None => batch.remove(key),
            }
        }
        self.database.apply_batch(batch).map_err(fault("writing"))
    }

    fn checkpoint(&self) -> Result<(), EngineError> {
        self.database.flush().map_err(fault("syncing"))?;
        sync_files(&self.dir).map_err(|source| EngineError::Io { path: self.dir.clone(), source })
    }

    fn snapshot(&self) -> Option<Box<dyn Reader + Send + Sync>> {
        None
    }

    fn disk_bytes(&self) -> Result<u64, EngineError> {
        self.database.size_on_disk().map_err(fault("measuring"))
    }
}

/// sled tells it by its message alone.
fn is_locked(error: &sled::Error) -> bool {
    matches!(error, sled::Error::Io(error) if error.to_string().contains("could not acquire lock"))
}

/// Syncs every file below `dir`, and `dir`: sled's flush leaves its bytes in the page cache.
fn sync_files(dir: &Path) -> io::Result<()> {
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            sync_files(&entry.path())?;
            continue;
        }
        match File::open(entry.path()) {
            Ok(file) => file.sync_all()?,
            // sled removes its old snapshot files as it goes.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    File::open(dir)?.sync_all()
}

fn fault(action: &'static str) -> impl Fn(sled::Error) -> EngineError {
    move |error| EngineError::Engine {
        engine: EngineKind::Sled,
        action,
        message: error.to_string(),
    }
}
