//! PostgreSQL: one node, or a primary with one synchronous standby.
//!
//! `fsync` and `synchronous_commit` are on: a commit is on the primary's disk and, with the standby,
//! on its disk too before it is acknowledged. PostgreSQL refuses to run as root; then it runs as the
//! user `postgres`.

use std::{
    fs,
    os::unix::fs::{DirBuilderExt, PermissionsExt, chown},
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};
use rustix::process::{Signal, geteuid};

use crate::{
    ports,
    process::{self, Process, User},
    store::{self, Address, Protocol},
    wait,
};

/// The user that the packages create.
const ACCOUNT: &str = "postgres";
/// Where Debian puts the versions.
const VERSIONS: &str = "/usr/lib/postgresql";

/// What somebody who knows PostgreSQL sets on a small machine for many short transactions.
const SETTINGS: [&str; 13] = [
    "listen_addresses=127.0.0.1",
    "unix_socket_directories=",
    "max_connections=300",
    "shared_buffers=512MB",
    "fsync=on",
    "full_page_writes=on",
    "synchronous_commit=on",
    "wal_level=replica",
    "max_wal_size=8GB",
    "checkpoint_timeout=30min",
    // A pop's plan never depends on the user.
    "plan_cache_mode=force_generic_plan",
    "jit=off",
    // Rows are deleted as fast as they come: clean up behind them.
    "autovacuum_naptime=5s",
];

pub(super) async fn start(
    dir: &Path,
    users: u32,
    standby: bool,
) -> Result<(Address, Vec<Process>)> {
    let programs = programs()?;
    let [primary, second] = ports::free()?;
    let data = folder(dir, "primary")?;
    let mut initdb = run_as(&programs.join("initdb"));
    initdb.args(["--auth=trust", "--no-locale", "--encoding=UTF8", "--username=postgres"]);
    initdb.arg("--pgdata").arg(&data);
    process::run(initdb)?;

    let mut processes = vec![server(&programs, dir, "primary", primary)?];
    wait::until("PostgreSQL", &mut processes, async || store::Postgres::check(primary).await)
        .await?;
    store::Postgres::load(primary, users).await?;
    if standby {
        let data = folder(dir, "standby")?;
        let mut copy = run_as(&programs.join("pg_basebackup"));
        copy.args(["--host=127.0.0.1", "--username=postgres", "--port", &primary.to_string()]);
        copy.args(["--write-recovery-conf", "--checkpoint=fast", "--pgdata"]).arg(&data);
        process::run(copy)?;
        processes.push(server(&programs, dir, "standby", second)?);
        for state in ["async", "sync"] {
            if state == "sync" {
                store::Postgres::require_standby(primary).await?;
            }
            wait::until("PostgreSQL's standby", &mut processes, async || {
                store::Postgres::check_standby(primary, state).await
            })
            .await?;
        }
    }
    // The standby ends after its primary, which waits until it has everything.
    Ok((Address { protocol: Protocol::Postgres, ports: vec![primary] }, processes))
}

fn server(programs: &Path, dir: &Path, name: &str, port: u16) -> Result<Process> {
    let mut command = run_as(&programs.join("postgres"));
    command.arg("-D").arg(dir.join(name)).args(["-p", &port.to_string()]);
    // The standby reports to its primary under this name.
    command.args(["-c", &format!("cluster_name={name}")]);
    for setting in SETTINGS {
        command.args(["-c", setting]);
    }
    // INT is a fast shutdown: sessions are ended.
    Process::start(dir, &format!("postgres-{name}"), command, Signal::INT)
}

/// The newest version's programs.
fn programs() -> Result<PathBuf> {
    let versions = fs::read_dir(VERSIONS).into_iter().flatten().flatten();
    let newest = versions
        .filter_map(|entry| {
            let version: u32 = entry.file_name().to_str()?.parse().ok()?;
            let programs = entry.path().join("bin");
            programs.join("postgres").is_file().then_some((version, programs))
        })
        .max();
    match newest {
        Some((_, programs)) => Ok(programs),
        None => Ok(process::program("postgres")?.parent().context("no folder")?.to_owned()),
    }
}

/// A folder that the server's user owns, as it demands.
fn folder(dir: &Path, name: &str) -> Result<PathBuf> {
    let path = dir.join(name);
    fs::DirBuilder::new().mode(0o700).create(&path)?;
    if geteuid().is_root() {
        chown(&path, Some(account_id("-u")?), Some(account_id("-g")?))?;
        // The way there must be open to it too.
        fs::set_permissions(dir, fs::Permissions::from_mode(0o711))?;
    }
    Ok(path)
}

fn account_id(which: &str) -> Result<u32> {
    let output = Command::new("id").args([which, ACCOUNT]).output()?;
    let id = String::from_utf8(output.stdout)?;
    id.trim().parse().with_context(|| format!("there is no user {ACCOUNT}"))
}

fn run_as(program: &Path) -> Command {
    let user = if geteuid().is_root() { User::Named(ACCOUNT) } else { User::Same };
    // QUIT makes the server end its children too.
    let mut command = process::command(program, user, "QUIT");
    // Not the caller's, where its user may not be.
    command.current_dir("/");
    command
}
