//! A device with real keys, drawn from the seed.
//!
//! Guarantees: ids and numbers of writes only grow. Leaves out: secrets once a key is published;
//! nobody opens a message here.

use oncekey_api::{
    Base64,
    device::{AddOneTimePreKeys, Register, ReplaceSignedPreKey},
    key,
};
use oncekey_types::{
    DeviceId, Epoch, OneTimePreKeyId, RegistrationId, Seq, SignedPreKeyId, UnixSeconds, UserId,
};
use oncekey_x3dh::{
    Address,
    keys::{AuthenticationKeyPair, IdentityKeyPair, OneTimePreKeyPair, SignedPreKeyPair},
};
use rand::rngs::StdRng;

use crate::node::EPOCH_MS;

/// A device and what it publishes next.
pub(crate) struct Device {
    pub(crate) user: UserId,
    pub(crate) id: DeviceId,
    identity: IdentityKeyPair,
    authentication: AuthenticationKeyPair,
    next_opk: u32,
    next_spk: u32,
    next_seq: u64,
    /// The last registration that was answered.
    pub(crate) registration: Option<RegistrationId>,
    rng: StdRng,
}

impl Device {
    pub(crate) fn new(user: UserId, id: DeviceId, mut rng: StdRng) -> Self {
        Self {
            user,
            id,
            identity: IdentityKeyPair::generate(&mut rng),
            authentication: AuthenticationKeyPair::generate(&mut rng),
            next_opk: 1,
            next_spk: 1,
            next_seq: 1,
            registration: None,
            rng,
        }
    }

    /// A registration with `opks` one-time prekeys.
    pub(crate) fn register(&mut self, opks: u32) -> Register {
        let public = *self.authentication.public();
        let signature =
            self.identity.sign_authentication_key(&self.address(), &public, &mut self.rng);
        Register {
            seq: self.seq(),
            follows: self.registration,
            identity_key: key::IdentityKey {
                kind: key::IdentityKind::Ed25519,
                key: Base64::from(*self.identity.public().as_bytes()),
            },
            authentication_key: Base64::from(*public.as_bytes()),
            authentication_signature: Base64::from(*signature.as_bytes()),
            signed_prekey: self.spk(),
            one_time_prekeys: self.opks(opks),
            device_list: None,
            epoch: Epoch::FIRST,
        }
    }

    /// The same with a new identity, as after the device was set up anew.
    pub(crate) fn register_anew(&mut self, opks: u32) -> Register {
        self.identity = IdentityKeyPair::generate(&mut self.rng);
        self.authentication = AuthenticationKeyPair::generate(&mut self.rng);
        self.register(opks)
    }

    pub(crate) fn add(&mut self, opks: u32) -> AddOneTimePreKeys {
        let one_time_prekeys = self.opks(opks);
        AddOneTimePreKeys { seq: self.seq(), one_time_prekeys, epoch: Epoch::FIRST }
    }

    pub(crate) fn rotate(&mut self) -> ReplaceSignedPreKey {
        let signed_prekey = self.spk();
        ReplaceSignedPreKey { seq: self.seq(), signed_prekey, epoch: Epoch::FIRST }
    }

    fn address(&self) -> Address {
        Address::new(&self.user, self.id)
    }

    fn seq(&mut self) -> Seq {
        self.next_seq += 1;
        Seq(self.next_seq - 1)
    }

    fn spk(&mut self) -> key::SignedPreKey {
        let created = UnixSeconds(EPOCH_MS / 1000);
        // Longer than any run and any clock that is wrong.
        let expires = UnixSeconds(created.0 + 86_400);
        let pair = SignedPreKeyPair::generate(SignedPreKeyId(self.next_spk), &mut self.rng);
        self.next_spk += 1;
        let signed = pair.sign(&self.identity, &self.address(), created, expires, &mut self.rng);
        key::SignedPreKey {
            id: signed.id,
            key: Base64::from(*signed.key.as_bytes()),
            created,
            expires,
            signature: Base64::from(*signed.signature.as_bytes()),
        }
    }

    fn opks(&mut self, number: u32) -> Vec<key::OneTimePreKey> {
        let first = self.next_opk;
        self.next_opk += number;
        (first..self.next_opk).map(|id| self.opk(id)).collect()
    }

    fn opk(&mut self, id: u32) -> key::OneTimePreKey {
        let pair = OneTimePreKeyPair::generate(OneTimePreKeyId(id), &mut self.rng);
        let signed = pair.sign(&self.identity, &self.address(), &mut self.rng);
        key::OneTimePreKey {
            id: signed.id,
            key: Base64::from(*signed.key.as_bytes()),
            signature: Base64::from(*signed.signature.as_bytes()),
        }
    }
}
