//! Why handshakes failed, from the devices that saw it.
//!
//! Guarantees: a report ends in counters and nowhere else; who sent it counts against the limit
//! and is forgotten with it. One caller moves the counters of a node by a bounded number in a
//! minute.
//!
//! Leaves out: truth. A caller may report what it likes within its limit; read the graph, not the
//! number.

use std::{
    collections::{BTreeSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use axum::{extract::State, http::StatusCode};
use oncekey_api::{Code, Problem, problem::Members, report::Report};
use oncekey_types::{CallerId, limits};
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::{
    app::App,
    auth::Caller,
    extract::{JsonBody, NoQuery},
    reply::Rejection,
};

/// Shortest time between two reports of one caller.
const REPORT_EVERY: Duration = Duration::from_secs(60);

/// `POST /v1/reports`
pub(crate) async fn report(
    State(app): State<Arc<App>>,
    NoQuery: NoQuery,
    Caller(caller): Caller,
    JsonBody(Report(counts)): JsonBody<Report>,
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
    if !app.reporters.admit(caller, Instant::now()) {
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
    callers: BTreeSet<CallerId>,
    /// The same callers, oldest report first.
    order: VecDeque<(Instant, CallerId)>,
}

impl Reporters {
    /// Whether `caller` may report at `now`; if so, it is remembered.
    fn admit(&self, caller: CallerId, now: Instant) -> bool {
        let Recent { callers, order } = &mut *self.0.lock();
        while let Some((at, oldest)) = order.front() {
            if now.duration_since(*at) < REPORT_EVERY && order.len() < limits::REPORTERS_MAX {
                break;
            }
            callers.remove(oldest);
            order.pop_front();
        }
        if !callers.insert(caller.clone()) {
            return false;
        }
        order.push_back((now, caller));
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn caller(number: usize) -> CallerId {
        CallerId::new(format!("caller {number}")).unwrap()
    }

    #[test]
    fn a_caller_reports_once_in_a_minute() {
        let (reporters, start) = (Reporters::default(), Instant::now());
        assert!(reporters.admit(caller(1), start));
        assert!(reporters.admit(caller(2), start));
        assert!(!reporters.admit(caller(1), start + REPORT_EVERY / 2));
        assert!(reporters.admit(caller(1), start + REPORT_EVERY));
        assert!(!reporters.admit(caller(1), start + REPORT_EVERY));
    }

    #[test]
    fn no_more_callers_are_remembered_than_allowed() {
        let (reporters, now) = (Reporters::default(), Instant::now());
        for number in 0..limits::REPORTERS_MAX + 10 {
            assert!(reporters.admit(caller(number), now), "caller {number}");
        }
        let recent = reporters.0.lock();
        assert_eq!(recent.callers.len(), limits::REPORTERS_MAX);
        assert_eq!(recent.order.len(), limits::REPORTERS_MAX);
    }
}
