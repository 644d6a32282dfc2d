use oncekey_x3dh::Failure;

use super::{World, first_message, user_id};
use crate::{
    client::{FetchOptions, InitiateError, ReceiveError, Received},
    trust::{Answer, Change},
};

#[tokio::test]
async fn two_devices_agree_on_a_session_and_the_payload_arrives_once() {
    let world = World::new();
    let (alice, bob) = (world.device("alice", 1), world.device("bob", 1));
    bob.publish(5).await.unwrap();
    let outgoing = first_message(&alice, "bob").await;
    let Received::New { payload, session } = bob.receive(&outgoing.message, b"ad").unwrap() else {
        panic!("not new");
    };
    assert_eq!(payload.as_bytes(), b"hello");
    assert_eq!(session.id, outgoing.session.id);
    assert_eq!(
        session.keys().unwrap().root().as_bytes(),
        outgoing.session.keys().unwrap().root().as_bytes()
    );
    assert_eq!(
        session.keys().unwrap().chain().as_bytes(),
        outgoing.session.keys().unwrap().chain().as_bytes()
    );
    assert_eq!(session.peer, *alice.address());
    assert_eq!(session.peer_identity, *alice.identity());
    assert_eq!(session.one_time_prekey, outgoing.session.one_time_prekey);

    match bob.receive(&outgoing.message, b"ad").unwrap() {
        Received::Duplicate { session } => assert_eq!(session.id, outgoing.session.id),
        Received::New { .. } => panic!("delivered twice"),
    }
    assert_eq!(bob.failures()[&Failure::Replay], 1);
}

#[tokio::test]
async fn a_replay_after_a_restart_is_a_duplicate() {
    let world = World::new();
    let folder = tempfile::tempdir().unwrap();
    let alice = world.device("alice", 1);
    let bob = world.device_in(folder.path(), "bob");
    bob.publish(1).await.unwrap();
    let with_opk = first_message(&alice, "bob").await;
    let without = first_message(&alice, "bob").await;
    assert_eq!(without.session.one_time_prekey, None, "the pool is empty");
    for outgoing in [&with_opk, &without] {
        assert!(matches!(bob.receive(&outgoing.message, b"ad"), Ok(Received::New { .. })));
    }
    drop(bob);
    let bob = world.reopen(folder.path());
    for outgoing in [&with_opk, &without] {
        match bob.receive(&outgoing.message, b"ad").unwrap() {
            Received::Duplicate { session } => assert_eq!(session.id, outgoing.session.id),
            Received::New { .. } => panic!("delivered twice"),
        }
    }
}

#[tokio::test]
async fn a_bad_ciphertext_with_a_valid_opk_id_leaves_the_opk_in_place() {
    let world = World::new();
    let (alice, bob) = (world.device("alice", 1), world.device("bob", 1));
    bob.publish(1).await.unwrap();
    let outgoing = first_message(&alice, "bob").await;
    assert!(outgoing.session.one_time_prekey.is_some());
    let mut garbled = outgoing.message.clone();
    *garbled.last_mut().unwrap() ^= 1;
    for _ in 0..3 {
        let error = bob.receive(&garbled, b"ad").unwrap_err();
        assert!(matches!(error, ReceiveError::Open(_)), "{error}");
    }
    let error = bob.receive(&outgoing.message, b"another ad").unwrap_err();
    assert!(matches!(error, ReceiveError::Open(_)), "{error}");
    assert_eq!(bob.failures()[&Failure::AeadFailed], 4);
    assert!(matches!(bob.receive(&outgoing.message, b"ad"), Ok(Received::New { .. })));
}

#[tokio::test]
async fn every_cut_and_every_flipped_byte_of_a_message_is_refused_and_changes_nothing() {
    let world = World::new();
    let (alice, bob) = (world.device("alice", 1), world.device("bob", 1));
    bob.publish(2).await.unwrap();
    let message = first_message(&alice, "bob").await.message;
    for position in 0..message.len() {
        let mut flipped = message.clone();
        flipped[position] ^= 0x80;
        bob.receive(&flipped, b"ad").expect_err(&format!("byte {position} flipped"));
        bob.receive(&message[..position], b"ad").expect_err(&format!("cut at {position}"));
    }
    assert!(matches!(bob.receive(&message, b"ad"), Ok(Received::New { .. })));
}

