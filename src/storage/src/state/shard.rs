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
use std::sync::{
    Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard,
};
use std::time::Instant;

use oncekey_planted::{self as planted, Bug};
use oncekey_types::ShardId;

use super::buffer::{BUFFER_MAX_BYTES, Buffer, FLUSH_BYTES};
use super::cache::{Place, RecordCache};
use super::engine::{Engine, Reader};
use super::key::{self, Generation};
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
    /// When much has been gathered and the engine does not keep up, it waits for the engine. With
    /// sled that includes waiting until no [`ShardView`] of the shard is left, so the thread that
    /// holds one must not commit.
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
        let Current { generation, buffer } = &mut *current;
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

    /// The state as of now. Commits go on beside it; with sled they cannot be flushed until it is
    /// dropped.
    ///
    /// # Errors
    ///
    /// Any fault of the engine: what was committed is flushed first.
    pub fn view(&self) -> Result<ShardView, EngineError> {
        let shard = &self.shard;
        let flushing = shard.flushing();
        shard.flush_alone(&flushing)?;
        let pass = shard.gate.pass();
        let generation = shard.current().generation;
        let (source, pass) = match shard.engine.snapshot() {
            Some(snapshot) => (Source::Snapshot(snapshot), None),
            None => (Source::Live(shard.engine.clone()), Some(pass)),
        };
        Ok(ShardView { id: shard.id, generation, source, _pass: pass })
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
        let records: Vec<Record> = records.into_iter().collect();
        let changes =
            records.iter().map(|(key, value)| (key::record(id, generation, key), Some(&value[..])));
        self.shard.engine.apply(&mut changes.into_iter())
    }

    /// Makes these records the shard's state, with this header, durably and in one step. The
    /// generation before is removed then, which takes time in proportion to its size.
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
    /// Keeps the engine still for a view, if it needs that. Locked second.
    gate: Arc<Gate>,
    /// Locked last, and not while the engine writes a flush.
    current: RwLock<Current>,
}

/// What readers see.
struct Current {
    generation: Generation,
    buffer: Buffer,
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
            gate: Arc::default(),
            current: RwLock::new(Current { generation, buffer }),
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
        {
            let _writer = self.gate.write();
            let began = Instant::now();
            self.engine.apply(&mut changes.chain([header]))?;
            self.times.flush.note_since(began);
        }
        self.current_mut().buffer.end_flush();
        Ok(())
    }

    /// Makes `next` current, durably, then removes what was current before.
    fn switch(&self, next: Generation, header: Option<&[u8]>) -> Result<(), EngineError> {
        let before = {
            let _flushing = self.flushing();
            let _writer = self.gate.write();
            let mut current = self.current_mut();
            let pointer = next.0.to_be_bytes();
            self.engine.apply(
                &mut [(key::pointer(self.id), Some(&pointer[..])), (key::header(self.id), header)]
                    .into_iter(),
            )?;
            current.buffer = Buffer::new(header.map(<[u8]>::to_vec));
            std::mem::replace(&mut current.generation, next)
        };
        checkpoint(&*self.engine, &self.times)?;
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
            self.engine.apply(&mut records.into_iter().map(|(key, _)| (key, None)))?;
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
