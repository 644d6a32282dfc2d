//! What the kernel says of this process, under the names that Prometheus clients give it.

use std::fs;

/// What the kernel says of this process.
#[derive(Debug, Default)]
pub(super) struct Process {
    /// Time on a processor in seconds, user and system.
    pub(super) cpu_s: Option<f64>,
    pub(super) resident_bytes: Option<u64>,
    pub(super) open_files: Option<u64>,
}

impl Process {
    /// Asks now. On a system without `/proc` it has nothing.
    pub(super) fn now() -> Self {
        Self {
            cpu_s: fs::read_to_string("/proc/self/stat").ok().as_deref().and_then(cpu_s),
            resident_bytes: fs::read_to_string("/proc/self/statm")
                .ok()
                .as_deref()
                .and_then(resident_bytes),
            // The folder that is being read is open, too.
            open_files: fs::read_dir("/proc/self/fd")
                .ok()
                .and_then(|files| u64::try_from(files.count().saturating_sub(1)).ok()),
        }
    }
}

/// Fields 14 and 15 of proc(5) `stat`; the second field, a name, may hold anything but ends with
/// the last `)`.
fn cpu_s(stat: &str) -> Option<f64> {
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace().skip(11);
    let ticks: u32 = fields.next()?.parse::<u32>().ok()? + fields.next()?.parse::<u32>().ok()?;
    let per_second = u32::try_from(rustix::param::clock_ticks_per_second()).ok()?;
    Some(f64::from(ticks) / f64::from(per_second))
}

fn resident_bytes(statm: &str) -> Option<u64> {
    let pages: u64 = statm.split_ascii_whitespace().nth(1)?.parse().ok()?;
    Some(pages * u64::try_from(rustix::param::page_size()).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_spaces_and_brackets_hides_no_field() {
        let stat = "7 (a) b (c) S 1 2 3 4 5 6 7 8 9 10 300 100 0 0 20 0 9 0 5 6 7";
        let per_second = rustix::param::clock_ticks_per_second() as f64;
        assert_eq!(cpu_s(stat), Some(400.0 / per_second));
        assert_eq!(cpu_s("7 (a"), None);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn this_process_has_memory_and_open_files() {
        let Process { cpu_s, resident_bytes, open_files } = Process::now();
        assert!(cpu_s.is_some());
        assert!(resident_bytes > Some(100_000), "{resident_bytes:?}");
        assert!(open_files > Some(2), "{open_files:?}");
    }
}
