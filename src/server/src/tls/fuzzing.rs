//! Certificates, keys, authorities and revocation lists, opened to the fuzz targets.

use std::path::Path;

use oncekey_types::NodeId;
use rustls::pki_types::CertificateDer;

use super::{LoadError, files, name::node_of, peers::Verifiers};

/// A file of certificates.
pub type Chain = Vec<CertificateDer<'static>>;

/// Whom a node believes.
pub struct Believed {
    verifiers: Verifiers,
    cluster: String,
}

fn file() -> &'static Path {
    Path::new("fuzz.pem")
}

/// The certificates in `pem`.
///
/// # Errors
///
/// [`LoadError`].
pub fn certificates(pem: &[u8]) -> Result<Chain, LoadError> {
    files::chain(file(), pem).map(|(chain, _)| chain)
}

/// Reads `pem` as a private key.
///
/// # Errors
///
/// [`LoadError`].
pub fn private_key(pem: &[u8]) -> Result<(), LoadError> {
    files::private_key(file(), pem).map(drop)
}

impl Believed {
    /// The nodes of `cluster` that the authorities in `authorities` vouch for and those in `revoked`,
    /// if any, do not revoke; none when these cannot be used.
    #[must_use]
    pub fn new(authorities: &[u8], revoked: Option<&[u8]>, cluster: &str) -> Option<Self> {
        let roots = files::authorities_in(file(), authorities).ok()?;
        let revoked = revoked.map(|pem| files::revocations_in(file(), pem)).transpose().ok()?;
        let verifiers = Verifiers::new(roots, revoked.unwrap_or_default(), cluster).ok()?;
        Some(Self { verifiers, cluster: cluster.to_owned() })
    }

    /// The node that `chain` names, and whether it is believed.
    #[must_use]
    pub fn node(&self, chain: &Chain) -> Option<(NodeId, bool)> {
        let node = node_of(chain.first()?, &self.cluster).ok()?;
        Some((node, self.verifiers.check(chain).is_ok()))
    }
}
