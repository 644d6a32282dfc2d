//! Three nodes that prove themselves to each other and to clients: certificates are renewed and
//! authorities replaced under load, and whoever has the wrong certificate stays outside.

use std::{fs, path::Path};

use anyhow::{Context, Result, ensure};
use hyper::Method;
use oncekey_api::path;
use oncekey_client::{
    Client, NewDevice, SqliteKeyStore,
    http::{AnyNode, Config, Tls},
};
use oncekey_cluster::{
    Certs, Cluster,
    http::Http,
    wait::{self, Seen},
};
use oncekey_tests::{LIMIT, expect_log_line, small};
use oncekey_types::NodeId;
use tokio::net::TcpStream;

type Device = Client<AnyNode>;

/// Files are looked at this often.
const POLL_MS: i64 = 50;

async fn start() -> Result<Cluster> {
    small().tls().set("tls.poll_ms", POLL_MS).start().await
}

fn certs(cluster: &Cluster) -> Result<&Certs> {
    cluster.certs().context("the cluster has no certificates")
}

/// A client that trusts the authority in `ca` and no other.
fn nodes(endpoints: &[String], ca: &Path) -> Result<AnyNode> {
    let endpoints = endpoints.iter().map(|endpoint| endpoint.parse()).collect::<Result<_, _>>()?;
    let tls = Tls::from_pem(&fs::read(ca)?)?;
    Ok(AnyNode::with_tls(Config::new(endpoints, "tls".parse()?)?, tls))
}

fn device(user: &str, nodes: AnyNode) -> Result<Device> {
    let new = NewDevice::new(user.parse()?, 1);
    Ok(Client::create(SqliteKeyStore::in_memory()?, nodes, new)?)
}

/// Whether somebody who trusts `ca` gets through to `node`.
async fn serves(cluster: &Cluster, node: NodeId, ca: &Path) -> Result<bool> {
    let endpoint = cluster.endpoint(node);
    let address = endpoint.strip_prefix("https://").context("no https")?;
    let stream = TcpStream::connect(address).await?;
    Ok(Tls::from_pem(&fs::read(ca)?)?.connect("127.0.0.1", stream).await.is_ok())
}

