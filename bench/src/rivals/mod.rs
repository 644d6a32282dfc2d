//! The rivals: each started from nothing in a folder of its own, durable, loaded and settled.

mod etcd;
mod postgres;
mod redis;

use std::path::Path;

use anyhow::{Context, Result};

use crate::{process::Process, store::Address};

/// A store an operator would pick instead.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Rival {
    /// Three nodes.
    Etcd,
    /// One node; no replica.
    Postgres,
    /// A primary that waits for one standby.
    PostgresStandby,
    /// A primary and two replicas; a pop waits for one.
    Redis,
    /// The same, with the answer kept for a retry.
    RedisRetry,
}

/// A rival that runs; it ends when this is dropped.
pub(crate) struct Running {
    /// Where and how to pop.
    pub(crate) address: Address,
    _processes: Vec<Process>,
}

impl Rival {
    /// All, in the order of the table.
    pub(crate) const ALL: [Self; 5] =
        [Self::Etcd, Self::Postgres, Self::PostgresStandby, Self::Redis, Self::RedisRetry];

    /// Its name in the results.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Etcd => "etcd",
            Self::Postgres => "postgres",
            Self::PostgresStandby => "postgres-standby",
            Self::Redis => "redis",
            Self::RedisRetry => "redis-retry",
        }
    }

    /// What runs, for a reader of the table.
    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::Etcd => "etcd, 3 nodes",
            Self::Postgres => "PostgreSQL, 1 node",
            Self::PostgresStandby => "PostgreSQL + synchronous standby",
            Self::Redis => "Redis + 2 replicas, WAIT 1",
            Self::RedisRetry => "Redis + 2 replicas, WAIT 1, retry table",
        }
    }

    /// Pops per second that `clients` clients will surely not exceed, for the number of keys to
    /// load.
    pub(crate) fn ceiling(self, clients: usize) -> u64 {
        let (one, many) = match self {
            Self::Etcd => (2_000, 8_000),
            Self::Postgres | Self::PostgresStandby => (5_000, 25_000),
            Self::Redis | Self::RedisRetry => (5_000, 60_000),
        };
        if clients == 1 { one } else { many }
    }

    /// Starts it in `dir` with keys for this many users.
    pub(crate) async fn start(self, dir: &Path, users: u32) -> Result<Running> {
        let started = match self {
            Self::Etcd => etcd::start(dir, users).await,
            Self::Postgres => postgres::start(dir, users, false).await,
            Self::PostgresStandby => postgres::start(dir, users, true).await,
            Self::Redis => redis::start(dir, users, false).await,
            Self::RedisRetry => redis::start(dir, users, true).await,
        };
        let (address, processes) = started.with_context(|| self.title())?;
        Ok(Running { address, _processes: processes })
    }
}
