//! Notices when the machine stands still, which no node is to blame for.
//!
//! Guarantees: a thread sleeps a short time over and over; when it wakes up late, this program did
//! not run meanwhile, and neither did its clocks of waits and deadlines stop. Leaves out: nodes that
//! starve while the harness runs.

use std::{
    sync::{
        Arc, Weak,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use super::report::millis;

/// How long the thread sleeps at a time.
const NAP: Duration = Duration::from_millis(100);
/// A pause of the machine that explains a wait that was in vain.
pub(super) const EXCUSE: Duration = Duration::from_secs(5);

/// Watches until it is dropped.
#[derive(Debug)]
pub(super) struct Watch(Arc<AtomicU64>);

impl Watch {
    pub(super) fn start() -> Self {
        let longest = Arc::new(AtomicU64::new(0));
        let watched = Arc::downgrade(&longest);
        thread::spawn(move || watch(&watched));
        Self(longest)
    }

    /// The longest time for which the machine stood still since this was asked last.
    pub(super) fn longest(&self) -> Duration {
        Duration::from_millis(self.0.swap(0, Ordering::Relaxed))
    }
}

fn watch(longest: &Weak<AtomicU64>) {
    loop {
        let began = Instant::now();
        thread::sleep(NAP);
        let late = began.elapsed().saturating_sub(NAP);
        let Some(longest) = longest.upgrade() else { return };
        longest.fetch_max(millis(late), Ordering::Relaxed);
    }
}
