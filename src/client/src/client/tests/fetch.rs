use oncekey_api::{Base64, bundle::OneTimePreKeyStatus};
use oncekey_types::{DeviceId, RequestId, UnixSeconds};
use oncekey_x3dh::{Failure, bundle::BundleError, keys::AccountKeyPair};

use super::{TestClient, World, first_message, user_id};
use crate::{
    client::{
        BundleRefused, Client, Config, FetchError, FetchOptions, Fetched, ListError, NewDevice,
        Received, os_random,
    },
    fake::Fault,
    keystore::SqliteKeyStore,
    machine::DeviceListRefused,
    transport::Method,
};

async fn fetch(client: &TestClient, user: &str) -> Result<Fetched, FetchError> {
    client.fetch(&user_id(user), &FetchOptions::default()).await
}

/// The refusal of the only bundle of a fetch.
async fn refusal(client: &TestClient, user: &str) -> BundleRefused {
    let fetched = fetch(client, user).await.unwrap();
    let bundle = fetched.bundles.into_iter().next().unwrap();
    bundle.bundle.unwrap_err()
}

#[tokio::test]
async fn one_fetch_gives_a_bundle_for_each_device() {
    let world = World::new();
    let alice = world.device("alice", 1);
    for device in [1, 2, 3] {
        world.device("bob", device).publish(2).await.unwrap();
    }
    let fetched = fetch(&alice, "bob").await.unwrap();
    let devices: Vec<_> = fetched.bundles.iter().map(|b| b.device.0).collect();
    assert_eq!(devices, [1, 2, 3]);
    for bundle in &fetched.bundles {
        assert_eq!(bundle.one_time_prekey_status, OneTimePreKeyStatus::Issued);
        assert_eq!(bundle.one_time_prekey.unwrap().0, 1);
        assert!(bundle.bundle.is_ok());
    }
    let only = FetchOptions { devices: Some(vec![DeviceId(2)]), ..FetchOptions::default() };
    let fetched = alice.fetch(&user_id("bob"), &only).await.unwrap();
    assert_eq!(fetched.bundles.len(), 1);
}

#[tokio::test]
async fn a_bundle_without_the_one_time_prekey_that_is_required_is_refused_whatever_the_server_says()
{
    let world = World::new();
    let bob = world.device("bob", 1);
    bob.publish(1).await.unwrap();
    let strict = Config { require_opk: true, ..world.config() };
    let (alice, strict) = (world.device("alice", 1), world.device("eve", 1).with_config(strict));
    fetch(&alice, "bob").await.unwrap();
    // This server does not refuse, as it was asked to.
    assert_eq!(refusal(&strict, "bob").await, BundleRefused::NoOneTimePreKey);
    let required = FetchOptions { require_opk: true, ..FetchOptions::default() };
    let fetched = alice.fetch(&user_id("bob"), &required).await.unwrap();
    let refused = fetched.bundles[0].bundle.as_ref().unwrap_err();
    assert_eq!(*refused, BundleRefused::NoOneTimePreKey);
    let many = strict.fetch_many(&[user_id("bob")], false, None).await.unwrap();
    let fetched = many[0].outcome.as_ref().unwrap();
    let refused = fetched.bundles[0].bundle.as_ref().unwrap_err();
    assert_eq!(*refused, BundleRefused::NoOneTimePreKey);
    assert!(fetch(&alice, "bob").await.unwrap().bundles[0].bundle.is_ok(), "not required");
}

#[tokio::test]
async fn a_fetch_whose_reply_was_lost_gets_its_keys_with_the_same_idempotency_key() {
    let world = World::new();
    let (alice, bob) = (world.device("alice", 1), world.device("bob", 1));
    bob.publish(3).await.unwrap();
    world.server.next(Fault::LoseReply);
    let FetchError::Call { request, error } = fetch(&alice, "bob").await.unwrap_err() else {
        panic!("another error");
    };
    assert!(error.is_outcome_unknown());
    let again = FetchOptions { request: Some(request.clone()), ..FetchOptions::default() };
    let fetched = alice.fetch(&user_id("bob"), &again).await.unwrap();
    assert!(fetched.repeated);
    assert_eq!(fetched.request, request);
    assert_eq!(world.server.pool("bob", 1), [2, 3], "one key was popped");
}

