//! A device replaces its signed prekey or adds one-time prekeys.
//!
//! Guarantees: a re-send gets the first answer and changes nothing; anything else has a higher
//! `seq` than all before, and was signed by the identity key of the current registration, as the
//! server has found it. Leaves out: the signatures themselves.

use oncekey_planted::{self as planted, Bug};
use oncekey_types::{RegistrationId, Seq};

use super::{Machine, Stop, check, pool_state};
use crate::{
    command::{AddOneTimePreKeys, ReplaceSignedPreKey},
    digest,
    outcome::{Outcome, Refusal},
    record::device::{Device, DeviceKey, Upload},
    state::StateRead,
};

impl<S: StateRead> Machine<'_, S> {
    pub(super) fn replace_signed_prekey(
        &mut self,
        command: &ReplaceSignedPreKey,
    ) -> Result<Outcome, Stop> {
        check::signed_prekey(&command.signed_prekey)?;
        let (mut device, cursor) = self.device(&command.user, command.device)?;
        same_registration(&device, command.registration)?;
        if device.last_tag == command.tag {
            return Ok(device.last_outcome);
        }
        if device.bundle.signed_prekey == command.signed_prekey {
            return Ok(Outcome::SignedPreKeyReplaced(device.signed_prekey_answer));
        }
        seq_grows(&device, command.tag.seq)?;
        let (given, current) = (command.signed_prekey.id, device.bundle.signed_prekey.id);
        if given <= current {
            return Err(Refusal::SignedPreKeyIdNotGrowing { given, current }.into());
        }

        // From here on the command is accepted.
        device.bundle.signed_prekey = command.signed_prekey.clone();
        device.signed_prekey_accepted = self.now();
        let pool = pool_state(&device, &cursor);
        device.signed_prekey_answer = pool;
        device.last_tag = command.tag;
        device.last_outcome = Outcome::SignedPreKeyReplaced(pool);
        if !planted::is(Bug::SignedPreKeyNotReplaced) {
            self.records.write(&DeviceKey(&command.user, command.device), &device)?;
        }
        Ok(device.last_outcome)
    }

    pub(super) fn add_one_time_prekeys(
        &mut self,
        command: &AddOneTimePreKeys,
    ) -> Result<Outcome, Stop> {
        let keys = &command.one_time_prekeys;
        check::one_time_prekeys(keys)?;
        let (mut device, mut cursor) = self.device(&command.user, command.device)?;
        same_registration(&device, command.registration)?;
        let again = planted::is(Bug::UploadNotIdempotent);
        if device.last_tag == command.tag && !again {
            return Ok(device.last_outcome);
        }
        let digest = digest::upload(keys);
        if let Some(upload) = &device.upload
            && upload.digest == digest
            && !again
        {
            return Ok(Outcome::OneTimePreKeysAdded(upload.answer));
        }
        if !again {
            seq_grows(&device, command.tag.seq)?;
            check::ids_grow(keys, cursor.highest_accepted)?;
        }
        self.room(cursor.count, keys)?;

        // From here on the command is accepted.
        self.push_keys(&command.user, command.device, &mut cursor, keys)?;
        self.set_cursor(&command.user, command.device, cursor)?;
        let pool = pool_state(&device, &cursor);
        device.upload = Some(Upload { digest, answer: pool });
        device.last_tag = command.tag;
        device.last_outcome = Outcome::OneTimePreKeysAdded(pool);
        self.records.write(&DeviceKey(&command.user, command.device), &device)?;
        Ok(device.last_outcome)
    }
}

pub(super) fn seq_grows(device: &Device, given: Seq) -> Result<(), Refusal> {
    let last = device.last_tag.seq;
    if given <= last {
        return Err(Refusal::StaleSeq { given, last });
    }
    Ok(())
}

pub(super) fn same_registration(
    device: &Device,
    signed_for: RegistrationId,
) -> Result<(), Refusal> {
    let current = device.bundle.registration;
    if signed_for != current {
        return Err(Refusal::OtherRegistration { current });
    }
    Ok(())
}
