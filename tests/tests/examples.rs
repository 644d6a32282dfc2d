//! The examples of the client library, run as their headers say.

use std::{env, path::PathBuf, process::Stdio};

use anyhow::{Context, Result, ensure};
use oncekey_cluster::Cluster;
use oncekey_tests::{Bob, LIMIT, small};
use tokio::{process::Command, time::timeout};

/// Where cargo puts the examples of the workspace.
fn program(example: &str) -> Result<PathBuf> {
    let test = env::current_exe()?;
    let folder = test.parent().and_then(|deps| deps.parent()).context("a folder of programs")?;
    Ok(folder.join("examples").join(format!("{example}{}", env::consts::EXE_SUFFIX)))
}

/// Runs an example, which must end well, and gives what it printed.
async fn run(cluster: &Cluster, example: &str, arguments: &[&str]) -> Result<String> {
    let program = program(example)?;
    ensure!(
        program.is_file(),
        "there is no {}; build it with `cargo build -p oncekey-client --examples`",
        program.display()
    );
    let mut command = Command::new(program);
    command.args(arguments).args(cluster.endpoints()).env("ONCEKEY_PASSPHRASE", "correct horse");
    let child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    let output = timeout(LIMIT, child.wait_with_output()).await.context("it does not end")??;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{example}: {}\n{text}\n{errors}", output.status);
    Ok(text)
}

fn has(text: &str, wanted: &str) -> Result<()> {
    ensure!(text.contains(wanted), "no {wanted:?} in\n{text}");
    Ok(())
}

#[tokio::test]
async fn the_examples_do_what_they_say() -> Result<()> {
    let cluster = small().start().await?;
    let folder = tempfile::tempdir()?;
    let folder = folder.path().join("carol").display().to_string();
    has(&run(&cluster, "publish", &[&folder, "carol"]).await?, "registered, number 1")?;
    has(&run(&cluster, "publish", &[&folder, "carol"]).await?, "0 one-time prekeys were added")?;

    let _bob = Bob::publish(&cluster, "bob", 2, 5).await?;
    let text = run(&cluster, "fetch_and_initiate", &["bob"]).await?;
    for device in ["device 1: ", "device 2: "] {
        has(&text, device)?;
    }
    has(&text, "Issued")?;

    let text = run(&cluster, "two_devices", &[]).await?;
    has(&text, "nothing for device 2: ")?;
    has(&text, "device 2 reads: hello, bob")?;
    let number =
        |whose: &str| text.lines().find_map(|line| line.strip_prefix(whose)).map(str::trim);
    ensure!(number("bob's number:").is_some(), "{text}");
    ensure!(number("bob's number:") == number("alice's number:"), "{text}");

    // Of a feature that is off by default.
    if program("ratchet")?.is_file() {
        let text = run(&cluster, "ratchet", &[]).await?;
        for line in ["alice reads: two", "bob reads:   three", "alice reads: one", "not twice: "] {
            has(&text, line)?;
        }
    }
    cluster.finish().await
}
