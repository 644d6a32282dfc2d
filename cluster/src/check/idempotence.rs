//! Invariant 3: a retry gets the same answer, and brings no key back.
//!
//! All answers of one logical operation are equal: the same bundles and the same log index for a
//! fetch, the same pool and registration for a write, whose later answers may come from a later
//! index. And no read shows a key in its pool after the answer that handed it out: a retried
//! upload added it anew.
//!
//! Needs: operations that were sent again after an answer, and reads. Leaves out: a retry after
//! the servers' time to remember is over, which is a new request; record it under another
//! idempotency key. A key that came back and is handed out again is found as not
//! [unique](super::unique).

use super::{
    Finding, Invariant,
    evidence::{Evidence, of_fetch, of_write, say_write},
};
use crate::history::{Fetch, Read, Try, Write};

pub(super) fn check(evidence: &Evidence<'_>) -> Finding {
    let mut finding = Finding::new(Invariant::Idempotence);
    for fetch in &evidence.history.fetches {
        check_fetch(evidence, fetch, &mut finding);
    }
    for write in &evidence.history.writes {
        check_write(write, &mut finding);
    }
    for read in &evidence.history.reads {
        check_read(evidence, read, &mut finding);
    }
    if finding.judged == 0 {
        finding.not_judged.push("nothing was sent again after an answer, nor read".to_owned());
    }
    finding
}

fn check_fetch(evidence: &Evidence<'_>, fetch: &Fetch, finding: &mut Finding) {
    let answers = fetch.tries.iter().filter_map(Try::answer);
    for (a, b) in answers.clone().zip(answers.skip(1)) {
        finding.judged += 1;
        if a.says != b.says {
            let message = format!("{} got two answers with different bundles", evidence.say(fetch));
            finding.violation(of_fetch(fetch), message);
        } else if let (Some(first), Some(second)) = (a.place.index, b.place.index)
            && first != second
        {
            let who = evidence.say(fetch);
            let message = format!("{who} was carried out at log index {first} and at {second}");
            finding.violation(of_fetch(fetch), message);
        }
    }
}

fn check_write(write: &Write, finding: &mut Finding) {
    let answers = write.tries.iter().filter_map(Try::answer);
    for (a, b) in answers.clone().zip(answers.skip(1)) {
        finding.judged += 1;
        if a.says != b.says {
            let message = format!("{} got two different answers", say_write(write));
            finding.violation(of_write(write), message);
        }
    }
}

/// No key is back in its pool.
fn check_read(evidence: &Evidence<'_>, read: &Read, finding: &mut Finding) {
    let Some(device) = evidence.device(read.user, read.device) else { return };
    finding.judged += 1;
    for (first, last) in &read.ids {
        let from = device.lives.partition_point(|life| life.id < *first);
        for life in device.lives[from..].iter().take_while(|life| life.id <= *last) {
            let Some(fetch) = life.fetch.map(|fetch| &evidence.history.fetches[fetch]) else {
                continue;
            };
            if life.gone_by < read.invoked {
                finding.violation(
                    of_fetch(fetch).chain([read.op]),
                    format!(
                        "key {} of device {} is back in its pool for the read {}, after {} was \
                         handed it",
                        life.id,
                        read.device,
                        read.op,
                        evidence.say(fetch)
                    ),
                );
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Invariant::Idempotence, Verdict, story::Story};

    #[test]
    fn a_retry_with_the_same_answer_is_right() {
        let mut story = Story::with_keys(&[1, 2]);
        story.fetch("a", (2, 3), Some(1));
        story.index -= 1;
        story.fetch("a", (4, 5), Some(1));
        story.upload((6, 7), &[3], 2);
        story.upload((8, 9), &[3], 2);
        story.read((10, 11), Some((2, 3)), 3);
        story.holds(Idempotence);
        assert_eq!(story.judged(Idempotence).judged, 3);
    }

    #[test]
    fn without_retries_and_reads_nothing_is_judged() {
        let mut story = Story::with_keys(&[1]);
        story.fetch("a", (2, 3), Some(1));
        assert_eq!(story.judged(Idempotence).verdict(), Verdict::NotJudged);
    }

    #[test]
    fn a_retry_with_another_key_is_found() {
        let mut story = Story::with_keys(&[1, 2]);
        let first = story.fetch("a", (2, 3), Some(1));
        story.index -= 1;
        let again = story.fetch("a", (4, 5), Some(2));
        story.breaks(Idempotence, &[first, again]);
    }

    #[test]
    fn a_retry_without_a_key_is_found() {
        let mut story = Story::with_keys(&[1]);
        let first = story.fetch("a", (2, 3), Some(1));
        story.index -= 1;
        let again = story.fetch("a", (4, 5), None);
        story.breaks(Idempotence, &[first, again]);
    }

    #[test]
    fn a_retry_that_was_carried_out_again_is_found_by_its_index() {
        let mut story = Story::with_keys(&[1]);
        let first = story.fetch("a", (2, 3), Some(1));
        let again = story.fetch("a", (4, 5), Some(1));
        story.breaks(Idempotence, &[first, again]);
    }

    #[test]
    fn an_upload_with_two_answers_is_found() {
        let mut story = Story::with_keys(&[1]);
        let first = story.upload((2, 3), &[2], 2);
        let again = story.upload((4, 5), &[2], 3);
        story.breaks(Idempotence, &[first, again]);
    }

    #[test]
    fn a_key_that_a_retried_upload_brought_back_is_found() {
        let mut story = Story::with_keys(&[1]);
        let a = story.fetch("a", (2, 3), Some(1));
        let read = story.read((4, 5), Some((1, 1)), 1);
        story.breaks(Idempotence, &[a, read]);
    }
}
