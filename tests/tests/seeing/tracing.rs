//! A request that is traced, from any node to its leader and through the log, in a small collector.

use std::{collections::BTreeMap, sync::Arc};

use anyhow::{Context, Result, bail, ensure};
use hyper::Method;
use oncekey_api::path;
use oncekey_cluster::{
    http::Http,
    wait::{self, Seen},
};
use oncekey_tests::Bob;
use oncekey_types::NodeId;
use opentelemetry_proto::tonic::{
    collector::trace::v1::ExportTraceServiceRequest, common::v1::any_value::Value, trace::v1::Span,
};
use prost::Message as _;
use serde_json::json;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::{TcpListener, TcpStream},
    sync::Mutex,
};

use super::{LIMIT, cluster, metrics};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const PARENT: &str = "00f067aa0ba902b7";
/// A name that must not be found in any span.
const USER: &str = "bob-the-secret";

/// Takes spans as a collector does.
struct Collector {
    endpoint: String,
    /// With the node that sent each.
    spans: Arc<Mutex<Vec<(String, Span)>>>,
    /// All that was received, as it came.
    bytes: Arc<Mutex<Vec<u8>>>,
}

impl Collector {
    async fn start() -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let endpoint = format!("http://{}", listener.local_addr()?);
        let (spans, bytes) = (Arc::<Mutex<Vec<_>>>::default(), Arc::<Mutex<Vec<u8>>>::default());
        let collector = Self { endpoint, spans: Arc::clone(&spans), bytes: Arc::clone(&bytes) };
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (spans, bytes) = (Arc::clone(&spans), Arc::clone(&bytes));
                tokio::spawn(async move {
                    let mut stream = BufReader::new(stream);
                    while let Ok(body) = request(&mut stream).await {
                        let Ok(batch) = ExportTraceServiceRequest::decode(&*body) else { return };
                        bytes.lock().await.extend_from_slice(&body);
                        spans.lock().await.extend(flatten(batch));
                    }
                });
            }
        });
        Ok(collector)
    }
}

