//! Where a backup lies: a folder, or a place in an object store.
//!
//! Guarantees: nothing is written where something is; what was written is durable when the call
//! returns. Leaves out: credentials, which the object store's client takes from the environment.

use std::{fmt, path::PathBuf, sync::Arc};

use bytes::Bytes;
use futures_util::{StreamExt as _, TryStreamExt as _, stream::BoxStream};
use object_store::{
    ObjectStore, ObjectStoreExt as _, PutPayload, buffered::BufWriter, local::LocalFileSystem,
    path::Path,
};
use tokio::io::AsyncWriteExt as _;

use crate::manifest::{Manifest, ManifestError};

const MANIFEST: &str = "manifest.json";
/// Largest manifest: 256 shards with their digests take a tenth.
const MANIFEST_MAX_BYTES: u64 = 1 << 20;
/// Size of one part of an upload, and how many are on their way at a time.
const PART_BYTES: usize = 8 << 20;
const PARTS_AT_A_TIME: usize = 2;

/// Why a place cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LocationError {
    /// The text names no place.
    #[error("{text:?} is neither a folder nor file://… nor s3://bucket/…")]
    Unknown {
        /// The text.
        text: String,
    },
    /// The program was built without what it takes.
    #[error("this program was built without object stores: build it with the feature s3")]
    NoObjectStores,
    /// The folder cannot be used.
    #[error("cannot use the folder {}", .dir.display())]
    Folder {
        /// The folder.
        dir: PathBuf,
        /// The reason.
        source: std::io::Error,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] object_store::Error),
}

/// Why a manifest could not be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReadManifestError {
    /// There is none: the backup was not finished.
    #[error("there is no manifest: the backup was never finished, or this is not its place")]
    Missing,
    /// The store failed.
    #[error("the manifest cannot be read")]
    Store(#[source] object_store::Error),
    /// It is not to be believed.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
}

/// Where a backup lies.
#[derive(Clone, Debug)]
pub struct Location {
    store: Arc<dyn ObjectStore>,
    root: Path,
    text: String,
}

impl Location {
    /// The place for a new backup. Makes the folder if need be.
    ///
    /// # Errors
    ///
    /// A [`LocationError`].
    pub fn create(text: &str) -> Result<Self, LocationError> {
        if let Some(dir) = folder(text) {
            std::fs::create_dir_all(&dir)
                .map_err(|source| LocationError::Folder { dir, source })?;
        }
        Self::open(text)
    }

    /// The place of a backup that is there.
    ///
    /// # Errors
    ///
    /// A [`LocationError`].
    pub fn open(text: &str) -> Result<Self, LocationError> {
        if let Some(dir) = folder(text) {
            let store = LocalFileSystem::new_with_prefix(dir)?.with_fsync(true);
            return Ok(Self::within(Arc::new(store), Path::default(), text));
        }
        let place = text.strip_prefix("s3://").and_then(|place| {
            let (bucket, root) = place.split_once('/').unwrap_or((place, ""));
            (!bucket.is_empty()).then_some((bucket, root))
        });
        match place {
            Some((bucket, root)) => Ok(Self::within(bucket_of(bucket)?, Path::from(root), text)),
            None => Err(LocationError::Unknown { text: text.to_owned() }),
        }
    }

    /// A place in a store that is open already.
    #[must_use]
    pub fn within(store: Arc<dyn ObjectStore>, root: Path, text: &str) -> Self {
        Self { store, root, text: text.to_owned() }
    }

    /// Whether nothing is there.
    pub(crate) async fn is_unused(&self) -> Result<bool, object_store::Error> {
        Ok(self.store.list(Some(&self.root)).try_next().await?.is_none())
    }

    /// A file to be written.
    pub(crate) fn writer(&self, file: &str) -> Writer {
        let writer = BufWriter::with_capacity(
            Arc::clone(&self.store),
            self.root.clone().join(file),
            PART_BYTES,
        );
        Writer(writer.with_max_concurrency(PARTS_AT_A_TIME))
    }

    /// The bytes of a file, as they come.
    pub(crate) async fn read(
        &self,
        file: &str,
    ) -> Result<BoxStream<'static, Result<Bytes, object_store::Error>>, object_store::Error> {
        Ok(self.store.get(&self.root.clone().join(file)).await?.into_stream().boxed())
    }

    /// Writes the manifest: the backup is finished.
    pub(crate) async fn write_manifest(&self, bytes: Vec<u8>) -> Result<(), object_store::Error> {
        let path = self.root.clone().join(MANIFEST);
        self.store.put(&path, PutPayload::from(bytes)).await.map(drop)
    }

    pub(crate) async fn read_manifest(&self) -> Result<Manifest, ReadManifestError> {
        let path = self.root.clone().join(MANIFEST);
        let found = match self.store.get(&path).await {
            Err(object_store::Error::NotFound { .. }) => return Err(ReadManifestError::Missing),
            found => found.map_err(ReadManifestError::Store)?,
        };
        if found.meta.size > MANIFEST_MAX_BYTES {
            return Err(ManifestError::Shards.into());
        }
        let bytes = found.bytes().await.map_err(ReadManifestError::Store)?;
        Ok(Manifest::decode(&bytes)?)
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// A file that is being written; it appears as a whole, or not at all.
pub(crate) struct Writer(BufWriter);

impl Writer {
    pub(crate) async fn write(&mut self, bytes: Bytes) -> Result<(), object_store::Error> {
        self.0.put(bytes).await
    }

    pub(crate) async fn finish(mut self) -> Result<(), std::io::Error> {
        self.0.shutdown().await
    }

    pub(crate) async fn abort(mut self) {
        if let Err(error) = self.0.abort().await {
            tracing::warn!(%error, "an upload that was given up could not be removed");
        }
    }
}

/// The folder that `text` names, if it names one.
fn folder(text: &str) -> Option<PathBuf> {
    let path = text.strip_prefix("file://").unwrap_or(text);
    (!path.is_empty() && !path.contains("://")).then(|| PathBuf::from(path))
}

#[cfg(feature = "s3")]
fn bucket_of(name: &str) -> Result<Arc<dyn ObjectStore>, LocationError> {
    // The HTTP client takes whichever provider the process has; one that is there is as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let builder = object_store::aws::AmazonS3Builder::from_env().with_bucket_name(name);
    Ok(Arc::new(builder.build()?))
}

#[cfg(not(feature = "s3"))]
fn bucket_of(_: &str) -> Result<Arc<dyn ObjectStore>, LocationError> {
    Err(LocationError::NoObjectStores)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_a_folder_or_a_bucket() {
        assert_eq!(folder("/var/backups"), Some("/var/backups".into()));
        assert_eq!(folder("file:///var/backups"), Some("/var/backups".into()));
        assert_eq!(folder("s3://bucket/x"), None);
        assert!(matches!(Location::open("ftp://x"), Err(LocationError::Unknown { .. })));
        assert!(matches!(Location::open("s3://"), Err(LocationError::Unknown { .. })));
        assert!(matches!(Location::open(""), Err(LocationError::Unknown { .. })));
    }
}
