//! Random sequences of batches: every outcome and every answer is the model's, every invariant
//! holds after every batch, and a state that goes through snapshots is the same as one that does
//! not.

use std::{cell::RefCell, collections::BTreeMap};

use oncekey_types::{
    BackupId, CallerId, DeviceId, Epoch, LogIndex, RegistrationId, RequestId, Seq, SignedPreKeyId,
    TimestampMs, UnixSeconds, UserId,
};
use proptest::{collection::vec, option, prelude::*, test_runner::TestRunner};

use super::{
    invariants::{self, History},
    model::Model,
};
use crate::{
    codec::entry,
    command::*,
    generate,
    machine::{Bounds, apply_within},
    outcome::{Outcome, Restored},
    query::{self, Query},
    snapshot::{self, Content, state_digest},
    state::MemoryState,
};

/// Small, so that a short sequence runs into every one of them.
const BOUNDS: Bounds =
    Bounds { devices_per_user: 2, pool: 12, lot_keys: 3, retries: 6, callers: 1000 };

const USERS: [&str; 2] = ["ann", "bob"];
const DEVICES: u32 = 3;
const BASE_MS: i64 = 1_000_000;

#[derive(Clone, Debug)]
enum Step {
    /// A log entry; its clock is off the last one's by so many milliseconds.
    Batch { clock_ms: i64, policy: usize, acts: Vec<Act> },
    /// The state is carried to another node.
    Snapshot,
    /// A backup is taken.
    Backup,
    /// The cluster is lost and another one made from the last backup.
    Restore,
}

/// A command, as far as it does not depend on what came before.
#[derive(Clone, Debug)]
enum Act {
    Register {
        owner: (usize, u32),
        seq: u64,
        follows: After,
        keys: Keys,
        list: Option<List>,
    },
    Replace {
        owner: (usize, u32),
        seq: Seqs,
        id_step: u32,
    },
    Add {
        owner: (usize, u32),
        seq: Seqs,
        keys: Keys,
    },
    Remove {
        owner: (usize, u32),
    },
    PutList {
        user: usize,
        list: List,
    },
    Dispense {
        user: usize,
        devices: Option<Vec<u32>>,
        caller: u8,
        request: u8,
        require: bool,
    },
    /// An earlier command again; a write of a device under a new tag, if asked.
    Again {
        back: usize,
        retag: bool,
    },
}

/// Ids of an upload: the first one is so far above the highest one, the others above the last.
#[derive(Clone, Debug)]
struct Keys {
    first: i8,
    steps: Vec<u8>,
}

/// Which registration a new one says that it follows.
#[derive(Clone, Debug)]
enum After {
    Current,
    None,
    First,
}

#[derive(Clone, Debug)]
enum Seqs {
    Next,
    Skip,
    Same,
    Lower,
}

#[derive(Clone, Debug)]
enum List {
    Next,
    WrongSeq,
    WrongHash,
    OtherAccount,
    OtherSignature,
}

fn step() -> impl Strategy<Value = Step> {
    let clock = prop_oneof![12 => -400i64..1500, 1 => 1500i64..60_000, 1 => Just(-100_000i64)];
    let batch = (clock, 0..policies().len(), vec(act(), 0..5))
        .prop_map(|(clock_ms, policy, acts)| Step::Batch { clock_ms, policy, acts });
    prop_oneof![
        24 => batch, 2 => Just(Step::Snapshot), 2 => Just(Step::Backup), 1 => Just(Step::Restore),
    ]
}

