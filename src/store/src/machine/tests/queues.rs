//! What a pop costs in records, and how what has expired is forgotten.

use std::cell::Cell;

use oncekey_types::{LogIndex, TimestampMs, UserId};

use super::{
    invariants,
    rules::{Shard, dispense, register},
};
use crate::{
    apply,
    command::*,
    machine::{Bounds, apply_within},
    outcome::{Issue, Outcome},
    record::{Kind, meta::MetaKey, queue::Queue},
    state::{MemoryState, ReadFault, StateRead},
};

const MINUTE_MS: u64 = 60 * 1_000;

/// Counts what is read.
struct Counted<'a> {
    state: &'a MemoryState,
    reads: Cell<usize>,
}

impl StateRead for Counted<'_> {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, ReadFault> {
        self.reads.set(self.reads.get() + 1);
        self.state.get(key)
    }
}

fn of_user(number: u32, mut command: Command) -> Command {
    let user = UserId::new(format!("user-{number}")).unwrap();
    match &mut command {
        Command::Register(command) => command.user = user,
        Command::Dispense(command) => command.user = user,
        _ => unreachable!(),
    }
    command
}

/// A shard with limits, in which every user of `users` has a device.
fn shard(users: u32) -> Shard {
    let mut shard = Shard::new();
    shard.policy = Policy::default();
    let keys: Vec<u32> = (1..=20).collect();
    shard.batch((0..users).map(|user| of_user(user, register(1, 1, &keys))).collect());
    shard
}

fn pops(users: u32, request: &str) -> Vec<Command> {
    (0..users).map(|user| of_user(user, dispense("alice", &format!("{user}-{request}")))).collect()
}

fn queue(shard: &Shard) -> Queue {
    invariants::read(&shard.state, &MetaKey).unwrap().retries
}

fn is_issued(outcome: &Outcome) -> bool {
    let Outcome::Dispensed(dispensed) = outcome else { panic!("not dispensed: {outcome:?}") };
    dispensed.bundles.iter().all(|bundle| matches!(bundle.one_time_prekey, Issue::Issued(_)))
}

#[test]
fn a_pop_reads_four_records_and_writes_two_and_a_batch_adds_one_and_two() {
    let mut shard = shard(64);
    for pops_of_batch in [1, 64] {
        let commands = pops(pops_of_batch, &format!("of-{pops_of_batch}"));
        let time = TimestampMs(shard.time);
        let batch = Batch { time, policy: shard.policy, commands };
        let counted = Counted { state: &shard.state, reads: Cell::new(0) };
        let applied = apply(&counted, LogIndex(9), &batch).unwrap();
        assert!(applied.outcomes.iter().all(is_issued));
        let pops = pops_of_batch as usize;
        assert_eq!(counted.reads.get(), 4 * pops + 1, "reads of {pops} pops");
        let kinds: Vec<_> = applied.changes.0.iter().map(|(key, _)| Kind::of(key)).collect();
        let of_kind = |kind| kinds.iter().filter(|found| **found == Some(kind)).count();
        let pop_kinds = [Kind::Retry, Kind::Account];
        assert_eq!(pop_kinds.map(of_kind), [pops; 2]);
        assert_eq!((of_kind(Kind::Queue), of_kind(Kind::Meta)), (1, 1));
        assert_eq!(kinds.len(), 2 * pops + 2, "{kinds:?}");
        shard.state.commit(applied.changes);
    }
}

#[test]
fn a_lot_is_forgotten_in_steps_as_far_as_the_commands_of_each_batch_go() {
    let mut shard = shard(10);
    shard.batch(pops(10, "a"));
    assert_eq!(queue(&shard).len, 10);
    assert_eq!(queue(&shard).tail, 1, "one lot");
    shard.time += 10 * MINUTE_MS - 1;
    shard.batch(Vec::new());
    assert_eq!(queue(&shard).len, 10, "nothing is due");
    shard.time += 1;
    for left in [6, 2, 0, 0] {
        shard.batch(Vec::new());
        assert_eq!(queue(&shard).len, left);
    }
    let kinds: Vec<_> = shard.state.records().filter_map(|(key, _)| Kind::of(key)).collect();
    for kind in [Kind::Retry, Kind::Queue] {
        assert!(!kinds.contains(&kind), "a {kind} record is left");
    }
}

#[test]
fn a_lot_of_another_batch_comes_due_behind_the_one_before() {
    let mut shard = shard(6);
    shard.batch(pops(3, "a"));
    shard.time += MINUTE_MS;
    shard.batch(pops(6, "b").split_off(3));
    let first = queue(&shard);
    assert_eq!((first.len, first.tail), (6, 2));
    shard.time += 9 * MINUTE_MS;
    shard.batch(Vec::new());
    let second = queue(&shard);
    assert_eq!((second.len, second.head), (3, 1), "the second lot has a minute left");
    assert_eq!(second.due.since(first.due).as_millis(), u128::from(MINUTE_MS));
}

#[test]
fn a_shard_that_may_keep_nothing_queues_nothing() {
    let mut shard = shard(4);
    let bounds = Bounds { retries: 0, callers: 0, ..Bounds::STANDARD };
    let time = TimestampMs(shard.time);
    let batch = Batch { time, policy: shard.policy, commands: pops(4, "a") };
    let applied = apply_within(&shard.state, LogIndex(9), &batch, &bounds).unwrap();
    shard.state.commit(applied.changes);
    let queue = queue(&shard);
    assert_eq!((queue.len, queue.tail - queue.head), (0, 0), "{queue:?}");
    let kinds: Vec<_> = shard.state.records().filter_map(|(key, _)| Kind::of(key)).collect();
    for kind in [Kind::Retry, Kind::Queue] {
        assert!(!kinds.contains(&kind), "a {kind} record is left");
    }
}

#[test]
fn a_key_that_is_used_anew_is_not_forgotten_with_its_earlier_use() {
    let mut shard = shard(12);
    shard.batch(pops(12, "a"));
    shard.time += 10 * MINUTE_MS;
    // The last one's time is up, but its entry is not reached by the steps of one command.
    let last = pops(12, "a").remove(11);
    let [first, again] = [0, 1].map(|_| shard.batch(vec![last.clone()]).remove(0));
    for _ in 0..4 {
        shard.batch(Vec::new());
    }
    assert_eq!(queue(&shard).len, 1);
    let late = shard.batch(vec![last]).remove(0);
    let Outcome::Dispensed(first) = first else { panic!("not dispensed: {first:?}") };
    assert!(!first.repeated);
    for outcome in [again, late] {
        let Outcome::Dispensed(outcome) = outcome else { panic!("not dispensed: {outcome:?}") };
        assert_eq!(outcome.bundles, first.bundles);
        assert!(outcome.repeated);
    }
}

#[test]
fn an_answer_that_is_kept_for_no_time_leaves_nothing_behind() {
    let mut shard = shard(1);
    shard.policy.retry_window_ms = 0;
    let mut twice = pops(1, "a");
    twice.extend(pops(1, "a"));
    let outcomes = shard.batch(twice);
    assert_ne!(outcomes[0], outcomes[1], "the second one is a new request");
    assert_eq!(queue(&shard).len, 0);
    assert!(!shard.state.records().any(|(key, _)| Kind::of(key) == Some(Kind::Retry)));
}
