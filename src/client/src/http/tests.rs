//! Nodes on this machine that fail in scripted ways.

use std::{collections::VecDeque, convert::Infallible, slice::from_ref};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::{
    Request, Response, StatusCode, body::Incoming, server::conn::http1, service::service_fn,
};
use hyper_util::rt::TokioIo;
use oncekey_api::{Code, Problem, header};
use oncekey_types::{RequestId, Slot, UserId};
use tokio::{net::TcpListener, task::JoinSet};

use super::*;
use crate::transport::{Answer, Credentials, Method};

/// What a node does with one request. When its script is over it answers well.
#[derive(Clone, Debug)]
enum Act {
    Answer,
    Lead(&'static str),
    Close,
    Stall,
    CloseInsideBody,
    Problem(Code),
    Status(u16),
    Garbage,
    OtherJson,
    Huge,
}

/// What a node saw of a request.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Seen {
    node: usize,
    key: Option<String>,
    caller: String,
    path: String,
    body: Bytes,
}

struct Node {
    endpoint: Endpoint,
    script: Mutex<VecDeque<Act>>,
}

struct Nodes {
    nodes: Vec<Arc<Node>>,
    seen: Arc<Mutex<Vec<Seen>>>,
    _tasks: JoinSet<()>,
}

impl Nodes {
    async fn start(scripts: &[&[Act]]) -> Self {
        let seen = Arc::default();
        let mut tasks = JoinSet::new();
        let mut nodes = Vec::new();
        for (number, script) in scripts.iter().enumerate() {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap().to_string();
            let node = Arc::new(Node {
                endpoint: address.parse().unwrap(),
                script: Mutex::new(script.iter().cloned().collect()),
            });
            nodes.push(Arc::clone(&node));
            tasks.spawn(serve(listener, number, node, Arc::clone(&seen)));
        }
        Self { nodes, seen, _tasks: tasks }
    }

    fn config(&self) -> Config {
        let endpoints = self.nodes.iter().map(|node| node.endpoint.clone());
        let mut config = Config::new(endpoints.collect(), CallerId::new("alice").unwrap()).unwrap();
        config.attempt_timeout = Duration::from_millis(200);
        config.backoff.first = Duration::from_millis(1);
        config.backoff.cap = Duration::from_millis(2);
        config
    }

    fn client(&self) -> AnyNode {
        AnyNode::new(self.config())
    }

    fn seen(&self) -> Vec<Seen> {
        self.seen.lock().clone()
    }

    /// Numbers of the nodes that were asked, in order.
    fn asked(&self) -> Vec<usize> {
        self.seen().iter().map(|seen| seen.node).collect()
    }
}

