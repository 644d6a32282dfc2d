//! Log lines about what others do, who may do it all the time.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// Shortest time between two lines of one kind.
const PAUSE: Duration = Duration::from_secs(10);

/// Says when the next line of its kind is due.
#[derive(Debug, Default)]
pub(crate) struct Seldom(Mutex<Option<Instant>>);

impl Seldom {
    /// True at most once in ten seconds.
    pub(crate) fn is_due(&self) -> bool {
        let mut last = self.0.lock();
        let due = last.is_none_or(|last| last.elapsed() >= PAUSE);
        if due {
            *last = Some(Instant::now());
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_line_is_due_once_in_ten_seconds() {
        let seldom = Seldom::default();
        assert!(seldom.is_due());
        tokio::time::advance(PAUSE / 2).await;
        assert!(!seldom.is_due());
        tokio::time::advance(PAUSE / 2).await;
        assert!(seldom.is_due());
    }
}
