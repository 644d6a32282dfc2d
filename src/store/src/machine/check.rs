//! What a command must be whatever the state is.
//!
//! Guarantees: a command that passes is inside the limits. The server checks the same before it
//! proposes; here it is part of the definition. Leaves out: points and signatures.

use oncekey_types::{
    OneTimePreKeyId,
    limits::{DEVICE_LIST_MAX_BYTES, DEVICES_PER_USER_MAX, PUBLIC_KEY_MAX_BYTES, UPLOAD_MAX},
};

use crate::{
    command::{DeviceList, Dispense, KeyBytes, OneTimePreKey, Register, SignedPreKey},
    outcome::{Malformed, Refusal},
};

pub(super) fn register(command: &Register) -> Result<(), Refusal> {
    key(&command.identity_key.key)?;
    key(&command.authentication_key)?;
    key(&command.authentication_signature)?;
    signed_prekey(&command.signed_prekey)?;
    if !command.one_time_prekeys.is_empty() {
        one_time_prekeys(&command.one_time_prekeys)?;
    }
    command.device_list.as_ref().map_or(Ok(()), device_list)
}

pub(super) fn signed_prekey(signed: &SignedPreKey) -> Result<(), Refusal> {
    key(&signed.key)?;
    key(&signed.signature)
}

pub(super) fn one_time_prekeys(keys: &[OneTimePreKey]) -> Result<(), Refusal> {
    if keys.is_empty() || keys.len() > UPLOAD_MAX {
        return Err(Refusal::Malformed { what: Malformed::OneTimePreKeys });
    }
    for one_time in keys {
        key(&one_time.key)?;
        key(&one_time.signature)?;
    }
    Ok(())
}

pub(super) fn device_list(list: &DeviceList) -> Result<(), Refusal> {
    key(&list.account_key)?;
    key(&list.signature)?;
    if list.bytes.is_empty() || list.bytes.len() > DEVICE_LIST_MAX_BYTES {
        return Err(Refusal::Malformed { what: Malformed::DeviceList });
    }
    Ok(())
}

pub(super) fn dispense(command: &Dispense) -> Result<(), Refusal> {
    let Some(devices) = &command.devices else { return Ok(()) };
    let growing = devices.is_sorted_by(|a, b| a < b);
    if devices.is_empty() || devices.len() > DEVICES_PER_USER_MAX || !growing {
        return Err(Refusal::Malformed { what: Malformed::Devices });
    }
    Ok(())
}

/// Ids must grow, and begin above `highest`.
///
/// When nothing was ever accepted, the refusal names zero as the highest.
pub(super) fn ids_grow(
    keys: &[OneTimePreKey],
    highest: Option<OneTimePreKeyId>,
) -> Result<(), Refusal> {
    let mut last = highest;
    let mut conflicts = Vec::new();
    for key in keys {
        if last.is_none_or(|last| last < key.id) {
            last = Some(key.id);
        } else {
            conflicts.push(key.id);
        }
    }
    if conflicts.is_empty() {
        return Ok(());
    }
    let highest = highest.unwrap_or(OneTimePreKeyId(0));
    Err(Refusal::OneTimePreKeyIdsNotGrowing { conflicts, highest })
}

fn key(bytes: &KeyBytes) -> Result<(), Refusal> {
    if bytes.0.is_empty() || bytes.0.len() > PUBLIC_KEY_MAX_BYTES {
        return Err(Refusal::Malformed { what: Malformed::Key });
    }
    Ok(())
}
