//! Single rules, each with its reason in its name, in sequences short enough to read.

use oncekey_types::{
    CallerId, DeviceId, Epoch, LogIndex, OneTimePreKeyId, RegistrationId, RequestId, Seq,
    TimestampMs, UserId,
};

use super::invariants;
use crate::{
    apply,
    command::*,
    generate::{keys, signed_prekey},
    outcome::*,
    query::{self, Answer, Query},
    record::account::AccountKey,
    state::MemoryState,
};

/// A shard with one user, bob, whose devices register themselves.
pub(super) struct Shard {
    pub(super) state: MemoryState,
    pub(super) time: u64,
    pub(super) policy: Policy,
    index: u64,
}

impl Shard {
    pub(super) fn new() -> Self {
        let off = BucketPolicy { capacity: 0, refill_ms: 0 };
        let policy = Policy { per_caller: off, per_target: off, ..Policy::default() };
        Self { state: MemoryState::default(), time: 1_000, policy, index: 0 }
    }

    pub(super) fn apply(&mut self, command: Command) -> Outcome {
        self.batch(vec![command]).remove(0)
    }

    pub(super) fn batch(&mut self, commands: Vec<Command>) -> Vec<Outcome> {
        self.index += 1;
        let batch = Batch { time: TimestampMs(self.time), policy: self.policy, commands };
        let applied = apply(&self.state, LogIndex(self.index), &batch).unwrap();
        self.state.commit(applied.changes);
        applied.outcomes
    }

    /// Registers a device, for the first time or in the place of its current registration.
    fn register(&mut self, device: u32, seq: u64, ids: &[u32]) -> Outcome {
        let mut command = register(device, seq, ids);
        if let Command::Register(command) = &mut command {
            command.follows = self.registration(device).into();
        }
        self.apply(command)
    }

    fn registration(&self, device: u32) -> Option<RegistrationId> {
        let query = Query::Status { user: user(), device: DeviceId(device) };
        match query::answer(&self.state, &query).unwrap() {
            Answer::Status(status) => status.map(|status| status.registration),
            other => panic!("not a status: {other:?}"),
        }
    }

    /// Ids that a request was given, one for each device; zero for none.
    pub(super) fn fetch(&mut self, caller: &str, request: &str) -> Vec<u32> {
        issued(&self.apply(dispense(caller, request)))
    }
}

fn user() -> UserId {
    UserId::new("bob").unwrap()
}

fn tag(seq: u64, digest: u8) -> WriteTag {
    WriteTag { seq: Seq(seq), digest: [digest; 32] }
}

pub(super) fn register(device: u32, seq: u64, ids: &[u32]) -> Command {
    let key = KeyBytes(vec![device as u8; 32]);
    Command::Register(Register {
        user: user(),
        device: DeviceId(device),
        tag: tag(seq, seq as u8),
        follows: Follows::Nothing,
        identity_key: IdentityKey { kind: 1, key: key.clone() },
        authentication_key: key.clone(),
        authentication_signature: key,
        signed_prekey: signed_prekey(1),
        one_time_prekeys: keys(ids),
        device_list: None,
        epoch: Epoch::FIRST,
    })
}

fn add(seq: u64, digest: u8, ids: &[u32]) -> Command {
    add_to(1, seq, digest, ids)
}

fn add_to(registration: u32, seq: u64, digest: u8, ids: &[u32]) -> Command {
    Command::AddOneTimePreKeys(AddOneTimePreKeys {
        user: user(),
        device: DeviceId(1),
        tag: tag(seq, digest),
        registration: RegistrationId(registration),
        one_time_prekeys: keys(ids),
        epoch: Epoch::FIRST,
    })
}

fn replace(seq: u64, digest: u8, id: u32) -> Command {
    Command::ReplaceSignedPreKey(ReplaceSignedPreKey {
        user: user(),
        device: DeviceId(1),
        tag: tag(seq, digest),
        registration: RegistrationId(1),
        signed_prekey: signed_prekey(id),
        epoch: Epoch::FIRST,
    })
}

