//! What the servers are told of failed handshakes, and what they are not.

use std::collections::BTreeMap;

use oncekey_api::{
    Code, Problem,
    report::{Reason, Report},
};

use super::{TestClient, World, first_message};
use crate::{
    client::{Config, Reports},
    fake::Fault,
};

/// Bob, registered, to whom `copies` broken copies of a message have come.
async fn bob_with_failures(world: &World, copies: u32) -> TestClient {
    let bob = world.device("bob", 1);
    bob.publish(200).await.unwrap();
    fail(world, &bob, copies).await;
    bob
}

async fn fail(world: &World, bob: &TestClient, copies: u32) {
    let mut message = first_message(&world.device("alice", 1), "bob").await.message;
    *message.last_mut().unwrap() ^= 1;
    for _ in 0..copies {
        bob.receive(&message, b"ad").unwrap_err();
    }
}

fn aead_failed(count: u32) -> Report {
    Report(BTreeMap::from([(Reason::AeadFailed, count)]))
}

#[tokio::test]
async fn failures_are_reported_with_tend_and_no_more_than_once_an_hour() {
    let world = World::new();
    let bob = bob_with_failures(&world, 3).await;
    bob.tend().await.unwrap();
    fail(&world, &bob, 1).await;
    bob.tend().await.unwrap();
    assert_eq!(world.server.reports(), [aead_failed(3)]);
    world.clock.pass_hours(1);
    bob.tend().await.unwrap();
    bob.tend().await.unwrap();
    assert_eq!(world.server.reports(), [aead_failed(3), aead_failed(1)]);
}

#[tokio::test]
async fn a_report_names_no_contact_no_user_and_no_key() {
    let world = World::new();
    let bob = bob_with_failures(&world, 2).await;
    assert_eq!(bob.report().await.unwrap(), Some(aead_failed(2)));
    let call = world.server.calls().pop().unwrap();
    assert_eq!((call.path.as_str(), &call.body[..]), ("/v1/reports", &br#"{"aead_failed":2}"#[..]));
    assert_eq!(call.idempotency_key, None);
}

#[tokio::test]
async fn without_failures_and_against_the_users_will_nothing_is_sent() {
    let world = World::new();
    let bob = bob_with_failures(&world, 0).await;
    assert_eq!(bob.report().await.unwrap(), None);
    let bob = bob.with_config(Config { reports: Reports::Withheld, ..world.config() });
    fail(&world, &bob, 2).await;
    bob.tend().await.unwrap();
    assert_eq!(bob.report().await.unwrap(), None);
    assert_eq!(world.server.reports(), []);
    assert_eq!(bob.failures().values().sum::<u64>(), 2, "counted here all the same");
}

#[tokio::test]
async fn a_report_that_nobody_took_is_sent_again_and_one_that_may_have_arrived_is_not() {
    let world = World::new();
    let bob = bob_with_failures(&world, 2).await;
    let too_many = Problem::new(Code::TooManyReports, "a moment ago");
    for fault in [Fault::LoseRequest, Fault::Refuse(too_many)] {
        world.server.next(fault);
        bob.report().await.unwrap_err();
    }
    assert_eq!(bob.report().await.unwrap(), Some(aead_failed(2)));
    fail(&world, &bob, 1).await;
    world.server.next(Fault::LoseReply);
    bob.report().await.unwrap_err();
    assert_eq!(bob.report().await.unwrap(), None);
    assert_eq!(world.server.reports(), [aead_failed(2), aead_failed(1)]);
}

#[tokio::test]
async fn a_report_that_fails_does_not_fail_what_else_there_is_to_do() {
    let world = World::new();
    let bob = bob_with_failures(&world, 2).await;
    // The status comes first, the report after it.
    world.server.after(1, Fault::LoseRequest);
    let tended = bob.tend().await.unwrap().unwrap();
    assert_eq!(tended.attempts.len(), 2, "{:?}", tended.attempts);
    assert_eq!(world.server.reports(), []);
}
