//! Invariant 6: a pool that is said to hold n keys held n keys at some moment of the call.
//!
//! For a count n in an answer there is a moment t in [inv, ret] with certain(t) ≤ n ≤ possible(t):
//! certain are the keys whose upload was answered before t and that no fetch sent by t can have
//! taken, possible those whose upload was sent by t and that no answer before t handed out. The
//! keys that a write brings are there at its moment; a registration leaves no others. A read also
//! names its keys: each is possible, and none is missing that was certain throughout the call.
//!
//! Needs: the uploads, and answers with counts. Leaves out: reading several pools at one moment.

use oncekey_types::{DeviceId, OneTimePreKeyId};

use super::{
    Finding, Invariant,
    evidence::{Device, Evidence, Life, of_write, say_write},
};
use crate::history::{Content, Read, Write, record::At};

pub(super) fn check(evidence: &Evidence<'_>) -> Finding {
    let mut finding = Finding::new(Invariant::Count);
    let mut claims: Vec<_> = evidence
        .history
        .writes
        .iter()
        .map(|write| ((write.user, write.device), Claim::Write(write)))
        .chain(
            evidence.history.reads.iter().map(|read| ((read.user, read.device), Claim::Read(read))),
        )
        .collect();
    claims.sort_by_key(|(device, _)| *device);
    let none = Device::new();
    for claims in claims.chunk_by(|a, b| a.0 == b.0) {
        let (user, number) = claims[0].0;
        let device = evidence.device(user, number).unwrap_or(&none);
        let times = Times::of(device);
        for (_, claim) in claims {
            match claim {
                Claim::Write(write) => check_write(&times, write, &mut finding),
                Claim::Read(read) => {
                    check_read(&times, read, &mut finding);
                    check_ids(device, &times, number, read, &mut finding);
                }
            }
        }
    }
    if finding.judged == 0 {
        finding.not_judged.push("no answer has a count".to_owned());
    }
    finding
}

