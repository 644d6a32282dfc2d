//! A cluster is backed up while it serves, goes on, is lost, and another one is made from the
//! backup: no key that the old one handed out ever comes again, and the devices mend the rest by
//! themselves.

use std::{
    collections::BTreeMap,
    fs,
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
};

use anyhow::{Context, Result, bail, ensure};
use oncekey_api::{
    Code,
    bundle::{Fetch, Fetched},
    path,
};
use oncekey_client::{
    CallError, Client, FetchOptions, NewDevice, PoolPlan, Received, SqliteKeyStore,
    http::{AnyNode, Config},
    transport::{Answer, AttemptFailure, Attempts, Call, Credentials, Method, Transport},
};
use oncekey_cluster::{Builder, Cluster};
use oncekey_tests::{
    Bob, judge,
    program::{fails, succeeds},
    small,
};
use oncekey_types::{CallerId, DeviceId, Epoch, OneTimePreKeyId, RequestId, Slot, UserId};
use serde::de::DeserializeOwned;
use serde_json::Value;

/// One-time prekeys that a device keeps out at first.
const POOL: usize = 40;

/// Any node; keeps what was sent, and loses a reply when it is told to.
#[derive(Clone)]
struct Wire {
    nodes: AnyNode,
    sent: Arc<Mutex<Vec<Call>>>,
    loses_next: Arc<AtomicBool>,
}

impl Wire {
    fn to(cluster: &Cluster, caller: &str) -> Result<Self> {
        let endpoints = cluster.endpoints();
        let endpoints = endpoints.iter().map(|url| url.parse()).collect::<Result<_, _>>()?;
        let nodes = AnyNode::new(Config::new(endpoints, caller.parse::<CallerId>()?)?);
        Ok(Self { nodes, sent: Arc::default(), loses_next: Arc::default() })
    }

    /// What was written so far, byte for byte.
    fn writes(&self) -> Vec<Call> {
        let sent = self.sent.lock().map(|sent| sent.clone()).unwrap_or_default();
        sent.into_iter().filter(|call| call.method != Method::Get).collect()
    }
}

impl Transport for Wire {
    fn epoch(&self) -> Option<Epoch> {
        self.nodes.epoch()
    }

    fn expect_epoch(&self, least: Epoch) {
        self.nodes.expect_epoch(least);
    }

    async fn call<R: DeserializeOwned + Send>(&self, call: &Call) -> Result<Answer<R>, CallError> {
        if let Ok(mut sent) = self.sent.lock() {
            sent.push(call.clone());
        }
        let answer = self.nodes.call(call).await?;
        if call.method != Method::Get && self.loses_next.swap(false, Ordering::Relaxed) {
            let attempts = Attempts::default();
            return Err(CallError::Unknown { failure: AttemptFailure::Timeout, attempts });
        }
        Ok(answer)
    }
}

type Device = Client<Wire>;

fn device(user: &str, number: u32, wire: &Wire) -> Result<Device> {
    let new = NewDevice::new(user.parse()?, number).with_new_account();
    Ok(Client::create(SqliteKeyStore::in_memory()?, wire.clone(), new)?)
}

/// Keys that were handed out, each with the fetch that got it.
#[derive(Default)]
struct Issued(BTreeMap<Vec<u8>, (UserId, DeviceId, OneTimePreKeyId, String)>);

impl Issued {
    /// Fetches the bundles of `user` and notes the keys. Gives their number.
    async fn fetch(&mut self, wire: &Wire, user: &str, request: &str) -> Result<usize> {
        let user: UserId = user.parse()?;
        let call = Call {
            method: Method::Post,
            path: path::user_bundles(&user),
            body: serde_json::to_vec(&Fetch::default())?.into(),
            idempotency_key: Some(RequestId::new(request.to_owned())?),
            credentials: Credentials::Token,
            slot: Slot::of(&user),
        };
        let fetched: Fetched = wire.nodes.call(&call).await?.reply;
        let mut count = 0;
        for bundle in fetched.bundles {
            let Some(key) = bundle.one_time_prekey else { continue };
            let now = (user.clone(), bundle.device, key.id, request.to_owned());
            if let Some(before) = self.0.insert(key.key.0, now.clone()) {
                bail!("a key was handed out twice: {before:?}, then {now:?}");
            }
            count += 1;
        }
        Ok(count)
    }

    async fn fetch_some(
        &mut self,
        wire: &Wire,
        user: &str,
        label: &str,
        fetches: usize,
    ) -> Result<usize> {
        let mut count = 0;
        for number in 0..fetches {
            count += self.fetch(wire, user, &format!("{label}-{user}-{number}")).await?;
        }
        Ok(count)
    }

