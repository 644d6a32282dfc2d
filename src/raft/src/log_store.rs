//! openraft's log of one shard, in the node's write-ahead log.
//!
//! Guarantees: votes and entries are durable before openraft hears of it; votes and entries of a
//! shard reach the disk in the order they were issued; a failed write is a fault of the node.
//!
//! Leaves out: the disk itself and its sharing among shards, see `oncekey-storage`. The committed
//! position rides along with other records and may be older than the last one saved; openraft
//! applies again what follows it, and the state knows what it has applied.

use std::{
    collections::Bound,
    fmt::Debug,
    io,
    ops::{Range, RangeBounds},
    sync::Arc,
};

use oncekey_planted::{self as planted, Bug};
use oncekey_storage::{
    failpoint,
    wal::{Done, GroupId, RecoveredGroup, Wal},
};
use openraft::{
    OptionalSend, RaftLogReader,
    storage::{IOFlushed, LogState, RaftLogStorage},
};
use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::{
    codec::{self, CodecError},
    error::FaultSink,
    type_config::{Entry, LogId, TypeConfig, Vote},
};

/// Payload bytes that one read for replication returns at most, unless one entry is larger.
const READ_MAX_BYTES: usize = 1 << 20;

/// The log of one shard. Clones share it.
#[derive(Clone)]
pub(crate) struct LogStore {
    group: GroupId,
    wal: Wal,
    positions: Arc<Mutex<Positions>>,
    faults: FaultSink,
}

#[derive(Default)]
struct Positions {
    vote: Option<Vote>,
    committed: Option<LogId>,
    purged: Option<LogId>,
    last: Option<LogId>,
}

impl LogStore {
    /// The log of `group` as `recovered` from `wal`.
    pub(crate) fn new(
        group: GroupId,
        wal: Wal,
        recovered: Option<&RecoveredGroup>,
        faults: FaultSink,
    ) -> Result<Self, io::Error> {
        let fault = |error: CodecError| faults.raise_io(&error);
        let mut positions = Positions::default();
        if let Some(recovered) = recovered {
            positions.vote =
                recovered.vote.as_deref().map(codec::decode_vote).transpose().map_err(fault)?;
            positions.committed = recovered
                .committed
                .as_deref()
                .map(codec::decode_log_id)
                .transpose()
                .map_err(fault)?;
            positions.purged = recovered
                .purged
                .as_ref()
                .map(|(_, marker)| codec::decode_log_id(marker))
                .transpose()
                .map_err(fault)?;
            positions.last = positions.purged;
        }
        let store = Self { group, wal, positions: Arc::new(Mutex::new(positions)), faults };
        if let Some((_, last)) = recovered.and_then(|recovered| recovered.entries) {
            let entry = store.read(last..last + 1, usize::MAX)?.pop();
            store.positions.lock().last = entry.map(|entry| entry.log_id);
        }
        Ok(store)
    }

    /// Whether the shard has ever had a vote or an entry here.
    pub(crate) fn is_pristine(&self) -> bool {
        let positions = self.positions.lock();
        positions.vote.is_none() && positions.last.is_none()
    }

    /// The last entry.
    pub(crate) fn last(&self) -> Option<LogId> {
        self.positions.lock().last
    }

    /// The last entry that was purged.
    pub(crate) fn purged(&self) -> Option<LogId> {
        self.positions.lock().purged
    }

    /// Cuts off what a state that reflects `applied` shows to be wrong: another entry in its place, and
    /// all behind that, were never committed. So it is when the state came from another node.
    ///
    /// # Errors
    ///
    /// A fault of the log.
    pub(crate) async fn give_way_to(&mut self, applied: LogId) -> Result<(), io::Error> {
        let (purged, index) = (self.purged(), applied.index);
        if purged >= Some(applied)
            || self.last().is_none_or(|last| last.index < index)
            || planted::is(Bug::LogKeepsItsPlace)
        {
            return Ok(());
        }
        let kept = |index| purged.is_none_or(|purged| purged.index < index);
        let from = index.checked_sub(1).filter(|before| kept(*before)).unwrap_or(index);
        let entries = self.read(from..index + 1, usize::MAX)?;
        match entries.as_slice() {
            [.., at] if at.log_id == applied => Ok(()),
            [before, _] => self.truncate_after(Some(before.log_id)).await,
            _ => self.truncate_after(purged).await,
        }
    }

    fn read(&self, range: Range<u64>, max_bytes: usize) -> Result<Vec<Entry>, io::Error> {
        let records = self
            .wal
            .read_up_to(self.group, range, max_bytes)
            .map_err(|error| self.faults.raise_io(&error))?;
        records
            .iter()
            .map(|(_, bytes)| {
                codec::decode_entry(bytes).map_err(|error| self.faults.raise_io(&error))
            })
            .collect()
    }

