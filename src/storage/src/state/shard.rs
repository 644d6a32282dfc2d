//! The space of one shard: its records, its header, and its generations.
//!
//! Guarantees: readers see one generation, the current one, throughout; a [`ShardView`] sees one
//! moment; a [`Staging`] is invisible until it is installed, and then is all there is.
//!
//! Leaves out: more than one writer at a time. Commits of a shard run one after the other.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard};

use oncekey_types::ShardId;

use super::engine::{Engine, Reader};
use super::key::{self, Generation};
use super::{Change, EngineError, Record};

/// Records removed in one batch when a generation is given up.
const REMOVE_CHUNK: usize = 4096;

/// The state of one shard. Clones share it.
#[derive(Clone)]
pub struct ShardSpace {
    shard: Arc<Shard>,
}

impl ShardSpace {
    pub(super) fn new(shard: Arc<Shard>) -> Self {
        Self { shard }
    }

    /// The header of the last commit; `None` when there was none.
    ///
    /// # Errors
    ///
    /// Any fault of the engine, as for all functions here.
    pub fn header(&self) -> Result<Option<Vec<u8>>, EngineError> {
        self.shard.engine.get(&key::header(self.shard.id))
    }

    /// The value of a key.
    ///
    /// # Errors
    ///
    /// Any fault of the engine.
    pub fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, EngineError> {
        let generation = self.shard.generation();
        self.shard.engine.get(&key::record(self.shard.id, *generation, key))
    }

    /// The first `limit` records with `from <= key`, and `key < to` if it is given.
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
        let generation = self.shard.generation();
        range(&*self.shard.engine, self.shard.id, *generation, from, to, limit)
    }

    /// Applies the changes, at most one per key, and replaces the header, all or nothing. Durable with the next
    /// [checkpoint](super::StateEngine::checkpoint).
    ///
    /// With sled it waits until no [`ShardView`] of the shard is left, so the thread that holds one
    /// must not commit.
    ///
    /// # Errors
    ///
    /// Any fault of the engine.
    pub fn commit(
        &self,
        changes: impl IntoIterator<Item = Change>,
        header: &[u8],
    ) -> Result<(), EngineError> {
        let shard = &*self.shard;
        let _writer = shard.gate.write();
        let generation = *shard.generation();
        let mut batch: Vec<Change> = changes
            .into_iter()
            .map(|(key, value)| (key::record(shard.id, generation, &key), value))
            .collect();
        batch.push((key::header(shard.id), Some(header.to_vec())));
        shard.engine.apply(batch)
    }

    /// The state as of now. Commits go on beside it with fjall; with sled they wait until it is
    /// dropped.
    #[must_use]
    pub fn view(&self) -> ShardView {
        let shard = &self.shard;
        // Taken before the generation, as by a writer.
        let pass = shard.gate.pass();
        let generation = shard.generation();
        let (reader, pass) = match shard.engine.snapshot() {
            Some(snapshot) => (Source::Snapshot(snapshot), None),
            None => (Source::Live(shard.engine.clone()), Some(pass)),
        };
        ShardView { id: shard.id, generation: *generation, source: reader, _pass: pass }
    }

    /// Begins a new generation, beside the current one.
    #[must_use]
    pub fn stage(&self) -> Staging {
        let generation = self.shard.next_generation();
        Staging { shard: self.shard.clone(), generation, installed: false }
    }

    /// Throws the records and the header away, durably.
    ///
    /// # Errors
    ///
    /// Any fault of the engine.
    pub fn reset(&self) -> Result<(), EngineError> {
        self.shard.switch(self.shard.next_generation(), None)
    }
}

/// The state of a shard at one moment.
pub struct ShardView {
    id: ShardId,
    generation: Generation,
    source: Source,
    _pass: Option<Pass>,
}

enum Source {
    Snapshot(Box<dyn Reader + Send + Sync>),
    /// Kept still by the pass.
    Live(Arc<dyn Engine>),
}

impl Source {
    fn reader(&self) -> &dyn Reader {
        match self {
            Self::Snapshot(snapshot) => &**snapshot,
            Self::Live(engine) => &**engine,
        }
    }
}

impl ShardView {
    /// The header at that moment.
    ///
    /// # Errors
    ///
    /// Any fault of the engine, as for all functions here.
    pub fn header(&self) -> Result<Option<Vec<u8>>, EngineError> {
        self.source.reader().get(&key::header(self.id))
    }

    /// The value of a key at that moment.
    ///
    /// # Errors
    ///
    /// Any fault of the engine.
    pub fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, EngineError> {
        self.source.reader().get(&key::record(self.id, self.generation, key))
    }

    /// The first `limit` records at that moment with `from <= key`, and `key < to` if it is given.
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
        range(self.source.reader(), self.id, self.generation, from, to, limit)
    }
}

/// A new generation of a shard's records that is not current yet. Dropped, it is discarded.
pub struct Staging {
    shard: Arc<Shard>,
    generation: Generation,
    installed: bool,
}