    /// Fetches until the servers hold no key of `devices`, which are those of `user`.
    async fn drain(&mut self, wire: &Wire, user: &str, devices: &[&Device]) -> Result<()> {
        // A device that tends itself has as many out; a fetch that meets no quorum brings none.
        let filled = usize::try_from(PoolPlan::default().target)?;
        self.fetch_some(wire, user, "drain", filled).await?;
        for device in devices {
            let mut left = is_drained(device).await;
            for number in 0..filled {
                if left.is_ok() {
                    break;
                }
                self.fetch(
                    wire,
                    user,
                    &format!("rest-{user}-{}-{number}", device.address().device()),
                )
                .await?;
                left = is_drained(device).await;
            }
            left?;
        }
        Ok(())
    }
}

/// Fails unless the servers hold no key of `device`.
async fn is_drained(device: &Device) -> Result<()> {
    let left = device.status().await?.server.pool.count;
    ensure!(left == 0, "{}/{} keeps {left} keys", device.user(), device.address().device());
    Ok(())
}

fn nodes() -> Builder {
    small().set("policy.low_watermark", 1)
}

fn admins(cluster: &Cluster) -> String {
    let urls: Vec<_> = cluster.nodes().into_iter().map(|node| cluster.admin(node)).collect();
    urls.join(",")
}

/// Has a new cluster made from the backup in `place`.
async fn restored(place: &str) -> Result<Cluster> {
    let mut cluster = nodes().set("cluster.starts_from", "backup").prepare()?;
    for node in cluster.nodes() {
        cluster.launch(node)?;
    }
    let told = succeeds(&["restore", "--from", place, "--admin", &admins(&cluster)]).await?;
    ensure!(told.contains("the cluster is restored"), "{told}");
    cluster.wait_ready().await?;
    Ok(cluster)
}

/// What the old cluster did.
struct Before {
    bob: Device,
    /// The other device of Bob, whose last upload got no answer.
    tablet: Device,
    /// Registered after the backup.
    carol: Device,
    wires: Vec<Wire>,
    issued: Issued,
}

/// A cluster that is backed up to `place`, goes on, and is lost.
async fn before(place: &str) -> Result<Before> {
    let mut old = nodes().start().await?;
    let wires = ["bob/1", "bob/2", "carol/1"].map(|name| Wire::to(&old, name));
    let wires = wires.into_iter().collect::<Result<Vec<_>>>()?;
    let alice = Wire::to(&old, "alice")?;
    let bob = device("bob", 1, &wires[0])?;
    let tablet = Client::create(
        SqliteKeyStore::in_memory()?,
        wires[1].clone(),
        NewDevice::new("bob".parse()?, 2),
    )?;
    bob.publish(POOL).await?;
    tablet.publish(POOL).await?;
    let mut issued = Issued::default();
    issued.fetch_some(&alice, "bob", "early", 5).await?;

    // Pops go on while the backup is taken.
    let admin = admins(&old);
    let arguments = ["backup", "--admin", &admin, "--to", place];
    let (backup, during) =
        tokio::join!(succeeds(&arguments), issued.fetch_some(&alice, "bob", "during", 10));
    ensure!(backup?.contains("1 users with 2 devices") && during? == 20, "nothing was backed up");
    let again = fails(&arguments).await?;
    ensure!(again.contains("is in use"), "{again}");

    // After the backup: pops, uploads, pops of what was uploaded, a rotation, a list, a new user.
    issued.fetch_some(&alice, "bob", "late", 20).await?;
    bob.publish(POOL).await?;
    bob.add_device(tablet.listed()).await?;
    bob.rotate().await?;
    wires[1].loses_next.store(true, Ordering::Relaxed);
    let lost = tablet.replenish(POOL).await;
    ensure!(lost.is_err(), "the reply was to be lost");
    let carol = device("carol", 1, &wires[2])?;
    carol.publish(POOL).await?;
    issued.fetch_some(&alice, "bob", "last", POOL).await?;
    issued.fetch_some(&alice, "carol", "last", POOL / 2).await?;
    for node in old.nodes() {
        old.kill(node)?;
        old.wipe(node)?;
    }
    old.finish().await?;
    Ok(Before { bob, tablet, carol, wires, issued })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_old_cluster_handed_out_never_comes_again() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let place = folder.path().join("backup").display().to_string();
    let Before { bob, tablet, carol, wires, mut issued } = before(&place).await?;
    succeeds(&["backup", "verify", &place]).await?;
    let writes: Vec<_> = wires.iter().flat_map(Wire::writes).collect();
    let new = restored(&place).await?;

    // Whatever was on its way to the old cluster arrives at the new one, before the devices look
    // and after.
    let wire = Wire::to(&new, "late")?;
    refuse_all(&wire, &writes).await?;
    let alice = Wire::to(&new, "alice")?;
    let none = issued.fetch_some(&alice, "bob", "at-once", 3).await?;
    ensure!(none == 0, "{none} keys of the backup were handed out");

    let [bob, tablet, carol] = [(bob, "bob/1"), (tablet, "bob/2"), (carol, "carol/1")]
        .map(|(device, name)| Ok::<_, anyhow::Error>(device.with_transport(Wire::to(&new, name)?)));
    let (bob, tablet, carol) = (bob?, tablet?, carol?);
    for device in [&bob, &tablet, &carol] {
        let tended = device.tend().await?.context("the device is registered")?;
        ensure!(tended.restored.is_some() && tended.pool.count > 0, "{tended:?}");
    }
    refuse_all(&wire, &writes).await?;

    handshake(&new, &bob, &tablet).await?;
    issued.drain(&alice, "bob", &[&bob, &tablet]).await?;
    issued.drain(&alice, "carol", &[&carol]).await?;
    // To the checkers it is a cluster like any other.
    let dave = Bob::publish(&new, "dave", 2, POOL).await?;
    let fetcher = dave.fetcher(&new.endpoints())?;
    dave.settle(&fetcher).await?;
    judge(&new)?;
    new.finish().await
}

