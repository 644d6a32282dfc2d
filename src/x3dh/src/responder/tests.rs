//! What one altered field does, and what one leaked key does, with access to every field.

use oncekey_types::{DeviceId, UnixSeconds};
use proptest::prelude::*;
use rand::{SeedableRng, rngs::StdRng};

use super::*;
use crate::{
    bundle::Bundle,
    initiator::{self, Sealed},
    keys::{EphemeralKey, EphemeralPublic},
    schedule::InitialKey,
};

struct Device {
    address: Address,
    identity: IdentityKeyPair,
}

impl Device {
    fn new(user: &str, device: u32, rng: &mut StdRng) -> Self {
        let address = Address::from_bytes(user.as_bytes(), DeviceId(device)).unwrap();
        Self { address, identity: IdentityKeyPair::generate(rng) }
    }

    fn local(&self) -> LocalDevice<'_> {
        LocalDevice { address: &self.address, identity: &self.identity }
    }
}

struct Handshake {
    alice: Device,
    bob: Device,
    spk: SignedPreKeyPair,
    opk: Option<OneTimePreKeyPair>,
    bundle: Bundle,
    message: InitialMessage,
    rng: StdRng,
}

const APP_AD: &[u8] = b"application";
const PAYLOAD: &[u8] = b"hello, bob";

impl Handshake {
    fn new(seed: u64, with_opk: bool) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let alice = Device::new("alice", 1, &mut rng);
        let bob = Device::new("bob", 2, &mut rng);
        let spk = SignedPreKeyPair::generate(SignedPreKeyId(7), &mut rng);
        let opk = with_opk.then(|| OneTimePreKeyPair::generate(OneTimePreKeyId(41), &mut rng));
        let times = (UnixSeconds(100), UnixSeconds(200));
        let bundle = Bundle {
            owner: bob.address.clone(),
            identity: *bob.identity.public(),
            signed_prekey: spk.sign(&bob.identity, &bob.address, times.0, times.1, &mut rng),
            one_time_prekey: opk
                .as_ref()
                .map(|opk| opk.sign(&bob.identity, &bob.address, &mut rng)),
        };
        let Sealed { message, .. } = bundle
            .clone()
            .verify(UnixSeconds(150), &Expectations::default())
            .unwrap()
            .initiate(alice.local(), AppAd::new(APP_AD).unwrap(), &mut rng)
            .unwrap()
            .seal(PAYLOAD)
            .unwrap();
        let message = InitialMessage::from_bytes(&message).unwrap();
        Self { alice, bob, spk, opk, bundle, message, rng }
    }

    fn open(self, app_ad: &[u8]) -> Result<Opened, OpenError> {
        let app_ad = AppAd::new(app_ad).unwrap();
        Received(self.message).open(self.bob.local(), &self.spk, self.opk.as_ref(), app_ad)
    }
}

/// The fields of CTX.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Field {
    UserA,
    DevA,
    UserB,
    DevB,
    IkA,
    IkB,
    EkA,
    SpkId,
    SpkB,
    OpkId,
    OpkB,
    OpkPresence,
    AppAd,
}

const FIELDS: [Field; 13] = [
    Field::UserA,
    Field::DevA,
    Field::UserB,
    Field::DevB,
    Field::IkA,
    Field::IkB,
    Field::EkA,
    Field::SpkId,
    Field::SpkB,
    Field::OpkId,
    Field::OpkB,
    Field::OpkPresence,
    Field::AppAd,
];

/// `address` with one byte of the user changed, or one added.
fn renamed(address: &Address, at: usize) -> Address {
    let mut user = address.user().to_vec();
    match user.get_mut(at) {
        Some(byte) => *byte ^= 1,
        None => user.push(b'x'),
    }
    Address::from_bytes(&user, address.device()).unwrap()
}

fn moved(address: &Address, by: u32) -> Address {
    let device = DeviceId(address.device().0.wrapping_add(by));
    Address::from_bytes(address.user(), device).unwrap()
}

