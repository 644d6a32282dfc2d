//! The command line of `oncekey device`.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueHint};
use oncekey_client::Preset;
use oncekey_types::{RequestId, UserId, limits};

use crate::secret::GivenToken;

const ENDPOINTS: &str = "http://127.0.0.1:8701,http://127.0.0.1:8702,http://127.0.0.1:8703";

/// Be a device: make keys, publish them, send and open first messages.
///
/// Everything that a device must remember lies in its home, a folder: its keys in a key store that
/// a passphrase locks, and beside it which servers to ask. A message is printed as a block of text;
/// carry it to the other device by mail, by chat or by pipe, for the servers are no mailbox. Every
/// message starts a session of its own; an application goes on from it with a ratchet.
///
/// The passphrase is read from ONCEKEY_PASSPHRASE or from --passphrase-file, else it is asked for
/// on the terminal. It is never an argument, which other users of the machine could read.
#[derive(Debug, Args)]
#[command(after_help = "\
Two terminals that talk, beside a third that runs `oncekey dev`:

  export ONCEKEY_HOME=./alice                 export ONCEKEY_HOME=./carol
  key=./oncekey-data/issuer.jwk               key=./oncekey-data/issuer.jwk
  export ONCEKEY_TOKEN=$(oncekey token mint --key $key --user alice)
                                              export ONCEKEY_TOKEN=$(oncekey token mint --key $key --user carol)
  oncekey device new --user alice             oncekey device new --user carol
  oncekey device publish                      oncekey device publish
  oncekey device send carol 'hello' > letter
                                              oncekey device inbox letter
                                              oncekey device send alice 'hi' > reply
  oncekey device inbox reply
  oncekey device safety-number carol          oncekey device safety-number alice

Exit codes, besides those of `oncekey --help`:
  4  someone's keys have changed and the answer is yours: `oncekey device trust`")]
pub(crate) struct Device {
    /// Folder of the device.
    #[arg(long, value_name = "DIR", env = "ONCEKEY_HOME", global = true,
          default_value = "./oncekey-device", value_hint = ValueHint::DirPath)]
    pub(super) home: PathBuf,
    /// File whose first line is the passphrase of the key store.
    #[arg(long, value_name = "FILE", env = "ONCEKEY_PASSPHRASE_FILE", global = true,
          value_hint = ValueHint::FilePath)]
    pub(super) passphrase_file: Option<PathBuf>,
    /// The token of the user, from the account system of whoever runs the nodes. Other users of this
    /// machine may see it here; better set ONCEKEY_TOKEN, or name a file.
    #[arg(
        long,
        value_name = "TOKEN",
        env = "ONCEKEY_TOKEN",
        hide_env_values = true,
        global = true
    )]
    pub(super) token: Option<GivenToken>,
    /// File with the token, which something else keeps fresh; goes before --token.
    #[arg(long, value_name = "FILE", env = "ONCEKEY_TOKEN_FILE", global = true,
          value_hint = ValueHint::FilePath)]
    pub(super) token_file: Option<PathBuf>,
    /// Print one JSON object instead of text; bytes are base64url.
    #[arg(long, global = true)]
    pub(super) json: bool,
    #[command(subcommand)]
    pub(super) command: Command,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    New(New),
    Publish(Publish),
    /// Show what the servers hold of this device, and what is to be done.
    Status,
    Rotate(Rotate),
    Send(Send),
    Inbox(Inbox),
    Trust(Trust),
    Pair(Pair),
    Add(Add),
    Remove(Remove),
    SafetyNumber(SafetyNumber),
    Export(Export),
    Import(Import),
    Plan(Plan),
}

/// Make a device with new keys; nothing is sent yet.
///
/// The first device of a user makes the user's account key, which signs the list of the user's
/// devices; a peer takes no device that is not on it. A further device is made without.
#[derive(Debug, Args)]
pub(super) struct New {
    /// Name of the user, 1 to 255 bytes.
    #[arg(long, value_name = "NAME")]
    pub(super) user: UserId,
    /// Number of the device among the user's.
    #[arg(long, value_name = "N", default_value = "1")]
    pub(super) device: u32,
    /// For a further device of a user: it gets no account key, and a device that has it must add
    /// this one.
    #[arg(long)]
    pub(super) without_account_key: bool,
    #[command(flatten)]
    pub(super) settings: NewSettings,
}

