//! A device with real keys, the same in every run.

use std::time::SystemTime;

use oncekey_api::{Base64, device, key, path};
use oncekey_types::{
    DeviceId, Epoch, OneTimePreKeyId, RegistrationId, Seq, SignedPreKeyId, UnixSeconds, UserId,
};
use oncekey_x3dh::{
    Address,
    device_list::{DeviceList, DeviceListHash, FIRST_PREV_HASH, ListedDevice},
    keys::{
        AccountKeyPair, AuthenticationKeyPair, IdentityKeyPair, OneTimePreKeyPair, SignedPreKeyPair,
    },
};
use rand::{SeedableRng as _, rngs::StdRng};
use serde_json::{Value, json};

use super::Request;

/// A device and what it will publish next.
pub(crate) struct Device {
    pub(crate) user: UserId,
    pub(crate) device: DeviceId,
    pub(crate) identity: IdentityKeyPair,
    pub(crate) authentication: AuthenticationKeyPair,
    pub(crate) account: AccountKeyPair,
    pub(crate) next_prekey: u32,
    pub(crate) next_signed_prekey: u32,
    pub(crate) next_seq: u64,
    /// The registration that the next one is to replace.
    pub(crate) registration: Option<RegistrationId>,
    rng: StdRng,
}

impl Device {
    pub(crate) fn new(user: &str, device: u32) -> Self {
        let mut seed = [7; 32];
        seed[..4].copy_from_slice(&device.to_be_bytes());
        let mut rng = StdRng::from_seed(seed);
        Self {
            user: UserId::new(user).unwrap(),
            device: DeviceId(device),
            identity: IdentityKeyPair::generate(&mut rng),
            authentication: AuthenticationKeyPair::generate(&mut rng),
            account: AccountKeyPair::generate(&mut rng),
            next_prekey: 1,
            next_signed_prekey: 1,
            next_seq: 1,
            registration: None,
            rng,
        }
    }

    pub(crate) fn user_path(&self) -> String {
        path::user(&self.user)
    }

    pub(crate) fn bundles_path(&self) -> String {
        path::user_bundles(&self.user)
    }

    pub(crate) fn path(&self, below: &str) -> String {
        format!("{}{below}", path::device(&self.user, self.device))
    }

    pub(crate) fn owner(&self) -> Address {
        Address::new(&self.user, self.device)
    }

    /// A registration with `prekeys` one-time prekeys.
    pub(crate) fn register(&mut self, prekeys: u32) -> Request {
        let public = *self.authentication.public();
        let owner = self.owner();
        let signature = self.identity.sign_authentication_key(&owner, &public, &mut self.rng);
        let body = device::Register {
            seq: self.seq(),
            follows: self.registration,
            identity_key: key::IdentityKey {
                kind: key::IdentityKind::Ed25519,
                key: Base64::from(*self.identity.public().as_bytes()),
            },
            authentication_key: Base64::from(*public.as_bytes()),
            authentication_signature: Base64::from(*signature.as_bytes()),
            signed_prekey: self.signed_prekey(),
            one_time_prekeys: self.prekeys(prekeys),
            device_list: None,
            epoch: Epoch::FIRST,
        };
        Request::json("PUT", self.path(""), &serde_json::to_value(body).unwrap())
    }

    pub(crate) fn rotate(&mut self) -> Request {
        let body = json!({"seq": self.seq(), "signed_prekey": self.signed_prekey()});
        Request::json("PUT", self.path("/signed-prekey"), &body)
    }

    pub(crate) fn add(&mut self, prekeys: u32) -> Request {
        let body = json!({"seq": self.seq(), "one_time_prekeys": self.prekeys(prekeys)});
        Request::json("POST", self.path("/one-time-prekeys"), &body)
    }

    pub(crate) fn seq(&mut self) -> Seq {
        self.next_seq += 1;
        Seq(self.next_seq - 1)
    }

    /// The next signed prekey, valid for a day.
    pub(crate) fn signed_prekey(&mut self) -> key::SignedPreKey {
        let now = now();
        self.signed_prekey_valid(now, UnixSeconds(now.0 + 86_400))
    }

    pub(crate) fn signed_prekey_valid(
        &mut self,
        created: UnixSeconds,
        expires: UnixSeconds,
    ) -> key::SignedPreKey {
        let pair =
            SignedPreKeyPair::generate(SignedPreKeyId(self.next_signed_prekey), &mut self.rng);
        self.next_signed_prekey += 1;
        let signed = pair.sign(&self.identity, &self.owner(), created, expires, &mut self.rng);
        key::SignedPreKey {
            id: signed.id,
            key: Base64::from(*signed.key.as_bytes()),
            created,
            expires,
            signature: Base64::from(*signed.signature.as_bytes()),
        }
    }

    /// The next one-time prekeys.
    pub(crate) fn prekeys(&mut self, number: u32) -> Vec<key::OneTimePreKey> {
        let first = self.next_prekey;
        self.next_prekey += number;
        (first..first + number).map(|id| self.prekey(id)).collect()
    }

    pub(crate) fn prekey(&mut self, id: u32) -> key::OneTimePreKey {
        let pair = OneTimePreKeyPair::generate(OneTimePreKeyId(id), &mut self.rng);
        let signed = pair.sign(&self.identity, &self.owner(), &mut self.rng);
        key::OneTimePreKey {
            id: signed.id,
            key: Base64::from(*signed.key.as_bytes()),
            signature: Base64::from(*signed.signature.as_bytes()),
        }
    }

    /// The first device list of this device's user, naming this device.
    pub(crate) fn first_device_list(&self) -> (Value, DeviceListHash) {
        self.device_list(Seq(1), FIRST_PREV_HASH)
    }

    pub(crate) fn device_list(
        &self,
        seq: Seq,
        prev_hash: DeviceListHash,
    ) -> (Value, DeviceListHash) {
        let listed = ListedDevice {
            device: self.device,
            identity: *self.identity.public(),
            authentication: *self.authentication.public(),
            added_at: now(),
        };
        let list = DeviceList::new(&self.owner(), seq, prev_hash, vec![listed]).unwrap();
        let wire = key::DeviceList {
            account_key: Base64::from(*self.account.public().as_bytes()),
            list: Base64(list.to_bytes()),
            signature: Base64::from(*list.sign(&self.account).as_bytes()),
        };
        (serde_json::to_value(wire).unwrap(), list.hash())
    }
}

pub(crate) fn now() -> UnixSeconds {
    UnixSeconds(SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs())
}
