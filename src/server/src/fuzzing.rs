//! What the public listener makes of bytes, opened to the fuzz targets.
//!
//! Guarantees: bytes go through the connection, the router and the parsers of a real node. Leaves
//! out: the node behind them.

use std::{io, net::SocketAddr, time::Duration};

use axum::{Router, http::request::Parts, routing::any};
use oncekey_api::{Problem, device, key, path};
use oncekey_types::{DeviceId, UnixSeconds, UserId};
use oncekey_x3dh::{Address, keys::IdentityPublic};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    sync::watch,
};

pub use crate::{
    addresses::fuzzing::client,
    auth::fuzzing::{KnownKeys, Parts as RequestParts, Signed, signature},
    tls::fuzzing::{Believed, Chain, certificates, private_key},
    trace::traceparent,
};
use crate::{
    auth::DeviceAuthority,
    check, extract,
    listener::{Terms, serve_http},
    reply::Rejection,
};

/// Bytes on the way in each direction.
const PIPE_BYTES: usize = 256 * 1024;

/// Sends `bytes` over one connection, waits until the node ends it and gives what came back. A
/// request whose head is understood is answered with the target that a client would write for it.
///
/// # Errors
///
/// When the connection breaks off.
pub async fn connection(bytes: &[u8]) -> io::Result<Vec<u8>> {
    let (mut ours, theirs) = tokio::io::duplex(PIPE_BYTES);
    ours.write_all(bytes.get(..PIPE_BYTES).unwrap_or(bytes)).await?;
    let limit = Duration::from_secs(1);
    let terms = Terms {
        tls: None,
        addresses: None,
        connections_max: 1,
        handshake_timeout: limit,
        header_timeout: limit,
        send_timeout: limit,
        drain_timeout: limit,
    };
    let (_running, stop) = watch::channel(false);
    let from = SocketAddr::from(([127, 0, 0, 1], 1));
    let serving = async {
        // The connection ends with the bytes, in whatever way.
        let _ = serve_http(theirs, from, routes(), &terms, stop).await;
    };
    let mut reply = Vec::new();
    let (read, ()) = tokio::join!(ours.read_to_end(&mut reply), serving);
    read.map(|_| reply)
}

fn routes() -> Router {
    [
        path::USER,
        path::DEVICE,
        path::SIGNED_PREKEY,
        path::ONE_TIME_PREKEYS,
        path::PREKEYS,
        path::DEVICE_LIST,
        path::USER_BUNDLES,
        path::BUNDLES,
        path::EVENTS,
        path::REPORTS,
    ]
    .into_iter()
    .fold(Router::new(), |router, route| router.route(route, any(taken_apart)))
}

/// The target that names the same; a refusal is a problem.
async fn taken_apart(mut head: Parts) -> Result<String, Rejection> {
    if let Some((user, device)) = head.uri.query().and_then(path::device_of_events) {
        return Ok(path::events(&user, device));
    }
    let key = extract::idempotency_key(&head).map(|key| key.to_string()).unwrap_or_default();
    let params = extract::path_params(&mut head, &()).await?;
    let user = extract::user(&params)?;
    let Ok(device) = extract::device(&params) else { return Ok(path::user(&user) + &key) };
    Ok(match extract::seq_query(&head.uri)? {
        None => path::device(&user, device),
        Some(seq) => path::remove_device(&user, device, seq),
    })
}

/// Parses `body` as the registration of a device and makes every check of it.
///
/// # Errors
///
/// What the device is answered.
pub fn register(
    user: &UserId,
    device: DeviceId,
    body: &[u8],
    now: UnixSeconds,
) -> Result<oncekey_store::command::Register, Problem> {
    let body: device::Register = extract::parse_json(body)?;
    let authority = DeviceAuthority { user: user.clone(), device, registered: None };
    check::register(&authority, [0; 32], body, now)
}

/// Parses `body` as more one-time prekeys of the device and makes every check of them.
///
/// # Errors
///
/// What the device is answered.
pub fn one_time_prekeys(
    owner: &Address,
    identity: &IdentityPublic,
    body: &[u8],
) -> Result<Vec<oncekey_store::command::OneTimePreKey>, Problem> {
    let body: device::AddOneTimePreKeys = extract::parse_json(body)?;
    check::one_time_prekeys(owner, identity, body.one_time_prekeys)
}

/// Parses `body` as a device list of `user` and makes every check of it.
///
/// # Errors
///
/// What the user is answered.
pub fn device_list(
    user: &UserId,
    body: &[u8],
) -> Result<oncekey_store::command::DeviceList, Problem> {
    let body: key::DeviceList = extract::parse_json(body)?;
    check::device_list(user, body, "")
}
