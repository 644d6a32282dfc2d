//! `oncekey dev`: a cluster on this machine that keeps its data.
//!
//! Guarantees: what was there at the last Ctrl-C is there again, on the same ports. Leaves out:
//! restarting a node that ends; it is reported and the others go on.

use std::{path::Path, time::Duration};

use anyhow::{Context, Result};
use oncekey_api::{header, path};
use oncekey_client::{
    Client, NewDevice, SqliteKeyStore, StoreKey,
    http::{AnyNode, Config},
    keystore,
};
use oncekey_cluster::{Cluster, issuer::KEY_FILE};
use oncekey_server::config::LogFormat;
use oncekey_types::{NodeId, UserId};

use crate::{args::Dev, logging, output};

const BASE_PORT: u16 = 8700;
/// One-time prekeys that the sample device keeps on the servers.
const POOL: usize = 100;
/// Locks the sample device's key store. Of a sample, nothing is secret.
const STORE_KEY: &[u8; 32] = b"the dev cluster keeps no secrets";
/// Time between two looks at the nodes.
const LOOK_INTERVAL: Duration = Duration::from_millis(500);

pub(crate) async fn run(arguments: &Dev) -> Result<()> {
    logging::start("warn", LogFormat::Text)?;
    let interrupted = tokio::signal::ctrl_c();
    tokio::pin!(interrupted);

    let mut cluster = prepare(arguments)?;
    output::line(format_args!(
        "starting {} nodes over {} in {}",
        cluster.nodes().len(),
        cluster.engine(),
        cluster.dir().display()
    ));
    let served = async {
        cluster.start_all().await?;
        let bob = publish(&cluster).await?;
        introduce(&cluster, &bob);
        watch(&mut cluster).await
    };
    tokio::select! {
        served = served => served?,
        interrupted = &mut interrupted => interrupted.context("Ctrl-C cannot be waited for")?,
    }
    output::line("stopping");
    let stopped = cluster.stop_all().await;
    output::line(format_args!(
        "the data is in {}; `oncekey dev` goes on with it",
        cluster.dir().display()
    ));
    stopped
}

/// A new folder gets the default ports, one used before keeps its own.
fn prepare(arguments: &Dev) -> Result<Cluster> {
    let mut builder = Cluster::builder().dir(&arguments.dir);
    if let Some(nodes) = arguments.nodes {
        builder = builder.nodes(nodes);
    }
    if let Some(engine) = arguments.engine {
        builder = builder.engine(engine);
    }
    builder = match arguments.base_port {
        Some(port) => builder.base_port(port),
        None => builder.default_base_port(BASE_PORT),
    };
    if !arguments.open {
        builder = builder.authenticated();
    }
    builder.prepare()
}

/// Publishes a device of Bob, or fills its pool again.
async fn publish(cluster: &Cluster) -> Result<UserId> {
    let bob: UserId = "bob".parse()?;
    let endpoints =
        cluster.endpoints().iter().map(|endpoint| endpoint.parse()).collect::<Result<_, _>>()?;
    let config = Config::new(endpoints, "bob/1".parse()?)?;
    let nodes = AnyNode::new(cluster.as_user(config, bob.as_str()));
    let device = open_or_create(&cluster.dir().join("bob"), &nodes, &bob)?;
    device.publish(POOL).await.context("the device of bob cannot be published")?;
    device.rotate_if_due().await.context("the signed prekey of bob cannot be rotated")?;
    Ok(bob)
}

fn open_or_create(dir: &Path, nodes: &AnyNode, user: &UserId) -> Result<Client<AnyNode>> {
    let lock = StoreKey::from_bytes(STORE_KEY).into();
    match Client::open(SqliteKeyStore::open(dir, &lock)?, nodes.clone()) {
        Err(keystore::Error::NoDevice) => {
            let new = NewDevice::new(user.clone(), 1);
            Ok(Client::create(SqliteKeyStore::open(dir, &lock)?, nodes.clone(), new)?)
        }
        opened => Ok(opened?),
    }
}

fn introduce(cluster: &Cluster, user: &UserId) {
    output::line("");
    for node in cluster.nodes() {
        output::line(format_args!(
            "  node {node}   clients {}   operators {}",
            cluster.endpoint(node),
            cluster.admin(node)
        ));
    }
    let first = cluster.nodes().first().copied().unwrap_or(NodeId(1));
    let mut bearer = "";
    if cluster.issuer().is_some() {
        bearer = " -H \"authorization: Bearer $ONCEKEY_TOKEN\"";
        output::line(format_args!(
            "\nBe somebody; in earnest the account system of whoever runs the nodes makes the \
             tokens.\n\n  export ONCEKEY_TOKEN=$(oncekey token mint --key {} --user alice)",
            cluster.dir().join(KEY_FILE).display()
        ));
    }
    output::line(format_args!(
        "\n\
         Fetch a bundle of {user}. Send it again, to any node: the same key. Change the idempotency \
         key: the next one.\n\n  \
         curl -s -X POST {}{}{bearer} -H '{}: try-1' -H 'content-type: application/json' -d '{{}}'\n\n\
         Who leads which shard, and how it goes; the second in a browser:\n\n  \
         oncekey cluster --admin {} status\n  \
         {}{}\n\n\
         Ctrl-C stops all nodes.",
        cluster.endpoint(first),
        path::user_bundles(user),
        header::IDEMPOTENCY_KEY,
        cluster.admin(first),
        cluster.admin(first),
        path::STATUS_PAGE,
    ));
}

/// Reports nodes that end, for ever.
async fn watch(cluster: &mut Cluster) -> Result<()> {
    loop {
        if let Err(error) = cluster.check_running() {
            output::error(&error);
        }
        tokio::time::sleep(LOOK_INTERVAL).await;
    }
}
