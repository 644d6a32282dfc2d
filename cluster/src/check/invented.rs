//! Random executions of a correct cluster, for tests.
//!
//! A correct state is kept here, apart from the [model](super::model) that it puts to the test.
//! Operations take effect one after the other; each was sent some time before and answered some
//! time after, so they overlap; some share a log entry, some are sent again, some replies are lost.
//! In the end all is settled and drained.

use std::collections::{BTreeMap, VecDeque};

use oncekey_types::{
    DeviceId, LogIndex, NodeId, OneTimePreKeyId, RegistrationId, RequestId, Seq, ShardId,
    SignedPreKeyId, UserId,
};

use crate::history::record::{
    At, Begin, Bundle, Call, Digest, FORMAT, Invoke, Issue, Mark, OperationId, Opk, Outcome, Phase,
    Place, Pool, Record, Replica, Return, Spk, VERSION,
};

/// How large an execution is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Size {
    pub(super) users: u64,
    pub(super) steps: u64,
    /// How much operations overlap: the time from being sent to taking effect, where one operation
    /// takes effect every 100.
    pub(super) overlap: u64,
}

/// Keys of one upload.
const UPLOAD: u32 = 20;

/// Pseudo-random numbers (SplitMix64), the same for one seed everywhere.
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Below `n`.
    pub(super) fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % n.max(1)
    }

    /// Once in `n` times.
    pub(super) fn once_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }
}

struct Device {
    registration: u32,
    identity: Digest,
    spk: Spk,
    pool: VecDeque<Opk>,
    /// Highest id ever accepted.
    highest: u32,
    /// When the last write was answered; a device writes one after the other.
    idle_from: u64,
    seq: u64,
}

struct Execution {
    random: Random,
    size: Size,
    time: u64,
    index: u64,
    /// Until when an operation of the current entry must have been sent to share it.
    entry_open_until: u64,
    devices: BTreeMap<(u64, u32), Device>,
    registrations: BTreeMap<u64, u32>,
    /// Highest id that any replaced registration of the account accepted.
    floors: BTreeMap<u64, u32>,
    requests: u64,
    calls: Vec<(Invoked, Option<Returned>)>,
    others: Vec<(u64, Record)>,
}

struct Invoked {
    at: u64,
    client: String,
    call: Call,
}

struct Returned {
    at: u64,
    outcome: Outcome,
}

/// The records of an execution.
pub(super) fn execution(seed: u64, size: Size) -> Vec<Record> {
    let mut execution = Execution {
        random: Random::new(seed),
        size,
        time: 10_000,
        index: 0,
        entry_open_until: 0,
        devices: BTreeMap::new(),
        registrations: BTreeMap::new(),
        floors: BTreeMap::new(),
        requests: 0,
        calls: Vec::new(),
        others: Vec::new(),
    };
    for user in 0..size.users {
        for device in 1..=2 {
            execution.register(user, device);
        }
    }
    for _ in 0..size.steps {
        execution.step();
    }
    execution.drain();
    execution.records(seed)
}

impl Execution {
    fn step(&mut self) {
        let user = self.random.below(self.size.users);
        let device = 1 + u32::try_from(self.random.below(2)).unwrap();
        match self.random.below(100) {
            0..75 => self.fetch(user),
            75..88 => self.upload(user, device),
            88..91 => self.rotate(user, device),
            91..97 => self.read(user, device),
            97 => self.register(user, device),
            _ => self.replicas(),
        }
    }

    /// A moment at which an operation takes effect, with its call around it: (sent, answered).
    fn moment(&mut self) -> (u64, u64) {
        self.time += 100;
        let overlap = self.size.overlap;
        (
            self.time - 1 - self.random.below(overlap.min(self.time - 2)),
            self.time + 1 + self.random.below(overlap),
        )
    }

    /// An entry for a fetch: a new one, or the current one if it was sent in time.
    fn entry(&mut self, invoked: u64, returned: u64) -> Place {
        if invoked < self.entry_open_until && self.random.once_in(3) {
            self.entry_open_until = self.entry_open_until.min(returned);
        } else {
            self.index += 1;
            self.entry_open_until = returned;
        }
        place(self.index)
    }

    fn fetch(&mut self, user: u64) {
        let (invoked, returned) = self.moment();
        let at = self.entry(invoked, returned);
        let bundles: Vec<_> = (1..=2).map(|number| self.pop(user, number)).collect();
        self.requests += 1;
        let request = RequestId::new(format!("request-{}", self.requests)).unwrap();
        let client = format!("client-{}", self.random.below(16));
        let call = Call::Fetch { user: name(user), request, devices: None, require_opk: false };
        let answer =
            |repeated| Outcome::Fetched { at: at.clone(), repeated, bundles: bundles.clone() };
        if self.random.once_in(12) {
            // The first reply is lost; the second call is answered in its place.
            let lost = match self.random.below(3) {
                0 => None,
                1 => Some((returned, Outcome::Unknown { why: "lost".to_owned() })),
                _ => Some((returned, self.alone(user))),
            };
            self.call(&client, call.clone(), invoked, lost);
            self.call(&client, call, returned + 5, Some((returned + 50, answer(true))));
            return;
        }
        self.call(&client, call.clone(), invoked, Some((returned, answer(false))));
        if self.random.once_in(12) {
            let later = returned + self.random.below(2000);
            self.call(&client, call, later, Some((later + 50, answer(true))));
        }
    }

