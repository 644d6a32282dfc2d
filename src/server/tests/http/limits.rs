//! Limits for each address, and for clients that do not read.

use std::time::Duration;

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpSocket, TcpStream},
    time::timeout,
};

use crate::support::{Fixture, Reply, Request, eventually};

const LONG: Duration = Duration::from_secs(20);

/// A request of the client at `client`, as a proxy passes it on.
fn of(client: &str) -> Request {
    Request::get("/v1/users/bob").header("X-Forwarded-For", client)
}

/// Asks as `client` until told to come back.
async fn exhaust(node: &Fixture, client: &str) -> Reply {
    for _ in 0..1000 {
        let reply = node.send(of(client)).await;
        if reply.status != 404 {
            return reply;
        }
    }
    panic!("{client} may ask as fast as it likes");
}

#[tokio::test]
async fn an_address_that_asks_too_fast_is_told_to_come_back() {
    let node = Fixture::start_with(|config| {
        config.addresses.trusted_proxies = vec!["127.0.0.0/8".parse().unwrap()];
        (config.addresses.requests_per_s, config.addresses.requests_burst) = (1, 3);
    })
    .await;
    let refused = exhaust(&node, "198.51.100.7").await;
    assert_eq!((refused.status, refused.problem_code().as_str()), (429, "too_many_requests"));
    assert_eq!(refused.header("retry-after"), Some("1"));
    // Another client behind the same proxy is not concerned, however it is introduced.
    let spoofed = "198.51.100.7, 198.51.100.8";
    assert_eq!(node.send(of(spoofed)).await.status, 404);
    // A while later it may ask again.
    eventually(async || match node.send(of("198.51.100.7")).await {
        reply if reply.status == 404 => Ok(()),
        reply => Err(format!("{reply:?}")),
    })
    .await;
}

#[tokio::test]
async fn a_client_cannot_choose_its_address() {
    let node = Fixture::start_with(|config| {
        config.addresses.exempt.clear();
        (config.addresses.requests_per_s, config.addresses.requests_burst) = (1, 3);
    })
    .await;
    for number in 0..1000 {
        let reply = node.send(of(&format!("198.51.100.{}", number % 250))).await;
        if reply.status == 429 {
            return;
        }
    }
    panic!("a header of the client's own was believed");
}

#[tokio::test]
async fn connections_over_the_limit_of_an_address_are_closed() {
    let node = Fixture::start_with(|config| {
        config.addresses.exempt.clear();
        config.addresses.connections_max = 2;
    })
    .await;
    let open = async || {
        let mut stream = TcpStream::connect(node.public).await.unwrap();
        let head = b"GET /v1/users/bob HTTP/1.1\r\nHost: test\r\n\r\n";
        // A connection that was closed may refuse the bytes.
        let _ = stream.write_all(head).await;
        let mut byte = [0];
        match timeout(LONG, stream.read(&mut byte)).await.unwrap() {
            Ok(1) => Some(stream),
            Ok(_) | Err(_) => None,
        }
    };
    let first = open().await.unwrap();
    let _second = open().await.unwrap();
    assert!(open().await.is_none());
    drop(first);
    eventually(async || open().await.map(drop).ok_or("no place is free".to_owned())).await;
    let metrics = node.ask_admin(Request::get("/metrics")).await.body;
    let closed = "oncekey_connections_turned_away_total{reason=\"address\"} ";
    assert!(metrics.lines().any(|line| line.starts_with(closed) && !line.ends_with(" 0")));
}

#[tokio::test]
async fn a_client_that_does_not_read_is_cut_off() {
    let node =
        Fixture::start_with(|config| config.http.send_timeout = Duration::from_millis(50)).await;
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    // The longest replies that there are: they fill the kernel's buffers soonest.
    let mut stream = socket.connect(node.admin).await.unwrap();
    let asking = tokio::spawn(async move {
        let many = b"GET /metrics HTTP/1.1\r\nHost: test\r\n\r\n".repeat(100);
        while stream.write_all(&many).await.is_ok() {}
    });
    timeout(LONG, asking).await.expect("it may go on asking for ever").unwrap();
    let metrics = node.ask_admin(Request::get("/metrics")).await.body;
    let cut = "oncekey_connections_turned_away_total{reason=\"not_reading\"} 1";
    assert!(metrics.lines().any(|line| line == cut), "{metrics}");
}
