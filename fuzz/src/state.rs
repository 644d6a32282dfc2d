//! The state machine: entries, messages, records and snapshots.

use std::sync::LazyLock;

use oncekey_server::fuzzing;
use oncekey_store::{
    apply,
    codec::{EncodeError, entry, message},
    command::{Batch, BucketPolicy, Command, Dispense, Policy, RemoveDevice},
    fuzzing::record_again,
    query::{self, Query},
    snapshot::{self, Content},
    state::MemoryState,
};
use oncekey_types::{CallerId, DeviceId, LogIndex, RequestId, limits};

use crate::{
    Target, choose, chosen, comes_back,
    examples::{self, NOW, bob},
    take,
};

/// The content of a log entry, decoded and applied.
pub const ENTRY: Target =
    Target { name: "entry", run: run_entry, seeds: entries, claim_bytes: limits::ENTRY_MAX_BYTES };

/// What nodes forward to each other: commands, outcomes, queries, answers.
pub const MESSAGE: Target = Target {
    name: "message",
    run: run_message,
    seeds: messages,
    claim_bytes: limits::ENTRY_MAX_BYTES,
};

/// A record of the state: key length, key, value.
pub const RECORD: Target = Target {
    name: "record",
    run: run_record,
    seeds: records,
    claim_bytes: limits::ENTRY_MAX_BYTES,
};

/// The chunks of a snapshot or a backup, each behind its length.
pub const SNAPSHOT: Target = Target {
    name: "snapshot",
    run: run_snapshot,
    seeds: snapshots,
    claim_bytes: limits::ENTRY_MAX_BYTES,
};

const POLICY: Policy = Policy {
    retry_window_ms: 600_000,
    per_caller: BucketPolicy { capacity: 6, refill_ms: 600_000 },
    per_target: BucketPolicy { capacity: 600, refill_ms: 1000 },
};

/// A shard in which Bob has a device with one-time prekeys, and Alice has fetched once.
static STATE: LazyLock<MemoryState> = LazyLock::new(|| {
    let mut state = MemoryState::default();
    for (batch, index) in batches().iter().zip(1..) {
        let applied =
            apply(&state, LogIndex(index), batch).expect("a state in memory has no faults");
        state.commit(applied.changes);
    }
    state
});

fn batch(commands: Vec<Command>) -> Batch {
    Batch { time: NOW, policy: POLICY, commands }
}

fn dispense(request: &str) -> Command {
    Command::Dispense(Dispense {
        user: bob(),
        devices: None,
        caller: CallerId::new("alice").expect("it is a name"),
        request: RequestId::new(request).expect("it is a name"),
        require_one_time_prekey: false,
    })
}

fn batches() -> Vec<Batch> {
    let now = NOW.to_seconds();
    let register = fuzzing::register(&bob(), DeviceId(1), &examples::register(), now);
    let register = Command::Register(register.expect("it is genuine"));
    let gone = RemoveDevice { user: bob(), device: DeviceId(2), seq: None, registration: None };
    vec![
        batch(vec![register]),
        batch(vec![dispense("first"), dispense("first")]),
        batch(vec![dispense("second"), Command::RemoveDevice(gone)]),
    ]
}

/// Applying takes any batch: it refuses, and never faults; and it does the same twice.
fn run_entry(data: &[u8]) {
    comes_back(data, |bytes| entry::encode(&entry::decode(bytes).ok()?).ok());
    let Ok(batch) = entry::decode(data) else { return };
    assert!(batch.commands.len() <= limits::BATCH_COMMANDS_MAX);
    let index = LogIndex(10);
    let applied = apply(&*STATE, index, &batch).expect("a state in memory has no faults");
    assert_eq!(applied.outcomes.len(), batch.commands.len());
    for outcome in &applied.outcomes {
        message::encode_outcome(outcome).expect("an outcome is inside the limits");
    }
    let again = apply(&*STATE, index, &batch).expect("a state in memory has no faults");
    assert_eq!(applied, again, "applying is not deterministic");
    for (key, value) in &applied.changes.0 {
        if let Some(value) = value {
            assert_eq!(record_again(key, value).as_ref(), Some(value), "a record of a bad form");
        }
    }
    let mut state = STATE.clone();
    state.commit(applied.changes);
    let query = Query::Status { user: bob(), device: DeviceId(1) };
    query::answer(&state, &query).expect("the state can be read");
}

