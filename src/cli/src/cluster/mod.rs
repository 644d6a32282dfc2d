//! `oncekey cluster`: seeing and changing a cluster through the admin listener of any node.
//!
//! Guarantees: a change may be asked for again; with `--watch` the command ends when it is done, and
//! shows on the way how far it is. Leaves out: what a change means, see `docs/operations.md`.

mod args;
mod view;

use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use hyper::Method;
use oncekey_api::{
    cluster::{Cluster, Drain, Init, Join, Member, Replace, Transfer},
    path,
};
use oncekey_cluster::http::Http;
use oncekey_types::NodeId;
use serde::Serialize;
use tokio::time::{Instant, sleep};

use crate::output;

pub(crate) use args::Arguments;
use args::Command;

/// Time for a change to be answered; a replacement is answered when it is done.
const LIMIT: Duration = Duration::from_secs(90);
/// Time between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// Time without a change after which the shards are taken for settled.
const CALM: Duration = Duration::from_secs(3);

pub(crate) async fn run(arguments: Arguments) -> Result<()> {
    let Arguments { admin, access, json, watch, command } = arguments;
    let http = Http::with_limit(LIMIT).through(access.connector()?);
    let http = http.authorized(access.authorization()?);
    let operator = Operator { http, admin, json };
    match command {
        Command::Status => operator.status(watch).await,
        Command::Init { peers, replicas } => {
            operator.post(path::CLUSTER_INIT, &Init { peers, replicas }).await?;
            if watch {
                let formed = |cluster: &Cluster| {
                    let led = cluster.placement.iter().all(|placed| placed.leader.is_some());
                    led && !cluster.placement.is_empty()
                };
                operator.follow(formed).await?;
            }
            operator.done("the nodes form a cluster; it serves when each shard has a leader")
        }
        Command::Join { node } => {
            operator.post(path::CLUSTER_JOIN, &Join { node }).await?;
            operator.settle(watch, |_| true).await?;
            operator.done("the node is let in and is given its share of the shards")
        }
        Command::Drain { node } => {
            operator.post(path::CLUSTER_DRAIN, &Drain { node }).await?;
            operator.settle(watch, |cluster| !is_member(cluster, node)).await?;
            let done = if watch { "removed; stop it" } else { "drained, then removed" };
            operator.done(&format!("node {node} is {done}"))
        }
        Command::Replace { old, new } => {
            let cluster = operator.look().await?;
            let member = cluster.members.iter().find(|member| member.id == new);
            let member = member.with_context(|| {
                format!("node {new} has not asked to join; start it with cluster.join set")
            })?;
            let (peer, public) = (member.peer.clone(), member.public.clone());
            let new = Member { id: new, peer, public };
            let text = format!("node {} has taken the place of node {old}", new.id);
            operator.post(path::CLUSTER_REPLACE, &Replace { old, new }).await?;
            operator.done(&text)
        }
        Command::Transfer { shard, to } => {
            operator.post(path::CLUSTER_TRANSFER, &Transfer { shard, to }).await?;
            operator.done(&format!("node {to} leads shard {shard}"))
        }
    }
}

fn is_member(cluster: &Cluster, node: NodeId) -> bool {
    cluster.members.iter().any(|member| member.id == node)
}

/// Asks one node.
struct Operator {
    http: Http,
    admin: String,
    json: bool,
}

impl Operator {
    async fn status(&self, watch: bool) -> Result<()> {
        if watch {
            return self.follow(|_| false).await;
        }
        self.show(&self.look().await?)
    }

    async fn look(&self) -> Result<Cluster> {
        let reply = self.http.bare(Method::GET, &self.url(path::CLUSTER)).await;
        reply.with_context(|| format!("no node answers at {}", self.admin))?.parse()
    }

    async fn post(&self, path: &str, body: &impl Serialize) -> Result<()> {
        let reply = self.http.json(Method::POST, &self.url(path), &[], body).await;
        reply.with_context(|| format!("no node answers at {}", self.admin))?.expect_success()
    }

    fn url(&self, path: &str) -> String {
        format!("{}{path}", self.admin.trim_end_matches('/'))
    }

    /// Shows the cluster whenever it has changed, until `is_done`.
    async fn follow(&self, is_done: impl Fn(&Cluster) -> bool) -> Result<()> {
        let mut shown = None;
        loop {
            let cluster = self.look().await?;
            let text = view::table(&cluster);
            if shown.as_ref() != Some(&text) {
                self.show(&cluster)?;
                shown = Some(text);
            }
            if is_done(&cluster) {
                return Ok(());
            }
            sleep(LOOK_EVERY).await;
        }
    }

    /// When asked to, tells of every shard that moves until none has for a while and `is_done`.
    async fn settle(&self, watch: bool, is_done: impl Fn(&Cluster) -> bool) -> Result<()> {
        if !watch {
            return Ok(());
        }
        let mut told: Vec<String> = Vec::new();
        let mut moved = Instant::now();
        loop {
            let cluster = self.look().await?;
            let moves = view::moves(&cluster);
            if moves != told {
                moved = Instant::now();
                for line in moves.iter().filter(|line| !told.contains(line)) {
                    output::line(line);
                }
                told = moves;
            }
            if told.is_empty() && moved.elapsed() >= CALM && is_done(&cluster) {
                return Ok(());
            }
            if let Some(dead) = view::blocked(&cluster)
                && moved.elapsed() >= LIMIT
            {
                bail!("nothing has moved for {} s: {dead}", LIMIT.as_secs());
            }
            sleep(LOOK_EVERY).await;
        }
    }

    fn show(&self, cluster: &Cluster) -> Result<()> {
        if self.json {
            output::line(serde_json::to_string(cluster)?);
        } else {
            output::line(view::table(cluster));
        }
        Ok(())
    }

    #[expect(clippy::unnecessary_wraps, reason = "ends the commands that can fail")]
    fn done(&self, text: &str) -> Result<()> {
        if !self.json {
            output::line(text);
        }
        Ok(())
    }
}