/// Puts the files of `from` in the place of those of `node`.
fn replace(cluster: &Cluster, node: NodeId, from: &Certs, files: &[(&str, &str)]) -> Result<()> {
    for (source, target) in files {
        // As a rename would: no reader finds half of a file.
        let target = cluster.node_dir(node).join(target);
        let draft = target.with_extension("new");
        fs::copy(from.file(source), &draft)?;
        fs::rename(draft, target)?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_serves_over_tls_and_only_those_who_trust_it() -> Result<()> {
    let mut cluster = start().await?;
    let ca = certs(&cluster)?.ca();
    let bob = device("bob", nodes(&cluster.endpoints(), &ca)?)?;
    bob.publish(20).await?;
    let alice = device("alice", nodes(&cluster.endpoints(), &ca)?)?;
    alice.publish(1).await?;
    let sent = alice.send_to_all(&"bob".parse()?, b"hello", b"", &Default::default()).await?;
    ensure!(sent.devices.iter().all(|device| device.outcome.is_ok()), "{sent:?}");

    let stranger = certs(&cluster)?.another("stranger")?;
    ensure!(serves(&cluster, NodeId(1), &ca).await?);
    ensure!(!serves(&cluster, NodeId(1), &stranger.ca()).await?, "anyone vouches for a node");

    // A leader that comes back proves itself anew.
    let leader = cluster.leader_of(&"bob".parse()?).await?;
    cluster.kill(leader)?;
    bob.replenish(30).await?;
    cluster.restart(leader).await?;
    cluster.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn certificates_and_authorities_are_replaced_without_a_restart() -> Result<()> {
    let mut cluster = start().await?;
    let old = certs(&cluster)?.clone();
    let new = old.another("new-certs")?;
    let bob = device("bob", nodes(&cluster.endpoints(), &old.ca())?)?;
    bob.publish(10).await?;

    // Clients: a new connection sees the new certificate.
    for node in cluster.nodes() {
        replace(
            &cluster,
            node,
            &new,
            &[("server.pem", "server.pem"), ("server-key.pem", "server-key.pem")],
        )?;
        wait::until(LIMIT, "the new certificate to be shown", async || {
            let shown = serves(&cluster, node, &new.ca()).await?;
            Ok(Seen::when(shown, || "the old one is shown".to_owned()))
        })
        .await?;
        ensure!(!serves(&cluster, node, &old.ca()).await?, "the old one is shown as well");
    }

    // Nodes: both authorities, then new certificates, then the new authority alone.
    let both = old.file("both.pem");
    fs::write(&both, [fs::read(old.ca())?, fs::read(new.ca())?].concat())?;
    for node in cluster.nodes() {
        replace(&cluster, node, &old, &[("both.pem", "ca.pem")])?;
        until_reloaded(&cluster, node, 1).await?;
    }
    for node in cluster.nodes() {
        new.node(node)?;
        let (pem, key) = (format!("node-{node}.pem"), format!("node-{node}-key.pem"));
        replace(&cluster, node, &new, &[(&pem, "node.pem"), (&key, "node-key.pem")])?;
        until_reloaded(&cluster, node, 2).await?;
    }
    for node in cluster.nodes() {
        replace(&cluster, node, &new, &[("ca.pem", "ca.pem")])?;
        until_reloaded(&cluster, node, 3).await?;
    }
    let bob = bob.with_transport(nodes(&cluster.endpoints(), &new.ca())?);
    bob.replenish(20).await?;

    // A node that comes back finds its way with the new ones.
    let follower = cluster.nodes()[0];
    cluster.kill(follower)?;
    cluster.restart(follower).await?;

    // A broken file changes nothing.
    fs::write(cluster.node_dir(follower).join("server.pem"), "half of a certifi")?;
    wait::until(LIMIT, "the node to complain", async || {
        let said = expect_log_line(&cluster, follower, "the old certificate stays in use");
        Ok(Seen::when(said.is_ok(), || "it said nothing".to_owned()))
    })
    .await?;
    ensure!(serves(&cluster, follower, &new.ca()).await?);
    cluster.finish().await
}

/// Waits until `node` has taken up its peer certificate `times` times.
async fn until_reloaded(cluster: &Cluster, node: NodeId, times: usize) -> Result<()> {
    wait::until(LIMIT, &format!("node {node} to take up its files"), async || {
        let log = fs::read_to_string(cluster.log(node))?;
        let said = |line: &&str| line.contains("certificate reloaded") && line.contains("peer");
        let seen = log.lines().filter(said).count();
        Ok(Seen::when(seen >= times, || format!("{seen} of {times} times")))
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_with_the_wrong_certificate_stays_outside() -> Result<()> {
    let mut cluster = start().await?;
    let ours = certs(&cluster)?.clone();
    let stranger = ours.another("stranger")?;
    let node = NodeId(3);
    cluster.stop(node).await?;

    // That of another node: it does not even start.
    replace(
        &cluster,
        node,
        &ours,
        &[("node-2.pem", "node.pem"), ("node-2-key.pem", "node-key.pem")],
    )?;
    cluster.launch(node)?;
    let status = cluster.wait_exit(node, LIMIT).await?;
    ensure!(status.code() == Some(2), "{status}");
    expect_log_line(&cluster, node, "is that of node 2, this is node 3")?;

    // That of another authority, which it trusts itself: the others do not.
    stranger.node(node)?;
    replace(
        &cluster,
        node,
        &stranger,
        &[("node-3.pem", "node.pem"), ("node-3-key.pem", "node-key.pem"), ("ca.pem", "ca.pem")],
    )?;
    cluster.launch(node)?;
    wait::until(LIMIT, "node 3 to be refused", async || {
        let said = expect_log_line(&cluster, node, "a node is not trusted");
        Ok(Seen::when(said.is_ok(), || "it said nothing".to_owned()))
    })
    .await?;
    // It remembers the leaders of before, until they have been silent for long enough.
    wait::until(LIMIT, "node 3 to say that it is not ready", async || {
        let ready = format!("{}{}", cluster.admin(node), path::READYZ);
        let ready = Http::default().bare(Method::GET, &ready).await?;
        Ok(Seen::when(!ready.status.is_success(), || "it is ready without the others".to_owned()))
    })
    .await?;
    // The others do without it.
    let endpoints = [cluster.endpoint(NodeId(1)), cluster.endpoint(NodeId(2))];
    let bob = device("bob", nodes(&endpoints, &ours.ca())?)?;
    bob.publish(10).await?;

    // Its own again.
    cluster.kill(node)?;
    replace(
        &cluster,
        node,
        &ours,
        &[("node-3.pem", "node.pem"), ("node-3-key.pem", "node-key.pem"), ("ca.pem", "ca.pem")],
    )?;
    cluster.restart(node).await?;
    cluster.finish().await
}
