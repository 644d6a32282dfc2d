//! Certificates: of the listeners, and of the node among the nodes.
//!
//! Guarantees: TLS 1.3 and nothing older; a certificate is used only if its key belongs to it, and
//! that of a node only if it names this node and the authorities of the other nodes vouch for it.
//! Files that change are taken up while the node runs, for the connections made from then on; files
//! that cannot be used are reported and change nothing; connections that stand are left alone.
//!
//! Leaves out: who gets a certificate. Whoever holds a key that an authority in `tls.peer_ca` has
//! vouched for under the name of a node is that node; see [`node_name`].

mod credentials;
mod files;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod name;
mod peers;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use oncekey_raft::{Environment, environment::Guard};
use oncekey_types::NodeId;
use prometheus_client::registry::Registry;
use rustls::{ClientConfig, ServerConfig};
use sha2::{Digest as _, Sha256};
use tokio::sync::Notify;

pub(crate) use self::credentials::Credentials;
use self::{
    credentials::Follow,
    peers::{PeerGuard, PeerTls},
};

pub use files::LoadError;
pub use name::node_name;
pub(crate) use name::server_name;

/// The only protocol over TLS that a listener speaks.
const ALPN: &[u8] = b"http/1.1";

/// Where the certificates of a node are, and how they are looked after.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Tls {
    /// The certificate that clients see.
    pub public: Option<CertificateFiles>,
    /// The certificate that operators see.
    pub admin: Option<CertificateFiles>,
    /// The certificate that other nodes see, and whom this one trusts.
    pub peer: Option<PeerFiles>,
    /// Time for a client to get through the handshake.
    pub handshake_timeout: Duration,
    /// Time between two looks at the files.
    pub poll_interval: Duration,
    /// How long before its end a certificate is complained about.
    pub expiry_warning: Duration,
}

/// A certificate and its key, in PEM.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CertificateFiles {
    /// The certificate, and after it those that lead to a trusted one.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

/// What a node needs to prove itself to other nodes, and them to it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PeerFiles {
    /// The certificate of this node.
    pub own: CertificateFiles,
    /// The authorities that vouch for nodes: one, or more while one takes the place of another.
    pub authorities: PathBuf,
    /// What these have revoked.
    pub revoked: Option<PathBuf>,
}

/// How this node speaks TLS to servers that one of the authorities in the file `path` vouches for.
///
/// # Errors
///
/// When there are none in it.
pub(crate) fn client(path: &Path) -> Result<ClientConfig, LoadError> {
    let roots = files::authorities(path, &mut Sha256::new())?;
    let unfit = |error: rustls::Error| LoadError::Unfit {
        path: path.to_owned(),
        reason: format!("cannot be used: {error}"),
    };
    let config = ClientConfig::builder_with_provider(files::provider());
    let config = config.with_safe_default_protocol_versions().map_err(unfit)?;
    Ok(config.with_root_certificates(roots).with_no_client_auth())
}

/// The certificates in use.
pub(crate) struct Certificates {
    pub(crate) public: Option<Arc<Credentials<ServerConfig>>>,
    pub(crate) admin: Option<Arc<Credentials<ServerConfig>>>,
    peer: Option<Arc<Credentials<PeerTls>>>,
    /// Who this node is; the name in its certificate.
    node: NodeId,
    cluster: String,
}

impl Certificates {
    /// Loads what `tls` names, for `node` of `cluster`.
    pub(crate) fn load(tls: &Tls, node: NodeId, cluster: &str) -> Result<Self, LoadError> {
        let listener = |label, files: &Option<CertificateFiles>| {
            let files = files.clone();
            files.map(|files| Credentials::load(label, move || files::server(&files))).transpose()
        };
        let peer = tls.peer.clone().map(|files| {
            let cluster = cluster.to_owned();
            Credentials::load("peer", move || peers::load(&files, node, &cluster))
        });
        Ok(Self {
            public: listener("public", &tls.public)?,
            admin: listener("admin", &tls.admin)?,
            peer: peer.transpose()?,
            node,
            cluster: cluster.to_owned(),
        })
    }

    /// What guards the connections to other nodes, if anything does.
    pub(crate) fn guard(&self) -> Option<Arc<dyn Guard>> {
        let credentials = Arc::clone(self.peer.as_ref()?);
        Some(Arc::new(PeerGuard::new(credentials, self.node, &self.cluster)))
    }

    /// Shows when they expire.
    pub(crate) fn register(&self, registry: &mut Registry) {
        registry.register_collector(Box::new(credentials::Collector(self.all())));
    }

    /// Looks at the files now and then, and whenever `asked`, for ever.
    pub(crate) fn follow(
        &self,
        tls: &Tls,
        environment: &Environment,
        asked: Arc<Notify>,
    ) -> impl Future<Output = ()> + Send + 'static {
        let (poll, warning) = (tls.poll_interval, tls.expiry_warning);
        credentials::follow(self.all(), poll, warning, environment.clone(), asked)
    }

    fn all(&self) -> Vec<Arc<dyn Follow>> {
        let listeners = [&self.public, &self.admin].into_iter().flatten();
        let peer = self.peer.iter().map(|peer| Arc::clone(peer) as Arc<dyn Follow>);
        listeners.map(|listener| Arc::clone(listener) as Arc<dyn Follow>).chain(peer).collect()
    }
}

#[cfg(test)]
mod tests;
