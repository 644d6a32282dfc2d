//! The HTTP front that an operator would put before a store, as a process of its own.
//!
//! `POST /pop/USER` with an `idempotency-key` pops one key and answers about 600 bytes of JSON, as
//! a bundle has them. What surrounds the one-time key is constant: a front would have it from a
//! cache, so it costs the rival nothing. Without a store the answer is 200 constant bytes: the
//! no-op that everything over HTTP is held against.

use std::{
    io::{self, Write},
    net::Ipv4Addr,
    sync::Arc,
};

use anyhow::Result;
use axum::{
    Json, Router,
    extract::{Path, State},
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
    routing::post,
};
use serde::Serialize;
use tokio::net::TcpListener;

use crate::{
    pool::{Key, Turn},
    store::{Address, Store},
};

/// How a client names its request; a hexadecimal number.
pub(crate) const IDEMPOTENCY_KEY: &str = "idempotency-key";
/// What stands before the id of the key in an answer.
pub(crate) const ID_MARK: &str = "\"one_time_prekey\":{\"id\":";
/// What a front prints before its port, once it listens.
pub(crate) const READY: &str = "listening on port ";
/// Connections are opened for this many clients.
const CLIENTS: usize = 256;
/// Bytes that the no-op answers.
const NO_OP_BYTES: usize = 200;

#[derive(Serialize)]
struct Bundle<'a> {
    version: u32,
    user: u32,
    device: u32,
    device_list_version: u64,
    identity_key: &'a str,
    signed_prekey: Prekey<'a>,
    one_time_prekey: Prekey<'a>,
}

#[derive(Serialize)]
struct Prekey<'a> {
    id: u64,
    public_key: &'a str,
    signature: &'a str,
}

/// Serves until it is killed.
pub(crate) async fn serve(store: Option<Address>) -> Result<()> {
    let app = match store {
        Some(address) => {
            let store = Arc::new(Store::connect(&address, CLIENTS).await?);
            Router::new().route("/pop/{user}", post(pop)).with_state(store)
        }
        None => Router::new().route("/pop/{user}", post(no_op)),
    };
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    writeln!(io::stdout(), "{READY}{}", listener.local_addr()?.port())?;
    let listener = axum::serve::ListenerExt::tap_io(listener, |stream| {
        // Without it the connection is slower, no more.
        let _ = stream.set_nodelay(true);
    });
    Ok(axum::serve(listener, app).await?)
}

async fn pop(
    State(store): State<Arc<Store>>,
    Path(user): Path<u32>,
    headers: HeaderMap,
) -> Result<Response, StatusCode> {
    let request = headers.get(IDEMPOTENCY_KEY).and_then(|value| value.to_str().ok());
    let request = request.and_then(|value| u64::from_str_radix(value, 16).ok());
    let turn = Turn { user, request: request.ok_or(StatusCode::BAD_REQUEST)? };
    match store.pop(turn).await {
        Ok(Some(key)) => Ok(bundle(user, &key)),
        Ok(None) => Err(StatusCode::NOT_FOUND),
        Err(_) => Err(StatusCode::SERVICE_UNAVAILABLE),
    }
}

async fn no_op() -> &'static str {
    const BODY: [u8; NO_OP_BYTES] = [b'x'; NO_OP_BYTES];
    const { str_of(&BODY) }
}

const fn str_of(bytes: &[u8]) -> &str {
    match std::str::from_utf8(bytes) {
        Ok(text) => text,
        Err(_) => "",
    }
}

fn bundle(user: u32, key: &Key) -> Response {
    let bytes = hex::encode(&key.bytes);
    // 32 bytes of key, 64 of signature.
    let (public_key, signature) = bytes.split_at_checked(64).unwrap_or((&bytes, ""));
    let constant = Prekey {
        id: 7,
        public_key: const { str_of(&[b'5'; 64]) },
        signature: const { str_of(&[b'a'; 128]) },
    };
    Json(Bundle {
        version: 1,
        user,
        device: 1,
        device_list_version: 3,
        identity_key: constant.public_key,
        signed_prekey: constant,
        one_time_prekey: Prekey { id: key.id, public_key, signature },
    })
    .into_response()
}

#[cfg(test)]
mod tests {
    use axum::body::to_bytes;

    use super::*;
    use crate::pool;

    #[tokio::test]
    async fn an_answer_is_as_large_as_a_bundle_and_names_its_key() -> Result<()> {
        let key = pool::key(pool::value(31).to_vec())?;
        let body = to_bytes(bundle(9, &key).into_body(), usize::MAX).await?;
        assert!((500..=700).contains(&body.len()), "{} bytes", body.len());
        assert!(std::str::from_utf8(&body)?.contains(&format!("{ID_MARK}31,")));
        Ok(())
    }
}