    /// A callback for the log that tells `flushed`; a failure is a fault of the node.
    fn done(&self, flushed: impl FnOnce(Result<(), io::Error>) + Send + 'static) -> Done {
        let faults = self.faults.clone();
        Box::new(move |result| {
            flushed(result.map_err(|error| match &error {
                // The node itself has closed the log.
                oncekey_storage::wal::WalFault::Closed => io::Error::other(error),
                _ => faults.raise_io(&error),
            }));
        })
    }

    fn waiter(&self) -> (Done, impl Future<Output = Result<(), io::Error>> + use<>) {
        let (sender, receiver) = oneshot::channel();
        let done = self.done(move |result| {
            // openraft may have stopped in the meantime.
            let _ = sender.send(result);
        });
        let wait = async move {
            receiver.await.unwrap_or_else(|_| Err(io::Error::other("the log has been closed")))
        };
        (done, wait)
    }
}

impl RaftLogReader<TypeConfig> for LogStore {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> Result<Vec<Entry>, io::Error> {
        self.read(half_open(&range), usize::MAX)
    }

    async fn limited_get_log_entries(
        &mut self,
        start: u64,
        end: u64,
    ) -> Result<Vec<Entry>, io::Error> {
        self.read(start..end, READ_MAX_BYTES)
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, io::Error> {
        Ok(self.positions.lock().vote)
    }
}

impl RaftLogStorage<TypeConfig> for LogStore {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> Result<LogState<TypeConfig>, io::Error> {
        let positions = self.positions.lock();
        Ok(LogState { last_purged_log_id: positions.purged, last_log_id: positions.last })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> Result<(), io::Error> {
        let bytes = codec::encode_vote(vote).map_err(|error| self.faults.raise_io(&error))?;
        let (done, durable) = self.waiter();
        failpoint::BEFORE_VOTE.reach();
        self.wal.save_vote(self.group, bytes, done);
        durable.await?;
        failpoint::AFTER_VOTE.reach();
        self.positions.lock().vote = Some(*vote);
        Ok(())
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> Result<(), io::Error> {
        if let Some(committed) = committed {
            let bytes =
                codec::encode_log_id(&committed).map_err(|error| self.faults.raise_io(&error))?;
            self.wal.save_committed(self.group, bytes);
        }
        self.positions.lock().committed = committed;
        Ok(())
    }

    async fn read_committed(&mut self) -> Result<Option<LogId>, io::Error> {
        Ok(self.positions.lock().committed)
    }

    async fn append<I>(
        &mut self,
        entries: I,
        callback: IOFlushed<TypeConfig>,
    ) -> Result<(), io::Error>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let mut first = None;
        let mut last = None;
        let mut payloads = Vec::new();
        for entry in entries {
            first.get_or_insert(entry.log_id.index);
            last = Some(entry.log_id);
            payloads
                .push(codec::encode_entry(&entry).map_err(|error| self.faults.raise_io(&error))?);
        }
        let Some(first) = first else {
            callback.io_completed(Ok(()));
            return Ok(());
        };
        let done = self.done(move |result| callback.io_completed(result));
        self.wal.append(self.group, first, payloads, done);
        self.positions.lock().last = last;
        Ok(())
    }

    async fn truncate_after(&mut self, last: Option<LogId>) -> Result<(), io::Error> {
        let from = last.map_or(0, |last| last.index + 1);
        self.wal.truncate(self.group, from, None);
        let mut positions = self.positions.lock();
        positions.last = positions.last.min(last).max(positions.purged);
        Ok(())
    }

    async fn purge(&mut self, upto: LogId) -> Result<(), io::Error> {
        let marker = codec::encode_log_id(&upto).map_err(|error| self.faults.raise_io(&error))?;
        self.wal.purge(self.group, upto.index, marker, None);
        let mut positions = self.positions.lock();
        positions.purged = Some(upto);
        positions.last = positions.last.max(Some(upto));
        Ok(())
    }
}

fn half_open(range: &impl RangeBounds<u64>) -> Range<u64> {
    let start = match range.start_bound() {
        Bound::Included(start) => *start,
        Bound::Excluded(before) => before + 1,
        Bound::Unbounded => 0,
    };
    let end = match range.end_bound() {
        Bound::Included(last) => last + 1,
        Bound::Excluded(end) => *end,
        Bound::Unbounded => u64::MAX,
    };
    start..end
}

#[cfg(test)]
mod tests {
    use oncekey_storage::{
        disk::{SimDisk, Tear},
        wal::WalOptions,
    };
    use openraft::{EntryPayload, vote::leader_id_adv::LeaderId};
    use tokio_test::{assert_pending, assert_ready, task};

    use super::*;

    const GROUP: GroupId = GroupId(0);

