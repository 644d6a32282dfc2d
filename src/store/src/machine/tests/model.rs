//! The state machine once more, as simply as can be: whole values in vectors, searched from end to
//! end, nothing packed, nothing forgotten. It knows no record, no digest and no queue.

use std::collections::{BTreeMap, VecDeque};

use oncekey_types::{
    CallerId, DeviceId, Epoch, LogIndex, OneTimePreKeyId, RegistrationId, Seq, TimestampMs, UserId,
    limits::RESTORE_REGISTRATIONS_SKIPPED,
};

use crate::{
    command::*,
    machine::Bounds,
    outcome::*,
    query::{Answer, Query, pool_digest},
};

#[derive(Clone, Debug)]
pub(super) struct Model {
    pub(super) time: u64,
    pub(super) epoch: Epoch,
    pub(super) users: BTreeMap<UserId, User>,
    answers: Vec<Answered>,
    /// What is missing in a bucket, in milliseconds of refill, and since when.
    deficits: BTreeMap<(UserId, Option<CallerId>), (u64, u64)>,
    bounds: Bounds,
}

#[derive(Clone, Debug, Default)]
pub(super) struct User {
    pub(super) devices: BTreeMap<DeviceId, Device>,
    registrations: u32,
    pub(super) floor: Option<OneTimePreKeyId>,
    pub(super) lists: Vec<DeviceList>,
}

#[derive(Clone, Debug)]
pub(super) struct Device {
    register: Register,
    registered: Registered,
    signed: SignedPreKey,
    signed_at: u64,
    signed_answer: PoolState,
    writes: Vec<(WriteTag, Outcome)>,
    upload: Option<(Vec<OneTimePreKey>, PoolState)>,
    pool: VecDeque<OneTimePreKey>,
    pub(super) highest: Option<OneTimePreKeyId>,
}

#[derive(Clone, Debug)]
struct Answered {
    request: Dispense,
    due: u64,
    dispensed: Dispensed,
}

impl Device {
    fn state(&self) -> PoolState {
        PoolState {
            count: self.pool.len() as u32,
            signed_prekey: self.signed.id,
            highest_accepted: self.highest,
        }
    }

    fn last(&self) -> &(WriteTag, Outcome) {
        self.writes.last().expect("a registration is a write")
    }

    pub(super) fn seq(&self) -> u64 {
        self.last().0.seq.0
    }

    pub(super) fn registration(&self) -> RegistrationId {
        self.registered.registration
    }

    pub(super) fn signed_id(&self) -> u32 {
        self.signed.id.0
    }

    fn view(&self) -> DeviceView {
        DeviceView {
            device: self.register.device,
            registration: self.registered.registration,
            identity_key: self.register.identity_key.clone(),
            authentication_key: self.register.authentication_key.clone(),
            authentication_signature: self.register.authentication_signature.clone(),
        }
    }
}

impl Model {
    pub(super) fn new(bounds: Bounds) -> Self {
        let (users, deficits) = (BTreeMap::new(), BTreeMap::new());
        Self { time: 0, epoch: Epoch::FIRST, users, answers: Vec::new(), deficits, bounds }
    }

    pub(super) fn tick(&mut self, time: u64) {
        self.time = self.time.max(time);
    }

    /// The cluster that is made from a backup of this one: it has nothing to hand out, and has
    /// forgotten what it answered.
    pub(super) fn restored(&self, epoch: Epoch) -> Self {
        let mut new = Self { epoch, answers: Vec::new(), ..self.clone() };
        for user in new.users.values_mut() {
            let skipped = user.registrations + RESTORE_REGISTRATIONS_SKIPPED;
            user.registrations = skipped.max((epoch.0 / 1000) as u32 - 1);
            for device in user.devices.values_mut() {
                device.pool.clear();
                device.upload = None;
            }
        }
        new
    }

    pub(super) fn apply(&mut self, index: LogIndex, policy: &Policy, command: &Command) -> Outcome {
        if let Some(given) = command.epoch().filter(|given| *given != self.epoch) {
            return Outcome::Refused(Refusal::OtherEpoch { given, current: self.epoch });
        }
        let result = match command {
            Command::Restore(_) => unreachable!("restores are the tests' own"),
            Command::Register(command) => self.register(command),
            Command::ReplaceSignedPreKey(command) => self.replace(command),
            Command::AddOneTimePreKeys(command) => self.add(command),
            Command::RemoveDevice(command) => self.remove(command),
            Command::PutDeviceList(command) => self.put_list(command),
            Command::Dispense(command) => self.dispense(index, policy, command),
        };
        result.unwrap_or_else(Outcome::Refused)
    }

