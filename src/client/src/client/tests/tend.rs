//! What a device does by itself, and what a device that was away finds.

use oncekey_types::TimestampMs;

use super::{TestClient, World, first_message, user_id};
use crate::{
    client::{Config, ReceiveError, Received, ServerEvent, WhyGone},
    fake::Fault,
    keystore::Absence,
    machine::{Lifetimes, PoolPlan},
    transport::Method,
};

/// A device with a small pool.
fn device(world: &World) -> TestClient {
    let pool = PoolPlan { watermark: 10, batch: 5, target: 15, covers_s: 0 };
    world.device("bob", 1).with_config(Config { pool, ..world.config() })
}

fn uploads(world: &World) -> usize {
    world.server.calls().iter().filter(|call| call.method != Method::Get).count()
}

#[tokio::test]
async fn a_device_that_is_not_registered_has_nothing_to_do() {
    let world = World::new();
    assert!(device(&world).tend().await.unwrap().is_none());
    assert_eq!(world.server.calls().len(), 0);
}

#[tokio::test]
async fn keys_are_added_at_the_watermark_and_not_before() {
    let world = World::new();
    let (alice, bob) = (world.device("alice", 1), device(&world));
    bob.publish(13).await.unwrap();
    for left in [12, 11] {
        first_message(&alice, "bob").await;
        let tended = bob.tend().await.unwrap().unwrap();
        assert_eq!((tended.added, tended.pool.count), (0, left));
    }
    first_message(&alice, "bob").await;
    let before = uploads(&world);
    let tended = bob.on_event(ServerEvent::PoolLow).await.unwrap().unwrap();
    assert_eq!((tended.added, tended.pool.count), (5, 15));
    assert_eq!(uploads(&world), before + 1);
    let again = bob.on_event(ServerEvent::PoolLow).await.unwrap().unwrap();
    assert_eq!(again.added, 0, "an event makes it look, and no more");
    assert_eq!(uploads(&world), before + 1);
}

#[tokio::test]
async fn a_server_that_wants_more_keys_gets_them_and_no_more_than_a_pool() {
    let world = World::new();
    let bob = device(&world);
    bob.publish(15).await.unwrap();
    world.server.low_watermark(40);
    assert_eq!(bob.tend().await.unwrap().unwrap().pool.count, 45);
    world.server.low_watermark(u32::MAX);
    assert_eq!(bob.tend().await.unwrap().unwrap().pool.count, 1000);
}

#[tokio::test]
async fn the_signed_prekey_is_replaced_on_the_seventh_day() {
    let world = World::new();
    let bob = device(&world);
    bob.publish(15).await.unwrap();
    world.clock.pass_hours(7 * 24 - 1);
    let tended = bob.tend().await.unwrap().unwrap();
    assert_eq!(tended.rotated, None);
    assert_eq!(tended.again_after.as_secs(), 3600, "when it will be due");
    world.clock.pass_hours(1);
    let tended = bob.on_event(ServerEvent::SignedPreKeyDue).await.unwrap().unwrap();
    assert_eq!(tended.rotated.unwrap().0, 2);
    assert!(bob.tend().await.unwrap().unwrap().rotated.is_none());
}

#[tokio::test]
async fn the_days_can_be_set() {
    let world = World::new();
    let lifetimes = Lifetimes { rotate_after_s: 3600, ..Lifetimes::default() };
    let bob = world.device("bob", 1).with_config(Config { lifetimes, ..world.config() });
    bob.publish(1).await.unwrap();
    world.clock.pass_hours(1);
    assert!(bob.tend().await.unwrap().unwrap().rotated.is_some());
}

#[tokio::test]
async fn what_was_interrupted_is_finished_first() {
    let world = World::new();
    let bob = device(&world);
    bob.publish(15).await.unwrap();
    world.clock.pass_days(7);
    // The look goes well, the write does not.
    world.server.after(1, Fault::LoseReply);
    bob.tend().await.unwrap_err();
    let tended = bob.tend().await.unwrap().unwrap();
    assert_eq!(tended.pool.signed_prekey.0, 2);
    assert_eq!(tended.rotated, None, "it was, the first time");
}

