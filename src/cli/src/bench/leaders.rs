//! Who leads which slot, as far as replies told the clients.
//!
//! Guarantees: only endpoints that were given are asked. Leaves out: truth; leaders change, and a
//! guess that is wrong costs one hop between nodes. An endpoint is recognised when the node's public
//! address is a literal address and not a name.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use oncekey_types::{Slot, limits};

use super::wire::Address;

/// Shared by the clients of one run.
pub(super) struct Leaders {
    endpoints: Arc<[Address]>,
    /// For each slot the position of its leader's endpoint plus one, zero while it is unknown.
    slots: Box<[AtomicUsize]>,
}

impl Leaders {
    /// Nobody is known yet.
    pub(super) fn new(endpoints: Arc<[Address]>) -> Self {
        Self { endpoints, slots: (0..limits::SLOTS).map(|_| AtomicUsize::new(0)).collect() }
    }

    /// Position of the endpoint of the node that led `slot` when last heard of.
    pub(super) fn of(&self, slot: Slot) -> Option<usize> {
        self.slots[usize::from(slot.number())].load(Ordering::Relaxed).checked_sub(1)
    }

    /// A reply about `slot` said that the node at this public address leads it.
    pub(super) fn learn(&self, slot: Slot, leader: Option<&str>) {
        let address = leader.and_then(|leader| leader.parse().ok());
        let place = self.endpoints.iter().position(|endpoint| Some(endpoint.at) == address);
        let known = place.map_or(0, |place| place + 1);
        self.slots[usize::from(slot.number())].store(known, Ordering::Relaxed);
    }

    /// The leader of `slot` may be gone.
    pub(super) fn forget(&self, slot: Slot) {
        self.slots[usize::from(slot.number())].store(0, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use oncekey_types::UserId;

    use super::*;

    #[test]
    fn an_endpoint_is_learned_and_forgotten_and_a_stranger_is_never_asked() {
        let endpoints =
            [81, 82].map(|port| Address::from(SocketAddr::from(([127, 0, 0, 1], port))));
        let leaders = Leaders::new(Arc::from(endpoints));
        let slot = Slot::of(&UserId::new("bob").unwrap());
        for (leader, place) in [
            (Some("127.0.0.1:82"), Some(1)),
            (Some("127.0.0.1:83"), None),
            (Some("127.0.0.1:81"), Some(0)),
            (Some("a name"), None),
            (None, None),
        ] {
            leaders.learn(slot, leader);
            assert_eq!(leaders.of(slot), place, "{leader:?}");
        }
        leaders.learn(slot, Some("127.0.0.1:81"));
        leaders.forget(slot);
        assert_eq!(leaders.of(slot), None);
    }
}
