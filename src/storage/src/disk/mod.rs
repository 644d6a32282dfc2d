//! What the write-ahead log needs of a disk.
//!
//! Guarantees, as far as the device keeps its word: bytes written to a file are durable once
//! [`DiskFile::sync_data`] has returned; a file's name, its renaming and its removal are durable
//! once [`Disk::sync_dir`] has returned. Before that, any part of either may be lost or kept.
//!
//! Leaves out: subdirectories, and retries. A failed sync says nothing about what is on the
//! device, so the caller must stop.

mod real;
mod sim;
mod space;

use std::io;
use std::sync::Arc;

pub use real::{DirLock, LockError, RealDisk};
pub use sim::{SimDisk, SimMount, Tear};
pub use space::Space;

/// One directory of files.
pub trait Disk: Send + Sync + 'static {
    /// The names of all files.
    ///
    /// # Errors
    ///
    /// Any error of the file system, as for all functions here.
    fn list(&self) -> io::Result<Vec<String>>;

    /// Makes an empty file; fails when the name is taken.
    ///
    /// # Errors
    ///
    /// [`io::ErrorKind::AlreadyExists`] when there is such a file.
    fn create(&self, name: &str) -> io::Result<Arc<dyn DiskFile>>;

    /// Opens a file that exists.
    ///
    /// # Errors
    ///
    /// [`io::ErrorKind::NotFound`] when there is no such file.
    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>>;

    /// Gives a file another name. Open handles stay good.
    ///
    /// # Errors
    ///
    /// [`io::ErrorKind::NotFound`] when there is no such file.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;

    /// Removes a file. Open handles stay good.
    ///
    /// # Errors
    ///
    /// [`io::ErrorKind::NotFound`] when there is no such file.
    fn remove(&self, name: &str) -> io::Result<()>;

    /// Makes every creation, renaming and removal so far durable.
    ///
    /// # Errors
    ///
    /// Any error of the device; nothing is known to be durable then.
    fn sync_dir(&self) -> io::Result<()>;
}

/// An open file, read and written by position.
pub trait DiskFile: Send + Sync {
    /// Length of the file in bytes.
    ///
    /// # Errors
    ///
    /// Any error of the file system.
    fn size(&self) -> io::Result<u64>;

    /// Fills `buffer` from `offset` on.
    ///
    /// # Errors
    ///
    /// [`io::ErrorKind::UnexpectedEof`] when the file ends before the buffer is full.
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()>;

    /// Writes all of `bytes` at `offset`, growing the file as needed. Not durable yet.
    ///
    /// # Errors
    ///
    /// [`io::ErrorKind::StorageFull`] when there is no space left; any part may have been written.
    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;

    /// Makes every write to this file so far durable, its new length included.
    ///
    /// # Errors
    ///
    /// Any error of the device; nothing is known to be durable then.
    fn sync_data(&self) -> io::Result<()>;
}
