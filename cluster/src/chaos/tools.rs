//! Programs of the system that the harness runs.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail, ensure};

/// A program that is needed, and the Debian package that has it.
const NEEDED: [(&str, &str); 9] = [
    ("setpriv", "util-linux"),
    ("unshare", "util-linux"),
    ("nsenter", "util-linux"),
    ("mount", "mount"),
    ("umount", "mount"),
    ("ip", "iproute2"),
    ("iptables", "iptables"),
    ("mkfs.ext4", "e2fsprogs"),
    ("xfs_io", "xfsprogs"),
];

/// The library that moves a clock, and the package that has it.
const FAKETIME: (&str, &str) = ("faketime/libfaketimeMT.so.1", "libfaketime");

/// Runs a program; its output is for the error only.
pub(super) fn run<const N: usize>(arguments: [&str; N]) -> Result<()> {
    run_all(&arguments)
}

/// The same with any number of arguments.
pub(super) fn run_all(arguments: &[&str]) -> Result<()> {
    let line = arguments.join(" ");
    let [program, arguments @ ..] = arguments else { bail!("nothing to run") };
    let output = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot run {line}"))?;
    ensure!(
        output.status.success(),
        "{line}: {}: {}",
        output.status,
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(())
}

/// A path as an argument.
pub(super) fn text(path: &Path) -> Result<&str> {
    path.to_str().with_context(|| format!("{} is not UTF-8", path.display()))
}

/// The packages whose programs are missing; the second list is of those that only a kind of fault
/// needs.
#[must_use]
pub(super) fn missing() -> (Vec<&'static str>, Vec<&'static str>) {
    let missing = |(program, package): (&str, &'static str)| {
        let folders = ["/usr/sbin", "/usr/bin", "/sbin", "/bin"].map(PathBuf::from);
        let path = env::var_os("PATH").unwrap_or_default();
        let found =
            env::split_paths(&path).chain(folders).any(|folder| folder.join(program).is_file());
        (!found).then_some(package)
    };
    let mut needed: Vec<_> = NEEDED.into_iter().filter_map(missing).collect();
    needed.dedup();
    let wanted = if faketime().is_none() { vec![FAKETIME.1] } else { Vec::new() };
    (needed, wanted)
}

/// The library that moves a clock, where Debian puts it.
pub(super) fn faketime() -> Option<PathBuf> {
    let folders = fs::read_dir("/usr/lib").ok()?;
    let mut libraries = folders.flatten().map(|folder| folder.path().join(FAKETIME.0));
    libraries.find(|library| library.is_file())
}
