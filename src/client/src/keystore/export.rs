//! The backup of an identity.
//!
//! ```text
//! export = "Oncekey export" ‖ u8 version = 1 ‖ box (see `lock`)
//! secret = lp(user) ‖ u32 device ‖ IK[32] ‖ AK[32] ‖ (0x01 ‖ UK[32] | 0x00)
//!        ‖ u64 seq ‖ u32 highest SPK id ‖ u32 highest OPK id
//!        ‖ u32 count × (lp(user) ‖ u32 device ‖ pinned IK[33])
//!        ‖ u32 count × (lp(user) ‖ UK[32] ‖ lp(list) ‖ signature[64])
//!        ‖ u32 count × (u64 id ‖ u64 noticed_ms ‖ u8 answer ‖ lp(change))
//! ```
//!
//! Guarantees: holds who the device is and whom it trusts, and no prekey, no session and no
//! handshake that was accepted. A device that comes back from it cannot open what was sent to its
//! old prekeys: it has forgotten which of them are used, so anything of that could be a replay.
//!
//! What an export adds to the ways of an attacker:
//!
//! * Whoever opens it *is* the device from then on: publishes prekeys under its identity, reads
//!   and sends as it, and signs device lists when it held the account key. Peers notice nothing.
//!   The owner's device notices that the server has writes that are not its own
//!   ([`WriteError::StoreIsOld`](crate::WriteError::StoreIsOld)), unless the server lies.
//! * It can be guessed at for ever, out of reach of any limit on attempts: its strength is that of
//!   the passphrase alone.
//! * It cannot be called back. A changed passphrase does not change copies that exist; the answer
//!   to a stolen export is a new identity, and a device list without the old one.
//! * It does not open messages of the past: each took a prekey's secret that is not in it.
//! * Its length tells about how many peers there are.
//!
//! Leaves out: the recovery of messages.

use oncekey_api::key::DeviceList as WireList;
use oncekey_types::{DeviceId, OneTimePreKeyId, Seq, SignedPreKeyId, TimestampMs, UserId, limits};
use oncekey_x3dh::{
    Address,
    keys::{AccountKeyPair, AuthenticationKeyPair, IdentityKeyPair, IdentityPublic},
};
use zeroize::Zeroizing;

use super::{
    Error, address_of,
    change::{decode, encode},
    lock::{Label, Unlock, lock, unlock},
};
use crate::{
    machine::{Device, PinnedDeviceList},
    trust::{Answer, TrustEvent, TrustEventId},
};

const MAGIC: &[u8] = b"Oncekey export";
const VERSION: u8 = 1;
const EXPORT: &str = "export";

/// What of a device may leave it in a backup.
pub struct Export {
    /// The device with its long-term secrets.
    pub device: Device,
    /// Number of the last write.
    pub seq: Seq,
    /// Highest signed prekey id ever made or heard of.
    pub highest_signed_prekey: SignedPreKeyId,
    /// Highest one-time prekey id ever made or heard of.
    pub highest_one_time_prekey: OneTimePreKeyId,
    /// Pinned identity keys.
    pub identities: Vec<(Address, IdentityPublic)>,
    /// Pinned device lists.
    pub device_lists: Vec<(UserId, PinnedDeviceList)>,
    /// Changes of trust with their answers.
    pub trust_events: Vec<(TrustEvent, Option<Answer>)>,
}

impl std::fmt::Debug for Export {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Export").field("device", &self.device).finish_non_exhaustive()
    }
}

impl Export {
    /// The bytes to keep elsewhere, locked; see the [type](Self).
    ///
    /// # Errors
    ///
    /// [`Error::Damaged`] when the device's identity has no seed.
    pub fn to_bytes(&self, with: &Unlock) -> Result<Vec<u8>, Error> {
        let secret = self.encode()?;
        let mut bytes = MAGIC.to_vec();
        bytes.push(VERSION);
        bytes.extend_from_slice(&lock(with, Label::Export, &secret)?);
        Ok(bytes)
    }

    /// Opens what [`to_bytes`](Self::to_bytes) gave.
    ///
    /// # Errors
    ///
    /// [`Error::Locked`] with another passphrase or key, [`Error::Damaged`] when the bytes are not
    /// an export, [`Error::Version`] when they are of a later version.
    pub fn from_bytes(bytes: &[u8], with: &Unlock) -> Result<Self, Error> {
        let damaged = Error::Damaged { record: EXPORT };
        if bytes.len() > limits::EXPORT_MAX_BYTES {
            return Err(damaged);
        }
        match bytes.strip_prefix(MAGIC).and_then(<[u8]>::split_first) {
            Some((&VERSION, locked)) => decode_secret(&unlock(with, Label::Export, locked)?),
            Some((&found, _)) => {
                Err(Error::Version { found: found.into(), supported: VERSION.into() })
            }
            None => Err(damaged),
        }
    }

    pub(super) fn encode(&self) -> Result<Zeroizing<Vec<u8>>, Error> {
        let device = &self.device;
        let identity = device.identity().to_seed().ok_or(Error::Damaged { record: EXPORT })?;
        // Secrets first, into a buffer that does not grow while they are in it.
        let rest = self.encode_public()?;
        let mut secret = Zeroizing::new(Vec::with_capacity(512 + rest.len()));
        put_lp(&mut secret, device.user().as_bytes())?;
        secret.extend_from_slice(&device.address().device().0.to_be_bytes());
        secret.extend_from_slice(&*identity);
        secret.extend_from_slice(&*device.authentication().to_seed());
        match device.account() {
            Some(account) => {
                secret.push(1);
                secret.extend_from_slice(&*account.to_seed());
            }
            None => secret.push(0),
        }
        secret.extend_from_slice(&rest);
        Ok(secret)
    }

