//! A server in the process, for tests: honest by default, and as unreliable or dishonest as a
//! test asks.
//!
//! It keeps to the contract as the client relies on it: ids only grow, the same bytes under the
//! same `seq` get the same answer, and so does a fetch under the same idempotency key.

mod events;

use std::{collections::BTreeMap, sync::Arc};

use oncekey_api::{
    Base64, Code, Problem,
    bundle::{
        Bundle, Fetch, FetchMany, Fetched, FetchedMany, OneTimePreKeyStatus, Route as BundleRoute,
        UserFetch, UserOutcome, UserResult,
    },
    device::{AddOneTimePreKeys, Pool, Register, Registered, ReplaceSignedPreKey, Status},
    key::{DeviceList, IdentityKey, OneTimePreKey, SignedPreKey},
    problem::Members,
    report::Report,
    user::{Device, DeviceListPut, User},
};
use oncekey_types::{
    DeviceId, Epoch, OneTimePreKeyId, RegistrationId, RequestId, Seq, ShardId, TimestampMs, UserId,
};
use oncekey_x3dh::device_list::DeviceList as Parsed;
use parking_lot::Mutex;
use serde::de::DeserializeOwned;

use crate::transport::{
    Answer, Attempt, AttemptFailure, Attempts, Call, CallError, Method, Route, Transport, Verdict,
    decode,
};

/// What happens to the next call.
#[derive(Clone, Debug)]
pub(crate) enum Fault {
    /// It does not arrive.
    LoseRequest,
    /// It is carried out and the reply is lost.
    LoseReply,
    /// It is refused.
    Refuse(Problem),
}

type Tamper = Box<dyn FnMut(&mut Fetched) + Send>;

#[derive(Clone, Default)]
pub(crate) struct FakeServer(Arc<Mutex<Inner>>);

#[derive(Default)]
struct Inner {
    users: BTreeMap<UserId, Account>,
    answered: BTreeMap<RequestId, Fetched>,
    calls: Vec<Call>,
    faults: Vec<Fault>,
    /// Calls that go well before the faults.
    spared: usize,
    tamper: Option<Tamper>,
    reissue: bool,
    registrations: u32,
    as_of: Option<TimestampMs>,
    low_watermark: Option<u32>,
    reports: Vec<Report>,
    epoch: Epoch,
    backup: BTreeMap<UserId, Account>,
    streams: events::Streams,
}

#[derive(Clone, Default)]
struct Account {
    devices: BTreeMap<DeviceId, Entry>,
    list: Option<DeviceList>,
}

#[derive(Clone)]
struct Entry {
    registration: RegistrationId,
    register: Register,
    spk: SignedPreKey,
    pool: BTreeMap<OneTimePreKeyId, OneTimePreKey>,
    highest: Option<OneTimePreKeyId>,
    last: (Seq, Vec<u8>, Vec<u8>),
}

type Reply = Result<Vec<u8>, Problem>;

impl FakeServer {
    pub(crate) fn next(&self, fault: Fault) {
        self.0.lock().faults.push(fault);
    }

    /// The same, after so many calls that go well.
    pub(crate) fn after(&self, calls: usize, fault: Fault) {
        let mut inner = self.0.lock();
        inner.spared = calls;
        inner.faults.push(fault);
    }

    /// Changes every answer to a fetch on its way out.
    pub(crate) fn tamper(&self, tamper: impl FnMut(&mut Fetched) + Send + 'static) {
        self.0.lock().tamper = Some(Box::new(tamper));
    }

    /// Hands the same key out for ever.
    pub(crate) fn reissue(&self) {
        self.0.lock().reissue = true;
    }

    /// Answers a call that came another way than through [`Transport`].
    pub(crate) fn answer(&self, call: &Call) -> Result<Vec<u8>, Problem> {
        let mut inner = self.0.lock();
        inner.calls.push(call.clone());
        inner.handle(call)
    }

    pub(crate) fn calls(&self) -> Vec<Call> {
        self.0.lock().calls.clone()
    }

    /// Ids in the pool of a device.
    pub(crate) fn pool(&self, user: &str, device: u32) -> Vec<u32> {
        let inner = self.0.lock();
        let entry = &inner.users[user].devices[&DeviceId(device)];
        entry.pool.keys().map(|id| id.0).collect()
    }

