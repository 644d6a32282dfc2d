//! The space of one shard: its records, its header, and its generations.
//!
//! Guarantees: readers see one generation, the current one, throughout; a [`ShardReader`] and a
//! [`ShardView`] see one moment; a [`Staging`] is invisible until it is installed, and then is all
//! there is.
//!
//! Leaves out: more than one writer at a time. Commits of a shard run one after the other.
//!
//! A commit goes into a [`Buffer`], in memory, and from there to the engine with the next flush. A
//! read looks there first, then in the [`RecordCache`], then in the engine. A record gets into the
//! cache only while its reader holds `current`, when nothing can be committed, and is changed there
//! with every commit; so the cache never holds what is out of date.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Instant;

use oncekey_planted::{self as planted, Bug};
use oncekey_types::ShardId;

use super::buffer::{BUFFER_MAX_BYTES, Buffer, FLUSH_BYTES};
use super::cache::{Place, RecordCache};
use super::engine::Engine;
use super::key::{self, Generation};
use super::view::{ShardView, Views};
use super::{Change, EngineError, Record, StateTimes, checkpoint};

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

    /// The shard.
    #[must_use]
    pub fn id(&self) -> ShardId {
        self.shard.id
    }

    /// The header of the last commit; `None` when there was none.
    #[must_use]
    pub fn header(&self) -> Option<Vec<u8>> {
        self.shard.current().buffer.header().map(<[u8]>::to_vec)
    }

    /// Reads what has been committed, while commits wait. For a few reads at a time; the thread
    /// that holds it must not commit.
    #[must_use]
    pub fn read(&self) -> ShardReader<'_> {
        ShardReader { shard: &self.shard, current: self.shard.current() }
    }

    /// Applies the changes, at most one per key, and replaces the header, all or nothing. They are
    /// in memory until the next flush, and durable with the next checkpoint.
    ///
    /// When much has been gathered and the engine does not keep up, it waits for the engine.
    ///
    /// # Errors
    ///
    /// Any fault of the engine, that of an earlier flush included.
    pub fn commit(
        &self,
        changes: impl IntoIterator<Item = Change>,
        header: &[u8],
    ) -> Result<(), EngineError> {
        let shard = &*self.shard;
        if shard.current().buffer.bytes() >= BUFFER_MAX_BYTES {
            shard.flush()?;
        }
        let mut current = shard.current_mut();
        let Current { generation, buffer, .. } = &mut *current;
        let place = Place { shard: shard.id, generation: *generation };
        for (key, value) in changes {
            if !planted::is(Bug::CacheOutOfDate) {
                shard.cache.change(place, &key, value.as_deref());
            }
            buffer.insert((key, value));
        }
        buffer.set_header(header);
        Ok(())
    }

    /// Whether enough has been gathered that [`flush`](Self::flush) should be called.
    #[must_use]
    pub fn is_flush_due(&self) -> bool {
        self.shard.current().buffer.bytes() >= FLUSH_BYTES
    }

    /// Hands what has been committed to the engine. Blocks; commits go on beside it.
    ///
    /// # Errors
    ///
    /// Any fault of the engine. The shard can be read then, but not be flushed any more.
    pub fn flush(&self) -> Result<(), EngineError> {
        self.shard.flush()
    }

    /// When it returns, everything committed before the call survives a power cut, as far as the
    /// engine can promise that.
    ///
    /// # Errors
    ///
    /// Any fault of the engine.
    pub fn checkpoint(&self) -> Result<(), EngineError> {
        if planted::is(Bug::PurgeTooEarly) {
            return Ok(());
        }
        self.shard.flush()?;
        checkpoint(&*self.shard.engine, &self.shard.times)
    }

    /// The state as of now. Commits and flushes go on beside it.
    ///
    /// # Errors
    ///
    /// Any fault of the engine: what was committed is flushed first.
    pub fn view(&self) -> Result<ShardView, EngineError> {
        let shard = &self.shard;
        let flushing = shard.flushing();
        shard.flush_alone(&flushing)?;
        let generation = shard.current().generation;
        Ok(ShardView::new(&shard.engine, &shard.views, shard.id, generation))
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

/// The records of a shard, held still while it lives.
pub struct ShardReader<'a> {
    shard: &'a Shard,
    current: RwLockReadGuard<'a, Current>,
}

impl ShardReader<'_> {
    /// The header of the last commit; `None` when there was none.
    #[must_use]
    pub fn header(&self) -> Option<&[u8]> {
        self.current.buffer.header()
    }

    /// The value of a key.
    ///
    /// # Errors
    ///
    /// Any fault of the engine.
    pub fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, EngineError> {
        if let Some(value) = self.current.buffer.get(key) {
            return Ok(value.map(<[u8]>::to_vec));
        }
        let place = Place { shard: self.shard.id, generation: self.current.generation };
        if let Some(value) = self.shard.cache.get(place, key) {
            return Ok(Some(value.to_vec()));
        }
        let value = self.shard.engine.get(&key::record(place.shard, place.generation, key))?;
        if let Some(value) = &value {
            self.shard.cache.insert(place, key, value);
        }
        Ok(value)
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
        let records: Vec<Record> = records.into_iter().collect();
        let changes =
            records.iter().map(|(key, value)| (key::record(id, generation, key), Some(&value[..])));
        self.shard.engine.apply(&mut changes.into_iter())
    }

    /// Makes these records the shard's state, with this header, durably and in one step. The
    /// generation before is removed then, or with the next one while a view reads it, which takes
    /// time in proportion to its size.
    ///
    /// # Errors
    ///
    /// Any fault of the engine.
    pub fn install(mut self, header: &[u8]) -> Result<(), EngineError> {
        self.installed = true;
        checkpoint(&*self.shard.engine, &self.shard.times)?;
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
    cache: Arc<RecordCache>,
    times: Arc<StateTimes>,
    id: ShardId,
    next_generation: AtomicU32,
    /// Held by whoever hands commits to the engine or changes the generation. Locked first.
    flushing: Mutex<()>,
    /// Locked second, and not while the engine writes a flush.
    current: RwLock<Current>,
    /// Through which the current generation is written. Locked last.
    views: Arc<Views>,
}

