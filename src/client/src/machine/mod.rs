//! The device as a pure machine: intents in, writes out; replies in, what to store out.
//!
//! ```text
//! intent ── Device::register | rotate | replenish | remove ──▶ Staged ── store ──▶ send
//! reply  ── PendingWrite::refused | Settled ──▶ store
//! ```
//!
//! Guarantees: no clock, generator, storage or network of its own. A write gets the next sequence
//! number and its keys get ids above every id this device ever made or heard of. It names the epoch
//! that its keys are made for. What a write
//! publishes is in its [`Staged`], so that the secrets are stored before the keys are out.
//!
//! Leaves out: the order of storing and sending, which the [`Client`](crate::Client) keeps.

mod device_list;
pub mod pool_plan;
mod resync;

use std::sync::Arc;

use oncekey_api::{
    device::{AddOneTimePreKeys, Register, ReplaceSignedPreKey},
    key::DeviceList,
    path,
};
use oncekey_types::{
    DeviceId, OneTimePreKeyId, RegistrationId, Seq, SignedPreKeyId, TimestampMs, UnixSeconds,
    UserId, limits,
};
use oncekey_x3dh::{
    Address, LocalDevice,
    keys::{
        AccountKeyPair, AuthenticationKeyPair, IdentityKeyPair, OneTimePreKeyPair, SignedPreKeyPair,
    },
};
use rand_core::CryptoRng;

pub use device_list::{DeviceListRefused, ListChange, PinnedDeviceList};
pub use pool_plan::{Demand, PoolPlan, Working};
pub use resync::{Refusal, is_plausible, refused};

use crate::{
    keystore::{DeviceState, HeldSignedPreKey, PendingWrite, Staged, WriteKind},
    signer::Signer,
    wire,
};

/// How long keys live, in seconds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Lifetimes {
    /// Age at which a device that is online replaces its signed prekey.
    pub rotate_after_s: u64,
    /// How long a signed prekey is signed as valid.
    pub valid_for_s: u64,
    /// How long the secret of a signed prekey is kept after it was replaced.
    pub retain_for_s: u64,
}

const DAY_S: u64 = 24 * 60 * 60;

impl Default for Lifetimes {
    /// 7 days, 90 days, 30 days.
    fn default() -> Self {
        Self { rotate_after_s: 7 * DAY_S, valid_for_s: 90 * DAY_S, retain_for_s: 30 * DAY_S }
    }
}

impl Lifetimes {
    /// Signed prekeys that were replaced at or before this time are no longer accepted at `now`.
    #[must_use]
    pub fn replaced_until(&self, now: TimestampMs) -> TimestampMs {
        TimestampMs(now.0.saturating_sub(self.retain_for_s.saturating_mul(1000)))
    }

    /// Whether the secret of `spk` may still be used at `now`.
    #[must_use]
    pub fn is_retained(&self, spk: &HeldSignedPreKey, now: TimestampMs) -> bool {
        spk.replaced.is_none_or(|replaced| replaced > self.replaced_until(now))
    }

    /// Whether a device that is online should replace `spk` at `now`.
    #[must_use]
    pub fn is_due(&self, spk: &HeldSignedPreKey, now: TimestampMs) -> bool {
        now.to_seconds().0 >= spk.created.0.saturating_add(self.rotate_after_s)
    }
}

/// Why a write could not be made.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PlanError {
    /// No one-time prekeys, or more than fit one upload.
    #[error("{count} one-time prekeys in one upload, allowed are 1 to {limit}")]
    UploadSize {
        /// The number asked for.
        count: usize,
        /// The most that fit.
        limit: usize,
    },
    /// Ids or sequence numbers have reached their greatest value.
    #[error("the ids of this device are used up; register another device")]
    IdsExhausted,
    /// The body could not be written.
    #[error("the request could not be encoded")]
    Encoding,
}

/// A device with its long-term secrets. Never changes.
pub struct Device {
    user: UserId,
    address: Address,
    identity: IdentityKeyPair,
    authentication: Arc<AuthenticationKeyPair>,
    account: Option<AccountKeyPair>,
}

impl Device {
    /// A new device with a new identity. Give it the user's `account` key if this device may
    /// change the user's device list.
    #[must_use]
    pub fn generate<R: CryptoRng + ?Sized>(
        user: UserId,
        device: DeviceId,
        account: Option<AccountKeyPair>,
        rng: &mut R,
    ) -> Self {
        let identity = IdentityKeyPair::generate(rng);
        let authentication = AuthenticationKeyPair::generate(rng);
        Self::from_keys(user, device, identity, authentication, account)
    }

