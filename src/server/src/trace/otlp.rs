//! Spans on their way to an OpenTelemetry collector, as OTLP: protobuf over HTTP.
//!
//! Guarantees: recording a span never waits; at most [`QUEUE_MAX`] wait to be sent, and what is over
//! that, or what the collector does not take, is dropped and counted. Leaves out: sending again, and
//! `https`: put a collector beside the node.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use oncekey_raft::trace::{Attribute, Span, SpanKind, SpanSink};
use oncekey_types::NodeId;
use opentelemetry::{
    InstrumentationScope, KeyValue, SpanId, TraceFlags, TraceId,
    trace::{self as otel, SpanContext, Status, TraceState},
};
use opentelemetry_otlp::{WithExportConfig as _, WithHttpConfig as _};
use opentelemetry_sdk::{
    Resource,
    trace::{SpanData, SpanEvents, SpanExporter as _, SpanLinks},
};
use tokio::{sync::mpsc, time::Instant};

use super::SpanCounts;

/// Spans that wait to be sent.
const QUEUE_MAX: usize = 8 * 1024;
/// Spans sent at once.
const BATCH_MAX: usize = 512;
/// Time in which spans gather.
const GATHER: Duration = Duration::from_millis(500);
/// Time for the collector to take a batch.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Takes spans and sends them from a task of its own.
pub(crate) struct Exporter {
    queue: mpsc::Sender<Span>,
    counts: Arc<SpanCounts>,
}

impl Exporter {
    /// Starts sending to the collector at `endpoint`, in the name of `node` of `cluster`.
    pub(crate) fn start(
        endpoint: &str,
        cluster: &str,
        node: NodeId,
        counts: Arc<SpanCounts>,
    ) -> Result<Self, String> {
        let mut exporter = opentelemetry_otlp::SpanExporter::builder()
            .with_http()
            .with_headers(Default::default())
            .with_endpoint(format!("{}/v1/traces", endpoint.trim_end_matches('/')))
            .with_timeout(TIMEOUT)
            .build()
            .map_err(|error| error.to_string())?;
        let resource = Resource::builder_empty()
            .with_attributes([
                KeyValue::new("service.name", "oncekey"),
                KeyValue::new("service.namespace", cluster.to_owned()),
                KeyValue::new("service.instance.id", node.to_string()),
                KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
            ])
            .build();
        exporter.set_resource(&resource);
        let (queue, spans) = mpsc::channel(QUEUE_MAX);
        tokio::spawn(send(exporter, spans, Arc::clone(&counts)));
        Ok(Self { queue, counts })
    }
}

impl SpanSink for Exporter {
    fn record(&self, span: Span) {
        if self.queue.try_send(span).is_err() {
            self.counts.dropped.one();
        }
    }
}

/// Sends what comes until nobody can send any more.
async fn send(
    exporter: opentelemetry_otlp::SpanExporter,
    mut spans: mpsc::Receiver<Span>,
    counts: Arc<SpanCounts>,
) {
    let clocks = (Instant::now(), SystemTime::now());
    let scope = InstrumentationScope::builder("oncekey").build();
    let mut refused = false;
    loop {
        let mut batch = Vec::new();
        if spans.recv_many(&mut batch, BATCH_MAX).await == 0 {
            return;
        }
        // One export for what a request leaves behind, and what comes beside it.
        let until = Instant::now() + GATHER;
        while batch.len() < BATCH_MAX {
            let Ok(Some(span)) = tokio::time::timeout_at(until, spans.recv()).await else { break };
            batch.push(span);
        }
        let number = u64::try_from(batch.len()).unwrap_or(u64::MAX);
        let batch = batch.into_iter().map(|span| convert(span, clocks, &scope)).collect();
        match exporter.export(batch).await {
            Ok(()) => {
                counts.sent.add(number);
                refused = false;
            }
            Err(error) => {
                counts.dropped.add(number);
                // Once for an outage; the counter says how many.
                if !refused {
                    tracing::warn!(%error, "the collector takes no spans");
                }
                refused = true;
            }
        }
    }
}

fn convert(
    span: Span,
    (base, wall): (Instant, SystemTime),
    scope: &InstrumentationScope,
) -> SpanData {
    let at = |instant: Instant| match instant.checked_duration_since(base) {
        Some(since) => wall + since,
        None => wall - base.duration_since(instant),
    };
    let attributes = span.attributes.into_iter().map(|(key, value)| match value {
        Attribute::Word(word) => KeyValue::new(key, word),
        Attribute::Number(number) => KeyValue::new(key, i64::try_from(number).unwrap_or(i64::MAX)),
    });
    SpanData {
        span_context: SpanContext::new(
            TraceId::from(span.context.trace),
            SpanId::from(span.context.span),
            TraceFlags::SAMPLED,
            false,
            TraceState::NONE,
        ),
        parent_span_id: span.parent.map_or(SpanId::INVALID, SpanId::from),
        parent_span_is_remote: span.kind == SpanKind::Server,
        span_kind: match span.kind {
            SpanKind::Server => otel::SpanKind::Server,
            SpanKind::Client => otel::SpanKind::Client,
            SpanKind::Internal => otel::SpanKind::Internal,
        },
        name: span.name.into(),
        start_time: at(span.began),
        end_time: at(span.ended),
        attributes: attributes.collect(),
        dropped_attributes_count: 0,
        events: SpanEvents::default(),
        links: SpanLinks::default(),
        status: Status::Unset,
        instrumentation_scope: scope.clone(),
    }
}
