//! Clients over TLS.

use std::{fs, sync::Arc, time::Duration};

use oncekey_server::tls::CertificateFiles;
use rcgen::{CertifiedKey, generate_simple_self_signed};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::{
    TlsConnector,
    client::TlsStream,
    rustls::{
        ClientConfig, RootCertStore,
        pki_types::{CertificateDer, ServerName},
    },
};

use crate::support::{Fixture, Reply, Request, eventually, http};

const LONG: Duration = Duration::from_secs(20);

/// A certificate for this machine in files, and a node that shows it.
struct Secure {
    node: Fixture,
    files: CertificateFiles,
    certificate: CertificateDer<'static>,
    _dir: TempDir,
}

impl Secure {
    async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let files = CertificateFiles {
            certificate: dir.path().join("server.pem"),
            key: dir.path().join("server-key.pem"),
        };
        let certificate = renew(&files);
        let node = Fixture::start_with(|config| {
            config.tls.public = Some(files.clone());
            config.tls.handshake_timeout = Duration::from_millis(500);
            config.tls.poll_interval = Duration::from_millis(10);
        })
        .await;
        Self { node, files, certificate, _dir: dir }
    }

    async fn connect(&self, trusted: &CertificateDer<'static>) -> Option<TlsStream<TcpStream>> {
        let mut roots = RootCertStore::empty();
        roots.add(trusted.clone()).unwrap();
        let config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
        let stream = TcpStream::connect(self.node.public).await.unwrap();
        let name = ServerName::try_from("127.0.0.1").unwrap();
        TlsConnector::from(Arc::new(config)).connect(name, stream).await.ok()
    }
}

/// Writes a new certificate.
fn renew(files: &CertificateFiles) -> CertificateDer<'static> {
    let CertifiedKey { cert, signing_key } =
        generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    fs::write(&files.key, signing_key.serialize_pem()).unwrap();
    fs::write(&files.certificate, cert.pem()).unwrap();
    cert.der().clone()
}

async fn ask(stream: &mut TlsStream<TcpStream>) -> Reply {
    stream.write_all(b"GET /v1/users/bob HTTP/1.1\r\nHost: test\r\n\r\n").await.unwrap();
    let mut bytes = Vec::new();
    while !bytes.ends_with(b"}") {
        let read = timeout(LONG, stream.read_buf(&mut bytes)).await.unwrap().unwrap();
        assert!(read > 0, "the connection ended: {}", String::from_utf8_lossy(&bytes));
    }
    Reply::parse(&bytes).unwrap()
}

#[tokio::test]
async fn clients_are_served_over_tls_and_in_no_other_way() {
    let secure = Secure::start().await;
    let mut stream = secure.connect(&secure.certificate).await.unwrap();
    for _ in 0..2 {
        assert_eq!(ask(&mut stream).await.problem_code(), "unknown_user");
    }
    let mut plain = TcpStream::connect(secure.node.public).await.unwrap();
    plain.write_all(Request::get("/v1/users/bob").head().as_bytes()).await.unwrap();
    let reply = timeout(LONG, http::read_reply(&mut plain)).await.unwrap();
    assert_eq!(reply, None);
}

#[tokio::test]
async fn a_client_that_stops_within_the_handshake_is_cut_off() {
    let secure = Secure::start().await;
    for sent in [&b""[..], &b"\x16\x03\x01\x02"[..]] {
        let mut stream = TcpStream::connect(secure.node.public).await.unwrap();
        stream.write_all(sent).await.unwrap();
        let ended = timeout(LONG, http::read_reply(&mut stream)).await;
        assert!(ended.is_ok(), "a connection that sent {sent:?} stayed open");
    }
    let metrics = secure.node.ask_admin(Request::get("/metrics")).await.body;
    let line = "oncekey_connections_turned_away_total{reason=\"handshake\"} 2";
    assert!(metrics.lines().any(|found| found == line), "{metrics}");
}

#[tokio::test]
async fn a_renewed_certificate_is_shown_to_new_connections_and_old_ones_stay() {
    let secure = Secure::start().await;
    let mut old = secure.connect(&secure.certificate).await.unwrap();
    assert_eq!(ask(&mut old).await.status, 404);
    let renewed = renew(&secure.files);
    eventually(async || {
        secure.connect(&renewed).await.map(drop).ok_or("the old certificate is shown".to_owned())
    })
    .await;
    assert!(secure.connect(&secure.certificate).await.is_none());
    assert_eq!(ask(&mut old).await.status, 404);

    // A broken one changes nothing but the metrics.
    fs::write(&secure.files.certificate, "half").unwrap();
    let count = |result, number| {
        format!(
            "oncekey_certificate_reloads_total{{certificate=\"public\",result=\"{result}\"}} {number}"
        )
    };
    eventually(async || {
        let metrics = secure.node.ask_admin(Request::get("/metrics")).await.body;
        let has = |line: &str| metrics.lines().any(|found| found == line);
        if has(&count("refused", 1)) && has(&count("taken", 1)) { Ok(()) } else { Err(metrics) }
    })
    .await;
    assert!(secure.connect(&renewed).await.is_some());
    let metrics = secure.node.ask_admin(Request::get("/metrics")).await.body;
    let expiry = "oncekey_certificate_expiry_timestamp_seconds{certificate=\"public\"} ";
    assert!(metrics.lines().any(|line| line.starts_with(expiry)), "{metrics}");
}
