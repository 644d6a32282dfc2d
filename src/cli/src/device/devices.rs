//! A user's devices: one shows who it is, another signs for it or strikes it off.

use std::fmt::{self, Display};

use anyhow::{Context, Result, anyhow};
use oncekey_client::{ChangeDevicesError, PairingCode, machine::PinnedDeviceList, qr};
use oncekey_types::DeviceId;
use serde::Serialize;

use super::{
    args,
    home::Device,
    keys::explained,
    report::{self, Output},
};

pub(super) fn pair(device: &Device, pair: &args::Pair, output: &Output) -> Result<()> {
    let code = device.pairing_code();
    let drawn = match pair.qr {
        true => Some(qr::draw_pairing(&code, qr::Ground::default())?),
        false => None,
    };
    output.show(&Shown { code: code.to_string(), drawn })
}

pub(super) async fn add(device: &Device, add: &args::Add, output: &Output) -> Result<()> {
    let code: PairingCode = add.code.parse().context("the code")?;
    let busy = report::busy("signing the list of devices");
    let added = device.add_paired(&code).await;
    busy.finish_and_clear();
    output.show(&Listed::of(&added.map_err(told)?))
}

pub(super) async fn remove(device: &Device, remove: &args::Remove, output: &Output) -> Result<()> {
    let own = device.address().device();
    let number = DeviceId(remove.device.unwrap_or(own.0));
    let busy = report::busy("removing the device");
    let removed = device.remove_device(number).await;
    busy.finish_and_clear();
    let list = match removed {
        Ok(list) => Some(list),
        // The list is another device's to change.
        Err(ChangeDevicesError::NoAccountKey) if number == own => {
            device.remove().await.map_err(explained)?;
            None
        }
        Err(error) => return Err(told(error)),
    };
    output.show(&Removed { device: number.0, list: list.as_ref().map(Listed::of) })
}

fn told(error: ChangeDevicesError) -> anyhow::Error {
    match error {
        ChangeDevicesError::NoAccountKey => {
            anyhow!("{error}; do this on one that has it")
        }
        error => error.into(),
    }
}

#[derive(Serialize)]
struct Shown {
    code: String,
    #[serde(skip)]
    drawn: Option<String>,
}

impl Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(drawn) = &self.drawn {
            writeln!(f, "{drawn}")?;
        }
        write!(
            f,
            "{}\n\nCarry it to a device that has the account key, over a way that the servers have \
             no hand in:\n  oncekey device add CODE",
            self.code
        )
    }
}

#[derive(Serialize)]
pub(super) struct Listed {
    position: u64,
    devices: Vec<u32>,
}

impl Listed {
    pub(super) fn of(list: &PinnedDeviceList) -> Self {
        Self {
            position: list.seq().0,
            devices: list.list().list().devices().iter().map(|listed| listed.device.0).collect(),
        }
    }
}

impl Display for Listed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { position, devices } = self;
        let devices: Vec<_> = devices.iter().map(u32::to_string).collect();
        write!(f, "device list at position {position}: {}", devices.join(", "))
    }
}

#[derive(Serialize)]
struct Removed {
    device: u32,
    /// The list without it, when this device signed it.
    list: Option<Listed>,
}

impl Display for Removed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "device {} is off the servers", self.device)?;
        match &self.list {
            Some(list) => write!(f, "; {list}"),
            None => Ok(()),
        }
    }
}
