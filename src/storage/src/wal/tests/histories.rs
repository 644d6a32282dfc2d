//! Arbitrary histories with restarts, kills and power cuts between the steps.

use proptest::prelude::*;

use super::*;

#[derive(Clone, Debug)]
enum Event {
    Step(Step),
    /// In order.
    Restart,
    /// The process dies.
    Kill,
    PowerCut(Tear),
}

fn event() -> impl Strategy<Value = Event> {
    let group = || 0u32..4;
    prop_oneof![
        12 => (group(), 1u64..5, 0usize..300)
            .prop_map(|(group, count, bytes)| Event::Step(Step::Append { group, count, bytes })),
        2 => (group(), any::<u8>()).prop_map(|(group, vote)| Event::Step(Step::Vote { group, vote })),
        2 => (group(), 0u64..4).prop_map(|(group, count)| Event::Step(Step::Truncate { group, count })),
        4 => (group(), 0u64..4).prop_map(|(group, keep)| Event::Step(Step::Purge { group, keep })),
        1 => (group(), 0u64..9).prop_map(|(group, ahead)| Event::Step(Step::Skip { group, ahead })),
        1 => Just(Event::Restart),
        1 => Just(Event::Kill),
        1 => Just(Event::PowerCut(Tear::Nothing)),
        1 => any::<u64>().prop_map(|seed| Event::PowerCut(Tear::Sectors(seed))),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 192, ..ProptestConfig::default() })]

    #[test]
    fn every_history_equals_that_of_the_model(events in prop::collection::vec(event(), 1..80), cache_bytes in 0usize..3000) {
        let disk = SimDisk::new();
        let options = WalOptions { cache_bytes, ..options() };
        let (mut bed, _) = Bed::open_with(&disk, options.clone()).unwrap();
        for event in events.into_iter().chain([Event::Restart]) {
            match event {
                Event::Step(step) => {
                    bed.step(&step).unwrap();
                    for (id, group) in &bed.submitted.groups {
                        let read = bed.wal.read(*id, 0..u64::MAX).unwrap();
                        prop_assert_eq!(&read.into_iter().collect::<BTreeMap<_, _>>(), &group.entries);
                    }
                    continue;
                }
                Event::Restart => bed.wal.shutdown(),
                Event::Kill => disk.kill(),
                Event::PowerCut(tear) => disk.power_cut(tear),
            }
            let (mut next, recovery) = Bed::open_with(&disk, options.clone()).unwrap();
            prop_assert_eq!(read_content(&next.wal, &recovery), bed.acknowledged.content());
            next.acknowledged = bed.acknowledged.clone();
            next.submitted = bed.acknowledged.clone();
            bed = next;
        }
    }
}
