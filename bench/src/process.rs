//! Processes of the rivals.
//!
//! Guarantees: a process that was started here ends when its [`Process`] is dropped, and also when
//! `peers` itself is killed (the kernel signals it when its parent dies). What it prints goes to a
//! file, whose end is part of the error when it does not come up.

use std::{
    fs::File,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

/// How long a process may take to end by itself.
const STOP: Duration = Duration::from_secs(20);
/// How often an ending process is looked at.
const POLL: Duration = Duration::from_millis(10);
/// How much of its output an error shows.
const TAIL_LINES: usize = 15;

/// Who a program runs as.
#[derive(Clone, Copy)]
pub(crate) enum User<'a> {
    /// Whoever runs `peers`.
    Same,
    /// This user and the group of the same name; only root may ask for it.
    Named(&'a str),
}

/// A running process.
pub(crate) struct Process {
    name: String,
    child: Child,
    stop: Signal,
    log: PathBuf,
}

impl Process {
    /// Starts `command`; `stop` is the signal that ends it in good order. Its output goes to
    /// `dir/name.log`.
    pub(crate) fn start(
        dir: &Path,
        name: &str,
        mut command: Command,
        stop: Signal,
    ) -> Result<Self> {
        let log = dir.join(format!("{name}.log"));
        let output = File::options().create(true).append(true).open(&log)?;
        let child = command
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            // A Ctrl-C in the terminal is for `peers`, which ends its processes in order.
            .process_group(0)
            .spawn()
            .with_context(|| format!("{name} does not start"))?;
        Ok(Self { name: name.to_owned(), child, stop, log })
    }

    /// The file with what it prints.
    pub(crate) fn log(&self) -> &Path {
        &self.log
    }

    /// An error if it has ended.
    pub(crate) fn check(&mut self) -> Result<()> {
        if let Some(status) = self.child.try_wait()? {
            let output = std::fs::read(&self.log)?;
            let output = String::from_utf8_lossy(&output);
            let lines: Vec<_> = output.lines().collect();
            let tail = lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n");
            bail!("{} ended, {status}:\n{tail}", self.name);
        }
        Ok(())
    }

    /// Waits until it has ended by itself; an error unless it succeeded.
    pub(crate) async fn finished(mut self) -> Result<()> {
        loop {
            match self.child.try_wait()? {
                None => tokio::time::sleep(POLL).await,
                Some(status) if status.success() => return Ok(()),
                Some(_) => self.check()?,
            }
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        let signalled = pid.is_some_and(|pid| kill_process(pid, self.stop).is_ok());
        let deadline = Instant::now() + STOP;
        while signalled && Instant::now() < deadline {
            match self.child.try_wait() {
                Ok(None) => thread::sleep(POLL),
                Ok(Some(_)) | Err(_) => return,
            }
        }
        // An error means that it has ended meanwhile.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A command that runs `program` as `user` and gets `on_death` when `peers` dies.
pub(crate) fn command(program: &Path, user: User<'_>, on_death: &str) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", on_death]);
    if let User::Named(name) = user {
        command.args(["--reuid", name, "--regid", name, "--init-groups"]);
    }
    command.arg("--").arg(program);
    command
}

/// Runs a command to its end.
pub(crate) fn run(mut command: Command) -> Result<()> {
    let output = command.stdin(Stdio::null()).output()?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("{command:?}: {}: {}", output.status, said.trim());
    }
    Ok(())
}

/// Finds a program of a rival.
pub(crate) fn program(name: &str) -> Result<PathBuf> {
    std::env::var_os("PATH")
        .iter()
        .flat_map(std::env::split_paths)
        .map(|folder| folder.join(name))
        .find(|path| path.is_file())
        .with_context(|| format!("{name} not found; bench/install.sh installs it"))
}
