//! How a cluster is put together.
//!
//! Guarantees: a folder that has a plan is continued as it is; asking for something else there is
//! an error. Leaves out: the running cluster; see [`Cluster`].

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use oncekey_types::{NodeId, limits};
use tempfile::TempDir;
use toml::Value;

use crate::{
    binary,
    certs::Certs,
    cluster::{Cluster, Folder, Home, Parts},
    history::Recorder,
    host::Host,
    issuer::{self, Issuer},
    plan::{Engine, Plan},
    ports::Port,
};

/// Most nodes of a cluster on one machine.
pub const NODES_MAX: u16 = 9;

/// The file of a recorded history, in the folder of the cluster.
pub(crate) const HISTORY: &str = "history.jsonl";

const NODES_DEFAULT: u16 = 3;
const READY_LIMIT: Duration = Duration::from_secs(60);

/// Builds a [`Cluster`]. What is not said is as the existing folder has it, else the default.
#[derive(Debug)]
pub struct Builder {
    nodes: Option<u16>,
    engine: Option<Engine>,
    shards: Option<u16>,
    base_port: Option<u16>,
    default_base_port: Option<u16>,
    dir: Option<PathBuf>,
    program: Option<PathBuf>,
    settings: BTreeMap<String, Value>,
    hosts: BTreeMap<NodeId, Host>,
    data_dirs: BTreeMap<NodeId, PathBuf>,
    environment: BTreeMap<NodeId, Vec<(String, String)>>,
    ready_limit: Duration,
    recorded: bool,
    tls: bool,
    authenticated: bool,
    exposed: bool,
}

impl Builder {
    pub(crate) fn new() -> Self {
        Self {
            nodes: None,
            engine: None,
            shards: None,
            base_port: None,
            default_base_port: None,
            dir: None,
            program: None,
            settings: BTreeMap::new(),
            hosts: BTreeMap::new(),
            data_dirs: BTreeMap::new(),
            environment: BTreeMap::new(),
            ready_limit: READY_LIMIT,
            recorded: false,
            tls: false,
            authenticated: false,
            exposed: false,
        }
    }

    /// Number of nodes; three when not said.
    #[must_use]
    pub fn nodes(mut self, nodes: u16) -> Self {
        self.nodes = Some(nodes);
        self
    }

    /// Engine that keeps the state.
    #[must_use]
    pub fn engine(mut self, engine: Engine) -> Self {
        self.engine = Some(engine);
        self
    }

    /// Number of shards.
    #[must_use]
    pub fn shards(mut self, shards: u16) -> Self {
        self.shards = Some(shards);
        self
    }

    /// Node N serves clients at `port + N`, operators at `port + 10 + N` and the other nodes at
    /// `port + 20 + N`. Any free ports when not said.
    #[must_use]
    pub fn base_port(mut self, port: u16) -> Self {
        self.base_port = Some(port);
        self
    }

    /// The [`base_port`](Self::base_port) of a new cluster when none is asked for.
    #[must_use]
    pub fn default_base_port(mut self, port: u16) -> Self {
        self.default_base_port = Some(port);
        self
    }

    /// Keeps everything in `dir`, and continues there if it has been used before. A temporary
    /// folder when not said.
    #[must_use]
    pub fn dir(mut self, dir: impl Into<PathBuf>) -> Self {
        self.dir = Some(dir.into());
        self
    }

    /// Runs `program` instead of the one that [`binary::find`] finds.
    #[must_use]
    pub fn program(mut self, program: impl Into<PathBuf>) -> Self {
        self.program = Some(program.into());
        self
    }

    /// Sets a `section.key` of every node's configuration.
    #[must_use]
    pub fn set(mut self, key: impl Into<String>, value: impl Into<Value>) -> Self {
        self.settings.insert(key.into(), value.into());
        self
    }

