//! The leader is killed with SIGKILL while it hands out keys: each request gets one key, and no
//! key goes to two requests.

use anyhow::{Result, ensure};
use oncekey_cluster::{
    Engine,
    history::History,
    workload::{Load, Workload},
};
use oncekey_tests::{Bob, LIMIT, for_every_engine, small};

const ROUNDS: usize = 3;
const CALLERS: usize = 24;
const FETCHES_EACH: usize = 16;
/// More keys than fetches, so that no reply is `exhausted` before the drain.
const POOL: usize = 500;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_key_is_issued_twice_when_leaders_are_killed_mid_pop() -> Result<()> {
    for_every_engine(rounds).await
}

async fn rounds(engine: Engine) -> Result<()> {
    let mut cluster = small().engine(engine).start().await?;
    let bob = Bob::publish(&cluster, "bob", 2, POOL).await?;
    let fetcher = bob.fetcher(&cluster.endpoints())?;
    let mut history = History::new(bob.user.clone(), bob.uploaded().await?);
    let mut cut = 0;
    for round in 0..ROUNDS {
        let leader = cluster.leader_of(&bob.user).await?;
        let load = Load::new(format!("round{round}"), CALLERS, FETCHES_EACH);
        let workload = Workload::start(&fetcher, &load);
        workload.decide(CALLERS, LIMIT).await?;
        cut += workload.in_flight();
        cluster.kill(leader)?;
        workload.finish(&mut history).await?;
        cluster.restart(leader).await?;
        bob.replenish(POOL).await?;
    }
    ensure!(cut > 0, "no fetch was in flight at any kill: the run shows nothing");
    let retried = history.retried_with_a_key();
    ensure!(retried > 0, "no fetch had to be retried: the run shows nothing");
    bob.judge(&fetcher, history).await?;
    cluster.finish().await
}
