//! A cluster of real processes on this machine.
//!
//! Guarantees: every node is a process of its own that can be killed, stopped, paused, restarted
//! and stripped of its disk; all of them end with the [`Cluster`]. A wait has a deadline and, when
//! it fails, shows what was seen last and the end of the log. A temporary folder is removed by
//! [`finish`](Cluster::finish) only: whoever drops a cluster for another reason finds all logs.
//!
//! Leaves out: faults of network and disk; for those see `chaos`.

mod lifecycle;

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::ExitStatus,
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, Result};
use hyper::Method;
use oncekey_api::{cluster as api, path};
use oncekey_client::http::{Config, Connector, Tls, Token};
use oncekey_types::{NodeId, ShardId, SlotMap, UserId};
use tempfile::TempDir;
use toml::Value;

use crate::{
    builder::Builder,
    certs::Certs,
    history::Recorder,
    host::Host,
    http::Http,
    issuer::{Claims, Issuer, OPERATOR_SCOPE},
    plan::{Addresses, Engine, Plan, node_dir},
    ports::Port,
    process::{Launch, Process, log_tail},
    wait::{self, Seen},
};

pub use lifecycle::EndedByItself;

/// Time for a shard to have a leader that a node knows.
const LEADER_LIMIT: Duration = Duration::from_secs(120);
/// Ports on a host that runs one node: public, admin, peer.
const HOST_PORTS: [u16; 3] = [8080, 9080, 7080];
/// Lines of a log shown with an error.
const TAIL_LINES: usize = 25;

/// A running cluster.
#[derive(Debug)]
pub struct Cluster {
    folder: Folder,
    plan: Plan,
    nodes: BTreeMap<NodeId, Node>,
    program: PathBuf,
    settings: BTreeMap<String, Value>,
    certs: Option<Certs>,
    issuer: Option<Arc<Issuer>>,
    exposed: bool,
    ready_limit: Duration,
    http: Http,
    recorder: Recorder,
    /// The last node that was retired.
    retired: Option<NodeId>,
}

/// What a [`Builder`] hands over.
#[derive(Debug)]
pub(crate) struct Parts {
    pub(crate) folder: Folder,
    pub(crate) plan: Plan,
    pub(crate) homes: BTreeMap<NodeId, Home>,
    pub(crate) program: PathBuf,
    pub(crate) settings: BTreeMap<String, Value>,
    pub(crate) certs: Option<Certs>,
    pub(crate) issuer: Option<Arc<Issuer>>,
    pub(crate) exposed: bool,
    pub(crate) data_dirs: BTreeMap<NodeId, PathBuf>,
    pub(crate) environment: BTreeMap<NodeId, Vec<(String, String)>>,
    pub(crate) ready_limit: Duration,
    pub(crate) recorder: Recorder,
}

/// Where the cluster lies.
#[derive(Debug)]
pub(crate) enum Folder {
    /// Somebody's folder; it stays.
    Given(PathBuf),
    /// Removed at the end.
    Temporary(TempDir),
}

impl Folder {
    pub(crate) fn path(&self) -> &Path {
        match self {
            Self::Given(path) => path,
            Self::Temporary(dir) => dir.path(),
        }
    }
}

#[derive(Debug)]
struct Node {
    launch: Launch,
    data_dir: PathBuf,
    process: Option<Process>,
    /// How the last process ended.
    ended: Option<ExitStatus>,
    _home: Home,
}

/// Where a node listens.
#[derive(Debug)]
pub(crate) enum Home {
    /// On ports of 127.0.0.1: public, admin, peer.
    Ports([Port; 3]),
    /// On a host of its own.
    Host(Host),
}

impl Home {
    pub(crate) fn addresses(&self, joins: bool) -> Addresses {
        let [public, admin, peer] = match self {
            Self::Ports(ports) => ports.each_ref().map(Port::address),
            Self::Host(host) => HOST_PORTS.map(|port| (host.address, port).into()),
        };
        Addresses { public, peer, admin, joins }
    }
}

impl Cluster {
    /// A cluster to be built.
    #[must_use]
    pub fn builder() -> Builder {
        Builder::new()
    }

    /// Who makes the tokens that the nodes believe; none when the nodes are open.
    #[must_use]
    pub fn issuer(&self) -> Option<&Arc<Issuer>> {
        self.issuer.as_ref()
    }

    /// `config` with tokens of `user`, when the nodes want tokens.
    #[must_use]
    pub fn as_user(&self, config: Config, user: &str) -> Config {
        match &self.issuer {
            Some(issuer) => config.with_tokens(issuer.source(user)),
            None => config,
        }
    }

