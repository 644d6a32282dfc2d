//! Invariant 2: every key handed out was uploaded for its device, byte for byte, before.
//!
//! For every key k in an answer of P there is an upload A of the same device with the same bytes
//! under the same id, and inv(A) < ret(P). A was not refused. No registration or removal took k
//! away before P was sent. An answer that was given without a quorum holds no key at all.
//!
//! Needs: the uploads with the digests of their keys. Leaves out: whether the upload was accepted;
//! a key that is handed out was.

use super::{
    Finding, Invariant,
    evidence::{Evidence, Handed, of_fetch, of_write, say_write},
};

pub(super) fn check(evidence: &Evidence<'_>) -> Finding {
    let mut finding = Finding::new(Invariant::Provenance);
    for handed in evidence.handed() {
        finding.judged += 1;
        let (id, device) = (handed.opk.0, handed.device);
        let key = format_args!("key {id} of device {device}");
        let who = evidence.say(handed.of);
        if handed.alone {
            finding.violation([handed.op], format!("{key} was handed to {who} without a quorum"));
        } else if let Some(why) = fault(evidence, &handed) {
            let (others, why) = why;
            finding.violation(
                others.into_iter().chain(of_fetch(handed.of)),
                format!("{key} was handed to {who}, {why}"),
            );
        }
    }
    finding
}

type Why = (Vec<crate::history::record::OperationId>, String);

/// What is wrong with where a key comes from.
fn fault(evidence: &Evidence<'_>, handed: &Handed<'_>) -> Option<Why> {
    let id = handed.opk.0;
    let known = evidence.device(handed.of.user, handed.device);
    let offers = known.map(|device| device.offers(id)).unwrap_or_default();
    if offers.is_empty() {
        return Some((Vec::new(), "and nobody uploaded it".to_owned()));
    }
    let writes = &evidence.history.writes;
    let Some(offer) = offers.iter().find(|offer| offer.digest == handed.opk.1) else {
        let write = &writes[offers[0].write];
        let why = format!("with other bytes than in the {}", say_write(write));
        return Some((of_write(write).collect(), why));
    };
    let write = &writes[offer.write];
    if write.invoked() >= handed.of.returned() {
        let why = format!("before the {} was sent", say_write(write));
        return Some((of_write(write).collect(), why));
    }
    let device = known?;
    let gone = device.withdrawn_before(device.life(id)?, handed.of.invoked())?;
    let write = &writes[gone];
    let why = format!("after the {} took it away", say_write(write));
    Some((of_write(write).collect(), why))
}

#[cfg(test)]
mod tests {
    use super::super::{Invariant::Provenance, story::Story};

    #[test]
    fn a_key_may_be_handed_out_before_its_upload_is_answered() {
        let mut story = Story::with_keys(&[]);
        story.upload((2, 9), &[1], 1);
        story.fetch("a", (3, 4), Some(1));
        story.holds(Provenance);
    }

    #[test]
    fn a_key_of_an_upload_without_an_answer_is_right() {
        let mut story = Story::with_keys(&[]);
        story.upload_without_answer(2, &[1]);
        story.fetch("a", (3, 4), Some(1));
        story.holds(Provenance);
    }

    #[test]
    fn a_key_that_nobody_uploaded_is_found() {
        let mut story = Story::with_keys(&[1]);
        let a = story.fetch("a", (2, 3), Some(7));
        story.breaks(Provenance, &[a]);
    }

    #[test]
    fn a_key_that_was_uploaded_later_is_found() {
        let mut story = Story::with_keys(&[]);
        let a = story.fetch("a", (2, 3), Some(1));
        let upload = story.upload((4, 5), &[1], 1);
        story.breaks(Provenance, &[a, upload]);
    }

    #[test]
    fn a_key_that_was_uploaded_when_its_answer_had_come_is_found() {
        let mut story = Story::with_keys(&[]);
        let a = story.fetch("a", (2, 4), Some(1));
        let upload = story.upload((4, 5), &[1], 1);
        story.breaks(Provenance, &[a, upload]);
    }

    #[test]
    fn a_key_without_a_quorum_is_found() {
        let mut story = Story::with_keys(&[1]);
        let a = story.fetch_alone("a", (2, 3), Some(1));
        story.breaks(Provenance, &[a]);
    }

    #[test]
    fn a_key_of_an_earlier_registration_is_found() {
        let mut story = Story::with_keys(&[1]);
        story.registration = 2;
        let anew = story.register((2, 3), 1, &[2]);
        let a = story.fetch("a", (4, 5), Some(1));
        story.breaks(Provenance, &[anew, a]);
    }

    #[test]
    fn a_key_of_a_removed_device_is_found() {
        let mut story = Story::with_keys(&[1]);
        let removal = story.remove((2, 3));
        let a = story.fetch("a", (4, 5), Some(1));
        story.breaks(Provenance, &[removal, a]);
    }
}
