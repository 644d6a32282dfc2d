//! Redis: a primary and two replicas, each with an append-only file that is synced at every write.
//!
//! `WAIT 1` is the most that Redis 7.0 offers: one replica has *received* the pop. Whether it has
//! synced it is not known before `WAITAOF` of Redis 7.2.

use std::path::Path;

use anyhow::Result;
use rustix::process::Signal;

use crate::{
    ports,
    process::{self, Process, User},
    store::{self, Address, Protocol},
    wait,
};

const REPLICAS: usize = 2;

pub(super) async fn start(dir: &Path, users: u32, retry: bool) -> Result<(Address, Vec<Process>)> {
    let ports = ports::free::<{ 1 + REPLICAS }>()?;
    let primary = ports[0];
    let mut processes = Vec::new();
    for port in ports {
        let replica_of = (port != primary).then_some(primary);
        processes.push(server(dir, port, replica_of)?);
    }
    wait::until("Redis and its replicas", &mut processes, async || {
        store::Redis::check(primary, REPLICAS).await
    })
    .await?;
    store::Redis::load(&ports, users, REPLICAS).await?;
    let protocol = if retry { Protocol::RedisRetry } else { Protocol::Redis };
    Ok((Address { protocol, ports: vec![primary] }, processes))
}

fn server(dir: &Path, port: u16, replica_of: Option<u16>) -> Result<Process> {
    let name = format!("redis-{port}");
    let data = dir.join(&name);
    std::fs::create_dir(&data)?;
    let mut command = process::command(&process::program("redis-server")?, User::Same, "KILL");
    command
        .args(["--bind", "127.0.0.1", "--port", &port.to_string()])
        .arg("--dir")
        .arg(&data)
        .args(["--appendonly", "yes", "--appendfsync", "always"])
        // Neither a dump nor a rewrite of the file in the middle of a measurement.
        .args(["--save", "", "--auto-aof-rewrite-percentage", "0"])
        .args(["--repl-diskless-sync-delay", "0", "--repl-backlog-size", "64mb"])
        .args(["--client-output-buffer-limit", "replica 0 0 0"]);
    if let Some(primary) = replica_of {
        command.args(["--replicaof", "127.0.0.1", &primary.to_string()]);
    }
    Process::start(dir, &name, command, Signal::TERM)
}
