//! The oncekey command.

#[cfg(feature = "conformance")]
mod conformance;

#[cfg(feature = "conformance")]
fn main() -> anyhow::Result<()> {
    match std::env::args().nth(1).as_deref() {
        Some("conformance") => conformance::run(std::io::stdin().lock(), std::io::stdout().lock()),
        _ => Ok(()),
    }
}

#[cfg(not(feature = "conformance"))]
fn main() {}