fn remove(device: u32) -> Command {
    Command::RemoveDevice(RemoveDevice {
        user: user(),
        device: DeviceId(device),
        seq: None,
        registration: None,
    })
}

pub(super) fn dispense(caller: &str, request: &str) -> Command {
    Command::Dispense(Dispense {
        user: user(),
        devices: None,
        caller: CallerId::new(caller).unwrap(),
        request: RequestId::new(request).unwrap(),
        require_one_time_prekey: false,
    })
}

fn issued(outcome: &Outcome) -> Vec<u32> {
    let Outcome::Dispensed(dispensed) = outcome else { panic!("not dispensed: {outcome:?}") };
    let ids = dispensed.bundles.iter().map(|bundle| match &bundle.one_time_prekey {
        Issue::Issued(key) => key.id.0,
        Issue::Exhausted | Issue::Withheld => 0,
    });
    ids.collect()
}

fn not_growing(conflicts: &[u32], highest: u32) -> Outcome {
    let conflicts = conflicts.iter().copied().map(OneTimePreKeyId).collect();
    let highest = OneTimePreKeyId(highest);
    Outcome::Refused(Refusal::OneTimePreKeyIdsNotGrowing { conflicts, highest })
}

#[test]
fn a_retry_gets_the_same_key_and_the_original_index() {
    let mut shard = Shard::new();
    shard.register(1, 1, &[1, 2]);
    let first = shard.apply(dispense("alice", "a"));
    let again = shard.apply(dispense("alice", "a"));
    let (Outcome::Dispensed(first), Outcome::Dispensed(again)) = (first, again) else { panic!() };
    assert_eq!(first.index, LogIndex(2));
    assert_eq!(again, Dispensed { repeated: true, ..first });
    assert_eq!(shard.fetch("carol", "a"), [2], "the id is unique within the caller only");
}

#[test]
fn a_retry_in_the_same_batch_gets_the_same_key() {
    let mut shard = Shard::new();
    let commands = vec![register(1, 1, &[1, 2]), dispense("alice", "a"), dispense("alice", "a")];
    let outcomes = shard.batch(commands);
    assert_eq!((issued(&outcomes[1]), issued(&outcomes[2])), (vec![1], vec![1]));
}

#[test]
fn an_idempotency_key_counts_as_new_once_its_time_is_up() {
    let mut shard = Shard::new();
    shard.register(1, 1, &[1, 2, 3]);
    assert_eq!(shard.fetch("alice", "a"), [1]);
    shard.time += shard.policy.retry_window_ms - 1;
    assert_eq!(shard.fetch("alice", "a"), [1]);
    shard.time += 1;
    assert_eq!(shard.fetch("alice", "a"), [2]);
}

#[test]
fn a_clock_that_jumps_back_does_not_turn_log_time_back() {
    let mut shard = Shard::new();
    shard.register(1, 1, &[1, 2]);
    shard.fetch("alice", "a");
    shard.time += shard.policy.retry_window_ms;
    shard.apply(remove(9));
    shard.time = 0;
    assert_eq!(shard.fetch("alice", "a"), [2]);
}

#[test]
fn an_issued_key_cannot_come_back_with_a_new_registration() {
    let mut shard = Shard::new();
    shard.register(1, 1, &[5, 6]);
    assert_eq!(shard.fetch("alice", "a"), [5]);
    assert_eq!(shard.register(1, 2, &[5, 6, 7]), not_growing(&[5, 6], 6));
    assert!(matches!(shard.register(1, 3, &[]), Outcome::Registered(_)));
    assert_eq!(shard.apply(add_to(2, 4, 4, &[5])), not_growing(&[5], 6));
}

#[test]
fn an_issued_key_cannot_come_back_after_its_device_was_removed() {
    let mut shard = Shard::new();
    shard.register(1, 1, &[5, 6]);
    assert_eq!(shard.fetch("alice", "a"), [5]);
    assert_eq!(shard.apply(remove(1)), Outcome::DeviceRemoved);
    assert_eq!(shard.apply(dispense("alice", "b")), Outcome::Refused(Refusal::UnknownUser));
    assert_eq!(shard.register(1, 1, &[5, 6]), not_growing(&[5, 6], 6));
    let Outcome::Registered(registered) = shard.register(1, 1, &[7]) else { panic!() };
    assert_eq!(registered.registration, RegistrationId(2));
}