    /// A log on `disk` that is written when the test says so.
    fn open(disk: &SimDisk) -> (Wal, LogStore) {
        let options = WalOptions::default();
        let opened =
            Wal::open_without_thread(Arc::new(disk.mount()), options, |_| (), || ()).unwrap();
        let (wal, recovery) = opened;
        let recovered = recovery.groups.get(&GROUP);
        let store = LogStore::new(GROUP, wal.clone(), recovered, FaultSink::default()).unwrap();
        (wal, store)
    }

    #[test]
    fn a_vote_is_given_when_it_is_durable_and_not_a_step_before() {
        let disk = SimDisk::new();
        let (wal, mut store) = open(&disk);
        let mut reader = store.clone();
        let vote = Vote::new(3, 1);
        {
            let mut saving = task::spawn(store.save_vote(&vote));
            assert_pending!(saving.poll());
            let mut reading = task::spawn(reader.read_vote());
            assert_eq!(assert_ready!(reading.poll()).unwrap(), None, "nobody may see it yet");
            assert!(!saving.is_woken());

            assert!(wal.work());
            assert!(saving.is_woken(), "whoever waits for the vote is told");
            assert_ready!(saving.poll()).unwrap();
        }
        disk.power_cut(Tear::Nothing);
        let (_, mut after) = open(&disk);
        let mut reading = task::spawn(after.read_vote());
        assert_eq!(assert_ready!(reading.poll()).unwrap(), Some(vote));
    }

    #[test]
    fn votes_that_wait_together_become_durable_in_their_order() {
        let disk = SimDisk::new();
        let (wal, mut first) = open(&disk);
        let mut second = first.clone();
        let (earlier, later) = (Vote::new(3, 1), Vote::new(4, 2));
        let mut saving = task::spawn(first.save_vote(&earlier));
        let mut saving_too = task::spawn(second.save_vote(&later));
        assert_pending!(saving.poll());
        assert_pending!(saving_too.poll());
        assert!(wal.work());
        assert_ready!(saving.poll()).unwrap();
        assert_ready!(saving_too.poll()).unwrap();
        drop((saving, saving_too));
        disk.power_cut(Tear::Nothing);
        let (_, mut after) = open(&disk);
        assert_eq!(assert_ready!(task::spawn(after.read_vote()).poll()).unwrap(), Some(later));
    }

    #[test]
    fn a_vote_that_is_lost_with_the_power_was_never_given() {
        let disk = SimDisk::new();
        let (_wal, mut store) = open(&disk);
        let vote = Vote::new(3, 1);
        let mut saving = task::spawn(store.save_vote(&vote));
        assert_pending!(saving.poll());
        disk.power_cut(Tear::Nothing);
        assert_pending!(saving.poll());
        let (_, mut after) = open(&disk);
        assert_eq!(assert_ready!(task::spawn(after.read_vote()).poll()).unwrap(), None);
    }

    fn id(term: u64, index: u64) -> LogId {
        LogId::new(LeaderId { term, node_id: 1 }, index)
    }

    /// A log with an entry for each term, from index 0.
    async fn of(terms: &[u64]) -> (Wal, LogStore) {
        let (wal, mut store) = open(&SimDisk::new());
        let entries = terms.iter().zip(0..);
        let entries = entries
            .map(|(term, index)| Entry { log_id: id(*term, index), payload: EntryPayload::Blank });
        store.append(entries, IOFlushed::noop()).await.unwrap();
        let _ = wal.work();
        (wal, store)
    }

    #[tokio::test]
    async fn entries_that_the_state_shows_to_be_wrong_are_cut_off_and_no_others() {
        for (terms, applied, left) in [
            (&[1, 1, 2, 2][..], id(2, 2), Some(id(2, 3))),
            (&[1, 1, 2, 2], id(3, 2), Some(id(1, 1))),
            (&[1, 1, 2, 2], id(3, 3), Some(id(2, 2))),
            (&[1, 1, 2, 2], id(3, 0), None),
            (&[1, 1, 2, 2], id(3, 9), Some(id(2, 3))),
            (&[], id(3, 2), None),
        ] {
            let (wal, mut store) = of(terms).await;
            store.give_way_to(applied).await.unwrap();
            let _ = wal.work();
            assert_eq!(store.last(), left, "{terms:?}, {applied}");
            let kept = store.try_get_log_entries(..).await.unwrap();
            assert_eq!(kept.last().map(|entry| entry.log_id), left, "{terms:?}, {applied}");
        }
        let (wal, mut store) = of(&[1, 1, 2, 2]).await;
        store.purge(id(1, 1)).await.unwrap();
        store.give_way_to(id(3, 2)).await.unwrap();
        let _ = wal.work();
        assert_eq!(store.last(), Some(id(1, 1)), "what was purged is in the state");
    }
}
