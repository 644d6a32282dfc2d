//! The keys of a session, taken out of the store.

use super::{World, crash::files_with, first_message};
use crate::{
    client::{ReceiveError, Received, TakeKeysError},
    keystore::{KeysTaken, SessionId},
};

/// Enough for pages of the file to be split and merged.
const SESSIONS: u32 = 40;
/// No two sealed secrets have as many bytes in common.
const PIECE_BYTES: usize = 16;

#[tokio::test]
async fn taken_keys_are_in_no_file_not_even_sealed() {
    let world = World::new();
    let (ours, theirs) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let alice = world.device_in(ours.path(), "alice");
    let bob = world.device_in(theirs.path(), "bob");
    bob.publish(SESSIONS as usize).await.unwrap();
    let mut sessions = Vec::new();
    for _ in 0..SESSIONS {
        let outgoing = first_message(&alice, "bob").await;
        bob.receive(&outgoing.message, b"ad").unwrap();
        sessions.push(outgoing.session);
    }
    for (client, folder) in [(&alice, &ours), (&bob, &theirs)] {
        for (number, session) in sessions.iter().enumerate() {
            let sealed = client.store.sealed("session", session.id.0);
            let pieces = || sealed.chunks_exact(PIECE_BYTES);
            let files = |piece| files_with(folder.path(), piece);
            assert!(pieces().all(|piece| !files(piece).is_empty()), "{number} is held");
            let keys = client.take_keys(session.id).unwrap();
            assert_eq!(keys.root().as_bytes(), session.keys().unwrap().root().as_bytes());
            assert_eq!(keys.chain().as_bytes(), session.keys().unwrap().chain().as_bytes());
            for (place, piece) in pieces().enumerate() {
                assert_eq!(files(piece), [""; 0], "piece {place} of session {number}");
            }
        }
    }
}

#[tokio::test]
async fn keys_are_taken_once_and_the_session_stays() {
    let world = World::new();
    let folder = tempfile::tempdir().unwrap();
    let (alice, bob) = (world.device_in(folder.path(), "alice"), world.device("bob", 1));
    bob.publish(1).await.unwrap();
    let outgoing = first_message(&alice, "bob").await;
    bob.receive(&outgoing.message, b"ad").unwrap();
    let id = outgoing.session.id;
    for client in [&alice, &bob] {
        client.take_keys(id).unwrap();
        let error = client.take_keys(id).map(drop).unwrap_err();
        assert!(matches!(error, TakeKeysError::Taken(KeysTaken)), "{error}");
    }
    // A replay is known as one, and the message can be sent again.
    let again = bob.receive(&outgoing.message, b"ad").unwrap();
    let Received::Duplicate { session } = again else { panic!("{again:?}") };
    assert_eq!((session.id, session.keys().err()), (id, Some(KeysTaken)));
    drop(alice);
    let alice = world.reopen(folder.path());
    assert_eq!(alice.first_message(id).unwrap(), Some(outgoing.message));
    let session = alice.session(id).unwrap().unwrap();
    assert_eq!(session.keys().err(), Some(KeysTaken), "after a restart");
    assert_eq!(session.peer, outgoing.session.peer);
}

#[tokio::test]
async fn a_session_that_the_store_does_not_know_has_no_keys_to_take() {
    let error =
        World::new().device("alice", 1).take_keys(SessionId([1; 32])).map(drop).unwrap_err();
    assert!(matches!(error, TakeKeysError::NoSession), "{error}");
}

#[tokio::test]
async fn taken_keys_do_not_free_a_one_time_prekey_that_is_handed_out_twice() {
    let world = World::new();
    let (alice, carol) = (world.device("alice", 1), world.device("carol", 1));
    let bob = world.device("bob", 1);
    bob.publish(1).await.unwrap();
    world.server.reissue();
    let first = first_message(&alice, "bob").await;
    let second = first_message(&carol, "bob").await;
    bob.receive(&first.message, b"ad").unwrap();
    bob.take_keys(first.session.id).unwrap();
    let error = bob.receive(&second.message, b"ad").unwrap_err();
    assert!(matches!(error, ReceiveError::OpkAlreadyUsed { .. }), "{error}");
}

#[cfg(feature = "ratchet")]
#[tokio::test]
async fn a_ratchet_takes_the_keys_and_no_second_one_goes_on_from_them() {
    use crate::ratchet::NoRatchet;

    let world = World::new();
    let (alice, bob) = (world.device("alice", 1), world.device("bob", 1));
    bob.publish(1).await.unwrap();
    let mut outgoing = first_message(&alice, "bob").await;
    let id = outgoing.session.id;
    let mut received = bob.receive(&outgoing.message, b"ad").unwrap();
    // Read before the keys are taken, used after.
    let mut stale = bob.receive(&outgoing.message, b"ad").unwrap();
    let mut alices = alice.ratchet_of_sent(&mut outgoing).unwrap();
    let mut bobs = bob.ratchet_of_received(&mut received).unwrap();
    let answer = bobs.encrypt(b"answer").unwrap();
    assert_eq!(**alices.decrypt(&answer).unwrap(), *b"answer");

    assert!(outgoing.session.keys.is_none(), "erased in memory");
    for (name, client) in [("alice", &alice), ("bob", &bob)] {
        let session = client.session(id).unwrap().unwrap();
        assert_eq!(session.keys().err(), Some(KeysTaken), "{name}");
    }
    let mut again = bob.receive(&outgoing.message, b"ad").unwrap();
    for result in [
        alice.ratchet_of_sent(&mut outgoing),
        bob.ratchet_of_received(&mut received),
        bob.ratchet_of_received(&mut stale),
        bob.ratchet_of_received(&mut again),
    ] {
        let error = result.unwrap_err();
        assert!(matches!(error, NoRatchet::KeysTaken(_)), "{error}");
    }
}