    /// The device of stored keys.
    #[must_use]
    pub fn from_keys(
        user: UserId,
        device: DeviceId,
        identity: IdentityKeyPair,
        authentication: AuthenticationKeyPair,
        account: Option<AccountKeyPair>,
    ) -> Self {
        let address = Address::new(&user, device);
        let authentication = Arc::new(authentication);
        Self { user, address, identity, authentication, account }
    }

    /// The user it belongs to.
    #[must_use]
    pub fn user(&self) -> &UserId {
        &self.user
    }

    /// Its address.
    #[must_use]
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// Its identity key pair (IK).
    #[must_use]
    pub fn identity(&self) -> &IdentityKeyPair {
        &self.identity
    }

    /// Its authentication key pair (AK).
    #[must_use]
    pub fn authentication(&self) -> &AuthenticationKeyPair {
        &self.authentication
    }

    /// Signs the attempts of a call that is made at the time `made`.
    #[must_use]
    pub fn signer(&self, made: TimestampMs) -> Signer {
        let key_id = path::key_id(&self.user, self.address.device());
        Signer::new(key_id, Arc::clone(&self.authentication), made)
    }

    /// The user's account key pair (UK), if this device has it.
    #[must_use]
    pub fn account(&self) -> Option<&AccountKeyPair> {
        self.account.as_ref()
    }

    /// This device's half of a handshake.
    #[must_use]
    pub fn local(&self) -> LocalDevice<'_> {
        LocalDevice { address: &self.address, identity: &self.identity }
    }

    /// Registers the device with a new signed prekey and up to
    /// [`UPLOAD_MAX`](limits::UPLOAD_MAX) one-time prekeys, in the place of the registration that it
    /// `follows`, if there is one.
    ///
    /// # Errors
    ///
    /// A [`PlanError`].
    pub fn register<R: CryptoRng + ?Sized>(
        &self,
        state: &DeviceState,
        follows: Option<RegistrationId>,
        one_time_prekeys: usize,
        device_list: Option<DeviceList>,
        at: Signing<'_, R>,
    ) -> Result<Staged, PlanError> {
        let Signing { now, lifetimes, rng } = at;
        let seq = next_seq(state)?;
        let pairs = self.one_time_prekeys(state, one_time_prekeys, rng)?;
        let spk = new_signed_prekey(state, now, lifetimes, rng)?;
        let signature =
            self.identity.sign_authentication_key(&self.address, self.authentication.public(), rng);
        let body = serde_json::to_vec(&Register {
            seq,
            follows,
            identity_key: wire::identity(self.identity.public()),
            authentication_key: (*self.authentication.public().as_bytes()).into(),
            authentication_signature: (*signature.as_bytes()).into(),
            signed_prekey: self.sign_signed_prekey(&spk, rng),
            one_time_prekeys: self.sign_one_time_prekeys(&pairs, rng),
            device_list,
            epoch: state.epoch,
        });
        staged(state, WriteKind::Register, seq, body, Some(spk), pairs)
    }

    /// Replaces the signed prekey.
    ///
    /// # Errors
    ///
    /// A [`PlanError`].
    pub fn rotate<R: CryptoRng + ?Sized>(
        &self,
        state: &DeviceState,
        at: Signing<'_, R>,
    ) -> Result<Staged, PlanError> {
        let Signing { now, lifetimes, rng } = at;
        let seq = next_seq(state)?;
        let spk = new_signed_prekey(state, now, lifetimes, rng)?;
        let body = serde_json::to_vec(&ReplaceSignedPreKey {
            seq,
            signed_prekey: self.sign_signed_prekey(&spk, rng),
            epoch: state.epoch,
        });
        staged(state, WriteKind::Rotate, seq, body, Some(spk), Vec::new())
    }

    /// Adds 1 to [`UPLOAD_MAX`](limits::UPLOAD_MAX) one-time prekeys.
    ///
    /// # Errors
    ///
    /// A [`PlanError`].
    pub fn replenish<R: CryptoRng + ?Sized>(
        &self,
        state: &DeviceState,
        one_time_prekeys: usize,
        rng: &mut R,
    ) -> Result<Staged, PlanError> {
        if one_time_prekeys == 0 {
            return Err(PlanError::UploadSize { count: 0, limit: limits::UPLOAD_MAX });
        }
        let seq = next_seq(state)?;
        let pairs = self.one_time_prekeys(state, one_time_prekeys, rng)?;
        let body = serde_json::to_vec(&AddOneTimePreKeys {
            seq,
            one_time_prekeys: self.sign_one_time_prekeys(&pairs, rng),
            epoch: state.epoch,
        });
        staged(state, WriteKind::Replenish, seq, body, None, pairs)
    }

    /// Removes the device and its public keys from the servers.
    ///
    /// # Errors
    ///
    /// A [`PlanError`].
    pub fn remove(&self, state: &DeviceState) -> Result<Staged, PlanError> {
        let seq = next_seq(state)?;
        staged(state, WriteKind::Remove, seq, Ok(Vec::new()), None, Vec::new())
    }

    fn one_time_prekeys<R: CryptoRng + ?Sized>(
        &self,
        state: &DeviceState,
        count: usize,
        rng: &mut R,
    ) -> Result<Vec<OneTimePreKeyPair>, PlanError> {
        if count > limits::UPLOAD_MAX {
            return Err(PlanError::UploadSize { count, limit: limits::UPLOAD_MAX });
        }
        let mut id = state.highest_one_time_prekey;
        let mut pairs = Vec::with_capacity(count);
        for _ in 0..count {
            id = OneTimePreKeyId(id.0.checked_add(1).ok_or(PlanError::IdsExhausted)?);
            pairs.push(OneTimePreKeyPair::generate(id, rng));
        }
        Ok(pairs)
    }

    fn sign_signed_prekey<R: CryptoRng + ?Sized>(
        &self,
        spk: &HeldSignedPreKey,
        rng: &mut R,
    ) -> oncekey_api::key::SignedPreKey {
        let signed = spk.pair.sign(&self.identity, &self.address, spk.created, spk.expires, rng);
        wire::signed_prekey(&signed)
    }

    fn sign_one_time_prekeys<R: CryptoRng + ?Sized>(
        &self,
        pairs: &[OneTimePreKeyPair],
        rng: &mut R,
    ) -> Vec<oncekey_api::key::OneTimePreKey> {
        pairs
            .iter()
            .map(|pair| wire::one_time_prekey(&pair.sign(&self.identity, &self.address, rng)))
            .collect()
    }
}