    /// What a replica without a quorum says.
    fn alone(&self, user: u64) -> Outcome {
        let bundles = (1..=2).map(|number| Bundle {
            opk: Issue::Unavailable,
            ..bundle(number, &self.devices[&(user, number)], Issue::Exhausted)
        });
        Outcome::Unavailable { bundles: bundles.collect() }
    }

    fn pop(&mut self, user: u64, number: u32) -> Bundle {
        let device = self.devices.get_mut(&(user, number)).unwrap();
        let opk = device.pool.pop_front().map_or(Issue::Exhausted, Issue::Issued);
        bundle(number, device, opk)
    }

    /// When the next write of a device is sent and answered.
    fn write_moment(&mut self, user: u64, number: u32) -> (u64, u64) {
        let idle_from = self.devices.get(&(user, number)).map_or(0, |device| device.idle_from);
        self.time = self.time.max(idle_from);
        let (invoked, returned) = self.moment();
        self.index += 1;
        self.entry_open_until = 0;
        (invoked.max(idle_from + 1), returned)
    }

    fn upload(&mut self, user: u64, number: u32) {
        let (invoked, returned) = self.write_moment(user, number);
        let device = self.devices.get_mut(&(user, number)).unwrap();
        let opks = opks(user, number, device.highest);
        device.highest += UPLOAD;
        device.pool.extend(&opks);
        device.seq += 1;
        let (user_name, seq) = (name(user), Seq(device.seq));
        let call = Call::Upload { user: user_name, device: DeviceId(number), seq, opks };
        let outcome = |at, pool| Outcome::Written { at, registration: None, pool };
        self.write(user, number, call, (invoked, returned), outcome);
    }

    fn rotate(&mut self, user: u64, number: u32) {
        let (invoked, returned) = self.write_moment(user, number);
        let device = self.devices.get_mut(&(user, number)).unwrap();
        device.spk = spk(user, number, device.spk.0.0 + 1);
        device.seq += 1;
        let (spk, seq) = (device.spk, Seq(device.seq));
        let call = Call::Rotate { user: name(user), device: DeviceId(number), seq, spk };
        let outcome = |at, pool| Outcome::Written { at, registration: None, pool };
        self.write(user, number, call, (invoked, returned), outcome);
    }

    fn register(&mut self, user: u64, number: u32) {
        let (invoked, returned) = self.write_moment(user, number);
        let registration = self.registrations.entry(user).or_default();
        *registration += 1;
        let registration = *registration;
        let before = self.devices.get(&(user, number));
        let floor = self.floors.entry(user).or_default();
        *floor = before.map_or(*floor, |device| device.highest.max(*floor));
        let highest = *floor;
        let spk = spk(user, number, before.map_or(1, |device| device.spk.0.0 + 1));
        let opks = opks(user, number, highest);
        let device = Device {
            registration,
            identity: digest(user, number, registration),
            spk,
            pool: opks.iter().copied().collect(),
            highest: highest + UPLOAD,
            idle_from: returned,
            seq: 1,
        };
        let call = Call::Register {
            user: name(user),
            device: DeviceId(number),
            seq: Seq(1),
            identity: device.identity,
            spk,
            opks,
        };
        self.devices.insert((user, number), device);
        let registration = Some(RegistrationId(registration));
        let outcome = |at, pool| Outcome::Written { at, registration, pool };
        self.write(user, number, call, (invoked, returned), outcome);
    }

    fn write(
        &mut self,
        user: u64,
        number: u32,
        call: Call,
        (invoked, returned): (u64, u64),
        outcome: impl Fn(Place, Pool) -> Outcome,
    ) {
        let device = &self.devices[&(user, number)];
        let (pool, client) = (pool(device), format!("device-{user}-{number}"));
        let mut end = returned;
        if self.random.once_in(6) {
            // The reply is lost; the repeated write is told the index of its own entry.
            self.call(&client, call.clone(), invoked, None);
            end = returned + 60;
            self.time = self.time.max(returned + 30);
            self.index += 1;
            let answer = outcome(place(self.index), pool);
            self.call(&client, call, returned + 1, Some((end, answer)));
        } else {
            let answer = outcome(place(self.index), pool);
            self.call(&client, call, invoked, Some((returned, answer)));
        }
        self.devices.get_mut(&(user, number)).unwrap().idle_from = end;
    }