    /// Runs `node` on a host of its own instead of any free ports of 127.0.0.1. Not for a folder
    /// that is to be continued.
    #[must_use]
    pub fn host(mut self, node: NodeId, host: Host) -> Self {
        self.hosts.insert(node, host);
        self
    }

    /// Puts the data of `node` elsewhere, on a disk of its own.
    #[must_use]
    pub fn data_dir(mut self, node: NodeId, dir: impl Into<PathBuf>) -> Self {
        self.data_dirs.insert(node, dir.into());
        self
    }

    /// Adds a variable to the environment of `node`.
    #[must_use]
    pub fn variable(
        mut self,
        node: NodeId,
        name: impl Into<String>,
        value: impl Into<String>,
    ) -> Self {
        self.environment.entry(node).or_default().push((name.into(), value.into()));
        self
    }

    /// How long a node may take to become ready; a minute when not said.
    #[must_use]
    pub fn ready_limit(mut self, limit: Duration) -> Self {
        self.ready_limit = limit;
        self
    }

    /// Records a history into the cluster's folder, where there must be none.
    #[must_use]
    pub fn recorded(mut self) -> Self {
        self.recorded = true;
        self
    }

    /// Has the nodes prove themselves to each other and to clients, with certificates of an authority
    /// of their own; see [`Cluster::certs`].
    #[must_use]
    pub fn tls(mut self) -> Self {
        self.tls = true;
        self
    }

    /// Has the nodes want tokens and signatures; the cluster's [issuer](Cluster::issuer) makes the
    /// tokens. They are open to everyone on this machine when not said.
    #[must_use]
    pub fn authenticated(mut self) -> Self {
        self.authenticated = true;
        self
    }

    /// Has the nodes serve operators beyond this machine, which takes TLS and tokens.
    #[must_use]
    pub fn exposed(mut self) -> Self {
        self.exposed = true;
        self.tls().authenticated()
    }

    /// Starts the nodes and waits until all are ready.
    ///
    /// # Errors
    ///
    /// When the folder, the ports or the program are not to be had, or a node ends or does not
    /// become ready; then with the end of its log.
    pub async fn start(self) -> Result<Cluster> {
        let mut cluster = self.prepare()?;
        cluster.start_all().await?;
        Ok(cluster)
    }

    /// Prepares the cluster without starting a node.
    ///
    /// # Errors
    ///
    /// As [`start`](Self::start), apart from the nodes.
    pub fn prepare(self) -> Result<Cluster> {
        let program = match &self.program {
            Some(program) => program.clone(),
            None => binary::find()?,
        };
        let folder = match &self.dir {
            Some(dir) => {
                fs::create_dir_all(dir)
                    .with_context(|| format!("cannot make {}", dir.display()))?;
                Folder::Given(fs::canonicalize(dir)?)
            }
            None => Folder::Temporary(TempDir::with_prefix("oncekey-")?),
        };
        let (plan, homes) = match Plan::read(folder.path())? {
            Some(plan) => self.continued(plan)?,
            None => self.planned(folder.path())?,
        };
        let mut settings = self.settings;
        let issuer = if self.authenticated {
            let issuer = Issuer::open_or_create(folder.path())?;
            let key_set = folder.path().join(issuer::KEY_SET_FILE);
            let key_set = key_set.to_str().context("the path of the folder is not UTF-8")?;
            settings.insert("auth.issuer".into(), issuer::ISSUER.into());
            settings.insert("auth.audience".into(), issuer::AUDIENCE.into());
            settings.insert("auth.jwks_file".into(), key_set.into());
            Some(Arc::new(issuer))
        } else {
            None
        };
        let recorder = if self.recorded {
            Recorder::create(&folder.path().join(HISTORY), &plan.cluster)?
        } else {
            Recorder::none()
        };
        let certs = match self.tls {
            true => Some(Certs::make(&program, &folder.path().join("certs"), &plan.cluster)?),
            false => None,
        };
        Cluster::assemble(Parts {
            folder,
            recorder,
            plan,
            homes,
            program,
            settings,
            certs,
            issuer,
            exposed: self.exposed,
            data_dirs: self.data_dirs,
            environment: self.environment,
            ready_limit: self.ready_limit,
        })
    }

