//! `oncekey token`: an account system for trials.
//!
//! Guarantees: what it makes is what an operator's account system would make; a private key is
//! readable by its owner alone and is never written over. Leaves out: accounts; see
//! [`issuer`](oncekey_cluster::issuer).

use std::{
    path::PathBuf,
    time::{Duration, SystemTime},
};

use anyhow::Result;
use clap::{Args, Subcommand, ValueHint};
use oncekey_cluster::issuer::{AUDIENCE, Claims, ISSUER, Issuer, KEY_FILE, KEY_SET_FILE};
use oncekey_types::UserId;

use crate::output;

/// Make keys and tokens, for a trial.
///
/// In earnest an operator's account system makes the tokens and publishes its keys. For a trial this
/// does: `key` makes a key for it and the set of keys that nodes read, `mint` a token of a user.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  oncekey token key --dir ./issuer
  export ONCEKEY_TOKEN=$(oncekey token mint --key ./issuer/issuer.jwk --user alice)
  oncekey token mint --key ./issuer/issuer.jwk --user root --scope oncekey:operator")]
pub(crate) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Key(Key),
    Mint(Mint),
}

/// Make a key that signs tokens, and the set of keys for auth.jwks_file.
#[derive(Debug, Args)]
struct Key {
    /// Folder for both; made when missing.
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    dir: PathBuf,
}

/// Print a token.
#[derive(Debug, Args)]
struct Mint {
    /// The private key that `oncekey token key` made.
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    key: PathBuf,
    /// The user whom it speaks for.
    #[arg(long, value_name = "NAME")]
    user: UserId,
    /// How long it lives.
    #[arg(long, value_name = "S", default_value = "3600")]
    lifetime_s: u32,
    /// Scopes, apart by spaces; oncekey:operator makes an operator's token.
    #[arg(long, value_name = "SCOPES", default_value = "")]
    scope: String,
    /// The claim iss: auth.issuer of the nodes.
    #[arg(long, value_name = "TEXT", default_value = ISSUER)]
    issuer: String,
    /// The claim aud: auth.audience of the nodes.
    #[arg(long, value_name = "TEXT", default_value = AUDIENCE)]
    audience: String,
}

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    match &arguments.command {
        Command::Key(Key { dir }) => {
            Issuer::create(dir)?;
            output::line(format_args!(
                "{} signs tokens; keep it to yourself. For the nodes:\n\n\
                 [auth]\nissuer = \"{ISSUER}\"\naudience = \"{AUDIENCE}\"\njwks_file = \"{}\"",
                dir.join(KEY_FILE).display(),
                dir.join(KEY_SET_FILE).display(),
            ));
        }
        Command::Mint(mint) => {
            let claims = Claims {
                issuer: mint.issuer.clone(),
                audience: mint.audience.clone(),
                subject: mint.user.to_string(),
                scope: mint.scope.clone(),
                issued: SystemTime::now(),
                lifetime: Duration::from_secs(mint.lifetime_s.into()),
            };
            output::line(Issuer::open(&mint.key)?.token(&claims));
        }
    }
    Ok(())
}
