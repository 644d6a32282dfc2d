//! Points at which a node dies when it is told to, so that a test chooses the very step of a write
//! that a crash interrupts.
//!
//! Guarantees: without the feature `failpoints` a point is nothing at all. With it, a node that
//! reaches a point that was armed is killed with `SIGKILL`: nothing is flushed, nobody is told.
//!
//! Leaves out: power cuts. What was written stays in the page cache of the machine.

/// A step that a node takes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Point(&'static str);

/// Commands were gathered into an entry; it is not proposed yet.
pub const BEFORE_PROPOSE: Point = Point("before_propose");
/// A batch of the log is about to be written.
pub const BEFORE_LOG_WRITE: Point = Point("before_log_write");
/// A batch was written and is not synced yet.
pub const BEFORE_LOG_SYNC: Point = Point("before_log_sync");
/// A batch is durable and nobody was told yet.
pub const BEFORE_LOG_ACK: Point = Point("before_log_ack");
/// A committed entry is about to be applied.
pub const BEFORE_APPLY: Point = Point("before_apply");
/// An entry was applied; its outcomes were not told yet.
pub const BEFORE_OUTCOME: Point = Point("before_outcome");
/// An outcome is known to the node that was asked; its client was not answered yet.
pub const BEFORE_REPLY: Point = Point("before_reply");
/// A vote is about to be written.
pub const BEFORE_VOTE: Point = Point("before_vote");
/// A vote is durable and was not given yet.
pub const AFTER_VOTE: Point = Point("after_vote");
/// The state is about to be made durable, so that the log can be purged.
pub const BEFORE_CHECKPOINT: Point = Point("before_checkpoint");
/// The state is durable; the log was not purged yet.
pub const AFTER_CHECKPOINT: Point = Point("after_checkpoint");
/// A snapshot of another node was fetched; it is not installed yet.
pub const BEFORE_INSTALL: Point = Point("before_install");

/// All points.
pub const ALL: [Point; 12] = [
    BEFORE_PROPOSE,
    BEFORE_LOG_WRITE,
    BEFORE_LOG_SYNC,
    BEFORE_LOG_ACK,
    BEFORE_APPLY,
    BEFORE_OUTCOME,
    BEFORE_REPLY,
    BEFORE_VOTE,
    AFTER_VOTE,
    BEFORE_CHECKPOINT,
    AFTER_CHECKPOINT,
    BEFORE_INSTALL,
];

impl Point {
    /// Its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        self.0
    }

    /// The node takes this step.
    #[cfg(not(feature = "failpoints"))]
    #[inline(always)]
    pub const fn reach(self) {}

    /// The node takes this step, and dies when the point was armed.
    #[cfg(feature = "failpoints")]
    pub fn reach(self) {
        if fail::eval(self.0, |_| ()).is_some() {
            // Sent to the own process it is there before the call returns.
            let _ = rustix::process::kill_process(
                rustix::process::getpid(),
                rustix::process::Signal::KILL,
            );
        }
    }

    /// Has the node die when it reaches the point for the `count`-th time from now.
    ///
    /// # Errors
    ///
    /// What is wrong with the count.
    #[cfg(feature = "failpoints")]
    pub fn arm(self, count: u32) -> Result<(), String> {
        match count {
            0 => Err("the first time is number 1".to_owned()),
            1 => fail::cfg(self.0, "1*return"),
            _ => fail::cfg(self.0, &format!("{}*off->1*return", count - 1)),
        }
    }

    /// Lets the node pass again.
    #[cfg(feature = "failpoints")]
    pub fn disarm(self) {
        fail::remove(self.0);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_point_has_a_name_of_its_own() {
        let names: BTreeSet<_> = ALL.iter().map(|point| point.name()).collect();
        assert_eq!(names.len(), ALL.len());
    }
}