fn entries() -> Vec<Vec<u8>> {
    batches().iter().map(|batch| entry::encode(batch).expect("it is small")).collect()
}

/// Decodes a message and encodes it anew.
type Again = fn(&[u8]) -> Option<Vec<u8>>;

const MESSAGES: &[Again] = &[
    |bytes| message::encode_command(&message::decode_command(bytes).ok()?).ok(),
    |bytes| message::encode_outcome(&message::decode_outcome(bytes).ok()?).ok(),
    |bytes| message::encode_query(&message::decode_query(bytes).ok()?).ok(),
    |bytes| message::encode_answer(&message::decode_answer(bytes).ok()?).ok(),
];

fn run_message(data: &[u8]) {
    if let Some((again, bytes)) = choose(MESSAGES, data) {
        comes_back(bytes, again);
    }
}

fn messages() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    let mut add = |choice, bytes: Result<Vec<u8>, EncodeError>| {
        let bytes = bytes.expect("it is small");
        seeds.push(chosen(choice, &bytes));
    };
    let all = batches();
    let commands: Vec<_> = all.iter().flat_map(|batch| &batch.commands).collect();
    for command in &commands {
        add(0, message::encode_command(command));
    }
    let batch = batch(commands.into_iter().cloned().collect());
    let applied = apply(&*STATE, LogIndex(10), &batch).expect("no faults");
    for outcome in &applied.outcomes {
        add(1, message::encode_outcome(outcome));
    }
    let device = DeviceId(1);
    for query in [
        Query::Status { user: bob(), device },
        Query::User { user: bob() },
        Query::Peek { user: bob(), devices: Some(vec![device]) },
        Query::Summary { user: bob(), device },
    ] {
        add(2, message::encode_query(&query));
        let answer = query::answer(&*STATE, &query).expect("the state can be read");
        add(3, message::encode_answer(&answer));
    }
    seeds
}

fn run_record(data: &[u8]) {
    let Some((&length, rest)) = data.split_first() else { return };
    let Some((key, value)) = rest.split_at_checked(usize::from(length)) else { return };
    comes_back(value, |value| record_again(key, value));
}

fn records() -> Vec<Vec<u8>> {
    let records = STATE.records().map(|(key, value)| {
        let length = u8::try_from(key.len()).expect("a key of short names is short");
        [&[length], key, value].concat()
    });
    records.collect()
}

/// What a stream may carry.
const CONTENTS: &[Content] = &[Content::Snapshot, Content::Backup];

/// A stream that is taken to its end is a snapshot of what it says, and the same state gives the
/// same stream.
fn run_snapshot(data: &[u8]) {
    let Some((content, mut rest)) = choose(CONTENTS, data) else { return };
    let mut reader = snapshot::Reader::of(content);
    let mut records = Vec::new();
    while let Some((length, behind)) = rest.split_first_chunk::<2>() {
        let length = usize::from(u16::from_be_bytes(*length));
        let Some((chunk, behind)) = behind.split_at_checked(length) else { return };
        let Ok(more) = reader.push(chunk) else { return };
        records.extend(more);
        rest = behind;
    }
    let Ok(count) = reader.finish() else { return };
    take();
    assert_eq!(count, records.len() as u64);
    let state: MemoryState = records.into_iter().collect();
    assert_eq!(state.records().count() as u64, count, "a key came twice");
    let mut back = snapshot::Reader::of(content);
    for chunk in chunks(content, &state) {
        back.push(&chunk).expect("what was written is read");
    }
    assert_eq!(back.finish().ok(), Some(count));
}

fn chunks(content: Content, state: &MemoryState) -> Vec<Vec<u8>> {
    let mut writer = snapshot::Writer::of(content);
    std::iter::from_fn(|| writer.next_chunk(state).expect("no faults")).collect()
}

/// The backup of a small state.
pub(crate) fn backup_chunks() -> Vec<Vec<u8>> {
    chunks(Content::Backup, &STATE)
}

fn snapshots() -> Vec<Vec<u8>> {
    let stream = |(choice, content): (usize, &Content)| {
        let whole = chunks(*content, &STATE).iter().fold(Vec::new(), |mut bytes, chunk| {
            let length = u16::try_from(chunk.len()).expect("the state is small");
            bytes.extend(length.to_be_bytes());
            bytes.extend(chunk);
            bytes
        });
        chosen(choice, &whole)
    };
    CONTENTS.iter().enumerate().map(stream).collect()
}
