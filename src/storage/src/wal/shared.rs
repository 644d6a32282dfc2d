//! What the callers of the log and its committer share: the queue, the index and the end.
//!
//! Guarantees: jobs are taken in the order in which they were submitted; every job's [`Done`] is
//! called exactly once; nothing is taken in after a fault, and the node hears of the fault before
//! any caller does.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::ThreadId;
use std::time::{Duration, Instant};

use bytes::Bytes;

use oncekey_types::limits;

use super::index::{Index, Ticket};
use super::record::RECORD_HEADER_BYTES;
use super::segments::Segments;
use super::{Done, GroupId, WalFault, WalStats, WalTimes};

/// Payload bytes that go into one batch; a job is never split, so the last may exceed it.
const BATCH_BYTES: usize = 8 << 20;

/// A change that somebody asks for.
pub(super) enum Request {
    Append { first_index: u64, entries: Vec<Bytes> },
    Vote(Bytes),
    Truncate { from: u64 },
    Purge { upto: u64, marker: Bytes },
}

/// A request that was taken in.
pub(super) struct Job {
    pub(super) group: GroupId,
    pub(super) request: Request,
    /// Of the first entry of an append.
    pub(super) ticket: Option<Ticket>,
    pub(super) done: Option<Done>,
    bytes: usize,
}

/// What the committer does next. Committed positions ride along.
pub(super) enum Work {
    Batch(Vec<Job>, BTreeMap<GroupId, Bytes>),
    Idle(BTreeMap<GroupId, Bytes>),
    Close(BTreeMap<GroupId, Bytes>),
    /// The log has ended.
    Ended,
}

pub(super) struct Shared {
    pub(super) times: WalTimes,
    state: Mutex<State>,
    work: Condvar,
    room: Condvar,
    queue_bytes: usize,
    on_fault: Box<dyn Fn(&WalFault) + Send + Sync>,
    /// Told of work beside the committer's thread, if there is one.
    wake: Option<Box<dyn Fn() + Send + Sync>>,
    committer: OnceLock<ThreadId>,
}

pub(super) struct State {
    pub(super) index: Index,
    pub(super) segments: Segments,
    pub(super) stats: WalStats,
    queue: VecDeque<Job>,
    queued_bytes: usize,
    committed: BTreeMap<GroupId, Bytes>,
    closing: bool,
    ended: Option<WalFault>,
}

impl Shared {
    pub(super) fn new(
        index: Index,
        segments: Segments,
        queue_bytes: usize,
        on_fault: Box<dyn Fn(&WalFault) + Send + Sync>,
        wake: Option<Box<dyn Fn() + Send + Sync>>,
    ) -> Self {
        let state = State {
            index,
            segments,
            stats: WalStats::default(),
            queue: VecDeque::new(),
            queued_bytes: 0,
            committed: BTreeMap::new(),
            closing: false,
            ended: None,
        };
        Self {
            times: WalTimes::new(),
            state: Mutex::new(state),
            work: Condvar::new(),
            room: Condvar::new(),
            queue_bytes,
            on_fault,
            wake,
            committer: OnceLock::new(),
        }
    }

    /// A panic while the lock was held leaves nothing half done that a later caller could trip
    /// over, so a poisoned lock is taken as it is.
    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Names the calling thread the committer: it never waits for room.
    pub(super) fn enter_committer(&self) {
        let _ = self.committer.set(std::thread::current().id());
    }

    pub(super) fn is_committer(&self) -> bool {
        self.committer.get() == Some(&std::thread::current().id())
    }

