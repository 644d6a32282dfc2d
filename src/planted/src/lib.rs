//! Bugs that are planted on purpose.
//!
//! A harness is worth what it finds. So the product has, at the places where a mistake would be
//! worst, the mistake itself, asleep: `if planted::is(Bug::VoteNotSynced) { … }`. One process has
//! one bug at most, the one that the environment names.
//!
//! Guarantees: without the feature `armed`, which no build but that of `oncekey-cluster bugs` turns
//! on, [`is`] is the constant `false` and the bugs are not in the program. Leaves out: finding them.

/// The environment variable that names the bug of a process.
pub const VARIABLE: &str = "ONCEKEY_PLANTED";

macro_rules! bugs {
    ($($(#[doc = $doc:literal])+ $bug:ident = $name:literal,)+) => {
        /// A bug.
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        pub enum Bug {
            $($(#[doc = $doc])+ $bug,)+
        }

        impl Bug {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$bug),+];

            /// Its name in the environment.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$bug => $name,)+
                }
            }

            /// What it does, in a sentence.
            #[must_use]
            pub const fn about(self) -> &'static str {
                match self {
                    $(Self::$bug => concat!($($doc),+),)+
                }
            }
        }
    };
}

bugs! {
    /// A dispense leaves no retry.
    RetryNotKept = "retry-not-kept",
    /// Snapshots leave the retries out.
    RetriesNotInSnapshot = "retries-not-in-snapshot",
    /// The answer under an idempotency key is given to another question, too.
    RetryOfAnyQuestion = "retry-of-any-question",
    /// A new registration forgets the highest one-time prekey id of the one before.
    WatermarkForgotten = "watermark-forgotten",
    /// A removed device leaves no highest one-time prekey id behind.
    RemovalForgetsWatermark = "removal-forgets-watermark",
    /// An upload that is sent again adds its keys again.
    UploadNotIdempotent = "upload-not-idempotent",
    /// The newest key of an upload is popped first.
    NewestFirst = "newest-first",
    /// A pop leaves the key in the pool.
    KeyStays = "key-stays",
    /// Pools are said to hold one key more than they do.
    CountOffByOne = "count-off-by-one",
    /// A signed prekey is acknowledged and not replaced.
    SignedPreKeyNotReplaced = "signed-prekey-not-replaced",
    /// Replicas do not agree on log time.
    ReplicasDisagree = "replicas-disagree",
    /// Votes are acknowledged before they are synced.
    VoteNotSynced = "vote-not-synced",
    /// Votes are not written at all.
    VoteNotSaved = "vote-not-saved",
    /// Entries are acknowledged before they are synced.
    AppendNotSynced = "append-not-synced",
    /// The log cuts off whatever follows damage, as if it were a torn tail.
    DamageTakenForTornTail = "damage-taken-for-torn-tail",
    /// Truncations of the log are not written.
    TruncationNotWritten = "truncation-not-written",
    /// A checkpoint does nothing, so the log is purged ahead of the state.
    PurgeTooEarly = "purge-too-early",
    /// What a node that starts calls a snapshot is not on disk.
    SnapshotNotDurable = "snapshot-not-durable",
    /// A log keeps entries that were never committed in the places of those in the state.
    LogKeepsItsPlace = "log-keeps-its-place",
    /// Records that were removed stay in the engine.
    RemovalsNotFlushed = "removals-not-flushed",
    /// A flush leaves one record out.
    FlushLosesRecord = "flush-loses-record",
    /// The cache keeps what a commit replaced.
    CacheOutOfDate = "cache-out-of-date",
    /// A new segment of the log is named before its header is synced.
    SegmentNamedTooEarly = "segment-named-too-early",
    /// A leader reads without asking whether it still leads.
    StaleRead = "stale-read",
    /// A leader confirms itself by acknowledgements from before it was asked.
    OldAcknowledgement = "old-acknowledgement",
    /// A leader takes some followers' word for entries that it has not sent.
    FalseQuorum = "false-quorum",
    /// The answers of an entry go to each other's callers.
    AnswersSwapped = "answers-swapped",
    /// Now and then a node asks a leader under another idempotency key than it was asked.
    RetryAsNewRequest = "retry-as-new-request",
    /// A write whose outcome is unknown is said to be refused.
    UnknownIsFailed = "unknown-is-failed",
    /// A node whose disk is empty votes under its old id.
    LostDiskVotes = "lost-disk-votes",
}

/// Whether this process has `bug`.
#[cfg(not(feature = "armed"))]
#[inline]
#[must_use]
pub const fn is(_bug: Bug) -> bool {
    false
}

/// Whether this process has `bug`.
#[cfg(feature = "armed")]
#[must_use]
pub fn is(bug: Bug) -> bool {
    use std::sync::OnceLock;

    static PLANTED: OnceLock<Option<Bug>> = OnceLock::new();
    let planted = PLANTED.get_or_init(|| {
        let name = std::env::var(VARIABLE).ok()?;
        Bug::ALL.iter().copied().find(|bug| bug.name() == name)
    });
    *planted == Some(bug)
}

/// Whether this process has `bug` and it is its turn, once in `every` calls.
#[must_use]
pub fn now_and_then(bug: Bug, every: u64) -> bool {
    use std::sync::atomic::{AtomicU64, Ordering};

    static CALLS: AtomicU64 = AtomicU64::new(0);
    is(bug) && CALLS.fetch_add(1, Ordering::Relaxed) % every == every - 1
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_are_unique_and_no_bug_is_planted_unless_asked_for() {
        let names: BTreeSet<_> = Bug::ALL.iter().map(|bug| bug.name()).collect();
        assert_eq!(names.len(), Bug::ALL.len());
        assert!(!Bug::ALL.iter().any(|bug| is(*bug)));
        assert!(Bug::ALL.len() >= 25);
    }
}
