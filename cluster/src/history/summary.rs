//! How much happened in a history.
//!
//! Guarantees: figures are counted from the records, none is assumed. Leaves out: whether what
//! happened was right.

use std::{collections::BTreeMap, time::Duration};

use oncekey_types::ShardId;
use serde::Serialize;

use super::{
    Fetch, History, Name, Outcome, Write,
    record::{At, Event, EventKind, Issue},
};

/// The figures of a history.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Summary {
    /// Calls of every kind.
    pub operations: u64,
    /// Fetches, each with all its tries.
    pub fetches: usize,
    /// Fetches that were answered.
    pub answered: usize,
    /// Fetches that took more than one attempt and were answered.
    pub retried: usize,
    /// Answers to fetches that were given without a quorum.
    pub alone: usize,
    /// One-time prekeys handed out.
    pub issued: usize,
    /// Registrations, uploads, rotations and removals.
    pub writes: usize,
    /// Reads of pools.
    pub reads: usize,
    /// Fetches and writes whose outcome nobody knows.
    pub undecided: usize,
    /// What was done to the cluster, by kind.
    pub events: BTreeMap<String, usize>,
    /// Nodes killed or cut off from power while a fetch was on its way.
    pub killed_in_flight: usize,
    /// Those of them that led a shard, by the last answer before.
    pub leaders_killed_in_flight: usize,
    /// Fetches that were on their way when those nodes were killed.
    pub in_flight_at_kills: usize,
    /// From the beginning to the last record of an operation, in milliseconds.
    pub lasted_ms: u64,
    /// Longest time in which no fetch was answered, in milliseconds.
    pub longest_gap_ms: u64,
}

/// What kills and power cuts hit.
#[derive(Default)]
struct Hits {
    nodes: usize,
    leaders: usize,
    fetches: usize,
}

impl History {
    /// The figures.
    #[must_use]
    pub fn summary(&self) -> Summary {
        let undecided = self.fetches.iter().filter(|fetch| fetch.is_undecided()).count()
            + self.writes.iter().filter(|write| write.is_undecided()).count();
        let mut events = BTreeMap::new();
        for event in &self.events {
            *events.entry(name_of(&event.kind)).or_default() += 1;
        }
        let hits = self.hits();
        Summary {
            operations: self.operations,
            fetches: self.fetches.len(),
            answered: self.fetches.iter().filter(|fetch| fetch.answer().is_some()).count(),
            retried: self.fetches.iter().filter(|fetch| is_retried(fetch)).count(),
            alone: self.fetches.iter().map(alone).sum(),
            issued: self.fetches.iter().map(issued).sum(),
            writes: self.writes.len(),
            reads: self.reads.len(),
            undecided,
            events,
            killed_in_flight: hits.nodes,
            leaders_killed_in_flight: hits.leaders,
            in_flight_at_kills: hits.fetches,
            lasted_ms: millis(self.last()),
            longest_gap_ms: u64::try_from(self.longest_gap().as_millis()).unwrap_or(u64::MAX),
        }
    }

    /// Longest time in which no fetch was answered, between the first that was sent and the last
    /// that was answered.
    #[must_use]
    pub fn longest_gap(&self) -> Duration {
        let start = self.fetches.iter().map(Fetch::invoked).min();
        let answered = self.fetches.iter().map(Fetch::returned).filter(|at| *at != At::NEVER);
        let mut times: Vec<_> = answered.chain(start).collect();
        times.sort_unstable();
        let gap = times.windows(2).map(|pair| pair[1].0 - pair[0].0).max();
        Duration::from_nanos(gap.unwrap_or_default())
    }

    /// What was hit by kills and power cuts.
    fn hits(&self) -> Hits {
        let mut begun: Vec<_> = self.fetches.iter().map(Fetch::invoked).collect();
        let mut ended: Vec<_> = self.fetches.iter().map(Fetch::returned).collect();
        begun.sort_unstable();
        ended.sort_unstable();
        let in_flight = |t: At| {
            begun.partition_point(|at| *at < t).saturating_sub(ended.partition_point(|at| *at <= t))
        };
        let mut answers: Vec<_> = self.fetches.iter().flat_map(places).collect();
        answers.sort_unstable();
        let mut answers = answers.into_iter().peekable();
        let mut events: Vec<_> = self.events.iter().collect();
        events.sort_by_key(|event| event.at_ns);

        let (mut leaders, mut addresses) = (BTreeMap::new(), BTreeMap::new());
        let mut hits = Hits::default();
        for Event { at_ns, kind, node, note } in events {
            while let Some((_, shard, leader)) = answers.next_if(|(at, ..)| at < at_ns) {
                leaders.insert(shard, leader);
            }
            match kind {
                EventKind::Start => {
                    addresses.insert(*node, self.names.find(note));
                }
                EventKind::Kill | EventKind::PowerCut if in_flight(*at_ns) > 0 => {
                    let address = addresses.get(node).copied().flatten();
                    let leads = address.is_some() && leaders.values().any(|at| *at == address);
                    hits.nodes += 1;
                    hits.leaders += usize::from(leads);
                    hits.fetches += in_flight(*at_ns);
                }
                _ => {}
            }
        }
        hits
    }

    /// When the last operation began or ended.
    fn last(&self) -> At {
        let ends = |invoked: At, returned: At| match returned {
            At::NEVER => invoked,
            returned => returned,
        };
        let fetches = self.fetches.iter().flat_map(|fetch| &fetch.tries);
        let fetches = fetches.map(|call| ends(call.invoked, call.returned));
        let writes = self.writes.iter().flat_map(|write: &Write| &write.tries);
        let writes = writes.map(|call| ends(call.invoked, call.returned));
        let reads = self.reads.iter().map(|read| read.returned);
        fetches.chain(writes).chain(reads).max().unwrap_or(At::START)
    }
}

/// When a fetch was answered, from which shard, and who led it.
fn places(fetch: &Fetch) -> impl Iterator<Item = (At, Option<ShardId>, Option<Name>)> {
    fetch.tries.iter().filter_map(|call| {
        let place = call.answer()?.place;
        Some((call.returned, place.shard, place.leader))
    })
}

/// Whether a fetch was sent more than once, and answered.
fn is_retried(fetch: &Fetch) -> bool {
    let sent: u64 = fetch.tries.iter().map(|call| u64::from(call.attempts)).sum();
    sent > 1 && fetch.answer().is_some()
}

/// How often a fetch was answered without a quorum.
fn alone(fetch: &Fetch) -> usize {
    let alone =
        |outcome: &Outcome<_>| matches!(outcome, Outcome::Unknown { alone } if !alone.is_empty());
    fetch.tries.iter().filter(|call| alone(&call.outcome)).count()
}

/// How many keys the answers of a fetch hold, each key once.
fn issued(fetch: &Fetch) -> usize {
    let issued = |bundle: &&super::record::Bundle| matches!(bundle.opk, Issue::Issued(_));
    fetch
        .tries
        .iter()
        .filter_map(|call| match &call.outcome {
            Outcome::Done(answer) => Some(answer.says.iter().filter(issued).count()),
            Outcome::Refused(_) | Outcome::Unknown { .. } => None,
        })
        .max()
        .unwrap_or_default()
}

fn name_of(kind: &EventKind) -> String {
    match serde_json::to_value(kind) {
        Ok(serde_json::Value::String(name)) => name,
        Ok(other) => other.to_string(),
        Err(_) => "?".to_owned(),
    }
}

fn millis(at: At) -> u64 {
    at.0 / 1_000_000
}