    fn read(&mut self, user: u64, number: u32) {
        let (invoked, returned) = self.moment();
        self.entry_open_until = 0;
        let device = &self.devices[&(user, number)];
        let mut ids: Vec<(OneTimePreKeyId, OneTimePreKeyId)> = Vec::new();
        for Opk(id, _) in &device.pool {
            match ids.last_mut() {
                Some((_, last)) if last.0 + 1 == id.0 => *last = *id,
                _ => ids.push((*id, *id)),
            }
        }
        let outcome = Outcome::Status {
            at: place(self.index),
            registration: RegistrationId(device.registration),
            pool: pool(device),
            ids,
        };
        let call = Call::Status { user: name(user), device: DeviceId(number) };
        self.call("reader", call, invoked, Some((returned, outcome)));
    }

    fn replicas(&mut self) {
        self.entry_open_until = 0;
        for node in 1..=3 {
            let replica = Replica {
                at_ns: At(self.time),
                node: NodeId(node),
                shard: ShardId(0),
                applied: LogIndex(self.index),
                state: format!("state-{}", self.index),
            };
            self.others.push((self.time, Record::Replica(replica)));
        }
    }

    /// Empties every pool.
    fn drain(&mut self) {
        let last = self.calls.iter().filter_map(|(_, returned)| Some(returned.as_ref()?.at)).max();
        self.time = last.unwrap_or(0) + 10_000;
        self.entry_open_until = 0;
        for user in 0..self.size.users {
            while self.devices.range((user, 0)..(user + 1, 0)).any(|(_, it)| !it.pool.is_empty()) {
                self.fetch(user);
            }
            self.time += 10_000;
            self.fetch(user);
            self.time += 10_000;
            for number in 1..=2 {
                self.read(user, number);
            }
        }
        self.replicas();
    }

    fn call(&mut self, client: &str, call: Call, invoked: u64, returned: Option<(u64, Outcome)>) {
        let returned = returned.map(|(at, outcome)| Returned { at, outcome });
        self.calls.push((Invoked { at: invoked, client: client.to_owned(), call }, returned));
    }

    /// All records in the order of time.
    fn records(self, seed: u64) -> Vec<Record> {
        let mut calls = self.calls;
        calls.sort_by_key(|(invoked, _)| invoked.at);
        let mut timed = self.others;
        for ((invoked, returned), op) in calls.into_iter().zip(0..) {
            let Invoked { at, client, call } = invoked;
            let (op, at_ns) = (OperationId(op), At(at));
            timed.push((at, Record::Invoke(Invoke { op, at_ns, client, node: None, call })));
            if let Some(Returned { at, outcome }) = returned {
                let at_ns = At(at);
                let ended = Return { op, at_ns, node: None, attempts: 1, outcome };
                timed.push((at, Record::Return(ended)));
            }
        }
        timed.sort_by_key(|(at, record)| (*at, matches!(record, Record::Return(_))));
        let end = timed.last().map_or(0, |(at, _)| *at) + 1;
        let (format, source) = (FORMAT.to_owned(), "an invention".to_owned());
        let begin = Begin { format, version: VERSION, source, seed: Some(seed) };
        let mark = Mark { at_ns: At(end), phase: Phase::End };
        [Record::Begin(begin)]
            .into_iter()
            .chain(timed.into_iter().map(|(_, record)| record))
            .chain([Record::Mark(mark)])
            .collect()
    }
}

fn bundle(number: u32, device: &Device, opk: Issue) -> Bundle {
    Bundle {
        device: DeviceId(number),
        registration: RegistrationId(device.registration),
        identity: device.identity,
        spk: device.spk,
        opk,
    }
}

fn pool(device: &Device) -> Pool {
    Pool {
        count: u32::try_from(device.pool.len()).unwrap(),
        spk: device.spk.0,
        highest: Some(OneTimePreKeyId(device.highest)),
    }
}

fn place(index: u64) -> Place {
    let leader = Some("127.0.0.1:8001".to_owned());
    Place { shard: Some(ShardId(0)), index: Some(LogIndex(index)), leader }
}

fn name(user: u64) -> UserId {
    UserId::new(format!("user-{user}")).unwrap()
}

/// The next keys of a device.
fn opks(user: u64, device: u32, highest: u32) -> Vec<Opk> {
    (highest + 1..=highest + UPLOAD)
        .map(|id| Opk(OneTimePreKeyId(id), digest(user, device, id)))
        .collect()
}

fn spk(user: u64, device: u32, id: u32) -> Spk {
    Spk(SignedPreKeyId(id), digest(user, device, !id))
}

/// Stands for the bytes of a key; no two are equal.
fn digest(user: u64, device: u32, id: u32) -> Digest {
    let mut digest = [0; 16];
    digest[..8].copy_from_slice(&user.to_be_bytes());
    digest[8..12].copy_from_slice(&device.to_be_bytes());
    digest[12..].copy_from_slice(&id.to_be_bytes());
    Digest(digest)
}
