//! A shard is filled from a backup, in an epoch of its own.
//!
//! What the old cluster did after the backup is not known here: keys that the backup says are in a
//! pool may have been handed out, and so may keys that were uploaded since. None of them may ever be
//! handed out here. So
//!
//! - pools begin empty, and the highest ids accepted stay as they were;
//! - a write that brings keys names the epoch that they were made for, and is refused in another
//!   one: a re-send of what was meant for the old cluster, however late, brings nothing;
//! - registration numbers go on from the time of the restore in seconds, and far above the last one
//!   of the backup, so that none repeats: neither of the old cluster, nor of another one that was made
//!   from the same backup;
//! - the answers for retries are not restored: they are of another log.
//!
//! Guarantees: begins only in a shard in which nothing was ever done; until the end nothing else is
//! done in it; each step may come twice, and a restore that was interrupted goes on with the epoch
//! that it began with. Leaves out: whether the backup is whole, and which shard a user belongs to.

use oncekey_types::{Epoch, RegistrationId, limits};

use super::{Machine, Stop};
use crate::{
    command::{Command, Restore, RestoreStep, RestoredRecord},
    origin::Origin,
    outcome::{Malformed, Outcome, Refusal, Restored},
    record::{
        account::{Account, AccountKey, DeviceListKey},
        device::{Device, DeviceKey},
        kept::{self, Kept},
        pool::Cursor,
    },
    state::StateRead,
};

impl<S: StateRead> Machine<'_, S> {
    /// Refuses what is of another epoch, and everything but its steps during a restore.
    pub(super) fn check_epoch(&self, command: &Command) -> Result<(), Refusal> {
        let origin = self.meta.origin;
        if origin.is_being_restored() && !matches!(command, Command::Restore(_)) {
            return Err(Refusal::BeingRestored);
        }
        match (command.epoch(), origin.epoch()) {
            (Some(given), current) if given != current => {
                Err(Refusal::OtherEpoch { given, current })
            }
            (Some(_) | None, _) => Ok(()),
        }
    }

    pub(super) fn restore(&mut self, command: &Restore) -> Result<Outcome, Stop> {
        let Restore { backup, epoch, ref step } = *command;
        match (self.meta.origin, step) {
            (Origin::New, RestoreStep::Begin) => {
                if !self.is_new || self.records.writes() > 0 || epoch.is_first() {
                    return Err(Refusal::NotNew.into());
                }
                self.meta.origin = Origin::BeingRestored { backup, epoch };
                Ok(restored(epoch, false))
            }
            (Origin::New, RestoreStep::Put(_) | RestoreStep::End) => Err(Refusal::NoRestore.into()),
            (Origin::BeingRestored { backup: known, epoch: current }, step) if known == backup => {
                match step {
                    RestoreStep::Begin => return Ok(restored(current, false)),
                    RestoreStep::Put(_) | RestoreStep::End if epoch != current => {
                        return Err(Refusal::OtherEpoch { given: epoch, current }.into());
                    }
                    RestoreStep::Put(records) => self.put(records)?,
                    RestoreStep::End => self.meta.origin = Origin::Restored { backup, epoch },
                }
                Ok(restored(current, *step == RestoreStep::End))
            }
            (Origin::Restored { backup: known, epoch: current }, _) if known == backup => {
                Ok(restored(current, true))
            }
            (Origin::BeingRestored { .. } | Origin::Restored { .. }, _) => {
                Err(Refusal::NotNew.into())
            }
        }
    }

    fn put(&mut self, records: &[RestoredRecord]) -> Result<(), Stop> {
        let bytes = records.iter().map(|record| record.key.len() + record.value.len());
        if bytes.sum::<usize>() > limits::RESTORE_PUT_MAX_BYTES {
            return Err(malformed().into());
        }
        let parse = |record: &RestoredRecord| kept::parse(&record.key, &record.value);
        let parsed: Option<Vec<_>> = records.iter().map(parse).collect();

        // From here on the command is accepted.
        for record in parsed.ok_or_else(malformed)? {
            match record {
                Kept::Meta(meta) => self.meta.time = self.meta.time.max(meta.time),
                Kept::Account(user, account) => {
                    self.records.write(
                        &AccountKey(&user),
                        &without_pools(account, self.meta.origin.epoch()),
                    )?;
                }
                Kept::DeviceList(user, list) => {
                    self.records.write(&DeviceListKey(&user), &list)?;
                }
                Kept::Device(user, device, record) => {
                    // A re-send of the last upload is no re-send any more: its keys are gone.
                    let record = Device { upload: None, ..record };
                    self.records.write(&DeviceKey(&user, device), &record)?;
                }
            }
        }
        Ok(())
    }
}

/// The account with nothing to hand out, and with registration numbers that no cluster has given.
fn without_pools(mut account: Account, epoch: Epoch) -> Account {
    for enrolled in &mut account.devices {
        let highest = enrolled.cursor.highest_accepted;
        enrolled.cursor = Cursor::empty(0, highest);
    }
    account.next_registration = account.next_registration.and_then(|next| {
        let skipped = next.0.checked_add(limits::RESTORE_REGISTRATIONS_SKIPPED)?;
        Some(RegistrationId(skipped).max(first_registration(epoch)))
    });
    account
}

/// The first registration of an account that is new in `epoch`: an older cluster may have had one of
/// the same name.
pub(super) fn first_registration(epoch: Epoch) -> RegistrationId {
    RegistrationId(u32::try_from(epoch.0 / 1000).unwrap_or(u32::MAX).max(1))
}

fn restored(epoch: Epoch, is_done: bool) -> Outcome {
    Outcome::Restored(Restored { epoch, is_done })
}

fn malformed() -> Refusal {
    Refusal::Malformed { what: Malformed::Records }
}
