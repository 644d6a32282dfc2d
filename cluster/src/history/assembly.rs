//! Records become logical operations.
//!
//! Guarantees: a record that contradicts the ones before is refused with the reason: an operation
//! that begins or ends twice, an answer to another question, a time that runs backwards within an
//! operation. Calls that never end stay open, as [`Outcome::Unknown`].

use std::collections::BTreeMap;

use oncekey_types::{DeviceId, Seq};

use super::{
    Answer, Content, Fetch, History, Name, Names, Outcome, Place, Read, Refused, Torn, Try, Write,
    Written,
    record::{self, At, Begin, Call, Digest, FORMAT, Invoke, OperationId, Opk, Record, VERSION},
};

/// What is put together so far.
#[derive(Default)]
pub(super) struct Assembly {
    begin: Option<Begin>,
    history: Parts,
    /// Operations that have begun and not ended.
    open: BTreeMap<OperationId, Open>,
    last: Option<OperationId>,
    fetches: BTreeMap<FetchKey, usize>,
    writes: BTreeMap<WriteKey, usize>,
}

#[derive(Default)]
struct Parts {
    fetches: Vec<Fetch>,
    writes: Vec<Write>,
    reads: Vec<Read>,
    events: Vec<record::Event>,
    replicas: Vec<record::Replica>,
    marks: Vec<record::Mark>,
    operations: u64,
    torn: Option<Torn>,
    names: Names,
}

/// What the servers know a fetch by, and what must not differ between its calls.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct FetchKey {
    client: Name,
    request: Name,
    user: Name,
    devices: Option<Box<[DeviceId]>>,
    require_opk: bool,
}

/// What the servers know a write by.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct WriteKey {
    user: Name,
    device: DeviceId,
    /// Of a registration or removal: the same content with another number is another one.
    seq: Option<Seq>,
    content: Digest,
}

/// An operation that has begun.
enum Open {
    Fetch { logical: usize, call: usize },
    Write { logical: usize, call: usize },
    Read { user: Name, device: DeviceId, invoked: At },
}

const TOO_MANY_NAMES: &str = "there are too many names";
const OTHER_QUESTION: &str = "the outcome answers another kind of call";

impl Assembly {
    pub(super) fn add(&mut self, record: Record) -> Result<(), String> {
        if self.begin.is_none() {
            let Record::Begin(begin) = record else {
                return Err("the first record must be a begin".to_owned());
            };
            if begin.format != FORMAT || begin.version != VERSION {
                return Err(format!(
                    "{} version {} is not {FORMAT} version {VERSION}",
                    begin.format, begin.version
                ));
            }
            self.begin = Some(begin);
            return Ok(());
        }
        match record {
            Record::Begin(_) => Err("a history begins once".to_owned()),
            Record::Invoke(invoke) => self.invoke(invoke),
            Record::Return(ended) => self.complete(ended),
            Record::Event(event) => {
                self.history.events.push(event);
                Ok(())
            }
            Record::Replica(replica) => {
                self.history.replicas.push(replica);
                Ok(())
            }
            Record::Mark(mark) => {
                self.history.marks.push(mark);
                Ok(())
            }
        }
    }

    /// The last line breaks off.
    pub(super) fn tear(&mut self, torn: Torn) {
        self.history.torn = Some(torn);
    }

    /// None when there was no record.
    pub(super) fn finish(self) -> Option<History> {
        let Parts { fetches, writes, reads, events, replicas, marks, operations, torn, names } =
            self.history;
        let begin = self.begin?;
        Some(History {
            begin,
            fetches,
            writes,
            reads,
            events,
            replicas,
            marks,
            operations,
            torn,
            names,
        })
    }

    fn name(&mut self, text: &str) -> Result<Name, String> {
        self.history.names.name(text).ok_or_else(|| TOO_MANY_NAMES.to_owned())
    }

