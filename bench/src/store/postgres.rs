//! PostgreSQL: a prepared `DELETE` of the first row that nobody else has locked.
//!
//! One table for all users, its primary key (user, id) in the order of the pops. Clients share a
//! pool of connections and pipeline on them: beyond [`CONNECTIONS_MAX`] connections PostgreSQL
//! gets slower.

use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context, Result};
use tokio_postgres::{Client, NoTls, Statement};

use crate::pool::{KEYS_PER_USER, Key};

const CONNECTIONS_MAX: usize = 64;

const POP: &str = "\
    DELETE FROM opk WHERE ctid = \
      (SELECT ctid FROM opk WHERE user_id = $1 ORDER BY id LIMIT 1 FOR UPDATE SKIP LOCKED) \
    RETURNING id, key";

/// A pool of connections.
pub(crate) struct Postgres {
    connections: Vec<(Client, Statement)>,
    next: AtomicUsize,
}

impl Postgres {
    /// Connects and prepares.
    pub(crate) async fn connect(port: u16, clients: usize) -> Result<Self> {
        let mut connections = Vec::new();
        for _ in 0..clients.clamp(1, CONNECTIONS_MAX) {
            let client = session(port).await?;
            let pop = client.prepare(POP).await?;
            connections.push((client, pop));
        }
        Ok(Self { connections, next: AtomicUsize::new(0) })
    }

    /// Pops the key with the lowest id.
    pub(crate) async fn pop(&self, user: u32) -> Result<Option<Key>> {
        let turn = self.next.fetch_add(1, Ordering::Relaxed) % self.connections.len();
        let (client, pop) = &self.connections[turn];
        let row = client.query_opt(pop, &[&i32::try_from(user)?]).await?;
        row.map(|row| {
            let id: i64 = row.try_get(0)?;
            Ok(Key { id: u64::try_from(id)?, bytes: row.try_get(1)? })
        })
        .transpose()
    }

    /// Fills the table, then brings it into the state of a table that has been there for long:
    /// vacuumed, analysed and written out.
    pub(crate) async fn load(port: u16, users: u32) -> Result<()> {
        let client = session(port).await?;
        // The key's bytes are six digests of its id: 96 bytes that do not compress.
        let fill = format!(
            "INSERT INTO opk SELECT u, k, decode(string_agg(md5(k || '-' || part), ''), 'hex') \
             FROM generate_series(0, {users} - 1) u, \
                  generate_series(u::bigint * {n}, u::bigint * {n} + {n} - 1) k, \
                  generate_series(1, 6) part \
             GROUP BY u, k ORDER BY u, k",
            n = KEYS_PER_USER
        );
        let create = "CREATE TABLE opk (user_id int NOT NULL, id bigint NOT NULL, \
                      key bytea NOT NULL, PRIMARY KEY (user_id, id))";
        for statement in [create, &fill, "VACUUM ANALYZE opk", "CHECKPOINT"] {
            client.batch_execute(statement).await?;
        }
        Ok(())
    }

    /// From now on a commit waits until the standby has it on disk.
    pub(crate) async fn require_standby(port: u16) -> Result<()> {
        let client = session(port).await?;
        client
            .batch_execute("ALTER SYSTEM SET synchronous_standby_names = 'FIRST 1 (standby)'")
            .await?;
        client.batch_execute("SELECT pg_reload_conf()").await?;
        Ok(())
    }

    /// Succeeds when the standby is in the state `wanted`, `async` or `sync`, and has caught up.
    pub(crate) async fn check_standby(port: u16, wanted: &str) -> Result<()> {
        let client = session(port).await?;
        let caught_up = "SELECT 1 FROM pg_stat_replication WHERE application_name = 'standby' \
             AND state = 'streaming' AND sync_state = $1 AND flush_lsn = pg_current_wal_lsn()";
        let row = client.query_opt(caught_up, &[&wanted]).await?;
        row.map(drop).with_context(|| format!("no standby that is {wanted} and caught up"))
    }

    /// Succeeds when the server answers.
    pub(crate) async fn check(port: u16) -> Result<()> {
        session(port).await?.batch_execute("SELECT 1").await.context("no answer")
    }
}

async fn session(port: u16) -> Result<Client> {
    let settings = format!("host=127.0.0.1 port={port} user=postgres dbname=postgres");
    let (client, connection) = tokio_postgres::connect(&settings, NoTls).await?;
    // Ends with its client; a fault of the connection is reported to the queries on it.
    tokio::spawn(connection);
    Ok(client)
}
