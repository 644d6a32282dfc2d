//! The metrics as they are read: name, help, kind and labels of each.
//!
//! Guarantees: what is shown was counted elsewhere; a read costs a few system calls and a walk over
//! the shards, never one over the records.

use std::{fmt, sync::Arc, sync::atomic::Ordering};

use oncekey_api::{Code, event::Event, report::Reason};
use oncekey_raft::{Node, NodeStatus, ShardMeasures, ShardStatus, measure::Histogram};
use oncekey_types::ShardId;
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet},
    metrics::{MetricType, exemplar::Exemplar},
    registry::Unit,
};

use super::{Counters, Endpoint, FetchOutcome, Turned, process::Process};
use crate::{handlers::events::Streams, trace::SpanCounts};

const MICRO: f64 = 1e-6;

/// Reads a node when asked.
pub(super) struct Page {
    counters: Arc<Counters>,
    node: Node,
    streams: Streams,
}

impl Page {
    pub(super) fn new(counters: Arc<Counters>, node: Node, streams: Streams) -> Self {
        Self { counters, node, streams }
    }
}

impl fmt::Debug for Page {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Page")
    }
}

impl Collector for Page {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut out = Out(encoder);
        self.requests(&mut out)?;
        self.fetches(&mut out)?;
        self.devices(&mut out)?;
        self.shards(&mut out, &self.node.status())?;
        self.disk(&mut out)?;
        self.process(&mut out)
    }
}

impl Page {
    fn requests(&self, out: &mut Out<'_>) -> fmt::Result {
        let counters = &self.counters;
        let endpoints = || Endpoint::ALL.iter().zip(&counters.endpoints);
        out.counters(
            "oncekey_http_requests",
            "Requests, by endpoint and problem code (ok: none)",
            endpoints().flat_map(|(endpoint, of)| {
                let ok = Some(("ok", of.ok.total()));
                let problems = Code::ALL.iter().zip(&of.problems);
                let problems = problems.map(|(code, count)| (code.as_str(), count.total()));
                // Most pairs never happen.
                let happened = ok.into_iter().chain(problems.filter(|(_, count)| *count > 0));
                happened.map(|(code, count)| {
                    (vec![("endpoint", endpoint.as_str().into()), ("code", code.into())], count)
                })
            }),
        )?;
        out.histograms(
            "oncekey_http_request_duration",
            "Time from the head of a request to its reply, by endpoint",
            Scale::Microseconds,
            endpoints()
                .filter(|(_, of)| of.ok.total() > 0 || of.duration.distribution().total() > 0)
                .map(|(endpoint, of)| (vec![("endpoint", endpoint.as_str().into())], &of.duration)),
        )?;
        let in_flight = counters.in_flight.load(Ordering::Relaxed);
        out.gauge("oncekey_http_requests_in_flight", "Requests being served", in_flight)?;
        out.counters(
            "oncekey_connections_turned_away",
            "Connections ended for what their client did, by reason",
            Turned::ALL
                .iter()
                .zip(&counters.turned)
                .map(|(reason, count)| (vec![("reason", reason.label().into())], count.total())),
        )
    }

    fn fetches(&self, out: &mut Out<'_>) -> fmt::Result {
        let counters = &self.counters;
        out.counters(
            "oncekey_fetches",
            "Fetches of one user's bundles that this node answered, by outcome",
            FetchOutcome::ALL
                .iter()
                .zip(&counters.fetches)
                .map(|(outcome, count)| (vec![("outcome", outcome.label().into())], count.total())),
        )?;
        out.counter(
            "oncekey_bundles_unavailable",
            "Bundles handed out by this node without a quorum, and so without one-time prekey",
            counters.unavailable.total(),
        )?;
        out.counters(
            "oncekey_bundles",
            "Bundles handed out by this node as leader, by shard and by what became of the \
             one-time prekey",
            self.node.shard_measures().flat_map(|(shard, measures)| {
                let ShardMeasures { issued, exhausted, withheld, .. } = measures;
                let by_status =
                    [("issued", issued), ("exhausted", exhausted), ("withheld", withheld)];
                by_status.map(|(status, count)| {
                    (vec![of_shard(shard), ("status", status.into())], count.total())
                })
            }),
        )?;
        out.counters(
            "oncekey_fetches_repeated",
            "Fetches that came again and were answered as before by this node as leader, by shard",
            self.node
                .shard_measures()
                .map(|(shard, measures)| (vec![of_shard(shard)], measures.repeated.total())),
        )?;
        let measures = self.node.measures();
        out.histogram(
            "oncekey_pool_size",
            "One-time prekeys left in a pool, by what fetches met",
            Scale::Number,
            &measures.pool_sizes,
        )?;
        out.histogram(
            "oncekey_signed_prekey_age",
            "Age of signed prekeys by their devices' clocks, by what fetches met",
            Scale::Seconds,
            &measures.signed_prekey_ages,
        )?;
        out.counter(
            "oncekey_signed_prekeys_expired",
            "Bundles handed out whose signed prekey was past its time",
            measures.signed_prekeys_expired.total(),
        )
    }

