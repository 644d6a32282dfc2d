//! Waiting until the engines have put away what was loaded.
//!
//! Guarantees: a size that counts as settled did not change for [`STILL`]; one that never settled is
//! told apart. Leaves out: what an engine would only do under further writes; until then it may hold
//! some of the keys in memory and in the log, so the size says little before most of them are in
//! files.

use std::{ops::ControlFlow, time::Duration};

use anyhow::Result;
use tokio::time::{Instant, sleep};

use crate::output;

/// How long a size must stay as it is.
const STILL: Duration = Duration::from_secs(5);
/// Time after which nobody waits any longer.
const LIMIT: Duration = Duration::from_secs(300);
/// Time between two looks.
const INTERVAL: Duration = Duration::from_millis(500);
/// Time between two words to who watches.
const SAY_INTERVAL: Duration = Duration::from_secs(10);
/// A change below this share of the size is none: a node without load notes the time now and then.
const SHARE: u64 = 1000;

/// Waits until `size` stays as it is, and returns the seconds until it did; none when it never did.
pub(super) async fn settle(size: impl Fn() -> Result<u64>) -> Result<Option<f64>> {
    let started = Instant::now();
    let mut watch = Watch { size: size()?, since: started };
    let mut said = started;
    loop {
        sleep(INTERVAL).await;
        if said.elapsed() >= SAY_INTERVAL {
            said = Instant::now();
            output::line(format_args!(
                "waiting for the disks to be still: {} bytes, changed {:.0} s ago",
                watch.size,
                watch.since.elapsed().as_secs_f64()
            ));
        }
        if let ControlFlow::Break(since) = watch.look(size()?, Instant::now()) {
            return Ok(Some(since.duration_since(started).as_secs_f64()));
        }
        if started.elapsed() > LIMIT {
            return Ok(None);
        }
    }
}

/// A size that is watched.
struct Watch {
    size: u64,
    /// When it was last seen to change.
    since: Instant,
}

impl Watch {
    /// Notes the size at the time `now`; breaks, with the time of the last change, once it is still.
    fn look(&mut self, size: u64, now: Instant) -> ControlFlow<Instant> {
        if size.abs_diff(self.size) > self.size / SHARE {
            *self = Self { size, since: now };
        }
        if now.duration_since(self.since) >= STILL {
            return ControlFlow::Break(self.since);
        }
        ControlFlow::Continue(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_is_settled_once_it_is_still_and_creeping_counts_as_change() {
        let start = Instant::now();
        let mut watch = Watch { size: 10_000, since: start };
        let mut at = start;
        // Each step is below the share, their sum is not.
        for step in 1..=20 {
            at += STILL / 10;
            assert_eq!(watch.look(10_000 + 4 * step, at), ControlFlow::Continue(()), "{step}");
        }
        let since = watch.since;
        assert!(since > start);
        assert_eq!(watch.look(10_080, since + STILL), ControlFlow::Break(since));
    }
}
