//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueHint};
use clap_complete::Shell;
use oncekey_cluster::{
    Engine,
    issuer::{AUDIENCE, ISSUER},
};

use crate::{certs::Certs, cluster, device, health::Health, keep, token};

const AFTER_HELP: &str = "\
Exit codes:
  0  it did what it was asked to do
  1  it failed; the last line on standard error says why
  2  the command line or the configuration is wrong; nothing was started
  3  the node met a fault of its disk or its data and stopped; look before you restart it

Start with `oncekey demo`.";

/// A prekey store for end-to-end encrypted messengers.
///
/// Devices publish public keys; whoever wants to write to a device's owner fetches a bundle of
/// them. Every one-time prekey is handed out at most once, by whichever node is asked, through
/// crashes, retries and changes of leader.
#[derive(Debug, Parser)]
#[command(name = "oncekey", version, after_help = AFTER_HELP, arg_required_else_help = true)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Serve(Serve),
    Health(Health),
    Dev(Dev),
    Demo(Demo),
    Cluster(cluster::Arguments),
    Device(device::Arguments),
    Token(token::Arguments),
    Bench(Bench),
    Backup(keep::Backup),
    Restore(keep::Restore),
    #[command(name = "bench-noop", hide = true)]
    BenchNoop(BenchNoop),
    Certs(Certs),
    /// Print an example configuration in which every key is explained.
    Config,
    Completions(Completions),
    /// Answer questions about the handshake, one JSON object on each line of standard input.
    #[cfg(feature = "conformance")]
    Conformance,
}

/// Run one node of a cluster.
///
/// The configuration is read once: flags go before the environment, the environment before the
/// file, the file before the defaults. `oncekey config` prints every key with its meaning. SIGTERM
/// and Ctrl-C end the node once the requests in flight are answered; a second one ends it at once,
/// which loses nothing that was acknowledged. SIGHUP has it look at its certificates at once.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  oncekey serve --config /etc/oncekey/node.toml
  oncekey serve --config node.toml --set log.format=json --set raft.ping_ms=100
  ONCEKEY_LISTEN_PUBLIC=127.0.0.1:8081 oncekey serve --config node.toml")]
pub(crate) struct Serve {
    /// The configuration file, in TOML.
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) config: Option<PathBuf>,
    /// Set one key of the configuration; may be given several times.
    #[arg(long, value_name = "SECTION.KEY=VALUE", value_parser = key_value)]
    pub(crate) set: Vec<(String, String)>,
    /// Be killed when the process with this id, the parent, ends.
    #[arg(long, value_name = "PID", hide = true)]
    pub(crate) parent: Option<i32>,
}

/// Run a cluster on this machine, for development.
///
/// Starts the nodes as child processes, publishes a device of the user `bob`, prints where the
/// nodes listen and a line to try, and runs until Ctrl-C. The data stays in the folder: the next
/// `oncekey dev` there goes on with it. A node that ends is not restarted.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  oncekey dev
  oncekey dev --open
  oncekey dev --dir /tmp/five --nodes 5 --base-port 9700")]
pub(crate) struct Dev {
    /// Folder for configurations, logs and data.
    #[arg(long, value_name = "DIR", default_value = "./oncekey-data", value_hint = ValueHint::DirPath)]
    pub(crate) dir: PathBuf,
    /// Number of nodes, 1 to 9; 3 in a new folder.
    #[arg(long, value_name = "N")]
    pub(crate) nodes: Option<u16>,
    /// Want no tokens and no signatures: whoever is on this machine may do everything.
    #[arg(long)]
    pub(crate) open: bool,
    /// Engine that keeps the state, fjall or sled; fjall in a new folder.
    #[arg(long, value_name = "ENGINE")]
    pub(crate) engine: Option<Engine>,
    /// Node N serves clients at this port plus N, operators at plus 10 + N, the other nodes at
    /// plus 20 + N; 8700 in a new folder.
    #[arg(long, value_name = "PORT")]
    pub(crate) base_port: Option<u16>,
}

