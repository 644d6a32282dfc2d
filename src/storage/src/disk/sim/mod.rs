//! A disk in memory that loses what was not synced.
//!
//! Guarantees: after [`SimDisk::power_cut`] only synced bytes and synced names are there, plus
//! what the chosen [`Tear`] lets through; every changing operation has a number, so that a test
//! can stop at each of them; the same calls give the same result.
//!
//! Leaves out: time. An operation takes none.

mod device;

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use self::device::{Change, Device, Fault, Inode, NameChange, Stopped};
use super::{Disk, DiskFile};

/// What of the unsynced changes is on the device after a power cut.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Tear {
    /// Nothing.
    Nothing,
    /// The first so many bytes, and the changes of names before them, in the order of the calls.
    Prefix(usize),
    /// Some sectors of 512 bytes and the first few changes of names, drawn from this seed.
    Sectors(u64),
    /// Everything.
    Everything,
}

/// A disk in memory, as the one who plans its faults sees it. Clones share it.
#[derive(Clone, Default)]
pub struct SimDisk {
    device: Arc<Mutex<Device>>,
}

/// A [`SimDisk`] as a process sees it, until the process ends or the power is cut.
#[derive(Clone)]
pub struct SimMount {
    disk: SimDisk,
    boot: u64,
}

impl SimDisk {
    /// An empty disk without a limit.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The disk for a process that starts now.
    #[must_use]
    pub fn mount(&self) -> SimMount {
        SimMount { disk: self.clone(), boot: self.device().boot }
    }

    /// Changing operations so far: writes, syncs, and changes of names.
    #[must_use]
    pub fn operations(&self) -> u64 {
        self.device().operations
    }

    /// Stops the machine at the operation with this number (counted from 0): it fails, as does
    /// everything after it until the [power is cut](Self::power_cut). A write stopped so may be
    /// torn by the cut.
    pub fn crash_at(&self, operation: u64) {
        self.device().faults.insert(operation, Fault::Crash);
    }

    /// Makes the operation with this number fail. A write then leaves half of its bytes. A sync
    /// then leaves its writes visible but never makes them durable, not even by a later sync, as
    /// Linux does.
    pub fn fail_at(&self, operation: u64) {
        self.device().faults.insert(operation, Fault::Error);
    }

    /// Lets all files together have at most `bytes`.
    pub fn set_capacity(&self, bytes: u64) {
        self.device().capacity = Some(bytes);
    }

    /// Bytes written and not synced: the greatest useful [`Tear::Prefix`].
    #[must_use]
    pub fn unsynced_bytes(&self) -> usize {
        self.device().unsynced.iter().map(Change::bytes).sum()
    }

    /// Cuts the power. All mounts and open files go bad; of what was not synced, `tear` stays;
    /// planned faults are forgotten.
    pub fn power_cut(&self, tear: Tear) {
        let mut device = self.device();
        device.lose(tear);
        device.boot += 1;
        device.crashed = false;
        device.faults.clear();
    }

    /// Ends the process but not the machine: all mounts and open files go bad, nothing is lost,
    /// planned faults are forgotten.
    pub fn kill(&self) {
        let mut device = self.device();
        device.boot += 1;
        device.crashed = false;
        device.faults.clear();
    }

    /// A copy that goes its own way from here. Handles on this disk do not reach it.
    #[must_use]
    pub fn fork(&self) -> Self {
        let mut device = self.device().clone();
        device.boot += 1;
        Self { device: Arc::new(Mutex::new(device)) }
    }

    /// Turns one bit of a file over, on the device and in memory. Does nothing beyond its end.
    pub fn flip_bit(&self, name: &str, byte: usize, bit: u8) {
        let mut device = self.device();
        let Some(&inode) = device.names.get(name) else {
            return;
        };
        let Inode { durable, visible } = &mut device.inodes[inode];
        for bytes in [durable, visible] {
            if let Some(byte) = bytes.get_mut(byte) {
                *byte ^= 1 << (bit % 8);
            }
        }
    }

    /// The names of all files as a reader sees them.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        self.device().names.keys().cloned().collect()
    }

    /// The content of a file as a reader sees it.
    #[must_use]
    pub fn content(&self, name: &str) -> Option<Vec<u8>> {
        let device = self.device();
        device.names.get(name).map(|&inode| device.inodes[inode].visible.clone())
    }

    fn device(&self) -> MutexGuard<'_, Device> {
        self.device.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The device, for a process of this boot.
    fn device_at(&self, boot: u64) -> io::Result<MutexGuard<'_, Device>> {
        let device = self.device();
        if device.boot == boot {
            Ok(device)
        } else {
            Err(io::Error::other("the process has ended"))
        }
    }
}

impl SimMount {
    fn device(&self) -> io::Result<MutexGuard<'_, Device>> {
        self.disk.device_at(self.boot)
    }

    fn handle(&self, inode: usize) -> Arc<dyn DiskFile> {
        Arc::new(SimFile { disk: self.disk.clone(), inode, boot: self.boot })
    }
}