impl std::fmt::Debug for Device {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Device").field("device", &self.address.device()).finish_non_exhaustive()
    }
}

/// What making and signing a key takes besides the device.
pub struct Signing<'a, R: ?Sized> {
    /// The time.
    pub now: TimestampMs,
    /// How long keys live.
    pub lifetimes: &'a Lifetimes,
    /// The generator.
    pub rng: &'a mut R,
}

fn next_seq(state: &DeviceState) -> Result<Seq, PlanError> {
    // Stores and other languages keep numbers in 63 bits.
    match state.seq.0.checked_add(1) {
        Some(next) if next < u64::MAX >> 1 => Ok(Seq(next)),
        _ => Err(PlanError::IdsExhausted),
    }
}

fn new_signed_prekey<R: CryptoRng + ?Sized>(
    state: &DeviceState,
    now: TimestampMs,
    lifetimes: &Lifetimes,
    rng: &mut R,
) -> Result<HeldSignedPreKey, PlanError> {
    let id = state.highest_signed_prekey.0.checked_add(1).ok_or(PlanError::IdsExhausted)?;
    let created = now.to_seconds();
    Ok(HeldSignedPreKey {
        pair: SignedPreKeyPair::generate(SignedPreKeyId(id), rng),
        created,
        expires: UnixSeconds(created.0.saturating_add(lifetimes.valid_for_s)),
        replaced: None,
    })
}

fn staged(
    state: &DeviceState,
    kind: WriteKind,
    seq: Seq,
    body: serde_json::Result<Vec<u8>>,
    signed_prekey: Option<HeldSignedPreKey>,
    one_time_prekeys: Vec<OneTimePreKeyPair>,
) -> Result<Staged, PlanError> {
    Ok(Staged {
        after: state.seq,
        write: PendingWrite {
            seq,
            kind,
            signed_prekey: signed_prekey.as_ref().map(|spk| spk.pair.id()),
            body: body.map_err(|_| PlanError::Encoding)?,
        },
        signed_prekey,
        one_time_prekeys,
    })
}

#[cfg(test)]
mod tests;
