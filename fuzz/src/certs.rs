//! Certificates, keys, authorities and revocation lists, as they lie in files and come from whoever
//! says to be a node.

use std::sync::LazyLock;

use oncekey_server::{
    fuzzing::{Believed, Chain, certificates, private_key},
    tls::node_name,
};
use oncekey_types::NodeId;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, ExtendedKeyUsagePurpose,
    IsCa, Issuer, KeyIdMethod, KeyPair, RevokedCertParams, SerialNumber, date_time_ymd,
};

use crate::{Target, choose, chosen, take};

/// Files in PEM, by what they are for.
pub const CERTIFICATE: Target =
    Target { name: "certificate", run: certificate, seeds: files, claim_bytes: 0 };

const CLUSTER: &str = "fuzz";

/// What an operator has.
struct Made {
    authority: String,
    node: String,
    key: String,
    revoked: String,
}

static MADE: LazyLock<Made> = LazyLock::new(make);

/// Whom a node with these files believes.
static BELIEVED: LazyLock<Believed> = LazyLock::new(|| {
    Believed::new(MADE.authority.as_bytes(), None, CLUSTER).expect("it is an authority")
});

/// The chain of the node.
static GENUINE: LazyLock<Chain> =
    LazyLock::new(|| certificates(MADE.node.as_bytes()).expect("it is a certificate"));

/// An Ed25519 key (RFC 8410), the same in every run.
fn key(seed: u8) -> KeyPair {
    let head = b"\x30\x2e\x02\x01\x00\x30\x05\x06\x03\x2b\x65\x70\x04\x22\x04\x20";
    KeyPair::try_from([&head[..], &[seed; 32]].concat()).expect("it is a key")
}

fn make() -> Made {
    let mut authority = CertificateParams::default();
    authority.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    authority.serial_number = Some(SerialNumber::from(1));
    let certificate = authority.self_signed(&key(1)).expect("the parameters are good").pem();
    let authority = Issuer::new(authority, key(1));

    let mut node = CertificateParams::new([node_name(NodeId(3), CLUSTER)]).expect("it is a name");
    node.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    node.serial_number = Some(SerialNumber::from(2));
    let node = node.signed_by(&key(2), &authority).expect("the parameters are good").pem();

    let at = date_time_ymd(2026, 1, 1);
    let revoked = CertificateRevocationListParams {
        this_update: at,
        next_update: date_time_ymd(2126, 1, 1),
        crl_number: SerialNumber::from(1),
        issuing_distribution_point: None,
        revoked_certs: vec![RevokedCertParams {
            serial_number: SerialNumber::from(2),
            revocation_time: at,
            reason_code: None,
            invalidity_date: None,
        }],
        key_identifier_method: KeyIdMethod::Sha256,
    };
    let revoked = revoked.signed_by(&authority).and_then(|list| list.pem());
    let revoked = revoked.expect("the parameters are good");
    Made { authority: certificate, node, key: key(2).serialize_pem(), revoked }
}

type Use = fn(&[u8]);

const USES: &[Use] = &[chain, authorities, revocations, private];

fn certificate(data: &[u8]) {
    if let Some((used, pem)) = choose(USES, data) {
        used(pem);
    }
}

/// Only the node is believed to be it.
fn chain(pem: &[u8]) {
    let Ok(chain) = certificates(pem) else { return };
    take();
    if let Some((node, true)) = BELIEVED.node(&chain) {
        assert_eq!(node, NodeId(3));
        assert_eq!(chain.first(), GENUINE.first(), "a forged certificate is believed");
    }
}

/// Whatever the authorities are, they can be used or are refused.
fn authorities(pem: &[u8]) {
    if let Some(believed) = Believed::new(pem, None, CLUSTER) {
        take();
        let _ = believed.node(&GENUINE);
    }
}

/// The same for revocation lists; only the authority revokes.
fn revocations(pem: &[u8]) {
    let authority = MADE.authority.as_bytes();
    if let Some(believed) = Believed::new(authority, Some(pem), CLUSTER) {
        take();
        let node = believed.node(&GENUINE);
        assert!(node.is_some_and(|(node, _)| node == NodeId(3)), "{node:?}");
    }
}

/// Nothing of a key is in an error.
fn private(pem: &[u8]) {
    match private_key(pem) {
        Ok(()) => take(),
        Err(error) => {
            assert_eq!(
                error.to_string(),
                "fuzz.pem has no private key in PEM: there is none, or it is damaged"
            );
        }
    }
}

fn files() -> Vec<Vec<u8>> {
    let Made { authority, node, key, revoked } = &*MADE;
    let all = [node, authority, revoked, key].into_iter().enumerate();
    let mut files: Vec<_> = all.map(|(used, pem)| chosen(used, pem.as_bytes())).collect();
    files.push(chosen(0, format!("{node}{authority}").as_bytes()));
    files
}
