//! Mistakes of a cluster, planted into histories of correct ones.
#![expect(clippy::ptr_arg, reason = "some mistakes take records away, and all have one signature")]

use std::collections::BTreeMap;

use oncekey_types::{DeviceId, LogIndex, UserId};

use super::{
    Invariant::{
        self, Conservation, Count, Empty, Fifo, Idempotence, Provenance, Register, Replicas,
        Unique, Witness,
    },
    invented::Random,
};
use crate::history::record::{
    At, Bundle, Call, Digest, Issue, OperationId, Opk, Outcome, Place, Record, Return, Spk,
};

/// A mistake of a cluster.
pub(super) struct Mistake {
    pub(super) name: &'static str,
    /// The invariants of which at least one is broken.
    pub(super) breaks: &'static [Invariant],
    /// Plants it somewhere; none when the history has no place for it.
    pub(super) plant: fn(&mut Vec<Record>, &mut Random) -> Option<()>,
}

pub(super) const MISTAKES: &[Mistake] = &[
    Mistake { name: "a key is issued again", breaks: &[Unique], plant: issue_again },
    Mistake { name: "two fetches swap keys", breaks: &[Fifo, Witness], plant: swap_keys },
    Mistake { name: "a key has other bytes", breaks: &[Provenance], plant: change_bytes },
    Mistake { name: "an upload never was", breaks: &[Provenance], plant: drop_upload },
    Mistake { name: "a pop is forgotten", breaks: &[Conservation, Witness], plant: drop_fetch },
    Mistake { name: "a count is off by one", breaks: &[Count, Witness], plant: miscount },
    Mistake { name: "a read is stale", breaks: &[Count, Idempotence, Witness], plant: age_read },
    Mistake { name: "a retry pops again", breaks: &[Idempotence], plant: change_retry },
    Mistake { name: "an empty pool is invented", breaks: &[Empty, Witness], plant: empty },
    Mistake { name: "a signed prekey is old", breaks: &[Register], plant: age_spk },
    Mistake { name: "an answer goes back in time", breaks: &[Provenance], plant: move_back },
    Mistake { name: "an index goes back", breaks: &[Witness], plant: lower_index },
    Mistake { name: "replicas differ", breaks: &[Replicas], plant: change_replica },
    Mistake { name: "an answer never comes", breaks: &[Conservation], plant: drop_answer },
    Mistake { name: "an identity key changes", breaks: &[Register], plant: change_identity },
];

/// A key that an answer holds.
#[derive(Clone)]
struct Handed {
    /// Where its answer stands in the records, and where in the answer.
    record: usize,
    bundle: usize,
    op: OperationId,
    user: UserId,
    device: DeviceId,
    key: Opk,
    invoked: At,
    returned: At,
}

/// The keys that were handed out by requests that were sent once.
fn handed(records: &[Record]) -> Vec<Handed> {
    let mut calls = BTreeMap::new();
    let mut sent: BTreeMap<_, u32> = BTreeMap::new();
    for record in records {
        if let Record::Invoke(invoke) = record
            && let Call::Fetch { user, request, .. } = &invoke.call
        {
            calls.insert(invoke.op, (invoke.at_ns, user.clone(), request.clone()));
            *sent.entry(request.clone()).or_default() += 1;
        }
    }
    let mut found = Vec::new();
    for (record, line) in records.iter().enumerate() {
        let Record::Return(ended) = line else { continue };
        let Outcome::Fetched { bundles, .. } = &ended.outcome else { continue };
        let (invoked, user, request) = &calls[&ended.op];
        for (bundle, told) in bundles.iter().enumerate().filter(|_| sent[request] == 1) {
            let Issue::Issued(key) = told.opk else { continue };
            found.push(Handed {
                record,
                bundle,
                op: ended.op,
                user: user.clone(),
                device: told.device,
                key,
                invoked: *invoked,
                returned: ended.at_ns,
            });
        }
    }
    found
}

fn pick<T: Clone>(from: &[T], random: &mut Random) -> Option<T> {
    let place = random.below(u64::try_from(from.len()).unwrap());
    from.get(usize::try_from(place).unwrap()).cloned()
}

/// Two keys of one device, the first answered before the second was asked for.
fn pick_two(records: &[Record], random: &mut Random) -> Option<(Handed, Handed)> {
    let found = handed(records);
    let first = pick(&found, random)?;
    let later: Vec<_> = found
        .into_iter()
        .filter(|it| (&it.user, it.device) == (&first.user, first.device))
        .filter(|it| first.returned < it.invoked)
        .collect();
    Some((first, pick(&later, random)?))
}

