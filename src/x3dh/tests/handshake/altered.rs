//! Every field of CTX, altered between Alice and Bob.
//!
//! Bob goes along with each alteration as far as he can: he answers to the other name, calls his
//! prekeys by the other ids. So what refuses the message is the AEAD and no earlier check.

use oncekey_types::{DeviceId, OneTimePreKeyId, SignedPreKeyId};
use oncekey_x3dh::{
    Address, AppAd, Expectations, LocalDevice, Received,
    keys::{IdentityKeyPair, OneTimePreKeyPair, SignedPreKeyPair},
    responder::OpenError,
};
use proptest::{prelude::*, test_runner::TestCaseResult};

use crate::party::{NOW, Party};

/// The fields of a message with a one-time prekey, as they stand on the wire.
#[derive(Clone)]
struct Fields {
    suite: [u8; 2],
    sender: (Vec<u8>, u32),
    recipient: (Vec<u8>, u32),
    identity: [u8; 32],
    ephemeral: [u8; 32],
    signed_prekey: u32,
    one_time_prekey: u32,
    rest: Vec<u8>,
}

fn take<'a>(bytes: &mut &'a [u8], len: usize) -> &'a [u8] {
    let (head, tail) = bytes.split_at(len);
    *bytes = tail;
    head
}

fn number(bytes: &mut &[u8]) -> u32 {
    u32::from_be_bytes(take(bytes, 4).try_into().expect("four bytes"))
}

fn address(bytes: &mut &[u8]) -> (Vec<u8>, u32) {
    let len = u16::from_be_bytes(take(bytes, 2).try_into().expect("two bytes"));
    (take(bytes, len.into()).to_vec(), number(bytes))
}

impl Fields {
    fn of(mut message: &[u8]) -> Self {
        let bytes = &mut message;
        assert_eq!(take(bytes, 1), [1], "version");
        let suite = take(bytes, 2).try_into().expect("two bytes");
        assert_eq!(take(bytes, 1), [1], "flags");
        Self {
            suite,
            sender: address(bytes),
            recipient: address(bytes),
            identity: take(bytes, 32).try_into().expect("a key"),
            ephemeral: take(bytes, 32).try_into().expect("a key"),
            signed_prekey: number(bytes),
            one_time_prekey: number(bytes),
            rest: bytes.to_vec(),
        }
    }

    fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = [&[1], self.suite.as_slice(), &[1]].concat();
        for (user, device) in [&self.sender, &self.recipient] {
            bytes.extend(u16::try_from(user.len()).expect("a short name").to_be_bytes());
            bytes.extend(user);
            bytes.extend(device.to_be_bytes());
        }
        bytes.extend(self.identity);
        bytes.extend(self.ephemeral);
        bytes.extend(self.signed_prekey.to_be_bytes());
        bytes.extend(self.one_time_prekey.to_be_bytes());
        bytes.extend(&self.rest);
        bytes
    }
}

/// One field of CTX and what it becomes.
#[derive(Clone, Debug)]
enum Altered {
    Nothing,
    Suite(u16),
    UserA(Vec<u8>),
    DeviceA(u32),
    UserB(Vec<u8>),
    DeviceB(u32),
    IdentityA([u8; 32]),
    IdentityB([u8; 32]),
    Ephemeral([u8; 32]),
    SignedPreKeyId(u32),
    SignedPreKey([u8; 32]),
    OneTimePreKeyId(u32),
    OneTimePreKey([u8; 32]),
    AppAd(Vec<u8>),
}

fn altered() -> impl Strategy<Value = Altered> {
    let name = || prop::collection::vec(any::<u8>(), 1..40);
    prop_oneof![
        any::<u16>().prop_map(Altered::Suite),
        name().prop_map(Altered::UserA),
        any::<u32>().prop_map(Altered::DeviceA),
        name().prop_map(Altered::UserB),
        any::<u32>().prop_map(Altered::DeviceB),
        any::<[u8; 32]>().prop_map(Altered::IdentityA),
        any::<[u8; 32]>().prop_map(Altered::IdentityB),
        any::<[u8; 32]>().prop_map(Altered::Ephemeral),
        any::<u32>().prop_map(Altered::SignedPreKeyId),
        any::<[u8; 32]>().prop_map(Altered::SignedPreKey),
        any::<u32>().prop_map(Altered::OneTimePreKeyId),
        any::<[u8; 32]>().prop_map(Altered::OneTimePreKey),
        name().prop_map(Altered::AppAd),
    ]
}

