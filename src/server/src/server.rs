//! A running node: consensus behind two listeners.
//!
//! Guarantees: after [`Server::start`] both listeners are bound; a shutdown is clean: readiness
//! fails first, then no connection is taken, requests in flight are answered within a deadline,
//! and only then the node stops. A local fault of the node ends everything at once.
//!
//! Leaves out: signals and exit codes, which belong to the program.

use std::{net::SocketAddr, sync::Arc};

use axum::Router;
use oncekey_raft::{Fault, Node, environment::Network};
use tokio::{
    sync::{Notify, watch},
    task::{JoinHandle, JoinSet},
};

#[cfg(feature = "otlp")]
use crate::trace::Exporter;
use crate::{
    addresses::Addresses,
    app::App,
    auth::{Authenticator, KeysError, Open, Proven},
    config::{Auth, Config, Http},
    edge,
    listener::{self, Terms},
    openapi::Guards,
    tls::{Certificates, LoadError},
    trace::{SpanCounts, Tracing},
};

/// Connections of operators at once.
const ADMIN_CONNECTIONS_MAX: usize = 64;

/// Why a node did not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// A listener cannot be bound.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// The address asked for.
        address: SocketAddr,
        /// The reason.
        source: std::io::Error,
    },
    /// Spans cannot be sent.
    #[error("tracing does not start: {0}")]
    Trace(String),
    /// A certificate cannot be used.
    #[error("{0}")]
    Certificate(#[from] LoadError),
    /// The keys that tokens are verified with.
    #[error(transparent)]
    Keys(#[from] KeysError),
    /// The node itself.
    #[error(transparent)]
    Node(#[from] oncekey_raft::StartError),
}

impl StartError {
    /// Whether the disk or what is on it is the reason, so that starting again will not help.
    #[must_use]
    pub fn is_fault(&self) -> bool {
        match self {
            Self::Listen { .. } | Self::Keys(_) | Self::Trace(_) | Self::Certificate(_) => false,
            Self::Node(error) => error.is_fault(),
        }
    }
}

/// Why a node ended without being asked to.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RunError {
    /// A local fault: the disk is full or lost a write, a record is damaged. Nothing the process
    /// holds is trusted further.
    #[error("the node stopped: {0}")]
    Fault(#[from] Fault),
}

/// A node that serves.
pub struct Server {
    app: Arc<App>,
    public: Listener,
    admin: Listener,
    /// Tells whoever follows the certificates to look at them.
    reload: Arc<Notify>,
    _following: JoinSet<()>,
}

struct Listener {
    address: SocketAddr,
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Server {
    /// Starts a node and its listeners.
    ///
    /// # Errors
    ///
    /// [`StartError`].
    pub async fn start(mut config: Config) -> Result<Self, StartError> {
        let tracing = tracing(&mut config)?;
        let Config {
            mut node,
            public,
            admin,
            tls,
            auth,
            http,
            addresses,
            low_watermark,
            signed_prekey_due,
            ..
        } = config;
        let awaits_restore = config.awaits_restore;
        let guards = Guards { clients: auth != Auth::Open, operators: !admin.ip().is_loopback() };
        let certificates = Certificates::load(&tls, node.node, &node.cluster)?;
        if let Some(guard) = certificates.guard() {
            node.environment.guard = guard;
        }
        // An address in use is found before the node touches its disk.
        let network = &*node.environment.network;
        let public = bind(network, public).await?;
        let admin = bind(network, admin).await?;
        let node = Node::start(node).await?;
        let reload = Arc::new(Notify::new());
        let mut following = JoinSet::new();
        following.spawn(certificates.follow(&tls, node.environment(), Arc::clone(&reload)));
        let authenticator = authenticator(auth, &node, http).await?;
        let mut app = App::new(
            node,
            authenticator,
            http,
            low_watermark,
            signed_prekey_due,
            tracing,
            awaits_restore,
        );
        app.metrics.watch(&certificates);
        let app = Arc::new(app);
        let addresses = Arc::new(Addresses::new(addresses));
        let handshake_timeout = tls.handshake_timeout;
        let for_clients = Terms {
            tls: certificates.public,
            addresses: Some(Arc::clone(&addresses)),
            ..Terms::plain(&http, handshake_timeout)
        };
        let for_operators = Terms {
            tls: certificates.admin,
            connections_max: ADMIN_CONNECTIONS_MAX,
            ..Terms::plain(&http, handshake_timeout)
        };
        let server = Self {
            public: Listener::start(
                public,
                Arc::clone(&app),
                edge::public(Arc::clone(&app), addresses),
                for_clients,
            ),
            admin: Listener::start(
                admin,
                Arc::clone(&app),
                edge::admin(Arc::clone(&app), guards),
                for_operators,
            ),
            app,
            reload,
            _following: following,
        };
        tracing::info!(
            public = %server.public_addr(),
            admin = %server.admin_addr(),
            peer = %server.peer_addr(),
            "serving"
        );
        Ok(server)
    }

    /// The node behind it.
    #[must_use]
    pub fn node(&self) -> &Node {
        &self.app.node
    }

    /// Where clients are served.
    #[must_use]
    pub fn public_addr(&self) -> SocketAddr {
        self.public.address
    }

    /// Where operators are served.
    #[must_use]
    pub fn admin_addr(&self) -> SocketAddr {
        self.admin.address
    }

    /// Where the other nodes are served.
    #[must_use]
    pub fn peer_addr(&self) -> SocketAddr {
        self.app.node.peer_addr()
    }

    /// Has the files of the certificates looked at as soon as it is notified.
    #[must_use]
    pub fn reload(&self) -> Arc<Notify> {
        Arc::clone(&self.reload)
    }

    /// Serves until `shutdown` resolves, then ends cleanly.
    ///
    /// # Errors
    ///
    /// [`RunError::Fault`] as soon as the node has a local fault; requests in flight are cut, as
    /// their outcome cannot be told.
    pub async fn run_until(self, shutdown: impl Future<Output = ()>) -> Result<(), RunError> {
        tokio::select! {
            () = shutdown => {}
            fault = self.app.node.faulted() => {
                self.public.task.abort();
                self.admin.task.abort();
                return Err(fault.into());
            }
        }
        tracing::info!("shutting down");
        self.app.drain();
        self.public.finish().await;
        self.app.node.shutdown().await;
        self.admin.finish().await;
        tracing::info!("shut down");
        Ok(())
    }
}

async fn authenticator(
    auth: Auth,
    node: &Node,
    http: Http,
) -> Result<Arc<dyn Authenticator>, StartError> {
    Ok(match auth {
        Auth::Open => {
            tracing::warn!("open: whoever reaches this node may do everything");
            Arc::new(Open)
        }
        Auth::Tokens(settings) => Arc::new(Proven::start(settings, node.clone(), http).await?),
    })
}

impl Listener {
    fn start((listener, address): Bound, app: Arc<App>, router: Router, terms: Terms) -> Self {
        let (stop, stopped) = watch::channel(false);
        let task = tokio::spawn(listener::serve(listener, app, router, terms, stopped));
        Self { address, stop, task }
    }

    async fn finish(self) {
        self.stop.send_replace(true);
        // Ends within the drain deadline; it is never aborted here.
        let _ = self.task.await;
    }
}

/// Starts sending spans, when there is a collector to take them.
fn tracing(config: &mut Config) -> Result<Tracing, StartError> {
    let counts = Arc::new(SpanCounts::default());
    #[cfg(feature = "otlp")]
    if let Some(endpoint) = &config.trace.endpoint {
        let exporter =
            Exporter::start(endpoint, &config.node.cluster, config.node.node, Arc::clone(&counts))
                .map_err(StartError::Trace)?;
        config.node.environment.spans = Some(Arc::new(exporter));
    }
    Ok(Tracing::new(&config.trace, config.node.environment.spans.clone(), counts))
}

type Bound = (Box<dyn oncekey_raft::environment::Listener>, SocketAddr);

async fn bind(network: &dyn Network, address: SocketAddr) -> Result<Bound, StartError> {
    let failed = |source| StartError::Listen { address, source };
    let listener = network.bind(address).await.map_err(failed)?;
    let bound = listener.local_addr().map_err(failed)?;
    Ok((listener, bound))
}
