//! Small histories for tests, told operation by operation.
//!
//! All is about one shard, and about the first user and device 1 unless said otherwise. Operations stand in the log in
//! the order in which they are told; `(2, 5)` is a call that was sent at 2 and answered at 5.

use oncekey_types::{
    DeviceId, LogIndex, NodeId, OneTimePreKeyId, RegistrationId, Seq, ShardId, SignedPreKeyId,
    UserId,
};

use super::{Finding, Invariant, check};
use crate::history::{
    History,
    record::{
        At, Begin, Bundle, Call, Digest, FORMAT, Invoke, Issue, Mark, OperationId, Opk, Outcome,
        Phase, Place, Pool, Record, Replica, Return, Spk, VERSION,
    },
};

/// When a call was sent and answered.
type Span = (u64, u64);

/// A history that is told.
pub(super) struct Story {
    records: Vec<(At, Record)>,
    next: u64,
    /// Index of the last operation.
    pub(super) index: u64,
    /// Whom operations are about.
    pub(super) user: &'static str,
    /// What fetches and reads are told.
    pub(super) registration: u32,
    pub(super) identity: u8,
    pub(super) spk: u32,
}

impl Story {
    /// Device 1 registers with the keys `ids` in (0, 1).
    pub(super) fn with_keys(ids: &[u32]) -> Self {
        let mut story = Self {
            records: vec![(At::START, begin())],
            next: 0,
            index: 0,
            user: "bob",
            registration: 1,
            identity: 1,
            spk: 1,
        };
        story.register((0, 1), 1, ids);
        story
    }

    /// Device `device` registers with the story's registration, identity and signed prekey.
    pub(super) fn register(&mut self, span: Span, device: u32, ids: &[u32]) -> OperationId {
        let call = self.registration_of(device, ids);
        let registration = Some(RegistrationId(self.registration));
        let outcome = |at, pool| Outcome::Written { at, registration, pool };
        self.write(span, call, ids.len(), ids.last().copied(), outcome)
    }

    /// The same device registers at `invoked`; nobody knows whether.
    pub(super) fn register_without_answer(&mut self, invoked: u64, ids: &[u32]) -> OperationId {
        let call = self.registration_of(1, ids);
        self.invoke(invoked, "device", call)
    }

    /// A registration with the keys `ids` that is told that the pool has `count`.
    pub(super) fn register_counting(
        &mut self,
        span: Span,
        ids: &[u32],
        count: usize,
    ) -> OperationId {
        let call = self.registration_of(1, ids);
        let registration = Some(RegistrationId(self.registration));
        let outcome = |at, pool| Outcome::Written { at, registration, pool };
        self.write(span, call, count, ids.last().copied(), outcome)
    }

    /// Keys are added; then the pool has `count`.
    pub(super) fn upload(&mut self, span: Span, ids: &[u32], count: usize) -> OperationId {
        let call = self.upload_of(ids);
        let outcome = |at, pool| Outcome::Written { at, registration: None, pool };
        self.write(span, call, count, ids.last().copied(), outcome)
    }

    /// Keys are added at `invoked`; nobody knows whether.
    pub(super) fn upload_without_answer(&mut self, invoked: u64, ids: &[u32]) -> OperationId {
        let call = self.upload_of(ids);
        self.invoke(invoked, "device", call)
    }

    /// Another signed prekey; the pool has `count` keys, the last of them `highest`.
    pub(super) fn rotate(
        &mut self,
        span: Span,
        id: u32,
        count: usize,
        highest: u32,
    ) -> OperationId {
        self.spk = id;
        self.rotate_to(id, span, count, highest)
    }

    /// The same with signed prekey `id`, while the answer tells the story's.
    pub(super) fn rotate_to(
        &mut self,
        id: u32,
        span: Span,
        count: usize,
        highest: u32,
    ) -> OperationId {
        let call = Call::Rotate {
            user: self.user(),
            device: DeviceId(1),
            seq: Seq(self.next),
            spk: spk(id),
        };
        let outcome = |at, pool| Outcome::Written { at, registration: None, pool };
        self.write(span, call, count, Some(highest), outcome)
    }

    /// The device goes.
    pub(super) fn remove(&mut self, span: Span) -> OperationId {
        let call =
            Call::Remove { user: self.user(), device: DeviceId(1), seq: Some(Seq(self.next)) };
        let op = self.invoke(span.0, "device", call);
        let at = self.place();
        self.complete(op, span.1, Outcome::Removed { at });
        op
    }

    /// A fetch that is handed the key `told` of device 1, or none when its pool is empty.
    pub(super) fn fetch(&mut self, request: &str, span: Span, told: Option<u32>) -> OperationId {
        self.fetch_all(request, span, &[told])
    }

