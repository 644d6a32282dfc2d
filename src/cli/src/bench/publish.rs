//! What happens before and after the load: publishing keys, and taking stock.
//!
//! Guarantees: the keys are real, made and signed by the client library; a node verifies every one
//! of them. These three are what publishing costs, and keep all cores busy: no key is made or signed
//! on the threads that drive the requests. Leaves out: the secrets of prekeys, which are erased at once.

use std::{
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow};
use oncekey_api::{device::Status, header, path};
use oncekey_client::{Lifetimes, keystore::DeviceState, machine::Signing, transport::Method};
use oncekey_types::{Epoch, OneTimePreKeyId, Seq, SignedPreKeyId};
use serde::Serialize;
use tokio::{
    task::JoinSet,
    time::{sleep, timeout},
};

use super::{
    callers::{self, Callers, Shown},
    population::{DEVICE, KEYS_PER_USER, Population},
    progress::Progress,
    wire::{Address, Connection, ExchangeError, HOST, write_request},
};

/// Requests in flight.
const WORKERS: usize = 16;
/// Time for one attempt.
const ATTEMPT_LIMIT: Duration = Duration::from_secs(15);
/// Time after which a request that nobody takes is given up.
const PATIENCE: Duration = Duration::from_secs(30);
/// Pause before a request is sent again.
const RETRY_PAUSE: Duration = Duration::from_millis(50);

/// Publishes `users` more users.
pub(super) async fn grow(
    population: &Population,
    endpoints: &Arc<[Address]>,
    users: u64,
) -> Result<Population> {
    let first = population.users();
    let grown = Arc::new(population.grown(users));
    let numbers = Arc::new(Numbers::new(first..first + users));
    let progress = Progress::start("publishing", users, KEYS_PER_USER.into(), "keys");
    let mut workers = JoinSet::new();
    for worker in 0..WORKERS {
        let (population, numbers) = (Arc::clone(&grown), Arc::clone(&numbers));
        let progress = progress.clone();
        let mut sender = Sender::new(endpoints, worker);
        workers.spawn(async move {
            while let Some(number) = numbers.next() {
                let population = Arc::clone(&population);
                let ask = tokio::task::spawn_blocking(move || registration(&population, number));
                sender.send(&ask.await??).await.context("a user cannot be published")?;
                progress.step();
            }
            anyhow::Ok(())
        });
    }
    while let Some(ended) = workers.join_next().await {
        ended??;
    }
    progress.finish();
    Arc::into_inner(grown).context("a publisher goes on")
}

/// Keys that the nodes used up and that no client got, and keys that clients got and the nodes still
/// hold. Both must be zero, user by user.
pub(super) async fn take_stock(
    population: &Arc<Population>,
    endpoints: &Arc<[Address]>,
) -> Result<Stock> {
    let visited: Arc<[(u64, u32)]> = population.visited().collect();
    let numbers = Arc::new(Numbers::new(0..u64::try_from(visited.len())?));
    let progress = Progress::start("taking stock", u64::try_from(visited.len())?, 1, "users");
    let mut workers = JoinSet::new();
    for worker in 0..WORKERS {
        let (population, numbers) = (Arc::clone(population), Arc::clone(&numbers));
        let (visited, progress) = (Arc::clone(&visited), progress.clone());
        let mut sender = Sender::new(endpoints, worker);
        workers.spawn(async move {
            let mut stock = Stock::default();
            while let Some(position) = numbers.next() {
                let (number, came) = visited[usize::try_from(position)?];
                let ask = status(&population, number)?;
                let reply = sender.send(&ask).await.context("a pool is not known")?;
                let status: Status = serde_json::from_slice(&reply)?;
                stock.add_user(KEYS_PER_USER.saturating_sub(status.pool.count), came);
                progress.step();
            }
            anyhow::Ok(stock)
        });
    }
    let mut stock = Stock::default();
    while let Some(ended) = workers.join_next().await {
        stock.add(ended??);
    }
    progress.finish();
    Ok(stock)
}

/// What came, compared with what the nodes say is gone.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize)]
pub(super) struct Stock {
    /// Keys that came to a client.
    pub(super) delivered: u64,
    /// Keys that the nodes used up and that came to nobody.
    pub(super) undelivered: u64,
    /// Keys that came to a client and that the nodes still hold.
    pub(super) still_held: u64,
}

impl Stock {
    /// Adds a user of whose keys `used` are gone and `came` came.
    fn add_user(&mut self, used: u32, came: u32) {
        self.delivered += u64::from(came);
        self.undelivered += u64::from(used.saturating_sub(came));
        self.still_held += u64::from(came.saturating_sub(used));
    }

    fn add(&mut self, other: Self) {
        self.delivered += other.delivered;
        self.undelivered += other.undelivered;
        self.still_held += other.still_held;
    }
}

/// Numbers that several workers share.
struct Numbers {
    next: AtomicU64,
    end: u64,
}

impl Numbers {
    fn new(range: Range<u64>) -> Self {
        Self { next: AtomicU64::new(range.start), end: range.end }
    }

