//! The pop, as someone who knows the store would write it.
//!
//! The same code is driven bare by the load and by the HTTP front, so that the front is the only
//! difference between the two ways.

mod etcd;
mod postgres;
mod redis;

use std::{fmt, str::FromStr};

use anyhow::{Context, Result};

use crate::pool::{Key, Turn};

pub(crate) use self::{
    etcd::{Etcd, TXN_OPS_MAX as ETCD_TXN_OPS_MAX},
    postgres::Postgres,
    redis::Redis,
};

/// Where a store listens on loopback, and how to pop there. Its text form is an argument of the
/// front's process: `etcd:2379,2380,2381`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Address {
    /// How to pop.
    pub(crate) protocol: Protocol,
    /// Where; several for etcd, in the order in which they are preferred.
    pub(crate) ports: Vec<u16>,
}

/// How to pop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protocol {
    /// A read, then a transaction, over gRPC.
    Etcd,
    /// One `DELETE` with `SKIP LOCKED`.
    Postgres,
    /// `LPOP`, then `WAIT 1`.
    Redis,
    /// A script that pops and keeps the answer for a retry, then `WAIT 1`.
    RedisRetry,
}

/// Connections to a store.
pub(crate) enum Store {
    /// See [`Protocol::Etcd`].
    Etcd(Etcd),
    /// See [`Protocol::Postgres`].
    Postgres(Postgres),
    /// See [`Protocol::Redis`] and [`Protocol::RedisRetry`].
    Redis(Redis),
}

impl Store {
    /// Opens as many connections as serve `clients` concurrent clients of this store best.
    pub(crate) async fn connect(address: &Address, clients: usize) -> Result<Self> {
        let port = *address.ports.first().context("an address without a port")?;
        Ok(match address.protocol {
            Protocol::Etcd => Self::Etcd(Etcd::connect(&address.ports).await?),
            Protocol::Postgres => Self::Postgres(Postgres::connect(port, clients).await?),
            Protocol::Redis => Self::Redis(Redis::connect(port, clients, false).await?),
            Protocol::RedisRetry => Self::Redis(Redis::connect(port, clients, true).await?),
        })
    }

    /// Pops the first key of the turn's user; nothing if the pool is empty.
    pub(crate) async fn pop(&self, turn: Turn) -> Result<Option<Key>> {
        match self {
            Self::Etcd(etcd) => etcd.pop(turn.user).await,
            Self::Postgres(postgres) => postgres.pop(turn.user).await,
            Self::Redis(redis) => redis.pop(turn).await,
        }
    }
}

const PROTOCOLS: [(&str, Protocol); 4] = [
    ("etcd", Protocol::Etcd),
    ("postgres", Protocol::Postgres),
    ("redis", Protocol::Redis),
    ("redis-retry", Protocol::RedisRetry),
];

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, protocol) in PROTOCOLS {
            if protocol == self.protocol {
                f.write_str(name)?;
            }
        }
        for (i, port) in self.ports.iter().enumerate() {
            write!(f, "{}{port}", if i == 0 { ':' } else { ',' })?;
        }
        Ok(())
    }
}

impl FromStr for Address {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let (name, ports) = text.split_once(':').context("not PROTOCOL:PORT")?;
        let protocol = PROTOCOLS.into_iter().find(|(known, _)| *known == name);
        let (_, protocol) = protocol.with_context(|| format!("no protocol {name:?}"))?;
        let ports = ports.split(',').map(str::parse).collect::<Result<_, _>>()?;
        Ok(Self { protocol, ports })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_survives_its_text_form() -> Result<()> {
        for (_, protocol) in PROTOCOLS {
            let address = Address { protocol, ports: vec![1, 65_535] };
            assert_eq!(address.to_string().parse::<Address>()?, address);
        }
        Ok(())
    }
}
