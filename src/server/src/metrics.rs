//! Every metric of a node: name, unit and help.
//!
//! Guarantees: labels come from fixed sets, so their number is bounded whatever is sent; no user,
//! device or caller is ever a label. Leaves out: rates and ratios, which are for whoever reads.

use std::{fmt, time::Duration};

use oncekey_api::{Code, bundle::OneTimePreKeyStatus, event::Event, report::Reason};
use oncekey_raft::{Node, NodeStatus};
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric, text},
    metrics::{
        counter::{ConstCounter, Counter},
        family::Family,
        gauge::{ConstGauge, Gauge},
        histogram::{Histogram, exponential_buckets},
    },
    registry::{Registry, Unit},
};

use crate::handlers::events::Streams;

/// Media type of what [`Metrics::encode`] writes.
pub(crate) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
struct RequestLabels {
    endpoint: &'static str,
    code: &'static str,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
struct EndpointLabels {
    endpoint: &'static str,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
struct StatusLabels {
    status: &'static str,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
struct OutcomeLabels {
    outcome: &'static str,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
struct ReasonLabels {
    reason: &'static str,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
struct EventLabels {
    event: &'static str,
}

/// What became of the fetch of one user.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum FetchOutcome {
    /// Committed now.
    Fresh,
    /// The answer of an earlier fetch under the same idempotency key.
    Repeated,
    /// Answered by this node alone, without one-time prekeys.
    Unavailable,
    /// Refused by the state machine, or not answered.
    Refused,
}

impl FetchOutcome {
    fn label(self) -> &'static str {
        match self {
            Self::Fresh => "fresh",
            Self::Repeated => "repeated",
            Self::Unavailable => "unavailable",
            Self::Refused => "refused",
        }
    }
}

/// The metrics of a node.
pub(crate) struct Metrics {
    registry: Registry,
    requests: Family<RequestLabels, Counter>,
    duration: Family<EndpointLabels, Histogram>,
    in_flight: Gauge,
    fetches: Family<OutcomeLabels, Counter>,
    bundles: Family<StatusLabels, Counter>,
    signatures: Counter,
    failures: Family<ReasonLabels, Counter>,
    events: Family<EventLabels, Counter>,
}

impl Metrics {
    pub(crate) fn new(node: &Node, streams: &Streams) -> Self {
        // 0.25 ms to 8 s.
        let histogram = || Histogram::new(exponential_buckets(0.000_25, 2.0, 16));
        let mut metrics = Self {
            registry: Registry::with_prefix("oncekey"),
            requests: Family::default(),
            duration: Family::new_with_constructor(histogram),
            in_flight: Gauge::default(),
            fetches: Family::default(),
            bundles: Family::default(),
            signatures: Counter::default(),
            failures: Family::default(),
            events: Family::default(),
        };
        let registry = &mut metrics.registry;
        registry.register(
            "http_requests",
            "Requests, by endpoint and problem code (ok: none)",
            metrics.requests.clone(),
        );
        registry.register_with_unit(
            "http_request_duration",
            "Time from the head of a request to its reply, by endpoint",
            Unit::Seconds,
            metrics.duration.clone(),
        );
        registry.register(
            "http_requests_in_flight",
            "Requests being served",
            metrics.in_flight.clone(),
        );
        registry.register(
            "fetches",
            "Fetches of one user's bundles, by outcome",
            metrics.fetches.clone(),
        );
        registry.register(
            "bundles",
            "Bundles handed out for the first time, by what became of the one-time prekey",
            metrics.bundles.clone(),
        );
        registry.register(
            "signatures_checked",
            "Signatures of uploads verified",
            metrics.signatures.clone(),
        );
        registry.register(
            "handshake_failures",
            "Handshakes that failed, as devices report them, by reason",
            metrics.failures.clone(),
        );
        registry.register("events", "Events told to devices, by event", metrics.events.clone());
        // A line at zero says more than no line.
        for reason in Reason::ALL {
            metrics.failed(*reason, 0);
        }
        let registry = &mut metrics.registry;
        registry.register_collector(Box::new(NodeCollector(node.clone(), streams.clone())));
        metrics
    }

    pub(crate) fn request_started(&self) {
        self.in_flight.inc();
    }

    /// Ends what [`request_started`](Self::request_started) began.
    pub(crate) fn request_left(&self) {
        self.in_flight.dec();
    }