fn act() -> impl Strategy<Value = Act> {
    let owner = || (0..USERS.len(), 1..=DEVICES);
    let seqs = || {
        prop_oneof![
            8 => Just(Seqs::Next), 1 => Just(Seqs::Skip), 1 => Just(Seqs::Same),
            1 => Just(Seqs::Lower),
        ]
    };
    let follows =
        || prop_oneof![8 => Just(After::Current), 1 => Just(After::None), 1 => Just(After::First)];
    let list = || {
        prop_oneof![
            4 => Just(List::Next), 1 => Just(List::WrongSeq), 1 => Just(List::WrongHash),
            1 => Just(List::OtherAccount), 1 => Just(List::OtherSignature),
        ]
    };
    let first = || prop_oneof![8 => 1i8..4, 1 => -4i8..1];
    let keys = |least| {
        (first(), vec(prop_oneof![12 => 1u8..3, 1 => Just(0)], least..9))
            .prop_map(|(first, steps)| Keys { first, steps })
    };
    prop_oneof![
        4 => (owner(), 1u64..4, follows(), keys(0), option::weighted(0.3, list())).prop_map(
            |(owner, seq, follows, keys, list)| Act::Register { owner, seq, follows, keys, list },
        ),
        2 => (owner(), seqs(), prop_oneof![4 => 1u32..3, 1 => Just(0)])
            .prop_map(|(owner, seq, id_step)| Act::Replace { owner, seq, id_step }),
        5 => (owner(), seqs(), keys(0)).prop_map(|(owner, seq, keys)| Act::Add { owner, seq, keys }),
        1 => owner().prop_map(|owner| Act::Remove { owner }),
        1 => (0..USERS.len(), list()).prop_map(|(user, list)| Act::PutList { user, list }),
        9 => (
            0..USERS.len(),
            option::weighted(0.3, vec(1..=DEVICES, 0..3)),
            0u8..2,
            0u8..12,
            prop::bool::weighted(0.2),
        )
            .prop_map(|(user, devices, caller, request, require)| {
                Act::Dispense { user, devices, caller, request, require }
            }),
        4 => (0usize..12, prop::bool::weighted(0.3))
            .prop_map(|(back, retag)| Act::Again { back, retag }),
    ]
}

fn policies() -> [Policy; 4] {
    let policy = |retry_window_ms, caller: (u32, u64), target: (u32, u64)| Policy {
        retry_window_ms,
        per_caller: BucketPolicy { capacity: caller.0, refill_ms: caller.1 },
        per_target: BucketPolicy { capacity: target.0, refill_ms: target.1 },
    };
    [
        policy(5_000, (0, 0), (0, 0)),
        policy(5_000, (3, 2_000), (5, 700)),
        policy(2_000, (0, 1_000), (2, 3_000)),
        policy(20_000, (9, 400), (8, 0)),
    ]
}

/// The state, its twin that never sees a snapshot, and the model.
struct Run {
    model: Model,
    state: MemoryState,
    twin: MemoryState,
    history: History,
    commands: Vec<Command>,
    /// Every outcome, printed.
    outcomes: Vec<String>,
    clock_ms: i64,
    index: u64,
    backup: Option<Backup>,
    /// Highest one-time prekey id that a device ever made. It makes none again.
    made: BTreeMap<(usize, u32), u32>,
    /// The same when the cluster was restored last.
    made_before: BTreeMap<(usize, u32), u32>,
    /// Makes every tag, hash and signed prekey another one.
    fresh: u64,
}

/// What a backup has, and the model of it.
struct Backup {
    chunks: Vec<Vec<u8>>,
    model: Model,
}

