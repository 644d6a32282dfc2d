//! A disk in memory that loses what was not synced.

use std::io;
use std::sync::Arc;

use super::{Disk, DiskFile};

/// What of the unsynced writes is on the device after a power cut.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Tear {
    /// Nothing.
    Nothing,
    /// The first so many bytes, in the order in which they were written.
    Prefix(usize),
    /// Everything.
    Everything,
    /// Some sectors of 512 bytes and some directory changes, drawn from this seed.
    Sectors(u64),
}

/// A disk in memory. Clones share it.
#[derive(Clone, Default)]
pub struct SimDisk;

impl SimDisk {
    /// An empty disk without a limit.
    #[must_use]
    pub fn new() -> Self {
        Self
    }
    /// Cuts the power: all open handles go bad; of what was not synced only `tear` stays.
    pub fn power_cut(&self, tear: Tear) {
        let _ = tear;
    }
}

impl Disk for SimDisk {
    fn list(&self) -> io::Result<Vec<String>> {
        todo!()
    }
    fn create(&self, _name: &str) -> io::Result<Arc<dyn DiskFile>> {
        todo!()
    }
    fn open(&self, _name: &str) -> io::Result<Arc<dyn DiskFile>> {
        todo!()
    }
    fn rename(&self, _from: &str, _to: &str) -> io::Result<()> {
        todo!()
    }
    fn remove(&self, _name: &str) -> io::Result<()> {
        todo!()
    }
    fn sync_dir(&self) -> io::Result<()> {
        todo!()
    }
}
