//! Invariant 5: in the end, each key was handed out or is in its pool, and never both.
//!
//! Once every operation without an outcome has been sent again until it has one, uploaded keys =
//! keys handed out ⊎ keys left. What is left is what a read shows that was sent after the last
//! write of the device was answered, or nothing when a fetch says so that was sent then. A key
//! that a registration or removal may have taken away is not asked for. Nothing stays without an
//! outcome, apart from a write that a later one of the same device has overtaken: it can no longer
//! be accepted.
//!
//! Needs: the mark `end`, and for each device a read or an empty pool after its last write. Leaves
//! out: runs that were broken off.

use std::collections::BTreeMap;

use oncekey_types::DeviceId;

use super::{
    Finding, Invariant,
    evidence::{Device, Evidence, Life, of_fetch, of_write, say_write},
};
use crate::history::{
    Name, Read,
    record::{At, Issue, OperationId, Phase},
};

/// What shows which keys are left.
#[derive(Clone, Copy)]
enum Left<'a> {
    /// This read.
    Read(&'a Read),
    /// This operation found no key.
    Nothing(OperationId),
}

impl Left<'_> {
    fn has(&self, life: &Life) -> bool {
        match self {
            Self::Read(read) => read.has(life.id),
            Self::Nothing(_) => false,
        }
    }

    fn op(&self) -> OperationId {
        match self {
            Self::Read(read) => read.op,
            Self::Nothing(op) => *op,
        }
    }
}

pub(super) fn check(evidence: &Evidence<'_>) -> Finding {
    let mut finding = Finding::new(Invariant::Conservation);
    if !evidence.history.reached(Phase::End) {
        finding.not_judged.push("the history does not come to its end".to_owned());
        return finding;
    }
    check_decided(evidence, &mut finding);
    let left = left(evidence);
    for ((user, device), keys) in &evidence.devices {
        match left.get(&(*user, *device)) {
            Some((_, left)) => check_device(evidence, *device, keys, *left, &mut finding),
            None if keys.lives.is_empty() => {}
            None => finding.not_judged.push(format!(
                "a pool of device {device} was not read, nor found empty, after the last write"
            )),
        }
    }
    finding
}

/// Nothing stays without an outcome.
fn check_decided(evidence: &Evidence<'_>, finding: &mut Finding) {
    for fetch in &evidence.history.fetches {
        finding.judged += 1;
        if fetch.is_undecided() {
            let message = format!("{} never got an answer", evidence.say(fetch));
            finding.violation(of_fetch(fetch), message);
        }
    }
    for write in &evidence.history.writes {
        finding.judged += 1;
        let device = evidence.device(write.user, write.device);
        let overtaken = device.is_some_and(|device| device.settled_by > write.invoked());
        if write.is_undecided() && !overtaken {
            let message = format!("the {} never got an answer", say_write(write));
            finding.violation(of_write(write), message);
        }
    }
}

/// No key of the device is lost.
fn check_device(
    evidence: &Evidence<'_>,
    device: DeviceId,
    keys: &Device,
    left: Left<'_>,
    finding: &mut Finding,
) {
    for life in &keys.lives {
        finding.judged += 1;
        let accepted = life.added_by != At::NEVER;
        let explained = life.fetch.is_some() || life.gone_from != At::NEVER || left.has(life);
        if accepted && !explained {
            let write = &evidence.history.writes[life.write];
            finding.violation(
                of_write(write).chain([left.op()]),
                format!(
                    "key {} of device {device} is lost: the {} was answered, no fetch was handed \
                     the key, and operation {} did not find it",
                    life.id,
                    say_write(write),
                    left.op()
                ),
            );
        }
    }
    if let Left::Read(read) = left {
        for (first, last) in &read.ids {
            for id in first.0..=last.0 {
                let id = oncekey_types::OneTimePreKeyId(id);
                if keys.life(id).is_none() {
                    let message = format!(
                        "key {id} of device {device} is in the pool for the read {}, and nobody \
                         uploaded it",
                        read.op
                    );
                    finding.violation([read.op], message);
                }
            }
        }
    }
}

/// The last sign of what each pool holds, and when it was asked for.
fn left<'a>(evidence: &Evidence<'a>) -> BTreeMap<(Name, DeviceId), (At, Left<'a>)> {
    let mut left: BTreeMap<_, (At, Left<'a>)> = BTreeMap::new();
    let mut note = |key: (Name, DeviceId), at: At, sign: Left<'a>| {
        let settled_by = evidence.devices.get(&key).map_or(At::START, |device| device.settled_by);
        if at > settled_by && left.get(&key).is_none_or(|(last, _)| *last <= at) {
            left.insert(key, (at, sign));
        }
    };
    for read in &evidence.history.reads {
        note((read.user, read.device), read.invoked, Left::Read(read));
    }
    for fetch in &evidence.history.fetches {
        for bundle in fetch.bundles().iter().filter(|told| told.opk == Issue::Exhausted) {
            let op = fetch.tries.first().map(|call| call.op);
            let Some(op) = op else { continue };
            note((fetch.user, bundle.device), fetch.invoked(), Left::Nothing(op));
        }
    }
    left
}

