//! Redis: a list per user, `LPOP`, and `WAIT 1` in the same round trip.
//!
//! `WAIT` holds up its connection, so there is a connection per client.
//!
//! With `retry` the pop is a script that keeps its answer under the idempotency key for ten
//! minutes, which a retry needs to get the same key and which Oncekey does at every pop.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use redis::{AsyncConnectionConfig, Client, FromRedisValue, Pipeline, aio::MultiplexedConnection};

use crate::pool::{self, Key, Turn};

const CONNECTIONS_MAX: usize = 256;
/// How long a pop waits for a replica.
const WAIT_MS: u64 = 5_000;
const TIMEOUT: Duration = Duration::from_secs(60);
/// Users that are loaded in one round trip.
const LOAD_BATCH: usize = 200;

const POP_OR_REPEAT: &str = "\
    local before = redis.call('GET', KEYS[2]) \
    if before then return before end \
    local key = redis.call('LPOP', KEYS[1]) \
    if key then redis.call('SET', KEYS[2], key, 'EX', 600) end \
    return key";

/// A pool of connections.
pub(crate) struct Redis {
    connections: Vec<MultiplexedConnection>,
    next: AtomicUsize,
    /// Digest of the script, if the pop keeps its answers.
    script: Option<String>,
}

impl Redis {
    /// Connects.
    pub(crate) async fn connect(port: u16, clients: usize, retry: bool) -> Result<Self> {
        let mut connections = Vec::new();
        for _ in 0..clients.clamp(1, CONNECTIONS_MAX) {
            connections.push(session(port).await?);
        }
        let script = if retry {
            let mut load = redis::cmd("SCRIPT");
            load.arg("LOAD").arg(POP_OR_REPEAT);
            Some(load.query_async(&mut connections[0]).await?)
        } else {
            None
        };
        Ok(Self { connections, next: AtomicUsize::new(0), script })
    }

    /// Pops the key that was loaded first.
    pub(crate) async fn pop(&self, turn: Turn) -> Result<Option<Key>> {
        let next = self.next.fetch_add(1, Ordering::Relaxed) % self.connections.len();
        let mut connection = self.connections[next].clone();
        let mut pipe = Pipeline::with_capacity(2);
        match &self.script {
            None => pipe.cmd("LPOP").arg(pool_of(turn.user)),
            Some(script) => {
                pipe.cmd("EVALSHA").arg(script).arg(2).arg(pool_of(turn.user)).arg(answer_to(turn))
            }
        };
        pipe.cmd("WAIT").arg(1).arg(WAIT_MS);
        let (value, replicas): (Option<Vec<u8>>, u32) = pipe.query_async(&mut connection).await?;
        ensure!(replicas >= 1, "no replica acknowledged the pop within {WAIT_MS} ms");
        value.map(pool::key).transpose()
    }

    /// Fills the pools, without a sync per command, and waits until all replicas have them.
    pub(crate) async fn load(ports: &[u16], users: u32, replicas: usize) -> Result<()> {
        for port in ports {
            set_fsync(*port, "no").await?;
        }
        let first = ports.first().context("no port")?;
        let mut connection = session(*first).await?;
        let users: Vec<u32> = (0..users).collect();
        for batch in users.chunks(LOAD_BATCH) {
            let mut pipe = Pipeline::new();
            for &user in batch {
                pipe.cmd("RPUSH").arg(pool_of(user));
                for id in pool::ids(user) {
                    pipe.arg(&pool::value(id)[..]);
                }
                pipe.ignore();
            }
            pipe.query_async::<()>(&mut connection).await?;
        }
        let mut wait = redis::cmd("WAIT");
        wait.arg(replicas).arg(WAIT_MS);
        let caught_up: usize = wait.query_async(&mut connection).await?;
        ensure!(caught_up >= replicas, "{caught_up} of {replicas} replicas have the keys");
        for port in ports {
            set_fsync(*port, "always").await?;
        }
        Ok(())
    }

    /// Succeeds when the server answers and this many replicas follow it.
    pub(crate) async fn check(port: u16, replicas: usize) -> Result<()> {
        let mut connection = session(port).await?;
        let info: String = ask(&mut connection, "INFO", &["replication"]).await?;
        let online = info.matches("state=online").count();
        ensure!(online == replicas, "{online} of {replicas} replicas are online");
        Ok(())
    }
}

fn pool_of(user: u32) -> String {
    format!("opk:{user}")
}

fn answer_to(turn: Turn) -> String {
    format!("retry:{:016x}", turn.request)
}

async fn set_fsync(port: u16, policy: &str) -> Result<()> {
    let mut connection = session(port).await?;
    ask::<()>(&mut connection, "CONFIG", &["SET", "appendfsync", policy]).await
}

async fn ask<T: FromRedisValue>(
    connection: &mut MultiplexedConnection,
    name: &str,
    arguments: &[&str],
) -> Result<T> {
    let mut command = redis::cmd(name);
    for argument in arguments {
        command.arg(*argument);
    }
    Ok(command.query_async(connection).await?)
}

async fn session(port: u16) -> Result<MultiplexedConnection> {
    let settings = AsyncConnectionConfig::new().set_response_timeout(Some(TIMEOUT));
    let client = Client::open(format!("redis://127.0.0.1:{port}/"))?;
    Ok(client.get_multiplexed_async_connection_with_config(&settings).await?)
}
