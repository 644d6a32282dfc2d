use super::super::{Invariant::Witness, Verdict, story::Story};

#[test]
fn answers_in_the_order_of_the_log_are_right() {
    let mut story = Story::with_keys(&[1, 2]);
    story.fetch("a", (2, 3), Some(1));
    story.read((4, 5), Some((2, 2)), 2);
    story.upload((6, 7), &[3], 2);
    story.rotate((8, 9), 2, 2, 3);
    story.fetch("b", (10, 11), Some(2));
    story.fetch("c", (12, 13), Some(3));
    story.fetch("d", (14, 15), None);
    story.holds(Witness);
}

#[test]
fn operations_of_one_entry_are_put_in_order() {
    let mut story = Story::with_keys(&[]);
    story.fetch("d", (2, 20), Some(2));
    for (request, told) in [("c", None), ("b", Some(1))] {
        story.index -= 1;
        story.fetch(request, (3, 20), told);
    }
    story.index -= 1;
    story.upload((4, 20), &[1, 2], 2);
    story.holds(Witness);
}

#[test]
fn registrations_of_one_entry_come_by_their_numbers() {
    let mut story = Story::with_keys(&[]);
    story.registration = 3;
    story.register((2, 9), 2, &[1]);
    (story.registration, story.index) = (2, story.index - 1);
    story.register((3, 9), 3, &[1]);
    story.holds(Witness);
}

#[test]
fn a_repeated_write_may_be_told_a_later_index() {
    let mut story = Story::with_keys(&[]);
    story.index = 5;
    story.upload((2, 9), &[1, 2], 2);
    story.index = 2;
    story.fetch("a", (3, 8), Some(1));
    story.holds(Witness);
}

#[test]
fn an_answer_from_the_past_is_found() {
    let mut story = Story::with_keys(&[1, 2]);
    let a = story.fetch("a", (2, 3), Some(1));
    story.index -= 1;
    let b = story.fetch("b", (4, 5), Some(2));
    story.breaks(Witness, &[a, b]);
}

#[test]
fn an_answer_from_the_past_is_found_beside_a_call_that_takes_long() {
    let mut story = Story::with_keys(&[1, 2, 3]);
    story.fetch("long", (2, 30), Some(1));
    let a = story.fetch("a", (3, 4), Some(2));
    story.index -= 1;
    let b = story.fetch("b", (5, 6), Some(3));
    story.breaks(Witness, &[a, b]);
}

#[test]
fn an_answer_from_the_past_is_found_between_users_of_a_shard() {
    let mut story = Story::with_keys(&[1]);
    story.user = "carol";
    story.register((0, 1), 1, &[1]);
    let carol = story.fetch("a", (2, 3), Some(1));
    (story.user, story.index) = ("bob", story.index - 1);
    let bob = story.fetch("b", (4, 5), Some(1));
    story.breaks(Witness, &[carol, bob]);
}

#[test]
fn a_write_comes_before_the_fetch_of_its_entry_that_took_a_key_it_counts() {
    let mut story = Story::with_keys(&[1]);
    story.fetch("a", (2, 20), Some(1));
    story.index -= 1;
    story.upload((3, 20), &[2], 2);
    story.fetch("b", (21, 22), Some(2));
    story.holds(Witness);
    let c = story.fetch("c", (23, 24), Some(3));
    story.breaks(Witness, &[c]);
}

#[test]
fn a_stale_read_is_found() {
    let mut story = Story::with_keys(&[1, 2]);
    let a = story.fetch("a", (2, 3), Some(1));
    story.index -= 1;
    let read = story.read((4, 5), Some((1, 2)), 2);
    story.breaks(Witness, &[a, read]);
}

#[test]
fn a_key_out_of_the_order_of_the_log_is_found_between_overlapping_fetches() {
    let mut story = Story::with_keys(&[1, 2]);
    let a = story.fetch("a", (2, 9), Some(2));
    story.fetch("b", (3, 9), Some(1));
    story.breaks(Witness, &[a]);
}