impl Disk for SimMount {
    fn list(&self) -> io::Result<Vec<String>> {
        let device = self.device()?;
        device.check_alive()?;
        Ok(device.names.keys().cloned().collect())
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let mut device = self.device()?;
        device.begin()?;
        if device.names.contains_key(name) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let inode = device.inodes.len();
        device.inodes.push(Inode::default());
        device.rename_entry(NameChange { from: None, to: Some((name.to_owned(), inode)) });
        Ok(self.handle(inode))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let device = self.device()?;
        device.check_alive()?;
        let inode = device.inode(name)?;
        Ok(self.handle(inode))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut device = self.device()?;
        device.begin()?;
        let inode = device.inode(from)?;
        device.rename_entry(NameChange {
            from: Some(from.to_owned()),
            to: Some((to.to_owned(), inode)),
        });
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut device = self.device()?;
        device.begin()?;
        device.inode(name)?;
        device.rename_entry(NameChange { from: Some(name.to_owned()), to: None });
        Ok(())
    }

    fn sync_dir(&self) -> io::Result<()> {
        let mut device = self.device()?;
        device.begin()?;
        device.durable_names = device.names.clone();
        device.unsynced.retain(|change| matches!(change, Change::Write { .. }));
        Ok(())
    }
}

struct SimFile {
    disk: SimDisk,
    inode: usize,
    boot: u64,
}

impl SimFile {
    fn device(&self) -> io::Result<MutexGuard<'_, Device>> {
        self.disk.device_at(self.boot)
    }
}

impl DiskFile for SimFile {
    fn size(&self) -> io::Result<u64> {
        let device = self.device()?;
        device.check_alive()?;
        Ok(device.inodes[self.inode].visible.len() as u64)
    }

    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let device = self.device()?;
        device.check_alive()?;
        let start = index(offset)?;
        let bytes = &device.inodes[self.inode].visible;
        match bytes.get(start..start + buffer.len()) {
            Some(bytes) => {
                buffer.copy_from_slice(bytes);
                Ok(())
            }
            None => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }

    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let mut device = self.device()?;
        let offset = index(offset)?;
        if let Err(stopped) = device.begin() {
            match stopped {
                Stopped::Before => {}
                Stopped::Crashing => device.write(self.inode, offset, bytes),
                Stopped::Failing => device.write(self.inode, offset, &bytes[..bytes.len() / 2]),
            }
            return Err(stopped.into());
        }
        device.check_space(self.inode, offset + bytes.len())?;
        device.write(self.inode, offset, bytes);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut device = self.device()?;
        let inode = self.inode;
        match device.begin() {
            Ok(()) => device.make_durable(inode),
            Err(Stopped::Failing) => {
                device.unsynced.retain(|change| !change.is_write_to(inode));
                return Err(Stopped::Failing.into());
            }
            Err(stopped) => return Err(stopped.into()),
        }
        Ok(())
    }
}

fn index(offset: u64) -> io::Result<usize> {
    usize::try_from(offset).map_err(|_| io::ErrorKind::FileTooLarge.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn disk_with_synced_file() -> (SimDisk, Arc<dyn DiskFile>) {
        let disk = SimDisk::new();
        let file = disk.mount().create("a").unwrap();
        file.write_all_at(b"one", 0).unwrap();
        file.sync_data().unwrap();
        disk.mount().sync_dir().unwrap();
        (disk, file)
    }

    #[test]
    fn a_power_cut_loses_what_was_not_synced() {
        let (disk, file) = disk_with_synced_file();
        file.write_all_at(b"two", 3).unwrap();
        disk.mount().create("b").unwrap();
        disk.power_cut(Tear::Nothing);
        assert_eq!(disk.content("a").unwrap(), b"one");
        assert_eq!(disk.names(), ["a"]);
        assert!(file.sync_data().is_err(), "a handle from before the cut is bad");
    }

    #[test]
    fn a_torn_write_keeps_its_first_bytes() {
        let (disk, file) = disk_with_synced_file();
        file.write_all_at(b"two", 3).unwrap();
        assert_eq!(disk.unsynced_bytes(), 3);
        disk.power_cut(Tear::Prefix(2));
        assert_eq!(disk.content("a").unwrap(), b"onetw");
    }

    #[test]
    fn a_file_with_an_unsynced_name_is_lost_even_when_its_bytes_are_synced() {
        let disk = SimDisk::new();
        let file = disk.mount().create("a").unwrap();
        file.write_all_at(b"one", 0).unwrap();
        file.sync_data().unwrap();
        disk.power_cut(Tear::Nothing);
        assert!(disk.names().is_empty());
    }

    #[test]
    fn writes_of_a_failed_sync_are_seen_but_never_durable() {
        let (disk, file) = disk_with_synced_file();
        file.write_all_at(b"two", 3).unwrap();
        disk.fail_at(disk.operations());
        file.sync_data().unwrap_err();
        assert_eq!(disk.content("a").unwrap(), b"onetwo");
        file.sync_data().unwrap();
        disk.power_cut(Tear::Everything);
        assert_eq!(disk.content("a").unwrap(), b"one");
    }

    #[test]
    fn a_full_disk_takes_no_more() {
        let (disk, file) = disk_with_synced_file();
        disk.set_capacity(4);
        let error = file.write_all_at(b"two", 3).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
    }

    #[test]
    fn a_crash_stops_everything_until_the_power_is_cut() {
        let (disk, file) = disk_with_synced_file();
        disk.crash_at(disk.operations());
        file.write_all_at(b"two", 3).unwrap_err();
        file.sync_data().unwrap_err();
        disk.mount().list().unwrap_err();
        disk.power_cut(Tear::Everything);
        assert_eq!(disk.content("a").unwrap(), b"onetwo");
    }
}