    fn register(&mut self, command: &Register) -> Result<Outcome, Refusal> {
        let now = self.time;
        let unknown = User::default();
        let user = self.users.get(&command.user).unwrap_or(&unknown);
        let old = user.devices.get(&command.device);
        if let Some(old) = old.filter(|old| old.register.tag == command.tag) {
            return Ok(Outcome::Registered(old.registered.clone()));
        }
        let current = old.map(Device::registration);
        if command.follows != current.into() {
            return Err(Refusal::DoesNotFollow { current });
        }
        let limit = self.bounds.devices_per_user;
        if old.is_none() && user.devices.len() as u32 == limit {
            return Err(Refusal::TooManyDevices { limit });
        }
        let floor = user.floor.max(old.and_then(|old| old.highest));
        let keys = &command.one_time_prekeys;
        growing(keys, floor)?;
        if keys.len() as u32 > self.bounds.pool {
            let limit = self.bounds.pool;
            return Err(Refusal::PoolFull { count: 0, given: keys.len() as u32, limit });
        }
        if let Some(list) = &command.device_list {
            chained(self.epoch, &user.lists, list)?;
        }

        let first = ((self.epoch.0 / 1000) as u32).max(1);
        let user = self.users.entry(command.user.clone()).or_default();
        user.registrations = first.max(user.registrations + 1);
        user.floor = floor;
        user.lists.extend(command.device_list.clone());
        let pool = PoolState {
            count: keys.len() as u32,
            signed_prekey: command.signed_prekey.id,
            highest_accepted: keys.last().map(|key| key.id).max(floor),
        };
        let registration = RegistrationId(user.registrations);
        let registered = Registered { registration, pool };
        let outcome = Outcome::Registered(registered.clone());
        let device = Device {
            register: command.clone(),
            registered,
            signed: command.signed_prekey.clone(),
            signed_at: now,
            signed_answer: pool,
            writes: vec![(command.tag, outcome.clone())],
            upload: (!keys.is_empty()).then(|| (keys.clone(), pool)),
            pool: keys.iter().cloned().collect(),
            highest: pool.highest_accepted,
        };
        user.devices.insert(command.device, device);
        Ok(outcome)
    }

    fn replace(&mut self, command: &ReplaceSignedPreKey) -> Result<Outcome, Refusal> {
        let now = self.time;
        let device = self.device(&command.user, command.device)?;
        signed_for(device, command.registration)?;
        if device.last().0 == command.tag {
            return Ok(device.last().1.clone());
        }
        if device.signed == command.signed_prekey {
            return Ok(Outcome::SignedPreKeyReplaced(device.signed_answer));
        }
        fresh(device, command.tag.seq)?;
        let (given, current) = (command.signed_prekey.id, device.signed.id);
        if given <= current {
            return Err(Refusal::SignedPreKeyIdNotGrowing { given, current });
        }
        device.signed = command.signed_prekey.clone();
        device.signed_at = now;
        device.signed_answer = device.state();
        let outcome = Outcome::SignedPreKeyReplaced(device.state());
        device.writes.push((command.tag, outcome.clone()));
        Ok(outcome)
    }

    fn add(&mut self, command: &AddOneTimePreKeys) -> Result<Outcome, Refusal> {
        let limit = self.bounds.pool;
        let keys = &command.one_time_prekeys;
        if keys.is_empty() {
            return Err(Refusal::Malformed { what: Malformed::OneTimePreKeys });
        }
        let device = self.device(&command.user, command.device)?;
        signed_for(device, command.registration)?;
        if device.last().0 == command.tag {
            return Ok(device.last().1.clone());
        }
        if let Some((_, answer)) = device.upload.as_ref().filter(|(last, _)| last == keys) {
            return Ok(Outcome::OneTimePreKeysAdded(*answer));
        }
        fresh(device, command.tag.seq)?;
        growing(keys, device.highest)?;
        let (count, given) = (device.pool.len() as u32, keys.len() as u32);
        if count + given > limit {
            return Err(Refusal::PoolFull { count, given, limit });
        }
        device.pool.extend(keys.iter().cloned());
        device.highest = keys.last().map(|key| key.id);
        device.upload = Some((keys.clone(), device.state()));
        let outcome = Outcome::OneTimePreKeysAdded(device.state());
        device.writes.push((command.tag, outcome.clone()));
        Ok(outcome)
    }

    fn remove(&mut self, command: &RemoveDevice) -> Result<Outcome, Refusal> {
        let device = self.device(&command.user, command.device)?;
        let highest = device.highest;
        if let Some(registration) = command.registration {
            signed_for(device, registration)?;
        }
        if let Some(seq) = command.seq {
            fresh(device, seq)?;
        }
        let user = self.users.get_mut(&command.user).expect("has a device");
        user.devices.remove(&command.device);
        user.floor = user.floor.max(highest);
        Ok(Outcome::DeviceRemoved)
    }

