//! What a batch tells of the pools that its fetches met.

use oncekey_types::{LogIndex, TimestampMs};

use super::rules::{Shard, dispense, register};
use crate::{Met, apply, command::Batch, outcome::Outcome};

fn met(shard: &mut Shard, requests: &[&str]) -> Vec<Met> {
    let commands = requests.iter().map(|request| dispense("alice", request)).collect();
    let batch = Batch { time: TimestampMs(shard.time), policy: shard.policy, commands };
    let applied = apply(&shard.state, LogIndex(100), &batch).unwrap();
    shard.state.commit(applied.changes);
    applied.met
}

#[test]
fn every_fetch_tells_what_it_left_and_a_retry_tells_nothing() {
    let mut shard = Shard::new();
    shard.time = 1_700;
    let registered = shard.apply(register(1, 1, &[1, 2]));
    assert!(matches!(registered, Outcome::Registered(_)), "{registered:?}");
    shard.apply(register(2, 1, &[]));
    // The sample's signed prekey is of second 1 and good until second 2.
    let left = |left, signed_prekey_age_s, signed_prekey_expired| Met {
        left,
        signed_prekey_age_s,
        signed_prekey_expired,
    };
    let fresh = |number| left(number, 0, false);
    let both = [fresh(1), fresh(0), fresh(0), fresh(0)];
    assert_eq!(met(&mut shard, &["a", "b", "a"]), both, "one for each device and fetch");
    shard.time = 2_000;
    assert_eq!(met(&mut shard, &["c"]), [left(0, 1, true), left(0, 1, true)], "empty and too old");
}
