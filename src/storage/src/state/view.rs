//! A shard as it was at one moment.
//!
//! Guarantees: a view shows the records and the header of its moment, whatever is committed, flushed
//! or installed while it lives, and keeps nobody waiting for longer than one read. Where the engine
//! has no snapshots, a flush first keeps for each view what it is about to replace.
//!
//! Leaves out: views that are read for ever. One beneath which more than [`REPLACED_MAX_BYTES`] were
//! replaced is lost, and says so.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use oncekey_types::ShardId;

use super::engine::{ChangeRef, Engine, Reader};
use super::key::{self, Generation};
use super::{EngineError, Record};

/// What is kept for one view, at most.
const REPLACED_MAX_BYTES: usize = 64 << 20;
/// What a value that was replaced takes in memory beside its key and itself, about.
const REPLACED_OVERHEAD_BYTES: usize = 96;

/// The state of a shard at one moment.
pub struct ShardView {
    id: ShardId,
    generation: Generation,
    source: Box<dyn Reader + Send + Sync>,
}

impl ShardView {
    /// A view of `engine` as it is now; `views` are the others of the shard.
    pub(super) fn new(
        engine: &Arc<dyn Engine>,
        views: &Arc<Views>,
        id: ShardId,
        generation: Generation,
    ) -> Self {
        let source = engine.snapshot().unwrap_or_else(|| Box::new(views.open(engine.clone())));
        Self { id, generation, source }
    }

    /// The header at that moment.
    ///
    /// # Errors
    ///
    /// [`EngineError::ViewLost`], or any fault of the engine; as for all functions here.
    pub fn header(&self) -> Result<Option<Vec<u8>>, EngineError> {
        self.source.get(&key::header(self.id))
    }

    /// The value of a key at that moment.
    ///
    /// # Errors
    ///
    /// See [`header`](Self::header).
    pub fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, EngineError> {
        self.source.get(&key::record(self.id, self.generation, key))
    }

    /// The first `limit` records at that moment with `from <= key`, and `key < to` if it is given.
    ///
    /// # Errors
    ///
    /// See [`header`](Self::header).
    pub fn range(
        &self,
        from: &[u8],
        to: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<Record>, EngineError> {
        let (id, generation) = (self.id, self.generation);
        let from = key::record(id, generation, from);
        let to = to.map_or_else(|| key::end(id, generation), |to| key::record(id, generation, to));
        if from >= to {
            return Ok(Vec::new());
        }
        let records = self.source.range(&from, &to, limit)?;
        Ok(records.into_iter().map(|(key, value)| (key::strip(key), value)).collect())
    }
}

/// The views of a shard whose engine has no snapshots.
#[derive(Default)]
pub(super) struct Views {
    /// By number. Locked for writing while the engine is written, for reading while a view reads.
    open: RwLock<BTreeMap<u64, Replaced>>,
}

impl Views {
    /// Whether there is none.
    pub(super) fn is_empty(&self) -> bool {
        self.read().is_empty()
    }

    /// Applies `changes` to `engine`; every view stays as it is.
    pub(super) fn apply(
        &self,
        engine: &dyn Engine,
        changes: &mut dyn Iterator<Item = ChangeRef<'_>>,
    ) -> Result<(), EngineError> {
        let mut open = self.write();
        if open.is_empty() {
            return engine.apply(changes);
        }
        let changes: Vec<_> = changes.collect();
        for replaced in open.values_mut() {
            for (key, _) in &changes {
                replaced.keep(engine, key)?;
            }
        }
        engine.apply(&mut changes.into_iter())
    }

    fn open(self: &Arc<Self>, engine: Arc<dyn Engine>) -> LiveView {
        let mut open = self.write();
        let number = open.last_key_value().map_or(0, |(last, _)| last + 1);
        open.insert(number, Replaced::default());
        LiveView { engine, views: self.clone(), number }
    }

