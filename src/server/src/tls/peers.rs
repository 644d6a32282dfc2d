//! Mutual TLS between nodes.
//!
//! Guarantees: both ends prove that an authority in `tls.peer_ca` vouched for them under the name of
//! a node of this cluster; which one is told to whoever asked, who holds it against the greeting.
//! A session is never resumed, so that whoever connects proves itself under the authorities and
//! revocations of this moment.
//!
//! Leaves out: ending connections that stand when a certificate expires or is revoked; a node that
//! must not go on is stopped.

use std::{io, sync::Arc};

use futures_util::future::BoxFuture;
use oncekey_raft::environment::{Guard, Guarded, Layered, Stream};
use oncekey_types::NodeId;
use rustls::{
    CertificateError, ClientConfig, CommonState, DigitallySignedStruct, Error, RootCertStore,
    ServerConfig, SignatureScheme,
    client::{
        Resumption, VerifierBuilderError, WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    pki_types::{CertificateDer, CertificateRevocationListDer, ServerName, UnixTime},
    server::{NoServerSessionStorage, WebPkiClientVerifier, danger::ClientCertVerifier},
    version::TLS13,
};
use sha2::{Digest as _, Sha256};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::{
    LoadError, PeerFiles,
    credentials::{Credentials, Loaded},
    files::{self, Pair, provider},
    name::{node_of, server_name},
};

/// What a node shows to others and demands of them, at both ends of a connection.
pub(super) struct PeerTls {
    dialling: Arc<ClientConfig>,
    accepting: Arc<ServerConfig>,
}

/// Loads what `files` names for `node` of `cluster`, and checks that other nodes will accept it.
pub(super) fn load(
    files: &PeerFiles,
    node: NodeId,
    cluster: &str,
) -> Result<Loaded<PeerTls>, LoadError> {
    let unfit = |reason: String| LoadError::Unfit { path: files.own.certificate.clone(), reason };
    let unusable = |source| LoadError::Pair {
        certificate: files.own.certificate.clone(),
        key: files.own.key.clone(),
        source,
    };
    let Pair { chain, key, mut digest, expires } = files::pair(&files.own)?;
    match chain.first().map(|own| node_of(own, cluster)) {
        Some(Ok(named)) if named == node => {}
        Some(Ok(named)) => {
            return Err(unfit(format!("is that of node {named}, this is node {node}")));
        }
        Some(Err(reason)) => return Err(unfit(reason)),
        None => return Err(unfit("is missing".to_owned())),
    }
    let verifiers = Verifiers::load(files, cluster, &mut digest)?;
    verifiers
        .check(&chain)
        .map_err(|error| unfit(format!("would be refused by the other nodes: {error}")))?;

    let mut accepting = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])
        .map_err(unusable)?
        .with_client_cert_verifier(verifiers.of_dialling)
        .with_single_cert(chain.clone(), key.clone_key())
        .map_err(unusable)?;
    accepting.session_storage = Arc::new(NoServerSessionStorage {});
    accepting.send_tls13_tickets = 0;
    let mut dialling = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])
        .map_err(unusable)?
        .dangerous()
        .with_custom_certificate_verifier(verifiers.of_accepting)
        .with_client_auth_cert(chain, key)
        .map_err(unusable)?;
    dialling.resumption = Resumption::disabled();
    dialling.enable_sni = false;
    let value = PeerTls { dialling: Arc::new(dialling), accepting: Arc::new(accepting) };
    Ok(Loaded { value: Arc::new(value), digest: digest.finalize().into(), expires })
}

/// Who is believed to be a node.
pub(super) struct Verifiers {
    /// Of the nodes that dial this one.
    of_dialling: Arc<dyn ClientCertVerifier>,
    /// Of the nodes that this one dials.
    of_accepting: Arc<AnyNode>,
}

impl Verifiers {
    fn load(files: &PeerFiles, cluster: &str, digest: &mut Sha256) -> Result<Self, LoadError> {
        let roots = files::authorities(&files.authorities, digest)?;
        let revoked = match &files.revoked {
            Some(path) => files::revocations(path, digest)?,
            None => Vec::new(),
        };
        Self::new(roots, revoked, cluster).map_err(|error| LoadError::Unfit {
            path: files.authorities.clone(),
            reason: format!("cannot be used to check others: {error}"),
        })
    }

