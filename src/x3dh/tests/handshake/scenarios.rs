//! The scenarios that need no key store and no network. `docs/threats-handshake.md` has them all.

use std::collections::BTreeSet;

use oncekey_types::{OneTimePreKeyId, Seq, SignedPreKeyId, UnixSeconds};
use oncekey_x3dh::{
    AppAd, DedupKey, Expectations, Failure, LocalDevice, Received, SessionKeys,
    bundle::{BundleError, IdentityError},
    device_list::{DeviceList, FIRST_PREV_HASH, ListedDevice},
    keys::{AccountKeyPair, AuthenticationKeyPair, OneTimePreKeyPair, SignedPreKeyPair},
    responder::OpenError,
};

use crate::party::{CREATED, EXPIRES, NOW, Party};

fn alice() -> Party {
    Party::new("alice", 1)
}

fn bob() -> Party {
    Party::new("bob", 2)
}

/// A server or network that holds keys of its own.
fn mallory() -> Party {
    Party::new("mallory", 3)
}

fn keys(session: &SessionKeys) -> [[u8; 32]; 3] {
    [*session.root().as_bytes(), *session.chain().as_bytes(), *session.transcript().as_bytes()]
}

#[test]
fn alice_and_bob_agree_with_and_without_a_one_time_prekey() {
    for with_opk in [true, false] {
        let (mut alice, mut bob) = (alice(), bob());
        if !with_opk {
            bob.opk = None;
        }
        let sealed = alice.start(bob.bundle(), b"hello").unwrap();
        let delivered = bob.answer(&sealed.message).unwrap().commit(|_| Ok::<_, ()>(())).unwrap();
        assert_eq!(delivered.payload.as_bytes(), b"hello");
        assert_eq!(keys(delivered.record.session()), keys(&sealed.session));
        assert_eq!(*delivered.record.dedup(), sealed.dedup);
        assert_eq!(*delivered.record.sender(), alice.address);
        assert_eq!(delivered.record.one_time_prekey_id().is_some(), with_opk);
    }
}

#[test]
fn a_swapped_signed_prekey_is_a_signature_error() {
    let (mut bob, mut mallory) = (bob(), mallory());
    let mut bundle = bob.bundle();
    bundle.signed_prekey = mallory.bundle().signed_prekey;
    let refused = bundle.verify(NOW, &Expectations::default()).unwrap_err();
    assert_eq!(refused, BundleError::SignedPreKeySignature);
    assert_eq!(Failure::from(refused).reason(), "signature_invalid");
}

#[test]
fn a_swapped_one_time_prekey_is_a_signature_error() {
    let (mut bob, mut mallory) = (bob(), mallory());
    let mut bundle = bob.bundle();
    bundle.one_time_prekey = mallory.bundle().one_time_prekey;
    let refused = bundle.verify(NOW, &Expectations::default()).unwrap_err();
    assert_eq!(refused, BundleError::OneTimePreKeySignature);
}

#[test]
fn a_signed_prekey_does_not_pass_for_a_one_time_prekey() {
    let mut bob = bob();
    let mut bundle = bob.bundle();
    // The same bytes, id and signature under the other label.
    let opk = OneTimePreKeyPair::from_secret(OneTimePreKeyId(7), &bob.spk.to_secret());
    let mut record = opk.sign(&bob.identity, &bob.address, &mut bob.rng);
    record.signature = bundle.signed_prekey.signature;
    bundle.one_time_prekey = Some(record);
    let refused = bundle.verify(NOW, &Expectations::default()).unwrap_err();
    assert_eq!(refused, BundleError::OneTimePreKeySignature);
}

#[test]
fn keys_swapped_together_fail_at_the_pin_and_at_the_device_list() {
    let (mut bob, mut mallory) = (bob(), mallory());
    let pinned = *bob.identity.public();
    // Mallory signs everything anew in Bob's name: all signatures verify.
    mallory.address = bob.address.clone();
    let forged = mallory.bundle();
    assert!(forged.clone().verify(NOW, &Expectations::default()).is_ok());

    let pin = Expectations { identity: Some(&pinned), ..Expectations::default() };
    let refused = forged.clone().verify(NOW, &pin).unwrap_err();
    assert_eq!(refused, BundleError::Identity(IdentityError::Changed));
    assert_eq!(Failure::from(refused).reason(), "identity_changed");

    let account = AccountKeyPair::generate(&mut bob.rng);
    let device = ListedDevice {
        device: bob.address.device(),
        identity: pinned,
        authentication: *AuthenticationKeyPair::generate(&mut bob.rng).public(),
        added_at: CREATED,
    };
    let list = DeviceList::new(&bob.address, Seq(1), FIRST_PREV_HASH, vec![device]).unwrap();
    let signature = list.sign(&account);
    let devices = list.verify(account.public(), &signature).unwrap();
    let listed = Expectations { devices: Some(&devices), ..Expectations::default() };
    let refused = forged.verify(NOW, &listed).unwrap_err();
    assert_eq!(refused, BundleError::Identity(IdentityError::NotListed));
    assert!(bob.bundle().verify(NOW, &listed).is_ok());
}

