//! What the figures were measured on.

use std::{
    fs::{self, File},
    os::unix::fs::FileExt,
    path::Path,
    process::Command,
    thread,
    time::Instant,
};

use anyhow::{Context, Result, ensure};
use serde::Serialize;

/// A file system in memory, where a sync is no sync (`man 2 statfs`).
const TMPFS_MAGIC: u64 = 0x0102_1994;
/// The same, for the memory file system of early boot.
const RAMFS_MAGIC: u64 = 0x8584_58f6;

const BLOCK_BYTES: usize = 4096;
const BLOCKS: usize = 500;

/// The machine and what ran on it.
#[derive(Debug, Serialize)]
pub(crate) struct Machine {
    cpu: String,
    cores: usize,
    memory_mib: u64,
    kernel: String,
    packages: Vec<String>,
}

impl Machine {
    /// Asks the kernel and the package manager; what they do not say is left empty.
    pub(crate) fn describe() -> Result<Self> {
        let field = |file: &str, name: &str| {
            let text = fs::read_to_string(file).unwrap_or_default();
            let line = text.lines().find(|line| line.starts_with(name));
            line.and_then(|line| line.split_once(':'))
                .map_or("", |(_, value)| value)
                .trim()
                .to_owned()
        };
        let memory = field("/proc/meminfo", "MemTotal");
        let memory_kib: u64 = memory.split(' ').next().unwrap_or_default().parse().unwrap_or(0);
        Ok(Self {
            cpu: field("/proc/cpuinfo", "model name"),
            cores: thread::available_parallelism()?.get(),
            memory_mib: memory_kib / 1024,
            kernel: fs::read_to_string("/proc/sys/kernel/osrelease")?.trim().to_owned(),
            packages: packages(),
        })
    }

    /// One line for the head of the table.
    pub(crate) fn line(&self) -> String {
        format!(
            "{}, {} cores, {} MiB, Linux {}; {}",
            self.cpu,
            self.cores,
            self.memory_mib,
            self.kernel,
            self.packages.join(", ")
        )
    }
}

fn packages() -> Vec<String> {
    let asked = Command::new("dpkg-query")
        .args(["--show", "--showformat", "${Package} ${Version}\n"])
        .args(["etcd-server", "postgresql-[0-9][0-9]", "redis-server"])
        .output();
    let said = asked.map(|output| output.stdout).unwrap_or_default();
    let lines = String::from_utf8_lossy(&said).lines().map(str::to_owned).collect::<Vec<_>>();
    // A package without a version is known, but not installed.
    lines.into_iter().filter(|line| !line.ends_with(' ')).collect()
}

/// Refuses a folder that is in memory: nothing would be durable there.
pub(crate) fn require_disk(dir: &Path) -> Result<()> {
    let kind = u64::try_from(rustix::fs::statfs(dir)?.f_type)?;
    ensure!(
        kind != TMPFS_MAGIC && kind != RAMFS_MAGIC,
        "{} is in memory; choose a folder on a disk with --dir",
        dir.display()
    );
    Ok(())
}

/// How long writes of one block with `fdatasync` took, one after the other.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Sync {
    p10_us: u32,
    p50_us: u32,
}

/// On a machine with nothing else to do the median is close to the fast writes. Where it is this
/// many times as long, the writer waited for a core and not for the disk.
const BUSY: u32 = 2;

impl Sync {
    /// Writes into a file that is laid out before, as a log is.
    pub(crate) fn measure(dir: &Path) -> Result<Self> {
        let file = File::create(dir.join("sync-probe"))?;
        let block = [0xa5; BLOCK_BYTES];
        file.write_all_at(&block.repeat(BLOCKS), 0)?;
        file.sync_all()?;
        let mut took_us = Vec::with_capacity(BLOCKS);
        for number in 0..BLOCKS {
            let offset = u64::try_from(number * BLOCK_BYTES)?;
            let start = Instant::now();
            file.write_all_at(&block, offset)?;
            file.sync_data()?;
            took_us.push(u32::try_from(start.elapsed().as_micros())?);
        }
        took_us.sort_unstable();
        let within = |part: usize| took_us.get(BLOCKS / part).copied().context("no writes");
        Ok(Self { p10_us: within(10)?, p50_us: within(2)? })
    }

    /// Microseconds within which half of the writes were done; none if that says more about other
    /// work on the machine than about the disk.
    pub(crate) fn p50_us(self) -> Option<u32> {
        (self.p50_us <= self.p10_us.saturating_mul(BUSY)).then_some(self.p50_us)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_median_that_waited_for_a_core_is_not_told() {
        assert_eq!(Sync { p10_us: 92, p50_us: 98 }.p50_us(), Some(98));
        assert_eq!(Sync { p10_us: 101, p50_us: 3953 }.p50_us(), None);
    }
}