    fn devices(&self, out: &mut Out<'_>) -> fmt::Result {
        let counters = &self.counters;
        out.counters(
            "oncekey_handshake_failures",
            "Handshakes that failed, as devices report them, by reason",
            Reason::ALL
                .iter()
                .zip(&counters.failures)
                .map(|(reason, count)| (vec![("reason", reason.as_str().into())], count.total())),
        )?;
        out.counter(
            "oncekey_signatures_checked",
            "Signatures of uploads verified",
            counters.signatures.total(),
        )?;
        out.counters(
            "oncekey_events",
            "Events told to devices, by event",
            Event::NAMES
                .iter()
                .zip(&counters.events)
                .map(|(event, count)| (vec![("event", (*event).into())], count.total())),
        )?;
        let streams = u64::try_from(self.streams.len()).unwrap_or(u64::MAX);
        out.gauge("oncekey_event_streams", "Streams of events that are open", streams)
    }

    fn shards(&self, out: &mut Out<'_>, status: &NodeStatus) -> fmt::Result {
        type Value = fn(&NodeStatus, &ShardStatus) -> u64;
        let gauges: [(&str, &str, Value); 8] = [
            ("oncekey_shard_leader", "1 when this node leads the shard", |node, shard| {
                u64::from(shard.leader == Some(node.node))
            }),
            (
                "oncekey_shard_has_leader",
                "1 when this node knows a leader of the shard",
                |_, shard| u64::from(shard.leader.is_some()),
            ),
            (
                "oncekey_shard_in_contact",
                "1 when a leader of the shard, or as its leader a quorum, was heard in the last \
                 seconds",
                |_, shard| u64::from(shard.in_contact),
            ),
            ("oncekey_shard_term", "Raft term of the shard", |_, shard| shard.term),
            ("oncekey_shard_last_log_index", "Last entry in the shard's log", |_, shard| {
                shard.last_log.0
            }),
            (
                "oncekey_shard_committed_index",
                "Last entry of the shard that is known to be committed",
                |_, shard| shard.committed.0,
            ),
            (
                "oncekey_shard_applied_index",
                "Last entry applied to the shard's state",
                |_, shard| shard.applied.0,
            ),
            (
                "oncekey_shard_commands_queued",
                "Commands of the shard that wait at this node for their turn",
                |_, shard| u64::try_from(shard.queued).unwrap_or(u64::MAX),
            ),
        ];
        for (name, help, value) in gauges {
            let shards = status.shards.iter();
            let values = shards.map(|shard| (vec![of_shard(shard.shard)], value(status, shard)));
            out.gauges(name, help, values)?;
        }
        out.gauges(
            "oncekey_shard_replica_lag_entries",
            "Entries that a replica is behind the log of the shard, as this node as leader sees it",
            status.shards.iter().flat_map(|shard| {
                shard.followers.iter().map(|(node, matched)| {
                    let lag = shard.last_log.0.saturating_sub(matched.0);
                    (vec![of_shard(shard.shard), ("replica", node.to_string())], lag)
                })
            }),
        )?;
        out.counters(
            "oncekey_shard_elections",
            "Elections that this node stood for, by shard",
            self.node
                .shard_measures()
                .map(|(shard, measures)| (vec![of_shard(shard)], measures.elections.total())),
        )?;
        out.histograms(
            "oncekey_shard_commit_duration",
            "Time from proposing an entry until this node knew that a quorum has it, by shard",
            Scale::Microseconds,
            self.node
                .shard_measures()
                .map(|(shard, measures)| (vec![of_shard(shard)], &measures.commit)),
        )?;
        let measures = self.node.measures();
        out.histogram(
            "oncekey_entry_apply_duration",
            "Time to apply an entry to the state, as leader or not",
            Scale::Microseconds,
            &measures.apply,
        )?;
        out.histogram(
            "oncekey_entry_commands",
            "Commands in an entry that this node proposed",
            Scale::Number,
            &measures.entry_commands,
        )
    }

