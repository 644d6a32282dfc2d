//! Room on a file system.

use std::io;
use std::path::Path;

/// Room on the file system that a folder is on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Space {
    /// What a process without privileges could fill if it were empty, in bytes.
    pub total: u64,
    /// What it can still fill, in bytes.
    pub free: u64,
}

impl Space {
    /// The room around `folder`. Asks the kernel, not the disk.
    ///
    /// # Errors
    ///
    /// When there is no such folder.
    pub fn around(folder: &Path) -> io::Result<Self> {
        let stat = rustix::fs::statvfs(folder)?;
        Ok(Self {
            total: stat.f_frsize.saturating_mul(
                stat.f_blocks.saturating_sub(stat.f_bfree).saturating_add(stat.f_bavail),
            ),
            free: stat.f_frsize.saturating_mul(stat.f_bavail),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_has_some_room_around_it_and_no_more_than_there_is() {
        let folder = tempfile::tempdir().unwrap();
        let space = Space::around(folder.path()).unwrap();
        assert!(0 < space.free && space.free <= space.total, "{space:?}");
        assert!(Space::around(&folder.path().join("nowhere")).is_err());
    }
}
