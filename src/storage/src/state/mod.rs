//! The state of all shards of a node, on disk.
//!
//! Guarantees: a commit of a shard, its changes and its header, is applied as a whole or not at
//! all; what [`StateEngine::checkpoint`] covers survives a power cut (with sled: see
//! [`EngineKind::Sled`]); what lies beyond the last checkpoint survives as commits without a gap,
//! or is gone, and what was not flushed is gone with the process. So the header tells truly how far
//! the state has come, and the log does the rest.
//!
//! Leaves out: what records and headers mean; and repair. The state can always be built anew from
//! the log or from a snapshot of another node, so a fault here stops the node and nothing more.
//!
//! One database holds all shards. A key is
//! `shard (2 bytes) ‖ generation (4 bytes) ‖ key of the record`, integers big-endian. Generation 0
//! of a shard holds its pointer to the current generation and its header; a snapshot is brought in
//! as a new generation that becomes current in one step.

mod buffer;
mod cache;
mod engine;
mod fjall;
mod key;
mod memory;
mod shard;
#[cfg(feature = "sled")]
mod sled;
#[cfg(test)]
mod tests;
mod view;

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use oncekey_types::ShardId;

use self::cache::RecordCache;
use self::engine::Engine;
pub use self::memory::MemoryState;
use self::shard::Shard;
pub use self::shard::{ShardReader, ShardSpace, Staging};
pub use self::view::ShardView;
use crate::measure::Histogram;

/// Version of the layout of keys, pointers and headers.
const FORMAT_VERSION: u32 = 1;

/// Names of the directories that engines keep their files in, those left out of this build
/// included.
const ENGINE_DIRECTORIES: [&str; 2] = ["fjall", "sled"];

/// Which engine keeps the state.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum EngineKind {
    /// fjall 3, the default.
    #[default]
    Fjall,
    /// sled 0.34. On Linux its flush does not reach the device, so a checkpoint also syncs its
    /// files; even then no schedule of syncs makes it safe, because it reuses space on the strength
    /// of its own flush. After a power cut it may come up with less than a checkpoint promised, or
    /// empty; the node then fetches a snapshot. It has no snapshots of its own: while a
    /// [`ShardView`] lives, a flush of its shard first reads what it replaces and keeps that in memory.
    /// Open one sled at a time in a process: two can deadlock in its flush.
    #[cfg(feature = "sled")]
    Sled,
}

impl EngineKind {
    fn name(self) -> &'static str {
        match self {
            Self::Fjall => "fjall",
            #[cfg(feature = "sled")]
            Self::Sled => "sled",
        }
    }
}

impl std::fmt::Display for EngineKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

impl std::str::FromStr for EngineKind {
    type Err = UnknownEngine;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        match name {
            "fjall" => Ok(Self::Fjall),
            #[cfg(feature = "sled")]
            "sled" => Ok(Self::Sled),
            _ => Err(UnknownEngine { name: name.to_owned() }),
        }
    }
}

/// The name is not that of an engine in this build.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("no engine {name:?} in this build")]
pub struct UnknownEngine {
    name: String,
}

/// Settings of an engine.
#[derive(Clone, Debug)]
pub struct EngineOptions {
    /// Memory for what was read lately, in bytes: three quarters for records, one for blocks of the
    /// engine.
    pub cache_bytes: u64,
}

impl Default for EngineOptions {
    fn default() -> Self {
        Self { cache_bytes: 256 << 20 }
    }
}

/// A local fault of the engine, unless it says otherwise. The node must stop; the state can be built
/// anew.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EngineError {
    /// The file system failed.
    #[error("the state in {} failed: {source}", .path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The engine failed.
    #[error("{engine} failed while {action}: {message}")]
    Engine {
        /// The engine.
        engine: EngineKind,
        /// What was being done.
        action: &'static str,
        /// What the engine said.
        message: String,
    },
    /// The directory holds the state of another engine.
    #[error(
        "the state in {} is kept by {found}, not by {asked}: set engine = \"{found}\", or wipe the \
         data directory and let the node join again under a new node id", .dir.display()
    )]
    OtherEngine {
        /// The directory.
        dir: PathBuf,
        /// The engine whose files are there.
        found: &'static str,
        /// The engine asked for.
        asked: EngineKind,
    },
    /// The state was written by another version.
    #[error("the state has format {found}, this build reads format {expected}")]
    Format {
        /// What stands on disk.
        found: u32,
        /// What this build reads.
        expected: u32,
    },
    /// The fault was told to whoever flushed before.
    #[error("an earlier flush of the state failed")]
    FlushFailed,
    /// The view was open for too long over an engine without snapshots. No fault: a new view can be
    /// opened.
    #[error("too much has changed beneath a view of the state")]
    ViewLost,
    /// A record of this layer cannot be read.
    #[error("the state is damaged: {what}")]
    Damaged {
        /// What was found.
        what: &'static str,
    },
}

/// A record: its key and its value.
pub type Record = (Vec<u8>, Vec<u8>);

/// A change of one key: its new value, or `None` to remove it.
pub type Change = (Vec<u8>, Option<Vec<u8>>);

/// Sizes of the state.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct EngineStats {
    /// Bytes on disk.
    pub disk_bytes: u64,
}

/// The opened state of a node. Clones share it.
#[derive(Clone)]
pub struct StateEngine {
    engine: Arc<dyn Engine>,
    cache: Arc<RecordCache>,
    times: Arc<StateTimes>,
    shards: Arc<Mutex<BTreeMap<ShardId, Arc<Shard>>>>,
}

