//! Connections.
//!
//! Guarantees: no more connections than allowed are open at once, the rest wait in the kernel, and no
//! more of one address than allowed, the rest are closed; a handshake, a head or a reader that is too
//! slow ends its connection, and so do idleness and a head that is too large; after a stop no
//! connection is taken, requests in flight are answered, and what is left at the deadline is cut.
//!
//! Leaves out: what certificates are used; see [`tls`](crate::tls).

use std::{error::Error as _, io, net::SocketAddr, pin::pin, sync::Arc, time::Duration};

use axum::{Router, extract::Request, response::Response};
use hyper::{body::Incoming, server::conn::http1, service::Service};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use oncekey_raft::environment::{Accepted, Listener, Stream};
use oncekey_types::limits::HEAD_MAX_BYTES;
use rustls::ServerConfig;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::{OwnedSemaphorePermit, Semaphore, watch},
    task::JoinSet,
    time::timeout,
};
use tokio_rustls::TlsAcceptor;

use crate::{
    addresses::{Addresses, From},
    app::App,
    config::Http,
    impatient::Impatient,
    metrics::Turned,
    tls::Credentials,
};

/// Pause after an accept that failed for lack of something, file descriptors mostly.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// How a listener treats connections.
#[derive(Clone)]
pub(crate) struct Terms {
    /// The certificate to show; without it connections are plain.
    pub(crate) tls: Option<Arc<Credentials<ServerConfig>>>,
    /// Limits for each address, where there are some.
    pub(crate) addresses: Option<Arc<Addresses>>,
    pub(crate) connections_max: usize,
    pub(crate) handshake_timeout: Duration,
    pub(crate) header_timeout: Duration,
    pub(crate) send_timeout: Duration,
    pub(crate) drain_timeout: Duration,
}

impl Terms {
    /// Without certificate and without limits for each address.
    pub(crate) fn plain(http: &Http, handshake_timeout: Duration) -> Self {
        Self {
            tls: None,
            addresses: None,
            connections_max: http.connections_max,
            handshake_timeout,
            header_timeout: http.header_timeout,
            send_timeout: http.send_timeout,
            drain_timeout: http.drain_timeout,
        }
    }
}

/// Serves `router` until `stop` says true or its sender is gone, then drains.
pub(crate) async fn serve(
    listener: Box<dyn Listener>,
    app: Arc<App>,
    router: Router,
    terms: Terms,
    mut stop: watch::Receiver<bool>,
) {
    let drain_timeout = terms.drain_timeout;
    let places = Arc::new(Semaphore::new(terms.connections_max));
    let host = Arc::new(Host { app, router, terms });
    let mut connections = JoinSet::new();
    loop {
        let ((stream, from), place) = tokio::select! {
            accepted = accept(&*listener, &places) => accepted,
            () = asked_to(&mut stop) => break,
        };
        let of_address = match &host.terms.addresses {
            None => None,
            Some(addresses) => match addresses.connect(from.ip()) {
                Some(place) => Some(place),
                None => {
                    host.app.metrics.turned_away(Turned::Address);
                    continue;
                }
            },
        };
        let (host, stop) = (Arc::clone(&host), stop.clone());
        connections.spawn(async move {
            host.serve(stream, from, stop).await;
            drop((place, of_address));
        });
        while connections.try_join_next().is_some() {}
    }
    drop(listener);
    let drained =
        timeout(drain_timeout, async { while connections.join_next().await.is_some() {} });
    if drained.await.is_err() {
        tracing::warn!(connections = connections.len(), "cut connections that did not finish");
    }
}

async fn accept(
    listener: &dyn Listener,
    places: &Arc<Semaphore>,
) -> (Accepted, Option<OwnedSemaphorePermit>) {
    // The semaphore is never closed.
    let place = Arc::clone(places).acquire_owned().await.ok();
    loop {
        match listener.accept().await {
            Ok(accepted) => return (accepted, place),
            Err(error) if is_of_connection(&error) => {}
            Err(error) => {
                tracing::warn!(%error, "cannot accept connections");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Whether only the connection failed that was about to be accepted.
fn is_of_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
    )
}

/// What all connections of a listener share.
struct Host {
    app: Arc<App>,
    router: Router,
    terms: Terms,
}

impl Host {
    async fn serve(
        &self,
        stream: Box<dyn Stream>,
        from: SocketAddr,
        mut stop: watch::Receiver<bool>,
    ) {
        let Some(tls) = &self.terms.tls else {
            return self.serve_http(stream, from, stop).await;
        };
        let handshake = TlsAcceptor::from(tls.current()).accept(stream);
        let shaken = tokio::select! {
            shaken = timeout(self.terms.handshake_timeout, handshake) => shaken,
            () = asked_to(&mut stop) => return,
        };
        match shaken {
            Ok(Ok(stream)) => self.serve_http(stream, from, stop).await,
            Ok(Err(error)) => self.no_handshake(&error.to_string()),
            Err(_) => self.no_handshake("too slow"),
        }
    }

    fn no_handshake(&self, reason: &str) {
        self.app.metrics.turned_away(Turned::Handshake);
        tracing::debug!(reason, "a handshake failed");
    }

    async fn serve_http<S>(&self, stream: S, from: SocketAddr, stop: watch::Receiver<bool>)
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let router = self.router.clone();
        if let Err(error) = serve_http(stream, from, router, &self.terms, stop).await {
            if is_overdue(&error) {
                self.app.metrics.turned_away(Turned::NotReading);
            }
            tracing::debug!(%error, "a connection broke off");
        }
    }
}

/// Serves one connection until it ends or, after a request in flight, `stop` says true.
pub(crate) async fn serve_http<S>(
    stream: S,
    from: SocketAddr,
    router: Router,
    terms: &Terms,
    mut stop: watch::Receiver<bool>,
) -> Result<(), hyper::Error>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let stream = Impatient::new(stream, terms.send_timeout);
    let service = Addressed { from: From(from), router: TowerToHyperService::new(router) };
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(terms.header_timeout)
        .max_header_size(HEAD_MAX_BYTES)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = pin!(connection);
    tokio::select! {
        ended = connection.as_mut() => ended,
        () = asked_to(&mut stop) => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    }
}

/// Whether the connection ended because its client does not read.
fn is_overdue(error: &hyper::Error) -> bool {
    let io = error.source().and_then(|source| source.downcast_ref::<io::Error>());
    io.is_some_and(|error| error.kind() == io::ErrorKind::TimedOut)
}

/// Tells the routes where a request comes from.
struct Addressed {
    from: From,
    router: TowerToHyperService<Router>,
}

impl Service<Request<Incoming>> for Addressed {
    type Response = Response;
    type Error = std::convert::Infallible;
    type Future = <TowerToHyperService<Router> as Service<Request<Incoming>>>::Future;

    fn call(&self, mut request: Request<Incoming>) -> Self::Future {
        request.extensions_mut().insert(self.from);
        self.router.call(request)
    }
}

/// Ends when `stop` says true or its sender is gone.
async fn asked_to(stop: &mut watch::Receiver<bool>) {
    let _ = stop.wait_for(|stop| *stop).await;
}
