//! What was dispensed to a request, kept for retries, and the queue that bounds how many there are.
//!
//! Guarantees: a retry is found by (caller, idempotency key); the queue holds the retries in the
//! order in which they were dispensed. An entry of the queue whose number is not the retry's own is
//! left over from an earlier, expired use of the same key. Leaves out: refusals, which are not
//! remembered.

use oncekey_types::{CallerId, RequestId, TimestampMs};
use serde::{Deserialize, Serialize};

use super::{Key, KeyReader, KeyWriter, Kind, Versioned};
use crate::outcome::Dispensed;

#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct RetryKey(pub(crate) CallerId, pub(crate) RequestId);

/// Value of a retry record.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Retry {
    /// Number of its entry in the queue.
    pub(crate) number: u64,
    /// From this log time on, the idempotency key counts as new.
    pub(crate) due: TimestampMs,
    /// Digest of the request.
    #[serde(with = "crate::octets")]
    pub(crate) digest: [u8; 32],
    /// The first answer.
    pub(crate) dispensed: Dispensed,
}

impl Versioned for Retry {
    const VERSION: u8 = 1;
}

impl Key for RetryKey {
    const KIND: Kind = Kind::Retry;
    type Value = Retry;

    fn write(&self, bytes: &mut KeyWriter) {
        bytes.name(self.0.as_str());
        bytes.name(self.1.as_str());
    }

    fn read(bytes: &mut KeyReader<'_>) -> Option<Self> {
        Some(Self(CallerId::new(bytes.name()?).ok()?, RequestId::new(bytes.name()?).ok()?))
    }
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct RetryQueueKey(pub(crate) u64);

/// Value of a retry queue record.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct QueuedRetry {
    pub(crate) caller: CallerId,
    pub(crate) request: RequestId,
    pub(crate) due: TimestampMs,
}

impl Versioned for QueuedRetry {
    const VERSION: u8 = 1;
}

impl Key for RetryQueueKey {
    const KIND: Kind = Kind::RetryQueue;
    type Value = QueuedRetry;

    fn write(&self, bytes: &mut KeyWriter) {
        bytes.number(self.0);
    }

    fn read(bytes: &mut KeyReader<'_>) -> Option<Self> {
        Some(Self(bytes.number()?))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{generate, record::tests::assert_round_trip};

    proptest! {
        #[test]
        fn a_retry_record_round_trips(
            dispense in generate::dispense(),
            number: u64,
            due: u64,
            digest: [u8; 32],
            dispensed in generate::dispensed(),
        ) {
            let due = TimestampMs(due);
            let (caller, request) = (dispense.caller, dispense.request);
            let queued = QueuedRetry { caller: caller.clone(), request: request.clone(), due };
            assert_round_trip(&RetryQueueKey(number), &queued);
            let retry = Retry { number, due, digest, dispensed };
            assert_round_trip(&RetryKey(caller, request), &retry);
        }
    }
}
