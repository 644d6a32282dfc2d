//! Telling the servers why handshakes fail.
//!
//! Guarantees: a report holds counts by reason and nothing else. It is sent with
//! [`tend`](Client::tend), at most once an hour, or when the application asks; with
//! [`Reports::Withheld`] never. A failed report fails nothing else.
//!
//! Leaves out: counts of an earlier life, which lie in memory alone.

use std::{collections::BTreeMap, time::Duration};

use oncekey_api::{
    path,
    report::{Reason, Report},
};
use oncekey_types::{TimestampMs, limits};
use oncekey_x3dh::Failure;

use super::Client;
use crate::{
    keystore::KeyStore,
    transport::{Attempts, Call, CallError, Method, Transport},
};

/// Shortest time between two reports that [`tend`](Client::tend) sends.
const REPORT_EVERY: Duration = Duration::from_secs(60 * 60);

/// Whether the servers are told why handshakes fail.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Reports {
    /// They are told how many failed for which reason, and nothing else. It is how an operator
    /// learns that keys get lost, or that a node hands one out twice.
    #[default]
    Sent,
    /// They are told nothing.
    Withheld,
}

/// Failures that were counted, and which of them were told.
#[derive(Default)]
pub(super) struct Tally {
    counted: BTreeMap<Failure, u64>,
    told: BTreeMap<Reason, u64>,
    /// When the servers were told last, or should have been.
    at: Option<TimestampMs>,
}

impl Tally {
    pub(super) fn counted(&self) -> &BTreeMap<Failure, u64> {
        &self.counted
    }

    pub(super) fn count(&mut self, failure: Failure) {
        let count = self.counted.entry(failure).or_default();
        *count = count.saturating_add(1);
    }

    fn is_due(&self, now: TimestampMs) -> bool {
        self.at.is_none_or(|at| now.since(at) >= REPORT_EVERY)
    }

    /// What there is to tell; told from now on.
    fn take(&mut self, now: TimestampMs) -> Report {
        let mut report = Report::default();
        for (failure, counted) in &self.counted {
            let Some(reason) = reason(*failure) else { continue };
            let told = self.told.entry(reason).or_default();
            let new = u32::try_from(counted.saturating_sub(*told)).unwrap_or(u32::MAX);
            let new = new.min(limits::REPORT_COUNT_MAX);
            if new > 0 {
                *told += u64::from(new);
                report.0.insert(reason, new);
            }
        }
        if !report.0.is_empty() {
            self.at = Some(now);
        }
        report
    }

    /// No server has taken the report.
    fn put_back(&mut self, report: &Report) {
        for (reason, count) in &report.0 {
            let told = self.told.entry(*reason).or_default();
            *told = told.saturating_sub(u64::from(*count));
        }
    }
}

/// The reason as servers know it. What says more about a sender's program than about keys, bytes
/// that are no message or a message for another device, is counted here alone.
fn reason(failure: Failure) -> Option<Reason> {
    Reason::ALL.iter().copied().find(|reason| reason.as_str() == failure.reason())
}

impl<T: Transport, S: KeyStore> Client<T, S> {
    /// Tells a server how many handshakes have failed since the last report, by reason. None when
    /// there is nothing to tell, or when reports are [withheld](Reports::Withheld).
    ///
    /// # Errors
    ///
    /// A [`CallError`]. Counts that no server has taken are told the next time; those that one may
    /// have taken are not.
    pub async fn report(&self) -> Result<Option<Report>, CallError> {
        self.send_report(&mut Attempts::default()).await
    }

    /// The same from time to time, whatever becomes of it.
    pub(super) async fn report_if_due(&self, attempts: &mut Attempts) {
        let is_due = self.tally.lock().is_due(self.now());
        if is_due && let Err(error) = self.send_report(attempts).await {
            tracing::debug!(%error, "failed handshakes were not reported");
        }
    }

    async fn send_report(&self, attempts: &mut Attempts) -> Result<Option<Report>, CallError> {
        match self.config.reports {
            Reports::Sent => {}
            Reports::Withheld => return Ok(None),
        }
        let report = self.tally.lock().take(self.now());
        if report.0.is_empty() {
            return Ok(None);
        }
        let call = Call {
            method: Method::Post,
            path: path::REPORTS.to_owned(),
            body: serde_json::to_vec(&report).map(Into::into).unwrap_or_default(),
            idempotency_key: None,
            slot: self.slot(),
            credentials: self.signature(),
        };
        match self.transport.call::<()>(&call).await {
            Ok(answer) => {
                attempts.extend(answer.attempts);
                Ok(Some(report))
            }
            Err(error) => {
                attempts.extend(error.attempts().clone());
                if !error.is_outcome_unknown() {
                    self.tally.lock().put_back(&report);
                }
                Err(error)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: TimestampMs = TimestampMs(1);

    #[test]
    fn every_reason_of_the_servers_has_its_failure() {
        let failures = [
            Failure::Malformed,
            Failure::WrongRecipient,
            Failure::Replay,
            Failure::SpkUnknown,
            Failure::SpkExpired,
            Failure::OpkMissing,
            Failure::OpkReused,
            Failure::SignatureInvalid,
            Failure::IdentityChanged,
            Failure::AeadFailed,
        ];
        let mut reasons: Vec<_> = failures.into_iter().filter_map(reason).collect();
        reasons.sort_unstable();
        assert_eq!(reasons, Reason::ALL);
    }

    #[test]
    fn a_count_is_told_once_and_again_only_when_nobody_took_it() {
        let mut tally = Tally::default();
        for failure in [Failure::OpkMissing, Failure::OpkMissing, Failure::Malformed] {
            tally.count(failure);
        }
        let report = tally.take(NOW);
        assert_eq!(report.0, BTreeMap::from([(Reason::OpkMissing, 2)]));
        assert_eq!(tally.take(NOW), Report::default());
        tally.put_back(&report);
        tally.count(Failure::OpkMissing);
        assert_eq!(tally.take(NOW).0, BTreeMap::from([(Reason::OpkMissing, 3)]));
    }

    #[test]
    fn what_is_over_the_limit_waits_for_the_next_report() {
        let mut tally = Tally::default();
        let most = limits::REPORT_COUNT_MAX;
        tally.counted.insert(Failure::Replay, u64::from(most) + 7);
        assert_eq!(tally.take(NOW).0, BTreeMap::from([(Reason::Replay, most)]));
        assert_eq!(tally.take(NOW).0, BTreeMap::from([(Reason::Replay, 7)]));
    }
}
