//! Where requests come in: routes, and what holds for all of them.
//!
//! Guarantees: every reply, refusals included, is counted, says `Cache-Control: no-store` and the
//! cluster's epoch, and is a problem document when it is an error; no more requests than configured
//! are served at once, and no address sends them faster than allowed, the rest are told to come back;
//! none takes longer than its parts are allowed to take together.
//! Logs and spans have no user, device, caller or key.
//!
//! Leaves out: connections; see [`listener`](crate::listener).

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use axum::{
    Router,
    extract::{Request, State},
    http::{HeaderValue, header},
    middleware::{Next, from_fn_with_state},
    response::{IntoResponse as _, Response},
    routing::{get, post, put},
};
use oncekey_api::{Code, Problem, header as names, path};
use tracing::Instrument as _;

#[cfg(feature = "failpoints")]
use crate::handlers::failpoints;
use crate::{
    addresses::{Addresses, From, TooMany},
    app::App,
    handlers::{
        admin, backup, bundles, cluster, devices, events, reports, restore, status_page, users,
    },
    metrics::Endpoint,
    openapi::Guards,
    reply::Rejection,
};

/// Time on top of what the parts of a request may take; only a bug uses it up.
const SLACK: Duration = Duration::from_secs(1);

/// The routes for clients.
pub(crate) fn public(app: Arc<App>, addresses: Arc<Addresses>) -> Router {
    Router::new()
        .route(path::USER, get(users::user))
        .route(path::DEVICE_LIST, put(users::put_device_list))
        .route(path::DEVICE, put(devices::register).delete(devices::remove))
        .route(path::SIGNED_PREKEY, put(devices::replace_signed_prekey))
        .route(path::ONE_TIME_PREKEYS, post(devices::add_one_time_prekeys))
        .route(path::PREKEYS, get(devices::status))
        .route(path::USER_BUNDLES, post(bundles::fetch))
        .route(path::BUNDLES, post(bundles::fetch_many))
        .route(path::EVENTS, get(events::events))
        .route(path::REPORTS, post(reports::report))
        .fallback(not_found)
        .method_not_allowed_fallback(method_not_allowed)
        .layer(from_fn_with_state(Arc::clone(&app), admit))
        .layer(from_fn_with_state(addresses, slow_down))
        .layer(from_fn_with_state(Arc::clone(&app), observe))
        .with_state(app)
}

/// The routes for operators. They stay open when the node is overloaded. Where operators are to be
/// known, whoever asks for more than [`UNGUARDED`] shows that it is one.
pub(crate) fn admin(app: Arc<App>, guards: Guards) -> Router {
    let routes = Router::new()
        .route(path::LIVEZ, get(admin::livez))
        .route(path::READYZ, get(admin::readyz))
        .route(path::METRICS, get(admin::metrics))
        .route(path::OPENAPI, get(move |no_query| admin::openapi(no_query, guards)))
        .route(path::CLUSTER, get(cluster::cluster))
        .route(path::CLUSTER_REPLACE, post(cluster::replace))
        .route(path::CLUSTER_INIT, post(cluster::init))
        .route(path::CLUSTER_JOIN, post(cluster::join))
        .route(path::CLUSTER_DRAIN, post(cluster::drain))
        .route(path::CLUSTER_TRANSFER, post(cluster::transfer))
        .route(path::STATUS_PAGE, get(status_page::page))
        .route(path::BACKUP, get(backup::plan))
        .route(path::SHARD_BACKUP, get(backup::shard))
        .route(path::RESTORE, post(restore::begin))
        .route(path::RESTORE_RECORDS, post(restore::records))
        .route(path::RESTORE_END, post(restore::end));
    #[cfg(feature = "failpoints")]
    let routes = routes
        .route(path::FAILPOINTS, get(failpoints::list))
        .route(path::FAILPOINT, put(failpoints::arm).delete(failpoints::disarm));
    let routes = routes.fallback(not_found).method_not_allowed_fallback(method_not_allowed);
    let routes = match guards.operators {
        true => routes.layer(from_fn_with_state(Arc::clone(&app), operators_only)),
        false => routes,
    };
    routes.layer(from_fn_with_state(Arc::clone(&app), observe)).with_state(app)
}

/// What probes and collectors read, who have no tokens.
const UNGUARDED: [&str; 3] = [path::LIVEZ, path::READYZ, path::METRICS];

async fn operators_only(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    if UNGUARDED.contains(&request.uri().path()) {
        return next.run(request).await;
    }
    let (head, body) = request.into_parts();
    match app.authenticator.operator(&head).await {
        Ok(()) => next.run(Request::from_parts(head, body)).await,
        Err(problem) => Rejection(problem).into_response(),
    }
}

async fn not_found() -> Rejection {
    Rejection(Problem::new(Code::NotFound, "no such path"))
}

async fn method_not_allowed() -> Rejection {
    Rejection(Problem::new(Code::MethodNotAllowed, "the header allow has the methods"))
}

/// Turns away a client address that asks too fast.
async fn slow_down(
    State(addresses): State<Arc<Addresses>>,
    request: Request,
    next: Next,
) -> Response {
    // Every connection says where it comes from.
    let from = request.extensions().get::<From>().copied();
    let allowed = from.map_or(Ok(()), |from| addresses.request(from, request.headers()));
    match allowed {
        Ok(()) => next.run(request).await,
        Err(TooMany) => {
            let detail = "the address has sent more requests than it may";
            Rejection(Problem::new(Code::TooManyRequests, detail)).into_response()
        }
    }
}

/// Serves a request when there is room, and for no longer than allowed.
async fn admit(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let Ok(_permit) = app.requests.try_acquire() else {
        let detail = "the node serves as many requests as it takes on";
        return Rejection(Problem::new(Code::Overloaded, detail)).into_response();
    };
    if let Some(why) = app.closed() {
        return Rejection(Problem::new(Code::NotReady, why)).into_response();
    }
    let http = &app.http;
    // A write reads the device's identity key and commits.
    let limit = http.body_timeout + http.fetch_timeout.max(2 * http.write_timeout) + SLACK;
    tokio::time::timeout(limit, next.run(request)).await.unwrap_or_else(|_| {
        let detail = "whether a write was carried out is unknown";
        Rejection(Problem::new(Code::Timeout, detail)).into_response()
    })
}

/// Counts a request and its reply.
async fn observe(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let endpoint = Endpoint::of(&request);
    let started = Instant::now();
    let in_flight = InFlight::new(&app);
    let span = tracing::debug_span!("request", endpoint = endpoint.as_str());
    let traced = app.tracing.begin(request.headers());
    let answer = next.run(request).instrument(span.clone());
    let mut response = match &traced {
        None => answer.await,
        Some(traced) => oncekey_raft::trace::within(traced.context, answer).await,
    };
    drop(in_flight);
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if let Some(epoch) = app.node.epoch().epoch {
        response.headers_mut().insert(names::EPOCH, HeaderValue::from(epoch.0));
    }
    let code = response.extensions().get::<Code>().copied();
    let took = started.elapsed();
    app.metrics.replied(endpoint, code, took);
    let status = response.status().as_u16();
    if let Some(traced) = &traced {
        app.tracing.end(traced, endpoint, status, code);
    }
    tracing::debug!(parent: &span, status, code = code.map(Code::as_str), ?took, "replied");
    response
}

/// Counts a request as in flight until dropped, also when its client goes away.
struct InFlight<'a>(&'a App);

impl<'a> InFlight<'a> {
    fn new(app: &'a App) -> Self {
        app.metrics.request_started();
        Self(app)
    }
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.0.metrics.request_left();
    }
}
