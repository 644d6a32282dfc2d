//! The keys of the tokens, from a server that a private authority vouches for: how a node begins, how
//! it follows a change of keys, and that nothing but good keys over good TLS changes what it holds.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use oncekey_server::{
    Server,
    config::auth::{Auth, KeySource},
};
use parking_lot::Mutex;
use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair};
use serde_json::json;
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{ServerConfig, pki_types::PrivateKeyDer},
};

use crate::support::{Fixture, Request, config, credentials::Issuer, eventually};

/// How often the node asks.
const REFRESH: Duration = Duration::from_millis(20);

/// A private authority, and who shows a certificate of it.
struct Authority {
    params: CertificateParams,
    key: KeyPair,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self { params, key: KeyPair::generate().unwrap() }
    }

    fn write(&self, path: &Path) {
        std::fs::write(path, self.params.self_signed(&self.key).unwrap().pem()).unwrap();
    }

    /// How a server for `name` speaks TLS.
    fn server(&self, name: &str) -> Arc<ServerConfig> {
        let key = KeyPair::generate().unwrap();
        let issuer = rcgen::Issuer::from_params(&self.params, &self.key);
        let params = CertificateParams::new([name.to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &issuer).unwrap();
        let key = PrivateKeyDer::Pkcs8(key.serialize_der().into());
        let config = ServerConfig::builder().with_no_client_auth();
        Arc::new(config.with_single_cert(vec![certificate.der().clone()], key).unwrap())
    }
}

/// What a server does with a request.
#[derive(Clone)]
enum Answer {
    /// Ends the connection.
    Nothing,
    /// Answers over TLS with this certificate.
    Over(Arc<ServerConfig>, &'static str, String),
}

/// A server of keys.
struct KeyServer {
    authority: Authority,
    url: String,
    answer: Arc<Mutex<Answer>>,
    asked: Arc<Mutex<usize>>,
    folder: TempDir,
    serving: JoinHandle<()>,
}

impl Drop for KeyServer {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

impl KeyServer {
    /// A server that ends every connection.
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("https://{}/keys", listener.local_addr().unwrap());
        let answer = Arc::new(Mutex::new(Answer::Nothing));
        let asked = Arc::new(Mutex::new(0));
        let (answers, counted) = (Arc::clone(&answer), Arc::clone(&asked));
        let serving = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let answer = answers.lock().clone();
                // Whoever does not trust the server ends the connection.
                let _ = reply(stream, answer).await;
                *counted.lock() += 1;
            }
        });
        let folder = tempfile::tempdir().unwrap();
        let authority = Authority::new();
        authority.write(&folder.path().join("ca.pem"));
        Self { authority, url, answer, asked, folder, serving }
    }

    fn ca(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }

    /// What a node that believes whoever has the keys here is configured with.
    fn auth(&self) -> Auth {
        let Auth::Tokens(mut tokens) = Issuer::new().auth() else { unreachable!() };
        let url = self.url.parse().unwrap();
        tokens.keys = KeySource::Url { url, authorities: Some(self.ca()) };
        tokens.refresh = REFRESH;
        Auth::Tokens(tokens)
    }

    fn answer(&self, answer: Answer) {
        *self.answer.lock() = answer;
    }

    /// Shows the keys of `issuers`.
    fn show(&self, issuers: &[&Issuer]) {
        let tls = self.authority.server("127.0.0.1");
        self.answer(Answer::Over(tls, "200 OK", key_set(issuers)));
    }

    /// Waits until the node has been answered as this server answers now.
    async fn is_asked(&self) {
        let before = *self.asked.lock();
        eventually(async || {
            let asked = *self.asked.lock() - before;
            // The first may have begun before the answer was another.
            if asked > 1 { Ok(()) } else { Err(format!("it was asked {asked} times")) }
        })
        .await;
    }
}

fn key_set(issuers: &[&Issuer]) -> String {
    let keys: Vec<_> = issuers.iter().map(|issuer| issuer.public()).collect();
    json!({ "keys": keys }).to_string()
}