    fn disk(&self, out: &mut Out<'_>) -> fmt::Result {
        let wal = self.node.status().wal;
        for (name, help, value) in [
            ("oncekey_wal_segments", "Files of the write-ahead log in use", wal.segments),
            ("oncekey_wal_disk_bytes", "Bytes of the write-ahead log on disk", wal.bytes),
            (
                "oncekey_wal_queued_bytes",
                "Bytes that wait to be written to the log",
                wal.queued_bytes,
            ),
        ] {
            out.gauge(name, help, value)?;
        }
        for (name, help, value) in [
            ("oncekey_wal_batches", "Batches written to the log", wal.batches),
            ("oncekey_wal_syncs", "Syncs of the log", wal.syncs),
            ("oncekey_wal_records", "Records written to the log", wal.records),
        ] {
            out.counter(name, help, value)?;
        }
        let (wal, state) = (self.node.wal_times(), self.node.state_times());
        for (name, help, times) in [
            ("oncekey_wal_write_duration", "Time to write a batch to the log", &wal.write),
            ("oncekey_wal_sync_duration", "Time to sync the log", &wal.sync),
            (
                "oncekey_state_flush_duration",
                "Time for the state engine to take what a shard has gathered",
                &state.flush,
            ),
            (
                "oncekey_state_checkpoint_duration",
                "Time for the state engine to make its state durable",
                &state.checkpoint,
            ),
        ] {
            out.histogram(name, help, Scale::Microseconds, times)?;
        }
        let space = self.node.space();
        out.gauges(
            "oncekey_disk_size_bytes",
            "Size of the file system that holds the node's data",
            space.map(|space| (Vec::new(), space.total)),
        )?;
        out.gauges(
            "oncekey_disk_free_bytes",
            "Room left on the file system that holds the node's data",
            space.map(|space| (Vec::new(), space.free)),
        )
    }

    fn process(&self, out: &mut Out<'_>) -> fmt::Result {
        let version = vec![("version", env!("CARGO_PKG_VERSION").to_owned())];
        out.gauges("oncekey_build_info", "1, with the version of the program", [(version, 1)])?;
        let report = self.node.report();
        out.number(
            "oncekey_wall_clock_seconds",
            "What the node takes for the time, in Unix seconds",
            millis(report.now.0),
        )?;
        out.number(
            "process_start_time_seconds",
            "When the node started, in Unix seconds",
            millis(report.started.0),
        )?;
        let SpanCounts { sent, dropped } = &*self.counters.spans;
        out.counters(
            "oncekey_spans",
            "Spans of traced requests, by what became of them",
            [("sent", sent), ("dropped", dropped)]
                .map(|(outcome, count)| (vec![("outcome", outcome.into())], count.total())),
        )?;
        let Process { cpu_s, resident_bytes, open_files } = Process::now();
        let metric = out.family("process_cpu_seconds", "Processor time", MetricType::Counter, None);
        let mut metric = metric?;
        if let Some(cpu_s) = cpu_s {
            metric.encode_counter(&cpu_s, None::<&Exemplar<NoLabelSet, f64>>)?;
        }
        out.gauges(
            "process_resident_memory_bytes",
            "Memory in use",
            resident_bytes.map(|bytes| (Vec::new(), bytes)),
        )?;
        out.gauges(
            "process_open_fds",
            "Open files and connections",
            open_files.map(|files| (Vec::new(), files)),
        )
    }
}

