//! Questions that change nothing.
//!
//! Guarantees: an answer is read from one state and names nobody that is not in it. Leaves out: how
//! fresh the state is; the caller says so. An answer reads several records, so `state` must not
//! change meanwhile: give it a view of one moment.

use oncekey_types::{DeviceId, OneTimePreKeyId, UserId};
use serde::{Deserialize, Serialize};

use crate::{
    ApplyFault,
    command::{OneTimePreKey, SignedPreKey},
    digest,
    machine::pool_state,
    origin::Origin,
    outcome::{DeviceStatus, DeviceSummary, DeviceView, PeekedBundles, UserView},
    record::{
        CorruptRecord, Key, Kind, Value,
        account::{Account, AccountKey, DeviceListKey, Enrolled},
        corrupt,
        device::{Device, DeviceKey},
        meta::MetaKey,
        pool::{Cursor, LOT_START, Lot, LotKey},
    },
    state::StateRead,
};

/// A read of one shard.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Query {
    /// The keys of one device.
    Status {
        /// The owner.
        user: UserId,
        /// The device.
        device: DeviceId,
    },
    /// A user's devices and device list.
    User {
        /// The user.
        user: UserId,
    },
    /// Identity keys and signed prekeys, for when no one-time prekey can be handed out.
    Peek {
        /// The user.
        user: UserId,
        /// All devices, or those named.
        devices: Option<Vec<DeviceId>>,
    },
    /// What of a device it is told as it changes: little to read, however large its pool is.
    Summary {
        /// The owner.
        user: UserId,
        /// The device.
        device: DeviceId,
    },
}

impl Query {
    /// The user whose shard is asked.
    #[must_use]
    pub fn user(&self) -> &UserId {
        match self {
            Self::Status { user, .. }
            | Self::User { user }
            | Self::Peek { user, .. }
            | Self::Summary { user, .. } => user,
        }
    }
}

/// Answer to a [`Query`]; `None` where the user or a device named is not known.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Answer {
    /// To [`Query::Status`].
    Status(Option<DeviceStatus>),
    /// To [`Query::User`].
    User(Option<UserView>),
    /// To [`Query::Peek`].
    Peek(Option<PeekedBundles>),
    /// To [`Query::Summary`].
    Summary(Option<DeviceSummary>),
}

/// Answers `query` from `state`.
///
/// # Errors
///
/// [`ApplyFault`] when this node cannot tell; it must stop.
pub fn answer(state: &impl StateRead, query: &Query) -> Result<Answer, ApplyFault> {
    Ok(match query {
        Query::Status { user, device } => Answer::Status(status(state, user, *device)?),
        Query::User { user } => Answer::User(user_view(state, user)?),
        Query::Peek { user, devices } => Answer::Peek(peek(state, user, devices.as_deref())?),
        Query::Summary { user, device } => Answer::Summary(summary(state, user, *device)?),
    })
}

/// Where the shard's records come from.
///
/// # Errors
///
/// [`ApplyFault`] when this node cannot tell; it must stop.
pub fn origin(state: &impl StateRead) -> Result<Origin, ApplyFault> {
    Ok(read(state, &MetaKey)?.map_or(Origin::New, |meta| meta.origin))
}

/// SHA-256 over a signed prekey and the pool, for a device to compare with its own keys.
///
/// `SHA-256(lp("Oncekey v1 pool") ‖ u32 id ‖ lp(key) ‖ u32 n ‖ n × (u32 id ‖ lp(key)))`: first the
/// signed prekey, then the one-time prekeys, oldest first; `lp(x)` is `u16 length ‖ x`, numbers are
/// big-endian. Signatures are left out, so that a device needs nothing but its public keys.
#[must_use]
pub fn pool_digest(signed_prekey: &SignedPreKey, pool: &[OneTimePreKey]) -> [u8; 32] {
    digest::pool(signed_prekey, pool)
}

fn status(
    state: &impl StateRead,
    user: &UserId,
    device: DeviceId,
) -> Result<Option<DeviceStatus>, ApplyFault> {
    let account = account(state, user)?;
    let Some(cursor) = account.and_then(|account| account.cursor(device)) else { return Ok(None) };
    let record = self::device(state, user, device)?;
    let pool = pool(state, user, device, &cursor)?;
    Ok(Some(DeviceStatus {
        registration: record.bundle.registration,
        seq: record.last_tag.seq,
        epoch: origin(state)?.epoch(),
        pool: pool_state(&record, &cursor),
        signed_prekey_accepted: record.signed_prekey_accepted,
        ids: ranges(&pool),
        digest: pool_digest(&record.bundle.signed_prekey, &pool),
    }))
}

fn summary(
    state: &impl StateRead,
    user: &UserId,
    device: DeviceId,
) -> Result<Option<DeviceSummary>, ApplyFault> {
    let Some(account) = account(state, user)? else { return Ok(None) };
    let Some(cursor) = account.cursor(device) else { return Ok(None) };
    let record = self::device(state, user, device)?;
    Ok(Some(DeviceSummary {
        registration: record.bundle.registration,
        pool: pool_state(&record, &cursor),
        signed_prekey_accepted: record.signed_prekey_accepted,
        device_list_seq: account.list,
    }))
}

