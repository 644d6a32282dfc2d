//! A device in bad weather: any sequence of writes, faults and restarts.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::{TestClient, World};
use crate::{fake::Fault, transport::Method};

#[derive(Clone, Debug)]
enum Step {
    Publish(usize),
    Rotate,
    Replenish(usize),
    Remove,
    LoseRequest,
    LoseReply,
    Restart,
    /// Another copy of the device goes on, this many ids ahead.
    OtherCopy(u32),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        2 => (0usize..8).prop_map(Step::Publish),
        2 => Just(Step::Rotate),
        3 => (0usize..12).prop_map(Step::Replenish),
        1 => Just(Step::Remove),
        2 => Just(Step::LoseRequest),
        3 => Just(Step::LoseReply),
        2 => Just(Step::Restart),
        1 => (1u32..5).prop_map(Step::OtherCopy),
    ]
}

async fn run(client: &TestClient, step: &Step) {
    // Failing is fine in such weather; what counts is the state in the end.
    match step {
        Step::Publish(count) => drop(client.publish(*count).await),
        Step::Rotate => drop(client.rotate().await),
        Step::Replenish(target) => drop(client.replenish(*target).await),
        Step::Remove => drop(client.remove().await),
        Step::LoseRequest | Step::LoseReply | Step::Restart | Step::OtherCopy(_) => {}
    }
}

/// Every upload stands for one `seq`, every one-time prekey id for one key.
fn assert_nothing_is_used_twice(world: &World) -> Result<(), TestCaseError> {
    let mut bodies = BTreeMap::new();
    let mut keys = BTreeMap::new();
    for call in world.server.calls() {
        if call.method == Method::Get || call.body.is_empty() {
            continue;
        }
        let body: serde_json::Value = serde_json::from_slice(&call.body).unwrap();
        let seq = body["seq"].as_u64().unwrap();
        let first = bodies.entry(seq).or_insert_with(|| call.body.clone());
        prop_assert_eq!(&*first, &call.body, "seq {} stands for two writes", seq);
        for opk in body["one_time_prekeys"].as_array().into_iter().flatten() {
            let first = keys.entry(opk["id"].as_u64()).or_insert_with(|| opk.clone());
            prop_assert_eq!(&*first, opk, "an id stands for two keys");
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn after_any_weather_the_device_publishes_keys_whose_secrets_it_holds(
        steps in prop::collection::vec(step(), 1..14)
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let world = World::new();
        let folder = tempfile::tempdir().unwrap();
        let mut client = world.device_in(folder.path(), "bob");
        runtime.block_on(async {
            for step in &steps {
                match step {
                    Step::LoseRequest => world.server.next(Fault::LoseRequest),
                    Step::LoseReply => world.server.next(Fault::LoseReply),
                    Step::Restart => client = world.reopen(folder.path()),
                    Step::OtherCopy(ahead) => world.server.move_on("bob", 1, *ahead),
                    other => run(&client, other).await,
                }
            }
            world.server.clear_up();
            // The first may find the device removed; the second registers it again.
            let _ = client.replenish(1).await;
            let published = client.publish(5).await.unwrap();
            prop_assert!(published.pool.count >= 5, "{:?}", published.pool);
            let status = client.status().await.unwrap();
            prop_assert_eq!(status.missing_secrets, 0);
            assert_nothing_is_used_twice(&world)
        })?;
    }
}