#[test]
fn an_expired_signed_prekey_is_refused() {
    let mut bob = bob();
    let last = UnixSeconds(EXPIRES.0 - 1);
    assert!(bob.bundle().verify(last, &Expectations::default()).is_ok());
    let refused = bob.bundle().verify(EXPIRES, &Expectations::default()).unwrap_err();
    assert_eq!(refused, BundleError::Expired { expires: EXPIRES });
    assert_eq!(Failure::from(refused).reason(), "spk_expired");
}

#[test]
fn one_one_time_prekey_given_to_two_alices_leads_to_two_secrets() {
    let (mut alice, mut alicia, mut bob) = (alice(), Party::new("alice", 4), bob());
    let bundle = bob.bundle();
    let first = alice.start(bundle.clone(), b"one").unwrap();
    let second = alicia.start(bundle.clone(), b"two").unwrap();
    // The same Alice twice differs as well: EK is fresh.
    let third = alice.start(bundle, b"three").unwrap();
    let roots = [&first, &second, &third].map(|sealed| *sealed.session.root().as_bytes());
    assert_eq!(BTreeSet::from(roots).len(), 3);

    assert!(bob.answer(&first.message).is_ok());
    bob.opk = None;
    for late in [second, third] {
        assert_eq!(bob.answer(&late.message).err(), Some(Failure::OpkMissing));
    }
}

#[test]
fn a_replay_shows_its_dedup_key_before_any_secret_is_touched() {
    let (mut alice, mut bob) = (alice(), bob());
    bob.opk = None;
    let sealed = alice.start(bob.bundle(), b"once").unwrap();
    let mut seen: BTreeSet<DedupKey> = BTreeSet::new();
    let mut deliver = |message: &[u8]| -> Result<(), Failure> {
        let received = Received::parse(message, &bob.address)?;
        if seen.contains(&received.dedup_key(bob.spk.public(), None)) {
            return Err(Failure::Replay);
        }
        bob.answer(message)?.commit(|record| {
            seen.insert(*record.dedup());
            Ok::<(), Failure>(())
        })?;
        Ok(())
    };
    assert_eq!(deliver(&sealed.message), Ok(()));
    assert_eq!(deliver(&sealed.message), Err(Failure::Replay));

    // Bit 255 of EK_A: another name for the same key, which must not get past the search.
    let ek_a = 4 + (2 + 5 + 4) + (2 + 3 + 4) + 32;
    let mut variant = sealed.message;
    variant[ek_a + 31] |= 0x80;
    assert_eq!(deliver(&variant), Err(Failure::Malformed));
}

#[test]
fn the_dedup_key_needs_only_public_keys_even_when_the_one_time_prekey_is_gone() {
    let (mut alice, mut bob) = (alice(), bob());
    let sealed = alice.start(bob.bundle(), b"once").unwrap();
    let tombstone = *bob.opk.as_ref().unwrap().public();
    bob.opk = None;
    let received = Received::parse(&sealed.message, &bob.address).unwrap();
    assert_eq!(received.dedup_key(bob.spk.public(), Some(&tombstone)), sealed.dedup);
}

#[test]
fn a_bad_ciphertext_leaves_the_one_time_prekey_usable() {
    let (mut alice, mut bob) = (alice(), bob());
    let sealed = alice.start(bob.bundle(), b"hello").unwrap();
    let mut garbage = sealed.message.clone();
    *garbage.last_mut().unwrap() ^= 1;
    assert_eq!(bob.answer(&garbage).err(), Some(Failure::AeadFailed));
    assert!(bob.answer(&sealed.message).is_ok());
}

#[test]
fn a_stripped_opk_flag_fails_and_is_no_downgrade() {
    let (mut alice, mut bob) = (alice(), bob());
    let sealed = alice.start(bob.bundle(), b"hello").unwrap();
    let (flags, opk_id) = (3, 4 + (2 + 5 + 4) + (2 + 3 + 4) + 32 + 32 + 4);
    assert_eq!(sealed.message[opk_id..opk_id + 4], 41u32.to_be_bytes());
    let mut stripped = sealed.message.clone();
    stripped[flags] &= !1;
    assert_eq!(bob.answer(&stripped).err(), Some(Failure::Malformed), "the id is left over");
    stripped.drain(opk_id..opk_id + 4);
    assert_eq!(bob.answer(&stripped).err(), Some(Failure::AeadFailed));
    assert!(bob.answer(&sealed.message).is_ok(), "nothing was used up");
}

