//! What a node counts about its shards while it works.
//!
//! Guarantees: counting takes no lock and draws no line: nothing here names a user, a device or a
//! caller, and the number of counters follows from the number of shards. What a fetch brought is
//! counted once in the cluster: by the leader that proposed it, when it applies it.
//!
//! Leaves out: fetches whose leader changed before they were applied, which nobody counts; pools
//! that nobody fetches from. [`NodeMeasures::pool_sizes`] and
//! [`signed_prekey_ages`](NodeMeasures::signed_prekey_ages) are what fetches met, so a pool counts
//! as often as it is asked for. That is what senders feel, it costs two additions for each bundle,
//! and no walk over millions of records competes with them.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use oncekey_storage::measure::{Counter, Histogram, MICROSECONDS};
use oncekey_store::{
    Met,
    outcome::{Issue, Outcome},
};
use tokio::time::Instant;

/// Bounds of [`NodeMeasures::pool_sizes`].
pub const POOL_SIZES: &[u64] = &[0, 1, 5, 10, 20, 50, 100, 200, 500, 1_000];
const DAY_S: u64 = 24 * 60 * 60;
/// Bounds of [`NodeMeasures::signed_prekey_ages`], in seconds.
const SIGNED_PREKEY_AGES: &[u64] = &[
    DAY_S,
    2 * DAY_S,
    7 * DAY_S,
    8 * DAY_S,
    10 * DAY_S,
    14 * DAY_S,
    21 * DAY_S,
    30 * DAY_S,
    60 * DAY_S,
    90 * DAY_S,
];
const ENTRY_COMMANDS: &[u64] = &[1, 2, 4, 8, 16, 32, 64, 128, 256, 512];

/// What is counted for all shards of a node together.
#[derive(Debug)]
pub struct NodeMeasures {
    /// One-time prekeys left in a pool, by what fetches met.
    pub pool_sizes: Histogram,
    /// Seconds since a signed prekey was made, by what fetches met.
    pub signed_prekey_ages: Histogram,
    /// Bundles handed out whose signed prekey was past its time.
    pub signed_prekeys_expired: Counter,
    /// Commands in an entry that this node proposed.
    pub entry_commands: Histogram,
    /// Microseconds to apply an entry, as leader or not.
    pub apply: Histogram,
}

impl NodeMeasures {
    pub(crate) fn new() -> Self {
        Self {
            pool_sizes: Histogram::new(POOL_SIZES),
            signed_prekey_ages: Histogram::new(SIGNED_PREKEY_AGES),
            signed_prekeys_expired: Counter::default(),
            entry_commands: Histogram::new(ENTRY_COMMANDS),
            apply: Histogram::of_durations(),
        }
    }
}

/// What is counted for one shard.
#[derive(Debug)]
pub struct ShardMeasures {
    /// Bundles with a one-time prekey.
    pub issued: Counter,
    /// Bundles without, because the pool was empty.
    pub exhausted: Counter,
    /// Bundles without, because of a limit.
    pub withheld: Counter,
    /// Fetches that came again and were answered as before.
    pub repeated: Counter,
    /// Elections that this node stood for.
    pub elections: Counter,
    /// Microseconds from proposing an entry until this node knew that a quorum has it.
    pub commit: Histogram,
    /// Of the entry that is on its way.
    pub(crate) passage: Passage,
    pub(crate) node: Arc<NodeMeasures>,
}

impl ShardMeasures {
    pub(crate) fn new(node: Arc<NodeMeasures>) -> Self {
        Self {
            issued: Counter::default(),
            exhausted: Counter::default(),
            withheld: Counter::default(),
            repeated: Counter::default(),
            elections: Counter::default(),
            // From 256 µs: below a sync there is nothing to tell apart, and these are per shard.
            commit: Histogram::new(MICROSECONDS.split_at(4).1),
            passage: Passage::new(),
            node,
        }
    }

    /// Notes that a quorum has the entry that this node proposed.
    pub(crate) fn committed(&self, at: Instant) {
        let [proposed, ..] = self.passage.stations();
        self.commit.note_duration(at.saturating_duration_since(proposed));
        self.passage.committed(at);
    }

    /// Counts what an entry that this node proposed has brought.
    pub(crate) fn applied(&self, outcomes: &[Outcome], met: &[Met]) {
        self.node.entry_commands.note(u64::try_from(outcomes.len()).unwrap_or(u64::MAX));
        for met in met {
            self.node.pool_sizes.note(met.left.into());
            self.node.signed_prekey_ages.note(met.signed_prekey_age_s);
            if met.signed_prekey_expired {
                self.node.signed_prekeys_expired.one();
            }
        }
        for outcome in outcomes {
            let Outcome::Dispensed(dispensed) = outcome else { continue };
            if dispensed.repeated {
                self.repeated.one();
                continue;
            }
            for bundle in &dispensed.bundles {
                match bundle.one_time_prekey {
                    Issue::Issued(_) => self.issued.one(),
                    Issue::Exhausted => self.exhausted.one(),
                    Issue::Withheld => self.withheld.one(),
                }
            }
        }
    }
}

/// The stations of the one entry of a shard that its batcher has on its way. Written by whoever
/// passes a station, read by the batcher when the outcomes are there.
#[derive(Debug)]
pub(crate) struct Passage {
    base: Instant,
    proposed: AtomicU64,
    committed: AtomicU64,
    applied: AtomicU64,
}

impl Passage {
    fn new() -> Self {
        let at = || AtomicU64::new(0);
        Self { base: Instant::now(), proposed: at(), committed: at(), applied: at() }
    }

    pub(crate) fn proposed(&self, at: Instant) {
        self.set(&self.proposed, at);
    }

    pub(crate) fn committed(&self, at: Instant) {
        self.set(&self.committed, at);
    }

    pub(crate) fn applied(&self, at: Instant) {
        self.set(&self.applied, at);
    }

    /// When the entry was proposed, committed and applied.
    pub(crate) fn stations(&self) -> [Instant; 3] {
        [&self.proposed, &self.committed, &self.applied].map(|station| {
            self.base + std::time::Duration::from_nanos(station.load(Ordering::Relaxed))
        })
    }

    fn set(&self, station: &AtomicU64, at: Instant) {
        let since = at.saturating_duration_since(self.base).as_nanos();
        station.store(u64::try_from(since).unwrap_or(u64::MAX), Ordering::Relaxed);
    }
}