/// Bob's view with one field changed and everything else, his keys included, fitting the change.
fn altered(mut handshake: Handshake, field: Field, by: u32) -> Result<Opened, OpenError> {
    let at = usize::try_from(by % 8).unwrap();
    let rng = &mut handshake.rng;
    let mut app_ad = APP_AD.to_vec();
    match field {
        Field::UserA => handshake.message.sender = renamed(&handshake.alice.address, at),
        Field::DevA => handshake.message.sender = moved(&handshake.alice.address, by),
        Field::UserB => {
            handshake.bob.address = renamed(&handshake.bob.address, at);
            handshake.message.recipient = handshake.bob.address.clone();
        }
        Field::DevB => {
            handshake.bob.address = moved(&handshake.bob.address, by);
            handshake.message.recipient = handshake.bob.address.clone();
        }
        Field::IkA => handshake.message.identity = *IdentityKeyPair::generate(rng).public(),
        Field::IkB => handshake.bob.identity = IdentityKeyPair::generate(rng),
        Field::EkA => handshake.message.ephemeral = *EphemeralKey::generate(rng).public(),
        Field::SpkId => {
            let id = SignedPreKeyId(handshake.message.spk_id.0.wrapping_add(by));
            handshake.message.spk_id = id;
            handshake.spk = SignedPreKeyPair::from_secret(id, &handshake.spk.to_secret());
        }
        Field::SpkB => handshake.spk = SignedPreKeyPair::generate(handshake.spk.id(), rng),
        Field::OpkId => {
            let opk = handshake.opk.take().expect("a handshake with a one-time prekey");
            let id = OneTimePreKeyId(opk.id().0.wrapping_add(by));
            handshake.message.opk_id = Some(id);
            handshake.opk = Some(OneTimePreKeyPair::from_secret(id, &opk.to_secret()));
        }
        Field::OpkB => {
            let id = handshake.message.opk_id.expect("a handshake with a one-time prekey");
            handshake.opk = Some(OneTimePreKeyPair::generate(id, rng));
        }
        Field::OpkPresence => {
            handshake.opk = match handshake.opk {
                Some(_) => None,
                None => Some(OneTimePreKeyPair::generate(OneTimePreKeyId(by), rng)),
            };
            handshake.message.opk_id = handshake.opk.as_ref().map(OneTimePreKeyPair::id);
        }
        Field::AppAd => match app_ad.get_mut(at * 2) {
            Some(byte) => *byte ^= 1,
            None => app_ad.push(0),
        },
    }
    handshake.open(&app_ad)
}

#[test]
fn an_unaltered_handshake_opens() {
    for with_opk in [true, false] {
        let opened = Handshake::new(3, with_opk).open(APP_AD).unwrap();
        let delivered =
            opened.accept(&Expectations::default()).unwrap().commit(|_| Ok::<(), ()>(())).unwrap();
        assert_eq!(delivered.payload.as_bytes(), PAYLOAD);
    }
}

/// What whoever holds spk_b can send to Bob in Alice's name: DH1 is (IK_A, SPK_B), and spk_b will do
/// for ik_a.
fn forged(handshake: &mut Handshake, payload: &[u8]) -> InitialMessage {
    let ek_a = EphemeralKey::generate(&mut handshake.rng);
    let (alice, bundle) = (handshake.alice.local(), &handshake.bundle);
    let context = initiator::context(&alice, bundle, ek_a.public(), AppAd::new(APP_AD).unwrap());
    let opk = bundle.one_time_prekey.as_ref();
    let ikm = Ikm::new(
        [
            handshake.spk.diffie_hellman(alice.identity.public().dh()).unwrap(),
            ek_a.diffie_hellman(bundle.identity.dh()).unwrap(),
            ek_a.diffie_hellman(bundle.signed_prekey.key.dh()).unwrap(),
        ],
        opk.map(|opk| ek_a.diffie_hellman(opk.key.dh()).unwrap()),
    );
    let th = context.transcript();
    let ct = SharedKey::derive(ikm, &th).expand(th).0.seal(payload).unwrap();
    InitialMessage { ephemeral: *ek_a.public(), ct, ..handshake.message.clone() }
}