#[test]
fn a_late_re_send_of_the_registration_does_not_replace_what_came_since() {
    let mut shard = Shard::new();
    let first = shard.register(1, 1, &[1]);
    shard.apply(add(2, 2, &[2]));
    assert_eq!(shard.register(1, 1, &[1]), first);
    assert_eq!((shard.fetch("alice", "a"), shard.fetch("alice", "b")), (vec![1], vec![2]));
}

#[test]
fn a_late_duplicate_of_an_older_registration_does_not_replace_a_newer_one() {
    let mut shard = Shard::new();
    // Without one-time prekeys, whose ids would tell it.
    shard.register(1, 1, &[]);
    let newer = shard.register(1, 2, &[1]);
    let current = Some(RegistrationId(2));
    let late = Outcome::Refused(Refusal::DoesNotFollow { current });
    assert_eq!(shard.apply(register(1, 1, &[])), late);
    assert_eq!(shard.registration(1), current);
    assert_eq!(shard.register(1, 2, &[1]), newer, "of the newer one it is a re-send");
    shard.apply(remove(1));
    let mut follows_nothing = register(1, 3, &[2]);
    if let Command::Register(command) = &mut follows_nothing {
        command.follows = current.into();
    }
    let gone = Outcome::Refused(Refusal::DoesNotFollow { current: None });
    assert_eq!(shard.apply(follows_nothing), gone);
}

#[test]
fn a_registration_of_a_log_in_which_none_said_what_it_follows_replaces_the_one_before() {
    let mut shard = Shard::new();
    shard.register(1, 1, &[1]);
    let mut unsaid = register(1, 2, &[2]);
    if let Command::Register(command) = &mut unsaid {
        command.follows = Follows::Unsaid;
    }
    assert!(matches!(shard.apply(unsaid), Outcome::Registered(_)));
    assert_eq!(shard.registration(1), Some(RegistrationId(2)));
}

#[test]
fn a_removal_asked_for_by_an_earlier_registration_is_refused() {
    let mut shard = Shard::new();
    shard.register(1, 1, &[]);
    shard.register(1, 2, &[]);
    let remove = |number| {
        Command::RemoveDevice(RemoveDevice {
            user: user(),
            device: DeviceId(1),
            seq: Some(Seq(9)),
            registration: Some(RegistrationId(number)),
        })
    };
    let other = Outcome::Refused(Refusal::OtherRegistration { current: RegistrationId(2) });
    assert_eq!(shard.apply(remove(1)), other);
    assert_eq!(shard.apply(remove(2)), Outcome::DeviceRemoved);
}

#[test]
fn the_last_upload_sent_again_under_any_seq_adds_nothing() {
    let mut shard = Shard::new();
    shard.register(1, 1, &[]);
    let first = shard.apply(add(2, 2, &[1, 2]));
    assert_eq!(shard.fetch("alice", "a"), [1]);
    shard.apply(replace(3, 3, 2));
    for seq in [1, 2, 3, 9] {
        assert_eq!(shard.apply(add(seq, 7, &[1, 2])), first, "seq {seq}");
    }
    assert_eq!((shard.fetch("alice", "b"), shard.fetch("alice", "c")), (vec![2], vec![0]));
}

#[test]
fn a_seq_that_was_used_for_another_write_is_stale() {
    let mut shard = Shard::new();
    shard.register(1, 4, &[1]);
    let stale = |given| Outcome::Refused(Refusal::StaleSeq { given: Seq(given), last: Seq(5) });
    let replaced = shard.apply(replace(5, 5, 2));
    assert_eq!(shard.apply(replace(5, 5, 2)), replaced);
    assert_eq!(shard.apply(replace(5, 6, 3)), stale(5));
    assert_eq!(shard.apply(add(4, 4, &[2])), stale(4));
}

