//! Streams of events: what they tell, and how they end.

use std::time::Duration;

use oncekey_api::path;
use serde_json::json;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

use crate::support::{Device, Fixture, Request, eventually};

/// Shorter than the time between two signs of life, at which a stream looks in any case.
const LONG: Duration = Duration::from_secs(15);

/// An open stream and what came of it.
struct Stream {
    socket: TcpStream,
    seen: String,
}

impl Stream {
    async fn open(node: &Fixture, device: &Device) -> Self {
        let target = path::events(&device.user, device.device);
        let mut socket = TcpStream::connect(node.public).await.unwrap();
        let head = format!("GET {target} HTTP/1.1\r\nHost: test\r\n\r\n");
        socket.write_all(head.as_bytes()).await.unwrap();
        Self { socket, seen: String::new() }
    }

    /// Waits until `text` has come.
    async fn until(&mut self, text: &str) {
        while !self.seen.contains(text) {
            let mut bytes = [0; 1024];
            let read = timeout(LONG, self.socket.read(&mut bytes)).await;
            let read = read.unwrap_or_else(|_| panic!("no {text:?} in {:?}", self.seen)).unwrap();
            assert!(read > 0, "it ended without {text:?}: {:?}", self.seen);
            self.seen.push_str(&String::from_utf8_lossy(&bytes[..read]));
        }
    }

    /// Waits for the last chunk.
    async fn end(mut self) {
        self.until("\r\n0\r\n\r\n").await;
    }

    fn count(&self, text: &str) -> usize {
        self.seen.matches(text).count()
    }
}

#[tokio::test]
async fn a_stream_opens_with_what_is_so_and_tells_what_becomes_so() {
    let node = Fixture::start().await;
    let mut bob = Device::new("bob/ü %", 1);
    node.register(&mut bob, 21).await;
    let (list, _) = bob.first_device_list();
    let put = Request::json("PUT", path::device_list(&bob.user), &list);
    assert_eq!(node.send(put).await.status, 200);

    let mut stream = Stream::open(&node, &bob).await;
    stream.until("event: device_list_changed\ndata: {\"seq\":1}\n\n").await;
    assert!(stream.seen.starts_with("HTTP/1.1 200 OK\r\n"), "{}", stream.seen);
    assert!(stream.seen.contains("content-type: text/event-stream\r\n"), "{}", stream.seen);
    assert!(stream.seen.contains("cache-control: no-store\r\n"), "{}", stream.seen);
    assert_eq!(stream.count("pool_low"), 0);

    node.send(Request::fetch(bob.bundles_path(), "a", &json!({}))).await;
    stream.until("event: pool_low\ndata: {\"count\":20,\"low_watermark\":20}\n\n").await;
    // Below the watermark nothing is new until the pool was above it.
    node.send(Request::fetch(bob.bundles_path(), "b", &json!({}))).await;
    let reply = node.send(bob.add(5)).await;
    assert_eq!(reply.status, 200, "{reply:?}");
    let metric = "oncekey_events_total{event=\"pool_low\"} 1";
    let metrics = node.ask_admin(Request::get("/metrics")).await.body;
    assert!(metrics.lines().any(|line| line == metric), "{metrics}");
    assert!(metrics.lines().any(|line| line == "oncekey_event_streams 1"), "{metrics}");
}

#[tokio::test]
async fn an_old_signed_prekey_is_told_until_it_is_replaced() {
    let node = Fixture::start_with(|config| config.signed_prekey_due = Duration::ZERO).await;
    let mut bob = Device::new("bob", 1);
    node.register(&mut bob, 50).await;
    let mut stream = Stream::open(&node, &bob).await;
    stream.until("event: signed_prekey_due\ndata: {\"signed_prekey\":1}\n\n").await;
    node.send(bob.rotate()).await;
    stream.until("event: signed_prekey_due\ndata: {\"signed_prekey\":2}\n\n").await;
}

#[tokio::test]
async fn a_device_has_one_stream_and_a_node_no_more_than_its_limit() {
    let node = Fixture::start_with(|config| config.http.events_max = 2).await;
    let mut devices: Vec<_> = (1..4).map(|number| Device::new("bob", number)).collect();
    for device in &mut devices {
        node.register(device, 1).await;
    }
    let mut first = Stream::open(&node, &devices[0]).await;
    first.until("pool_low").await;
    let mut second = Stream::open(&node, &devices[0]).await;
    second.until("pool_low").await;
    first.end().await;
    let mut other = Stream::open(&node, &devices[1]).await;
    other.until("pool_low").await;

    let target = path::events(&devices[2].user, devices[2].device);
    let shed = node.send(Request::get(target.clone())).await;
    assert_eq!((shed.status, shed.problem_code().as_str()), (503, "overloaded"));
    drop(other);
    let mut third = eventually(async || {
        let mut third = Stream::open(&node, &devices[2]).await;
        third.until("\r\n\r\n").await;
        if third.seen.starts_with("HTTP/1.1 200") { Ok(third) } else { Err(third.seen) }
    })
    .await;
    third.until("pool_low").await;
}

#[tokio::test]
async fn a_stream_ends_when_its_device_is_removed_and_for_another_there_is_none() {
    let node = Fixture::start().await;
    let mut bob = Device::new("bob", 1);
    node.register(&mut bob, 1).await;
    let mut stream = Stream::open(&node, &bob).await;
    stream.until("pool_low").await;
    let seq = bob.seq();
    let target = path::remove_device(&bob.user, bob.device, seq);
    assert_eq!(node.send(Request::new("DELETE", target)).await.status, 204);
    stream.end().await;
    let gone = node.send(Request::get(path::events(&bob.user, bob.device))).await;
    assert_eq!((gone.status, gone.problem_code().as_str()), (404, "unknown_device"));
    for query in
        ["", "?", "?user=bob", "?device=1&user=bob", "?user=bob&device=01", "?user=&device=1"]
    {
        let reply = node.send(Request::get(format!("{}{query}", path::EVENTS))).await;
        assert_eq!(reply.problem_code(), "malformed_query", "{query}");
    }
}

#[tokio::test]
async fn a_shutdown_ends_streams_at_once() {
    let mut node = Fixture::start_with(|config| config.http.drain_timeout = 10 * LONG).await;
    let mut bob = Device::new("bob", 1);
    node.register(&mut bob, 1).await;
    let mut stream = Stream::open(&node, &bob).await;
    stream.until("pool_low").await;
    node.request_stop();
    stream.end().await;
    assert!(timeout(LONG, node.ended()).await.unwrap().is_ok());
}