    fn encode_public(&self) -> Result<Vec<u8>, Error> {
        let mut bytes = Vec::new();
        bytes.extend_from_slice(&self.seq.0.to_be_bytes());
        bytes.extend_from_slice(&self.highest_signed_prekey.0.to_be_bytes());
        bytes.extend_from_slice(&self.highest_one_time_prekey.0.to_be_bytes());
        put_count(&mut bytes, self.identities.len())?;
        for (peer, identity) in &self.identities {
            put_lp(&mut bytes, peer.user())?;
            bytes.extend_from_slice(&peer.device().0.to_be_bytes());
            bytes.extend_from_slice(&identity.to_tagged_bytes());
        }
        put_count(&mut bytes, self.device_lists.len())?;
        for (user, list) in &self.device_lists {
            let wire = list.to_wire();
            put_lp(&mut bytes, user.as_bytes())?;
            bytes.extend_from_slice(&wire.account_key.0);
            put_lp(&mut bytes, &wire.list.0)?;
            bytes.extend_from_slice(&wire.signature.0);
        }
        put_count(&mut bytes, self.trust_events.len())?;
        for (event, answer) in &self.trust_events {
            bytes.extend_from_slice(&event.id.0.to_be_bytes());
            bytes.extend_from_slice(&event.noticed.0.to_be_bytes());
            bytes.push(answer.map_or(0, |answer| answer as u8));
            put_lp(&mut bytes, &encode(&event.change)?)?;
        }
        Ok(bytes)
    }
}

pub(super) fn decode_secret(secret: &[u8]) -> Result<Export, Error> {
    let damaged = || Error::Damaged { record: EXPORT };
    let mut from = Fields(secret);
    let user = from.user()?;
    let number = DeviceId(u32::from_be_bytes(from.array()?));
    let identity = IdentityKeyPair::from_seed(&Zeroizing::new(from.array()?));
    let authentication = AuthenticationKeyPair::from_seed(&Zeroizing::new(from.array()?));
    let account = match from.array()? {
        [0] => None,
        [1] => Some(AccountKeyPair::from_seed(&Zeroizing::new(from.array()?))),
        _ => return Err(damaged()),
    };
    let mut export = Export {
        device: Device::from_keys(user, number, identity, authentication, account),
        seq: Seq(u64::from_be_bytes(from.array()?)),
        highest_signed_prekey: SignedPreKeyId(u32::from_be_bytes(from.array()?)),
        highest_one_time_prekey: OneTimePreKeyId(u32::from_be_bytes(from.array()?)),
        identities: Vec::new(),
        device_lists: Vec::new(),
        trust_events: Vec::new(),
    };
    for _ in 0..u32::from_be_bytes(from.array()?) {
        let peer = address_of(from.lp()?, u32::from_be_bytes(from.array()?))?;
        let identity = IdentityPublic::from_tagged_bytes(&from.array::<33>()?);
        export.identities.push((peer, identity.map_err(|_| damaged())?));
    }
    for _ in 0..u32::from_be_bytes(from.array()?) {
        let user = from.user()?;
        let wire = WireList {
            account_key: from.array::<32>()?.into(),
            list: from.lp()?.to_vec().into(),
            signature: from.array::<64>()?.into(),
        };
        let list = PinnedDeviceList::from_wire(&wire, &user).map_err(|_| damaged())?;
        export.device_lists.push((user, list));
    }
    for _ in 0..u32::from_be_bytes(from.array()?) {
        let id = TrustEventId(u64::from_be_bytes(from.array()?));
        let noticed = TimestampMs(u64::from_be_bytes(from.array()?));
        let answer = match from.array()? {
            [0] => None,
            [number] => Some(Answer::from_number(number).ok_or_else(damaged)?),
        };
        export.trust_events.push((TrustEvent { id, noticed, change: decode(from.lp()?)? }, answer));
    }
    match from.0 {
        [] => Ok(export),
        _ => Err(damaged()),
    }
}

fn put_lp(bytes: &mut Vec<u8>, field: &[u8]) -> Result<(), Error> {
    let len = u16::try_from(field.len()).map_err(|_| Error::Damaged { record: EXPORT })?;
    bytes.extend_from_slice(&len.to_be_bytes());
    bytes.extend_from_slice(field);
    Ok(())
}

fn put_count(bytes: &mut Vec<u8>, count: usize) -> Result<(), Error> {
    let count = u32::try_from(count).map_err(|_| Error::Damaged { record: EXPORT })?;
    bytes.extend_from_slice(&count.to_be_bytes());
    Ok(())
}

/// Takes fields from the front of a slice.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn array<const N: usize>(&mut self) -> Result<[u8; N], Error> {
        let (head, rest) = self.0.split_first_chunk().ok_or(Error::Damaged { record: EXPORT })?;
        self.0 = rest;
        Ok(*head)
    }

    fn lp(&mut self) -> Result<&'a [u8], Error> {
        let len = usize::from(u16::from_be_bytes(self.array()?));
        let (head, rest) = self.0.split_at_checked(len).ok_or(Error::Damaged { record: EXPORT })?;
        self.0 = rest;
        Ok(head)
    }

    fn user(&mut self) -> Result<UserId, Error> {
        std::str::from_utf8(self.lp()?)
            .ok()
            .and_then(|name| UserId::new(name).ok())
            .ok_or(Error::Damaged { record: EXPORT })
    }
}
