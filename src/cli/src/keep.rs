//! `oncekey backup` and `oncekey restore`.

use std::{
    fmt::Display,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result};
use clap::{Args, Subcommand};
use oncekey_backup::{Admin, Location, Manifest, ShardFile, Totals};
use oncekey_server::config::LogFormat;
use oncekey_types::TimestampMs;

use crate::{logging, operator::Access, output};

/// Take a backup of a running cluster, or check one.
///
/// Reads every shard from one of the nodes, while they go on serving, and writes it to a place of
/// its own: a folder, or s3://bucket/path (credentials, region and endpoint from the environment
/// variables of the AWS clients; takes a build with the feature `s3`). A backup has no one-time
/// prekeys, and nothing secret; it names every user. See docs/backup.md.
#[derive(Debug, Args)]
#[command(
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true,
    after_help = "\
Examples:
  oncekey backup --to /backups/$(date -u +%FT%H%MZ)
  oncekey backup --admin https://10.0.0.1:9080,https://10.0.0.2:9080 --ca ca.pem \\
    --token-file operator.jwt --to s3://backups/oncekey/$(date -u +%FT%H%MZ)
  oncekey backup verify /backups/2026-11-23T0200Z"
)]
pub(crate) struct Backup {
    #[command(subcommand)]
    verify: Option<Check>,
    #[command(flatten)]
    nodes: Nodes,
    /// Where to put it: a folder, file://… or s3://bucket/…; nothing must be there.
    #[arg(long, value_name = "PLACE", required = true)]
    to: Option<String>,
}

#[derive(Debug, Subcommand)]
enum Check {
    /// Read a whole backup and check it against its manifest.
    Verify {
        /// Where it is.
        #[arg(value_name = "PLACE")]
        place: String,
    },
}

/// Fill a new cluster from a backup.
///
/// Start the new nodes with `starts_from = "backup"` in the section `cluster`, so that they serve
/// nobody before, and never while a node of the old cluster can be reached by clients. The new
/// cluster is in a new epoch: it hands out nothing that the old one may have handed out, and the
/// devices publish new one-time prekeys when they next look. A restore that was interrupted goes on
/// when it is started again. See docs/backup.md.
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  oncekey restore --from /backups/2026-11-23T0200Z --admin https://10.0.1.1:9080,https://10.0.1.2:9080 \\
    --ca ca.pem --token-file operator.jwt")]
pub(crate) struct Restore {
    #[command(flatten)]
    nodes: Nodes,
    /// Where the backup is: a folder, file://… or s3://bucket/….
    #[arg(long, value_name = "PLACE")]
    from: String,
}

#[derive(Debug, Args)]
struct Nodes {
    /// The nodes, by the URLs that serve operators; any of them may be down.
    #[arg(
        long,
        value_name = "URL,…",
        value_delimiter = ',',
        default_value = "http://127.0.0.1:9080"
    )]
    admin: Vec<String>,
    #[command(flatten)]
    access: Access,
    /// How long to go on asking when no node has an answer.
    #[arg(long, value_name = "S", default_value = "60",
          value_parser = clap::value_parser!(u64).range(1..=3600))]
    patience_s: u64,
}

impl Nodes {
    fn open(&self) -> Result<Admin> {
        let patience = Duration::from_secs(self.patience_s);
        let admin = Admin::new(&self.admin, self.access.connector()?, patience)?;
        Ok(admin.authorized(self.access.authorization()?))
    }
}

pub(crate) async fn backup(arguments: &Backup) -> Result<()> {
    logging::start("warn", LogFormat::Text)?;
    if let Some(Check::Verify { place }) = &arguments.verify {
        let manifest = oncekey_backup::verify(&Location::open(place)?).await?;
        describe(&manifest);
        output::line("the backup is whole");
        return Ok(());
    }
    let to = arguments.to.as_deref().context("--to says where to put the backup")?;
    let location = Location::create(to)?;
    let admin = arguments.nodes.open()?;
    let manifest = oncekey_backup::take(&admin, &location, now(), progress).await?;
    describe(&manifest);
    output::line(format_args!("the backup is in {location}"));
    Ok(())
}

pub(crate) async fn restore(arguments: &Restore) -> Result<()> {
    logging::start("warn", LogFormat::Text)?;
    let location = Location::open(&arguments.from)?;
    let admin = arguments.nodes.open()?;
    let (manifest, restored) = oncekey_backup::restore(&admin, &location, now(), progress).await?;
    describe(&manifest);
    output::line(format_args!(
        "the cluster is restored and serves, in epoch {}; every device publishes new one-time \
         prekeys when it next looks",
        restored.epoch
    ));
    Ok(())
}

fn progress(file: &ShardFile, shards: usize) {
    let ShardFile { shard, bytes, totals, .. } = file;
    let number = shard.0 + 1;
    output::line(format_args!("shard {number} of {shards}: {}, {bytes} bytes", Amount(*totals)));
}

fn describe(manifest: &Manifest) {
    let Manifest { backup, cluster, epoch, taken_ms, totals, .. } = manifest;
    output::line(format_args!(
        "backup {backup} of cluster {cluster} in epoch {epoch}, taken at {taken_ms}: {}",
        Amount(*totals)
    ));
}

/// How much there is, for people.
struct Amount(Totals);

impl Display for Amount {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Totals { users, devices, one_time_prekeys } = self.0;
        write!(
            f,
            "{users} users with {devices} devices (and {one_time_prekeys} one-time prekeys, left out)"
        )
    }
}

fn now() -> TimestampMs {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    TimestampMs(since.map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX)))
}
