//! Where the time of one request went, through nodes and log entries.
//!
//! A request that is traced carries a [`TraceContext`], in this process beside its task
//! ([`within`]), to the leader in the frame of its command. Whoever does a part of the work hands a
//! finished [`Span`] to the [`SpanSink`]: `forward` (to the leader and back), and at the leader
//! `commit`, made of `queue` (waiting for the next entry), `replicate` (until a quorum has it) and
//! `apply`. An entry that serves many requests appears in the trace of each.
//!
//! Guarantees: a span can say numbers and words that stand in this program, nothing that came in a
//! request; a request that is not traced pays for one look at a thread-local. Leaves out: which
//! requests are traced, and where spans go, see [`SpanSink`]; what followers do.

use std::future::Future;

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

/// Receives the spans of a node. Must not block.
pub trait SpanSink: Send + Sync {
    /// Takes a span that has ended, or drops it when there are too many.
    fn record(&self, span: Span);
}

/// A place in a trace, in the terms of W3C Trace Context.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct TraceContext {
    /// The trace; never zero.
    pub trace: u128,
    /// The span that what follows belongs to; never zero.
    pub span: u64,
}

impl TraceContext {
    /// A new trace.
    #[must_use]
    pub fn new() -> Self {
        Self { trace: nonzero(rand::random), span: nonzero(rand::random) }
    }

    /// A new span of the same trace.
    #[must_use]
    pub fn child(self) -> Self {
        Self { span: nonzero(rand::random), ..self }
    }
}

impl Default for TraceContext {
    fn default() -> Self {
        Self::new()
    }
}

/// A piece of work that has ended.
#[derive(Clone, Debug)]
pub struct Span {
    /// What was done.
    pub name: &'static str,
    /// Its place.
    pub context: TraceContext,
    /// The span that it belongs to, if any is known.
    pub parent: Option<u64>,
    /// Who waited for whom.
    pub kind: SpanKind,
    /// When it began.
    pub began: Instant,
    /// When it ended.
    pub ended: Instant,
    /// What is to be said about it.
    pub attributes: Vec<(&'static str, Attribute)>,
}

/// Who waited for whom.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SpanKind {
    /// A client waited for this node.
    Server,
    /// This node waited for another.
    Client,
    /// Neither.
    Internal,
}

/// A value that a span says. There is deliberately none that could carry text of a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Attribute {
    /// A word of this program.
    Word(&'static str),
    /// A number.
    Number(u64),
}

tokio::task_local! {
    static CURRENT: TraceContext;
}

/// Does `work` as part of `context`.
pub async fn within<T>(context: TraceContext, work: impl Future<Output = T>) -> T {
    CURRENT.scope(context, work).await
}

/// What the running task is part of, if it is traced.
#[must_use]
pub fn current() -> Option<TraceContext> {
    CURRENT.try_with(|context| *context).ok()
}

fn nonzero<T: Default + PartialEq>(draw: impl Fn() -> T) -> T {
    loop {
        let number = draw();
        if number != T::default() {
            return number;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_task_is_part_of_a_trace_only_within_it() {
        assert_eq!(current(), None);
        let context = TraceContext::new();
        assert_eq!(within(context, async { current() }).await, Some(context));
        assert_eq!(current(), None);
        assert_eq!(context.child().trace, context.trace);
        assert_ne!(context.child().span, context.span);
    }
}
