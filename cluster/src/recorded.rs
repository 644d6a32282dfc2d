//! A transport whose calls are recorded.
//!
//! Guarantees: every call that fetches, writes or reads prekeys is in the history, before it is
//! sent and after it has ended, whatever the client on top makes of the answer. What is recorded
//! is what was on the wire. A refusal that follows an attempt without an answer is recorded as
//! unknown: the earlier attempt may still arrive.
//!
//! Leaves out: other calls, which hand out nothing and change no pool; they pass through.

use oncekey_api::{
    Problem,
    bundle::{Bundle as WireBundle, Fetch, Fetched, OneTimePreKeyStatus},
    device::{
        AddOneTimePreKeys, Pool as WirePool, Register, Registered, ReplaceSignedPreKey, Status,
    },
    path,
};
use oncekey_client::transport::{
    Answer, AttemptFailure, Attempts, Call as WireCall, CallError, Method, Route, Transport,
    Verdict,
};
use oncekey_types::{CallerId, DeviceId, Epoch, Seq, UserId};
use percent_encoding::percent_decode_str;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::history::{
    Recorder,
    record::{Bundle, Call, Digest, Issue, Opk, Outcome, Place, Pool, Spk},
};

/// Carries calls as `T` does, and records them.
#[derive(Clone, Debug)]
pub struct Recorded<T> {
    inner: T,
    recorder: Recorder,
    client: CallerId,
}

impl<T> Recorded<T> {
    /// Records what `client` sends through `inner`.
    pub fn new(inner: T, recorder: Recorder, client: CallerId) -> Self {
        Self { inner, recorder, client }
    }
}

impl<T: Transport> Transport for Recorded<T> {
    fn epoch(&self) -> Option<Epoch> {
        self.inner.epoch()
    }

    fn expect_epoch(&self, least: Epoch) {
        self.inner.expect_epoch(least);
    }

    async fn call<R: DeserializeOwned + Send>(
        &self,
        call: &WireCall,
    ) -> Result<Answer<R>, CallError> {
        let Some(asked) = asked(call) else { return self.inner.call(call).await };
        let op = self.recorder.invoke(self.client.as_str(), None, asked.clone());
        let result = self.inner.call::<Value>(call).await;
        let attempts = match &result {
            Ok(answer) => &answer.attempts,
            Err(error) => error.attempts(),
        };
        let node = attempts.iter().last().map(|last| last.endpoint.clone());
        let sent = u32::try_from(attempts.len()).unwrap_or(u32::MAX);
        let outcome = match &result {
            Ok(answer) => told(&asked, &answer.reply, place(&answer.route)),
            Err(error) => failed(error),
        };
        self.recorder.complete(op, node, sent, outcome);
        let Answer { reply, route, attempts } = result?;
        match serde_json::from_value(reply) {
            Ok(reply) => Ok(Answer { reply, route, attempts }),
            Err(_) => Err(CallError::Unknown { failure: AttemptFailure::ReplyMalformed, attempts }),
        }
    }
}

/// What a call asks for, in the words of a history; none for a call that is not recorded.
fn asked(call: &WireCall) -> Option<Call> {
    let target = Target::parse(&call.path)?;
    let Target { user, device, seq, .. } = target;
    let body = &call.body;
    match (call.method, target.what) {
        (Method::Post, What::Bundles) => {
            let request = call.idempotency_key.clone()?;
            let Fetch { devices, require_opk } = serde_json::from_slice(body).ok()?;
            Some(Call::Fetch { user, request, devices, require_opk })
        }
        (Method::Put, What::Device) => {
            let body: Register = serde_json::from_slice(body).ok()?;
            Some(Call::Register {
                user,
                device: device?,
                seq: body.seq,
                identity: Digest::of_identity(&body.identity_key),
                spk: (&body.signed_prekey).into(),
                opks: body.one_time_prekeys.iter().map(Opk::from).collect(),
            })
        }
        (Method::Post, What::OneTimePreKeys) => {
            let body: AddOneTimePreKeys = serde_json::from_slice(body).ok()?;
            let opks = body.one_time_prekeys.iter().map(Opk::from).collect();
            Some(Call::Upload { user, device: device?, seq: body.seq, opks })
        }
        (Method::Put, What::SignedPreKey) => {
            let body: ReplaceSignedPreKey = serde_json::from_slice(body).ok()?;
            let spk = Spk::from(&body.signed_prekey);
            Some(Call::Rotate { user, device: device?, seq: body.seq, spk })
        }
        (Method::Delete, What::Device) => Some(Call::Remove { user, device: device?, seq }),
        (Method::Get, What::PreKeys) => Some(Call::Status { user, device: device? }),
        _ => None,
    }
}

