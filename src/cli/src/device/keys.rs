//! A device's keys: made, published, replaced, looked at, backed up.

use std::{
    fmt::{self, Display},
    fs,
    io::Write as _,
    os::unix::fs::OpenOptionsExt as _,
};

use anyhow::{Context, Result, anyhow};
use oncekey_api::{Code, device::Pool};
use oncekey_client::{Export, Preset, StatusReport, WriteError, keystore};
use oncekey_types::{RegistrationId, SignedPreKeyId, UserId, limits};
use serde::Serialize;

use super::{
    EXPORT_PASSPHRASE, args,
    devices::Listed,
    home::{Device, Home, Opened},
    passphrase::Source,
    refresh,
    report::{self, Age, Output, Plain},
    tell_questions,
};

pub(super) fn new(
    home: &Home,
    new: &args::New,
    passphrase: Source<'_>,
    output: &Output,
) -> Result<()> {
    home.check_empty()?;
    let unlock = passphrase.to_lock()?;
    let busy = report::busy("making keys");
    let with_account_key = !new.without_account_key;
    let opened = home.create(&new.user, new.device, with_account_key, &new.settings, &unlock)?;
    busy.finish_and_clear();
    output.show(&Made::of(home, &opened, with_account_key))
}

pub(super) fn import(
    home: &Home,
    import: &args::Import,
    passphrase: Source<'_>,
    output: &Output,
) -> Result<()> {
    home.check_empty()?;
    let bytes = fs::read(&import.file).with_context(|| import.file.display().to_string())?;
    let backup = Source { of: "the backup", variable: EXPORT_PASSPHRASE, file: None };
    let export = Export::from_bytes(&bytes, &backup.to_open()?).map_err(|error| match error {
        keystore::Error::Locked => anyhow!("the passphrase does not open the backup"),
        error => error.into(),
    })?;
    let unlock = passphrase.to_lock()?;
    let opened = home.import(&export, &import.settings, &unlock)?;
    output.show(&Made::of(home, &opened, export.device.account().is_some()))
}

pub(super) fn export(device: &Device, export: &args::Export, output: &Output) -> Result<()> {
    let backup = Source { of: "the backup", variable: EXPORT_PASSPHRASE, file: None };
    let bytes = device.export()?.to_bytes(&backup.to_lock()?)?;
    let write = || {
        let mut file =
            fs::File::options().write(true).create_new(true).mode(0o600).open(&export.out)?;
        file.write_all(&bytes)?;
        file.sync_all()
    };
    write().with_context(|| export.out.display().to_string())?;
    output.show(&Exported { file: export.out.display().to_string(), bytes: bytes.len() })
}

pub(super) async fn publish(
    opened: &Opened,
    publish: &args::Publish,
    output: &Output,
) -> Result<()> {
    let device = &opened.device;
    if publish.discard_prekeys {
        device.discard_prekeys().await?;
    }
    // What is due comes first; it also finds out whether this home is an old copy.
    let busy = report::busy("asking a node");
    let tended = device.tend().await.map_err(explained)?;
    busy.finish_and_clear();
    let planned = usize::try_from(opened.preset.config().pool.target)?;
    let target = publish.keys.unwrap_or(planned);
    let bar = report::bar("one-time prekeys", target);
    // Upload by upload, so that there is progress to show.
    let mut step = target.min(limits::UPLOAD_MAX);
    let first = device.publish(step).await.map_err(explained)?;
    report::warn_of_retries(&first.attempts);
    let mut pool = first.pool;
    while step < target {
        bar.set_position(pool.count.into());
        step = target.min(step + limits::UPLOAD_MAX);
        pool = device.replenish(step).await.map_err(explained)?.pool;
    }
    bar.finish_and_clear();
    output.show(&Published {
        registration: first.registration,
        rotated: tended.is_some_and(|tended| tended.rotated.is_some()),
        pool: Shown::of(&pool),
    })
}

pub(super) async fn rotate(opened: &Opened, rotate: &args::Rotate, output: &Output) -> Result<()> {
    let busy = report::busy("replacing the signed prekey");
    let written = match rotate.if_due {
        true => opened.device.rotate_if_due().await,
        false => opened.device.rotate().await.map(Some),
    };
    let written = written.map_err(explained)?;
    busy.finish_and_clear();
    if let Some(written) = &written {
        report::warn_of_retries(&written.attempts);
    }
    output.show(&Rotated { pool: written.map(|written| Shown::of(&written.pool)) })
}

pub(super) async fn status(opened: &Opened, output: &Output) -> Result<()> {
    let busy = report::busy("asking a node");
    let registered = match opened.device.status().await {
        Ok(report) => Some(report),
        Err(WriteError::Call(error))
            if error.refusal().is_some_and(|problem| {
                matches!(problem.code, Code::UnknownUser | Code::UnknownDevice)
            }) =>
        {
            None
        }
        Err(error) => return Err(explained(error)),
    };
    if registered.is_some() {
        refresh(&opened.device, opened.device.user()).await?;
    }
    busy.finish_and_clear();
    let status = Status::of(opened, registered.as_ref())?;
    output.show(&status)?;
    tell_questions(&opened.device)?;
    Ok(())
}

/// The error with what to do about it.
pub(super) fn explained(error: WriteError) -> anyhow::Error {
    let advice = match &error {
        WriteError::StoreIsOld => {
            "if no other copy of it is in use, `oncekey device publish --discard-prekeys` starts \
             over with new prekeys"
        }
        WriteError::Replaced => {
            "one of the two is to be given up: make this one anew under another number"
        }
        WriteError::Call(call) if call.is_retryable() => {
            "the same command goes on where this one ended; do the nodes run?"
        }
        _ => return error.into(),
    };
    anyhow!("{error}; {advice}")
}

