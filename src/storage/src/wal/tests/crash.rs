//! Every operation of the disk as the moment at which the power goes.

use super::*;

/// Torn prefixes tried per crash, evenly spread.
const PREFIXES: usize = 12;
/// Draws of lost sectors tried per crash.
const DRAWS: u64 = 6;

/// What may be left of `unsynced` bytes.
fn tears(unsynced: usize) -> impl Iterator<Item = Tear> {
    let step = (unsynced / PREFIXES).max(1);
    let ends = [1, 7, 39, 40, 41, unsynced.saturating_sub(1)];
    let prefixes =
        (0..unsynced).step_by(step).chain(ends.into_iter().filter(move |n| *n < unsynced));
    [Tear::Nothing, Tear::Everything]
        .into_iter()
        .chain(prefixes.map(Tear::Prefix))
        .chain((0..DRAWS).map(Tear::Sectors))
}

/// Runs the script until the machine stops at this operation; `None` when it never does.
fn run_until(operation: u64, script: &[Step]) -> Option<Bed> {
    let disk = SimDisk::new();
    disk.crash_at(operation);
    let Ok((mut bed, _)) = Bed::open(&disk) else {
        // It stopped while a new log was begun. Nothing was acknowledged; open it elsewhere to get
        // a bed, and keep the disk.
        let (mut bed, _) = Bed::open(&SimDisk::new()).unwrap();
        bed.disk = disk;
        return Some(bed);
    };
    let crashed = bed.run(script).is_err();
    bed.wal.shutdown();
    (crashed || disk.operations() > operation).then_some(bed)
}

#[test]
fn whatever_a_power_cut_leaves_all_that_was_acknowledged_is_there() {
    let script = script();
    let mut cuts = 0;
    for operation in 0.. {
        let Some(bed) = run_until(operation, &script) else { break };
        for tear in tears(bed.disk.unsynced_bytes()) {
            let disk = bed.disk.fork();
            disk.power_cut(tear);
            let context = format!("stopped at operation {operation}, kept {tear:?}");
            let found = content(&disk).unwrap_or_else(|error| panic!("{context}: {error}"));
            assert!(
                bed.allows(&found),
                "{context}: found {found:#?}\nacknowledged {:#?}\nsubmitted {:#?}",
                bed.acknowledged.content(),
                bed.submitted.content(),
            );
            assert_eq!(content(&disk).unwrap(), found, "{context}: opened a second time");
            cuts += 1;
        }
    }
    assert!(cuts > 2000, "only {cuts} cuts: the script is too short to show anything");
}

#[test]
fn a_log_goes_on_after_a_power_cut_as_if_nothing_had_been() {
    let script = script();
    for operation in (0..).step_by(3) {
        let Some(bed) = run_until(operation, &script) else { break };
        bed.disk.power_cut(Tear::Sectors(operation));
        let context = format!("stopped at operation {operation}");
        let (mut next, recovery) = Bed::open(&bed.disk).unwrap();
        let found = read_content(&next.wal, &recovery);
        for model in [&mut next.acknowledged, &mut next.submitted] {
            let base = if found == bed.acknowledged.content() {
                &bed.acknowledged
            } else {
                &bed.submitted
            };
            *model = base.clone();
        }
        next.run(&script[5..25]).unwrap_or_else(|fault| panic!("{context}: {fault}"));
        next.disk.power_cut(Tear::Nothing);
        assert_eq!(content(&next.disk).unwrap(), next.acknowledged.content(), "{context}");
    }
}

#[test]
fn a_power_cut_while_opening_loses_nothing() {
    let script = script();
    for operation in (0..).step_by(7) {
        let Some(bed) = run_until(operation, &script) else { break };
        bed.disk.power_cut(Tear::Sectors(operation));
        let expected = content(&bed.disk.fork()).unwrap();
        for later in 0.. {
            let disk = bed.disk.fork();
            disk.crash_at(disk.operations() + later);
            if Bed::open(&disk).is_ok() {
                break;
            }
            for tear in tears(disk.unsynced_bytes()) {
                let disk = disk.fork();
                disk.power_cut(tear);
                let context = format!(
                    "stopped at operation {operation}, then {later} into opening, kept {tear:?}"
                );
                let found = content(&disk).unwrap_or_else(|error| panic!("{context}: {error}"));
                assert_eq!(found, expected, "{context}");
            }
        }
    }
}

#[test]
fn the_script_goes_through_new_reused_and_oversized_segments() {
    let disk = SimDisk::new();
    let (mut bed, _) = Bed::open(&disk).unwrap();
    bed.run(&script()).unwrap();
    bed.wal.shutdown();
    let names = disk.names();
    let newest = names.iter().filter_map(|name| match segment::FileName::parse(name) {
        Some(segment::FileName::Segment(id)) => Some(id),
        _ => None,
    });
    assert!(newest.max().unwrap() > 8, "{names:?}");
    assert!(bed.wal.stats().segments < 7, "old segments were given up: {names:?}");
}