#[tokio::test]
async fn every_fetch_has_an_idempotency_key_of_its_own() {
    let world = World::new();
    let (alice, bob) = (world.device("alice", 1), world.device("bob", 1));
    bob.publish(3).await.unwrap();
    for _ in 0..3 {
        fetch(&alice, "bob").await.unwrap();
    }
    let mut keys: Vec<RequestId> =
        world.server.calls().into_iter().filter_map(|call| call.idempotency_key).collect();
    assert!(keys.iter().all(|key| key.as_str().len() == 32), "{keys:?}");
    keys.sort();
    keys.dedup();
    assert_eq!(keys.len(), 3);
}

#[tokio::test]
async fn a_bundle_that_was_tampered_with_is_refused_and_counted() {
    let world = World::new();
    let (alice, bob) = (world.device("alice", 1), world.device("bob", 1));
    let eve = world.device("eve", 1);
    bob.publish(50).await.unwrap();
    eve.publish(50).await.unwrap();
    let evil = fetch_wire(&world, &eve).await;

    let planted = evil.clone();
    world.server.tamper(move |fetched| {
        fetched.bundles[0].one_time_prekey = planted.one_time_prekey.clone();
    });
    let error = refusal(&alice, "bob").await;
    assert_eq!(error, BundleRefused::Invalid(BundleError::OneTimePreKeySignature));

    let planted = evil.clone();
    world.server.tamper(move |fetched| {
        fetched.bundles[0].signed_prekey = planted.signed_prekey.clone();
    });
    let error = refusal(&alice, "bob").await;
    assert_eq!(error, BundleRefused::Invalid(BundleError::SignedPreKeySignature));

    world.server.tamper(|fetched| {
        fetched.bundles[0].signed_prekey.expires = UnixSeconds(u64::MAX);
    });
    let error = refusal(&alice, "bob").await;
    assert_eq!(error.failure(), Failure::SignatureInvalid);

    world.server.tamper(|fetched| {
        fetched.bundles[0].identity_key.key = Base64(vec![0; 32]);
    });
    assert_eq!(refusal(&alice, "bob").await.failure(), Failure::Malformed);

    world.server.tamper(|fetched| fetched.bundles[0].one_time_prekey = None);
    assert_eq!(refusal(&alice, "bob").await.failure(), Failure::Malformed);
    assert_eq!(alice.failures()[&Failure::SignatureInvalid], 3);
    assert_eq!(alice.failures()[&Failure::Malformed], 2);
}

#[tokio::test]
async fn a_whole_bundle_of_another_identity_fails_at_the_pin() {
    let world = World::new();
    let (alice, bob) = (world.device("alice", 1), world.device("bob", 1));
    bob.publish(5).await.unwrap();
    first_message(&alice, "bob").await;
    world.server.forget("bob");
    let eve = world.device("bob", 1);
    eve.publish(5).await.unwrap();
    let BundleRefused::IdentityChanged(changed) = refusal(&alice, "bob").await else {
        panic!("another refusal");
    };
    assert_eq!(changed.pinned, *bob.identity());
    assert_eq!(changed.offered, *eve.identity());
}

#[tokio::test]
async fn a_fetch_alone_pins_nothing() {
    let world = World::new();
    let alice = world.device("alice", 1);
    world.device("bob", 1).publish(5).await.unwrap();
    fetch(&alice, "bob").await.unwrap();
    world.server.forget("bob");
    world.device("bob", 1).publish(5).await.unwrap();
    let fetched = fetch(&alice, "bob").await.unwrap();
    assert!(fetched.bundles[0].bundle.is_ok());
}

#[tokio::test]
async fn an_old_signed_prekey_is_refused_as_expired() {
    let world = World::new();
    let (alice, bob) = (world.device("alice", 1), world.device("bob", 1));
    bob.publish(5).await.unwrap();
    world.clock.pass_days(90);
    assert_eq!(refusal(&alice, "bob").await.failure(), Failure::SpkExpired);
}

#[tokio::test]
async fn one_bad_bundle_spoils_only_itself() {
    let world = World::new();
    let alice = world.device("alice", 1);
    for device in [1, 2] {
        world.device("bob", device).publish(2).await.unwrap();
    }
    world.server.tamper(|fetched| {
        fetched.bundles[0].signed_prekey.signature = Base64(vec![0; 64]);
    });
    let fetched = fetch(&alice, "bob").await.unwrap();
    assert!(fetched.bundles[0].bundle.is_err());
    assert!(fetched.bundles[1].bundle.is_ok());
}

