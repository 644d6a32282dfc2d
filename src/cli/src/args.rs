//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueHint};
use clap_complete::Shell;
use oncekey_cluster::Engine;

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
    Dev(Dev),
    Demo(Demo),
    Config,
    Completions(Completions),
    #[cfg(feature = "conformance")]
    Conformance,
}

/// Run one node of a cluster.
///
/// The configuration is read once: flags go before the environment, the environment before the
/// file, the file before the defaults. `oncekey config` prints every key with its meaning. SIGTERM
/// and Ctrl-C end the node once the requests in flight are answered; a second one ends it at once,
/// which loses nothing that was acknowledged.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  oncekey serve --config /etc/oncekey/node.toml
  oncekey serve --config node.toml --set log.format=json --set raft.heartbeat_ms=200
  ONCEKEY_LISTEN_PUBLIC=0.0.0.0:8080 oncekey serve --config node.toml")]
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
  oncekey dev --dir /tmp/five --nodes 5 --base-port 9700")]
pub(crate) struct Dev {
    /// Folder for configurations, logs and data.
    #[arg(long, value_name = "DIR", default_value = "./oncekey-data", value_hint = ValueHint::DirPath)]
    pub(crate) dir: PathBuf,
    /// Number of nodes, 1 to 9; 3 in a new folder.
    #[arg(long, value_name = "N")]
    pub(crate) nodes: Option<u16>,
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