async fn reply(stream: TcpStream, answer: Answer) -> std::io::Result<()> {
    let Answer::Over(tls, status, body) = answer else { return Ok(()) };
    let mut stream = TlsAcceptor::from(tls).accept(stream).await?;
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        if stream.read_buf(&mut head).await? == 0 {
            return Ok(());
        }
    }
    let length = body.len();
    let head =
        format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n");
    stream.write_all((head + &body).as_bytes()).await?;
    stream.shutdown().await
}

/// What a token of `issuer` gets: the code of the problem.
async fn gets(node: &Fixture, issuer: &Issuer) -> String {
    let request = Request::get("/v1/users/nobody").bearer(&issuer.token("alice"));
    node.send(request).await.problem_code()
}

async fn until_gets(node: &Fixture, issuer: &Issuer, wanted: &str) {
    eventually(async || {
        let got = gets(node, issuer).await;
        if got == wanted { Ok(()) } else { Err(got) }
    })
    .await;
}

/// A token is good: nothing is known under the path.
const TAKEN: &str = "unknown_user";
const REFUSED: &str = "token_invalid";

#[tokio::test]
async fn a_node_follows_its_server_of_keys_over_tls() {
    let server = KeyServer::start().await;
    let (old, new) = (Issuer::new(), Issuer::with(8, "two"));
    let node = Fixture::start_with(|config| config.auth = server.auth()).await;
    assert_eq!(gets(&node, &old).await, "keys_unavailable", "it starts, and takes no token");
    server.show(&[&old]);
    until_gets(&node, &old, TAKEN).await;

    // A change of keys: both, then the new one alone.
    assert_eq!(gets(&node, &new).await, REFUSED);
    server.show(&[&old, &new]);
    until_gets(&node, &new, TAKEN).await;
    assert_eq!(gets(&node, &old).await, TAKEN);
    server.show(&[&new]);
    until_gets(&node, &old, REFUSED).await;
    assert_eq!(gets(&node, &new).await, TAKEN);
}

#[tokio::test]
async fn keys_stay_in_force_whatever_becomes_of_their_server() {
    let server = KeyServer::start().await;
    let (good, bad) = (Issuer::new(), Issuer::with(8, "two"));
    server.show(&[&good]);
    let node = Fixture::start_with(|config| config.auth = server.auth()).await;
    assert_eq!(gets(&node, &good).await, TAKEN, "the keys are read before anybody is served");
    let ours = || server.authority.server("127.0.0.1");
    let stranger = Authority::new();
    let others = || key_set(&[&bad]);
    for (what, answer) in [
        ("down", Answer::Nothing),
        ("an error", Answer::Over(ours(), "500 Internal Server Error", others())),
        ("elsewhere", Answer::Over(ours(), "302 Found", others())),
        ("no keys", Answer::Over(ours(), "200 OK", key_set(&[]))),
        ("no JSON", Answer::Over(ours(), "200 OK", "<html>".to_owned())),
        ("too long", Answer::Over(ours(), "200 OK", " ".repeat(1 << 20) + &others())),
        ("a stranger", Answer::Over(stranger.server("127.0.0.1"), "200 OK", others())),
        ("another name", Answer::Over(server.authority.server("localhost"), "200 OK", others())),
    ] {
        server.answer(answer);
        server.is_asked().await;
        assert_eq!(gets(&node, &good).await, TAKEN, "{what}");
        assert_eq!(gets(&node, &bad).await, REFUSED, "{what}");
    }
    // The same keys from the right server are taken.
    server.show(&[&bad]);
    until_gets(&node, &bad, TAKEN).await;
}

#[tokio::test]
async fn a_node_whose_authorities_cannot_be_read_does_not_start() {
    let server = KeyServer::start().await;
    for (text, wanted) in [(None, "cannot read"), (Some("ca"), "has no certificate in PEM")] {
        std::fs::remove_file(server.ca()).unwrap_or_default();
        if let Some(text) = text {
            std::fs::write(server.ca(), text).unwrap();
        }
        let disk = tempfile::tempdir().unwrap();
        let mut config = config(&disk);
        config.auth = server.auth();
        let error = Server::start(config).await.err().map(|error| error.to_string());
        let error = error.unwrap_or_default();
        assert!(error.contains(wanted) && error.contains("ca.pem"), "{error}");
    }
}