    /// A fetch that is told this of the devices 1, 2, …
    pub(super) fn fetch_all(
        &mut self,
        request: &str,
        span: Span,
        told: &[Option<u32>],
    ) -> OperationId {
        let op = self.fetch_without_answer(request, span.0);
        let at = self.place();
        let bundles = (1..).zip(told).map(|(device, told)| self.bundle(device, *told)).collect();
        self.complete(op, span.1, Outcome::Fetched { at, repeated: false, bundles });
        op
    }

    /// A fetch of which nobody knows whether it was carried out.
    pub(super) fn fetch_without_answer(&mut self, request: &str, invoked: u64) -> OperationId {
        self.ask(request, invoked, None)
    }

    /// The same of a fetch that asks for one device.
    pub(super) fn fetch_one_without_answer(
        &mut self,
        request: &str,
        invoked: u64,
        device: u32,
    ) -> OperationId {
        self.ask(request, invoked, Some(vec![DeviceId(device)]))
    }

    /// A fetch that is answered without a quorum.
    pub(super) fn fetch_alone(
        &mut self,
        request: &str,
        span: Span,
        told: Option<u32>,
    ) -> OperationId {
        let op = self.fetch_without_answer(request, span.0);
        let mut bundle = self.bundle(1, told);
        if told.is_none() {
            bundle.opk = Issue::Unavailable;
        }
        self.complete(op, span.1, Outcome::Unavailable { bundles: vec![bundle] });
        op
    }

    /// A fetch that is refused because the pool of device 1 is empty.
    pub(super) fn fetch_refused(&mut self, request: &str, span: Span) -> OperationId {
        let op = self.fetch_without_answer(request, span.0);
        let (code, device) = ("one_time_prekey_required".to_owned(), Some(DeviceId(1)));
        self.complete(op, span.1, Outcome::Refused { code, device, exhausted: true });
        op
    }

    /// A read that finds the keys `first` to `last` in the pool.
    pub(super) fn read(
        &mut self,
        span: Span,
        ids: Option<(u32, u32)>,
        highest: u32,
    ) -> OperationId {
        let count = ids.map_or(0, |(first, last)| last + 1 - first);
        self.read_count(span, count, ids, highest)
    }

    /// A read that counts `count` keys and names these.
    pub(super) fn read_count(
        &mut self,
        span: Span,
        count: u32,
        ids: Option<(u32, u32)>,
        highest: u32,
    ) -> OperationId {
        let op =
            self.invoke(span.0, "device", Call::Status { user: self.user(), device: DeviceId(1) });
        let outcome = Outcome::Status {
            at: place(self.index),
            registration: RegistrationId(self.registration),
            pool: pool(count, self.spk, Some(highest)),
            ids: ids
                .into_iter()
                .map(|(first, last)| (OneTimePreKeyId(first), OneTimePreKeyId(last)))
                .collect(),
        };
        self.complete(op, span.1, outcome);
        op
    }

    /// A replica's state.
    pub(super) fn replica(&mut self, node: u64, applied: u64, state: &str) {
        let replica = Replica {
            at_ns: At::START,
            node: NodeId(node),
            shard: ShardId(0),
            applied: LogIndex(applied),
            state: state.to_owned(),
        };
        self.records.push((At::START, Record::Replica(replica)));
    }

    /// The run comes to its end.
    pub(super) fn end(&mut self) {
        let mark = Mark { at_ns: At(1_000_000), phase: Phase::End };
        self.records.push((mark.at_ns, Record::Mark(mark)));
    }

    /// No answer tells its log index.
    pub(super) fn without_indexes(&mut self) {
        for (_, record) in &mut self.records {
            let Record::Return(ended) = record else { continue };
            match &mut ended.outcome {
                Outcome::Fetched { at, .. }
                | Outcome::Written { at, .. }
                | Outcome::Removed { at }
                | Outcome::Status { at, .. } => at.index = None,
                _ => {}
            }
        }
    }

    /// What the checker of `invariant` finds.
    pub(super) fn judged(&self, invariant: Invariant) -> Finding {
        let report = check(&self.history());
        report.finding(invariant).unwrap().clone()
    }

    /// Asserts that every checker is content, and that of `invariant` had something to judge.
    #[track_caller]
    pub(super) fn holds(&self, invariant: Invariant) {
        let report = check(&self.history());
        assert_eq!(report.violated(), 0, "{report}");
        assert!(report.finding(invariant).unwrap().judged > 0, "{report}");
    }

    /// Asserts that `invariant` is broken by these operations, and maybe others with them.
    #[track_caller]
    pub(super) fn breaks(&self, invariant: Invariant, operations: &[OperationId]) {
        self.breaks_as(invariant, operations, "");
    }

