//! Waiting for a condition.

use std::time::Duration;

use anyhow::{Context, Result};
use tokio::time::{Instant, sleep};

use crate::process::Process;

/// How long a rival may take to come up.
const DEADLINE: Duration = Duration::from_secs(60);
/// How often the condition is looked at.
const POLL: Duration = Duration::from_millis(50);

/// Asks `probe` until it succeeds and returns what it found; `what` names it in the error. A
/// process that ends meanwhile is an error at once.
pub(crate) async fn until<T>(
    what: &str,
    processes: &mut [Process],
    mut probe: impl AsyncFnMut() -> Result<T>,
) -> Result<T> {
    let deadline = Instant::now() + DEADLINE;
    loop {
        for process in &mut *processes {
            process.check()?;
        }
        match probe().await {
            Ok(found) => return Ok(found),
            Err(error) if Instant::now() > deadline => {
                return Err(error).with_context(|| format!("waited in vain for {what}"));
            }
            Err(_) => sleep(POLL).await,
        }
    }
}