    /// Raises what the server believes to be used by a device, as another copy of it would.
    pub(crate) fn advance(&self, user: &str, device: u32, seq: u64, spk: u32, opk: u32) {
        let mut inner = self.0.lock();
        let account = inner.users.get_mut(user).unwrap();
        let entry = account.devices.get_mut(&DeviceId(device)).unwrap();
        entry.last = (Seq(seq), Vec::new(), Vec::new());
        entry.spk.id.0 = spk;
        entry.highest = Some(OneTimePreKeyId(opk));
    }

    /// Goes on with a device's numbers as if another copy of it had written, without new keys.
    pub(crate) fn move_on(&self, user: &str, device: u32, ahead: u32) {
        let mut inner = self.0.lock();
        let account = inner.users.get_mut(user);
        let entry = account.and_then(|account| account.devices.get_mut(&DeviceId(device)));
        if let Some(entry) = entry {
            entry.last = (Seq(entry.last.0.0 + u64::from(ahead)), Vec::new(), Vec::new());
            entry.spk.id.0 += ahead;
            entry.highest = Some(OneTimePreKeyId(entry.highest.map_or(0, |id| id.0) + ahead));
        }
    }

    /// No more faults.
    pub(crate) fn clear_up(&self) {
        let mut inner = self.0.lock();
        inner.faults.clear();
        inner.spared = 0;
    }

    /// Asks devices to keep more than so many keys.
    pub(crate) fn low_watermark(&self, low_watermark: u32) {
        self.0.lock().low_watermark = Some(low_watermark);
    }

    /// Answers as a node without a quorum does, or no longer.
    pub(crate) fn cut_off(&self, as_of: Option<TimestampMs>) {
        self.0.lock().as_of = as_of;
    }

    /// What devices have reported.
    pub(crate) fn reports(&self) -> Vec<Report> {
        self.0.lock().reports.clone()
    }

    /// Takes a backup.
    pub(crate) fn back_up(&self) {
        let mut inner = self.0.lock();
        inner.backup = inner.users.clone();
    }

    /// Is another server, made from the backup.
    pub(crate) fn restore(&self, epoch: Epoch) {
        let mut inner = self.0.lock();
        inner.epoch = epoch;
        inner.users = inner.backup.clone();
        inner.answered.clear();
        inner.registrations += 1000;
        let accounts = inner.users.values_mut();
        accounts
            .flat_map(|account| account.devices.values_mut())
            .for_each(|device| device.pool.clear());
    }

    /// Says that it is in this epoch, and does nothing else.
    pub(crate) fn claim(&self, epoch: Epoch) {
        self.0.lock().epoch = epoch;
    }

    /// Takes a device off, as an operator does.
    pub(crate) fn remove(&self, user: &str, device: u32) {
        let mut inner = self.0.lock();
        inner.users.get_mut(user).unwrap().devices.remove(&DeviceId(device));
    }

    pub(crate) fn forget(&self, user: &str) {
        self.0.lock().users.remove(user);
    }

    pub(crate) fn put_list(&self, user: &str, list: Option<DeviceList>) {
        self.0.lock().users.get_mut(user).unwrap().list = list;
    }

    pub(crate) fn list(&self, user: &str) -> Option<DeviceList> {
        self.0.lock().users[user].list.clone()
    }
}

impl Transport for FakeServer {
    fn epoch(&self) -> Option<Epoch> {
        Some(self.0.lock().epoch)
    }

    async fn call<R: DeserializeOwned + Send>(&self, call: &Call) -> Result<Answer<R>, CallError> {
        let mut inner = self.0.lock();
        inner.calls.push(call.clone());
        let fault = match inner.spared.checked_sub(1) {
            Some(spared) => {
                inner.spared = spared;
                None
            }
            None => (!inner.faults.is_empty()).then(|| inner.faults.remove(0)),
        };
        let reply = match fault {
            Some(Fault::LoseRequest) => Err(AttemptFailure::Connect),
            Some(Fault::Refuse(problem)) => Err(AttemptFailure::Problem(problem)),
            Some(Fault::LoseReply) => {
                let _ = inner.handle(call);
                Err(AttemptFailure::Timeout)
            }
            None => match inner.handle(call) {
                Ok(body) => decode(200, &body),
                Err(problem) => Err(AttemptFailure::Problem(problem)),
            },
        };
        let mut attempts = Attempts::default();
        attempts.push(Attempt {
            endpoint: "fake:1".into(),
            failure: reply.as_ref().err().cloned(),
            took: std::time::Duration::ZERO,
        });
        reply
            .map(|reply| {
                let route = Route { epoch: Some(inner.epoch), ..Route::default() };
                Answer { reply, route, attempts: attempts.clone() }
            })
            .map_err(|failure| match failure.verdict() {
                Verdict::Refused => CallError::Refused { failure, attempts },
                Verdict::NotDone => CallError::Unavailable { failure, attempts },
                Verdict::Unknown => CallError::Unknown { failure, attempts },
            })
    }
}

