//! The state of the shards, on disk.

use std::io;
use std::path::{Path, PathBuf};

use oncekey_types::ShardId;

/// Which engine keeps the state.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum EngineKind {
    /// fjall 3, the default.
    #[default]
    Fjall,
    /// sled 0.34. Loses acknowledged data when the power fails.
    #[cfg(feature = "sled")]
    Sled,
}

impl std::fmt::Display for EngineKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Fjall => "fjall",
            #[cfg(feature = "sled")]
            Self::Sled => "sled",
        })
    }
}

/// The name of no engine in this build.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("unknown engine {name:?}")]
pub struct UnknownEngine {
    name: String,
}

impl std::str::FromStr for EngineKind {
    type Err = UnknownEngine;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        match name {
            "fjall" => Ok(Self::Fjall),
            #[cfg(feature = "sled")]
            "sled" => Ok(Self::Sled),
            _ => Err(UnknownEngine {
                name: name.to_owned(),
            }),
        }
    }
}

/// Settings of an engine.
#[derive(Clone, Debug)]
pub struct EngineOptions {
    /// Bytes of blocks kept in memory.
    pub cache_bytes: u64,
}

impl Default for EngineOptions {
    fn default() -> Self {
        Self {
            cache_bytes: 64 << 20,
        }
    }
}

/// A local fault of the engine. The node must stop; the state can be rebuilt.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EngineError {
    /// The file system failed.
    #[error("cannot use {}: {source}", .path.display())]
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
    /// The state was written by another version.
    #[error("the state has format {found}, this build reads format {expected}")]
    Format {
        /// What stands on disk.
        found: u32,
        /// What this build reads.
        expected: u32,
    },
    /// A record of the engine layer does not decode.
    #[error("the state is damaged: {what}")]
    Damaged {
        /// What was found.
        what: &'static str,
    },
}

/// A record: raw key and value.
pub type Record = (Vec<u8>, Vec<u8>);
/// A change of one key: its new value, or `None` to remove it.
pub type Change = (Vec<u8>, Option<Vec<u8>>);

/// The opened state of a node. Clones share it.
#[derive(Clone)]
pub struct StateEngine;

/// Bytes and such.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct EngineStats {
    /// Bytes on disk.
    pub disk_bytes: u64,
}

impl StateEngine {
    /// Opens the state in `dir`, making it if need be.
    ///
    /// # Errors
    ///
    /// [`EngineError::Format`]
    pub fn open(
        dir: &Path,
        kind: EngineKind,
        options: &EngineOptions,
    ) -> Result<Self, EngineError> {
        let _ = (dir, kind, options);
        todo!()
    }

    /// The space of one shard.
    ///
    /// # Errors
    ///
    /// Any fault of the engine.
    pub fn shard(&self, shard: ShardId) -> Result<ShardSpace, EngineError> {
        let _ = shard;
        todo!()
    }

    /// When it returns, everything committed before the call survives a power cut.
    ///
    /// # Errors
    ///
    /// Any fault of the engine.
    pub fn checkpoint(&self) -> Result<(), EngineError> {
        todo!()
    }

    /// Counters.
    ///
    /// # Errors
    ///
    /// Any fault of the engine.
    pub fn stats(&self) -> Result<EngineStats, EngineError> {
        todo!()
    }
}

/// The state of one shard. Clones share it.
#[derive(Clone)]
pub struct ShardSpace;

impl ShardSpace {
    /// The header committed last.
    ///
    /// # Errors
    ///
    /// Any fault of the engine.
    pub fn header(&self) -> Result<Option<Vec<u8>>, EngineError> {
        todo!()
    }

    /// The value of a key.
    ///
    /// # Errors
    ///
    /// Any fault of the engine.
    pub fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, EngineError> {
        let _ = key;
        todo!()
    }

    /// The first `limit` records with `from <= key`, and `key < to` if given.
    ///
    /// # Errors
    ///
    /// Any fault of the engine.
    pub fn range(
        &self,
        from: &[u8],
        to: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<Record>, EngineError> {
        let _ = (from, to, limit);
        todo!()
    }

    /// Applies the changes and the header, all or nothing. Durable with the next checkpoint.
    ///
    /// # Errors
    ///
    /// Any fault of the engine.
    pub fn commit(
        &self,
        changes: impl IntoIterator<Item = Change>,
        header: &[u8],
    ) -> Result<(), EngineError> {
        let _ = (changes.into_iter(), header);
        todo!()
    }

    /// The state as of now.
    ///
    /// # Errors
    ///
    /// Any fault of the engine.
    pub fn view(&self) -> Result<ShardView, EngineError> {
        todo!()
    }

    /// Begins a new generation of the state.
    ///
    /// # Errors
    ///
    /// Any fault of the engine.
    pub fn stage(&self) -> Result<Staging, EngineError> {
        todo!()
    }

    /// Throws the state away, durably.
    ///
    /// # Errors
    ///
    /// Any fault of the engine.
    pub fn reset(&self) -> Result<(), EngineError> {
        todo!()
    }
}

/// The state of a shard at one moment.
pub struct ShardView;

impl ShardView {
    /// The header at that moment.
    ///
    /// # Errors
    ///
    /// Any fault of the engine.
    pub fn header(&self) -> Result<Option<Vec<u8>>, EngineError> {
        todo!()
    }

    /// The value of a key at that moment.
    ///
    /// # Errors
    ///
    /// Any fault of the engine.
    pub fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, EngineError> {
        let _ = key;
        todo!()
    }

    /// The first `limit` records with `from <= key`, and `key < to` if given.
    ///
    /// # Errors
    ///
    /// Any fault of the engine.
    pub fn range(
        &self,
        from: &[u8],
        to: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<Record>, EngineError> {
        let _ = (from, to, limit);
        todo!()
    }
}

/// A new generation that is not current yet. Dropped, it is discarded.
pub struct Staging;

impl Staging {
    /// Adds records.
    ///
    /// # Errors
    ///
    /// Any fault of the engine.
    pub fn put(&mut self, records: impl IntoIterator<Item = Record>) -> Result<(), EngineError> {
        let _ = records.into_iter();
        todo!()
    }

    /// Makes this generation current, with `header`, durably and all at once.
    ///
    /// # Errors
    ///
    /// Any fault of the engine.
    pub fn install(self, header: &[u8]) -> Result<(), EngineError> {
        let _ = header;
        todo!()
    }
}