#[tokio::test]
async fn a_reply_about_something_else_is_refused() {
    let world = World::new();
    let (alice, bob) = (world.device("alice", 1), world.device("bob", 1));
    bob.publish(5).await.unwrap();
    world.server.tamper(|fetched| fetched.user = user_id("eve"));
    let error = fetch(&alice, "bob").await.unwrap_err();
    assert!(matches!(error, FetchError::OtherAnswer), "{error}");
    world.server.tamper(|fetched| {
        let twice = fetched.bundles[0].clone();
        fetched.bundles.push(twice);
    });
    let error = fetch(&alice, "bob").await.unwrap_err();
    assert!(matches!(error, FetchError::OtherAnswer), "{error}");
}

/// Bob's devices 1 to `devices`, all with the account key.
async fn account(world: &World, devices: u32) -> Vec<TestClient> {
    let seed = AccountKeyPair::generate(&mut os_random()).to_seed();
    let mut clients = Vec::new();
    for device in 1..=devices {
        let new =
            NewDevice::new(user_id("bob"), device).with_account(AccountKeyPair::from_seed(&seed));
        let store = SqliteKeyStore::in_memory().unwrap();
        let client =
            Client::create(store, world.server.clone(), new).unwrap().with_config(world.config());
        client.publish(5).await.unwrap();
        clients.push(client);
    }
    clients
}

fn list_refusal(error: FetchError) -> DeviceListRefused {
    match error {
        FetchError::DeviceList { error: ListError::Refused(refused), .. } => refused,
        other => panic!("{other}"),
    }
}

#[tokio::test]
async fn a_device_that_the_signed_list_does_not_have_is_refused() {
    let world = World::new();
    let alice = world.device("alice", 1);
    account(&world, 2).await;
    // The server adds a device of its own.
    world.device("bob", 7).publish(5).await.unwrap();
    let fetched = fetch(&alice, "bob").await.unwrap();
    let verdicts: Vec<_> = fetched.bundles.iter().map(|b| b.bundle.is_ok()).collect();
    assert_eq!(verdicts, [true, true, false]);
    let refused = fetched.bundles[2].bundle.as_ref().unwrap_err();
    assert_eq!(refused.failure(), Failure::IdentityChanged);
}

#[tokio::test]
async fn a_device_list_is_read_once_and_then_only_when_it_changes() {
    let world = World::new();
    let alice = world.device("alice", 1);
    account(&world, 2).await;
    let reads = |world: &World| {
        let calls = world.server.calls();
        let read = |call: &&crate::transport::Call| {
            call.method == Method::Get && call.path == "/v1/users/bob"
        };
        calls.iter().filter(read).count()
    };
    let before = reads(&world);
    for _ in 0..3 {
        fetch(&alice, "bob").await.unwrap();
    }
    assert_eq!(reads(&world) - before, 1);
}

#[tokio::test]
async fn a_device_list_never_goes_away_or_to_another_account() {
    let world = World::new();
    let alice = world.device("alice", 1);
    account(&world, 1).await;
    fetch(&alice, "bob").await.unwrap();

    world.server.put_list("bob", None);
    let error = fetch(&alice, "bob").await.unwrap_err();
    assert_eq!(list_refusal(error), DeviceListRefused::Disappeared);

    world.server.forget("bob");
    account(&world, 2).await;
    let error = fetch(&alice, "bob").await.unwrap_err();
    assert_eq!(list_refusal(error), DeviceListRefused::AccountChanged);
}

#[tokio::test]
async fn a_message_from_a_listed_device_opens_after_the_list_is_refreshed() {
    let world = World::new();
    let alice = world.device("alice", 1);
    alice.publish(5).await.unwrap();
    let bobs = account(&world, 1).await;
    fetch(&alice, "bob").await.unwrap();
    let outgoing = first_message(&bobs[0], "alice").await;
    assert!(matches!(alice.receive(&outgoing.message, b"ad"), Ok(Received::New { .. })));

    let unlisted = world.device("bob", 9);
    let outgoing = first_message(&unlisted, "alice").await;
    let error = alice.receive(&outgoing.message, b"ad").unwrap_err();
    assert_eq!(error.failure(), Some(Failure::IdentityChanged));
    alice.refresh_device_list(&user_id("bob")).await.unwrap();
    alice.receive(&outgoing.message, b"ad").unwrap_err();
}

/// A bundle of the client's own, as the server has it.
async fn fetch_wire(world: &World, client: &TestClient) -> oncekey_api::bundle::Bundle {
    let (sender, receiver) = std::sync::mpsc::channel();
    world.server.tamper(move |fetched| sender.send(fetched.bundles[0].clone()).unwrap());
    fetch(client, client.user().as_str()).await.unwrap();
    receiver.recv().unwrap()
}