/// What a device is told once and remembers.
#[derive(Debug, Args)]
pub(super) struct NewSettings {
    /// What goes first when both cannot be had: availability-first or security-first. The second
    /// refuses bundles without one-time prekey, waits for your word before it writes to new
    /// devices, and replaces its signed prekey every day.
    #[arg(long, value_name = "PRESET", default_value_t)]
    pub(super) preset: Preset,
    /// The nodes to ask, by the URLs that serve clients; any of them will do.
    #[arg(long, value_name = "URL,…", value_delimiter = ',', env = "ONCEKEY_ENDPOINTS",
          default_value = ENDPOINTS)]
    pub(super) endpoints: Vec<String>,
    /// Authorities that vouch for nodes over https, in PEM, instead of those that browsers trust.
    #[arg(long, value_name = "FILE", env = "ONCEKEY_CA", value_hint = ValueHint::FilePath)]
    pub(super) ca: Option<PathBuf>,
}

/// Register the device, or do what is due.
///
/// Due may be: to replace the signed prekey, to fill the pool of one-time prekeys, to delete secrets
/// whose time is over. May be repeated at will; open the messages that wait before.
#[derive(Debug, Args)]
pub(super) struct Publish {
    /// Register with this many one-time prekeys, or fill the pool up to them, instead of what the
    /// preset plans.
    #[arg(long, value_name = "N", value_parser = count)]
    pub(super) keys: Option<usize>,
    /// Throw away every prekey first: for a home that was put back from an old copy. Messages to
    /// the old prekeys cannot be opened any more.
    #[arg(long)]
    pub(super) discard_prekeys: bool,
}

/// Replace the signed prekey. The old one goes on opening late messages for a while.
#[derive(Debug, Args)]
pub(super) struct Rotate {
    /// Only if it is as old as the preset says.
    #[arg(long)]
    pub(super) if_due: bool,
}

/// Write a first message to every device of a user.
///
/// Fetches a bundle of each device, which uses up one of its one-time prekeys, and prints a block
/// of text for each. Exits with 0 only if there is a block for every device.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  oncekey device send carol 'see you at eight' > letter
  oncekey device send carol < draft.txt | ssh carols-machine oncekey device inbox")]
pub(super) struct Send {
    /// To whom.
    pub(super) user: UserId,
    /// What to say; standard input when absent. Other users of this machine may see it here.
    pub(super) text: Option<String>,
    /// Write the blocks to this file instead of standard output.
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(super) out: Option<PathBuf>,
    /// Go on with a `send` of which no node answered: the one-time prekeys that it may have used up
    /// are given out again under the key that it printed.
    #[arg(long, value_name = "KEY")]
    pub(super) request: Option<RequestId>,
}

/// Open the first messages in files, or on standard input.
///
/// Blocks for other devices are left alone, and a block that was opened before is said to be.
/// Exits with 0 only if nothing was refused.
#[derive(Debug, Args)]
pub(super) struct Inbox {
    /// Files with blocks as `oncekey device send` prints them; standard input when absent.
    #[arg(value_hint = ValueHint::FilePath)]
    pub(super) files: Vec<PathBuf>,
    /// Ask no server, even for the device list of a sender who is not known yet.
    #[arg(long)]
    pub(super) offline: bool,
}

/// Show the changes of trust that wait for an answer, or answer one.
///
/// Someone's keys change when they reinstall, add a device or lose one; and when somebody stands
/// between you. Only you can tell which: compare safety numbers over another way before you accept.
#[derive(Debug, Args)]
pub(super) struct Trust {
    #[command(subcommand)]
    pub(super) answer: Option<Answer>,
}

