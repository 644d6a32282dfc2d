//! Devices of one user over a real cluster that wants tokens and signatures: added, written to, lost,
//! and restored from a backup.

use anyhow::{Result, bail, ensure};
use oncekey_client::{
    Change, Client, Export, FetchOptions, NewDevice, NotSent, Outgoing, Received, SqliteKeyStore,
    Unlock, WriteError,
    http::{AnyNode, Config},
};
use oncekey_cluster::{Cluster, Engine};
use oncekey_tests::{for_every_engine, small};
use oncekey_types::DeviceId;

type Device = Client<AnyNode>;

/// A device of `user`, whose token it has.
fn device(cluster: &Cluster, user: &str, number: u32, with_account: bool) -> Result<Device> {
    let new = NewDevice::new(user.parse()?, number);
    let new = if with_account { new.with_new_account() } else { new };
    Ok(Client::create(SqliteKeyStore::in_memory()?, nodes(cluster, user)?, new)?)
}

fn nodes(cluster: &Cluster, user: &str) -> Result<AnyNode> {
    let endpoints = cluster.endpoints();
    let endpoints = endpoints.iter().map(|endpoint| endpoint.parse()).collect::<Result<_, _>>()?;
    Ok(AnyNode::new(cluster.as_user(Config::new(endpoints, "devices".parse()?)?, user)))
}

/// What Alice sends to each device of Bob.
async fn sent(alice: &Device) -> Result<Vec<(DeviceId, Result<Outgoing, NotSent>)>> {
    let options = FetchOptions::default();
    let fan_out = alice.send_to_all(&"bob".parse()?, b"hello", b"", &options).await?;
    Ok(fan_out.devices.into_iter().map(|device| (device.device, device.outcome)).collect())
}

fn open(device: &Device, outgoing: &Outgoing) -> Result<()> {
    match device.receive(&outgoing.message, b"")? {
        Received::New { payload, .. } if payload.as_bytes() == b"hello" => Ok(()),
        other => bail!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn devices_are_added_lost_and_restored_and_peers_see_no_more_than_is_signed() -> Result<()> {
    for_every_engine(story).await
}

async fn story(engine: Engine) -> Result<()> {
    let cluster = small().engine(engine).authenticated().start().await?;
    let bob = "bob".parse()?;
    let alice = device(&cluster, "alice", 1, true)?;
    let first = device(&cluster, "bob", 1, true)?;
    let second = device(&cluster, "bob", 2, false)?;
    for device in [&alice, &first, &second] {
        device.publish(5).await?;
    }

    let outcomes = sent(&alice).await?;
    ensure!(matches!(outcomes[0], (DeviceId(1), Ok(_))), "{outcomes:?}");
    ensure!(matches!(outcomes[1], (DeviceId(2), Err(NotSent::Bundle(_)))), "not signed yet");

    first.add_device(second.listed()).await?;
    let outcomes = sent(&alice).await?;
    for ((_, outcome), device) in outcomes.iter().zip([&first, &second]) {
        match outcome {
            Ok(outgoing) => open(device, outgoing)?,
            Err(error) => bail!("{error}"),
        }
    }
    let questions = alice.open_questions()?;
    let is_added = |change: &Change| matches!(change, Change::Devices(it) if it.added.len() == 1);
    ensure!(questions.iter().all(|event| is_added(&event.change)), "{questions:?}");
    ensure!(questions.len() == 1, "{questions:?}");

    first.remove_device(DeviceId(2)).await?;
    let outcomes = sent(&alice).await?;
    ensure!(outcomes.len() == 1, "{outcomes:?}");
    ensure!(second.tend().await?.is_none(), "it learns that it is gone");

    first.refresh_device_list(alice.user()).await?;
    let (ours, theirs) = (first.safety_number(alice.user())?, alice.safety_number(&bob)?);
    ensure!(ours.matches_code(&theirs.to_code()) == Ok(true), "{ours} and {theirs}");

    let lock = Unlock::passphrase("correct horse")?;
    let export = Export::from_bytes(&first.export()?.to_bytes(&lock)?, &lock)?;
    let restored = Client::import(SqliteKeyStore::in_memory()?, nodes(&cluster, "bob")?, &export)?;
    restored.publish(5).await?;
    let outcomes = sent(&alice).await?;
    match &outcomes[0].1 {
        Ok(outgoing) => open(&restored, outgoing)?,
        Err(error) => bail!("{error}"),
    }
    let old = first.tend().await;
    ensure!(matches!(old, Err(WriteError::StoreIsOld)), "{old:?}");
    let asked = ["alice".parse()?, bob, "nobody".parse()?];
    let fetched = alice.fetch_many(&asked, false, None).await?;
    let found: Vec<_> = fetched.iter().map(|user| user.outcome.is_ok()).collect();
    ensure!(found == [true, true, false], "{fetched:?}");
    cluster.finish().await
}
