//! What callers saw: the fetches of one user's bundles.
//!
//! Guarantees: an [`Operation`] says what its caller knows and no more: a fetch without an answer
//! is undecided, never failed. Times are those of one clock, taken before the first attempt was
//! sent and after the answer was read.
//!
//! Leaves out: what it means; see [`check`](crate::check).

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use oncekey_api::{Base64, Code, bundle::OneTimePreKeyStatus};
use oncekey_types::{DeviceId, LogIndex, OneTimePreKeyId, RequestId, UserId};

/// Names a one-time prekey of the user.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Key {
    /// The device.
    pub device: DeviceId,
    /// The key's id.
    pub id: OneTimePreKeyId,
}

/// A one-time prekey that was handed out.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Handed {
    /// Which.
    pub key: Key,
    /// The public key itself.
    pub public: Base64,
}

/// One fetch, from its first attempt to its answer. A caller that asks again under the same
/// idempotency key after an answer makes another operation of the same request.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Operation {
    /// The idempotency key.
    pub request: RequestId,
    /// The node asked first.
    pub asked: String,
    /// When the first attempt was sent, since the history began.
    pub invoked: Duration,
    /// When the answer was there; none when there was none.
    pub returned: Option<Duration>,
    /// Attempts that it took.
    pub attempts: usize,
    /// What came of it.
    pub answer: Answer,
}

/// What came of a fetch.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Answer {
    /// It was committed.
    Committed {
        /// Log index of the commit; of the first one when the answer was repeated.
        index: Option<LogIndex>,
        /// Whether the server said that it gave this answer before.
        repeated: bool,
        /// The keys handed out.
        keys: Vec<Handed>,
        /// The devices without a key, and why.
        without: Vec<(DeviceId, OneTimePreKeyStatus)>,
    },
    /// It was refused and changed nothing.
    Refused(Code),
    /// It may have been committed or may not. The text says what was seen last.
    Undecided(String),
}

/// All fetches of one user in a run.
#[derive(Clone, Debug)]
pub struct History {
    /// The user.
    pub user: UserId,
    /// Every key that was uploaded.
    pub uploaded: BTreeSet<Key>,
    /// The operations, in no order.
    pub operations: Vec<Operation>,
}

impl History {
    /// A history without operations.
    #[must_use]
    pub fn new(user: UserId, uploaded: BTreeSet<Key>) -> Self {
        Self { user, uploaded, operations: Vec::new() }
    }

    /// The operations of each request, in the order in which they were invoked.
    #[must_use]
    pub fn by_request(&self) -> BTreeMap<&RequestId, Vec<&Operation>> {
        let mut requests: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for operation in &self.operations {
            requests.entry(&operation.request).or_default().push(operation);
        }
        for operations in requests.values_mut() {
            operations.sort_by_key(|operation| operation.invoked);
        }
        requests
    }

    /// Every key that was handed out.
    #[must_use]
    pub fn handed(&self) -> BTreeSet<Key> {
        self.operations.iter().flat_map(Operation::keys).map(|handed| handed.key).collect()
    }

    /// Longest time in which no fetch was answered, between the first that was sent and the last
    /// that was answered.
    #[must_use]
    pub fn longest_gap(&self) -> Duration {
        let start = self.operations.iter().map(|operation| operation.invoked).min();
        let mut times: Vec<_> = self
            .operations
            .iter()
            .filter_map(|operation| operation.returned)
            .chain(start)
            .collect();
        times.sort_unstable();
        times.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or_default()
    }

    /// Requests that took more than one attempt or were answered more than once, and got one
    /// answer with a key.
    #[must_use]
    pub fn retried_with_a_key(&self) -> usize {
        self.by_request()
            .values()
            .filter(|operations| {
                let attempts: usize = operations.iter().map(|operation| operation.attempts).sum();
                attempts > 1 && operations.iter().any(|operation| !operation.keys().is_empty())
            })
            .count()
    }
}

impl Operation {
    /// The keys that it was handed.
    #[must_use]
    pub fn keys(&self) -> &[Handed] {
        match &self.answer {
            Answer::Committed { keys, .. } => keys,
            Answer::Refused(_) | Answer::Undecided(_) => &[],
        }
    }

    /// Whether the answer is one of the log's.
    #[must_use]
    pub fn is_committed(&self) -> bool {
        matches!(self.answer, Answer::Committed { .. })
    }
}
