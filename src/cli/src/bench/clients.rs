//! The closed loop: clients that ask, wait, and ask again.
//!
//! Guarantees: a request whose answer did not arrive is sent again, to the next endpoint and under
//! the same idempotency key, until it is answered or [`PATIENCE`] is over; unknown is never counted
//! as failed. Every key that comes is checked against all others.
//!
//! Leaves out: going straight to a shard's leader, unless that is asked for. Each client stays with
//! its endpoint while that answers, so most fetches travel one hop between nodes; so a stranger's
//! would.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use oncekey_api::{bundle::OneTimePreKeyStatus, header, path};
use oncekey_types::{OneTimePreKeyId, Slot};
use serde::{Deserialize, Serialize};
use tokio::{
    task::JoinSet,
    time::{sleep, timeout},
};

use super::{
    leaders::Leaders,
    measure::Plan,
    population::{Claim, Population, Receipt},
    wire::{Address, Connection, ExchangeError, HOST, write_request},
};

/// Time for one attempt; longer than a node takes to give up.
const ATTEMPT_LIMIT: Duration = Duration::from_secs(4);
/// Time after which a request that nobody answers is given up.
const PATIENCE: Duration = Duration::from_secs(30);
/// Pause before a request is sent again.
const RETRY_PAUSE: Duration = Duration::from_millis(2);

/// What the clients ask for.
#[derive(Clone)]
pub(super) enum Work {
    /// Keys.
    Pops(Arc<Population>),
    /// An answer, whatever it is.
    Nothing,
}

/// One answered request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Sample {
    /// When the answer came, since the clients began.
    pub(super) at_us: u32,
    /// How long it took, retries included.
    pub(super) took_us: u32,
}

/// What became of requests, besides a key.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize)]
pub(super) struct Counts {
    /// Requests that were sent again.
    pub(super) retries: u64,
    /// Keys that came twice.
    pub(super) double_issues: u64,
    /// Keys that were never published.
    pub(super) foreign_keys: u64,
    /// Answers without a key although there was one.
    pub(super) without_key: u64,
    /// Requests that were refused.
    pub(super) refused: u64,
    /// Requests that nobody answered in time.
    pub(super) unanswered: u64,
}

impl Counts {
    pub(super) fn add(&mut self, other: Self) {
        let Self { retries, double_issues, foreign_keys, without_key, refused, unanswered } = other;
        self.retries += retries;
        self.double_issues += double_issues;
        self.foreign_keys += foreign_keys;
        self.without_key += without_key;
        self.refused += refused;
        self.unanswered += unanswered;
    }
}

/// What one client saw.
#[derive(Debug, Default)]
pub(super) struct Trace {
    pub(super) samples: Vec<Sample>,
    pub(super) counts: Counts,
}

/// Clients at work.
pub(super) struct Clients {
    pub(super) began: Instant,
    tasks: JoinSet<Result<Trace>>,
}

impl Clients {
    /// Starts clients that begin their last request before the plan's time is over.
    pub(super) fn start(work: &Work, endpoints: &Arc<[Address]>, plan: Plan) -> Self {
        let Plan { clients: number, leader_first, .. } = plan;
        let length = plan.length();
        let leaders = leader_first.then(|| Arc::new(Leaders::new(Arc::clone(endpoints))));
        let began = Instant::now();
        let mut tasks = JoinSet::new();
        for client in 0..usize::from(number) {
            let client = Client {
                work: work.clone(),
                endpoint: client % endpoints.len(),
                endpoints: Arc::clone(endpoints),
                leaders: leaders.clone(),
                connections: endpoints.iter().map(|_| None).collect(),
                request: Vec::new(),
                trace: Trace::default(),
            };
            tasks.spawn(client.run(began, length));
        }
        Self { began, tasks }
    }

    /// What all clients saw, once the last one has its answer.
    pub(super) async fn join(mut self) -> Result<Vec<Trace>> {
        let mut traces = Vec::new();
        while let Some(trace) = self.tasks.join_next().await {
            traces.push(trace.context("a client broke down")??);
        }
        Ok(traces)
    }
}

struct Client {
    work: Work,
    endpoints: Arc<[Address]>,
    /// Position of the endpoint that is asked when no leader is known.
    endpoint: usize,
    leaders: Option<Arc<Leaders>>,
    /// One for each endpoint, once it was asked.
    connections: Vec<Option<Connection>>,
    request: Vec<u8>,
    trace: Trace,
}