#[derive(Clone, Copy, Debug, Subcommand)]
pub(super) enum Answer {
    /// The change is right: trust what is new.
    Accept {
        /// Number of the question.
        question: u64,
    },
    /// It is not: trust what was known before, and nothing else.
    Reject {
        /// Number of the question.
        question: u64,
    },
}

/// Show the code by which a device with the account key adds this one.
#[derive(Debug, Args)]
#[command(after_help = "\
A second device of Carol's, at a third terminal:

  export ONCEKEY_HOME=./carols-laptop
  oncekey device new --user carol --device 2 --without-account-key
  oncekey device publish
  oncekey device pair
                                              oncekey device add CODE       (in ./carol)")]
pub(super) struct Pair {
    /// Draw it as a QR code too.
    #[arg(long)]
    pub(super) qr: bool,
}

/// Sign for another device of yours, which shows a code. Takes the account key.
#[derive(Debug, Args)]
pub(super) struct Add {
    /// The code that `oncekey device pair` shows on the other.
    pub(super) code: String,
}

/// Take a device and its public keys off the servers and off the signed list; its home stays as it
/// is.
#[derive(Debug, Args)]
pub(super) struct Remove {
    /// Number of a device of yours that is lost, say; this one when absent.
    pub(super) device: Option<u32>,
}

/// Show the number that you and another user compare; equal means that nobody is in between.
#[derive(Debug, Args)]
pub(super) struct SafetyNumber {
    /// The other user.
    pub(super) user: UserId,
    /// Draw it as a QR code too.
    #[arg(long)]
    pub(super) qr: bool,
    /// Use what is known here, without asking a server.
    #[arg(long)]
    pub(super) offline: bool,
}

/// Write a backup of the device's identity, locked with a passphrase of its own.
///
/// Whoever opens it is this device from then on, and can guess at the passphrase for ever: take a
/// long one. It holds whom the device trusts, and no prekey and no message. The passphrase is read
/// from ONCEKEY_EXPORT_PASSPHRASE, else it is asked for on the terminal.
#[derive(Debug, Args)]
pub(super) struct Export {
    /// The file to write, which must not be there yet.
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(super) out: PathBuf,
}

/// Make the device of a backup, in an empty home. Publish next.
///
/// What was sent to its old prekeys cannot be opened any more. The device that the backup was made
/// of must not be used beside it.
#[derive(Debug, Args)]
pub(super) struct Import {
    /// The backup.
    #[arg(value_hint = ValueHint::FilePath)]
    pub(super) file: PathBuf,
    #[command(flatten)]
    pub(super) settings: NewSettings,
}

/// Show how many one-time prekeys a device should keep out: the formula with its numbers.
///
/// Without flags, for the demand that the preset `availability-first` assumes. No device is needed.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  oncekey device plan --arrivals-per-day 20 --offline-days 30
  oncekey device plan --taken 70 --over-days 7      a rate that was observed")]
pub(super) struct Plan {
    /// Fetches a day that take a one-time prekey: new contacts, and new devices of old ones.
    #[arg(long, value_name = "N", default_value = "3")]
    pub(super) arrivals_per_day: u32,
    /// One-time prekeys that were taken, to reckon the arrivals from.
    #[arg(long, value_name = "N", requires = "over_days", conflicts_with = "arrivals_per_day")]
    pub(super) taken: Option<u32>,
    /// The days in which they were taken.
    #[arg(long, value_name = "D", requires = "taken",
          value_parser = clap::value_parser!(u32).range(1..))]
    pub(super) over_days: Option<u32>,
    /// The longest absence to prepare for.
    #[arg(long, value_name = "D", default_value = "14")]
    pub(super) offline_days: u32,
    /// How often the device may upload while it is online.
    #[arg(long, value_name = "H", default_value = "24")]
    pub(super) upload_every_hours: u32,
}

fn count(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(count @ 1..=limits::POOL_MAX) => Ok(count),
        _ => Err(format!("a pool holds 1 to {} one-time prekeys", limits::POOL_MAX)),
    }
}