enum Claim<'a> {
    Write(&'a Write),
    Read(&'a Read),
}

/// When the keys of a device come and go, each list sorted.
struct Times {
    added_from: Vec<At>,
    gone_by: Vec<At>,
    /// Of keys that were there at some moment for certain.
    added_by: Vec<At>,
    gone_from: Vec<At>,
    /// For each key, in the order of their ids: the latest `gone_from` of it and those before.
    gone_from_up_to: Vec<At>,
    /// The earliest `added_by` of it and those after.
    added_by_onward: Vec<At>,
}

impl Times {
    fn of(device: &Device) -> Self {
        let lives = &device.lives;
        let certain = || lives.iter().filter(|life| life.added_by < life.gone_from);
        let mut times = Self {
            added_from: lives.iter().map(|life| life.added_from).collect(),
            gone_by: lives.iter().map(|life| life.gone_by).collect(),
            added_by: certain().map(|life| life.added_by).collect(),
            gone_from: certain().map(|life| life.gone_from).collect(),
            gone_from_up_to: lives.iter().map(|life| life.gone_from).collect(),
            added_by_onward: lives.iter().map(|life| life.added_by).collect(),
        };
        times.lists().into_iter().for_each(|list| list.sort_unstable());
        let mut latest = At::START;
        for at in &mut times.gone_from_up_to {
            latest = latest.max(*at);
            *at = latest;
        }
        let mut earliest = At::NEVER;
        for at in times.added_by_onward.iter_mut().rev() {
            earliest = earliest.min(*at);
            *at = earliest;
        }
        times
    }

    fn lists(&mut self) -> [&mut Vec<At>; 4] {
        [&mut self.added_from, &mut self.gone_by, &mut self.added_by, &mut self.gone_from]
    }

    /// Keys that were there at `t` for certain.
    fn certain(&self, t: At) -> usize {
        before(&self.added_by, t) - up_to(&self.gone_from, t)
    }

    /// Keys that may have been there at `t`.
    fn possible(&self, t: At) -> usize {
        up_to(&self.added_from, t).saturating_sub(before(&self.gone_by, t))
    }

    /// The moments in [`from`, `to`] that are worth a look: one in every stretch without a change.
    /// At the moment of a change fewer keys are certain and more are possible than beside it.
    fn moments(&self, from: At, to: At) -> impl Iterator<Item = At> {
        let lists = [&self.added_from, &self.gone_by, &self.added_by, &self.gone_from];
        let inside =
            lists.into_iter().flat_map(move |list| &list[before(list, from)..up_to(list, to)]);
        [from, to].into_iter().chain(inside.copied())
    }

    /// The closest that can be said of a pool that has `own` keys more than are certain.
    fn allows(&self, count: u32, own: usize, from: At, to: At) -> bool {
        let count = usize::try_from(count).unwrap_or(usize::MAX);
        self.moments(from, to).any(|t| {
            let least = self.certain(t).saturating_add(own);
            (least..=self.possible(t)).contains(&count)
        })
    }
}

fn before(list: &[At], t: At) -> usize {
    list.partition_point(|at| *at < t)
}

fn up_to(list: &[At], t: At) -> usize {
    list.partition_point(|at| *at <= t)
}

fn check_write(times: &Times, write: &Write, finding: &mut Finding) {
    let Some(pool) = write.answer().and_then(|answer| answer.says.pool) else { return };
    finding.judged += 1;
    let (from, to) = (write.invoked(), write.returned());
    let own = write.opks().len();
    let holds = match write.content {
        Content::Register { .. } => usize::try_from(pool.count) == Ok(own),
        Content::Upload { .. } | Content::Rotate { .. } | Content::Remove => {
            times.allows(pool.count, own, from, to)
        }
    };
    if !holds {
        finding.violation(
            of_write(write),
            format!(
                "the {} is told that the pool has {} keys, which it had at no moment of the call",
                say_write(write),
                pool.count
            ),
        );
    }
}

fn check_read(times: &Times, read: &Read, finding: &mut Finding) {
    finding.judged += 1;
    if !times.allows(read.pool.count, 0, read.invoked, read.returned) {
        finding.violation(
            [read.op],
            format!(
                "the read {} of device {} is told that the pool has {} keys, which it had at no \
                 moment of the call",
                read.op, read.device, read.pool.count
            ),
        );
    }
    // A range that ends before it begins names none.
    let keys = |first: u32, last: u32| (u64::from(last) + 1).saturating_sub(first.into());
    let named: u64 = read.ids.iter().map(|(first, last)| keys(first.0, last.0)).sum();
    if named != u64::from(read.pool.count) {
        finding.violation(
            [read.op],
            format!(
                "the read {} of device {} names {named} keys and counts {}",
                read.op, read.device, read.pool.count
            ),
        );
    }
}

/// The keys that a read names.
fn check_ids(device: &Device, times: &Times, number: DeviceId, read: &Read, finding: &mut Finding) {
    for (first, last) in &read.ids {
        for id in (first.0..=last.0).map(OneTimePreKeyId) {
            if device.life(id).is_none_or(|life| life.added_from > read.returned) {
                let message = format!(
                    "the read {} finds key {id} of device {number}, which nobody had uploaded",
                    read.op
                );
                finding.violation([read.op], message);
            }
        }
    }
    // Keys come and go in the order of their ids, by and large: the rest is far before or after.
    let from = times.gone_from_up_to.partition_point(|at| *at <= read.returned);
    let to = times.added_by_onward.partition_point(|at| *at < read.invoked);
    let throughout = |life: &&Life| life.added_by < read.invoked && read.returned < life.gone_from;
    for life in device.lives.get(from..to).unwrap_or_default().iter().filter(throughout) {
        if !read.has(life.id) {
            let message = format!(
                "the read {} misses key {} of device {number}, which was there all the time",
                read.op, life.id
            );
            finding.violation([read.op], message);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Invariant::Count, story::Story};

    #[test]
    fn a_count_of_some_moment_is_right() {
        let mut story = Story::with_keys(&[1, 2]);
        story.fetch("a", (2, 3), Some(1));
        story.read((4, 5), Some((2, 2)), 2);
        story.upload((6, 7), &[3], 2);
        story.holds(Count);
        assert_eq!(story.judged(Count).judged, 3);
    }

    #[test]
    fn a_fetch_on_its_way_may_have_taken_its_key_or_not() {
        for (ids, index) in [(Some((1, 2)), 1), (Some((2, 2)), 2)] {
            let mut story = Story::with_keys(&[1, 2]);
            story.fetch("a", (2, 9), Some(1));
            story.index = index;
            story.read((3, 4), ids, 2);
            story.holds(Count);
        }
    }

    #[test]
    fn a_count_that_is_one_too_high_is_found() {
        let mut story = Story::with_keys(&[1, 2]);
        let read = story.read_count((2, 3), 3, Some((1, 2)), 2);
        story.breaks(Count, &[read]);
    }

    #[test]
    fn a_stale_count_is_found() {
        let mut story = Story::with_keys(&[1, 2]);
        story.fetch("a", (2, 3), Some(1));
        let read = story.read((4, 5), Some((1, 2)), 2);
        story.breaks(Count, &[read]);
    }

    #[test]
    fn an_upload_that_counts_without_its_own_keys_is_found() {
        let mut story = Story::with_keys(&[1]);
        let upload = story.upload((2, 3), &[2, 3], 1);
        story.breaks(Count, &[upload]);
    }

    #[test]
    fn a_read_that_misses_a_key_is_found() {
        let mut story = Story::with_keys(&[1, 2, 3]);
        let read = story.read_count((2, 3), 3, Some((1, 2)), 3);
        story.breaks_as(Count, &[read], "names 2 keys and counts 3");
        story.breaks_as(Count, &[read], "misses key 3");
    }

    #[test]
    fn a_read_has_every_key_between_those_that_went_and_those_that_come() {
        for (first, last, missed) in [(2, 5, None), (2, 4, Some(5)), (3, 5, Some(2))] {
            let mut story = Story::with_keys(&[1, 2, 3, 4, 5]);
            story.fetch("a", (2, 3), Some(1));
            let read = story.read((4, 5), Some((first, last)), 5);
            story.upload((6, 7), &[6], 5);
            match missed {
                None => story.holds(Count),
                Some(id) => story.breaks_as(Count, &[read], &format!("misses key {id}")),
            }
        }
    }

    #[test]
    fn a_read_has_a_key_that_an_earlier_fetch_left_behind() {
        let mut story = Story::with_keys(&[1, 2, 3, 4]);
        story.fetch("a", (2, 3), Some(2));
        story.fetch("b", (4, 5), Some(3));
        let read = story.read_count((6, 7), 1, Some((4, 4)), 4);
        story.fetch("c", (8, 9), Some(1));
        story.breaks_as(Count, &[read], "misses key 1");
    }

    #[test]
    fn a_read_of_a_key_that_was_not_uploaded_yet_is_found() {
        let mut story = Story::with_keys(&[1]);
        let read = story.read((2, 3), Some((2, 2)), 2);
        story.upload((4, 5), &[2], 2);
        story.breaks_as(Count, &[read], "finds key 2");
    }

    #[test]
    fn a_registration_that_keeps_old_keys_is_found() {
        let mut story = Story::with_keys(&[1, 2]);
        story.registration = 2;
        let call = story.register_counting((2, 3), &[3], 3);
        story.breaks(Count, &[call]);
    }

    #[test]
    fn a_read_of_a_device_that_nobody_registered_is_found() {
        let mut story = Story::with_keys(&[1]);
        story.user = "carol";
        let read = story.read((2, 3), Some((1, 1)), 1);
        story.breaks_as(Count, &[read], "finds key 1");
    }

    #[test]
    fn a_read_of_a_key_that_nobody_uploaded_is_found() {
        let mut story = Story::with_keys(&[1]);
        let read = story.read((2, 3), Some((7, 7)), 1);
        story.breaks_as(Count, &[read], "finds key 7");
    }

    #[test]
    fn an_upload_that_takes_long_does_not_hide_what_a_later_one_brought() {
        let mut story = Story::with_keys(&[1]);
        story.upload((2, 20), &[2, 3], 3);
        story.upload((3, 4), &[4], 4);
        let read = story.read((5, 6), Some((1, 1)), 4);
        story.breaks_as(Count, &[read], "at no moment of the call");
        story.breaks_as(Count, &[read], "misses key 4");
    }

    #[test]
    fn an_upload_without_an_answer_may_never_have_come_though_a_later_one_did() {
        let mut story = Story::with_keys(&[1]);
        story.upload_without_answer(2, &[2, 3]);
        story.upload((3, 4), &[4], 2);
        story.fetch("a", (5, 6), Some(1));
        story.read((7, 8), Some((4, 4)), 4);
        story.holds(Count);
    }
}
