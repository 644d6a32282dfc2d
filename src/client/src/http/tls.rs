//! TLS for nodes over `https`.
//!
//! Guarantees: TLS 1.3 and nothing older; the certificate names the host of the endpoint and leads
//! to an authority that the application trusts. Leaves out: pins and certificates of clients; a
//! [`Dial`](super::Dial) of the application may bring them. What a lying server can do is bounded by
//! signatures, not by TLS.

use std::{fmt, io, sync::Arc};

use rustls::{
    CertificateError, ClientConfig, ConfigBuilder, DigitallySignedStruct, RootCertStore,
    SignatureScheme, WantsVerifier,
    client::{
        WantsClientCert,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{WebPkiSupportedAlgorithms, ring, verify_tls13_signature},
    pki_types::{
        CertificateDer, ServerName, UnixTime,
        pem::{self, PemObject as _},
    },
    version::TLS13,
};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::{TlsConnector, client::TlsStream};

/// Whom to trust. Cheap to clone.
#[derive(Clone)]
pub struct Tls(Arc<ClientConfig>);

/// Why authorities were refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// Not certificates in PEM.
    #[error("there are no certificates in PEM: {0}")]
    Pem(pem::Error),
    /// A certificate that is no authority's.
    #[error("a certificate cannot be used as an authority: {0}")]
    Authority(rustls::Error),
}

impl Tls {
    /// Trusts the authorities that browsers trust, as they were when this library was built.
    #[must_use]
    pub fn public() -> Self {
        Self::trusting(webpki_roots::TLS_SERVER_ROOTS.iter().cloned().collect())
    }

    /// Trusts the authorities in `pem` and no others.
    ///
    /// # Errors
    ///
    /// A [`TlsError`].
    pub fn from_pem(pem: &[u8]) -> Result<Self, TlsError> {
        let mut roots = RootCertStore::empty();
        for authority in CertificateDer::pem_slice_iter(pem) {
            roots.add(authority.map_err(TlsError::Pem)?).map_err(TlsError::Authority)?;
        }
        if roots.is_empty() {
            return Err(TlsError::Pem(pem::Error::NoItemsFound));
        }
        Ok(Self::trusting(roots))
    }

    /// Trusts whoever shows the first certificate in `pem`, whatever it is called there: for a program
    /// that has the node's own files.
    ///
    /// # Errors
    ///
    /// [`TlsError::Pem`].
    pub fn pinned(pem: &[u8]) -> Result<Self, TlsError> {
        let certificate = CertificateDer::from_pem_slice(pem).map_err(TlsError::Pem)?;
        let algorithms = ring::default_provider().signature_verification_algorithms;
        let only = Arc::new(Only { certificate, algorithms });
        Ok(Self::of(builder().dangerous().with_custom_certificate_verifier(only)))
    }

    fn trusting(roots: RootCertStore) -> Self {
        Self::of(builder().with_root_certificates(roots))
    }

    fn of(builder: ConfigBuilder<ClientConfig, WantsClientCert>) -> Self {
        Self(Arc::new(builder.with_no_client_auth()))
    }

    /// Goes on over `stream` with the node that `host` names.
    ///
    /// # Errors
    ///
    /// When the host is no name and no address, or the other end is not trusted to be it.
    pub async fn connect<S>(&self, host: &str, stream: S) -> io::Result<TlsStream<S>>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
        TlsConnector::from(Arc::clone(&self.0)).connect(name, stream).await
    }
}

fn builder() -> ConfigBuilder<ClientConfig, WantsVerifier> {
    let provider = Arc::new(ring::default_provider());
    #[expect(clippy::expect_used, reason = "ring has everything that TLS 1.3 asks for")]
    ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])
        .expect("ring supports TLS 1.3")
}

/// Takes one certificate and no other.
#[derive(Debug)]
struct Only {
    certificate: CertificateDer<'static>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl ServerCertVerifier for Only {
    fn verify_server_cert(
        &self,
        shown: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if *shown == self.certificate {
            Ok(ServerCertVerified::assertion())
        } else {
            Err(CertificateError::UnknownIssuer.into())
        }
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(rustls::Error::General("TLS 1.3 was agreed on".to_owned()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        shown: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, shown, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

impl Default for Tls {
    fn default() -> Self {
        Self::public()
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tls")
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertifiedKey, KeyPair, generate_simple_self_signed};
    use rustls::{ServerConfig, pki_types::PrivateKeyDer};
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};
    use tokio_rustls::TlsAcceptor;

    use super::*;

    fn certificate() -> CertifiedKey<KeyPair> {
        let names = ["node.example".to_owned(), "::1".to_owned()];
        generate_simple_self_signed(names).unwrap()
    }

    /// Whether a client that trusts `tls` says hello to `host`, which shows `shown`.
    async fn greets(tls: &Tls, host: &str, shown: &CertifiedKey<KeyPair>) -> bool {
        let key = PrivateKeyDer::from_pem_slice(shown.signing_key.serialize_pem().as_bytes());
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![shown.cert.der().clone()], key.unwrap())
            .unwrap();
        let (here, there) = duplex(16 * 1024);
        let server = tokio::spawn(async move {
            let mut stream = TlsAcceptor::from(Arc::new(config)).accept(there).await?;
            stream.read_u8().await?;
            stream.write_u8(7).await?;
            stream.shutdown().await
        });
        let greeting = async {
            let mut stream = tls.connect(host, here).await?;
            stream.write_u8(7).await?;
            stream.flush().await?;
            stream.read_u8().await
        };
        let greeted = greeting.await.is_ok();
        assert_eq!(server.await.unwrap().is_ok(), greeted);
        greeted
    }

    #[tokio::test]
    async fn only_the_host_that_was_asked_for_is_greeted_and_only_when_it_is_trusted() {
        let shown = certificate();
        let tls = Tls::from_pem(shown.cert.pem().as_bytes()).unwrap();
        assert!(greets(&tls, "node.example", &shown).await);
        assert!(greets(&tls, "[::1]", &shown).await);
        assert!(!greets(&tls, "other.example", &shown).await);
        assert!(!greets(&tls, "127.0.0.1", &shown).await);
        assert!(!greets(&tls, "node.example", &certificate()).await);
        assert!(!greets(&Tls::public(), "node.example", &shown).await);
    }

    #[tokio::test]
    async fn a_certificate_that_is_pinned_is_taken_under_any_name_and_no_other_is() {
        let shown = certificate();
        let tls = Tls::pinned(shown.cert.pem().as_bytes()).unwrap();
        assert!(greets(&tls, "node.example", &shown).await);
        assert!(greets(&tls, "127.0.0.1", &shown).await);
        assert!(!greets(&tls, "node.example", &certificate()).await);
        assert!(Tls::pinned(b"hello").is_err());
    }

    #[test]
    fn what_is_no_authority_is_refused() {
        for text in ["", "hello", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"]
        {
            assert!(Tls::from_pem(text.as_bytes()).is_err(), "{text:?}");
        }
    }
}
