//! A short slice of `oncekey-cluster chaos`: killed leaders, partitions and power cuts, under the
//! nodes that are shipped. Needs root and the programs that the command names (`oncekey-cluster chaos
//! --install` installs them). Without them it is skipped, by name.

#![cfg(target_os = "linux")]

use std::process::Command;

use anyhow::{Context, Result, ensure};
use oncekey_cluster::{binary, chaos::sandbox};
use tempfile::TempDir;

const MINUTES: &str = "0.2";
const FAULTS: &str = "leader-mid-pop,leader-cut-off,power-cut-all";
/// The run showed too little, as on a machine that has no time for it.
const VACUOUS: i32 = 2;

#[test]
fn nothing_is_lost_or_doubled_in_a_slice_of_chaos() -> Result<()> {
    if let Some(obstacle) = sandbox::obstacle() {
        println!("skipped: nothing_is_lost_or_doubled_in_a_slice_of_chaos: {obstacle}");
        return Ok(());
    }
    let server = binary::find()?;
    let program = server.with_file_name("oncekey-cluster");
    ensure!(program.is_file(), "there is no {}: cargo build -p oncekey-cluster", program.display());
    let dir = TempDir::new()?;
    let output = Command::new(program)
        .args(["chaos", "--minutes", MINUTES, "--faults", FAULTS])
        .arg("--server")
        .arg(server)
        .arg("--out")
        .arg(dir.path())
        .output()
        .context("the command cannot be run")?;
    let said = String::from_utf8_lossy(&output.stdout);
    let complained = String::from_utf8_lossy(&output.stderr);
    if output.status.code() == Some(VACUOUS) && dir.path().join("report.md").is_file() {
        println!("nothing_is_lost_or_doubled_in_a_slice_of_chaos showed too little:\n{said}");
        return Ok(());
    }
    if !output.status.success() {
        let kept = dir.keep();
        println!("histories and logs are in {}", kept.display());
    }
    ensure!(output.status.success(), "{}\n{said}\n{complained}", output.status);
    Ok(())
}
