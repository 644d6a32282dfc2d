//! `oncekey device inbox`: opens first messages.

use std::{
    fmt::{self, Display},
    fs,
    io::{self, Read as _},
};

use anyhow::{Context, Result, bail, ensure};
use oncekey_api::Base64;
use oncekey_client::{Failure, ReceiveError, Received};
use oncekey_types::DeviceId;
use serde::Serialize;

use super::{
    Questioned,
    args::Inbox,
    armour,
    home::Device,
    refresh,
    report::{Output, Plain},
    tell_questions,
};

/// What both sides bind their handshakes to, so that a message of another application that uses
/// the same keys does not open here.
pub(super) const APP_AD: &[u8] = b"oncekey device";
/// Text that is read at most.
const INPUT_MAX_BYTES: u64 = 64 * 1024 * 1024;

pub(super) async fn run(device: &Device, inbox: &Inbox, output: &Output) -> Result<()> {
    let blocks = armour::decode(&input(inbox)?)?;
    ensure!(!blocks.is_empty(), "there is no message in the input");
    let mut opened = Opened { messages: Vec::new() };
    for block in &blocks {
        opened.messages.push(open(device, block, inbox.offline).await?);
    }
    output.show(&opened)?;
    tell_questions(device)?;
    let is = |wanted: fn(&Outcome) -> bool| {
        opened.messages.iter().filter(|message| wanted(&message.outcome)).count()
    };
    if is(|outcome| matches!(outcome, Outcome::Questioned { .. })) > 0 {
        return Err(Questioned("a sender".to_owned()).into());
    }
    match is(|outcome| matches!(outcome, Outcome::Refused { .. })) {
        0 => Ok(()),
        refused => bail!("{refused} of {} messages were refused", blocks.len()),
    }
}

fn input(inbox: &Inbox) -> Result<String> {
    let mut text = String::new();
    if inbox.files.is_empty() {
        io::stdin()
            .lock()
            .take(INPUT_MAX_BYTES)
            .read_to_string(&mut text)
            .context("standard input")?;
    }
    for file in &inbox.files {
        let read = fs::File::open(file)
            .and_then(|opened| opened.take(INPUT_MAX_BYTES).read_to_string(&mut text));
        read.with_context(|| file.display().to_string())?;
        text.push('\n');
    }
    Ok(text)
}

async fn open(device: &Device, message: &[u8], offline: bool) -> Result<Message> {
    let sender = match device.claimed_sender(message) {
        Ok(sender) => sender,
        Err(error) => return Ok(Message { from: None, outcome: Outcome::of(Err(error))? }),
    };
    let user = sender.user_id();
    // A first contact is judged by the list that the sender's account has signed, if any.
    if let (Some(user), false) = (&user, offline)
        && device.pinned_device_list(user)?.is_none()
    {
        refresh(device, user).await?;
    }
    let received = match (device.receive(message, APP_AD), &user) {
        // The sender may have added the device since the list was read.
        (Err(ReceiveError::IdentityNotListed), Some(user)) if !offline => {
            refresh(device, user).await?;
            device.receive(message, APP_AD)
        }
        (received, _) => received,
    };
    let user = String::from_utf8_lossy(sender.user()).into_owned();
    let from = From { user, device: sender.device() };
    Ok(Message { from: Some(from), outcome: Outcome::of(received)? })
}

#[derive(Serialize)]
struct Opened {
    messages: Vec<Message>,
}

#[derive(Serialize)]
struct Message {
    #[serde(flatten)]
    from: Option<From>,
    #[serde(flatten)]
    outcome: Outcome,
}

#[derive(Serialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
enum Outcome {
    /// Opened, for the first and only time.
    New { payload: Base64 },
    /// Opened before.
    Duplicate,
    /// For another device.
    ForAnother,
    /// A person must judge.
    Questioned { why: String },
    /// Not opened.
    Refused { why: String },
}

#[derive(Serialize)]
struct From {
    #[serde(rename = "from")]
    user: String,
    device: DeviceId,
}

impl Outcome {
    /// What to say of it; an error when it says nothing about the message.
    fn of(received: Result<Received, ReceiveError>) -> Result<Self> {
        let error = match received {
            Ok(Received::New { payload, .. }) => {
                return Ok(Self::New { payload: payload.as_bytes().to_vec().into() });
            }
            Ok(Received::Duplicate { .. }) => return Ok(Self::Duplicate),
            Err(error) => error,
        };
        let why = error.to_string();
        match (error.failure(), &error) {
            (None, _) => Err(error.into()),
            (Some(Failure::WrongRecipient), _) => Ok(Self::ForAnother),
            (_, ReceiveError::IdentityChanged(_) | ReceiveError::Questioned { .. }) => {
                Ok(Self::Questioned { why })
            }
            (Some(_), _) => Ok(Self::Refused { why }),
        }
    }
}

impl Display for Opened {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, message) in self.messages.iter().enumerate() {
            if number > 0 {
                f.write_str("\n")?;
            }
            message.fmt(f)?;
        }
        Ok(())
    }
}

impl Display for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(From { user, device }) = &self.from {
            write!(f, "from {}, device {device}: ", Plain(user.as_bytes()))?;
        }
        match &self.outcome {
            Outcome::New { payload } => {
                let text = Plain(&payload.0).to_string();
                f.write_str(text.strip_suffix('\n').unwrap_or(&text))
            }
            Outcome::Duplicate => f.write_str("(opened before)"),
            Outcome::ForAnother => f.write_str("(for another device)"),
            Outcome::Questioned { why } => write!(f, "(not opened yet: {why})"),
            Outcome::Refused { why } => write!(f, "(not opened: {why})"),
        }
    }
}
