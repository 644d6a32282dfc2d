//! What a node counts, and how Prometheus reads it.
//!
//! Guarantees: counting takes no lock and looks no label up; labels come from fixed sets, so their
//! number is bounded whatever is sent; no user, device or caller is ever a label. Every metric
//! stands in `docs/metrics.md`, which a test holds against a running node.
//!
//! Leaves out: rates and ratios, which are for whoever reads.

mod endpoint;
mod page;
mod process;

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use oncekey_api::{Code, event::Event, report::Reason};
use oncekey_raft::{
    Node,
    measure::{Counter, Histogram},
};
use prometheus_client::{encoding::text, registry::Registry};

pub(crate) use self::endpoint::Endpoint;
use self::page::Page;
use crate::{handlers::events::Streams, tls::Certificates, trace::SpanCounts};

/// Media type of what [`Metrics::encode`] writes.
pub(crate) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

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
    const ALL: [Self; 4] = [Self::Fresh, Self::Repeated, Self::Unavailable, Self::Refused];

    fn label(self) -> &'static str {
        match self {
            Self::Fresh => "fresh",
            Self::Repeated => "repeated",
            Self::Unavailable => "unavailable",
            Self::Refused => "refused",
        }
    }
}

/// Why a connection ended before its time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Turned {
    /// Its address has as many as are allowed.
    Address,
    /// No TLS handshake, or a slow one.
    Handshake,
    /// Its client does not take the reply.
    NotReading,
}

impl Turned {
    const ALL: [Self; 3] = [Self::Address, Self::Handshake, Self::NotReading];

    fn label(self) -> &'static str {
        match self {
            Self::Address => "address",
            Self::Handshake => "handshake",
            Self::NotReading => "not_reading",
        }
    }
}

/// The metrics of a node.
pub(crate) struct Metrics {
    counters: Arc<Counters>,
    registry: Registry,
}

/// What the HTTP side counts.
#[derive(Debug)]
struct Counters {
    endpoints: [OfEndpoint; Endpoint::ALL.len()],
    in_flight: AtomicU64,
    turned: [Counter; Turned::ALL.len()],
    fetches: [Counter; FetchOutcome::ALL.len()],
    /// Bundles that were handed out without a quorum.
    unavailable: Counter,
    signatures: Counter,
    failures: [Counter; Reason::ALL.len()],
    events: [Counter; Event::NAMES.len()],
    spans: Arc<SpanCounts>,
}

#[derive(Debug)]
struct OfEndpoint {
    ok: Counter,
    /// By problem code, in the order of [`Code::ALL`].
    problems: [Counter; Code::ALL.len()],
    duration: Histogram,
}

impl OfEndpoint {
    fn new() -> Self {
        Self {
            ok: Counter::default(),
            problems: std::array::from_fn(|_| Counter::default()),
            duration: Histogram::of_durations(),
        }
    }
}

impl Metrics {
    pub(crate) fn new(node: &Node, streams: &Streams, spans: Arc<SpanCounts>) -> Self {
        let counters = Arc::new(Counters {
            endpoints: std::array::from_fn(|_| OfEndpoint::new()),
            in_flight: AtomicU64::new(0),
            turned: Default::default(),
            fetches: Default::default(),
            unavailable: Counter::default(),
            signatures: Counter::default(),
            failures: Default::default(),
            events: Default::default(),
            spans,
        });
        let page = Page::new(Arc::clone(&counters), node.clone(), streams.clone());
        let mut registry = Registry::default();
        registry.register_collector(Box::new(page));
        Self { counters, registry }
    }

    pub(crate) fn request_started(&self) {
        self.counters.in_flight.fetch_add(1, Ordering::Relaxed);
    }

    /// Ends what [`request_started`](Self::request_started) began.
    pub(crate) fn request_left(&self) {
        self.counters.in_flight.fetch_sub(1, Ordering::Relaxed);
    }

    /// Counts a reply; `code` is the problem's, if it was one.
    pub(crate) fn replied(&self, endpoint: Endpoint, code: Option<Code>, took: Duration) {
        let endpoint = &self.counters.endpoints[endpoint as usize];
        // A code without a name of its own is never sent by a server.
        let problem = code.and_then(|code| endpoint.problems.get(code as usize));
        problem.unwrap_or(&endpoint.ok).one();
        endpoint.duration.note_duration(took);
    }

    pub(crate) fn fetch(&self, outcome: FetchOutcome) {
        self.counters.fetches[outcome as usize].one();
    }

    /// Counts bundles that were handed out without a quorum.
    pub(crate) fn unavailable(&self, bundles: usize) {
        self.counters.unavailable.add(u64::try_from(bundles).unwrap_or(u64::MAX));
    }

    pub(crate) fn signatures_checked(&self, number: u64) {
        self.counters.signatures.add(number);
    }

    /// Counts handshakes that a device reports as failed.
    pub(crate) fn failed(&self, reason: Reason, count: u32) {
        self.counters.failures[reason as usize].add(count.into());
    }

    pub(crate) fn told(&self, event: &Event) {
        if let Some(place) = Event::NAMES.iter().position(|name| *name == event.name()) {
            self.counters.events[place].one();
        }
    }

    /// Counts a connection that was ended.
    pub(crate) fn turned_away(&self, reason: Turned) {
        self.counters.turned[reason as usize].one();
    }

    /// Shows the certificates as well.
    pub(crate) fn watch(&mut self, certificates: &Certificates) {
        certificates.register(&mut self.registry);
    }

    /// All metrics as text.
    pub(crate) fn encode(&self) -> Result<String, fmt::Error> {
        let mut out = String::new();
        text::encode(&mut out, &self.registry)?;
        Ok(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_counted_by_place_has_its_place() {
        for (place, endpoint) in Endpoint::ALL.iter().enumerate() {
            assert_eq!(*endpoint as usize, place);
        }
        for (place, code) in Code::ALL.iter().enumerate() {
            assert_eq!(*code as usize, place);
        }
        for (place, outcome) in FetchOutcome::ALL.iter().enumerate() {
            assert_eq!(*outcome as usize, place);
        }
        for (place, reason) in Turned::ALL.iter().enumerate() {
            assert_eq!(*reason as usize, place);
        }
        for (place, reason) in Reason::ALL.iter().enumerate() {
            assert_eq!(*reason as usize, place);
        }
    }
}