type Labels = Vec<(&'static str, String)>;

fn of_shard(shard: ShardId) -> (&'static str, String) {
    ("shard", shard.to_string())
}

/// What the numbers of a histogram are.
#[derive(Clone, Copy)]
enum Scale {
    /// Shown as seconds.
    Microseconds,
    Seconds,
    Number,
}

/// Writes families of metrics.
struct Out<'a>(DescriptorEncoder<'a>);

impl Out<'_> {
    fn family<'s>(
        &'s mut self,
        name: &'s str,
        help: &str,
        kind: MetricType,
        unit: Option<&'s Unit>,
    ) -> Result<MetricEncoder<'s>, fmt::Error> {
        self.0.encode_descriptor(name, help, unit, kind)
    }

    fn counter(&mut self, name: &str, help: &str, value: u64) -> fmt::Result {
        self.counters(name, help, [(Vec::new(), value)])
    }

    fn counters(
        &mut self,
        name: &str,
        help: &str,
        values: impl IntoIterator<Item = (Labels, u64)>,
    ) -> fmt::Result {
        let mut metric = self.family(name, help, MetricType::Counter, None)?;
        for (labels, value) in values {
            let none = None::<&Exemplar<NoLabelSet, f64>>;
            labelled(&mut metric, &labels, |metric| metric.encode_counter(&value, none))?;
        }
        Ok(())
    }

    fn gauge(&mut self, name: &str, help: &str, value: u64) -> fmt::Result {
        self.gauges(name, help, [(Vec::new(), value)])
    }

    fn gauges(
        &mut self,
        name: &str,
        help: &str,
        values: impl IntoIterator<Item = (Labels, u64)>,
    ) -> fmt::Result {
        let mut metric = self.family(name, help, MetricType::Gauge, None)?;
        for (labels, value) in values {
            labelled(&mut metric, &labels, |metric| metric.encode_gauge(&value))?;
        }
        Ok(())
    }

    /// A gauge with a fraction.
    fn number(&mut self, name: &str, help: &str, value: f64) -> fmt::Result {
        self.family(name, help, MetricType::Gauge, None)?.encode_gauge(&value)
    }

    fn histogram(
        &mut self,
        name: &str,
        help: &str,
        scale: Scale,
        values: &Histogram,
    ) -> fmt::Result {
        self.histograms(name, help, scale, [(Vec::new(), values)])
    }

    fn histograms<'h>(
        &mut self,
        name: &str,
        help: &str,
        scale: Scale,
        values: impl IntoIterator<Item = (Labels, &'h Histogram)>,
    ) -> fmt::Result {
        let (unit, factor) = match scale {
            Scale::Microseconds => (Some(&Unit::Seconds), MICRO),
            Scale::Seconds => (Some(&Unit::Seconds), 1.0),
            Scale::Number => (None, 1.0),
        };
        let mut metric = self.family(name, help, MetricType::Histogram, unit)?;
        for (labels, histogram) in values {
            let seen = histogram.distribution();
            let bounds = histogram.bounds().iter().map(|bound| float(*bound) * factor);
            let bounds = bounds.chain([f64::INFINITY]);
            let buckets: Vec<(f64, u64)> = bounds.zip(seen.counts.iter().copied()).collect();
            let (sum, count) = (float(seen.sum) * factor, seen.total());
            labelled(&mut metric, &labels, |metric| {
                metric.encode_histogram::<NoLabelSet>(sum, count, &buckets, None)
            })?;
        }
        Ok(())
    }
}

/// Writes one line or more of `metric` under `labels`.
fn labelled(
    metric: &mut MetricEncoder<'_>,
    labels: &Labels,
    write: impl FnOnce(&mut MetricEncoder<'_>) -> fmt::Result,
) -> fmt::Result {
    if labels.is_empty() { write(metric) } else { write(&mut metric.encode_family(labels)?) }
}

fn millis(millis: u64) -> f64 {
    float(millis) / 1000.0
}

/// The format has no other numbers in histograms; beyond 2^53 the last digits go.
#[expect(clippy::cast_precision_loss, reason = "a metric may round")]
fn float(number: u64) -> f64 {
    number as f64
}