/// Sends writes that were made for the old cluster. Nothing of them may be taken.
async fn refuse_all(wire: &Wire, writes: &[Call]) -> Result<()> {
    let keys = |call: &&Call| !call.path.ends_with("device-list");
    for call in writes.iter().filter(keys) {
        match wire.nodes.call::<Value>(call).await {
            Ok(answer) => bail!("{} was taken: {}", call.path, answer.reply),
            Err(error) => {
                let code = error.refusal().map(|problem| problem.code);
                let refused = [Code::EpochChanged, Code::UnknownUser, Code::UnknownDevice];
                ensure!(code.is_some_and(|code| refused.contains(&code)), "{}: {error}", call.path);
            }
        }
    }
    ensure!(!writes.is_empty(), "nothing was sent");
    Ok(())
}

/// A stranger writes to both devices of Bob, as the list says that came after the backup.
async fn handshake(cluster: &Cluster, bob: &Device, tablet: &Device) -> Result<()> {
    let stranger = device("eve", 1, &Wire::to(cluster, "eve")?)?;
    let fetched = stranger.fetch(bob.user(), &FetchOptions::default()).await?;
    let mut opened = 0;
    for bundle in fetched.bundles {
        let to = if bundle.device == DeviceId(1) { bob } else { tablet };
        ensure!(bundle.one_time_prekey.is_some(), "device {} has no key", bundle.device);
        let outgoing = stranger.initiate(bundle.bundle?, b"hello", b"ad")?;
        let received = to.receive(&outgoing.message, b"ad")?;
        ensure!(matches!(received, Received::New { .. }), "{received:?}");
        opened += 1;
    }
    ensure!(opened == 2, "{opened} devices were written to");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_a_new_cluster_is_restored_and_only_from_a_whole_backup() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let place = folder.path().join("backup").display().to_string();
    let old = nodes().start().await?;
    let bob = device("bob", 1, &Wire::to(&old, "bob/1")?)?;
    bob.publish(POOL).await?;
    let admin = admins(&old);
    succeeds(&["backup", "--admin", &admin, "--to", &place]).await?;
    let into_use = fails(&["restore", "--from", &place, "--admin", &admin]).await?;
    ensure!(into_use.contains("not new"), "{into_use}");

    for (part, complaint) in [("manifest.json", "damaged"), ("shard-00001.backup", "shard 1")] {
        let broken = folder.path().join(part);
        copy_with_a_flipped_bit(Path::new(&place), &broken, part)?;
        let broken = broken.display().to_string();
        for command in [
            vec!["backup", "verify", &broken],
            vec!["restore", "--from", &broken, "--admin", &admin],
        ] {
            let told = fails(&command).await?;
            ensure!(told.contains(complaint), "{command:?}: {told}");
        }
    }
    fs::remove_file(Path::new(&place).join("manifest.json"))?;
    let told = fails(&["backup", "verify", &place]).await?;
    ensure!(told.contains("never finished"), "{told}");
    old.finish().await
}

fn copy_with_a_flipped_bit(from: &Path, to: &Path, part: &str) -> Result<()> {
    fs::create_dir(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let mut bytes = fs::read(entry.path())?;
        if entry.file_name() == part {
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
        }
        fs::write(to.join(entry.file_name()), bytes)?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_that_waits_for_its_restore_serves_nobody() -> Result<()> {
    let mut cluster = nodes().nodes(1).set("cluster.starts_from", "backup").prepare()?;
    let node = cluster.nodes()[0];
    cluster.launch(node)?;
    let bob = device("bob", 1, &Wire::to(&cluster, "bob/1")?)?;
    let refused = bob.publish(POOL).await.map(drop);
    let error = refused.err().context("a device was registered")?;
    ensure!(error.is_retryable() && format!("{error:#}").contains("restored"), "{error:#}");
    let folder = tempfile::tempdir()?;
    let (admin, place) = (cluster.admin(node), folder.path().display().to_string());
    let told = fails(&["backup", "--admin", &admin, "--to", &place, "--patience-s", "1"]).await?;
    ensure!(told.contains("waits to be restored"), "{told}");
    cluster.finish().await
}