    fn next(&self) -> Option<u64> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        (number < self.end).then_some(number)
    }
}

/// Sends requests that may be sent again until one is answered.
struct Sender {
    endpoints: Arc<[Address]>,
    endpoint: usize,
    connection: Option<Connection>,
    request: Vec<u8>,
}

impl Sender {
    fn new(endpoints: &Arc<[Address]>, number: usize) -> Self {
        let endpoint = number % endpoints.len();
        Self { endpoints: Arc::clone(endpoints), endpoint, connection: None, request: Vec::new() }
    }

    async fn send(&mut self, ask: &Ask) -> Result<Vec<u8>> {
        let started = Instant::now();
        loop {
            ask.write(&mut self.request, &self.endpoints[self.endpoint], started.elapsed());
            let problem = match timeout(ATTEMPT_LIMIT, self.attempt()).await {
                Ok(Ok((200..300, reply))) => return Ok(reply),
                Ok(Ok((status, reply))) => {
                    let text = String::from_utf8_lossy(&reply);
                    let mut problem = anyhow!("{} was answered with {status}: {text}", ask.method);
                    if status == 401 && ask.shown.is_none() {
                        problem = problem.context("the nodes want tokens, see --token-key");
                    }
                    if status < 500 && status != 429 {
                        return Err(problem);
                    }
                    problem
                }
                Ok(Err(error)) => error.into(),
                Err(over) => over.into(),
            };
            if started.elapsed() > PATIENCE {
                return Err(problem);
            }
            self.connection = None;
            self.endpoint = (self.endpoint + 1) % self.endpoints.len();
            sleep(RETRY_PAUSE).await;
        }
    }

    async fn attempt(&mut self) -> Result<(u16, Vec<u8>), ExchangeError> {
        let connection = match &mut self.connection {
            Some(connection) => connection,
            none => none.insert(Connection::open(&self.endpoints[self.endpoint]).await?),
        };
        let reply = connection.exchange(&self.request).await?;
        Ok((reply.status, reply.body.to_vec()))
    }
}

/// A request of a device.
struct Ask {
    method: Method,
    path: String,
    body: Vec<u8>,
    /// What nodes want to be shown, if they do.
    shown: Option<Shown>,
}

impl Ask {
    /// Writes an attempt to the node at `address`, so much `later` than the request was made.
    fn write(&self, out: &mut Vec<u8>, address: &Address, later: Duration) {
        let Self { method, path, body, shown } = self;
        let host = &*address.authority;
        let method_name = method.to_string();
        let json = ("content-type", "application/json");
        let Some(Shown { bearer, signer }) = shown else {
            return write_request(out, &method_name, path, HOST, &[json], body);
        };
        let signed = signer.sign(*method, host, path, body, later);
        let headers = [
            json,
            ("authorization", bearer),
            (header::CONTENT_DIGEST, &signed.content_digest),
            (header::SIGNATURE_INPUT, &signed.signature_input),
            (header::SIGNATURE, &signed.signature),
        ];
        write_request(out, &method_name, path, host, &headers, body);
    }
}

/// Asks how many keys are left of the user with this number.
fn status(population: &Population, number: u64) -> Result<Ask> {
    let user = population.user(number)?;
    let shown = match population.callers() {
        Callers::Named => None,
        proven => proven.shown(&user, &population.device(number)?)?,
    };
    Ok(Ask { method: Method::Get, path: path::prekeys(&user, DEVICE), body: Vec::new(), shown })
}

/// Registers the device of the user with this number, with all its keys.
fn registration(population: &Population, number: u64) -> Result<Ask> {
    let mut rng = rand::rng();
    let nothing = DeviceState {
        registration: None,
        epoch: Epoch::FIRST,
        seq: Seq(0),
        current: None,
        highest_signed_prekey: SignedPreKeyId(0),
        highest_one_time_prekey: OneTimePreKeyId(0),
        pending: None,
    };
    let at = Signing { now: callers::now()?, lifetimes: &Lifetimes::default(), rng: &mut rng };
    let user = population.user(number)?;
    let device = population.device(number)?;
    let staged = device.register(&nothing, None, usize::try_from(KEYS_PER_USER)?, None, at)?;
    let shown = population.callers().shown(&user, &device)?;
    let path = path::device(&user, DEVICE);
    Ok(Ask { method: Method::Put, path, body: staged.write.body, shown })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_registration_brings_the_keys_that_the_claims_count_on() {
        let ask = registration(&Population::new(1), 0).unwrap();
        let register: oncekey_api::device::Register = serde_json::from_slice(&ask.body).unwrap();
        let ids: Vec<_> = register.one_time_prekeys.iter().map(|key| key.id.0).collect();
        assert_eq!(ids, (1..=KEYS_PER_USER).collect::<Vec<_>>());
    }

    #[test]
    fn a_loss_of_one_user_is_not_made_up_for_by_another() {
        let mut stock = Stock::default();
        stock.add_user(5, 4);
        stock.add_user(3, 4);
        stock.add_user(2, 2);
        assert_eq!(stock, Stock { delivered: 10, undelivered: 1, still_held: 1 });
    }
}