    /// The plan of a folder that was used before.
    fn continued(&self, plan: Plan) -> Result<(Plan, BTreeMap<NodeId, Home>)> {
        let nodes = u16::try_from(plan.nodes.len())?;
        differs("nodes", self.nodes.as_ref(), &nodes)?;
        differs("engine", self.engine.as_ref(), &plan.engine)?;
        differs("shards", self.shards.as_ref(), &plan.shards)?;
        if let (Some(base), Some((id, first))) = (self.base_port, plan.nodes.first_key_value()) {
            let planned = u64::from(first.public.port()).saturating_sub(id.0);
            differs("base port", Some(&u64::from(base)), &planned)?;
        }
        let homes = plan
            .nodes
            .iter()
            .map(|(id, at)| {
                let port = |address: std::net::SocketAddr| Port::exactly(address.port());
                let ports = [port(at.public)?, port(at.admin)?, port(at.peer)?];
                Ok((*id, Home::Ports(ports)))
            })
            .collect::<Result<_>>()?;
        Ok((plan, homes))
    }

    /// A new plan, kept in `dir`.
    fn planned(&self, dir: &Path) -> Result<(Plan, BTreeMap<NodeId, Home>)> {
        ensure_unused(dir)?;
        let count = self.nodes.unwrap_or(NODES_DEFAULT);
        ensure!(
            (1..=NODES_MAX).contains(&count),
            "{count} nodes asked for, allowed are 1 to {NODES_MAX}"
        );
        let mut homes = BTreeMap::new();
        for id in 1..=count {
            if let Some(host) = self.hosts.get(&NodeId(id.into())) {
                homes.insert(NodeId(id.into()), Home::Host(host.clone()));
                continue;
            }
            let port = |role: u16| match self.base_port.or(self.default_base_port) {
                None => Port::any(),
                Some(base) => {
                    let port =
                        base.checked_add(10 * role + id).context("the base port is too high")?;
                    Port::exactly(port)
                }
            };
            let ports = [port(0)?, port(1)?, port(2)?];
            homes.insert(NodeId(id.into()), Home::Ports(ports));
        }
        let nodes = homes.iter().map(|(id, home)| (*id, home.addresses(false))).collect();
        let plan = Plan::new(
            name_of(dir),
            self.engine.unwrap_or_default(),
            self.shards.unwrap_or(limits::SHARDS_DEFAULT),
            nodes,
        );
        plan.write(dir)?;
        Ok((plan, homes))
    }
}

fn differs<T: PartialEq + std::fmt::Display>(what: &str, asked: Option<&T>, is: &T) -> Result<()> {
    match asked {
        Some(asked) if asked != is => {
            bail!(
                "the folder has a cluster with {what} {is}, asked for is {asked}; use another folder"
            )
        }
        _ => Ok(()),
    }
}

/// Refuses a folder with files of somebody else.
fn ensure_unused(dir: &Path) -> Result<()> {
    let used = fs::read_dir(dir)?.next().transpose()?.is_some();
    ensure!(!used, "{} is not empty and has no cluster; use another folder", dir.display());
    Ok(())
}

/// Name of the cluster: nodes of two clusters on one machine do not mistake each other even when
/// one takes over the ports of the other.
fn name_of(dir: &Path) -> String {
    let name: String = dir
        .file_name()
        .and_then(|name| name.to_str())
        .unwrap_or_default()
        .chars()
        .filter(char::is_ascii_alphanumeric)
        .take(limits::CLUSTER_NAME_MAX_BYTES)
        .collect();
    if name.is_empty() { "local".to_owned() } else { name }
}
