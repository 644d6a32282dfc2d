//! An attacker with the tokens of a thousand users goes for the pool of one. Friends go on getting
//! bundles, and most of the pool stays.

use std::{collections::BTreeSet, time::Instant};

use anyhow::{Result, bail, ensure};
use oncekey_api::bundle::OneTimePreKeyStatus;
use oncekey_cluster::{
    Cluster,
    workload::{Answer, Fetcher},
};
use oncekey_tests::Bob;
use oncekey_types::{CallerId, RequestId};
use tokio::task::JoinSet;

const POOL: usize = 600;
const TOKENS: usize = 1000;
/// Users that ask at the same time.
const AT_ONCE: usize = 50;
const FRIENDS: usize = 20;

/// The defaults of `policy.per_caller_capacity`, `policy.per_target_capacity` and
/// `policy.per_target_refill_ms`.
const PER_CALLER: usize = 6;
const PER_TARGET: usize = 200;
const REFILL_S: usize = 30;

/// What callers got.
#[derive(Default)]
struct Got {
    keys: BTreeSet<u32>,
    withheld: usize,
}

impl Got {
    /// Asks once as `caller`. Whatever comes has to be a bundle.
    async fn ask(&mut self, fetcher: &Fetcher, caller: &str, number: usize) -> Result<()> {
        let request: RequestId = format!("{caller}-{number}").parse()?;
        let caller: CallerId = caller.parse()?;
        self.count(fetcher.fetch(&caller, &request, number).await?.answer)
    }

    fn count(&mut self, answer: Answer) -> Result<()> {
        let Answer::Committed { keys, without, .. } = answer else {
            bail!("no bundle: {answer:?}");
        };
        for key in keys {
            ensure!(self.keys.insert(key.id.0), "{key:?} was handed out twice");
        }
        for (_, status) in without {
            ensure!(status == OneTimePreKeyStatus::Withheld, "{status:?}");
            self.withheld += 1;
        }
        Ok(())
    }

    fn all(&self) -> usize {
        self.keys.len() + self.withheld
    }
}

/// Every one of `callers` asks once, `AT_ONCE` of them at the same time.
async fn attack(fetcher: Fetcher, callers: usize) -> Result<Got> {
    let mut got = Got::default();
    let mut asking = JoinSet::new();
    for number in 0..callers {
        if asking.len() == AT_ONCE
            && let Some(answer) = asking.join_next().await
        {
            got.count(answer??)?;
        }
        let fetcher = fetcher.clone();
        asking.spawn(async move {
            let caller: CallerId = format!("attacker-{number}").parse()?;
            let request: RequestId = format!("attack-{number}").parse()?;
            anyhow::Ok(fetcher.fetch(&caller, &request, number).await?.answer)
        });
    }
    while let Some(answer) = asking.join_next().await {
        got.count(answer??)?;
    }
    Ok(got)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_tokens_do_not_empty_a_pool_and_friends_get_bundles() -> Result<()> {
    let cluster = Cluster::builder().shards(2).authenticated().start().await?;
    let victim = Bob::publish(&cluster, "victim", 1, POOL).await?;
    let fetcher = victim.fetcher(&cluster.endpoints())?;
    let began = Instant::now();

    // One user gets what one user gets.
    let mut greedy = Got::default();
    for number in 0..3 * PER_CALLER {
        greedy.ask(&fetcher, "greedy", number).await?;
    }
    ensure!(greedy.keys.len() == PER_CALLER, "one caller got {} keys", greedy.keys.len());

    let attack = tokio::spawn(attack(fetcher.clone(), TOKENS));
    let mut friends = Got::default();
    let mut rounds = 0;
    while !attack.is_finished() || rounds == 0 {
        for friend in 0..FRIENDS {
            friends.ask(&fetcher, &format!("friend-{friend}"), rounds).await?;
        }
        rounds += 1;
    }
    let attack = attack.await??;
    ensure!(attack.all() == TOKENS && friends.all() == rounds * FRIENDS, "an answer is missing");

    let issued = greedy.keys.len() + attack.keys.len() + friends.keys.len();
    let left = usize::try_from(victim.devices[0].status().await?.server.pool.count)?;
    ensure!(issued + left == POOL, "{issued} handed out and {left} left of {POOL}");
    let refilled = usize::try_from(began.elapsed().as_secs())? / REFILL_S + 1;
    ensure!(issued <= PER_TARGET + refilled, "{issued} handed out");
    ensure!(attack.withheld >= TOKENS - PER_TARGET - refilled, "{}", attack.withheld);
    cluster.finish().await
}
