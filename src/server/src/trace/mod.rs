//! Which requests are traced.
//!
//! A request is traced when it says so (W3C Trace Context: a `traceparent` header with the sampled
//! flag), or by lot, and only as far as the budget goes: no client makes a node trace more than
//! [`per_second_max`](config::Trace::per_second_max) requests in a second.
//!
//! Guarantees: a `traceparent` that is not well formed is passed over, as the standard asks for;
//! without a collector nothing is traced and nothing is drawn. Leaves out: `tracestate`, which is
//! for those who have something to add.

#[cfg(feature = "otlp")]
mod otlp;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use axum::http::HeaderMap;
use oncekey_api::Code;
use oncekey_raft::{
    measure::Counter,
    trace::{Attribute, Span, SpanKind, SpanSink, TraceContext},
};
use rand::RngExt as _;
use tokio::time::Instant;

#[cfg(feature = "otlp")]
pub(crate) use self::otlp::Exporter;
use crate::{config, metrics::Endpoint};

/// Header of W3C Trace Context.
const TRACEPARENT: &str = "traceparent";

/// What became of spans.
#[derive(Debug, Default)]
pub(crate) struct SpanCounts {
    /// Taken by the collector.
    pub(crate) sent: Counter,
    /// Given up: too many at once, or the collector did not take them.
    pub(crate) dropped: Counter,
}

/// Decides which requests are traced.
pub(crate) struct Tracing {
    spans: Option<Arc<dyn SpanSink>>,
    sampled_per_million: u32,
    budget: Budget,
    pub(crate) counts: Arc<SpanCounts>,
}

/// A request that is traced.
pub(crate) struct Traced {
    pub(crate) context: TraceContext,
    parent: Option<u64>,
    began: Instant,
}

impl Tracing {
    pub(crate) fn new(
        settings: &config::Trace,
        spans: Option<Arc<dyn SpanSink>>,
        counts: Arc<SpanCounts>,
    ) -> Self {
        let budget = Budget::new(settings.per_second_max);
        Self { spans, sampled_per_million: settings.sampled_per_million, budget, counts }
    }

    /// Begins the trace of a request, if it gets one.
    pub(crate) fn begin(&self, headers: &HeaderMap) -> Option<Traced> {
        self.spans.as_ref()?;
        let asked = headers.get(TRACEPARENT).and_then(|value| value.to_str().ok()).and_then(parse);
        let began = Instant::now();
        let traced = match asked {
            Some((_, false)) => return None,
            Some((parent, true)) => {
                Traced { context: parent.child(), parent: Some(parent.span), began }
            }
            None if rand::rng().random_ratio(self.sampled_per_million, 1_000_000) => {
                Traced { context: TraceContext::new(), parent: None, began }
            }
            None => return None,
        };
        self.budget.take().then_some(traced)
    }

    /// Ends what [`begin`](Self::begin) began.
    pub(crate) fn end(&self, traced: &Traced, endpoint: Endpoint, status: u16, code: Option<Code>) {
        let Some(spans) = &self.spans else { return };
        let mut attributes = vec![
            ("oncekey.endpoint", Attribute::Word(endpoint.as_str())),
            ("http.response.status_code", Attribute::Number(status.into())),
        ];
        attributes.extend(code.map(|code| ("oncekey.problem", Attribute::Word(code.as_str()))));
        spans.record(Span {
            name: endpoint.as_str(),
            context: traced.context,
            parent: traced.parent,
            kind: SpanKind::Server,
            began: traced.began,
            ended: Instant::now(),
            attributes,
        });
    }
}

/// Requests that may still be traced in this second.
struct Budget {
    per_second_max: u64,
    base: Instant,
    /// The second since `base`, in the upper half, and what was taken of it.
    taken: AtomicU64,
}

impl Budget {
    fn new(per_second_max: u32) -> Self {
        Self { per_second_max: per_second_max.into(), base: Instant::now(), taken: 0.into() }
    }

    fn take(&self) -> bool {
        self.take_at(self.base.elapsed())
    }

    fn take_at(&self, since: Duration) -> bool {
        let second = since.as_secs() << 32;
        let taken = self.taken.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |taken| {
            let taken = taken.max(second);
            (taken & u64::from(u32::MAX) < self.per_second_max).then_some(taken + 1)
        });
        taken.is_ok()
    }
}

/// A `traceparent` and whether it asks to be traced; nothing when it is not well formed.
fn parse(header: &str) -> Option<(TraceContext, bool)> {
    let mut parts = header.split('-');
    let mut hex = |digits: usize| {
        let part = parts.next()?;
        let lower = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        (part.len() == digits && part.bytes().all(lower)).then_some(part)
    };
    let (version, trace, span, flags) = (hex(2)?, hex(32)?, hex(16)?, hex(2)?);
    // Version 0 ends here; a later one may go on, and ff is none.
    if version == "ff" || version == "00" && parts.next().is_some() {
        return None;
    }
    let trace = u128::from_str_radix(trace, 16).ok().filter(|trace| *trace != 0)?;
    let span = u64::from_str_radix(span, 16).ok().filter(|span| *span != 0)?;
    let flags = u8::from_str_radix(flags, 16).ok()?;
    Some((TraceContext { trace, span }, flags & 1 == 1))
}

/// Trace, span and whether it is to be followed, of a `traceparent`, for the fuzz targets.
#[cfg(feature = "fuzzing")]
#[must_use]
pub fn traceparent(header: &str) -> Option<(u128, u64, bool)> {
    parse(header).map(|(context, asked)| (context.trace, context.span, asked))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

    #[test]
    fn a_traceparent_is_read_as_the_standard_says() {
        let context =
            TraceContext { trace: 0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736, span: 0xf067 };
        let with = |version: &str, end: &str| format!("{version}-{TRACE}-000000000000f067-{end}");
        assert_eq!(parse(&with("00", "01")), Some((context, true)));
        assert_eq!(parse(&with("00", "00")), Some((context, false)));
        assert_eq!(parse(&with("00", "03")), Some((context, true)), "another flag");
        assert_eq!(parse(&with("cc", "01-more")), Some((context, true)), "a later version");
        for bad in [
            String::new(),
            with("ff", "01"),
            with("00", "01-more"),
            with("00", "1"),
            with("0", "01"),
            with("00", "01").to_uppercase(),
            with("00", "01").replace(TRACE, &"0".repeat(32)),
            with("00", "01").replace("f067", "0000"),
            format!("00-{TRACE}"),
        ] {
            assert_eq!(parse(&bad), None, "{bad}");
        }
    }

    #[test]
    fn a_second_has_a_budget_and_the_next_one_too() {
        let budget = Budget::new(2);
        let at = Duration::from_millis;
        let taken = [0, 10, 999, 1000, 1001, 1500, 5000].map(|ms| budget.take_at(at(ms)));
        assert_eq!(taken, [true, true, false, true, true, false, true]);
        assert!(!Budget::new(0).take_at(at(0)));
    }
}
