//! What was dispensed to a request, kept for retries.
//!
//! Guarantees: a retry is found by (caller, idempotency key). Its key is in the lot of the queue of
//! retries that it names; an entry in another lot is left over from an earlier, expired use of the
//! same key. Leaves out: refusals, which are not remembered.

use oncekey_types::{CallerId, DeviceId, RequestId, TimestampMs, UserId};
use serde::{Deserialize, Serialize};

use super::{CorruptRecord, Key, KeyReader, KeyWriter, Kind, Versioned, first_field};
use crate::{command::Dispense, outcome::Dispensed};

pub(crate) struct RetryKey<'a>(pub(crate) &'a CallerId, pub(crate) &'a RequestId);

/// Value of a retry record.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Retry {
    /// Number of the lot of the queue that has its key.
    pub(crate) lot: u64,
    /// From this log time on, the idempotency key counts as new.
    pub(crate) due: TimestampMs,
    /// What was asked for, without who asked and under which idempotency key.
    pub(crate) asked: Asked,
    /// The first answer.
    pub(crate) dispensed: Dispensed,
}

/// What a dispense asks for. A re-send asks for the same.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Asked {
    user: UserId,
    devices: Option<Vec<DeviceId>>,
    require_one_time_prekey: bool,
}

impl Retry {
    /// The lot of the retry record in `bytes`.
    pub(crate) fn lot(bytes: &[u8]) -> Result<u64, CorruptRecord> {
        first_field::<Self, u64>(bytes)
    }
}

impl Asked {
    pub(crate) fn by(request: &Dispense) -> Self {
        Self {
            user: request.user.clone(),
            devices: request.devices.clone(),
            require_one_time_prekey: request.require_one_time_prekey,
        }
    }
}

impl Versioned for Retry {
    const KIND: Kind = Kind::Retry;
    const VERSION: u8 = 1;
}

impl Key for RetryKey<'_> {
    type Value = Retry;

    fn write(&self, bytes: &mut KeyWriter<'_>) {
        bytes.name(self.0.as_str());
        bytes.name(self.1.as_str());
    }
}

pub(super) fn read_key(key: &mut KeyReader<'_>) -> Option<()> {
    key.caller()?;
    key.request()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{
        generate,
        record::tests::{assert_round_trip, to_bytes},
    };

    proptest! {
        #[test]
        fn a_retry_record_round_trips(
            dispense in generate::dispense(),
            lot: u64,
            due: u64,
            dispensed in generate::dispensed(),
        ) {
            let retry =
                Retry { lot, due: TimestampMs(due), asked: Asked::by(&dispense), dispensed };
            assert_round_trip(&RetryKey(&dispense.caller, &dispense.request), &retry);
            prop_assert_eq!(Retry::lot(&to_bytes(&retry)).unwrap(), lot);
        }
    }
}