/// How long the engine takes, in microseconds.
#[derive(Debug)]
pub struct StateTimes {
    /// To take the changes that a shard has gathered.
    pub flush: Histogram,
    /// To make what it has taken durable.
    pub checkpoint: Histogram,
}

impl StateTimes {
    fn new() -> Self {
        Self { flush: Histogram::of_durations(), checkpoint: Histogram::of_durations() }
    }
}

impl StateEngine {
    /// Opens the state below `dir`, making it if need be. What is found there survives a power cut
    /// from then on, as far as the engine can promise that.
    ///
    /// # Errors
    ///
    /// [`EngineError::OtherEngine`] and [`EngineError::Format`] when it was written by something
    /// else; else any fault of the engine.
    pub fn open(
        dir: &Path,
        kind: EngineKind,
        options: &EngineOptions,
    ) -> Result<Self, EngineError> {
        for found in ENGINE_DIRECTORIES.into_iter().filter(|name| *name != kind.name()) {
            if dir.join(found).exists() {
                return Err(EngineError::OtherEngine { dir: dir.to_owned(), found, asked: kind });
            }
        }
        let blocks = EngineOptions { cache_bytes: options.cache_bytes / 4 };
        let cache = Arc::new(RecordCache::new(options.cache_bytes - blocks.cache_bytes));
        let dir = dir.join(kind.name());
        std::fs::create_dir_all(&dir)
            .map_err(|source| EngineError::Io { path: dir.clone(), source })?;
        let engine: Arc<dyn Engine> = match kind {
            EngineKind::Fjall => Arc::new(fjall::Fjall::open(&dir, &blocks)?),
            #[cfg(feature = "sled")]
            EngineKind::Sled => Arc::new(sled::Sled::open(&dir, &blocks)?),
        };
        Self::over(engine, cache)
    }

    /// Opens a state in memory, for simulations.
    ///
    /// # Errors
    ///
    /// [`EngineError::Format`] when it was written by another version.
    pub fn in_memory(state: &MemoryState, options: &EngineOptions) -> Result<Self, EngineError> {
        let cache = Arc::new(RecordCache::new(options.cache_bytes));
        Self::over(Arc::new(state.mount()), cache)
    }

    fn over(engine: Arc<dyn Engine>, cache: Arc<RecordCache>) -> Result<Self, EngineError> {
        check_format(&*engine)?;
        // A process that ended left what its kernel may still hold alone. The log is purged behind
        // what is found here, so it has to survive a power cut.
        engine.checkpoint()?;
        Ok(Self { engine, cache, times: Arc::new(StateTimes::new()), shards: Arc::default() })
    }

    /// The space of one shard. The first call for a shard removes what an interrupted snapshot left
    /// of it.
    ///
    /// # Errors
    ///
    /// [`EngineError::Damaged`] when its pointer cannot be read; any fault of the engine.
    pub fn shard(&self, id: ShardId) -> Result<ShardSpace, EngineError> {
        let mut shards = self.opened();
        let shard = match shards.get(&id) {
            Some(shard) => shard.clone(),
            None => {
                let (engine, cache, times) =
                    (self.engine.clone(), self.cache.clone(), self.times.clone());
                let shard = Arc::new(Shard::open(engine, cache, times, id)?);
                shards.insert(id, shard.clone());
                shard
            }
        };
        Ok(ShardSpace::new(shard))
    }

    /// When it returns, everything committed before the call survives a power cut, as far as the
    /// engine can promise that.
    ///
    /// # Errors
    ///
    /// Any fault of the engine.
    pub fn checkpoint(&self) -> Result<(), EngineError> {
        let shards: Vec<_> = self.opened().values().cloned().collect();
        for shard in shards {
            shard.flush()?;
        }
        checkpoint(&*self.engine, &self.times)
    }

    /// How long the engine has taken.
    #[must_use]
    pub fn times(&self) -> &StateTimes {
        &self.times
    }

    /// Sizes.
    ///
    /// # Errors
    ///
    /// Any fault of the engine.
    pub fn stats(&self) -> Result<EngineStats, EngineError> {
        Ok(EngineStats { disk_bytes: self.engine.disk_bytes()? })
    }

    fn opened(&self) -> MutexGuard<'_, BTreeMap<ShardId, Arc<Shard>>> {
        self.shards.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn checkpoint(engine: &dyn Engine, times: &StateTimes) -> Result<(), EngineError> {
    let began = Instant::now();
    engine.checkpoint()?;
    times.checkpoint.note_since(began);
    Ok(())
}

/// Writes the version of the format into a new database, checks it in an old one.
fn check_format(engine: &dyn Engine) -> Result<(), EngineError> {
    let key = key::format();
    match engine.get(&key)? {
        Some(value) => {
            let value = value.as_slice().try_into();
            let found = u32::from_be_bytes(
                value.map_err(|_| EngineError::Damaged { what: "the version of its format" })?,
            );
            if found != FORMAT_VERSION {
                return Err(EngineError::Format { found, expected: FORMAT_VERSION });
            }
            Ok(())
        }
        None if engine.range(&[], &key, 1)?.is_empty() => {
            engine.apply(&mut std::iter::once((key, Some(&FORMAT_VERSION.to_be_bytes()[..]))))?;
            engine.checkpoint()
        }
        None => Err(EngineError::Damaged { what: "the version of its format is missing" }),
    }
}
