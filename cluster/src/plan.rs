//! What a cluster on this machine consists of, and where it lies.
//!
//! Guarantees: a folder belongs to one cluster for its life. Its plan (`cluster.json`) is written
//! before the first node starts, so that whoever opens the folder again gets the same nodes on the
//! same ports. Each node has a folder `node-N` with `node.toml`, `node.log` and its data.
//!
//! Leaves out: what the nodes keep in their data folders.

use std::{
    collections::BTreeMap,
    fmt, fs, io,
    net::SocketAddr,
    path::{Path, PathBuf},
    str::FromStr,
};

use anyhow::{Context, Result, ensure};
use oncekey_types::NodeId;
use serde::{Deserialize, Serialize};
use toml::{Table, Value};

const FILE: &str = "cluster.json";

/// Version of the file. Stable, never reuse.
const VERSION: u32 = 1;

/// The engine that keeps the state of a node.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Engine {
    /// fjall, an LSM tree.
    #[default]
    Fjall,
    /// sled.
    Sled,
}

impl fmt::Display for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Fjall => "fjall",
            Self::Sled => "sled",
        })
    }
}

impl FromStr for Engine {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "fjall" => Ok(Self::Fjall),
            "sled" => Ok(Self::Sled),
            _ => Err(format!("{text:?} is no engine, known are fjall and sled")),
        }
    }
}

/// The plan of a cluster.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Plan {
    version: u32,
    pub(crate) cluster: String,
    pub(crate) engine: Engine,
    pub(crate) shards: u16,
    pub(crate) nodes: BTreeMap<NodeId, Addresses>,
}

/// Where a node listens.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Addresses {
    pub(crate) public: SocketAddr,
    pub(crate) peer: SocketAddr,
    pub(crate) admin: SocketAddr,
    /// Whether the node came later, in the place of another.
    pub(crate) joins: bool,
}

impl Plan {
    pub(crate) fn new(
        cluster: String,
        engine: Engine,
        shards: u16,
        nodes: BTreeMap<NodeId, Addresses>,
    ) -> Self {
        Self { version: VERSION, cluster, engine, shards, nodes }
    }

    /// The plan of the folder `dir`, when it has one.
    pub(crate) fn read(dir: &Path) -> Result<Option<Self>> {
        let path = dir.join(FILE);
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => {
                return Err(error).with_context(|| format!("cannot read {}", path.display()));
            }
        };
        let plan: Self = serde_json::from_slice(&bytes)
            .with_context(|| format!("{} is not the plan of a cluster", path.display()))?;
        ensure!(
            plan.version == VERSION,
            "{} has version {}, this program reads version {VERSION}",
            path.display(),
            plan.version
        );
        Ok(Some(plan))
    }

    /// Keeps the plan in the folder `dir`, in one step.
    pub(crate) fn write(&self, dir: &Path) -> Result<()> {
        let path = dir.join(FILE);
        let draft = dir.join(format!("{FILE}.new"));
        fs::write(&draft, serde_json::to_vec_pretty(self)?)
            .and_then(|()| fs::rename(&draft, &path))
            .with_context(|| format!("cannot write {}", path.display()))
    }

    /// The configuration of `node`: the plan's part, then `settings` by `section.key`.
    pub(crate) fn config(
        &self,
        node: NodeId,
        data_dir: &Path,
        settings: &BTreeMap<String, Value>,
    ) -> Result<String> {
        let addresses =
            self.nodes.get(&node).with_context(|| format!("no node {node} is planned"))?;
        let mut config = Table::new();
        let data_dir = data_dir.to_str().context("the path of the data folder is not UTF-8")?;
        set(&mut config, "node.id", i64::try_from(node.0)?)?;
        set(&mut config, "node.data_dir", data_dir)?;
        set(&mut config, "listen.public", addresses.public.to_string())?;
        set(&mut config, "listen.peer", addresses.peer.to_string())?;
        set(&mut config, "listen.admin", addresses.admin.to_string())?;
        set(&mut config, "cluster.name", self.cluster.as_str())?;
        set(&mut config, "cluster.shards", i64::from(self.shards))?;
        let founders = self.nodes.iter().filter(|(_, other)| !other.joins);
        if addresses.joins {
            let others = self.nodes.iter().filter(|(id, _)| **id != node);
            let peers = others.map(|(_, other)| Value::from(other.peer.to_string()));
            set(&mut config, "cluster.join", peers.collect::<Vec<_>>())?;
        } else {
            let members =
                founders.map(|(id, other)| member(*id, other)).collect::<Result<Vec<_>>>();
            set(&mut config, "cluster.members", members?)?;
        }
        set(&mut config, "storage.engine", self.engine.to_string())?;
        if !settings.keys().any(|key| key.starts_with("auth.")) {
            // On this machine alone, or in a network of its own.
            set(&mut config, "auth.mode", "open")?;
        }
        for (key, value) in settings {
            set(&mut config, key, value.clone())?;
        }
        Ok(toml::to_string(&config)?)
    }
}

