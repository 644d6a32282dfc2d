//! When each key came and went, as far as clients can know.
//!
//! Guarantees: a key was in its pool at every moment strictly between
//! [`added_by`](Life::added_by) and [`gone_from`](Life::gone_from), and at none before
//! [`added_from`](Life::added_from) or after [`gone_by`](Life::gone_by). A key that nobody was
//! handed may have gone with a fetch that has no answer, with a later registration of its device,
//! or with the device.
//!
//! Leaves out: which of these it was.

use std::collections::BTreeMap;

use oncekey_types::{DeviceId, OneTimePreKeyId};

use crate::history::{
    Fetch, History, Name, Outcome, Write,
    record::{At, Bundle, Digest, Issue, OperationId, Opk},
};

/// A history, and what follows from it for every key.
pub(super) struct Evidence<'a> {
    pub(super) history: &'a History,
    pub(super) devices: BTreeMap<(Name, DeviceId), Device>,
}

/// A device and its keys.
pub(super) struct Device {
    /// The keys that were offered, by id.
    pub(super) lives: Vec<Life>,
    /// The bytes offered under each id, by id; more than one when an upload was made anew.
    pub(super) offers: Vec<Offer>,
    /// When the last write was answered.
    pub(super) settled_by: At,
    /// Registrations and removals, which take away the keys that were there.
    withdrawals: Vec<Withdrawal>,
    /// When the first fetch without an answer was sent; it may have taken any key.
    vague_from: At,
}

/// Bytes that stood in an upload.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Offer {
    pub(super) id: OneTimePreKeyId,
    pub(super) digest: Digest,
    /// The write, by its place in the history.
    pub(super) write: usize,
}

/// What is known of one key.
#[derive(Clone, Copy, Debug)]
pub(super) struct Life {
    pub(super) id: OneTimePreKeyId,
    /// The write that brought it, by its place in the history.
    pub(super) write: usize,
    /// The fetch that was handed it, by its place in the history.
    pub(super) fetch: Option<usize>,
    /// It was not there before: its upload was sent.
    pub(super) added_from: At,
    /// It was there: its upload was answered.
    pub(super) added_by: At,
    /// Up to here it was there, once it was.
    pub(super) gone_from: At,
    /// It is not there any more.
    pub(super) gone_by: At,
}

struct Withdrawal {
    write: usize,
    invoked: At,
    returned: At,
}

/// A key that a call was handed.
pub(super) struct Handed<'a> {
    /// The fetch, by its place in the history.
    pub(super) fetch: usize,
    pub(super) op: OperationId,
    pub(super) device: DeviceId,
    pub(super) opk: Opk,
    /// Whether it stood in an answer that was given without a quorum.
    pub(super) alone: bool,
    pub(super) of: &'a Fetch,
}

impl<'a> Evidence<'a> {
    pub(super) fn of(history: &'a History) -> Self {
        let mut devices = offered(history);
        for fetch in history.fetches.iter().filter(|fetch| fetch.is_undecided()) {
            for (_, device) in devices
                .range_mut((fetch.user, DeviceId(0))..=(fetch.user, DeviceId(u32::MAX)))
                .filter(|((_, device), _)| fetch.asks_for(*device))
            {
                device.vague_from = device.vague_from.min(fetch.invoked());
            }
        }
        let mut evidence = Self { history, devices };
        evidence.add_pops();
        evidence.devices.values_mut().for_each(Device::conclude);
        evidence
    }

    /// Every key of every answer, those without a quorum too.
    pub(super) fn handed(&self) -> impl Iterator<Item = Handed<'a>> + use<'a> {
        let fetches = self.history.fetches.iter().enumerate();
        fetches.flat_map(|(place, fetch)| {
            fetch.tries.iter().flat_map(move |call| {
                let (bundles, alone): (&[Bundle], _) = match &call.outcome {
                    Outcome::Done(answer) => (&answer.says, false),
                    Outcome::Unknown { alone } => (alone, true),
                    Outcome::Refused(_) => (&[], false),
                };
                bundles.iter().filter_map(move |bundle| {
                    let Issue::Issued(opk) = bundle.opk else { return None };
                    let (op, device) = (call.op, bundle.device);
                    Some(Handed { fetch: place, op, device, opk, alone, of: fetch })
                })
            })
        })
    }

