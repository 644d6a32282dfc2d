//! The leader is killed with SIGKILL while it hands out keys: each request gets one key, and no
//! key goes to two requests.

use anyhow::{Result, ensure};
use oncekey_cluster::{
    Engine,
    workload::{Load, Workload},
};
use oncekey_tests::{Bob, LIMIT, for_every_engine, judge, small};

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
    for round in 0..ROUNDS {
        let leader = cluster.leader_of(&bob.user).await?;
        let load = Load::new(format!("round{round}"), CALLERS, FETCHES_EACH);
        let workload = Workload::start(&fetcher, &load);
        workload.decide(CALLERS, LIMIT).await?;
        cluster.kill(leader)?;
        workload.finish().await?;
        cluster.restart(leader).await?;
        bob.replenish(POOL).await?;
    }
    bob.settle(&fetcher).await?;
    let summary = judge(&cluster)?.summary;
    let leaders = summary.leaders_killed_in_flight;
    ensure!(leaders > 0, "no leader was killed with fetches in flight: the run shows nothing");
    ensure!(summary.retried > 0, "no fetch had to be retried: the run shows nothing");
    cluster.finish().await
}
