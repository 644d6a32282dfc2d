//! Devices come and go.
//!
//! Guarantees: identity, signed prekey, pool and device list change together or not at all. The
//! ids of one-time prekeys grow across registrations. A registration names the one that it follows.
//! Leaves out: who may register or remove.

use oncekey_planted::{self as planted, Bug};
use oncekey_types::RegistrationId;

use super::{
    Machine, Stop, check, missing,
    restore::first_registration,
    write::{same_registration, seq_grows},
};
use crate::{
    command::{Follows, Register, RemoveDevice},
    digest,
    outcome::{Outcome, PoolState, Refusal, Registered},
    record::{
        Kind,
        account::{Account, AccountKey, DeviceListKey},
        device::{Device, DeviceBundle, DeviceKey, Upload},
        pool::Cursor,
    },
    state::StateRead,
};

impl<S: StateRead> Machine<'_, S> {
    pub(super) fn register(&mut self, command: &Register) -> Result<Outcome, Stop> {
        check::register(command)?;
        let (user, device) = (&command.user, command.device);
        let previous = self.find_device(user, device)?;
        if let Some((previous, _)) = &previous
            && previous.registration_tag == command.tag
        {
            return Ok(Outcome::Registered(previous.registered()));
        }
        follows_current(command.follows, previous.as_ref().map(|(device, _)| device))?;
        let account_key = AccountKey(user);
        let epoch = self.meta.origin.epoch();
        let new =
            || Account { next_registration: Some(first_registration(epoch)), ..Account::default() };
        let mut account = self.records.read(&account_key)?.unwrap_or_else(new);
        let limit = self.bounds.devices_per_user;
        if previous.is_none() && account.devices.len() >= limit as usize {
            return Err(Refusal::TooManyDevices { limit }.into());
        }
        let registration =
            account.next_registration.ok_or(Refusal::TooManyDevices { limit: u32::MAX })?;
        let replaced = previous.as_ref().and_then(|(_, cursor)| cursor.highest_accepted);
        let mut floor = account.opk_floor.max(replaced);
        if planted::is(Bug::WatermarkForgotten) {
            floor = None;
        }
        check::ids_grow(&command.one_time_prekeys, floor)?;
        self.room(0, &command.one_time_prekeys)?;
        if let Some(list) = &command.device_list {
            self.check_list(user, account.list, list)?;
        }

        // From here on the command is accepted.
        let first_lot = previous.as_ref().map_or(0, |(_, cursor)| cursor.tail);
        if let Some((_, cursor)) = &previous {
            self.delete_lots(user, device, cursor);
        }
        let mut cursor = Cursor::empty(first_lot, floor);
        self.push_keys(user, device, &mut cursor, &command.one_time_prekeys)?;
        let pool = PoolState {
            count: cursor.count,
            signed_prekey: command.signed_prekey.id,
            highest_accepted: cursor.highest_accepted,
        };
        let registered = Registered { registration, pool };
        let record = self.new_device(command, &registered);
        self.records.write(&DeviceKey(user, device), &record)?;
        account.enroll(device, cursor);
        account.next_registration = registration.0.checked_add(1).map(RegistrationId);
        account.opk_floor = floor;
        if let Some(list) = &command.device_list {
            self.records.write(&DeviceListKey(user), list)?;
            account.list = Some(list.seq);
        }
        self.records.write(&account_key, &account)?;
        Ok(Outcome::Registered(registered))
    }

    pub(super) fn remove_device(&mut self, command: &RemoveDevice) -> Result<Outcome, Stop> {
        let (user, device) = (&command.user, command.device);
        let (record, cursor) = self.device(user, device)?;
        if let Some(registration) = command.registration {
            same_registration(&record, registration)?;
        }
        if let Some(seq) = command.seq {
            seq_grows(&record, seq)?;
        }
        let mut account = self.account(user)?;
        let place = account.place(device).map_err(|_| missing(Kind::Account))?;
        account.devices.remove(place);
        if !planted::is(Bug::RemovalForgetsWatermark) {
            account.opk_floor = account.opk_floor.max(cursor.highest_accepted);
        }
        self.delete_lots(user, device, &cursor);
        self.records.delete(&DeviceKey(user, device));
        self.records.write(&AccountKey(user), &account)?;
        Ok(Outcome::DeviceRemoved)
    }

    fn new_device(&self, command: &Register, registered: &Registered) -> Device {
        let keys = &command.one_time_prekeys;
        let digest = (!keys.is_empty()).then(|| digest::upload(keys));
        Device {
            bundle: DeviceBundle {
                registration: registered.registration,
                identity_key: command.identity_key.clone(),
                signed_prekey: command.signed_prekey.clone(),
            },
            authentication_key: command.authentication_key.clone(),
            authentication_signature: command.authentication_signature.clone(),
            signed_prekey_accepted: self.now(),
            registration_tag: command.tag,
            registration_answer: registered.pool,
            signed_prekey_answer: registered.pool,
            upload: digest.map(|digest| Upload { digest, answer: registered.pool }),
            last_tag: command.tag,
            last_outcome: Outcome::Registered(registered.clone()),
        }
    }
}

/// A registration replaces the one that it was made after, and no later one: a duplicate that comes
/// late undoes nothing.
fn follows_current(follows: Follows, current: Option<&Device>) -> Result<(), Refusal> {
    let current = current.map(|device| device.bundle.registration);
    match follows {
        Follows::Unsaid => Ok(()),
        Follows::Nothing | Follows::Registration(_) if follows == current.into() => Ok(()),
        Follows::Nothing | Follows::Registration(_) => Err(Refusal::DoesNotFollow { current }),
    }
}
