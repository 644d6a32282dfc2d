//! What local nodes count themselves, from their `/metrics`.
//!
//! Guarantees: a node that does not answer, or that lacks a counter, makes the figures none, never
//! zero; each node's counters are divided by the time between its own two answers. Leaves out: nodes
//! elsewhere, whose admin listeners are not ours to know.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use oncekey_api::path;
use tokio::time::timeout;

use super::{
    figures::median,
    wire::{Connection, HOST, write_request},
};

/// Time for a node to tell.
const LIMIT: Duration = Duration::from_secs(1);
const ENTRIES: &str = "oncekey_shard_applied_index";
const SYNCS: &str = "oncekey_wal_syncs_total";

/// The counters of one node.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Reading {
    at: Instant,
    /// Log entries applied, of all its shards.
    entries: u64,
    /// Syncs of its write-ahead log.
    syncs: u64,
}

/// How the counters moved, per second; medians over the nodes.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) struct Pace {
    /// Log entries applied; every node applies all.
    pub(super) entries: f64,
    /// Syncs of one node's write-ahead log.
    pub(super) syncs: f64,
}

/// The counters of the nodes whose admin listeners are `admins`, in this order.
pub(super) async fn read(admins: &[SocketAddr]) -> Option<Vec<Reading>> {
    let mut readings = Vec::new();
    for admin in admins {
        readings.push(timeout(LIMIT, ask(*admin)).await.ok()??);
    }
    Some(readings)
}

/// How the counters moved between two readings of the same nodes; none of no nodes.
pub(super) fn pace(before: &[Reading], after: &[Reading]) -> Option<Pace> {
    let rate = |counter: fn(&Reading) -> u64| {
        let rates = before.iter().zip(after).map(|(before, after)| {
            #[expect(clippy::cast_precision_loss, reason = "exact to 2^53")]
            let counted = counter(after).saturating_sub(counter(before)) as f64;
            counted / after.at.duration_since(before.at).as_secs_f64()
        });
        if before.len() == after.len() { median(rates) } else { None }
    };
    Some(Pace { entries: rate(|at| at.entries)?, syncs: rate(|at| at.syncs)? })
}

async fn ask(admin: SocketAddr) -> Option<Reading> {
    let mut request = Vec::new();
    write_request(&mut request, "GET", path::METRICS, HOST, &[], b"");
    let mut connection = Connection::open(&admin.into()).await.ok()?;
    let reply = connection.exchange(&request).await.ok()?;
    let at = Instant::now();
    let text = std::str::from_utf8(reply.body).ok()?;
    Some(Reading { at, entries: sum(text, ENTRIES)?, syncs: sum(text, SYNCS)? })
}

/// The sum of `metric` over all its labels; none when there is none.
fn sum(text: &str, metric: &str) -> Option<u64> {
    let values = text
        .lines()
        .filter_map(|line| line.strip_prefix(metric))
        .filter(|rest| rest.starts_with([' ', '{']))
        .map(|rest| rest.rsplit(' ').next()?.parse::<u64>().ok());
    values.reduce(|sum, value| sum?.checked_add(value?)).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_metric_is_summed_over_its_labels_and_missed_when_it_is_not_there() {
        let text = "# HELP a_total Words 7\na_total{shard=\"0\"} 3\na_total{shard=\"1\"} 4\n\
                    a_total_created 9\nb 5\nc x\n# EOF\n";
        assert_eq!(sum(text, "a_total"), Some(7));
        assert_eq!(sum(text, "b"), Some(5));
        assert_eq!(sum(text, "c"), None);
        assert_eq!(sum(text, "a"), None);
    }

    #[test]
    fn each_node_is_counted_over_its_own_time() {
        let start = Instant::now();
        let reading =
            |ms, entries, syncs| Reading { at: start + Duration::from_millis(ms), entries, syncs };
        let before = [reading(0, 10, 0), reading(500, 10, 5)];
        let after = [reading(1000, 30, 8), reading(2500, 50, 13)];
        assert_eq!(pace(&before, &after), Some(Pace { entries: 20.0, syncs: 6.0 }));
        assert_eq!(pace(&before, &after[..1]), None);
        assert_eq!(pace(&[], &[]), None);
    }
}
