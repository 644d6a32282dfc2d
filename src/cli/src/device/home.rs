//! A device's folder: its key store, and beside it what it was told once.
//!
//! ```text
//! device.json        who it is, whom to ask, by which preset to live
//! keystore.sqlite3   everything else, locked
//! ```
//!
//! Guarantees: a command in the wrong folder makes nothing there; a home never changes hands.

use std::{
    fs,
    io::{self, Write as _},
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context, Result, anyhow, bail, ensure};
use oncekey_client::{
    Client, Export, NewDevice, Preset, SqliteKeyStore, Unlock,
    http::{self, AnyNode, Config, Tls, TokenFile},
    keystore,
};
use oncekey_types::{CallerId, UserId};
use serde::{Deserialize, Serialize};

use super::args::NewSettings;

const SETTINGS: &str = "device.json";

/// A device of the command line.
pub(super) type Device = Client<AnyNode>;

/// What a device was told when it was made.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Settings {
    user: UserId,
    device: u32,
    endpoints: Vec<String>,
    /// Authorities for https, as text, so that the home is all that there is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ca: Option<String>,
    preset: String,
}

/// The folder of a device, and the token of whoever uses it.
pub(super) struct Home {
    folder: PathBuf,
    token: Option<Token>,
}

/// The token of a user. It is never kept in a home.
pub(super) enum Token {
    Text(Arc<http::Token>),
    File(PathBuf),
}

/// A device and the preset that it lives by.
pub(super) struct Opened {
    pub(super) device: Device,
    pub(super) preset: Preset,
}

impl Home {
    pub(super) fn new(folder: &Path, token: Option<Token>) -> Self {
        Self { folder: folder.to_owned(), token }
    }

    pub(super) fn path(&self) -> &Path {
        &self.folder
    }

    /// Opens the device that lives here.
    pub(super) fn open(&self, unlock: &Unlock) -> Result<Opened> {
        let settings = self.settings()?;
        let store = self.store(unlock)?;
        let nodes = settings.nodes(self.token.as_ref())?;
        settings.opened(Client::open(store, nodes)?)
    }

    /// Fails unless a device lives here: before anyone is asked for a passphrase.
    pub(super) fn check_inhabited(&self) -> Result<()> {
        self.settings().map(drop)
    }

    /// Fails if a device lives here.
    pub(super) fn check_empty(&self) -> Result<()> {
        let settings = self.folder.join(SETTINGS);
        let taken = settings.try_exists().with_context(|| settings.display().to_string())?;
        ensure!(!taken, "a device lives in {} already", self.folder.display());
        Ok(())
    }

    /// A new device.
    pub(super) fn create(
        &self,
        user: &UserId,
        device: u32,
        with_account_key: bool,
        settings: &NewSettings,
        unlock: &Unlock,
    ) -> Result<Opened> {
        let settings = Settings::new(user, device, settings)?;
        let nodes = settings.nodes(self.token.as_ref())?;
        let new = NewDevice::new(user.clone(), device);
        let new = if with_account_key { new.with_new_account() } else { new };
        let device = Client::create(self.store(unlock)?, nodes, new)?;
        self.settle(&settings)?;
        settings.opened(device)
    }

    /// The device of a backup.
    pub(super) fn import(
        &self,
        export: &Export,
        settings: &NewSettings,
        unlock: &Unlock,
    ) -> Result<Opened> {
        let device = export.device.address().device().0;
        let settings = Settings::new(export.device.user(), device, settings)?;
        let nodes = settings.nodes(self.token.as_ref())?;
        let device = Client::import(self.store(unlock)?, nodes, export)?;
        self.settle(&settings)?;
        settings.opened(device)
    }

    fn store(&self, unlock: &Unlock) -> Result<SqliteKeyStore> {
        SqliteKeyStore::open(&self.folder, unlock).map_err(|error| match error {
            keystore::Error::Locked => {
                anyhow!("the passphrase does not open the key store in {}", self.folder.display())
            }
            error => anyhow::Error::new(error)
                .context(format!("the key store in {}", self.folder.display())),
        })
    }

    fn settings(&self) -> Result<Settings> {
        let file = self.folder.join(SETTINGS);
        let text = match fs::read_to_string(&file) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => bail!(
                "no device lives in {}; make one with `oncekey device new`, or name another \
                 folder with --home or ONCEKEY_HOME",
                self.folder.display()
            ),
            Err(error) => {
                return Err(error).with_context(|| file.display().to_string());
            }
        };
        serde_json::from_str(&text).with_context(|| file.display().to_string())
    }

    /// The last step of making a device: a home without settings is empty.
    fn settle(&self, settings: &Settings) -> Result<()> {
        let file = self.folder.join(SETTINGS);
        let write = || {
            let mut settled = fs::File::create_new(&file)?;
            settled.write_all(&serde_json::to_vec_pretty(settings)?)?;
            settled.sync_all()
        };
        write().with_context(|| file.display().to_string())
    }
}

impl Settings {
    fn new(user: &UserId, device: u32, settings: &NewSettings) -> Result<Self> {
        let read = |path: &PathBuf| {
            fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
        };
        Ok(Self {
            user: user.clone(),
            device,
            endpoints: settings.endpoints.clone(),
            ca: settings.ca.as_ref().map(read).transpose()?,
            preset: settings.preset.to_string(),
        })
    }

    fn nodes(&self, token: Option<&Token>) -> Result<AnyNode> {
        let endpoints = self
            .endpoints
            .iter()
            .map(|endpoint| endpoint.parse().with_context(|| format!("the endpoint {endpoint:?}")));
        let caller: CallerId = format!("{}/{}", self.user, self.device)
            .parse()
            .context("the name of the user is too long to be a caller")?;
        let config = Config::new(endpoints.collect::<Result<_>>()?, caller)?;
        let config = match token {
            None => config,
            Some(Token::Text(token)) => config.with_tokens(Arc::clone(token)),
            Some(Token::File(file)) => config.with_tokens(TokenFile(file.clone())),
        };
        let tls = match &self.ca {
            Some(ca) => Tls::from_pem(ca.as_bytes()).context("--ca")?,
            None => Tls::public(),
        };
        Ok(AnyNode::with_tls(config, tls))
    }

    fn opened(&self, device: Device) -> Result<Opened> {
        let preset: Preset = self.preset.parse().context(SETTINGS)?;
        Ok(Opened { device: device.with_config(preset.config()), preset })
    }
}
