//! Connections that follow a script, step by step. They fail when the client writes anything else.

use std::{collections::VecDeque, io};

use bytes::Bytes;
use oncekey_api::event::Event;
use oncekey_types::{RequestId, Slot, UserId};
use tokio_test::{
    assert_pending, assert_ready,
    io::{Builder, Mock},
    task,
};

use super::*;
use crate::transport::{EventSource as _, Method, Subscribe as _};

const REQUEST: &[u8] = b"POST /v1/users/bob/bundles HTTP/1.1\r\n\
    oncekey-caller: alice\r\ncontent-type: application/json\r\nidempotency-key: 00ff\r\n\
    host: node-1:8000\r\ncontent-length: 2\r\n\r\n{}";
const REPLY: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\n7";
const EVENTS: &[u8] =
    b"GET /v1/events HTTP/1.1\r\noncekey-caller: alice\r\nhost: node-1:8000\r\n\r\n";

/// The connections that can be made, one after the other; then none.
#[derive(Default)]
struct Script(Mutex<VecDeque<Mock>>);

impl Dial for Script {
    fn dial(&self, _: &str) -> Dialing {
        let connection = self.0.lock().pop_front();
        Box::pin(async move {
            let connection = connection.ok_or(io::ErrorKind::ConnectionRefused)?;
            Ok(Box::new(connection) as Box<dyn Carrier>)
        })
    }
}

/// A client of one node, and the connections that it did not make yet.
fn client<const N: usize>(connections: [Mock; N]) -> (AnyNode, Arc<Script>) {
    let endpoint = "node-1:8000".parse().unwrap();
    let config = Config::new(vec![endpoint], CallerId::new("alice").unwrap()).unwrap();
    let script = Arc::new(Script(Mutex::new(connections.into())));
    (AnyNode::with_dial(config, script.clone()), script)
}

fn call(method: Method, path: &str, body: &'static [u8], key: Option<&str>) -> Call {
    Call {
        method,
        path: path.to_owned(),
        body: Bytes::from_static(body),
        idempotency_key: key.map(|key| RequestId::new(key).unwrap()),
        slot: Slot::of(&UserId::new("bob").unwrap()),
        credentials: Credentials::Token,
    }
}

async fn fetch(client: &AnyNode) -> Result<Answer<u32>, CallError> {
    client.call(&call(Method::Post, "/v1/users/bob/bundles", b"{}", Some("00ff"))).await
}

/// Lets the tasks of connections do what they can; no time passes.
async fn settle() {
    for _ in 0..32 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_reply_that_comes_byte_by_byte_is_complete_with_the_last_one() {
    let (connection, mut node) = Builder::new().write(REQUEST).build_with_handle();
    let (client, _) = client([connection]);
    let mut fetching = task::spawn(fetch(&client));
    for byte in REPLY {
        assert_pending!(fetching.poll());
        settle().await;
        node.read(&[*byte]);
    }
    settle().await;
    assert_eq!(assert_ready!(fetching.poll()).unwrap().reply, 7);
}

#[tokio::test(start_paused = true)]
async fn wherever_a_reply_breaks_off_the_same_bytes_are_sent_again() {
    for length in 0..REPLY.len() {
        let mut first = Builder::new();
        first.write(REQUEST);
        if length > 0 {
            first.read(&REPLY[..length]);
        }
        let second = Builder::new().write(REQUEST).read(REPLY).build();
        let (client, left) = client([first.build(), second]);
        let answer = fetch(&client).await.unwrap();
        let failures: Vec<_> = answer.attempts.iter().map(|it| it.failure.clone()).collect();
        assert_eq!(failures, [Some(AttemptFailure::Lost), None], "after {length} bytes");
        assert!(left.0.lock().is_empty(), "after {length} bytes");
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_that_was_sent_in_part_may_have_been_carried_out() {
    for length in [1, 40, REQUEST.len() - 1] {
        let mut script = Builder::new();
        script.write(&REQUEST[..length]).write_error(io::ErrorKind::BrokenPipe.into());
        let (client, _) = client([script.build()]);
        let error = fetch(&client).await.unwrap_err();
        assert!(error.is_outcome_unknown(), "after {length} bytes: {error:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_node_that_says_nothing_is_given_up_when_the_time_of_an_attempt_is_over() {
    let (silent, _node) = Builder::new().write(REQUEST).build_with_handle();
    let (client, left) = client([silent, Builder::new().write(REQUEST).read(REPLY).build()]);
    let mut fetching = task::spawn(fetch(&client));
    assert_pending!(fetching.poll());
    settle().await;
    tokio::time::advance(client.config.attempt_timeout - Duration::from_millis(1)).await;
    assert_pending!(fetching.poll());
    assert_eq!(left.0.lock().len(), 1, "another attempt too early");
    let answer = fetching.await.unwrap();
    assert_eq!(answer.attempts.iter().next().unwrap().failure, Some(AttemptFailure::Timeout));
    assert_eq!(answer.attempts.len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_call_that_is_given_up_leaves_no_connection_with_half_a_reply_behind() {
    let (connection, mut node) = Builder::new().write(REQUEST).build_with_handle();
    let second = Builder::new().write(REQUEST).read(REPLY).build();
    let (client, left) = client([connection, second]);
    {
        let mut given_up = task::spawn(fetch(&client));
        assert_pending!(given_up.poll());
        settle().await;
        node.read(&REPLY[..20]);
        assert_pending!(given_up.poll());
        settle().await;
    }
    assert_eq!(fetch(&client).await.unwrap().attempts.len(), 1);
    assert!(left.0.lock().is_empty(), "the connection was used again");
}

#[tokio::test(start_paused = true)]
async fn an_event_is_told_when_it_is_whole_and_silence_ends_the_stream() {
    let head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n";
    let (connection, mut node) = Builder::new().write(EVENTS).read(head).build_with_handle();
    let (client, _) = client([connection]);
    let mut events = client.subscribe(&call(Method::Get, "/v1/events", b"", None)).await.unwrap();
    let event = Event::PoolLow { count: 3, low_watermark: 20 };
    {
        let mut next = task::spawn(events.next());
        for byte in event.to_text().as_bytes() {
            assert_pending!(next.poll());
            node.read(&[*byte]);
            settle().await;
        }
        assert_eq!(assert_ready!(next.poll()), Some(event));
    }
    let asked = Instant::now();
    assert_eq!(events.next().await, None);
    assert!(asked.elapsed() >= Duration::from_secs(60), "{:?}", asked.elapsed());
}
