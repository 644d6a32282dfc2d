//! A short slice of the simulation: a few seeds, each run as it would be by hand.
//!
//! Leaves out: length. `cargo run --release -p oncekey-cluster -- simulate --minutes 10` runs
//! hundreds of seeds, for longer each.

use std::process::Command;

use anyhow::{Result, ensure};
use oncekey_cluster::simulate::Summary;

/// Simulated seconds with faults, unless a bug needs more.
const SECONDS: u64 = 8;

fn run(seed: u64, seconds: u64) -> Result<Summary> {
    let repeat = format!("cargo run -p oncekey-simulator -- --seed {seed} --seconds {seconds}");
    let output = Command::new(env!("CARGO_BIN_EXE_oncekey-simulator"))
        .args(["--seed", &seed.to_string(), "--seconds", &seconds.to_string()])
        .output()?;
    let (out, err) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    ensure!(output.status.success(), "repeat it with `{repeat}`\n{out}\n{err}");
    Ok(serde_json::from_str(out.lines().last().unwrap_or_default())?)
}

fn is_sound(seed: u64, seconds: u64) -> Result<()> {
    let summary = run(seed, seconds)?;
    assert!(summary.leaders_hit > 0, "seed {seed} kills no leader with a fetch on its way");
    assert!(summary.answered > 100, "seed {seed} answers {} fetches only", summary.answered);
    Ok(())
}

#[test]
fn the_same_seed_is_the_same_run() -> Result<()> {
    assert_eq!(run(4, SECONDS)?, run(4, SECONDS)?);
    Ok(())
}

/// The leader tried a follower that refused connections over and over, without a pause.
#[test]
fn a_follower_that_is_down_does_not_stop_its_leader() -> Result<()> {
    is_sound(1, SECONDS)
}

/// A read was told the index of an older entry than the last one it reflected.
#[test]
fn a_read_says_which_entry_it_reflects() -> Result<()> {
    is_sound(2, SECONDS)
}

/// The state that a process had left with its kernel alone was taken for durable, and all power
/// failed.
#[test]
fn what_is_opened_survives_a_power_cut_of_all() -> Result<()> {
    is_sound(1006, SECONDS)
}

/// What nodes called a snapshot when they started was not on disk; their logs were purged up to it,
/// all power failed, and nobody had a state to give.
#[test]
fn what_is_called_a_snapshot_survives_a_power_cut_of_all() -> Result<()> {
    is_sound(9, 20)
}

/// A node that had lost its state fetched one that was ahead of its log in a later term, and did not start:
/// its log had an entry that was never committed in the place of one in the state.
#[test]
fn a_log_gives_way_to_a_state_that_was_fetched() -> Result<()> {
    is_sound(25, 20)
}
