//! What processes have used, from `/proc`.
//!
//! Guarantees: figures of a process that ended are no figures, never zero. Leaves out: systems
//! without `/proc`; there everything is none.

use std::{
    fs, io,
    path::Path,
    time::{Duration, Instant},
};

use serde::Serialize;

/// What one process has used since it started.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Usage {
    /// Processor time, in user and kernel mode.
    pub(super) cpu: Duration,
    /// Bytes it made the kernel write, as the kernel counts them: a small write into a large folio
    /// may count as the whole folio, so this can be many times what reached the disk.
    pub(super) written_bytes: u64,
}

impl Usage {
    /// What the process `id` has used.
    pub(super) fn of(id: u32) -> Option<Self> {
        let stat = fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
        let io = fs::read_to_string(format!("/proc/{id}/io")).ok()?;
        Some(Self {
            cpu: cpu(&stat, rustix::param::clock_ticks_per_second())?,
            written_bytes: field(&io, "write_bytes:")?,
        })
    }

    /// What this process has used.
    pub(super) fn own() -> Option<Self> {
        Self::of(std::process::id())
    }

    /// What the processes `ids` have used together; none when one of them is gone.
    pub(super) fn sum(ids: &[u32]) -> Option<Self> {
        ids.iter().try_fold(Self::default(), |sum, id| {
            let one = Self::of(*id)?;
            Some(Self {
                cpu: sum.cpu + one.cpu,
                written_bytes: sum.written_bytes + one.written_bytes,
            })
        })
    }

    /// What was used since `before`.
    pub(super) fn since(self, before: Self) -> Self {
        Self {
            cpu: self.cpu.saturating_sub(before.cpu),
            written_bytes: self.written_bytes.saturating_sub(before.written_bytes),
        }
    }
}

/// Memory that one process has resident.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub(super) struct Memory {
    /// Now.
    pub(super) resident_bytes: u64,
    /// The most since it started.
    pub(super) resident_peak_bytes: u64,
}

impl Memory {
    /// Of the process `id`.
    pub(super) fn of(id: u32) -> Option<Self> {
        let status = fs::read_to_string(format!("/proc/{id}/status")).ok()?;
        Some(Self {
            resident_bytes: field(&status, "VmRSS:")? * 1024,
            resident_peak_bytes: field(&status, "VmHWM:")? * 1024,
        })
    }
}

/// Bytes that reached the disk below `dir` since the machine started, of whichever process.
pub(super) fn device_written_bytes(dir: &Path) -> Option<u64> {
    use std::os::unix::fs::MetadataExt as _;
    /// The unit of the kernel's block statistics, whatever the disk's own is.
    const SECTOR_BYTES: u64 = 512;
    let device = fs::metadata(dir).ok()?.dev();
    let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
    let stat = fs::read_to_string(format!("/sys/dev/block/{major}:{minor}/stat")).ok()?;
    // Field 7: sectors written.
    Some(stat.split_ascii_whitespace().nth(6)?.parse::<u64>().ok()? * SECTOR_BYTES)
}

/// Bytes that the files below `dir` take on the disk.
pub(super) fn disk_bytes(dir: &Path) -> io::Result<u64> {
    use std::os::unix::fs::MetadataExt as _;
    const BLOCK_BYTES: u64 = 512;
    let mut sum = 0;
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let bytes = entry.metadata().and_then(|at| {
            if at.is_dir() { disk_bytes(&entry.path()) } else { Ok(at.blocks() * BLOCK_BYTES) }
        });
        sum += match bytes {
            Ok(bytes) => bytes,
            // An engine that works removes files and folders.
            Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
            Err(error) => return Err(error),
        };
    }
    Ok(sum)
}

/// The machine, so that figures can be read later.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Machine {
    cpu: Option<String>,
    cpus: usize,
    memory_bytes: Option<u64>,
    kernel: String,
    program: &'static str,
    /// Whether the program was built for speed.
    optimised: bool,
}