/// What readers see.
struct Current {
    generation: Generation,
    buffer: Buffer,
    /// Generations before it whose records are still there.
    outdated: Vec<Generation>,
}

impl Shard {
    /// Reads pointer and header and removes all generations but the current one.
    pub(super) fn open(
        engine: Arc<dyn Engine>,
        cache: Arc<RecordCache>,
        times: Arc<StateTimes>,
        id: ShardId,
    ) -> Result<Self, EngineError> {
        let generation = match engine.get(&key::pointer(id))? {
            None => Generation::FIRST,
            Some(bytes) => {
                let bytes = bytes.as_slice().try_into();
                let bytes = bytes
                    .map_err(|_| EngineError::Damaged { what: "the generation of a shard" })?;
                Generation(u32::from_be_bytes(bytes))
            }
        };
        if generation < Generation::FIRST || generation >= Generation::LAST {
            return Err(EngineError::Damaged { what: "the generation of a shard" });
        }
        let buffer = Buffer::new(engine.get(&key::header(id))?);
        let shard = Self {
            engine,
            cache,
            times,
            id,
            next_generation: AtomicU32::new(generation.0 + 1),
            flushing: Mutex::default(),
            current: RwLock::new(Current { generation, buffer, outdated: Vec::new() }),
            views: Arc::default(),
        };
        if generation > Generation::FIRST {
            shard.remove(Generation::FIRST, Generation(generation.0 - 1))?;
        }
        shard.remove(Generation(generation.0 + 1), Generation::LAST)?;
        Ok(shard)
    }

    fn current(&self) -> RwLockReadGuard<'_, Current> {
        self.current.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn current_mut(&self) -> RwLockWriteGuard<'_, Current> {
        self.current.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn next_generation(&self) -> Generation {
        Generation(self.next_generation.fetch_add(1, Ordering::Relaxed))
    }

    fn flushing(&self) -> MutexGuard<'_, ()> {
        self.flushing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hands what has been committed to the engine.
    pub(super) fn flush(&self) -> Result<(), EngineError> {
        self.flush_alone(&self.flushing())
    }

    fn flush_alone(&self, _flushing: &MutexGuard<'_, ()>) -> Result<(), EngineError> {
        let (flush, generation) = {
            let mut current = self.current_mut();
            if current.buffer.is_flushing() {
                return Err(EngineError::FlushFailed);
            }
            let Some(flush) = current.buffer.begin_flush() else { return Ok(()) };
            (flush, current.generation)
        };
        let mut changes: Vec<_> = flush.changes.iter().collect();
        if planted::is(Bug::RemovalsNotFlushed) {
            changes.retain(|(_, value)| value.is_some());
        }
        if planted::is(Bug::FlushLosesRecord) {
            changes.pop();
        }
        // Engines take sorted keys faster.
        changes.sort_unstable_by_key(|(key, _)| *key);
        let changes = changes
            .into_iter()
            .map(|(key, value)| (key::record(self.id, generation, key), value.as_deref()));
        let header = (key::header(self.id), Some(&flush.header[..]));
        let began = Instant::now();
        self.views.apply(&*self.engine, &mut changes.chain([header]))?;
        self.times.flush.note_since(began);
        self.current_mut().buffer.end_flush();
        Ok(())
    }

    /// Makes `next` current, durably, then removes what was current before, unless it is read.
    fn switch(&self, next: Generation, header: Option<&[u8]>) -> Result<(), EngineError> {
        {
            let _flushing = self.flushing();
            let mut current = self.current_mut();
            let pointer = next.0.to_be_bytes();
            self.views.apply(
                &*self.engine,
                &mut [(key::pointer(self.id), Some(&pointer[..])), (key::header(self.id), header)]
                    .into_iter(),
            )?;
            current.buffer = Buffer::new(header.map(<[u8]>::to_vec));
            let before = std::mem::replace(&mut current.generation, next);
            current.outdated.push(before);
        }
        checkpoint(&*self.engine, &self.times)?;
        // A view may still read it: then it goes after the next switch, or at the next opening.
        if self.views.is_empty() {
            let outdated = std::mem::take(&mut self.current_mut().outdated);
            outdated.into_iter().try_for_each(|generation| self.remove(generation, generation))?;
        }
        Ok(())
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
            self.engine.apply(&mut records.into_iter().map(|(key, _)| (key, None)))?;
        }
    }
}