/// `new` and `import`.
#[derive(Serialize)]
struct Made {
    user: UserId,
    device: u32,
    home: String,
    preset: String,
    account_key: bool,
}

impl Made {
    fn of(home: &Home, opened: &Opened, account_key: bool) -> Self {
        Self {
            user: opened.device.user().clone(),
            device: opened.device.address().device().0,
            home: home.path().display().to_string(),
            preset: opened.preset.to_string(),
            account_key,
        }
    }
}

impl Display for Made {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { user, device, home, preset, account_key } = self;
        writeln!(f, "{user}, device {device}, lives in {home} ({preset})")?;
        if !account_key {
            writeln!(
                f,
                "it has no account key: peers who know the user's device list wait until a device that has it adds this one"
            )?;
        }
        write!(f, "next: `oncekey device publish`")
    }
}

#[derive(Serialize)]
struct Exported {
    file: String,
    bytes: usize,
}

impl Display for Exported {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { file, bytes } = self;
        write!(
            f,
            "the identity is in {file} ({bytes} bytes). Whoever opens it is this device; it cannot \
             be called back."
        )
    }
}

/// A pool.
#[derive(Serialize)]
struct Shown {
    one_time_prekeys: u32,
    low_watermark: u32,
    signed_prekey: SignedPreKeyId,
}

impl Shown {
    fn of(pool: &Pool) -> Self {
        Self {
            one_time_prekeys: pool.count,
            low_watermark: pool.low_watermark,
            signed_prekey: pool.signed_prekey,
        }
    }
}

impl Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { one_time_prekeys, signed_prekey, .. } = self;
        write!(f, "{one_time_prekeys} one-time prekeys and signed prekey {signed_prekey} are out")
    }
}

#[derive(Serialize)]
struct Published {
    registration: RegistrationId,
    /// Whether the signed prekey was due and replaced.
    rotated: bool,
    #[serde(flatten)]
    pool: Shown,
}

impl Display for Published {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "registration {}: {}", self.registration, self.pool)
    }
}

#[derive(Serialize)]
struct Rotated {
    /// None when it was not due.
    pool: Option<Shown>,
}

impl Display for Rotated {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.pool {
            Some(pool) => pool.fmt(f),
            None => f.write_str("the signed prekey is not due"),
        }
    }
}

#[derive(Serialize)]
struct Status {
    user: UserId,
    device: u32,
    preset: String,
    identity_key: oncekey_api::Base64,
    /// None when it is not registered.
    registered: Option<Registered>,
    devices: Option<Listed>,
    open_questions: usize,
}

#[derive(Serialize)]
struct Registered {
    registration: RegistrationId,
    #[serde(flatten)]
    pool: Shown,
    /// At or below this the device adds keys.
    watermark: u32,
    signed_prekey_age_s: u64,
    signed_prekey_due_in_s: u64,
    /// Keys that the servers may still hand out and that nothing here opens.
    missing_secrets: u64,
}

impl Status {
    fn of(opened: &Opened, registered: Option<&StatusReport>) -> Result<Self> {
        let Opened { device, preset } = opened;
        let list = device.pinned_device_list(device.user())?;
        Ok(Self {
            user: device.user().clone(),
            device: device.address().device().0,
            preset: preset.to_string(),
            identity_key: (*device.identity().as_bytes()).into(),
            registered: registered.map(|report| Registered::of(report, *preset)),
            devices: list.as_ref().map(Listed::of),
            open_questions: device.open_questions()?.len(),
        })
    }
}

impl Registered {
    fn of(report: &StatusReport, preset: Preset) -> Self {
        let config = preset.config();
        let age_s = report.server.signed_prekey_age_ms / 1000;
        Self {
            registration: report.server.registration,
            pool: Shown::of(&report.server.pool),
            watermark: config.pool.watermark,
            signed_prekey_age_s: age_s,
            signed_prekey_due_in_s: config.lifetimes.rotate_after_s.saturating_sub(age_s),
            missing_secrets: report.missing_secrets,
        }
    }
}

impl Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let user = Plain(self.user.as_bytes());
        write!(f, "{user}, device {}, {}", self.device, self.preset)?;
        match &self.registered {
            Some(registered) => registered.fmt(f)?,
            None => write!(f, "\nnot registered: `oncekey device publish`")?,
        }
        match &self.devices {
            Some(list) => write!(f, "\n{list}"),
            None => write!(f, "\nno signed device list is known"),
        }
    }
}

impl Display for Registered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { registration, pool, watermark, .. } = self;
        let (age, due_in) = (self.signed_prekey_age_s, self.signed_prekey_due_in_s);
        write!(f, "\nregistration {registration}: {pool}")?;
        if pool.one_time_prekeys <= *watermark {
            write!(f, "\nthe pool is at or below {watermark}: `oncekey device publish`")?;
        }
        match due_in {
            0 => write!(f, "\nthe signed prekey is {} old: `oncekey device rotate`", Age(age))?,
            _ => write!(f, "\nthe signed prekey is {} old, due in {}", Age(age), Age(due_in))?,
        }
        match self.missing_secrets {
            0 => Ok(()),
            missing => write!(
                f,
                "\n{missing} one-time prekeys are out that nothing here opens: this home is an old \
                 copy, or not the only one"
            ),
        }
    }
}