    fn read(&self) -> RwLockReadGuard<'_, BTreeMap<u64, Replaced>> {
        self.open.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, BTreeMap<u64, Replaced>> {
        self.open.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What was replaced beneath one view, by key of the engine; `None` where there was nothing.
#[derive(Default)]
struct Replaced {
    values: BTreeMap<Vec<u8>, Option<Vec<u8>>>,
    bytes: usize,
}

impl Replaced {
    /// Keeps the value of `key` as the view knows it, before it is replaced.
    fn keep(&mut self, engine: &dyn Engine, key: &[u8]) -> Result<(), EngineError> {
        if self.is_lost() || self.values.contains_key(key) {
            return Ok(());
        }
        let value = engine.get(key)?;
        self.bytes += REPLACED_OVERHEAD_BYTES + key.len() + value.as_ref().map_or(0, Vec::len);
        self.values.insert(key.to_vec(), value);
        if self.is_lost() {
            self.values.clear();
        }
        Ok(())
    }

    fn is_lost(&self) -> bool {
        self.bytes > REPLACED_MAX_BYTES
    }
}

/// Reads the engine as it is, and what was replaced since in the place of what is there now.
struct LiveView {
    engine: Arc<dyn Engine>,
    views: Arc<Views>,
    number: u64,
}

impl LiveView {
    fn read<T>(
        &self,
        read: impl FnOnce(&Replaced) -> Result<T, EngineError>,
    ) -> Result<T, EngineError> {
        match self.views.read().get(&self.number) {
            Some(replaced) if !replaced.is_lost() => read(replaced),
            _ => Err(EngineError::ViewLost),
        }
    }
}

impl Reader for LiveView {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, EngineError> {
        self.read(|replaced| match replaced.values.get(key) {
            Some(value) => Ok(value.clone()),
            None => self.engine.get(key),
        })
    }

    fn range(&self, from: &[u8], to: &[u8], limit: usize) -> Result<Vec<Record>, EngineError> {
        self.read(|replaced| {
            let mut from = from.to_vec();
            loop {
                let now = self.engine.range(&from, to, limit)?;
                // Where the engine has more, behind what it gave.
                let more = now.last().filter(|_| now.len() == limit);
                let more = more.map(|(last, _)| [last.as_slice(), &[0]].concat());
                let end = more.as_deref().unwrap_or(to).to_vec();
                let mut then: BTreeMap<_, _> =
                    now.into_iter().map(|(key, value)| (key, Some(value))).collect();
                let kept = replaced.values.range(from..end);
                then.extend(kept.map(|(key, value)| (key.clone(), value.clone())));
                let then = then.into_iter().filter_map(|(key, value)| Some((key, value?)));
                let then: Vec<Record> = then.take(limit).collect();
                match more {
                    // All that the engine gave is newer than the view.
                    Some(more) if then.is_empty() => from = more,
                    _ => return Ok(then),
                }
            }
        })
    }
}

impl Drop for LiveView {
    fn drop(&mut self) {
        self.views.write().remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::super::MemoryState;
    use super::*;

    #[test]
    fn a_view_beneath_which_too_much_changed_says_so_and_holds_nothing() {
        let engine: Arc<dyn Engine> = Arc::new(MemoryState::new().mount());
        let views = Arc::new(Views::default());
        let value = vec![7; 1 << 20];
        let keys = || (0..64u8).map(|key| vec![key]);
        let write = |value: &[u8]| {
            views.apply(&*engine, &mut keys().map(|key| (key, Some(value)))).unwrap();
        };
        write(&value);
        let view = views.open(engine.clone());
        assert_eq!(view.get(&[63]).unwrap().as_ref(), Some(&value));
        write(&[]);
        assert!(matches!(view.get(&[63]), Err(EngineError::ViewLost)));
        assert!(matches!(view.range(&[], &[64], 1), Err(EngineError::ViewLost)));
        assert!(views.read().values().all(|replaced| replaced.values.is_empty()));
        let young = views.open(engine.clone());
        assert_eq!(young.range(&[], &[64], 99).unwrap().len(), 64);
        drop((view, young));
        assert!(views.is_empty());
    }
}
