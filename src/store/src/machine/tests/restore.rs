//! The steps of a restore, one by one. What comes of it, in random sequences: see `sequence`.

use oncekey_types::{BackupId, Epoch, RegistrationId, limits::RESTORE_PUT_MAX_BYTES};

use super::rules::{Shard, dispense, register};
use crate::{
    command::{Command, Follows, Restore, RestoreStep, RestoredRecord},
    outcome::{Malformed, Outcome, Refusal, Restored},
    snapshot::{Content, Reader, Writer},
};

const BACKUP: BackupId = BackupId([7; 16]);
const EPOCH: Epoch = Epoch(1_790_000_000_000);

fn step(step: RestoreStep) -> Command {
    Command::Restore(Restore { backup: BACKUP, epoch: EPOCH, step })
}

fn done(epoch: Epoch, is_done: bool) -> Outcome {
    Outcome::Restored(Restored { epoch, is_done })
}

fn refused(refusal: Refusal) -> Outcome {
    Outcome::Refused(refusal)
}

/// The records of a backup of `shard`.
fn backup(shard: &Shard) -> Vec<RestoredRecord> {
    let (mut writer, mut reader) = (Writer::of(Content::Backup), Reader::of(Content::Backup));
    let mut records = Vec::new();
    while let Some(chunk) = writer.next_chunk(&shard.state).unwrap() {
        let read = reader.push(&chunk).unwrap().into_iter();
        records.extend(read.map(|(key, value)| RestoredRecord { key, value }));
    }
    records
}

/// The registration anew of a device that is in the backup.
fn anew(mut command: Command) -> Command {
    let Command::Register(register) = &mut command else { panic!("{command:?}") };
    register.epoch = EPOCH;
    register.follows = Follows::Registration(RegistrationId(1));
    command
}

#[test]
fn a_restored_shard_has_the_devices_and_none_of_their_one_time_prekeys() {
    let mut old = Shard::new();
    old.apply(register(1, 1, &[1, 2, 3]));
    assert_eq!(old.fetch("alice", "a"), [1]);
    let mut new = Shard::new();
    assert_eq!(new.apply(step(RestoreStep::Begin)), done(EPOCH, false));
    assert_eq!(new.apply(step(RestoreStep::Put(backup(&old)))), done(EPOCH, false));
    assert_eq!(new.apply(step(RestoreStep::End)), done(EPOCH, true));

    assert_eq!(new.fetch("alice", "a"), [0], "the old answer is not given again either");
    let late = register(1, 2, &[4, 5]);
    let other = Refusal::OtherEpoch { given: Epoch::FIRST, current: EPOCH };
    assert_eq!(new.apply(late), refused(other), "the old cluster may have issued them");
    let Outcome::Registered(registered) = new.apply(anew(register(1, 3, &[6]))) else {
        panic!("not registered")
    };
    assert_eq!(registered.registration, RegistrationId(1_790_000_000));
    assert_eq!(new.fetch("alice", "b"), [6]);
}

#[test]
fn a_restore_begins_only_where_nothing_was_done() {
    let mut used = Shard::new();
    used.apply(dispense("alice", "a"));
    assert_eq!(used.apply(step(RestoreStep::Begin)), refused(Refusal::NotNew));
    let outcomes = Shard::new().batch(vec![register(1, 1, &[1]), step(RestoreStep::Begin)]);
    assert_eq!(outcomes[1], refused(Refusal::NotNew), "not behind another command either");
    for early in [RestoreStep::Put(Vec::new()), RestoreStep::End] {
        assert_eq!(Shard::new().apply(step(early)), refused(Refusal::NoRestore));
    }
    let first = Restore { backup: BACKUP, epoch: Epoch::FIRST, step: RestoreStep::Begin };
    assert_eq!(Shard::new().apply(Command::Restore(first)), refused(Refusal::NotNew));
}

#[test]
fn nothing_else_is_done_before_the_end() {
    let mut shard = Shard::new();
    shard.apply(step(RestoreStep::Begin));
    for command in [register(1, 1, &[1]), dispense("alice", "a")] {
        assert_eq!(shard.apply(command), refused(Refusal::BeingRestored));
    }
    shard.apply(step(RestoreStep::End));
    assert_eq!(shard.apply(dispense("alice", "a")), refused(Refusal::UnknownUser));
}

#[test]
fn a_restore_that_is_begun_again_goes_on_in_its_first_epoch() {
    let mut shard = Shard::new();
    shard.apply(step(RestoreStep::Begin));
    let again =
        |step| Command::Restore(Restore { backup: BACKUP, epoch: Epoch(EPOCH.0 + 1), step });
    assert_eq!(shard.apply(again(RestoreStep::Begin)), done(EPOCH, false));
    let other = Refusal::OtherEpoch { given: Epoch(EPOCH.0 + 1), current: EPOCH };
    assert_eq!(shard.apply(again(RestoreStep::End)), refused(other));
    shard.apply(step(RestoreStep::End));
    assert_eq!(shard.apply(again(RestoreStep::Begin)), done(EPOCH, true));
    assert_eq!(shard.apply(again(RestoreStep::End)), done(EPOCH, true));
}

#[test]
fn records_that_come_when_the_shard_is_open_change_nothing() {
    let mut old = Shard::new();
    old.apply(register(1, 1, &[1]));
    let mut shard = Shard::new();
    shard.apply(step(RestoreStep::Begin));
    shard.apply(step(RestoreStep::End));
    let before = shard.state.clone();
    assert_eq!(shard.apply(step(RestoreStep::Put(backup(&old)))), done(EPOCH, true));
    assert_eq!(shard.state, before);
}

#[test]
fn another_backup_is_refused_in_the_middle_and_afterwards() {
    let mut shard = Shard::new();
    shard.apply(step(RestoreStep::Begin));
    for end in [false, true] {
        if end {
            shard.apply(step(RestoreStep::End));
        }
        for step in [RestoreStep::Begin, RestoreStep::Put(Vec::new()), RestoreStep::End] {
            let other = Restore { backup: BackupId([8; 16]), epoch: EPOCH, step };
            assert_eq!(shard.apply(Command::Restore(other)), refused(Refusal::NotNew));
        }
    }
}

#[test]
fn a_record_that_no_backup_has_and_too_many_at_once_are_malformed() {
    let mut old = Shard::new();
    old.apply(register(1, 1, &[1]));
    let lot = old.state.records().find(|(key, _)| key[0] == 0x05).unwrap();
    let lot = RestoredRecord { key: lot.0.to_vec(), value: lot.1.to_vec() };
    let damaged = RestoredRecord { value: vec![9], ..backup(&old).remove(1) };
    let huge = RestoredRecord { key: vec![2], value: vec![0; RESTORE_PUT_MAX_BYTES] };
    for record in [lot, damaged, huge] {
        let mut shard = Shard::new();
        shard.apply(step(RestoreStep::Begin));
        let records = backup(&old).into_iter().chain([record]).collect();
        let malformed = Refusal::Malformed { what: Malformed::Records };
        assert_eq!(shard.apply(step(RestoreStep::Put(records))), refused(malformed));
    }
}
