//! Flipped bits and missing files.

use super::*;

/// A disk with a log that has been through the script, and what it holds.
fn closed_log() -> (SimDisk, BTreeMap<GroupId, ModelGroup>) {
    let disk = SimDisk::new();
    let (mut bed, _) = Bed::open(&disk).unwrap();
    bed.run(&script()).unwrap();
    bed.wal.shutdown();
    (disk, bed.submitted.content())
}

fn segment_names(disk: &SimDisk) -> Vec<String> {
    let mut names = disk.names();
    names.retain(|name| name.ends_with(".log"));
    names
}

#[test]
fn a_flipped_bit_is_found_or_was_in_nothing_that_counts() {
    let (disk, expected) = closed_log();
    let (mut damaged, mut harmless) = (0, 0);
    for name in segment_names(&disk) {
        for byte in 0..disk.content(&name).unwrap().len() {
            let disk = disk.fork();
            let bit = u8::try_from(byte % 8).unwrap();
            disk.flip_bit(&name, byte, bit);
            match content(&disk) {
                Ok(found) => {
                    assert_eq!(found, expected, "bit {bit} of byte {byte} of {name} flipped");
                    harmless += 1;
                }
                Err(OpenError::Damaged { .. } | OpenError::Format { .. }) => damaged += 1,
                Err(error) => panic!("bit {bit} of byte {byte} of {name} flipped: {error}"),
            }
        }
    }
    assert!(damaged > 2000, "{damaged} found, {harmless} harmless");
}

#[test]
fn without_a_mark_only_the_last_batch_can_be_taken_for_torn() {
    let disk = SimDisk::new();
    let (mut bed, _) = Bed::open(&disk).unwrap();
    let script = script();
    let (last, before) = script.split_last().unwrap();
    bed.run(before).unwrap();
    let prior = bed.acknowledged.content();
    bed.step(last).unwrap();
    // The process dies here: nothing marks the end.
    disk.kill();
    let newest = segment_names(&disk).pop().unwrap();
    let mut torn = 0;
    for byte in 0..disk.content(&newest).unwrap().len() {
        let disk = disk.fork();
        disk.flip_bit(&newest, byte, 3);
        match content(&disk) {
            Ok(found) if found == prior => torn += 1,
            Ok(found) => assert_eq!(found, bed.acknowledged.content(), "byte {byte} of {newest}"),
            Err(OpenError::Damaged { .. } | OpenError::Format { .. }) => {}
            Err(error) => panic!("byte {byte} of {newest}: {error}"),
        }
    }
    // A header and two records, one of them a position that rode along.
    assert!((40..200).contains(&torn), "{torn} bytes of the last batch");
}

#[test]
fn an_idle_log_marks_its_last_batch() {
    let disk = SimDisk::new();
    let options = WalOptions { idle_mark_ms: Some(1), ..options() };
    let (mut bed, _) = Bed::open_with(&disk, options).unwrap();
    let batches = bed.wal.stats().batches;
    bed.step(&Step::Vote { group: 1, vote: 1 }).unwrap();
    while bed.wal.stats().batches < batches + 2 {
        std::thread::yield_now();
    }
    disk.kill();
    let log = disk.content("0000000000000001.log").unwrap();
    let vote = log.windows(9).position(|window| window == [1; 9]).unwrap();
    disk.flip_bit("0000000000000001.log", vote, 0);
    let refused = content(&disk).unwrap_err();
    assert!(matches!(refused, OpenError::Damaged { segment: 1, .. }), "{refused}");
}

#[test]
fn the_message_about_damage_says_what_to_do() {
    let (disk, _) = closed_log();
    let oldest = segment_names(&disk).remove(0);
    disk.flip_bit(&oldest, 100, 0);
    let message = content(&disk).unwrap_err().to_string();
    for part in ["must not vote", "wipe its data directory", "new node id"] {
        assert!(message.contains(part), "{message}");
    }
}

#[test]
fn a_missing_segment_is_found() {
    let (disk, _) = closed_log();
    let names = segment_names(&disk);
    assert!(names.len() > 2, "{names:?}");
    for name in names {
        let disk = disk.fork();
        disk.mount().remove(&name).unwrap();
        let refused = content(&disk).map(drop).unwrap_err();
        assert!(matches!(refused, OpenError::Damaged { .. }), "without {name}: {refused}");
    }
}

#[test]
fn a_damaged_seal_is_found() {
    // Nothing is purged here, so nothing but the seal gives the segments away.
    let disk = SimDisk::new();
    let (mut bed, _) = Bed::open(&disk).unwrap();
    for _ in 0..20 {
        bed.step(&Step::Append { group: 1, count: 1, bytes: 100 }).unwrap();
    }
    bed.wal.shutdown();
    let names = segment_names(&disk);
    for name in &names[..names.len() - 1] {
        let log = disk.content(name).unwrap();
        let id = u64::from_str_radix(&name[..16], 16).unwrap();
        let headers = (0..log.len()).step_by(8).filter_map(|at| {
            record::BatchHeader::decode(&log[at..], id).map(|header| (at, header.kind))
        });
        let (at, kind) = headers.max_by_key(|(at, _)| *at).unwrap();
        assert_eq!(kind, record::BatchKind::Seal, "{name}");
        let disk = disk.fork();
        disk.flip_bit(name, at + 20, 0);
        let refused = content(&disk).map(drop).unwrap_err();
        assert!(matches!(refused, OpenError::Damaged { .. }), "{name}: {refused}");
    }
}

#[test]
fn a_log_of_another_version_is_refused() {
    let disk = SimDisk::new();
    let (bed, _) = Bed::open(&disk).unwrap();
    bed.wal.shutdown();
    disk.flip_bit("0000000000000001.log", 8, 1);
    let refused = content(&disk).unwrap_err();
    assert!(matches!(refused, OpenError::Format { found: 3, expected: 1, .. }), "{refused}");
}

#[test]
fn reading_a_damaged_entry_is_an_error() {
    let disk = SimDisk::new();
    let (mut bed, _) = Bed::open(&disk).unwrap();
    bed.step(&Step::Append { group: 1, count: 2, bytes: 50 }).unwrap();
    let entries = bed.wal.read(GroupId(1), 0..9).unwrap();
    let log = disk.content("0000000000000001.log").unwrap();
    let second = log.windows(58).position(|window| window == entries[1].1).unwrap();
    disk.flip_bit("0000000000000001.log", second + 20, 5);
    assert_eq!(bed.wal.read(GroupId(1), 0..1).unwrap(), entries[..1]);
    let refused = bed.wal.read(GroupId(1), 0..2).unwrap_err();
    assert!(matches!(refused, ReadError::Damaged { group: 1, index: 1, .. }), "{refused}");
}
