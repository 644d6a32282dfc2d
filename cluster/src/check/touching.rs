//! Calls that touch: one was sent in the very moment in which another was answered.
//!
//! They overlap, so either may have taken effect first, and whoever tells what the later one did is
//! not to blame.

use super::{
    Invariant::{Count, Empty, Fifo, Provenance, Register},
    story::Story,
};

#[test]
fn a_key_may_be_seen_when_it_was_just_handed_out() {
    let mut story = Story::with_keys(&[1]);
    story.fetch("a", (2, 4), Some(1));
    story.index = 1;
    story.read((4, 5), Some((1, 1)), 1);
    story.holds(Count);
}

#[test]
fn a_key_may_be_gone_when_it_is_about_to_be_handed_out() {
    let mut story = Story::with_keys(&[1]);
    story.index = 2;
    story.read((2, 4), None, 1);
    story.index = 1;
    story.fetch("a", (4, 5), Some(1));
    story.holds(Count);

    let mut story = Story::with_keys(&[1]);
    story.index = 2;
    story.fetch("a", (2, 4), None);
    story.index = 1;
    story.fetch("b", (4, 5), Some(1));
    story.holds(Empty);
}

#[test]
fn a_key_may_be_seen_when_it_is_about_to_be_uploaded() {
    let mut story = Story::with_keys(&[1]);
    story.index = 2;
    story.read((2, 4), Some((1, 2)), 2);
    story.index = 1;
    story.upload((4, 5), &[2], 2);
    story.holds(Count);
}

#[test]
fn a_pool_may_be_empty_when_its_key_was_just_uploaded() {
    let mut story = Story::with_keys(&[]);
    story.index = 2;
    story.upload((2, 4), &[1], 1);
    story.index = 1;
    story.fetch("a", (4, 6), None);
    story.index = 3;
    story.fetch("b", (7, 8), Some(1));
    story.holds(Empty);
}

#[test]
fn a_pool_may_be_empty_between_a_key_that_goes_and_one_that_comes() {
    let mut story = Story::with_keys(&[1]);
    story.index = 2;
    story.fetch("a", (2, 9), None);
    story.upload((3, 4), &[2], 1);
    story.index = 1;
    story.fetch("b", (4, 8), Some(1));
    story.index = 4;
    story.fetch("c", (10, 11), Some(2));
    story.holds(Empty);
}

#[test]
fn a_key_may_be_there_for_a_moment_only() {
    let mut story = Story::with_keys(&[]);
    story.upload((2, 4), &[1], 1);
    story.fetch("a", (4, 6), Some(1));
    story.index = 2;
    story.read((4, 5), Some((1, 1)), 1);
    story.holds(Count);
}

#[test]
fn a_later_key_may_be_handed_out_just_before_an_earlier_one() {
    let mut story = Story::with_keys(&[1, 2]);
    story.index = 2;
    story.fetch("a", (2, 4), Some(2));
    story.index = 1;
    story.fetch("b", (4, 5), Some(1));
    story.holds(Fifo);
}

#[test]
fn a_key_may_be_handed_out_when_a_registration_has_just_taken_it_away() {
    let mut story = Story::with_keys(&[1]);
    (story.index, story.registration) = (2, 2);
    story.register((2, 4), 1, &[2]);
    (story.index, story.registration) = (1, 1);
    story.fetch("a", (4, 5), Some(1));
    story.holds(Provenance);
}

/// A registration, and an upload that was answered when it was sent and came after it.
fn registered_before_an_upload() -> Story {
    let mut story = Story::with_keys(&[1]);
    story.index = 2;
    story.upload((2, 4), &[3], 2);
    (story.index, story.registration) = (1, 2);
    story.register((4, 5), 1, &[2]);
    story.index = 3;
    story.fetch("a", (6, 7), Some(2));
    story
}

#[test]
fn a_key_stays_when_its_upload_comes_after_a_registration() {
    let mut story = registered_before_an_upload();
    story.read((8, 9), Some((3, 3)), 3);
    story.holds(Count);

    let mut story = registered_before_an_upload();
    story.fetch("b", (8, 9), Some(3));
    story.holds(Provenance);
}

#[test]
fn a_key_goes_when_its_upload_comes_before_a_registration() {
    let mut story = Story::with_keys(&[1]);
    (story.index, story.registration) = (2, 2);
    story.register((2, 4), 1, &[4]);
    story.index = 1;
    story.upload((4, 5), &[3], 2);
    story.index = 3;
    story.fetch("a", (6, 7), Some(4));
    story.fetch("b", (8, 9), None);
    story.holds(Empty);
}

#[test]
fn a_signed_prekey_may_be_told_when_its_rotation_is_about_to_be_sent() {
    let mut story = Story::with_keys(&[1]);
    (story.index, story.spk) = (2, 2);
    story.fetch("a", (2, 4), Some(1));
    story.index = 1;
    story.rotate((4, 5), 2, 1, 1);
    story.holds(Register);
}

#[test]
fn the_old_signed_prekey_may_be_told_when_its_rotation_was_just_answered() {
    let mut story = Story::with_keys(&[1]);
    story.index = 2;
    story.rotate((2, 4), 2, 0, 1);
    (story.index, story.spk) = (1, 1);
    story.fetch("a", (4, 5), Some(1));
    (story.index, story.spk) = (3, 2);
    story.fetch("b", (10, 11), None);
    story.holds(Register);
}

#[test]
fn a_signed_prekey_may_be_current_for_a_moment_only() {
    let mut story = Story::with_keys(&[1]);
    story.index = 2;
    story.rotate((2, 4), 3, 1, 1);
    story.index = 1;
    story.rotate((4, 6), 2, 1, 1);
    (story.index, story.spk) = (3, 3);
    story.fetch("a", (10, 11), Some(1));
    story.holds(Register);
}
