//! What a refusal of a write means to the device.
//!
//! Guarantees: a refused write is never sent again; a write that the server merely finds out of
//! date is made anew above what the server says is used.
//!
//! Leaves out: trust. A server may lie about what is used; one lie makes a device skip at most
//! [`RESYNC_JUMP_MAX`](limits::RESYNC_JUMP_MAX) ids, and a skipped id costs nothing else.

use oncekey_api::{Code, Problem, device::Status};
use oncekey_types::{OneTimePreKeyId, Seq, SignedPreKeyId, limits};

use crate::keystore::{DeviceState, Resync, Settled};

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