impl Run {
    fn new() -> Self {
        Self {
            model: Model::new(BOUNDS),
            state: MemoryState::default(),
            twin: MemoryState::default(),
            history: History::default(),
            commands: Vec::new(),
            outcomes: Vec::new(),
            clock_ms: BASE_MS,
            index: 0,
            backup: None,
            made: BTreeMap::new(),
            made_before: BTreeMap::new(),
            fresh: 0,
        }
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Snapshot => self.state = carried_over(&self.state),
            Step::Backup => {
                let chunks = chunks(&self.state, Content::Backup);
                self.backup = Some(Backup { chunks, model: self.model.clone() });
                self.history.back_up();
            }
            Step::Restore => self.restore(),
            Step::Batch { clock_ms, policy, acts } => {
                self.clock_ms = (self.clock_ms + clock_ms).max(0);
                self.batch(policies()[*policy], acts);
            }
        }
        let digests = [&self.state, &self.twin].map(|state| state_digest(state).unwrap());
        assert_eq!(digests[0], digests[1], "the snapshot lost or changed something");
        if self.index > 0 {
            invariants::check(&mut self.history, &self.state, &BOUNDS);
        }
        self.compare_answers();
    }

    fn batch(&mut self, policy: Policy, acts: &[Act]) {
        self.index += 1;
        let (index, time) = (LogIndex(self.index), TimestampMs(self.clock_ms as u64));
        self.model.tick(time.0);
        let mut expected = Vec::new();
        let mut commands = Vec::new();
        for act in acts {
            let Some(command) = self.command(act) else { continue };
            expected.push(self.model.apply(index, &policy, &command));
            self.commands.push(command.clone());
            commands.push(command);
        }
        let batch = Batch { time, policy, commands };
        let batch = entry::decode(&entry::encode(&batch).unwrap()).unwrap();
        let applied = apply_within(&self.state, index, &batch, &BOUNDS).unwrap();
        assert_eq!(applied.outcomes.len(), expected.len());
        let all = batch.commands.iter().zip(&applied.outcomes).zip(&expected);
        for ((command, outcome), expected) in all {
            assert_eq!(outcome, expected, "outcome (left) is not the model's, of {command:?}");
            self.history.record(command, outcome);
            self.outcomes.push(format!("{outcome:?}"));
        }
        self.twin.commit(apply_within(&self.twin, index, &batch, &BOUNDS).unwrap().changes);
        self.state.commit(applied.changes);
    }

    fn restore(&mut self) {
        let Some(Backup { chunks, model }) = &self.backup else { return };
        let epoch = Epoch(self.model.epoch.0 + 1_000_000_000);
        self.model = model.restored(epoch);
        self.history.restored();
        self.made_before = self.made.clone();
        (self.state, self.twin) = Default::default();
        let mut reader = snapshot::Reader::of(Content::Backup);
        let mut steps = vec![RestoreStep::Begin];
        for chunk in chunks {
            let record = |(key, value)| RestoredRecord { key, value };
            let records = reader.push(chunk).unwrap().into_iter().map(record).collect();
            // Each step may come twice.
            steps.extend(vec![RestoreStep::Put(records); 2]);
        }
        reader.finish().unwrap();
        steps.push(RestoreStep::End);
        for step in steps {
            self.index += 1;
            let is_done = step == RestoreStep::End;
            let restore = Restore { backup: BackupId([7; 16]), epoch, step };
            let batch = Batch {
                time: TimestampMs(0),
                policy: Policy::default(),
                commands: vec![Command::Restore(restore)],
            };
            for state in [&mut self.state, &mut self.twin] {
                let applied = apply_within(state, LogIndex(self.index), &batch, &BOUNDS).unwrap();
                assert_eq!(applied.outcomes, [Outcome::Restored(Restored { epoch, is_done })]);
                state.commit(applied.changes);
            }
        }
        self.outcomes.push("a restore".to_owned());
    }

    fn compare_answers(&self) {
        for user in USERS.map(user_id) {
            let mut queries = vec![
                Query::User { user: user.clone() },
                Query::Peek { user: user.clone(), devices: None },
            ];
            for device in (1..=DEVICES).map(DeviceId) {
                let devices = Some(vec![device]);
                queries.push(Query::Peek { user: user.clone(), devices });
                queries.push(Query::Status { user: user.clone(), device });
                queries.push(Query::Summary { user: user.clone(), device });
            }
            for query in queries {
                let answer = query::answer(&self.state, &query).unwrap();
                assert_eq!(answer, self.model.answer(&query), "not the model's, of {query:?}");
            }
        }
    }

    fn command(&mut self, act: &Act) -> Option<Command> {
        Some(match act {
            Act::Register { owner, seq, follows, keys, list } => {
                let registered = self.device(*owner).map(super::model::Device::registration);
                let follows = match follows {
                    After::Current => registered,
                    After::None => None,
                    After::First => Some(RegistrationId(1)),
                };
                let register = self.register(*owner, *seq, keys, list.as_ref());
                Command::Register(Register { follows: follows.into(), ..register })
            }
            Act::Replace { owner, seq, id_step } => {
                let current = self.device(*owner).map_or(0, |device| device.signed_id());
                Command::ReplaceSignedPreKey(ReplaceSignedPreKey {
                    user: user_id(USERS[owner.0]),
                    device: DeviceId(owner.1),
                    tag: self.tag(*owner, seq),
                    registration: self.registration(*owner),
                    signed_prekey: self.signed_prekey(current + id_step),
                    epoch: self.model.epoch,
                })
            }
            Act::Add { owner, seq, keys } => Command::AddOneTimePreKeys(AddOneTimePreKeys {
                user: user_id(USERS[owner.0]),
                device: DeviceId(owner.1),
                tag: self.tag(*owner, seq),
                registration: self.registration(*owner),
                one_time_prekeys: self.keys(*owner, keys),
                epoch: self.model.epoch,
            }),
            Act::Remove { owner } => Command::RemoveDevice(RemoveDevice {
                user: user_id(USERS[owner.0]),
                device: DeviceId(owner.1),
                // Some of them stale.
                seq: self.device(*owner).map(|device| Seq(device.seq() + u64::from(owner.1) % 2)),
                registration: (owner.1 == 2).then_some(RegistrationId(2)),
            }),
            Act::PutList { user, list } => Command::PutDeviceList(PutDeviceList {
                user: user_id(USERS[*user]),
                list: self.list(*user, list),
            }),
            Act::Dispense { user, devices, caller, request, require } => {
                Command::Dispense(Dispense {
                    user: user_id(USERS[*user]),
                    devices: devices.as_ref().map(|d| d.iter().copied().map(DeviceId).collect()),
                    caller: CallerId::new(format!("caller-{caller}")).unwrap(),
                    request: RequestId::new(format!("request-{request}")).unwrap(),
                    require_one_time_prekey: *require,
                })
            }
            Act::Again { back, retag } => {
                let place = self.commands.len().checked_sub(back + 1)?;
                let mut command = self.commands[place].clone();
                if *retag {
                    self.retag(&mut command);
                }
                command
            }
        })
    }

    fn register(
        &mut self,
        owner: (usize, u32),
        seq: u64,
        keys: &Keys,
        list: Option<&List>,
    ) -> Register {
        let tag = WriteTag { seq: Seq(seq), digest: self.fresh() };
        let key = KeyBytes(tag.digest.to_vec());
        Register {
            user: user_id(USERS[owner.0]),
            device: DeviceId(owner.1),
            tag,
            follows: Follows::Nothing,
            identity_key: IdentityKey { kind: 1, key: key.clone() },
            authentication_key: key.clone(),
            authentication_signature: key,
            signed_prekey: self.signed_prekey(1),
            one_time_prekeys: self.keys(owner, keys),
            device_list: list.map(|list| self.list(owner.0, list)),
            epoch: self.model.epoch,
        }
    }

    fn tag(&mut self, owner: (usize, u32), seq: &Seqs) -> WriteTag {
        let last = self.device(owner).map_or(1, |device| device.seq());
        let seq = match seq {
            Seqs::Next => last + 1,
            Seqs::Skip => last + 7,
            Seqs::Same => last,
            Seqs::Lower => last.saturating_sub(1),
        };
        WriteTag { seq: Seq(seq), digest: self.fresh() }
    }

    fn retag(&mut self, command: &mut Command) {
        let (owner, tag) = match command {
            Command::ReplaceSignedPreKey(command) => {
                ((&command.user, command.device), &mut command.tag)
            }
            Command::AddOneTimePreKeys(command) => {
                ((&command.user, command.device), &mut command.tag)
            }
            _ => return,
        };
        let user = USERS.iter().position(|name| *name == owner.0.as_str()).unwrap();
        *tag = self.tag((user, owner.1.0), &Seqs::Next);
    }

    /// The same id always has the same key, so that a key that comes back is seen to.
    fn keys(&mut self, owner: (usize, u32), keys: &Keys) -> Vec<OneTimePreKey> {
        let user = self.model.users.get(&user_id(USERS[owner.0]));
        let highest = self.device(owner).and_then(|device| device.highest);
        let highest = highest.max(user.and_then(|user| user.floor));
        let made = self.made.get(&owner).copied();
        let highest = highest.map_or(10, |id| id.0).max(made.unwrap_or(0));
        let before = self.made_before.get(&owner).copied().unwrap_or(0);
        let mut id = highest.saturating_add_signed(keys.first.into()).max(before + 1);
        let mut ids = Vec::new();
        for step in &keys.steps {
            ids.push(id);
            id += u32::from(*step);
        }
        self.made.insert(owner, made.max(ids.last().copied()).unwrap_or(0));
        generate::keys(&ids)
    }

    fn list(&mut self, user: usize, list: &List) -> DeviceList {
        let hash = self.fresh();
        let lists = self.model.users.get(&user_id(USERS[user])).map(|user| user.lists.as_slice());
        let last = lists.and_then(|lists| lists.last());
        let mut next = DeviceList {
            account_key: KeyBytes(vec![1; 32]),
            seq: Seq(last.map_or(0, |list| list.seq.0) + 1),
            prev_hash: last.map_or([0; 32], |list| list.hash),
            hash,
            bytes: b"devices".to_vec(),
            signature: KeyBytes(vec![2; 64]),
        };
        match (list, last) {
            (List::Next, _) => {}
            (List::WrongSeq, _) => next.seq.0 += 1,
            (List::WrongHash, _) => next.prev_hash = [9; 32],
            (List::OtherAccount, _) => next.account_key = KeyBytes(vec![3; 32]),
            (List::OtherSignature, Some(last)) => {
                next = DeviceList { signature: KeyBytes(vec![4; 64]), ..last.clone() };
            }
            (List::OtherSignature, None) => {}
        }
        next
    }

    fn signed_prekey(&mut self, id: u32) -> SignedPreKey {
        let key = KeyBytes(self.fresh().to_vec());
        SignedPreKey {
            id: SignedPreKeyId(id),
            key: key.clone(),
            created: UnixSeconds(1),
            expires: UnixSeconds(2),
            signature: key,
        }
    }

    fn device(&self, owner: (usize, u32)) -> Option<&super::model::Device> {
        let user = self.model.users.get(&user_id(USERS[owner.0]))?;
        user.devices.get(&DeviceId(owner.1))
    }

    fn registration(&self, owner: (usize, u32)) -> RegistrationId {
        self.device(owner).map_or(RegistrationId(0), super::model::Device::registration)
    }

    fn fresh(&mut self) -> [u8; 32] {
        self.fresh += 1;
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&self.fresh.to_be_bytes());
        bytes
    }
}