async fn serve(listener: TcpListener, number: usize, node: Arc<Node>, seen: Arc<Mutex<Vec<Seen>>>) {
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let (node, seen) = (Arc::clone(&node), Arc::clone(&seen));
        let service = service_fn(move |request| {
            let (node, seen) = (Arc::clone(&node), Arc::clone(&seen));
            async move { act(request, number, &node, &seen).await }
        });
        connections.spawn(async move {
            let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

async fn act(
    request: Request<Incoming>,
    number: usize,
    node: &Node,
    seen: &Mutex<Vec<Seen>>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let text = |name: &str| {
        let value = request.headers().get(name)?;
        value.to_str().ok().map(str::to_owned)
    };
    let (key, caller) = (text(header::IDEMPOTENCY_KEY), text(header::CALLER));
    let path = request.uri().path().to_owned();
    let body = request.into_body().collect().await.unwrap().to_bytes();
    seen.lock().push(Seen { node: number, key, caller: caller.unwrap(), path, body });
    let act = node.script.lock().pop_front().unwrap_or(Act::Answer);
    let reply = |status: u16, body: Vec<u8>| {
        let mut reply = Response::new(Full::new(Bytes::from(body)));
        *reply.status_mut() = StatusCode::from_u16(status).unwrap();
        reply
    };
    Ok(match act {
        Act::Answer => reply(200, b"7".to_vec()),
        Act::Lead(leader) => {
            let mut reply = reply(200, b"7".to_vec());
            let headers = reply.headers_mut();
            headers.insert(header::SHARD, "3".parse().unwrap());
            headers.insert(header::LEADER, leader.parse().unwrap());
            headers.insert(header::INDEX, "99".parse().unwrap());
            reply
        }
        // Ends the task of the connection, and so the connection.
        Act::Close => std::panic::resume_unwind(Box::new("closed")),
        Act::Stall => std::future::pending().await,
        Act::CloseInsideBody => {
            let mut reply = reply(200, b"7".to_vec());
            let headers = reply.headers_mut();
            headers.insert(hyper::header::CONTENT_LENGTH, "1000".parse().unwrap());
            reply
        }
        Act::Problem(code) => {
            reply(code.status(), serde_json::to_vec(&Problem::new(code, "as told")).unwrap())
        }
        Act::Status(status) => reply(status, b"<html>".to_vec()),
        Act::Garbage => reply(200, b"\xff<html>".to_vec()),
        Act::OtherJson => reply(200, b"{\"other\":[]}".to_vec()),
        Act::Huge => reply(200, vec![b' '; limits::REPLY_MAX_BYTES + 1]),
    })
}

fn fetch() -> Call {
    Call {
        method: Method::Post,
        path: "/v1/users/bob/bundles".into(),
        body: Bytes::from_static(b"{}"),
        idempotency_key: Some(RequestId::new("00ff").unwrap()),
        slot: Slot::of(&UserId::new("bob").unwrap()),
        credentials: Credentials::Token,
    }
}

async fn call(client: &AnyNode) -> Result<Answer<u32>, CallError> {
    client.call(&fetch()).await
}

#[tokio::test]
async fn every_failure_leads_to_the_next_node_with_the_same_request() {
    for (act, verdict) in [
        (Act::Close, Verdict::Unknown),
        (Act::Stall, Verdict::Unknown),
        (Act::CloseInsideBody, Verdict::Unknown),
        (Act::Problem(Code::Overloaded), Verdict::NotDone),
        (Act::Problem(Code::NoQuorum), Verdict::Unknown),
        (Act::Problem(Code::Internal), Verdict::Unknown),
        (Act::Status(429), Verdict::NotDone),
        (Act::Status(502), Verdict::Unknown),
        (Act::Garbage, Verdict::Unknown),
        (Act::OtherJson, Verdict::Unknown),
        (Act::Huge, Verdict::Unknown),
    ] {
        let nodes = Nodes::start(&[from_ref(&act), from_ref(&act), &[]]).await;
        let answer = call(&nodes.client()).await;
        let answer = answer.unwrap_or_else(|error| panic!("{act:?}: {error:?}"));
        assert_eq!(answer.reply, 7);
        assert_eq!(answer.attempts.len(), 3, "{act:?}: {:?}", answer.attempts);
        assert_eq!(answer.attempts.retries(), 2);
        let first = answer.attempts.iter().next().unwrap();
        let failure = first.failure.as_ref().unwrap();
        assert_eq!(failure.verdict(), verdict, "{act:?}: {failure}");
        assert_eq!(nodes.asked(), [0, 1, 2], "{act:?}");
        let seen = nodes.seen();
        for attempt in &seen {
            assert_eq!(attempt.key.as_deref(), Some("00ff"), "{act:?}");
            assert_eq!(attempt.caller, "alice");
            assert_eq!((&attempt.path, &attempt.body), (&seen[0].path, &seen[0].body));
        }
    }
}

#[tokio::test]
async fn the_record_of_attempts_says_what_happened_where() {
    let script: &[Act] = &[Act::Stall];
    let nodes = Nodes::start(&[script, &[Act::Problem(Code::Overloaded)], &[]]).await;
    let answer = call(&nodes.client()).await.unwrap();
    let failures: Vec<_> = answer.attempts.iter().map(|a| a.failure.clone()).collect();
    assert_eq!(
        failures,
        [
            Some(AttemptFailure::Timeout),
            Some(AttemptFailure::Problem(Problem::new(Code::Overloaded, "as told"))),
            None
        ]
    );
    let endpoints: Vec<_> = answer.attempts.iter().map(|a| &a.endpoint).collect();
    let expected: Vec<_> = nodes.nodes.iter().map(|n| n.endpoint.to_string()).collect();
    assert_eq!(endpoints, expected.iter().collect::<Vec<_>>());
}

#[tokio::test]
async fn a_refusal_is_final() {
    for act in [
        Act::Problem(Code::UnknownUser),
        Act::Problem(Code::StaleSeq),
        Act::Problem(Code::IdempotencyKeyReused),
        Act::Status(404),
    ] {
        let nodes = Nodes::start(&[from_ref(&act), &[]]).await;
        let error = call(&nodes.client()).await.unwrap_err();
        assert!(matches!(error, CallError::Refused { .. }), "{error:?}");
        assert!(!error.is_retryable() && !error.is_outcome_unknown());
        assert_eq!(error.attempts().len(), 1);
        assert_eq!(nodes.asked(), [0], "{act:?}");
    }
}

#[tokio::test]
async fn a_bare_status_after_an_unknown_outcome_leaves_it_unknown() {
    let nodes = Nodes::start(&[&[Act::Close], &[Act::Status(404)]]).await;
    let error = call(&nodes.client()).await.unwrap_err();
    assert!(error.is_outcome_unknown(), "{error:?}");
    // A problem document comes from the log, which knows of the first attempt.
    let nodes = Nodes::start(&[&[Act::Close], &[Act::Problem(Code::UnknownUser)]]).await;
    let error = call(&nodes.client()).await.unwrap_err();
    assert!(!error.is_outcome_unknown(), "{error:?}");
}

#[tokio::test]
async fn without_a_reachable_node_nothing_was_changed() {
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = closed.local_addr().unwrap().to_string().parse().unwrap();
    drop(closed);
    let mut config = Config::new(vec![endpoint], CallerId::new("alice").unwrap()).unwrap();
    config.deadline = Duration::from_millis(100);
    let error = call(&AnyNode::new(config)).await.unwrap_err();
    assert!(
        matches!(error, CallError::Unavailable { failure: AttemptFailure::Connect, .. }),
        "{error:?}"
    );
    assert!(error.is_retryable() && !error.is_outcome_unknown());
    assert!(error.attempts().retries() > 0, "it kept trying");
}

#[tokio::test]
async fn one_attempt_whose_outcome_is_unknown_makes_the_outcome_unknown() {
    let always = [const { Act::Problem(Code::Overloaded) }; limits::ATTEMPTS_MAX];
    let nodes = Nodes::start(&[&[Act::Stall], &always]).await;
    let mut config = nodes.config();
    config.deadline = Duration::from_millis(400);
    config.endpoints.truncate(2);
    nodes.nodes[0].script.lock().extend(always.iter().cloned());
    let error = call(&AnyNode::new(config)).await.unwrap_err();
    assert!(matches!(error, CallError::Unknown { .. }), "{error:?}");
    assert!(error.is_retryable() && error.is_outcome_unknown());
}

#[tokio::test]
async fn a_call_ends_at_its_deadline_and_after_its_attempts() {
    let nodes = Nodes::start(&[&[const { Act::Stall }; 16]]).await;
    let mut config = nodes.config();
    config.deadline = Duration::from_millis(300);
    let started = Instant::now();
    call(&AnyNode::new(config)).await.unwrap_err();
    assert!(started.elapsed() < Duration::from_secs(3), "{:?}", started.elapsed());

    let never = [const { Act::Status(503) }; limits::ATTEMPTS_MAX + 1];
    let nodes = Nodes::start(&[&never]).await;
    let error = call(&nodes.client()).await.unwrap_err();
    assert_eq!(error.attempts().len(), limits::ATTEMPTS_MAX);
}

#[tokio::test]
async fn a_known_leader_is_asked_first_and_forgotten_when_it_fails() {
    let nodes = Nodes::start(&[&[], &[], &[]]).await;
    let leader: &'static str = nodes.nodes[2].endpoint.to_string().leak();
    nodes.nodes[0].script.lock().push_back(Act::Lead(leader));
    let client = nodes.client();
    let answer = call(&client).await.unwrap();
    assert_eq!(answer.route.leader.as_deref(), Some(leader));
    assert_eq!(answer.route.index.unwrap().0, 99);
    call(&client).await.unwrap();
    assert_eq!(nodes.asked(), [0, 2]);

    nodes.nodes[2].script.lock().push_back(Act::Close);
    let answer = call(&client).await.unwrap();
    assert_eq!(answer.attempts.retries(), 1);
    call(&client).await.unwrap();
    assert_eq!(nodes.asked(), [0, 2, 2, 0, 0], "back to the configured order");
}

#[tokio::test]
async fn a_leader_that_is_no_endpoint_is_never_asked() {
    let nodes = Nodes::start(&[&[], &[]]).await;
    let elsewhere = nodes.nodes[1].endpoint.to_string().leak();
    nodes.nodes[0].script.lock().push_back(Act::Lead(elsewhere));
    let mut config = nodes.config();
    config.endpoints.truncate(1);
    let client = AnyNode::new(config);
    call(&client).await.unwrap();
    call(&client).await.unwrap();
    assert_eq!(nodes.asked(), [0, 0]);
}

#[tokio::test]
async fn calls_share_a_connection() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = listener.local_addr().unwrap().to_string().parse().unwrap();
    let config = Config::new(vec![endpoint], CallerId::new("alice").unwrap()).unwrap();
    let client = AnyNode::new(config.clone());
    let server = async {
        let (stream, _) = listener.accept().await.unwrap();
        let service = service_fn(|_: Request<Incoming>| async {
            Ok::<_, Infallible>(Response::new(Full::new(Bytes::from_static(b"7"))))
        });
        // One connection and no more: a second would wait for ever.
        let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
    };
    let calls = async {
        for _ in 0..3 {
            assert_eq!(call(&client).await.unwrap().attempts.len(), 1);
            let other = client.with_config(config.clone());
            assert_eq!(call(&other).await.unwrap().attempts.len(), 1);
        }
    };
    tokio::select! {
        () = server => panic!("the connection was closed"),
        () = calls => {}
    }
}

#[test]
fn a_configuration_has_endpoints_and_a_caller_that_fits_a_header() {
    let endpoint: Endpoint = "127.0.0.1:1".parse().unwrap();
    let caller = |name: &str| CallerId::new(name).unwrap();
    let endpoints = |count| vec![endpoint.clone(); count];
    assert!(Config::new(endpoints(1), caller("ålice")).is_ok());
    assert_eq!(Config::new(endpoints(1), caller("a\nb")).unwrap_err(), ConfigError::Caller);
    for count in [0, limits::ENDPOINTS_MAX + 1] {
        assert_eq!(
            Config::new(endpoints(count), caller("alice")).unwrap_err(),
            ConfigError::Endpoints { endpoints: count }
        );
    }
}
