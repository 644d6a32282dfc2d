//! Invariant 7: identity keys and signed prekeys are those of some moment of the call.
//!
//! Each device has two registers: its registration with the identity key, written by
//! registrations, and its signed prekey, written by registrations and rotations. Fetches, reads of
//! a pool and answers to writes read them. A register whose values are written once each is
//! linearizable exactly if (Gibbons and Korach, *Testing shared memories*, 1997)
//!
//! - every value read was written, by a write that was sent before the read had ended;
//! - no two values have to be current at one moment. Take for a value the earliest end and the
//!   latest beginning of the operations that write and read it. When the end comes first, the
//!   value has to be current in between (a forward zone), otherwise at one moment in between (a
//!   backward zone). Forward zones must not overlap, and no backward zone may lie inside one.
//!
//! Needs: registrations and rotations. Leaves out: answers without a quorum, which may be old; and
//! a device of which two writes bring the same signed prekey, which is said.

use std::{collections::BTreeMap, fmt};

use oncekey_types::{DeviceId, RegistrationId, SignedPreKeyId};

use super::{
    Finding, Invariant,
    evidence::{Evidence, of_write, say_write},
};
use crate::history::{
    Content, Name, Write,
    record::{At, Digest, OperationId, Spk},
};

pub(super) fn check(evidence: &Evidence<'_>) -> Finding {
    let mut finding = Finding::new(Invariant::Register);
    let mut devices = written(evidence, &mut finding);
    let history = evidence.history;
    for fetch in &history.fetches {
        let Some(op) = fetch.tries.first().map(|call| call.op) else { continue };
        let span = Span { invoked: fetch.invoked(), returned: fetch.returned(), op };
        for bundle in fetch.bundles() {
            finding.judged += 1;
            let device = devices.entry((fetch.user, bundle.device)).or_default();
            device.reads_registration(bundle.registration, Some(bundle.identity), span);
            device.spks.zone(bundle.spk).read(span);
        }
    }
    for read in &history.reads {
        finding.judged += 1;
        let span = Span { invoked: read.invoked, returned: read.returned, op: read.op };
        let device = devices.entry((read.user, read.device)).or_default();
        device.reads_registration(read.registration, None, span);
        device.reads_spk(read.spk(), span);
    }
    for write in &history.writes {
        let Some(answer) = write.answer() else { continue };
        let (Some(pool), Some(op)) = (answer.says.pool, of_write(write).next()) else { continue };
        finding.judged += 1;
        let span = Span { invoked: write.invoked(), returned: write.returned(), op };
        let device = devices.entry((write.user, write.device)).or_default();
        match write.spk() {
            None => device.reads_spk(pool.spk, span),
            Some(spk) if spk.0 == pool.spk => {}
            Some(spk) => finding.violation(
                of_write(write),
                format!(
                    "the {} brings signed prekey {} and is told that {} is current",
                    say_write(write),
                    spk.0,
                    pool.spk
                ),
            ),
        }
    }
    for ((_, number), device) in devices {
        device.judge(number, &mut finding);
    }
    finding
}

/// The registers of a device.
#[derive(Default)]
struct Device {
    registrations: Register<RegistrationId>,
    spks: Register<Spk>,
    /// The identity key of each registration that was answered.
    identities: BTreeMap<RegistrationId, Digest>,
    /// Registrations without an answer: their numbers are not known.
    unanswered: Vec<(Digest, Span)>,
    /// Reads with another identity key than the registration's.
    mistaken: Vec<(RegistrationId, OperationId)>,
    /// The signed prekeys that were written under each id.
    ids: BTreeMap<SignedPreKeyId, Vec<Spk>>,
}

/// The registers, as they are written.
fn written(evidence: &Evidence<'_>, finding: &mut Finding) -> BTreeMap<(Name, DeviceId), Device> {
    let mut devices: BTreeMap<_, Device> = BTreeMap::new();
    for write in &evidence.history.writes {
        let Some(op) = of_write(write).next() else { continue };
        let answer = write.answer();
        if answer.is_none() && !write.is_undecided() {
            continue;
        }
        let device = devices.entry((write.user, write.device)).or_default();
        let span = Span { invoked: write.invoked(), returned: write.returned(), op };
        if let Some(spk) = write.spk() {
            device.ids.entry(spk.0).or_default().push(spk);
            device.spks.zone(spk).write(span);
        }
        let Content::Register { identity, .. } = write.content else { continue };
        match answer.and_then(|answer| answer.says.registration) {
            None => device.unanswered.push((identity, span)),
            Some(registration) => {
                if device.identities.insert(registration, identity).is_some() {
                    finding.violation(of_write(write), given_twice(write, registration));
                }
                device.registrations.zone(registration).write(span);
            }
        }
    }
    devices
}

