//! Where every entry is: in memory, in a segment, or both.
//!
//! Guarantees: an entry is found from the moment it is submitted; a payload that is not written
//! yet is always in memory; written payloads are kept in memory up to a bound, the newest last to
//! go.
//!
//! Leaves out: what is durable. That is the committer's knowledge.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;

use bytes::Bytes;

use super::GroupId;
use super::group::GroupState;

/// What a payload in memory costs beyond its bytes, roughly.
const CACHE_OVERHEAD_BYTES: usize = 96;

/// Place of a record on disk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Location {
    pub(super) segment: u64,
    pub(super) offset: u32,
    pub(super) bytes: u32,
}

/// Tells one submission of an index from the next, when the first was truncated.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Ticket(u64);

impl Ticket {
    /// The ticket of the entry `count` places after this one, submitted together with it.
    pub(super) fn after(self, count: u64) -> Self {
        Self(self.0 + count)
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Slot {
    /// Submitted, not written.
    Pending(Ticket),
    /// Written.
    At(Location),
}

/// What is found at an index.
pub(super) enum Found {
    InMemory(Bytes),
    OnDisk(Location),
}

/// The entries of all groups.
#[derive(Default)]
pub(super) struct Index {
    groups: BTreeMap<GroupId, Group>,
    cache: Cache,
    next_ticket: u64,
}

#[derive(Default)]
struct Group {
    state: GroupState,
    /// How many entries, the first ones, are known from a checkpoint, and their segments were not
    /// seen. Only during recovery. A number, because a checkpoint may promise any.
    unseen: u64,
    /// One per index of `state.entries` behind those.
    slots: VecDeque<Slot>,
    payloads: BTreeMap<u64, Bytes>,
}

impl Index {
    pub(super) fn with_cache(limit_bytes: usize) -> Self {
        Self { cache: Cache { limit_bytes, ..Cache::default() }, ..Self::default() }
    }

    pub(super) fn groups(&self) -> impl Iterator<Item = (GroupId, &GroupState)> {
        self.groups.iter().map(|(id, group)| (*id, &group.state))
    }

    pub(super) fn entries(&self, group: GroupId) -> Range<u64> {
        self.groups.get(&group).map_or(0..0, |group| group.state.entries.clone())
    }

    /// Payload bytes in memory, submitted ones that are not written yet included.
    pub(super) fn cached_bytes(&self) -> usize {
        self.cache.held_bytes
    }

    /// Takes a group over from a checkpoint; its entries are unseen.
    pub(super) fn adopt(&mut self, id: GroupId, state: &GroupState) {
        let Range { start, end } = state.entries;
        let unseen = end.saturating_sub(start);
        self.groups.insert(id, Group { state: state.clone(), unseen, ..Group::default() });
    }

    /// Whether the place of any entry is unknown.
    pub(super) fn has_unseen(&self) -> bool {
        self.groups.values().any(|group| group.unseen > 0)
    }

    /// Adds entries that are to be written; returns the ticket of the first. The others have the
    /// tickets that follow.
    pub(super) fn append(
        &mut self,
        id: GroupId,
        first: u64,
        payloads: &[Bytes],
    ) -> Result<Ticket, &'static str> {
        let group = self.groups.entry(id).or_default();
        group.state.append(first, payloads.len() as u64)?;
        let ticket = Ticket(self.next_ticket);
        for (index, payload) in (first..).zip(payloads) {
            group.slots.push_back(Slot::Pending(Ticket(self.next_ticket)));
            self.next_ticket += 1;
            self.cache.held_bytes += payload.len();
            group.payloads.insert(index, payload.clone());
        }
        Ok(ticket)
    }

    /// Adds an entry read back from disk.
    pub(super) fn append_written(
        &mut self,
        id: GroupId,
        index: u64,
        location: Location,
    ) -> Result<(), &'static str> {
        let group = self.groups.entry(id).or_default();
        group.state.append(index, 1)?;
        group.slots.push_back(Slot::At(location));
        Ok(())
    }

