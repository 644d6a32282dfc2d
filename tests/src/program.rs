//! The program, as an operator runs it.

use std::process::{Command, Output};

use anyhow::{Result, ensure};
use oncekey_cluster::binary;

/// Runs `oncekey` with `arguments`, which must succeed, and gives what it says.
///
/// # Errors
///
/// What it complains about.
pub async fn succeeds(arguments: &[&str]) -> Result<String> {
    let output = run(arguments).await?;
    let error = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "oncekey {arguments:?}: {error}");
    Ok(String::from_utf8(output.stdout)?)
}

/// Runs `oncekey` with `arguments`, which must fail, and gives what it complains about.
///
/// # Errors
///
/// When it succeeds.
pub async fn fails(arguments: &[&str]) -> Result<String> {
    let output = run(arguments).await?;
    let told = String::from_utf8_lossy(&output.stdout);
    ensure!(!output.status.success(), "oncekey {arguments:?} succeeded:\n{told}");
    Ok(String::from_utf8_lossy(&output.stderr).into_owned())
}

async fn run(arguments: &[&str]) -> Result<Output> {
    let mut command = Command::new(binary::find()?);
    command.args(arguments);
    // Whoever runs the tests may have set them.
    for name in ["ONCEKEY_TOKEN", "ONCEKEY_TOKEN_FILE", "ONCEKEY_CA", "ONCEKEY_ADMIN"] {
        command.env_remove(name);
    }
    Ok(tokio::task::spawn_blocking(move || command.output()).await??)
}