fn given_twice(write: &Write, registration: RegistrationId) -> String {
    format!("the {} is told number {registration}, as another was before", say_write(write))
}

impl Device {
    fn reads_registration(
        &mut self,
        registration: RegistrationId,
        identity: Option<Digest>,
        span: Span,
    ) {
        if !self.identities.contains_key(&registration)
            && let Some(place) = self.unanswered.iter().position(|(written, write)| {
                identity.is_none_or(|identity| identity == *written)
                    && write.invoked < span.returned
            })
        {
            let (identity, write) = self.unanswered.remove(place);
            self.identities.insert(registration, identity);
            self.registrations.zone(registration).write(write);
        }
        let known = self.identities.get(&registration);
        if identity.is_some() && known.is_some() && identity.as_ref() != known {
            self.mistaken.push((registration, span.op));
        }
        self.registrations.zone(registration).read(span);
    }

    /// A signed prekey of which only the id is told.
    fn reads_spk(&mut self, id: SignedPreKeyId, span: Span) {
        match self.ids.get(&id).map(Vec::as_slice) {
            Some([spk]) => self.spks.zone(*spk).read(span),
            // Which of several was meant nobody can say.
            Some(_) => {}
            None => self.spks.zone(Spk(id, Digest([0; 16]))).read(span),
        }
    }

    fn judge(self, number: DeviceId, finding: &mut Finding) {
        for (registration, op) in self.mistaken {
            let message = format!(
                "operation {op} is told another identity key of device {number} than registration \
                 {registration} brought"
            );
            finding.violation([op], message);
        }
        self.registrations.judge(&format!("of device {number}: registration"), finding);
        self.spks.judge(&format!("of device {number}: signed prekey"), finding);
    }
}

/// From the first try of an operation to its first answer.
#[derive(Clone, Copy)]
struct Span {
    invoked: At,
    returned: At,
    op: OperationId,
}

/// The values of a register, and when each has to be current.
struct Register<V>(BTreeMap<V, Zone>);

impl<V> Default for Register<V> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

/// What is known of one value.
#[derive(Clone, Copy, Default)]
struct Zone {
    write: Option<Span>,
    written_twice: bool,
    /// The operation that ended first.
    first: Option<Span>,
    /// The read that ended first.
    first_read: Option<Span>,
    /// The operation that began last.
    last: Option<Span>,
}

impl Zone {
    fn write(&mut self, span: Span) {
        self.written_twice |= self.write.is_some();
        self.write = Some(span);
        self.touch(span);
    }

    fn read(&mut self, span: Span) {
        let earlier = |first: Span| span.returned < first.returned;
        if self.first_read.is_none_or(earlier) {
            self.first_read = Some(span);
        }
        self.touch(span);
    }

    fn touch(&mut self, span: Span) {
        if self.first.is_none_or(|first| span.returned < first.returned) {
            self.first = Some(span);
        }
        if self.last.is_none_or(|last| last.invoked < span.invoked) {
            self.last = Some(span);
        }
    }
}

impl<V: Ord + Copy + fmt::Display> Register<V> {
    fn zone(&mut self, value: V) -> &mut Zone {
        self.0.entry(value).or_default()
    }