fn user_view(state: &impl StateRead, user: &UserId) -> Result<Option<UserView>, ApplyFault> {
    let Some(account) = account(state, user)? else { return Ok(None) };
    let mut devices = Vec::with_capacity(account.devices.len());
    for &Enrolled { device: id, .. } in &account.devices {
        devices.push(view(id, device(state, user, id)?));
    }
    let device_list = match account.list {
        None => None,
        Some(_) => {
            let list = read(state, &DeviceListKey(user))?;
            Some(list.ok_or_else(|| corrupt(Kind::DeviceList, "record", "is missing"))?)
        }
    };
    Ok(Some(UserView { user: user.clone(), devices, device_list }))
}

fn peek(
    state: &impl StateRead,
    user: &UserId,
    named: Option<&[DeviceId]>,
) -> Result<Option<PeekedBundles>, ApplyFault> {
    let Some(account) = account(state, user)? else { return Ok(None) };
    if named.is_some_and(|named| !named.iter().all(|device| account.has(*device))) {
        return Ok(None);
    }
    let all = || account.devices.iter().map(|enrolled| enrolled.device).collect();
    let mut devices = Vec::with_capacity(account.devices.len());
    for id in named.map_or_else(all, <[_]>::to_vec) {
        let record = device(state, user, id)?;
        let signed_prekey = record.bundle.signed_prekey.clone();
        devices.push((view(id, record), signed_prekey));
    }
    Ok(Some(PeekedBundles { device_list_seq: account.list, devices }))
}

fn view(device: DeviceId, record: Device) -> DeviceView {
    DeviceView {
        device,
        registration: record.bundle.registration,
        identity_key: record.bundle.identity_key,
        authentication_key: record.authentication_key,
        authentication_signature: record.authentication_signature,
    }
}

/// The account of a user with at least one device.
fn account(state: &impl StateRead, user: &UserId) -> Result<Option<Account>, ApplyFault> {
    let account = read(state, &AccountKey(user))?;
    Ok(account.filter(|account| !account.devices.is_empty()))
}

/// A device that its account names.
fn device(state: &impl StateRead, user: &UserId, device: DeviceId) -> Result<Device, ApplyFault> {
    let record = read(state, &DeviceKey(user, device))?;
    Ok(record.ok_or_else(|| corrupt(Kind::Device, "record", "is missing"))?)
}

/// All keys of a pool, oldest first.
pub(crate) fn pool(
    state: &impl StateRead,
    user: &UserId,
    device: DeviceId,
    cursor: &Cursor,
) -> Result<Vec<OneTimePreKey>, ApplyFault> {
    let mut keys = Vec::new();
    let mut offset = cursor.offset;
    for number in cursor.head..cursor.tail {
        let key = LotKey { user, device, number };
        let bytes = state.get(&key.to_bytes())?;
        let bytes = bytes.ok_or_else(|| corrupt(Kind::Lot, "record", "is missing"))?;
        keys.extend(Lot::keys_from(&bytes, offset)?);
        offset = LOT_START;
    }
    check_pool(&keys, cursor)?;
    Ok(keys)
}

fn check_pool(keys: &[OneTimePreKey], cursor: &Cursor) -> Result<(), CorruptRecord> {
    if u32::try_from(keys.len()) != Ok(cursor.count) {
        return Err(corrupt(Kind::Account, "cursor", "does not count the keys"));
    }
    if !keys.is_sorted_by(|a, b| a.id < b.id) {
        return Err(corrupt(Kind::Lot, "ids", "do not grow"));
    }
    if keys.last().is_some_and(|last| Some(last.id) > cursor.highest_accepted) {
        return Err(corrupt(Kind::Account, "cursor", "has a highest id below a key's"));
    }
    Ok(())
}

fn ranges(pool: &[OneTimePreKey]) -> Vec<(OneTimePreKeyId, OneTimePreKeyId)> {
    let mut ranges: Vec<(OneTimePreKeyId, OneTimePreKeyId)> = Vec::new();
    for key in pool {
        match ranges.last_mut() {
            Some((_, last)) if last.0.checked_add(1) == Some(key.id.0) => *last = key.id,
            _ => ranges.push((key.id, key.id)),
        }
    }
    ranges
}

fn read<K: Key>(state: &impl StateRead, key: &K) -> Result<Option<K::Value>, ApplyFault> {
    let value = state.get(&key.to_bytes())?;
    Ok(value.map(|value| K::Value::from_bytes(&value)).transpose()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::generate;

    #[test]
    fn ids_in_the_pool_are_told_as_closed_ranges() {
        let id = OneTimePreKeyId;
        let told = ranges(&generate::keys(&[1, 2, 3, 7, 9, 10]));
        assert_eq!(told, [(id(1), id(3)), (id(7), id(7)), (id(9), id(10))]);
        let end = ranges(&generate::keys(&[u32::MAX - 1, u32::MAX]));
        assert_eq!(end, [(id(u32::MAX - 1), id(u32::MAX))]);
    }
}
