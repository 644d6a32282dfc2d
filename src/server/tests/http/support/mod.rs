//! A node of its own cluster, devices with real keys, and a small HTTP client that can also send
//! what no proper client would.

pub(crate) mod credentials;
pub(crate) mod device;
#[expect(unreachable_pub, reason = "it is public in the crate that it belongs to")]
#[path = "../../../../../tests/src/hostile_table.rs"]
pub(crate) mod hostile_table;
pub(crate) mod http;

use std::{net::SocketAddr, time::Duration};

use oncekey_server::{Config, Overrides, RunError, Server};
use serde_json::Value;
use tempfile::TempDir;
use tokio::{sync::oneshot, task::JoinHandle, time::Instant};

pub(crate) use device::Device;
pub(crate) use http::{Reply, Request};

/// How long a test waits for a condition.
const PATIENCE: Duration = Duration::from_secs(20);

/// A cluster of one node, on free ports and a temporary disk.
pub(crate) struct Fixture {
    pub(crate) public: SocketAddr,
    pub(crate) admin: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    running: Option<JoinHandle<Result<(), RunError>>>,
    // Deleted when the fixture is dropped.
    _disk: TempDir,
}

/// A configuration of a cluster of one node, with two shards.
pub(crate) fn config(disk: &TempDir) -> Config {
    let member = r#"[{ id = 1, peer = "127.0.0.1:1", public = "node-1.example:8080" }]"#;
    let overrides = Overrides::default()
        .set("node.id", "1")
        .set("node.data_dir", disk.path().to_str().unwrap())
        .set("cluster.members", member)
        .set("cluster.shards", "2")
        .set("storage.wal_segment_bytes", "8388608")
        .set("auth.mode", "open");
    let mut config = Config::from_sources(None, [], &overrides).unwrap();
    let any_port = SocketAddr::from(([127, 0, 0, 1], 0));
    (config.public, config.admin, config.node.peer_listen) = (any_port, any_port, any_port);
    config
}

impl Fixture {
    pub(crate) async fn start() -> Self {
        Self::start_with(|_| {}).await
    }

    /// A node whose configuration was changed by `change`.
    pub(crate) async fn start_with(change: impl FnOnce(&mut Config)) -> Self {
        let disk = tempfile::tempdir().unwrap();
        let mut config = config(&disk);
        change(&mut config);
        Self::serve(config, disk).await
    }

    /// A node with a given configuration, whose data is on `disk`.
    pub(crate) async fn serve(config: Config, disk: TempDir) -> Self {
        let server = Server::start(config).await.unwrap();
        let (public, admin) = (server.public_addr(), server.admin_addr());
        let (stop, stopped) = oneshot::channel();
        let running = tokio::spawn(server.run_until(async {
            let _ = stopped.await;
        }));
        Self { public, admin, stop: Some(stop), running: Some(running), _disk: disk }
    }

    pub(crate) fn request_stop(&mut self) {
        drop(self.stop.take());
    }

    /// Waits for the end of the server.
    pub(crate) async fn ended(mut self) -> Result<(), RunError> {
        self.request_stop();
        self.running.take().unwrap().await.unwrap()
    }

    pub(crate) async fn send(&self, request: Request) -> Reply {
        http::send(self.public, request).await
    }

    pub(crate) async fn ask_admin(&self, request: Request) -> Reply {
        http::send(self.admin, request).await
    }

    /// Registers `device` with `prekeys` one-time prekeys.
    pub(crate) async fn register(&self, device: &mut Device, prekeys: u32) {
        let reply = self.send(device.register(prekeys)).await;
        assert_eq!(reply.status, 200, "{reply:?}");
    }

    /// All that the outside can see of a device: its user, its pool.
    pub(crate) async fn look_at(&self, device: &Device) -> (Value, Value) {
        let user = self.send(Request::get(device.user_path())).await.json();
        let mut status = self.send(Request::get(device.path("/prekeys"))).await.json();
        if let Some(status) = status.as_object_mut() {
            status.remove("signed_prekey_age_ms");
        }
        (user, status)
    }
}

/// Waits until `condition` holds; when it does not in time, prints the last state that it gave.
pub(crate) async fn eventually<T, F>(mut condition: impl FnMut() -> F) -> T
where
    F: Future<Output = Result<T, String>>,
{
    let deadline = Instant::now() + PATIENCE;
    loop {
        match condition().await {
            Ok(value) => return value,
            Err(state) if Instant::now() > deadline => panic!("it never happened: {state}"),
            Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    }
}
