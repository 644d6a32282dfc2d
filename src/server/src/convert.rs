//! From the state machine's answers to wire types.
//!
//! Guarantees: nothing is added and nothing is lost. Leaves out: refusals; see
//! [`reply`](crate::reply).

use oncekey_api::{
    Base64, bundle, device,
    key::{DeviceList, IdentityKey, IdentityKind, OneTimePreKey, SignedPreKey},
    user,
};
use oncekey_store::{command, outcome};
use oncekey_types::{TimestampMs, UserId};

/// A fetch as it was committed.
pub(crate) fn dispensed(user: UserId, dispensed: outcome::Dispensed) -> bundle::Fetched {
    bundle::Fetched {
        user,
        device_list_seq: dispensed.device_list_seq,
        bundles: dispensed.bundles.into_iter().map(issued_bundle).collect(),
        repeated: dispensed.repeated,
        as_of: None,
    }
}

/// A fetch as a replica answers it alone, with what it has of the log up to `as_of`.
pub(crate) fn peeked(
    user: UserId,
    peeked: outcome::PeekedBundles,
    as_of: TimestampMs,
) -> bundle::Fetched {
    let bundles = peeked.devices.into_iter().map(|(view, prekey)| bundle::Bundle {
        device: view.device,
        registration: view.registration,
        identity_key: identity_key(view.identity_key),
        signed_prekey: signed_prekey(prekey),
        one_time_prekey: None,
        one_time_prekey_status: bundle::OneTimePreKeyStatus::Unavailable,
    });
    bundle::Fetched {
        user,
        device_list_seq: peeked.device_list_seq,
        bundles: bundles.collect(),
        repeated: false,
        as_of: Some(as_of),
    }
}

fn issued_bundle(given: outcome::Bundle) -> bundle::Bundle {
    use bundle::OneTimePreKeyStatus as Status;
    let (one_time_prekey, one_time_prekey_status) = match given.one_time_prekey {
        outcome::Issue::Issued(prekey) => (Some(one_time_prekey(prekey)), Status::Issued),
        outcome::Issue::Exhausted => (None, Status::Exhausted),
        outcome::Issue::Withheld => (None, Status::Withheld),
    };
    bundle::Bundle {
        device: given.device,
        registration: given.registration,
        identity_key: identity_key(given.identity_key),
        signed_prekey: signed_prekey(given.signed_prekey),
        one_time_prekey,
        one_time_prekey_status,
    }
}

/// A pool, with the watermark that this node is configured for.
pub(crate) fn pool(pool: outcome::PoolState, low_watermark: u32) -> device::Pool {
    device::Pool {
        count: pool.count,
        low_watermark,
        signed_prekey: pool.signed_prekey,
        highest_accepted: pool.highest_accepted,
    }
}

/// A device's status at the time `now`.
pub(crate) fn status(
    status: outcome::DeviceStatus,
    low_watermark: u32,
    now: TimestampMs,
) -> device::Status {
    let age = now.since(status.signed_prekey_accepted);
    device::Status {
        registration: status.registration,
        seq: status.seq,
        epoch: status.epoch,
        pool: pool(status.pool, low_watermark),
        signed_prekey_age_ms: u64::try_from(age.as_millis()).unwrap_or(u64::MAX),
        ids: status.ids,
        digest: status.digest.into(),
    }
}

/// A user, with the age of the data when this node answers alone.
pub(crate) fn user(view: outcome::UserView, as_of: Option<TimestampMs>) -> user::User {
    let devices = view.devices.into_iter().map(|view| user::Device {
        device: view.device,
        registration: view.registration,
        identity_key: identity_key(view.identity_key),
        authentication_key: Base64(view.authentication_key.0),
        authentication_signature: Base64(view.authentication_signature.0),
    });
    user::User {
        user: view.user,
        devices: devices.collect(),
        device_list: view.device_list.map(device_list),
        as_of,
    }
}

fn device_list(list: command::DeviceList) -> DeviceList {
    DeviceList {
        account_key: Base64(list.account_key.0),
        list: Base64(list.bytes),
        signature: Base64(list.signature.0),
    }
}

fn identity_key(key: command::IdentityKey) -> IdentityKey {
    // Kinds are checked before they are stored; 1 and 2 are all there are.
    let kind = if key.kind == 2 { IdentityKind::Curve25519 } else { IdentityKind::Ed25519 };
    IdentityKey { kind, key: Base64(key.key.0) }
}

fn signed_prekey(key: command::SignedPreKey) -> SignedPreKey {
    SignedPreKey {
        id: key.id,
        key: Base64(key.key.0),
        created: key.created,
        expires: key.expires,
        signature: Base64(key.signature.0),
    }
}

fn one_time_prekey(key: command::OneTimePreKey) -> OneTimePreKey {
    OneTimePreKey { id: key.id, key: Base64(key.key.0), signature: Base64(key.signature.0) }
}
