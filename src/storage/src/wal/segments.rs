//! The segment files in use, and which groups still need which.
//!
//! Guarantees: follows durable records only, so a segment that nobody needs here is needed by
//! nobody after a crash either.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::GroupId;
use crate::disk::DiskFile;

/// The segments, oldest first.
#[derive(Default)]
pub(super) struct Segments {
    by_id: BTreeMap<u64, Segment>,
}

struct Segment {
    file: Arc<dyn DiskFile>,
    /// For each group the first and the last of its live entries in the segment.
    extents: BTreeMap<GroupId, (u64, u64)>,
}

impl Segments {
    /// Adds a segment, unless it is there already.
    pub(super) fn add(&mut self, id: u64, file: &Arc<dyn DiskFile>) {
        let segment = || Segment { file: file.clone(), extents: BTreeMap::new() };
        self.by_id.entry(id).or_insert_with(segment);
    }

    pub(super) fn remove(&mut self, id: u64) -> Option<Arc<dyn DiskFile>> {
        self.by_id.remove(&id).map(|segment| segment.file)
    }

    pub(super) fn file(&self, id: u64) -> Option<Arc<dyn DiskFile>> {
        self.by_id.get(&id).map(|segment| segment.file.clone())
    }

    pub(super) fn files(&self) -> impl Iterator<Item = &Arc<dyn DiskFile>> {
        self.by_id.values().map(|segment| &segment.file)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.by_id.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.by_id.len()
    }

    /// Notes an entry. Indexes of a group only grow within a segment, but for truncations, which
    /// are noted by [`truncate`](Self::truncate).
    pub(super) fn entry(&mut self, id: u64, group: GroupId, index: u64) {
        if let Some(segment) = self.by_id.get_mut(&id) {
            segment.extents.entry(group).or_insert((index, index)).1 = index;
        }
    }

    pub(super) fn truncate(&mut self, group: GroupId, from: u64) {
        for segment in self.by_id.values_mut() {
            match segment.extents.get_mut(&group) {
                Some((first, _)) if *first >= from => {
                    segment.extents.remove(&group);
                }
                // `from` is above `first` here, so it is not 0.
                Some((_, last)) => *last = (*last).min(from - 1),
                None => {}
            }
        }
    }

    pub(super) fn purge(&mut self, group: GroupId, upto: u64) {
        for segment in self.by_id.values_mut() {
            match segment.extents.get_mut(&group) {
                Some((_, last)) if *last <= upto => {
                    segment.extents.remove(&group);
                }
                Some((first, _)) => *first = (*first).max(upto + 1),
                None => {}
            }
        }
    }

    /// The groups with entries in the oldest segment, each with the last of them; empty when it is
    /// the only segment.
    pub(super) fn pinning_oldest(&self) -> Vec<(GroupId, u64)> {
        if self.by_id.len() < 2 {
            return Vec::new();
        }
        let oldest = self.by_id.values().next();
        oldest
            .into_iter()
            .flat_map(|segment| &segment.extents)
            .map(|(group, (_, last))| (*group, *last))
            .collect()
    }

    /// The oldest segment, if nobody needs it and it is not the newest.
    pub(super) fn unneeded(&self) -> Option<u64> {
        let (id, oldest) = self.by_id.first_key_value()?;
        (self.by_id.len() > 1 && oldest.extents.is_empty()).then_some(*id)
    }
}