    fn put_list(&mut self, command: &PutDeviceList) -> Result<Outcome, Refusal> {
        let epoch = self.epoch;
        let user = self.user(&command.user)?;
        chained(epoch, &user.lists, &command.list)?;
        user.lists.push(command.list.clone());
        Ok(Outcome::DeviceListPut { seq: command.list.seq })
    }

    fn dispense(
        &mut self,
        index: LogIndex,
        policy: &Policy,
        command: &Dispense,
    ) -> Result<Outcome, Refusal> {
        if let Some(named) = &command.devices
            && (named.is_empty() || !named.is_sorted_by(|a, b| a < b))
        {
            return Err(Refusal::Malformed { what: Malformed::Devices });
        }
        let now = self.time;
        let kept = self.answers.iter().rev().take(self.bounds.retries as usize);
        let same = |asked: &Dispense| {
            (&asked.caller, &asked.request) == (&command.caller, &command.request)
        };
        if let Some(before) = kept.into_iter().find(|a| same(&a.request) && now < a.due) {
            if before.request != *command {
                return Err(Refusal::RequestIdConflict);
            }
            let dispensed = Dispensed { repeated: true, ..before.dispensed.clone() };
            return Ok(Outcome::Dispensed(dispensed));
        }
        let user = self.user(&command.user)?;
        let all: Vec<DeviceId> = user.devices.keys().copied().collect();
        let named = command.devices.as_ref().unwrap_or(&all);
        if let Some(&device) = named.iter().find(|device| !all.contains(device)) {
            return Err(Refusal::UnknownDevice { device });
        }
        let empty: Vec<DeviceId> =
            named.iter().copied().filter(|d| user.devices[d].pool.is_empty()).collect();
        let any = empty.len() < named.len();
        let withheld = any && !self.has_tokens(policy, command);
        if command.require_one_time_prekey {
            let without = if withheld { named } else { &empty };
            if let Some(&device) = without.first() {
                return Err(Refusal::OneTimePreKeyRequired { device, withheld });
            }
        }
        if any && !withheld {
            self.take_tokens(policy, command);
        }
        let user = self.user(&command.user)?;
        let mut bundles = Vec::new();
        for id in named {
            let device = user.devices.get_mut(id).expect("was found");
            let one_time_prekey = if withheld {
                Issue::Withheld
            } else {
                device.pool.pop_front().map_or(Issue::Exhausted, Issue::Issued)
            };
            bundles.push(Bundle {
                device: *id,
                registration: device.registered.registration,
                identity_key: device.register.identity_key.clone(),
                signed_prekey: device.signed.clone(),
                one_time_prekey,
            });
        }
        let device_list_seq = user.lists.last().map(|list| list.seq);
        let dispensed = Dispensed { index, repeated: false, device_list_seq, bundles };
        self.answers.push(Answered {
            request: command.clone(),
            due: now.saturating_add(policy.retry_window_ms),
            dispensed: dispensed.clone(),
        });
        Ok(Outcome::Dispensed(dispensed))
    }

    /// A leaky bucket: what is missing comes back with time.
    fn has_tokens(&self, policy: &Policy, command: &Dispense) -> bool {
        buckets(policy, command).into_iter().all(|(key, bucket)| {
            self.deficit(&key) + bucket.refill_ms <= u64::from(bucket.capacity) * bucket.refill_ms
        })
    }

    fn take_tokens(&mut self, policy: &Policy, command: &Dispense) {
        for (key, bucket) in buckets(policy, command) {
            let deficit = self.deficit(&key) + bucket.refill_ms;
            self.deficits.insert(key, (deficit, self.time));
        }
    }

    fn deficit(&self, key: &(UserId, Option<CallerId>)) -> u64 {
        let (deficit, since) = self.deficits.get(key).copied().unwrap_or((0, self.time));
        deficit.saturating_sub(self.time - since)
    }

    fn user(&mut self, user: &UserId) -> Result<&mut User, Refusal> {
        let user = self.users.get_mut(user).filter(|user| !user.devices.is_empty());
        user.ok_or(Refusal::UnknownUser)
    }

    fn device(&mut self, user: &UserId, device: DeviceId) -> Result<&mut Device, Refusal> {
        let found = self.user(user)?.devices.get_mut(&device);
        found.ok_or(Refusal::UnknownDevice { device })
    }

