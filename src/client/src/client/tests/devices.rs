//! Devices of one user: added, lost, reinstalled.

use oncekey_types::{DeviceId, Seq};
use oncekey_x3dh::device_list::DeviceList;

use super::{
    World, first_message,
    trust::{User, contradiction, devices_changed, fetch, numbers, only_question, questions},
    user_id,
};
use crate::{
    client::{ChangeDevicesError, Client, NewDevice, ReceiveError, Received},
    keystore::SqliteKeyStore,
    pairing::PairingCode,
    trust::{Change, Contradiction},
};

#[tokio::test]
async fn a_lost_device_is_taken_off_the_list_and_off_the_servers() {
    let world = World::new();
    let alice = world.device("alice", 1);
    alice.publish(5).await.unwrap();
    let bob = User::new(&world, "bob");
    let (kept, lost) = (bob.device(1).await, bob.device(2).await);
    fetch(&alice, "bob").await.unwrap();
    let in_flight = first_message(&lost, "alice").await;

    let list = kept.remove_device(DeviceId(2)).await.unwrap();
    assert_eq!((list.seq(), numbers(list.list().list().devices())), (Seq(3), vec![1]));
    let fetched = fetch(&alice, "bob").await.unwrap();
    assert_eq!(fetched.bundles.len(), 1, "off the servers");
    assert_eq!(devices_changed(&only_question(&alice)).removed, [DeviceId(2)]);
    let error = alice.receive(&in_flight.message, b"ad").unwrap_err();
    assert!(matches!(error, ReceiveError::IdentityNotListed), "{error}");

    // Whoever found it cannot come back as a listed device without the account key.
    let found = world.device("bob", 2);
    found.publish(5).await.unwrap();
    let fetched = fetch(&alice, "bob").await.unwrap();
    assert!(fetched.bundles[1].bundle.is_err());
    kept.remove_device(DeviceId(2)).await.unwrap();
    kept.remove_device(DeviceId(2)).await.unwrap();
}

#[tokio::test]
async fn a_device_without_the_account_key_is_added_by_one_that_has_it() {
    let world = World::new();
    let alice = world.device("alice", 1);
    let bob = User::new(&world, "bob");
    let (holder, plain) = (bob.device(1).await, world.device("bob", 2));
    plain.publish(5).await.unwrap();
    assert!(fetch(&alice, "bob").await.unwrap().bundles[1].bundle.is_err(), "not listed");
    let error = plain.add_device(plain.listed()).await.unwrap_err();
    assert!(matches!(error, ChangeDevicesError::NoAccountKey), "{error}");

    let list = holder.add_device(plain.listed()).await.unwrap();
    assert!(list.list().lists(plain.address(), plain.identity()));
    let again = holder.add_device(plain.listed()).await.unwrap();
    assert_eq!(again.seq(), list.seq(), "nothing to change");
    assert!(fetch(&alice, "bob").await.unwrap().bundles[1].bundle.is_ok());
}

#[tokio::test]
async fn a_device_is_added_by_the_code_that_it_shows_and_by_no_other_users() {
    let world = World::new();
    let alice = world.device("alice", 1);
    let bob = User::new(&world, "bob");
    let (holder, new) = (bob.device(1).await, world.device("bob", 2));
    let seen: PairingCode = new.pairing_code().to_string().parse().unwrap();
    let list = holder.add_paired(&seen).await.unwrap();
    assert!(list.list().lists(new.address(), new.identity()));
    new.publish(5).await.unwrap();
    assert!(fetch(&alice, "bob").await.unwrap().bundles[1].bundle.is_ok());
    let again = holder.add_paired(&new.pairing_code()).await.unwrap();
    assert_eq!(again.seq(), list.seq(), "the same device, whenever it shows itself");

    let error = holder.add_paired(&alice.pairing_code()).await.unwrap_err();
    assert!(matches!(error, ChangeDevicesError::OtherUser), "{error}");
    let error = new.add_paired(&new.pairing_code()).await.unwrap_err();
    assert!(matches!(error, ChangeDevicesError::NoAccountKey), "{error}");
}

