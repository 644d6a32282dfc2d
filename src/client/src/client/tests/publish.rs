use oncekey_api::{Code, Problem};
use oncekey_x3dh::keys::AccountKeyPair;

use super::{TestClient, World, user_id};
use crate::{
    client::{Client, NewDevice, WriteError, os_random},
    fake::Fault,
    keystore::{KeyStore, SqliteKeyStore},
    transport::{Call, CallError, Method},
};

fn uploads(world: &World) -> Vec<Call> {
    let mut calls = world.server.calls();
    calls.retain(|call| call.method != Method::Get);
    calls
}

/// Every key that the server may hand out has its secret here.
async fn assert_secrets_are_held(client: &TestClient) {
    assert_eq!(client.status().await.unwrap().missing_secrets, 0);
}

#[tokio::test]
async fn publishing_registers_once_and_fills_the_pool_in_uploads_of_the_allowed_size() {
    let world = World::new();
    let bob = world.device("bob", 1);
    let published = bob.publish(450).await.unwrap();
    assert_eq!(published.pool.count, 450);
    assert_eq!(world.server.pool("bob", 1), (1..=450).collect::<Vec<_>>(), "ids grow from 1");
    assert_eq!(uploads(&world).len(), 3, "one registration, two uploads");
    assert!(uploads(&world).iter().all(|call| call.body.len() <= 64 * 1024));
    assert_secrets_are_held(&bob).await;

    let again = bob.publish(450).await.unwrap();
    assert_eq!(again.registration, published.registration);
    assert_eq!(uploads(&world).len(), 3, "nothing to do the second time");
}

/// How often the server saw this very request.
fn copies(world: &World, call: &Call) -> usize {
    uploads(world).iter().filter(|seen| *seen == call).count()
}

#[tokio::test]
async fn a_lost_reply_is_followed_by_the_identical_upload() {
    let world = World::new();
    let bob = world.device("bob", 1);
    bob.publish(2).await.unwrap();
    world.server.next(Fault::LoseReply);
    let error = bob.rotate().await.unwrap_err();
    assert!(matches!(&error, WriteError::Call(CallError::Unknown { .. })), "{error}");
    assert!(error.is_retryable());
    let lost = uploads(&world).pop().unwrap();
    let pool = bob.replenish(5).await.unwrap().pool;
    assert_eq!(copies(&world, &lost), 2, "sent again, byte for byte");
    assert_eq!(uploads(&world).len(), 4, "register, rotate twice, replenish");
    assert_eq!(pool.count, 5);
    assert_eq!(pool.signed_prekey.0, 2, "the rotation took effect once");
    assert_secrets_are_held(&bob).await;
}

#[tokio::test]
async fn a_read_that_fails_leaves_no_write_behind() {
    let world = World::new();
    let bob = world.device("bob", 1);
    bob.publish(2).await.unwrap();
    let before = bob.store.state().unwrap();
    // Replenishing asks for the status first.
    world.server.next(Fault::LoseReply);
    let error = bob.replenish(5).await.unwrap_err();
    assert!(error.is_retryable(), "{error}");
    assert_eq!(bob.store.state().unwrap(), before);
}

#[tokio::test]
async fn a_crash_between_storing_and_sending_ends_in_the_same_upload() {
    for fault in [Fault::LoseRequest, Fault::LoseReply] {
        let world = World::new();
        let folder = tempfile::tempdir().unwrap();
        let bob = world.device_in(folder.path(), "bob");
        bob.publish(2).await.unwrap();
        world.server.next(fault.clone());
        bob.rotate().await.unwrap_err();
        let lost = uploads(&world).pop().unwrap();
        drop(bob);

        let bob = world.reopen(folder.path());
        let pending = bob.store.state().unwrap().pending.unwrap();
        assert_eq!(pending.body, lost.body);
        bob.replenish(2).await.unwrap();
        assert_eq!(copies(&world, &lost), 2, "after {fault:?}");
        assert_eq!(bob.store.state().unwrap().pending, None);
        let pool = bob.status().await.unwrap().server.pool;
        assert_eq!(pool.signed_prekey.0, 2, "after {fault:?}");
    }
}

#[tokio::test]
async fn every_crash_point_of_an_upload_leaves_the_secrets_of_all_published_keys() {
    // The upload is the second call after the status, or the first after a pending write.
    for fault in [Fault::LoseRequest, Fault::LoseReply] {
        let world = World::new();
        let folder = tempfile::tempdir().unwrap();
        let bob = world.device_in(folder.path(), "bob");
        world.server.next(fault.clone());
        bob.publish(20).await.unwrap_err();
        drop(bob);
        let bob = world.reopen(folder.path());
        let published = bob.publish(20).await.unwrap();
        assert_eq!(published.pool.count, 20, "after {fault:?}");
        assert_eq!(world.server.pool("bob", 1), (1..=20).collect::<Vec<_>>());
        assert_secrets_are_held(&bob).await;
    }
}

