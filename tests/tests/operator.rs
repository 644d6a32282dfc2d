//! What operators do at nodes that others can reach: with a token, over TLS, and not otherwise.

use std::{
    path::{Path, PathBuf},
    process::{Command, Output},
};

use anyhow::{Context, Result, ensure};
use oncekey_cluster::{
    Cluster, binary,
    issuer::{Claims, OPERATOR_SCOPE},
    wait::{self, Seen},
};
use oncekey_tests::{LIMIT, small};
use oncekey_types::NodeId;

/// Runs `oncekey` with these arguments, words apart by spaces, and then `paths`.
fn oncekey(arguments: &str, paths: &[&Path]) -> Result<Output> {
    let mut command = Command::new(binary::find()?);
    // Whoever runs the tests may have set them.
    for name in ["ONCEKEY_TOKEN", "ONCEKEY_TOKEN_FILE", "ONCEKEY_CA", "ONCEKEY_ADMIN"] {
        command.env_remove(name);
    }
    command.args(arguments.split_whitespace()).args(paths);
    command.output().context("cannot run oncekey")
}

fn succeeds(arguments: &str, paths: &[&Path]) -> Result<String> {
    let output = oncekey(arguments, paths)?;
    let (told, error) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    ensure!(output.status.success(), "oncekey {arguments}: {told}{error}");
    Ok(told.into_owned())
}

fn fails(arguments: &str, paths: &[&Path], why: &str) -> Result<()> {
    let output = oncekey(arguments, paths)?;
    let error = String::from_utf8_lossy(&output.stderr);
    ensure!(!output.status.success(), "oncekey {arguments} succeeds");
    ensure!(error.contains(why), "oncekey {arguments}: not {why:?} but {error}");
    Ok(())
}

/// A token in a file.
fn token(cluster: &Cluster, name: &str, scope: &str) -> Result<PathBuf> {
    let issuer = cluster.issuer().context("no issuer")?;
    let claims = Claims { scope: scope.to_owned(), ..Claims::new(name) };
    let file = cluster.dir().join(name);
    std::fs::write(&file, issuer.token(&claims))?;
    Ok(file)
}

/// Waits until the node of `config` says that it is well; a shard may have no leader for a moment.
async fn until_healthy(config: &Path) -> Result<()> {
    wait::until(LIMIT, "the node to be well", async || {
        let well = succeeds("health --config", &[config]);
        Ok(well.map_or_else(|error| Seen::not_yet(error.to_string()), |_| Seen::Done(())))
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn operators_need_a_token_and_trust_and_then_see_change_and_keep_a_cluster() -> Result<()> {
    let mut cluster = small().exposed().start().await?;
    let (admin, ca) = (cluster.admin(NodeId(2)), cluster.certs().context("no certificates")?.ca());
    let ca = format!("--ca {}", ca.display());
    let operator = token(&cluster, "operator.jwt", OPERATOR_SCOPE)?;
    let user = token(&cluster, "user.jwt", "")?;
    let operator = format!("--token-file {}", operator.display());

    let status = format!("cluster --admin {admin} status --json");
    let seen = succeeds(&format!("{status} {ca} {operator}"), &[])?;
    ensure!(serde_json::from_str::<serde_json::Value>(&seen)?["members"].is_array(), "{seen}");
    fails(&format!("{status} {operator}"), &[], "no node answers")?;
    fails(&format!("{status} {ca}"), &[], "token_missing")?;
    fails(&format!("{status} {ca} --token-file"), &[&user], "scope_missing")?;

    let backup = format!("backup --patience-s 5 --admin {admin} {ca}");
    let place = cluster.dir().join("backup");
    fails(&format!("{backup} --to"), &[&place.with_extension("no")], "token_missing")?;
    succeeds(&format!("{backup} {operator} --to"), &[&place])?;
    succeeds("backup verify", &[&place])?;

    // The health of a node is nobody's secret; its own certificate is enough to ask.
    let config = cluster.node_dir(NodeId(2)).join("node.toml");
    until_healthy(&config).await?;
    cluster.kill(NodeId(2))?;
    fails("health --config", &[&config], "the node is not well")?;
    cluster.restart(NodeId(2)).await?;
    until_healthy(&config).await?;
    cluster.finish().await
}
