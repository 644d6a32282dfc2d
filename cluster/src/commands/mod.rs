//! One module for each subcommand.
pub(crate) mod bugs;
#[cfg(target_os = "linux")]
pub(crate) mod chaos;
pub(crate) mod check;
pub(crate) mod simulate;