    pub(super) fn answer(&self, query: &Query) -> Answer {
        let known = |user: &UserId| self.users.get(user).filter(|user| !user.devices.is_empty());
        match query {
            Query::Status { user, device } => {
                let device = known(user).and_then(|user| user.devices.get(device));
                Answer::Status(device.map(|device| DeviceStatus {
                    registration: device.registered.registration,
                    seq: Seq(device.seq()),
                    epoch: self.epoch,
                    pool: device.state(),
                    signed_prekey_accepted: TimestampMs(device.signed_at),
                    ids: ranges(&device.pool),
                    digest: pool_digest(
                        &device.signed,
                        &device.pool.iter().cloned().collect::<Vec<_>>(),
                    ),
                }))
            }
            Query::Summary { user, device } => {
                let found = known(user).and_then(|user| {
                    let list = user.lists.last().map(|list| list.seq);
                    user.devices.get(device).map(|device| (device, list))
                });
                Answer::Summary(found.map(|(device, device_list_seq)| DeviceSummary {
                    registration: device.registered.registration,
                    pool: device.state(),
                    signed_prekey_accepted: TimestampMs(device.signed_at),
                    device_list_seq,
                }))
            }
            Query::User { user: id } => Answer::User(known(id).map(|user| UserView {
                user: id.clone(),
                devices: user.devices.values().map(Device::view).collect(),
                device_list: user.lists.last().cloned(),
            })),
            Query::Peek { user, devices } => Answer::Peek(known(user).and_then(|user| {
                let all = user.devices.keys().copied().collect();
                let named = devices.clone().unwrap_or(all);
                let found = named.iter().map(|device| user.devices.get(device));
                let found = found.collect::<Option<Vec<_>>>()?;
                let devices = found.iter().map(|d| (d.view(), d.signed.clone())).collect();
                let device_list_seq = user.lists.last().map(|list| list.seq);
                Some(PeekedBundles { device_list_seq, devices })
            })),
        }
    }
}

type Bucket = ((UserId, Option<CallerId>), BucketPolicy);

fn buckets(policy: &Policy, command: &Dispense) -> Vec<Bucket> {
    let both = [
        ((command.user.clone(), Some(command.caller.clone())), policy.per_caller),
        ((command.user.clone(), None), policy.per_target),
    ];
    both.into_iter().filter(|(_, bucket)| bucket.capacity > 0 && bucket.refill_ms > 0).collect()
}

fn fresh(device: &Device, given: Seq) -> Result<(), Refusal> {
    let last = device.last().0.seq;
    if given > last { Ok(()) } else { Err(Refusal::StaleSeq { given, last }) }
}

fn signed_for(device: &Device, registration: RegistrationId) -> Result<(), Refusal> {
    let current = device.registration();
    if registration == current { Ok(()) } else { Err(Refusal::OtherRegistration { current }) }
}

fn growing(keys: &[OneTimePreKey], floor: Option<OneTimePreKeyId>) -> Result<(), Refusal> {
    let mut conflicts = Vec::new();
    for (place, key) in keys.iter().enumerate() {
        let taken = keys[..place].iter().map(|key| key.id).chain(floor);
        if taken.max().is_some_and(|taken| key.id <= taken) {
            conflicts.push(key.id);
        }
    }
    if conflicts.is_empty() {
        return Ok(());
    }
    let highest = floor.unwrap_or(OneTimePreKeyId(0));
    Err(Refusal::OneTimePreKeyIdsNotGrowing { conflicts, highest })
}

fn chained(epoch: Epoch, lists: &[DeviceList], list: &DeviceList) -> Result<(), Refusal> {
    if let Some(first) = lists.first()
        && first.account_key != list.account_key
    {
        return Err(Refusal::DeviceListOtherAccount);
    }
    if lists.last() == Some(list) {
        return Ok(());
    }
    let expected = Seq(lists.last().map_or(0, |last| last.seq.0) + 1);
    if epoch > Epoch::FIRST && list.seq > expected {
        return Ok(());
    }
    if list.seq != expected {
        return Err(Refusal::DeviceListOutOfOrder { given: list.seq, expected });
    }
    if list.prev_hash != lists.last().map_or([0; 32], |last| last.hash) {
        return Err(Refusal::DeviceListBrokenChain);
    }
    Ok(())
}

fn ranges(pool: &VecDeque<OneTimePreKey>) -> Vec<(OneTimePreKeyId, OneTimePreKeyId)> {
    let ids: Vec<u32> = pool.iter().map(|key| key.id.0).collect();
    let starts = ids.iter().filter(|id| !ids.contains(&(*id - 1)));
    let ends = ids.iter().filter(|id| !ids.contains(&(*id + 1)));
    starts.zip(ends).map(|(a, b)| (OneTimePreKeyId(*a), OneTimePreKeyId(*b))).collect()
}
