//! From samples to figures.
//!
//! Guarantees: percentiles are exact: each is a value that was measured (nearest rank), over all
//! clients of a run together. Leaves out: correction for a load that stalls. The loop is closed, so
//! a stall holds back its own clients; the gaps say how long it was.

use std::time::Duration;

use serde::Serialize;

use super::clients::{Sample, Trace};

/// A span of a run, in microseconds since the clients began; the end is not part of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Window {
    pub(super) from_us: u32,
    pub(super) to_us: u32,
}

impl Window {
    pub(super) fn new(from: Duration, to: Duration) -> Self {
        let us = |time: Duration| u32::try_from(time.as_micros()).unwrap_or(u32::MAX);
        Self { from_us: us(from), to_us: us(to) }
    }

    fn holds(self, sample: &Sample) -> bool {
        (self.from_us..self.to_us).contains(&sample.at_us)
    }

    pub(super) fn seconds(self) -> f64 {
        f64::from(self.to_us.saturating_sub(self.from_us)) / 1e6
    }

    /// The samples that fall into it, of all clients.
    pub(super) fn samples(self, traces: &[Trace]) -> Vec<Sample> {
        let all = traces.iter().flat_map(|trace| &trace.samples);
        all.filter(|sample| self.holds(sample)).copied().collect()
    }
}

/// How long answers took, in microseconds.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize)]
pub(super) struct Latency {
    pub(super) p50_us: u32,
    pub(super) p99_us: u32,
    pub(super) p999_us: u32,
    pub(super) max_us: u32,
}

impl Latency {
    /// Of `samples`; zero when there are none.
    pub(super) fn of(samples: &[Sample]) -> Self {
        let mut took: Vec<u32> = samples.iter().map(|sample| sample.took_us).collect();
        took.sort_unstable();
        Self {
            p50_us: percentile(&took, 500),
            p99_us: percentile(&took, 990),
            p999_us: percentile(&took, 999),
            max_us: percentile(&took, 1000),
        }
    }
}

/// The least value of `sorted` that at least `per_mille` of a thousand values do not exceed.
fn percentile(sorted: &[u32], per_mille: usize) -> u32 {
    let rank = (sorted.len() * per_mille).div_ceil(1000);
    sorted.get(rank.saturating_sub(1)).copied().unwrap_or_default()
}

/// Median; the mean of the two in the middle when their number is even.
pub(super) fn median(values: impl IntoIterator<Item = f64>) -> Option<f64> {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    let upper = *values.get(values.len() / 2)?;
    let lower = values[(values.len() - 1) / 2];
    Some(f64::midpoint(lower, upper))
}

/// Longest times without an answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Gaps {
    /// Of all clients together.
    pub(super) cluster: Duration,
    /// Of the client that waited longest.
    pub(super) worst_client: Duration,
}

impl Gaps {
    /// The gaps that reach into `window`: one that began before counts whole.
    pub(super) fn of(traces: &[Trace], window: Window) -> Self {
        let mut all: Vec<u32> =
            traces.iter().flat_map(|trace| &trace.samples).map(|sample| sample.at_us).collect();
        all.sort_unstable();
        let client = |trace: &Trace| {
            let times: Vec<u32> = trace.samples.iter().map(|sample| sample.at_us).collect();
            longest_gap(&times, window)
        };
        Self {
            cluster: longest_gap(&all, window),
            worst_client: traces.iter().map(client).max().unwrap_or_default(),
        }
    }
}

fn longest_gap(sorted_us: &[u32], window: Window) -> Duration {
    let mut longest = 0;
    let mut last = 0;
    for at in sorted_us.iter().copied().chain([window.to_us]) {
        if at > window.from_us && last < window.to_us {
            longest = longest.max(at.saturating_sub(last));
        }
        last = at;
    }
    Duration::from_micros(longest.into())
}

/// What happened in one short span of time.
#[derive(Clone, Copy, PartialEq, Debug, Serialize)]
pub(super) struct Moment {
    /// Begin of the span, since the window began.
    pub(super) at_ms: u32,
    pub(super) pops_per_second: f64,
    pub(super) p50_us: u32,
    pub(super) p99_us: u32,
}