    /// Notes where an entry was written, if it is still wanted, and lets old payloads go.
    pub(super) fn written(&mut self, id: GroupId, index: u64, ticket: Ticket, location: Location) {
        let Some(group) = self.groups.get_mut(&id) else {
            return;
        };
        let Some(slot) = group.slot_mut(index) else {
            return;
        };
        if *slot != Slot::Pending(ticket) {
            return;
        }
        *slot = Slot::At(location);
        let bytes = group.payloads.get(&index).map_or(0, Bytes::len);
        self.cache.remember(Remembered { group: id, index, location, bytes });
        while let Some(oldest) = self.cache.next_to_forget() {
            if let Some(group) = self.groups.get_mut(&oldest.group)
                && group
                    .slot_mut(oldest.index)
                    .is_some_and(|slot| *slot == Slot::At(oldest.location))
                && let Some(payload) = group.payloads.remove(&oldest.index)
            {
                self.cache.held_bytes -= payload.len();
            }
        }
    }

    pub(super) fn truncate(&mut self, id: GroupId, from: u64) {
        let group = self.groups.entry(id).or_default();
        group.state.truncate(from);
        self.cache.held_bytes -= group.fit();
    }

    pub(super) fn purge(&mut self, id: GroupId, upto: u64, marker: Bytes) {
        let group = self.groups.entry(id).or_default();
        let first = group.state.entries.start;
        group.state.purge(upto, marker);
        let gone = group.state.entries.start.saturating_sub(first);
        let unseen = gone.min(group.unseen);
        group.unseen -= unseen;
        let gone = usize::try_from(gone - unseen).unwrap_or(usize::MAX).min(group.slots.len());
        group.slots.drain(..gone);
        self.cache.held_bytes -= group.fit();
    }

    /// Replaces a small part of a group's state during recovery.
    pub(super) fn state_mut(&mut self, id: GroupId) -> &mut GroupState {
        &mut self.groups.entry(id).or_default().state
    }

    /// What stands at an index, if anything.
    pub(super) fn find(&self, id: GroupId, index: u64) -> Option<Found> {
        let group = self.groups.get(&id)?;
        if let Some(payload) = group.payloads.get(&index) {
            return Some(Found::InMemory(payload.clone()));
        }
        match group.slot(index)? {
            Slot::At(location) => Some(Found::OnDisk(location)),
            Slot::Pending(_) => None,
        }
    }
}

impl Group {
    fn position(&self, index: u64) -> Option<usize> {
        let entry = index.checked_sub(self.state.entries.start)?;
        usize::try_from(entry.checked_sub(self.unseen)?).ok()
    }

    fn slot(&self, index: u64) -> Option<Slot> {
        self.slots.get(self.position(index)?).copied()
    }

    fn slot_mut(&mut self, index: u64) -> Option<&mut Slot> {
        let position = self.position(index)?;
        self.slots.get_mut(position)
    }

    /// Drops what lies outside of the entries; returns the payload bytes let go.
    fn fit(&mut self) -> usize {
        let Range { start, end } = self.state.entries;
        self.unseen = self.unseen.min(end - start);
        self.slots.truncate(usize::try_from(end - start - self.unseen).unwrap_or(usize::MAX));
        let after = self.payloads.split_off(&end);
        let kept = self.payloads.split_off(&start);
        let before = std::mem::replace(&mut self.payloads, kept);
        before.values().chain(after.values()).map(Bytes::len).sum()
    }
}

/// Which written payloads are in memory, oldest first. An item whose entry has gone since counts
/// until its turn comes.
#[derive(Default)]
struct Cache {
    limit_bytes: usize,
    held_bytes: usize,
    remembered: VecDeque<Remembered>,
    remembered_bytes: usize,
}

struct Remembered {
    group: GroupId,
    index: u64,
    location: Location,
    bytes: usize,
}

