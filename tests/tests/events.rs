//! A device is told, by whichever node it asks, that its pool runs low, and fills it.

use std::sync::Arc;

use anyhow::{Result, ensure};
use oncekey_client::{
    Client, Config, FetchOptions, NewDevice, PoolPlan, SqliteKeyStore,
    http::{self, AnyNode},
};
use oncekey_cluster::Cluster;
use oncekey_tests::{LIMIT, small};
use tokio::{sync::mpsc::unbounded_channel, time::timeout};

/// Below the watermark of the nodes, which counts then.
const PLAN: PoolPlan = PoolPlan { watermark: 10, batch: 5, target: 15, covers_s: 0 };
/// The watermark of the nodes.
const LOW: usize = 20;

fn device(endpoint: &str, user: &str) -> Result<Client<AnyNode>> {
    let config = http::Config::new(vec![endpoint.parse()?], user.parse()?)?;
    let new = NewDevice::new(user.parse()?, 1);
    let client = Client::create(SqliteKeyStore::in_memory()?, AnyNode::new(config), new)?;
    Ok(client.with_config(Config { pool: PLAN, ..Config::default() }))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pool_is_filled_at_the_word_of_any_node() -> Result<()> {
    let cluster = small().start().await?;
    for endpoint in &cluster.endpoints() {
        story(&cluster, endpoint).await?;
    }
    cluster.finish().await
}

/// A device that asks the node at `endpoint` and no other; senders ask all.
async fn story(cluster: &Cluster, endpoint: &str) -> Result<()> {
    let bob = Arc::new(device(endpoint, &format!("bob at {endpoint}"))?);
    bob.publish(LOW + 5).await?;
    let (tell, mut told) = unbounded_channel();
    let kept = Arc::clone(&bob);
    let task = tokio::spawn(async move {
        kept.keep_tended(|tended| tell.send(tended.added).unwrap_or_default()).await
    });
    // The next poll is hours away: from here on the device does what it is told.
    let first = timeout(LIMIT, told.recv()).await?;
    ensure!(first == Some(0), "{first:?} keys were added at first");
    let endpoints = cluster.endpoints();
    for sender in 0..5 {
        let alice = device(&endpoints[sender % endpoints.len()], &format!("alice {sender}"))?;
        alice.fetch(bob.user(), &FetchOptions::default()).await?;
    }
    let added = timeout(LIMIT, told.recv()).await?;
    ensure!(added == Some(5), "{added:?} keys were added, told by {endpoint}");
    task.abort();
    Ok(())
}
