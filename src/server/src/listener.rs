//! Connections.
//!
//! Guarantees: no more connections than allowed are open at once, the rest wait in the kernel; a
//! head that is too large or too slow ends its connection, and so does idleness; after a stop no
//! connection is taken, requests in flight are answered, and what is left at the deadline is cut.
//!
//! Leaves out: TLS, which will wrap the stream between accept and serve; clients that do not read,
//! as replies are small and fit the kernel's buffers.

use std::{io, pin::pin, sync::Arc, time::Duration};

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use oncekey_raft::environment::{Listener, Stream};
use oncekey_types::limits::HEAD_MAX_BYTES;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, watch},
    task::JoinSet,
    time::timeout,
};

/// Pause after an accept that failed for lack of something, file descriptors mostly.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Limits of a listener.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    pub(crate) connections_max: usize,
    pub(crate) header_timeout: Duration,
    pub(crate) drain_timeout: Duration,
}

/// Serves `router` until `stop` says true or its sender is gone, then drains.
pub(crate) async fn serve(
    listener: Box<dyn Listener>,
    router: Router,
    limits: Limits,
    mut stop: watch::Receiver<bool>,
) {
    let places = Arc::new(Semaphore::new(limits.connections_max));
    let mut connections = JoinSet::new();
    loop {
        let (stream, place) = tokio::select! {
            accepted = accept(&*listener, &places) => accepted,
            () = asked_to(&mut stop) => break,
        };
        let stop = stop.clone();
        let router = router.clone();
        connections.spawn(async move {
            serve_connection(stream, router, limits, stop).await;
            drop(place);
        });
        while connections.try_join_next().is_some() {}
    }
    drop(listener);
    let drained =
        timeout(limits.drain_timeout, async { while connections.join_next().await.is_some() {} });
    if drained.await.is_err() {
        tracing::warn!(connections = connections.len(), "cut connections that did not finish");
    }
}

async fn accept(
    listener: &dyn Listener,
    places: &Arc<Semaphore>,
) -> (Box<dyn Stream>, Option<OwnedSemaphorePermit>) {
    // The semaphore is never closed.
    let place = Arc::clone(places).acquire_owned().await.ok();
    loop {
        match listener.accept().await {
            Ok((stream, _)) => return (stream, place),
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

pub(crate) async fn serve_connection(
    stream: Box<dyn Stream>,
    router: Router,
    limits: Limits,
    mut stop: watch::Receiver<bool>,
) {
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.header_timeout)
        .max_header_size(HEAD_MAX_BYTES)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    let mut connection = pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = asked_to(&mut stop) => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection broke off");
    }
}

/// Ends when `stop` says true or its sender is gone.
async fn asked_to(stop: &mut watch::Receiver<bool>) {
    let _ = stop.wait_for(|stop| *stop).await;
}