#[tokio::test]
async fn a_device_that_fell_behind_catches_up_with_what_the_server_has() {
    let world = World::new();
    let bob = world.device("bob", 1);
    bob.publish(3).await.unwrap();
    // As if another copy of this device had gone on.
    world.server.advance("bob", 1, 40, 7, 90);
    let pool = bob.rotate().await.unwrap().pool;
    assert_eq!(pool.signed_prekey.0, 8);
    let pool = bob.replenish(5).await.unwrap().pool;
    assert_eq!(pool.count, 5);
    assert_eq!(world.server.pool("bob", 1), [1, 2, 3, 91, 92]);
    assert!(bob.store.state().unwrap().seq.0 > 40);
    assert_secrets_are_held(&bob).await;
}

#[tokio::test]
async fn ids_in_conflict_alone_are_enough_to_catch_up() {
    let world = World::new();
    let bob = world.device("bob", 1);
    bob.publish(3).await.unwrap();
    world.server.advance("bob", 1, 1, 7, 90);
    bob.replenish(5).await.unwrap();
    assert_eq!(world.server.pool("bob", 1), [1, 2, 3, 91, 92]);
    bob.rotate().await.unwrap();
}

#[tokio::test]
async fn a_server_that_refuses_every_version_is_not_asked_for_ever() {
    let world = World::new();
    let bob = world.device("bob", 1);
    bob.publish(3).await.unwrap();
    let before = uploads(&world).len();
    for _ in 0..10 {
        let stale = Problem::new(Code::StaleSeq, "always");
        world.server.next(Fault::Refuse(stale));
        // What follows a refusal is a status, which is let through or refused alike.
    }
    let error = bob.rotate().await.unwrap_err();
    assert!(matches!(error, WriteError::OutOfDate { .. }), "{error}");
    assert_eq!(uploads(&world).len() - before, oncekey_types::limits::RESYNCS_MAX);
}

#[tokio::test]
async fn a_liar_cannot_use_up_the_ids_of_a_device() {
    let world = World::new();
    let bob = world.device("bob", 1);
    bob.publish(3).await.unwrap();
    world.server.advance("bob", 1, u64::MAX, u32::MAX, u32::MAX);
    bob.rotate().await.unwrap_err();
    let state = bob.store.state().unwrap();
    assert!(state.seq.0 < 1 << 24, "{state:?}");
    assert!(state.highest_one_time_prekey.0 < 1 << 24, "{state:?}");
}

#[tokio::test]
async fn a_refused_write_is_not_sent_again() {
    let world = World::new();
    let bob = world.device("bob", 1);
    bob.publish(3).await.unwrap();
    world.server.next(Fault::Refuse(Problem::new(Code::InvalidSignature, "no")));
    let error = bob.rotate().await.unwrap_err();
    assert!(!error.is_retryable(), "{error}");
    assert_eq!(bob.store.state().unwrap().pending, None);
    bob.rotate().await.unwrap();
}

#[tokio::test]
async fn a_device_that_the_server_forgot_registers_anew() {
    let world = World::new();
    let bob = world.device("bob", 1);
    let first = bob.publish(3).await.unwrap();
    world.server.forget("bob");
    bob.rotate().await.unwrap_err();
    let second = bob.publish(3).await.unwrap();
    assert!(second.registration > first.registration);
    assert_eq!(world.server.pool("bob", 1), [4, 5, 6], "no id comes back");
}

#[tokio::test]
async fn removing_is_done_when_the_device_is_gone() {
    let world = World::new();
    let bob = world.device("bob", 1);
    bob.publish(3).await.unwrap();
    world.server.next(Fault::LoseReply);
    bob.remove().await.unwrap_err();
    bob.remove().await.unwrap();
    assert_eq!(bob.store.state().unwrap().registration, None);
    bob.publish(1).await.unwrap();
}

#[tokio::test]
async fn a_signed_prekey_is_replaced_when_it_is_due() {
    let world = World::new();
    let bob = world.device("bob", 1);
    assert!(bob.rotate_if_due().await.unwrap().is_none(), "not registered");
    bob.publish(1).await.unwrap();
    world.clock.pass_days(6);
    assert!(bob.rotate_if_due().await.unwrap().is_none());
    world.clock.pass_days(1);
    let written = bob.rotate_if_due().await.unwrap().unwrap();
    assert_eq!(written.pool.signed_prekey.0, 2);
}

