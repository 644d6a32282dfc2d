//! Invariant 1: no key goes to two requests.
//!
//! For every key k, at most one logical operation has an answer that holds k. A reply that was
//! given counts even when its client saw it late, or a later reply of the same request said
//! otherwise; an answer without a quorum counts too.
//!
//! Needs: the answers. Leaves out: replies that nobody received. They are found as keys that are
//! missing in the end, by [conservation](super::conservation).

use super::{
    Finding, Invariant,
    evidence::{Evidence, of_fetch},
};

pub(super) fn check(evidence: &Evidence<'_>) -> Finding {
    let mut finding = Finding::new(Invariant::Unique);
    let mut handed: Vec<_> = evidence
        .handed()
        .map(|handed| (handed.of.user, handed.device, handed.opk.0, handed.fetch))
        .collect();
    handed.sort_unstable();
    handed.dedup();
    for same in handed.chunk_by(|a, b| (a.0, a.1, a.2) == (b.0, b.1, b.2)) {
        finding.judged += 1;
        if let [(_, device, id, _), _, ..] = same {
            let fetches = same.iter().map(|(.., fetch)| &evidence.history.fetches[*fetch]);
            let requests: Vec<_> = fetches.clone().map(|fetch| evidence.say(fetch)).collect();
            finding.violation(
                fetches.flat_map(of_fetch),
                format!(
                    "key {id} of device {device} went to {} requests: {}",
                    same.len(),
                    requests.join(", ")
                ),
            );
        }
    }
    finding
}

#[cfg(test)]
mod tests {
    use super::super::{Invariant::Unique, story::Story};

    #[test]
    fn a_key_for_each_request_is_right() {
        let mut story = Story::with_keys(&[1, 2]);
        story.fetch("a", (2, 3), Some(1));
        story.fetch("b", (4, 5), Some(2));
        story.holds(Unique);
    }

    #[test]
    fn a_key_that_went_to_two_requests_is_found() {
        let mut story = Story::with_keys(&[1, 2]);
        let a = story.fetch("a", (2, 3), Some(1));
        let b = story.fetch("b", (4, 5), Some(1));
        story.breaks(Unique, &[a, b]);
    }

    #[test]
    fn a_key_in_a_second_answer_to_a_request_counts() {
        let mut story = Story::with_keys(&[1, 2]);
        let a = story.fetch("a", (2, 3), Some(1));
        let again = story.fetch("a", (4, 5), Some(2));
        let b = story.fetch("b", (6, 7), Some(2));
        story.breaks(Unique, &[a, again, b]);
    }

    #[test]
    fn a_key_in_an_answer_without_a_quorum_counts() {
        let mut story = Story::with_keys(&[1, 2]);
        let a = story.fetch_alone("a", (2, 3), Some(1));
        let b = story.fetch("b", (4, 5), Some(1));
        story.breaks(Unique, &[a, b]);
    }

    #[test]
    fn equal_ids_of_two_devices_are_two_keys() {
        let mut story = Story::with_keys(&[1]);
        story.registration = 2;
        story.register((2, 3), 2, &[1]);
        story.registration = 1;
        story.fetch_all("a", (4, 5), &[Some(1), Some(1)]);
        story.holds(Unique);
    }
}
