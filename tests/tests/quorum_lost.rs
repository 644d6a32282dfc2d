//! Two of three nodes are down: whoever asks the third gets identity key and signed prekey, marked
//! as such, and never a one-time prekey; with the others back, all goes on where it stopped.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use oncekey_api::{Code, bundle::OneTimePreKeyStatus};
use oncekey_client::{
    Client, FetchError, FetchOptions, NewDevice, SqliteKeyStore,
    http::{AnyNode, Config},
    transport::AttemptFailure,
};
use oncekey_cluster::{
    Recorded,
    workload::{Answer, Load, Workload},
};
use oncekey_tests::{Bob, any_node, judge, small};

const POOL: usize = 60;
const BEFORE: usize = 10;
/// How long Alice insists on a key.
const STRICT_DEADLINE: Duration = Duration::from_secs(3);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_quorum_bundles_have_no_one_time_prekey_and_say_so() -> Result<()> {
    let mut cluster = small().set("http.fetch_timeout_ms", 800).start().await?;
    let bob = Bob::publish(&cluster, "bob", 1, POOL).await?;
    let fetcher = bob.fetcher(&cluster.endpoints())?;
    Workload::start(&fetcher, &Load::new("before", 1, BEFORE)).finish().await?;

    let nodes = cluster.nodes();
    let (survivor, lost) = nodes.split_first().context("nodes")?;
    for node in lost {
        cluster.kill(*node)?;
    }
    let alone = [cluster.endpoint(*survivor)];
    let store = SqliteKeyStore::in_memory()?;
    let alice = NewDevice::new("alice".parse()?, 1);
    let recorder = cluster.recorder().clone();
    let alice = Client::create(store, any_node(&alone, "alone-0", &recorder)?, alice)?;

    let lax = FetchOptions { request: Some("alone-0-0".parse()?), ..FetchOptions::default() };
    let fetched = alice.fetch(&bob.user, &lax).await?;
    ensure!(fetched.as_of.is_some(), "an answer without a quorum says how old its data is");
    let bundle = fetched.bundles.into_iter().next().context("a bundle")?;
    ensure!(bundle.one_time_prekey_status == OneTimePreKeyStatus::Unavailable, "{bundle:?}");
    ensure!(bundle.one_time_prekey.is_none(), "{bundle:?}");
    // It is good for a handshake all the same.
    let outgoing = alice.initiate(bundle.bundle?, b"hello", b"")?;
    bob.devices[0].receive(&outgoing.message, b"")?;

    let strict = FetchOptions {
        request: Some("alone-0-1".parse()?),
        require_opk: true,
        ..FetchOptions::default()
    };
    let mut config = Config::new(vec![alone[0].parse()?], "alone-0".parse()?)?;
    config.deadline = STRICT_DEADLINE;
    let nodes = Recorded::new(AnyNode::new(config), recorder.clone(), "alone-0".parse()?);
    let alice = alice.with_transport(nodes);
    match alice.fetch(&bob.user, &strict).await {
        Err(FetchError::Call { error, .. }) => {
            ensure!(error.is_outcome_unknown(), "{error}");
            let first = error.attempts().iter().next().and_then(|first| first.failure.as_ref());
            ensure!(
                matches!(first, Some(AttemptFailure::Problem(problem))
                    if problem.code == Code::NoQuorum),
                "{error:?}"
            );
        }
        other => bail!("a required key without a quorum: {other:?}"),
    }

    // A caller who gives up early does not know whether it got a key.
    let impatient = fetcher.clone().with_patience(Duration::ZERO);
    let undecided = impatient.fetch(&"alone-1".parse()?, &"alone-1-0".parse()?, 0).await?;
    ensure!(matches!(undecided.answer, Answer::Undecided(_)), "{undecided:?}");

    for node in lost {
        cluster.launch(*node)?;
    }
    cluster.wait_ready().await?;
    let alice = alice.with_transport(any_node(&cluster.endpoints(), "alone-0", &recorder)?);
    // At most the three fetches of the outage lie between.
    let next = u32::try_from(BEFORE)? + 1;
    let next = next..next + 3;
    let first = alice.fetch(&bob.user, &lax).await?;
    ensure!(first.as_of.is_none(), "{first:?}");
    let id = first.bundles[0].one_time_prekey.context("a key after the outage")?;
    ensure!(next.contains(&id.0), "key {id} is not in {next:?}");
    let again = fetcher.fetch(&"alone-0".parse()?, &"alone-0-0".parse()?, 1).await?;
    ensure!(again.keys().iter().map(|key| key.id).eq([id]), "{again:?}");

    let second = alice.fetch(&bob.user, &strict).await?;
    let id = second.bundles[0].one_time_prekey.context("a key after the outage")?;
    ensure!(next.contains(&id.0), "key {id} is not in {next:?}");

    Workload::start(&fetcher, &Load::new("after", 4, 2)).finish().await?;
    bob.settle(&fetcher).await?;
    judge(&cluster)?;
    cluster.finish().await
}