    /// Believes those that `roots` vouch for and that are not `revoked`.
    pub(super) fn new(
        roots: RootCertStore,
        revoked: Vec<CertificateRevocationListDer<'static>>,
        cluster: &str,
    ) -> Result<Self, VerifierBuilderError> {
        let roots = Arc::new(roots);
        // A list says who is revoked; who is on none is not.
        let chains = WebPkiServerVerifier::builder_with_provider(Arc::clone(&roots), provider())
            .with_crls(revoked.iter().cloned())
            .only_check_end_entity_revocation()
            .allow_unknown_revocation_status()
            .build()?;
        let of_dialling = WebPkiClientVerifier::builder_with_provider(roots, provider())
            .with_crls(revoked)
            .only_check_end_entity_revocation()
            .allow_unknown_revocation_status()
            .build()?;
        let of_accepting = Arc::new(AnyNode { chains, cluster: cluster.to_owned() });
        Ok(Self { of_dialling, of_accepting })
    }

    /// Whether the node's own certificate would pass at both ends. One that is not valid now would
    /// not, but a node that runs can be given another.
    pub(super) fn check(&self, chain: &[CertificateDer<'_>]) -> Result<(), Error> {
        let now = UnixTime::now();
        let (own, others) = chain.split_first().ok_or(Error::NoCertificatesPresented)?;
        let checked = self.of_accepting.verify(own, others, now);
        let checked = checked
            .and_then(|()| self.of_dialling.verify_client_cert(own, others, now).map(|_| ()));
        match checked {
            Err(Error::InvalidCertificate(
                CertificateError::Expired
                | CertificateError::ExpiredContext { .. }
                | CertificateError::NotValidYet
                | CertificateError::NotValidYetContext { .. },
            )) => Ok(()),
            checked => checked,
        }
    }
}

/// Believes whoever has the certificate of a node of the cluster, whichever node that is.
#[derive(Debug)]
struct AnyNode {
    chains: Arc<WebPkiServerVerifier>,
    cluster: String,
}

impl AnyNode {
    fn verify(
        &self,
        own: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), Error> {
        let node = node_of(own, &self.cluster).map_err(|reason| not_a_node(&reason))?;
        let name = server_name(node, &self.cluster).ok_or(Error::UnsupportedNameType)?;
        self.chains.verify_server_cert(own, others, &name, &[], now).map(|_| ())
    }
}

impl ServerCertVerifier for AnyNode {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.verify(end_entity, intermediates, now).map(|()| ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chains.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chains.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chains.supported_verify_schemes()
    }
}

/// Asks every node for its certificate.
pub(super) struct PeerGuard {
    credentials: Arc<Credentials<PeerTls>>,
    node: NodeId,
    cluster: String,
}

impl PeerGuard {
    pub(super) fn new(credentials: Arc<Credentials<PeerTls>>, node: NodeId, cluster: &str) -> Self {
        Self { credentials, node, cluster: cluster.to_owned() }
    }

    /// The node that the other end of `connection` has proved to be.
    fn proved(&self, connection: &CommonState) -> io::Result<NodeId> {
        let certificate = connection.peer_certificates().and_then(<[_]>::first);
        let certificate = certificate.ok_or_else(|| io::Error::other("no certificate"))?;
        node_of(certificate, &self.cluster).map_err(|reason| io::Error::other(not_a_node(&reason)))
    }
}

impl Guard for PeerGuard {
    fn dialled(&self, stream: Box<dyn Stream>) -> BoxFuture<'_, io::Result<Guarded>> {
        Box::pin(async move {
            // Not sent, and not what is checked: whom the other end may be is known to the caller.
            let name = server_name(self.node, &self.cluster)
                .ok_or_else(|| io::Error::other(Error::UnsupportedNameType))?;
            let connector = TlsConnector::from(Arc::clone(&self.credentials.current().dialling));
            let stream = connector.connect(name, stream).await?;
            let node = self.proved(stream.get_ref().1)?;
            Ok(Guarded { stream: Box::new(Layered(stream)), node: Some(node) })
        })
    }

    fn accepted(&self, stream: Box<dyn Stream>) -> BoxFuture<'_, io::Result<Guarded>> {
        Box::pin(async move {
            let acceptor = TlsAcceptor::from(Arc::clone(&self.credentials.current().accepting));
            let stream = acceptor.accept(stream).await?;
            let node = self.proved(stream.get_ref().1)?;
            Ok(Guarded { stream: Box::new(Layered(stream)), node: Some(node) })
        })
    }
}

fn not_a_node(reason: &str) -> Error {
    Error::General(format!("the certificate {reason}"))
}
