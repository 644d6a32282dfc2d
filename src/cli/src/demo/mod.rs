//! `oncekey demo`: the main job, with a leader killed in the middle of it.
//!
//! Guarantees: what the table says was counted, not assumed. The nodes are processes with disks of
//! their own, the keys are real, and the demo fails as well when the kill hit nothing: a run
//! without fetches in flight shows nothing.
//!
//! Leaves out: power cuts and networks that fail; those are the tests' business.

mod people;
mod screen;
mod tally;

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use oncekey_api::bundle::OneTimePreKeyStatus;
use oncekey_cluster::{
    Cluster, check,
    history::record::Phase,
    wait::{self, Seen},
};
use oncekey_server::config::LogFormat;
use oncekey_types::{NodeId, UserId};
use tokio::{sync::Semaphore, task::JoinSet};

use crate::{args::Demo, logging, output};
use people::{Alice, Bob, Fetch};
use screen::{Bar, Screen};
use tally::Tally;

const NODES: u16 = 3;
const ALICES: usize = 64;
const DEVICES: u32 = 2;
const KEYS_PER_DEVICE: usize = 100;
/// Each fetch pops one key of each device.
const FETCHES: usize = KEYS_PER_DEVICE;
const POPS: usize = FETCHES * DEVICES as usize;
/// Fetches that are over when the others begin and the leader is killed.
const FIRST_FETCHES: usize = FETCHES / 4;
/// Fetches that must be in flight when the leader is killed.
const IN_FLIGHT_AT_KILL: usize = 16;
/// Time for anything that the demo waits for.
const LIMIT: Duration = Duration::from_secs(60);

pub(crate) async fn run(arguments: &Demo) -> Result<()> {
    logging::start("error", LogFormat::Text)?;
    let screen = Screen::new();
    let played = tokio::select! {
        played = play(arguments, &screen) => played,
        interrupted = tokio::signal::ctrl_c() => {
            interrupted.context("Ctrl-C cannot be waited for")?;
            bail!("interrupted");
        }
    };
    let tally = played?;
    output::line(&tally);
    tally.verdict()
}

async fn play(arguments: &Demo, screen: &Screen) -> Result<Tally> {
    let started = Instant::now();
    let builder = Cluster::builder().nodes(NODES).engine(arguments.engine).recorded();
    let mut cluster = builder.authenticated().start().await?;
    screen.say(format_args!(
        "{NODES} nodes over {} serve in {}, after {} ms",
        cluster.engine(),
        cluster.dir().display(),
        started.elapsed().as_millis()
    ));

    let user: UserId = "bob".parse()?;
    let bob = Arc::new(Bob::publish(&cluster, &user, DEVICES, KEYS_PER_DEVICE).await?);
    screen.say(format_args!(
        "{DEVICES} devices of Bob published {KEYS_PER_DEVICE} one-time prekeys each"
    ));

    let run = Arc::new(Run::new(screen));
    let mut alices = start_alices(&cluster, &bob, &run)?;
    let killed = kill_leader(&mut cluster, &user, &run, screen).await?;
    let mut fetches = Vec::new();
    let mut people = Vec::new();
    while let Some(alice) = alices.join_next().await {
        let (alice, its_fetches) = alice.context("an Alice broke down")??;
        people.push(alice);
        fetches.extend(its_fetches);
    }
    run.finish();
    let gap = cluster.recorder().history()?.longest_gap();

    let repeated = fetch_again(&cluster, people, &user, &fetches).await?;
    screen.say(format_args!(
        "{} fetches sent again under their idempotency keys, each to another node",
        repeated.sent
    ));
    let exhausted = is_exhausted(&cluster, &user).await?;
    bob.read_pools().await?;
    cluster.recorder().mark(Phase::End);
    let report = check::check(&cluster.recorder().history()?);
    cluster.finish().await?;
    Ok(Tally::new(POPS, &report, &fetches, killed, gap, repeated, exhausted))
}

/// What the Alices share.
struct Run {
    /// Lets the first fetches through; the others wait for the killer, so that they are in flight
    /// when the leader dies, however fast the machine is.
    gate: Semaphore,
    sent: AtomicUsize,
    answered: AtomicUsize,
    delivered: AtomicUsize,
    popped: Bar,
    opened: Bar,
}

impl Run {
    fn new(screen: &Screen) -> Self {
        Self {
            gate: Semaphore::new(FIRST_FETCHES),
            sent: AtomicUsize::new(0),
            answered: AtomicUsize::new(0),
            delivered: AtomicUsize::new(0),
            popped: screen.bar("keys popped", POPS),
            opened: screen.bar("messages opened", POPS),
        }
    }

