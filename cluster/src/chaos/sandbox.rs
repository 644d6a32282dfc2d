//! Namespaces of network, mounts and processes around a run.
//!
//! Guarantees: whatever a run makes there, bridges, namespaces, mounts, loop devices and nodes, ends
//! with it, however it ends: the kernel removes it with the last process, and the last process dies
//! with the command that was started. Nothing of it is seen from outside. What is left is a folder;
//! the next run there begins by clearing it.
//!
//! Leaves out: limits on CPU and memory.

use std::{
    env,
    fs::{self, File},
    os::unix::process::ExitStatusExt as _,
    path::Path,
    process::Stdio,
};

use anyhow::{Context, Result, ensure};
use rustix::process::geteuid;
use tokio::{
    process::Command,
    signal::unix::{SignalKind, signal},
};

use super::tools;

/// What is new inside, as `unshare` understands it.
const NAMESPACES: [&str; 4] = ["--net", "--mount", "--pid", "--fork"];

/// Tries what a run needs of the kernel: hosts on a bridge with addresses of the loopback network, a
/// link that is cut, and a disk that loses power.
const TRIAL: &str = "
ip link add hub type bridge
ip link add cable type veth peer name eth0
echo 1 > /proc/sys/net/ipv4/conf/all/route_localnet
ip addr add 127.77.0.1/24 scope global dev eth0
iptables -w -A INPUT -s 127.77.0.2 -j DROP
mount -t tmpfs tmpfs /dev/shm
mkdir /dev/shm/disk
truncate -s 16M /dev/shm/image
mkfs.ext4 -q /dev/shm/image
mount -o loop /dev/shm/image /dev/shm/disk
xfs_io -x -c shutdown /dev/shm/disk
umount /dev/shm/disk";

/// Set inside.
const VARIABLE: &str = "ONCEKEY_CHAOS_SANDBOX";

/// Why there can be no sandbox, if so; everything that is missing, and the command that installs it.
#[must_use]
pub fn obstacle() -> Option<String> {
    if !geteuid().is_root() {
        return Some("namespaces and mounts need root".to_owned());
    }
    let (needed, _) = tools::missing();
    if !needed.is_empty() {
        return Some(format!("missing: apt-get install {}", needed.join(" ")));
    }
    if !Path::new("/dev/loop-control").exists() {
        return Some("there are no loop devices".to_owned());
    }
    refused()
}

/// Installs what is missing.
///
/// # Errors
///
/// When apt does not.
pub fn install() -> Result<()> {
    let (mut packages, wanted) = tools::missing();
    packages.extend(wanted);
    if packages.is_empty() {
        return Ok(());
    }
    let arguments = ["apt-get", "install", "-y", "--no-install-recommends"];
    tools::run_all(&arguments.into_iter().chain(packages).collect::<Vec<_>>())
}

/// Whether this process is inside.
#[must_use]
pub fn is_inside() -> bool {
    env::var_os(VARIABLE).is_some()
}

/// Runs this very command inside, and returns its exit code. The folder `dir` is the run's alone.
/// To be called on the main thread: the kernel ties the life of a child to the thread.
///
/// # Errors
///
/// When the folder is in use, or the kernel gives no namespaces.
pub async fn run_inside(dir: &Path) -> Result<u8> {
    fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
    let lock = File::create(dir.join("lock"))?;
    ensure!(lock.try_lock().is_ok(), "another run uses {}", dir.display());
    clear(dir)?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut child = Command::new("setpriv")
        .args(["--pdeathsig", "KILL", "--", "unshare"])
        .args(NAMESPACES)
        .args(["--kill-child=KILL", "--mount-proc", "--"])
        .arg(env::current_exe()?)
        .args(env::args_os().skip(1))
        .env(VARIABLE, "1")
        .kill_on_drop(true)
        .spawn()
        .context("cannot run setpriv")?;
    let status = tokio::select! {
        status = child.wait() => status?,
        _ = interrupt.recv() => end(&mut child).await?,
        _ = terminate.recv() => end(&mut child).await?,
    };
    clear(dir)?;
    drop(lock);
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal));
    Ok(u8::try_from(code.unwrap_or(1)).unwrap_or(1))
}

/// Makes this process, which has just come inside, ready to run.
///
/// # Errors
///
/// When the kernel refuses.
pub fn settle_in() -> Result<()> {
    fs::create_dir_all("/run/netns")?;
    // Named namespaces and shared memory are files; these go with the mounts.
    for folder in ["/run/netns", "/dev/shm"] {
        tools::run(["mount", "-t", "tmpfs", "tmpfs", folder])?;
    }
    Ok(())
}

/// The command of the [trial](TRIAL) that does not work here, if so, and what it says.
fn refused() -> Option<String> {
    let output = std::process::Command::new("unshare")
        .args(NAMESPACES)
        .args(["--mount-proc", "--", "sh", "-e", "-x", "-c", TRIAL])
        .stdin(Stdio::null())
        .output();
    match output {
        Ok(output) if output.status.success() => None,
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stderr);
            let last = said.rfind("+ ").map_or(&*said, |at| &said[at + 2..]);
            Some(format!("does not work here: {}", last.trim().replace('\n', ": ")))
        }
        Err(error) => Some(format!("cannot run unshare: {error}")),
    }
}

async fn end(child: &mut tokio::process::Child) -> Result<std::process::ExitStatus> {
    child.kill().await?;
    Ok(child.wait().await?)
}

/// Removes the disks, which are large and of no use to anyone.
fn clear(dir: &Path) -> Result<()> {
    match fs::remove_dir_all(dir.join("disks")) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).context("the disks of an earlier run cannot be removed")
        }
        _ => Ok(()),
    }
}