#[tokio::test]
async fn a_device_that_was_reinstalled_is_vouched_for_by_the_account_key() {
    let world = World::new();
    let alice = world.device("alice", 1);
    alice.publish(5).await.unwrap();
    let bob = User::new(&world, "bob");
    let old = bob.device(1).await;
    first_message(&alice, "bob").await;
    alice.receive(&first_message(&old, "alice").await.message, b"ad").unwrap();
    world.server.remove("bob", 1);
    let new = bob.device(1).await;
    assert_ne!(new.identity(), old.identity());

    let fetched = fetch(&alice, "bob").await.unwrap();
    assert!(fetched.bundles[0].bundle.is_ok(), "the pin has moved");
    assert_eq!(numbers(&devices_changed(&only_question(&alice)).renewed), [1]);
    let outgoing = first_message(&new, "alice").await;
    assert!(matches!(alice.receive(&outgoing.message, b"ad"), Ok(Received::New { .. })));
    let outgoing = first_message(&old, "alice").await;
    let error = alice.receive(&outgoing.message, b"ad").unwrap_err();
    assert!(matches!(error, ReceiveError::IdentityChanged(_)), "the old one is out: {error}");
}

#[tokio::test]
async fn the_own_list_is_continued_from_the_pinned_one() {
    let world = World::new();
    let bob = User::new(&world, "bob");
    let (one, two) = (bob.device(1).await, bob.device(2).await);
    let shown = world.server.list("bob");
    let removed = one.remove_device(DeviceId(2)).await.unwrap();
    // The server wants device 2 back: it shows the list that had it.
    world.server.put_list("bob", shown);
    let error = one.add_device(world.device("bob", 3).listed()).await.unwrap_err();
    assert!(!error.is_retryable(), "{error}");
    assert_eq!(one.pinned_device_list(&user_id("bob")).unwrap(), Some(removed));
    assert!(matches!(contradiction(&one), Contradiction::RolledBack { .. }));
    drop(two);
}

#[tokio::test]
async fn a_device_with_the_account_key_takes_no_list_of_another_key_for_its_own() {
    let world = World::new();
    let (bob, eve) = (User::new(&world, "bob"), User::new(&world, "bob"));
    eve.device(1).await;
    let new = NewDevice::new(user_id("bob"), 2).with_account(bob.account());
    let store = SqliteKeyStore::in_memory().unwrap();
    let two = Client::create(store, world.server.clone(), new).unwrap();
    // It has never seen a list: there is no pin to contradict.
    let error = two.publish(1).await.unwrap_err();
    assert!(!error.is_retryable(), "{error}");
    assert!(two.pinned_device_list(&user_id("bob")).unwrap().is_none());
    let event = only_question(&two);
    let Change::Account(changed) = &event.change else { panic!("{event:?}") };
    assert_eq!(changed.pinned, *bob.account().public());
    assert_eq!(changed.offered.account(), eve.account().public());
}

#[tokio::test]
async fn a_user_learns_of_devices_that_others_add_to_the_own_account() {
    let world = World::new();
    let bob = User::new(&world, "bob");
    let one = bob.device(1).await;
    one.refresh_device_list(&user_id("bob")).await.unwrap();
    assert_eq!(questions(&one), [], "that itself was added is no news");
    one.add_device(world.device("bob", 7).listed()).await.unwrap();
    assert_eq!(questions(&one), [], "nor what it did itself");
    // Someone has the account key.
    bob.device(9).await;
    one.on_event(crate::client::ServerEvent::DeviceListChanged).await.unwrap();
    assert_eq!(numbers(&devices_changed(&only_question(&one)).added), [9]);
}

#[tokio::test]
async fn two_devices_that_change_the_list_at_once_both_succeed() {
    let world = World::new();
    let bob = User::new(&world, "bob");
    let (one, two) = (bob.device(1).await, bob.device(2).await);
    for round in 0..5 {
        let (a, b) = (world.device("bob", 10 + round), world.device("bob", 20 + round));
        let (a, b) = tokio::join!(one.add_device(a.listed()), two.add_device(b.listed()));
        a.unwrap();
        b.unwrap();
    }
    let list = world.server.list("bob").unwrap();
    assert_eq!(DeviceList::from_bytes(&list.list.0).unwrap().devices().len(), 12);
}