    /// The same, and that the violation is told with these words.
    #[track_caller]
    pub(super) fn breaks_as(&self, invariant: Invariant, operations: &[OperationId], words: &str) {
        let finding = self.judged(invariant);
        let by = |violation: &super::Violation| {
            let named = |op: &OperationId| {
                violation.operations.contains(op) && names(&violation.message, *op)
            };
            operations.iter().all(named) && violation.message.contains(words)
        };
        assert!(finding.violations.iter().any(by), "not by {operations:?}, {words:?}:\n{finding}");
    }

    pub(super) fn history(&self) -> History {
        let mut records = self.records.clone();
        // The beginning of the file comes first, whatever begins at the same time.
        records[1..].sort_by_key(|(at, record)| (*at, matches!(record, Record::Return(_))));
        // Operations are numbered as they are told, and begin in any order.
        let mut numbers = std::collections::BTreeMap::new();
        for (_, record) in &mut records {
            if let Record::Invoke(invoke) = record {
                numbers.insert(invoke.op, OperationId(u64::try_from(numbers.len()).unwrap()));
            }
        }
        assert!(numbers.iter().all(|(told, begun)| told == begun), "tell in the order of begin");
        History::from_records(records.into_iter().map(|(_, record)| record)).unwrap()
    }

    fn user(&self) -> UserId {
        self.user.parse().unwrap()
    }

    fn ask(&mut self, request: &str, invoked: u64, devices: Option<Vec<DeviceId>>) -> OperationId {
        let (user, request) = (self.user(), request.parse().unwrap());
        let call = Call::Fetch { user, request, devices, require_opk: false };
        self.invoke(invoked, "alice", call)
    }

    fn upload_of(&self, ids: &[u32]) -> Call {
        Call::Upload { user: self.user(), device: DeviceId(1), seq: Seq(1), opks: opks(ids) }
    }

    fn registration_of(&self, device: u32, ids: &[u32]) -> Call {
        Call::Register {
            user: self.user(),
            device: DeviceId(device),
            seq: Seq(self.next),
            identity: digest(self.identity),
            spk: spk(self.spk),
            opks: opks(ids),
        }
    }

    fn write(
        &mut self,
        span: Span,
        call: Call,
        count: usize,
        highest: Option<u32>,
        outcome: impl FnOnce(Place, Pool) -> Outcome,
    ) -> OperationId {
        let op = self.invoke(span.0, "device", call);
        let at = self.place();
        let pool = pool(u32::try_from(count).unwrap(), self.spk, highest);
        self.complete(op, span.1, outcome(at, pool));
        op
    }

    fn invoke(&mut self, at: u64, client: &str, call: Call) -> OperationId {
        let op = OperationId(self.next);
        self.next += 1;
        let (at_ns, client) = (At(at), client.to_owned());
        self.records.push((at_ns, Record::Invoke(Invoke { op, at_ns, client, node: None, call })));
        op
    }

    fn complete(&mut self, op: OperationId, at: u64, outcome: Outcome) {
        let at_ns = At(at);
        let ended = Return { op, at_ns, node: None, attempts: 1, outcome };
        self.records.push((at_ns, Record::Return(ended)));
    }

    fn place(&mut self) -> Place {
        self.index += 1;
        place(self.index)
    }

    fn bundle(&self, device: u32, told: Option<u32>) -> Bundle {
        Bundle {
            device: DeviceId(device),
            registration: RegistrationId(self.registration + device - 1),
            identity: digest(self.identity),
            spk: spk(self.spk),
            opk: told.map_or(Issue::Exhausted, |id| Issue::Issued(opk(id))),
        }
    }
}

/// Whether `message` names the operation as a number of its own.
fn names(message: &str, op: OperationId) -> bool {
    message.split(|c: char| !c.is_ascii_digit()).any(|number| number == op.to_string())
}

fn begin() -> Record {
    let (format, source) = (FORMAT.to_owned(), "a test".to_owned());
    Record::Begin(Begin { format, version: VERSION, source, seed: None })
}

fn place(index: u64) -> Place {
    Place { shard: Some(ShardId(0)), index: Some(LogIndex(index)), leader: None }
}

fn pool(count: u32, spk: u32, highest: Option<u32>) -> Pool {
    Pool { count, spk: SignedPreKeyId(spk), highest: highest.map(OneTimePreKeyId) }
}

fn digest(byte: u8) -> Digest {
    Digest([byte; 16])
}

fn opk(id: u32) -> Opk {
    Opk(OneTimePreKeyId(id), Digest::of(&[&id.to_be_bytes()]))
}

fn opks(ids: &[u32]) -> Vec<Opk> {
    ids.iter().map(|id| opk(*id)).collect()
}

fn spk(id: u32) -> Spk {
    Spk(SignedPreKeyId(id), Digest::of(&[b"signed", &id.to_be_bytes()]))
}
