//! What the command tells its user.
//!
//! Guarantees: a reader that goes away (`oncekey config | head -1`) is no error.

use std::{
    fmt::Display,
    io::{self, Write},
};

/// Prints a line on standard output.
pub(crate) fn line(text: impl Display) {
    let _ = writeln!(io::stdout(), "{text}");
}

/// Prints the error that ended the command, with its causes, on standard error.
pub(crate) fn error(error: &anyhow::Error) {
    let _ = writeln!(io::stderr(), "error: {error:#}");
}