    /// Takes a request in, waiting for room, or refuses it.
    pub(super) fn submit(&self, group: GroupId, request: Request, done: Option<Done>) {
        let bytes = request.bytes();
        let mut state = self.lock();
        while state.is_open()
            && state.queued_bytes + bytes > self.queue_bytes
            && !state.queue.is_empty()
            && !self.is_committer()
        {
            state = self.room.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        match state.admit(group, &request) {
            Ok(ticket) => {
                state.queued_bytes += bytes;
                state.queue.push_back(Job { group, request, ticket, done, bytes });
                if state.queue.len() == 1 {
                    self.wake();
                }
            }
            Err(fault) => {
                drop(state);
                if let Some(done) = done {
                    done(Err(fault));
                }
            }
        }
    }

    fn wake(&self) {
        self.work.notify_one();
        if let Some(wake) = &self.wake {
            wake();
        }
    }

    /// Keeps a committed position for the next batch.
    pub(super) fn save_committed(&self, group: GroupId, committed: Bytes) {
        let mut state = self.lock();
        if state.is_open() && committed.len() <= limits::GROUP_STATE_MAX_BYTES {
            state.committed.insert(group, committed);
        }
    }

    /// The next work; [`Work::Idle`] when none came for as long as `idle`.
    pub(super) fn next_work(&self, idle: Option<Duration>) -> Work {
        let deadline = idle.map(|idle| Instant::now() + idle);
        let mut state = self.lock();
        loop {
            if state.ended.is_some() {
                return Work::Ended;
            }
            if !state.queue.is_empty() {
                let jobs = state.take_batch();
                self.room.notify_all();
                return Work::Batch(jobs, std::mem::take(&mut state.committed));
            }
            if state.closing {
                return Work::Close(std::mem::take(&mut state.committed));
            }
            state = match deadline
                .map(|deadline| deadline.saturating_duration_since(Instant::now()))
            {
                None => self.work.wait(state).unwrap_or_else(PoisonError::into_inner),
                Some(Duration::ZERO) => return Work::Idle(std::mem::take(&mut state.committed)),
                Some(left) => {
                    let waited = self.work.wait_timeout(state, left);
                    waited.unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
    }

    /// Takes nothing more in; what is queued is still written.
    pub(super) fn close(&self) {
        self.lock().closing = true;
        self.wake();
        self.room.notify_all();
    }

    /// Ends the log after everything has been written.
    pub(super) fn end(&self) {
        self.lock().ended = Some(WalFault::Closed);
    }

    /// Ends the log for good: tells the node, then those who wait, first `waiting`, then the queue.
    pub(super) fn fail(&self, fault: &WalFault, waiting: Vec<Done>) {
        (self.on_fault)(fault);
        let queue = {
            let mut state = self.lock();
            state.ended = Some(fault.clone());
            state.queued_bytes = 0;
            std::mem::take(&mut state.queue)
        };
        self.room.notify_all();
        for done in waiting.into_iter().chain(queue.into_iter().filter_map(|job| job.done)) {
            done(Err(fault.clone()));
        }
    }
}

impl State {
    fn is_open(&self) -> bool {
        !self.closing && self.ended.is_none()
    }

    pub(super) fn queued_bytes(&self) -> usize {
        self.queued_bytes
    }

    fn take_batch(&mut self) -> Vec<Job> {
        let mut bytes = 0;
        let mut jobs = Vec::new();
        while bytes < BATCH_BYTES {
            let Some(job) = self.queue.pop_front() else {
                break;
            };
            bytes += job.bytes;
            jobs.push(job);
        }
        self.queued_bytes -= bytes;
        jobs
    }

    /// Checks a request and brings the index up to it.
    fn admit(&mut self, group: GroupId, request: &Request) -> Result<Option<Ticket>, WalFault> {
        if let Some(fault) = &self.ended {
            return Err(fault.clone());
        }
        if self.closing {
            return Err(WalFault::Closed);
        }
        request.check_size().map_err(|reason| WalFault::Refused { reason })?;
        match request {
            Request::Append { first_index, entries } => self
                .index
                .append(group, *first_index, entries)
                .map(Some)
                .map_err(|reason| WalFault::Refused { reason }),
            Request::Vote(_) => Ok(None),
            Request::Truncate { from } => {
                self.index.truncate(group, *from);
                Ok(None)
            }
            Request::Purge { upto, marker } => {
                self.index.purge(group, *upto, marker.clone());
                Ok(None)
            }
        }
    }
}

impl Request {
    fn bytes(&self) -> usize {
        match self {
            Self::Append { entries, .. } => {
                entries.iter().map(|entry| RECORD_HEADER_BYTES + entry.len()).sum()
            }
            Self::Vote(bytes) | Self::Purge { marker: bytes, .. } => {
                RECORD_HEADER_BYTES + bytes.len()
            }
            Self::Truncate { .. } => RECORD_HEADER_BYTES,
        }
    }

    fn check_size(&self) -> Result<(), &'static str> {
        match self {
            Self::Append { entries, .. } => {
                if entries.is_empty() {
                    return Err("an append without entries");
                }
                if entries.iter().any(|entry| entry.len() > limits::WAL_RECORD_MAX_BYTES) {
                    return Err("an entry is longer than a record may be");
                }
                if self.bytes() > limits::WAL_APPEND_MAX_BYTES {
                    return Err("the entries of one append are too many bytes");
                }
            }
            Self::Vote(bytes) | Self::Purge { marker: bytes, .. } => {
                if bytes.len() > limits::GROUP_STATE_MAX_BYTES {
                    return Err("a vote or purge marker is too long");
                }
            }
            Self::Truncate { .. } => {}
        }
        Ok(())
    }
}
