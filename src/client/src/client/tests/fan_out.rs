//! One message to all devices of one user, and one fetch for many users.

use oncekey_api::{Base64, bundle::OneTimePreKeyStatus};
use oncekey_types::{DeviceId, RequestId, UserId};
use oncekey_x3dh::keys::AccountKeyPair;

use super::{TestClient, World, user_id};
use crate::{
    client::{
        BundleRefused, Client, FanOut, FetchError, FetchOptions, NewDevice, NotSent, Received,
        os_random,
    },
    fake::Fault,
    keystore::SqliteKeyStore,
    transport::Method,
};

async fn send(client: &TestClient, user: &str) -> FanOut {
    let options = FetchOptions::default();
    client.send_to_all(&user_id(user), b"hello", b"ad", &options).await.unwrap()
}

/// Bob's devices 1 to `devices`, all listed.
async fn account(world: &World, devices: u32) -> Vec<TestClient> {
    let seed = AccountKeyPair::generate(&mut os_random()).to_seed();
    let mut clients = Vec::new();
    for device in 1..=devices {
        let account = AccountKeyPair::from_seed(&seed);
        let new = NewDevice::new(user_id("bob"), device).with_account(account);
        let store = SqliteKeyStore::in_memory().unwrap();
        let client = Client::create(store, world.server.clone(), new).unwrap();
        let client = client.with_config(world.config());
        client.publish(2).await.unwrap();
        clients.push(client);
    }
    clients
}

fn fetches(world: &World) -> usize {
    world.server.calls().iter().filter(|call| call.idempotency_key.is_some()).count()
}

#[tokio::test]
async fn one_fetch_serves_the_whole_account_with_a_handshake_for_each_device() {
    let world = World::new();
    let alice = world.device("alice", 1);
    let bobs = account(&world, 3).await;
    let before = fetches(&world);
    let fan_out = send(&alice, "bob").await;
    assert_eq!(fetches(&world), before + 1);
    assert!(fan_out.is_complete());
    assert_eq!(fan_out.devices.len(), 3);
    for (bob, sent) in bobs.iter().zip(fan_out.devices) {
        assert_eq!(sent.device, bob.address().device());
        assert_eq!(sent.one_time_prekey_status, Some(OneTimePreKeyStatus::Issued));
        let outgoing = sent.outcome.unwrap();
        match bob.receive(&outgoing.message, b"ad").unwrap() {
            Received::New { payload, session } => {
                assert_eq!(payload.as_bytes(), b"hello");
                assert_eq!(session.id, outgoing.session.id);
            }
            Received::Duplicate { .. } => panic!("delivered twice"),
        }
        let others = bobs.iter().filter(|other| other.address() != bob.address());
        for other in others {
            assert!(other.receive(&outgoing.message, b"ad").is_err(), "for one device alone");
        }
    }
}

#[tokio::test]
async fn every_device_has_its_own_outcome() {
    let world = World::new();
    let alice = world.device("alice", 1);
    let bobs = account(&world, 5).await;
    // 2 has no one-time prekey left, 3 is tampered with, 4 is hidden, 6 is not listed.
    for _ in 0..2 {
        let only = FetchOptions { devices: Some(vec![DeviceId(2)]), ..FetchOptions::default() };
        alice.fetch(&user_id("bob"), &only).await.unwrap();
    }
    world.device("bob", 6).publish(1).await.unwrap();
    world.server.tamper(|fetched| {
        fetched.bundles.retain(|bundle| bundle.device != DeviceId(4));
        for bundle in &mut fetched.bundles {
            if bundle.device == DeviceId(3) {
                bundle.signed_prekey.signature = Base64(vec![0; 64]);
            }
        }
    });
    let fan_out = send(&alice, "bob").await;
    assert!(!fan_out.is_complete());
    let outcomes: Vec<_> = fan_out
        .devices
        .iter()
        .map(|sent| {
            let outcome = match &sent.outcome {
                Ok(outgoing) if outgoing.session.one_time_prekey.is_some() => "sent",
                Ok(_) => "sent without a one-time prekey",
                Err(NotSent::NoBundle) => "hidden",
                Err(NotSent::Bundle(BundleRefused::Invalid(_))) => "refused",
                Err(error) => panic!("{error}"),
            };
            (sent.device.0, outcome)
        })
        .collect();
    assert_eq!(
        outcomes,
        [
            (1, "sent"),
            (2, "sent without a one-time prekey"),
            (3, "refused"),
            (4, "hidden"),
            (5, "sent"),
            (6, "refused"),
        ]
    );
    let exhausted = fan_out.devices[1].one_time_prekey_status;
    assert_eq!(exhausted, Some(OneTimePreKeyStatus::Exhausted));
    for (position, bob) in [(0, &bobs[0]), (1, &bobs[1]), (4, &bobs[4])] {
        let outgoing = fan_out.devices[position].outcome.as_ref().unwrap();
        bob.receive(&outgoing.message, b"ad").unwrap();
    }
}