/// Show the whole thing at work: a cluster, a killed leader, and no key handed out twice.
///
/// Starts three nodes on free ports and temporary disks. Two devices of Bob publish 100 one-time
/// prekeys each; 64 Alices fetch bundles through all nodes at the same time and send first messages
/// that Bob's devices open. In the middle of it the leader of Bob's shard is killed with SIGKILL
/// and restarted. At the end every fetch is sent again, to another node, under its old idempotency
/// key. Exits with 0 only if no key went to two fetches, every repeated fetch got its own keys
/// again, both sides of every handshake agree and every message opened.
#[derive(Debug, Args)]
pub(crate) struct Demo {
    /// Engine that keeps the state, fjall or sled.
    #[arg(long, value_name = "ENGINE", default_value_t)]
    pub(crate) engine: Engine,
}

/// Measure how fast and how promptly a cluster hands out one-time prekeys.
///
/// A closed loop: each client sends its next fetch when the last one is answered, over one
/// connection, to the endpoint of its number (or see `--leader-first`). First as many one-time
/// prekeys as needed are published, of users that are new in every run of the command, so a cluster
/// in use is not disturbed beyond the load and the records that stay. Every fetch has an idempotency
/// key of its own, no caller asks for two keys of a user and no user is asked for more than 200: the
/// default limits of a node stay on and withhold nothing. Exits with 0 only if no key came twice,
/// every fetch got its key, and no key was used up without reaching a client.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  oncekey bench --local --noop --json bench.json --svg bench.svg
  oncekey bench --local --kill-leader 10 --clients 64
  oncekey bench --local --stored 100000,10000000 --clients 64 --idle-s 30 --restart
  oncekey bench --endpoints https://10.0.0.1:8080,https://10.0.0.2:8080 --ca ca.pem \\
    --token-key issuer/issuer.jwk")]
