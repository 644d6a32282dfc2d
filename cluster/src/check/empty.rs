//! Invariant 4: a pool that is said to be empty was empty at some moment of the call.
//!
//! A reply "exhausted" about a device has a moment in [inv, ret] at which no key of the device was
//! certainly there, that is, one outside every interval (ret(A(k)), inv(P(k))). A refusal for the
//! same reason is such a reply.
//!
//! Needs: the uploads. Leaves out: that the moment is the same for all devices of one fetch; the
//! [witness](super::witness) and the [search](super::search) judge that.

use oncekey_types::DeviceId;

use super::{
    Finding, Invariant,
    evidence::{Device, Evidence},
};
use crate::history::{
    Name, Outcome,
    record::{At, Issue, OperationId},
};

/// A reply that says that a pool is empty.
struct Claim {
    user: Name,
    device: DeviceId,
    invoked: At,
    returned: At,
    op: OperationId,
}

pub(super) fn check(evidence: &Evidence<'_>) -> Finding {
    let mut finding = Finding::new(Invariant::Empty);
    let mut claims = claims(evidence);
    claims.sort_by_key(|claim| (claim.user, claim.device));
    for claims in claims.chunk_by(|a, b| (a.user, a.device) == (b.user, b.device)) {
        let device = evidence.device(claims[0].user, claims[0].device);
        let filled = device.map(filled).unwrap_or_default();
        for claim in claims {
            finding.judged += 1;
            let next = filled.partition_point(|(from, _)| *from < claim.invoked);
            let Some((from, to)) = next.checked_sub(1).map(|place| filled[place]) else {
                continue;
            };
            if claim.returned < to {
                let key = device.and_then(|device| {
                    device.lives.iter().find(|life| {
                        life.added_by < claim.invoked && claim.invoked < life.gone_from
                    })
                });
                let key = key.map_or(String::new(), |key| format!(", among them key {}", key.id));
                finding.violation(
                    [claim.op],
                    format!(
                        "operation {} says that the pool of device {} is empty; it had keys from \
                         {} to {} ns{key}",
                        claim.op, claim.device, from.0, to.0
                    ),
                );
            }
        }
    }
    if finding.judged == 0 {
        finding.not_judged.push("no pool was said to be empty".to_owned());
    }
    finding
}

fn claims(evidence: &Evidence<'_>) -> Vec<Claim> {
    let mut claims = Vec::new();
    for fetch in &evidence.history.fetches {
        let user = fetch.user;
        for call in &fetch.tries {
            let op = call.op;
            match &call.outcome {
                Outcome::Done(answer) => {
                    // The answer may be that of an earlier try.
                    let (invoked, returned) = (fetch.invoked(), call.returned);
                    let empty = answer.says.iter().filter(|told| told.opk == Issue::Exhausted);
                    claims.extend(empty.map(|told| Claim {
                        user,
                        device: told.device,
                        invoked,
                        returned,
                        op,
                    }));
                }
                Outcome::Refused(refused) => {
                    let (invoked, returned) = (call.invoked, call.returned);
                    let empty = refused.exhausted;
                    claims.extend(empty.map(|device| Claim {
                        user,
                        device,
                        invoked,
                        returned,
                        op,
                    }));
                }
                Outcome::Unknown { .. } => {}
            }
        }
    }
    claims
}

/// The times at which the pool certainly had a key: disjoint open intervals, growing.
fn filled(device: &Device) -> Vec<(At, At)> {
    let certain = device.lives.iter().map(|life| (life.added_by, life.gone_from));
    let mut certain: Vec<_> = certain.filter(|(from, to)| from < to).collect();
    certain.sort_unstable();
    let mut filled: Vec<(At, At)> = Vec::new();
    for (from, to) in certain {
        match filled.last_mut() {
            // Two that only touch leave a moment between them.
            Some((_, last)) if from < *last => *last = (*last).max(to),
            _ => filled.push((from, to)),
        }
    }
    filled
}

#[cfg(test)]
mod tests {
    use super::super::{Invariant::Empty, Verdict, story::Story};

    #[test]
    fn a_pool_whose_last_key_may_be_gone_may_be_empty() {
        let mut story = Story::with_keys(&[1]);
        story.fetch("a", (2, 9), Some(1));
        story.fetch("b", (3, 4), None);
        story.holds(Empty);
    }

    #[test]
    fn a_pool_whose_upload_is_on_its_way_may_be_empty() {
        let mut story = Story::with_keys(&[]);
        story.fetch_refused("a", (2, 5));
        story.upload((3, 6), &[1], 1);
        story.holds(Empty);
    }

    #[test]
    fn a_key_may_have_gone_with_a_fetch_without_an_answer() {
        let mut story = Story::with_keys(&[1]);
        story.fetch_without_answer("a", 2);
        story.fetch("b", (3, 4), None);
        story.holds(Empty);
    }

    #[test]
    fn a_pool_with_a_key_that_is_said_to_be_empty_is_found() {
        let mut story = Story::with_keys(&[1]);
        let a = story.fetch("a", (2, 3), None);
        story.breaks(Empty, &[a]);
    }

    #[test]
    fn a_refusal_for_an_empty_pool_that_has_a_key_is_found() {
        let mut story = Story::with_keys(&[1]);
        let a = story.fetch_refused("a", (2, 3));
        story.fetch("b", (4, 5), Some(1));
        story.breaks(Empty, &[a]);
    }

    #[test]
    fn keys_that_relieve_each_other_leave_no_moment() {
        let mut story = Story::with_keys(&[1]);
        let a = story.fetch("a", (2, 9), None);
        story.upload((3, 4), &[2], 2);
        story.fetch("b", (5, 6), Some(1));
        story.fetch("c", (10, 11), Some(2));
        story.breaks(Empty, &[a]);
    }

    #[test]
    fn a_moment_between_two_keys_is_enough() {
        let mut story = Story::with_keys(&[1]);
        story.fetch("b", (2, 4), Some(1));
        story.fetch("a", (3, 9), None);
        story.upload((5, 6), &[2], 1);
        story.fetch("c", (10, 11), Some(2));
        story.holds(Empty);
    }

    #[test]
    fn without_an_empty_pool_nothing_is_judged() {
        let mut story = Story::with_keys(&[1]);
        story.fetch("a", (2, 3), Some(1));
        assert_eq!(story.judged(Empty).verdict(), Verdict::NotJudged);
    }

    #[test]
    fn an_upload_that_takes_long_does_not_hide_what_a_later_one_brought() {
        let mut story = Story::with_keys(&[]);
        story.upload((2, 20), &[1], 1);
        story.upload((3, 4), &[2], 2);
        let a = story.fetch("a", (5, 6), None);
        story.fetch("b", (30, 31), Some(1));
        story.fetch("c", (40, 41), Some(2));
        story.breaks(Empty, &[a]);
    }
}
