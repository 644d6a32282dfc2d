//! The clocks of hosts, moved by libfaketime.
//!
//! Guarantees: what a host takes for the time of day can be set off, or run fast, while its node
//! runs; the node reads the setting once a second. Leaves out: the monotonic clock, which no system
//! sets; and systems without the library, where [`Clocks::find`] finds nothing.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};

use super::{network::HostId, tools};

/// As the machine has it.
const RIGHT: &str = "+0";

/// The clocks of all hosts.
#[derive(Debug)]
pub(super) struct Clocks {
    library: PathBuf,
    dir: PathBuf,
}

impl Clocks {
    /// The clocks, whose settings are files in `dir`, if the library is here.
    pub(super) fn find(dir: &Path) -> Option<Self> {
        Some(Self { library: tools::faketime()?, dir: dir.to_owned() })
    }

    /// Variables for the node of `host`.
    pub(super) fn environment(&self, host: HostId) -> Result<Vec<(String, String)>> {
        self.set(host, RIGHT)?;
        let setting = self.setting(host);
        let variables = [
            ("LD_PRELOAD", tools::text(&self.library)?),
            ("FAKETIME_TIMESTAMP_FILE", tools::text(&setting)?),
            ("FAKETIME_CACHE_DURATION", "1"),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
            ("DONT_FAKE_MONOTONIC", "1"),
            ("NO_FAKE_STAT", "1"),
            ("FAKETIME_DONT_RESET", "1"),
        ];
        Ok(variables.map(|(name, value)| (name.to_owned(), value.to_owned())).into())
    }

    /// Has the clock of `host` go as libfaketime understands `setting`.
    pub(super) fn set(&self, host: HostId, setting: &str) -> Result<()> {
        let path = self.setting(host);
        fs::write(&path, setting).with_context(|| format!("cannot write {}", path.display()))
    }

    /// Has the clock of `host` go right.
    pub(super) fn right(&self, host: HostId) -> Result<()> {
        self.set(host, RIGHT)
    }

    fn setting(&self, host: HostId) -> PathBuf {
        self.dir.join(format!("clock{host}"))
    }
}