    fn invoke(&mut self, invoke: Invoke) -> Result<(), String> {
        let Invoke { op, at_ns: invoked, client, call, node: _ } = invoke;
        if self.last.is_some_and(|last| op <= last) {
            return Err(format!("operation {op} begins after a later one; numbers must grow"));
        }
        self.last = Some(op);
        self.history.operations += 1;
        let client = self.name(&client)?;
        let open = match call {
            Call::Fetch { user, request, devices, require_opk } => {
                let user = self.name(user.as_str())?;
                let request = self.name(request.as_str())?;
                let devices = devices.map(Vec::into_boxed_slice);
                let key = FetchKey { client, request, user, devices, require_opk };
                self.fetch(key, started(op, client, invoked))
            }
            Call::Register { user, device, seq, identity, spk, opks } => {
                let opks = growing(opks)?;
                let content = Content::Register { identity, spk, opks };
                let user = self.name(user.as_str())?;
                self.write(user, device, Some(seq), content, started(op, client, invoked))
            }
            Call::Upload { user, device, seq: _, opks } => {
                let content = Content::Upload { opks: growing(opks)? };
                let user = self.name(user.as_str())?;
                self.write(user, device, None, content, started(op, client, invoked))
            }
            Call::Rotate { user, device, seq: _, spk } => {
                let user = self.name(user.as_str())?;
                let content = Content::Rotate { spk };
                self.write(user, device, None, content, started(op, client, invoked))
            }
            Call::Remove { user, device, seq } => {
                let user = self.name(user.as_str())?;
                // Without a number, each removal is one of its own.
                let seq = seq.unwrap_or(Seq(u64::MAX - op.0));
                let call = started(op, client, invoked);
                self.write(user, device, Some(seq), Content::Remove, call)
            }
            Call::Status { user, device } => {
                let user = self.name(user.as_str())?;
                Open::Read { user, device, invoked }
            }
        };
        self.open.insert(op, open);
        Ok(())
    }

    fn fetch(&mut self, key: FetchKey, call: Try<Box<[record::Bundle]>>) -> Open {
        let fetches = &mut self.history.fetches;
        let logical = match self.fetches.get(&key) {
            Some(logical) => *logical,
            None => {
                let FetchKey { client, request, user, ref devices, require_opk } = key;
                let devices = devices.clone();
                let tries = Vec::with_capacity(1);
                fetches.push(Fetch { user, client, request, devices, require_opk, tries });
                self.fetches.insert(key, fetches.len() - 1);
                fetches.len() - 1
            }
        };
        fetches[logical].tries.push(call);
        Open::Fetch { logical, call: fetches[logical].tries.len() - 1 }
    }

    fn write(
        &mut self,
        user: Name,
        device: DeviceId,
        seq: Option<Seq>,
        content: Content,
        call: Try<Written>,
    ) -> Open {
        let key = WriteKey { user, device, seq, content: content.digest() };
        let writes = &mut self.history.writes;
        let logical = match self.writes.get(&key) {
            Some(logical) => *logical,
            None => {
                writes.push(Write { user, device, content, tries: Vec::with_capacity(1) });
                self.writes.insert(key, writes.len() - 1);
                writes.len() - 1
            }
        };
        writes[logical].tries.push(call);
        Open::Write { logical, call: writes[logical].tries.len() - 1 }
    }

    fn complete(&mut self, ended: record::Return) -> Result<(), String> {
        let record::Return { op, at_ns: returned, attempts, outcome, node: _ } = ended;
        let open = self.open.remove(&op);
        let open = open.ok_or_else(|| format!("operation {op} ends and has not begun"))?;
        match open {
            Open::Fetch { logical, call } => {
                let outcome = self.fetch_outcome(outcome)?;
                let call = &mut self.history.fetches[logical].tries[call];
                end(call, returned, attempts, outcome)
            }
            Open::Write { logical, call } => {
                let outcome = self.write_outcome(outcome)?;
                let call = &mut self.history.writes[logical].tries[call];
                end(call, returned, attempts, outcome)
            }
            Open::Read { user, device, invoked } => match outcome {
                record::Outcome::Status { at, registration, pool, ids } => {
                    in_order(op, invoked, returned)?;
                    let place = self.place(at)?;
                    let ids = ids.into_boxed_slice();
                    self.history.reads.push(Read {
                        user,
                        device,
                        op,
                        invoked,
                        returned,
                        place,
                        registration,
                        pool,
                        ids,
                    });
                    Ok(())
                }
                record::Outcome::Refused { .. }
                | record::Outcome::NotDone { .. }
                | record::Outcome::Unknown { .. } => Ok(()),
                record::Outcome::Fetched { .. }
                | record::Outcome::Unavailable { .. }
                | record::Outcome::Written { .. }
                | record::Outcome::Removed { .. } => Err(OTHER_QUESTION.to_owned()),
            },
        }
    }

