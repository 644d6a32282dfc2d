//! The configuration of a node: one TOML file, the environment and flags.
//!
//! Guarantees: read once, checked once; what comes out is typed and consistent, and a [`Config`]
//! starts unless the machine refuses. A key that is not known is an error, and every error names
//! its key. [`KEYS`] has them all; the environment variable of `section.name` is
//! `ONCEKEY_SECTION_NAME`.
//!
//! Leaves out: secrets. There are none in it, only the names of files that hold some.

mod addresses;
pub mod auth;
mod exposure;
mod keys;
mod settings;
mod tls;

use std::{
    collections::BTreeMap,
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
    str::FromStr,
    time::Duration,
};

use oncekey_raft::{EngineKind, Environment, Location, Member, NodeConfig, Protocols, Timing};
use oncekey_store::command::{BucketPolicy, Policy};
use oncekey_types::{NodeId, limits};
use serde::Deserialize;

use settings::{Range, Settings};

pub use crate::tls::Tls;
pub use addresses::{AddressLimits, ForwardedHeader};
pub use auth::Auth;
pub use keys::{KEYS, Key, Kind, example};
pub use settings::Origin;

/// What a node needs to know.
#[derive(Clone, Debug)]
pub struct Config {
    /// Consensus and storage.
    pub node: NodeConfig,
    /// Where to serve clients.
    pub public: SocketAddr,
    /// Where to serve operators.
    pub admin: SocketAddr,
    /// Certificates.
    pub tls: Tls,
    /// Who may do what.
    pub auth: Auth,
    /// Limits at the edge.
    pub http: Http,
    /// Limits for each client address.
    pub addresses: AddressLimits,
    /// Size of a pool at or below which its device is told to upload more.
    pub low_watermark: u32,
    /// Age at which a device is told that its signed prekey is due.
    pub signed_prekey_due: Duration,
    /// Whether the cluster is to be filled from a backup before it serves clients.
    pub awaits_restore: bool,
    /// What is logged.
    pub log: Log,
    /// What is traced.
    pub trace: Trace,
}

/// Limits at the edge.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Http {
    /// Largest body of a request in bytes.
    pub body_max_bytes: usize,
    /// Time for the head of a request to arrive.
    pub header_timeout: Duration,
    /// Time for the body of a request to arrive.
    pub body_timeout: Duration,
    /// Time for a client to take a reply.
    pub send_timeout: Duration,
    /// Time for a fetch to commit.
    pub fetch_timeout: Duration,
    /// Time for any other request to commit or be read.
    pub write_timeout: Duration,
    /// Requests served at once.
    pub concurrency_max: usize,
    /// Connections served at once.
    pub connections_max: usize,
    /// Streams of events open at once; no more than half the connections are used for them.
    pub events_max: usize,
    /// Time for requests to finish at shutdown.
    pub drain_timeout: Duration,
}

/// What is logged.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Log {
    /// Which events, in the syntax of tracing's `EnvFilter`.
    pub filter: String,
    /// In which form.
    pub format: LogFormat,
}

/// What is traced.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Trace {
    /// URL of the collector; nothing is traced without.
    pub endpoint: Option<String>,
    /// Requests of a million that are traced without asking for it.
    pub sampled_per_million: u32,
    /// Requests traced in a second.
    pub per_second_max: u32,
}

/// Form of the log.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object on each line.
    Json,
}

impl FromStr for LogFormat {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            _ => Err("must be \"text\" or \"json\""),
        }
    }
}

/// Why a configuration was refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The file cannot be read.
    #[error("cannot read {path}: {source}", path = path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The reason.
        source: io::Error,
    },
    /// The file is not TOML.
    #[error("{path} is not TOML: {reason}", path = path.display())]
    Toml {
        /// The file.
        path: PathBuf,
        /// Where and why.
        reason: String,
    },
    /// There is no such key.
    #[error("{key} is not a key of the configuration ({origin})")]
    UnknownKey {
        /// The key given.
        key: String,
        /// Where it was given.
        origin: Origin,
    },
    /// Nothing says who may use the node.
    #[error(
        "nothing says who may use this node: set auth.issuer, auth.audience and either \
         auth.jwks_file or auth.jwks_url; or, to try it on this machine alone, auth.mode = \"open\""
    )]
    NoAuth,
    /// A key without a default is not set.
    #[error("{key} is not set")]
    Missing {
        /// The key.
        key: &'static str,
    },
    /// The value of a key is not allowed.
    #[error("{key} {reason} ({origin})")]
    Value {
        /// The key.
        key: &'static str,
        /// Where its value came from.
        origin: Origin,
        /// Why it is not allowed, to be read after the key.
        reason: String,
    },
}

