//! Which program the nodes run.
//!
//! Guarantees: the path leads to a file, or the error says how to get one. Leaves out: its
//! version; a program built earlier is run as it is.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};

/// Names the program, before any guess.
pub const VARIABLE: &str = "ONCEKEY_BIN";

/// The `oncekey` program: the one that `ONCEKEY_BIN` names, or this very program if it is
/// `oncekey`, or the one that cargo put next to the running test.
///
/// # Errors
///
/// When there is no such file.
pub fn find() -> Result<PathBuf> {
    let path = match env::var_os(VARIABLE) {
        Some(path) => PathBuf::from(path),
        None => beside(&env::current_exe().context("the running program has no path")?),
    };
    ensure!(
        path.is_file(),
        "there is no program at {}; build it with `cargo build -p oncekey-cli` or name it in {VARIABLE}",
        path.display(),
    );
    Ok(path)
}

/// The `oncekey-simulator` program. Under cargo it is built first.
///
/// # Errors
///
/// When there is no such file, or it does not build.
pub fn simulator() -> Result<PathBuf> {
    const PACKAGE: &str = "oncekey-simulator";
    if let (Some(cargo), Some(package)) = (env::var_os("CARGO"), env::var_os("CARGO_MANIFEST_DIR"))
    {
        let mut build = Command::new(cargo);
        build.args(["build", "--quiet", "--package", PACKAGE]).current_dir(package);
        if !cfg!(debug_assertions) {
            build.arg("--release");
        }
        let status = build.status().context("cannot run cargo")?;
        ensure!(status.success(), "{PACKAGE} does not build");
    }
    let running = env::current_exe().context("the running program has no path")?;
    let path = beside(&running).with_file_name(format!("{PACKAGE}{}", env::consts::EXE_SUFFIX));
    ensure!(
        path.is_file(),
        "there is no program at {}; build it with `cargo build -p {PACKAGE}`",
        path.display(),
    );
    Ok(path)
}

/// The `oncekey` that goes with the program `running`. Cargo puts tests into `deps` or `examples`
/// below the folder of the binaries.
fn beside(running: &Path) -> PathBuf {
    let name = format!("oncekey{}", env::consts::EXE_SUFFIX);
    if running.file_name().is_some_and(|running| running == name.as_str()) {
        return running.to_owned();
    }
    let folder = running.parent().unwrap_or(Path::new("."));
    let folder = match (folder.file_name().and_then(|name| name.to_str()), folder.parent()) {
        (Some("deps" | "examples"), Some(parent)) => parent,
        _ => folder,
    };
    folder.join(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_test_uses_the_program_that_was_built_with_it() {
        assert_eq!(
            beside(Path::new("/target/debug/deps/leader_killed-0123456789abcdef")),
            Path::new("/target/debug/oncekey")
        );
    }

    #[test]
    fn the_program_uses_itself() {
        assert_eq!(beside(Path::new("/usr/bin/oncekey")), Path::new("/usr/bin/oncekey"));
    }
}
