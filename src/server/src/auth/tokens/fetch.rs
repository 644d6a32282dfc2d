//! Reading a set of keys from where it lies.

use std::{
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use axum::http::{StatusCode, Uri};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::body::Bytes;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use oncekey_types::limits;
use rustls::crypto::ring;

use crate::tls::{self, LoadError};

/// Time for the server of the keys to answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(3);

/// Where keys lie.
pub(super) enum Source {
    /// In a file.
    File(PathBuf),
    /// On a server.
    Url {
        /// Its address.
        url: Uri,
        /// Asks it; none when the machine has no authorities to trust.
        client: Option<Box<Https>>,
    },
}

type Https = Client<HttpsConnector<HttpConnector>, Empty<Bytes>>;

/// Why keys cannot be read.
#[derive(Debug, thiserror::Error)]
pub(super) enum FetchError {
    #[error("{0}")]
    Read(#[source] io::Error),
    #[error("this machine trusts no authority; auth.jwks_ca may name some")]
    NoAuthorities,
    #[error("the server of the keys did not answer in time")]
    Timeout,
    #[error("the server of the keys cannot be reached")]
    Unreachable,
    #[error("the server of the keys answered with {0}")]
    Status(StatusCode),
    #[error("the answer broke off, or is too long")]
    Body,
}

impl Source {
    pub(super) fn file(path: &Path) -> Self {
        Self::File(path.to_owned())
    }

    /// Keys under `url`, on a server that one of `authorities` vouches for, or of the machine's.
    pub(super) fn url(url: Uri, authorities: Option<&Path>) -> Result<Self, LoadError> {
        let connector = HttpsConnectorBuilder::new();
        let connector = match authorities {
            Some(path) => Some(connector.with_tls_config(tls::client(path)?)),
            None => connector.with_provider_and_native_roots(ring::default_provider()).ok(),
        };
        let client = connector.map(|connector| {
            let connector = connector.https_or_http().enable_http1().build();
            Box::new(Client::builder(TokioExecutor::new()).build(connector))
        });
        Ok(Self::Url { url, client })
    }

    pub(super) async fn read(&self) -> Result<Vec<u8>, FetchError> {
        match self {
            Self::File(path) => {
                let path = path.clone();
                let read = tokio::task::spawn_blocking(move || std::fs::read(path)).await;
                read.map_err(|error| FetchError::Read(io::Error::other(error)))?
                    .map_err(FetchError::Read)
            }
            Self::Url { url, client } => {
                let client = client.as_ref().ok_or(FetchError::NoAuthorities)?;
                tokio::time::timeout(ANSWER_WITHIN, get(client, url.clone()))
                    .await
                    .map_err(|_| FetchError::Timeout)?
            }
        }
    }
}

async fn get(client: &Https, url: Uri) -> Result<Vec<u8>, FetchError> {
    let response = client.get(url).await.map_err(|_| FetchError::Unreachable)?;
    if response.status() != StatusCode::OK {
        return Err(FetchError::Status(response.status()));
    }
    let body = Limited::new(response.into_body(), limits::KEY_SET_MAX_BYTES).collect();
    Ok(body.await.map_err(|_| FetchError::Body)?.to_bytes().to_vec())
}