/// What a path leads to.
struct Target {
    user: UserId,
    device: Option<DeviceId>,
    seq: Option<Seq>,
    what: What,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum What {
    Bundles,
    Device,
    SignedPreKey,
    OneTimePreKeys,
    PreKeys,
}

impl Target {
    fn parse(path: &str) -> Option<Self> {
        let (path, query) = path.split_once('?').unwrap_or((path, ""));
        let seq = query.strip_prefix("seq=").and_then(|seq| seq.parse().ok());
        let routes = [
            (path::USER_BUNDLES, What::Bundles),
            (path::DEVICE, What::Device),
            (path::SIGNED_PREKEY, What::SignedPreKey),
            (path::ONE_TIME_PREKEYS, What::OneTimePreKeys),
            (path::PREKEYS, What::PreKeys),
        ];
        routes.into_iter().find_map(|(route, what)| {
            let (mut user, mut device) = (None, None);
            let mut segments = path.split('/');
            for expected in route.split('/') {
                let segment = segments.next()?;
                match expected {
                    "{user}" => {
                        let text = percent_decode_str(segment).decode_utf8().ok()?;
                        user = Some(UserId::new(text).ok()?);
                    }
                    "{device}" => device = Some(segment.parse().ok()?),
                    expected if expected == segment => {}
                    _ => return None,
                }
            }
            if segments.next().is_some() {
                return None;
            }
            Some(Self { user: user?, device, seq, what })
        })
    }
}

/// What a reply to `call` says. One that cannot be read says nothing.
fn told(call: &Call, reply: &Value, at: Place) -> Outcome {
    let read =
        match call {
            Call::Fetch { .. } => fetched(reply, at),
            Call::Register { .. } => {
                parse::<Registered>(reply).map(|Registered { registration, pool }| {
                    Outcome::Written { at, registration: Some(registration), pool: pool_of(&pool) }
                })
            }
            Call::Upload { .. } | Call::Rotate { .. } => parse::<WirePool>(reply)
                .map(|pool| Outcome::Written { at, registration: None, pool: pool_of(&pool) }),
            Call::Remove { .. } => Some(Outcome::Removed { at }),
            Call::Status { .. } => parse::<Status>(reply).map(|status| Outcome::Status {
                at,
                registration: status.registration,
                pool: pool_of(&status.pool),
                ids: status.ids,
            }),
        };
    read.unwrap_or_else(|| Outcome::Unknown { why: "the reply is malformed".to_owned() })
}

fn fetched(reply: &Value, at: Place) -> Option<Outcome> {
    let fetched: Fetched = parse(reply)?;
    let bundles: Vec<_> = fetched.bundles.iter().map(bundle).collect::<Option<_>>()?;
    Some(match fetched.as_of {
        Some(_) => Outcome::Unavailable { bundles },
        None => Outcome::Fetched { at, repeated: fetched.repeated, bundles },
    })
}

/// None when key and status contradict each other.
fn bundle(bundle: &WireBundle) -> Option<Bundle> {
    let opk = match (&bundle.one_time_prekey, bundle.one_time_prekey_status) {
        // A key is a key, whatever stands beside it.
        (Some(opk), _) => Issue::Issued(opk.into()),
        (None, OneTimePreKeyStatus::Exhausted) => Issue::Exhausted,
        (None, OneTimePreKeyStatus::Withheld) => Issue::Withheld,
        (None, OneTimePreKeyStatus::Unavailable) => Issue::Unavailable,
        (None, OneTimePreKeyStatus::Issued) => return None,
    };
    Some(Bundle {
        device: bundle.device,
        registration: bundle.registration,
        identity: Digest::of_identity(&bundle.identity_key),
        spk: (&bundle.signed_prekey).into(),
        opk,
    })
}

/// What a failed call says. Its last attempt was refused, or none was carried out, or who knows.
fn failed(error: &CallError) -> Outcome {
    let why = error.to_string();
    match error {
        CallError::Refused { failure: AttemptFailure::Problem(problem), attempts }
            if is_certain(attempts) =>
        {
            refused(problem)
        }
        CallError::Refused { failure, attempts } if is_certain(attempts) => {
            Outcome::Refused { code: failure.kind().to_owned(), device: None, exhausted: false }
        }
        CallError::Unavailable { .. } => Outcome::NotDone { why },
        // Refused after an attempt that may still arrive, unknown, and what the enum may gain.
        _ => Outcome::Unknown { why },
    }
}

/// Whether no attempt may have been carried out.
fn is_certain(attempts: &Attempts) -> bool {
    let unknown = |failure: &AttemptFailure| failure.verdict() == Verdict::Unknown;
    !attempts.iter().filter_map(|attempt| attempt.failure.as_ref()).any(unknown)
}

fn refused(problem: &Problem) -> Outcome {
    Outcome::Refused {
        code: problem.code.as_str().to_owned(),
        device: problem.members.device,
        exhausted: problem.members.one_time_prekey_status == Some(OneTimePreKeyStatus::Exhausted),
    }
}

fn pool_of(pool: &WirePool) -> Pool {
    Pool { count: pool.count, spk: pool.signed_prekey, highest: pool.highest_accepted }
}

fn place(route: &Route) -> Place {
    Place { shard: route.shard, index: route.index, leader: route.leader.clone() }
}

fn parse<R: DeserializeOwned>(reply: &Value) -> Option<R> {
    R::deserialize(reply).ok()
}
