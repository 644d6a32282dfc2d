//! Invariant 8: keys leave in the order in which they came.
//!
//! Ids of a device only grow from upload to upload, so a key with a lower id came earlier. No
//! fetch is handed a key when another one, sent only after its answer, is handed an earlier key of
//! the device; nor when an earlier key stays in the pool for ever.
//!
//! Needs: the answers. Leaves out: fetches that overlap in time; the [witness](super::witness)
//! orders them by the log.

use oncekey_types::{DeviceId, OneTimePreKeyId};

use super::{
    Finding, Invariant,
    evidence::{Device, Evidence, of_fetch},
};
use crate::history::{Fetch, record::At};

pub(super) fn check(evidence: &Evidence<'_>) -> Finding {
    let mut finding = Finding::new(Invariant::Fifo);
    let mut pops: Vec<_> = evidence
        .handed()
        .filter(|handed| !handed.alone)
        .map(|handed| ((handed.of.user, handed.device), handed.opk.0, handed.of))
        .collect();
    pops.sort_by_key(|(device, id, fetch)| (*device, fetch.invoked(), *id));
    for pops in pops.chunk_by(|a, b| a.0 == b.0) {
        let (user, number) = pops[0].0;
        let pops: Vec<_> = pops.iter().map(|(_, id, fetch)| (*id, *fetch)).collect();
        check_order(evidence, number, &pops, &mut finding);
        if let Some(device) = evidence.device(user, number) {
            check_left(evidence, number, device, &pops, &mut finding);
        }
    }
    finding
}

type Pop<'a> = (OneTimePreKeyId, &'a Fetch);

/// `pops` are sorted by invocation.
fn check_order(evidence: &Evidence<'_>, device: DeviceId, pops: &[Pop<'_>], finding: &mut Finding) {
    let mut answered: Vec<_> = pops.iter().collect();
    answered.sort_by_key(|(_, fetch)| fetch.returned());
    let mut answered = answered.into_iter().peekable();
    let mut highest: Option<&Pop<'_>> = None;
    for pop in pops {
        finding.judged += 1;
        while let Some(before) = answered.next_if(|(_, fetch)| fetch.returned() < pop.1.invoked()) {
            if highest.is_none_or(|highest| highest.0 < before.0) {
                highest = Some(before);
            }
        }
        if let Some((id, before)) = highest
            && *id > pop.0
        {
            finding.violation(
                of_fetch(before).chain(of_fetch(pop.1)),
                format!(
                    "{} was handed key {id} of device {device} before {} was handed the earlier \
                     key {}",
                    evidence.say(before),
                    evidence.say(pop.1),
                    pop.0
                ),
            );
        }
    }
}

/// No key stays behind for ever.
fn check_left(
    evidence: &Evidence<'_>,
    number: DeviceId,
    device: &Device,
    pops: &[Pop<'_>],
    finding: &mut Finding,
) {
    let Some((last, fetch)) = pops.iter().max_by_key(|(id, _)| *id) else { return };
    let behind = device.lives.iter().take_while(|life| life.id < *last).find(|life| {
        life.added_by != At::NEVER && life.fetch.is_none() && life.gone_from == At::NEVER
    });
    if let Some(life) = behind {
        finding.violation(
            of_fetch(fetch),
            format!(
                "{} was handed key {last} of device {number}, and nobody the earlier key {}",
                evidence.say(fetch),
                life.id
            ),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Invariant::Fifo, story::Story};

    #[test]
    fn the_oldest_key_first_is_right() {
        let mut story = Story::with_keys(&[1, 2]);
        story.fetch("a", (2, 3), Some(1));
        story.fetch("b", (4, 5), Some(2));
        story.holds(Fifo);
    }

    #[test]
    fn fetches_at_the_same_time_may_come_in_any_order() {
        let mut story = Story::with_keys(&[1, 2]);
        story.fetch("a", (2, 9), Some(1));
        story.fetch("b", (3, 4), Some(2));
        story.holds(Fifo);
    }

    #[test]
    fn the_newest_key_first_is_found() {
        let mut story = Story::with_keys(&[1, 2]);
        let a = story.fetch("a", (2, 3), Some(2));
        let b = story.fetch("b", (4, 5), Some(1));
        story.breaks(Fifo, &[a, b]);
    }

    #[test]
    fn a_key_that_is_passed_over_for_ever_is_found() {
        let mut story = Story::with_keys(&[1, 2, 3]);
        story.fetch("a", (2, 3), Some(1));
        let b = story.fetch("b", (4, 5), Some(3));
        story.breaks(Fifo, &[b]);
    }

    #[test]
    fn a_key_that_a_fetch_without_an_answer_may_have_taken_is_not_passed_over() {
        let mut story = Story::with_keys(&[1, 2]);
        story.fetch_without_answer("a", 2);
        story.fetch("b", (3, 4), Some(2));
        story.holds(Fifo);
    }

    #[test]
    fn the_order_is_kept_for_each_device_apart() {
        let mut story = Story::with_keys(&[1, 2]);
        story.registration = 2;
        story.register((2, 3), 2, &[1, 2]);
        story.registration = 1;
        let a = story.fetch_all("a", (4, 5), &[Some(1), Some(2)]);
        let b = story.fetch_all("b", (6, 7), &[Some(2), Some(1)]);
        story.breaks(Fifo, &[a, b]);
        assert_eq!(story.judged(Fifo).violated, 1);
    }

    #[test]
    fn the_highest_key_so_far_is_what_counts() {
        let mut story = Story::with_keys(&[1, 2, 3]);
        let a = story.fetch("a", (2, 3), Some(3));
        story.fetch("b", (4, 5), Some(1));
        let c = story.fetch("c", (6, 7), Some(2));
        story.breaks(Fifo, &[a, c]);
    }

    #[test]
    fn a_fetch_that_takes_long_hides_no_other() {
        let mut story = Story::with_keys(&[1, 2, 3]);
        story.fetch("a", (2, 9), Some(1));
        let b = story.fetch("b", (3, 4), Some(3));
        let c = story.fetch("c", (5, 6), Some(2));
        story.breaks(Fifo, &[b, c]);
    }
}