#[test]
fn an_upload_that_was_accepted_again_is_found() {
    let mut story = Story::with_keys(&[1]);
    story.fetch("a", (2, 3), Some(1));
    story.registration = 2;
    let anew = story.register((4, 5), 1, &[1]);
    story.breaks(Witness, &[anew]);
}

#[test]
fn keys_of_a_removed_device_that_are_accepted_again_are_found() {
    let mut story = Story::with_keys(&[1]);
    story.fetch("a", (2, 3), Some(1));
    story.remove((4, 5));
    story.registration = 2;
    let anew = story.register((6, 7), 1, &[1]);
    story.breaks(Witness, &[anew]);
}

#[test]
fn a_number_that_two_registrations_are_told_is_found() {
    let mut story = Story::with_keys(&[1]);
    let other = story.register((2, 3), 2, &[1]);
    story.breaks(Witness, &[other]);
}

#[test]
fn a_torn_fetch_of_two_devices_is_found() {
    let mut story = Story::with_keys(&[1]);
    story.registration = 2;
    story.register((2, 3), 2, &[1]);
    story.registration = 1;
    story.fetch_all("a", (4, 20), &[Some(1), None]);
    let b = story.fetch_all("b", (5, 20), &[None, Some(1)]);
    let found = story.judged(Witness).violated;
    assert!(found > 0, "{b}");
}

#[test]
fn an_account_with_an_open_operation_is_not_judged() {
    let mut story = Story::with_keys(&[1]);
    story.fetch_without_answer("a", 2);
    assert_eq!(story.judged(Witness).verdict(), Verdict::NotJudged);
}

#[test]
fn without_log_indexes_nothing_is_judged() {
    let mut story = Story::with_keys(&[1]);
    story.fetch("a", (2, 3), Some(1));
    assert!(story.judged(Witness).is_judged_in_full());
    story.without_indexes();
    assert_eq!(story.judged(Witness).verdict(), Verdict::NotJudged);
}

#[test]
fn a_repeated_write_comes_where_it_is_needed_whatever_was_sent_after_it() {
    let mut story = Story::with_keys(&[]);
    story.index = 6;
    story.upload((2, 20), &[1], 1);
    story.index = 2;
    story.fetch("a", (3, 4), Some(1));
    story.index = 4;
    story.fetch("b", (5, 6), None);
    story.upload((7, 8), &[2], 1);
    story.holds(Witness);
}

#[test]
fn a_key_whose_upload_was_sent_when_the_entry_of_its_fetch_was_answered_is_found() {
    let mut story = Story::with_keys(&[]);
    let a = story.fetch("a", (2, 20), Some(1));
    story.index -= 1;
    story.fetch("b", (3, 4), None);
    story.upload((5, 6), &[1], 1);
    story.breaks(Witness, &[a]);
}

#[test]
fn writes_of_one_entry_come_in_any_order_before_the_fetch_that_took_a_key_they_count() {
    let mut story = Story::with_keys(&[1]);
    story.fetch("a", (2, 20), Some(1));
    for (sent, ids, count) in [(3, [3], 3), (4, [2], 2)] {
        story.index -= 1;
        story.upload((sent, 20), &ids, count);
    }
    story.fetch("b", (21, 22), Some(2));
    story.fetch("c", (23, 24), Some(3));
    story.holds(Witness);
}

#[test]
fn of_two_writes_that_get_their_answers_the_one_that_a_fetch_needs_comes_first() {
    let mut story = Story::with_keys(&[]);
    story.fetch("a", (2, 20), Some(1));
    story.index -= 1;
    story.fetch("b", (3, 20), Some(2));
    story.upload((4, 20), &[3], 1);
    story.index = 4;
    story.upload((5, 20), &[1, 2], 2);
    story.fetch("c", (21, 22), Some(3));
    story.holds(Witness);
}