impl Inner {
    fn handle(&mut self, call: &Call) -> Reply {
        let (path, _query) = call.path.split_once('?').unwrap_or((&call.path, ""));
        if path == oncekey_api::path::BUNDLES {
            return self.fetch_many(call);
        }
        if path == oncekey_api::path::REPORTS {
            self.reports.push(serde_json::from_slice(&call.body).unwrap());
            return Ok(Vec::new());
        }
        let parts: Vec<_> = path.trim_start_matches("/v1/users/").split('/').collect();
        let user = UserId::new(parts[0]).unwrap();
        let device = parts.get(2).map(|id| DeviceId(id.parse().unwrap()));
        match (call.method, parts.get(1).copied(), parts.get(3).copied()) {
            (Method::Get, None, None) => self.user(&user),
            (Method::Post, Some("bundles"), None) => self.fetch(&user, call),
            (Method::Put, Some("device-list"), None) => self.put_device_list(&user, call),
            (Method::Put, Some("devices"), None) => self.register(user, device.unwrap(), call),
            (Method::Delete, Some("devices"), None) => {
                self.entry(&user, device.unwrap())?;
                let account = self.users.get_mut(&user).unwrap();
                account.devices.remove(&device.unwrap());
                Ok(Vec::new())
            }
            (Method::Get, Some("devices"), Some("prekeys")) => {
                let low_watermark = self.low_watermark;
                let epoch = self.epoch;
                let mut status = self.entry(&user, device.unwrap())?.status(epoch);
                status.pool.low_watermark = low_watermark.unwrap_or(status.pool.low_watermark);
                Ok(json(&status))
            }
            (Method::Put, Some("devices"), Some("signed-prekey")) => {
                self.rotate(&user, device.unwrap(), call)
            }
            (Method::Post, Some("devices"), Some("one-time-prekeys")) => {
                self.replenish(&user, device.unwrap(), call)
            }
            other => panic!("no route for {other:?} {}", call.path),
        }
    }

    fn in_epoch(&self, given: Epoch) -> Result<(), Problem> {
        if given == self.epoch {
            return Ok(());
        }
        let members = Members { epoch: Some(self.epoch), ..Members::default() };
        Err(Problem::with(Code::EpochChanged, "another epoch", members))
    }

    fn entry(&mut self, user: &UserId, device: DeviceId) -> Result<&mut Entry, Problem> {
        self.users
            .get_mut(user)
            .and_then(|account| account.devices.get_mut(&device))
            .ok_or_else(|| Problem::new(Code::UnknownDevice, "no such device"))
    }

    fn register(&mut self, user: UserId, device: DeviceId, call: &Call) -> Reply {
        let register: Register = serde_json::from_slice(&call.body).unwrap();
        self.in_epoch(register.epoch)?;
        let current = match self.entry(&user, device) {
            Ok(entry) => match entry.repeated(register.seq, &call.body) {
                Ok(Some(reply)) => return Ok(reply),
                _ => Some(entry.registration),
            },
            Err(_) => None,
        };
        if register.follows != current {
            let members = Members { registration: current, ..Members::default() };
            return Err(Problem::with(Code::RegistrationChanged, "does not follow", members));
        }
        let epoch = self.epoch;
        let account = self.users.entry(user).or_default();
        if let Some(list) = &register.device_list {
            account.follow(list, epoch)?;
        }
        self.registrations += 1;
        let pool = register.one_time_prekeys.iter();
        let mut entry = Entry {
            registration: RegistrationId(self.registrations),
            spk: register.signed_prekey.clone(),
            pool: pool.map(|opk| (opk.id, opk.clone())).collect(),
            highest: register.one_time_prekeys.last().map(|opk| opk.id),
            last: (register.seq, call.body.to_vec(), Vec::new()),
            register,
        };
        let reply = json(&Registered { registration: entry.registration, pool: entry.pool() });
        entry.last.2.clone_from(&reply);
        account.devices.insert(device, entry);
        Ok(reply)
    }

