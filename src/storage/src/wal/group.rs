//! What the log holds of one group, apart from the entries themselves.
//!
//! Guarantees: the committer, which takes notes for the next checkpoint, and recovery, which
//! replays, apply records by this one function, so both come to the same state.

use std::ops::Range;

use bytes::Bytes;

use super::RecoveredGroup;
use super::record::Record;

/// The small state of a group.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct GroupState {
    pub(super) vote: Option<Bytes>,
    pub(super) committed: Option<Bytes>,
    pub(super) purged: Option<(u64, Bytes)>,
    /// Indexes of the entries that are there; when empty, its end is where the next one goes
    /// (anywhere, if nothing was purged).
    pub(super) entries: Range<u64>,
}

impl GroupState {
    /// Whether an entry at `index` would leave no gap.
    pub(super) fn takes(&self, index: u64) -> bool {
        index == self.entries.end || (self.entries.is_empty() && self.purged.is_none())
    }

    /// Applies a record. An error says why the record cannot follow the state.
    pub(super) fn apply(&mut self, record: &Record) -> Result<(), &'static str> {
        match record {
            Record::Entry { index, .. } => self.append(*index, 1)?,
            Record::Vote(vote) => self.vote = Some(vote.clone()),
            Record::Committed(committed) => self.committed = Some(committed.clone()),
            Record::Truncate { from } => self.truncate(*from),
            Record::Purge { upto, marker } => self.purge(*upto, marker.clone()),
        }
        Ok(())
    }

    /// Adds `count` entries from `first` on.
    pub(super) fn append(&mut self, first: u64, count: u64) -> Result<(), &'static str> {
        if !self.takes(first) {
            return Err("an entry does not follow the last one of its group");
        }
        let end = first.checked_add(count).ok_or("an index is beyond the greatest")?;
        if self.entries.is_empty() {
            self.entries.start = first;
        }
        self.entries.end = end;
        Ok(())
    }

    /// Drops the entries from `from` on.
    pub(super) fn truncate(&mut self, from: u64) {
        self.entries.end = self.entries.end.min(from.max(self.entries.start));
    }

    /// Drops the entries up to and including `upto`. A purge never moves back.
    pub(super) fn purge(&mut self, upto: u64, marker: Bytes) {
        if self.purged.as_ref().is_some_and(|(purged, _)| *purged > upto) {
            return;
        }
        self.purged = Some((upto, marker));
        self.entries.start = self.entries.start.max(upto.saturating_add(1));
        self.entries.end = self.entries.end.max(self.entries.start);
    }

    /// As handed to the opener of the log.
    pub(super) fn recovered(&self) -> RecoveredGroup {
        RecoveredGroup {
            vote: self.vote.clone(),
            committed: self.committed.clone(),
            purged: self.purged.clone(),
            entries: (!self.entries.is_empty()).then(|| (self.entries.start, self.entries.end - 1)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_purge_beyond_the_end_moves_the_log_there() {
        let mut group = GroupState::default();
        group.append(0, 3).unwrap();
        group.purge(9, Bytes::new());
        assert!(!group.takes(3));
        assert!(group.takes(10));
        group.append(10, 1).unwrap();
        group.truncate(4);
        assert_eq!(group.entries, 10..10);
        assert!(group.takes(10) && !group.takes(4));
    }

    #[test]
    fn a_purge_never_moves_back() {
        let mut group = GroupState::default();
        group.purge(9, Bytes::from_static(b"nine"));
        group.purge(5, Bytes::from_static(b"five"));
        assert_eq!(group.purged, Some((9, Bytes::from_static(b"nine"))));
    }

    #[test]
    fn an_entry_must_follow_the_last() {
        let mut group = GroupState::default();
        group.append(7, 2).unwrap();
        group.append(8, 1).unwrap_err();
        group.append(10, 1).unwrap_err();
        group.append(9, 1).unwrap();
    }
}
