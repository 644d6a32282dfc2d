//! The disks of a simulated machine.
//!
//! Guarantees: after a power cut what was synced is there, and of the rest some of what the disks
//! may keep, chosen by a seed; after the end of a process alone everything it wrote is. The log and
//! the folder are a [`SimDisk`] each, the state is a [`MemoryState`].
//!
//! Leaves out: time, which whoever simulates adds.

use crate::disk::{SimDisk, Tear};
use crate::state::MemoryState;

/// Where a node keeps what it has, in memory. Clones share it.
#[derive(Clone, Default)]
pub struct SimMachine {
    /// The node's own folder.
    pub folder: SimDisk,
    /// The write-ahead log.
    pub log: SimDisk,
    /// The state.
    pub state: MemoryState,
}

impl SimMachine {
    /// A machine with empty disks.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Ends the process.
    pub fn kill(&self) {
        self.folder.kill();
        self.log.kill();
        self.state.kill();
    }

    /// Cuts the power. `seed` chooses what stays of what was not synced.
    pub fn power_cut(&self, seed: u64) {
        let tear = match seed % 4 {
            0 => Tear::Nothing,
            1 => Tear::Everything,
            2 => Tear::Prefix(below(seed / 4, self.log.unsynced_bytes())),
            _ => Tear::Sectors(seed),
        };
        self.folder.power_cut(tear);
        self.log.power_cut(tear);
        self.state.power_cut(below(seed / 16, self.state.batches_at_risk()));
    }
}

impl std::fmt::Debug for SimMachine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SimMachine").finish_non_exhaustive()
    }
}

/// A number from 0 to `limit`, chosen by `seed`.
fn below(seed: u64, limit: usize) -> usize {
    let limit = limit as u64 + 1;
    usize::try_from(seed % limit).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::Disk;

    #[test]
    fn whatever_the_seed_a_power_cut_spares_what_was_synced() {
        for seed in 0..64 {
            let machine = SimMachine::new();
            for disk in [&machine.folder, &machine.log] {
                let mount = disk.mount();
                let file = mount.create("a").unwrap();
                file.write_all_at(&[1; 700], 0).unwrap();
                file.sync_data().unwrap();
                mount.sync_dir().unwrap();
                file.write_all_at(&[2; 700], 700).unwrap();
            }
            machine.power_cut(seed);
            for disk in [&machine.folder, &machine.log] {
                assert_eq!(disk.content("a").unwrap()[..700], [1; 700], "seed {seed}");
            }
        }
    }
}