#[test]
fn a_message_that_names_a_one_time_prekey_never_opens_without_it() {
    let (mut alice, mut bob) = (alice(), bob());
    let sealed = alice.start(bob.bundle(), b"hello").unwrap();
    let received = Received::parse(&sealed.message, &bob.address).unwrap();
    let refused = received.open(bob.local(), &bob.spk, None, AppAd::default()).err();
    assert_eq!(refused, Some(OpenError::WrongPreKeys));
}

#[test]
fn a_message_does_not_open_with_prekeys_that_it_does_not_name() {
    let (mut alice, mut bob) = (alice(), bob());
    let sealed = alice.start(bob.bundle(), b"hello").unwrap();
    let received = Received::parse(&sealed.message, &bob.address).unwrap();
    let spk = SignedPreKeyPair::generate(SignedPreKeyId(8), &mut bob.rng);
    let refused = received.open(bob.local(), &spk, bob.opk.as_ref(), AppAd::default()).err();
    assert_eq!(refused, Some(OpenError::WrongPreKeys));
}

#[test]
fn a_sender_that_is_not_the_pinned_one_is_refused_after_opening() {
    let (mut mallory, mut bob) = (mallory(), bob());
    let pinned = *alice().identity.public();
    // Mallory holds her own identity key and claims to be Alice.
    mallory.address = alice().address;
    let sealed = mallory.start(bob.bundle(), b"it is me").unwrap();
    let received = Received::parse(&sealed.message, &bob.address).unwrap();
    let opened =
        received.open(bob.local(), &bob.spk, bob.opk.as_ref(), AppAd::default()).ok().unwrap();
    let pin = Expectations { identity: Some(&pinned), ..Expectations::default() };
    assert_eq!(opened.accept(&pin).err(), Some(IdentityError::Changed));
}

#[test]
fn a_failed_transaction_keeps_the_plaintext_back() {
    let (mut alice, mut bob) = (alice(), bob());
    let sealed = alice.start(bob.bundle(), b"hello").unwrap();
    let crashed = bob.answer(&sealed.message).unwrap().commit(|_| Err("disk full"));
    assert_eq!(crashed.err(), Some("disk full"));
    // Nothing was written, so the same message is delivered the next time.
    assert!(bob.answer(&sealed.message).unwrap().commit(|_| Ok::<_, ()>(())).is_ok());
}

#[test]
fn when_ik_b_leaks_and_the_attacker_controls_the_server_it_impersonates_bob_in_full() {
    // The limit of the protocol, stated as a test: with ik_b the server signs an SPK of its own.
    let (mut alice, bob) = (alice(), bob());
    let mut server = Party::new("bob", 5);
    server.identity =
        oncekey_x3dh::keys::IdentityKeyPair::from_seed(&bob.identity.to_seed().unwrap());
    let pin = Expectations { identity: Some(bob.identity.public()), ..Expectations::default() };
    assert!(server.bundle().verify(NOW, &pin).is_ok());
    let sealed = alice.start(server.bundle(), b"secret").unwrap();
    assert!(server.answer(&sealed.message).is_ok());
    assert_eq!(bob.answer(&sealed.message).err(), Some(Failure::AeadFailed));
}

#[test]
fn a_payload_over_the_limit_is_refused_before_the_key_is_used() {
    let (mut alice, mut bob) = (alice(), bob());
    let limit = oncekey_types::limits::INITIAL_PAYLOAD_MAX_BYTES;
    let sealed = alice.start(bob.bundle(), &vec![7; limit]).unwrap();
    assert!(bob.answer(&sealed.message).is_ok());
    let verified = bob.bundle().verify(NOW, &Expectations::default()).unwrap();
    let local = LocalDevice { address: &alice.address, identity: &alice.identity };
    let initiated = verified.initiate(local, AppAd::default(), &mut alice.rng).unwrap();
    assert!(initiated.seal(&vec![7; limit + 1]).is_err());
}

#[test]
fn the_peer_learns_nothing_but_that_it_was_refused() {
    use oncekey_x3dh::HandshakeRefused;
    let causes = [Failure::AeadFailed, Failure::OpkReused, Failure::IdentityChanged];
    for cause in causes {
        assert_eq!(HandshakeRefused::from(cause).to_string(), "the handshake was refused");
    }
}