#[cfg(test)]
mod tests {
    use super::super::{Invariant::Conservation, Verdict, story::Story};

    #[test]
    fn keys_that_were_handed_out_or_are_left_are_right() {
        let mut story = Story::with_keys(&[1, 2, 3]);
        story.fetch("a", (2, 3), Some(1));
        story.read((4, 5), Some((2, 3)), 3);
        story.end();
        story.holds(Conservation);
        // A fetch and a write with their outcomes, and three keys.
        assert_eq!(story.judged(Conservation).judged, 5);
    }

    #[test]
    fn a_drained_pool_is_right() {
        let mut story = Story::with_keys(&[1]);
        story.fetch("a", (2, 3), Some(1));
        story.fetch("b", (4, 5), None);
        story.end();
        story.holds(Conservation);
    }

    #[test]
    fn a_key_that_is_gone_is_found() {
        let mut story = Story::with_keys(&[1, 2]);
        story.fetch("a", (2, 3), Some(2));
        let empty = story.fetch("b", (4, 5), None);
        story.end();
        story.breaks(Conservation, &[super::OperationId(0), empty]);
    }

    #[test]
    fn a_key_that_a_read_does_not_find_is_found() {
        let mut story = Story::with_keys(&[1, 2]);
        let read = story.read((2, 3), Some((2, 2)), 2);
        story.end();
        story.breaks(Conservation, &[super::OperationId(0), read]);
    }

    #[test]
    fn a_key_in_the_pool_that_nobody_uploaded_is_found() {
        let mut story = Story::with_keys(&[1]);
        let read = story.read((2, 3), Some((1, 2)), 2);
        story.end();
        story.breaks(Conservation, &[read]);
    }

    #[test]
    fn an_operation_that_never_got_an_answer_is_found() {
        let mut story = Story::with_keys(&[1]);
        let open = story.fetch_without_answer("a", 2);
        story.read((4, 5), Some((1, 1)), 1);
        story.end();
        story.breaks(Conservation, &[open]);
    }

    #[test]
    fn an_upload_that_never_got_an_answer_is_found_unless_it_was_overtaken() {
        let mut story = Story::with_keys(&[1]);
        let open = story.upload_without_answer(2, &[2]);
        story.end();
        story.breaks(Conservation, &[open]);
        story.upload((4, 5), &[3], 2);
        story.fetch("a", (6, 7), Some(1));
        story.fetch("b", (8, 9), Some(3));
        story.fetch("c", (10, 11), None);
        story.holds(Conservation);
    }

    #[test]
    fn keys_of_an_earlier_registration_are_not_asked_for() {
        let mut story = Story::with_keys(&[1, 2]);
        story.registration = 2;
        story.register((2, 3), 1, &[3]);
        story.fetch("a", (4, 5), Some(3));
        story.fetch("b", (6, 7), None);
        story.end();
        story.holds(Conservation);
    }

    #[test]
    fn a_run_that_was_broken_off_is_not_judged() {
        let mut story = Story::with_keys(&[1, 2]);
        story.fetch_without_answer("a", 2);
        assert_eq!(story.judged(Conservation).verdict(), Verdict::NotJudged);
    }

    #[test]
    fn the_last_look_at_a_pool_is_what_counts() {
        let mut story = Story::with_keys(&[1, 2]);
        story.read((2, 3), Some((1, 2)), 2);
        let last = story.read((4, 5), Some((2, 2)), 2);
        story.end();
        story.breaks(Conservation, &[super::OperationId(0), last]);
    }

    #[test]
    fn a_pool_with_keys_that_nobody_looked_into_is_not_judged() {
        for (ids, in_full) in [(&[1][..], false), (&[], true)] {
            let mut story = Story::with_keys(ids);
            story.end();
            let finding = story.judged(Conservation);
            assert_eq!(finding.is_judged_in_full(), in_full, "{finding}");
        }
    }

    #[test]
    fn a_look_before_the_last_write_was_answered_shows_nothing() {
        for sent in [3, 4] {
            let mut story = Story::with_keys(&[1]);
            story.index = 2;
            story.upload((2, 4), &[2], 2);
            story.index = 1;
            story.read((sent, 5), Some((1, 1)), 1);
            story.end();
            let finding = story.judged(Conservation);
            assert!(finding.violated == 0 && !finding.is_judged_in_full(), "{finding}");
        }
    }

    #[test]
    fn a_write_is_not_overtaken_by_one_that_was_answered_when_it_was_sent() {
        let mut story = Story::with_keys(&[1]);
        let open = story.upload_without_answer(1, &[2]);
        story.end();
        story.breaks(Conservation, &[open]);
    }
}
