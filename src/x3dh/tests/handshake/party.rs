//! Devices with their keys, and the way from a bundle to a delivered message.

use oncekey_types::{DeviceId, OneTimePreKeyId, SignedPreKeyId, UnixSeconds};
use oncekey_x3dh::{
    Address, AppAd, Bundle, Expectations, Failure, LocalDevice, Received,
    initiator::Sealed,
    keys::{IdentityKeyPair, OneTimePreKeyPair, SignedPreKeyPair},
    responder::Accepted,
};
use rand::{SeedableRng, rngs::StdRng};

pub(crate) const CREATED: UnixSeconds = UnixSeconds(1_000);
pub(crate) const NOW: UnixSeconds = UnixSeconds(1_500);
pub(crate) const EXPIRES: UnixSeconds = UnixSeconds(2_000);

/// A device that can start and answer handshakes.
pub(crate) struct Party {
    pub(crate) address: Address,
    pub(crate) identity: IdentityKeyPair,
    pub(crate) spk: SignedPreKeyPair,
    pub(crate) opk: Option<OneTimePreKeyPair>,
    pub(crate) rng: StdRng,
}

pub(crate) fn address(user: &[u8], device: u32) -> Address {
    Address::from_bytes(user, DeviceId(device)).expect("a short name")
}

impl Party {
    /// A device with one one-time prekey; `seed` decides all its keys.
    pub(crate) fn new(user: &str, seed: u64) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        Self {
            address: address(user.as_bytes(), 1),
            identity: IdentityKeyPair::generate(&mut rng),
            spk: SignedPreKeyPair::generate(SignedPreKeyId(7), &mut rng),
            opk: Some(OneTimePreKeyPair::generate(OneTimePreKeyId(41), &mut rng)),
            rng,
        }
    }

    pub(crate) fn local(&self) -> LocalDevice<'_> {
        LocalDevice { address: &self.address, identity: &self.identity }
    }

    /// What a server hands out.
    pub(crate) fn bundle(&mut self) -> Bundle {
        let Self { address, identity, spk, opk, rng } = self;
        Bundle {
            owner: address.clone(),
            identity: *identity.public(),
            signed_prekey: spk.sign(identity, address, CREATED, EXPIRES, rng),
            one_time_prekey: opk.as_ref().map(|opk| opk.sign(identity, address, rng)),
        }
    }

    /// Starts a handshake with whoever owns `bundle`.
    pub(crate) fn start(&mut self, bundle: Bundle, payload: &[u8]) -> Result<Sealed, Failure> {
        let verified = bundle.verify(NOW, &Expectations::default())?;
        let local = LocalDevice { address: &self.address, identity: &self.identity };
        let initiated = verified.initiate(local, AppAd::default(), &mut self.rng)?;
        Ok(initiated.seal(payload).expect("a short payload"))
    }

    /// Answers a message with the prekeys at hand, looked up by the ids that it names.
    pub(crate) fn answer(&self, message: &[u8]) -> Result<Accepted, Failure> {
        let received = Received::parse(message, &self.address)?;
        if received.message().signed_prekey_id() != self.spk.id() {
            return Err(Failure::SpkUnknown);
        }
        let opk = match received.message().one_time_prekey_id() {
            None => None,
            Some(id) => {
                let held = self.opk.as_ref().filter(|opk| opk.id() == id);
                Some(held.ok_or(Failure::OpkMissing)?)
            }
        };
        let opened = received.open(self.local(), &self.spk, opk, AppAd::default())?;
        Ok(opened.accept(&Expectations::default())?)
    }
}
