//! What is checked before anything is proposed: points, signatures, times and order.
//!
//! Guarantees: a command made here carries keys whose points are canonical and of full order,
//! signed by the identity key of their owner (a device list: by its account key). The state
//! machine takes them as opaque bytes. A problem names the part to blame as a JSON pointer.
//!
//! Leaves out: what only the state knows: whether ids and lists continue what was accepted, and
//! whether a pool has room.

use std::collections::BTreeSet;

use oncekey_api::{Code, Problem, device, key, problem::Members};
use oncekey_store::command;
use oncekey_types::{OneTimePreKeyId, UnixSeconds, UserId, limits};
use oncekey_x3dh::{
    Address,
    device_list::{DeviceList, DeviceListError},
    keys::{
        AccountPublic, AuthenticationPublic, IdentityKind, IdentityPublic, KeyError,
        OneTimePreKeyPublic, Signature, SignedPreKeyPublic,
    },
    prekey::{OneTimePreKey, SignedPreKey},
};

use crate::auth::DeviceAuthority;

/// Checks a registration at the time `now`.
pub(crate) fn register(
    authority: &DeviceAuthority,
    digest: [u8; 32],
    body: device::Register,
    now: UnixSeconds,
) -> Result<command::Register, Problem> {
    let owner = Address::new(&authority.user, authority.device);
    let identity = identity(&body.identity_key)?;
    let authentication = AuthenticationPublic::from_bytes(&body.authentication_key.0)
        .map_err(|error| bad_key("/authentication_key", error))?;
    let signature = signature("/authentication_signature", &body.authentication_signature.0)?;
    identity
        .verify_authentication_key(&owner, &authentication, &signature)
        .map_err(|_| bad_signature("/authentication_signature"))?;
    Ok(command::Register {
        signed_prekey: signed_prekey(&owner, &identity, body.signed_prekey, now)?,
        one_time_prekeys: one_time_prekeys(&owner, &identity, body.one_time_prekeys)?,
        device_list: body
            .device_list
            .map(|list| device_list(&authority.user, list, "/device_list"))
            .transpose()?,
        user: authority.user.clone(),
        device: authority.device,
        tag: command::WriteTag { seq: body.seq, digest },
        follows: body.follows.into(),
        identity_key: command::IdentityKey {
            kind: identity.kind().tag(),
            key: command::KeyBytes(body.identity_key.key.0),
        },
        authentication_key: command::KeyBytes(body.authentication_key.0),
        authentication_signature: command::KeyBytes(body.authentication_signature.0),
        epoch: body.epoch,
    })
}

/// Checks a signed prekey at the time `now`.
pub(crate) fn signed_prekey(
    owner: &Address,
    identity: &IdentityPublic,
    given: key::SignedPreKey,
    now: UnixSeconds,
) -> Result<command::SignedPreKey, Problem> {
    if given.expires <= now || given.expires <= given.created {
        let detail = "the signed prekey must expire after it was made, and not yet";
        return Err(Problem::with(Code::InvalidValidity, detail, at("/signed_prekey/expires")));
    }
    let parsed = SignedPreKey {
        id: given.id,
        key: SignedPreKeyPublic::from_bytes(&given.key.0)
            .map_err(|error| bad_key("/signed_prekey/key", error))?,
        created: given.created,
        expires: given.expires,
        signature: signature("/signed_prekey/signature", &given.signature.0)?,
    };
    parsed.verify(identity, owner).map_err(|_| bad_signature("/signed_prekey/signature"))?;
    Ok(command::SignedPreKey {
        id: given.id,
        key: command::KeyBytes(given.key.0),
        created: given.created,
        expires: given.expires,
        signature: command::KeyBytes(given.signature.0),
    })
}

/// Checks one-time prekeys: few enough, ids growing, no key twice, each signed.
pub(crate) fn one_time_prekeys(
    owner: &Address,
    identity: &IdentityPublic,
    given: Vec<key::OneTimePreKey>,
) -> Result<Vec<command::OneTimePreKey>, Problem> {
    growing_and_distinct(&given)?;
    given
        .into_iter()
        .enumerate()
        .map(|(position, given)| one_time_prekey(owner, identity, given, position))
        .collect()
}

