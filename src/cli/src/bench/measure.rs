//! One measurement: warm up, measure, stop.
//!
//! Guarantees: what was used is read at the ends of the span that is measured, while the load goes
//! on, so that neither warming up nor stopping is in the figures. Leaves out: processor time below
//! the tick of the kernel's clock, a hundredth of a second.

use std::{sync::Arc, time::Duration};

use anyhow::{Result, ensure};
use serde::Serialize;
use tokio::time::sleep_until;

use super::{
    clients::{Clients, Counts, Trace, Work},
    counters::{Pace, Reading, pace},
    figures::{Latency, Moment, Window, course},
    usage::Usage,
    wire::Address,
};

/// Steps of the course of a run.
pub(super) const STEP_MS: u32 = 100;

/// How to measure.
#[derive(Clone, Copy, Debug)]
pub(super) struct Plan {
    pub(super) clients: u16,
    pub(super) warm_up: Duration,
    pub(super) duration: Duration,
    /// Whether to ask the leader of a shard first, once it is known.
    pub(super) leader_first: bool,
}

impl Plan {
    pub(super) fn length(self) -> Duration {
        self.warm_up + self.duration
    }
}

/// What was measured.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Run {
    pub(super) seconds: f64,
    /// Requests answered in that time.
    pub(super) answers: usize,
    pub(super) per_second: f64,
    #[serde(flatten)]
    pub(super) latency: Latency,
    /// Processor time of all servers for 1,000 answers.
    pub(super) server_cpu_s_per_1000: Option<f64>,
    /// Processor time of the load generator for 1,000 answers.
    pub(super) own_cpu_s_per_1000: Option<f64>,
    /// Bytes that reached the disk of the servers, for one answer; those of other programs count.
    pub(super) device_bytes_per_answer: Option<f64>,
    /// Bytes that all servers together made the kernel write, for one answer, as the kernel counts
    /// them; see [`Usage`].
    pub(super) written_bytes_per_answer: Option<f64>,
    /// Log entries of all shards.
    pub(super) entries_per_second: Option<f64>,
    /// Answers for one log entry.
    pub(super) answers_per_entry: Option<f64>,
    /// Syncs of the write-ahead log of one node.
    pub(super) syncs_per_second: Option<f64>,
    /// Requests sent again, warm-up included.
    pub(super) retries: u64,
    pub(super) course: Vec<Moment>,
}

/// What is read at both ends of the span that is measured.
#[derive(Clone, Debug, Default)]
pub(super) struct Snapshot {
    /// What the servers have used.
    pub(super) servers: Option<Usage>,
    /// Bytes that reached their disk.
    pub(super) device_bytes: Option<u64>,
    /// What they counted.
    pub(super) counters: Vec<Reading>,
}

/// Measures `work` at `endpoints`, whose servers tell what they have used by `look`.
pub(super) async fn measure(
    work: &Work,
    endpoints: &Arc<[Address]>,
    plan: Plan,
    look: impl AsyncFn() -> Snapshot,
) -> Result<(Run, Counts)> {
    let clients = Clients::start(work, endpoints, plan);
    let snapshot = async |at: Duration| {
        sleep_until((clients.began + at).into()).await;
        let own = Usage::own();
        (look().await, own)
    };
    let before = snapshot(plan.warm_up).await;
    let after = snapshot(plan.length()).await;
    let traces = clients.join().await?;
    let counts = counts(&traces);
    let used = Used {
        servers: since(after.0.servers, before.0.servers),
        device_bytes: after.0.device_bytes.zip(before.0.device_bytes).map(|(to, from)| to - from),
        own: since(after.1, before.1),
        pace: pace(&before.0.counters, &after.0.counters),
    };
    Ok((evaluate(&traces, plan, used)?, counts))
}

/// What became of the requests of all clients.
pub(super) fn counts(traces: &[Trace]) -> Counts {
    traces.iter().fold(Counts::default(), |mut sum, trace| {
        sum.add(trace.counts);
        sum
    })
}

/// What was used in the span that is measured.
#[derive(Clone, Copy, Debug, Default)]
struct Used {
    servers: Option<Usage>,
    device_bytes: Option<u64>,
    own: Option<Usage>,
    pace: Option<Pace>,
}

fn evaluate(traces: &[Trace], plan: Plan, used: Used) -> Result<Run> {
    // When the keys run out early, the run ends with its last answer.
    let last = traces.iter().filter_map(|trace| trace.samples.last()).map(|last| last.at_us).max();
    let last = Duration::from_micros(last.unwrap_or_default().into());
    let window = Window::new(plan.warm_up, plan.length().min(last));
    let samples = window.samples(traces);
    ensure!(!samples.is_empty(), "nothing was answered after the warm-up: {:?}", counts(traces));
    #[expect(clippy::cast_precision_loss, reason = "exact to 2^53")]
    let answers = samples.len() as f64;
    #[expect(clippy::cast_precision_loss, reason = "exact to 2^53")]
    let share = |bytes: u64| bytes as f64 / answers;
    let cpu = |usage: Usage| usage.cpu.as_secs_f64() * 1000.0 / answers;
    let per_second = answers / window.seconds();
    Ok(Run {
        seconds: window.seconds(),
        answers: samples.len(),
        per_second,
        latency: Latency::of(&samples),
        server_cpu_s_per_1000: used.servers.map(cpu),
        own_cpu_s_per_1000: used.own.map(cpu),
        device_bytes_per_answer: used.device_bytes.map(share),
        written_bytes_per_answer: used.servers.map(|usage| share(usage.written_bytes)),
        entries_per_second: used.pace.map(|pace| pace.entries),
        answers_per_entry: used
            .pace
            .filter(|pace| pace.entries > 0.0)
            .map(|pace| per_second / pace.entries),
        syncs_per_second: used.pace.map(|pace| pace.syncs),
        retries: counts(traces).retries,
        course: course(traces, window, STEP_MS),
    })
}

fn since(after: Option<Usage>, before: Option<Usage>) -> Option<Usage> {
    Some(after?.since(before?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::clients::Sample;

    #[test]
    fn only_the_measured_span_counts() {
        let sample = |at_ms: u32, took_us| Sample { at_us: at_ms * 1000, took_us };
        let samples =
            vec![sample(500, 900), sample(1_000, 10), sample(2_000, 20), sample(3_500, 90)];
        let traces = [Trace { samples, counts: Counts { retries: 2, ..Counts::default() } }];
        let second = Duration::from_secs(1);
        let plan = Plan { clients: 1, warm_up: second, duration: 2 * second, leader_first: false };
        let servers = Some(Usage { cpu: second, written_bytes: 300 });
        let pace = Some(Pace { entries: 0.25, syncs: 9.0 });
        let used = Used { servers, device_bytes: Some(200), own: None, pace };
        let run = evaluate(&traces, plan, used).unwrap();
        assert_eq!((run.answers, run.seconds, run.per_second), (2, 2.0, 1.0));
        assert_eq!((run.latency.p50_us, run.latency.max_us, run.retries), (10, 20, 2));
        assert_eq!(run.server_cpu_s_per_1000, Some(500.0));
        assert_eq!(run.written_bytes_per_answer, Some(150.0));
        assert_eq!(run.device_bytes_per_answer, Some(100.0));
        assert_eq!(run.own_cpu_s_per_1000, None);
        assert_eq!((run.answers_per_entry, run.syncs_per_second), (Some(4.0), Some(9.0)));

        let plan = Plan { warm_up: 4 * second, ..plan };
        assert!(
            evaluate(&traces, plan, Used::default()).is_err(),
            "nothing came after the warm-up"
        );
    }
}