    fn in_flight(&self) -> usize {
        let answered = self.answered.load(Ordering::SeqCst);
        self.sent.load(Ordering::SeqCst).saturating_sub(answered)
    }

    fn finish(&self) {
        self.popped.finish();
        self.opened.finish();
    }
}

/// Alices and their fetches.
type Alices = JoinSet<Result<(Alice, Vec<Fetch>)>>;

/// Starts all Alices. Alice n makes the fetches n, n + 64, … and asks node n first.
fn start_alices(cluster: &Cluster, bob: &Arc<Bob>, run: &Arc<Run>) -> Result<Alices> {
    let mut alices = JoinSet::new();
    for number in 0..ALICES {
        let alice = Alice::new(number, cluster)?;
        let (bob, run) = (Arc::clone(bob), Arc::clone(run));
        alices.spawn(async move {
            let mut fetches = Vec::new();
            for _ in (number..FETCHES).step_by(ALICES) {
                run.gate.acquire().await?.forget();
                run.sent.fetch_add(1, Ordering::SeqCst);
                let (mut fetch, bundles) = alice.fetch(bob.user(), None).await?;
                run.answered.fetch_add(1, Ordering::SeqCst);
                run.popped.advance(fetch.operation.keys().len());
                for bundle in bundles {
                    let shaken = alice.shake_hands(&bob, bundle, &mut fetch).await?;
                    run.opened.advance(usize::from(shaken));
                }
                run.delivered.fetch_add(1, Ordering::SeqCst);
                fetches.push(fetch);
            }
            Ok((alice, fetches))
        });
    }
    Ok(alices)
}

/// Kills the leader of Bob's shard while fetches are in flight, waits for another one and brings
/// the killed node back.
async fn kill_leader(
    cluster: &mut Cluster,
    user: &UserId,
    run: &Run,
    screen: &Screen,
) -> Result<NodeId> {
    let node = cluster.leader_of(user).await?;
    wait::until(LIMIT, "the first messages to be delivered", async || {
        let delivered = run.delivered.load(Ordering::SeqCst);
        Ok(Seen::when(delivered >= FIRST_FETCHES, || format!("{delivered} of {FIRST_FETCHES}")))
    })
    .await?;
    run.gate.add_permits(FETCHES);
    // A look every few milliseconds would miss the moment.
    while run.in_flight() < IN_FLIGHT_AT_KILL {
        ensure!(run.answered.load(Ordering::SeqCst) < FETCHES, "all was over before the kill");
        tokio::task::yield_now().await;
    }
    let killed = Instant::now();
    cluster.kill(node)?;
    screen.say(format_args!(
        "node {node}, the leader of Bob's shard, killed with {} fetches in flight",
        run.in_flight()
    ));
    let leader = other_leader(cluster, user, node).await?;
    screen.say(format_args!("node {leader} leads, {} ms later", killed.elapsed().as_millis()));
    cluster.restart(node).await?;
    screen.say(format_args!("node {node} is back"));
    Ok(node)
}

async fn other_leader(cluster: &Cluster, user: &UserId, killed: NodeId) -> Result<NodeId> {
    wait::until(LIMIT, "another leader", async || {
        let leader = cluster.leader_of(user).await?;
        Ok(if leader == killed { Seen::not_yet("the killed one") } else { Seen::Done(leader) })
    })
    .await
}

/// How the fetches that were sent again were answered.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Repeated {
    /// Fetches sent again.
    pub(crate) sent: usize,
    /// Those answered with the very same keys, and said to be repeated.
    pub(crate) same: usize,
}

/// Every Alice sends her fetches again, to another node first.
async fn fetch_again(
    cluster: &Cluster,
    people: Vec<Alice>,
    user: &UserId,
    fetches: &[Fetch],
) -> Result<Repeated> {
    let mut repeated = Repeated::default();
    for alice in people {
        let alice = alice.through_another_node(cluster)?;
        let first = fetches.iter().map(|fetch| &fetch.operation);
        for operation in first.filter(|operation| alice.made(operation)) {
            let (fetch, _) = alice.fetch(user, Some(operation.request.clone())).await?;
            repeated.sent += 1;
            let same = fetch.repeated && fetch.operation.keys() == operation.keys();
            repeated.same += usize::from(same);
        }
    }
    Ok(repeated)
}

/// Whether one more fetch finds both pools empty.
async fn is_exhausted(cluster: &Cluster, user: &UserId) -> Result<bool> {
    let late = Alice::new(ALICES, cluster)?;
    let (fetch, _) = late.fetch(user, None).await?;
    Ok(fetch.without.len() == DEVICES as usize
        && fetch.without.iter().all(|status| *status == OneTimePreKeyStatus::Exhausted))
}