/// The cheap checks, before the first signature is verified.
fn growing_and_distinct(given: &[key::OneTimePreKey]) -> Result<(), Problem> {
    if given.len() > limits::UPLOAD_MAX {
        let detail = format!("{} one-time prekeys in one upload", given.len());
        let members =
            Members { limit: u64::try_from(limits::UPLOAD_MAX).ok(), ..at("/one_time_prekeys") };
        return Err(Problem::with(Code::LimitExceeded, detail, members));
    }
    let conflicts: Vec<OneTimePreKeyId> =
        given.windows(2).filter(|pair| pair[1].id <= pair[0].id).map(|pair| pair[1].id).collect();
    if !conflicts.is_empty() {
        let detail = format!("{} one-time prekey ids do not grow", conflicts.len());
        let members = Members { conflicts, ..at("/one_time_prekeys") };
        return Err(Problem::with(Code::OneTimePreKeyIdsNotGrowing, detail, members));
    }
    let mut seen = BTreeSet::new();
    match given.iter().position(|prekey| !seen.insert(&prekey.key)) {
        None => Ok(()),
        Some(position) => {
            let pointer = format!("/one_time_prekeys/{position}/key");
            Err(Problem::with(Code::InvalidKey, "the key stands twice", at(&pointer)))
        }
    }
}

fn one_time_prekey(
    owner: &Address,
    identity: &IdentityPublic,
    given: key::OneTimePreKey,
    position: usize,
) -> Result<command::OneTimePreKey, Problem> {
    let pointer = |field| format!("/one_time_prekeys/{position}/{field}");
    let parsed = OneTimePreKey {
        id: given.id,
        key: OneTimePreKeyPublic::from_bytes(&given.key.0)
            .map_err(|error| bad_key(&pointer("key"), error))?,
        signature: signature(&pointer("signature"), &given.signature.0)?,
    };
    parsed.verify(identity, owner).map_err(|_| bad_signature(&pointer("signature")))?;
    Ok(command::OneTimePreKey {
        id: given.id,
        key: command::KeyBytes(given.key.0),
        signature: command::KeyBytes(given.signature.0),
    })
}

/// Checks a device list of `user`, which stands at `pointer` in the body.
pub(crate) fn device_list(
    user: &UserId,
    given: key::DeviceList,
    pointer: &str,
) -> Result<command::DeviceList, Problem> {
    let account = AccountPublic::from_bytes(&given.account_key.0)
        .map_err(|error| bad_key(&format!("{pointer}/account_key"), error))?;
    let signature = signature(&format!("{pointer}/signature"), &given.signature.0)?;
    let bad_list = |detail: String| {
        Problem::with(Code::InvalidDeviceList, detail, at(&format!("{pointer}/list")))
    };
    let list = DeviceList::from_bytes(&given.list.0)
        .map_err(|error: DeviceListError| bad_list(error.to_string()))?;
    if list.user() != user.as_bytes() {
        return Err(bad_list("the device list is of another user".to_owned()));
    }
    let verified = list
        .verify(&account, &signature)
        .map_err(|_| bad_signature(&format!("{pointer}/signature")))?;
    let list = verified.list();
    Ok(command::DeviceList {
        seq: list.seq(),
        prev_hash: list.prev_hash().0,
        hash: list.hash().0,
        account_key: command::KeyBytes(given.account_key.0),
        bytes: given.list.0,
        signature: command::KeyBytes(given.signature.0),
    })
}

/// Parses an identity key as the state has it.
pub(crate) fn stored_identity(stored: &command::IdentityKey) -> Result<IdentityPublic, KeyError> {
    IdentityPublic::from_parts(IdentityKind::from_tag(stored.kind)?, &stored.key.0)
}

/// The native profile takes Ed25519 identities only.
fn identity(given: &key::IdentityKey) -> Result<IdentityPublic, Problem> {
    match given.kind {
        key::IdentityKind::Ed25519 => IdentityPublic::from_ed25519(&given.key.0)
            .map_err(|error| bad_key("/identity_key/key", error)),
        key::IdentityKind::Curve25519 => Err(Problem::with(
            Code::InvalidKey,
            "identity keys of kind curve25519 are not taken",
            at("/identity_key/kind"),
        )),
    }
}

fn signature(pointer: &str, bytes: &[u8]) -> Result<Signature, Problem> {
    <[u8; 64]>::try_from(bytes).map(Signature::from_bytes).map_err(|_| {
        let detail = format!("the signature has {} bytes and not 64", bytes.len());
        Problem::with(Code::InvalidSignature, detail, at(pointer))
    })
}

fn bad_key(pointer: &str, error: KeyError) -> Problem {
    Problem::with(Code::InvalidKey, error.to_string(), at(pointer))
}

fn bad_signature(pointer: &str) -> Problem {
    Problem::with(Code::InvalidSignature, "the signature does not verify", at(pointer))
}

fn at(pointer: &str) -> Members {
    Members { pointer: Some(pointer.to_owned()), ..Members::default() }
}