    fn rotate(&mut self, user: &UserId, device: DeviceId, call: &Call) -> Reply {
        let write: ReplaceSignedPreKey = serde_json::from_slice(&call.body).unwrap();
        self.entry(user, device)?;
        self.in_epoch(write.epoch)?;
        let entry = self.entry(user, device)?;
        if let Some(reply) = entry.repeated(write.seq, &call.body)? {
            return Ok(reply);
        }
        if write.signed_prekey.id <= entry.spk.id {
            let members = Members { signed_prekey: Some(entry.spk.id), ..Members::default() };
            return Err(Problem::with(Code::SignedPreKeyIdNotGrowing, "does not grow", members));
        }
        entry.spk = write.signed_prekey;
        Ok(entry.accept(write.seq, call))
    }

    fn replenish(&mut self, user: &UserId, device: DeviceId, call: &Call) -> Reply {
        let write: AddOneTimePreKeys = serde_json::from_slice(&call.body).unwrap();
        self.entry(user, device)?;
        self.in_epoch(write.epoch)?;
        let entry = self.entry(user, device)?;
        if let Some(reply) = entry.repeated(write.seq, &call.body)? {
            return Ok(reply);
        }
        let first = write.one_time_prekeys[0].id;
        if entry.highest.is_some_and(|highest| first <= highest) {
            let members =
                Members { conflicts: vec![first], highest: entry.highest, ..Members::default() };
            return Err(Problem::with(Code::OneTimePreKeyIdsNotGrowing, "do not grow", members));
        }
        for opk in write.one_time_prekeys {
            entry.highest = Some(opk.id);
            entry.pool.insert(opk.id, opk);
        }
        Ok(entry.accept(write.seq, call))
    }

    fn user(&mut self, user: &UserId) -> Reply {
        let account =
            self.users.get(user).ok_or_else(|| Problem::new(Code::UnknownUser, "no such user"))?;
        let devices = account.devices.iter().map(|(device, entry)| Device {
            device: *device,
            registration: entry.registration,
            identity_key: entry.register.identity_key.clone(),
            authentication_key: entry.register.authentication_key.clone(),
            authentication_signature: entry.register.authentication_signature.clone(),
        });
        Ok(json(&User {
            user: user.clone(),
            devices: devices.collect(),
            device_list: account.list.clone(),
            as_of: self.as_of,
        }))
    }

    fn fetch(&mut self, user: &UserId, call: &Call) -> Reply {
        let request = call.idempotency_key.clone().unwrap();
        let fetch = serde_json::from_slice(&call.body).unwrap();
        Ok(json(&self.answer(user, request, &fetch)?))
    }

    fn fetch_many(&mut self, call: &Call) -> Reply {
        let request = call.idempotency_key.clone().unwrap();
        let body: FetchMany = serde_json::from_slice(&call.body).unwrap();
        let results = body.users.into_iter().map(|UserFetch { user, devices }| {
            let request = RequestId::new(format!("{request}-{user}")).unwrap();
            let fetch = Fetch { devices, require_opk: body.require_opk };
            let outcome = match self.answer(&user, request, &fetch) {
                Ok(fetched) => UserOutcome::Fetched(fetched),
                Err(problem) => UserOutcome::Problem(problem),
            };
            let route = BundleRoute { shard: ShardId(0), leader: None, index: None };
            UserResult { user, route, outcome }
        });
        Ok(json(&FetchedMany { results: results.collect() }))
    }

    fn answer(
        &mut self,
        user: &UserId,
        request: RequestId,
        fetch: &Fetch,
    ) -> Result<Fetched, Problem> {
        let mut fetched = match self.answered.get(&request) {
            Some(answer) => Fetched { repeated: true, ..answer.clone() },
            None => {
                let answer = self.dispense(user, fetch)?;
                self.answered.insert(request, answer.clone());
                answer
            }
        };
        if let Some(tamper) = &mut self.tamper {
            tamper(&mut fetched);
        }
        Ok(fetched)
    }