    /// Reports why the register is not linearizable. `what` says what it holds.
    fn judge(&self, what: &str, finding: &mut Finding) {
        if let Some((value, _)) = self.0.iter().find(|(_, zone)| zone.written_twice) {
            finding.not_judged.push(format!("{what} {value} was written twice"));
            return;
        }
        let (mut forward, mut backward) = (Vec::new(), Vec::new());
        for (value, zone) in &self.0 {
            let (Some(first), Some(last)) = (zone.first, zone.last) else { continue };
            match (zone.write, zone.first_read) {
                (None, _) => {
                    let op = first.op;
                    finding.violation(
                        [op],
                        format!("operation {op} is told {what} {value}, which nobody wrote"),
                    );
                }
                (Some(write), Some(read)) if read.returned < write.invoked => finding.violation(
                    [write.op, read.op],
                    format!(
                        "operation {} is told {what} {value}, which operation {} wrote later",
                        read.op, write.op
                    ),
                ),
                // Nobody knows whether it was written.
                (Some(write), None) if write.returned == At::NEVER => {}
                (Some(_), _) if first.returned < last.invoked => {
                    forward.push((first, last, *value));
                }
                (Some(_), _) => backward.push((first, last, *value)),
            }
        }
        forward.sort_by_key(|(first, ..)| first.returned);
        for pair in forward.windows(2) {
            if pair[1].0.returned < pair[0].1.invoked {
                clash(what, pair[0], pair[1], finding);
                return;
            }
        }
        for zone in backward {
            let (first, last, _) = zone;
            let after = forward.partition_point(|(begun, ..)| begun.returned < last.invoked);
            if let Some(around) = after.checked_sub(1).map(|place| forward[place])
                && first.returned < around.1.invoked
            {
                clash(what, around, zone, finding);
            }
        }
    }
}

/// Two values have to be current at one moment.
fn clash<V: fmt::Display>(
    what: &str,
    (first, last, value): (Span, Span, V),
    (other_first, other_last, other): (Span, Span, V),
    finding: &mut Finding,
) {
    finding.violation(
        [first.op, last.op, other_first.op, other_last.op],
        format!(
            "{what} {value} is current from the end of operation {} to the beginning of operation \
             {}; {other} is current in between, by operations {} and {}",
            first.op, last.op, other_first.op, other_last.op
        ),
    );
}