#[tokio::test]
async fn a_one_time_prekey_that_is_handed_out_twice_opens_once_and_is_counted() {
    let world = World::new();
    let (alice, carol) = (world.device("alice", 1), world.device("carol", 1));
    let bob = world.device("bob", 1);
    bob.publish(1).await.unwrap();
    world.server.reissue();
    let first = first_message(&alice, "bob").await;
    let second = first_message(&carol, "bob").await;
    assert_eq!(first.session.one_time_prekey, second.session.one_time_prekey);
    assert_ne!(first.session.id, second.session.id);
    assert!(matches!(bob.receive(&first.message, b"ad"), Ok(Received::New { .. })));
    let error = bob.receive(&second.message, b"ad").unwrap_err();
    assert!(matches!(error, ReceiveError::OpkAlreadyUsed { .. }), "{error}");
    assert_eq!(bob.failures()[&Failure::OpkReused], 1);
    // The replay of the first is still told apart from a double issue.
    assert!(matches!(bob.receive(&first.message, b"ad"), Ok(Received::Duplicate { .. })));
}

#[tokio::test]
async fn a_one_time_prekey_that_was_never_made_here_is_unknown() {
    let world = World::new();
    let (alice, bob) = (world.device("alice", 1), world.device("bob", 1));
    bob.publish(1).await.unwrap();
    let mut message = first_message(&alice, "bob").await.message;
    // … u32 spk_id ‖ u32 opk_id ‖ u32 len ‖ ct
    let opk_id = message.len() - (5 + 16) - 4 - 4;
    message[opk_id] = 0x7f;
    let error = bob.receive(&message, b"ad").unwrap_err();
    assert!(matches!(error, ReceiveError::OpkUnknown { .. }), "{error}");
    assert_eq!(bob.failures()[&Failure::OpkMissing], 1);
}

#[tokio::test]
async fn a_retained_signed_prekey_opens_and_an_expired_one_is_unknown() {
    let world = World::new();
    let (alice, bob) = (world.device("alice", 1), world.device("bob", 1));
    bob.publish(3).await.unwrap();
    let late = first_message(&alice, "bob").await;
    let too_late = first_message(&alice, "bob").await;
    world.clock.pass_days(7);
    bob.rotate().await.unwrap();
    world.clock.pass_days(29);
    assert!(matches!(bob.receive(&late.message, b"ad"), Ok(Received::New { .. })));
    world.clock.pass_days(1);
    for purged in [false, true] {
        for outgoing in [&late, &too_late] {
            let error = bob.receive(&outgoing.message, b"ad").unwrap_err();
            assert!(matches!(error, ReceiveError::UnknownSpk { .. }), "purged {purged}: {error}");
        }
        assert!(bob.rotate_if_due().await.unwrap().is_some() || purged);
    }
    assert_eq!(bob.failures()[&Failure::SpkUnknown], 4);
}

#[tokio::test]
async fn a_device_whose_current_signed_prekey_is_old_still_opens_what_it_can() {
    let world = World::new();
    let (alice, bob) = (world.device("alice", 1), world.device("bob", 1));
    bob.publish(1).await.unwrap();
    let outgoing = first_message(&alice, "bob").await;
    world.clock.pass_days(200);
    assert!(matches!(bob.receive(&outgoing.message, b"ad"), Ok(Received::New { .. })));
}

#[tokio::test]
async fn a_message_for_another_device_is_refused() {
    let world = World::new();
    let (alice, bob) = (world.device("alice", 1), world.device("bob", 1));
    bob.publish(1).await.unwrap();
    let outgoing = first_message(&alice, "bob").await;
    let error = world.device("bob", 2).receive(&outgoing.message, b"ad").unwrap_err();
    assert_eq!(error.failure(), Some(Failure::WrongRecipient));
}

#[tokio::test]
async fn a_sender_with_a_new_identity_is_an_error_until_it_is_trusted() {
    let world = World::new();
    let (alice, bob) = (world.device("alice", 1), world.device("bob", 1));
    bob.publish(5).await.unwrap();
    bob.receive(&first_message(&alice, "bob").await.message, b"ad").unwrap();
    let reinstalled = world.device("alice", 1);
    let outgoing = first_message(&reinstalled, "bob").await;
    let error = bob.receive(&outgoing.message, b"ad").unwrap_err();
    let ReceiveError::IdentityChanged(changed) = &error else {
        panic!("{error}");
    };
    assert_eq!(changed.pinned, *alice.identity());
    assert_eq!(changed.offered, *reinstalled.identity());
    assert_eq!(bob.failures()[&Failure::IdentityChanged], 1);

    let questions = bob.open_questions().unwrap();
    assert_eq!(questions.len(), 1);
    assert_eq!(questions[0].change, Change::Identity((**changed).clone()));
    bob.answer(&questions[0], Answer::Accept).unwrap();
    assert!(matches!(bob.receive(&outgoing.message, b"ad"), Ok(Received::New { .. })));
}

