//! All nodes are killed at once and restarted: every acknowledged upload and pop is there.

use anyhow::{Result, ensure};
use oncekey_cluster::workload::{Load, Workload};
use oncekey_tests::{Bob, LIMIT, for_every_engine, judge, small};

const POOL: usize = 400;
/// Uploaded in several writes, so that the kill falls between two of them.
const LARGE_POOL: usize = 1000;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_acknowledged_survives_the_death_of_all_nodes() -> Result<()> {
    for_every_engine(async |engine| {
        let mut cluster = small().engine(engine).start().await?;
        let bob = Bob::publish(&cluster, "bob", 2, POOL).await?;
        let rotated = bob.devices[0].rotate().await?.pool.signed_prekey;
        let fetcher = bob.fetcher(&cluster.endpoints())?;

        let carol = Bob::unpublished(&cluster, "carol", 1)?;
        let uploading = async { carol.devices[0].publish(LARGE_POOL).await };
        let workload = Workload::start(&fetcher, &Load::new("load", 16, 15));
        let dying = async {
            workload.decide(30, LIMIT).await?;
            for node in cluster.nodes() {
                cluster.kill(node)?;
            }
            let in_flight = workload.in_flight();
            cluster.start_all().await?;
            anyhow::Ok(in_flight)
        };
        let (uploaded, in_flight) = tokio::join!(uploading, dying);
        ensure!(in_flight? > 0, "no fetch was in flight at the kill: the run shows nothing");
        workload.finish().await?;

        // The upload may have been given up meanwhile; what it began it can always end.
        let published = match uploaded {
            Ok(published) => published,
            Err(error) if error.is_retryable() => carol.devices[0].publish(LARGE_POOL).await?,
            Err(error) => return Err(error.into()),
        };
        ensure!(usize::try_from(published.pool.count)? == LARGE_POOL, "{:?}", published.pool);
        let spk = bob.devices[0].status().await?.server.pool.signed_prekey;
        ensure!(spk == rotated, "signed prekey {spk} is current, {rotated} was acknowledged");
        bob.settle(&fetcher).await?;
        carol.settle(&carol.fetcher(&cluster.endpoints())?).await?;
        judge(&cluster)?;
        cluster.finish().await
    })
    .await
}
