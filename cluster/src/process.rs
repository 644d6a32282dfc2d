//! One node as a process.
//!
//! Guarantees: the process ends with its [`Process`], and on Linux also when the supervisor is
//! killed: it is told its supervisor's process id and asks the kernel to be killed with it.
//! Everything it writes goes to one log file, which restarts append to. It gets no terminal
//! signal: it is in a process group of its own, and Ctrl-C is the supervisor's to handle.
//!
//! Leaves out: what the process is; see [`crate::cluster`]. The kernel ties "killed with it" to
//! the thread that started the process, so start one from a thread that lasts: the main thread or
//! a worker of the runtime, not a blocking task.

use std::{
    fs::{self, File, OpenOptions},
    io::{Read, Seek, SeekFrom},
    os::unix::process::{CommandExt, ExitStatusExt},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

use crate::wait::{self, Seen};

/// Part of a log that [`log_tail`] reads, in bytes.
const TAIL_MAX_BYTES: u64 = 64 * 1024;

/// How to start a node.
#[derive(Clone, Debug)]
pub(crate) struct Launch {
    /// A command in front that becomes the program, such as one that enters a network.
    pub(crate) enter: Vec<String>,
    pub(crate) program: PathBuf,
    pub(crate) config: PathBuf,
    pub(crate) log: PathBuf,
    pub(crate) environment: Vec<(String, String)>,
}

/// A process that was started and not yet seen to end.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    pid: Pid,
}

impl Process {
    /// Starts `oncekey serve --config …`.
    pub(crate) fn start(launch: &Launch) -> Result<Self> {
        let log = append_to(&launch.log)?;
        let mut command = match launch.enter.split_first() {
            None => Command::new(&launch.program),
            Some((enter, arguments)) => {
                let mut command = Command::new(enter);
                command.args(arguments).arg(&launch.program);
                command
            }
        };
        let child = command
            .arg("serve")
            .arg("--config")
            .arg(&launch.config)
            .arg("--parent")
            .arg(std::process::id().to_string())
            .envs(launch.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .process_group(0)
            .spawn()
            .with_context(|| format!("cannot start {}", launch.program.display()))?;
        let pid = Pid::from_child(&child);
        Ok(Self { child, pid })
    }

    /// The process id.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends `signal`.
    pub(crate) fn signal(&self, signal: Signal) -> Result<()> {
        kill_process(self.pid, signal).with_context(|| format!("cannot send {signal:?}"))
    }

    /// How the process ended, if it has.
    pub(crate) fn ended(&mut self) -> Result<Option<ExitStatus>> {
        self.child.try_wait().context("cannot look after a node")
    }

    /// Kills the process with `SIGKILL` and reaps it. A paused process dies as well.
    pub(crate) fn kill(mut self) -> Result<ExitStatus> {
        self.child.kill().context("cannot kill a node")?;
        self.child.wait().context("cannot wait for a killed node")
    }

    /// Waits until the process ends by itself.
    pub(crate) async fn wait(&mut self, limit: Duration) -> Result<ExitStatus> {
        wait::until(limit, &format!("process {} to end", self.id()), async || {
            Ok(match self.ended()? {
                Some(status) => Seen::Done(status),
                None => Seen::not_yet("it runs"),
            })
        })
        .await
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Fails only for a process that has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// `status` as a person would say it.
pub(crate) fn describe(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(signal)) => format!("signal {signal}"),
        (None, None) => status.to_string(),
    }
}

/// Fails unless `status` is a success.
pub(crate) fn expect_success(status: ExitStatus) -> Result<()> {
    if !status.success() {
        bail!("ended with {}", describe(status));
    }
    Ok(())
}

/// The last `lines` lines of `log`.
pub(crate) fn log_tail(log: &Path, lines: usize) -> Result<String> {
    let mut file = File::open(log).with_context(|| format!("no log at {}", log.display()))?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(TAIL_MAX_BYTES)))?;
    let mut bytes = Vec::new();
    file.take(TAIL_MAX_BYTES).read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes);
    let all: Vec<_> = text.lines().collect();
    Ok(all[all.len().saturating_sub(lines)..].join("\n"))
}

fn append_to(log: &Path) -> Result<File> {
    if let Some(folder) = log.parent() {
        fs::create_dir_all(folder)?;
    }
    OpenOptions::new()
        .create(true)
        .append(true)
        .open(log)
        .with_context(|| format!("cannot write {}", log.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A script that stands in for a node.
    fn stand_in(script: &str) -> (tempfile::TempDir, Launch) {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let program = folder.path().join("node");
        fs::write(&program, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        let launch = Launch {
            enter: Vec::new(),
            program,
            config: folder.path().join("node.toml"),
            log: folder.path().join("node.log"),
            environment: vec![("FRUIT".into(), "pear".into())],
        };
        (folder, launch)
    }

    #[tokio::test]
    async fn output_and_arguments_of_every_start_are_in_the_log() {
        let (_folder, launch) = stand_in("echo \"$FRUIT $1 $2\"; echo trouble >&2");
        for _ in 0..2 {
            let mut process = Process::start(&launch).unwrap();
            let status = process.wait(Duration::from_secs(10)).await.unwrap();
            expect_success(status).unwrap();
        }
        assert_eq!(log_tail(&launch.log, 3).unwrap(), "trouble\npear serve --config\ntrouble");
    }

    #[tokio::test]
    async fn a_process_ends_with_its_handle_even_when_paused() {
        let (_folder, launch) = stand_in("exec sleep 600");
        let process = Process::start(&launch).unwrap();
        process.signal(Signal::STOP).unwrap();
        let pid = process.pid;
        drop(process);
        assert!(rustix::process::test_kill_process(pid).is_err(), "process {pid:?} lives on");
    }

    #[tokio::test]
    async fn the_way_a_process_ended_is_told() {
        let (_folder, launch) = stand_in("exit 3");
        let status = Process::start(&launch).unwrap().wait(Duration::from_secs(10)).await.unwrap();
        assert_eq!(describe(status), "exit code 3");
        assert!(expect_success(status).is_err());

        let (_folder, launch) = stand_in("exec sleep 600");
        let status = Process::start(&launch).unwrap().kill().unwrap();
        assert_eq!(describe(status), "signal 9");
    }
}
