//! The queue by which retries are forgotten.
//!
//! Guarantees: the entries of a batch are one record; entries are looked at in the order in which
//! they came and one at a time, so that a batch looks at no more than it may, and leaves the rest
//! of a lot to the next one. Nothing is read before something is due. Leaves out: what is to be
//! done with an entry.

use oncekey_types::TimestampMs;

use super::{Machine, missing};
use crate::{
    ApplyFault,
    record::{
        Key, Kind, corrupt,
        queue::{QUEUE_LOT_START, Queue, QueueKey, QueueLot, QueuedKey},
    },
    state::StateRead,
};

/// Entries of the queue that are looked at for each command; more than a command adds, so that the
/// queue shrinks when its entries expire.
const EXPIRY_STEPS_PER_COMMAND: usize = 4;

impl<S: StateRead> Machine<'_, S> {
    /// Looks at what is due, as far as a batch of so many commands may.
    pub(super) fn forget_due(&mut self, commands: usize) -> Result<(), ApplyFault> {
        for _ in 0..commands.max(1) * EXPIRY_STEPS_PER_COMMAND {
            if !self.meta.retries.is_due(self.now()) {
                break;
            }
            self.forget_oldest_retry()?;
        }
        Ok(())
    }

    /// Puts `key` behind all others, into the lot of this batch, whose number it gives. The keys of
    /// a lot are looked at together, when the first of them is due.
    pub(super) fn enqueue(&mut self, due: TimestampMs, key: &impl Key) -> Result<u64, ApplyFault> {
        let number = self.open_lot();
        let slot = self.records.unseen(&QueueKey(number));
        let bytes = self.records.edit(slot);
        if bytes.is_empty() {
            *bytes = QueueLot::empty(due);
        }
        let due = QueueLot::push(bytes, due, key)?;
        let queue = &mut self.meta.retries;
        queue.len += 1;
        if queue.head == number {
            queue.due = due;
        }
        Ok(number)
    }

    /// Takes the oldest entry out, with the number of its lot.
    pub(super) fn dequeue(&mut self) -> Result<(u64, QueuedKey), ApplyFault> {
        let before = self.meta.retries;
        let slot = self.records.find(&QueueKey(before.head))?;
        let bytes = self.records.bytes(slot).ok_or_else(|| missing(Kind::Queue))?;
        let (parts, next) = QueueLot::entry_at(bytes, before.offset)?;
        let key = QueuedKey::new(parts);
        let mut queue = Queue { len: before.len.saturating_sub(1), ..before };
        if let Some(next) = next {
            queue.offset = next;
        } else {
            self.records.remove(slot);
            queue.head += 1;
            queue.offset = QUEUE_LOT_START;
            queue.due = self.due_of(&queue)?;
        }
        if (queue.head == queue.tail) != (queue.len == 0) {
            return Err(corrupt(Kind::Meta, "queue", "does not fit its lots").into());
        }
        self.meta.retries = queue;
        Ok((before.head, key))
    }

    /// The number of the lot that this batch writes.
    fn open_lot(&mut self) -> u64 {
        let tail_before = self.before.retries.tail;
        let queue = &mut self.meta.retries;
        if queue.head < queue.tail && tail_before < queue.tail {
            return queue.tail - 1;
        }
        if queue.head == queue.tail {
            queue.offset = QUEUE_LOT_START;
        }
        queue.tail += 1;
        queue.tail - 1
    }

    /// When to look at the first lot.
    fn due_of(&mut self, queue: &Queue) -> Result<TimestampMs, ApplyFault> {
        if queue.head == queue.tail {
            return Ok(TimestampMs::default());
        }
        let slot = self.records.find(&QueueKey(queue.head))?;
        let bytes = self.records.bytes(slot).ok_or_else(|| missing(Kind::Queue))?;
        Ok(QueueLot::due(bytes)?)
    }
}
