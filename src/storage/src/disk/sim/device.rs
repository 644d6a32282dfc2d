//! The device behind a simulated disk: what is durable, what is only seen, and what is to fail.

use std::collections::BTreeMap;
use std::io;

use super::Tear;

/// The part of a write that reaches the device as a whole.
const SECTOR_BYTES: usize = 512;

#[derive(Clone, Default)]
pub(super) struct Device {
    pub(super) inodes: Vec<Inode>,
    pub(super) names: BTreeMap<String, usize>,
    pub(super) durable_names: BTreeMap<String, usize>,
    pub(super) unsynced: Vec<Change>,
    pub(super) operations: u64,
    pub(super) faults: BTreeMap<u64, Fault>,
    pub(super) crashed: bool,
    pub(super) capacity: Option<u64>,
    pub(super) boot: u64,
}

#[derive(Clone, Default)]
pub(super) struct Inode {
    pub(super) durable: Vec<u8>,
    pub(super) visible: Vec<u8>,
}

#[derive(Clone, Copy)]
pub(super) enum Fault {
    Crash,
    Error,
}

/// Why an operation is not carried out.
#[derive(Clone, Copy, Debug)]
pub(super) enum Stopped {
    /// The machine has stopped already.
    Before,
    /// The machine stops in the middle of it.
    Crashing,
    /// It is to fail.
    Failing,
}

impl From<Stopped> for io::Error {
    fn from(stopped: Stopped) -> Self {
        Self::other(match stopped {
            Stopped::Before | Stopped::Crashing => "the machine has stopped",
            Stopped::Failing => "input/output error",
        })
    }
}

#[derive(Clone)]
pub(super) enum Change {
    Write { inode: usize, offset: usize, bytes: Vec<u8> },
    Name(NameChange),
}

#[derive(Clone)]
pub(super) struct NameChange {
    pub(super) from: Option<String>,
    pub(super) to: Option<(String, usize)>,
}

impl Change {
    pub(super) fn bytes(&self) -> usize {
        match self {
            Self::Write { bytes, .. } => bytes.len(),
            Self::Name(_) => 0,
        }
    }

    pub(super) fn is_write_to(&self, file: usize) -> bool {
        matches!(self, Self::Write { inode, .. } if *inode == file)
    }
}

impl NameChange {
    pub(super) fn apply(&self, names: &mut BTreeMap<String, usize>) {
        if let Some(from) = &self.from {
            names.remove(from);
        }
        if let Some((to, inode)) = &self.to {
            names.insert(to.clone(), *inode);
        }
    }
}

impl Device {
    pub(super) fn check_alive(&self) -> Result<(), Stopped> {
        if self.crashed { Err(Stopped::Before) } else { Ok(()) }
    }

    /// Counts a changing operation and lets it fail if that was planned.
    pub(super) fn begin(&mut self) -> Result<(), Stopped> {
        self.check_alive()?;
        let number = self.operations;
        self.operations += 1;
        match self.faults.remove(&number) {
            None => Ok(()),
            Some(Fault::Error) => Err(Stopped::Failing),
            Some(Fault::Crash) => {
                self.crashed = true;
                Err(Stopped::Crashing)
            }
        }
    }

    pub(super) fn inode(&self, name: &str) -> io::Result<usize> {
        self.names.get(name).copied().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    pub(super) fn rename_entry(&mut self, change: NameChange) {
        change.apply(&mut self.names);
        self.unsynced.push(Change::Name(change));
    }

    pub(super) fn check_space(&self, inode: usize, end: usize) -> io::Result<()> {
        let Some(capacity) = self.capacity else {
            return Ok(());
        };
        let used: usize = self.names.values().map(|&i| self.inodes[i].visible.len()).sum();
        let grown = end.saturating_sub(self.inodes[inode].visible.len());
        if (used + grown) as u64 > capacity {
            return Err(io::ErrorKind::StorageFull.into());
        }
        Ok(())
    }

    pub(super) fn write(&mut self, inode: usize, offset: usize, bytes: &[u8]) {
        put(&mut self.inodes[inode].visible, offset, bytes);
        self.unsynced.push(Change::Write { inode, offset, bytes: bytes.to_vec() });
    }

    /// Only what is still unsynced: writes that a failed sync gave up stay lost.
    pub(super) fn make_durable(&mut self, file: usize) {
        let durable = &mut self.inodes[file].durable;
        self.unsynced.retain(|change| match change {
            Change::Write { inode, offset, bytes } if *inode == file => {
                put(durable, *offset, bytes);
                false
            }
            Change::Write { .. } | Change::Name(_) => true,
        });
    }

    pub(super) fn lose(&mut self, tear: Tear) {
        let mut draw = Draw(if let Tear::Sectors(seed) = tear { seed } else { 0 });
        let mut left = if let Tear::Prefix(bytes) = tear { bytes } else { 0 };
        let mut names_end = false;
        for change in std::mem::take(&mut self.unsynced) {
            match change {
                Change::Write { inode, offset, bytes } => {
                    let durable = &mut self.inodes[inode].durable;
                    match tear {
                        Tear::Nothing => {}
                        Tear::Everything => put(durable, offset, &bytes),
                        Tear::Prefix(_) => {
                            let kept = left.min(bytes.len());
                            put(durable, offset, &bytes[..kept]);
                            left -= kept;
                            names_end |= kept < bytes.len();
                        }
                        Tear::Sectors(_) => keep_sectors(durable, offset, &bytes, &mut draw),
                    }
                }
                Change::Name(change) => {
                    names_end |= match tear {
                        Tear::Nothing => true,
                        Tear::Everything | Tear::Prefix(_) => false,
                        Tear::Sectors(_) => draw.coin(),
                    };
                    if !names_end {
                        change.apply(&mut self.durable_names);
                    }
                }
            }
        }
        self.names = self.durable_names.clone();
        for inode in &mut self.inodes {
            inode.visible = inode.durable.clone();
        }
    }
}

fn keep_sectors(durable: &mut Vec<u8>, offset: usize, bytes: &[u8], draw: &mut Draw) {
    let mut start = 0;
    while start < bytes.len() {
        let sector_end = (offset + start) / SECTOR_BYTES * SECTOR_BYTES + SECTOR_BYTES;
        let end = (sector_end - offset).min(bytes.len());
        if draw.coin() {
            put(durable, offset + start, &bytes[start..end]);
        }
        start = end;
    }
}

fn put(file: &mut Vec<u8>, offset: usize, bytes: &[u8]) {
    let end = offset + bytes.len();
    if !bytes.is_empty() && file.len() < end {
        file.resize(end, 0);
    }
    if !bytes.is_empty() {
        file[offset..end].copy_from_slice(bytes);
    }
}

/// SplitMix64: enough to draw coins from a seed.
pub(super) struct Draw(u64);

impl Draw {
    pub(super) fn coin(&mut self) -> bool {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) & 1 == 1
    }
}