/// The body of the next request on `stream`, which is answered with an empty success.
async fn request(stream: &mut BufReader<TcpStream>) -> Result<Vec<u8>> {
    let mut length = 0;
    let mut first = String::new();
    stream.read_line(&mut first).await?;
    ensure!(first.starts_with("POST /v1/traces "), "not for a collector: {first}");
    loop {
        let mut line = String::new();
        ensure!(stream.read_line(&mut line).await? > 0, "the head broke off");
        let line = line.trim_end().to_ascii_lowercase();
        if line.is_empty() {
            break;
        }
        if let Some(value) = line.strip_prefix("content-length:") {
            length = value.trim().parse()?;
        }
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await?;
    let reply =
        "HTTP/1.1 200 OK\r\ncontent-type: application/x-protobuf\r\ncontent-length: 0\r\n\r\n";
    stream.write_all(reply.as_bytes()).await?;
    Ok(body)
}

/// The spans of a batch, each with the `service.instance.id` of its resource.
fn flatten(batch: ExportTraceServiceRequest) -> Vec<(String, Span)> {
    let resources = batch.resource_spans.into_iter().flat_map(|of_resource| {
        let attributes = of_resource.resource.map(|resource| resource.attributes);
        let node = attributes.unwrap_or_default().into_iter().find_map(|attribute| {
            let value = attribute.value.and_then(|value| value.value);
            match (attribute.key.as_str(), value) {
                ("service.instance.id", Some(Value::StringValue(node))) => Some(node),
                _ => None,
            }
        });
        let node = node.unwrap_or_default();
        let spans = of_resource.scope_spans.into_iter().flat_map(|scope| scope.spans);
        spans.map(move |span| (node.clone(), span)).collect::<Vec<_>>()
    });
    resources.collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_traced_fetch_is_followed_to_the_leader_and_through_the_log() -> Result<()> {
    let collector = Collector::start().await?;
    let cluster = cluster().set("trace.endpoint", collector.endpoint.clone()).start().await?;
    let bob = Bob::publish(&cluster, USER, 1, 5).await?;
    let leader = cluster.leader_of(&bob.user).await?;
    let other = cluster.nodes().into_iter().find(|node| *node != leader).context("one node")?;

    fetch(&cluster, &bob, other, "traced", Some("01")).await?;
    fetch(&cluster, &bob, other, "not-sampled", Some("00")).await?;
    fetch(&cluster, &bob, other, "no-header", None).await?;
    let spans = wait::until(LIMIT, "the spans of one fetch", async || {
        let spans = collector.spans.lock().await.clone();
        let names: Vec<_> = spans.iter().map(|(_, span)| span.name.clone()).collect();
        let all = ["fetch", "forward", "commit", "queue", "replicate", "apply"];
        let done = all.iter().all(|name| names.iter().any(|found| found == name));
        Ok(if done { Seen::Done(spans) } else { Seen::not_yet(format!("{names:?}")) })
    })
    .await?;
    check_tree(&spans, leader, other)?;

    let received = collector.bytes.lock().await.clone();
    for secret in [USER, "workload", "not-sampled", "traced"] {
        let there = received.windows(secret.len()).any(|bytes| bytes == secret.as_bytes());
        ensure!(!there, "{secret:?} is in a span");
    }
    let sent = metrics(&cluster, leader).await?;
    ensure!(sent.contains("oncekey_spans_total{outcome=\"dropped\"} 0"), "{sent}");
    cluster.finish().await
}

async fn fetch(
    cluster: &oncekey_cluster::Cluster,
    bob: &Bob,
    node: NodeId,
    key: &str,
    flags: Option<&str>,
) -> Result<()> {
    let url = format!("{}{}", cluster.endpoint(node), path::user_bundles(&bob.user));
    let trace = flags.map(|flags| format!("00-{TRACE}-{PARENT}-{flags}"));
    let mut headers = vec![("idempotency-key", key)];
    headers.extend(trace.as_deref().map(|trace| ("traceparent", trace)));
    Http::default().json(Method::POST, &url, &headers, &json!({})).await?.expect_success()
}

/// The spans are those of one fetch, each under the one that caused it, at the right node, and each
/// part lies within its whole.
fn check_tree(spans: &[(String, Span)], leader: NodeId, other: NodeId) -> Result<()> {
    ensure!(spans.len() == 6, "one fetch of three is traced: {spans:#?}");
    let by_name: BTreeMap<_, _> =
        spans.iter().map(|(node, span)| (span.name.as_str(), (node.as_str(), span))).collect();
    let tree = [
        ("fetch", None, other),
        ("forward", Some("fetch"), other),
        ("commit", Some("forward"), leader),
        ("queue", Some("commit"), leader),
        ("replicate", Some("commit"), leader),
        ("apply", Some("commit"), leader),
    ];
    for (name, parent, node) in tree {
        let Some((at, span)) = by_name.get(name) else { bail!("no {name}: {spans:#?}") };
        ensure!(hex(&span.trace_id) == TRACE, "{name} is of another trace: {span:#?}");
        ensure!(*at == node.to_string(), "{name} is of node {at}");
        ensure!(span.start_time_unix_nano <= span.end_time_unix_nano, "{span:#?}");
        match parent.map(|parent| by_name[parent].1) {
            None => ensure!(hex(&span.parent_span_id) == PARENT, "{span:#?}"),
            Some(parent) => {
                ensure!(span.parent_span_id == parent.span_id, "{name}: {span:#?}");
                // All nodes of the test have one clock, read a little apart.
                let slack = 5_000_000;
                let within = parent.start_time_unix_nano <= span.start_time_unix_nano + slack
                    && span.end_time_unix_nano <= parent.end_time_unix_nano + slack;
                ensure!(within, "{name} is not within its parent: {span:#?} {parent:#?}");
            }
        }
    }
    Ok(())
}
