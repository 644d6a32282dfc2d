//! The name of a node in its certificate.
//!
//! Guarantees: a certificate stands for one node at most, and that one is named in full: a wildcard
//! is no name, nor is the common name. Leaves out: whether the certificate is to be trusted.

use oncekey_types::NodeId;
use rustls::{
    client::verify_server_name,
    pki_types::{CertificateDer, ServerName},
    server::ParsedCertificate,
};
use x509_parser::prelude::{FromDer as _, GeneralName, X509Certificate};

/// Below which all nodes of all clusters have their names.
const SUFFIX: &str = "oncekey";

/// The DNS name that the certificate of `node` must have among its subject alternative names:
/// `node-3.<cluster>.oncekey`, in lower case.
#[must_use]
pub fn node_name(node: NodeId, cluster: &str) -> String {
    format!("node-{node}.{cluster}.{SUFFIX}").to_ascii_lowercase()
}

/// The same as rustls has it; none when the name of the cluster cannot stand in one.
pub(crate) fn server_name(node: NodeId, cluster: &str) -> Option<ServerName<'static>> {
    ServerName::try_from(node_name(node, cluster)).ok()
}

/// The node of `cluster` that `certificate` names.
///
/// # Errors
///
/// Why there is none, to be read after "the certificate".
pub(super) fn node_of(certificate: &CertificateDer<'_>, cluster: &str) -> Result<NodeId, String> {
    let unreadable = |error: &dyn std::fmt::Display| format!("cannot be read: {error}");
    let (_, parsed) = X509Certificate::from_der(certificate).map_err(|error| unreadable(&error))?;
    let names = parsed.subject_alternative_name().map_err(|error| unreadable(&error))?;
    let names = names.map_or(&[][..], |names| &names.value.general_names);
    let mut nodes = names.iter().filter_map(|name| match name {
        GeneralName::DNSName(name) => parse(name, cluster),
        _ => None,
    });
    let Some(node) = nodes.next() else {
        return Err(format!("names no node of the cluster {cluster:?}"));
    };
    if nodes.any(|other| other != node) {
        return Err("names more than one node".to_owned());
    }
    // Another parser than the one that checks the chain has read the name: both have to agree.
    let checked = ParsedCertificate::try_from(certificate).map_err(|error| unreadable(&error))?;
    let name = server_name(node, cluster).ok_or("has a name that is none")?;
    verify_server_name(&checked, &name).map_err(|error| unreadable(&error))?;
    Ok(node)
}

fn parse(name: &str, cluster: &str) -> Option<NodeId> {
    let number = name.split('.').next()?.get("node-".len()..)?;
    let node = NodeId(number.parse().ok()?);
    // One spelling for each node.
    name.eq_ignore_ascii_case(&node_name(node, cluster)).then_some(node)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_has_one_spelling_but_for_its_case() {
        assert_eq!(node_name(NodeId(3), "Prod"), "node-3.prod.oncekey");
        for name in ["node-3.prod.oncekey", "NODE-3.Prod.Oncekey"] {
            assert_eq!(parse(name, "prod"), Some(NodeId(3)), "{name}");
        }
        for name in [
            "node-03.prod.oncekey",
            "node-+3.prod.oncekey",
            "node-3.prod.oncekey.",
            "node-3.prod.oncekey.example",
            "node-3.test.oncekey",
            "node-.prod.oncekey",
            "*.prod.oncekey",
            "a.node-3.prod.oncekey",
            "node-3",
            "nöde-3.prod.oncekey",
            "",
        ] {
            assert_eq!(parse(name, "prod"), None, "{name}");
        }
    }
}