    fn fetch_outcome(
        &mut self,
        outcome: record::Outcome,
    ) -> Result<Outcome<Box<[record::Bundle]>>, String> {
        Ok(match outcome {
            record::Outcome::Fetched { at, repeated: _, bundles } => {
                Outcome::Done(Answer { place: self.place(at)?, says: bundles.into_boxed_slice() })
            }
            record::Outcome::Unavailable { bundles } => {
                Outcome::Unknown { alone: bundles.into_boxed_slice() }
            }
            outcome => no_answer(&outcome)?,
        })
    }

    fn write_outcome(&mut self, outcome: record::Outcome) -> Result<Outcome<Written>, String> {
        Ok(match outcome {
            record::Outcome::Written { at, registration, pool } => {
                let says = Written { registration, pool: Some(pool) };
                Outcome::Done(Answer { place: self.place(at)?, says })
            }
            record::Outcome::Removed { at } => {
                let says = Written { registration: None, pool: None };
                Outcome::Done(Answer { place: self.place(at)?, says })
            }
            outcome => no_answer(&outcome)?,
        })
    }

    fn place(&mut self, place: record::Place) -> Result<Place, String> {
        let record::Place { shard, index, leader } = place;
        let leader = leader.map(|leader| self.name(&leader)).transpose()?;
        Ok(Place { shard, index, leader })
    }
}

impl Content {
    fn digest(&self) -> Digest {
        let mut bytes = Vec::new();
        let mut key = |id: u32, digest: &Digest| {
            bytes.extend(id.to_be_bytes());
            bytes.extend(digest.0);
        };
        let kind: &[u8] = match self {
            Self::Register { identity, spk, opks } => {
                key(0, identity);
                key(spk.0.0, &spk.1);
                opks.iter().for_each(|opk| key(opk.0.0, &opk.1));
                b"register"
            }
            Self::Upload { opks } => {
                opks.iter().for_each(|opk| key(opk.0.0, &opk.1));
                b"upload"
            }
            Self::Rotate { spk } => {
                key(spk.0.0, &spk.1);
                b"rotate"
            }
            Self::Remove => b"remove",
        };
        Digest::of(&[kind, &bytes])
    }
}

/// A call that has begun.
fn started<T>(op: OperationId, client: Name, invoked: At) -> Try<T> {
    let outcome = Outcome::Unknown { alone: Box::default() };
    Try { op, client, invoked, returned: At::NEVER, attempts: 0, outcome }
}

fn end<T>(
    call: &mut Try<T>,
    returned: At,
    attempts: u32,
    outcome: Outcome<T>,
) -> Result<(), String> {
    in_order(call.op, call.invoked, returned)?;
    (call.returned, call.attempts, call.outcome) = (returned, attempts, outcome);
    Ok(())
}

fn in_order(op: OperationId, invoked: At, returned: At) -> Result<(), String> {
    if returned < invoked || returned == At::NEVER {
        return Err(format!("operation {op} ends at a time that cannot be"));
    }
    Ok(())
}

/// The outcome of a call that was not carried out, as far as is known.
fn no_answer<T>(outcome: &record::Outcome) -> Result<Outcome<T>, String> {
    match outcome {
        record::Outcome::Refused { device, exhausted, code: _ } => {
            Ok(Outcome::Refused(Refused { exhausted: device.filter(|_| *exhausted) }))
        }
        record::Outcome::NotDone { .. } => Ok(Outcome::Refused(Refused::default())),
        record::Outcome::Unknown { .. } => Ok(Outcome::Unknown { alone: Box::default() }),
        record::Outcome::Fetched { .. }
        | record::Outcome::Unavailable { .. }
        | record::Outcome::Written { .. }
        | record::Outcome::Removed { .. }
        | record::Outcome::Status { .. } => Err(OTHER_QUESTION.to_owned()),
    }
}

/// Keys whose ids grow: so they stand in an upload, and nobody else would accept them.
fn growing(opks: Vec<Opk>) -> Result<Box<[Opk]>, String> {
    if !opks.is_sorted_by(|a, b| a.0 < b.0) {
        return Err("the ids of an upload do not grow".to_owned());
    }
    Ok(opks.into_boxed_slice())
}