#[tokio::test]
async fn to_the_own_user_it_goes_to_the_other_devices_and_costs_no_own_key() {
    let world = World::new();
    let bobs = account(&world, 2).await;
    bobs[0].refresh_device_list(&user_id("bob")).await.unwrap();
    let own = world.server.pool("bob", 1);
    let fan_out = send(&bobs[0], "bob").await;
    assert_eq!(fan_out.devices.len(), 1);
    let outgoing = fan_out.devices[0].outcome.as_ref().unwrap();
    assert!(matches!(bobs[1].receive(&outgoing.message, b"ad"), Ok(Received::New { .. })));
    assert_eq!(world.server.pool("bob", 1), own);

    let alone = account_of_one(&world).await;
    let before = fetches(&world);
    let fan_out = send(&alone, "carol").await;
    assert!(fan_out.devices.is_empty() && fan_out.request.is_none());
    assert_eq!(fetches(&world), before, "there is no one to ask for");
}

async fn account_of_one(world: &World) -> TestClient {
    let account = AccountKeyPair::generate(&mut os_random());
    let new = NewDevice::new(user_id("carol"), 1).with_account(account);
    let store = SqliteKeyStore::in_memory().unwrap();
    let carol = Client::create(store, world.server.clone(), new).unwrap();
    let carol = carol.with_config(world.config());
    carol.publish(1).await.unwrap();
    carol.refresh_device_list(&user_id("carol")).await.unwrap();
    carol
}

#[tokio::test]
async fn a_fan_out_whose_fetch_got_no_answer_goes_on_with_the_same_keys() {
    let world = World::new();
    let alice = world.device("alice", 1);
    let bobs = account(&world, 2).await;
    world.server.next(Fault::LoseReply);
    let options = FetchOptions::default();
    let error = alice.send_to_all(&user_id("bob"), b"hello", b"ad", &options).await.unwrap_err();
    let FetchError::Call { request, .. } = error else { panic!("{error}") };
    let again = FetchOptions { request: Some(request), ..FetchOptions::default() };
    let fan_out = alice.send_to_all(&user_id("bob"), b"hello", b"ad", &again).await.unwrap();
    for (bob, sent) in bobs.iter().zip(&fan_out.devices) {
        let outgoing = sent.outcome.as_ref().unwrap();
        assert_eq!(outgoing.session.one_time_prekey.unwrap().0, 1, "no key was lost");
        bob.receive(&outgoing.message, b"ad").unwrap();
    }
}

fn users(names: &[&str]) -> Vec<UserId> {
    names.iter().map(|name| user_id(name)).collect()
}

#[tokio::test]
async fn many_users_are_fetched_in_one_request_each_with_its_own_outcome() {
    let world = World::new();
    let alice = world.device("alice", 1);
    for (user, device) in [("bob", 1), ("bob", 2), ("carol", 1)] {
        world.device(user, device).publish(2).await.unwrap();
    }
    let before = world.server.calls().len();
    let asked = users(&["nobody", "bob", "carol", "bob"]);
    let fetched = alice.fetch_many(&asked, false, None).await.unwrap();
    let calls = world.server.calls().split_off(before);
    assert_eq!(calls.len(), 1);
    assert_eq!((calls[0].method, calls[0].path.as_str()), (Method::Post, "/v1/bundles"));
    let outcomes: Vec<_> = fetched
        .iter()
        .map(|user| (user.user.as_str(), user.outcome.as_ref().map(|f| f.bundles.len()).ok()))
        .collect();
    assert_eq!(outcomes, [("bob", Some(2)), ("carol", Some(1)), ("nobody", None)]);
    let error = fetched[2].outcome.as_ref().unwrap_err();
    assert!(matches!(error, FetchError::Refused { .. }) && !error.is_retryable(), "{error}");
    assert!(fetched[0].outcome.as_ref().unwrap().bundles[0].bundle.is_ok());
}

#[tokio::test]
async fn a_retry_for_many_users_gets_the_same_keys() {
    let world = World::new();
    let alice = world.device("alice", 1);
    for user in ["bob", "carol"] {
        world.device(user, 1).publish(2).await.unwrap();
    }
    let request = RequestId::new("once").unwrap();
    let asked = users(&["bob", "carol"]);
    let first = alice.fetch_many(&asked, false, Some(&request)).await.unwrap();
    let again = alice.fetch_many(&asked[1..], false, Some(&request)).await.unwrap();
    let keys = |outcome: &Result<crate::client::Fetched, FetchError>| {
        outcome.as_ref().unwrap().bundles[0].one_time_prekey
    };
    assert_eq!(keys(&again[0].outcome), keys(&first[1].outcome));
    assert!(again[0].outcome.as_ref().unwrap().repeated);
    assert_eq!(world.server.pool("carol", 1), [2]);
}

#[tokio::test]
async fn no_users_and_too_many_are_refused_before_anything_is_sent() {
    let world = World::new();
    let alice = world.device("alice", 1);
    let many: Vec<_> = (0..65).map(|number| user_id(&format!("user-{number}"))).collect();
    for asked in [&[][..], &many] {
        let error = alice.fetch_many(asked, false, None).await.unwrap_err();
        assert!(matches!(error, FetchError::Users { .. }), "{error}");
    }
    assert_eq!(world.server.calls().len(), 0);
}