    pub(crate) fn assemble(parts: Parts) -> Result<Self> {
        let Parts { homes, data_dirs, environment, .. } = parts;
        let mut cluster = Self {
            folder: parts.folder,
            plan: parts.plan,
            nodes: BTreeMap::new(),
            program: parts.program,
            settings: parts.settings,
            http: match &parts.certs {
                Some(certs) if parts.exposed => operator(certs, parts.issuer.as_deref())?,
                Some(_) | None => Http::default(),
            },
            issuer: parts.issuer,
            exposed: parts.exposed,
            ready_limit: parts.ready_limit,
            certs: parts.certs,
            recorder: parts.recorder,
            retired: None,
        };
        for (id, home) in homes {
            let data_dir = data_dirs.get(&id).cloned();
            let variables = environment.get(&id).cloned().unwrap_or_default();
            cluster.add(id, home, data_dir, variables)?;
        }
        Ok(cluster)
    }

    /// The nodes, in the order of their ids.
    #[must_use]
    pub fn nodes(&self) -> Vec<NodeId> {
        self.nodes.keys().copied().collect()
    }

    /// The nodes whose process runs, as far as is known.
    #[must_use]
    pub fn running(&self) -> Vec<NodeId> {
        self.nodes.iter().filter(|(_, node)| node.process.is_some()).map(|(id, _)| *id).collect()
    }

    /// Records what happens; nothing unless the cluster was built
    /// [recorded](Builder::recorded).
    #[must_use]
    pub fn recorder(&self) -> &Recorder {
        &self.recorder
    }

    /// The engine of all nodes.
    #[must_use]
    pub fn engine(&self) -> Engine {
        self.plan.engine
    }

    /// The folder that holds plan, configurations, logs and data.
    #[must_use]
    pub fn dir(&self) -> &Path {
        self.folder.path()
    }

    /// URL that serves clients at `node`.
    ///
    /// # Panics
    ///
    /// When there is no such node.
    #[must_use]
    pub fn endpoint(&self, node: NodeId) -> String {
        let scheme = if self.certs.is_some() { "https" } else { "http" };
        format!("{scheme}://{}", self.plan.nodes[&node].public)
    }

    /// The certificates of the cluster, when it was built with [`tls`](Builder::tls).
    #[must_use]
    pub fn certs(&self) -> Option<&Certs> {
        self.certs.as_ref()
    }

    /// The folder that holds configuration, log and certificates of `node`.
    #[must_use]
    pub fn node_dir(&self, node: NodeId) -> PathBuf {
        node_dir(self.dir(), node)
    }

    /// URLs that serve clients, in the order of the nodes.
    #[must_use]
    pub fn endpoints(&self) -> Vec<String> {
        self.plan.nodes.keys().map(|node| self.endpoint(*node)).collect()
    }

    /// URL that serves operators at `node`.
    ///
    /// # Panics
    ///
    /// When there is no such node.
    #[must_use]
    pub fn admin(&self, node: NodeId) -> String {
        let scheme = if self.exposed { "https" } else { "http" };
        format!("{scheme}://{}", self.plan.nodes[&node].admin)
    }

    /// Address at which `node` serves the other nodes.
    ///
    /// # Panics
    ///
    /// When there is no such node.
    #[must_use]
    pub fn peer(&self, node: NodeId) -> String {
        self.plan.nodes[&node].peer.to_string()
    }

    /// The log of `node`.
    #[must_use]
    pub fn log(&self, node: NodeId) -> PathBuf {
        node_dir(self.dir(), node).join("node.log")
    }

    /// The process id of `node`, when its process runs.
    #[must_use]
    pub fn process_id(&self, node: NodeId) -> Option<u32> {
        self.nodes.get(&node)?.process.as_ref().map(Process::id)
    }

    /// The folder that holds the data of `node`.
    #[must_use]
    pub fn data_dir(&self, node: NodeId) -> Option<&Path> {
        self.nodes.get(&node).map(|node| node.data_dir.as_path())
    }

    /// The cluster as `node` sees it.
    ///
    /// # Errors
    ///
    /// When it does not answer.
    pub async fn status(&self, node: NodeId) -> Result<api::Cluster> {
        let url = format!("{}{}", self.admin(node), path::CLUSTER);
        self.http.bare(Method::GET, &url).await?.parse()
    }

    /// The same, with a digest of what each replica holds.
    ///
    /// # Errors
    ///
    /// When it does not answer.
    pub async fn states(&self, node: NodeId) -> Result<api::Cluster> {
        let url = format!("{}{}?{}", self.admin(node), path::CLUSTER, api::WITH_STATE);
        self.http.bare(Method::GET, &url).await?.parse()
    }

    /// The shard of `user`.
    ///
    /// # Errors
    ///
    /// When the cluster has a number of shards that is not allowed.
    pub fn shard_of(&self, user: &UserId) -> Result<ShardId> {
        Ok(SlotMap::even(self.plan.shards)?.shard_of(user))
    }

