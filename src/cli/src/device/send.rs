//! `oncekey device send`: a first message to every device of a user.

use std::{
    fmt::{self, Display},
    fs,
    io::{self, Read as _},
};

use anyhow::{Context, Result, anyhow, bail, ensure};
use oncekey_api::{Base64, bundle::OneTimePreKeyStatus};
use oncekey_client::{
    BundleRefused, DeviceOutcome, FetchError, FetchOptions, ListError, NotSent,
    machine::DeviceListRefused,
};
use oncekey_types::{TimestampMs, UserId, limits};
use serde::Serialize;

use super::{
    Questioned,
    args::Send,
    armour,
    home::Device,
    inbox::APP_AD,
    report::{self, Output, Plain},
    tell_questions,
};

pub(super) async fn run(device: &Device, send: &Send, output: &Output) -> Result<()> {
    let text = payload(send)?;
    let busy = report::busy("fetching bundles");
    let options = FetchOptions { request: send.request.clone(), ..FetchOptions::default() };
    let fanned = device.send_to_all(&send.user, &text, APP_AD, &options).await;
    busy.finish_and_clear();
    let fanned = match fanned {
        Ok(fanned) => fanned,
        Err(error) => {
            tell_questions(device)?;
            return Err(refused(error));
        }
    };
    let questioned = fanned.devices.iter().any(|device| device.outcome.as_ref().is_err_and(asks));
    let sent = Sent {
        to: send.user.clone(),
        as_of: fanned.as_of,
        devices: fanned.devices.into_iter().map(ToDevice::of).collect(),
    };
    for device in &sent.devices {
        if let Some(error) = &device.error {
            report::warn(format_args!("nothing for device {}: {error}", device.device));
        }
    }
    match &send.out {
        Some(file) => {
            fs::write(file, format!("{sent}\n")).with_context(|| file.display().to_string())?;
            let file = file.display().to_string();
            output.show(&Written { file, messages: sent.sealed() })?;
        }
        None => output.show(&sent)?,
    }
    tell_questions(device)?;
    if questioned {
        return Err(Questioned("a device".to_owned()).into());
    }
    ensure!(!sent.devices.is_empty(), "there is no device to write to");
    match sent.devices.len() - sent.sealed() {
        0 => Ok(()),
        missing => bail!("{missing} of {} devices get no message", sent.devices.len()),
    }
}

fn payload(send: &Send) -> Result<Vec<u8>> {
    let text = match &send.text {
        Some(text) => text.clone().into_bytes(),
        None => {
            let limit = u64::try_from(limits::INITIAL_PAYLOAD_MAX_BYTES)?;
            let mut text = Vec::new();
            io::stdin().lock().take(limit + 1).read_to_end(&mut text).context("standard input")?;
            text
        }
    };
    let limit = limits::INITIAL_PAYLOAD_MAX_BYTES;
    ensure!(text.len() <= limit, "the message is over the limit of {limit} bytes");
    Ok(text)
}

/// Whether the reason is one that a person must judge.
fn asks(why: &NotSent) -> bool {
    matches!(
        why,
        NotSent::Bundle(BundleRefused::IdentityChanged(_) | BundleRefused::Questioned { .. })
    )
}

fn refused(error: FetchError) -> anyhow::Error {
    match error {
        FetchError::DeviceList {
            error:
                ListError::Refused(
                    DeviceListRefused::AccountChanged
                    | DeviceListRefused::Disappeared
                    | DeviceListRefused::Succession(_),
                ),
            ..
        } => Questioned("the user's device list".to_owned()).into(),
        FetchError::Call { request, error } if error.is_retryable() => {
            anyhow!("{error}; go on with --request {request}")
        }
        error => error.into(),
    }
}

#[derive(Serialize)]
struct Sent {
    to: UserId,
    /// Age of the data when no quorum was within reach.
    #[serde(skip_serializing_if = "Option::is_none")]
    as_of: Option<TimestampMs>,
    devices: Vec<ToDevice>,
}

#[derive(Serialize)]
struct ToDevice {
    device: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    one_time_prekey: Option<OneTimePreKeyStatus>,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<Base64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

#[derive(Serialize)]
struct Written {
    file: String,
    messages: usize,
}

impl Display for Written {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { file, messages } = self;
        let messages = if *messages == 1 {
            "1 message is".to_owned()
        } else {
            format!("{messages} messages are")
        };
        write!(f, "{messages} in {file}")
    }
}

impl Sent {
    fn sealed(&self) -> usize {
        self.devices.iter().filter(|device| device.message.is_some()).count()
    }
}

impl ToDevice {
    fn of(outcome: DeviceOutcome) -> Self {
        let (message, error) = match outcome.outcome {
            Ok(outgoing) => (Some(outgoing.message.into()), None),
            Err(error) => (None, Some(error.to_string())),
        };
        Self {
            device: outcome.device.0,
            one_time_prekey: outcome.one_time_prekey_status,
            message,
            error,
        }
    }
}

impl Display for Sent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut first = true;
        for to in &self.devices {
            let Some(Base64(message)) = &to.message else { continue };
            if !std::mem::take(&mut first) {
                f.write_str("\n\n")?;
            }
            write!(f, "To {}, device {}", Plain(self.to.as_bytes()), to.device)?;
            f.write_str(match to.one_time_prekey {
                Some(OneTimePreKeyStatus::Issued) | None => "",
                Some(OneTimePreKeyStatus::Exhausted) => " (its one-time prekeys are used up)",
                Some(OneTimePreKeyStatus::Withheld) => " (a limit withholds one-time prekeys)",
                Some(OneTimePreKeyStatus::Unavailable) => {
                    " (without one-time prekey: no quorum of nodes is within reach)"
                }
            })?;
            write!(f, "\n{}", armour::encode(message))?;
        }
        Ok(())
    }
}