#[tokio::test]
async fn the_first_message_can_be_sent_again_after_a_restart() {
    let world = World::new();
    let folder = tempfile::tempdir().unwrap();
    let alice = world.device_in(folder.path(), "alice");
    let bob = world.device("bob", 1);
    bob.publish(1).await.unwrap();
    let outgoing = first_message(&alice, "bob").await;
    drop(alice);
    let alice = world.reopen(folder.path());
    let again = alice.first_message(outgoing.session.id).unwrap();
    assert_eq!(again, Some(outgoing.message));
    let session = alice.session(outgoing.session.id).unwrap().unwrap();
    assert_eq!(
        session.keys().unwrap().root().as_bytes(),
        outgoing.session.keys().unwrap().root().as_bytes()
    );
}

#[tokio::test]
async fn a_bundle_fetched_before_another_identity_was_pinned_starts_nothing() {
    let world = World::new();
    let alice = world.device("alice", 1);
    let old = world.device("bob", 1);
    old.publish(5).await.unwrap();
    let options = FetchOptions::default();
    let fetched = alice.fetch(&user_id("bob"), &options).await.unwrap();
    let stale = fetched.bundles.into_iter().next().unwrap().bundle.unwrap();
    world.server.forget("bob");
    let new = world.device("bob", 1);
    new.publish(5).await.unwrap();
    first_message(&alice, "bob").await;
    let error = alice.initiate(stale, b"hello", b"ad").unwrap_err();
    assert!(matches!(error, InitiateError::IdentityChanged), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_arrives_many_times_at_once_is_delivered_once() {
    let world = World::new();
    let folder = tempfile::tempdir().unwrap();
    let alice = world.device("alice", 1);
    let bob = world.device_in(folder.path(), "bob");
    bob.publish(1).await.unwrap();
    let outgoing = first_message(&alice, "bob").await;
    let copies = 8;
    let new = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..copies)
            .map(|_| {
                let bob = world.reopen(folder.path());
                let message = &outgoing.message;
                scope.spawn(move || bob.receive(message, b"ad").unwrap())
            })
            .collect();
        let received = threads.into_iter().map(|thread| thread.join().unwrap());
        received.filter(|received| matches!(received, Received::New { .. })).count()
    });
    assert_eq!(new, 1);
}

#[tokio::test]
async fn a_replay_with_bit_255_of_a_key_flipped_is_refused() {
    let world = World::new();
    let (alice, bob) = (world.device("alice", 1), world.device("bob", 1));
    bob.publish(1).await.unwrap();
    let with_opk = first_message(&alice, "bob").await;
    let without = first_message(&alice, "bob").await;
    assert_eq!(without.session.one_time_prekey, None);
    for outgoing in [&with_opk, &without] {
        bob.receive(&outgoing.message, b"ad").unwrap();
        // u8 version ‖ u16 suite ‖ u8 flags ‖ lp("alice") ‖ u32 ‖ lp("bob") ‖ u32 ‖ IK_A ‖ EK_A
        let identity = 4 + (2 + 5) + 4 + (2 + 3) + 4;
        assert_eq!(outgoing.message[identity..identity + 32], *alice.identity().as_bytes());
        let ephemeral = identity + 32;
        let mut replay = outgoing.message.clone();
        replay[ephemeral + 31] ^= 0x80;
        // The same point to a careless X25519, and other bytes to a careless list of duplicates.
        let error = bob.receive(&replay, b"ad").unwrap_err();
        assert!(matches!(error, ReceiveError::Message(_)), "{error}");
        assert_eq!(error.failure(), Some(Failure::Malformed));
        let mut replay = outgoing.message.clone();
        replay[identity + 31] ^= 0x80;
        assert!(bob.receive(&replay, b"ad").is_err());
        let received = bob.receive(&outgoing.message, b"ad").unwrap();
        assert!(matches!(received, Received::Duplicate { .. }));
    }
}

#[tokio::test]
async fn a_handshake_is_remembered_for_as_long_as_its_signed_prekey_is_held() {
    let world = World::new();
    let (alice, bob) = (world.device("alice", 1), world.device("bob", 1));
    bob.publish(1).await.unwrap();
    let first = first_message(&alice, "bob").await;
    bob.receive(&first.message, b"ad").unwrap();
    for _ in 0..2 {
        bob.receive(&first_message(&alice, "bob").await.message, b"ad").unwrap();
    }
    bob.rotate().await.unwrap();
    let later = first_message(&alice, "bob").await;
    bob.receive(&later.message, b"ad").unwrap();
    assert_eq!(bob.store.remembered(), [(1, 3), (2, 1)]);
    world.clock.pass_days(29);
    bob.tend().await.unwrap();
    assert_eq!(bob.store.remembered(), [(1, 3), (2, 1)]);
    let received = bob.receive(&first.message, b"ad").unwrap();
    assert!(matches!(received, Received::Duplicate { .. }));
    world.clock.pass_days(1);
    bob.tend().await.unwrap();
    assert_eq!(bob.store.remembered(), [(2, 1)], "with its signed prekey, not before");
    let received = bob.receive(&later.message, b"ad").unwrap();
    assert!(matches!(received, Received::Duplicate { .. }));
}