fn user_id(name: &str) -> UserId {
    UserId::new(name).unwrap()
}

fn carried_over(state: &MemoryState) -> MemoryState {
    let mut reader = snapshot::Reader::of(Content::Snapshot);
    let mut records = Vec::new();
    for chunk in chunks(state, Content::Snapshot) {
        records.extend(reader.push(&chunk).unwrap());
    }
    assert_eq!(reader.finish().unwrap(), records.len() as u64);
    records.into_iter().collect()
}

fn chunks(state: &MemoryState, content: Content) -> Vec<Vec<u8>> {
    let mut writer = snapshot::Writer::of(content);
    std::iter::from_fn(|| writer.next_chunk(state).unwrap()).collect()
}

/// Names of all that a run has to meet now and then, or it proves nothing.
const TO_MEET: [&str; 28] = [
    "Registered",
    "SignedPreKeyReplaced",
    "OneTimePreKeysAdded",
    "DeviceRemoved",
    "DeviceListPut",
    "Dispensed",
    "Issued",
    "Exhausted",
    "Withheld",
    "repeated: true",
    "UnknownUser",
    "UnknownDevice",
    "TooManyDevices",
    "StaleSeq",
    "SignedPreKeyIdNotGrowing",
    "OneTimePreKeyIdsNotGrowing",
    "PoolFull",
    "what: OneTimePreKeys",
    "what: Devices",
    "DeviceListOutOfOrder",
    "DeviceListBrokenChain",
    "DeviceListOtherAccount",
    "RequestIdConflict",
    "withheld: true",
    "withheld: false",
    "registration: RegistrationId(3)",
    "a restore",
    "OtherEpoch",
];

#[test]
fn every_outcome_is_the_models_and_every_invariant_holds() {
    let config = ProptestConfig {
        cases: 300,
        source_file: Some(file!()),
        test_name: Some(concat!(module_path!(), "::every_outcome")),
        ..ProptestConfig::default()
    };
    let met = RefCell::new(BTreeMap::<&str, u32>::new());
    let result = TestRunner::new(config).run(&vec(step(), 1..60), |steps| {
        let mut run = Run::new();
        for step in &steps {
            run.step(step);
        }
        for name in TO_MEET {
            let times = run.outcomes.iter().filter(|outcome| outcome.contains(name)).count();
            *met.borrow_mut().entry(name).or_default() += times as u32;
        }
        Ok(())
    });
    if let Err(error) = result {
        panic!("{error}");
    }
    let met = met.into_inner();
    assert!(met.values().all(|times| *times >= 10), "the sequences miss something: {met:?}");
}