    /// Counts a reply; `code` is the problem's, if it was one.
    pub(crate) fn replied(&self, endpoint: &'static str, code: Option<Code>, took: Duration) {
        let code = code.map_or("ok", Code::as_str);
        self.requests.get_or_create(&RequestLabels { endpoint, code }).inc();
        self.duration.get_or_create(&EndpointLabels { endpoint }).observe(took.as_secs_f64());
    }

    pub(crate) fn fetch(&self, outcome: FetchOutcome) {
        self.fetches.get_or_create(&OutcomeLabels { outcome: outcome.label() }).inc();
    }

    pub(crate) fn bundle(&self, status: OneTimePreKeyStatus) {
        let status = match status {
            OneTimePreKeyStatus::Issued => "issued",
            OneTimePreKeyStatus::Exhausted => "exhausted",
            OneTimePreKeyStatus::Withheld => "withheld",
            OneTimePreKeyStatus::Unavailable => "unavailable",
        };
        self.bundles.get_or_create(&StatusLabels { status }).inc();
    }

    pub(crate) fn signatures_checked(&self, number: u64) {
        self.signatures.inc_by(number);
    }

    /// Counts handshakes that a device reports as failed.
    pub(crate) fn failed(&self, reason: Reason, count: u32) {
        let labels = ReasonLabels { reason: reason.as_str() };
        self.failures.get_or_create(&labels).inc_by(count.into());
    }

    pub(crate) fn told(&self, event: &Event) {
        self.events.get_or_create(&EventLabels { event: event.name() }).inc();
    }

    /// All metrics as text.
    pub(crate) fn encode(&self) -> Result<String, fmt::Error> {
        let mut out = String::new();
        text::encode(&mut out, &self.registry)?;
        Ok(out)
    }
}

/// Reads consensus, log and open streams when asked.
struct NodeCollector(Node, Streams);

impl fmt::Debug for NodeCollector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("NodeCollector")
    }
}

impl Collector for NodeCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let status = self.0.status();
        encode_shards(&mut encoder, &status)?;
        let wal = &status.wal;
        let streams = u64::try_from(self.1.len()).unwrap_or(u64::MAX);
        for (name, help, value) in [
            ("event_streams", "Streams of events that are open", streams),
            ("wal_segments", "Files of the write-ahead log in use", wal.segments),
            (
                "wal_disk_bytes",
                "Bytes of the write-ahead log on disk, spare files included",
                wal.bytes,
            ),
            ("wal_queued_bytes", "Bytes that wait to be written to the log", wal.queued_bytes),
        ] {
            let gauge = ConstGauge::new(signed(value));
            let encoder = encoder.encode_descriptor(name, help, None, gauge.metric_type())?;
            gauge.encode(encoder)?;
        }
        for (name, help, value) in [
            ("wal_batches", "Batches written to the log", wal.batches),
            ("wal_syncs", "Syncs of the log", wal.syncs),
            ("wal_records", "Records written to the log", wal.records),
        ] {
            let counter = ConstCounter::new(value);
            let encoder = encoder.encode_descriptor(name, help, None, counter.metric_type())?;
            counter.encode(encoder)?;
        }
        Ok(())
    }
}

fn encode_shards(encoder: &mut DescriptorEncoder<'_>, status: &NodeStatus) -> fmt::Result {
    type Value = fn(&NodeStatus, &oncekey_raft::ShardStatus) -> u64;
    let values: [(&str, &str, Value); 5] = [
        ("shard_leader", "1 when this node leads the shard", |node, shard| {
            u64::from(shard.leader == Some(node.node))
        }),
        ("shard_has_leader", "1 when this node knows a leader of the shard", |_, shard| {
            u64::from(shard.leader.is_some())
        }),
        ("shard_term", "Raft term of the shard", |_, shard| shard.term),
        ("shard_last_log_index", "Last entry in the shard's log", |_, shard| shard.last_log.0),
        ("shard_applied_index", "Last entry applied to the shard's state", |_, shard| {
            shard.applied.0
        }),
    ];
    for (name, help, value) in values {
        let prototype = ConstGauge::new(0_i64);
        let mut metric = encoder.encode_descriptor(name, help, None, prototype.metric_type())?;
        for shard in &status.shards {
            let labels = [("shard", shard.shard.to_string())];
            let gauge = ConstGauge::new(signed(value(status, shard)));
            gauge.encode(metric.encode_family(&labels)?)?;
        }
    }
    Ok(())
}

/// The format has signed gauges; none of ours gets near the end of the range.
fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}