impl Cache {
    fn remember(&mut self, item: Remembered) {
        self.remembered_bytes += item.bytes + CACHE_OVERHEAD_BYTES;
        self.remembered.push_back(item);
    }

    fn next_to_forget(&mut self) -> Option<Remembered> {
        if self.remembered_bytes <= self.limit_bytes {
            return None;
        }
        let item = self.remembered.pop_front()?;
        self.remembered_bytes -= item.bytes + CACHE_OVERHEAD_BYTES;
        Some(item)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GROUP: GroupId = GroupId(1);

    fn at(offset: u32) -> Location {
        Location { segment: 1, offset, bytes: 10 }
    }

    fn payloads(count: usize) -> Vec<Bytes> {
        vec![Bytes::from_static(&[7; 10]); count]
    }

    #[test]
    fn written_payloads_are_kept_up_to_the_bound() {
        let mut index = Index::with_cache(2 * (10 + CACHE_OVERHEAD_BYTES));
        let first = index.append(GROUP, 5, &payloads(4)).unwrap();
        assert_eq!(index.cached_bytes(), 40, "what is not written stays in memory");
        for n in 0..4u32 {
            index.written(GROUP, 5 + u64::from(n), first.after(u64::from(n)), at(n));
        }
        assert_eq!(index.cached_bytes(), 20);
        assert!(matches!(index.find(GROUP, 6), Some(Found::OnDisk(location)) if location == at(1)));
        assert!(matches!(index.find(GROUP, 7), Some(Found::InMemory(_))));
    }

    #[test]
    fn a_late_write_of_a_truncated_entry_is_not_taken_for_its_successor() {
        let mut index = Index::with_cache(0);
        let old = index.append(GROUP, 0, &payloads(1)).unwrap();
        index.truncate(GROUP, 0);
        let new = index.append(GROUP, 0, &payloads(1)).unwrap();
        index.written(GROUP, 0, old, at(100));
        assert!(matches!(index.find(GROUP, 0), Some(Found::InMemory(_))));
        index.written(GROUP, 0, new, at(200));
        assert!(
            matches!(index.find(GROUP, 0), Some(Found::OnDisk(location)) if location == at(200))
        );
    }

    #[test]
    fn purged_and_truncated_payloads_leave_the_memory() {
        let mut index = Index::with_cache(1 << 20);
        index.append(GROUP, 0, &payloads(10)).unwrap();
        index.truncate(GROUP, 8);
        index.purge(GROUP, 2, Bytes::new());
        assert_eq!(index.cached_bytes(), 50);
        assert_eq!(index.entries(GROUP), 3..8);
        assert!(index.find(GROUP, 2).is_none() && index.find(GROUP, 8).is_none());
        index.purge(GROUP, 20, Bytes::new());
        assert_eq!(index.cached_bytes(), 0);
        assert_eq!(index.entries(GROUP), 21..21);
    }

    #[test]
    fn a_checkpoint_that_promises_any_number_of_entries_takes_no_memory_for_them() {
        let mut index = Index::default();
        let state = GroupState { entries: 5..u64::MAX, ..GroupState::default() };
        index.adopt(GROUP, &state);
        assert!(index.has_unseen() && index.find(GROUP, 5).is_none());
        index.truncate(GROUP, 7);
        index.append_written(GROUP, 7, at(70)).unwrap();
        index.append_written(GROUP, 8, at(80)).unwrap();
        index.purge(GROUP, 5, Bytes::new());
        assert!(index.has_unseen() && index.find(GROUP, 6).is_none());
        assert!(matches!(index.find(GROUP, 8), Some(Found::OnDisk(found)) if found == at(80)));
        index.purge(GROUP, 7, Bytes::new());
        assert!(!index.has_unseen() && index.find(GROUP, 7).is_none());
        assert!(matches!(index.find(GROUP, 8), Some(Found::OnDisk(found)) if found == at(80)));
    }
}