/// Folder of `node` below `dir`.
pub(crate) fn node_dir(dir: &Path, node: NodeId) -> PathBuf {
    dir.join(format!("node-{node}"))
}

fn member(id: NodeId, addresses: &Addresses) -> Result<Value> {
    let mut member = Table::new();
    member.insert("id".into(), i64::try_from(id.0)?.into());
    member.insert("peer".into(), addresses.peer.to_string().into());
    member.insert("public".into(), addresses.public.to_string().into());
    Ok(member.into())
}

fn set(config: &mut Table, key: &str, value: impl Into<Value>) -> Result<()> {
    let (section, name) =
        key.split_once('.').with_context(|| format!("{key:?} is not section.name"))?;
    config
        .entry(section)
        .or_insert_with(|| Table::new().into())
        .as_table_mut()
        .with_context(|| format!("{section:?} is not a section"))?
        .insert(name.to_owned(), value.into());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(number: u16, joins: bool) -> Addresses {
        let at = |port| SocketAddr::from(([127, 0, 0, 1], port + number));
        Addresses { public: at(8000), peer: at(7000), admin: at(9000), joins }
    }

    fn plan() -> Plan {
        let nodes = [(1, false), (2, false), (4, true)];
        let nodes =
            nodes.map(|(id, joins)| (NodeId(id), addresses(u16::try_from(id).unwrap(), joins)));
        Plan::new("test".into(), Engine::Sled, 4, BTreeMap::from(nodes))
    }

    #[test]
    fn a_plan_comes_back_from_its_folder() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(Plan::read(dir.path()).unwrap(), None);
        plan().write(dir.path()).unwrap();
        assert_eq!(Plan::read(dir.path()).unwrap(), Some(plan()));
    }

    #[test]
    fn a_founder_lists_the_founders_and_a_latecomer_asks_all_others() {
        let config = |node| -> Table {
            let settings = BTreeMap::from([("raft.ping_ms".to_owned(), Value::from(50))]);
            let text = plan().config(NodeId(node), Path::new("/data"), &settings).unwrap();
            toml::from_str(&text).unwrap()
        };
        let founder = config(1);
        assert_eq!(founder["cluster"]["members"].as_array().unwrap().len(), 2);
        assert_eq!(founder["cluster"]["members"][1]["peer"].as_str(), Some("127.0.0.1:7002"));
        assert!(founder["cluster"].get("join").is_none());
        assert_eq!(founder["raft"]["ping_ms"].as_integer(), Some(50));

        let latecomer = config(4);
        assert_eq!(latecomer["cluster"]["join"].as_array().unwrap().len(), 2);
        assert!(latecomer["cluster"].get("members").is_none());
        assert_eq!(latecomer["storage"]["engine"].as_str(), Some("sled"));
    }

    #[test]
    fn a_key_without_a_section_is_refused() {
        let settings = BTreeMap::from([("ping".to_owned(), Value::from(50))]);
        assert!(plan().config(NodeId(1), Path::new("/data"), &settings).is_err());
    }
}