    pub(super) fn device(&self, user: Name, device: DeviceId) -> Option<&Device> {
        self.devices.get(&(user, device))
    }

    /// `fetch` in words: its request and who asked.
    pub(super) fn say(&self, fetch: &Fetch) -> String {
        let names = &self.history.names;
        let operations: Vec<_> = fetch.tries.iter().map(|call| call.op.to_string()).collect();
        format!(
            "fetch {} of {} (operation {})",
            names.text(fetch.request),
            names.text(fetch.client),
            operations.join(", ")
        )
    }

    /// Notes for each key which fetch was handed it.
    fn add_pops(&mut self) {
        let mut pops = Vec::new();
        for handed in self.handed().filter(|handed| !handed.alone) {
            pops.push((handed.of.user, handed.device, handed.opk.0, handed.fetch));
        }
        let history = self.history;
        for (user, device, id, place) in pops {
            let Some(device) = self.devices.get_mut(&(user, device)) else { continue };
            let Ok(found) = device.lives.binary_search_by_key(&id, |life| life.id) else {
                continue;
            };
            let (life, fetch) = (&mut device.lives[found], &history.fetches[place]);
            life.fetch.get_or_insert(place);
            life.gone_from = life.gone_from.min(fetch.invoked());
            life.gone_by = life.gone_by.min(fetch.returned());
        }
    }
}

/// The devices with the keys that writes brought, whatever became of them.
fn offered(history: &History) -> BTreeMap<(Name, DeviceId), Device> {
    let mut devices: BTreeMap<_, Device> = BTreeMap::new();
    for (place, write) in history.writes.iter().enumerate() {
        let answered = write.answer().is_some();
        if !answered && !write.is_undecided() {
            continue;
        }
        let (invoked, returned) = (write.invoked(), write.returned());
        let device = devices.entry((write.user, write.device)).or_insert_with(Device::new);
        if answered {
            device.settled_by = device.settled_by.max(returned);
        }
        if write.withdraws() {
            device.withdrawals.push(Withdrawal { write: place, invoked, returned });
        }
        for Opk(id, digest) in write.opks() {
            device.offers.push(Offer { id: *id, digest: *digest, write: place });
            device.lives.push(Life {
                id: *id,
                write: place,
                fetch: None,
                added_from: invoked,
                added_by: returned,
                gone_from: At::NEVER,
                gone_by: At::NEVER,
            });
        }
    }
    for device in devices.values_mut() {
        device.offers.sort_unstable();
        device.lives.sort_by_key(|life| life.id);
        device.lives.dedup_by(|later, first| {
            let same = later.id == first.id;
            if same {
                first.added_from = first.added_from.min(later.added_from);
                if later.added_by < first.added_by {
                    (first.added_by, first.write) = (later.added_by, later.write);
                }
            }
            same
        });
    }
    devices
}

impl Device {
    pub(super) fn new() -> Self {
        Self {
            lives: Vec::new(),
            offers: Vec::new(),
            settled_by: At::START,
            withdrawals: Vec::new(),
            vague_from: At::NEVER,
        }
    }

    /// The key `id`.
    pub(super) fn life(&self, id: OneTimePreKeyId) -> Option<&Life> {
        let place = self.lives.binary_search_by_key(&id, |life| life.id).ok()?;
        self.lives.get(place)
    }

    /// What was offered under `id`.
    pub(super) fn offers(&self, id: OneTimePreKeyId) -> &[Offer] {
        let from = self.offers.partition_point(|offer| offer.id < id);
        let to = self.offers.partition_point(|offer| offer.id <= id);
        &self.offers[from..to]
    }