/// What an answer means.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Verdict {
    Issued(OneTimePreKeyId),
    /// Any answer to a request for [`Work::Nothing`].
    Done,
    /// Whether the request was carried out is unknown, or it was not.
    Again,
    WithoutKey,
    Refused,
}

impl Client {
    async fn run(mut self, began: Instant, length: Duration) -> Result<Trace> {
        let mut started = began.elapsed();
        while started < length {
            let claim = match &self.work {
                Work::Nothing => None,
                Work::Pops(population) => match population.claim() {
                    Some(claim) => Some(claim),
                    None => break,
                },
            };
            let slot = self.write(claim)?;
            let verdict = self.answer(slot).await;
            let ended = began.elapsed();
            self.note(claim, verdict);
            if matches!(verdict, Some(Verdict::Issued(_) | Verdict::Done)) {
                let took_us = micros(ended.saturating_sub(started));
                self.trace.samples.push(Sample { at_us: micros(ended), took_us });
            }
            started = ended;
        }
        Ok(self.trace)
    }

    /// Writes the request; gives the slot of the user that it is about.
    fn write(&mut self, claim: Option<Claim>) -> Result<Option<Slot>> {
        let (path, name, slot) = match (&self.work, claim) {
            (Work::Pops(population), Some(claim)) => {
                let user = population.user_of(claim)?;
                let slot = self.leaders.as_ref().map(|_| Slot::of(&user));
                (path::user_bundles(&user), population.request(claim), slot)
            }
            _ => ("/v1/users/bench-0123456789abcdef-1000/bundles".to_owned(), "1".to_owned(), None),
        };
        let caller = match (&self.work, claim) {
            (Work::Pops(population), Some(claim)) => {
                population.callers().fetching(&name, claim.round)
            }
            _ => (header::CALLER, name.as_str()),
        };
        let headers =
            [("content-type", "application/json"), (header::IDEMPOTENCY_KEY, &name), caller];
        write_request(&mut self.request, "POST", &path, HOST, &headers, b"{}");
        Ok(slot)
    }

    /// The answer to the request; none when nobody gives one.
    async fn answer(&mut self, slot: Option<Slot>) -> Option<Verdict> {
        let mut first = None;
        loop {
            let endpoint = self.leader_of(slot).unwrap_or(self.endpoint);
            match timeout(ATTEMPT_LIMIT, self.attempt(endpoint, slot)).await {
                Ok(Ok(Verdict::Again) | Err(_)) | Err(_) => {}
                Ok(Ok(verdict)) => return Some(verdict),
            }
            if first.get_or_insert_with(Instant::now).elapsed() > PATIENCE {
                return None;
            }
            self.trace.counts.retries += 1;
            // An answer that comes late must not be taken for the next one.
            self.connections[endpoint] = None;
            if endpoint == self.endpoint {
                self.endpoint = (endpoint + 1) % self.endpoints.len();
            }
            if let (Some(leaders), Some(slot)) = (&self.leaders, slot) {
                leaders.forget(slot);
            }
            sleep(RETRY_PAUSE).await;
        }
    }

    fn leader_of(&self, slot: Option<Slot>) -> Option<usize> {
        self.leaders.as_ref()?.of(slot?)
    }

    async fn attempt(
        &mut self,
        endpoint: usize,
        slot: Option<Slot>,
    ) -> Result<Verdict, ExchangeError> {
        let connection = match &mut self.connections[endpoint] {
            Some(connection) => connection,
            none => none.insert(Connection::open(&self.endpoints[endpoint]).await?),
        };
        let reply = connection.exchange(&self.request).await?;
        if let (Some(leaders), Some(slot)) = (&self.leaders, slot) {
            leaders.learn(slot, reply.leader);
        }
        Ok(match self.work {
            Work::Nothing if reply.status == 200 => Verdict::Done,
            Work::Nothing => Verdict::Refused,
            Work::Pops(_) => judge(reply.status, reply.body),
        })
    }

    fn note(&mut self, claim: Option<Claim>, verdict: Option<Verdict>) {
        let counts = &mut self.trace.counts;
        match verdict {
            Some(Verdict::Issued(id)) => {
                if let (Work::Pops(population), Some(claim)) = (&self.work, claim) {
                    match population.receive(claim, id) {
                        Receipt::First => {}
                        Receipt::Again => counts.double_issues += 1,
                        Receipt::Foreign => counts.foreign_keys += 1,
                    }
                }
            }
            Some(Verdict::Done) => {}
            Some(Verdict::WithoutKey) => counts.without_key += 1,
            Some(Verdict::Refused) => counts.refused += 1,
            Some(Verdict::Again) | None => counts.unanswered += 1,
        }
    }
}