/// The reason for which a message was refused.
fn refusal(bob: &TestClient, message: &[u8]) -> ReceiveError {
    bob.receive(message, b"ad").unwrap_err()
}

#[tokio::test]
async fn a_device_that_was_away_for_weeks_opens_what_it_can_and_says_why_for_the_rest() {
    let world = World::new();
    let (alice, bob) = (world.device("alice", 1), device(&world));
    bob.publish(3).await.unwrap();
    let lost_for_long = first_message(&alice, "bob").await;
    world.clock.pass_days(7);
    bob.tend().await.unwrap();
    let replaced = super::Clock::now(&world.clock);
    // Away for 60 days. Messages pile up, with one-time prekeys and without.
    let mut waiting = Vec::new();
    for _ in 0..20 {
        world.clock.pass_days(3);
        waiting.push(first_message(&alice, "bob").await);
    }
    assert!(waiting.iter().any(|outgoing| outgoing.session.one_time_prekey.is_none()));
    assert!(waiting.iter().any(|outgoing| outgoing.session.one_time_prekey.is_some()));
    // Back: what came in is opened, whether before or after what is due was done.
    for (number, outgoing) in waiting.iter().enumerate() {
        if number == 10 {
            assert!(bob.tend().await.unwrap().unwrap().rotated.is_some());
        }
        let received = bob.receive(&outgoing.message, b"ad").unwrap();
        assert!(matches!(received, Received::New { .. }), "{number}");
    }
    let error = refusal(&bob, &lost_for_long.message);
    let ReceiveError::UnknownSpk { id, why: WhyGone::Expired { replaced: said } } = &error else {
        panic!("{error}");
    };
    assert_eq!((id.0, *said), (1, replaced));
    let days_ago = TimestampMs(said.0).to_seconds();
    assert!(error.to_string().contains(&days_ago.0.to_string()), "{error}");
}

#[tokio::test]
async fn every_reason_for_which_a_key_is_missing_has_its_own_words() {
    let world = World::new();
    let (alice, bob) = (world.device("alice", 1), device(&world));
    bob.publish(2).await.unwrap();
    let message = first_message(&alice, "bob").await.message;
    // … u32 spk_id ‖ u32 opk_id ‖ u32 len ‖ ct
    let opk_id = message.len() - (5 + 16) - 4 - 4;
    let with = |at: usize, id: u32| {
        let mut message = message.clone();
        message[at..at + 4].copy_from_slice(&id.to_be_bytes());
        message
    };
    let error = refusal(&bob, &with(opk_id - 4, 77));
    assert!(
        matches!(error, ReceiveError::UnknownSpk { why: WhyGone::Absent(Absence::NeverMade), .. }),
        "{error}"
    );
    assert_eq!(error.to_string(), "signed prekey 77 was never made here");
    let error = refusal(&bob, &with(opk_id, 77));
    assert_eq!(error.to_string(), "one-time prekey 77 was never made here");
    // The server says that ids up to 90 are used, so the device skips them.
    world.server.advance("bob", 1, 40, 7, 90);
    bob.rotate().await.unwrap();
    let error = refusal(&bob, &with(opk_id, 77));
    assert_eq!(error.to_string(), "one-time prekey 77 is too old to be remembered");
    bob.receive(&message, b"ad").unwrap();
    bob.discard_prekeys().await.unwrap();
    let error = refusal(&bob, &message);
    assert_eq!(error.to_string(), "signed prekey 1 was thrown away when the device was restored");
}

#[tokio::test]
async fn a_device_list_event_makes_the_device_look_at_its_users_list() {
    let world = World::new();
    let bob = device(&world);
    bob.publish(15).await.unwrap();
    bob.on_event(ServerEvent::DeviceListChanged).await.unwrap();
    let looked = world.server.calls().pop().unwrap();
    assert_eq!((looked.method, looked.path.as_str()), (Method::Get, "/v1/users/bob"));
    assert!(bob.pinned_device_list(&user_id("bob")).unwrap().is_none(), "there is none");
}