/// The course of a window, in steps of `step_ms`; the rest of a step at the end is left out.
pub(super) fn course(traces: &[Trace], window: Window, step_ms: u32) -> Vec<Moment> {
    let steps = window.to_us.saturating_sub(window.from_us) / (step_ms * 1000).max(1);
    let mut spans = vec![Vec::new(); usize::try_from(steps).unwrap_or_default()];
    for sample in window.samples(traces) {
        let step = (sample.at_us - window.from_us) / (step_ms * 1000);
        if let Some(span) = spans.get_mut(usize::try_from(step).unwrap_or(usize::MAX)) {
            span.push(sample);
        }
    }
    let moment = |(at_ms, samples): (u32, Vec<Sample>)| {
        let latency = Latency::of(&samples);
        let count = u32::try_from(samples.len()).unwrap_or(u32::MAX);
        Moment {
            at_ms,
            pops_per_second: f64::from(count) * 1000.0 / f64::from(step_ms),
            p50_us: latency.p50_us,
            p99_us: latency.p99_us,
        }
    };
    (0..steps).map(|step| step * step_ms).zip(spans).map(moment).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::clients::Counts;

    fn trace(samples: &[(u32, u32)]) -> Trace {
        let sample = |(at_us, took_us): &(u32, u32)| Sample { at_us: *at_us, took_us: *took_us };
        Trace { samples: samples.iter().map(sample).collect(), counts: Counts::default() }
    }

    #[test]
    fn percentiles_are_values_that_were_measured() {
        let latency = |values: std::ops::RangeInclusive<u32>| {
            // From the longest to the shortest: the order of arrival does not matter.
            let samples: Vec<_> =
                values.rev().map(|took_us| Sample { at_us: 0, took_us }).collect();
            let Latency { p50_us, p99_us, p999_us, max_us } = Latency::of(&samples);
            [p50_us, p99_us, p999_us, max_us]
        };
        assert_eq!(latency(1..=1000), [500, 990, 999, 1000]);
        assert_eq!(latency(1..=100), [50, 99, 100, 100]);
        assert_eq!(latency(7..=7), [7, 7, 7, 7]);
        assert_eq!(Latency::of(&[]), Latency::default());
    }

    #[test]
    fn the_median_lies_in_the_middle() {
        assert_eq!(median([3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median([4.0, 1.0, 2.0, 3.0]), Some(2.5));
        assert_eq!(median([]), None);
    }

    #[test]
    fn the_worst_client_waits_longer_than_the_cluster() {
        let traces = [trace(&[(10, 1), (20, 1), (90, 1)]), trace(&[(15, 1), (60, 1), (95, 1)])];
        let gaps = Gaps::of(&traces, Window { from_us: 0, to_us: 100 });
        assert_eq!(gaps.cluster, Duration::from_micros(40), "20 to 60");
        assert_eq!(gaps.worst_client, Duration::from_micros(70), "20 to 90");
    }

    #[test]
    fn a_gap_counts_when_it_reaches_into_the_window() {
        let longest =
            |from_us, to_us| longest_gap(&[10, 50, 60, 65], Window { from_us, to_us }).as_micros();
        assert_eq!(longest(30, 70), 40, "it began before");
        assert_eq!(longest(50, 70), 10, "it was over");
        assert_eq!(longest(62, 200), 135, "it lasts to the end");
        assert_eq!(longest_gap(&[], Window { from_us: 5, to_us: 9 }).as_micros(), 9);
    }

    #[test]
    fn a_course_has_a_moment_for_each_whole_step() {
        let traces = [trace(&[(500, 9), (1_000, 1), (1_900, 3)]), trace(&[(3_500, 7), (4_200, 9)])];
        let moments = course(&traces, Window { from_us: 1_000, to_us: 4_500 }, 1);
        let seen: Vec<_> = moments
            .iter()
            .map(|moment| (moment.at_ms, moment.pops_per_second, moment.p50_us, moment.p99_us))
            .collect();
        assert_eq!(seen, [(0, 2000.0, 1, 3), (1, 0.0, 0, 0), (2, 1000.0, 7, 7)]);
    }
}
