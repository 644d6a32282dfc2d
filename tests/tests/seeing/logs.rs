//! Logs as JSON: one line an event, whatever happens.

use std::fs;

use anyhow::{Context, Result, ensure};
use oncekey_cluster::wait::{self, Seen};
use oncekey_types::NodeId;
use serde_json::Value;

use super::{LIMIT, cluster};

fn events(log: &str) -> Result<Vec<Value>> {
    log.lines()
        .map(|line| {
            let event: Value = serde_json::from_str(line).with_context(|| line.to_owned())?;
            for field in ["timestamp", "level", "target", "message"] {
                ensure!(event[field].is_string(), "no {field}: {line}");
            }
            Ok(event)
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_line_of_a_log_in_json_is_an_event_from_start_to_end() -> Result<()> {
    let mut cluster = cluster().set("log.format", "json").start().await?;
    let one = NodeId(1);
    cluster.kill(NodeId(2))?;
    let log = cluster.log(one);
    wait::until(LIMIT, "node 1 to say that node 2 is lost", async || {
        let text = fs::read_to_string(&log)?;
        Ok(Seen::when(text.contains("node lost"), || text.clone()))
    })
    .await?;
    cluster.stop(one).await?;
    let events = events(&fs::read_to_string(&log)?)?;
    let level_of = |words: &str| {
        let of =
            |event: &&Value| event["message"].as_str().is_some_and(|text| text.contains(words));
        let event = events.iter().find(of).with_context(|| format!("nobody says {words:?}"))?;
        Ok::<_, anyhow::Error>(event["level"].as_str().unwrap_or_default().to_owned())
    };
    // A lost node is worth knowing; it needs a person only when it does not come back.
    ensure!(level_of("node lost")? == "WARN");
    ensure!(level_of("serving")? == "INFO");
    ensure!(level_of("shut down")? == "INFO");
    let errors: Vec<_> = events.iter().filter(|event| event["level"] == "ERROR").collect();
    ensure!(errors.is_empty(), "a loss that the cluster bears is no error: {errors:?}");

    cluster.launch(one)?;
    cluster.launch(NodeId(2))?;
    cluster.wait_ready().await?;
    cluster.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_does_not_start_says_why_in_one_event_at_error() -> Result<()> {
    let mut cluster = cluster().nodes(1).set("log.format", "json").start().await?;
    let node = NodeId(1);
    cluster.stop(node).await?;
    let before = fs::read_to_string(cluster.log(node))?.len();
    // A folder that another process has.
    let data = cluster.data_dir(node).context("no data")?.join("LOCK");
    let held = fs::File::options().write(true).open(data)?;
    held.lock()?;
    cluster.launch(node)?;
    let status = cluster.wait_exit(node, LIMIT).await?;
    ensure!(!status.success(), "it started on a folder in use");
    let log = fs::read_to_string(cluster.log(node))?;
    let events = events(&log[before..])?;
    let errors: Vec<_> = events.iter().filter(|event| event["level"] == "ERROR").collect();
    ensure!(errors.len() == 1, "one error is enough: {events:?}");
    let said = errors[0].to_string();
    ensure!(said.contains("in use by another process"), "{said}");

    drop(held);
    cluster.restart(node).await?;
    cluster.finish().await
}
