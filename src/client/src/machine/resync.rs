//! What a refusal of a write means to the device.
//!
//! Guarantees: a refused write is never sent again; a write that the server merely finds out of
//! date is made anew above what the server says is used.
//!
//! Leaves out: trust. A server may lie about what is used; one lie makes a device skip at most
//! [`RESYNC_JUMP_MAX`](limits::RESYNC_JUMP_MAX) ids, and a skipped id costs nothing else.

use std::time::Duration;

use oncekey_api::{Code, Problem, device::Status};
use oncekey_types::{Epoch, OneTimePreKeyId, Seq, SignedPreKeyId, TimestampMs, limits};

use crate::keystore::{DeviceState, Resync, Settled};

/// How far ahead of a device's clock an epoch may be. Epochs are times.
const AHEAD_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// Whether a server may be in this epoch at the time `now`: epochs are times at which clusters were
/// restored.
#[must_use]
pub fn is_plausible(epoch: Epoch, now: TimestampMs) -> bool {
    epoch.0 <= now.plus(AHEAD_MAX).0
}

/// What to store and to do after a refusal.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Refusal {
    /// What became of the write.
    pub settled: Settled,
    /// Whether to make the write anew.
    pub redo: bool,
}

/// Judges the refusal of a write that was made from `state`.
#[must_use]
pub fn refused(state: &DeviceState, problem: &Problem) -> Refusal {
    let resync = Resync {
        epoch: problem.members.epoch,
        seq: problem.members.seq,
        signed_prekey: problem.members.signed_prekey,
        one_time_prekey: problem.members.highest,
    };
    match problem.code {
        Code::StaleSeq
        | Code::RegistrationChanged
        | Code::SignedPreKeyIdNotGrowing
        | Code::OneTimePreKeyIdsNotGrowing
        | Code::DeviceListOutOfOrder => {
            Refusal { settled: Settled::Refused(resync.bounded(state)), redo: true }
        }
        // Of a cluster whose place another has taken, nothing is to be learnt.
        Code::EpochChanged => Refusal {
            settled: Settled::Refused(Resync { epoch: resync.epoch, ..Resync::default() }),
            redo: resync.epoch > Some(state.epoch),
        },
        Code::UnknownDevice | Code::UnknownUser => {
            Refusal { settled: Settled::Unregistered, redo: false }
        }
        _ => Refusal { settled: Settled::Refused(resync.bounded(state)), redo: false },
    }
}

impl Resync {
    /// What a status says is used.
    #[must_use]
    pub fn of_status(status: &Status) -> Self {
        Self {
            epoch: Some(status.epoch),
            seq: Some(status.seq),
            signed_prekey: Some(status.pool.signed_prekey),
            one_time_prekey: status.pool.highest_accepted,
        }
    }

    /// The same, skipping no more than the limit.
    #[must_use]
    pub fn bounded(self, state: &DeviceState) -> Self {
        let most = |from: u64| from.saturating_add(limits::RESYNC_JUMP_MAX);
        let most_id = |from: u32| u32::try_from(most(u64::from(from))).unwrap_or(u32::MAX);
        Self {
            epoch: self.epoch,
            seq: self.seq.map(|seq| Seq(seq.0.min(most(state.seq.0)))),
            signed_prekey: self
                .signed_prekey
                .map(|id| SignedPreKeyId(id.0.min(most_id(state.highest_signed_prekey.0)))),
            one_time_prekey: self
                .one_time_prekey
                .map(|id| OneTimePreKeyId(id.0.min(most_id(state.highest_one_time_prekey.0)))),
        }
    }
}
