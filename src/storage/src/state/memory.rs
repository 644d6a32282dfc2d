//! A state in memory that loses what was not made durable, for simulations.
//!
//! Guarantees what [`Engine`] asks for. After [`MemoryState::power_cut`] the batches of the last
//! checkpoint are there and as many of the later ones as was asked, the first ones, whole; after
//! [`MemoryState::kill`] all are, as a kernel keeps what a process has written.
//!
//! Leaves out: time, limits and damage.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::engine::{ChangeRef, Engine, Reader};
use super::{Change, EngineError, Record};

type Records = BTreeMap<Vec<u8>, Vec<u8>>;

/// What a simulated machine keeps of its state. Clones share it.
#[derive(Clone, Default)]
pub struct MemoryState {
    device: Arc<Mutex<Device>>,
}

#[derive(Default)]
struct Device {
    durable: Records,
    /// Applied since the last checkpoint, in order.
    batches: Vec<Vec<Change>>,
    visible: Arc<Records>,
    boot: u64,
}

impl MemoryState {
    /// An empty state.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Batches that a power cut may take.
    #[must_use]
    pub fn batches_at_risk(&self) -> usize {
        self.device().batches.len()
    }

    /// Cuts the power: every engine over it goes bad; of the batches since the last checkpoint the
    /// first `kept` stay.
    pub fn power_cut(&self, kept: usize) {
        let mut device = self.device();
        device.boot += 1;
        device.batches.truncate(kept);
        device.make_durable();
        device.visible = Arc::new(device.durable.clone());
    }

    /// Ends the process but not the machine: every engine over it goes bad, nothing is lost.
    pub fn kill(&self) {
        self.device().boot += 1;
    }

    /// Ends the process but not the machine, and loses everything.
    pub fn lose(&self) {
        let mut device = self.device();
        *device = Device { boot: device.boot + 1, ..Device::default() };
    }

    fn device(&self) -> MutexGuard<'_, Device> {
        self.device.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The engine of a process that starts now.
    pub(super) fn mount(&self) -> Memory {
        Memory { state: self.clone(), boot: self.device().boot }
    }
}

impl Device {
    fn make_durable(&mut self) {
        for (key, value) in self.batches.drain(..).flatten() {
            put(&mut self.durable, key, value);
        }
    }
}

/// A [`MemoryState`] as a process sees it, until the process ends.
pub(super) struct Memory {
    state: MemoryState,
    boot: u64,
}

impl Memory {
    fn device(&self) -> Result<MutexGuard<'_, Device>, EngineError> {
        let device = self.state.device();
        if device.boot == self.boot {
            Ok(device)
        } else {
            let source = io::Error::other("the process has ended");
            Err(EngineError::Io { path: "(memory)".into(), source })
        }
    }
}

impl Reader for Memory {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, EngineError> {
        Ok(self.device()?.visible.get(key).cloned())
    }

    fn range(&self, from: &[u8], to: &[u8], limit: usize) -> Result<Vec<Record>, EngineError> {
        Ok(range(&self.device()?.visible, from, to, limit))
    }
}

impl Engine for Memory {
    fn apply(&self, changes: &mut dyn Iterator<Item = ChangeRef<'_>>) -> Result<(), EngineError> {
        let mut device = self.device()?;
        let batch: Vec<Change> =
            changes.map(|(key, value)| (key, value.map(<[u8]>::to_vec))).collect();
        // Copied first if a snapshot is looking at it.
        let visible = Arc::make_mut(&mut device.visible);
        for (key, value) in batch.iter().cloned() {
            put(visible, key, value);
        }
        device.batches.push(batch);
        Ok(())
    }

    fn checkpoint(&self) -> Result<(), EngineError> {
        self.device()?.make_durable();
        Ok(())
    }

    fn snapshot(&self) -> Option<Box<dyn Reader + Send + Sync>> {
        let records = Arc::clone(&self.device().ok()?.visible);
        Some(Box::new(Snapshot(records)))
    }

    fn disk_bytes(&self) -> Result<u64, EngineError> {
        let device = self.device()?;
        Ok(device.durable.iter().map(|(key, value)| (key.len() + value.len()) as u64).sum())
    }
}

struct Snapshot(Arc<Records>);

impl Reader for Snapshot {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, EngineError> {
        Ok(self.0.get(key).cloned())
    }

    fn range(&self, from: &[u8], to: &[u8], limit: usize) -> Result<Vec<Record>, EngineError> {
        Ok(range(&self.0, from, to, limit))
    }
}

fn range(records: &Records, from: &[u8], to: &[u8], limit: usize) -> Vec<Record> {
    if from >= to {
        return Vec::new();
    }
    let records =
        records.range::<[u8], _>((std::ops::Bound::Included(from), std::ops::Bound::Excluded(to)));
    records.take(limit).map(|(key, value)| (key.clone(), value.clone())).collect()
}

fn put(records: &mut Records, key: Vec<u8>, value: Option<Vec<u8>>) {
    match value {
        Some(value) => records.insert(key, value),
        None => records.remove(&key),
    };
}

#[cfg(test)]
mod tests {
    use oncekey_types::ShardId;

    use super::*;
    use crate::state::{EngineOptions, ShardSpace, StateEngine};

    fn open(state: &MemoryState) -> ShardSpace {
        let engine = StateEngine::in_memory(state, &EngineOptions::default()).unwrap();
        engine.shard(ShardId(0)).unwrap()
    }

    fn commit(space: &ShardSpace, number: u8) {
        space.commit([(vec![number], Some(vec![number]))], &[number]).unwrap();
        space.flush().unwrap();
    }

    #[test]
    fn a_power_cut_keeps_the_checkpoint_and_the_first_batches_after_it() {
        for kept in 0..=3 {
            let state = MemoryState::new();
            let space = open(&state);
            commit(&space, 1);
            space.checkpoint().unwrap();
            assert_eq!(state.batches_at_risk(), 0);
            (2..=4).for_each(|number| commit(&space, number));
            assert_eq!(state.batches_at_risk(), 3);
            state.power_cut(kept);
            space.checkpoint().expect_err("an engine from before the cut is bad");
            let last = 1 + u8::try_from(kept).unwrap();
            assert_eq!(open(&state).header(), Some(vec![last]));
        }
    }

    #[test]
    fn what_is_found_after_the_end_of_a_process_survives_a_power_cut() {
        let state = MemoryState::new();
        commit(&open(&state), 1);
        state.kill();
        assert_eq!(open(&state).header(), Some(vec![1]));
        state.power_cut(0);
        assert_eq!(open(&state).header(), Some(vec![1]));
    }

    #[test]
    fn of_a_state_that_is_lost_nothing_is_found_whatever_was_durable() {
        let state = MemoryState::new();
        let space = open(&state);
        commit(&space, 1);
        space.checkpoint().unwrap();
        commit(&space, 2);
        state.lose();
        space.checkpoint().expect_err("an engine from before the loss is bad");
        assert_eq!(open(&state).header(), None);
    }

    #[test]
    fn a_process_that_ends_loses_what_it_had_not_flushed_alone() {
        let state = MemoryState::new();
        let space = open(&state);
        commit(&space, 1);
        space.commit([], &[2]).unwrap();
        state.kill();
        assert_eq!(open(&state).header(), Some(vec![1]));
    }
}
