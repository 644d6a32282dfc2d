//! Malformed commands, and what happens at the limits.

use oncekey_types::{
    LogIndex, TimestampMs, UserId,
    limits::{DEVICE_LIST_MAX_BYTES, PUBLIC_KEY_MAX_BYTES, UPLOAD_MAX},
};

use super::{
    invariants,
    rules::{Shard, dispense, register},
};
use crate::{
    command::*,
    generate,
    machine::{Bounds, apply_within},
    outcome::{Malformed, Outcome, Refusal},
    record::{account::AccountKey, meta::MetaKey},
};

fn malformed(what: Malformed) -> Outcome {
    Outcome::Refused(Refusal::Malformed { what })
}

fn registration() -> Register {
    let Command::Register(register) = register(1, 1, &[1]) else { unreachable!() };
    register
}

#[test]
fn a_key_that_is_empty_or_too_long_is_malformed_wherever_it_stands() {
    let fields: [fn(&mut Register) -> &mut KeyBytes; 7] = [
        |command| &mut command.identity_key.key,
        |command| &mut command.authentication_key,
        |command| &mut command.authentication_signature,
        |command| &mut command.signed_prekey.key,
        |command| &mut command.signed_prekey.signature,
        |command| &mut command.one_time_prekeys[0].key,
        |command| &mut command.one_time_prekeys[0].signature,
    ];
    for (place, field) in fields.into_iter().enumerate() {
        for len in [0, PUBLIC_KEY_MAX_BYTES + 1] {
            let mut command = registration();
            *field(&mut command) = KeyBytes(vec![1; len]);
            let outcome = Shard::new().apply(Command::Register(command));
            assert_eq!(outcome, malformed(Malformed::Key), "field {place}, {len} bytes");
        }
    }
}

#[test]
fn too_many_keys_or_too_long_a_list_is_malformed() {
    let ids: Vec<u32> = (1..=UPLOAD_MAX as u32 + 1).collect();
    let outcome = Shard::new().apply(register(1, 1, &ids));
    assert_eq!(outcome, malformed(Malformed::OneTimePreKeys));
    let list = DeviceList {
        account_key: KeyBytes(vec![1; 32]),
        seq: oncekey_types::Seq(1),
        prev_hash: [0; 32],
        hash: [1; 32],
        bytes: vec![0; DEVICE_LIST_MAX_BYTES + 1],
        signature: KeyBytes(vec![1; 64]),
    };
    let command = Register { device_list: Some(list), ..registration() };
    let outcome = Shard::new().apply(Command::Register(command));
    assert_eq!(outcome, malformed(Malformed::DeviceList));
}

#[test]
fn a_full_upload_fits_and_comes_out_in_order() {
    let mut shard = Shard::new();
    let ids: Vec<u32> = (1..=UPLOAD_MAX as u32).collect();
    shard.apply(register(1, 1, &ids));
    for id in ids {
        assert_eq!(shard.fetch("alice", &format!("r{id}")), [id]);
    }
    assert_eq!(shard.fetch("alice", "last"), [0]);
}

#[test]
fn beyond_the_limit_the_bucket_that_is_full_soonest_is_dropped() {
    let bounds = Bounds { callers: 2, ..Bounds::STANDARD };
    let policy = Policy {
        per_caller: BucketPolicy { capacity: 1, refill_ms: 1_000 },
        per_target: BucketPolicy { capacity: 9, refill_ms: 1_000 },
        ..Policy::default()
    };
    let mut state = Shard::new().state;
    let mut commands = vec![register(1, 1, &[1, 2, 3, 4, 5])];
    // The buckets of two callers fit, that of the third one does not. All are full at the same
    // time, then the first.
    for (caller, request) in [("a", "1"), ("b", "1"), ("c", "1"), ("a", "2"), ("c", "2")] {
        commands.push(dispense(caller, request));
    }
    let batch = Batch { time: TimestampMs(1), policy, commands };
    let applied = apply_within(&state, LogIndex(1), &batch, &bounds).unwrap();
    state.commit(applied.changes);
    let user = UserId::new("bob").unwrap();
    let account = invariants::read(&state, &AccountKey(&user)).unwrap();
    assert_eq!(account.callers.iter().count(), 2);
    let withheld = applied.outcomes.iter().map(|outcome| format!("{outcome:?}"));
    let withheld: Vec<bool> = withheld.map(|outcome| outcome.contains("Withheld")).collect();
    // `a` was dropped for `c`, so that `a` has a full bucket again; `c` is still there, and empty.
    assert_eq!(withheld, [false, false, false, false, false, true]);
}

#[test]
fn what_has_expired_is_forgotten_by_batches_without_commands() {
    let mut shard = Shard::new();
    shard.policy = Policy::default();
    shard.apply(register(1, 1, &(1..=50).collect::<Vec<u32>>()));
    for n in 0..20 {
        shard.fetch(&format!("caller-{n}"), "r");
    }
    let retries = |shard: &Shard| invariants::read(&shard.state, &MetaKey).unwrap().retries.len;
    assert_eq!(retries(&shard), 20);
    shard.time += 100 * 60 * 1_000;
    let time = TimestampMs(shard.time);
    for _ in 0..6 {
        let batch = Batch { time, policy: shard.policy, commands: Vec::new() };
        let applied = crate::apply(&shard.state, LogIndex(99), &batch).unwrap();
        shard.state.commit(applied.changes);
    }
    assert_eq!(retries(&shard), 0);
}

#[test]
fn the_same_user_bytes_in_another_shape_are_another_user() {
    let mut shard = Shard::new();
    shard.apply(register(1, 1, &[1]));
    let Command::Register(mut other) = register(1, 1, &[1]) else { unreachable!() };
    other.user = UserId::new("bo").unwrap();
    other.one_time_prekeys = generate::keys(&[1]);
    assert!(matches!(shard.apply(Command::Register(other)), Outcome::Registered(_)));
    assert_eq!(shard.fetch("alice", "a"), [1]);
}