impl fmt::Display for Spk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Invariant::Register, story::Story};

    #[test]
    fn the_current_signed_prekey_is_right_and_during_a_rotation_both_are() {
        let mut story = Story::with_keys(&[1, 2, 3]);
        story.fetch("a", (2, 3), Some(1));
        story.rotate((4, 12), 2, 2, 3);
        story.spk = 1;
        story.index -= 1;
        story.fetch("b", (5, 6), Some(2));
        story.spk = 2;
        story.index += 1;
        story.fetch("c", (10, 11), Some(3));
        story.read((13, 14), None, 3);
        let finding = story.judged(Register);
        assert_eq!((finding.violated, finding.judged), (0, 6), "{finding}");
    }

    #[test]
    fn the_old_signed_prekey_after_a_rotation_is_found() {
        let mut story = Story::with_keys(&[1]);
        let rotation = story.rotate((2, 3), 2, 1, 1);
        story.spk = 1;
        let a = story.fetch("a", (4, 5), Some(1));
        story.breaks(Register, &[rotation, a]);
    }

    #[test]
    fn a_signed_prekey_that_comes_and_goes_is_found() {
        let mut story = Story::with_keys(&[1, 2]);
        story.rotate((2, 9), 2, 2, 2);
        let new = story.fetch("a", (3, 4), Some(1));
        story.spk = 1;
        let old = story.fetch("b", (5, 6), Some(2));
        story.breaks(Register, &[new, old]);
    }

    #[test]
    fn a_signed_prekey_that_nobody_wrote_is_found() {
        let mut story = Story::with_keys(&[1]);
        story.spk = 7;
        let a = story.fetch("a", (2, 3), Some(1));
        story.breaks(Register, &[a]);
    }

    #[test]
    fn a_signed_prekey_before_its_rotation_is_found() {
        let mut story = Story::with_keys(&[1]);
        story.spk = 2;
        let a = story.fetch("a", (2, 3), Some(1));
        story.spk = 1;
        let rotation = story.rotate((4, 5), 2, 0, 1);
        story.breaks(Register, &[a, rotation]);
        story.fetch("b", (6, 7), None);
        story.breaks(Register, &[a, rotation]);
    }

    #[test]
    fn another_identity_key_under_the_same_registration_is_found() {
        let mut story = Story::with_keys(&[1]);
        story.identity = 2;
        let a = story.fetch("a", (2, 3), Some(1));
        story.breaks(Register, &[a]);
    }

    #[test]
    fn the_old_registration_after_a_new_one_is_found() {
        let mut story = Story::with_keys(&[1]);
        (story.registration, story.identity, story.spk) = (2, 2, 2);
        let anew = story.register((2, 3), 1, &[2]);
        (story.registration, story.identity) = (1, 1);
        let a = story.fetch("a", (4, 5), Some(2));
        story.breaks(Register, &[anew, a]);
    }

    #[test]
    fn a_registration_that_was_not_answered_may_be_read() {
        let mut story = Story::with_keys(&[]);
        story.remove((2, 3));
        (story.registration, story.identity, story.spk) = (2, 2, 2);
        story.register_without_answer(4, &[1]);
        story.fetch("a", (5, 6), Some(1));
        story.fetch("b", (7, 8), None);
        story.holds(Register);
    }

    #[test]
    fn a_registration_that_was_not_answered_may_be_read_by_its_device() {
        let mut story = Story::with_keys(&[]);
        story.remove((2, 3));
        (story.registration, story.spk) = (2, 2);
        story.register_without_answer(4, &[1]);
        story.read((5, 6), Some((1, 1)), 1);
        story.holds(Register);
    }

    #[test]
    fn of_registrations_that_were_not_answered_the_one_with_the_identity_key_came() {
        let mut story = Story::with_keys(&[]);
        story.remove((2, 3));
        (story.registration, story.identity, story.spk) = (2, 2, 2);
        story.register_without_answer(4, &[1]);
        (story.identity, story.spk) = (3, 3);
        story.register_without_answer(5, &[2]);
        story.fetch("a", (6, 7), Some(2));
        story.holds(Register);
    }

    #[test]
    fn a_registration_that_was_not_answered_has_one_identity_key() {
        let mut story = Story::with_keys(&[]);
        story.remove((2, 3));
        (story.registration, story.identity, story.spk) = (2, 2, 2);
        story.register_without_answer(4, &[1]);
        story.fetch("a", (5, 6), Some(1));
        story.identity = 3;
        let b = story.fetch("b", (7, 8), None);
        story.breaks_as(Register, &[b], "another identity key");
    }

    #[test]
    fn a_registration_may_bring_a_signed_prekey_with_a_lower_id() {
        let mut story = Story::with_keys(&[1]);
        story.rotate((2, 3), 5, 1, 1);
        story.fetch("a", (4, 5), Some(1));
        (story.registration, story.spk) = (2, 3);
        story.register((6, 7), 1, &[2]);
        story.fetch("b", (8, 9), Some(2));
        story.holds(Register);
    }

    #[test]
    fn a_read_that_is_told_the_old_signed_prekey_or_registration_is_found() {
        let mut story = Story::with_keys(&[1]);
        let rotation = story.rotate((2, 3), 2, 1, 1);
        story.spk = 1;
        let read = story.read((4, 5), Some((1, 1)), 1);
        story.breaks(Register, &[rotation, read]);

        let mut story = Story::with_keys(&[]);
        (story.registration, story.spk) = (2, 2);
        let anew = story.register((2, 3), 1, &[1]);
        story.registration = 1;
        let read = story.read((4, 5), Some((1, 1)), 1);
        story.breaks(Register, &[anew, read]);
    }

    #[test]
    fn a_rotation_that_is_told_another_signed_prekey_is_found() {
        let mut story = Story::with_keys(&[1]);
        let rotation = story.rotate_to(2, (2, 3), 1, 1);
        story.breaks_as(Register, &[rotation], "is told that 1 is current");
    }

    #[test]
    fn a_number_that_two_registrations_are_told_is_found() {
        let mut story = Story::with_keys(&[1]);
        story.spk = 2;
        let again = story.register((2, 3), 1, &[2]);
        story.breaks_as(Register, &[again], "as another was before");
    }

    #[test]
    fn a_signed_prekey_that_was_written_twice_is_not_judged() {
        let mut story = Story::with_keys(&[1]);
        story.registration = 2;
        story.register((2, 3), 1, &[2]);
        let finding = story.judged(Register);
        assert!(finding.violated == 0 && !finding.is_judged_in_full(), "{finding}");
    }
}