fn outcome(records: &mut [Record], record: usize) -> &mut Outcome {
    match &mut records[record] {
        Record::Return(Return { outcome, .. }) => outcome,
        other => panic!("not an answer: {other:?}"),
    }
}

fn bundles(outcome: &mut Outcome) -> &mut Vec<Bundle> {
    match outcome {
        Outcome::Fetched { bundles, .. } => bundles,
        other => panic!("not bundles: {other:?}"),
    }
}

fn tell(records: &mut [Record], place: &Handed, opk: Issue) {
    bundles(outcome(records, place.record))[place.bundle].opk = opk;
}

fn without(records: &mut Vec<Record>, ops: &[OperationId]) {
    records.retain(|record| match record {
        Record::Invoke(invoke) => !ops.contains(&invoke.op),
        Record::Return(ended) => !ops.contains(&ended.op),
        _ => true,
    });
}

fn issue_again(records: &mut Vec<Record>, random: &mut Random) -> Option<()> {
    let (first, second) = pick_two(records, random)?;
    tell(records, &second, Issue::Issued(first.key));
    Some(())
}

fn swap_keys(records: &mut Vec<Record>, random: &mut Random) -> Option<()> {
    let (first, second) = pick_two(records, random)?;
    tell(records, &first, Issue::Issued(second.key));
    tell(records, &second, Issue::Issued(first.key));
    Some(())
}

fn change_bytes(records: &mut Vec<Record>, random: &mut Random) -> Option<()> {
    let place = pick(&handed(records), random)?;
    tell(records, &place, Issue::Issued(Opk(place.key.0, Digest([0xff; 16]))));
    Some(())
}

fn drop_upload(records: &mut Vec<Record>, random: &mut Random) -> Option<()> {
    let place = pick(&handed(records), random)?;
    let brings = |call: &Call| match call {
        Call::Register { user, device, opks, .. } | Call::Upload { user, device, opks, .. } => {
            (user, *device) == (&place.user, place.device) && opks.contains(&place.key)
        }
        _ => false,
    };
    let ops: Vec<_> = records
        .iter()
        .filter_map(|record| match record {
            Record::Invoke(invoke) if brings(&invoke.call) => Some(invoke.op),
            _ => None,
        })
        .collect();
    without(records, &ops);
    Some(())
}

fn drop_fetch(records: &mut Vec<Record>, random: &mut Random) -> Option<()> {
    let place = pick(&handed(records), random)?;
    without(records, &[place.op]);
    Some(())
}

fn drop_answer(records: &mut Vec<Record>, random: &mut Random) -> Option<()> {
    let place = pick(&handed(records), random)?;
    records.remove(place.record);
    Some(())
}

fn empty(records: &mut Vec<Record>, random: &mut Random) -> Option<()> {
    let place = pick(&handed(records), random)?;
    tell(records, &place, Issue::Exhausted);
    Some(())
}

fn change_identity(records: &mut Vec<Record>, random: &mut Random) -> Option<()> {
    let place = pick(&handed(records), random)?;
    bundles(outcome(records, place.record))[place.bundle].identity = Digest([0xff; 16]);
    Some(())
}

fn move_back(records: &mut Vec<Record>, random: &mut Random) -> Option<()> {
    let place = pick(&handed(records), random)?;
    for record in records.iter_mut() {
        match record {
            Record::Invoke(invoke) if invoke.op == place.op => invoke.at_ns = At(1),
            Record::Return(ended) if ended.op == place.op => ended.at_ns = At(2),
            _ => {}
        }
    }
    Some(())
}

fn lower_index(records: &mut Vec<Record>, random: &mut Random) -> Option<()> {
    let (first, second) = pick_two(records, random)?;
    let index = |outcome: &Outcome| match outcome {
        Outcome::Fetched { at, .. } => at.index,
        other => panic!("not a fetch: {other:?}"),
    };
    let lower = index(outcome(records, first.record));
    if let Outcome::Fetched { at: Place { index, .. }, .. } = outcome(records, second.record) {
        *index = lower.map(|LogIndex(index)| LogIndex(index - random.below(2)));
    }
    Some(())
}