impl Machine {
    /// Whether the program was built for speed.
    pub(super) fn optimised(&self) -> bool {
        self.optimised
    }

    pub(super) fn here() -> Self {
        let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let model = cpuinfo.lines().find_map(|line| line.strip_prefix("model name"));
        let meminfo = fs::read_to_string("/proc/meminfo").unwrap_or_default();
        Self {
            cpu: model.map(|model| model.trim_start_matches([' ', '\t', ':']).to_owned()),
            cpus: std::thread::available_parallelism().map_or(1, usize::from),
            memory_bytes: field(&meminfo, "MemTotal:").map(|kib| kib * 1024),
            kernel: rustix::system::uname().release().to_string_lossy().into_owned(),
            program: env!("CARGO_PKG_VERSION"),
            optimised: !cfg!(debug_assertions),
        }
    }
}

/// Median time of one small write and its `fdatasync`, in microseconds, to a file in `dir` that is
/// as long as it will be, like the log of a node.
pub(super) fn sync_p50_us(dir: &Path) -> io::Result<f64> {
    use std::os::unix::fs::FileExt as _;
    const TIMES: u64 = 300;
    const WRITE: [u8; 512] = [7; 512];
    let path = dir.join("sync-probe");
    let file = fs::File::create(&path)?;
    for number in 0..TIMES {
        file.write_all_at(&[0; 512], number * 512)?;
    }
    file.sync_all()?;
    let mut took = Vec::new();
    for number in 0..TIMES {
        let started = Instant::now();
        file.write_all_at(&WRITE, number * 512)?;
        file.sync_data()?;
        took.push(started.elapsed());
    }
    fs::remove_file(&path)?;
    took.sort_unstable();
    Ok(took[took.len() / 2].as_secs_f64() * 1e6)
}

/// Processor time in the text of `/proc/<pid>/stat`, proc(5). The name of the program, in
/// parentheses, may hold anything; the fields after it start with the third.
fn cpu(stat: &str, ticks_per_second: u64) -> Option<Duration> {
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_ascii_whitespace();
    let user: u64 = fields.nth(14 - 3)?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(Duration::from_millis((user + system) * 1000 / ticks_per_second.max(1)))
}

/// The number behind `name`, which begins a line of `text`.
fn field(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_ascii_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processor_time_is_found_behind_any_name() {
        let stat = "7 (a) b) c) S 1 2 3 4 5 6 7 8 9 10 150 50 0 0 20 0 1";
        assert_eq!(cpu(stat, 100), Some(Duration::from_secs(2)));
        assert_eq!(cpu("7 (a) S 1 2", 100), None);
    }

    #[test]
    fn a_field_is_the_whole_name_at_the_head_of_a_line() {
        let io = "wchar: 5\nwrite_bytes: 4096\ncancelled_write_bytes: 1\n";
        assert_eq!(field(io, "write_bytes:"), Some(4096));
        assert_eq!(field(io, "rchar:"), None);
    }

    #[test]
    fn this_process_has_used_something_and_no_other_is_made_up() {
        if !Path::new("/proc/self/stat").exists() {
            return;
        }
        assert!(Usage::own().is_some());
        let memory = Memory::of(std::process::id()).unwrap();
        assert!(memory.resident_bytes > 1 << 20, "{memory:?}");
        assert!(memory.resident_peak_bytes > 1 << 20, "{memory:?}");
        assert_eq!(Usage::sum(&[std::process::id(), u32::MAX]), None);
    }

    #[test]
    fn files_count_with_what_they_take_on_the_disk() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("below")).unwrap();
        let file = dir.path().join("below/file");
        fs::write(&file, [1; 10_000]).unwrap();
        fs::File::open(&file).unwrap().sync_all().unwrap();
        assert!(disk_bytes(dir.path()).unwrap() >= 10_000);
    }
}