const APP_AD: &[u8] = b"the application's";

/// Alice's message to Bob, altered, and what Bob says to it. None when nothing was changed.
fn answer(altered: &Altered) -> Option<Result<(), Refused>> {
    let (mut alice, mut bob) = (Party::new("alice", 1), Party::new("bob", 2));
    let verified = bob.bundle().verify(NOW, &Expectations::default()).expect("a good bundle");
    let local = LocalDevice { address: &alice.address, identity: &alice.identity };
    let app_ad = AppAd::new(APP_AD).expect("short data");
    let initiated = verified.initiate(local, app_ad, &mut alice.rng).expect("good keys");
    let message = initiated.seal(b"hello").expect("a short payload").message;
    let original = Fields::of(&message);
    assert_eq!(original.to_bytes(), message);

    let opk = bob.opk.take().expect("a one-time prekey");
    let (mut spk_secret, mut opk_secret) = (bob.spk.to_secret(), opk.to_secret());
    let (mut fields, mut bob_identity, mut app_ad) = (original, bob.identity, APP_AD.to_vec());
    match altered {
        Altered::Nothing => {}
        Altered::Suite(suite) => fields.suite = suite.to_be_bytes(),
        Altered::UserA(user) => fields.sender.0.clone_from(user),
        Altered::DeviceA(device) => fields.sender.1 = *device,
        Altered::UserB(user) => fields.recipient.0.clone_from(user),
        Altered::DeviceB(device) => fields.recipient.1 = *device,
        Altered::IdentityA(seed) => {
            fields.identity = *IdentityKeyPair::from_seed(seed).public().as_bytes();
        }
        Altered::IdentityB(seed) => bob_identity = IdentityKeyPair::from_seed(seed),
        Altered::Ephemeral(secret) => {
            let key = SignedPreKeyPair::from_secret(SignedPreKeyId(1), secret);
            fields.ephemeral = *key.public().as_bytes();
        }
        Altered::SignedPreKeyId(id) => fields.signed_prekey = *id,
        Altered::SignedPreKey(secret) => *spk_secret = *secret,
        Altered::OneTimePreKeyId(id) => fields.one_time_prekey = *id,
        Altered::OneTimePreKey(secret) => *opk_secret = *secret,
        Altered::AppAd(other) => app_ad.clone_from(other),
    }
    let is_same_message = fields.to_bytes() == message;
    let is_same_bob = match altered {
        Altered::IdentityB(_) | Altered::SignedPreKey(_) | Altered::OneTimePreKey(_) => false,
        _ => app_ad == APP_AD,
    };
    if is_same_message && is_same_bob && !matches!(altered, Altered::Nothing) {
        return None;
    }
    let (user, device) = &fields.recipient;
    let address = Address::from_bytes(user, DeviceId(*device)).expect("a short name");
    let spk = SignedPreKeyPair::from_secret(SignedPreKeyId(fields.signed_prekey), &spk_secret);
    let opk = OneTimePreKeyPair::from_secret(OneTimePreKeyId(fields.one_time_prekey), &opk_secret);
    Some(match Received::parse(&fields.to_bytes(), &address) {
        Err(_) => Err(Refused::Parsing),
        Ok(received) => {
            let local = LocalDevice { address: &address, identity: &bob_identity };
            let app_ad = AppAd::new(&app_ad).expect("short data");
            let opened = received.open(local, &spk, Some(&opk), app_ad);
            opened.map(drop).map_err(Refused::Opening)
        }
    })
}

#[derive(PartialEq, Eq, Debug)]
enum Refused {
    Parsing,
    Opening(OpenError),
}

fn check(altered: &Altered) -> TestCaseResult {
    let expected = match altered {
        Altered::Suite(_) => Refused::Parsing,
        _ => Refused::Opening(OpenError::AeadFailed),
    };
    match answer(altered) {
        // The field became what it was.
        None => Ok(()),
        Some(answer) => {
            prop_assert_eq!(answer, Err(expected));
            Ok(())
        }
    }
}

#[test]
fn what_nobody_altered_opens() {
    assert_eq!(answer(&Altered::Nothing), Some(Ok(())));
}

proptest! {
    #[test]
    fn any_ctx_field_altered_makes_the_aead_fail(altered in altered()) {
        check(&altered)?;
    }
}
