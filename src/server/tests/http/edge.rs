//! What holds for every connection and request, and how a node ends.

use std::time::Duration;

use serde_json::json;
use tokio::{io::AsyncWriteExt as _, net::TcpStream, time::timeout};

use crate::support::{Device, Fixture, Request, eventually, http};

const LONG: Duration = Duration::from_secs(20);

/// A fetch whose head announces a body of 100 bytes.
fn head_of_a_long_body(target: &str) -> String {
    format!(
        "POST {target} HTTP/1.1\r\nHost: test\r\nIdempotency-Key: k\r\n\
         Content-Type: application/json\r\nContent-Length: 100\r\n\r\n"
    )
}

#[tokio::test]
async fn a_slow_body_is_cut_off() {
    let node =
        Fixture::start_with(|config| config.http.body_timeout = Duration::from_millis(50)).await;
    let mut stream = TcpStream::connect(node.public).await.unwrap();
    stream.write_all(head_of_a_long_body("/v1/users/bob/bundles").as_bytes()).await.unwrap();
    stream.write_all(b"{").await.unwrap();
    let reply = timeout(LONG, http::read_reply(&mut stream)).await.unwrap().unwrap();
    assert_eq!((reply.status, reply.problem_code().as_str()), (408, "request_timeout"));
}

#[tokio::test]
async fn a_body_announced_as_too_long_is_refused_before_it_comes() {
    let node = Fixture::start().await;
    let mut stream = TcpStream::connect(node.public).await.unwrap();
    let head = head_of_a_long_body("/v1/users/bob/bundles").replace("100", "1000000000");
    stream.write_all(head.as_bytes()).await.unwrap();
    let reply = timeout(LONG, http::read_reply(&mut stream)).await.unwrap().unwrap();
    assert_eq!((reply.status, reply.problem_code().as_str()), (413, "body_too_large"));
}

#[tokio::test]
async fn a_chunked_body_has_the_same_limit() {
    let node = Fixture::start().await;
    let mut stream = TcpStream::connect(node.public).await.unwrap();
    let head = head_of_a_long_body("/v1/users/bob/bundles")
        .replace("Content-Length: 100", "Transfer-Encoding: chunked");
    stream.write_all(head.as_bytes()).await.unwrap();
    let chunk = format!("8000\r\n{}\r\n", " ".repeat(0x8000));
    for _ in 0..3 {
        // The server may have closed already.
        let _ = stream.write_all(chunk.as_bytes()).await;
    }
    let reply = timeout(LONG, http::read_reply(&mut stream)).await.unwrap().unwrap();
    assert_eq!((reply.status, reply.problem_code().as_str()), (413, "body_too_large"));
}

#[tokio::test]
async fn a_slow_head_and_an_idle_connection_are_cut_off() {
    let node =
        Fixture::start_with(|config| config.http.header_timeout = Duration::from_millis(50)).await;
    for sent in ["", "GET /v1/users/bob HTTP/1.1\r\nHost:"] {
        let mut stream = TcpStream::connect(node.public).await.unwrap();
        stream.write_all(sent.as_bytes()).await.unwrap();
        let ended = timeout(LONG, http::read_reply(&mut stream)).await;
        assert!(ended.is_ok(), "a connection that sent {sent:?} stayed open");
    }
}

#[tokio::test]
async fn a_large_head_is_refused() {
    let node = Fixture::start().await;
    for request in [
        Request::get("/v1/users/bob").header("X", &"x".repeat(20_000)),
        Request::get(format!("/v1/users/{}", "x".repeat(20_000))),
    ] {
        let reply = node.send(request).await;
        assert!([414, 431].contains(&reply.status), "{reply:?}");
    }
}

#[tokio::test]
async fn what_is_not_http_is_refused() {
    let node = Fixture::start().await;
    let mut stream = TcpStream::connect(node.public).await.unwrap();
    stream.write_all(b"\x16\x03\x01\x02\x00 hello\r\n\r\n").await.unwrap();
    let reply = timeout(LONG, http::read_reply(&mut stream)).await.unwrap();
    assert!(reply.is_none_or(|reply| reply.status == 400));
}

#[tokio::test]
async fn over_the_limit_requests_are_told_to_come_back() {
    let node = Fixture::start_with(|config| config.http.concurrency_max = 1).await;
    let mut busy = TcpStream::connect(node.public).await.unwrap();
    busy.write_all(head_of_a_long_body("/v1/users/bob/bundles").as_bytes()).await.unwrap();
    let shed = eventually(async || {
        let reply = node.send(Request::get("/v1/users/bob")).await;
        if reply.status == 503 { Ok(reply) } else { Err(format!("{reply:?}")) }
    })
    .await;
    assert_eq!(shed.problem_code(), "overloaded");
    assert_eq!(shed.header("retry-after"), Some("1"));
    // Operators get through.
    assert_eq!(node.ask_admin(Request::get("/livez")).await.status, 200);
    drop(busy);
    eventually(async || {
        let reply = node.send(Request::get("/v1/users/bob")).await;
        if reply.status == 404 { Ok(()) } else { Err(format!("{reply:?}")) }
    })
    .await;
}

#[tokio::test]
async fn a_shutdown_answers_what_is_in_flight_and_takes_nothing_new() {
    let mut node = Fixture::start().await;
    let mut bob = Device::new("bob", 1);
    node.register(&mut bob, 1).await;
    let request = Request::fetch(bob.bundles_path(), "k", &json!({}));
    let mut stream = TcpStream::connect(node.public).await.unwrap();
    stream.write_all(request.head().as_bytes()).await.unwrap();
    // In flight once it is counted.
    eventually(async || {
        let metrics = node.ask_admin(Request::get("/metrics")).await.body;
        let line = "oncekey_http_requests_in_flight 2";
        if metrics.lines().any(|found| found == line) { Ok(()) } else { Err(metrics) }
    })
    .await;
    node.request_stop();
    eventually(async || {
        let ready = node.ask_admin(Request::get("/readyz")).await;
        if ready.body.contains("shutting down") { Ok(()) } else { Err(format!("{ready:?}")) }
    })
    .await;
    eventually(async || match TcpStream::connect(node.public).await {
        Ok(_) => Err("the public listener still accepts".to_owned()),
        Err(_) => Ok(()),
    })
    .await;
    stream.write_all(&request.body).await.unwrap();
    let reply = timeout(LONG, http::read_reply(&mut stream)).await.unwrap().unwrap();
    assert_eq!(reply.status, 200, "{reply:?}");
    assert!(timeout(LONG, node.ended()).await.unwrap().is_ok());
}

#[tokio::test]
async fn a_shutdown_does_not_wait_for_a_client_for_ever() {
    let node =
        Fixture::start_with(|config| config.http.drain_timeout = Duration::from_millis(100)).await;
    let mut stream = TcpStream::connect(node.public).await.unwrap();
    stream.write_all(head_of_a_long_body("/v1/users/bob/bundles").as_bytes()).await.unwrap();
    assert!(timeout(LONG, node.ended()).await.unwrap().is_ok());
}