impl Staging {
    /// Adds records, as one batch: hand them over in chunks.
    ///
    /// # Errors
    ///
    /// Any fault of the engine.
    pub fn put(&mut self, records: impl IntoIterator<Item = Record>) -> Result<(), EngineError> {
        let (id, generation) = (self.shard.id, self.generation);
        let batch = records
            .into_iter()
            .map(|(key, value)| (key::record(id, generation, &key), Some(value)))
            .collect();
        self.shard.engine.apply(batch)
    }

    /// Makes these records the shard's state, with this header, durably and in one step. The
    /// generation before is removed then, which takes time in proportion to its size.
    ///
    /// # Errors
    ///
    /// Any fault of the engine.
    pub fn install(mut self, header: &[u8]) -> Result<(), EngineError> {
        self.installed = true;
        self.shard.engine.checkpoint()?;
        self.shard.switch(self.generation, Some(header))
    }
}

#[cfg(test)]
impl Staging {
    /// Leaves the records behind, as a process that dies would.
    pub(super) fn forget(mut self) {
        self.installed = true;
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        if !self.installed
            && let Err(error) = self.shard.remove(self.generation, self.generation)
        {
            // The next opening tries again.
            tracing::warn!(shard = self.shard.id.0, %error, "an unfinished snapshot was not removed");
        }
    }
}

/// What all handles of a shard share.
pub(super) struct Shard {
    engine: Arc<dyn Engine>,
    id: ShardId,
    /// Locked after the gate, never before.
    generation: RwLock<Generation>,
    next_generation: AtomicU32,
    gate: Arc<Gate>,
}

impl Shard {
    /// Reads the pointer and removes all generations but the current one.
    pub(super) fn open(engine: Arc<dyn Engine>, id: ShardId) -> Result<Self, EngineError> {
        let current = match engine.get(&key::pointer(id))? {
            None => Generation::FIRST,
            Some(bytes) => {
                let bytes = bytes.as_slice().try_into();
                let bytes = bytes
                    .map_err(|_| EngineError::Damaged { what: "the generation of a shard" })?;
                Generation(u32::from_be_bytes(bytes))
            }
        };
        if current < Generation::FIRST || current >= Generation::LAST {
            return Err(EngineError::Damaged { what: "the generation of a shard" });
        }
        let shard = Self {
            engine,
            id,
            generation: RwLock::new(current),
            next_generation: AtomicU32::new(current.0 + 1),
            gate: Arc::default(),
        };
        if current > Generation::FIRST {
            shard.remove(Generation::FIRST, Generation(current.0 - 1))?;
        }
        shard.remove(Generation(current.0 + 1), Generation::LAST)?;
        Ok(shard)
    }

    fn generation(&self) -> RwLockReadGuard<'_, Generation> {
        self.generation.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn next_generation(&self) -> Generation {
        Generation(self.next_generation.fetch_add(1, Ordering::Relaxed))
    }

    /// Makes `next` current, durably, then removes what was current before.
    fn switch(&self, next: Generation, header: Option<&[u8]>) -> Result<(), EngineError> {
        let before = {
            let _writer = self.gate.write();
            let mut current = self.generation.write().unwrap_or_else(PoisonError::into_inner);
            self.engine.apply(vec![
                (key::pointer(self.id), Some(next.0.to_be_bytes().to_vec())),
                (key::header(self.id), header.map(<[u8]>::to_vec)),
            ])?;
            std::mem::replace(&mut *current, next)
        };
        self.engine.checkpoint()?;
        self.remove(before, before)
    }

    /// Removes all records of the generations from `first` to `last`.
    fn remove(&self, first: Generation, last: Generation) -> Result<(), EngineError> {
        let mut from = key::record(self.id, first, &[]);
        let to = key::end(self.id, last);
        loop {
            let records = self.engine.range(&from, &to, REMOVE_CHUNK)?;
            let Some((greatest, _)) = records.last() else {
                return Ok(());
            };
            // Goes on behind what it has removed, not through it.
            from.clone_from(greatest);
            from.push(0);
            self.engine.apply(records.into_iter().map(|(key, _)| (key, None)).collect())?;
        }
    }
}

fn range(
    reader: &dyn Reader,
    id: ShardId,
    generation: Generation,
    from: &[u8],
    to: Option<&[u8]>,
    limit: usize,
) -> Result<Vec<Record>, EngineError> {
    let from = key::record(id, generation, from);
    let to = to.map_or_else(|| key::end(id, generation), |to| key::record(id, generation, to));
    if from >= to {
        return Ok(Vec::new());
    }
    let records = reader.range(&from, &to, limit)?;
    Ok(records.into_iter().map(|(key, value)| (key::strip(key), value)).collect())
}

/// Lets one writer in at a time, and none while a pass is out.
#[derive(Default)]
struct Gate {
    passes: Mutex<usize>,
    returned: Condvar,
}

/// Keeps writers out while it lives.
struct Pass {
    gate: Arc<Gate>,
}

impl Gate {
    fn write(&self) -> MutexGuard<'_, usize> {
        let passes = self.passes.lock().unwrap_or_else(PoisonError::into_inner);
        self.returned
            .wait_while(passes, |passes| *passes > 0)
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn pass(self: &Arc<Self>) -> Pass {
        *self.passes.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        Pass { gate: self.clone() }
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        *self.gate.passes.lock().unwrap_or_else(PoisonError::into_inner) -= 1;
        self.gate.returned.notify_all();
    }
}