/// Values from flags; they go before everything else.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Overrides(Vec<(String, String)>);

impl Overrides {
    /// Adds the value of one key: text stands for itself, anything else is written as in TOML.
    #[must_use]
    pub fn set(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.0.push((key.into(), value.into()));
        self
    }
}

impl Config {
    /// Reads the file at `path`, when there is one, the process's environment and `overrides`.
    ///
    /// # Errors
    ///
    /// The [`Error`] of the first value that is not allowed.
    pub fn load(path: Option<&Path>, overrides: &Overrides) -> Result<Self, Error> {
        let text = path
            .map(|path| {
                std::fs::read_to_string(path)
                    .map_err(|source| Error::Read { path: path.to_owned(), source })
            })
            .transpose()?;
        // A variable that is not Unicode cannot be one of ours.
        let env = std::env::vars_os().filter_map(|(name, value)| {
            Some((name.into_string().ok()?, value.into_string().ok()?))
        });
        Self::from_sources(path.zip(text.as_deref()), env, overrides)
    }

    /// The same from given sources: a file as its path and text, variables, flags.
    ///
    /// # Errors
    ///
    /// As [`load`](Self::load).
    pub fn from_sources(
        file: Option<(&Path, &str)>,
        env: impl IntoIterator<Item = (String, String)>,
        overrides: &Overrides,
    ) -> Result<Self, Error> {
        let mut settings = Settings::defaults()?;
        if let Some((path, text)) = file {
            settings.add_file(path, text)?;
        }
        settings.add_env(env)?;
        for (key, value) in &overrides.0 {
            settings.add_flag(key, value)?;
        }
        Self::from_settings(&settings)
    }