#[test]
fn a_write_signed_for_an_earlier_registration_is_refused() {
    let mut shard = Shard::new();
    shard.register(1, 1, &[1]);
    shard.register(1, 3, &[2]);
    let other = Outcome::Refused(Refusal::OtherRegistration { current: RegistrationId(2) });
    assert_eq!(shard.apply(add(9, 9, &[7])), other);
    assert_eq!(shard.apply(replace(9, 9, 7)), other);
    assert!(matches!(shard.apply(add_to(2, 9, 9, &[7])), Outcome::OneTimePreKeysAdded(_)));
}

#[test]
fn a_removal_with_a_seq_that_was_used_is_stale() {
    let mut shard = Shard::new();
    shard.register(1, 4, &[1]);
    let remove = |seq| {
        Command::RemoveDevice(RemoveDevice {
            user: user(),
            device: DeviceId(1),
            seq: Some(Seq(seq)),
            registration: None,
        })
    };
    let stale = Refusal::StaleSeq { given: Seq(4), last: Seq(4) };
    assert_eq!(shard.apply(remove(4)), Outcome::Refused(stale));
    assert_eq!(shard.apply(remove(5)), Outcome::DeviceRemoved);
}

#[test]
fn a_fetch_over_the_limit_is_served_without_a_key() {
    let mut shard = Shard::new();
    shard.policy.per_caller = BucketPolicy { capacity: 2, refill_ms: 100 };
    shard.register(1, 1, &[1, 2, 3, 4]);
    assert_eq!((shard.fetch("alice", "a"), shard.fetch("alice", "b")), (vec![1], vec![2]));
    assert_eq!(shard.fetch("alice", "c"), [0]);
    assert_eq!(shard.fetch("carol", "a"), [3], "another caller has its own bucket");
    shard.time += 100;
    assert_eq!(shard.fetch("alice", "c"), [0], "a retry has the answer of the first time");
    assert_eq!(shard.fetch("alice", "d"), [4], "one token came back");
}

#[test]
fn a_bucket_is_kept_until_it_is_full_and_leaves_with_the_next_fetch() {
    let mut shard = Shard::new();
    shard.policy.per_caller = BucketPolicy { capacity: 2, refill_ms: 100 };
    shard.register(1, 1, &[1, 2, 3, 4, 5]);
    for request in ["a", "b"] {
        shard.fetch("alice", request);
    }
    for (after_ms, caller, buckets) in [(0, "carol", 2), (199, "dave", 2), (1, "dave", 1)] {
        shard.time += after_ms;
        shard.fetch(caller, &format!("at-{}", shard.time));
        let account = invariants::read(&shard.state, &AccountKey(&user())).unwrap();
        let kept = account.callers.iter().count();
        assert_eq!(kept, buckets, "at {}: {:?}", shard.time, account.callers);
    }
}

#[test]
fn a_fetch_from_empty_pools_takes_no_token() {
    let mut shard = Shard::new();
    shard.policy.per_target = BucketPolicy { capacity: 1, refill_ms: 1_000 };
    shard.register(1, 1, &[]);
    assert_eq!((shard.fetch("alice", "a"), shard.fetch("alice", "b")), (vec![0], vec![0]));
    shard.apply(add(2, 2, &[1]));
    assert_eq!(shard.fetch("alice", "c"), [1]);
}

#[test]
fn a_required_key_that_one_device_lacks_pops_none_of_the_others() {
    let mut shard = Shard::new();
    shard.register(1, 1, &[1]);
    shard.register(2, 1, &[]);
    let Command::Dispense(mut required) = dispense("alice", "a") else { unreachable!() };
    required.require_one_time_prekey = true;
    let refusal = Refusal::OneTimePreKeyRequired { device: DeviceId(2), withheld: false };
    assert_eq!(shard.apply(Command::Dispense(required)), Outcome::Refused(refusal));
    assert_eq!(shard.fetch("alice", "a"), [1, 0], "a refusal is not remembered either");
}
