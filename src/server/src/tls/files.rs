//! Certificates and keys in files.
//!
//! Guarantees: an error names the file; a file is read to its limit and no further; nothing of a key
//! is ever in an error. Leaves out: what a certificate is for.

use std::{
    fs::File,
    io::{self, Read as _},
    path::{Path, PathBuf},
    sync::Arc,
};

use oncekey_types::{UnixSeconds, limits};
use rustls::{
    RootCertStore, ServerConfig,
    crypto::{CryptoProvider, ring},
    pki_types::{
        CertificateDer, CertificateRevocationListDer, PrivateKeyDer,
        pem::{self, PemObject},
    },
    version::TLS13,
};
use sha2::{Digest as _, Sha256};
use x509_parser::prelude::{FromDer as _, X509Certificate};
use zeroize::Zeroizing;

use super::{ALPN, CertificateFiles, credentials::Loaded};

/// Why certificates cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// A file cannot be read.
    #[error("cannot read {path}: {source}", path = path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The reason.
        source: io::Error,
    },
    /// A file lacks what it should have.
    #[error("{path} has no {what} in PEM: {reason}", path = path.display())]
    Lacks {
        /// The file.
        path: PathBuf,
        /// What was looked for.
        what: &'static str,
        /// Why it was not found.
        reason: String,
    },
    /// A certificate and a key cannot be used together.
    #[error(
        "{certificate} and {key} cannot be used together: {source}",
        certificate = certificate.display(), key = key.display()
    )]
    Pair {
        /// The file of the certificate.
        certificate: PathBuf,
        /// The file of the key.
        key: PathBuf,
        /// The reason.
        source: rustls::Error,
    },
    /// A certificate is not fit for its purpose.
    #[error("the certificate in {path} {reason}", path = path.display())]
    Unfit {
        /// The file.
        path: PathBuf,
        /// Why, to be read after the path.
        reason: String,
    },
}

/// A chain and its key as they were found.
pub(super) struct Pair {
    pub(super) chain: Vec<CertificateDer<'static>>,
    pub(super) key: PrivateKeyDer<'static>,
    /// Of what was read.
    pub(super) digest: Sha256,
    /// When the first certificate of the chain to expire does so.
    pub(super) expires: UnixSeconds,
}

/// What everything with TLS is computed by.
pub(super) fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

/// What a listener shows to those who are no nodes.
pub(super) fn server(files: &CertificateFiles) -> Result<Loaded<ServerConfig>, LoadError> {
    let Pair { chain, key, digest, expires } = pair(files)?;
    let unusable = |source| LoadError::Pair {
        certificate: files.certificate.clone(),
        key: files.key.clone(),
        source,
    };
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])
        .map_err(unusable)?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(unusable)?;
    config.alpn_protocols = vec![ALPN.to_vec()];
    Ok(Loaded { value: Arc::new(config), digest: digest.finalize().into(), expires })
}

/// Reads a certificate and its key.
pub(super) fn pair(files: &CertificateFiles) -> Result<Pair, LoadError> {
    let mut digest = Sha256::new();
    let text = read(&files.certificate, &mut digest)?;
    let (chain, expires) = chain(&files.certificate, &text)?;
    let text = read(&files.key, &mut digest)?;
    let key = private_key(&files.key, &text)?;
    Ok(Pair { chain, key, digest, expires })
}

/// The certificates in `text`, which is that of the file at `path`, and when the first of them to
/// expire does so.
pub(super) fn chain(
    path: &Path,
    text: &[u8],
) -> Result<(Vec<CertificateDer<'static>>, UnixSeconds), LoadError> {
    let chain = all::<CertificateDer<'_>>(path, "certificate", text)?;
    let mut expires = UnixSeconds(u64::MAX);
    for certificate in &chain {
        expires = expires.min(expiry(path, certificate)?);
    }
    Ok((chain, expires))
}

/// The private key in `text`, which is that of the file at `path`.
pub(super) fn private_key(path: &Path, text: &[u8]) -> Result<PrivateKeyDer<'static>, LoadError> {
    // What the parser says may quote the file.
    PrivateKeyDer::from_pem_slice(text).map_err(|_| LoadError::Lacks {
        path: path.to_owned(),
        what: "private key",
        reason: "there is none, or it is damaged".to_owned(),
    })
}

/// Reads the authorities in `path`.
pub(super) fn authorities(path: &Path, digest: &mut Sha256) -> Result<RootCertStore, LoadError> {
    authorities_in(path, &read(path, digest)?)
}

/// The authorities in `text`, which is that of the file at `path`.
pub(super) fn authorities_in(path: &Path, text: &[u8]) -> Result<RootCertStore, LoadError> {
    let mut roots = RootCertStore::empty();
    for authority in all::<CertificateDer<'_>>(path, "certificate", text)? {
        roots.add(authority).map_err(|error| LoadError::Unfit {
            path: path.to_owned(),
            reason: format!("is no authority: {error}"),
        })?;
    }
    Ok(roots)
}

/// Reads the revocation lists in `path`.
pub(super) fn revocations(
    path: &Path,
    digest: &mut Sha256,
) -> Result<Vec<CertificateRevocationListDer<'static>>, LoadError> {
    revocations_in(path, &read(path, digest)?)
}

/// The revocation lists in `text`, which is that of the file at `path`.
pub(super) fn revocations_in(
    path: &Path,
    text: &[u8],
) -> Result<Vec<CertificateRevocationListDer<'static>>, LoadError> {
    all(path, "revocation list", text)
}

/// Reads the file at `path`, adds it to `digest` and leaves no copy of a key behind.
fn read(path: &Path, digest: &mut Sha256) -> Result<Zeroizing<Vec<u8>>, LoadError> {
    let failed = |source| LoadError::Read { path: path.to_owned(), source };
    let file = File::open(path).map_err(failed)?;
    let mut text = Zeroizing::new(Vec::with_capacity(limits::PEM_MAX_BYTES));
    let limit = u64::try_from(limits::PEM_MAX_BYTES).unwrap_or(u64::MAX);
    file.take(limit).read_to_end(&mut text).map_err(failed)?;
    if text.len() == limits::PEM_MAX_BYTES {
        return Err(failed(io::Error::other(format!("it is not shorter than {limit} bytes"))));
    }
    digest.update(Sha256::digest(&*text));
    Ok(text)
}

/// Every object of one kind in `text`; at least one.
fn all<T: PemObject>(path: &Path, what: &'static str, text: &[u8]) -> Result<Vec<T>, LoadError> {
    let found = T::pem_slice_iter(text).collect::<Result<Vec<T>, _>>();
    match found {
        Ok(found) if found.is_empty() => Err(lacks(path, what, &pem::Error::NoItemsFound)),
        Ok(found) => Ok(found),
        Err(error) => Err(lacks(path, what, &error)),
    }
}

fn lacks(path: &Path, what: &'static str, error: &pem::Error) -> LoadError {
    LoadError::Lacks { path: path.to_owned(), what, reason: error.to_string() }
}

fn expiry(path: &Path, certificate: &CertificateDer<'_>) -> Result<UnixSeconds, LoadError> {
    let (_, parsed) = X509Certificate::from_der(certificate).map_err(|error| LoadError::Unfit {
        path: path.to_owned(),
        reason: format!("cannot be read: {error}"),
    })?;
    Ok(UnixSeconds(u64::try_from(parsed.validity().not_after.timestamp()).unwrap_or(0)))
}