pub(crate) struct Bench {
    /// The nodes, by the URLs that serve clients; the clients are spread over all of them.
    #[arg(
        long,
        value_name = "URL,…",
        value_delimiter = ',',
        required_unless_present = "local",
        conflicts_with = "local"
    )]
    pub(crate) endpoints: Vec<String>,
    /// Authorities that vouch for nodes over https, in PEM, instead of those that browsers trust.
    #[arg(long, value_name = "FILE", env = "ONCEKEY_CA", value_hint = ValueHint::FilePath)]
    pub(crate) ca: Option<PathBuf>,
    /// Start three nodes on this machine, with disks below the temporary folder (see TMPDIR).
    #[arg(long)]
    pub(crate) local: bool,
    /// Have the local nodes prove themselves to each other and to the clients, over TLS.
    #[arg(long, conflicts_with = "endpoints")]
    pub(crate) tls: bool,
    /// Have the local nodes want tokens of callers and signatures of devices.
    #[arg(long, conflicts_with = "endpoints")]
    pub(crate) tokens: bool,
    /// The private key of tokens that the nodes believe, as `oncekey token key` makes it, for nodes
    /// that want tokens. The callers are 200 users whose names begin with bench-.
    #[arg(long, value_name = "FILE", conflicts_with = "local", value_hint = ValueHint::FilePath)]
    pub(crate) token_key: Option<PathBuf>,
    /// The claim iss of these tokens: auth.issuer of the nodes.
    #[arg(long, value_name = "TEXT", default_value = ISSUER)]
    pub(crate) token_issuer: String,
    /// The claim aud of these tokens: auth.audience of the nodes.
    #[arg(long, value_name = "TEXT", default_value = AUDIENCE)]
    pub(crate) token_audience: String,
    /// Engine that keeps the state of the local nodes, fjall or sled.
    #[arg(long, value_name = "ENGINE", conflicts_with = "endpoints", default_value_t)]
    pub(crate) engine: Engine,
    /// Number of shards of the local cluster; the default of a node when not said.
    #[arg(long, value_name = "N", conflicts_with = "endpoints")]
    pub(crate) shards: Option<u16>,
    /// Let the clients ask the leader of a user's shard first, as the client library does, once a
    /// reply told who that is; else each stays with its endpoint.
    #[arg(long)]
    pub(crate) leader_first: bool,
    /// Numbers of clients, measured one after the other.
    #[arg(long, value_name = "N,…", value_delimiter = ',', default_value = "1,16,64,256",
          value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub(crate) clients: Vec<u16>,
    /// Times that each number of clients is measured.
    #[arg(long, value_name = "N", default_value = "3",
          value_parser = clap::value_parser!(u16).range(1..=100))]
    pub(crate) runs: u16,
    /// Load before each measurement, not counted.
    #[arg(long, value_name = "MS", default_value = "2000",
          value_parser = clap::value_parser!(u64).range(..=600_000))]
    pub(crate) warm_up_ms: u64,
    /// Length of each measurement.
    #[arg(long, value_name = "MS", default_value = "5000",
          value_parser = clap::value_parser!(u64).range(100..=600_000))]
    pub(crate) duration_ms: u64,
    /// One-time prekeys that the nodes hold before the measurements, in total; of several numbers,
    /// everything is measured at each, from the least to the most. More follow when they run low.
    #[arg(long, value_name = "N,…", value_delimiter = ',', default_value = "300000",
          value_parser = clap::value_parser!(u64).range(1..=1_000_000_000))]
    pub(crate) stored: Vec<u64>,
    /// Once the most keys are stored, measure for this long what the local nodes use without load.
    #[arg(long, value_name = "S", conflicts_with = "endpoints", default_value = "0",
          value_parser = clap::value_parser!(u64).range(..=3600))]
    pub(crate) idle_s: u64,
    /// Threads that drive the clients.
    #[arg(long, value_name = "N", default_value = "1",
          value_parser = clap::value_parser!(u16).range(1..=64))]
    pub(crate) threads: u16,
    /// Measure beside each run the same loop against a server that does nothing.
    #[arg(long)]
    pub(crate) noop: bool,
    /// Afterwards kill, N times and under load, the node that leads most shards.
    #[arg(long, value_name = "N", conflicts_with = "endpoints", num_args = 0..=1, default_value = "0",
          default_missing_value = "1", value_parser = clap::value_parser!(u16).range(..=100))]
    pub(crate) kill_leader: u16,
    /// At the end restart each local node, after SIGTERM and after SIGKILL, and measure how long it
    /// takes to be ready.
    #[arg(long, conflicts_with = "endpoints")]
    pub(crate) restart: bool,
    /// Write the figures to this file, as JSON.
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) json: Option<PathBuf>,
    /// Draw throughput and latency over time into this file, as SVG.
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) svg: Option<PathBuf>,
}

/// Serve 200 bytes to whoever asks, for `oncekey bench --noop`.
#[derive(Debug, Args)]
pub(crate) struct BenchNoop {
    /// Be killed when the process with this id, the parent, ends.
    #[arg(long, value_name = "PID")]
    pub(crate) parent: i32,
}

/// Print a script that completes this command line in a shell.
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  oncekey completions bash > /etc/bash_completion.d/oncekey")]
pub(crate) struct Completions {
    /// The shell.
    pub(crate) shell: Shell,
}

fn key_value(text: &str) -> Result<(String, String), String> {
    text.split_once('=')
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .ok_or_else(|| format!("{text:?} is not SECTION.KEY=VALUE"))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_contradicts_nowhere() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn a_value_may_have_an_equals_sign() {
        assert_eq!(key_value("log.filter=a=b"), Ok(("log.filter".into(), "a=b".into())));
        assert!(key_value("log.filter").is_err());
    }
}
