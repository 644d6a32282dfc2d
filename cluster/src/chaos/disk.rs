//! A disk of a host: ext4 on a loop device.
//!
//! Guarantees: after [`Disk::cut`] nothing more reaches the disk, and what was not synced before is
//! gone once it is [mounted again](Disk::restore), as after a power cut; the file system replays its
//! journal. Leaves out: a device that loses what it has acknowledged.

use std::{
    fs::{self, File},
    io::Write as _,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};

use super::tools::{self, text};

/// Size of a disk, with room for a second copy of what a node has after minutes of load; the file
/// behind it is sparse.
const SIZE_BYTES: u64 = 384 << 20;

/// How ext4 orders data and journal.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Journal {
    /// Data of a new block before the journal that names it; the default of ext4.
    Ordered,
    /// In any order: a crash may show blocks that were never written.
    Writeback,
}

/// A mounted disk.
#[derive(Debug)]
pub(super) struct Disk {
    image: PathBuf,
    mount: PathBuf,
    options: &'static str,
}

impl Disk {
    /// A fresh disk, whose files are `folder/name.img` and, mounted, `folder/name`.
    pub(super) fn make(folder: &Path, name: &str, journal: Journal) -> Result<Self> {
        let image = folder.join(format!("{name}.img"));
        let mount = folder.join(name);
        fs::create_dir_all(&mount)?;
        File::create(&image)
            .and_then(|file| file.set_len(SIZE_BYTES))
            .with_context(|| format!("cannot make {}", image.display()))?;
        tools::run(["mkfs.ext4", "-q", "-m", "0", text(&image)?])?;
        let options = match journal {
            Journal::Ordered => "loop,data=ordered",
            Journal::Writeback => "loop,data=writeback",
        };
        let disk = Self { image, mount, options };
        disk.mount()?;
        Ok(disk)
    }

    /// Where it is mounted.
    pub(super) fn path(&self) -> &Path {
        &self.mount
    }

    /// The folder of a node's data.
    pub(super) fn data_dir(&self) -> PathBuf {
        self.mount.join("data")
    }

    /// Cuts the power: every write and sync fails from now on.
    pub(super) fn cut(&self) -> Result<()> {
        tools::run(["xfs_io", "-x", "-c", "shutdown", text(&self.mount)?])
    }

    /// Mounts the disk again after a cut. Nobody may have a file of it open.
    pub(super) fn restore(&self) -> Result<()> {
        tools::run(["umount", text(&self.mount)?])?;
        self.mount()
    }

    /// Writes until nothing more fits.
    pub(super) fn fill(&self) -> Result<()> {
        let mut file = File::create(self.filler())?;
        for size in [1 << 20, 4096, 1] {
            let block = vec![0; size];
            while file.write(&block).is_ok_and(|written| written > 0) {}
        }
        Ok(())
    }

    /// Gives the room back.
    pub(super) fn clear(&self) -> Result<()> {
        Ok(fs::remove_file(self.filler())?)
    }

    fn filler(&self) -> PathBuf {
        self.mount.join("filler")
    }

    fn mount(&self) -> Result<()> {
        tools::run(["mount", "-o", self.options, text(&self.image)?, text(&self.mount)?])
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // A node that still ends holds it; the sandbox takes it away in any case.
        if let (Ok(mount), Ok(_)) = (text(&self.mount), fs::remove_file(&self.image)) {
            let _ = tools::run(["umount", "-l", mount]);
        }
    }
}