/// The part of a reply that counts.
#[derive(Deserialize)]
struct Fetched {
    bundles: Vec<Bundle>,
}

#[derive(Deserialize)]
struct Bundle {
    one_time_prekey: Option<OneTimePreKey>,
    one_time_prekey_status: OneTimePreKeyStatus,
}

#[derive(Deserialize)]
struct OneTimePreKey {
    id: OneTimePreKeyId,
}

/// What the reply to a fetch means.
fn judge(status: u16, body: &[u8]) -> Verdict {
    match status {
        200 => {}
        429 | 500.. => return Verdict::Again,
        _ => return Verdict::Refused,
    }
    let Ok(fetched) = serde_json::from_slice::<Fetched>(body) else { return Verdict::Refused };
    let [bundle] = fetched.bundles.as_slice() else { return Verdict::Refused };
    match (bundle.one_time_prekey_status, &bundle.one_time_prekey) {
        (OneTimePreKeyStatus::Issued, Some(key)) => Verdict::Issued(key.id),
        (OneTimePreKeyStatus::Unavailable, None) => Verdict::Again,
        (OneTimePreKeyStatus::Exhausted | OneTimePreKeyStatus::Withheld, None) => {
            Verdict::WithoutKey
        }
        _ => Verdict::Refused,
    }
}

fn micros(duration: Duration) -> u32 {
    u32::try_from(duration.as_micros()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::TcpListener,
    };

    use super::*;

    fn body(key: &str, status: &str) -> String {
        format!(
            r#"{{"user":"bob","device_list_seq":null,"bundles":[{{"device":1,"registration":1,
            "identity_key":{{"kind":"ed25519","key":"AQ"}},"one_time_prekey":{key},
            "one_time_prekey_status":"{status}"}}],"repeated":false,"as_of":null}}"#
        )
    }

    #[test]
    fn a_reply_means_what_its_status_says() {
        let key = r#"{"id":7,"key":"AQ","signature":"AQ"}"#;
        for (status, body, verdict) in [
            (200, body(key, "issued"), Verdict::Issued(OneTimePreKeyId(7))),
            (200, body("null", "exhausted"), Verdict::WithoutKey),
            (200, body("null", "withheld"), Verdict::WithoutKey),
            (200, body("null", "unavailable"), Verdict::Again),
            // A key that the status denies is nothing to rely on.
            (200, body("null", "issued"), Verdict::Refused),
            (200, body(key, "unavailable"), Verdict::Refused),
            (200, String::new(), Verdict::Refused),
            (404, String::new(), Verdict::Refused),
            (429, String::new(), Verdict::Again),
            (503, String::new(), Verdict::Again),
        ] {
            assert_eq!(judge(status, body.as_bytes()), verdict, "{status} {body}");
        }
    }

    /// A server that issues the key `id` to whoever asks, in every other reply.
    async fn flaky_server(id: u32) -> Address {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            for number in 0.. {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut request = vec![0; 4096];
                let _ = stream.read(&mut request).await;
                if number % 2 == 1 {
                    let key = format!(r#"{{"id":{id}}}"#);
                    let body = body(&key, "issued");
                    let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len());
                    let _ = stream.write_all((head + &body).as_bytes()).await;
                }
            }
        });
        address.into()
    }

    #[tokio::test]
    async fn a_lost_answer_is_asked_for_again_and_a_key_that_comes_twice_is_counted() {
        let population = Arc::new(Population::new(1).grown(1));
        let endpoints = Arc::from([flaky_server(7).await]);
        let work = Work::Pops(Arc::clone(&population));
        let plan =
            Plan { clients: 1, warm_up: Duration::ZERO, duration: PATIENCE, leader_first: true };
        let traces = Clients::start(&work, &endpoints, plan).join().await.unwrap();
        let [trace] = traces.as_slice() else { panic!("{traces:?}") };
        // The only user has 200 keys; the server gives one of them again and again.
        assert_eq!(trace.samples.len(), 200);
        assert_eq!(trace.counts.double_issues, 199, "{:?}", trace.counts);
        assert!(trace.counts.retries >= 200, "{:?}", trace.counts);
    }
}