#[tokio::test]
async fn two_clients_of_one_store_do_not_use_a_seq_twice() {
    let world = World::new();
    let folder = tempfile::tempdir().unwrap();
    let one = world.device_in(folder.path(), "bob");
    one.publish(1).await.unwrap();
    let two = world.reopen(folder.path());
    for round in 0..3 {
        let (a, b) = tokio::join!(one.rotate(), two.rotate());
        for error in [a.err(), b.err()].into_iter().flatten() {
            assert!(error.is_retryable(), "round {round}: {error}");
        }
    }
    let mut seen = std::collections::BTreeMap::new();
    for call in uploads(&world) {
        let body: serde_json::Value = serde_json::from_slice(&call.body).unwrap();
        let first = seen.entry(body["seq"].as_u64().unwrap()).or_insert(call.body.clone());
        assert_eq!(*first, call.body, "a seq stands for one write");
    }
}

#[tokio::test]
async fn a_device_with_the_account_key_adds_itself_to_the_device_list() {
    let world = World::new();
    let account = AccountKeyPair::generate(&mut os_random());
    let seed = account.to_seed();
    for device in 1..=3 {
        let new =
            NewDevice::new(user_id("bob"), device).with_account(AccountKeyPair::from_seed(&seed));
        let store = SqliteKeyStore::in_memory().unwrap();
        let bob = Client::create(store, world.server.clone(), new).unwrap();
        bob.publish(1).await.unwrap();
        let list = bob.refresh_device_list(&user_id("bob")).await.unwrap().unwrap();
        assert_eq!(list.seq().0, u64::from(device));
        assert!(list.list().lists(bob.address(), bob.identity()));
    }
}

#[tokio::test]
async fn an_upload_that_cannot_be_made_is_refused_before_anything_is_stored() {
    let world = World::new();
    let bob = world.device("bob", 1);
    let state = bob.store.state().unwrap();
    let error = bob.device.replenish(&state, 201, &mut os_random()).unwrap_err();
    assert!(error.to_string().contains("201"), "{error}");
    bob.device.replenish(&state, 0, &mut os_random()).unwrap_err();
    assert_eq!(bob.store.state().unwrap(), state);
}

#[tokio::test]
async fn a_refusal_that_names_nothing_is_made_up_for_by_the_status() {
    let world = World::new();
    let bob = world.device("bob", 1);
    bob.publish(3).await.unwrap();
    world.server.advance("bob", 1, 40, 7, 90);
    let before = uploads(&world).len();
    world.server.next(Fault::Refuse(Problem::new(Code::StaleSeq, "")));
    bob.rotate().await.unwrap();
    assert_eq!(uploads(&world).len() - before, 2, "the second version fits");
}

#[tokio::test]
async fn the_work_of_a_client_can_be_spawned() {
    let world = World::new();
    let bob = std::sync::Arc::new(world.device("bob", 1));
    let task = {
        let bob = std::sync::Arc::clone(&bob);
        tokio::spawn(async move {
            bob.publish(1).await.map(drop)?;
            bob.rotate_if_due().await.map(drop)?;
            bob.replenish(2).await.map(drop)?;
            let options = crate::client::FetchOptions::default();
            drop(bob.fetch(bob.user(), &options).await);
            bob.remove().await.map(drop)
        })
    };
    task.await.unwrap().unwrap();
}

#[tokio::test]
async fn an_installation_that_was_replaced_learns_of_it_and_does_not_fight() {
    let world = World::new();
    let (old, new) = (world.device("bob", 1), world.device("bob", 1));
    old.publish(3).await.unwrap();
    let refused = new.publish(3).await.unwrap_err();
    assert!(matches!(refused, WriteError::Replaced), "the number is taken: {refused}");
    world.server.remove("bob", 1);
    new.publish(3).await.unwrap();
    for error in [old.publish(9).await.unwrap_err(), old.replenish(9).await.unwrap_err()] {
        assert!(matches!(error, WriteError::Replaced), "{error}");
        assert!(!error.is_retryable());
    }
    new.publish(9).await.unwrap();
}

#[tokio::test]
async fn a_registration_whose_answer_was_lost_for_good_is_still_the_devices_own() {
    let world = World::new();
    let bob = world.device("bob", 1);
    bob.publish(3).await.unwrap();
    world.server.forget("bob");
    let unknown = Problem::new(Code::UnknownDevice, "");
    world.server.next(Fault::Refuse(unknown));
    world.server.next(Fault::LoseReply);
    bob.publish(3).await.unwrap_err();
    // Another copy of the device goes on, so that the re-send is refused.
    world.server.move_on("bob", 1, 3);
    assert!(bob.publish(5).await.unwrap().pool.count >= 5);
}