fn change_retry(records: &mut Vec<Record>, random: &mut Random) -> Option<()> {
    let repeated: Vec<_> = (0..records.len())
        .filter(|place| match &records[*place] {
            Record::Return(Return {
                outcome: Outcome::Fetched { repeated, bundles, .. },
                op,
                ..
            }) => {
                let issued = bundles.iter().any(|told| matches!(told.opk, Issue::Issued(_)));
                *repeated && issued && answered_before(records, *op)
            }
            _ => false,
        })
        .collect();
    let place = pick(&repeated, random)?;
    let bundles = bundles(outcome(records, place));
    let told = bundles.iter_mut().find(|told| matches!(told.opk, Issue::Issued(_)))?;
    told.opk = Issue::Exhausted;
    Some(())
}

/// Whether the request of the operation `op` was answered by an earlier one.
fn answered_before(records: &[Record], op: OperationId) -> bool {
    let requests: BTreeMap<_, _> = records
        .iter()
        .filter_map(|record| match record {
            Record::Invoke(invoke) => match &invoke.call {
                Call::Fetch { request, .. } => Some((invoke.op, request)),
                _ => None,
            },
            _ => None,
        })
        .collect();
    records.iter().any(|record| match record {
        Record::Return(ended) => {
            ended.op < op
                && requests.get(&ended.op) == requests.get(&op)
                && matches!(ended.outcome, Outcome::Fetched { .. })
        }
        _ => false,
    })
}

fn miscount(records: &mut Vec<Record>, random: &mut Random) -> Option<()> {
    let counts: Vec<_> = (0..records.len())
        .filter(|place| match &records[*place] {
            Record::Return(ended) => {
                matches!(ended.outcome, Outcome::Status { .. })
            }
            _ => false,
        })
        .collect();
    let place = pick(&counts, random)?;
    if let Outcome::Status { pool, .. } = outcome(records, place) {
        pool.count += 1;
    }
    Some(())
}

/// A read is told what an earlier one was told, though a key was handed out in between.
fn age_read(records: &mut Vec<Record>, random: &mut Random) -> Option<()> {
    let mut calls = BTreeMap::new();
    let mut reads = Vec::new();
    for (place, record) in records.iter().enumerate() {
        match record {
            Record::Invoke(invoke) => {
                if let Call::Status { user, device } = &invoke.call {
                    calls.insert(invoke.op, (invoke.at_ns, user.clone(), *device));
                }
            }
            Record::Return(ended) => {
                if let Some(call) = calls.get(&ended.op) {
                    reads.push((place, call.clone(), ended.at_ns));
                }
            }
            _ => {}
        }
    }
    let found = handed(records);
    let aged: Vec<_> = reads
        .iter()
        .flat_map(|old| reads.iter().map(move |new| (old, new)))
        .filter(|(old, new)| {
            let (_, (_, user, device), read_by) = old;
            let (_, (sent, new_user, new_device), _) = new;
            (user, device) == (new_user, new_device)
                && found.iter().any(|pop| {
                    (&pop.user, &pop.device) == (user, device)
                        && *read_by < pop.invoked
                        && pop.returned < *sent
                })
        })
        .map(|(old, new)| (old.0, new.0))
        .collect();
    let (old, new) = pick(&aged, random)?;
    *outcome(records, new) = outcome(records, old).clone();
    Some(())
}

/// A fetch is told a signed prekey that was replaced before it was sent.
fn age_spk(records: &mut Vec<Record>, random: &mut Random) -> Option<()> {
    let place = pick(&handed(records), random)?;
    let mut written: Vec<(OperationId, Spk)> = Vec::new();
    let mut replaced = Vec::new();
    for record in records.iter() {
        match record {
            Record::Invoke(invoke) => match &invoke.call {
                Call::Register { user, device, spk, .. }
                | Call::Rotate { user, device, spk, .. }
                    if (user, *device) == (&place.user, place.device) =>
                {
                    written.push((invoke.op, *spk));
                }
                _ => {}
            },
            Record::Return(ended) if ended.at_ns < place.invoked => {
                if let Some((_, spk)) = written.iter().find(|(op, _)| *op == ended.op) {
                    let older = written.iter().filter(|(_, older)| older.0 < spk.0);
                    replaced.extend(older.map(|(_, older)| *older));
                }
            }
            _ => {}
        }
    }
    bundles(outcome(records, place.record))[place.bundle].spk = pick(&replaced, random)?;
    Some(())
}

fn change_replica(records: &mut Vec<Record>, random: &mut Random) -> Option<()> {
    let replicas: Vec<_> =
        (0..records.len()).filter(|place| matches!(records[*place], Record::Replica(_))).collect();
    let place = pick(&replicas, random)?;
    if let Record::Replica(replica) = &mut records[place] {
        replica.state.push('!');
    }
    Some(())
}
