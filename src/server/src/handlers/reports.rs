//! Why handshakes failed, from the devices that saw it.
//!
//! Guarantees: a report ends in counters and nowhere else; who sent it counts against the limit
//! and is forgotten with it. One device moves the counters of a node by a bounded number in a
//! minute.
//!
//! Leaves out: truth. A device may report what it likes within its limit; read the graph, not the
//! number.

use std::{
    collections::{BTreeSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use axum::{extract::State, http::StatusCode};
use oncekey_api::{Code, Problem, problem::Members, report::Report};
use oncekey_types::limits;
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::{app::App, auth::Reporter, extract::DeviceReport, reply::Rejection};

/// Shortest time between two reports of one device.
const REPORT_EVERY: Duration = Duration::from_secs(60);

/// `POST /v1/reports`
pub(crate) async fn report(
    State(app): State<Arc<App>>,
    DeviceReport { reporter, body: Report(counts) }: DeviceReport<Report>,
) -> Result<StatusCode, Rejection> {
    let over = |count: &u32| *count > limits::REPORT_COUNT_MAX;
    if let Some((reason, _)) = counts.iter().find(|(_, count)| over(count)) {
        let members = Members {
            pointer: Some(format!("/{}", reason.as_str())),
            limit: Some(limits::REPORT_COUNT_MAX.into()),
            ..Members::default()
        };
        let detail = "a report counts no more handshakes than the limit";
        return Err(Problem::with(Code::LimitExceeded, detail, members).into());
    }
    if !app.reporters.admit(reporter, Instant::now()) {
        let detail = format!("one report in {} s", REPORT_EVERY.as_secs());
        return Err(Problem::new(Code::TooManyReports, detail).into());
    }
    for (reason, count) in counts {
        app.metrics.failed(reason, count);
    }
    Ok(StatusCode::NO_CONTENT)
}

/// Who has reported within [`REPORT_EVERY`].
#[derive(Default)]
pub(crate) struct Reporters(Mutex<Recent>);

#[derive(Default)]
struct Recent {
    reporters: BTreeSet<Reporter>,
    /// The same, oldest report first.
    order: VecDeque<(Instant, Reporter)>,
}

impl Reporters {
    /// Whether `reporter` may report at `now`; if so, it is remembered.
    fn admit(&self, reporter: Reporter, now: Instant) -> bool {
        let Recent { reporters, order } = &mut *self.0.lock();
        while let Some((at, oldest)) = order.front() {
            if now.duration_since(*at) < REPORT_EVERY && order.len() < limits::REPORTERS_MAX {
                break;
            }
            reporters.remove(oldest);
            order.pop_front();
        }
        if !reporters.insert(reporter.clone()) {
            return false;
        }
        order.push_back((now, reporter));
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(number: usize) -> Reporter {
        Reporter(format!("bob/{number}"))
    }

    #[test]
    fn a_device_reports_once_in_a_minute() {
        let (reporters, start) = (Reporters::default(), Instant::now());
        assert!(reporters.admit(device(1), start));
        assert!(reporters.admit(device(2), start));
        assert!(!reporters.admit(device(1), start + REPORT_EVERY / 2));
        assert!(reporters.admit(device(1), start + REPORT_EVERY));
        assert!(!reporters.admit(device(1), start + REPORT_EVERY));
    }

    #[test]
    fn no_more_reporters_are_remembered_than_allowed() {
        let (reporters, now) = (Reporters::default(), Instant::now());
        for number in 0..limits::REPORTERS_MAX + 10 {
            assert!(reporters.admit(device(number), now), "device {number}");
        }
        let recent = reporters.0.lock();
        assert_eq!(recent.reporters.len(), limits::REPORTERS_MAX);
        assert_eq!(recent.order.len(), limits::REPORTERS_MAX);
    }
}
