//! Backups: what is in one, and what a device does that came back from one.

use oncekey_types::{OneTimePreKeyId, SignedPreKeyId};
use oncekey_x3dh::{Failure, keys::AccountKeyPair};

use super::{TestClient, World, first_message, unlock, user_id};
use crate::{
    client::{Client, NewDevice, ReceiveError, Received, WhyGone, WriteError, os_random},
    keystore::{self, Absence, Export, KeyStore, SqliteKeyStore, StoreKey, Unlock},
    trust::Answer,
};

/// The device of an export, in memory.
fn import(world: &World, export: &Export) -> TestClient {
    let store = SqliteKeyStore::in_memory().unwrap();
    Client::import(store, world.server.clone(), export).unwrap().with_config(world.config())
}

#[tokio::test]
async fn an_identity_comes_back_with_its_pins_and_without_prekeys_and_sessions() {
    let world = World::new();
    let account = AccountKeyPair::generate(&mut os_random());
    let account_public = *account.public();
    let new = NewDevice::new(user_id("alice"), 1).with_account(account);
    let store = SqliteKeyStore::in_memory().unwrap();
    let alice = Client::create(store, world.server.clone(), new).unwrap();
    let alice = alice.with_config(world.config());
    alice.publish(3).await.unwrap();
    alice.refresh_device_list(&user_id("alice")).await.unwrap();
    let bob = world.device("bob", 1);
    bob.publish(3).await.unwrap();
    let outgoing = first_message(&alice, "bob").await;
    // A question that is open, and one that was answered with no.
    for (number, answer) in [(1, Some(Answer::Reject)), (2, None)] {
        world.device("carol", number).publish(1).await.unwrap();
        first_to(&alice, "carol", number).await;
        world.server.forget("carol");
        world.device("carol", number).publish(1).await.unwrap();
        alice.fetch(&user_id("carol"), &super::FetchOptions::default()).await.unwrap();
        if let Some(answer) = answer {
            let question = alice.open_questions().unwrap().pop().unwrap();
            alice.answer(&question, answer).unwrap();
        }
        world.server.forget("carol");
    }

    let lock = Unlock::passphrase("correct horse").unwrap();
    let bytes = alice.export().unwrap().to_bytes(&lock).unwrap();
    let restored = import(&world, &Export::from_bytes(&bytes, &lock).unwrap());
    assert_eq!(restored.address(), alice.address());
    assert_eq!(restored.identity(), alice.identity());
    let device = restored.store.device().unwrap();
    assert_eq!(device.account().map(AccountKeyPair::public), Some(&account_public));
    assert_eq!(restored.store.pinned_identity(bob.address()).unwrap(), Some(*bob.identity()));
    let list = restored.pinned_device_list(&user_id("alice")).unwrap();
    assert_eq!(list, alice.pinned_device_list(&user_id("alice")).unwrap());
    assert!(list.is_some());
    let events = restored.store.trust_events(None).unwrap();
    assert_eq!(events, alice.store.trust_events(None).unwrap());
    assert_eq!(events.len(), 2);
    assert!(restored.session(outgoing.session.id).unwrap().is_none());
    let state = restored.store.state().unwrap();
    assert_eq!((state.registration, state.current, state.pending), (None, None, None));
    let again = SqliteKeyStore::in_memory().unwrap();
    again.create(&device).unwrap();
    let error = again.import(&alice.export().unwrap(), super::Clock::now(&world.clock));
    assert!(matches!(error, Err(keystore::Error::DeviceExists)));
}

/// A first message to one device of `user`.
async fn first_to(alice: &TestClient, user: &str, device: u32) {
    let fetched = alice.fetch(&user_id(user), &super::FetchOptions::default()).await.unwrap();
    let mut bundles = fetched.bundles.into_iter();
    let bundle = bundles.find(|bundle| bundle.device.0 == device).unwrap().bundle.unwrap();
    alice.initiate(bundle, b"hello", b"ad").unwrap();
}

#[tokio::test]
async fn an_export_opens_with_what_locked_it_and_whole() {
    let world = World::new();
    let alice = world.device("alice", 1);
    let lock = Unlock::Key(StoreKey::generate());
    let bytes = alice.export().unwrap().to_bytes(&lock).unwrap();
    for other in [unlock(), Unlock::passphrase("correct horse").unwrap()] {
        let error = Export::from_bytes(&bytes, &other).unwrap_err();
        assert!(matches!(error, keystore::Error::Locked), "{error}");
    }
    for length in 0..bytes.len() {
        Export::from_bytes(&bytes[..length], &lock).expect_err(&format!("cut at {length}"));
        let mut changed = bytes.clone();
        changed[length] ^= 1;
        Export::from_bytes(&changed, &lock).expect_err(&format!("byte {length} changed"));
    }
    let seed = alice.device.identity().to_seed().unwrap();
    assert!(!bytes.windows(32).any(|window| window == *seed));
    Export::from_bytes(&bytes, &lock).unwrap();
}

