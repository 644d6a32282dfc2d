//! What people and devices send each other.

use std::sync::LazyLock;

use oncekey_client::pairing::PairingCode;
use oncekey_types::{DeviceId, OneTimePreKeyId, Seq, SignedPreKeyId, UnixSeconds, UserId, limits};
use oncekey_x3dh::{
    Address, AppAd, Bundle, Expectations, LocalDevice, Received,
    device_list::{DeviceList, FIRST_PREV_HASH, ListedDevice},
    introduction::Introduction,
    keys::{
        AccountPublic, AuthenticationKeyPair, AuthenticationPublic, IdentityKeyPair,
        IdentityPublic, OneTimePreKeyPair, OneTimePreKeyPublic, SignedPreKeyPair,
        SignedPreKeyPublic,
    },
    message::InitialMessage,
};
use rand::{SeedableRng as _, rngs::StdRng};

use crate::{Target, choose, chosen, one_encoding, take};

/// The first message of a handshake. One that opens is one that was sealed.
pub const INITIAL_MESSAGE: Target = Target {
    name: "initial_message",
    run: initial_message,
    seeds: || STORY.messages.clone(),
    claim_bytes: 0,
};

/// A user's signed device list.
pub const DEVICE_LIST: Target =
    Target { name: "device_list", run: device_list, seeds: device_lists, claim_bytes: 0 };

/// A pairing code, as it is pasted, and the introduction in it.
pub const PAIRING_CODE: Target =
    Target { name: "pairing_code", run: pairing_code, seeds: pairing_codes, claim_bytes: 0 };

/// Public keys of every kind.
pub const PUBLIC_KEY: Target =
    Target { name: "public_key", run: public_key, seeds: public_keys, claim_bytes: 0 };

const NOW: UnixSeconds = UnixSeconds(1_790_000_000);

/// Two devices and what one wrote to the other.
pub(crate) struct Story {
    pub(crate) bob: Address,
    pub(crate) identity: IdentityKeyPair,
    pub(crate) authentication: AuthenticationKeyPair,
    spk: SignedPreKeyPair,
    opk: OneTimePreKeyPair,
    messages: Vec<Vec<u8>>,
}

pub(crate) static STORY: LazyLock<Story> = LazyLock::new(Story::new);

impl Story {
    fn new() -> Self {
        let rng = &mut StdRng::seed_from_u64(1);
        let bob = address("bob");
        let identity = IdentityKeyPair::generate(rng);
        let authentication = AuthenticationKeyPair::generate(rng);
        let spk = SignedPreKeyPair::generate(SignedPreKeyId(12), rng);
        let opk = OneTimePreKeyPair::generate(OneTimePreKeyId(341), rng);
        let alice = address("alice");
        let ik_a = IdentityKeyPair::generate(rng);
        let expires = UnixSeconds(NOW.0 + 1);
        let messages = [None, Some(&opk)].map(|opk| {
            let bundle = Bundle {
                owner: bob.clone(),
                identity: *identity.public(),
                signed_prekey: spk.sign(&identity, &bob, NOW, expires, rng),
                one_time_prekey: opk.map(|opk| opk.sign(&identity, &bob, rng)),
            };
            let verified = bundle.verify(NOW, &Expectations::default()).expect("it is genuine");
            let local = LocalDevice { address: &alice, identity: &ik_a };
            let initiated = verified.initiate(local, AppAd::default(), rng).expect("good points");
            initiated.seal(b"hello, bob").expect("it is short").message
        });
        Self { bob, identity, authentication, spk, opk, messages: messages.into() }
    }
}

fn address(user: &str) -> Address {
    Address::new(&UserId::new(user).expect("it is a name"), DeviceId(1))
}

fn initial_message(data: &[u8]) {
    one_encoding(data, |bytes| InitialMessage::from_bytes(bytes).ok().map(|it| it.to_bytes()));
    let story = &*STORY;
    let Ok(received) = Received::parse(data, &story.bob) else { return };
    let local = LocalDevice { address: &story.bob, identity: &story.identity };
    let opk = received.message().one_time_prekey_id().map(|_| &story.opk);
    if received.open(local, &story.spk, opk, AppAd::default()).is_ok() {
        assert!(story.messages.iter().any(|sealed| sealed == data), "a forged message opens");
    }
}

fn device_list(data: &[u8]) {
    if data.len() > limits::DEVICE_LIST_MAX_BYTES {
        assert!(DeviceList::from_bytes(data).is_err(), "a list over the limit was taken");
    }
    one_encoding(data, |bytes| DeviceList::from_bytes(bytes).ok().map(|list| list.to_bytes()));
}

fn device_lists() -> Vec<Vec<u8>> {
    let listed = |device| ListedDevice {
        device: DeviceId(device),
        identity: *STORY.identity.public(),
        authentication: *STORY.authentication.public(),
        added_at: NOW,
    };
    let first = DeviceList::new(&STORY.bob, Seq(1), FIRST_PREV_HASH, vec![listed(1)]);
    let first = first.expect("it is a first list");
    let devices = vec![listed(1), listed(2), listed(3)];
    let second = DeviceList::new(&STORY.bob, Seq(2), first.hash(), devices);
    vec![first.to_bytes(), second.expect("it follows").to_bytes()]
}

fn pairing_code(data: &[u8]) {
    one_encoding(data, |bytes| Introduction::from_bytes(bytes).ok().map(|it| it.to_bytes()));
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(code) = text.parse::<PairingCode>() {
        take();
        assert_eq!(code.to_string(), text.trim(), "a second text of the same code");
    }
}

fn pairing_codes() -> Vec<Vec<u8>> {
    let rng = &mut StdRng::seed_from_u64(2);
    let authentication = *STORY.authentication.public();
    let introduction = Introduction::new(STORY.bob.clone(), &STORY.identity, authentication, rng);
    let text = PairingCode::new(introduction.clone()).to_string();
    vec![introduction.to_bytes(), text.into_bytes()]
}

/// Parses a key of one kind and gives its bytes.
type Parse = fn(&[u8]) -> Option<Vec<u8>>;

const KINDS: &[Parse] = &[
    |bytes| IdentityPublic::from_tagged_bytes(bytes).ok().map(|key| key.to_tagged_bytes().to_vec()),
    |bytes| AuthenticationPublic::from_bytes(bytes).ok().map(|key| key.as_bytes().to_vec()),
    |bytes| AccountPublic::from_bytes(bytes).ok().map(|key| key.as_bytes().to_vec()),
    |bytes| SignedPreKeyPublic::from_bytes(bytes).ok().map(|key| key.as_bytes().to_vec()),
    |bytes| OneTimePreKeyPublic::from_bytes(bytes).ok().map(|key| key.as_bytes().to_vec()),
];

fn public_key(data: &[u8]) {
    if let Some((parse, key)) = choose(KINDS, data) {
        one_encoding(key, parse);
    }
}

fn public_keys() -> Vec<Vec<u8>> {
    let keys = [
        STORY.identity.public().to_tagged_bytes().to_vec(),
        STORY.authentication.public().as_bytes().to_vec(),
        STORY.authentication.public().as_bytes().to_vec(),
        STORY.spk.public().as_bytes().to_vec(),
        STORY.opk.public().as_bytes().to_vec(),
    ];
    keys.iter().enumerate().map(|(kind, key)| chosen(kind, key)).collect()
}