    fn from_settings(settings: &Settings) -> Result<Self, Error> {
        let node = node(settings)?;
        let tls = tls::tls(settings, &node)?;
        let public = address(settings, "listen.public")?;
        let admin = address(settings, "listen.admin")?;
        let auth = auth::auth(settings)?;
        exposure::check(settings, public, admin, node.peer_listen, &tls, &auth)?;
        Ok(Self {
            node,
            public,
            admin,
            tls,
            auth,
            http: http(settings)?,
            addresses: addresses::addresses(settings)?,
            low_watermark: settings.integer("policy.low_watermark", Range(0, pool_max()))?,
            signed_prekey_due: Duration::from_millis(
                settings.integer("policy.signed_prekey_due_ms", Range(1, 400 * DAY_MS))?,
            ),
            awaits_restore: awaits_restore(settings)?,
            log: Log {
                filter: settings.parsed("log.filter")?,
                format: settings.parsed("log.format")?,
            },
            trace: trace(settings)?,
        })
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct MemberEntry {
    id: u64,
    peer: String,
    public: String,
}

fn node(settings: &Settings) -> Result<NodeConfig, Error> {
    let node = NodeId(settings.integer("node.id", Range(1, MAX))?);
    let members = members(settings)?;
    let join: Vec<String> = settings.list("cluster.join")?;
    if !members.is_empty() && !join.is_empty() {
        return Err(settings.error("cluster.join", "and cluster.members exclude each other"));
    }
    for peer in &join {
        host_port(peer).map_err(|reason| settings.error("cluster.join", reason))?;
    }
    Ok(NodeConfig {
        node,
        cluster: name(settings)?,
        data_dir: settings.parsed("node.data_dir")?,
        peer_listen: address(settings, "listen.peer")?,
        me: me(settings, node, &members)?,
        members,
        join,
        replicas: replicas(settings)?,
        location: Location {
            region: label(settings, "node.region")?,
            zone: label(settings, "node.zone")?,
        },
        protocols: Protocols::default(),
        shards: settings.integer("cluster.shards", Range(1, limits::SHARDS_MAX))?,
        engine: engine(settings)?,
        state_cache_bytes: settings.integer("storage.cache_bytes", Range(MIB, 1024 * GIB))?,
        policy: policy(settings)?,
        timing: timing(settings)?,
        wal_segment_bytes: settings.integer("storage.wal_segment_bytes", Range(8 * MIB, GIB))?,
        log_entries_max: settings.integer("raft.log_entries_max", Range(100, 10_000_000))?,
        environment: Environment::default(),
    })
}

const MIB: u64 = 1024 * 1024;
const GIB: u64 = 1024 * MIB;
/// The largest number that TOML has.
const MAX: u64 = i64::MAX.unsigned_abs();
const DAY_MS: u64 = 24 * 60 * 60 * 1000;

fn members(settings: &Settings) -> Result<BTreeMap<NodeId, Member>, Error> {
    const KEY: &str = "cluster.members";
    let mut members = BTreeMap::new();
    for entry in settings.list::<MemberEntry>(KEY)? {
        for address in [&entry.peer, &entry.public] {
            host_port(address).map_err(|reason| settings.error(KEY, reason))?;
        }
        let member = Member { peer: entry.peer, public: entry.public };
        if members.insert(NodeId(entry.id), member).is_some() {
            return Err(settings.error(KEY, format!("has node {} twice", entry.id)));
        }
    }
    Ok(members)
}

/// How others reach this node; what `advertise` says must be what the others are told.
fn me(
    settings: &Settings,
    node: NodeId,
    members: &BTreeMap<NodeId, Member>,
) -> Result<Member, Error> {
    let public: Option<String> = settings.optional("advertise.public")?;
    let peer: Option<String> = settings.optional("advertise.peer")?;
    let Some(member) = members.get(&node) else {
        if !members.is_empty() {
            return Err(settings.error("cluster.members", format!("lacks this node, {node}")));
        }
        return Ok(Member {
            peer: reachable(settings, "advertise.peer", peer, "listen.peer")?,
            public: reachable(settings, "advertise.public", public, "listen.public")?,
        });
    };
    for (key, advertised, listed) in
        [("advertise.peer", peer, &member.peer), ("advertise.public", public, &member.public)]
    {
        if advertised.is_some_and(|advertised| advertised != *listed) {
            return Err(settings.error(key, format!("differs from {listed} in cluster.members")));
        }
    }
    Ok(member.clone())
}

/// The address advertised, or the one listened on when others can reach that.
fn reachable(
    settings: &Settings,
    key: &'static str,
    advertised: Option<String>,
    listen: &'static str,
) -> Result<String, Error> {
    if let Some(advertised) = advertised {
        host_port(&advertised).map_err(|reason| settings.error(key, reason))?;
        return Ok(advertised);
    }
    let listen = address(settings, listen)?;
    if listen.ip().is_unspecified() {
        return Err(Error::Missing { key });
    }
    Ok(listen.to_string())
}

fn name(settings: &Settings) -> Result<String, Error> {
    let name: String = settings.parsed("cluster.name")?;
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    if name.is_empty() || name.len() > limits::CLUSTER_NAME_MAX_BYTES || !name.bytes().all(plain) {
        let reason = format!(
            "must be 1 to {} letters, digits, '-', '_' or '.'",
            limits::CLUSTER_NAME_MAX_BYTES
        );
        return Err(settings.error("cluster.name", reason));
    }
    Ok(name)
}

/// Replicas of each shard in a new cluster, when that is said.
fn replicas(settings: &Settings) -> Result<Option<u16>, Error> {
    const KEY: &str = "cluster.replicas";
    if settings.has(KEY) {
        settings.integer(KEY, Range(1, limits::REPLICAS_MAX)).map(Some)
    } else {
        Ok(None)
    }
}

/// The label of a region or a zone; empty when there is none.
fn label(settings: &Settings, key: &'static str) -> Result<String, Error> {
    let label: String = settings.optional(key)?.unwrap_or_default();
    if label.len() > limits::LABEL_MAX_BYTES || label.chars().any(char::is_control) {
        let reason = format!("must be at most {} printable bytes", limits::LABEL_MAX_BYTES);
        return Err(settings.error(key, reason));
    }
    Ok(label)
}

fn engine(settings: &Settings) -> Result<EngineKind, Error> {
    const KEY: &str = "storage.engine";
    match settings.parsed::<String>(KEY)?.as_str() {
        "fjall" => Ok(EngineKind::Fjall),
        #[cfg(feature = "sled")]
        "sled" => Ok(EngineKind::Sled),
        #[cfg(not(feature = "sled"))]
        "sled" => Err(settings.error(KEY, "is sled, which this program was built without")),
        other => {
            Err(settings.error(KEY, format!("is {other:?}, known are \"fjall\" and \"sled\"")))
        }
    }
}

fn awaits_restore(settings: &Settings) -> Result<bool, Error> {
    const KEY: &str = "cluster.starts_from";
    match settings.parsed::<String>(KEY)?.as_str() {
        "nothing" => Ok(false),
        "backup" => Ok(true),
        _ => Err(settings.error(KEY, "must be \"nothing\" or \"backup\"")),
    }
}

fn policy(settings: &Settings) -> Result<Policy, Error> {
    let bucket = |capacity, refill| {
        Ok(BucketPolicy {
            capacity: settings.integer(capacity, Range(0, 1_000_000))?,
            refill_ms: settings.integer(refill, Range(1, DAY_MS))?,
        })
    };
    Ok(Policy {
        retry_window_ms: settings.integer("policy.retry_window_ms", Range(1000, DAY_MS))?,
        per_caller: bucket("policy.per_caller_capacity", "policy.per_caller_refill_ms")?,
        per_target: bucket("policy.per_target_capacity", "policy.per_target_refill_ms")?,
    })
}

fn timing(settings: &Settings) -> Result<Timing, Error> {
    let timing = Timing {
        ping_ms: settings.integer("raft.ping_ms", Range(5, 60_000))?,
        node_timeout_ms: settings.integer("raft.node_timeout_ms", Range(50, 600_000))?,
    };
    if timing.node_timeout_ms < 4 * timing.ping_ms {
        let reason = format!("must be at least four times raft.ping_ms, {}", timing.ping_ms);
        return Err(settings.error("raft.node_timeout_ms", reason));
    }
    Ok(timing)
}

fn http(settings: &Settings) -> Result<Http, Error> {
    let duration = |key| Ok(Duration::from_millis(settings.integer(key, Range(1, 600_000))?));
    Ok(Http {
        body_max_bytes: settings
            .integer("http.body_max_bytes", Range(1024, limits::BODY_MAX_BYTES))?,
        header_timeout: duration("http.header_timeout_ms")?,
        body_timeout: duration("http.body_timeout_ms")?,
        send_timeout: duration("http.send_timeout_ms")?,
        fetch_timeout: duration("http.fetch_timeout_ms")?,
        write_timeout: duration("http.write_timeout_ms")?,
        concurrency_max: settings.integer("http.concurrency_max", Range(1, 1_000_000))?,
        connections_max: settings.integer("http.connections_max", Range(1, 1_000_000))?,
        events_max: settings.integer("http.events_max", Range(0, 1_000_000))?,
        drain_timeout: duration("http.drain_timeout_ms")?,
    })
}

fn trace(settings: &Settings) -> Result<Trace, Error> {
    const KEY: &str = "trace.endpoint";
    let endpoint: Option<String> = settings.optional(KEY)?;
    if let Some(endpoint) = &endpoint {
        if !cfg!(feature = "otlp") {
            return Err(settings.error(KEY, "is set, but this program was built without tracing"));
        }
        let host = endpoint.strip_prefix("http://").unwrap_or_default();
        host_port(host.trim_end_matches('/'))
            .map_err(|_| settings.error(KEY, "must be http://host:port"))?;
    }
    Ok(Trace {
        endpoint,
        sampled_per_million: settings.integer("trace.sampled_per_million", Range(0, 1_000_000))?,
        per_second_max: settings.integer("trace.per_second_max", Range(0, 1_000_000))?,
    })
}

/// An address to listen on. Port 0 is refused: nobody would know where the node is.
fn address(settings: &Settings, key: &'static str) -> Result<SocketAddr, Error> {
    let address: SocketAddr = settings.parsed(key)?;
    if address.port() == 0 {
        return Err(settings.error(key, "has port 0"));
    }
    Ok(address)
}

pub(crate) fn host_port(address: &str) -> Result<(), String> {
    let valid = address
        .rsplit_once(':')
        .is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok_and(|p| p != 0));
    if valid { Ok(()) } else { Err(format!("has {address:?}, which is not host:port")) }
}

fn pool_max() -> u32 {
    u32::try_from(limits::POOL_MAX).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests;
