//! A device that tends itself, on a clock that runs ahead whenever nothing else is to do.

use std::{sync::Arc, time::Duration};

use oncekey_api::event::Event;
use oncekey_types::Seq;
use tokio::{
    sync::mpsc::{UnboundedReceiver, unbounded_channel},
    task::JoinHandle,
    time::Instant,
};

use super::{TestClient, World, first_message, trust::User, user_id};
use crate::{
    client::{Config, Tended, WriteError},
    fake::Fault,
    keystore::KeyStore as _,
    machine::PoolPlan,
};

const LOW: Event = Event::PoolLow { count: 1, low_watermark: 1 };
const HOUR: Duration = Duration::from_secs(60 * 60);

/// Bob's registered device with a small pool.
async fn bob(world: &World) -> TestClient {
    let pool = PoolPlan { watermark: 10, batch: 5, target: 15, covers_s: 0 };
    let bob = world.device("bob", 1).with_config(Config { pool, ..world.config() });
    bob.publish(15).await.unwrap();
    bob
}

/// A device that is kept tended, and what it tells.
struct Kept {
    device: Arc<TestClient>,
    told: UnboundedReceiver<Tended>,
    task: JoinHandle<Result<(), WriteError>>,
}

impl Kept {
    fn start(device: TestClient) -> Self {
        let (device, (tell, told)) = (Arc::new(device), unbounded_channel());
        let kept = Arc::clone(&device);
        let task =
            tokio::spawn(
                async move { kept.keep_tended(|tended| tell.send(tended).unwrap()).await },
            );
        Self { device, told, task }
    }

    /// Keys that were added the next time that the device looked.
    async fn added(&mut self) -> u32 {
        self.told.recv().await.unwrap().added
    }
}

async fn drain(world: &World, keys: u32) {
    for number in 0..keys {
        first_message(&world.device("alice", number), "bob").await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_pool_that_runs_low_is_filled_at_the_servers_word() {
    let world = World::new();
    let mut kept = Kept::start(bob(&world).await);
    assert_eq!(kept.added().await, 0);
    drain(&world, 6).await;
    world.server.streams(1).await;
    let started = Instant::now();
    world.server.push(LOW);
    assert_eq!(kept.added().await, 6);
    assert!(started.elapsed() < HOUR, "{:?}: not at the next poll", started.elapsed());
    // An event makes it look, and no more.
    world.server.push(LOW);
    assert_eq!(kept.added().await, 0);
    kept.task.abort();
}

#[tokio::test(start_paused = true)]
async fn without_events_a_pool_is_filled_at_the_next_poll() {
    let world = World::new();
    world.server.no_streams();
    let mut kept = Kept::start(bob(&world).await);
    assert_eq!(kept.added().await, 0);
    drain(&world, 6).await;
    let started = Instant::now();
    assert_eq!(kept.added().await, 6);
    assert!(started.elapsed() >= HOUR, "{:?}", started.elapsed());
    kept.task.abort();
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_is_lost_is_opened_again_after_growing_pauses() {
    let world = World::new();
    let mut kept = Kept::start(bob(&world).await);
    assert_eq!(kept.added().await, 0);
    for number in 1..6 {
        world.server.streams(number).await;
        world.server.hang_up();
    }
    world.server.streams(6).await;
    drain(&world, 6).await;
    world.server.push(LOW);
    assert_eq!(kept.added().await, 6);
    kept.task.abort();
}

#[tokio::test(start_paused = true)]
async fn a_server_that_never_stops_telling_makes_the_device_look_once_in_a_second() {
    let world = World::new();
    let mut kept = Kept::start(bob(&world).await);
    kept.added().await;
    world.server.streams(1).await;
    for _ in 0..100 {
        world.server.push(LOW);
    }
    let started = Instant::now();
    for _ in 0..10 {
        kept.added().await;
    }
    assert!(started.elapsed() >= Duration::from_secs(9), "{:?}", started.elapsed());
    kept.task.abort();
}

#[tokio::test(start_paused = true)]
async fn a_failure_that_may_pass_is_tried_again_and_another_is_the_end() {
    let world = World::new();
    let device = bob(&world).await;
    world.server.next(Fault::LoseRequest);
    let mut kept = Kept::start(device);
    kept.added().await;
    // The device is gone: there is nothing to tend.
    world.server.forget("bob");
    world.server.streams(1).await;
    world.server.push(LOW);
    assert!(kept.task.await.unwrap().is_ok());
    assert!(kept.told.recv().await.is_none());

    let device = bob(&world).await;
    world.server.advance("bob", 1, 50, 5, 500);
    let ended = Kept::start(device).task.await.unwrap();
    assert!(matches!(ended, Err(WriteError::StoreIsOld)), "{ended:?}");
}

#[tokio::test(start_paused = true)]
async fn a_list_that_changed_is_read_and_one_that_is_known_is_not() {
    let world = World::new();
    let user = User::new(&world, "bob");
    let kept = Kept::start(user.device(1).await);
    world.server.streams(1).await;
    user.device(2).await;
    let reads = || world.server.calls().iter().filter(|call| call.path == "/v1/users/bob").count();
    let before = reads();
    for _ in 0..2 {
        world.server.push(Event::DeviceListChanged { seq: Seq(2) });
    }
    let pinned =
        || kept.device.store.pinned_device_list(&user_id("bob")).unwrap().map(|list| list.seq());
    while pinned() != Some(Seq(2)) {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert_eq!(reads(), before + 1);
    kept.task.abort();
}
