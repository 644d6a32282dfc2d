//! The servers were lost, and others made from a backup take their place.

use oncekey_types::{DeviceId, Epoch};

use super::{TestClient, World, first_message, user_id};
use crate::{
    client::{Client, Config, FetchOptions, ListError, NewDevice, Received, WriteError},
    fake::Fault,
    keystore::SqliteKeyStore,
    machine::{DeviceListRefused, PoolPlan},
    trust::Change,
};

/// Later than the clock of the world, by no more than a device believes.
const EPOCH: Epoch = Epoch(1_790_000_000_000);

const POOL: PoolPlan = PoolPlan { watermark: 3, batch: 5, target: 8, covers_s: 0 };

fn config(world: &World) -> Config {
    Config { pool: POOL, ..world.config() }
}

fn device(world: &World) -> TestClient {
    world.device("bob", 1).with_config(config(world))
}

/// A device with the account key.
fn with_account(world: &World, number: u32) -> TestClient {
    let store = SqliteKeyStore::in_memory().unwrap();
    let new = NewDevice::new(user_id("bob"), number).with_new_account();
    Client::create(store, world.server.clone(), new).unwrap().with_config(config(world))
}

async fn opens(bob: &TestClient, alice: &TestClient) {
    let outgoing = first_message(alice, "bob").await;
    let received = bob.receive(&outgoing.message, b"ad").unwrap();
    assert!(matches!(received, Received::New { .. }), "{received:?}");
}

#[tokio::test]
async fn a_device_puts_new_keys_out_and_none_that_were_out_before() {
    let world = World::new();
    let (alice, bob) = (world.device("alice", 1), device(&world));
    bob.publish(4).await.unwrap();
    world.server.back_up();
    // Keys 5 to 8 are handed out after the backup, and so is a signed prekey.
    bob.tend().await.unwrap();
    bob.publish(8).await.unwrap();
    let late = first_message(&alice, "bob").await;
    let current = bob.rotate().await.unwrap().pool.signed_prekey;
    world.server.restore(EPOCH);

    let tended = bob.tend().await.unwrap().unwrap();
    assert_eq!(tended.restored, Some(EPOCH));
    assert!(tended.rotated > Some(current), "{tended:?}");
    assert_eq!(world.server.pool("bob", 1), (9..=16).collect::<Vec<_>>());
    opens(&bob, &alice).await;
    let received = bob.receive(&late.message, b"ad").unwrap();
    assert!(matches!(received, Received::New { .. }), "the secrets of issued keys are kept");
    let again = bob.tend().await.unwrap().unwrap();
    assert_eq!((again.restored, again.added, again.rotated), (None, 0, None));
}

#[tokio::test]
async fn an_upload_without_an_answer_is_not_taken_for_the_new_servers() {
    let world = World::new();
    let bob = device(&world);
    bob.publish(2).await.unwrap();
    world.server.back_up();
    world.server.after(1, Fault::LoseReply);
    // The old server has keys 3 to 8, and may have handed them out.
    let error = bob.tend().await.unwrap_err();
    assert!(error.is_retryable(), "{error}");
    world.server.restore(EPOCH);
    let tended = bob.tend().await.unwrap().unwrap();
    assert_eq!((tended.restored, tended.added), (Some(EPOCH), 8));
    assert_eq!(world.server.pool("bob", 1), (9..=16).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_device_that_the_backup_does_not_have_registers_again() {
    let world = World::new();
    let (alice, bob) = (world.device("alice", 1), device(&world));
    world.server.back_up();
    bob.publish(4).await.unwrap();
    world.server.restore(EPOCH);
    let error = bob.replenish(5).await.unwrap_err();
    assert!(matches!(error, WriteError::Call(_)), "{error}");
    let tended = bob.tend().await.unwrap().unwrap();
    assert_eq!((tended.restored, tended.pool.count), (Some(EPOCH), 8));
    assert!(world.server.pool("bob", 1).iter().all(|id| *id > 4));
    opens(&bob, &alice).await;
    assert_eq!(bob.tend().await.unwrap().unwrap().restored, None);
}

#[tokio::test]
async fn a_device_that_was_never_registered_is_not_registered_by_a_restore() {
    let world = World::new();
    let bob = device(&world);
    world.server.restore(EPOCH);
    assert!(bob.tend().await.unwrap().is_none());
    bob.publish(4).await.unwrap();
    assert_eq!(world.server.pool("bob", 1).len(), 4);
}

#[tokio::test]
async fn of_two_installations_under_a_number_the_one_in_the_backup_has_it() {
    let world = World::new();
    let (first, second) = (device(&world), device(&world));
    first.publish(2).await.unwrap();
    world.server.back_up();
    world.server.remove("bob", 1);
    second.publish(2).await.unwrap();
    world.server.restore(EPOCH);
    // Nothing shows the servers that the second one may take the number from the first.
    let error = second.tend().await.unwrap_err();
    assert!(matches!(error, WriteError::Replaced), "{error}");
    assert_eq!(first.tend().await.unwrap().unwrap().restored, Some(EPOCH));
    opens(&first, &world.device("alice", 1)).await;
}

#[tokio::test]
async fn a_list_that_came_after_the_backup_is_given_back_and_nobody_cries_wolf() {
    let world = World::new();
    let (alice, bob) = (world.device("alice", 1), with_account(&world, 1));
    let tablet = world.device("bob", 2);
    bob.publish(4).await.unwrap();
    alice.refresh_device_list(&user_id("bob")).await.unwrap();
    world.server.back_up();
    tablet.publish(1).await.unwrap();
    let list = bob.add_device(tablet.listed()).await.unwrap();
    alice.refresh_device_list(&user_id("bob")).await.unwrap();
    world.server.restore(EPOCH);

    // Alice goes by the list that she knows, and sees no contradiction.
    let fetched = alice.fetch(&user_id("bob"), &FetchOptions::default()).await.unwrap();
    assert!(fetched.bundles.iter().all(|bundle| bundle.bundle.is_ok()), "{fetched:?}");
    let behind = alice.refresh_device_list(&user_id("bob")).await.unwrap_err();
    assert!(matches!(behind, ListError::Refused(DeviceListRefused::Behind { .. })), "{behind}");
    let open = |client: &TestClient| {
        let questions = client.open_questions().unwrap();
        questions.into_iter().any(|event| matches!(event.change, Change::Contradiction(_)))
    };
    assert!(!open(&alice) && !open(&bob));

    bob.tend().await.unwrap();
    assert_eq!(world.server.list("bob"), Some(list.to_wire()));
    assert_eq!(alice.refresh_device_list(&user_id("bob")).await.unwrap(), Some(list.clone()));
    assert!(!open(&alice) && !open(&bob));

    // From now on an older list is what it always was.
    let removed = bob.remove_device(DeviceId(2)).await.unwrap();
    alice.refresh_device_list(&user_id("bob")).await.unwrap();
    world.server.put_list("bob", Some(list.to_wire()));
    let refused = alice.refresh_device_list(&user_id("bob")).await.unwrap_err();
    assert!(
        matches!(refused, ListError::Refused(DeviceListRefused::Succession(_))),
        "{removed:?}: {refused}"
    );
    assert!(open(&alice), "a list was rolled back");
}

#[tokio::test]
async fn an_epoch_that_cannot_be_is_not_believed() {
    let world = World::new();
    let bob = device(&world);
    bob.publish(8).await.unwrap();
    world.server.claim(Epoch(u64::MAX >> 2));
    bob.tend().await.unwrap();
    bob.rotate().await.unwrap_err();
    world.server.claim(Epoch::FIRST);
    bob.rotate().await.unwrap();
}
