//! `oncekey device`: what an application does with the client library, by hand.
//!
//! Guarantees: what goes to standard output is the answer and nothing else, as text or as one JSON
//! object; warnings and progress go to standard error. Text that a peer chose cannot move the
//! cursor of a terminal. A change of trust is always told, and has an exit code of its own.
//!
//! Leaves out: carrying messages, for the servers are no mailbox; ratchets.

mod args;
mod armour;
mod devices;
mod home;
mod inbox;
mod keys;
mod passphrase;
mod plan;
mod report;
mod send;
mod trust;

use std::sync::Arc;

use anyhow::{Result, bail};
use oncekey_client::{ListError, TrustEvent};
use oncekey_server::config::LogFormat;
use oncekey_types::UserId;

pub(crate) use args::Device as Arguments;

use self::{
    args::Command,
    home::{Home, Opened, Token},
    passphrase::Source,
    report::Output,
};
use crate::logging;

/// Variable that may hold the passphrase of a key store.
const PASSPHRASE: &str = "ONCEKEY_PASSPHRASE";
/// Variable that may hold the passphrase of a backup.
const EXPORT_PASSPHRASE: &str = "ONCEKEY_EXPORT_PASSPHRASE";

/// The command line asks for what cannot be. Exit code 2.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Usage(pub(crate) String);

/// Something waits for the answer of a person. Exit code 4.
#[derive(Debug, thiserror::Error)]
#[error("{0} waits for your answer: see `oncekey device trust`")]
pub(crate) struct Questioned(pub(crate) String);

pub(crate) async fn run(arguments: &Arguments) -> Result<()> {
    logging::start("error", LogFormat::Text)?;
    let interrupted = tokio::signal::ctrl_c();
    tokio::select! {
        done = perform(arguments) => done,
        _ = interrupted => bail!("interrupted; what was under way is finished by the next command"),
    }
}

async fn perform(arguments: &Arguments) -> Result<()> {
    let token = match (&arguments.token_file, &arguments.token) {
        (Some(file), _) => Some(Token::File(file.clone())),
        (None, Some(given)) => Some(Token::Text(Arc::new(given.token()?))),
        (None, None) => None,
    };
    let home = Home::new(&arguments.home, token);
    let output = Output::new(arguments.json);
    let store = Source {
        of: "the key store",
        variable: PASSPHRASE,
        file: arguments.passphrase_file.as_deref(),
    };
    let open = || -> Result<Opened> {
        home.check_inhabited()?;
        home.open(&store.to_open()?)
    };
    match &arguments.command {
        Command::New(new) => keys::new(&home, new, store, &output),
        Command::Import(import) => keys::import(&home, import, store, &output),
        Command::Publish(publish) => keys::publish(&open()?, publish, &output).await,
        Command::Status => keys::status(&open()?, &output).await,
        Command::Rotate(rotate) => keys::rotate(&open()?, rotate, &output).await,
        Command::Export(export) => keys::export(&open()?.device, export, &output),
        Command::Send(send) => send::run(&open()?.device, send, &output).await,
        Command::Inbox(inbox) => inbox::run(&open()?.device, inbox, &output).await,
        Command::Trust(trust) => trust::answer(&open()?.device, trust.answer, &output),
        Command::Pair(pair) => devices::pair(&open()?.device, pair, &output),
        Command::Add(add) => devices::add(&open()?.device, add, &output).await,
        Command::Remove(remove) => devices::remove(&open()?.device, remove, &output).await,
        Command::SafetyNumber(number) => trust::number(&open()?.device, number, &output).await,
        Command::Plan(plan) => plan::run(plan, &output),
    }
}

/// Reads the device list of `user`, if a server answers: what is known goes on holding without.
async fn refresh(device: &home::Device, user: &UserId) -> Result<()> {
    match device.refresh_device_list(user).await {
        // Of a list that is refused, there is an open question if it is one for people.
        Ok(_) | Err(ListError::Refused(_)) => Ok(()),
        Err(ListError::Call(error)) => {
            report::warn(format_args!("the device list of {user} was not read anew: {error}"));
            Ok(())
        }
        Err(error) => Err(error.into()),
    }
}

/// Tells the changes of trust that wait for an answer.
fn tell_questions(device: &home::Device) -> Result<Vec<TrustEvent>> {
    let questions = device.open_questions()?;
    for question in &questions {
        report::warn(format_args!(
            "question {}: {}",
            question.id.0,
            trust::headline(&question.change)
        ));
    }
    if !questions.is_empty() {
        report::warn("answer with `oncekey device trust`");
    }
    Ok(questions)
}