    /// The registration or removal that took away, before `at`, whatever `life` was offered by.
    pub(super) fn withdrawn_before(&self, life: &Life, at: At) -> Option<usize> {
        self.withdrawals
            .iter()
            .find(|gone| {
                gone.write != life.write && life.added_by < gone.invoked && gone.returned < at
            })
            .map(|gone| gone.write)
    }

    /// Works out when the keys that nobody was handed may have gone.
    fn conclude(&mut self) {
        for life in self.lives.iter_mut().filter(|life| life.fetch.is_none()) {
            life.gone_from = self.vague_from;
            for gone in self.withdrawals.iter().filter(|gone| gone.write != life.write) {
                if gone.returned >= life.added_from {
                    life.gone_from = life.gone_from.min(gone.invoked);
                }
                if gone.invoked > life.added_by {
                    life.gone_by = life.gone_by.min(gone.returned);
                }
            }
        }
    }
}

/// The operations of a fetch.
pub(super) fn of_fetch(fetch: &Fetch) -> impl Iterator<Item = OperationId> + use<'_> {
    fetch.tries.iter().map(|call| call.op)
}

/// The operations of a write.
pub(super) fn of_write(write: &Write) -> impl Iterator<Item = OperationId> + use<'_> {
    write.tries.iter().map(|call| call.op)
}

/// `write` in words.
pub(super) fn say_write(write: &Write) -> String {
    let operations: Vec<_> = of_write(write).map(|op| op.to_string()).collect();
    format!(
        "{} of device {} (operation {})",
        write.content.name(),
        write.device,
        operations.join(", ")
    )
}

#[cfg(test)]
mod tests {
    use super::super::{
        Invariant::{Conservation, Count, Provenance},
        story::Story,
    };

    #[test]
    fn the_keys_of_uploads_that_overtook_each_other_are_known() {
        let mut story = Story::with_keys(&[1]);
        story.index = 2;
        story.upload((2, 9), &[4], 4);
        story.index = 1;
        story.upload((3, 9), &[2, 3], 3);
        story.index = 3;
        for (key, request) in (1..).zip(["a", "b", "c", "d"]) {
            story.fetch(request, (10 + 2 * u64::from(key), 11 + 2 * u64::from(key)), Some(key));
        }
        story.read((20, 21), None, 4);
        story.holds(Provenance);
    }

    #[test]
    fn a_key_of_two_uploads_is_one_key() {
        let mut story = Story::with_keys(&[1]);
        story.upload_without_answer(2, &[2]);
        story.upload((5, 6), &[2, 3], 3);
        let read = story.read_count((7, 8), 4, Some((1, 3)), 3);
        story.breaks_as(Count, &[read], "at no moment of the call");
    }

    #[test]
    fn a_key_of_two_uploads_may_be_there_since_the_first_was_sent() {
        let mut story = Story::with_keys(&[1]);
        story.upload_without_answer(2, &[2]);
        story.read((3, 4), Some((1, 2)), 2);
        story.upload_without_answer(5, &[2, 3]);
        story.holds(Count);
    }

    #[test]
    fn a_key_of_two_uploads_is_there_when_one_was_answered() {
        let mut story = Story::with_keys(&[1]);
        story.upload_without_answer(2, &[2]);
        let upload = story.upload((5, 6), &[2, 3], 3);
        story.fetch("a", (7, 8), Some(1));
        story.fetch("b", (9, 10), Some(3));
        let empty = story.fetch("c", (11, 12), None);
        story.end();
        story.breaks_as(Conservation, &[upload, empty], "key 2 of device 1 is lost");
    }

    #[test]
    fn a_key_that_a_registration_took_away_is_not_there_any_more() {
        let mut story = Story::with_keys(&[1, 2]);
        story.registration = 2;
        story.register((2, 3), 1, &[3]);
        let read = story.read_count((4, 5), 3, Some((1, 3)), 3);
        story.breaks_as(Count, &[read], "at no moment of the call");
    }
}
