//! The main job as a user runs it, over each engine: `oncekey demo` holds.

use std::process::Stdio;

use anyhow::{Context, Result, ensure};
use oncekey_cluster::{Engine, binary};
use oncekey_tests::LIMIT;
use tokio::process::Command;

#[tokio::test]
async fn the_demo_holds_over_fjall() -> Result<()> {
    demo(Engine::Fjall).await
}

#[tokio::test]
async fn the_demo_holds_over_sled() -> Result<()> {
    demo(Engine::Sled).await
}

async fn demo(engine: Engine) -> Result<()> {
    let child = Command::new(binary::find()?)
        .args(["demo", "--engine", &engine.to_string()])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    let output = tokio::time::timeout(2 * LIMIT, child.wait_with_output())
        .await
        .context("the demo does not end")??;
    let text = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{}\n{text}\n{errors}", output.status);
    for row in [
        "| pops                                     | 200 of 200 |",
        "| double issues                            |          0 |",
        "| retries answered with the same key       | 100 of 100 |",
    ] {
        ensure!(text.contains(row), "no row {row:?} in\n{text}");
    }
    Ok(())
}