#[test]
fn a_leaked_signed_prekey_impersonates_any_alice_until_its_secret_is_deleted() {
    for with_opk in [true, false] {
        let mut handshake = Handshake::new(4, with_opk);
        let pinned = *handshake.alice.identity.public();
        let message = forged(&mut handshake, b"send me the plans");
        let app_ad = AppAd::new(APP_AD).unwrap();
        let pin = Expectations { identity: Some(&pinned), ..Expectations::default() };
        // The limit of the protocol: not even the pin helps.
        let opened = Received(message.clone())
            .open(handshake.bob.local(), &handshake.spk, handshake.opk.as_ref(), app_ad)
            .unwrap();
        assert!(opened.accept(&pin).is_ok());

        // Rotated, under the same id even, and the old secret gone: nothing opens any more.
        let rotated = SignedPreKeyPair::generate(handshake.spk.id(), &mut handshake.rng);
        let refused = Received(message)
            .open(handshake.bob.local(), &rotated, handshake.opk.as_ref(), app_ad)
            .err();
        assert_eq!(refused, Some(OpenError::AeadFailed));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn any_field_of_the_context_altered_fails_to_authenticate(
        seed in any::<u64>(),
        field in proptest::sample::select(FIELDS.as_slice()),
        with_opk in any::<bool>(),
        by in 1..=u32::MAX,
    ) {
        let with_opk = with_opk || matches!(field, Field::OpkId | Field::OpkB);
        let handshake = Handshake::new(seed, with_opk);
        prop_assert_eq!(altered(handshake, field, by).err(), Some(OpenError::AeadFailed));
    }

    /// The same with the DHs left as they were, so that it is the context that protects.
    #[test]
    fn the_context_alone_protects_every_field(
        seed in any::<u64>(),
        field in proptest::sample::select(FIELDS.as_slice()),
        by in 1..=u32::MAX,
    ) {
        let mut handshake = Handshake::new(seed, true);
        let ek_a = EphemeralKey::generate(&mut handshake.rng);
        let rng = &mut StdRng::seed_from_u64(!seed);
        let local = handshake.alice.local();
        let honest = initiator::context(
            &local, &handshake.bundle, ek_a.public(), AppAd::new(APP_AD).unwrap(),
        );
        let key = |context: Context<'_>| -> InitialKey {
            let ikm = initiator::agree(local.identity, &ek_a, &handshake.bundle).unwrap();
            let th = context.transcript();
            SharedKey::derive(ikm, &th).expand(th).0
        };
        let ct = key(honest).seal(PAYLOAD).unwrap();
        prop_assert!(key(honest).open(&ct).is_ok());

        let other = IdentityKeyPair::generate(rng);
        let other_ek: EphemeralPublic = *EphemeralKey::generate(rng).public();
        let other_spk = SignedPreKeyPair::generate(honest.spk_b.0, rng);
        let other_opk = OneTimePreKeyPair::generate(OneTimePreKeyId(41), rng);
        let (opk_id, opk_key) = honest.opk_b.unwrap();
        let at = usize::try_from(by % 8).unwrap();
        let user_a = renamed(honest.initiator, at);
        let user_b = renamed(honest.responder, at);
        let (dev_a, dev_b) = (moved(honest.initiator, by), moved(honest.responder, by));
        let mut context = honest;
        match field {
            Field::UserA => context.initiator = &user_a,
            Field::DevA => context.initiator = &dev_a,
            Field::UserB => context.responder = &user_b,
            Field::DevB => context.responder = &dev_b,
            Field::IkA => context.ik_a = other.public(),
            Field::IkB => context.ik_b = other.public(),
            Field::EkA => context.ek_a = &other_ek,
            Field::SpkId => context.spk_b.0 = SignedPreKeyId(context.spk_b.0.0.wrapping_add(by)),
            Field::SpkB => context.spk_b.1 = other_spk.public(),
            Field::OpkId => {
                context.opk_b = Some((OneTimePreKeyId(opk_id.0.wrapping_add(by)), opk_key));
            }
            Field::OpkB => context.opk_b = Some((opk_id, other_opk.public())),
            Field::OpkPresence => context.opk_b = None,
            Field::AppAd => context.app_ad = AppAd::new(&APP_AD[..at]).unwrap(),
        }
        prop_assert!(key(context).open(&ct).is_err(), "{:?} is not bound", field);
    }

    #[test]
    fn a_message_comes_back_from_the_wire(seed in any::<u64>(), with_opk in any::<bool>()) {
        let message = Handshake::new(seed, with_opk).message;
        prop_assert_eq!(InitialMessage::from_bytes(&message.to_bytes()), Ok(message));
    }

    #[test]
    fn arbitrary_bytes_never_make_a_parser_panic(
        bytes in proptest::collection::vec(any::<u8>(), 0..300),
        head in any::<bool>(),
    ) {
        let bytes = if head { [&[1, 0, 1, 1], bytes.as_slice()].concat() } else { bytes };
        if let Ok(message) = InitialMessage::from_bytes(&bytes) {
            prop_assert_eq!(message.to_bytes(), bytes);
        }
    }
}
