//! Certificates as a test wants them.

use std::{fs, path::Path};

use oncekey_types::NodeId;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose,
    RevokedCertParams, SerialNumber, date_time_ymd,
};

use super::super::{CertificateFiles, PeerFiles, node_name};

pub(super) struct Authority {
    pub(super) pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    pub(super) fn new(name: &str) -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Self { pem, issuer: Issuer::new(params, key) }
    }

    /// Writes the certificate of a node with the number `serial` into `dir`.
    pub(super) fn node(&self, dir: &Path, node: u64, serial: u64) -> PeerFiles {
        self.issue(dir, &[&node_name(NodeId(node), "test")], |params| {
            params.serial_number = Some(SerialNumber::from(serial));
        })
    }

    /// Writes a certificate for `names`, changed by `change`, into `dir`.
    pub(super) fn issue(
        &self,
        dir: &Path,
        names: &[&str],
        change: impl FnOnce(&mut CertificateParams),
    ) -> PeerFiles {
        let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let files = files(dir);
        fs::write(&files.own.key, key.serialize_pem()).unwrap();
        fs::write(&files.own.certificate, certificate.pem()).unwrap();
        fs::write(&files.authorities, &self.pem).unwrap();
        files
    }

    /// A list that revokes the certificate with the number `serial`.
    pub(super) fn revoke(&self, serial: u64) -> String {
        let revoked = RevokedCertParams {
            serial_number: SerialNumber::from(serial),
            revocation_time: date_time_ymd(2024, 1, 1),
            reason_code: None,
            invalidity_date: None,
        };
        let list = CertificateRevocationListParams {
            this_update: date_time_ymd(2024, 1, 1),
            next_update: date_time_ymd(2124, 1, 1),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: vec![revoked],
            key_identifier_method: KeyIdMethod::Sha256,
        };
        list.signed_by(&self.issuer).unwrap().pem().unwrap()
    }
}

pub(super) fn files(dir: &Path) -> PeerFiles {
    PeerFiles {
        own: CertificateFiles { certificate: dir.join("node.pem"), key: dir.join("node-key.pem") },
        authorities: dir.join("ca.pem"),
        revoked: None,
    }
}
