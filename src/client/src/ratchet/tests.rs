use std::collections::BTreeSet;

use hkdf::Hkdf;
use oncekey_types::SignedPreKeyId;
use proptest::prelude::*;
use rand::{SeedableRng as _, rngs::StdRng};
use sha2::Sha256;
use static_assertions::assert_not_impl_any;

use super::*;

/// Receiving chains that vodozemac keeps.
const CHAINS_KEPT: usize = 5;

assert_not_impl_any!(Ratchet: Clone, Serialize);

/// Both sides of a handshake.
fn pair(seed: u64) -> (Ratchet, Ratchet) {
    let (keys, spk) = handshake(seed);
    (Ratchet::initiator(&keys, spk.public()).unwrap(), Ratchet::responder(&keys, &spk))
}

fn handshake(seed: u64) -> (SessionKeys, SignedPreKeyPair) {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut random = || {
        let mut bytes = Zeroizing::new([0; 32]);
        rng.fill_bytes(&mut *bytes);
        bytes
    };
    let keys = SessionKeys::from_parts(random(), random(), *random());
    (keys, SignedPreKeyPair::from_secret(SignedPreKeyId(1), &random()))
}

/// As after a restart.
fn reload(ratchet: &Ratchet) -> Ratchet {
    Ratchet::from_bytes(&ratchet.to_bytes().unwrap()).unwrap()
}

#[test]
fn either_side_may_write_first() {
    let (mut alice, mut bob) = pair(1);
    let hello = alice.encrypt(b"hello").unwrap();
    assert_eq!(**bob.decrypt(&hello).unwrap(), *b"hello");
    let (mut alice, mut bob) = pair(2);
    let hi = bob.encrypt(b"hi").unwrap();
    assert_eq!(**alice.decrypt(&hi).unwrap(), *b"hi");
    // And both at once.
    let (mut alice, mut bob) = pair(3);
    let (hello, hi) = (alice.encrypt(b"hello").unwrap(), bob.encrypt(b"hi").unwrap());
    assert_eq!(**bob.decrypt(&hello).unwrap(), *b"hello");
    assert_eq!(**alice.decrypt(&hi).unwrap(), *b"hi");
    let later = bob.encrypt(b"later").unwrap();
    assert_eq!(**alice.decrypt(&later).unwrap(), *b"later");
}

/// The formula of the module's head, computed here from RK and SPK_B's secret.
#[test]
fn the_first_keys_are_the_documented_ones() {
    let (keys, spk) = handshake(4);
    let bob = Ratchet::responder(&keys, &spk).session.active_sending_state().unwrap();
    assert_eq!(*bob.root_key, *keys.root().as_bytes());
    assert_eq!(*bob.chain_key, *keys.chain().as_bytes());
    assert_eq!(*bob.ratchet_key, *spk.to_secret());

    let mut alice = Ratchet::initiator(&keys, spk.public()).unwrap();
    assert!(alice.session.active_sending_state().is_none());
    alice.encrypt(b"makes T_A").unwrap();
    let alice = alice.session.active_sending_state().unwrap();
    let ours = x25519_dalek::StaticSecret::from(*alice.ratchet_key);
    let shared = ours.diffie_hellman(&x25519_dalek::PublicKey::from(*spk.public().as_bytes()));
    let mut okm = [0; 64];
    let root = keys.root().as_bytes();
    Hkdf::<Sha256>::new(Some(root), shared.as_bytes()).expand(b"OLM_RATCHET", &mut okm).unwrap();
    assert_eq!(alice.root_key[..], okm[..32]);
    assert_eq!(alice.chain_index, 1, "the chain has moved on from CKs");
}

