//! The section `tls`.

use std::{path::PathBuf, time::Duration};

use oncekey_raft::NodeConfig;

use super::{DAY_MS, Error, Range, Settings};
use crate::tls::{CertificateFiles, PeerFiles, Tls, server_name};

/// Where certificates are; a certificate without its key is refused, and the other way round.
pub(super) fn tls(settings: &Settings, node: &NodeConfig) -> Result<Tls, Error> {
    let peer = together(settings, ["tls.peer_certificate", "tls.peer_key", "tls.peer_ca"])?;
    let revoked = settings.optional::<PathBuf>("tls.peer_crl")?;
    if peer.is_none() && revoked.is_some() {
        return Err(lacks(settings, "tls.peer_crl", "tls.peer_certificate"));
    }
    let peer = peer.map(|[certificate, key, authorities]| PeerFiles {
        own: CertificateFiles { certificate, key },
        authorities,
        revoked,
    });
    if peer.is_some() && server_name(node.node, &node.cluster).is_none() {
        let reason = "cannot be part of a DNS name, which the certificate of a node needs";
        return Err(settings.error("cluster.name", reason));
    }
    let files = |[certificate, key]: [PathBuf; 2]| CertificateFiles { certificate, key };
    let days: u64 = settings.integer("tls.expiry_warning_days", Range(0, 10_000))?;
    Ok(Tls {
        public: together(settings, ["tls.certificate", "tls.key"])?.map(files),
        admin: together(settings, ["tls.admin_certificate", "tls.admin_key"])?.map(files),
        peer,
        handshake_timeout: Duration::from_millis(
            settings.integer("tls.handshake_timeout_ms", Range(1, 600_000))?,
        ),
        poll_interval: Duration::from_millis(settings.integer("tls.poll_ms", Range(10, DAY_MS))?),
        expiry_warning: Duration::from_millis(days * DAY_MS),
    })
}

/// All of `keys`, or none of them.
fn together<const N: usize>(
    settings: &Settings,
    keys: [&'static str; N],
) -> Result<Option<[PathBuf; N]>, Error> {
    let mut found = Vec::with_capacity(N);
    let (mut given, mut missing) = (None, None);
    for key in keys {
        match settings.optional(key)? {
            Some(path) => {
                given = given.or(Some(key));
                found.push(path);
            }
            None => missing = missing.or(Some(key)),
        }
    }
    match (given, missing) {
        (Some(given), Some(missing)) => Err(lacks(settings, given, missing)),
        // As many as there are keys, or none.
        _ => Ok(found.try_into().ok()),
    }
}

fn lacks(settings: &Settings, given: &'static str, missing: &str) -> Error {
    settings.error(given, format!("is set without {missing}"))
}