    /// The running node that leads the shard of `user`, by its own account; waits for one.
    ///
    /// # Errors
    ///
    /// When there is none in time.
    pub async fn leader_of(&self, user: &UserId) -> Result<NodeId> {
        let shard = self.shard_of(user)?;
        wait::until(LEADER_LIMIT, &format!("shard {shard} to have a leader"), async || {
            let mut seen = Vec::new();
            // A deposed leader may still believe in itself; the highest term is right.
            let mut best = None;
            for node in self.running() {
                match self.status(node).await {
                    Ok(status) => {
                        let shard = status.shards.iter().find(|status| status.shard == shard);
                        let Some(shard) = shard else { continue };
                        if shard.leader == Some(node) {
                            best = best.max(Some((shard.term, node)));
                        }
                        seen.push(format!(
                            "node {node}: {:?} in term {}",
                            shard.leader, shard.term
                        ));
                    }
                    Err(error) => seen.push(format!("node {node}: {error:#}")),
                }
            }
            Ok(match best {
                Some((_, leader)) => Seen::Done(leader),
                None => Seen::not_yet(seen.join("; ")),
            })
        })
        .await
    }

    /// The last `lines` lines of the log of `node`.
    ///
    /// # Errors
    ///
    /// When it has none.
    pub fn log_tail(&self, node: NodeId, lines: usize) -> Result<String> {
        log_tail(&self.log(node), lines)
    }

    /// Stops all nodes in good order and removes a temporary folder.
    ///
    /// # Errors
    ///
    /// When a node had ended by itself or does not stop cleanly; then everything stays.
    pub async fn finish(mut self) -> Result<()> {
        self.check_running()?;
        self.stop_all().await?;
        if let Folder::Temporary(dir) = &mut self.folder {
            let path = dir.path().to_owned();
            dir.disable_cleanup(true);
            fs::remove_dir_all(&path)
                .with_context(|| format!("cannot remove {}", path.display()))?;
            self.nodes.clear();
        }
        Ok(())
    }

    fn add(
        &mut self,
        id: NodeId,
        home: Home,
        data_dir: Option<PathBuf>,
        mut environment: Vec<(String, String)>,
    ) -> Result<()> {
        let dir = node_dir(self.dir(), id);
        let (enter, own_disk) = match &home {
            Home::Ports(_) => (Vec::new(), None),
            Home::Host(host) => {
                environment.extend_from_slice(&host.environment);
                (host.enter.clone(), Some(host.data_dir.clone()))
            }
        };
        let data_dir = data_dir.or(own_disk).unwrap_or_else(|| dir.join("data"));
        fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
        let config = dir.join("node.toml");
        let mut settings = self.settings.clone();
        if let Some(certs) = &self.certs {
            settings.extend(certs.settings(id, &dir)?);
        }
        if self.exposed {
            for key in ["certificate", "key"] {
                if let Some(file) = settings.get(&format!("tls.{key}")).cloned() {
                    settings.insert(format!("tls.admin_{key}"), file);
                }
            }
            let port = self.plan.nodes[&id].admin.port();
            settings.insert("listen.admin".into(), format!("0.0.0.0:{port}").into());
        }
        fs::write(&config, self.plan.config(id, &data_dir, &settings)?)
            .with_context(|| format!("cannot write {}", config.display()))?;
        let launch = Launch {
            enter,
            program: self.program.clone(),
            config,
            log: dir.join("node.log"),
            environment,
        };
        let node = Node { launch, data_dir, process: None, ended: None, _home: home };
        self.nodes.insert(id, node);
        Ok(())
    }

    fn node(&mut self, node: NodeId) -> Result<&mut Node> {
        self.nodes.get_mut(&node).with_context(|| format!("no node {node}"))
    }

    fn with_log(&self, node: NodeId, what: &str) -> String {
        let tail = self.log_tail(node, TAIL_LINES).unwrap_or_else(|error| format!("{error:#}"));
        format!("node {node} {what}; the end of {}:\n{tail}\n", self.log(node).display())
    }
}

/// Requests of an operator, who trusts the cluster's authority.
fn operator(certs: &Certs, issuer: Option<&Issuer>) -> Result<Http> {
    let ca = certs.ca();
    let pem = fs::read(&ca).with_context(|| format!("cannot read {}", ca.display()))?;
    let http = Http::default().through(Connector::with_tls(Tls::from_pem(&pem)?));
    let Some(issuer) = issuer else { return Ok(http) };
    let claims = Claims { scope: OPERATOR_SCOPE.to_owned(), ..Claims::new("operator") };
    let token: Token = issuer.token(&claims).parse()?;
    Ok(http.authorized(Some(token.bearer()?)))
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if self.nodes.is_empty() {
            return;
        }
        self.nodes.clear();
        if let Folder::Temporary(dir) = &mut self.folder {
            dir.disable_cleanup(true);
            #[expect(clippy::print_stderr, reason = "whoever sees a run fail needs the folder")]
            {
                eprintln!(
                    "configurations, logs and data of the nodes are in {}",
                    dir.path().display()
                );
            }
        }
    }
}