#[test]
fn what_is_not_a_message_of_the_session_changes_nothing() {
    let (mut alice, mut bob) = pair(5);
    let (_, mut stranger) = pair(6);
    let hello = alice.encrypt(b"hello").unwrap();
    let before = bob.to_bytes().unwrap();
    assert!(matches!(bob.decrypt(b"garbage"), Err(DecryptError::Malformed)));
    for bit in 0..hello.len() * 8 {
        let mut changed = hello.clone();
        changed[bit / 8] ^= 1 << (bit % 8);
        assert!(bob.decrypt(&changed).is_err(), "bit {bit}");
    }
    assert!(stranger.decrypt(&hello).is_err());
    assert_eq!(*bob.to_bytes().unwrap(), *before);
    assert_eq!(**bob.decrypt(&hello).unwrap(), *b"hello");
    assert!(matches!(bob.decrypt(&hello), Err(DecryptError::Ratchet(_))), "twice");
}

#[test]
fn a_responder_that_may_have_sent_before_listens_first() {
    let (mut alice, bob) = pair(7);
    let mut bob = reload(&bob.listening_first());
    assert!(matches!(bob.encrypt(b"hi"), Err(EncryptError::ListensFirst)));
    bob.decrypt(&alice.encrypt(b"hello").unwrap()).unwrap();
    let hi = reload(&bob).encrypt(b"hi").unwrap();
    assert_eq!(**alice.decrypt(&hi).unwrap(), *b"hi");
}

#[test]
fn a_state_of_another_form_is_refused() {
    let (alice, _) = pair(8);
    let bytes = alice.to_bytes().unwrap();
    for broken in [&bytes[..1], &[2, 0], &[FORM, 2], &bytes[..bytes.len() - 1], &[]] {
        assert!(matches!(Ratchet::from_bytes(broken), Err(NoRatchet::State)), "{broken:?}");
    }
}

/// What a side has heard.
#[derive(Default)]
struct Heard {
    /// Ratchet keys, in the order in which they were first heard. The responder's is known.
    chains: Vec<[u8; 32]>,
    opened: BTreeSet<u32>,
}

impl Heard {
    /// Whether a message must open now: not twice, and not of a chain that five newer ones have
    /// pushed out. A side makes a new chain only when it was heard on the last, so a chain that is
    /// not known is the newest.
    fn must_open(&self, number: u32, chain: &[u8; 32]) -> bool {
        let newer = self.chains.iter().rev().position(|heard| heard == chain);
        !self.opened.contains(&number) && newer.is_none_or(|newer| newer < CHAINS_KEPT)
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// Messages are lost, come late, twice and out of order, and either side may restart between
    /// any two steps.
    #[test]
    fn whatever_the_network_does_a_message_opens_once_and_as_it_was_written(seed: u64) {
        let mut rng = StdRng::seed_from_u64(seed);
        let (keys, spk) = handshake(seed);
        let alice = Ratchet::initiator(&keys, spk.public()).unwrap();
        let mut sides = [alice, Ratchet::responder(&keys, &spk)];
        let mut heard: [Heard; 2] = Default::default();
        heard[0].chains.push(*spk.public().as_bytes());
        // What is on its way to each side.
        let mut ways: [Vec<(u32, Vec<u8>)>; 2] = Default::default();
        // Few enough that no chain skips more messages than it keeps keys for.
        for number in 0..80u32 {
            let side = rng.random_range(0..2usize);
            match rng.random_range(0..10) {
                0..5 => {
                    let message = sides[side].encrypt(&number.to_be_bytes()).unwrap();
                    ways[1 - side].push((number, message));
                }
                5 => sides[side] = reload(&sides[side]),
                _ if ways[side].is_empty() => {}
                action => {
                    let place = rng.random_range(0..ways[side].len());
                    let (number, message) = ways[side][place].clone();
                    let chain = Message::from_bytes(&message).unwrap().ratchet_key().to_bytes();
                    let heard = &mut heard[side];
                    let must_open = heard.must_open(number, &chain);
                    match sides[side].decrypt(&message) {
                        Ok(text) => {
                            prop_assert!(must_open, "{} opened", number);
                            prop_assert_eq!(&**text, &number.to_be_bytes());
                            heard.opened.insert(number);
                            if !heard.chains.contains(&chain) {
                                heard.chains.push(chain);
                            }
                        }
                        Err(error) => prop_assert!(!must_open, "{}: {}", number, error),
                    }
                    if action < 8 {
                        ways[side].remove(place);
                    }
                }
            }
        }
    }
}