/// What is refused because the key was thrown away.
fn assert_discarded(received: Result<Received, ReceiveError>) {
    let error = received.unwrap_err();
    let ReceiveError::UnknownSpk { why: WhyGone::Absent(Absence::Discarded), .. } = error else {
        panic!("{error}");
    };
}

#[tokio::test]
async fn a_restored_device_publishes_new_prekeys_and_refuses_what_went_to_the_old() {
    let world = World::new();
    let (alice, bob) = (world.device("alice", 1), world.device("bob", 1));
    bob.publish(5).await.unwrap();
    let export = bob.export().unwrap();
    let (read, unread) = (first_message(&alice, "bob").await, first_message(&alice, "bob").await);
    bob.receive(&read.message, b"ad").unwrap();
    bob.rotate().await.unwrap();
    drop(bob);

    let restored = import(&world, &export);
    let published = restored.publish(5).await.unwrap();
    let pool = world.server.pool("bob", 1);
    assert_eq!(pool.len(), 5);
    assert!(pool.iter().all(|id| *id > 5), "the old pool is gone, ids grow: {pool:?}");
    assert!(published.pool.signed_prekey.0 > 2, "{:?}", published.pool);
    // What was read before the restore is a replay; nobody here could tell.
    assert_discarded(restored.receive(&read.message, b"ad"));
    assert_discarded(restored.receive(&unread.message, b"ad"));
    assert_eq!(restored.failures()[&Failure::SpkUnknown], 2);

    let outgoing = first_message(&alice, "bob").await;
    assert!(matches!(restored.receive(&outgoing.message, b"ad"), Ok(Received::New { .. })));
    assert!(restored.tend().await.unwrap().is_some());
}

#[tokio::test]
async fn a_store_that_was_put_back_is_found_out_before_it_uploads_anything() {
    let world = World::new();
    let (folder, copy) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let alice = world.device("alice", 1);
    let bob = world.device_in(folder.path(), "bob");
    bob.publish(5).await.unwrap();
    drop(bob);
    for entry in std::fs::read_dir(folder.path()).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), copy.path().join(entry.file_name())).unwrap();
    }
    let bob = world.reopen(folder.path());
    let outgoing = first_message(&alice, "bob").await;
    bob.receive(&outgoing.message, b"ad").unwrap();
    bob.rotate().await.unwrap();
    bob.replenish(8).await.unwrap();
    drop(bob);

    let old = world.reopen(copy.path());
    let uploads = world.server.calls().len();
    let error = old.tend().await.unwrap_err();
    assert!(matches!(error, WriteError::StoreIsOld), "{error}");
    assert!(!error.is_retryable());
    assert_eq!(world.server.calls().len(), uploads + 1, "a look, no upload");

    old.discard_prekeys().await.unwrap();
    old.publish(8).await.unwrap();
    let tended = old.tend().await.unwrap().unwrap();
    assert_eq!(tended.pool.count, 82, "the plan's pool");
    assert_discarded(old.receive(&outgoing.message, b"ad"));
    let fresh = first_message(&alice, "bob").await;
    assert!(matches!(old.receive(&fresh.message, b"ad"), Ok(Received::New { .. })));
}

#[tokio::test]
async fn keys_that_the_store_never_had_are_a_sign_of_an_old_store_too() {
    let world = World::new();
    let (folder, copy) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let bob = world.device_in(folder.path(), "bob");
    bob.publish(5).await.unwrap();
    drop(bob);
    for entry in std::fs::read_dir(folder.path()).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), copy.path().join(entry.file_name())).unwrap();
    }
    world.reopen(folder.path()).replenish(8).await.unwrap();
    let old = world.reopen(copy.path());
    // Catches up with the numbers of the server, and so no longer differs in them.
    old.rotate().await.unwrap();
    let error = old.tend().await.unwrap_err();
    assert!(matches!(error, WriteError::StoreIsOld), "{error}");
}

#[tokio::test]
async fn discarded_ids_are_told_from_ids_that_were_never_made() {
    let world = World::new();
    let bob = world.device("bob", 1);
    bob.publish(5).await.unwrap();
    bob.discard_prekeys().await.unwrap();
    let spk = |id| format!("{:?}", bob.store.signed_prekey(SignedPreKeyId(id)).unwrap());
    let opk = |id| format!("{:?}", bob.store.one_time_prekey(OneTimePreKeyId(id)).unwrap());
    assert_eq!((spk(1), opk(5)), ("Absent(Discarded)".into(), "Absent(Discarded)".into()));
    assert_eq!((spk(2), opk(6)), ("Absent(NeverMade)".into(), "Absent(NeverMade)".into()));
    assert_eq!((spk(0), opk(0)), ("Absent(NeverMade)".into(), "Absent(NeverMade)".into()));
}
