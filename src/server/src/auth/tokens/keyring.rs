//! The keys in force, read anew as they change.
//!
//! Guarantees: a file is looked at every few seconds, a URL is asked every so often as configured;
//! both also when a token names a key that is not known, though not more often than every ten
//! seconds, whatever is sent. A set that cannot be read or taken leaves the one before in force.
//!
//! Leaves out: who may write the file, and who answers under the URL: whoever does decides who is who.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use jsonwebtoken::DecodingKey;
use oncekey_api::{Code, Problem};
use parking_lot::RwLock;
use tokio::{sync::Mutex, task::JoinHandle, time::Instant};

use super::{
    fetch::{FetchError, Source},
    keys::{KeySet, KeySetError},
};
use crate::{
    config::auth::{Algorithm, KeySource, Tokens},
    tls,
};

/// How often a file is looked at.
const FILE_EVERY: Duration = Duration::from_secs(5);
/// Shortest time between two looks for a key that is not known.
const UNKNOWN_EVERY: Duration = Duration::from_secs(10);

/// Why there are no keys.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeysError {
    /// The file cannot be read.
    #[error("cannot read the keys of the tokens: {0}")]
    Read(#[source] std::io::Error),
    /// What it holds is not taken.
    #[error("cannot take the keys of the tokens: {reason}")]
    Keys {
        /// Why.
        reason: String,
    },
    /// The authorities that vouch for the server of the keys cannot be used.
    #[error("cannot ask for the keys of the tokens: {0}")]
    Authorities(#[from] tls::LoadError),
}

/// The keys.
pub(super) struct KeyRing {
    inner: Arc<Inner>,
    upkeep: JoinHandle<()>,
}

struct Inner {
    source: Source,
    algorithm: Algorithm,
    keys: RwLock<Option<Arc<KeySet>>>,
    /// Grows with each change of the keys.
    generation: AtomicU64,
    /// When the source was asked last, and what it held.
    last: Mutex<Last>,
}

#[derive(Default)]
struct Last {
    asked: Option<Instant>,
    bytes: Vec<u8>,
}

/// Why the keys were not read anew.
#[derive(Debug, thiserror::Error)]
enum LoadError {
    #[error(transparent)]
    Fetch(#[from] FetchError),
    #[error(transparent)]
    Keys(#[from] KeySetError),
}

impl KeyRing {
    pub(super) async fn start(settings: &Tokens) -> Result<Self, KeysError> {
        let (source, every) = match &settings.keys {
            KeySource::File(path) => (Source::file(path), FILE_EVERY),
            KeySource::Url { url, authorities } => {
                (Source::url(url.clone(), authorities.as_deref())?, settings.refresh)
            }
        };
        let inner = Arc::new(Inner {
            source,
            algorithm: settings.algorithm,
            keys: RwLock::new(None),
            generation: AtomicU64::new(0),
            last: Mutex::default(),
        });
        match (inner.load(&mut *inner.last.lock().await).await, &settings.keys) {
            (Ok(()), _) => {}
            // Whoever answers there may start at the same time.
            (Err(error), KeySource::Url { .. }) => {
                tracing::warn!(%error, "no keys yet: every token is refused until there are");
            }
            (Err(LoadError::Fetch(FetchError::Read(error))), KeySource::File(_)) => {
                return Err(KeysError::Read(error));
            }
            (Err(error), KeySource::File(_)) => {
                return Err(KeysError::Keys { reason: error.to_string() });
            }
        }
        let of = Arc::clone(&inner);
        let upkeep = tokio::spawn(async move {
            loop {
                tokio::time::sleep(every).await;
                of.reload(Duration::ZERO).await;
            }
        });
        Ok(Self { inner, upkeep })
    }

    /// The number of the keys in force.
    pub(super) fn generation(&self) -> u64 {
        self.inner.generation.load(Ordering::Acquire)
    }

    /// The key that a token names, with the number of the keys it is one of.
    pub(super) async fn key(&self, name: Option<&str>) -> Result<(DecodingKey, u64), Problem> {
        if let Some(found) = self.find(name) {
            return Ok(found);
        }
        self.inner.reload(UNKNOWN_EVERY).await;
        if let Some(found) = self.find(name) {
            return Ok(found);
        }
        if self.inner.keys.read().is_none() {
            let detail = "the node has not read them yet; ask another node, or here later";
            return Err(Problem::new(Code::KeysUnavailable, detail));
        }
        Err(super::invalid("it names no key that is known here"))
    }

    fn find(&self, name: Option<&str>) -> Option<(DecodingKey, u64)> {
        // Read first: should the keys change in between, the token is verified again.
        let generation = self.generation();
        let keys = self.inner.keys.read().clone()?;
        keys.find(name).map(|key| (key.clone(), generation))
    }
}

impl Drop for KeyRing {
    fn drop(&mut self) {
        self.upkeep.abort();
    }
}

impl Inner {
    /// Reads the keys anew, unless that was tried less than `since` ago.
    async fn reload(&self, since: Duration) {
        let mut last = self.last.lock().await;
        if last.asked.is_some_and(|asked| asked.elapsed() < since) {
            return;
        }
        if let Err(error) = self.load(&mut last).await {
            tracing::warn!(%error, "the keys of the tokens were not read anew; the old ones hold");
        }
    }

    async fn load(&self, last: &mut Last) -> Result<(), LoadError> {
        last.asked = Some(Instant::now());
        let bytes = self.source.read().await?;
        if bytes == last.bytes {
            return Ok(());
        }
        let keys = KeySet::parse(&bytes, self.algorithm)?;
        last.bytes = bytes;
        let is_first = self.keys.write().replace(Arc::new(keys)).is_none();
        self.generation.fetch_add(1, Ordering::Release);
        if !is_first {
            tracing::info!("the keys of the tokens have changed");
        }
        Ok(())
    }
}