    fn put_device_list(&mut self, user: &UserId, call: &Call) -> Reply {
        let list: DeviceList = serde_json::from_slice(&call.body).unwrap();
        let epoch = self.epoch;
        let account = self.users.entry(user.clone()).or_default();
        account.follow(&list, epoch)?;
        Ok(json(&DeviceListPut { seq: position(&list) }))
    }

    fn dispense(&mut self, user: &UserId, fetch: &Fetch) -> Result<Fetched, Problem> {
        let reissue = self.reissue;
        let account = self
            .users
            .get_mut(user)
            .ok_or_else(|| Problem::new(Code::UnknownUser, "no such user"))?;
        let asked = |device: &DeviceId| {
            let only = fetch.devices.as_ref();
            only.is_none_or(|devices| devices.contains(device))
        };
        let bundles = account
            .devices
            .iter_mut()
            .filter(|(device, _)| asked(device))
            .map(|(device, entry)| entry.bundle(*device, reissue))
            .collect();
        Ok(Fetched {
            user: user.clone(),
            device_list_seq: account.list.as_ref().map(position),
            bundles,
            repeated: false,
            as_of: self.as_of,
        })
    }
}

impl Account {
    fn follow(&mut self, list: &DeviceList, epoch: Epoch) -> Result<(), Problem> {
        if self.list.as_ref() == Some(list) {
            return Ok(());
        }
        if self.list.as_ref().is_some_and(|old| old.account_key != list.account_key) {
            return Err(Problem::new(Code::DeviceListOtherAccount, "another account key"));
        }
        let expected = self.list.as_ref().map_or(1, |old| position(old).0 + 1);
        let is_lost = !epoch.is_first() && position(list) > Seq(expected);
        if position(list) != Seq(expected) && !is_lost {
            return Err(Problem::new(Code::DeviceListOutOfOrder, "not the next"));
        }
        self.list = Some(list.clone());
        Ok(())
    }
}

fn position(list: &DeviceList) -> Seq {
    Parsed::from_bytes(&list.list.0).unwrap().seq()
}

impl Entry {
    fn repeated(&self, seq: Seq, body: &[u8]) -> Result<Option<Vec<u8>>, Problem> {
        let (last, last_body, reply) = &self.last;
        if seq > *last {
            return Ok(None);
        }
        if seq == *last && body == last_body {
            return Ok(Some(reply.clone()));
        }
        let members = Members { seq: Some(*last), ..Members::default() };
        Err(Problem::with(Code::StaleSeq, "used before", members))
    }

    fn accept(&mut self, seq: Seq, call: &Call) -> Vec<u8> {
        let reply = json(&self.pool());
        self.last = (seq, call.body.to_vec(), reply.clone());
        reply
    }

    fn pool(&self) -> Pool {
        Pool {
            count: u32::try_from(self.pool.len()).unwrap(),
            low_watermark: 1,
            signed_prekey: self.spk.id,
            highest_accepted: self.highest,
        }
    }

    fn status(&self, epoch: Epoch) -> Status {
        Status {
            epoch,
            registration: self.registration,
            seq: self.last.0,
            pool: self.pool(),
            signed_prekey_age_ms: 0,
            ids: self.pool.keys().map(|id| (*id, *id)).collect(),
            digest: Base64::default(),
        }
    }

    fn bundle(&mut self, device: DeviceId, reissue: bool) -> Bundle {
        let first = self.pool.keys().next().copied();
        let opk = first.and_then(|id| match reissue {
            true => self.pool.get(&id).cloned(),
            false => self.pool.remove(&id),
        });
        let identity_key: IdentityKey = self.register.identity_key.clone();
        Bundle {
            device,
            registration: self.registration,
            identity_key,
            signed_prekey: self.spk.clone(),
            one_time_prekey_status: match opk {
                Some(_) => OneTimePreKeyStatus::Issued,
                None => OneTimePreKeyStatus::Exhausted,
            },
            one_time_prekey: opk,
        }
    }
}

fn json(value: &impl serde::Serialize) -> Vec<u8> {
    serde_json::to_vec(value).unwrap()
}
